//! Files and directories: the configuration itself, secrets, and where things may
//! lie when `data_root` is emptied.

use std::fs;
use std::path::Path;

use super::{VALID, check, check_more, parse};
use crate::{Config, ConfigError, Environment, StorageConfig};

/// The report for a `data_root`, without its place.
fn refused(data_root: &str, more: &str) -> Option<String> {
    let text =
        format!("data_root: {data_root}\nsheep: {{a: {{type: bare, working_directory: /models}}}}\n{more}");
    let environment: Environment = [("HOME", "/opt/homes/me")].into_iter().collect();
    let error = Config::parse(&text, "/etc/c.yml", &environment, Path::new("/srv/app/run")).err()?;
    Some(error.to_string())
}

#[test]
fn a_data_root_that_holds_more_is_refused() {
    for (data_root, reason) in [
        ("/", "is the root of the file system"),
        ("/usr/..", "is the root of the file system"),
        ("/opt/homes/me", "is a home directory or holds one"),
        ("/opt/homes", "is a home directory or holds one"),
        ("/home", "is a home directory or holds one"),
        ("/home/you", "is a home directory or holds one"),
        ("/etc/shepherd", "is a directory of the system"),
        ("/tmp", "is a directory of the system"),
        ("/var/lib", "is a directory of the system"),
        (".", "is the current directory or holds it"),
        ("/srv/app", "is the current directory or holds it"),
    ] {
        let report = refused(data_root, "").unwrap_or_default();
        let expected = format!(
            "/etc/c.yml:1:12: data_root: {reason} and would be emptied at every start, expected a directory that \
             holds nothing else"
        );
        assert_eq!(report, expected, "{data_root}");
    }
    for data_root in
        ["/opt/homes/me/shepherd", "/tmp/x", "/var/lib/shepherd", "/srv/data", "data", "/dev/shm/x"]
    {
        assert_eq!(refused(data_root, ""), None, "{data_root}");
    }
}

#[test]
fn directories_lie_apart_or_below_the_state() {
    let cases: [(&str, &[&str]); 12] = [
        (
            "state_dir: /data\n",
            &["state_dir: is the `data_root` itself, expected a directory below it or elsewhere"],
        ),
        ("state_dir: /\n", &["state_dir: is the root of the file system, expected a directory of its own"]),
        (
            "state_dir: /data/a/x\n",
            &["sheep.a: has the directory that holds `state_dir`, expected another id or `state_dir`"],
        ),
        ("state_dir: /data/deep/er\n", &[]),
        (
            "storage: {url: 'file:///data'}\n",
            &[
                "storage.url: is the `data_root` itself, which is emptied at every start, expected a directory of its own",
            ],
        ),
        (
            "storage: {url: 'file:///'}\n",
            &["storage.url: is the root of the file system, expected a directory of its own"],
        ),
        (
            "storage: {url: 'file:///data/s'}\n",
            &[
                "storage.url: lies inside `data_root`, which is emptied at every start, expected a directory below `state_dir` or elsewhere",
            ],
        ),
        (
            "storage: {url: 'file:///data/a'}\n",
            &[
                "storage.url: lies inside `data_root`, which is emptied at every start, expected a directory below `state_dir` or elsewhere",
            ],
        ),
        (
            "storage: {url: 'file:///data/state'}\n",
            &["storage.url: is the `state_dir` itself, expected a directory below it or elsewhere"],
        ),
        ("storage: {url: 'file:///data/state/s'}\n", &[]),
        (
            "state_dir: /s/x\nstorage: {url: 'file:///s'}\n",
            &["storage.url: holds the `state_dir`, expected a directory of its own"],
        ),
        (
            "state_dir: /s\nstorage: {url: 'file:///data/state/s'}\n",
            &[
                "storage.url: lies inside `data_root`, which is emptied at every start, expected a directory below `state_dir` or elsewhere",
            ],
        ),
    ];
    for (lines, expected) in cases {
        let report = parse(&format!("{VALID}{lines}"), &[]).err();
        let problems = report.iter().flat_map(ConfigError::problems);
        let found: Vec<String> =
            problems.map(|problem| format!("{}: {}", problem.key, problem.message)).collect();
        assert_eq!(found, expected, "{lines}");
    }
}

#[test]
fn a_data_root_inside_what_is_kept_is_refused() {
    check(
        "data_root: /s/d\nstate_dir: /s\nsheep: {}\n",
        &[],
        &[
            "c.yml:1:12: data_root: lies inside `state_dir`, which is never emptied, expected a directory elsewhere",
        ],
    );
    check(
        "data_root: /s/d\nstorage: {url: 'file:///s'}\nsheep: {}\n",
        &[],
        &["c.yml:2:16: storage.url: holds the `data_root`, expected a directory of its own"],
    );
}

#[test]
fn a_sheep_named_like_the_default_state_is_refused() {
    check(
        "data_root: /data\nsheep:\n  state: {type: bare, working_directory: /m}\n",
        &[],
        &[
            "c.yml:3:3: sheep.state: has the directory that holds `state_dir`, expected another id or `state_dir`",
        ],
    );
}

#[test]
fn what_must_last_lies_outside() {
    check(
        "data_root: /data\nsheep: {a: {type: bare, working_directory: /data/models}}\n",
        &[],
        &[
            "c.yml:2:44: sheep.a.working_directory: lies inside `data_root`, which is emptied at every start, \
           expected a place outside",
        ],
    );
    let text = "data_root: /data\nsheep: {}\n";
    let error = Config::parse(text, "/data/c.yml", &Environment::default(), Path::new("/")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "/data/c.yml:1:12: data_root: holds this configuration and is emptied at every start, expected another \
         directory",
    );
}

#[cfg(unix)]
#[test]
fn symbolic_links_hide_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().canonicalize().unwrap();
    fs::create_dir_all(base.join("kept/models")).unwrap();
    std::os::unix::fs::symlink(base.join("kept"), base.join("link")).unwrap();
    let text = format!(
        "data_root: {0}/link\nstate_dir: {0}/state\nsheep: {{a: {{type: bare, working_directory: {0}/kept/models}}}}\n",
        base.display()
    );
    let error = parse(&text, &[]).unwrap_err().to_string();
    assert!(error.contains("working_directory: lies inside `data_root`"), "{error}");
}

#[test]
fn a_secret_is_read_from_its_file() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("key"), " s3cret\u{e9}\n\n").unwrap();
    let text = format!("{VALID}storage: {{url: 'http://s', access_key: a, secret_key_file: key}}\n");
    let config = Config::parse(&text, "c.yml", &Environment::default(), dir.path()).unwrap();
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(s3.secret_key.expose(), "s3cret\u{e9}");
}

#[test]
fn a_secrets_file_that_cannot_serve_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    fs::write(at("empty"), " \n").unwrap();
    fs::write(at("binary"), [0xff, 0xfe]).unwrap();
    fs::write(at("large"), vec![b'x'; 70_000]).unwrap();
    for (file, reason) in [
        (at("none"), "cannot be read (No such file or directory (os error 2))"),
        (at("empty"), "is empty"),
        (at("binary"), "is not UTF-8 text"),
        (at("large"), "is larger than 65536 bytes"),
    ] {
        check_more(
            &format!("registry: {{url: 'http://r:1', username: me, password_file: {file}}}\n"),
            &[&format!(
                "c.yml:3:60: registry.password_file: names a file that {reason}, expected a file that holds the secret"
            )],
        );
    }
}

#[test]
fn a_secret_is_given_once_and_never_shown() {
    check_more(
        "registry: {url: 'http://r:1', username: me, password: hunter2, password_file: /x}\n",
        &["c.yml:3:79: registry.password_file: is given beside `password`, expected one of the two"],
    );
    check_more(
        "storage: hunter2\nregistry: {url: hunter2, username: me, password: {a: hunter2}}\n",
        &[
            "c.yml:3:10: storage: is text, expected a mapping",
            "c.yml:4:17: registry.url: has a host that an image's name cannot show to be one, expected a port or a \
             dot in it",
            "c.yml:4:50: registry.password: is a mapping, expected text",
        ],
    );
}

#[test]
fn a_file_is_loaded_from_the_current_directory() {
    let dir = tempfile::tempdir().unwrap();
    let load = |name: &str| Config::load(Path::new(name), &Environment::default(), dir.path());
    let report = |name: &str| load(name).unwrap_err().to_string();
    fs::write(dir.path().join("good.yml"), format!("\u{feff}{}", VALID.replace('\n', "\r\n"))).unwrap();
    fs::write(dir.path().join("latin.yml"), b"data_root: /d\nsheep: {}\n# caf\xe9\n").unwrap();
    fs::write(dir.path().join("large.yml"), vec![b'#'; (1 << 20) + 1]).unwrap();
    assert_eq!(load("good.yml").unwrap().sheep.len(), 1);
    assert_eq!(report("none.yml"), "none.yml: cannot be read: No such file or directory (os error 2)");
    assert_eq!(report("."), ".: cannot be read: Is a directory (os error 21)");
    assert_eq!(report("latin.yml"), "latin.yml:3:6: is not UTF-8 text");
    assert_eq!(report("large.yml"), "large.yml: is larger than 1048576 bytes");
}
