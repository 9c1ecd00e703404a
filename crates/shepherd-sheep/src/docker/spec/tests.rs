use std::path::PathBuf;

use super::super::fixtures::options;
use super::super::{Gpus, Mount as Mounted};
use super::*;

fn made(options: &DockerOptions) -> ContainerCreateBody {
    made_by(options, Us { uid: 0, gid: 0 }, None)
}

fn made_by(options: &DockerOptions, us: Us, private_socket: Option<&str>) -> ContainerCreateBody {
    let model = ModelRef::parse("team/m", "1").unwrap();
    body(
        options,
        &Run {
            name: "0193aaaabbbbccccddddeeee12345678",
            instance: "inst",
            model: &model,
            image: "sha256:1",
            endpoint: "ipc:///data/dolly/.runner-1.sock",
            token: &Token::of("secret"),
            private_socket,
            us,
        },
    )
}

fn host(options: &DockerOptions) -> HostConfig {
    made(options).host_config.unwrap()
}

fn strings(texts: &[&str]) -> Option<Vec<String>> {
    Some(texts.iter().map(|text| (*text).to_owned()).collect())
}

#[test]
fn a_container_is_named_and_labelled() {
    assert_eq!(name("inst", "dolly", "0193aaaabbbbccccddddeeee12345678"), "shepherd-inst-dolly-eeee12345678");
    let long = name(&"i".repeat(200), &"s.".repeat(100), "short");
    assert!(long.len() < 100 && long.ends_with("-short"), "{long}");
    assert_eq!(name("a b", "ö/", "1"), "shepherd-a-b----1");
    let labels = made(&options()).labels.unwrap();
    let mut labels: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    labels.sort_unstable();
    assert_eq!(
        labels,
        [
            ("shepherd.instance", "inst"),
            ("shepherd.model", "team/m:1"),
            ("shepherd.run", "0193aaaabbbbccccddddeeee12345678"),
            ("shepherd.sheep", "dolly"),
        ]
    );
}

#[test]
fn a_runner_is_fenced_unless_something_else_is_configured() {
    let body = made(&options());
    assert_eq!(
        (body.image.as_deref(), body.user, body.entrypoint, body.cmd),
        (Some("sha256:1"), None, None, None)
    );
    assert_eq!(body.healthcheck.unwrap().test, strings(&["NONE"]));
    let host = body.host_config.unwrap();
    assert_eq!(host.cap_drop, strings(&["ALL"]));
    assert_eq!(host.security_opt, strings(&["no-new-privileges"]));
    assert_eq!(host.group_add, strings(&["0"]));
    assert_eq!((host.cap_add, host.devices, host.device_requests, host.runtime), (None, None, None, None));
    assert_eq!((host.readonly_rootfs, host.init, host.pids_limit), (Some(true), Some(true), Some(100)));
    assert_eq!((host.privileged, host.binds, host.auto_remove), (None, None, None));
    assert_eq!((host.memory, host.memory_swap, host.nano_cpus, host.shm_size), (None, None, None, None));
    let mounts = host.mounts.unwrap();
    assert_eq!(mounts.len(), 1);
    assert_eq!(mounts[0].source.as_deref(), Some("/data/dolly"));
    assert_eq!(mounts[0].target, mounts[0].source);
    assert_eq!(mounts[0].read_only, Some(false));
    let log = host.log_config.unwrap();
    assert_eq!(log.typ.as_deref(), Some("json-file"));
    assert!(log.config.unwrap().contains_key("max-size"));
}

#[test]
fn with_ipc_there_is_no_network_and_no_port() {
    let body = made(&options());
    assert_eq!(body.exposed_ports, None);
    assert!(body.env.unwrap().contains(&"SHEPHERD_LISTEN=ipc:///data/dolly/.runner-1.sock".to_owned()));
    let host = body.host_config.unwrap();
    assert_eq!((host.network_mode.as_deref(), host.port_bindings), (Some("none"), None));
    let wired = DockerOptions { network: Some("lan".to_owned()), ..options() };
    assert_eq!(self::host(&wired).network_mode.as_deref(), Some("lan"));
}

#[test]
fn with_tcp_the_port_is_on_the_loopback_interface_only() {
    let options = DockerOptions { transport: Transport::Tcp, port: 9001, ..options() };
    let body = made(&options);
    assert_eq!(body.exposed_ports, strings(&["9999/tcp"]));
    assert!(body.env.unwrap().contains(&"SHEPHERD_LISTEN=tcp://0.0.0.0:9999".to_owned()));
    let host = body.host_config.unwrap();
    assert_eq!(host.network_mode, None);
    let bindings = host.port_bindings.unwrap();
    let binding = &bindings["9999/tcp"].as_ref().unwrap()[0];
    assert_eq!(binding.host_ip.as_deref(), Some("127.0.0.1"));
    assert_eq!(binding.host_port.as_deref(), Some("9001"));
    assert_eq!(bindings.len(), 1);
}

#[test]
fn a_daemon_that_is_not_root_runs_containers_as_itself() {
    let user = Us { uid: 1000, gid: 100 };
    let body = made_by(&options(), user, None);
    assert_eq!(body.user.as_deref(), Some("1000:100"));
    assert_eq!(body.host_config.unwrap().group_add, strings(&["100"]));
    let configured = DockerOptions { user: Some("nobody".to_owned()), ..options() };
    assert_eq!(made_by(&configured, user, None).user.as_deref(), Some("nobody"));
}

#[test]
fn a_private_socket_brings_its_directory() {
    let body = made_by(&options(), Us { uid: 0, gid: 0 }, Some("/tmp/shepherd-1/sock"));
    assert_eq!(body.labels.unwrap()["shepherd.socket"], "/tmp/shepherd-1/sock");
    let mounts = body.host_config.unwrap().mounts.unwrap();
    let targets: Vec<_> = mounts.iter().map(|mount| mount.target.as_deref().unwrap()).collect();
    assert_eq!(targets, ["/data/dolly", "/tmp/shepherd-1"]);
}

#[test]
fn limits_and_more_are_passed_on() {
    let host = host(&DockerOptions {
        memory: Some(100 << 20),
        cpus: Some(1.5),
        shm_size: Some(64 << 20),
        capabilities: vec!["SYS_NICE".to_owned()],
        mounts: vec![Mounted { source: "/m".into(), target: PathBuf::from("/models"), read_only: true }],
        ..options()
    });
    assert_eq!((host.memory, host.memory_swap), (Some(100 << 20), Some(100 << 20)));
    assert_eq!((host.nano_cpus, host.shm_size), (Some(1_500_000_000), Some(64 << 20)));
    assert_eq!(host.cap_add, strings(&["SYS_NICE"]));
    assert_eq!(host.tmpfs.unwrap()["/tmp"], "rw,exec,nosuid,nodev,mode=1777,size=52428800");
    let mount = &host.mounts.unwrap()[1];
    assert_eq!(mount.source.as_deref(), Some("/m"));
    assert_eq!((mount.target.as_deref(), mount.read_only), (Some("/models"), Some(true)));
    let body =
        made(&DockerOptions { entrypoint: strings(&["/run"]), command: strings(&["-v"]), ..options() });
    assert_eq!((body.entrypoint, body.cmd), (strings(&["/run"]), strings(&["-v"])));
}

#[test]
fn a_tmp_in_memory_is_for_images_that_are_read_only() {
    assert!(host(&options()).tmpfs.unwrap()["/tmp"].contains("size=1073741824"));
    let writable = host(&DockerOptions { read_only: false, ..options() });
    assert_eq!((writable.readonly_rootfs, writable.tmpfs), (Some(false), None));
    let own = Mounted { source: "/scratch".into(), target: PathBuf::from("/tmp"), read_only: false };
    assert_eq!(host(&DockerOptions { mounts: vec![own], ..options() }).tmpfs, None);
}

#[test]
fn the_runner_is_told_who_it_is_whatever_is_configured() {
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let env = vec![pair("A", "b=c"), pair("SHEPHERD_SHEEP", "liar"), pair("NVIDIA_VISIBLE_DEVICES", "all")];
    let env = made(&DockerOptions { env, ..options() }).env.unwrap();
    assert_eq!(
        env,
        [
            "A=b=c",
            "NVIDIA_VISIBLE_DEVICES=all",
            "SHEPHERD_LISTEN=ipc:///data/dolly/.runner-1.sock",
            "SHEPHERD_TOKEN=secret",
            "SHEPHERD_SHEEP=dolly",
            "SHEPHERD_MODEL=team/m:1",
        ]
    );
}

fn visible(body: &ContainerCreateBody) -> Vec<&str> {
    body.env.iter().flatten().filter_map(|text| text.strip_prefix("NVIDIA_VISIBLE_DEVICES=")).collect()
}

#[test]
fn gpus_among_the_devices_mean_the_runtime_and_its_variable() {
    let devices = ["/dev/nvidia1", "/dev/nvidia0", "/dev/fuse", "/dev/nvidiactl"].map(str::to_owned).to_vec();
    let env = vec![("NVIDIA_VISIBLE_DEVICES".to_owned(), "all".to_owned())];
    let body = made(&DockerOptions { devices, env, ..options() });
    assert_eq!(visible(&body), ["1,0"]);
    let host = body.host_config.unwrap();
    assert_eq!(host.runtime.as_deref(), Some("nvidia"));
    assert_eq!(host.device_requests, None);
    let paths: Vec<_> =
        host.devices.unwrap().into_iter().map(|device| device.path_on_host.unwrap()).collect();
    assert_eq!(paths, ["/dev/fuse", "/dev/nvidiactl"]);
    // An image that asks for all of them gets none.
    assert_eq!(visible(&made(&options())), [""]);
}

#[test]
fn gpus_by_request_and_by_name() {
    let gpu = strings(&["gpu"]).map(|one| vec![one]);
    for (gpus, count, ids) in [
        (Gpus::All, Some(-1), None),
        (Gpus::Count(2), Some(2), None),
        (Gpus::Ids(vec!["GPU-1".to_owned()]), None, strings(&["GPU-1"])),
    ] {
        let body = made(&DockerOptions { gpus: Some(gpus), ..options() });
        assert!(visible(&body).is_empty(), "the driver says it");
        let host = body.host_config.unwrap();
        assert_eq!(host.runtime, None);
        let request = &host.device_requests.unwrap()[0];
        assert_eq!((request.driver.as_deref(), request.count, &request.device_ids), (Some(""), count, &ids));
        assert_eq!(request.capabilities, gpu);
    }
    let body = made(&DockerOptions { cdi: vec!["nvidia.com/gpu=0".to_owned()], ..options() });
    assert_eq!(visible(&body), [""]);
    let requests = body.host_config.unwrap().device_requests.unwrap();
    assert_eq!(requests[0].driver.as_deref(), Some("cdi"));
    assert_eq!(requests[0].device_ids, strings(&["nvidia.com/gpu=0"]));
}
