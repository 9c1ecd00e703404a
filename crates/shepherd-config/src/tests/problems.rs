//! What is wrong is said where it is, all at once.

use super::{VALID, check, check_more, parse};

#[test]
fn everything_is_reported_at_once_in_the_order_of_the_file() {
    check(
        "\
data_rot: /data
sheep:
  alpha: {type: bear, port: 70000}
  beta:
    type: docker
    port: no
    runner_command: [x]
logging: {level: loud, colour: true}
limits:
  max_body_bytes: 10 gigs
  crash_retries: -1
storage:
  url: http://127.0.0.1:7000
  secret_key: [a]
registry: {url: $REGISTRY}
",
        &[],
        &[
            "c.yml:1:1: data_root: is missing, expected the directory of working files",
            "c.yml:1:1: data_rot: is not a known key, did you mean `data_root`?",
            "c.yml:3:17: sheep.alpha.type: is `bear`, expected `bare` or `docker`",
            "c.yml:6:11: sheep.beta.port: is `no`, expected a number from 1 to 65535",
            "c.yml:7:5: sheep.beta.runner_command: has no meaning for a docker sheep, expected only with `type: bare`",
            "c.yml:8:18: logging.level: is `loud`, expected `error`, `warn`, `info`, `debug` or `trace`",
            "c.yml:8:24: logging.colour: is not a known key, expected `format` or `level`",
            "c.yml:10:19: limits.max_body_bytes: is `10 gigs`, expected a number of bytes or a size such as \
             512KiB, 100MB or 10GiB",
            "c.yml:11:18: limits.crash_retries: is `-1`, expected a number from 0 to 1000",
            "c.yml:13:3: storage.access_key: is missing, expected `access_key` or `access_key_file`",
            "c.yml:14:15: storage.secret_key: is a list, expected text",
            "c.yml:15:17: registry.url: refers to the environment variable `REGISTRY`, which is not set",
        ],
    );
}

#[test]
fn a_text_that_is_no_mapping_is_told_so() {
    let empty = ["c.yml:1:1: is empty, expected a mapping with `data_root` and `sheep`"];
    for text in ["", "\n\n", "# nothing\n", "\u{feff}"] {
        check(text, &[], &empty);
    }
    check("---\n", &[], &["c.yml:1:4: is empty, expected a mapping"]);
    check("- a\n", &[], &["c.yml:1:1: is a list, expected a mapping"]);
    check("secret\n", &[], &["c.yml:1:1: is text, expected a mapping"]);
    check("- a\n", &[("SHEPHERD__DATA_ROOT", "/x")], &["c.yml:1:1: is a list, expected a mapping"]);
}

#[test]
fn what_is_not_yaml_is_told_with_its_place() {
    for (text, expected) in [
        ("a: [1\n", "c.yml:1:4: is not valid YAML: unclosed bracket '['"),
        ("a: 'x\n", "c.yml:1:4: is not valid YAML: "),
        ("a: b\n c: d\n", "c.yml:2:3: is not valid YAML: "),
        ("a: |\n x\n\ty: 1\n", "c.yml:3:"),
    ] {
        let report = parse(text, &[]).unwrap_err().to_string();
        assert!(report.starts_with(expected), "{report}");
        assert_eq!(report.lines().count(), 1, "{report}");
    }
}

#[test]
fn a_second_document_is_refused() {
    check(
        &format!("{VALID}---\n{VALID}"),
        &[],
        &["c.yml:3:1: begins a second document, expected one document"],
    );
}

#[test]
fn a_key_given_twice_is_told_with_both_places() {
    check_more(
        "logging:\n  level: info\n  level: debug\ndata_root: /x\n",
        &[
            "c.yml:5:3: logging.level: is given twice, first at c.yml:4:3",
            "c.yml:6:1: data_root: is given twice, first at c.yml:1:1",
        ],
    );
}

#[test]
fn a_key_that_is_not_text_and_an_unknown_tag_are_refused() {
    check_more("[a]: b\n", &["c.yml:3:1: holds a key that is not text"]);
    check_more("? {a: b}\n: c\n", &["c.yml:3:3: holds a key that is not text"]);
    check_more("api: {port: !port 1}\n", &["c.yml:3:19: api.port: has the tag `!port`, expected none"]);
    check_more("api: {port: !!int 1}\n", &[]);
}

#[test]
fn an_unknown_key_is_compared_with_the_known_ones() {
    check_more("lmits: {}\n", &["c.yml:3:1: lmits: is not a known key, did you mean `limits`?"]);
    check_more("state-dir: /x\n", &["c.yml:3:1: state-dir: is not a known key, did you mean `state_dir`?"]);
    check_more(
        "shutdown: {garce: 1}\n",
        &["c.yml:3:12: shutdown.garce: is not a known key, did you mean `grace`?"],
    );
    check_more(
        "zebra: 1\n",
        &[
            "c.yml:3:1: zebra: is not a known key, expected `api`, `data_root`, `docker`, `limits`, `logging`, \
           `registry`, `scheduler`, `sheep`, `shutdown`, `state_dir`, `storage` or `umask`",
        ],
    );
    check_more(
        "\"a\\nb\": 1\n",
        &["c.yml:3:1: \"a\\nb\": is not a known key, expected `api`, `data_root`, `docker`, `limits`, \
           `logging`, `registry`, `scheduler`, `sheep`, `shutdown`, `state_dir`, `storage` or `umask`"],
    );
}

#[test]
fn a_missing_key_is_told_at_the_mapping_it_should_be_in() {
    check(
        "{}\n",
        &[],
        &[
            "c.yml:1:1: data_root: is missing, expected the directory of working files",
            "c.yml:1:1: sheep: is missing, expected a mapping of ids to sheep",
        ],
    );
    check(
        "data_root: /data\nsheep:\n  a:\n    type: bare\n  b: {}\n",
        &[],
        &[
            "c.yml:4:5: sheep.a.working_directory: is missing, expected the directory of the models",
            "c.yml:5:6: sheep.b.type: is missing, expected `bare` or `docker`",
        ],
    );
    check(
        "data_root: ~\nsheep: {}\n",
        &[],
        &["c.yml:1:1: data_root: is missing, expected the directory of working files"],
    );
}

#[test]
fn a_sheep_has_a_legal_id() {
    check(
        "data_root: /data\nsheep:\n  a b: {type: bare, working_directory: /m}\n  ../x: {type: bare}\n",
        &[],
        &[
            "c.yml:3:3: sheep.\"a b\": is not the id of a sheep, which must hold only ASCII letters, digits, \
             hyphens, dots and underscores",
            "c.yml:4:3: sheep.\"../x\": is not the id of a sheep, which must hold only ASCII letters, digits, \
             hyphens, dots and underscores",
        ],
    );
}

#[test]
fn two_sheep_never_share_a_port_that_is_used() {
    check(
        "\
data_root: /data
registry: {url: http://127.0.0.1:6000}
sheep:
  a: {type: bare, working_directory: /m, transport: tcp, port: 9001}
  b: {type: docker, port: 9001}
  c: {type: bare, working_directory: /m, transport: ipc, port: 9001}
",
        &[],
        &[
            "c.yml:5:27: sheep.b.port: is 9001, which `sheep.a.port` (c.yml:4:64) has already, expected a port \
           of its own",
        ],
    );
}

#[test]
fn two_docker_sheep_may_share_a_port_and_a_warning_tells_what_that_means() {
    let config = super::parse(
        "\
data_root: /data
registry: {url: http://127.0.0.1:6000}
sheep:
  a: {type: docker, port: 9001}
  b: {type: docker, port: 9001}
",
        &[],
    )
    .unwrap();
    let warnings: Vec<String> = config.warnings.iter().map(ToString::to_string).collect();
    let expected = "c.yml:5:27: sheep.b.port: is 9001, which `sheep.a.port` (c.yml:4:27) has, too: only one of the \
                    two can have a runner at a time";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:#?}");
}

#[test]
fn a_docker_sheep_needs_a_registry_and_a_port() {
    check(
        "data_root: /data\nsheep:\n  d: {type: docker}\n",
        &[],
        &[
            "c.yml:1:1: registry: is missing, expected a mapping with `url`: the docker sheep `d` (c.yml:3:6) \
             pulls its images from it",
            "c.yml:3:6: sheep.d.port: is missing, expected the port that leads to the container's, or `transport: ipc`",
        ],
    );
}

#[test]
fn a_tcp_sheep_needs_a_port() {
    check(
        "data_root: /data\nsheep:\n  t: {type: bare, working_directory: /m, transport: tcp}\n",
        &[],
        &["c.yml:3:6: sheep.t.port: is missing, expected a port, as `transport` is `tcp`"],
    );
    check(
        "data_root: /data\nsheep:\n  t: {type: bare, working_directory: /m, transport: zmq}\n",
        &[],
        &["c.yml:3:6: sheep.t.port: is missing, expected a port, as `transport` is `zmq`"],
    );
}

#[test]
fn sheep_values_are_checked() {
    check(
        "\
data_root: /data
sheep:
  a:
    type: bare
    working_directory: ~/models
    runner_command: []
    devices: [/dev/nvidia0, /dev/nvidiactl, nvidia1]
    heartbeat_timeout: 1ms
    run_timeout: soon
    start_timeout: 2 weeks
    env: {'A=B': x, C: [1]}
    transport: udp
  b:
    type: bare
    working_directory: /m
    runner_command: python
    devices: [/dev/nvidia1, /dev/nvidia01]
",
        &[],
        &[
            "c.yml:5:24: sheep.a.working_directory: is `~/models`, expected a path; `~` is not expanded, `$HOME` is",
            "c.yml:6:21: sheep.a.runner_command: names no program, expected a list such as `[shepherd-runner]`",
            "c.yml:7:45: sheep.a.devices[2]: is `nvidia1`, expected a device such as /dev/nvidia0 or /dev/snd",
            "c.yml:8:24: sheep.a.heartbeat_timeout: is `1ms`, expected a duration from 100ms to 168h",
            "c.yml:9:18: sheep.a.run_timeout: is `soon`, expected a number of seconds or a duration such as \
             500ms, 30s, 5m or 2h",
            "c.yml:10:20: sheep.a.start_timeout: is `2 weeks`, expected a number of seconds or a duration such as \
             500ms, 30s, 5m or 2h",
            "c.yml:11:11: sheep.a.env.\"A=B\": is not the name of a variable, expected one without `=` and NUL",
            "c.yml:11:24: sheep.a.env.C: is a list, expected text",
            "c.yml:12:16: sheep.a.transport: is `udp`, expected `ipc`, `tcp` or `zmq`",
            "c.yml:16:21: sheep.b.runner_command: is `python`, expected a list",
            "c.yml:17:14: sheep.b.devices: names `/dev/nvidia1` twice, expected each device once",
        ],
    );
}

#[test]
fn storage_is_checked() {
    let cases: [(&str, &[&str]); 14] = [
        (
            "storage: {url: 'ftp://x', access_key: a, secret_key: b}\n",
            &["c.yml:3:16: storage.url: does not begin with http:// or https://, expected file:///DIR or \
               http://HOST[:PORT] or https://HOST[:PORT]"],
        ),
        (
            "storage: {url: 'http://me:pass@host', access_key: a, secret_key: b}\n",
            &[
                "c.yml:3:16: storage.url: holds credentials, which have keys of their own, expected file:///DIR or \
               http://HOST[:PORT] or https://HOST[:PORT]",
            ],
        ),
        (
            "storage: {url: 'file://data'}\n",
            &["c.yml:3:16: storage.url: has a host or a relative path after file://, expected file:///DIR"],
        ),
        (
            "storage: {url: 'file:///a%zz'}\n",
            &["c.yml:3:16: storage.url: has a `%` without two hexadecimal digits, expected file:///DIR"],
        ),
        (
            "storage: {url: 'file:///s', access_key: a}\n",
            &[
                "c.yml:3:29: storage.access_key: has no meaning for a local directory, expected only with an http \
               or https `url`",
            ],
        ),
        (
            "storage: {url: 'http://h', access_key: a, secret_key: b, bucket: c}\n",
            &[
                "c.yml:3:58: storage.bucket: has no meaning for a bucket per job, expected only with `layout: \
               prefix`",
            ],
        ),
        (
            "storage: {url: 'http://h', access_key: a, secret_key: b, layout: prefix, prefix: a/../b}\n",
            &[
                "c.yml:3:10: storage.bucket: is missing, expected the bucket that holds all jobs",
                "c.yml:3:82: storage.prefix: is `a/../b`, expected at most 256 bytes without empty, `.` or `..` \
                 segments",
            ],
        ),
        (
            "storage: {url: 'http://h', access_key: a, secret_key: b, layout: prefix, bucket: Jobs}\n",
            &["c.yml:3:82: storage.bucket: is `Jobs`, expected the name of a bucket, which must hold only \
               lower-case letters, digits, hyphens and dots"],
        ),
        (
            "storage: {url: 'http://h:0'}\n",
            &[
                "c.yml:3:10: storage.access_key: is missing, expected `access_key` and `secret_key` here (or \
                 `access_key_file` and `secret_key_file`), or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the \
                 environment",
                "c.yml:3:16: storage.url: has no valid host and port, expected file:///DIR or http://HOST[:PORT] \
                 or https://HOST[:PORT]",
            ],
        ),
        (
            "storage: {url: 'http://h', session_token: t, serve_s3: {}, ca_file: ca.pem}\n",
            &[
                "c.yml:3:10: storage.access_key: is missing, expected `access_key` or `access_key_file`",
                "c.yml:3:10: storage.secret_key: is missing, expected `secret_key` or `secret_key_file`",
                "c.yml:3:46: storage.serve_s3: has no meaning for an S3 service, expected only with a local \
                 directory",
                "c.yml:3:69: storage.ca_file: has no meaning without TLS, expected only with an https `url`",
            ],
        ),
        (
            "storage: {serve_s3: {listen: '7000', access_key: a, keys: b}}\n",
            &[
                "c.yml:3:21: storage.serve_s3.secret_key: is missing, expected `secret_key` or `secret_key_file`",
                "c.yml:3:30: storage.serve_s3.listen: is `7000`, expected an address to listen at, such as \
                 127.0.0.1:7000",
                "c.yml:3:53: storage.serve_s3.keys: is not a known key, expected `access_key`, \
                 `access_key_file`, `hosts`, `listen`, `secret_key` or `secret_key_file`",
            ],
        ),
        (
            "storage: {serve_s3: {access_key: a/b, secret_key: c, hosts: [s3.example.com, 'h:7000']}}\n",
            &[
                "c.yml:3:34: storage.serve_s3.access_key: cannot be sent in a request, expected printable ASCII \
                 characters other than `/`",
                "c.yml:3:78: storage.serve_s3.hosts[1]: is `h:7000`, expected a host name without a port, such as \
                 s3.example.com",
            ],
        ),
        (
            "storage: {layout: prefix, serve_s3: {access_key: a, secret_key: b}}\n",
            &[
                "c.yml:3:37: storage.serve_s3: cannot serve `layout: prefix`, with which a job's id need not be a \
               bucket's name, expected `layout: bucket-per-job`",
            ],
        ),
        (
            "storage: {layout: flat}\n",
            &["c.yml:3:19: storage.layout: is `flat`, expected `bucket-per-job` or `prefix`"],
        ),
    ];
    for (lines, expected) in cases {
        check_more(lines, expected);
    }
}

#[test]
fn a_login_is_whole() {
    check_more(
        "registry: {url: 'http://r:1', username: me}\n",
        &[
            "c.yml:3:11: registry.password: is missing beside `username`, expected `password` or `password_file`",
        ],
    );
    check_more(
        "registry: {url: 'http://r:1', password: x}\n",
        &["c.yml:3:11: registry.username: is missing beside the password, expected the name of a user"],
    );
    check_more(
        "registry: {url: 'r:x', usrname: me}\n",
        &[
            "c.yml:3:17: registry.url: has no valid host and port, expected HOST[:PORT][/PATH], after http:// or \
             https:// or without, or empty quotes for Docker Hub",
            "c.yml:3:24: registry.usrname: is not a known key, did you mean `username`?",
        ],
    );
    check_more(
        "registry: {url: 'http://r:1/Team', patience: 0}\n",
        &[
            "c.yml:3:17: registry.url: has a path that no image's name can have, expected lower-case letters, \
             digits, `.`, `_`, `-` and `/`",
            "c.yml:3:46: registry.patience: is `0`, expected a duration from 1s to 24h",
        ],
    );
    check_more(
        "registry: {url: 'http://registry'}\n",
        &[
            "c.yml:3:17: registry.url: has a host that an image's name cannot show to be one, expected a port or a \
           dot in it",
        ],
    );
}

#[test]
fn the_daemons_own_values_are_checked() {
    check_more(
        "\
api: {host: 'a b', port: 65536, cors_origins: [https://a.org/x, '*']}
shutdown: {grace: 2 days}
limits: {max_body_bytes: 0, max_connections: 1.5, request_header_timeout: 0, job_log: 2MiB}
scheduler: {max_wait: 0, unknown_models: fail, removed_sheep: refuse}
",
        &[
            "c.yml:3:13: api.host: is `a b`, expected a host name or an IP address, without a port",
            "c.yml:3:26: api.port: is `65536`, expected a number from 0 to 65535",
            "c.yml:3:48: api.cors_origins[0]: is `https://a.org/x`, expected an origin such as \
             https://example.org, or `*`",
            "c.yml:4:19: shutdown.grace: is `2 days`, expected a number of seconds or a duration such as 500ms, \
             30s, 5m or 2h",
            "c.yml:5:26: limits.max_body_bytes: is `0`, expected a size from 1 to 9223372036854775807 bytes",
            "c.yml:5:46: limits.max_connections: is `1.5`, expected a number from 1 to 1000000",
            "c.yml:5:75: limits.request_header_timeout: is `0`, expected a duration from 100ms to 24h",
            "c.yml:5:87: limits.job_log: is `2MiB`, expected a size from 0 to 1048576 bytes",
            "c.yml:6:23: scheduler.max_wait: is `0`, expected a duration from 1s to 24h",
            "c.yml:6:42: scheduler.unknown_models: is `fail`, expected `refuse` or `wait`",
            "c.yml:6:63: scheduler.removed_sheep: is `refuse`, expected `wait`, `fail` or `unpin`",
        ],
    );
    check_more(
        "api: {cors_origins: ['*', 'http://a']}\n",
        &["c.yml:3:21: api.cors_origins: names `*` beside other origins, expected `*` alone"],
    );
}

#[test]
fn a_value_in_a_message_stays_on_its_line_and_is_cut() {
    let long = "x".repeat(200);
    check_more(
        &format!("api: {{port: \"1\\n{long}\"}}\n"),
        &[&format!(
            "c.yml:3:13: api.port: is `1\\n{}...`, expected a number from 0 to 65535",
            "x".repeat(78)
        )],
    );
}

#[test]
fn a_long_report_is_cut_and_says_so() {
    let lines: String = (0..150).map(|n| format!("zzzzzzzzzzzzzzzzz{n}: 1\n")).collect();
    let error = parse(&format!("{VALID}{lines}"), &[]).unwrap_err();
    assert_eq!(error.problems().len(), 100);
    assert!(error.to_string().ends_with("\n... and 50 more"));
}
