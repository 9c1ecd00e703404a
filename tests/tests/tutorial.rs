//! The tutorial's first job, as it is written: inputs into S3, `cxflow-test` of version `latest` on the bare sheep
//! of `examples/configs/shepherd-bare.yml`, outputs from S3. The model runs with the real cxflow.

use std::path::{Path, PathBuf};

use shepherd_tests::s3::{ACCESS_KEY, SECRET_KEY};
use shepherd_tests::{Harness, built, free_port, python, run_python, skip};

/// Names the interpreter that has cxflow and this repository's Python runner: `shepherd-runner[cxflow]`.
const VARIABLE: &str = "SHEPHERD_TEST_CXFLOW";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[tokio::test]
async fn the_first_job_runs_as_written() {
    let Some(python) = python() else { return };
    let Some(cxflow) = std::env::var_os(VARIABLE).map(PathBuf::from) else {
        return skip(&format!("{VARIABLE} names no Python with cxflow and the Python runner"));
    };
    // What the tutorial has a container for, at a port of its own.
    let service = Harness::serving_s3();
    let storage = service.start().await;
    let s3_url = storage.s3_url().await;

    let harness = Harness::without_sheep(&std::env::temp_dir());
    // Beside the daemon, where it looks for it; what it hands over to is found on PATH.
    built("shepherd-runner");
    let programs = cxflow.parent().expect("a program is in a directory").to_owned();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(programs).chain(std::env::split_paths(&paths))).unwrap();
    let mut command = harness.bare_command();
    command.current_dir(root()).args(["-c", "examples/configs/shepherd-bare.yml"]);
    command.env("MINIO_ACCESS_KEY", ACCESS_KEY).env("MINIO_SECRET_KEY", SECRET_KEY).env("PATH", path);
    // All that differs: tests share machines, and ports and directories must be their own.
    command.args(["-h", "127.0.0.1", "-p", "0"]);
    command.env("SHEPHERD__STORAGE__URL", &s3_url);
    command
        .env("SHEPHERD__DATA_ROOT", harness.path("data"))
        .env("SHEPHERD__STATE_DIR", harness.path("state"));
    command.env("SHEPHERD__SHEEP__BARE_SHEEP__PORT", free_port().to_string());
    command.env("SHEPHERD__SHEEP__BARE_SHEEP__STDOUT_FILE", harness.path("runner.out"));
    command.env("SHEPHERD__SHEEP__BARE_SHEEP__STDERR_FILE", harness.path("runner.err"));
    let shepherd = harness.start_command(command).await;

    let api = format!("http://{}", shepherd.client().address());
    let variables = [
        ("S3_URL", s3_url.as_str()),
        ("API_URL", &api),
        ("MINIO_ACCESS_KEY", ACCESS_KEY),
        ("MINIO_SECRET_KEY", SECRET_KEY),
    ];
    let script = root().join("examples/clients/minio_walk.py");
    let arguments = ["first-job", r#"{"key": [1, 2, 3]}"#, "cxflow-test:latest"];
    let printed = run_python(&python, &script, &arguments, &variables).await;
    assert_eq!(printed, "outputs/output\n{\"key\": [1, 2, 3], \"output\": [2, 4, 6]}");
    assert_eq!(shepherd.client().get("/jobs/first-job/ready").await.json()["ready"], true);
    assert_eq!(shepherd.stop().await.code, Some(0));
}
