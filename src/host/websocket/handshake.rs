//! The handshake over HTTP (RFC 6455 §4.2), and from which pages it is taken.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::{
    ALLOW, CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, HeaderName, HeaderValue, ORIGIN,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, TRANSFER_ENCODING, UPGRADE,
};
use http::{Request, Response, StatusCode};
use tungstenite::error::{Error, ProtocolError};
use tungstenite::handshake::machine::TryParse as _;
use tungstenite::handshake::server::{create_response_with_body, write_response};

/// Which WebSockets a host takes, and how it watches them.
///
/// A browser says from which page a WebSocket is opened ([RFC 6455 §10.2](https://www.rfc-editor.org/rfc/rfc6455#section-10.2)),
/// and no script can lie about it; other programs say nothing, and are taken ([WS-13](crate::rules#ws-13)).
///
/// ```
/// use xmpp_session::host::WebSockets;
///
/// let websockets = WebSockets::from_pages(["https://chat.example.com"]);
/// ```
#[derive(Clone)]
pub struct WebSockets {
    /// `None`: all.
    pages: Option<Arc<[String]>>,
    pub(super) ping_interval: Duration,
}

impl WebSockets {
    /// Those that are opened by the pages of these origins, such as `https://chat.example.com`, and by
    /// programs that are no browsers. Pages of all other origins are refused.
    pub fn from_pages(origins: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let pages = origins.into_iter().map(|origin| normal(origin.as_ref())).collect();
        Self { pages: Some(pages), ..Self::from_any_page() }
    }

    /// Those that are opened by any page. What such a page can do is what any program can that knows a
    /// password: a browser adds nothing of its own to an XMPP login.
    #[must_use]
    pub fn from_any_page() -> Self {
        Self { pages: None, ping_interval: Duration::from_secs(25) }
    }

    /// Sets how long nothing may be sent or nothing arrive before the peer is sent a ping frame; 25 seconds, since many proxies cut
    /// what is idle for 60. A transport on which nothing arrives for three times as long is lost ([WS-14](crate::rules#ws-14)).
    #[must_use]
    pub fn ping_interval(mut self, time: Duration) -> Self {
        self.ping_interval = time.max(Duration::from_secs(1));
        self
    }

    /// The answer to a request: if its status is 101, what follows on its transport is the WebSocket. For
    /// hosts whose HTTP server parses requests and hands over the transport of one that it has answered.
    ///
    /// ```
    /// use xmpp_session::host::WebSockets;
    ///
    /// let request = http::Request::get("/xmpp-websocket")
    ///     .header("Host", "chat.example.com")
    ///     .header("Connection", "Upgrade")
    ///     .header("Upgrade", "websocket")
    ///     .header("Sec-WebSocket-Version", "13")
    ///     .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    ///     .header("Sec-WebSocket-Protocol", "xmpp")
    ///     .body(())?;
    /// let answer = WebSockets::from_any_page().answer(&request);
    /// assert_eq!(answer.status(), 101);
    /// assert_eq!(answer.headers()["Sec-WebSocket-Accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    /// # Ok::<(), http::Error>(())
    /// ```
    pub fn answer<B>(&self, request: &Request<B>) -> Response<&'static str> {
        let mut answer = match create_response_with_body(request, || "") {
            Ok(answer) => answer,
            Err(error) => return refusal(&error),
        };
        let headers = request.headers();
        if !headers.contains_key(HOST) {
            return refuse(StatusCode::BAD_REQUEST, "The request names no Host.\n");
        }
        let has_body = headers.contains_key(TRANSFER_ENCODING)
            || headers.get_all(CONTENT_LENGTH).iter().any(|length| length != "0");
        if has_body {
            return refuse(
                StatusCode::BAD_REQUEST,
                "What follows the request has to be a WebSocket.\n",
            );
        }
        if !has_key(headers) {
            return refuse(StatusCode::BAD_REQUEST, "The Sec-WebSocket-Key is none.\n");
        }
        // WS-1
        if !offers_xmpp(headers) {
            let why = "The subprotocol has to be xmpp: new WebSocket(url, 'xmpp') in a page.\n";
            return refuse(StatusCode::BAD_REQUEST, why);
        }
        if !self.is_known(headers) {
            let why = "Pages of this origin may not open a WebSocket here.\n";
            return refuse(StatusCode::FORBIDDEN, why);
        }
        let xmpp = HeaderValue::from_static(XMPP);
        answer.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, xmpp);
        answer
    }

    /// WS-13
    fn is_known(&self, headers: &HeaderMap) -> bool {
        let Some(pages) = &self.pages else { return true };
        headers.get_all(ORIGIN).iter().all(|origin| {
            let origin = origin.to_str().map(normal).unwrap_or_default();
            pages.contains(&origin)
        })
    }
}

impl fmt::Debug for WebSockets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSockets")
            .field("pages", &self.pages.is_some())
            .field("ping_interval", &self.ping_interval)
            .finish()
    }
}

/// What a request is answered, once it is complete.
pub(super) struct Answer {
    /// The bytes that it took.
    pub(super) length: usize,
    pub(super) is_accepted: bool,
    pub(super) bytes: Vec<u8>,
}

/// The head of a request, as it arrives.
#[derive(Default)]
pub(super) struct Head(Vec<u8>);

impl Head {
    /// Takes bytes, and answers if they end the head or are of none. `length` is then how many of these
    /// bytes belong to it.
    pub(super) fn read(&mut self, bytes: &[u8], websockets: &WebSockets) -> Option<Answer> {
        let known = self.0.len();
        let room = LONGEST_HEAD.saturating_sub(known).min(bytes.len());
        self.0.extend_from_slice(bytes.get(..room).unwrap_or_default());
        let head = &self.0;
        // Whoever speaks something else may never send the end of a line.
        let is_http = head.iter().zip(METHOD).all(|(byte, method)| byte == method);
        // An end that is parsed once, however slowly it came.
        let fresh = head.get(known.saturating_sub(3)..).unwrap_or_default();
        let has_ended = [&b"\r\n\r\n"[..], b"\n\n", b"\n\r\n"]
            .iter()
            .any(|end| fresh.windows(end.len()).any(|window| window == *end));
        if is_http && !has_ended {
            let is_long = head.len() >= LONGEST_HEAD;
            return is_long.then(|| Answer::new(&too_long(), room));
        }
        let (answer, end) = match Request::<()>::try_parse(head) {
            Ok(Some((end, request))) => (websockets.answer(&request), end),
            Ok(None) => (refuse(StatusCode::BAD_REQUEST, NO_REQUEST), head.len()),
            Err(error) => (refusal(&error), head.len()),
        };
        Some(Answer::new(&answer, end.saturating_sub(known)))
    }
}

impl Answer {
    fn new(answer: &Response<&str>, length: usize) -> Self {
        let mut bytes = Vec::new();
        // It has no version and no header that cannot be written.
        let _written = write_response(&mut bytes, answer);
        bytes.extend_from_slice(answer.body().as_bytes());
        let is_accepted = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        Self { length, is_accepted, bytes }
    }
}

/// RFC 6455 §4.2.1 (5): sixteen bytes in Base64.
fn has_key(headers: &HeaderMap) -> bool {
    let is_key = |key: &HeaderValue| {
        let key = key.as_bytes();
        key.len() == 24 && key.ends_with(b"==") && {
            let digits = key.get(..22).unwrap_or_default();
            digits.iter().all(|byte| byte.is_ascii_alphanumeric() || b"+/".contains(byte))
        }
    };
    let mut keys = headers.get_all(http::header::SEC_WEBSOCKET_KEY).iter();
    keys.next().is_some_and(is_key) && keys.next().is_none()
}

/// Whether `xmpp` is among the subprotocols, which may stand in several headers.
fn offers_xmpp(headers: &HeaderMap) -> bool {
    let offered = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter();
    let mut names = offered.filter_map(|names| names.to_str().ok()).flat_map(|it| it.split(','));
    names.any(|name| name.trim() == XMPP)
}

/// An origin as browsers write it: without the port that is the usual one.
fn normal(origin: &str) -> String {
    let origin = origin.trim().trim_end_matches('/').to_ascii_lowercase();
    let usual = if origin.starts_with("https:") { ":443" } else { ":80" };
    origin.strip_suffix(usual).map_or_else(|| origin.clone(), str::to_owned)
}

fn refusal(error: &Error) -> Response<&'static str> {
    use ProtocolError as Is;
    match error {
        Error::Protocol(Is::WrongHttpMethod) => {
            let answer = refuse(StatusCode::METHOD_NOT_ALLOWED, "A WebSocket begins with GET.\n");
            with(answer, ALLOW, "GET")
        }
        Error::Protocol(Is::MissingConnectionUpgradeHeader | Is::MissingUpgradeWebSocketHeader) => {
            upgrade("Here is a WebSocket for XMPP, and nothing for a browser to show.\n")
        }
        Error::Protocol(Is::MissingSecWebSocketVersionHeader) => {
            upgrade("The version of the WebSocket protocol has to be 13.\n")
        }
        Error::Capacity(_) => too_long(),
        _ => refuse(StatusCode::BAD_REQUEST, NO_REQUEST),
    }
}

fn upgrade(why: &'static str) -> Response<&'static str> {
    let answer = refuse(StatusCode::UPGRADE_REQUIRED, why);
    with(with(answer, UPGRADE, "websocket"), SEC_WEBSOCKET_VERSION, "13")
}

fn too_long() -> Response<&'static str> {
    let why = "The head of the request is too long.\n";
    refuse(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, why)
}

fn refuse(status: StatusCode, why: &'static str) -> Response<&'static str> {
    let mut answer = Response::new(why);
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_LENGTH, why.len().into());
    let answer = with(answer, http::header::CONTENT_TYPE, "text/plain; charset=utf-8");
    with(answer, CONNECTION, "close")
}

fn with(
    mut answer: Response<&'static str>,
    name: HeaderName,
    value: &'static str,
) -> Response<&'static str> {
    answer.headers_mut().insert(name, HeaderValue::from_static(value));
    answer
}

const XMPP: &str = "xmpp";
const METHOD: &[u8] = b"GET ";
const NO_REQUEST: &str = "This is no request for a WebSocket.\n";
/// Bytes of the head of a request: a browser sends along the cookies of the page's site.
const LONGEST_HEAD: usize = 16 * 1024;
