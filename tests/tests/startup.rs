//! How the daemon starts, and how it refuses to.

use std::os::unix::fs::PermissionsExt as _;

use serde_json::json;
use shepherd_tests::ids::{SCRIPTED, SHEEP};
use shepherd_tests::{Harness, Script, SmallDisk, skip};

/// Runs the binary on a configuration that it must refuse; what it printed.
async fn refused(harness: &Harness, text: &str, arguments: &[&str]) -> String {
    std::fs::write(harness.path("bad.yaml"), text).expect("a file can be written");
    let mut command = harness.bare_command();
    command.args(arguments).args(["-c", "bad.yaml"]);
    let ended = harness.run(command).await;
    assert_eq!(ended.code, Some(2), "{}", ended.log);
    ended.log
}

#[tokio::test]
async fn it_says_what_it_has() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let text = daemon.log().text();
    for line in [
        &format!("Created sheep `{SHEEP}` of type `bare`"),
        "Storage appears to be up and running",
        "Shepherd API is available at http://127.0.0.1:",
    ] {
        let plain = text.replace('`', "");
        assert!(plain.contains(&line.replace('`', "")), "no `{line}` in:\n{text}");
    }
    assert!(!text.contains('\u{1b}'), "no colours where no terminal is");
}

#[tokio::test]
async fn the_log_can_be_json() {
    let harness = Harness::new().with(json!({"logging": {"format": "json", "level": "debug"}}));
    let daemon = harness.start().await;
    daemon.client().run("logged", SCRIPTED, &Script::Say("x".into())).await;
    let ended = daemon.stop().await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    for line in ended.log.lines() {
        let value: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        assert!(value.is_object(), "{line}");
    }
}

#[tokio::test]
async fn mistakes_are_shown_with_their_places_all_at_once() {
    let harness = Harness::new();
    let text = "\
data_root: /tmp/never
sheep:
  alpha:
    type: bear
    working_directory: /tmp
  beta:
    type: bare
    port: many
    working_directory: /tmp
nonsense: 1
";
    for arguments in [&[][..], &["check"]] {
        let log = refused(&harness, text, arguments).await;
        for place in ["bad.yaml:4:", "bad.yaml:8:", "bad.yaml:10:"] {
            assert!(log.contains(place), "no {place} in:\n{log}");
        }
        for expected in ["bare", "nonsense"] {
            assert!(log.contains(expected), "no `{expected}` in:\n{log}");
        }
    }
}

#[tokio::test]
async fn other_mistakes() {
    let harness = Harness::new();
    let sheep = "sheep: {a: {type: bare, working_directory: /tmp}}\n";
    let cases = [
        ("sheep: [\n", "bad.yaml:"),
        ("", "bad.yaml"),
        ("- a list\n", "bad.yaml:1:1"),
        (sheep, "data_root"),
        ("data_root: /tmp/never\n", "sheep"),
        (&format!("data_root: $SHEPHERD_TEST_IS_NOT_SET\n{sheep}"), "SHEPHERD_TEST_IS_NOT_SET"),
        (&format!("data_root: /tmp/never\nstorage: {{url: nonsense}}\n{sheep}"), "storage.url"),
        ("data_root: /tmp/never\nsheep: {a: {type: docker, port: 9001}}\n", "registry"),
    ];
    for (text, expected) in cases {
        let log = refused(&harness, text, &[]).await;
        assert!(log.contains(expected), "no `{expected}` for `{text}` in:\n{log}");
    }
    let mut command = harness.bare_command();
    command.args(["-c", "not-there.yaml"]);
    let ended = harness.run(command).await;
    assert_eq!(ended.code, Some(2), "{}", ended.log);
    assert!(ended.log.contains("not-there.yaml"), "{}", ended.log);
}

#[tokio::test]
async fn check_only_checks() {
    let harness = Harness::new();
    let mut command = harness.bare_command();
    command.arg("check").arg("-c").arg(harness.write_config());
    let ended = harness.run(command).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
    assert!(!harness.path("state").exists(), "checking makes nothing");
}

#[tokio::test]
async fn check_looks_at_what_the_configuration_names() {
    let harness = Harness::new().with_sheep(SHEEP, json!({"runner_command": ["no-such-runner"]}));
    std::fs::write(harness.path("file"), "").unwrap();
    let keys = json!({
        "data_root": harness.path("file/data"),
        "sheep": {SHEEP: {"working_directory": harness.path("absent"), "stdout_file": harness.path("nowhere/out")}},
    });
    let harness = harness.with(keys);
    let config = harness.write_config();
    let check = |arguments: &[&str]| {
        let mut command = harness.bare_command();
        command.arg("check").args(arguments).arg("-c").arg(&config);
        harness.run(command)
    };
    let ended = check(&[]).await;
    assert_eq!(ended.code, Some(2), "{}", ended.log);
    for (key, place) in [
        ("data_root", harness.path("file")),
        ("sheep.dolly.working_directory", harness.path("absent")),
        ("sheep.dolly.stdout_file", harness.path("nowhere")),
    ] {
        let expected = format!("shepherd.yaml: {key}: {} ", place.display());
        assert!(ended.log.contains(&expected), "no `{expected}` in:\n{}", ended.log);
    }
    assert!(
        ended.log.contains("sheep.dolly.runner_command: cannot find the runner `no-such-runner`"),
        "{}",
        ended.log
    );
    let ended = check(&["--offline"]).await;
    assert_eq!(ended.code, Some(0), "{}", ended.log);
}

#[tokio::test]
async fn help_is_spelled_out_and_h_is_the_host() {
    let harness = Harness::new();
    let mut command = harness.bare_command();
    command.arg("--help");
    let ended = harness.run(command).await;
    assert_eq!(ended.code, Some(0));
    assert!(ended.log.contains("-h") && ended.log.contains("HOST"), "{}", ended.log);
    let mut command = harness.bare_command();
    command.arg("--nonsense");
    assert_ne!(harness.run(command).await.code, Some(0));

    let mut command = harness.bare_command();
    command.arg("-c").arg(harness.write_config()).args(["-h", "localhost", "-p", "0"]);
    let mut daemon = harness.spawn(command);
    daemon.await_line("Shepherd API is available at http://").await;
    drop(daemon);
    let mut command = harness.command();
    command.args(["-h", "127.0.0.2"]);
    // Twice is a mistake, or the last one counts; it is never ignored silently.
    daemon = harness.spawn(command);
    tokio::select! {
        ended = daemon.ended() => assert_ne!(ended.code, Some(0)),
        line = daemon.log().line_with("Shepherd API is available at ") => assert!(line.contains("127.0.0.2"), "{line}"),
    }
}

#[tokio::test]
async fn the_environment_overrides_and_is_interpolated() {
    let harness = Harness::new().with(json!({"limits": {"max_body_bytes": "$LIMIT_OF_$WHAT"}}));
    let text = std::fs::read_to_string(harness.write_config()).unwrap();
    // Quoted text, as all of JSON is, stands for itself.
    std::fs::write(harness.path("plain.yaml"), text.replace("\"$LIMIT_OF_$WHAT\"", "$LIMIT_OF_$WHAT"))
        .unwrap();
    let command = || {
        let mut command = harness.bare_command();
        command.args(["-c", "plain.yaml", "-h", "127.0.0.1", "-p", "0"]);
        command
    };
    let mut command_of = command();
    command_of.env("LIMIT_OF_", "10").env("WHAT", "00");
    // `$LIMIT_OF_` and `$WHAT` are two references: 1000.
    let daemon = harness.start_command(command_of).await;
    let big = shepherd_tests::start_body("big", SCRIPTED, &"x".repeat(3000));
    assert_eq!(daemon.client().start_job(&big).await.status, 413);
    daemon.kill().await;
    let mut command = command();
    command.env("LIMIT_OF_", "10").env("WHAT", "00").env("SHEPHERD__LIMITS__MAX_BODY_BYTES", "5000");
    let daemon = harness.start_command(command).await;
    assert_eq!(daemon.client().start_job(&big).await.status, 200);
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let harness = Harness::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let mut command = harness.bare_command();
    command.arg("-c").arg(harness.write_config()).args(["-h", "127.0.0.1", "-p", &port]);
    let ended = harness.run(command).await;
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.log.contains(&port), "{}", ended.log);
    assert!(harness.processes().is_empty(), "a daemon that did not start leaves no process");
}

#[tokio::test]
async fn a_second_daemon_on_one_state_directory_is_refused() {
    let harness = Harness::new();
    let daemon = harness.start().await;
    let client = daemon.client();
    let gate = harness.path("gate");
    client.submit("guarded", SCRIPTED, &Script::Gate(gate.clone())).await.expect_status(200);
    harness.begun("guarded", 1).await;
    let ended = harness.run(harness.command()).await;
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    let state = harness.path("state").display().to_string();
    assert!(ended.log.contains(&state), "{}", ended.log);
    // The first was not disturbed, nor were its runner and its working directories.
    harness.open_gate(&gate);
    assert_eq!(client.finished("guarded").await["status"], "done");
    assert_eq!(harness.journal().runs_of("guarded").len(), 1);
    // The directory is free again after a death.
    daemon.kill().await;
    let daemon = harness.start().await;
    assert_eq!(daemon.client().status("guarded").await["status"], "done");
}

#[tokio::test]
async fn a_read_only_data_root_is_named() {
    let harness = Harness::new();
    let data = harness.path("data");
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).unwrap();
    // To root any permission is permission: then a file system that refuses.
    let disk = if std::fs::write(data.join("probe"), "").is_ok() {
        let Ok(disk) = SmallDisk::mount(&data, 1 << 20) else {
            return skip("a file system cannot be mounted here, and root may write anywhere");
        };
        disk.set_read_only(true).unwrap();
        Some(disk)
    } else {
        None
    };
    let ended = harness.run(harness.command()).await;
    assert!(ended.code.is_some_and(|code| code != 0), "{ended:?}");
    assert!(ended.log.contains(&data.display().to_string()), "{}", ended.log);
    drop(disk);
}

#[tokio::test]
async fn data_root_is_cleaned_and_the_state_is_not() {
    let harness = Harness::new().with(json!({"state_dir": null, "storage": null}));
    let daemon = harness.start().await;
    daemon.client().run("kept", SCRIPTED, &Script::Say("kept".into())).await;
    daemon.kill().await;
    let litter = harness.path("data").join(SHEEP).join("litter");
    std::fs::create_dir_all(&litter).unwrap();
    std::fs::write(litter.join("file"), "x").unwrap();
    let daemon = harness.start().await;
    assert!(!litter.exists(), "working directories are cleaned at the start");
    assert_eq!(daemon.client().status("kept").await["status"], "done");
    assert_eq!(daemon.client().result("kept").await.text(), "kept");
}

#[tokio::test]
async fn clients_leave_descriptors_for_jobs_however_few_there_are() {
    let harness = Harness::new().with(json!({"limits": {"max_connections_per_address": 10_000}}));
    let plain = harness.command();
    let mut command = std::process::Command::new("sh");
    command
        .args(["-c", "ulimit -Sn 256 && ulimit -Hn 1200 && exec \"$0\" \"$@\""])
        .arg(plain.get_program())
        .args(plain.get_args())
        .envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(dir) = plain.get_current_dir() {
        command.current_dir(dir);
    }
    let daemon = harness.start_command(command).await;
    let text = daemon.log().text();
    assert!(text.contains("limits.max_connections is lowered from 10000 to 456"), "{text}");
    // More than the soft limit that it was started with.
    let mut idle = Vec::new();
    for _ in 0..400 {
        idle.push(
            tokio::net::TcpStream::connect(daemon.client().address()).await.expect("it takes connections"),
        );
    }
    let done = daemon.client().run("job", SCRIPTED, &Script::Say("x".into())).await;
    assert_eq!(done["status"], "done");
    let soft = |pid: i32| {
        let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("there is one");
        line.split_whitespace().nth(3).expect("there is a soft limit").to_owned()
    };
    assert_eq!(soft(daemon.pid()), "1200");
    let [runner] = daemon.runners()[..] else { panic!("there is one runner") };
    assert_eq!(soft(runner), "256", "programs that use select rely on it");
}
