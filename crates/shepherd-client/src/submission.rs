//! What is submitted.

use serde::Serialize;

/// A job to submit. Without a payload its inputs are in storage already, below `inputs/`.
#[derive(Clone, Debug)]
pub struct Submission {
    pub(crate) body: Body,
    pub(crate) exist_ok: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct Body {
    pub(crate) job_id: String,
    pub(crate) model: ModelName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sheep_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<String>,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct ModelName {
    pub(crate) name: String,
    pub(crate) version: String,
}

impl Submission {
    /// A job for a model, under an id that is made for it.
    pub fn new(model: impl Into<String>, version: impl Into<String>) -> Self {
        let model = ModelName { name: model.into(), version: version.into() };
        let job_id = uuid::Uuid::now_v7().to_string();
        Self { body: Body { job_id, model, sheep_id: None, priority: None, payload: None }, exist_ok: false }
    }

    /// Under this id.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.body.job_id = id.into();
        self
    }

    /// With this text as its one input, `input`.
    #[must_use]
    pub fn payload(mut self, text: impl Into<String>) -> Self {
        self.body.payload = Some(text.into());
        self
    }

    /// With this value as its one input, as JSON.
    ///
    /// # Errors
    /// When the value cannot be JSON.
    pub fn json<T: Serialize + ?Sized>(self, value: &T) -> crate::Result<Self> {
        let text = serde_json::to_string(value)
            .map_err(|_| crate::Error::Invalid("the input cannot be written as JSON"))?;
        Ok(self.payload(text))
    }

    /// For this sheep only.
    #[must_use]
    pub fn sheep(mut self, id: impl Into<String>) -> Self {
        self.body.sheep_id = Some(id.into());
        self
    }

    /// Before those of a lower priority; 0 is usual.
    #[must_use]
    pub const fn priority(mut self, priority: i32) -> Self {
        self.body.priority = Some(priority);
        self
    }

    /// A job that is there already is no error if it is the same one: to repeat, with the id of then, a submit whose
    /// fate is not known.
    #[must_use]
    pub const fn exist_ok(mut self) -> Self {
        self.exist_ok = true;
        self
    }
}
