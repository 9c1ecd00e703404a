//! The engine that runs containers, its images, and their registry.

use std::path::Path;
use std::time::Duration;

use super::{check_more, parse, valid, valid_with};
use crate::{Config, DockerHost, DockerTls, Environment};

const SHEEP: &str =
    "data_root: /data\nregistry: {url: 'http://r:1'}\nsheep: {d: {type: docker, transport: ipc}}\n";

/// What the only sheep runs in, with `lines` from line 4 on.
#[track_caller]
fn host(lines: &str, variables: &[(&str, &str)]) -> DockerHost {
    let config =
        parse(&format!("{SHEEP}{lines}"), variables).unwrap_or_else(|error| panic!("{lines}\n{error}"));
    config.docker.unwrap().host
}

#[track_caller]
fn refused(lines: &str, variables: &[(&str, &str)], expected: &[&str]) {
    super::check(&format!("{SHEEP}{lines}"), variables, expected);
}

fn tcp(authority: &str, directory: Option<&str>) -> DockerHost {
    let tls = directory.map(Path::new).map(|directory| DockerTls {
        ca_file: directory.join("ca.pem"),
        cert_file: directory.join("cert.pem"),
        key_file: directory.join("key.pem"),
    });
    DockerHost::Tcp { authority: authority.into(), tls }
}

const FILES: &str = "ca_file: pki/ca.pem, cert_file: pki/cert.pem, key_file: pki/key.pem";

#[test]
fn the_engine_is_where_it_is_said_to_be() {
    let socket = DockerHost::Unix("/var/run/docker.sock".into());
    assert_eq!(host("", &[]), socket);
    assert_eq!(host("docker: {}\n", &[("DOCKER_HOST", "")]), socket);
    assert_eq!(host("docker: {host: 'unix:///run/x.sock'}\n", &[]), DockerHost::Unix("/run/x.sock".into()));
    for text in ["tcp://127.0.0.1:2375", "http://127.0.0.1:2375/", "TCP://127.0.0.1:2375"] {
        assert_eq!(
            host(&format!("docker: {{host: '{text}'}}\n"), &[]),
            tcp("127.0.0.1:2375", None),
            "{text}"
        );
    }
    for text in ["tcp://engine:2376", "https://Engine:2376"] {
        let line = format!("docker: {{host: '{text}', {FILES}}}\n");
        assert_eq!(host(&line, &[]), tcp("engine:2376", Some("/srv/app/pki")), "{text}");
    }
    assert_eq!(valid("").docker, None);
    assert_eq!(valid_with("", &[("DOCKER_HOST", "ssh://x")]).docker, None);
}

#[test]
fn the_environment_of_other_clients_is_used() {
    let at = |variables: &[(&str, &str)]| host("", variables);
    assert_eq!(at(&[("DOCKER_HOST", "unix:///x.sock")]), DockerHost::Unix("/x.sock".into()));
    assert_eq!(at(&[("DOCKER_HOST", "tcp://[::1]:2375")]), tcp("[::1]:2375", None));
    let host_and =
        |more: (&'static str, &'static str)| [("DOCKER_HOST", "tcp://e:2376"), ("HOME", "/h"), more];
    assert_eq!(at(&host_and(("DOCKER_TLS_VERIFY", "1"))), tcp("e:2376", Some("/h/.docker")));
    assert_eq!(at(&host_and(("DOCKER_CERT_PATH", "/certs"))), tcp("e:2376", Some("/certs")));
    assert_eq!(at(&host_and(("DOCKER_CERT_PATH", ""))), tcp("e:2376", None));
    let https = [("DOCKER_HOST", "https://e:1"), ("DOCKER_CERT_PATH", "certs"), ("DOCKER_TLS_VERIFY", "1")];
    assert_eq!(at(&https), tcp("e:1", Some("/srv/app/certs")));
    // What TLS variables say is about their host, and not about the file's.
    let variables = host_and(("DOCKER_TLS_VERIFY", "1"));
    assert_eq!(host("docker: {host: 'tcp://127.0.0.1:1'}\n", &variables), tcp("127.0.0.1:1", None));
    let line = format!("docker: {{{FILES}}}\n");
    assert_eq!(host(&line, &variables), tcp("e:2376", Some("/srv/app/pki")));
}

#[test]
fn a_host_that_cannot_be_is_refused() {
    let shape = "expected unix:///PATH, tcp://HOST:PORT or https://HOST:PORT";
    for (text, reason) in [
        ("ssh://me@engine", "does not begin with unix://, tcp://, http:// or https://"),
        ("/var/run/docker.sock", "does not begin with unix://, tcp://, http:// or https://"),
        ("unix://run/x.sock", "does not name a socket file by its absolute path"),
        ("unix:///", "does not name a socket file by its absolute path"),
        ("tcp://engine", "has no port"),
        ("tcp://[::1]", "has no port"),
        ("tcp://engine:2375/v1.41", "has a path after the port"),
        ("tcp://engine:99999", "has no valid host and port"),
        ("tcp://", "has no valid host and port"),
        ("tcp://me:hunter2@engine:1", "holds credentials, which have keys of their own"),
    ] {
        let line = format!("docker: {{host: '{text}'}}\n");
        refused(&line, &[], &[&format!("c.yml:4:16: docker.host: {reason}, {shape}")]);
        let expected = format!("DOCKER_HOST: docker.host: {reason}, {shape}");
        refused("", &[("DOCKER_HOST", text)], &[&expected]);
    }
}

#[test]
fn tls_has_three_files_and_a_host_that_speaks_it() {
    let missing = |key: &str| {
        format!(
            "c.yml:4:9: docker.{key}: is missing, expected all of `ca_file`, `cert_file` and `key_file`, or none"
        )
    };
    refused("docker: {host: 'tcp://e:1', cert_file: x}\n", &[], &[&missing("ca_file"), &missing("key_file")]);
    refused(
        "docker: {host: 'https://e:1'}\n",
        &[("DOCKER_TLS_VERIFY", "1"), ("DOCKER_CERT_PATH", "/certs")],
        &["c.yml:4:16: docker.host: asks for TLS, expected `ca_file`, `cert_file` and `key_file` beside it"],
    );
    for (host, kind) in [("unix:///x", "a socket file"), ("http://e:1", "an http host")] {
        let expected = format!(
            "c.yml:4:19: docker.ca_file: has no meaning with {kind}, expected only with tcp:// or https://"
        );
        refused(&format!("docker: {{{FILES}, host: '{host}'}}\n"), &[], &[&expected]);
    }
    refused(
        &format!("docker: {{{FILES}}}\n"),
        &[],
        &[
            "c.yml:4:19: docker.ca_file: has no meaning with a socket file, expected only with tcp:// or https://",
        ],
    );
    refused(
        "",
        &[("DOCKER_HOST", "tcp://e:1"), ("DOCKER_TLS_VERIFY", "1")],
        &[
            "DOCKER_TLS_VERIFY: docker.host: asks for TLS with the certificates of a home directory that is not \
           known, expected DOCKER_CERT_PATH too",
        ],
    );
    refused(
        "docker: {host: 'tcp://e:1', ca_file: /data/ca, cert_file: /c, key_file: /k}\n",
        &[],
        &[
            "c.yml:4:38: docker.ca_file: lies inside `data_root`, which is emptied at every start, expected a \
           place outside",
        ],
    );
}

#[test]
fn an_engine_without_tls_is_warned_of() {
    let warned = |lines: &str, variables: &[(&str, &str)]| -> Vec<String> {
        let config = parse(&format!("{SHEEP}{lines}"), variables).unwrap();
        config.warnings.iter().map(ToString::to_string).collect()
    };
    let message = "is reached without TLS: whoever can reach that port is root on the engine's machine";
    for host in ["tcp://10.0.0.1:2375", "http://engine:2375", "tcp://localhost.example.org:1"] {
        let line = format!("docker: {{host: '{host}'}}\n");
        assert_eq!(warned(&line, &[]), [format!("c.yml:4:16: docker.host: {message}")], "{host}");
        let expected = format!("DOCKER_HOST: docker.host: {message}");
        assert_eq!(warned("", &[("DOCKER_HOST", host)]), [expected], "{host}");
    }
    for host in ["tcp://127.0.0.1:1", "tcp://127.8.0.1:1", "tcp://LOCALHOST:1", "tcp://[::1]:1", "unix:///x"]
    {
        assert_eq!(warned(&format!("docker: {{host: '{host}'}}\n"), &[]), Vec::<String>::new(), "{host}");
    }
    assert!(warned(&format!("docker: {{host: 'tcp://e:1', {FILES}}}\n"), &[]).is_empty());
}

#[test]
fn images_are_pulled_ahead_and_bounded() {
    let docker =
        valid("docker: {prefetch: ['mnist:2', team/ocr, 'a:'], image_budget: 20GiB}\n").docker.unwrap();
    let names: Vec<_> = docker.prefetch.iter().map(|model| (model.name(), model.version())).collect();
    assert_eq!(names, [("mnist", "2"), ("team/ocr", ""), ("a", "")]);
    assert_eq!(docker.image_budget, Some(20 << 30));
    check_more(
        "docker: {prefetch: ['127.0.0.1:6000/mnist:2', ..], image_budget: 0, hots: x}\n",
        &[
            "c.yml:3:21: docker.prefetch[0]: is `127.0.0.1:6000/mnist:2`, expected NAME:VERSION of a model, \
             without the registry; its version must hold neither `/` nor control characters, and be neither `.` \
             nor `..`",
            "c.yml:3:47: docker.prefetch[1]: is `..`, expected NAME:VERSION of a model, without the registry; its \
             name must be a relative path without control characters, whose segments are neither empty nor `.` \
             nor `..`",
            "c.yml:3:66: docker.image_budget: is `0`, expected a size from 1 to 9223372036854775807 bytes",
            "c.yml:3:69: docker.hots: is not a known key, did you mean `host`?",
        ],
    );
    check_more(
        "docker: {prefetch: ['a:1', 'a:1']}\n",
        &["c.yml:3:20: docker.prefetch: names `a:1` twice, expected each model once"],
    );
    check_more("docker: tcp\n", &["c.yml:3:9: docker: is text, expected a mapping"]);
}

#[test]
fn a_registry_has_patience() {
    assert_eq!(valid("registry: {url: 'http://r:1/'}\n").registry.unwrap().patience, Duration::from_mins(1));
    let registry = valid("registry: {url: 'https://r:5000', patience: 10s}\n").registry.unwrap();
    assert_eq!((registry.patience, registry.url.authority()), (Duration::from_secs(10), "r:5000"));
}

#[test]
fn a_registry_is_named_as_the_original_took_it() {
    let prefix = |url: &str| valid(&format!("registry: {{url: {url}}}\n")).registry.unwrap().prefix();
    assert_eq!(prefix("https://reg.example"), "reg.example");
    assert_eq!(prefix("reg.example:5000"), "reg.example:5000");
    assert_eq!(prefix("https://reg.example/team/models/"), "reg.example/team/models");
    assert_eq!(prefix("reg.example/team"), "reg.example/team");
    assert_eq!(prefix("''"), "docker.io");
    let of_variable = valid_with("registry: {url: $REGISTRY}\n", &[("REGISTRY", "")]);
    assert_eq!(of_variable.registry.unwrap().prefix(), "docker.io");
}

#[test]
fn a_registrys_password_is_kept_from_runners() {
    let variables = [("USER_NAME", "me"), ("PASSWORD", "p~?>\u{e9}")];
    let config =
        valid_with("registry: {url: 'http://r:1', username: $USER_NAME, password: $PASSWORD}\n", &variables);
    assert!(config.withheld_env.iter().eq(["PASSWORD"]));
    let credentials = config.registry.as_ref().unwrap().credentials.as_ref().unwrap();
    assert_eq!(credentials.password.expose(), "p~?>\u{e9}");
    assert!(!format!("{config:?}").contains("p~?>"));

    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("password"), "p\u{e9}\n").unwrap();
    let text = SHEEP.replace("'http://r:1'", "'http://r:1', username: me, password_file: password");
    let config = Config::parse(&text, "c.yml", &Environment::default(), dir.path()).unwrap();
    assert_eq!(config.registry.unwrap().credentials.unwrap().password.expose(), "p\u{e9}");
}
