//! An incremental parser of the one JSON object that a submit is.
//!
//! It takes the body in any pieces and keeps only what it needs: the text of the
//! key or value that it is in. The payload's text is unescaped into a buffer of
//! the caller's, who may empty it between pieces. Only strings, numbers and
//! literals are legal values, beside the one object that is the model, so there
//! is no nesting to keep track of: anything deeper is refused where it begins.
//!
//! Strictly RFC 8259: no comments, no trailing commas, no lone surrogates, no
//! bytes that are not UTF-8. The payload's UTF-8 is checked by who empties its
//! buffer.

use memchr::memchr2;
use shepherd_job::JobIdRule;

use super::fields::{Fields, Refused, StartJob};

/// No key or value but the payload may be longer, in bytes: far above any legal
/// one, and small enough to be held for every connection.
pub(super) const MAX_TEXT: usize = 64 * 1024;

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Scanner {
    state: State,
    escape: Escape,
    /// The key, value, number or literal so far.
    text: Vec<u8>,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Start,
    /// After `{`.
    FirstKey,
    /// After `,`.
    NextKey,
    Colon,
    Value,
    /// After a value.
    CommaOrEnd,
    String(To),
    /// In a number or a literal.
    Token,
    End,
}

/// What the string is that is being read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum To {
    Key,
    Value,
    Payload,
}

/// How far into an escape sequence the string is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Escape {
    None,
    /// After `\`.
    Backslash,
    /// In the four digits after `\u`, which may follow a leading surrogate.
    Hex {
        lead: Option<u16>,
        value: u16,
        left: u8,
    },
    /// After a leading surrogate: `\` must follow.
    PairBackslash {
        lead: u16,
    },
    /// After that: `u` must follow.
    PairU {
        lead: u16,
    },
}

impl Scanner {
    pub(super) const fn new(rule: JobIdRule) -> Self {
        Self { state: State::Start, escape: Escape::None, text: Vec::new(), fields: Fields::new(rule) }
    }

    /// Parses the next piece, appending what of the payload is in it.
    pub(super) fn feed(&mut self, mut bytes: &[u8], payload: &mut Vec<u8>) -> Result<(), Refused> {
        while let Some((&byte, rest)) = bytes.split_first() {
            match self.state {
                State::String(to) => bytes = self.string(bytes, to, payload)?,
                State::Token => {
                    if is_token(byte) {
                        self.push(byte)?;
                        bytes = rest;
                    } else {
                        self.token_ends(payload)?;
                    }
                }
                State::Start
                | State::FirstKey
                | State::NextKey
                | State::Colon
                | State::Value
                | State::CommaOrEnd
                | State::End => {
                    if !matches!(byte, b' ' | b'\t' | b'\n' | b'\r') {
                        self.mark(byte)?;
                    }
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    /// The submit, once the body is over.
    pub(super) fn finish(self) -> Result<StartJob, Refused> {
        if self.state == State::End { self.fields.finish() } else { Err(Refused::NotAnObject) }
    }

    /// A byte between strings and tokens that is no white space.
    fn mark(&mut self, byte: u8) -> Result<(), Refused> {
        self.state = match (self.state, byte) {
            (State::Start, b'{') => State::FirstKey,
            (State::FirstKey | State::NextKey, b'"') => self.string_begins(To::Key),
            (State::Colon, b':') => State::Value,
            (State::CommaOrEnd, b',') => State::NextKey,
            (State::FirstKey | State::CommaOrEnd, b'}') => {
                if self.fields.in_model() {
                    self.fields.object_ends();
                    State::CommaOrEnd
                } else {
                    State::End
                }
            }
            (State::Value, b'"') => {
                self.string_begins(if self.fields.is_payload() { To::Payload } else { To::Value })
            }
            (State::Value, b'{') => {
                self.fields.object_begins()?;
                State::FirstKey
            }
            (State::Value, b'[') => return Err(self.fields.wrong("a list")),
            (State::Value, byte) if is_token(byte) => {
                self.text.clear();
                self.text.push(byte);
                State::Token
            }
            _ => return Err(Refused::NotAnObject),
        };
        Ok(())
    }

    fn string_begins(&mut self, to: To) -> State {
        self.text.clear();
        State::String(to)
    }

    /// Takes from `bytes` what belongs to the string, at least one byte; returns
    /// the rest.
    fn string<'a>(&mut self, bytes: &'a [u8], to: To, payload: &mut Vec<u8>) -> Result<&'a [u8], Refused> {
        let sink = match to {
            To::Key | To::Value => &mut self.text,
            To::Payload => payload,
        };
        let Some((&byte, rest)) = bytes.split_first() else { return Ok(bytes) };
        match self.escape {
            Escape::None => {
                let end = memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
                let (plain, rest) = bytes.split_at(end);
                // Without a branch a byte, which lets it run at the memory's speed.
                if plain.iter().fold(u8::MAX, |least, &b| least.min(b)) < 0x20 {
                    return Err(Refused::NotAnObject);
                }
                sink.extend_from_slice(plain);
                self.check_length(to)?;
                return Ok(match rest.split_first() {
                    None => rest,
                    Some((b'"', rest)) => {
                        self.string_ends(to)?;
                        rest
                    }
                    Some((_, rest)) => {
                        self.escape = Escape::Backslash;
                        rest
                    }
                });
            }
            Escape::Backslash => {
                self.escape = Escape::None;
                match byte {
                    b'"' | b'\\' | b'/' => sink.push(byte),
                    b'b' => sink.push(0x08),
                    b'f' => sink.push(0x0c),
                    b'n' => sink.push(b'\n'),
                    b'r' => sink.push(b'\r'),
                    b't' => sink.push(b'\t'),
                    b'u' => self.escape = Escape::Hex { lead: None, value: 0, left: 4 },
                    _ => return Err(Refused::NotAnObject),
                }
            }
            Escape::Hex { lead, value, left } => {
                let digit = char::from(byte).to_digit(16).ok_or(Refused::NotAnObject)?;
                let value = value << 4 | u16::try_from(digit).unwrap_or(0);
                self.escape = if left > 1 {
                    Escape::Hex { lead, value, left: left - 1 }
                } else {
                    unit(lead, value, sink)?
                };
            }
            Escape::PairBackslash { lead } if byte == b'\\' => self.escape = Escape::PairU { lead },
            Escape::PairU { lead } if byte == b'u' => {
                self.escape = Escape::Hex { lead: Some(lead), value: 0, left: 4 };
            }
            Escape::PairBackslash { .. } | Escape::PairU { .. } => return Err(Refused::NotAnObject),
        }
        self.check_length(to)?;
        Ok(rest)
    }

    fn check_length(&self, to: To) -> Result<(), Refused> {
        if self.text.len() <= MAX_TEXT {
            return Ok(());
        }
        Err(match to {
            To::Key => Refused::Invalid(format!("a field's name is longer than {MAX_TEXT} bytes")),
            To::Value | To::Payload => self.fields.too_long(MAX_TEXT),
        })
    }

    fn string_ends(&mut self, to: To) -> Result<(), Refused> {
        self.state = match to {
            To::Key => {
                self.fields.key(utf8(&self.text)?)?;
                State::Colon
            }
            To::Value => {
                self.fields.string(utf8(&self.text)?)?;
                State::CommaOrEnd
            }
            To::Payload => {
                self.fields.payload();
                State::CommaOrEnd
            }
        };
        Ok(())
    }

    fn push(&mut self, byte: u8) -> Result<(), Refused> {
        self.text.push(byte);
        self.check_length(To::Value)
    }

    fn token_ends(&mut self, payload: &mut Vec<u8>) -> Result<(), Refused> {
        match utf8(&self.text)? {
            "null" => self.fields.null()?,
            "true" | "false" => return Err(self.fields.wrong("a boolean")),
            text if is_number(text.as_bytes()) => self.fields.number(text, payload)?,
            _ => return Err(Refused::NotAnObject),
        }
        self.state = State::CommaOrEnd;
        Ok(())
    }
}

fn utf8(text: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(text).map_err(|_| Refused::NotAnObject)
}

/// Appends the character of a UTF-16 code unit, or remembers the first of a pair.
fn unit(lead: Option<u16>, value: u16, to: &mut Vec<u8>) -> Result<Escape, Refused> {
    let is_lead = (0xd800..0xdc00).contains(&value);
    if is_lead && lead.is_none() {
        return Ok(Escape::PairBackslash { lead: value });
    }
    // A lone or swapped surrogate fails here.
    let character = char::decode_utf16(lead.into_iter().chain([value])).next().and_then(Result::ok);
    let character = character.filter(|c| lead.is_none() || c.len_utf16() == 2).ok_or(Refused::NotAnObject)?;
    to.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
    Ok(Escape::None)
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'+' | b'.')
}

/// Whether it is a number by RFC 8259, section 6.
fn is_number(text: &[u8]) -> bool {
    let digits = |text: &[u8]| text.iter().take_while(|b| b.is_ascii_digit()).count();
    let text = text.strip_prefix(b"-").unwrap_or(text);
    let whole = digits(text);
    if whole == 0 || (whole > 1 && text[0] == b'0') {
        return false;
    }
    let mut rest = &text[whole..];
    if let Some(fraction) = rest.strip_prefix(b".") {
        let count = digits(fraction);
        if count == 0 {
            return false;
        }
        rest = &fraction[count..];
    }
    if let Some(exponent) = rest.strip_prefix(b"e").or_else(|| rest.strip_prefix(b"E")) {
        let exponent =
            exponent.strip_prefix(b"+").or_else(|| exponent.strip_prefix(b"-")).unwrap_or(exponent);
        let count = digits(exponent);
        if count == 0 {
            return false;
        }
        rest = &exponent[count..];
    }
    rest.is_empty()
}

#[cfg(test)]
mod tests;
