use super::*;
use crate::docker::fixtures;

fn options() -> DockerOptions {
    DockerOptions { port: 9001, ..fixtures::options() }
}

/// Checks the kind of an error and what its sentence holds.
fn check(options: &DockerOptions, message: &str, kind: &str, sentence: &str) {
    let asked = Asked { options, image: "r/m:1", private_socket: Some("/tmp/shepherd-1/sock") };
    let (certainty, error) = match verdict(&asked, message) {
        Verdict::Known(error) => ("", error),
        Verdict::Unclear(error) => ("unclear: ", error),
    };
    let found = match &error {
        SheepError::Model(_) => "model",
        SheepError::Misconfigured(_) => "misconfigured",
        SheepError::Unavailable(_) => "unavailable",
    };
    assert_eq!(format!("{certainty}{found}"), kind, "{error}");
    assert!(error.to_string().contains(sentence), "{error}");
}

/// As engines of several versions say it.
#[test]
fn refusals_are_told_apart() {
    let plain = options();
    for (message, kind, sentence) in [
        (r#"could not select device driver "" with capabilities: [[gpu]]"#, "model", "no driver for GPUs"),
        (r#"could not select device driver "cdi" with capabilities: []"#, "model", "does not know CDI"),
        ("CDI device injection failed: unresolvable CDI devices nvidia.com/gpu=9", "model", "CDI devices"),
        ("Unknown runtime specified nvidia", "model", "no runtime `nvidia`"),
        ("unknown or invalid runtime name: nvidia", "model", "no runtime `nvidia`"),
        (
            "OCI runtime create failed: ... nvidia-container-cli: device error: 7: unknown device: unknown",
            "model",
            "cannot be brought into a container",
        ),
        (
            r#"error gathering device information while adding custom device "/dev/x": no such file or directory"#,
            "model",
            "a device of this sheep",
        ),
        (
            "driver failed programming external connectivity on endpoint x: Bind for 127.0.0.1:9001 failed: port is already allocated",
            "unavailable",
            "port 9001 is in use",
        ),
        (
            r#"invalid mount config for type "bind": bind source path does not exist: /data/dolly"#,
            "misconfigured",
            "does not see the directory /data/dolly",
        ),
        (
            r#"invalid mount config for type "bind": bind source path does not exist: /tmp/shepherd-1"#,
            "misconfigured",
            "does not see the directory",
        ),
        (
            r#"invalid mount config for type "bind": bind source path does not exist: /models"#,
            "misconfigured",
            "/models, which this sheep mounts",
        ),
        ("unable to find user ghost: no matching entries in passwd file", "model", "names a user"),
        ("No command specified", "model", "does not say what to run"),
        ("No such image: sha256:1", "unavailable", "was removed"),
        (
            "OCI runtime create failed: starting container process caused: exec: \"x\": executable file not found in $PATH",
            "model",
            "`r/m:1` cannot be run",
        ),
        ("network nowhere not found", "misconfigured", "no network"),
        ("Minimum memory limit allowed is 6MB", "misconfigured", "memory"),
        ("Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available", "misconfigured", "cpus"),
        (r#"invalid CapAdd: unknown capability: "CAP_X""#, "misconfigured", "capabilities"),
        ("write /var/lib/x: no space left on device", "unclear: unavailable", "no space left"),
        ("Cannot mkdir: /etc/passwd is not a directory", "unclear: misconfigured", "/etc/passwd"),
        ("something new", "unclear: misconfigured", "something new"),
    ] {
        check(&plain, message, kind, sentence);
    }
}

#[test]
fn what_is_configured_is_named_before_the_image() {
    let user = DockerOptions { user: Some("ghost".to_owned()), ..options() };
    check(&user, "unable to find user ghost: no matching entries in passwd file", "model", "`ghost`");
    let command = DockerOptions { command: Some(vec!["x".to_owned()]), ..options() };
    check(&command, "exec: \"x\": executable file not found in $PATH", "model", "configured command");
}
