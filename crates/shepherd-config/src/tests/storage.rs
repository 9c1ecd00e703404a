//! Where jobs' data is.

use std::path::Path;

use shepherd_job::JobIdRule;

use super::{VALID, parse, valid, valid_with};
use crate::{S3Layout, Staging, StorageConfig, StorageLayout};

#[test]
fn storage_in_s3_is_read() {
    let config = valid("storage: {url: 'http://127.0.0.1:7000', access_key: AUTO, secret_key: 1e3}\n");
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(s3.url.to_string(), "http://127.0.0.1:7000");
    assert_eq!((s3.access_key.expose(), s3.secret_key.expose()), ("AUTO", "1e3"));
    assert_eq!(
        (s3.region.as_str(), &s3.session_token, &s3.layout),
        ("us-east-1", &None, &S3Layout::BucketPerJob)
    );
    assert_eq!(config.storage.job_id_rule(), JobIdRule::Bucket);

    let config = valid(
        "storage: {url: 'https://s3.eu.example/base/', access_key: a, secret_key: b, session_token: t, \
         region: eu-1, layout: prefix, bucket: jobs, prefix: /team/a/}\n",
    );
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.url.to_string().as_str(), s3.region.as_str()), ("https://s3.eu.example/base", "eu-1"));
    assert_eq!(s3.session_token.as_ref().unwrap().expose(), "t");
    assert_eq!(s3.layout, S3Layout::Prefix { bucket: "jobs".into(), prefix: "team/a".into() });
    assert_eq!(config.storage.job_id_rule(), JobIdRule::Prefix);

    let config = valid(
        "storage: {url: 'http://s3', access_key: a, secret_key: b, layout: prefix, bucket: jobs, prefix: ''}\n",
    );
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(s3.layout, S3Layout::Prefix { bucket: "jobs".into(), prefix: String::new() });
}

#[test]
fn keys_of_an_s3_service_may_come_from_where_its_other_clients_have_them() {
    let service = "storage: {url: 'https://s3', ca_file: ca.pem}\n";
    let keys = [("AWS_ACCESS_KEY_ID", "AKIA"), ("AWS_SECRET_ACCESS_KEY", "$x"), ("AWS_REGION", "mars")];
    let config = valid_with(service, &keys);
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.access_key.expose(), s3.secret_key.expose(), &s3.session_token), ("AKIA", "$x", &None));
    assert_eq!(
        (s3.region.as_str(), s3.ca_file.as_deref()),
        ("us-east-1", Some(Path::new("/srv/app/ca.pem")))
    );
    let names = ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    assert!(config.withheld_env.iter().eq(names), "{:?}", config.withheld_env);

    let temporary = [keys[0], keys[1], ("AWS_SESSION_TOKEN", "t")];
    let StorageConfig::S3(s3) = valid_with(service, &temporary).storage else { panic!() };
    assert_eq!(s3.session_token.unwrap().expose(), "t");

    // The file's are before them, and never mixed with them.
    let own = "storage: {url: 'https://s3', access_key: a, secret_key: b}\n";
    let config = valid_with(own, &temporary);
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.access_key.expose(), s3.secret_key.expose(), &s3.session_token), ("a", "b", &None));
    assert!(config.withheld_env.is_empty());
    parse(&format!("{VALID}storage: {{url: 'https://s3', access_key: a}}\n"), &temporary).unwrap_err();
    // An empty one is none.
    let empty = [keys[0], ("AWS_SECRET_ACCESS_KEY", "")];
    parse(&format!("{VALID}{service}"), &empty).unwrap_err();
}

#[test]
fn inputs_are_copied_unless_they_may_be_shared() {
    for (line, staging) in [
        ("", Staging::Copy),
        ("storage: {layout: prefix}\n", Staging::Copy),
        ("storage: {staging: copy}\n", Staging::Copy),
        ("storage: {url: 'file:///s', staging: share}\n", Staging::Share),
    ] {
        let StorageConfig::Local(local) = valid(line).storage else { panic!("{line}") };
        assert_eq!(local.staging, staging, "{line}");
    }
    for bad in ["staging: link", "url: 'http://h', access_key: a, secret_key: b, staging: copy"] {
        parse(&format!("{VALID}storage: {{{bad}}}\n"), &[]).unwrap_err();
    }
}

#[test]
fn a_directory_may_be_served_over_s3() {
    let config = valid("storage: {serve_s3: {access_key: a, secret_key: b}}\n");
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    let served = local.serve_s3.as_ref().unwrap();
    assert_eq!((served.host.as_str(), served.port), ("127.0.0.1", 7000));
    assert_eq!((served.access_key.expose(), served.secret_key.expose()), ("a", "b"));
    assert!(served.hosts.is_empty());
    assert_eq!(config.storage.job_id_rule(), JobIdRule::Bucket);
    let config = valid("storage: {serve_s3: {access_key: a, secret_key: b, hosts: [s3.example.com]}}\n");
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(local.serve_s3.as_ref().unwrap().hosts, ["s3.example.com"]);
    for access_key in ["a/b", "klíč", "'a\tb'"] {
        let served = format!("storage: {{serve_s3: {{access_key: {access_key}, secret_key: b}}}}\n");
        parse(&format!("{VALID}{served}"), &[]).unwrap_err();
    }
    for (listen, host, port) in
        [("'[::1]:0'", "::1", 0), ("0.0.0.0:9000", "0.0.0.0", 9000), ("localhost:7000", "localhost", 7000)]
    {
        let config = valid(&format!(
            "storage: {{url: 'file:///s', serve_s3: {{listen: {listen}, access_key: a, secret_key: b}}}}\n"
        ));
        let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
        let served = local.serve_s3.as_ref().unwrap();
        assert_eq!((served.host.as_str(), served.port), (host, port));
    }
    for listen in ["host", "host:", ":7000", "host:x", "host:+1", "host:70000", "'::1:7000'", "'[::1]'"] {
        let served = format!("storage: {{serve_s3: {{listen: {listen}, access_key: a, secret_key: b}}}}\n");
        parse(&format!("{VALID}{served}"), &[]).unwrap_err();
    }
}

#[test]
fn the_variables_that_secrets_came_from_are_told() {
    let variables = [
        ("KEY", "a"),
        ("SECRET", "b"),
        ("TOKEN", "c"),
        ("PASS", "d"),
        ("DIR", "/m"),
        ("USER", "me"),
        ("HOST", "h"),
    ];
    let config = valid_with(
        "storage: {url: http://$HOST, access_key: $KEY, secret_key: x$SECRET-$TOKEN}\n\
         registry: {url: 'http://r:1', username: $USER, password: &pass $PASS}\n\
         logging: {level: info}\n",
        &variables,
    );
    assert!(config.withheld_env.iter().eq(["KEY", "PASS", "SECRET", "TOKEN"]), "{:?}", config.withheld_env);
    let config = valid_with(
        "storage: {serve_s3: {access_key: $KEY, secret_key: $SECRET}}\n",
        &[variables[0], variables[1], ("SHEPHERD__STORAGE__SERVE_S3__SECRET_KEY", "other")],
    );
    assert!(config.withheld_env.iter().eq(["KEY"]), "{:?}", config.withheld_env);
}

#[test]
fn storage_in_a_directory_is_read() {
    let config = valid("storage: {url: 'file:///srv/job%20data/', layout: prefix}\n");
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((local.dir.as_path(), local.layout), (Path::new("/srv/job data"), StorageLayout::Prefix));
    let config = valid("state_dir: /state\nstorage: {layout: prefix}\n");
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(local.dir, Path::new("/state/storage"));
    // Where no S3 client sees them, jobs need no names of buckets.
    for storage in ["", "storage: {layout: prefix}\n", "storage: {layout: bucket-per-job}\n"] {
        assert_eq!(valid(storage).storage.job_id_rule(), JobIdRule::Prefix, "{storage}");
    }
}

#[test]
fn a_service_is_reached_by_a_proxy_only_where_one_is_named() {
    let with = |more: &str| {
        valid(&format!("storage: {{url: 'http://s3', access_key: a, secret_key: b{more}}}\n")).storage
    };
    let StorageConfig::S3(s3) = with("") else { panic!() };
    assert_eq!(s3.proxy, None);
    let StorageConfig::S3(s3) = with(", proxy: 'http://proxy.example:3128'") else { panic!() };
    assert_eq!(s3.proxy.unwrap().to_string(), "http://proxy.example:3128");
}
