use super::*;

fn of(name: &str, version: &str) -> Result<String, String> {
    let model = ModelRef::parse(name, version).unwrap();
    ImageName::of("reg.example:5000", &model).map(|name| name.to_string()).map_err(|e| e.to_string())
}

#[test]
fn a_model_s_image_is_named_after_registry_name_and_version() {
    assert_eq!(of("mnist", "2").unwrap(), "reg.example:5000/mnist:2");
    assert_eq!(of("mnist", "").unwrap(), "reg.example:5000/mnist:latest");
    assert_eq!(of("team/a.b_c__d-e--f/0", "_V.1-x").unwrap(), "reg.example:5000/team/a.b_c__d-e--f/0:_V.1-x");
    assert_eq!(of("m", &"1".repeat(128)).unwrap().len(), "reg.example:5000/m:".len() + 128);
}

#[test]
fn a_name_that_no_image_can_have_says_which_rule_it_breaks() {
    for name in
        ["Mnist", "a..b", "a___b", "a_.b", "a.-b", "_a", "-a", "a-", "a_", "a.", "x/Y/z", "a/-", "a b", "a@b"]
    {
        let error = of(name, "1").unwrap_err();
        assert!(error.contains(&format!("`{name}:1`")) && error.contains("lower-case"), "{error}");
    }
    for version in ["-1", ".1", "1.0+cu11", "1~rc", "a b", "ž", "1@sha256:0"] {
        assert!(of("m", version).unwrap_err().contains("a tag is of"), "{version}");
    }
    assert!(of("m", &"1".repeat(129)).unwrap_err().contains("128"));
    assert!(of(&"m".repeat(250), "1").unwrap_err().contains("255"));
}

#[test]
fn a_registry_is_a_host_that_the_engine_takes_for_one() {
    for good in [
        "reg.example/team/a-b",
        "localhost",
        "localhost:5000",
        "reg:5000",
        "reg.example",
        "10.0.0.1:5000",
        "[::1]:5000",
        "[::1]",
    ] {
        assert!(check_registry(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "reg",
        "reg.example/",
        "reg.example/Team",
        "reg/team",
        "http://reg.example",
        "reg.example:",
        "reg.example:x",
        "u@reg.example",
        "[]:1",
        "-a.b",
    ] {
        assert!(check_registry(bad).is_err(), "{bad}");
    }
}

#[test]
fn the_engine_s_own_name_of_an_image_has_no_hub_in_it() {
    assert_eq!(familiar("docker.io/library/busybox:1"), "busybox:1");
    assert_eq!(familiar("docker.io/team/m:1"), "team/m:1");
    assert_eq!(familiar("reg.example/docker.io/m:1"), "reg.example/docker.io/m:1");
}
