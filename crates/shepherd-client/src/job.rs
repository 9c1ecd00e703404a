//! One job.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use crate::answer::{job_path, result_path};
use crate::client::{heard, pause};
use crate::patience::Patience;
use crate::{Client, Error, Events, JobStatus, Log, Result, State};

/// For how long the shepherd is asked to wait at a time: well below what a quiet answer may take.
const LONG_POLL: Duration = Duration::from_secs(20);

/// A job of a shepherd. Methods give [`Error::UnknownJob`] when the shepherd does not know it.
#[derive(Clone, Debug)]
pub struct Job {
    client: Client,
    id: String,
}

impl Job {
    pub(crate) const fn new(client: Client, id: String) -> Self {
        Self { client, id }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::Unavailable`].
    pub async fn status(&self) -> Result<JobStatus> {
        self.client.status(&self.id).await
    }

    /// Waits until it is finished, however it ends. The shepherd may restart meanwhile: with a timeout it may be away
    /// until then, otherwise for [`Options::retry_for`](crate::Options::retry_for) at a time.
    ///
    /// # Errors
    /// [`Error::Timeout`], [`Error::UnknownJob`], [`Error::Unavailable`].
    pub async fn wait(&self, timeout: Option<Duration>) -> Result<JobStatus> {
        // A time that no clock can hold is for ever.
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut patience = Patience::new(self.client.options().retry_for, deadline);
        let path = job_path(&self.id, "wait_ready")?;
        loop {
            let left =
                deadline.map_or(LONG_POLL, |at| at.saturating_duration_since(Instant::now()).min(LONG_POLL));
            let seconds = format!("{:.3}", left.as_secs_f64() + 0.0005);
            let request = self.client.request(Method::GET, &path, &[("timeout", &seconds)]);
            let trouble = match self.client.send(request, &patience, left).await {
                Err(lost) => Some(self.client.out_of_reach(&lost)),
                Ok(answer) if matches!(answer.status, 200 | 202) => {
                    let status: JobStatus = answer.json()?;
                    if status.is_finished() {
                        return Ok(status);
                    }
                    patience.restore();
                    None
                }
                Ok(answer) if answer.try_again() => Some(answer.message().into()),
                Ok(answer) => return Err(answer.refused_of(&self.id)),
            };
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Err(Error::Timeout(self.id.clone()));
            }
            let Some(trouble) = trouble else { continue };
            match pause(&mut patience, trouble).await {
                Err(Error::Unavailable(_)) if deadline.is_some() => {
                    return Err(Error::Timeout(self.id.clone()));
                }
                other => other?,
            }
        }
    }

    /// Waits until it is done, and gives the output `output`, or another.
    ///
    /// # Errors
    /// [`Error::Failed`], [`Error::Cancelled`], [`Error::UnknownFile`], and those of [`wait`](Self::wait).
    pub async fn result(&self, file: Option<&str>) -> Result<Bytes> {
        let path = result_path(&self.id, file)?;
        self.done(self.wait(None).await?)?;
        let answer = self.client.get(&path, &[]).await?;
        match answer.status {
            200 => Ok(answer.body),
            404 => {
                Err(Error::UnknownFile { job: self.id.clone(), file: file.unwrap_or("output").to_owned() })
            }
            _ => Err(answer.refused_of(&self.id)),
        }
    }

    /// As [`result`](Self::result), of an output that is JSON.
    ///
    /// # Errors
    /// Those, and [`Error::Unexpected`] when the output is something else.
    pub async fn result_json<T: DeserializeOwned>(&self, file: Option<&str>) -> Result<T> {
        let output = self.result(file).await?;
        serde_json::from_slice(&output).map_err(|error| Error::Unexpected(error.to_string()))
    }

    /// As [`result`](Self::result), of an output that is larger than memory should hold: it is written to `to` as it
    /// comes, from the beginning again when the connection breaks.
    ///
    /// # Errors
    /// Those, and [`Error::Unexpected`] when the file cannot be written.
    pub async fn download(&self, file: Option<&str>, to: &Path) -> Result<()> {
        use tokio::io::AsyncWriteExt as _;

        let failed =
            |error: std::io::Error| Error::Unexpected(format!("the output cannot be saved: {error}"));
        let path = result_path(&self.id, file)?;
        self.done(self.wait(None).await?)?;
        let mut patience = self.client.patience();
        loop {
            let request = self.client.request(Method::GET, &path, &[]);
            let silence = patience.silence();
            let lost = match heard(silence, request.send()).await {
                Ok(mut response) if response.status().as_u16() == 200 => {
                    let mut saved = tokio::fs::File::create(to).await.map_err(failed)?;
                    loop {
                        match heard(silence, response.chunk()).await {
                            Ok(Some(piece)) => saved.write_all(&piece).await.map_err(failed)?,
                            Ok(None) => return saved.flush().await.map_err(failed),
                            Err(lost) => break lost,
                        }
                    }
                }
                // What is no output is short: the usual way says what it is.
                Ok(_) => {
                    let output = self.result(file).await?;
                    return tokio::fs::write(to, output).await.map_err(failed);
                }
                Err(lost) => lost,
            };
            pause(&mut patience, self.client.out_of_reach(&lost)).await?;
        }
    }

    /// Withdraws it. May be repeated.
    ///
    /// # Errors
    /// [`Error::AlreadyFinished`] when it is too late, [`Error::UnknownJob`], [`Error::Unavailable`].
    pub async fn cancel(&self) -> Result<JobStatus> {
        let answer = self.client.asked(Method::POST, &job_path(&self.id, "cancel")?, &[]).await?;
        match answer.status {
            200 => answer.json(),
            409 => {
                // By an earlier try of ours, or by somebody else: it is what was asked for.
                let status = self.status().await?;
                if status.is_cancelled() { Ok(status) } else { Err(Error::AlreadyFinished(self.id.clone())) }
            }
            _ => Err(answer.refused_of(&self.id)),
        }
    }

    /// What it printed so far.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::Unavailable`].
    pub async fn logs(&self) -> Result<Bytes> {
        let answer = self.client.get(&job_path(&self.id, "logs")?, &[]).await?;
        if answer.status == 200 { Ok(answer.body) } else { Err(answer.refused_of(&self.id)) }
    }

    /// What it prints, from the beginning, until it is finished.
    pub fn follow_logs(&self) -> Log {
        Log::new(self.client.clone(), self.id.clone())
    }

    /// What happens to it, from the event after the one with this id, or from where it is now, until it is finished.
    pub fn events(&self, after: Option<String>) -> Events {
        Events::new(self.client.clone(), self.id.clone(), after)
    }

    /// Whether a finished job has a result.
    fn done(&self, status: JobStatus) -> Result<()> {
        match (status.state, status.error) {
            (State::Cancelled, _) => Err(Error::Cancelled(self.id.clone())),
            (State::Failed, Some(error)) => Err(Error::Failed { job: self.id.clone(), error }),
            (State::Failed, None) => Err(Error::Unexpected("a job that failed without an error".to_owned())),
            (State::Accepted | State::Queued | State::Processing | State::Done, _) => Ok(()),
        }
    }
}
