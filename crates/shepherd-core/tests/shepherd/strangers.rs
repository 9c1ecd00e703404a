//! Runners that are strangers: they see the jobs they are to work on, and can reach
//! nothing else.

use std::path::Path;
use std::sync::{Arc, Mutex};

use shepherd_protocol::Input;
use tokio::sync::Semaphore;

use crate::fake::{Harness, Io, Script, echo, file};
use crate::faults::Faulty;

fn names(dir: &str) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Who saw what.
type Seen = Arc<Mutex<Vec<(String, Vec<String>)>>>;

/// Does for each job what `work` does, and notes who saw what before it.
fn watching(seen: &Seen, work: impl Fn(&mut Io, &Input) + Send + Sync + 'static) -> Script {
    let seen = Arc::clone(seen);
    Arc::new(move |io| {
        while let Some(input) = io.next() {
            seen.lock().unwrap().push((io.model.to_string(), names(&input.io_data_root)));
            work(io, &input);
            io.done(&input);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_model_sees_nothing_of_the_one_before() {
    let seen = Seen::default();
    let script = watching(&seen, |io, input| {
        assert_eq!(names(file(input, "inputs").to_str().unwrap()), ["input"]);
        assert!(names(file(input, "outputs").to_str().unwrap()).is_empty());
        echo(input);
        if io.model.name() == "hoarder" {
            let home = Path::new(&*input.io_data_root);
            std::fs::create_dir_all(home.join("hoard/deep")).unwrap();
            std::fs::copy(file(input, "inputs/input"), home.join("hoard/deep/input")).unwrap();
            std::fs::create_dir_all(home.join("job-3/outputs/planted")).unwrap();
            std::fs::write(file(input, "inputs/another"), "x").unwrap();
        }
    });
    let harness = Harness::isolated(script, |local| Arc::clone(local) as _).await;
    for (name, model) in [("job-1", "hoarder"), ("job-2", "hoarder"), ("job-3", "m"), ("job-4", "m")] {
        let id = harness.submit(name, model, name).await;
        harness.is_done(&id).await;
        assert_eq!(harness.read(&id, "outputs/output").await, name.as_bytes());
    }
    let seen: Vec<_> = std::mem::take(&mut *seen.lock().unwrap());
    let by = |model: &str| -> Vec<Vec<String>> {
        seen.iter().filter(|(by, _)| by.starts_with(model)).map(|(_, names)| names.clone()).collect()
    };
    assert_eq!(by("hoarder")[0], ["job-1"]);
    assert_eq!(by("m"), [["job-3"], ["job-4"]]);
    harness.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn outputs_that_wait_for_the_storage_are_out_of_reach() {
    let seen = Seen::default();
    let script = watching(&seen, |io, input| {
        std::fs::write(file(input, "outputs/output"), io.model.name().repeat(100_000)).unwrap();
    });
    let mut faulty = None;
    let harness = Harness::isolated(script, |local| {
        let mut storage = Faulty::new(local);
        storage.gate = Semaphore::new(0);
        let storage = Arc::new(storage);
        faulty = Some(Arc::clone(&storage));
        storage
    });
    let (harness, storage) = (harness.await, faulty.unwrap());
    let first = harness.submit("job-1", "a", "x").await;
    storage.at_gate.acquire().await.unwrap().forget();
    let second = harness.submit("job-2", "b", "x").await;
    storage.at_gate.acquire().await.unwrap().forget();
    storage.gate.add_permits(2);
    for (id, model) in [(first, "a"), (second, "b")] {
        harness.is_done(&id).await;
        assert!(harness.read(&id, "outputs/output").await == model.repeat(100_000).as_bytes());
    }
    let seen: Vec<_> = seen.lock().unwrap().iter().map(|(_, names)| names.clone()).collect();
    assert_eq!(seen, [["job-1"], ["job-2"]]);
    harness.shutdown().await;
}
