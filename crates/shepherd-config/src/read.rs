//! Typed reading of the tree: a caller asks a mapping for its keys and each value
//! for a type, and every mistake is noted on the way.
//!
//! A reader returns nothing for a value that it has reported, so the caller
//! carries on with the next key and all mistakes are found in one pass. Asking
//! for a key is what makes it known: the keys that nobody asked for are unknown,
//! and the ones asked for are what a misspelt key is compared with.

use std::cell::RefCell;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::environment::Environment;
use crate::paths;
use crate::problem::{Place, Problem};
use crate::units;
use crate::url::HttpUrl;
use crate::yaml::{self, Entry, Kind, Node, Origin, index_path, key_path};

mod section;

pub(crate) use section::Section;

/// What reading needs besides the tree, and what it has found.
pub(crate) struct Context {
    pub(crate) cwd: PathBuf,
    pub(crate) environment: Environment,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
    /// The paths of keys whose values are secrets.
    secrets: RefCell<Vec<String>>,
}

impl Context {
    pub(crate) fn new(cwd: &Path, environment: &Environment, problems: Vec<Problem>) -> Self {
        Self {
            cwd: cwd.to_owned(),
            environment: environment.clone(),
            problems: RefCell::new(problems),
            warnings: RefCell::default(),
            secrets: RefCell::default(),
        }
    }

    /// Whether the value of a key was read as a secret.
    pub(crate) fn is_secret(&self, key: &str) -> bool {
        self.secrets.borrow().iter().any(|secret| secret == key)
    }

    pub(crate) fn report(&self, place: &Place, key: &str, message: impl Into<String>) {
        let problem = Problem { place: place.clone(), key: key.to_owned(), message: message.into() };
        self.problems.borrow_mut().push(problem);
    }

    /// Notes what is allowed and dangerous.
    pub(crate) fn warn(&self, place: &Place, key: &str, message: impl Into<String>) {
        let warning = Problem { place: place.clone(), key: key.to_owned(), message: message.into() };
        self.warnings.borrow_mut().push(warning);
    }

    /// The warnings so far, in the order of problems.
    pub(crate) fn take_warnings(&self) -> Vec<Problem> {
        let mut warnings = self.warnings.take();
        warnings.sort();
        warnings.dedup();
        warnings
    }

    pub(crate) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }
}

/// Whether a message may repeat a value.
#[derive(Clone, Copy)]
enum Echo {
    Shown,
    Hidden,
}

/// A value that is not null, with its key's path.
pub(crate) struct Value<'a> {
    cx: &'a Context,
    node: &'a Node,
    pub(crate) key: String,
}

impl<'a> Value<'a> {
    pub(crate) fn new(cx: &'a Context, node: &'a Node, key: String) -> Self {
        Self { cx, node, key }
    }

    pub(crate) fn place(&self) -> &'a Place {
        &self.node.place
    }

    /// Notes a mistake in this value.
    pub(crate) fn fail(&self, message: impl Into<String>) {
        self.cx.report(&self.node.place, &self.key, message);
    }

    /// Notes that this value is allowed and dangerous.
    pub(crate) fn warn(&self, message: impl Into<String>) {
        self.cx.warn(&self.node.place, &self.key, message);
    }

    /// Notes that the value is not what was expected, and shows it.
    pub(crate) fn wrong(&self, expected: &str) {
        self.wrong_kind(expected, Echo::Shown);
    }

    fn wrong_kind(&self, expected: &str, echo: Echo) {
        let found = match &self.node.kind {
            Kind::Refused => return,
            Kind::Null => "is empty".to_owned(),
            Kind::List(_) => "is a list".to_owned(),
            Kind::Map(_) => "is a mapping".to_owned(),
            Kind::Text(text) if text.is_empty() => "is empty".to_owned(),
            Kind::Text(text) => match echo {
                Echo::Shown => format!("is {}", quote(text)),
                Echo::Hidden => "is text".to_owned(),
            },
        };
        self.fail(format!("{found}, expected {expected}"));
    }

    fn raw(&self, expected: &str, echo: Echo) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) if !text.is_empty() => Some(text),
            Kind::Text(_) | Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Refused => {
                self.wrong_kind(expected, echo);
                None
            }
        }
    }

    /// The text, where it is text that is not written as a list; nothing is noted
    /// otherwise.
    pub(crate) fn scalar(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) => match &self.node.place {
                Place::Variable { .. } if text.contains(',') || text.trim_start().starts_with('[') => None,
                Place::Variable { .. } | Place::At { .. } | Place::Whole { .. } => Some(text),
            },
            Kind::Null | Kind::List(_) | Kind::Map(_) | Kind::Refused => None,
        }
    }

    /// Whether it is a mapping.
    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.kind, Kind::Map(_))
    }

    fn parse<T>(&self, expected: &str, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
        let parsed = parse(self.raw(expected, Echo::Shown)?);
        if parsed.is_none() {
            self.wrong(expected);
        }
        parsed
    }

    /// Text that is not empty.
    pub(crate) fn text(&self) -> Option<&'a str> {
        self.raw("text", Echo::Shown)
    }

    /// As [`Self::text`], of a certain shape.
    pub(crate) fn text_as(&self, expected: &str) -> Option<&'a str> {
        self.raw(expected, Echo::Shown)
    }

    /// As [`Self::text`]; its value appears in no message.
    pub(crate) fn secret_text(&self) -> Option<&'a str> {
        self.raw("text", Echo::Hidden)
    }

    /// Text that may be empty, for the environment of a runner.
    pub(crate) fn any_text(&self) -> Option<&'a str> {
        match &self.node.kind {
            Kind::Text(text) => Some(text),
            Kind::Null => Some(""),
            Kind::List(_) | Kind::Map(_) | Kind::Refused => {
                self.wrong("text");
                None
            }
        }
    }

    /// A whole number in decimal digits.
    pub(crate) fn number<T>(&self, range: RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display,
    {
        let expected = format!("a number from {} to {}", range.start(), range.end());
        self.parse(&expected, |text| {
            let digits = text.bytes().all(|b| b.is_ascii_digit());
            let number = text.parse().ok().filter(|_| digits)?;
            range.contains(&number).then_some(number)
        })
    }

    pub(crate) fn boolean(&self) -> Option<bool> {
        self.choice(&[("true", true), ("false", false)])
    }

    /// One of several words, in any case.
    pub(crate) fn choice<T: Copy>(&self, options: &[(&str, T)]) -> Option<T> {
        self.choice_or(options, &[])
    }

    /// As [`Self::choice`], with older words that are taken but not offered.
    pub(crate) fn choice_or<T: Copy>(&self, options: &[(&str, T)], older: &[(&str, T)]) -> Option<T> {
        let names: Vec<&str> = options.iter().map(|(name, _)| *name).collect();
        self.parse(&any_of(&names), |text| {
            let mut all = options.iter().chain(older);
            all.find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
        })
    }

    /// The address of a service.
    pub(crate) fn http_url(&self) -> Option<HttpUrl> {
        let url = HttpUrl::parse(self.raw(HttpUrl::SHAPE, Echo::Hidden)?);
        if let Err(reason) = url {
            self.fail(format!("{reason}, expected {}", HttpUrl::SHAPE));
        }
        url.ok()
    }

    pub(crate) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let duration = self.parse(units::DURATION, units::duration)?;
        if range.contains(&duration) {
            return Some(duration);
        }
        let [least, most] = [*range.start(), *range.end()].map(units::show_duration);
        self.wrong(&format!("a duration from {least} to {most}"));
        None
    }

    pub(crate) fn size(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let size = self.parse(units::SIZE, units::size)?;
        if !range.contains(&size) {
            self.wrong(&format!("a size from {} to {} bytes", range.start(), range.end()));
            return None;
        }
        Some(size)
    }

    /// Billionths of a decimal number.
    pub(crate) fn billionths(&self, range: RangeInclusive<u64>) -> Option<u64> {
        let number = self.parse(units::DECIMAL, units::billionths)?;
        if !range.contains(&number) {
            let [least, most] = [*range.start(), *range.end()].map(units::show_billionths);
            self.wrong(&format!("a number from {least} to {most}"));
            return None;
        }
        Some(number)
    }

    /// A path, made absolute: a relative one starts at the current directory.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.path_in(self.raw("a path", Echo::Shown)?)
    }

    /// As [`Self::path`], of a path that is part of the value.
    pub(crate) fn path_in(&self, text: &str) -> Option<PathBuf> {
        if text.contains('\0') {
            self.wrong("a path, which holds no NUL");
            return None;
        }
        if text == "~" || text.starts_with("~/") {
            self.wrong("a path; `~` is not expanded, `$HOME` is");
            return None;
        }
        Some(paths::absolute(&self.cx.cwd, Path::new(text)))
    }

    /// A list. From the environment it may be written `[a, b]` or `a,b`.
    pub(crate) fn list<T>(&self, read: impl Fn(&Value<'_>) -> Option<T>) -> Option<Vec<T>> {
        let written;
        let items = match (&self.node.kind, &self.node.place) {
            (Kind::List(items), _) => items,
            (Kind::Text(text), place @ Place::Variable { .. }) => {
                written = self.written_list(text, place)?;
                &written
            }
            (Kind::Text(_) | Kind::Null | Kind::Map(_) | Kind::Refused, _) => {
                self.wrong("a list");
                return None;
            }
        };
        let read_at = |(index, node)| read(&Value::new(self.cx, node, index_path(&self.key, index)));
        let read: Vec<Option<T>> = items.iter().enumerate().map(read_at).collect();
        read.into_iter().collect()
    }

    /// The items of this list, if none is in it twice; `noun` is what each is.
    pub(crate) fn each_once<T: PartialEq + Display>(&self, items: Vec<T>, noun: &str) -> Option<Vec<T>> {
        let twice = items.iter().enumerate().find(|(index, item)| items[..*index].contains(item));
        if let Some((_, item)) = twice {
            let item = quote(&item.to_string());
            self.fail(format!("names {item} twice, expected each {noun} once"));
            return None;
        }
        Some(items)
    }

    fn written_list(&self, text: &str, place: &Place) -> Option<Vec<Node>> {
        if !text.trim_start().starts_with('[') {
            let node = |item: &str| Node { place: place.clone(), kind: Kind::Text(item.trim().into()) };
            return Some(text.split(',').map(node).collect());
        }
        let (root, problems) = yaml::parse(text, Origin::Value(place));
        for problem in &problems {
            self.fail(format!("{}, expected a list", problem.message));
        }
        match root.map(|root| root.kind) {
            Some(Kind::List(items)) if problems.is_empty() => Some(items),
            Some(_) | None => None,
        }
    }

    /// A mapping with keys of its own.
    pub(crate) fn section(&self) -> Option<Section<'a>> {
        Some(Section::new(self.cx, self.key.clone(), self.node, self.entries()?))
    }

    /// A mapping whose keys are the user's: each key's place, the key and its value.
    pub(crate) fn map(&self) -> Option<Vec<(&'a Place, &'a str, Value<'a>)>> {
        let entry = |entry: &'a Entry| {
            let value = Value::new(self.cx, &entry.value, key_path(&self.key, &entry.key));
            (&entry.place, entry.key.as_str(), value)
        };
        Some(self.entries()?.iter().map(entry).collect())
    }

    fn entries(&self) -> Option<&'a [Entry]> {
        match &self.node.kind {
            Kind::Map(entries) => Some(entries),
            Kind::Text(_) | Kind::Null | Kind::List(_) | Kind::Refused => {
                // It may be a secret that lost its key.
                self.wrong_kind("a mapping", Echo::Hidden);
                None
            }
        }
    }
}

/// A value for a message: on one line, and not all of a long one.
pub(crate) fn quote(text: &str) -> String {
    const SHOWN: usize = 80;
    let mut shown: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    format!("`{shown}`")
}

/// "`a`, `b` or `c`".
pub(crate) fn any_of(names: &[&str]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    match quoted.split_last() {
        None => "nothing".to_owned(),
        Some((only, [])) => only.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
    }
}
