//! Variables that override keys.

use super::{VALID, check, parse, valid_with};
use crate::{CorsOrigins, Device, Environment, LogLevel, SheepKind, StorageConfig};

#[test]
fn a_variable_overrides_a_key_and_adds_one() {
    let variables = [
        ("SHEPHERD__DATA_ROOT", "/other"),
        ("SHEPHERD__LOGGING__LEVEL", "debug"),
        ("SHEPHERD__SHEEP__A__DEVICES", "/dev/nvidia0, /dev/nvidia1"),
        ("SHEPHERD__SHEEP__A__RUNNER_COMMAND", "[run, 'a,b']"),
        ("SHEPHERD__SHEEP__A__ENV__OMP_THREADS", "012"),
        ("SHEPHERD__SHEEP__A__PORT", "9001"),
        ("SHEPHERD__SHEEP__NEW__TYPE", "bare"),
        ("SHEPHERD__SHEEP__NEW__WORKING_DIRECTORY", "/n"),
        ("SHEPHERD__API__CORS_ORIGINS", "*"),
        ("SHEPHERD_TEST", "not ours"),
        ("HOME", "/home/me"),
    ];
    let config = valid_with("logging: {level: info}\n", &variables);
    assert_eq!(config.data_root.to_str(), Some("/other"));
    assert_eq!(config.logging.level, LogLevel::Debug);
    assert_eq!(config.api.cors_origins, CorsOrigins::Any);
    let [a, new] = config.sheep.as_slice() else { panic!("{:?}", config.sheep) };
    assert_eq!(a.devices, [Device::Gpu(0), Device::Gpu(1)]);
    assert_eq!(a.env["OMP_THREADS"], "012");
    let SheepKind::Bare(bare) = &a.kind else { panic!("{a:?}") };
    assert_eq!((bare.runner_command.as_slice(), bare.port), (&["run".into(), "a,b".into()][..], Some(9001)));
    assert_eq!(new.id.as_str(), "new");
}

#[test]
fn the_value_is_taken_as_it_is() {
    let secret = " $HOME#: '0123\u{1f511}";
    let variables = [
        ("SHEPHERD__STORAGE__URL", "http://s3"),
        ("SHEPHERD__STORAGE__ACCESS_KEY", "012345"),
        ("SHEPHERD__STORAGE__SECRET_KEY", secret),
    ];
    // What is overridden need not be valid: its variable is not even looked up.
    let config = valid_with("storage: {secret_key: $UNSET, url: {a: 1}}\n", &variables);
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.access_key.expose(), s3.secret_key.expose()), ("012345", secret));
}

#[test]
fn a_sheep_is_matched_in_any_case_and_by_what_a_shell_can_name() {
    let text = "data_root: /d\nsheep: {My-Sheep.1: {type: bare, working_directory: /m}, my_sheep: {type: bare, \
                working_directory: /m}, MY_SHEEP: {type: bare, working_directory: /m}}\n";
    let variables =
        [("SHEPHERD__SHEEP__MY_SHEEP_1__WORKING_DIRECTORY", "/x"), ("SHEPHERD__SHEEP__MY_SHEEP__PORT", "7")];
    let config = parse(text, &variables).unwrap();
    let bare = |index: usize| match &config.sheep[index].kind {
        SheepKind::Bare(bare) => (bare.working_directory.to_str().unwrap().to_owned(), bare.port),
        SheepKind::Docker(_) => panic!("docker"),
    };
    assert_eq!(
        [bare(0), bare(1), bare(2)],
        [("/x".into(), None), ("/m".into(), Some(7)), ("/m".into(), None)]
    );
}

#[test]
fn an_empty_variable_takes_a_key_away() {
    let config = valid_with("logging: {level: debug}\n", &[("SHEPHERD__LOGGING__LEVEL", "")]);
    assert_eq!(config.logging.level, LogLevel::Info);
    check(
        VALID,
        &[("SHEPHERD__DATA_ROOT", "")],
        &["c.yml:1:1: data_root: is missing, expected the directory of working files"],
    );
}

#[test]
fn a_mistake_in_a_variable_is_told_with_its_name() {
    check(
        VALID,
        &[
            ("SHEPHERD__API__PORT", "x"),
            ("SHEPHERD__LOGING__LEVEL", "info"),
            ("SHEPHERD__LIMITS", "many"),
            ("SHEPHERD__SHEEP__NEW__PORT", "1"),
            ("SHEPHERD__SHEEP__A__RUNNER_COMMAND", "[a"),
            ("SHEPHERD__SHEEP__A__DEVICES__0", "/dev/nvidia0"),
            ("SHEPHERD__", "x"),
        ],
        &[
            "SHEPHERD__: \"\": is not a known key, expected `api`, `data_root`, `docker`, `limits`, `logging`, \
             `registry`, `scheduler`, `sheep`, `shutdown`, `state_dir`, `storage` or `umask`",
            "SHEPHERD__API__PORT: api.port: is `x`, expected a number from 0 to 65535",
            "SHEPHERD__LIMITS: limits: is text, expected a mapping",
            "SHEPHERD__LOGING__LEVEL: loging: is not a known key, did you mean `logging`?",
            "SHEPHERD__SHEEP__A__DEVICES__0: sheep.a.devices: is a mapping, expected a list",
            "SHEPHERD__SHEEP__A__RUNNER_COMMAND: sheep.a.runner_command: is not valid YAML: unclosed bracket '[', \
             expected a list",
            "SHEPHERD__SHEEP__NEW__PORT: sheep.new.type: is missing, expected `bare` or `docker`",
        ],
    );
}

#[test]
fn a_variable_with_an_underscore_too_few_is_told() {
    let variables = [
        ("SHEPHERD_LOGGING_LEVEL", "debug"),
        ("SHEPHERD_DATA_ROOT", "/x"),
        ("SHEPHERD_STORAGE__SECRET_KEY", "hunter2"),
        // Runners are given such, or the file refers to it.
        ("SHEPHERD_SHEEP", "dolly"),
        ("SHEPHERD_LISTEN", "ipc:///x"),
        ("SHEPHERD_API_HOST", "localhost"),
        ("SHEPHERD", "x"),
    ];
    let config = valid_with("api: {host: $SHEPHERD_API_HOST}\n", &variables);
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        warnings,
        [
            "SHEPHERD_DATA_ROOT: sets nothing, did you mean `SHEPHERD__DATA_ROOT`?",
            "SHEPHERD_LOGGING_LEVEL: sets nothing, did you mean `SHEPHERD__LOGGING__LEVEL`?",
            "SHEPHERD_STORAGE__SECRET_KEY: sets nothing, did you mean `SHEPHERD__STORAGE__SECRET_KEY`?",
        ]
    );
}

#[test]
fn an_environment_shows_no_values() {
    let environment: Environment = [("TOKEN", "hunter2")].into_iter().collect();
    assert_eq!(format!("{environment:?}"), "{\"TOKEN\"}");
    assert_eq!(environment.get("TOKEN"), Some("hunter2"));
}
