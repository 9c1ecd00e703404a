//! A reader for the JSON that the daemon and the model write.
//!
//! It takes all of JSON, keeps numbers as `f64`, and refuses anything else. It is here so that the xtask needs
//! no dependencies; it is not fast and nothing else uses it.

/// A JSON value.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(f64),
    String(String),
    Array(Vec<Value>),
    Object(Vec<(String, Value)>),
}

impl Value {
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let Self::Object(members) = self else { return None };
        members.iter().find(|(name, _)| name == key).map(|(_, value)| value)
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        if let Self::String(text) = self { Some(text) } else { None }
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(value) = self { Some(*value) } else { None }
    }

    pub(super) fn as_f64(&self) -> Option<f64> {
        if let Self::Number(number) = self { Some(*number) } else { None }
    }

    pub(super) fn as_array(&self) -> Option<&[Value]> {
        if let Self::Array(items) = self { Some(items) } else { None }
    }
}

/// Reads one value that is the whole of `text`. The error says at which byte it stopped.
pub(super) fn parse(text: &str) -> Result<Value, String> {
    let mut reader = Reader { text, at: 0, depth: 0 };
    let value = reader.value()?;
    reader.space();
    if reader.at == text.len() { Ok(value) } else { Err(reader.wrong("the end")) }
}

/// Deeper nesting than this is refused before it exhausts the stack.
const MAX_DEPTH: usize = 100;

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl Reader<'_> {
    fn wrong(&self, expected: &str) -> String {
        format!("invalid JSON at byte {}: expected {expected}", self.at)
    }

    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start_matches([' ', '\t', '\r', '\n']).len();
    }

    fn take(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn value(&mut self) -> Result<Value, String> {
        if self.depth == MAX_DEPTH {
            return Err(self.wrong("less nesting"));
        }
        self.space();
        if self.take("null") {
            Ok(Value::Null)
        } else if self.take("true") {
            Ok(Value::Bool(true))
        } else if self.take("false") {
            Ok(Value::Bool(false))
        } else if self.take("\"") {
            self.string().map(Value::String)
        } else if self.take("[") {
            self.sequence("]", Self::value).map(Value::Array)
        } else if self.take("{") {
            self.sequence("}", Self::member).map(Value::Object)
        } else {
            self.number()
        }
    }

    /// What stands between brackets, separated by commas; the opening one has been read.
    fn sequence<T>(&mut self, end: &str, read: fn(&mut Self) -> Result<T, String>) -> Result<Vec<T>, String> {
        let mut items = Vec::new();
        self.depth += 1;
        self.space();
        if !self.take(end) {
            loop {
                items.push(read(self)?);
                self.space();
                if self.take(end) {
                    break;
                }
                if !self.take(",") {
                    return Err(self.wrong("a comma or the closing bracket"));
                }
            }
        }
        self.depth -= 1;
        Ok(items)
    }

    fn member(&mut self) -> Result<(String, Value), String> {
        self.space();
        if !self.take("\"") {
            return Err(self.wrong("a key"));
        }
        let key = self.string()?;
        self.space();
        if !self.take(":") {
            return Err(self.wrong("a colon"));
        }
        Ok((key, self.value()?))
    }

    /// A string whose opening quote has been read.
    fn string(&mut self) -> Result<String, String> {
        let mut text = String::new();
        loop {
            let Some(letter) = self.rest().chars().next() else { return Err(self.wrong("a closing quote")) };
            self.at += letter.len_utf8();
            match letter {
                '"' => return Ok(text),
                '\\' => text.push(self.escape()?),
                '\0'..='\x1f' => return Err(self.wrong("no control character")),
                letter => text.push(letter),
            }
        }
    }

    /// What an escape stands for; its backslash has been read.
    fn escape(&mut self) -> Result<char, String> {
        const ESCAPES: [(&str, char); 8] = [
            ("\"", '"'),
            ("\\", '\\'),
            ("/", '/'),
            ("b", '\x08'),
            ("f", '\x0c'),
            ("n", '\n'),
            ("r", '\r'),
            ("t", '\t'),
        ];
        if let Some((_, letter)) = ESCAPES.into_iter().find(|(name, _)| self.take(name)) {
            return Ok(letter);
        }
        if !self.take("u") {
            return Err(self.wrong("an escape"));
        }
        let first = self.four_digits()?;
        // Outside the basic plane a letter is two escapes, the second in DC00..DFFF.
        let code = if (0xD800..0xDC00).contains(&first) && self.take("\\u") {
            let second = self.four_digits()?;
            0x10000 + ((first - 0xD800) << 10) + (second.wrapping_sub(0xDC00) & 0x3FF)
        } else {
            first
        };
        char::from_u32(code).ok_or_else(|| self.wrong("a letter, not half of one"))
    }

    fn four_digits(&mut self) -> Result<u32, String> {
        let digits = self.rest().get(..4).filter(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        let code = digits.and_then(|digits| u32::from_str_radix(digits, 16).ok());
        let code = code.ok_or_else(|| self.wrong("four hexadecimal digits"))?;
        self.at += 4;
        Ok(code)
    }

    fn number(&mut self) -> Result<Value, String> {
        let rest = self.rest();
        let end = rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E'));
        let digits = &rest[..end.unwrap_or(rest.len())];
        let number = digits.parse().map_err(|_| self.wrong("a value"))?;
        self.at += digits.len();
        Ok(Value::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_value_is_read() {
        let value = parse(
            r#" {"a": [1, -2.5e1, true, false, null], "b": {"c": "x\n\"\u00e9\ud83d\udc11"}, "d": []} "#,
        )
        .unwrap();
        let numbers = [Value::Number(1.0), Value::Number(-25.0)];
        assert_eq!(value.get("a").unwrap().as_array().unwrap()[..2], numbers);
        assert_eq!(value.get("a").unwrap().as_array().unwrap()[2].as_bool(), Some(true));
        assert_eq!(value.get("b").unwrap().get("c").unwrap().as_str(), Some("x\n\"é🐑"));
        assert_eq!(value.get("d").unwrap().as_array(), Some(&[][..]));
        assert_eq!(value.get("e"), None);
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "{",
            "[1,]",
            "[1 2]",
            "{\"a\" 1}",
            "{a: 1}",
            "\"x",
            "\"\\x\"",
            "\"\\ud800\"",
            "tru",
            "1 1",
            "\"\n\"",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&"[".repeat(100_000)).is_err());
    }
}
