//! Which web pages of other origins may call the API.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

/// The origins that are allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// None.
    #[default]
    Off,
    /// All, without credentials.
    Any,
    /// These, written exactly as browsers send them (`https://example.org`), with
    /// credentials.
    Origins(Vec<HeaderValue>),
}

impl Cors {
    /// Reads a list of origins; `*` among them allows all, and an empty list none.
    ///
    /// # Errors
    /// The first entry that cannot be an origin.
    pub fn parse<S: AsRef<str>>(origins: &[S]) -> Result<Self, String> {
        if origins.is_empty() {
            return Ok(Self::Off);
        }
        if origins.iter().any(|origin| origin.as_ref() == "*") {
            return Ok(Self::Any);
        }
        origins
            .iter()
            .map(|origin| {
                let origin = origin.as_ref();
                let plain = origin.split_once("://").is_some_and(|(scheme, host)| {
                    !scheme.is_empty() && !host.is_empty() && !host.contains('/')
                });
                HeaderValue::from_str(origin).ok().filter(|_| plain).ok_or_else(|| origin.to_owned())
            })
            .collect::<Result<_, _>>()
            .map(Self::Origins)
    }

    /// Whether pages of this origin may call.
    pub(crate) fn allows(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::Off => false,
            Self::Any => true,
            Self::Origins(origins) => origins.contains(origin),
        }
    }

    /// Which pages may show what is answered without asking for it by CORS: an image, or a script.
    pub(crate) const fn resource_policy(&self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Any => "cross-origin",
            Self::Off | Self::Origins(_) => "same-origin",
        })
    }

    /// What to say to this request, if anything.
    pub(crate) fn grant(&self, method: &Method, headers: &HeaderMap) -> Option<Grant> {
        let allowed = match self {
            Self::Off => return None,
            Self::Any => Some(HeaderValue::from_static("*")),
            Self::Origins(_) => headers.get(ORIGIN).filter(|origin| self.allows(origin)).cloned(),
        };
        Some(Grant {
            allowed,
            by_origin: matches!(self, Self::Origins(_)),
            preflight: method == Method::OPTIONS && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD),
        })
    }
}

/// The headers for one answer.
#[derive(Debug)]
pub(crate) struct Grant {
    allowed: Option<HeaderValue>,
    /// Whether the answer differs by origin, which caches must know.
    by_origin: bool,
    preflight: bool,
}

impl Grant {
    pub(crate) fn apply(self, headers: &mut HeaderMap) {
        let text = HeaderValue::from_static;
        if self.by_origin {
            headers.append(VARY, text("Origin"));
        }
        let Some(origin) = self.allowed else { return };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.by_origin {
            headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, text("true"));
        }
        if self.preflight {
            headers.insert(ACCESS_CONTROL_ALLOW_METHODS, text("GET, HEAD, POST, OPTIONS"));
            headers.insert(
                ACCESS_CONTROL_ALLOW_HEADERS,
                text("Content-Type, Range, If-Range, If-None-Match, Last-Event-ID"),
            );
            headers.insert(ACCESS_CONTROL_MAX_AGE, text("3600"));
        } else {
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, text("Content-Range, ETag, Accept-Ranges"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Cors;

    #[test]
    fn origins_are_checked() {
        assert_eq!(Cors::parse::<&str>(&[]), Ok(Cors::Off));
        assert_eq!(Cors::parse(&["https://a.org", "*"]), Ok(Cors::Any));
        assert!(
            matches!(Cors::parse(&["https://a.org", "http://b:81"]), Ok(Cors::Origins(o)) if o.len() == 2)
        );
        for bad in ["a.org", "https://a.org/", "https://", "://a", "https://a\n"] {
            assert_eq!(Cors::parse(&[bad]), Err(bad.to_owned()));
        }
    }
}
