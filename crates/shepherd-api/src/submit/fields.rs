//! What the members of a submit mean, and which are wrong.

use shepherd_job::{JobId, JobIdRule, ModelRef};

/// A submit without its payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StartJob {
    pub(super) job_id: JobId,
    pub(super) model: ModelRef,
    /// As the client wrote it.
    pub(super) sheep_id: Option<String>,
    pub(super) priority: i32,
    /// Whether there is a payload, which may be empty.
    pub(super) has_payload: bool,
}

/// Why a body is no submit.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// It is no JSON, or JSON of another kind.
    NotAnObject,
    /// A member is wrong, and how.
    Invalid(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Member {
    JobId,
    Model,
    ModelName,
    ModelVersion,
    SheepId,
    Payload,
    Priority,
}

impl Member {
    const fn text(self) -> &'static str {
        match self {
            Self::JobId => "job_id",
            Self::Model => "model",
            Self::ModelName => "model.name",
            Self::ModelVersion => "model.version",
            Self::SheepId => "sheep_id",
            Self::Payload => "payload",
            Self::Priority => "priority",
        }
    }

    const fn expected(self) -> &'static str {
        match self {
            Self::JobId | Self::ModelName | Self::ModelVersion | Self::SheepId | Self::Payload => "a string",
            Self::Model => "an object",
            Self::Priority => "an integer from -2147483648 to 2147483647",
        }
    }
}

/// The members so far. The scanner calls [`key`](Self::key), and then one of the
/// others for its value.
#[derive(Debug)]
pub(super) struct Fields {
    rule: JobIdRule,
    current: Member,
    /// A bit for each name that came, to refuse the second of a kind.
    seen: u8,
    in_model: bool,
    job_id: Option<JobId>,
    model_name: Option<String>,
    model_version: Option<String>,
    sheep_id: Option<String>,
    priority: i32,
    has_payload: bool,
}

impl Fields {
    pub(super) const fn new(rule: JobIdRule) -> Self {
        Self {
            rule,
            current: Member::Payload,
            seen: 0,
            in_model: false,
            job_id: None,
            model_name: None,
            model_version: None,
            sheep_id: None,
            priority: 0,
            has_payload: false,
        }
    }

    /// Whether the members that come now are the model's.
    pub(super) const fn in_model(&self) -> bool {
        self.in_model
    }

    /// Whether the value that comes now is the payload.
    pub(super) fn is_payload(&self) -> bool {
        self.current == Member::Payload
    }

    pub(super) fn key(&mut self, key: &str) -> Result<(), Refused> {
        let name = match (self.in_model, key) {
            (false, "job_id") => Member::JobId,
            (false, "model") => Member::Model,
            (false, "sheep_id") => Member::SheepId,
            (false, "payload") => Member::Payload,
            (false, "priority") => Member::Priority,
            (true, "name") => Member::ModelName,
            (true, "version") => Member::ModelVersion,
            (in_model, unknown) => return Err(unknown_field(in_model, unknown)),
        };
        let bit = 1 << name as u8;
        if self.seen & bit != 0 {
            return Err(Refused::Invalid(format!("`{}` is given twice", name.text())));
        }
        self.seen |= bit;
        self.current = name;
        Ok(())
    }

    pub(super) fn object_begins(&mut self) -> Result<(), Refused> {
        match self.current {
            Member::Model => {
                self.in_model = true;
                Ok(())
            }
            Member::JobId
            | Member::ModelName
            | Member::ModelVersion
            | Member::SheepId
            | Member::Payload
            | Member::Priority => Err(self.wrong("an object")),
        }
    }

    pub(super) const fn object_ends(&mut self) {
        self.in_model = false;
    }

    /// The error for a value of the wrong kind.
    pub(super) fn wrong(&self, got: &str) -> Refused {
        Refused::Invalid(format!("`{}` must be {}, not {got}", self.current.text(), self.current.expected()))
    }

    /// The error for a value that is larger than any legal one.
    pub(super) fn too_long(&self, limit: usize) -> Refused {
        Refused::Invalid(format!("`{}` must be at most {limit} bytes long", self.current.text()))
    }

    /// The payload as a string, which goes elsewhere.
    pub(super) const fn payload(&mut self) {
        self.has_payload = true;
    }

    /// A string that is not the payload.
    pub(super) fn string(&mut self, text: &str) -> Result<(), Refused> {
        match self.current {
            Member::JobId => self.job_id(text)?,
            Member::ModelName => self.model_name = Some(text.to_owned()),
            Member::ModelVersion => self.model_version = Some(text.to_owned()),
            Member::SheepId => self.sheep_id = Some(text.to_owned()),
            Member::Model | Member::Priority => return Err(self.wrong("a string")),
            Member::Payload => {}
        }
        Ok(())
    }

    /// A number, as it was written. Ids, payloads, and names and versions of models may
    /// be numbers, since the first shepherd took them so.
    pub(super) fn number(&mut self, text: &str, payload: &mut Vec<u8>) -> Result<(), Refused> {
        match self.current {
            Member::JobId => self.job_id(text),
            Member::Payload => {
                self.payload();
                payload.extend_from_slice(text.as_bytes());
                Ok(())
            }
            Member::Priority => {
                self.priority = text.parse().map_err(|_| self.wrong(text))?;
                Ok(())
            }
            Member::ModelName | Member::ModelVersion => self.string(text),
            Member::Model | Member::SheepId => Err(self.wrong("a number")),
        }
    }

    pub(super) fn null(&self) -> Result<(), Refused> {
        match self.current {
            Member::SheepId | Member::Payload | Member::Priority => Ok(()),
            Member::JobId | Member::Model | Member::ModelName | Member::ModelVersion => {
                Err(self.wrong("null"))
            }
        }
    }

    fn job_id(&mut self, text: &str) -> Result<(), Refused> {
        let id =
            JobId::parse(text, self.rule).map_err(|error| Refused::Invalid(format!("`job_id` {error}")))?;
        self.job_id = Some(id);
        Ok(())
    }

    pub(super) fn finish(self) -> Result<StartJob, Refused> {
        let missing = |member: Member| {
            Refused::Invalid(format!("`{}` is missing, expected {}", member.text(), member.expected()))
        };
        let job_id = self.job_id.ok_or_else(|| missing(Member::JobId))?;
        if self.seen & (1 << Member::Model as u8) == 0 {
            return Err(missing(Member::Model));
        }
        let name = self.model_name.ok_or_else(|| missing(Member::ModelName))?;
        let version = self.model_version.ok_or_else(|| missing(Member::ModelVersion))?;
        let model = ModelRef::parse(&name, &version).map_err(|error| {
            // The rule begins with the part of the model that it is about.
            let rule = error.to_string();
            let (part, rule) = rule.split_once(' ').unwrap_or(("", &rule));
            Refused::Invalid(format!("`model.{part}` {rule}"))
        })?;
        let Self { sheep_id, priority, has_payload, .. } = self;
        Ok(StartJob { job_id, model, sheep_id, priority, has_payload })
    }
}

fn unknown_field(in_model: bool, key: &str) -> Refused {
    let (at, known) = if in_model {
        ("model.", "`name`, `version`")
    } else {
        ("", "`job_id`, `model`, `sheep_id`, `payload`, `priority`")
    };
    let shown: String = key.chars().take(64).collect();
    Refused::Invalid(format!("unknown field `{at}{shown}`, expected one of {known}"))
}
