//! What servers say, as a tree.
//!
//! Text is kept to the byte. (rust-s3's own types trim it: a key may begin with a
//! space.)

use quick_xml::Reader;
use quick_xml::escape::resolve_xml_entity;
use quick_xml::events::Event;

/// How deep answers may be nested; S3's own are not deeper than 5.
const DEEPEST: usize = 16;

/// An element, its namespace left out.
#[derive(Debug, Default)]
pub(super) struct Element {
    pub(super) name: String,
    pub(super) text: String,
    children: Vec<Element>,
}

impl Element {
    /// The outermost element; none when this is no XML.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader::from_str(text);
        let mut open: Vec<Self> = Vec::new();
        loop {
            let mut done = None;
            match reader.read_event().ok()? {
                Event::Start(tag) => {
                    if open.len() >= DEEPEST {
                        return None;
                    }
                    let name = std::str::from_utf8(tag.local_name().into_inner()).ok()?.to_owned();
                    open.push(Self { name, ..Self::default() });
                }
                Event::Empty(tag) => {
                    let name = std::str::from_utf8(tag.local_name().into_inner()).ok()?.to_owned();
                    done = Some(Self { name, ..Self::default() });
                }
                Event::End(_) => done = open.pop(),
                Event::Text(text) => {
                    if let Some(top) = open.last_mut() {
                        top.text.push_str(&text.decode().ok()?);
                    }
                }
                Event::CData(text) => open.last_mut()?.text.push_str(&text.decode().ok()?),
                Event::GeneralRef(reference) => {
                    let top = open.last_mut()?;
                    match reference.resolve_char_ref().ok()? {
                        Some(char) => top.text.push(char),
                        None => top.text.push_str(resolve_xml_entity(&reference.decode().ok()?)?),
                    }
                }
                Event::Eof => return None,
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) | Event::DocType(_) => {}
            }
            if let Some(done) = done {
                match open.last_mut() {
                    Some(parent) => parent.children.push(done),
                    None => return Some(done),
                }
            }
        }
    }

    /// The children that are called so.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &Self> {
        self.children.iter().filter(move |child| child.name == name)
    }

    /// The text of the child that is called so; empty when there is none.
    pub(super) fn get(&self, name: &str) -> &str {
        self.all(name).next().map_or("", |child| &child.text)
    }
}

/// Text as it stands in an element; none when XML cannot hold it.
pub(super) fn escaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '&' => out.push_str("&amp;"),
            '"' => out.push_str("&quot;"),
            '\t' | '\n' | '\r' => out.push_str(&format!("&#{};", u32::from(char))),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => return None,
            char => out.push(char),
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_kept_to_the_byte() {
        let text = "<?xml version=\"1.0\"?>\n<a:R xmlns:a='x'>\n<Key> a&amp;b&#13;&lt;<![CDATA[<c>]]> </Key><E/><Key>2</Key></a:R>";
        let root = Element::parse(text).unwrap();
        assert_eq!(root.name, "R");
        assert_eq!(root.get("Key"), " a&b\r<<c> ");
        assert_eq!(root.get("E"), "");
        assert_eq!(root.get("None"), "");
        assert_eq!(root.all("Key").count(), 2);
    }

    #[test]
    fn what_is_escaped_comes_back() {
        for text in ["", " a ", "<&>\"'", "\r\n\t", "žluť \u{1f411}", "]]>"] {
            let xml = format!("<K>{}</K>", escaped(text).unwrap());
            assert_eq!(Element::parse(&xml).unwrap().text, text, "{xml}");
        }
        assert_eq!(escaped("\u{7}"), None);
        assert_eq!(escaped("\0"), None);
    }

    #[test]
    fn what_is_no_xml_is_none() {
        for text in ["", "Service Unavailable", "<a>", "<a></b>", "<a>&nope;</a>", "{}", &"<a>".repeat(1000)]
        {
            assert!(Element::parse(text).is_none(), "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics(text in "[<>/a&;#x! \\[\\]CDAT-]{0,64}") {
            let _ = Element::parse(&text);
        }
    }
}
