//! References to environment variables in text.
//!
//! `$NAME` and `${NAME}` stand for a variable, anywhere in the text and as often
//! as wanted; a name is made of upper-case letters, digits and `_`, holds at least
//! one letter and does not begin with a digit. `$$` stands for one dollar sign, and
//! any other dollar sign for itself. What a variable holds is not looked at again.
//!
//! Quoted text holds no references. It is [escaped](escape) when it is parsed.

use std::borrow::Cow;
use std::sync::Arc;

use crate::problem::{Place, Problem};
use crate::yaml::{Entry, Kind, Node, given_twice, index_path, key_path};

/// What replacing the references of a tree found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) problems: Vec<Problem>,
    /// The values that refer to variables, by the paths of their keys, and the
    /// variables' names.
    pub(crate) references: Vec<(String, String)>,
}

/// Replaces the references to environment variables in everything that came from
/// the file. A value that an override has replaced is taken as it is: whoever set
/// the variable had a shell to expand it, and a secret may hold a dollar sign.
pub(crate) fn interpolate(
    node: &mut Node,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    found: &mut Found,
) {
    match &mut node.kind {
        Kind::Null | Kind::Refused => {}
        Kind::Text(text) => match &node.place {
            Place::Variable { .. } => {}
            Place::At { .. } | Place::Whole { .. } => match expand(text, variable) {
                Ok(None) => {}
                Ok(Some((expanded, names))) => {
                    *text = Arc::from(expanded);
                    found.references.extend(names.into_iter().map(|name| (path.to_owned(), name)));
                }
                Err(faults) => {
                    for message in faults {
                        let (place, key) = (node.place.clone(), path.to_owned());
                        found.problems.push(Problem { place, key, message });
                    }
                    node.kind = Kind::Refused;
                }
            },
        },
        Kind::List(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                interpolate(item, &index_path(path, index), variable, found);
            }
        }
        Kind::Map(entries) => interpolate_map(entries, path, variable, found),
    }
}

fn interpolate_map(
    entries: &mut Vec<Entry>,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    found: &mut Found,
) {
    let mut kept: Vec<Entry> = Vec::with_capacity(entries.len());
    for mut entry in entries.drain(..) {
        let mut report = |message: String, key: &str| {
            let (place, key) = (entry.place.clone(), key_path(path, key));
            found.problems.push(Problem { place, key, message });
        };
        match expand(&entry.key, variable) {
            Ok(None) => {}
            Ok(Some((key, _))) => {
                if let Some(first) = kept.iter().find(|other| other.key == key) {
                    report(given_twice(&first.place), &key);
                    continue;
                }
                entry.key = key;
            }
            Err(faults) => {
                for message in faults {
                    report(message, &entry.key);
                }
                continue;
            }
        }
        interpolate(&mut entry.value, &key_path(path, &entry.key), variable, found);
        kept.push(entry);
    }
    *entries = kept;
}

/// The text in which a dollar sign stands for each in `text`.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if text.contains('$') { text.replace('$', "$$").into() } else { text.into() }
}

/// The text with its references replaced and the names of the variables, or nothing
/// where it holds nothing to replace.
///
/// # Errors
/// A message for each reference that cannot be replaced.
fn expand(
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<(String, Vec<String>)>, Vec<String>> {
    let mut expanded = String::new();
    let mut faults = Vec::new();
    let mut names = Vec::new();
    let mut has_escapes = false;
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        expanded.push_str(&rest[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            expanded.push('$');
            has_escapes = true;
            rest = after;
            continue;
        }
        let (braced, after) = rest.strip_prefix('{').map_or((false, rest), |after| (true, after));
        let name = name_at(after);
        if name.is_empty() {
            expanded.push('$');
            continue;
        }
        names.push(name.to_owned());
        rest = &after[name.len()..];
        if braced {
            match rest.strip_prefix('}') {
                Some(closed) => rest = closed,
                None => {
                    faults.push(format!("has `${{{name}` without the closing brace, expected `${{{name}}}`"));
                    continue;
                }
            }
        }
        match variable(name) {
            Some(value) => expanded.push_str(&value),
            None => faults.push(format!("refers to the environment variable `{name}`, which is not set")),
        }
    }
    expanded.push_str(rest);
    if !faults.is_empty() {
        return Err(faults);
    }
    Ok((has_escapes || !names.is_empty()).then_some((expanded, names)))
}

/// The variable's name at the beginning of `text`; empty where there is none.
fn name_at(text: &str) -> &str {
    let end = text
        .find(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'))
        .unwrap_or(text.len());
    let name = &text[..end];
    let legal =
        !name.starts_with(|c: char| c.is_ascii_digit()) && name.contains(|c: char| c.is_ascii_uppercase());
    if legal { name } else { "" }
}
