//! Where the WebSocket is, for clients that know the domain alone
//! ([XEP-0156](https://xmpp.org/extensions/xep-0156.html)).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};

use crate::site::{Site, authority};

const REL: &str = "urn:xmpp:alt-connections:websocket";

pub(crate) async fn xml(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let Some(link) = link(&site, &headers) else { return StatusCode::BAD_REQUEST.into_response() };
    let text = format!(
        "<?xml version='1.0' encoding='utf-8'?>\n\
         <XRD xmlns='http://docs.oasis-open.org/ns/xri/xrd-1.0'>\n  \
         <Link rel='{REL}' href='{link}'/>\n\
         </XRD>\n"
    );
    let head = [(CONTENT_TYPE, "application/xrd+xml"), (ACCESS_CONTROL_ALLOW_ORIGIN, "*")];
    (head, text).into_response()
}

pub(crate) async fn json(State(site): State<Arc<Site>>, headers: HeaderMap) -> Response {
    let Some(link) = link(&site, &headers) else { return StatusCode::BAD_REQUEST.into_response() };
    let links = serde_json::json!({ "links": [{ "rel": REL, "href": link }] });
    ([(ACCESS_CONTROL_ALLOW_ORIGIN, "*")], Json(links)).into_response()
}

/// The address of the WebSocket, at the host that was asked.
fn link(site: &Site, headers: &HeaderMap) -> Option<String> {
    let scheme = if site.proxied { "wss" } else { "ws" };
    authority(headers).map(|host| format!("{scheme}://{host}/xmpp-websocket"))
}
