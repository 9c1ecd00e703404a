//! The API's description and the page that shows it, both from the binary.
//!
//! The description is written by hand in `docs/spec.json`: it is the contract,
//! and tests hold the routes and the bodies against it. All links are relative,
//! so that the page works behind a proxy that adds a prefix.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Response, StatusCode};
use utoipa_swagger_ui::Config;

use crate::body::ApiBody;
use crate::error::{Answer, ApiError, json_response};

const SPEC: &str = include_str!("docs/spec.json");
const PAGE: &str = include_str!("docs/page.html");
const START: &str = include_str!("docs/start.js");

/// Only what the binary serves; Swagger UI sets styles on its elements.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);

/// `GET /spec.json`
pub(crate) fn spec() -> Response<ApiBody> {
    json_response(StatusCode::OK, Bytes::from_static(SPEC.as_bytes()))
}

/// `GET /ui` and its twins; `assets` leads from the page to `/ui/`.
pub(crate) fn page(assets: &str) -> Response<ApiBody> {
    // The description lies beside `/ui`, hence one up from below it.
    let spec = match assets {
        "ui/" => "spec.json",
        _ => "../spec.json",
    };
    let html = PAGE.replace("{assets}", assets).replace("{spec}", spec);
    let mut response = Response::new(ApiBody::from(Bytes::from(html)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `GET /ui/NAME`
pub(crate) fn asset(name: &str) -> Answer {
    let (bytes, content_type) = match name {
        "start.js" => (Bytes::from_static(START.as_bytes()), "text/javascript; charset=utf-8".to_owned()),
        // The page has no use for these two: it is its own index and initializer.
        "" | "index.html" | "swagger-initializer.js" => return Err(ApiError::NoSuchPath),
        name => vendored(name).ok_or(ApiError::NoSuchPath)?,
    };
    let mut response = Response::new(ApiBody::from(bytes));
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::try_from(content_type) {
        headers.insert(CONTENT_TYPE, value);
    }
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    Ok(response)
}

fn vendored(name: &str) -> Option<(Bytes, String)> {
    static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| Arc::new(Config::from("/spec.json")));
    let file = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)).ok().flatten()?;
    let bytes = match file.bytes {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => bytes.into(),
    };
    Some((bytes, file.content_type))
}
