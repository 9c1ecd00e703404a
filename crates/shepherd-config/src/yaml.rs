//! The file as a tree in which every value knows its place.
//!
//! Built from the events of the parser inside `serde-saphyr`, not through serde:
//! a scalar keeps the text that was written (`0123` stays four characters, so a
//! password is not renumbered), and a mistake in one place does not hide the
//! next. Meaning is given later, by whoever asks for a text, a number or a list.
//!
//! Anchors, aliases and merge keys work. What an alias stands for is copied, so
//! the number of values and their depth are bounded: a document cannot grow
//! beyond what a configuration would ever be.

use std::collections::HashMap;
use std::sync::Arc;

use serde_saphyr::granit_parser::{self, Event, Parser, ScalarStyle, Span, Tag};

use crate::interpolate::escape;
use crate::problem::{Place, Problem};

/// The largest text that is parsed, in bytes.
pub(crate) const MAX_BYTES: usize = 1 << 20;
const MAX_VALUES: usize = 20_000;
const MAX_DEPTH: usize = 32;

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Nothing, `~` or `null`: the key counts as absent.
    Null,
    Text(Arc<str>),
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// Something that was reported already; whoever reads it stays silent.
    Refused,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
}

/// What the text comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Origin<'a> {
    File(&'a Arc<str>),
    /// Everything in the text has this place.
    Value(&'a Place),
}

impl Origin<'_> {
    fn place(self, line: usize, column: usize) -> Place {
        match self {
            Self::File(file) => Place::At { file: Arc::clone(file), line, column },
            Self::Value(place) => place.clone(),
        }
    }
}

/// Parses one document. There is no tree when the text is not YAML or breaks a
/// bound; there may be problems beside a tree.
pub(crate) fn parse(text: &str, origin: Origin<'_>) -> (Option<Node>, Vec<Problem>) {
    let mut builder = Builder {
        origin,
        open: Vec::new(),
        anchors: HashMap::new(),
        values: 0,
        documents: 0,
        root: None,
        problems: Vec::new(),
    };
    let complete = builder.read(text).is_ok();
    let root = builder.root.take().filter(|_| complete);
    (root, builder.problems)
}

/// Parsing cannot go on; the reason is among the problems.
struct Stopped;

struct Builder<'a> {
    origin: Origin<'a>,
    open: Vec<Open>,
    /// Finished anchored values with their size and depth.
    anchors: HashMap<usize, (Node, usize, usize)>,
    values: usize,
    documents: usize,
    root: Option<Node>,
    problems: Vec<Problem>,
}

/// A list or mapping whose end has not come yet.
struct Open {
    place: Place,
    anchor: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, seen: HashMap<String, Place>, key: Option<Key>, merges: Vec<Node> },
}

enum Key {
    Named(String, Place),
    /// A key that was reported; its value is dropped.
    Refused,
}

impl Builder<'_> {
    fn read(&mut self, text: &str) -> Result<(), Stopped> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let options = granit_parser::options! {
            emit_comments: false,
            // An unknown alias is one mistake among others.
            emit_unresolved_aliases: true,
        };
        for event in Parser::new_from_str_with_options(text, options) {
            let (event, span) = event.map_err(|error| {
                let place = self.origin.place(error.marker().line(), error.marker().col() + 1);
                let mut message = format!("is not valid YAML: {}", error.info().trim_end_matches('.'));
                let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
                if line.contains("${") && line.contains(['{', '[']) {
                    message
                        .push_str("; between `{` and `}`, or `[` and `]`, write `$NAME` and not `${NAME}`");
                }
                // No key: the parser reads ahead of what it tells.
                self.problems.push(Problem { place, key: String::new(), message });
                Stopped
            })?;
            self.accept(event, &span)?;
        }
        if self.root.is_none() {
            let place = self.origin.place(1, 1);
            return Err(self.report(place, "is empty, expected a mapping with `data_root` and `sheep`"));
        }
        Ok(())
    }

    fn accept(&mut self, event: Event<'_>, span: &Span) -> Result<(), Stopped> {
        let place = self.origin.place(span.start.line(), span.start.col() + 1);
        match event {
            Event::DocumentStart(..) => {
                self.documents += 1;
                if self.documents > 1 {
                    return Err(self.report(place, "begins a second document, expected one document"));
                }
            }
            Event::Scalar(text, style, anchor, tag) => {
                let kind = match self.known_tag(tag.as_deref(), &place) {
                    None => Kind::Refused,
                    Some(tag) if tag != "str" && style == ScalarStyle::Plain && is_null(&text) => Kind::Null,
                    Some(_) => Kind::Text(match (style, self.origin) {
                        (ScalarStyle::Plain, _) | (_, Origin::Value(_)) => Arc::from(&*text),
                        // Quoted, or a block: it stands for itself.
                        (_, Origin::File(_)) => Arc::from(&*escape(&text)),
                    }),
                };
                self.count(1, &place)?;
                self.attach(Node { place, kind }, anchor);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.known_tag(tag.as_deref(), &place);
                self.enter(place, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.known_tag(tag.as_deref(), &place);
                let (entries, seen, merges) = (Vec::new(), HashMap::new(), Vec::new());
                self.enter(place, anchor, Content::Map { entries, seen, key: None, merges })?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.leave(),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some((mut node, size, depth)) => {
                    self.count(size, &place)?;
                    self.within_depth(self.open.len() + depth, &place)?;
                    node.place = place;
                    self.attach(node, 0);
                }
                None => self.refuse(place, "is an alias inside what it stands for"),
            },
            Event::UnresolvedAlias(name) => {
                let message = format!("is an alias of `{}`, which is not defined above", name.escape_debug());
                self.refuse(place, &message);
            }
            // Stream and document ends, comments, and whatever the parser may add.
            _ => {}
        }
        Ok(())
    }

    /// The suffix of a core tag, empty without one; none after reporting another.
    fn known_tag<'t>(&mut self, tag: Option<&'t Tag>, place: &Place) -> Option<&'t str> {
        let Some(tag) = tag else { return Some("") };
        let suffix = tag.core_suffix();
        if suffix.is_none() {
            let message = format!("has the tag `{}`, expected none", tag.original().escape_debug());
            self.report(place.clone(), message);
        }
        suffix
    }

    fn count(&mut self, more: usize, place: &Place) -> Result<(), Stopped> {
        self.values += more;
        if self.values > MAX_VALUES {
            let message = format!("holds more than {MAX_VALUES} values, aliases included");
            return Err(self.report(place.clone(), message));
        }
        Ok(())
    }

    fn within_depth(&mut self, depth: usize, place: &Place) -> Result<(), Stopped> {
        if depth > MAX_DEPTH {
            return Err(self.report(place.clone(), format!("is nested more than {MAX_DEPTH} levels deep")));
        }
        Ok(())
    }

    fn enter(&mut self, place: Place, anchor: usize, content: Content) -> Result<(), Stopped> {
        self.count(1, &place)?;
        self.within_depth(self.open.len() + 1, &place)?;
        self.open.push(Open { place, anchor, content });
        Ok(())
    }

    fn leave(&mut self) {
        let Some(Open { place, anchor, content }) = self.open.pop() else { return };
        let kind = match content {
            Content::List(items) => Kind::List(items),
            Content::Map { mut entries, merges, .. } => {
                for merge in merges {
                    self.merge(&mut entries, merge);
                }
                Kind::Map(entries)
            }
        };
        self.attach(Node { place, kind }, anchor);
    }

    /// Adds what a `<<` key names; keys of the mapping itself win, then earlier ones.
    fn merge(&mut self, entries: &mut Vec<Entry>, merge: Node) {
        match merge.kind {
            Kind::Map(merged) => {
                for entry in merged {
                    if !entries.iter().any(|own| own.key == entry.key) {
                        entries.push(entry);
                    }
                }
            }
            Kind::List(items)
                if items.iter().all(|item| matches!(item.kind, Kind::Map(_) | Kind::Refused)) =>
            {
                for item in items {
                    self.merge(entries, item);
                }
            }
            Kind::Refused => {}
            Kind::Null | Kind::Text(_) | Kind::List(_) => {
                self.report(merge.place, "merges what is not a mapping, expected an alias of a mapping");
            }
        }
    }

    fn attach(&mut self, node: Node, anchor: usize) {
        if anchor != 0 {
            let (size, depth) = measure(&node);
            self.anchors.insert(anchor, (node.clone(), size, depth));
        }
        match self.open.last_mut().map(|open| &mut open.content) {
            None => self.root = Some(node),
            Some(Content::List(items)) => items.push(node),
            Some(Content::Map { entries, key, merges, .. }) => match key.take() {
                None => self.begin_entry(node),
                Some(Key::Refused) => {}
                Some(Key::Named(name, _)) if name == "<<" => merges.push(node),
                Some(Key::Named(name, place)) => entries.push(Entry { key: name, place, value: node }),
            },
        }
    }

    /// Takes a value at the place of a key; the next one is its value.
    fn begin_entry(&mut self, node: Node) {
        let found = match node.kind {
            Kind::Text(text) => Key::Named(text.to_string(), node.place),
            Kind::Refused => Key::Refused,
            Kind::Null | Kind::List(_) | Kind::Map(_) => {
                self.report(node.place, "holds a key that is not text");
                Key::Refused
            }
        };
        let parent = self.path();
        let Some(Content::Map { seen, key, .. }) = self.open.last_mut().map(|open| &mut open.content) else {
            return;
        };
        *key = Some(match found {
            Key::Refused => Key::Refused,
            Key::Named(name, place) => match seen.get(&name) {
                Some(first) => {
                    let message = given_twice(first);
                    self.problems.push(Problem { place, key: key_path(&parent, &name), message });
                    Key::Refused
                }
                None => {
                    seen.insert(name.clone(), place.clone());
                    Key::Named(name, place)
                }
            },
        });
    }

    fn refuse(&mut self, place: Place, message: &str) {
        self.report(place.clone(), message);
        self.attach(Node { place, kind: Kind::Refused }, 0);
    }

    fn report(&mut self, place: Place, message: impl Into<String>) -> Stopped {
        let key = self.path();
        self.problems.push(Problem { place, key, message: message.into() });
        Stopped
    }

    /// The key that is being read.
    fn path(&self) -> String {
        let mut path = String::new();
        for open in &self.open {
            match &open.content {
                Content::List(items) => path = index_path(&path, items.len()),
                Content::Map { key: Some(Key::Named(name, _)), .. } => path = key_path(&path, name),
                Content::Map { .. } => {}
            }
        }
        path
    }
}

/// What plain text stands for nothing (YAML 1.2, the core schema).
fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn measure(node: &Node) -> (usize, usize) {
    let over = |nodes: &mut dyn Iterator<Item = &Node>| {
        nodes.map(measure).fold((1, 1), |(size, depth), (more, below)| (size + more, depth.max(below + 1)))
    };
    match &node.kind {
        Kind::Null | Kind::Text(_) | Kind::Refused => (1, 0),
        Kind::List(items) => over(&mut items.iter()),
        Kind::Map(entries) => over(&mut entries.iter().map(|entry| &entry.value)),
    }
}

/// `path` followed by a key; one that would be misread is quoted.
pub(crate) fn key_path(path: &str, key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let dot = if path.is_empty() { "" } else { "." };
    if plain { format!("{path}{dot}{key}") } else { format!("{path}{dot}{key:?}") }
}

/// `path` followed by the position in a list, from 0.
pub(crate) fn index_path(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

pub(crate) fn given_twice(first: &Place) -> String {
    format!("is given twice, first at {first}")
}
