//! Every configuration under `examples/configs` is valid, from the root of the
//! repository.

use std::path::{Path, PathBuf};

use shepherd_config::{
    Config, DockerHost, DockerSheep, Environment, Gpus, S3Layout, SheepKind, StorageConfig, Transport,
};

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

const KEYS: [(&str, &str); 2] = [("MINIO_ACCESS_KEY", "AUTOTEST"), ("MINIO_SECRET_KEY", "a-secret")];

/// Every variable that any of them refers to.
const ALL: [(&str, &str); 8] = [
    KEYS[0],
    KEYS[1],
    ("AWS_ACCESS_KEY_ID", "AKIA"),
    ("AWS_SECRET_ACCESS_KEY", "another"),
    ("S3_URL", "https://s3.eu-central-1.amazonaws.com"),
    ("S3_REGION", "eu-central-1"),
    ("S3_BUCKET", "my-jobs"),
    ("SHEPHERD_HOME", "/srv/shepherd"),
];

#[test]
fn none_is_left_out() {
    let mut names: Vec<String> = std::fs::read_dir(root().join("examples/configs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    for name in names {
        load(&name, &ALL);
    }
}

#[test]
fn the_sandbox_needs_nothing_else() {
    let config = load("shepherd-sandbox.yml", &[]);
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(local.dir, root().join("target/sandbox/state/storage"));
    let served = local.serve_s3.as_ref().unwrap();
    assert_eq!((served.host.as_str(), served.port), ("127.0.0.1", 7000));
    let [sheep] = config.sheep.as_slice() else { panic!("{:?}", config.sheep) };
    let SheepKind::Bare(bare) = &sheep.kind else { panic!("{sheep:?}") };
    assert_eq!(bare.transport, Transport::Ipc);
    assert!(bare.working_directory.join("ocr/latest/config.yaml").is_file());
}

#[test]
fn the_sandbox_can_be_told_where_to_be() {
    let config = load("shepherd-sandbox-env.yml", &ALL);
    let StorageConfig::Local(local) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!(local.dir, Path::new("/srv/shepherd/state/storage"));
    assert_eq!(local.serve_s3.as_ref().unwrap().secret_key.expose(), "a-secret");
    assert!(config.withheld_env.iter().eq(["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"]));
}

#[test]
fn the_tutorials_takes_its_keys_from_the_environment() {
    let config = load("shepherd-bare.yml", &KEYS);
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.access_key.expose(), s3.secret_key.expose()), ("AUTOTEST", "a-secret"));
    assert_eq!(s3.url.to_string(), "http://127.0.0.1:7000");
    assert_eq!(config.registry.as_ref().expect("a registry").url.authority(), "127.0.0.1:6000");
    let SheepKind::Bare(bare) = &config.sheep[0].kind else { panic!("{:?}", config.sheep) };
    assert_eq!(bare.transport, Transport::Tcp { port: 9001 });
    assert!(config.withheld_env.iter().eq(["MINIO_ACCESS_KEY", "MINIO_SECRET_KEY"]));

    let path = Path::new("examples/configs/shepherd-bare.yml");
    let error = Config::load(path, &Environment::default(), &root()).unwrap_err();
    assert_eq!(error.problems().len(), 2, "{error}");
}

#[test]
fn one_bucket_of_a_service_takes_the_keys_of_its_other_clients() {
    let config = load("shepherd-s3-env.yml", &ALL);
    let StorageConfig::S3(s3) = &config.storage else { panic!("{:?}", config.storage) };
    assert_eq!((s3.access_key.expose(), s3.region.as_str()), ("AKIA", "eu-central-1"));
    assert_eq!(s3.layout, S3Layout::Prefix { bucket: "my-jobs".into(), prefix: "shepherd".into() });
}

/// The docker sheep of a configuration that is to warn of nothing.
fn docker_sheep(config: &Config) -> Vec<&DockerSheep> {
    assert!(config.warnings.is_empty(), "{:?}", config.warnings);
    assert_eq!(config.registry.as_ref().expect("a registry").url.authority(), "127.0.0.1:6000");
    assert_eq!(
        config.docker.as_ref().expect("an engine").host,
        DockerHost::Unix("/var/run/docker.sock".into())
    );
    let docker = config.docker_sheep().filter_map(|sheep| match &sheep.kind {
        SheepKind::Docker(docker) => Some(&**docker),
        SheepKind::Bare(_) => None,
    });
    docker.collect()
}

#[test]
fn models_are_images_over_a_socket_and_over_a_port() {
    let config = load("shepherd-docker-cpu.yml", &[]);
    let [fenced, original] = docker_sheep(&config)[..] else { panic!("{:?}", config.sheep) };
    assert_eq!(fenced.transport, Transport::Ipc);
    assert_eq!(original.transport, Transport::Tcp { port: 9001 });
    assert!(fenced.read_only && fenced.mounts.is_empty() && original.network.is_none());
    assert!(matches!(config.storage, StorageConfig::Local(_)));
}

#[test]
fn models_are_images_with_gpus() {
    let config = load("shepherd-docker-gpu.yml", &[]);
    let [asked, original] = docker_sheep(&config)[..] else { panic!("{:?}", config.sheep) };
    assert_eq!((asked.transport, &asked.gpus), (Transport::Ipc, &Some(Gpus::Ids(vec!["0".into()]))));
    assert_eq!((original.transport, &original.gpus), (Transport::Tcp { port: 9002 }, &None));
    assert!(config.sheep[1].gpus().eq([1]));
}
