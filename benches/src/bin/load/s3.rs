//! Storage that is an S3 service, and the S3 service that is embedded.

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use s3::creds::Credentials;
use s3::{Bucket, Region};
use serde_json::json;
use shepherd_tests::s3::{ACCESS_KEY, REGION, S3Client, SECRET_KEY};
use tokio::runtime::Runtime;

use crate::bench_daemon::{BenchDaemon, NOOP, Runner};
use crate::big::{fill, last_time};
use crate::percentile::median;
use crate::report::{Section, Wanted};
use crate::s3_server::Server;
use crate::usage::megabytes;
use crate::{Options, e2e};

/// How many clients the endpoint has.
const CLIENTS: usize = 8;
/// How large their objects are, in bytes.
const OBJECT: usize = 1_000_000;

/// Jobs through an S3 server, and one large one.
pub(crate) fn measure(options: &Options) -> anyhow::Result<Section> {
    let clients = options.clients_or(64);
    let server = Server::start(&parent(options))?;
    let mut section = Section::new(format!("storage in an S3 server, {clients} clients"));
    let bench = BenchDaemon::new(options, &Runner::default())?.with_storage(&storage(&server));
    e2e::measure_on(&bench, options, clients, &mut section, |section, measured| {
        section.row("jobs", measured.per_second(), "1/s");
        section.row("p50", measured.times.millis(0.5), "ms");
        section.row("p99", measured.times.millis(0.99), "ms");
        let (before, after) = &measured.readings;
        let each = before.daemon_micros(after, measured.times.len());
        section.wanted("the daemon's processor time for a job", each, "us", Wanted::AtMost(1_000.0));
    })?;
    large(options, &mut section)?;
    Ok(section)
}

fn large(options: &Options, section: &mut Section) -> anyhow::Result<()> {
    // Another server: in the first one, jobs of this one's names are known.
    let server = Server::start(&parent(options))?;
    let bench = BenchDaemon::new(options, &Runner::default())?.with_storage(&storage(&server));
    let times = bench.harness.path("times");
    let bench = bench.with_runner(&Runner { times: Some(times.clone()), ..Runner::default() });
    let daemon = bench.start();
    bench.warm_up(&daemon)?;
    let client = daemon.client();
    let (input, copy) = (bench.harness.path("input"), bench.harness.path("copy"));
    fill(&input, options.bytes)?;
    let runtime = runtime()?;
    let (mut moved, mut plain, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..options.rounds.max(1) {
        let job = format!("large-{round}");
        let bucket = runtime.block_on(make_bucket(&server.url, &job))?;
        runtime.block_on(upload(&bucket, &input, "inputs/input"))?;
        rustix::fs::sync();

        let begun = Instant::now();
        runtime.block_on(async {
            let mut file = tokio::fs::File::create(&copy).await?;
            bucket.get_object_to_writer("inputs/input", &mut file).await?;
            upload(&bucket, &input, "plain").await
        })?;
        let by_itself = begun.elapsed().as_secs_f64();
        rustix::fs::sync();

        let begun = Instant::now();
        let reply = bench.wait(client.start_job(&json!({"job_id": job, "model": NOOP.json()})));
        ensure!(reply.status == 200, "{reply:?}");
        let status = bench.wait(client.finished(&job));
        let total = begun.elapsed().as_secs_f64();
        ensure!(status["status"] == "done", "{status}");
        let (head, _) = runtime.block_on(bucket.head_object("outputs/output"))?;
        ensure!(head.content_length == Some(options.bytes.cast_signed()), "the output is not the input");

        let by_daemon = total - last_time(&times)?;
        moved.push(by_daemon);
        plain.push(by_itself);
        ratios.push(by_itself / by_daemon);
        for key in ["plain", "inputs/input", "outputs/output"] {
            runtime.block_on(bucket.delete_object(key))?;
        }
    }
    let size = megabytes(options.bytes);
    let name = format!("{size:.0} MB in and out, throughput of a plain client's");
    section.wanted(name, median(ratios), "", Wanted::AtLeast(0.9));
    section.row("... by the daemon", median(moved), "s");
    section.row("... by a plain client", median(plain), "s");
    let peak = megabytes(daemon.peak_memory());
    section.wanted("... peak memory of daemon", peak, "MB", Wanted::AtMost(80.0));
    bench.stop(daemon)
}

/// Objects of 1 MB, to the embedded endpoint and to s3s-fs in turn.
pub(crate) fn endpoint(options: &Options) -> anyhow::Result<Section> {
    let mut section = Section::new(format!("the embedded S3 endpoint, {CLIENTS} clients, objects of 1 MB"));
    let server = Server::start(&parent(options))?;
    let bench = BenchDaemon::new(options, &Runner::default())?;
    let listen = format!("127.0.0.1:{}", shepherd_tests::free_port());
    let keys = json!({"listen": listen, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY});
    let dir = format!("file://{}", bench.harness.path("storage").display());
    let bench = bench.with_storage(&json!({"url": dir, "serve_s3": keys}));
    let daemon = bench.start();
    let runtime = runtime()?;
    let urls = [format!("http://{listen}"), server.url.clone()];
    let mut rates = [[Vec::new(), Vec::new()], [Vec::new(), Vec::new()]];
    for round in 0..options.rounds.max(1) {
        for (url, rates) in urls.iter().zip(&mut rates) {
            let bucket = runtime.block_on(make_bucket(url, &format!("round-{round}")))?;
            for (rates, put) in rates.iter_mut().zip([true, false]) {
                rates.push(runtime.block_on(transfer(&bucket, options, put))?);
            }
        }
    }
    let [ours, theirs] = rates;
    for ((ours, theirs), what) in ours.into_iter().zip(theirs).zip(["puts", "gets"]) {
        let ratios = ours.iter().zip(&theirs).map(|(ours, theirs)| ours / theirs).collect();
        section.wanted(format!("{what}, of s3s-fs"), median(ratios), "", Wanted::AtLeast(1.0));
        section.row(format!("{what}, durable"), median(ours), "MB/s");
        section.row(format!("{what} of s3s-fs, not durable"), median(theirs), "MB/s");
    }
    section.row("peak memory of daemon", megabytes(daemon.peak_memory()), "MB");
    bench.stop(daemon)?;
    Ok(section)
}

/// Megabytes a second, put or got by all clients together.
async fn transfer(bucket: &Bucket, options: &Options, put: bool) -> anyhow::Result<f64> {
    let objects = (options.seconds * 20.0).ceil() as usize;
    let data: Vec<u8> = (0..OBJECT).map(|at| (at % 251) as u8).collect();
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|client| {
        let (bucket, data) = (bucket.clone(), data.clone());
        tokio::spawn(async move {
            for object in 0..objects {
                let key = format!("{client}/{object}");
                let status = if put {
                    bucket.put_object(&key, &data).await?.status_code()
                } else {
                    let got = bucket.get_object(&key).await?;
                    ensure!(got.as_slice().len() == OBJECT, "{key} has another length");
                    got.status_code()
                };
                ensure!(status == 200, "{key}: {status}");
            }
            anyhow::Ok(())
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await??;
    }
    Ok(megabytes((CLIENTS * objects * OBJECT) as u64) / begun.elapsed().as_secs_f64())
}

fn parent(options: &Options) -> PathBuf {
    options.dir.clone().unwrap_or_else(std::env::temp_dir)
}

fn storage(server: &Server) -> serde_json::Value {
    json!({"url": server.url, "access_key": ACCESS_KEY, "secret_key": SECRET_KEY})
}

fn runtime() -> anyhow::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().context("a runtime")
}

async fn make_bucket(url: &str, name: &str) -> anyhow::Result<Bucket> {
    let region = Region::Custom { region: REGION.to_owned(), endpoint: url.to_owned() };
    let credentials = Credentials::new(Some(ACCESS_KEY), Some(SECRET_KEY), None, None, None)?;
    S3Client::new(url).make_bucket(name).await;
    Ok(*Bucket::new(name, region, credentials)?.with_path_style())
}

async fn upload(bucket: &Bucket, file: &std::path::Path, key: &str) -> anyhow::Result<()> {
    let mut file = tokio::fs::File::open(file).await?;
    let sent = bucket.put_object_stream(&mut file, key).await?;
    ensure!(sent.status_code() == 200, "{key}: {}", sent.status_code());
    Ok(())
}
