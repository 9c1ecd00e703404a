//! What the engine is asked to make: one container of one run.
//!
//! A runner is a stranger. It gets the sheep's own directory, at the same path and
//! through the daemon's group, and nothing else of the machine that was not
//! configured: no capability, no new privileges, no writable image, no network with
//! ipc, and a port on the loopback interface only with tcp.
//!
//! `HOME` and `XDG_CACHE_HOME` are the image's own, also where it is read-only: what a
//! model downloaded into its cache while the image was built would not be found under
//! another. A runner that must write there gets `env: {HOME: /tmp}`.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::{
    ContainerCreateBody, DeviceMapping, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use shepherd_job::ModelRef;

use super::{DockerOptions, gpu};
use crate::Transport;
use crate::token::{self, Token};

/// Whose containers they are.
pub(super) const INSTANCE: &str = "shepherd.instance";
/// The sheep's name.
pub(super) const SHEEP: &str = "shepherd.sheep";
/// The model, `NAME:VERSION`.
const MODEL: &str = "shepherd.model";
/// The run's random name.
const RUN: &str = "shepherd.run";
/// The socket, when it lies in a directory of its own outside the sheep's.
pub(super) const SOCKET: &str = "shepherd.socket";

/// Where a runner listens in its container: what runners of the first shepherd do by
/// themselves.
const PORT: &str = "9999/tcp";
const LISTEN: &str = "tcp://0.0.0.0:9999";

/// What the engine keeps of a container's output. It is read as it comes; this much
/// can be caught up with.
const LOG_SIZE: &str = "8m";
const LOG_FILES: &str = "2";

/// The size of a read-only container's `/tmp` without a limit of memory, which it
/// counts against; with one it is half of that.
const TMP: u64 = 1 << 30;

/// What differs from run to run.
pub(super) struct Run<'a> {
    /// The run's random name.
    pub(super) name: &'a str,
    pub(super) instance: &'a str,
    pub(super) model: &'a ModelRef,
    /// The image's id.
    pub(super) image: &'a str,
    /// The URL that the shepherd dials.
    pub(super) endpoint: &'a str,
    pub(super) token: &'a Token,
    pub(super) private_socket: Option<&'a str>,
    pub(super) us: Us,
}

/// Who the daemon is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Us {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl Us {
    pub(super) fn effective() -> Self {
        Self { uid: rustix::process::geteuid().as_raw(), gid: rustix::process::getegid().as_raw() }
    }
}

/// The container's name: decided before it is asked for, so that it can be removed
/// although the answer was never heard.
pub(super) fn name(instance: &str, sheep: &str, run: &str) -> String {
    // The end of a run's name is its random part.
    let run = &run[run.len().saturating_sub(12)..];
    let part = |text: &str| -> String {
        let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '-' };
        text.chars().take(32).map(legal).collect()
    };
    format!("shepherd-{}-{}-{run}", part(instance), part(sheep))
}

pub(super) fn body(options: &DockerOptions, run: &Run<'_>) -> ContainerCreateBody {
    let none = HealthConfig { test: Some(vec!["NONE".to_owned()]), ..HealthConfig::default() };
    ContainerCreateBody {
        image: Some(run.image.to_owned()),
        labels: Some(labels(options, run)),
        env: Some(env(options, run)),
        user: options
            .user
            .clone()
            .or_else(|| (run.us.uid != 0).then(|| format!("{}:{}", run.us.uid, run.us.gid))),
        entrypoint: options.entrypoint.clone(),
        cmd: options.command.clone(),
        exposed_ports: is_published(options).then(|| vec![PORT.to_owned()]),
        // Its probes would run beside the runner, and nobody asks for their result.
        healthcheck: Some(none),
        host_config: Some(host_config(options, run)),
        ..ContainerCreateBody::default()
    }
}

fn is_published(options: &DockerOptions) -> bool {
    match options.transport {
        Transport::Ipc => false,
        Transport::Tcp => true,
    }
}

fn labels(options: &DockerOptions, run: &Run<'_>) -> HashMap<String, String> {
    let mut labels = HashMap::from([
        (INSTANCE.to_owned(), run.instance.to_owned()),
        (SHEEP.to_owned(), options.id.to_string()),
        (MODEL.to_owned(), run.model.to_string()),
        (RUN.to_owned(), run.name.to_owned()),
    ]);
    labels.extend(run.private_socket.map(|socket| (SOCKET.to_owned(), socket.to_owned())));
    labels
}

fn env(options: &DockerOptions, run: &Run<'_>) -> Vec<String> {
    let listen = match options.transport {
        Transport::Ipc => run.endpoint.to_owned(),
        Transport::Tcp => LISTEN.to_owned(),
    };
    let ours = [
        ("SHEPHERD_LISTEN", Some(listen)),
        (token::VARIABLE, Some(run.token.as_str().to_owned())),
        ("SHEPHERD_SHEEP", Some(options.id.to_string())),
        ("SHEPHERD_MODEL", Some(run.model.to_string())),
        (gpu::VISIBLE, gpu::visible(options)),
    ];
    let is_ours = |name: &str| ours.iter().any(|(our, value)| name == *our && value.is_some());
    let theirs = options.env.iter().filter(|(name, _)| !is_ours(name));
    let theirs = theirs.map(|(name, value)| format!("{name}={value}"));
    theirs
        .chain(ours.iter().filter_map(|(name, value)| Some(format!("{name}={}", value.as_ref()?))))
        .collect()
}

fn host_config(options: &DockerOptions, run: &Run<'_>) -> HostConfig {
    let memory = options.memory.map(clamped);
    let text = |text: &str| Some(text.to_owned());
    let log = HashMap::from([
        ("max-size".to_owned(), LOG_SIZE.to_owned()),
        ("max-file".to_owned(), LOG_FILES.to_owned()),
    ]);
    let network = options.network.clone().or_else(|| match options.transport {
        Transport::Ipc => text("none"),
        Transport::Tcp => None,
    });
    let requests = gpu::requests(options);
    HostConfig {
        mounts: Some(mounts(options, run)),
        tmpfs: tmpfs(options),
        readonly_rootfs: Some(options.read_only),
        network_mode: network,
        port_bindings: is_published(options).then(|| {
            let port = PortBinding { host_ip: text("127.0.0.1"), host_port: Some(options.port.to_string()) };
            HashMap::from([(PORT.to_owned(), Some(vec![port]))])
        }),
        cap_drop: Some(vec!["ALL".to_owned()]),
        cap_add: (!options.capabilities.is_empty()).then(|| options.capabilities.clone()),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        // The way into the sheep's directory for every user.
        group_add: Some(vec![run.us.gid.to_string()]),
        init: Some(true),
        pids_limit: Some(i64::from(options.pids)),
        memory,
        // As much as memory means: no swap.
        memory_swap: memory,
        nano_cpus: options.cpus.map(nano_cpus),
        shm_size: options.shm_size.map(clamped),
        devices: devices(options),
        runtime: (!gpu::numbers(&options.devices).is_empty()).then(|| gpu::RUNTIME.to_owned()),
        device_requests: (!requests.is_empty()).then_some(requests),
        // The one that can be read again, whatever the engine's default is.
        log_config: Some(HostConfigLogConfig { typ: text("json-file"), config: Some(log) }),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::NO),
            maximum_retry_count: None,
        }),
        ..HostConfig::default()
    }
}

fn mounts(options: &DockerOptions, run: &Run<'_>) -> Vec<Mount> {
    // Not `binds`: the engine would make a source that is missing, as root.
    let mount = |source: &Path, target: &Path, read_only| Mount {
        typ: Some(MountType::BIND),
        source: Some(source.to_string_lossy().into_owned()),
        target: Some(target.to_string_lossy().into_owned()),
        read_only: Some(read_only),
        ..Mount::default()
    };
    let home = mount(&options.data_root, &options.data_root, false);
    let private = run.private_socket.and_then(|socket| Path::new(socket).parent());
    let private = private.map(|dir| mount(dir, dir, false));
    let theirs = options.mounts.iter().map(|m| mount(&m.source, &m.target, m.read_only));
    std::iter::once(home).chain(private).chain(theirs).collect()
}

fn tmpfs(options: &DockerOptions) -> Option<HashMap<String, String>> {
    let tmp = Path::new("/tmp");
    if !options.read_only || options.mounts.iter().any(|mount| mount.target == tmp) {
        return None;
    }
    let size = options.memory.map_or(TMP, |memory| memory / 2);
    // With exec: runners compile code there and load it.
    Some(HashMap::from([("/tmp".to_owned(), format!("rw,exec,nosuid,nodev,mode=1777,size={size}"))]))
}

fn devices(options: &DockerOptions) -> Option<Vec<DeviceMapping>> {
    let others: Vec<DeviceMapping> = options
        .devices
        .iter()
        .filter(|device| gpu::number(device).is_none())
        .map(|device| DeviceMapping {
            path_on_host: Some(device.clone()),
            path_in_container: Some(device.clone()),
            cgroup_permissions: Some("rw".to_owned()),
        })
        .collect();
    (!others.is_empty()).then_some(others)
}

fn clamped(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn nano_cpus(cpus: f64) -> i64 {
    // The cast saturates; the engine names the limits of what it takes.
    (cpus * 1e9).round() as i64
}

#[cfg(test)]
mod tests;
