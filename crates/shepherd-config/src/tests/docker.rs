//! Sheep in containers.

use std::path::{Path, PathBuf};

use super::{check, parse};
use crate::{Config, DockerHost, DockerSheep, Gpus, Mount, Pull, SheepKind, Transport};

const REGISTRY: &str = "data_root: /data\nregistry: {url: 'http://r:1'}\n";

/// The only sheep, with `keys`, and the configuration.
#[track_caller]
fn sheep(keys: &str) -> (DockerSheep, Config) {
    let text = format!("{REGISTRY}sheep: {{d: {{type: docker, {keys}}}}}\n");
    let config = parse(&text, &[]).unwrap_or_else(|error| panic!("{keys}\n{error}"));
    let SheepKind::Docker(docker) = &config.sheep[0].kind else { panic!("{:?}", config.sheep) };
    (DockerSheep::clone(docker), config)
}

/// The report for the only sheep's `keys`, which begin at column 24 of line 3;
/// without the places' file and line, and the keys' beginning.
#[track_caller]
fn refused(keys: &str, expected: &[&str]) {
    let text = format!("{REGISTRY}sheep: {{d: {{type: docker, {keys}}}}}\n");
    let report = parse(&text, &[]).err().map(|error| error.to_string()).unwrap_or_default();
    let found: Vec<&str> =
        report.lines().filter_map(|line| line.split_once(": sheep.d.").map(|(_, rest)| rest)).collect();
    assert_eq!(found, expected, "{keys}\n{report}");
    assert_eq!(report.lines().count(), expected.len(), "{report}");
}

/// The warnings of a configuration, without their places.
fn warnings(config: &Config) -> Vec<String> {
    config.warnings.iter().map(|warning| format!("{}: {}", warning.key, warning.message)).collect()
}

#[test]
fn the_originals_configurations_mean_what_they_did() {
    let text = "\
data_root: /tmp/shepherd-data
storage: {url: 'http://127.0.0.1:7000', access_key: a, secret_key: b}
registry: {url: 'http://127.0.0.1:6000'}
sheep:
  cpu_sheep: {type: docker, port: 9001}
  gpu_sheep: {type: docker, port: 9002, devices: [/dev/nvidia0], autoremove_containers: true}
";
    check(text, &[], &[]);
    let config = parse(text, &[]).unwrap();
    assert!(config.warnings.is_empty());
    assert_eq!(config.docker.unwrap().host, DockerHost::Unix("/var/run/docker.sock".into()));
    let [cpu, gpu] = config.sheep.as_slice() else { panic!("{:?}", config.sheep) };
    let SheepKind::Docker(docker) = &cpu.kind else { panic!("{cpu:?}") };
    assert_eq!((docker.transport, docker.port), (Transport::Tcp { port: 9001 }, Some(9001)));
    assert!(!docker.autoremove_containers && docker.gpus.is_none());
    let SheepKind::Docker(docker) = &gpu.kind else { panic!("{gpu:?}") };
    assert_eq!((docker.transport, docker.autoremove_containers), (Transport::Tcp { port: 9002 }, true));
    assert!(gpu.gpus().eq([0]));
}

#[test]
fn a_docker_sheep_is_safe_unless_told() {
    let (docker, config) = sheep("transport: ipc");
    let expected = DockerSheep {
        transport: Transport::Ipc,
        port: None,
        autoremove_containers: false,
        gpus: None,
        cdi: vec![],
        memory: None,
        shm_size: None,
        nano_cpus: None,
        pids: 4096,
        user: None,
        mounts: vec![],
        network: None,
        read_only: true,
        capabilities: vec![],
        models: None,
        pull: Pull::Always,
        entrypoint: None,
        command: None,
        stdout_file: None,
        stderr_file: None,
        log_max_bytes: 16 << 20,
        log_files: 4,
    };
    assert_eq!(docker, expected);
    assert!(config.warnings.is_empty());
}

#[test]
fn every_key_of_a_docker_sheep_is_read() {
    let (docker, config) = sheep(
        "transport: zmq, port: 9003, autoremove_containers: true, gpus: 2, cdi: [nvidia.com/gpu=0, v-1.x/c_1=all], \
         memory: 2GiB, shm_size: 64MB, cpus: 1.5, pids: 100, user: '1000:users', network: my-net.1, \
         mounts: ['models:/models', '/a:/b/:rw', '/a:/c:ro', {source: 'x:y', target: //d/./e, read_only: false}], \
         read_only: false, capabilities: [SYS_NICE, CAP_IPC_LOCK], pull: Missing, entrypoint: [run, ''], \
         command: [-v], stdout_file: out, stderr_file: /err, log_max_size: 1MiB, log_files: 0",
    );
    let mount = |source: &str, target: &str, read_only| Mount {
        source: source.into(),
        target: target.into(),
        read_only,
    };
    let expected = DockerSheep {
        transport: Transport::Zmq { port: 9003 },
        port: Some(9003),
        autoremove_containers: true,
        gpus: Some(Gpus::Count(2)),
        cdi: vec!["nvidia.com/gpu=0".into(), "v-1.x/c_1=all".into()],
        memory: Some(2 << 30),
        shm_size: Some(64_000_000),
        nano_cpus: Some(1_500_000_000),
        pids: 100,
        user: Some("1000:users".into()),
        mounts: vec![
            mount("/srv/app/models", "/models", true),
            mount("/a", "/b", false),
            mount("/a", "/c", true),
            mount("/srv/app/x:y", "/d/e", false),
        ],
        network: Some("my-net.1".into()),
        read_only: false,
        capabilities: vec!["SYS_NICE".into(), "IPC_LOCK".into()],
        models: None,
        pull: Pull::Missing,
        entrypoint: Some(vec!["run".into(), String::new()]),
        command: Some(vec!["-v".into()]),
        stdout_file: Some("/srv/app/out".into()),
        stderr_file: Some("/err".into()),
        log_max_bytes: 1 << 20,
        log_files: 0,
    };
    assert_eq!(docker, expected);
    assert!(config.warnings.is_empty());
}

#[test]
fn gpus_are_all_a_number_or_a_list() {
    let gpus = |text: &str| sheep(&format!("transport: ipc, gpus: {text}")).0.gpus.unwrap();
    assert_eq!(gpus("all"), Gpus::All);
    assert_eq!(gpus("1"), Gpus::Count(1));
    assert_eq!(gpus("[2]"), Gpus::Ids(vec!["2".into()]));
    assert_eq!(gpus("[0, GPU-1f2e, 'MIG-GPU-1/2/0', '0:1']").clone(), {
        Gpus::Ids(["0", "GPU-1f2e", "MIG-GPU-1/2/0", "0:1"].map(String::from).into())
    });
    let text = format!("{REGISTRY}sheep: {{d: {{type: docker, transport: ipc}}}}\n");
    for (value, expected) in [
        ("all", Gpus::All),
        ("3", Gpus::Count(3)),
        ("0,1", Gpus::Ids(vec!["0".into(), "1".into()])),
        ("[1]", Gpus::Ids(vec!["1".into()])),
    ] {
        let config = parse(&text, &[("SHEPHERD__SHEEP__D__GPUS", value)]).unwrap();
        let SheepKind::Docker(docker) = &config.sheep[0].kind else { panic!("{:?}", config.sheep) };
        assert_eq!(docker.gpus.as_ref(), Some(&expected), "{value}");
    }
}

#[test]
fn whether_containers_are_removed_may_be_a_number() {
    for (value, expected) in [("1", true), ("0", false), ("true", true)] {
        let (docker, _) = sheep(&format!("transport: ipc, autoremove_containers: {value}"));
        assert_eq!(docker.autoremove_containers, expected, "{value}");
    }
}

#[test]
fn gpus_that_cannot_be_are_refused() {
    let expected = "expected `all`, how many GPUs, or a list such as `[0, 1]`";
    for (text, found) in [
        ("0", "is `0`"),
        ("-1", "is `-1`"),
        ("+1", "is `+1`"),
        ("1.5", "is `1.5`"),
        ("some", "is `some`"),
        ("{a: 1}", "is a mapping"),
        ("[]", "names no GPU"),
    ] {
        refused(&format!("transport: ipc, gpus: {text}"), &[&format!("gpus: {found}, {expected}")]);
    }
    refused("transport: ipc, gpus: [0, 0]", &["gpus: names `0` twice, expected each GPU once"]);
    refused(
        "transport: ipc, gpus: ['0,1', '-', all of them]",
        &[
            "gpus[0]: is `0,1`, expected the number or UUID of a GPU",
            "gpus[1]: is `-`, expected the number or UUID of a GPU",
            "gpus[2]: is `all of them`, expected the number or UUID of a GPU",
        ],
    );
    refused(
        "transport: ipc, devices: [/dev/snd, /dev/nvidia1], gpus: all",
        &["gpus: is given beside `/dev/nvidia1` in `devices`, expected GPUs in one of the two"],
    );
    let (docker, _) = sheep("transport: ipc, devices: [/dev/snd], gpus: all");
    assert_eq!(docker.gpus, Some(Gpus::All));
}

#[test]
fn a_docker_sheep_may_run_some_models_only() {
    let (docker, _) = sheep("transport: ipc, models: [ocr, 'team/*', 'ocr:1.?']");
    let models = ["ocr", "team/*", "ocr:1.?"].map(str::to_owned);
    assert_eq!(docker.models.as_deref(), Some(&models[..]));
    refused(
        "transport: ipc, models: [a b]",
        &["models[0]: is `a b`, expected a pattern of models, such as ocr, team/* or ocr:1.*"],
    );
    refused(
        "transport: ipc, models: []",
        &["models: is a list, expected at least one pattern of models, such as ocr, team/* or ocr:1.*"],
    );
}

#[test]
fn docker_values_are_checked_all_at_once() {
    refused(
        "transport: udp, port: 0, autoremove_containers: maybe, cdi: [gpu0, nvidia.com/gpu=], memory: 1MiB, \
         shm_size: 0, cpus: 0.001, pids: 0, user: 'a:b:c', network: 'container:x', read_only: 1, \
         capabilities: [sys_nice, CAP_NONSENSE], pull: often, entrypoint: [], command: run, \
         log_max_size: 10, log_files: many, working_directory: /m, image: x",
        &[
            "transport: is `udp`, expected `ipc`, `tcp` or `zmq`",
            "port: is `0`, expected a number from 1 to 65535",
            "autoremove_containers: is `maybe`, expected `true` or `false`",
            "cdi[0]: is `gpu0`, expected the CDI name of a device such as nvidia.com/gpu=0",
            "cdi[1]: is `nvidia.com/gpu=`, expected the CDI name of a device such as nvidia.com/gpu=0",
            "memory: is `1MiB`, expected a size from 6291456 to 9223372036854775807 bytes",
            "shm_size: is `0`, expected a size from 1 to 9223372036854775807 bytes",
            "cpus: is `0.001`, expected a number from 0.01 to 100000",
            "pids: is `0`, expected a number from 1 to 4194304",
            "user: is `a:b:c`, expected a user and perhaps a group, such as 1000, 1000:1000 or nobody",
            "network: is `container:x`, expected the name of a network of the engine",
            "read_only: is `1`, expected `true` or `false`",
            "capabilities[0]: is `sys_nice`, expected a capability such as SYS_NICE",
            "capabilities[1]: is `CAP_NONSENSE`, expected a capability such as SYS_NICE",
            "pull: is `often`, expected `always`, `missing` or `never`",
            "entrypoint: begins with nothing, expected a list such as `[runner, -v]`",
            "command: is `run`, expected a list",
            "log_max_size: is `10`, expected a size from 4096 to 9223372036854775807 bytes",
            "log_files: is `many`, expected a number from 0 to 1000",
            "working_directory: has no meaning for a docker sheep, expected only with `type: bare`",
            "image: is not a known key, expected `autoremove_containers`, `capabilities`, `cdi`, `command`, \
             `cpus`, `devices`, `entrypoint`, `env`, `gpus`, `heartbeat_timeout`, `log_files`, `log_max_size`, \
             `memory`, `models`, `mounts`, `network`, `pids`, `port`, `pull`, `read_only`, `run_timeout`, `shm_size`, \
             `start_timeout`, `stderr_file`, `stdout_file`, `stop_grace`, `transport`, `type` or `user`",
        ],
    );
    refused(
        "transport: ipc, cpus: many, capabilities: [KILL, CAP_KILL], command: ['', x]",
        &[
            "cpus: is `many`, expected a number such as 0.5 or 2",
            "capabilities: names `KILL` twice, expected each capability once",
            "command: begins with nothing, expected a list such as `[runner, -v]`",
        ],
    );
}

#[test]
fn keys_of_docker_sheep_are_not_for_bare_ones() {
    check(
        "data_root: /data\nsheep: {a: {type: bare, working_directory: /m, memory: 1GiB, gpus: all}}\n",
        &[],
        &[
            "c.yml:2:48: sheep.a.memory: has no meaning for a bare sheep, expected only with `type: docker`",
            "c.yml:2:62: sheep.a.gpus: has no meaning for a bare sheep, expected only with `type: docker`",
        ],
    );
}

#[test]
fn a_network_that_publishes_no_port_is_for_ipc() {
    let expected =
        "expected another network or `transport: ipc`, as the engine publishes no port of this one";
    for name in ["none", "host"] {
        refused(&format!("port: 9001, network: {name}"), &[&format!("network: is `{name}`, {expected}")]);
    }
    let (docker, config) = sheep("transport: ipc, network: none");
    assert_eq!((docker.network.as_deref(), config.warnings.len()), (Some("none"), 0));
    let (docker, config) = sheep("transport: ipc, network: host");
    assert_eq!(docker.network.as_deref(), Some("host"));
    let [warning] = warnings(&config).try_into().unwrap();
    assert!(warning.starts_with("sheep.d.network: is the machine's own network"), "{warning}");
}

#[test]
fn a_mount_hides_nothing_that_the_container_needs() {
    for target in ["/", "//", "/.", "/proc", "/proc/sys", "/sys/", "/sys/fs/cgroup"] {
        let expected = "expected a target that is neither the root nor in /proc or /sys of the container";
        refused(
            &format!("transport: ipc, mounts: ['/m:{target}']"),
            &[&format!("mounts[0]: is `/m:{target}`, {expected}")],
        );
    }
    for target in ["relative", "/a/../b", "./x"] {
        let expected = "expected a target that is an absolute path in the container, without `..`";
        refused(
            &format!("transport: ipc, mounts: ['/m:{target}']"),
            &[&format!("mounts[0]: is `/m:{target}`, {expected}")],
        );
    }
    for target in ["/data", "/data/d", "/data/d/job"] {
        refused(
            &format!("transport: ipc, mounts: ['/m:{target}']"),
            &[&format!(
                "mounts[0]: has the target `{target}`, where the sheep's own directory `/data/d` is, expected \
                 another target"
            )],
        );
    }
    assert_eq!(sheep("transport: ipc, mounts: ['/m:/data/dd']").0.mounts[0].target, Path::new("/data/dd"));
    refused(
        "transport: ipc, mounts: ['/a:/x', '/b:/x/']",
        &["mounts: mounts `/x` twice, expected each target once"],
    );
}

#[test]
fn a_mount_that_cannot_be_read_is_refused() {
    let shape = "expected SOURCE:TARGET, perhaps with :ro or :rw, or a mapping of `source` and `target`";
    for text in ["/m", "/m:/t:z", "/m:/t:ro:x", ":/t", "/m:", "/m::ro", ":"] {
        refused(
            &format!("transport: ipc, mounts: ['{text}']"),
            &[&format!("mounts[0]: is `{text}`, {shape}")],
        );
    }
    refused("transport: ipc, mounts: [[a]]", &[&format!("mounts[0]: is a list, {shape}")]);
    refused("transport: ipc, mounts: '/a:/b'", &["mounts: is `/a:/b`, expected a list"]);
    refused(
        "transport: ipc, mounts: [{target: t, readonly: true}, {source: ~/x}]",
        &[
            "mounts[0].source: is missing, expected a path of this machine",
            "mounts[0].target: is `t`, expected a target that is an absolute path in the container, without `..`",
            "mounts[0].readonly: is not a known key, did you mean `read_only`?",
            "mounts[1].target: is missing, expected an absolute path in the container",
            "mounts[1].source: is `~/x`, expected a path; `~` is not expanded, `$HOME` is",
        ],
    );
}

#[test]
fn a_source_is_not_where_everything_is_removed() {
    refused(
        "transport: ipc, mounts: ['/data/other:/x']",
        &["mounts[0]: lies inside `data_root`, which is emptied at every start, expected a place outside"],
    );
}

#[test]
fn a_source_that_shows_too_much_is_warned_of() {
    let socket = "shows the runner the socket of a container engine: who can write to that is root on this \
                  machine";
    let files = "shows the runner the shepherd's own files, and other jobs' with them";
    let cases: [(&str, &[&str]); 7] = [
        ("/models", &[]),
        ("/var/run/docker.sock", &[socket]),
        ("/run/docker.sock", &[socket]),
        ("/var/run", &[socket]),
        ("/run/containerd", &[socket]),
        ("/data/state/storage", &[files]),
        ("/", &[socket, files]),
    ];
    for (source, expected) in cases {
        let (_, config) = sheep(&format!("transport: ipc, mounts: ['{source}:/x']"));
        let mut expected: Vec<String> =
            expected.iter().map(|message| format!("sheep.d.mounts[0]: {message}")).collect();
        expected.sort();
        assert_eq!(warnings(&config), expected, "{source}");
    }
    let text = format!(
        "{REGISTRY}docker: {{host: 'unix:///engines/a.sock'}}\n\
         sheep: {{d: {{type: docker, transport: ipc, mounts: ['/engines:/x']}}}}\n"
    );
    assert_eq!(warnings(&parse(&text, &[]).unwrap()), [format!("sheep.d.mounts[0]: {socket}")]);
}

#[test]
fn all_capabilities_are_warned_of() {
    let (docker, config) = sheep("transport: ipc, capabilities: [ALL]");
    assert_eq!(docker.capabilities, ["ALL"]);
    assert_eq!(
        config.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["c.yml:3:58: sheep.d.capabilities[0]: gives the runner every capability, and with them the machine"],
    );
}

#[test]
fn a_port_of_a_process_is_no_containers() {
    check(
        "\
data_root: /data
registry: {url: 'http://r:1'}
sheep:
  a: {type: docker, transport: zmq, port: 9001}
  b: {type: bare, working_directory: /m, transport: tcp, port: 9001}
  c: {type: docker, transport: ipc, port: 9001}
  d: {type: bare, working_directory: /m, transport: zmq, port: 9002}
  e: {type: docker, port: 9002}
",
        &[],
        &[
            "c.yml:5:64: sheep.b.port: is 9001, which `sheep.a.port` (c.yml:4:43) has already, expected a port \
             of its own",
            "c.yml:8:27: sheep.e.port: is 9002, which `sheep.d.port` (c.yml:7:64) has already, expected a port \
             of its own",
        ],
    );
}

#[test]
fn files_are_absolute() {
    let (docker, _) = sheep("transport: ipc, mounts: [../models:/m], stdout_file: ./log/out");
    assert_eq!(docker.mounts[0].source, PathBuf::from("/srv/models"));
    assert_eq!(docker.stdout_file, Some("/srv/app/log/out".into()));
}

#[test]
fn a_log_file_that_is_renamed_is_one_sheeps_own() {
    check(
        "\
data_root: /data
registry: {url: 'http://r:1'}
sheep:
  a: {type: docker, port: 9001, stdout_file: log, stderr_file: log}
  b: {type: docker, port: 9002, stdout_file: /srv/app/log}
  c: {type: bare, working_directory: /m, stderr_file: ./log}
  d: {type: bare, working_directory: /m, stdout_file: bare, stderr_file: bare}
  e: {type: bare, working_directory: /m, stdout_file: bare}
",
        &[],
        &[
            "c.yml:5:46: sheep.b.stdout_file: is the file that `sheep.a.stdout_file` (c.yml:4:46) names, and a \
             docker sheep renames its file when it has grown, expected a file of its own",
            "c.yml:6:55: sheep.c.stderr_file: is the file that `sheep.a.stdout_file` (c.yml:4:46) names, and a \
             docker sheep renames its file when it has grown, expected a file of its own",
        ],
    );
}
