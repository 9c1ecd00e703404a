//! A mapping with known keys.

use std::cell::RefCell;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::{Context, Value, any_of};
use crate::paths::Located;
use crate::secret::Secret;
use crate::yaml::{Entry, Kind, Node, key_path};

/// The largest file that is read as a secret, in bytes.
const MAX_SECRET: u64 = 64 * 1024;

/// A mapping that is asked for its keys. Call [`Section::finish`] when all that
/// can be asked have been, or unknown keys go unnoticed.
pub(crate) struct Section<'a> {
    cx: &'a Context,
    key: String,
    node: &'a Node,
    entries: &'a [Entry],
    asked: RefCell<Vec<&'static str>>,
}

/// A secret and the file it was read from, if it was.
pub(crate) struct FoundSecret<'a> {
    secret: Secret,
    file: Option<(Value<'a>, PathBuf)>,
}

impl FoundSecret<'_> {
    /// The secret; the file it came from is noted as one to keep.
    pub(crate) fn keep(self, kept: &mut Vec<Located>) -> Secret {
        if let Some((value, path)) = self.file {
            kept.push(Located { place: value.place().clone(), key: value.key, path });
        }
        self.secret
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(cx: &'a Context, key: String, node: &'a Node, entries: &'a [Entry]) -> Self {
        Self { cx, key, node, entries, asked: RefCell::default() }
    }

    /// The value of a key; none when it is absent or null.
    pub(crate) fn get(&self, key: &'static str) -> Option<Value<'a>> {
        self.asked.borrow_mut().push(key);
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        match entry.value.kind {
            Kind::Null => None,
            Kind::Text(_) | Kind::List(_) | Kind::Map(_) | Kind::Refused => {
                Some(Value::new(self.cx, &entry.value, self.path_of(key)))
            }
        }
    }

    /// A key that may be absent, read by `read`.
    pub(crate) fn optional<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<Option<T>> {
        match self.get(key) {
            None => Some(None),
            Some(value) => read(&value).map(Some),
        }
    }

    /// A key with a default, read by `read`.
    pub(crate) fn value_or<T>(
        &self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Value<'a>) -> Option<T>,
    ) -> Option<T> {
        self.optional(key, read).map(|found| found.unwrap_or(default))
    }

    /// The value of a key that must be there; its absence is a mistake.
    pub(crate) fn require(&self, key: &'static str, expected: &str) -> Option<Value<'a>> {
        let found = self.get(key);
        if found.is_none() {
            self.missing(key, &format!("is missing, expected {expected}"));
        }
        found
    }

    /// Notes a mistake in a key that is not there, at the mapping it should be in.
    pub(crate) fn missing(&self, key: &str, message: &str) {
        let null = self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.place);
        self.cx.report(null.unwrap_or(&self.node.place), &self.path_of(key), message);
    }

    /// The path of one of its keys.
    pub(crate) fn path_of(&self, key: &str) -> String {
        key_path(&self.key, key)
    }

    /// A secret, given as `key` or as the path of a file that holds it in `key_file`.
    /// White space around the content of a file is not part of it.
    pub(crate) fn secret(&self, key: &'static str, key_file: &'static str) -> Option<FoundSecret<'a>> {
        let (plain, file) = (self.get(key), self.get(key_file));
        match (plain, file) {
            (None, None) => None,
            (Some(_), Some(file)) => {
                file.fail(format!("is given beside `{key}`, expected one of the two"));
                None
            }
            (Some(plain), None) => {
                self.cx.secrets.borrow_mut().push(plain.key.clone());
                let secret = Secret::new(plain.secret_text()?);
                Some(FoundSecret { secret, file: None })
            }
            (None, Some(file)) => {
                let path = file.path()?;
                match read_secret(&path) {
                    Ok(secret) => Some(FoundSecret { secret, file: Some((file, path)) }),
                    Err(reason) => {
                        file.fail(format!(
                            "names a file that {reason}, expected a file that holds the secret"
                        ));
                        None
                    }
                }
            }
        }
    }

    /// Whether a secret is given, be it rightly or wrongly.
    pub(crate) fn gives(&self, key: &'static str, key_file: &'static str) -> bool {
        self.get(key).is_some() || self.get(key_file).is_some()
    }

    /// A variable of the environment that holds something.
    pub(crate) fn variable(&self, name: &str) -> Option<&'a str> {
        self.cx.environment.get(name).filter(|value| !value.is_empty())
    }

    /// A secret that must be given one way or the other.
    pub(crate) fn require_secret(
        &self,
        key: &'static str,
        key_file: &'static str,
    ) -> Option<FoundSecret<'a>> {
        let found = self.secret(key, key_file);
        // Absent, and not merely refused.
        if found.is_none() && !self.gives(key, key_file) {
            self.missing(key, &format!("is missing, expected `{key}` or `{key_file}`"));
        }
        found
    }

    /// Reports the keys that nobody asked for. `elsewhere` says of some keys where
    /// they do belong.
    pub(crate) fn finish(self, elsewhere: &[(&str, &str)]) {
        let mut known = self.asked.into_inner();
        known.sort_unstable();
        known.dedup();
        for entry in self.entries {
            if known.contains(&entry.key.as_str()) {
                continue;
            }
            let message = if let Some((_, reason)) = elsewhere.iter().find(|(key, _)| *key == entry.key) {
                (*reason).to_owned()
            } else if let Some(meant) = nearest(&entry.key, &known) {
                format!("is not a known key, did you mean `{meant}`?")
            } else {
                format!("is not a known key, expected {}", any_of(&known))
            };
            self.cx.report(&entry.place, &key_path(&self.key, &entry.key), message);
        }
    }
}

fn read_secret(path: &Path) -> Result<Secret, String> {
    let cannot = |error: std::io::Error| format!("cannot be read ({error})");
    let mut bytes = Vec::new();
    File::open(path).map_err(cannot)?.take(MAX_SECRET + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX_SECRET {
        return Err(format!("is larger than {MAX_SECRET} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())?;
    match text.trim() {
        "" => Err("is empty".to_owned()),
        text => Ok(Secret::new(text)),
    }
}

/// The known key that was probably meant: the nearest, if a third of it or less
/// is mistyped.
fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    // Longer ones are never near, and the comparison is quadratic.
    if key.len() > 64 {
        return None;
    }
    let key = key.to_lowercase().replace('-', "_");
    let near = known.iter().map(|&name| (distance(&key, name), name)).min()?;
    (near.0 <= near.1.len().div_ceil(3)).then_some(near.1)
}

/// How many letters to insert, remove, replace or swap with their neighbour
/// (optimal string alignment).
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![vec![0; to.len() + 1]; from.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=from.len() {
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = least;
        }
    }
    rows[from.len()][to.len()]
}
