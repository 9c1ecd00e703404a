//! From a file to a [`Config`].

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use crate::environment::Environment;
use crate::interpolate::{Found, interpolate};
use crate::problem::{ConfigError, Place, Problem};
use crate::read::{Context, Value};
use crate::schema::{self, Config};
use crate::yaml::{self, Kind, MAX_BYTES, Origin};

impl Config {
    /// Reads and validates the file at `path`. `cwd` is the directory that relative
    /// paths start at, `path` and those in the file alike.
    ///
    /// # Errors
    /// Everything that is wrong with it; a file that cannot be read is one problem.
    pub fn load(path: &Path, environment: &Environment, cwd: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let whole = |message: String| {
            let place = Place::Whole { file: Arc::from(name.as_str()) };
            ConfigError::new(vec![Problem { place, key: String::new(), message }])
        };
        let cannot = |error: std::io::Error| whole(format!("cannot be read: {error}"));
        let mut bytes = Vec::new();
        let file = File::open(cwd.join(path)).map_err(cannot)?;
        file.take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(cannot)?;
        if bytes.len() > MAX_BYTES {
            return Err(too_large(&name));
        }
        match std::str::from_utf8(&bytes) {
            Ok(text) => Self::parse(text, &name, environment, cwd),
            Err(error) => {
                let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
                let line = before.matches('\n').count() + 1;
                let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
                let place = Place::At { file: Arc::from(name.as_str()), line, column };
                let message = "is not UTF-8 text".to_owned();
                Err(ConfigError::new(vec![Problem { place, key: String::new(), message }]))
            }
        }
    }

    /// Validates `text`. `file` is its name for messages; a relative one is taken
    /// from `cwd`, where relative paths start.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(text: &str, file: &str, environment: &Environment, cwd: &Path) -> Result<Self, ConfigError> {
        if text.len() > MAX_BYTES {
            return Err(too_large(file));
        }
        let (root, problems) = yaml::parse(text, Origin::File(&Arc::from(file)));
        let Some(mut root) = root else {
            return Err(ConfigError::new(problems));
        };
        if matches!(root.kind, Kind::Map(_)) {
            environment.apply_to(&mut root);
        }
        let variable = |name: &str| environment.get(name).map(str::to_owned);
        let mut found = Found { problems, references: Vec::new() };
        interpolate(&mut root, "", &variable, &mut found);

        let cx = Context::new(cwd, environment, found.problems);
        for (name, meant) in environment.misspelt() {
            if !found.references.iter().any(|(_, referred)| referred == name) {
                let place = Place::Variable { name: name.into() };
                cx.warn(&place, "", format!("sets nothing, did you mean `{meant}`?"));
            }
        }
        let home = environment.get("HOME").filter(|home| home.starts_with('/')).map(Path::new);
        let mut config = Value::new(&cx, &root, String::new())
            .section()
            .and_then(|section| schema::read(&cx, section, Path::new(file), home));
        if let Some(config) = &mut config {
            let is_secret = |(key, _): &(String, String)| cx.is_secret(key);
            config.withheld_env.extend(found.references.into_iter().filter(is_secret).map(|(_, name)| name));
        }
        let problems = cx.into_problems();
        match config {
            Some(config) if problems.is_empty() => Ok(config),
            Some(_) | None => Err(ConfigError::new(problems)),
        }
    }
}

fn too_large(file: &str) -> ConfigError {
    let place = Place::Whole { file: Arc::from(file) };
    let message = format!("is larger than {MAX_BYTES} bytes");
    ConfigError::new(vec![Problem { place, key: String::new(), message }])
}
