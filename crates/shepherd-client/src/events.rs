//! A job's events, over as many connections as it takes.

use crate::answer::{Answer, Lost, job_path};
use crate::client::pause;
use crate::patience::Patience;
use crate::{Client, Error, Event, EventKind, Result, stream};

/// The events of a job, in order. Dropping it closes its connection.
#[derive(Debug)]
pub struct Events {
    client: Client,
    job: String,
    after: Option<String>,
    response: Option<reqwest::Response>,
    parser: Parser,
    patience: Patience,
    over: bool,
}

impl Events {
    pub(crate) fn new(client: Client, job: String, after: Option<String>) -> Self {
        let patience = client.patience();
        Self { client, job, after, response: None, parser: Parser::default(), patience, over: false }
    }

    /// The next event; none after the one of a finished state. It may be dropped while it waits, and loses nothing.
    ///
    /// # Errors
    /// [`Error::UnknownJob`], [`Error::Unavailable`]; [`Error::Rejected`] when there is no event to begin after.
    pub async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if self.over {
                return Ok(None);
            }
            if let Some((id, kind)) = self.parser.take()? {
                if !id.is_empty() {
                    self.after = Some(id.clone());
                }
                self.over = matches!(&kind, EventKind::Status(status) if status.is_finished());
                return Ok(Some(Event { id, kind }));
            }
            let Some(response) = &mut self.response else {
                self.open().await?;
                continue;
            };
            let trouble = match response.chunk().await {
                Ok(Some(piece)) => {
                    self.patience.restore();
                    self.parser.rest.extend_from_slice(&piece);
                    continue;
                }
                Ok(None) => "the stream of events has ended".to_owned().into(),
                Err(error) => self.client.out_of_reach(&Lost::new(error)),
            };
            self.response = None;
            pause(&mut self.patience, trouble).await?;
        }
    }

    async fn open(&mut self) -> Result<()> {
        self.parser = Parser::default();
        let path = job_path(&self.job, "events")?;
        let query: Vec<_> = self.after.as_deref().map(|after| ("after", after)).into_iter().collect();
        // What it is to begin after may be wrong, too.
        let refused = |answer: &Answer| match answer.status {
            404 => Error::UnknownJob(self.job.clone()),
            _ => answer.refused(),
        };
        self.response = stream::open(&self.client, &path, &query, &mut self.patience, refused).await?;
        self.over = self.response.is_none();
        Ok(())
    }
}

/// Server-sent events, as far as the shepherd uses them.
#[derive(Debug, Default)]
struct Parser {
    rest: Vec<u8>,
    id: String,
    event: String,
    data: String,
}

impl Parser {
    /// The next event that is whole.
    fn take(&mut self) -> Result<Option<(String, EventKind)>> {
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = self.rest.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            let line = line.trim_end_matches(['\n', '\r']);
            if !line.is_empty() {
                self.field(line);
                continue;
            }
            let (event, data) = (std::mem::take(&mut self.event), std::mem::take(&mut self.data));
            let broken = |error: serde_json::Error| Error::Unexpected(error.to_string());
            let kind = match event.as_str() {
                "status" => EventKind::Status(serde_json::from_str(&data).map_err(broken)?),
                "progress" => EventKind::Progress(serde_json::from_str(&data).map_err(broken)?),
                // Of a later shepherd.
                _ => continue,
            };
            return Ok(Some((self.id.clone(), kind)));
        }
        Ok(None)
    }

    fn field(&mut self, line: &str) {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => value.clone_into(&mut self.id),
            "event" => value.clone_into(&mut self.event),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Progress;

    #[test]
    fn events_are_found_however_they_are_cut() {
        let text = "retry: 2000\n\n:\n\nid: 1-2\nevent: progress\ndata: {\"fraction\":0.5,\"message\":\"ž\"}\n\n\
            event: other\ndata: x\n\nid: 3-4\r\nevent: progress\r\ndata: {\"fraction\":null,\"message\":null}\r\n\r\n";
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.rest.extend_from_slice(piece);
                while let Some(event) = parser.take().unwrap() {
                    found.push(event);
                }
            }
            let first = Progress { fraction: Some(0.5), message: Some("ž".into()) };
            let second = Progress { fraction: None, message: None };
            let all = [
                ("1-2".to_owned(), EventKind::Progress(first)),
                ("3-4".to_owned(), EventKind::Progress(second)),
            ];
            assert_eq!(found, all, "{size}");
        }
    }
}
