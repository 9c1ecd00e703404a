//! The secret of one launch.

use std::fmt::{self, Write as _};

use rustix::rand::{GetRandomFlags, getrandom};

/// The variable of a runner's environment that holds the token of its launch.
pub(crate) const VARIABLE: &str = "SHEPHERD_TOKEN";

/// A secret that a launched runner and its shepherd share, so that each can tell the other
/// from strangers.
#[derive(Clone)]
pub(crate) struct Token(String);

impl Default for Token {
    /// A new one, of 256 random bits.
    fn default() -> Self {
        let mut random = [0_u8; 32];
        getrandom(&mut random, GetRandomFlags::empty()).expect("the kernel has random numbers");
        Self(random.iter().fold(String::new(), |mut text, byte| {
            // Writing to a string does not fail.
            let _ = write!(text, "{byte:02x}");
            text
        }))
    }
}

impl Token {
    #[cfg(test)]
    pub(crate) fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::Token;

    #[test]
    fn a_token_is_new_each_time_and_not_shown() {
        let (one, other) = (Token::default(), Token::default());
        assert_eq!(one.as_str().len(), 64);
        assert_ne!(one.as_str(), other.as_str());
        assert_eq!(format!("{one:?}"), "Token(…)");
    }
}
