//! What is wrong with a configuration, and where.

use std::fmt;
use std::sync::Arc;

/// How many problems one error lists; what lies beyond is counted.
const LISTED: usize = 100;

/// Where a value was given.
///
/// The order is that of a report: the file as a whole, then by line, then the
/// environment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The file as a whole: it cannot be read, or is too large.
    Whole {
        /// The file's name as it was given.
        file: Arc<str>,
    },
    /// A place in the file.
    At {
        /// The file's name as it was given.
        file: Arc<str>,
        /// The line, from 1.
        line: usize,
        /// The column in characters, from 1.
        column: usize,
    },
    /// An environment variable that overrides a key.
    Variable {
        /// The variable's name.
        name: Arc<str>,
    },
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole { file } => f.write_str(file),
            Self::At { file, line, column } => write!(f, "{file}:{line}:{column}"),
            Self::Variable { name } => f.write_str(name),
        }
    }
}

/// One mistake, or a warning of what is allowed and dangerous.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where to mend it.
    pub place: Place,
    /// The dotted path of the key, such as `sheep.alpha.port`; empty when the
    /// mistake is not about one key.
    pub key: String,
    /// What is wrong and what was expected. Never holds a secret.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.message)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.message)
        }
    }
}

/// A configuration that cannot be used, with everything that was found wrong.
///
/// Its `Display` is one problem a line: `FILE:LINE:COLUMN: key: what is wrong`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    problems: Vec<Problem>,
    omitted: usize,
}

impl ConfigError {
    /// Sorts by place, drops repetitions and keeps the first hundred.
    pub(crate) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort();
        problems.dedup();
        let omitted = problems.len().saturating_sub(LISTED);
        problems.truncate(LISTED);
        Self { problems, omitted }
    }

    /// The problems in the order of the file, those of the environment last.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        if self.omitted > 0 {
            write!(f, "\n... and {} more", self.omitted)?;
        }
        Ok(())
    }
}
