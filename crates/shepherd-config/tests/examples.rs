//! Every configuration under `examples/configs` is valid, from the root of the
//! repository.

use std::path::{Path, PathBuf};

use shepherd_config::{Config, Environment, SheepKind, StorageConfig, Transport};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the root of the repository is there")
}

fn load(name: &str, variables: &[(&str, &str)]) -> Config {
    let environment: Environment = variables.iter().copied().collect();
    Config::load(&Path::new("examples/configs").join(name), &environment, &root())
        .unwrap_or_else(|error| panic!("{error}"))
}

const KEYS: [(&str, &str); 2] = [("STORAGE_ACCESS_KEY", "AUTOTEST"), ("STORAGE_SECRET_KEY", "AUTOTEST")];

#[test]
fn none_is_left_out() {
    let mut names: Vec<String> = std::fs::read_dir(root().join("examples/configs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        load(&name, &KEYS);
    }
}

#[test]
fn the_sandbox_needs_nothing_else() {
    let config = load("shepherd-sandbox.yml", &[]);
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(local.dir, root().join("target/sandbox/state/storage"));
    let [sheep] = config.sheep.as_slice() else { panic!("{:?}", config.sheep) };
    let SheepKind::Bare(bare) = &sheep.kind else { panic!("{sheep:?}") };
    assert_eq!(bare.transport, Transport::Ipc);
    assert!(bare.working_directory.join("ocr/latest/config.yaml").is_file());
}

#[test]
fn the_tutorials_takes_its_keys_from_the_environment() {
    let config = load("shepherd-bare.yml", &KEYS);
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.access_key.expose(), s3.secret_key.expose()), ("AUTOTEST", "AUTOTEST"));
    assert_eq!(s3.url.to_string(), "http://127.0.0.1:7000");
    assert_eq!(config.registry.as_ref().unwrap().url.authority(), "127.0.0.1:6000");
    let SheepKind::Bare(bare) = &config.sheep[0].kind else { panic!("{:?}", config.sheep) };
    assert_eq!(bare.transport, Transport::Tcp { port: 9001 });

    let path = Path::new("examples/configs/shepherd-bare.yml");
    let error = Config::load(path, &Environment::default(), &root()).unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
}
