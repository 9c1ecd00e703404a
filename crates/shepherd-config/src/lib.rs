//! The configuration of a shepherd: one YAML file, layered with the environment
//! and validated into a plain [`Config`].
//!
//! What it does:
//!
//! - Reads the file into a tree in which every value knows its line and column,
//!   sets the overrides of the environment on it, replaces references to
//!   variables, and reads the result with types. Everything that is wrong is
//!   reported at once, as `FILE:LINE:COLUMN: key: what is wrong, expected ...`.
//! - **References.** In any plain scalar `$NAME` and `${NAME}` (upper case, digits, `_`)
//!   stand for an environment variable, inside text too and several in one value;
//!   one that is not set is an error. `$$` is one dollar sign. A quoted scalar stands
//!   for itself. References are replaced in the parsed tree, so no
//!   value can change the structure. What a variable holds is taken as it is.
//! - **Overrides.** `SHEPHERD__A__B=value` sets the key `a.b`, in the file or not;
//!   an empty one removes it. The value is text in which nothing is replaced; a
//!   list is written `[a, b]` or `a,b`. The name of a sheep is matched in any case
//!   and with `-` and `.` written as `_`; a sheep that the file does not have gets
//!   the lower-case name.
//! - **Secrets.** For each secret key `X` the key `X_file` names a file that holds
//!   it instead. They are kept as [`Secret`], which no log can show. The variables
//!   that they came from are told ([`Config::withheld_env`]), so that they can be
//!   kept from other programs.
//! - **Paths.** A relative path starts at the current directory, as it is passed
//!   in. `data_root` is emptied at every start, so places where that would destroy
//!   something are refused.
//!
//! What it refuses: to read anything but the file, the secrets' files and what it
//! is passed; to create directories, probe ports or know whether a model is
//! there; to know how the parts are built from it. Unknown keys, duplicate keys
//! and several documents in one file are errors.
//!
//! ```
//! use std::path::Path;
//! use shepherd_config::{Config, Environment};
//!
//! let text = "
//! data_root: /srv/shepherd
//! sheep:
//!   alpha: { type: bare, working_directory: $MODELS/ocr }
//! ";
//! let environment: Environment = [("MODELS", "/models")].into_iter().collect();
//! let config = Config::parse(text, "shepherd.yml", &environment, Path::new("/"))?;
//! assert_eq!(config.state_dir, Path::new("/srv/shepherd/state"));
//!
//! let error = Config::parse("data_rot: /srv", "shepherd.yml", &environment, Path::new("/")).unwrap_err();
//! assert_eq!(
//!     error.to_string().lines().last(),
//!     Some("shepherd.yml:1:1: sheep: is missing, expected a mapping of ids to sheep"),
//! );
//! # Ok::<(), shepherd_config::ConfigError>(())
//! ```

mod environment;
mod interpolate;
mod load;
mod paths;
mod problem;
mod read;
mod schema;
mod secret;
mod units;
mod url;
mod yaml;

#[cfg(test)]
mod tests;

pub use environment::Environment;
pub use problem::{ConfigError, Place, Problem};
pub use schema::Config;
pub use schema::device::{Device, Gpus};
pub use schema::docker::DockerConfig;
pub use schema::docker::host::{DockerHost, DockerTls};
pub use schema::registry::{Credentials, RegistryConfig};
pub use schema::serve_s3::ServeS3;
pub use schema::service::{
    ApiConfig, CorsOrigins, LimitsConfig, LogFormat, LogLevel, LoggingConfig, RemovedSheep, SchedulerConfig,
    ShutdownConfig, UnknownModels,
};
pub use schema::sheep::bare::BareSheep;
pub use schema::sheep::docker::{DockerSheep, Pull};
pub use schema::sheep::mount::Mount;
pub use schema::sheep::transport::Transport;
pub use schema::sheep::{SheepConfig, SheepKind};
pub use schema::storage::{LocalStorage, S3Layout, S3Storage, Staging, StorageConfig, StorageLayout};
pub use secret::Secret;
pub use url::{HttpUrl, Scheme};
