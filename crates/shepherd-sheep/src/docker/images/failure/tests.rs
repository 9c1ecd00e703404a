use shepherd_job::ModelRef;

use super::*;

fn name() -> ImageName {
    ImageName::of("reg.example:5000", &ModelRef::parse("mnist", "2").unwrap()).unwrap()
}

fn of(message: &str, login: Option<&RegistryLogin>) -> Failure {
    Failure::of(Trouble::Refused { status: 500, message: message.to_owned() }, &name(), login)
}

/// What `message` means for an engine with a login, as a job's client reads it.
fn sentence(message: &str) -> String {
    let login = RegistryLogin { username: "shep".to_owned(), password: "secret~?>ž".to_owned() };
    of(message, Some(&login)).sentence(&name())
}

#[test]
fn each_refusal_has_its_own_sentence() {
    for (message, expected) in [
        ("unauthorized: authentication required", "refuses the login of `shep`"),
        (
            "Get \"https://reg.example:5000/v2/\": unauthorized: incorrect username or password",
            "refuses the login of `shep`",
        ),
        (
            "failed to authorize: failed to fetch anonymous token: unexpected status from GET request to https://a/token: 401 Unauthorized",
            "refuses the login of `shep`",
        ),
        (
            "Head \"http://reg.example:5000/v2/none/manifests/1\": no basic auth credentials",
            "wants a login and none is configured",
        ),
        ("denied: requested access to the resource is denied", "denies `shep` access"),
        (
            "pull access denied for reg.example:5000/mnist, repository does not exist or may require 'docker login': denied: requested access to the resource is denied",
            "denies `shep` access",
        ),
        (
            "pull access denied, repository does not exist or may require authorization: server message: insufficient_scope: authorization failed",
            "no such image, or not for the configured user",
        ),
        ("name unknown: repository name not known to registry", "no such image"),
        (
            "manifest for reg.example:5000/mnist:2 not found: manifest unknown: manifest unknown",
            "no version `2` of it, or no such image",
        ),
        ("reg.example:5000/mnist:2: not found", "no version `2` of it, or no such image"),
        (
            "Get \"https://reg.example:5000/v2/\": http: server gave HTTP response to HTTPS client",
            "`insecure-registries` must name it",
        ),
        (
            "Get \"https://reg.example:5000/v2/\": x509: certificate signed by unknown authority",
            "does not trust the registry's certificate",
        ),
        ("no matching manifest for linux/amd64 in the manifest list entries", "for other platforms only"),
        (
            "write /var/lib/docker/tmp/GetImageBlob1: no space left on device",
            "the engine's disk has no room for it",
        ),
        ("rpc error: code = Unavailable desc = transport is closing", "the engine failed: "),
        (
            "rpc error: code = Unknown desc = failed to extract layer: invalid tar header",
            "failed to extract layer",
        ),
        ("something new", "something new"),
    ] {
        let said = sentence(message);
        assert!(said.starts_with("cannot pull the image `reg.example:5000/mnist:2`: "), "{said}");
        assert!(said.contains(expected), "{message}\n{said}");
    }
}

#[test]
fn without_a_login_none_is_said_to_be_wrong() {
    for message in ["unauthorized: authentication required", "no basic auth credentials"] {
        assert!(of(message, None).sentence(&name()).contains("wants a login and none is configured"));
    }
}

#[test]
fn a_registry_that_is_away_may_come_back() {
    for (message, expected) in [
        (
            "Get \"http://127.0.0.1:1/v2/\": dial tcp 127.0.0.1:1: connect: connection refused",
            "connection refused",
        ),
        (
            "Get \"https://nohost.invalid:5000/v2/\": dial tcp: lookup nohost.invalid on 10.0.0.1:53: no such host",
            "name cannot be resolved",
        ),
        (
            "Get \"http://127.0.0.1:2/v2/\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
            "does not answer",
        ),
        ("net/http: TLS handshake timeout", "does not answer"),
        ("Get \"http://127.0.0.1:2/v2/\": EOF", "broke the connection off"),
        ("read tcp 127.0.0.1:3->127.0.0.1:2: read: connection reset by peer", "broke the connection off"),
        ("received unexpected HTTP status: 503 Service Unavailable", "answers 503"),
        (
            "failed to resolve reference: unexpected status from HEAD request to https://reg.example/v2/m: 502 Bad Gateway",
            "answers 502",
        ),
        ("toomanyrequests: slow down", "asked too often"),
    ] {
        let failure = of(message, None);
        assert!(failure.is_passing(), "{message}");
        assert!(failure.sentence(&name()).contains(expected), "{message}: {}", failure.sentence(&name()));
    }
}

#[test]
fn a_refusal_is_not_tried_again() {
    for message in [
        "unauthorized: authentication required",
        "manifest unknown",
        "something new",
        "received unexpected HTTP status: 404 Not Found",
    ] {
        assert!(!of(message, None).is_passing(), "{message}");
    }
}

#[test]
fn a_lost_engine_is_no_fault_of_the_registry_s() {
    let lost = Trouble::Lost("connection closed before message completed".to_owned());
    assert_eq!(Failure::of(lost.clone(), &name(), None), Failure::Engine(lost));
}

#[test]
fn a_password_that_a_registry_repeats_goes_no_further() {
    let said = sentence("your login shep:secret~?>ž is odd");
    assert!(said.contains("shep:***") && !said.contains("secret"), "{said}");
}

#[test]
fn a_long_answer_is_cut_between_characters() {
    assert!(sentence(&"ž".repeat(10_000)).len() < 500);
}

#[test]
fn an_image_s_name_is_not_taken_for_what_the_engine_says() {
    let name = ImageName::of("reg.example", &ModelRef::parse("denied/timeout", "eof").unwrap()).unwrap();
    for message in [
        "manifest for reg.example/denied/timeout:eof not found: manifest unknown: manifest unknown",
        "Head \"https://reg.example/v2/denied/timeout/manifests/eof\": manifest unknown",
    ] {
        let failure = Failure::of(Trouble::Refused { status: 404, message: message.to_owned() }, &name, None);
        assert!(failure.sentence(&name).contains("no version `eof`"), "{failure:?}");
    }
}
