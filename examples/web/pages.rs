//! The pages: plain files that are part of the program.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::PathBuf;

use axum::Router;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;

/// A path, the file behind it, and what that contains.
type File = (&'static str, &'static str, &'static str);

macro_rules! files {
    ($($path:literal: $file:literal,)*) => {
        &[$(($path, $file, include_str!($file))),*]
    };
}

/// Those that everybody may see.
pub(crate) const CHAT: &[File] = files! {
    "/": "chat.html",
    "/chat.css": "chat.css",
    "/chat.js": "chat.js",
    "/chat/conversation.js": "chat/conversation.js",
    "/chat/dom.js": "chat/dom.js",
    "/chat/model.js": "chat/model.js",
    "/chat/store.js": "chat/store.js",
    "/chat/view.js": "chat/view.js",
    "/chat/words.js": "chat/words.js",
    "/xmpp/client.js": "xmpp/client.js",
    "/xmpp/login.js": "xmpp/login.js",
    "/xmpp/management.js": "xmpp/management.js",
    "/xmpp/scram.js": "xmpp/scram.js",
    "/xmpp/sha256.js": "xmpp/sha256.js",
    "/xmpp/stream.js": "xmpp/stream.js",
    "/xmpp/xml.js": "xmpp/xml.js",
};

/// Those of the operator.
pub(crate) const LIVE: &[File] = files! {
    "/live": "live.html",
    "/live.js": "live.js",
    "/live/charts.js": "live/charts.js",
    "/live/format.js": "live/format.js",
    "/live/table.js": "live/table.js",
};

/// What whoever is asked for the operator's token may see.
pub(crate) const LOGIN: &[File] = files! {
    "/live.css": "live.css",
};

/// Answers with these files, or with those of the same name in `directory`.
pub(crate) fn router(files: &'static [File], directory: Option<&PathBuf>) -> Router {
    files.iter().fold(Router::new(), |router, (path, name, text)| {
        let file = directory.map(|directory| directory.join(name));
        router.route(path, get(async move |headers| answer(name, text, file, &headers)))
    })
}

fn answer(name: &str, text: &'static str, file: Option<PathBuf>, asked: &HeaderMap) -> Response {
    let text = match file.map(std::fs::read_to_string) {
        None => text.into(),
        Some(Ok(text)) => std::borrow::Cow::from(text),
        Some(Err(error)) => return (StatusCode::NOT_FOUND, error.to_string()).into_response(),
    };
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let tag = format!("\"{:016x}\"", hasher.finish());
    // Asked for again each time, sent again only where it has changed.
    let head = [(CACHE_CONTROL, "no-cache".to_owned()), (ETAG, tag.clone())];
    if asked.get(IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, [(CONTENT_TYPE, kind(name))], text.into_owned()).into_response()
}

fn kind(name: &str) -> &'static str {
    match name.rsplit('.').next() {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "text/plain; charset=utf-8",
    }
}

/// What browsers are to keep to: nothing comes from elsewhere, and nobody frames these pages.
pub(crate) async fn harden(mut response: Response) -> Response {
    const HEADERS: [(&str, &str); 4] = [
        (
            "content-security-policy",
            "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
             manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
        ),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ];
    for (name, value) in HEADERS {
        let (name, value) = (HeaderName::from_static(name), HeaderValue::from_static(value));
        response.headers_mut().insert(name, value);
    }
    response
}
