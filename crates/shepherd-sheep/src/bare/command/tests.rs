use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use shepherd_job::{ModelRef, SheepId};

use super::{config_path, environment, find, model_stamp, visible_gpus};
use crate::token::Token;
use crate::{BareOptions, SheepError, Transport};

fn options(working_directory: &Path) -> BareOptions {
    BareOptions::new(SheepId::parse("dolly").unwrap(), working_directory.to_owned(), "data/dolly".into())
}

fn model(name: &str, version: &str) -> ModelRef {
    ModelRef::parse(name, version).unwrap()
}

fn program(dir: &Path, name: &str, mode: u32) -> PathBuf {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, "").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path
}

#[test]
fn gpus_are_the_numbers_of_nvidia_devices() {
    let gpus = |devices: &[&str]| visible_gpus(&devices.iter().map(ToString::to_string).collect::<Vec<_>>());
    assert_eq!(gpus(&["/dev/nvidia2", "/dev/nvidia0", "/dev/nvidia11"]), "2,0,11");
    assert_eq!(gpus(&[]), "");
    assert_eq!(gpus(&["/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia", "/dev/dri/card0", "nvidia1"]), "");
}

#[test]
fn an_empty_version_is_no_directory() {
    assert_eq!(config_path(&model("a/b", "1.0")), Path::new("a/b/1.0/config.yaml"));
    assert_eq!(config_path(&model("m", "")), Path::new("m/config.yaml"));
}

#[test]
fn a_name_is_free_text_and_never_an_option_of_the_runner() {
    for (name, version, path) in [
        ("a b", "1.0+cu11", "a b/1.0+cu11/config.yaml"),
        ("a@b", "1~rc", "a@b/1~rc/config.yaml"),
        ("-s", "-p", "./-s/-p/config.yaml"),
    ] {
        assert_eq!(config_path(&model(name, version)).as_os_str(), path);
    }
}

#[test]
fn a_models_stamp_changes_with_the_files_that_say_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let options = options(dir.path());
    let stamp = || model_stamp(&options, &model("m", "1"));
    assert_eq!(stamp(), None);
    let home = dir.path().join("m/1");
    std::fs::create_dir_all(&home).unwrap();
    std::fs::write(home.join("config.yaml"), "").unwrap();
    let mut seen = vec![stamp().unwrap()];
    std::fs::write(home.join("weights"), "of no concern").unwrap();
    assert_eq!(stamp(), Some(seen[0]));
    let touch = || File::open(home.join("config.yaml")).unwrap().set_modified(SystemTime::UNIX_EPOCH);
    let changes: [&dyn Fn() -> std::io::Result<()>; 4] = [
        &touch,
        &|| std::fs::write(home.join("runner.yaml"), "runner: {}"),
        &|| std::fs::write(home.join("runner.yaml"), "runner: {x: 1}"),
        &|| {
            std::fs::remove_file(home.join("runner.yaml"))
                .and_then(|()| std::fs::write(home.join("config.yaml"), "a: 1"))
        },
    ];
    for change in changes {
        change().unwrap();
        let now = stamp().unwrap();
        assert!(!seen.contains(&now));
        seen.push(now);
    }
    std::fs::remove_file(home.join("config.yaml")).unwrap();
    assert_eq!(stamp(), None);
}

#[test]
fn a_name_is_found_beside_the_daemon_and_then_on_the_path_or_over_tcp_the_other_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let (bin, on_path) = (dir.path().join("bin"), dir.path().join("path"));
    program(&bin, "other", 0o755);
    program(&bin, "plain", 0o644);
    let second = program(&on_path, "runner", 0o755);
    let executable = program(&on_path, "plain", 0o755);
    let path = std::env::join_paths([dir.path().join("missing"), on_path.clone()]).unwrap();
    let mut options = options(dir.path());
    let find = |name| find(name, &options, Some(bin.clone()), Some(&path));
    assert_eq!(find("runner").unwrap(), second);
    assert_eq!(find("plain").unwrap(), executable, "what cannot be run is passed over");
    let first = program(&bin, "runner", 0o755);
    assert_eq!(find("runner").unwrap(), first);
    options.transport = Transport::Tcp;
    assert_eq!(super::find("runner", &options, Some(bin.clone()), Some(&path)).unwrap(), second);
    options.transport = Transport::Ipc;
    let find = |name| super::find(name, &options, Some(bin.clone()), Some(&path));
    let error = find("absent").unwrap_err();
    let expected = format!(
        "cannot find the runner `absent`; looked in {}, {}, {}",
        bin.display(),
        dir.path().join("missing").display(),
        on_path.display()
    );
    assert!(matches!(&error, SheepError::Misconfigured(m) if *m == expected), "{error}");
}

#[test]
fn a_path_is_seen_from_the_working_directory() {
    let dir = tempfile::tempdir().unwrap();
    let there = program(dir.path(), "sub/run", 0o755);
    for name in ["./sub/run", "sub/run", there.to_str().unwrap()] {
        let found = find(name, &options(dir.path()), None, None).unwrap();
        assert_eq!(found.canonicalize().unwrap(), there.canonicalize().unwrap());
    }
    let options = options(dir.path());
    let error = find("./run", &options, Some(dir.path().join("sub")), None).unwrap_err();
    assert!(error.to_string().contains("./run does not exist or is not executable"), "{error}");
    let error = find("run", &options, None, Some(OsStr::new(""))).unwrap_err();
    assert!(error.to_string().contains("nowhere"), "{error}");
}

#[test]
fn the_daemons_secrets_stay_with_it() {
    let mut options =
        BareOptions::new(SheepId::parse("dolly").unwrap(), "models".into(), "data/dolly".into());
    options.withheld_env = vec!["S3_SECRET".to_owned()];
    options.env = [("THREADS", "4"), ("SHEPHERD_SHEEP", "wolf"), ("HOME", "/h")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    options.devices = vec!["/dev/nvidia3".to_owned()];
    let inherited = [
        ("HOME", "/home"),
        ("PATH", "/bin"),
        ("S3_SECRET", "s"),
        ("SHEPHERD__STORAGE__SECRET_KEY", "s"),
        ("shepherd__registry__password", "s"),
        ("SHEPHERD_SHEEP_RUN", "of-an-outer-shepherd"),
        ("CUDA_VISIBLE_DEVICES", "7"),
    ];
    let inherited = inherited.into_iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
    let token = Token::of("secret");
    let environment = environment(inherited, &options, &model("m", ""), "ipc:///s", &token, "r");
    let environment: Vec<(&str, &str)> =
        environment.iter().map(|(name, value)| (name.to_str().unwrap(), value.to_str().unwrap())).collect();
    let expected = [
        ("CUDA_VISIBLE_DEVICES", "3"),
        ("HOME", "/h"),
        ("PATH", "/bin"),
        ("SHEPHERD_LISTEN", "ipc:///s"),
        ("SHEPHERD_MODEL", "m:"),
        ("SHEPHERD_SHEEP", "dolly"),
        ("SHEPHERD_SHEEP_RUN", "r"),
        ("SHEPHERD_TOKEN", "secret"),
        ("THREADS", "4"),
    ];
    assert_eq!(environment, expected);
}
