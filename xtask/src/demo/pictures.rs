//! The committed pictures with their known text, and what the model read in one of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::json::{self, Value};
use crate::Result;

/// One picture and the text that is in it.
pub(super) struct Picture {
    pub(super) name: String,
    pub(super) path: PathBuf,
    /// The name without its ending; jobs are named for it.
    pub(super) stem: String,
    /// Line by line.
    pub(super) text: Vec<String>,
}

/// Reads `expected.tsv` in `folder`: a file name, a tab, the lines of text joined by ` / `.
pub(super) fn load(folder: &Path) -> Result<Vec<Picture>> {
    let list = folder.join("expected.tsv");
    let rows =
        fs::read_to_string(&list).map_err(|error| format!("cannot read {}: {error}", list.display()))?;
    rows.lines()
        .map(|row| {
            let (name, text) = row
                .split_once('\t')
                .ok_or_else(|| format!("{}: no tab in the line `{row}`", list.display()))?;
            let stem = name.split('.').next().unwrap_or(name);
            Ok(Picture {
                name: name.to_owned(),
                path: folder.join(name),
                stem: stem.to_owned(),
                text: text.split(" / ").map(str::to_owned).collect(),
            })
        })
        .collect()
}

/// What the model read, line by line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Reading {
    pub(super) lines: Vec<String>,
    /// Of the piece it was least sure of; 0 when it read nothing.
    pub(super) confidence: f64,
}

impl Reading {
    /// Reads the model's output: an array of `{"text", "confidence", "line", ...}` in reading order.
    pub(super) fn parse(output: &[u8]) -> Result<Self> {
        let value = json::parse(std::str::from_utf8(output)?)?;
        let pieces = value.as_array().ok_or("the model's output is no array")?;
        let mut reading = Self { lines: Vec::new(), confidence: f64::INFINITY };
        let mut current = None;
        for piece in pieces {
            let text = piece.get("text").and_then(Value::as_str).ok_or("a piece has no text")?;
            let confidence =
                piece.get("confidence").and_then(Value::as_f64).ok_or("a piece has no confidence")?;
            let line = piece.get("line").and_then(Value::as_f64).ok_or("a piece has no line")?;
            reading.confidence = reading.confidence.min(confidence);
            match reading.lines.last_mut() {
                Some(last) if current == Some(line) => {
                    last.push(' ');
                    last.push_str(text);
                }
                Some(_) | None => reading.lines.push(text.to_owned()),
            }
            current = Some(line);
        }
        if reading.lines.is_empty() {
            reading.confidence = 0.0;
        }
        Ok(reading)
    }

    pub(super) fn text(&self) -> String {
        self.lines.join(" / ")
    }

    /// Whether this is `expected`, line by line. White space does not count: the model was trained on text
    /// without spaces and leaves some out.
    pub(super) fn says(&self, expected: &[String]) -> bool {
        let letters = |line: &String| line.split_whitespace().collect::<String>();
        self.lines.iter().map(letters).eq(expected.iter().map(letters))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &[&str]) -> Vec<String> {
        text.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn pieces_of_one_line_are_read_together() {
        let reading = Reading::parse(
            br#"[{"text": "Hay", "confidence": 0.99, "line": 0, "box": [[1, 2], [3, 4]]},
                 {"text": "12.50", "confidence": 0.97, "line": 0, "box": []},
                 {"text": "Free entry", "confidence": 1, "line": 1, "box": []}]"#,
        )
        .unwrap();
        assert_eq!(reading.text(), "Hay 12.50 / Free entry");
        assert!((reading.confidence - 0.97).abs() < 1e-9);
        assert!(reading.says(&lines(&["Hay 12.50", "Freeentry"])));
        assert!(!reading.says(&lines(&["Hay 12.50 Free entry"])));
        assert!(!reading.says(&lines(&["Hay 12.51", "Free entry"])));
    }

    #[test]
    fn a_picture_without_text_is_an_empty_reading() {
        let reading = Reading::parse(b"[]").unwrap();
        assert!(reading.says(&[]));
        assert!(!reading.says(&lines(&["text"])));
        assert!(Reading::parse(b"{}").is_err());
    }

    #[test]
    fn every_committed_picture_is_listed() {
        let folder = crate::root().join("examples/demo/pictures");
        let pictures = load(&folder).unwrap();
        assert_eq!(pictures.len() + 1, fs::read_dir(&folder).unwrap().count());
        for picture in pictures {
            assert!(picture.path.is_file(), "{}", picture.path.display());
        }
    }
}
