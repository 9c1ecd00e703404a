//! What a runner can and cannot do.

use std::collections::HashMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use shepherd_sheep::{ExitCause, Mount, Sheep as _, Transport};

use crate::site::{Site, site, until};

/// What a script writes to stdout when it runs with these options.
async fn output(site: &Site, options: shepherd_sheep::DockerOptions) -> String {
    let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
    assert_eq!(exit.cause, ExitCause::Code(0), "{exit}");
    exit.log_tail
}

/// The lines of `/proc/self/status`.
fn status(text: &str) -> HashMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

#[tokio::test]
async fn a_runner_has_no_capabilities_and_gains_no_privileges() {
    let Some(site) = site() else { return };
    let plain = output(&site, site.options("cat /proc/self/status")).await;
    let plain = status(&plain);
    let none = "0000000000000000";
    assert_eq!([plain["CapEff"], plain["CapPrm"], plain["CapBnd"], plain["CapInh"]], [none; 4]);
    assert_eq!((plain["NoNewPrivs"], plain["Seccomp"]), ("1", "2"));
    assert_eq!(
        plain["Uid"].split_whitespace().next(),
        Some("0"),
        "the image's own user, as the daemon is root"
    );

    let mut options = site.options("cat /proc/self/status; id");
    options.user = Some("shep".to_owned());
    options.capabilities = vec!["SYS_NICE".to_owned()];
    let asked = output(&site, options).await;
    assert!(asked.contains("uid=1234(shep) gid=1234(shep)"), "{asked}");
    let asked = status(&asked);
    assert_eq!((asked["CapBnd"], asked["CapEff"]), ("0000000000800000", none));
    let group = rustix::process::getegid().as_raw().to_string();
    assert!(asked["Groups"].split_whitespace().any(|g| g == group), "{}", asked["Groups"]);
}

#[tokio::test]
async fn the_image_is_read_only_but_for_tmp_and_the_sheeps_directory() {
    let Some(site) = site() else { return };
    let probe = "touch /file || echo no file; touch /bin/file || echo no program; touch /tmp/file && echo tmp; \
                 echo data > $HOME_DIR/out && echo home; dd if=/dev/zero of=/tmp/big bs=1M count=200 2>/dev/null || echo full";
    let mut options = site.options(probe);
    options.env = vec![("HOME_DIR".to_owned(), site.home().to_str().unwrap().to_owned())];
    options.stderr_file = Some(site.dir.path().join("stderr"));
    options.memory = Some(64 << 20);
    let sheep = site.sheep(options.clone());
    sheep.launch(&site.model()).await.unwrap().exited().await;
    let stderr = std::fs::read_to_string(site.dir.path().join("stderr")).unwrap();
    assert_eq!(stderr.matches("Read-only file system").count(), 2, "{stderr}");
    assert_eq!(std::fs::read(site.home().join("out")).unwrap(), b"data\n");

    options.read_only = false;
    options.stderr_file = None;
    options.command = Some(["/bin/sh", "-c", "touch /file && echo written"].map(str::to_owned).to_vec());
    assert_eq!(output(&site, options).await, "written");
}

#[tokio::test]
async fn any_user_can_work_in_the_sheeps_directory_and_strangers_cannot() {
    let Some(site) = site() else { return };
    let mut options = site.options("echo 1 > $SHEPHERD_HOME/file; mkdir $SHEPHERD_HOME/dir; id -u");
    options.env = vec![("SHEPHERD_HOME".to_owned(), site.home().to_str().unwrap().to_owned())];
    options.user = Some("1234:1234".to_owned());
    assert_eq!(output(&site, options).await, "1234");
    let meta = |name: &str| std::fs::metadata(site.home().join(name)).unwrap();
    let group = rustix::process::getegid().as_raw();
    assert_eq!(meta(".").permissions().mode() & 0o7777, 0o2770);
    assert_eq!((meta("file").uid(), meta("file").gid(), meta("dir").gid()), (1234, group, group));
}

#[tokio::test]
async fn without_a_network_there_is_no_interface_but_the_loopback() {
    let Some(site) = site() else { return };
    assert_eq!(output(&site, site.options("ls /sys/class/net")).await, "lo");
}

#[tokio::test]
async fn a_runner_is_told_where_to_listen_and_who_it_is() {
    let Some(site) = site() else { return };
    let mut running = site
        .launch("echo \"$SHEPHERD_LISTEN $SHEPHERD_SHEEP $SHEPHERD_MODEL [$NVIDIA_VISIBLE_DEVICES]\"")
        .await;
    let endpoint = running.endpoint().to_owned();
    assert!(endpoint.starts_with(&format!("ipc://{}/.runner-", site.home().display())), "{endpoint}");
    assert_eq!(running.io_data_root(), site.home());
    let exit = running.exited().await;
    assert_eq!(exit.log_tail, format!("{endpoint} dolly {}:1 []", site.instance));
}

#[tokio::test]
async fn a_socket_is_reached_also_where_the_sheeps_path_is_too_long_for_one() {
    let Some(site) = site() else { return };
    for deep in [false, true] {
        let mut options =
            site.options("exec nc -l -p 1 -s local:${SHEPHERD_LISTEN#ipc://} || exec sleep 1000");
        if deep {
            options.data_root = site.dir.path().join("d".repeat(100)).join("dolly");
        }
        options.user = Some("1234:1234".to_owned());
        // A socket needs a program that makes one: the directory is what counts here.
        options.command = Some(
            ["/bin/sh", "-c", "touch ${SHEPHERD_LISTEN#ipc://} && exec sleep 1000"]
                .map(str::to_owned)
                .to_vec(),
        );
        let mut running = site.sheep(options.clone()).launch(&site.model()).await.unwrap();
        let socket = PathBuf::from(running.endpoint().strip_prefix("ipc://").unwrap());
        assert_eq!(socket.starts_with(&options.data_root), !deep);
        until(|| socket.exists()).await;
        running.kill();
        running.exited().await;
        assert!(!socket.exists());
        if deep {
            assert!(!socket.parent().unwrap().exists(), "the private directory goes with the run");
        }
    }
}

#[tokio::test]
async fn a_private_directory_of_an_earlier_life_is_removed_with_its_container() {
    let Some(site) = site() else { return };
    let mut options = site.options("sleep 1000");
    options.data_root = site.dir.path().join("d".repeat(100)).join("dolly");
    let sheep = site.sheep(options.clone());
    let running = sheep.launch(&site.model()).await.unwrap();
    let socket = PathBuf::from(running.endpoint().strip_prefix("ipc://").unwrap());
    std::fs::write(&socket, "").unwrap();
    // As a daemon that is killed: nothing of it runs on.
    std::mem::forget(running);
    site.sheep(options).sweep().await.unwrap();
    assert!(!socket.parent().unwrap().exists());
    assert_eq!(site.containers(), "");
}

#[tokio::test]
async fn a_port_is_published_on_the_loopback_interface_only() {
    let Some(site) = site() else { return };
    let port = free_port();
    let mut options = site.options("while :; do echo \"$SHEPHERD_LISTEN\" | nc -l -p 9999; done");
    (options.transport, options.port) = (Transport::Tcp, port);
    let mut running = site.sheep(options).launch(&site.model()).await.unwrap();
    assert_eq!(running.endpoint(), format!("tcp://127.0.0.1:{port}"));
    let said = || {
        use std::io::Read as _;
        let mut text = String::new();
        let heard =
            std::net::TcpStream::connect(("127.0.0.1", port)).and_then(|mut to| to.read_to_string(&mut text));
        heard.is_ok() && text == "tcp://0.0.0.0:9999\n"
    };
    until(said).await;
    let bindings = site.docker(&["port", &site.containers()]);
    assert_eq!(bindings, format!("9999/tcp -> 127.0.0.1:{port}"));
    running.stop(std::time::Duration::ZERO).await;
    // Free again, for the next one.
    drop(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
}

/// A port that was free a moment ago and that the system gives to nobody by itself.
pub(crate) fn free_port() -> u16 {
    let start = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap();
    let free = |port: &u16| std::net::TcpListener::bind(("0.0.0.0", *port)).is_ok();
    (start..32_000).find(free).expect("a port is free")
}

#[tokio::test]
async fn a_runner_that_takes_too_much_memory_is_killed_for_that() {
    let Some(site) = site() else { return };
    // The shell's own memory, and a child's: the one that is killed is not always the first.
    for (script, codes) in
        [("x=x; while :; do x=$x$x; done", "itself"), ("(x=x; while :; do x=$x$x; done); exit 3", "a child")]
    {
        for _ in 0..4 {
            let mut options = site.options(script);
            options.memory = Some(16 << 20);
            let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
            assert_eq!(exit.cause, ExitCause::OutOfMemory { limit: Some(16 << 20) }, "{codes}: {exit}");
        }
    }
}

#[tokio::test]
async fn processes_are_limited() {
    let Some(site) = site() else { return };
    let mut options = site.options("i=0; while [ $i -lt 30 ]; do sleep 60 & i=$((i+1)); done; echo all");
    options.pids = 20;
    let exit = site.sheep(options).launch(&site.model()).await.unwrap().exited().await;
    assert!(exit.log_tail.contains("can't fork") && exit.cause != ExitCause::Code(0), "{exit}");
}

#[tokio::test]
async fn mounts_are_as_they_are_configured() {
    let Some(site) = site() else { return };
    let source = site.dir.path().join("models");
    std::fs::create_dir(&source).unwrap();
    std::fs::write(source.join("weights"), "heavy").unwrap();
    let mut options =
        site.options("cat /models/weights; touch /models/new 2>/dev/null || echo , kept; touch /scratch/new");
    let mount = |target: &str, read_only| Mount { source: source.clone(), target: target.into(), read_only };
    options.mounts = vec![mount("/models", true), mount("/scratch", false)];
    assert_eq!(output(&site, options).await, "heavy, kept");
    assert!(source.join("new").exists());
}
