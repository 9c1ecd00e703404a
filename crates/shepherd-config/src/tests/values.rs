//! What a valid configuration means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{check, check_more, valid, valid_with};
use crate::{
    CorsOrigins, Device, LogFormat, LogLevel, RemovedSheep, Scheme, SheepKind, StorageConfig, StorageLayout,
    Transport, UnknownModels, units,
};

#[test]
fn defaults_are_those_of_the_original_and_the_design() {
    let config = valid("");
    assert_eq!(config.data_root, Path::new("/data"));
    assert_eq!(config.state_dir, Path::new("/data/state"));
    let StorageConfig::Local(storage) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(storage.dir, Path::new("/data/state/storage"));
    assert_eq!(storage.layout, StorageLayout::BucketPerJob);
    assert_eq!(config.registry, None);
    assert_eq!((config.logging.level, config.logging.format), (LogLevel::Info, LogFormat::Pretty));
    assert_eq!((config.api.host.as_str(), config.api.port), ("0.0.0.0", 5000));
    assert_eq!(config.api.cors_origins, CorsOrigins::Only(vec![]));
    assert_eq!(config.api.hosts, Vec::<String>::new());
    assert_eq!((config.limits.max_body_bytes, config.limits.crash_retries), (1 << 30, 0));
    assert_eq!(config.limits.job_log, 65_536);
    assert_eq!(config.limits.request_header_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.request_body_timeout, Duration::from_secs(3600));
    assert_eq!(config.limits.request_body_min_rate, 500);
    assert_eq!(config.limits.max_connections, 10_000);
    assert_eq!(config.scheduler.max_wait, Duration::from_mins(5));
    assert_eq!(config.scheduler.unknown_models, UnknownModels::Refuse);
    assert_eq!(config.scheduler.removed_sheep, RemovedSheep::Wait);
    assert_eq!(config.limits.max_connections_per_address, None);
    assert_eq!(config.shutdown.grace, Duration::from_secs(10));
    let [sheep] = config.sheep.as_slice() else { panic!("{:?}", config.sheep) };
    assert_eq!(sheep.id.as_str(), "a");
    assert_eq!(
        (sheep.start_timeout, sheep.heartbeat_timeout),
        (Duration::from_mins(10), Duration::from_secs(30))
    );
    assert_eq!((sheep.run_timeout, sheep.stop_grace), (None, Duration::from_secs(5)));
    assert!(sheep.devices.is_empty() && sheep.env.is_empty());
    let SheepKind::Bare(bare) = &sheep.kind else { panic!("{:?}", sheep.kind) };
    assert_eq!(bare.working_directory, Path::new("/models"));
    assert_eq!(bare.runner_command, ["shepherd-runner"]);
    assert_eq!((&bare.stdout_file, &bare.stderr_file), (&None, &None));
    assert_eq!((bare.transport, bare.port), (Transport::Ipc, None));
}

#[test]
fn the_scheduler_may_wait_for_models() {
    let scheduler = valid("scheduler: {max_wait: 10s, unknown_models: wait}\n").scheduler;
    assert_eq!(
        (scheduler.max_wait, scheduler.unknown_models),
        (Duration::from_secs(10), UnknownModels::Wait)
    );
}

#[test]
fn a_log_may_be_long_or_none() {
    for (text, bytes) in [("0", 0), ("1MiB", 1 << 20), ("100", 100)] {
        assert_eq!(valid(&format!("limits: {{job_log: {text}}}\n")).limits.job_log, bytes);
    }
}

#[test]
fn every_key_of_a_sheep_is_read_in_the_order_of_the_file() {
    let text = "\
data_root: work
state_dir: ../state
registry: {url: 'HTTPS://Registry.Example:5000/', username: me, password: 0123}
sheep:
  zulu:
    type: bare
    port: 9001
    transport: tcp
    devices: [/dev/nvidia2, /dev/nvidia0]
    working_directory: models
    runner_command: [./bin/runner, -v, '']
    stdout_file: logs/out.txt
    stderr_file: /var/log/err.txt
    heartbeat_timeout: 1.5
    run_timeout: 2h
    start_timeout: 90s
    stop_grace: 0
    env: {OMP_NUM_THREADS: 1, EMPTY: , TEXT: a b}
  alpha:
    type: docker
    port: 9002
    devices: [/dev/nvidia1, /dev/snd]
    autoremove_containers: true
";
    check(text, &[], &[]);
    let config = super::parse(text, &[]).unwrap();
    assert_eq!(config.data_root, Path::new("/srv/app/work"));
    assert_eq!(config.state_dir, Path::new("/srv/state"));
    let registry = config.registry.as_ref().unwrap();
    assert_eq!(registry.url.to_string(), "https://registry.example:5000");
    assert_eq!((registry.url.scheme(), registry.url.authority()), (Scheme::Https, "registry.example:5000"));
    let credentials = registry.credentials.as_ref().unwrap();
    assert_eq!((credentials.username.as_str(), credentials.password.expose()), ("me", "0123"));

    let [zulu, alpha] = config.sheep.as_slice() else { panic!("{:?}", config.sheep) };
    assert_eq!(zulu.gpus().collect::<Vec<_>>(), [2, 0]);
    assert_eq!(
        (zulu.heartbeat_timeout, zulu.start_timeout),
        (Duration::from_millis(1500), Duration::from_secs(90))
    );
    assert_eq!((zulu.run_timeout, zulu.stop_grace), (Some(Duration::from_hours(2)), Duration::ZERO));
    let env: Vec<_> = zulu.env.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(env, [("EMPTY", ""), ("OMP_NUM_THREADS", "1"), ("TEXT", "a b")]);
    let SheepKind::Bare(bare) = &zulu.kind else { panic!("{zulu:?}") };
    assert_eq!(bare.working_directory, Path::new("/srv/app/models"));
    assert_eq!(bare.runner_command, ["/srv/app/bin/runner", "-v", ""]);
    assert_eq!(bare.stdout_file.as_deref(), Some(Path::new("/srv/app/logs/out.txt")));
    assert_eq!(bare.stderr_file.as_deref(), Some(Path::new("/var/log/err.txt")));
    assert_eq!((bare.transport, bare.port), (Transport::Tcp { port: 9001 }, Some(9001)));

    assert_eq!(alpha.devices, [Device::Gpu(1), Device::Path(PathBuf::from("/dev/snd"))]);
    let SheepKind::Docker(docker) = &alpha.kind else { panic!("{alpha:?}") };
    assert_eq!((docker.transport, docker.autoremove_containers), (Transport::Tcp { port: 9002 }, true));
    assert_eq!(config.docker_sheep().count(), 1);
}

#[test]
fn log_levels_take_the_originals_names() {
    let names = [
        ("error", LogLevel::Error),
        ("CRITICAL", LogLevel::Error),
        ("WARNING", LogLevel::Warn),
        ("warn", LogLevel::Warn),
        ("INFO", LogLevel::Info),
        ("DEBUG", LogLevel::Debug),
        ("trace", LogLevel::Trace),
    ];
    for (name, level) in names {
        assert_eq!(valid(&format!("logging: {{level: {name}, format: JSON}}\n")).logging.level, level);
    }
}

#[test]
fn origins_and_hosts_are_read() {
    let config = valid("api: {host: '[::1]', port: 0, cors_origins: ['HTTP://A.org:80/', https://b]}\n");
    assert_eq!((config.api.host.as_str(), config.api.port), ("::1", 0));
    let expected = CorsOrigins::Only(vec!["http://a.org:80".into(), "https://b".into()]);
    assert_eq!(config.api.cors_origins, expected);
    assert_eq!(valid("api: {cors_origins: ['*']}\n").api.cors_origins, CorsOrigins::Any);
    assert_eq!(valid("api: {hosts: [a.example.org, '*']}\n").api.hosts, ["a.example.org", "*"]);
}

#[test]
fn anchors_aliases_and_merge_keys_work() {
    let text = "\
data_root: /data
sheep:
  a: &base {type: bare, working_directory: /m, devices: &gpus [/dev/nvidia0], stop_grace: 1}
  b: {<<: *base, stop_grace: 2}
  c: {<<: [{heartbeat_timeout: 3}, *base], devices: *gpus}
";
    check(text, &[], &[]);
    let config = super::parse(text, &[]).unwrap();
    let grace: Vec<u64> = config.sheep.iter().map(|sheep| sheep.stop_grace.as_secs()).collect();
    assert_eq!(grace, [1, 2, 1]);
    assert_eq!(config.sheep[2].heartbeat_timeout, Duration::from_secs(3));
    assert!(config.sheep.iter().all(|sheep| sheep.devices == [Device::Gpu(0)]));
}

#[test]
fn an_alias_is_blamed_where_it_is_used() {
    check_more(
        "api: {host: &h 'a b'}\nshutdown: {grace: *h}\nlogging: *none\n",
        &[
            "c.yml:3:16: api.host: is `a b`, expected a host name or an IP address, without a port",
            "c.yml:4:19: shutdown.grace: is `a b`, expected a number of seconds or a duration such as 500ms, \
             30s, 5m or 2h",
            "c.yml:5:10: logging: is an alias of `none`, which is not defined above",
        ],
    );
    check_more("<<: text\n", &["c.yml:3:5: merges what is not a mapping, expected an alias of a mapping"]);
}

#[test]
fn a_scalar_keeps_the_text_that_was_written() {
    for text in ["0123", "1e3", "true", "1_000", "0x10", "2026-11-22", "'null'", "!!str null"] {
        let config = valid(&format!("registry: {{url: 'http://r:1', username: {text}, password: {text}}}\n"));
        let credentials = config.registry.unwrap().credentials.unwrap();
        let bare = text.trim_matches('\'').trim_start_matches("!!str ");
        assert_eq!((credentials.username.as_str(), credentials.password.expose()), (bare, bare));
    }
}

#[test]
fn secrets_are_redacted() {
    let config = valid(
        "registry: {url: 'http://r:1', username: me, password: hunter2}\n\
         storage: {url: 'http://s', access_key: hunter2, secret_key: hunter2, session_token: hunter2}\n",
    );
    let shown =
        format!("{config:?} {}", config.registry.as_ref().unwrap().credentials.as_ref().unwrap().password);
    assert!(!shown.contains("hunter2") && shown.contains("redacted"), "{shown}");
}

#[test]
fn durations_and_sizes_have_units() {
    for (text, millis) in
        [("0", 0), ("2", 2_000), ("0.25", 250), ("1e1", 10_000), ("7ms", 7), ("1.5 s", 1_500)]
    {
        assert_eq!(units::duration(text), Some(Duration::from_millis(millis)), "{text}");
    }
    for (text, seconds) in [("30s", 30), ("5m", 300), ("2h", 7_200), (" 1h ", 3_600)] {
        assert_eq!(units::duration(text), Some(Duration::from_secs(seconds)), "{text}");
    }
    for text in
        ["", "-1", "+1", "s", "1d", "1h30m", "nan", "inf", "1e400", "99999999999999999999h", ".5", "1 1"]
    {
        assert_eq!(units::duration(text), None, "{text}");
    }
    for (text, billionths) in [
        ("2", 2_000_000_000),
        ("0.5", 500_000_000),
        ("1.25", 1_250_000_000),
        ("0.000000001", 1),
        ("007.10", 7_100_000_000),
    ] {
        assert_eq!(units::billionths(text), Some(billionths), "{text}");
        assert_eq!(units::billionths(&units::show_billionths(billionths)), Some(billionths), "{text}");
    }
    for text in ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000000001", "99999999999"] {
        assert_eq!(units::billionths(text), None, "{text}");
    }
    for (text, bytes) in [
        ("0", 0),
        ("1024", 1024),
        ("10GiB", 10 << 30),
        ("1.5 MiB", 3 << 19),
        ("100MB", 100_000_000),
        ("2kb", 2_000),
    ] {
        assert_eq!(units::size(text), Some(bytes), "{text}");
    }
    for text in ["", "-1", "1.5", "1 G", "1e30", "99999999TiB", "GiB", "0x10"] {
        assert_eq!(units::size(text), None, "{text}");
    }
}

#[test]
fn references_are_replaced_in_plain_scalars() {
    let variables = [
        ("ROOT", "/data"),
        ("A", "x"),
        ("B_2", "y: {z: $A} # no\n"),
        ("PORT", "9001"),
        ("NAME", "fluffy"),
        ("EMPTY", ""),
        ("DOLLAR", "$"),
    ];
    let text = "\
data_root: ${ROOT}/w
sheep:
  $NAME-1:
    type: bare
    working_directory: $ROOT/../m
    port: $PORT
    env:
      SEVERAL: <$A${A}${B_2}$A>
      LITERAL: $ $5 $a ${a} $$ $$A a$ ${} ${DOLLAR}A $_
      EMPTY: $EMPTY
      QUOTED: 'pa$A'
      DOUBLE: \"${A}$$\\x24A\"
      BLOCK: |-
        $A
";
    check(text, &variables, &[]);
    let config = super::parse(text, &variables).unwrap();
    assert_eq!(config.data_root, Path::new("/data/w"));
    let sheep = &config.sheep[0];
    assert_eq!(sheep.id.as_str(), "fluffy-1");
    assert_eq!(sheep.env["SEVERAL"], "<xxy: {z: $A} # no\nx>");
    assert_eq!(sheep.env["LITERAL"], "$ $5 $a ${a} $ $A a$ ${} $A $_");
    assert_eq!(sheep.env["EMPTY"], "");
    assert_eq!(sheep.env["QUOTED"], "pa$A");
    assert_eq!(sheep.env["DOUBLE"], "${A}$$$A");
    assert_eq!(sheep.env["BLOCK"], "$A");
    let SheepKind::Bare(bare) = &sheep.kind else { panic!("{sheep:?}") };
    assert_eq!(bare.port, Some(9001));
}

#[test]
fn braces_of_a_reference_within_other_braces_are_explained() {
    for text in ["sheep: {a: {type: bare, working_directory: ${X}}}", "a: [${X}, b]"] {
        let error =
            super::parse(&format!("data_root: /d\n{text}\n"), &[("X", "/m")]).unwrap_err().to_string();
        assert!(error.contains("write `$NAME` and not `${NAME}`"), "{error}");
    }
    let text = "data_root: /d\nsheep: {a: {type: bare, working_directory: $X/models}}\n";
    let config = super::parse(text, &[("X", "/m")]).unwrap();
    let SheepKind::Bare(bare) = &config.sheep[0].kind else { panic!("{config:?}") };
    assert_eq!(bare.working_directory, Path::new("/m/models"));
}

#[test]
fn the_environment_asks_for_debug_as_it_asked_the_original() {
    let level = |variables: &[(&str, &str)]| valid_with("logging: {level: error}\n", variables).logging.level;
    assert_eq!(level(&[("DEBUG", "1")]), LogLevel::Debug);
    for off in ["", "0", "false"] {
        assert_eq!(level(&[("DEBUG", off)]), LogLevel::Error, "{off}");
    }
    assert_eq!(level(&[("DEBUG", "1"), ("SHEPHERD__LOGGING__LEVEL", "warn")]), LogLevel::Warn);
    assert_eq!(level(&[("DEBUG", "1"), ("SHEPHERD__LOGGING__LEVEL", "trace")]), LogLevel::Trace);
}

#[test]
fn the_umask_is_octal_and_leaves_the_owner_his_rights() {
    assert_eq!(valid("").umask, 0o077);
    assert_eq!(valid("umask: 0027\n").umask, 0o027);
    assert_eq!(valid("umask: '02'\n").umask, 0o002);
    let expected = "expected an octal umask such as 0077 or 0027, which leaves the owner all rights";
    for wrong in ["0177", "8", "-1", "0o27", "00027", "u=rwx"] {
        check_more(&format!("umask: {wrong}\n"), &[&format!("c.yml:3:8: umask: is `{wrong}`, {expected}")]);
    }
}

#[test]
fn a_reference_that_is_not_set_is_named_with_its_place() {
    check_more(
        "api:\n  host: a-$NO_HOST-${NO_2}\n  cors_origins: [ok, $NO_ORIGIN]\n  port: ${PORT\n",
        &[
            "c.yml:4:9: api.host: refers to the environment variable `NO_2`, which is not set",
            "c.yml:4:9: api.host: refers to the environment variable `NO_HOST`, which is not set",
            "c.yml:5:18: api.cors_origins[0]: is `ok`, expected an origin such as https://example.org, or `*`",
            "c.yml:5:22: api.cors_origins[1]: refers to the environment variable `NO_ORIGIN`, which is not set",
            "c.yml:6:9: api.port: has `${PORT` without the closing brace, expected `${PORT}`",
        ],
    );
}

#[test]
fn keys_that_become_one_are_refused() {
    check(
        "data_root: /d\nsheep:\n  a: {type: bare, working_directory: /m}\n  $A: {type: bare, working_directory: /m}\n",
        &[("A", "a")],
        &["c.yml:4:3: sheep.a: is given twice, first at c.yml:3:3"],
    );
    let config = valid_with("logging: {$KEY: debug}\n", &[("KEY", "level")]);
    assert_eq!(config.logging.level, LogLevel::Debug);
}

#[test]
fn a_port_of_a_bare_sheep_means_tcp_unless_a_transport_is_named() {
    let read = |keys: &str| {
        let text = format!("data_root: /d\nsheep: {{a: {{type: bare, working_directory: /m{keys}}}}}\n");
        let config = super::parse(&text, &[]).unwrap();
        match &config.sheep[0].kind {
            SheepKind::Bare(bare) => (bare.transport, bare.port),
            SheepKind::Docker(docker) => panic!("{docker:?}"),
        }
    };
    assert_eq!(read(""), (Transport::Ipc, None));
    assert_eq!(read(", port: 9001"), (Transport::Tcp { port: 9001 }, Some(9001)));
    assert_eq!(read(", port: 9001, transport: ipc"), (Transport::Ipc, Some(9001)));
}
