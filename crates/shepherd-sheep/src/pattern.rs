//! Patterns of models.

use std::fmt;

use shepherd_job::ModelRef;

/// A pattern that models match by `NAME`, or by `NAME:VERSION` where it has a colon.
/// `*` stands for any text and `?` for any character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelPattern(String);

impl ModelPattern {
    /// The pattern that is written like this.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether `model` matches.
    pub fn matches(&self, model: &ModelRef) -> bool {
        if self.0.contains(':') {
            is_match(self.0.as_bytes(), model.to_string().as_bytes())
        } else {
            is_match(self.0.as_bytes(), model.name().as_bytes())
        }
    }
}

impl fmt::Display for ModelPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Never takes longer than the product of the lengths: only the last `*` is tried anew.
fn is_match(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    // Where the last `*` was, and how far the text was read when it matched.
    let mut star = None;
    while read < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(&byte) if byte == b'?' || byte == text[read] => {
                at += 1;
                read += 1;
            }
            Some(_) | None => {
                let Some((place, from)) = star else { return false };
                star = Some((place, from + 1));
                (at, read) = (place + 1, from + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_of_a_name_or_of_a_name_and_a_version() {
        let matches = |pattern: &str, name: &str, version: &str| {
            ModelPattern::new(pattern).matches(&ModelRef::parse(name, version).unwrap())
        };
        assert!(matches("ocr", "ocr", "1") && matches("ocr", "ocr", ""));
        assert!(!matches("ocr", "ocr2", "1"));
        assert!(matches("ocr:1.?", "ocr", "1.5") && !matches("ocr:1.?", "ocr", "1.50"));
        assert!(matches("team/*", "team/ocr", "1") && matches("*ocr*", "team/ocr-2", "1"));
        assert!(matches("*:latest", "ocr", "latest") && !matches("*:latest", "ocr", "1"));
        assert!(matches("*", "ocr", "1") && !matches("?", "ocr", "1"));
        assert!(matches("a*b*c", "aXbYbZc", "") && !matches("a*b*c", "aXbYbZ", ""));
        assert!(!matches(&"*a".repeat(100), &"a".repeat(99), ""), "in no time");
    }
}
