//! Serves a directory over S3: `serve DIR [ADDRESS [ACCESS_KEY SECRET_KEY]]`.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use shepherd_s3::{Credentials, Endpoint, Hosts, NoFlusher, ServeOptions, serve};
use shepherd_storage::LocalStorage;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .with_writer(std::io::stderr)
        .init();
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next().context("which directory?")?);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:7000".to_owned());
    let access_key = args.next().unwrap_or_else(|| "shepherd".to_owned());
    let secret_key = args.next().unwrap_or_else(|| "a long secret".to_owned());

    let storage = Arc::new(LocalStorage::open(&dir)?);
    let keys = Credentials::new(access_key, secret_key);
    let endpoint = Endpoint::new(storage, Arc::new(NoFlusher), keys, Hosts::default(), "us-east-1");
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("serving {} at http://{}", dir.display(), listener.local_addr()?);
    let stop = async {
        // Where signals cannot be had, it ends with the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    serve(listener, endpoint, ServeOptions::default(), stop).await;
    Ok(())
}
