//! What becomes of what a runner writes.

use shepherd_sheep::{ExitCause, Sheep as _};

use crate::site::{site, until};

#[tokio::test]
async fn output_goes_to_files_that_are_rotated() {
    let Some(site) = site() else { return };
    let dir = site.dir.path().join("logs");
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("err"), "of an earlier run\n").unwrap();
    let mut options =
        site.options("i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; echo done >&2");
    (options.stdout_file, options.stderr_file) = (Some(dir.join("out")), Some(dir.join("err")));
    (options.log_max_bytes, options.log_files) = (4096, 3);
    let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
    assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(0), "done"));
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(read("err"), "of an earlier run\ndone\n");
    let whole: String = ["out.3", "out.2", "out.1", "out"].map(read).concat();
    let end: String = (0..2000).map(|i| format!("line {i}\n")).collect();
    assert!(end.ends_with(&whole) && whole.len() > 3 * 4000, "the end of it, in order");
    assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 5);
}

#[tokio::test]
async fn what_is_printed_can_be_had_while_the_runner_runs() {
    let Some(site) = site() else { return };
    let log = site.dir.path().join("log");
    let mut options = site.options(
        "read -r line < /dev/null; while [ ! -e $HOME/go ]; do sleep 0.01; done; \
         echo one; echo two >&2; printf thr; printf 'ee\\n'; sleep 1000",
    );
    options.env = vec![("HOME".to_owned(), site.home().to_string_lossy().into_owned())];
    options.stdout_file = Some(log);
    let mut running = site.sheep(options).launch(&site.model()).await.unwrap();
    assert_eq!(running.printed(), "", "what was printed before somebody asks is not kept");
    std::fs::write(site.home().join("go"), "").unwrap();
    let mut printed = String::new();
    until(|| {
        printed.push_str(&running.printed());
        printed.contains("three\n") && printed.contains("two\n")
    })
    .await;
    let mut lines: Vec<&str> = printed.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["one", "three", "two"]);
    assert_eq!(running.printed(), "");
}

#[tokio::test]
async fn both_streams_may_go_to_one_file() {
    let Some(site) = site() else { return };
    let mut options = site.options("echo one; echo two >&2; exit 1");
    let log = site.dir.path().join("log");
    (options.stdout_file, options.stderr_file) = (Some(log.clone()), Some(log.clone()));
    let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
    assert_eq!(exit.log_tail, "two");
    let log = std::fs::read_to_string(log).unwrap();
    assert!(log.len() == 8 && log.contains("one\n") && log.contains("two\n"), "{log}");
}

#[tokio::test]
async fn a_flood_or_a_full_disk_stops_nobody() {
    let Some(site) = site() else { return };
    let script = "yes 'a line of a runner that has much to say' | head -n 400000; echo last >&2; exit 6";
    for file in [None, Some("/dev/full")] {
        let mut options = site.options(script);
        options.stdout_file = file.map(Into::into);
        let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
        assert_eq!((exit.cause, exit.log_tail.as_str()), (ExitCause::Code(6), "last"));
    }
}

#[tokio::test]
async fn long_lines_and_no_lines_come_whole() {
    let Some(site) = site() else { return };
    let log = site.dir.path().join("log");
    let mut options = site.options("head -c 50000 /dev/zero | tr '\\0' x; printf end");
    options.command = Some(
        ["/bin/sh", "-c", "dd if=/dev/zero bs=50000 count=1 2>/dev/null | cat -v; printf end"]
            .map(str::to_owned)
            .to_vec(),
    );
    options.stdout_file = Some(log.clone());
    let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
    assert!(exit.log_tail.ends_with("^@^@end"), "{exit}");
    assert_eq!(std::fs::read_to_string(log).unwrap(), format!("{}end", "^@".repeat(50_000)));
}
