//! No text makes it panic, and none makes it large.

use std::fmt::Write as _;
use std::path::Path;

use proptest::prelude::*;

use super::{VALID, check_more, parse};
use crate::{Config, Environment, units};

const RICH: &str = "\
data_root: /data
storage: {url: 'http://127.0.0.1:7000', access_key: $A, secret_key: \"${B}\"}
registry: &r {url: http://127.0.0.1:6000, username: me, password: 0123}
sheep:
  a: &base
    type: bare
    working_directory: models
    devices: [/dev/nvidia0]
    env:
      K: |
        text
  b: {<<: *base, port: 9001, run_timeout: 1.5h}
  c:
    type: docker
    transport: ipc
    gpus: [0, GPU-1]
    cpus: 1.5
    mounts: ['models:/models:rw', {source: /a, target: /b}]
    capabilities: [CAP_SYS_NICE]
docker: {host: 'tcp://engine:2376', prefetch: ['mnist:2'], image_budget: 20GiB}
limits: {max_body_bytes: 10GiB}
";

#[test]
fn aliases_do_not_grow_without_bound() {
    let mut text = format!("{VALID}x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for level in 1..9 {
        let aliases = vec![format!("*x{}", level - 1); 10].join(", ");
        writeln!(text, "x{level}: &x{level} [{aliases}]").unwrap();
    }
    let report = parse(&text, &[]).unwrap_err().to_string();
    assert!(report.ends_with("holds more than 20000 values, aliases included"), "{report}");
    assert_eq!(report.lines().count(), 1);
}

#[test]
fn an_alias_inside_itself_is_refused() {
    check_more("api: &a {host: *a}\n", &["c.yml:3:16: api.host: is an alias inside what it stands for"]);
}

#[test]
fn nesting_is_bounded() {
    for text in [
        format!("a: {}{}", "[".repeat(100_000), "]".repeat(100_000)),
        format!("a: {}", "- ".repeat(100_000)),
        (0..500).fold(String::new(), |text, depth| text + &" ".repeat(depth) + "a:\n"),
    ] {
        let report = parse(&text, &[]).unwrap_err().to_string();
        assert!(
            report.contains("nested more than 32 levels deep") || report.contains("not valid YAML"),
            "{report}"
        );
    }
    let mut text = format!("{VALID}x0: &x0 [a]\n");
    for level in 1..40 {
        writeln!(text, "x{level}: &x{level} [*x{}]", level - 1).unwrap();
    }
    let report = parse(&text, &[]).unwrap_err().to_string();
    assert!(report.ends_with("is nested more than 32 levels deep"), "{report}");
}

/// The bytes of a rich configuration, damaged.
fn damaged() -> impl Strategy<Value = String> {
    let edit = (0..RICH.len(), prop_oneof!["[ -~]{0,3}", "[\\[\\]{}:,&*!|>'\"%@`$#\n\t-]{1,3}", "\\PC{1,2}"]);
    (proptest::collection::vec(edit, 1..6), 0..=RICH.len()).prop_map(|(edits, end)| {
        let mut text = RICH[..end].to_owned();
        for (at, piece) in edits {
            let at = at.min(text.len());
            if text.is_char_boundary(at) {
                text.insert_str(at, &piece);
            }
        }
        text
    })
}

fn lines() -> impl Strategy<Value = String> {
    let words =
        "data_root|state_dir|storage|sheep|url|type|bare|docker|port|api|limits|<<|&a|\\*a|!!str|\\$X|~|'|\"";
    let line = format!("( {{0,6}})(- )?({words})?(: )?({words}|[0-9a-z/.]{{0,6}}|\\[|\\{{|\\]|\\}}|\\|)?\n");
    proptest::collection::vec(proptest::string::string_regex(&line).unwrap(), 0..20)
        .prop_map(|lines| lines.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_text_makes_it_panic(text in prop_oneof![damaged(), lines(), ".*", "\\PC{0,40}"], value in ".{0,8}") {
        let environment: Environment =
            [("A", "a"), ("B", "b"), ("SHEPHERD__SHEEP__A__PORT", value.as_str())].into_iter().collect();
        if let Err(error) = Config::parse(&text, "c.yml", &environment, Path::new("/srv/app")) {
            prop_assert!(!error.problems().is_empty());
            for line in error.to_string().lines() {
                prop_assert!(
                    line.starts_with("c.yml:") || line.starts_with("SHEPHERD__") || line.starts_with("... and "),
                    "{line}"
                );
            }
        }
    }

    #[test]
    fn no_override_makes_it_panic(name in "[A-Za-z_.\\-]{0,24}", value in "\\PC{0,12}") {
        let environment: Environment = [(format!("SHEPHERD__{name}"), value)].into_iter().collect();
        let _ = Config::parse(VALID, "c.yml", &environment, Path::new("/srv/app"));
    }

    #[test]
    fn units_never_panic(text in "[0-9.e+ -]{0,24}(ms|s|m|h|kB|MiB|TiB|x)?") {
        let _ = (units::duration(&text), units::size(&text));
    }
}

#[test]
fn the_text_that_is_damaged_is_whole_before() {
    let environment: Environment = [("A", "a"), ("B", "b")].into_iter().collect();
    let parsed = Config::parse(RICH, "c.yml", &environment, Path::new("/srv/app"));
    assert!(parsed.is_ok(), "{}", parsed.unwrap_err());
}
