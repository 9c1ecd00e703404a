//! What the API costs over bare hyper: two servers on one runtime.
//!
//! `bare` answers every request with the bytes that the API answers to
//! `GET /jobs/job-1/status`; `api` is the API over a backend that keeps one job in
//! a map. Load both in turn with an HTTP load generator and compare:
//!
//! ```text
//! cargo run --release -p shepherd-api --example measure
//! wrk -c64 -d5 http://127.0.0.1:PORT/jobs/job-1/status
//! ```

use std::collections::HashMap;
use std::convert::Infallible;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::{Request, Response, header::CONTENT_TYPE};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use shepherd_api::{Api, ApiOptions, Backend, ServeOptions, serve, status_document};
use shepherd_core::{
    Accepted, Data, EventId, JobEvent, JobRecord, ListQuery, Object, ObjectMeta, Progress, Readiness,
    SheepState, SheepView, ShepherdError, Submit,
};
use shepherd_job::{History, JobId, JobIdRule, JobSpec, JobState, ModelRef, ObjectPath, SheepId, Timestamp};
use tokio::net::TcpListener;

struct OneJob {
    jobs: Mutex<HashMap<JobId, Arc<JobRecord>>>,
}

impl Backend for OneJob {
    fn knows_sheep(&self, _: &str) -> bool {
        true
    }
    async fn submit(&self, submit: Submit) -> Result<Accepted, ShepherdError> {
        if let Data::Stream(mut body) = submit.data {
            let mut total = 0;
            while let Ok(Some(piece)) = body.try_next().await {
                total += piece.len();
            }
            println!("streamed {total} bytes");
        }
        Ok(Accepted::Queued(Arc::new(record(submit.spec.id))))
    }
    async fn job(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        let jobs = self.jobs.lock().map_err(|_| ShepherdError::UnknownJob)?;
        jobs.get(id).cloned().ok_or(ShepherdError::UnknownJob)
    }
    async fn stored_status(&self, _: &JobId) -> Result<Bytes, ShepherdError> {
        Err(ShepherdError::UnknownJob)
    }
    async fn jobs(&self, _: ListQuery) -> Result<Vec<Arc<JobRecord>>, ShepherdError> {
        Ok(Vec::new())
    }
    async fn finished(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        self.job(id).await
    }
    async fn cancel(&self, id: &JobId) -> Result<Arc<JobRecord>, ShepherdError> {
        self.job(id).await
    }
    async fn open(&self, _: &JobId, _: &ObjectPath, _: Option<Range<u64>>) -> Result<Object, ShepherdError> {
        Err(ShepherdError::UnknownObject)
    }
    async fn head(&self, _: &JobId, _: &ObjectPath) -> Result<ObjectMeta, ShepherdError> {
        Err(ShepherdError::UnknownObject)
    }
    fn progress(&self, _: &JobId) -> Option<Progress> {
        None
    }
    async fn events(
        &self,
        _: &JobId,
        _: Option<EventId>,
    ) -> Result<BoxStream<'static, JobEvent>, ShepherdError> {
        Ok(stream::empty().boxed())
    }
    async fn log(&self, _: &JobId) -> Result<Bytes, ShepherdError> {
        Ok(Bytes::new())
    }
    async fn follow_log(&self, _: &JobId) -> Result<BoxStream<'static, Bytes>, ShepherdError> {
        Ok(stream::empty().boxed())
    }
    fn flock(&self) -> Vec<SheepView> {
        let id = SheepId::parse("sheep-1").expect("a legal id");
        vec![SheepView {
            id,
            kind: "bare",
            state: SheepState::Running,
            model: None,
            job: None,
            problem: None,
            activity: None,
        }]
    }
    fn readiness(&self) -> Readiness {
        Readiness::default()
    }
}

fn record(id: JobId) -> JobRecord {
    let model = ModelRef::parse("ocr", "latest").expect("a legal model");
    let at = Timestamp::from_micros(1_795_383_059_336_682);
    JobRecord {
        seq: 1,
        spec: JobSpec { id, model, sheep: None, priority: 0 },
        submitted_at: at,
        state: JobState::Done { started_at: at, finished_at: at, history: History::default() },
    }
}

async fn bare(listener: TcpListener, body: Bytes) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let body = body.clone();
        tokio::spawn(async move {
            let service = service_fn(move |_: Request<Incoming>| {
                let mut response = Response::new(Full::new(body.clone()));
                response
                    .headers_mut()
                    .insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
                async move { Ok::<_, Infallible>(response) }
            });
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let id = JobId::parse("job-1", JobIdRule::Bucket).expect("a legal id");
    let job = Arc::new(record(id.clone()));
    let plain = TcpListener::bind("127.0.0.1:0").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("bare http://{}/", plain.local_addr()?);
    println!("api  http://{}/jobs/job-1/status", listener.local_addr()?);
    tokio::spawn(bare(plain, status_document(&job)));
    let backend = OneJob { jobs: Mutex::new(HashMap::from([(id, job)])) };
    let api = Api::new(backend, ApiOptions::new(JobIdRule::Bucket, std::env::temp_dir()));
    serve(listener, api, ServeOptions::default(), std::future::pending()).await;
    Ok(())
}
