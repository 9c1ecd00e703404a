use super::*;

fn names(record: &Record) -> Vec<String> {
    record.oldest_first().into_iter().map(|image| image.name).collect()
}

#[test]
fn what_was_pulled_is_known_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state/images.json");
    let record = Record::read(path.clone(), "unix:///e".to_owned());
    record.add("r/a:1", "sha256:1");
    record.add("r/a:1", "sha256:1");
    record.add("r/a:1", "sha256:2");
    record.write();
    let again = Record::read(path, "unix:///e".to_owned());
    assert_eq!(again.oldest_first(), record.oldest_first());
    assert_eq!(names(&again), ["r/a:1", "r/a:1"]);
    again.forget(&again.oldest_first()[0].clone());
    assert_eq!(again.oldest_first().len(), 1);
}

#[test]
fn the_least_recently_used_comes_first() {
    let record = Record::read(PathBuf::from("/nowhere/images.json"), String::new());
    for (name, last_use) in [("b", 20), ("a", 10), ("c", 30)] {
        record.lock().push(Pulled { name: name.to_owned(), id: "sha256:1".to_owned(), last_use });
    }
    assert_eq!(names(&record), ["a", "b", "c"]);
    record.touch("a", "sha256:1");
    assert_eq!(names(&record), ["b", "c", "a"]);
    record.touch("unknown", "sha256:1");
    assert_eq!(names(&record).len(), 3);
}

#[test]
fn a_broken_record_or_one_of_another_engine_knows_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("images.json");
    let record = Record::read(path.clone(), "unix:///e".to_owned());
    record.add("r/a:1", "sha256:1");
    record.write();
    assert!(names(&Record::read(path.clone(), "tcp://other:2375".to_owned())).is_empty());

    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert!(names(&Record::read(path.clone(), "unix:///e".to_owned())).is_empty(), "{length} bytes");
    }
}

#[test]
fn a_record_that_cannot_be_written_is_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let record = Record::read(file.join("images.json"), String::new());
    record.add("r/a:1", "sha256:1");
    record.write();
    assert_eq!(names(&record), ["r/a:1"]);
}
