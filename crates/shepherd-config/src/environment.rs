//! The environment layer: variables that override keys, and the variables that
//! values refer to.
//!
//! The `config` crate decides which variables are ours and what they name
//! (`SHEPHERD__A__B` is `a.b`, its value stays the text it is). Its merged tree is
//! not used: it forgets where a value came from, so the overrides are set on our
//! own tree, which remembers.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use config::Source as _;

use crate::problem::Place;
use crate::yaml::{Entry, Kind, Node};

const PREFIX: &str = "SHEPHERD";
const SEPARATOR: &str = "__";
/// Keys at the top that hold a value, as variables write them.
const SINGLE_KEYS: [&str; 3] = ["DATA_ROOT", "STATE_DIR", "UMASK"];
/// Keys at the top that hold other keys. `sheep` is not among them: a runner is told its
/// sheep by `SHEPHERD_SHEEP`, and ids may hold `_`.
const SECTIONS: [&str; 8] =
    ["API", "DOCKER", "LIMITS", "LOGGING", "REGISTRY", "SCHEDULER", "SHUTDOWN", "STORAGE"];

/// Environment variables, taken once and passed in, so that reading a
/// configuration depends on nothing else.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The variables of this process; those that are not Unicode are left out,
    /// so a reference to one is reported as not set.
    pub fn from_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// Variables that look like overrides with a `_` too few, and what they were probably to
    /// be. Those of runners, whose names begin alike, are not among them.
    pub(crate) fn misspelt(&self) -> impl Iterator<Item = (&str, String)> {
        self.0.keys().filter_map(|name| {
            let rest = name.strip_prefix("SHEPHERD_").filter(|rest| !rest.starts_with('_'))?;
            if SINGLE_KEYS.contains(&rest) {
                return Some((name.as_str(), format!("{PREFIX}{SEPARATOR}{rest}")));
            }
            let of_section = |section: &&str| {
                let key = rest.strip_prefix(*section)?.trim_start_matches('_');
                let is_key = !key.is_empty() && rest.as_bytes()[section.len()] == b'_';
                is_key.then(|| (name.as_str(), format!("{PREFIX}{SEPARATOR}{section}{SEPARATOR}{key}")))
            };
            SECTIONS.iter().find_map(of_section)
        })
    }

    /// Sets every override on the tree, in the order of the variables' names.
    pub(crate) fn apply_to(&self, root: &mut Node) {
        for (name, value) in &self.0 {
            let layer = config::Environment::with_prefix(PREFIX)
                .prefix_separator(SEPARATOR)
                .separator(SEPARATOR)
                .try_parsing(false)
                .source(Some(HashMap::from([(name.clone(), value.clone())])));
            // Collecting fails only for values that are not Unicode, which these are.
            for (key, value) in layer.collect().into_iter().flatten() {
                let Ok(text) = value.into_string() else { continue };
                let folded: Vec<&str> = key.split('.').collect();
                // `config` folds the case; a key that is not in the file yet and has a
                // case of its own (a variable for the runner) needs what was written.
                let written: Vec<&str> = name.split(SEPARATOR).skip(1).collect();
                let written = if written.len() == folded.len() { &written } else { &folded };
                let place = Place::Variable { name: name.as_str().into() };
                set(root, &folded, written, &place, text);
            }
        }
    }
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.into(), value.into())).collect())
    }
}

fn set(root: &mut Node, folded: &[&str], written: &[&str], place: &Place, text: String) {
    let mut node = root;
    for (depth, key) in folded.iter().enumerate() {
        if !matches!(node.kind, Kind::Map(_)) {
            *node = Node { place: place.clone(), kind: Kind::Map(Vec::new()) };
        }
        let Kind::Map(entries) = &mut node.kind else { return };
        let index = find(entries, key).unwrap_or_else(|| {
            // `sheep.ID.env.NAME`: the only keys whose case is the user's.
            let of_runner = depth == 3 && folded[0] == "sheep" && folded[2] == "env";
            let key = if of_runner { written[depth] } else { key };
            let value = Node { place: place.clone(), kind: Kind::Null };
            entries.push(Entry { key: key.to_string(), place: place.clone(), value });
            entries.len() - 1
        });
        // A key of the file keeps its place there; only its value is the variable's.
        node = &mut entries[index].value;
    }
    // An empty variable takes the key away, so that a default can be asked for.
    let kind = if text.is_empty() { Kind::Null } else { Kind::Text(Arc::from(text)) };
    *node = Node { place: place.clone(), kind };
}

/// The entry that a folded key means: itself, else itself in another case, else
/// with `-` and `.` written as `_`, which is all that a shell can name.
fn find(entries: &[Entry], folded: &str) -> Option<usize> {
    let plain = |c: char| if matches!(c, '-' | '.') { '_' } else { c };
    let by = |test: &dyn Fn(&str) -> bool| entries.iter().position(|entry| test(&entry.key));
    by(&|key| key == folded)
        .or_else(|| by(&|key| key.to_lowercase() == folded))
        .or_else(|| by(&|key| key.to_lowercase().chars().map(plain).eq(folded.chars().map(plain))))
}
