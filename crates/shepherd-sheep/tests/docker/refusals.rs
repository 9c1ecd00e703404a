//! Runners that cannot be started, and why.

use std::net::TcpListener;

use shepherd_job::ModelRef;
use shepherd_sheep::{DockerOptions, DockerSheep, ExitCause, Gpus, Mount, Sheep as _, SheepError, Transport};

use crate::fence::free_port;
use crate::site::{Site, site};

/// Checks that a launch is refused as its operator's to mend, in these words.
async fn misconfigured(site: &Site, options: DockerOptions, words: &str) {
    match site.refusal(options).await {
        SheepError::Misconfigured(text) => assert!(text.contains(words), "{text}"),
        other => panic!("{words}: {other:?}"),
    }
}

type Change = fn(&mut DockerOptions);

fn changed(site: &Site, change: Change) -> DockerOptions {
    let mut options = site.options("sleep 1000");
    change(&mut options);
    options
}

#[tokio::test]
async fn what_the_engine_does_not_take_is_said_clearly() {
    let Some(site) = site() else { return };
    let cases: [(Change, &str); 4] = [
        (|o| o.network = Some("nowhere".to_owned()), "no network `nowhere`"),
        (|o| o.memory = Some(1 << 20), "the configured memory"),
        (|o| o.cpus = Some(10_000.0), "the configured cpus"),
        (|o| o.capabilities = vec!["NOT_ONE".to_owned()], "the configured capabilities"),
    ];
    for (change, words) in cases {
        misconfigured(&site, changed(&site, change), words).await;
    }
    let mut missing = site.options("");
    missing.mounts = vec![Mount { source: "/no/such".into(), target: "/models".into(), read_only: true }];
    misconfigured(&site, missing, "/no/such, which this sheep mounts").await;
    // Refused of every image, in words that are not known.
    let mut nested = site.options("");
    nested.mounts = vec![Mount { source: "/etc".into(), target: "/proc".into(), read_only: true }];
    misconfigured(&site, nested, "the engine refuses the container").await;
    // The sheep is none the worse for it.
    assert_eq!(site.launch("exit 4").await.exited().await.cause, ExitCause::Code(4));
}

#[tokio::test]
async fn devices_and_users_that_are_not_there_fail_jobs() {
    let Some(site) = site() else { return };
    let cases: [(Change, &str); 7] = [
        (|o| o.gpus = Some(Gpus::All), "no driver for GPUs"),
        (|o| o.gpus = Some(Gpus::Ids(vec!["0".to_owned()])), "no driver for GPUs"),
        (|o| o.cdi = vec!["nvidia.com/gpu=0".to_owned()], "does not know CDI devices"),
        (|o| o.devices = vec!["/dev/nvidia0".to_owned()], "no runtime `nvidia`"),
        (|o| o.devices = vec!["/dev/no-such-device".to_owned()], "a device of this sheep is not"),
        (|o| o.user = Some("ghost".to_owned()), "does not know the user `ghost`"),
        (
            |o| o.stdout_file = Some("/proc/no/such/file".into()),
            "cannot open the `stdout_file` of sheep `dolly`",
        ),
    ];
    for (change, words) in cases {
        match site.refusal(changed(&site, change)).await {
            SheepError::Model(text) => assert!(text.contains(words), "{text}"),
            other => panic!("{words}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn images_that_are_not_fit_to_run_fail_their_jobs() {
    let Some(site) = site() else { return };
    let mut options = site.options("");
    options.command = None;
    let sheep = site.sheep(options);
    let absent = sheep.launch(&ModelRef::parse(&site.instance, "absent").unwrap()).await.err().unwrap();
    assert!(matches!(absent, SheepError::Model(_)), "{absent}");

    let image = |version: &str| format!("shepherd.test/{}-{version}:1", site.instance);
    let model = |version: &str| ModelRef::parse(&format!("{}-{version}", site.instance), "1").unwrap();
    let command = "CMD [\"/bin/sh\", \"-c\", \"exit 0\"]";
    // Some the engine refuses to make a container of, and some to start it.
    let images: [(&str, &[&str], &str); 7] = [
        ("idle", &[], "does not say what to run"),
        ("ghost", &[command, "USER ghost"], "names a user"),
        ("workdir", &[command, "WORKDIR /etc/passwd"], "the engine cannot run the image"),
        ("volume-on-file", &[command, "VOLUME /etc/passwd"], "the engine cannot run the image"),
        ("volume-on-all", &[command, "VOLUME /"], "the engine cannot run the image"),
        ("volume-on-devices", &[command, "VOLUME /dev"], "the engine cannot run the image"),
        ("nobody", &[command, "USER 99999999999"], "the engine cannot run the image"),
    ];
    for (version, changes, words) in images {
        site.import(&image(version), changes);
        match sheep.launch(&model(version)).await.err().unwrap() {
            SheepError::Model(text) => {
                assert!(text.contains(words) && text.contains(version), "{version}: {text}");
            }
            other => panic!("{version}: {other:?}"),
        }
        assert_eq!(site.containers(), "", "{version}");
    }
    // Only its init process finds out.
    site.import(&image("broken"), &["CMD [\"/bin/no-such-program\"]"]);
    let exit = sheep.launch(&model("broken")).await.unwrap().exited().await;
    assert_eq!(exit.cause, ExitCause::Code(127));
    assert!(exit.log_tail.contains("/bin/no-such-program"), "{exit}");
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn whoever_holds_the_port_is_named_and_left_alone() {
    let Some(site) = site() else { return };
    let over_tcp = |port| {
        let mut options = site.options("sleep 1000");
        (options.transport, options.port) = (Transport::Tcp, port);
        options
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let error = site.refusal(over_tcp(port)).await;
    assert!(matches!(error, SheepError::Unavailable(_)));
    assert_eq!(error.to_string(), format!("port {port} is in use by another process"));

    let port = free_port();
    let name = format!("{}-holder", site.instance);
    let holder = site.stranger(&["--name", &name, "-p", &format!("127.0.0.1:{port}:80")], "sleep 1000");
    let error = site.refusal(over_tcp(port)).await;
    assert!(matches!(error, SheepError::Unavailable(_)));
    assert!(
        error.to_string().contains(&format!("port {port} is in use by the container `{name}`")),
        "{error}"
    );
    assert!(holder.is_running());
    drop(holder);
    site.sheep(over_tcp(port)).launch(&site.model()).await.unwrap().stop(std::time::Duration::ZERO).await;
}

#[tokio::test]
async fn an_engine_that_is_away_is_waited_for() {
    let Some(site) = site() else { return };
    let mut away = site.options("");
    away.data_root = site.dir.path().join("other");
    let sheep = DockerSheep::new(away, site.engine_at("unix:///no/such/engine.sock"));
    sheep.sweep().await.unwrap();
    match sheep.launch(&site.model()).await.err().unwrap() {
        SheepError::Unavailable(text) => assert!(text.contains("/no/such/engine.sock"), "{text}"),
        other => panic!("{other:?}"),
    }
}
