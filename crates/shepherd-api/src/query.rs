//! Query strings.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// The value of parameter `name`, decoded as forms are (`+` is a space). Of
/// several the last counts; bytes that are no UTF-8 are replaced, and then fit
/// no parameter that is known.
pub(crate) fn parameter<'a>(query: Option<&'a str>, name: &str) -> Option<Cow<'a, str>> {
    let value = query?.split('&').rev().find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    if value.contains('+') {
        let spaced = value.replace('+', " ");
        return Some(percent_decode_str(&spaced).decode_utf8_lossy().into_owned().into());
    }
    Some(percent_decode_str(value).decode_utf8_lossy())
}

#[cfg(test)]
mod tests {
    use super::parameter;

    #[test]
    fn parameters_are_found_and_decoded() {
        let query = Some("a=1&timeout=2.5&b&status=x%2By+z&a=3");
        for (name, value) in [
            ("a", Some("3")),
            ("timeout", Some("2.5")),
            ("b", Some("")),
            ("status", Some("x+y z")),
            ("c", None),
        ] {
            assert_eq!(parameter(query, name).as_deref(), value, "{name}");
        }
        assert_eq!(parameter(None, "a"), None);
    }
}
