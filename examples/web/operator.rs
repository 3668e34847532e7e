//! Who is an operator: whoever sits at this machine, or knows the token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, FORWARDED, LOCATION, SET_COOKIE, VIA,
};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::Mutex;
use tokio::time::sleep;
use xmpp_session::environment::{Environment as _, System};

use crate::log::Log;
use crate::site::{Site, host};

/// How long a wrong token takes. One at a time is looked at.
const PENANCE: Duration = Duration::from_secs(1);

const LOGIN: &str = include_str!("login.html");

pub(crate) struct Guard {
    site: Arc<Site>,
    token: Option<String>,
    /// What the cookie has instead of the token, for as long as the process runs.
    key: String,
    penance: Mutex<()>,
    log: Log,
}

type Parameters = std::collections::HashMap<String, String>;

impl Guard {
    pub(crate) fn new(site: Arc<Site>, token: Option<String>, log: Log) -> Self {
        let mut random = [0; 16];
        System::new().random(&mut random);
        let key = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { site, token, key, penance: Mutex::default(), log }
    }

    /// A browser at this machine, which no page of elsewhere has sent here under a name of its own, and no
    /// proxy.
    fn is_at_home(&self, peer: SocketAddr, headers: &HeaderMap) -> bool {
        let is_forwarded = [FORWARDED.as_str(), VIA.as_str(), "x-forwarded-for"]
            .iter()
            .any(|name| headers.contains_key(*name));
        let at_home = host(headers).is_some_and(|host| host.is_loopback());
        self.token.is_none()
            && !self.site.proxied
            && !is_forwarded
            && at_home
            && peer.ip().to_canonical().is_loopback()
    }

    fn has_bearer(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        value.and_then(|value| value.strip_prefix("Bearer ")).is_some_and(|one| self.is_token(one))
    }

    fn has_cookie(&self, headers: &HeaderMap) -> bool {
        let values = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut cookies = values.flat_map(|value| value.split(';')).map(str::trim);
        self.token.is_some()
            && cookies
                .any(|one| one.strip_prefix("operator=").is_some_and(|one| is_same(one, &self.key)))
    }

    fn is_token(&self, text: &str) -> bool {
        self.token.as_ref().is_some_and(|token| is_same(text, token))
    }

    /// What a token is exchanged for.
    async fn log_in(&self, token: &str, peer: SocketAddr) -> Response {
        if !self.is_token(token) {
            return self.refuse(peer).await;
        }
        let secure = if self.site.proxied { "; Secure" } else { "" };
        let cookie =
            format!("operator={}; Path=/live; HttpOnly; SameSite=Strict{secure}", self.key);
        let head = [(SET_COOKIE, cookie), (LOCATION, "/live".into())];
        (StatusCode::SEE_OTHER, head).into_response()
    }

    async fn refuse(&self, peer: SocketAddr) -> Response {
        self.log.info(&format!("a wrong operator token, from {}", peer.ip()));
        let _turn = self.penance.lock().await;
        sleep(PENANCE).await;
        forbidden(LOGIN.replace("{why}", "This is not the operator’s token."))
    }
}

fn forbidden(page: impl Into<String>) -> Response {
    let page = page.into();
    let head = [(CONTENT_TYPE, "text/html; charset=utf-8"), (CACHE_CONTROL, "no-store")];
    (StatusCode::FORBIDDEN, head, page).into_response()
}

/// Lets operators pass.
pub(crate) async fn guard(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Query(mut query): Query<Parameters>,
    request: Request,
    next: Next,
) -> Response {
    let (headers, is_read) = (request.headers(), request.method().is_safe());
    if let Some(token) = query.remove("token").filter(|_| is_read && guard.token.is_some()) {
        return guard.log_in(&token, peer).await;
    }
    if headers.contains_key(AUTHORIZATION) && guard.token.is_some() {
        if !guard.has_bearer(headers) {
            return guard.refuse(peer).await;
        }
        // No page of elsewhere can make a browser send it.
        return next.run(request).await;
    }
    if !guard.is_at_home(peer, headers) && !guard.has_cookie(headers) {
        return match guard.token {
            Some(_) => {
                forbidden(LOGIN.replace("{why}", "Whoever knows the operator’s token may see it."))
            }
            None => forbidden(include_str!("closed.html")),
        };
    }
    // What changes something was asked for by our own page.
    if !is_read && !guard.site.is_own(headers) {
        return (StatusCode::FORBIDDEN, "not asked for by the live view").into_response();
    }
    next.run(request).await
}

/// The token from a form.
pub(crate) async fn log_in(
    State(guard): State<Arc<Guard>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Form(form): Form<Parameters>,
) -> Response {
    guard.log_in(form.get("token").map_or("", String::as_str), peer).await
}

/// Takes as long wherever they differ.
fn is_same(ours: &str, theirs: &str) -> bool {
    let pairs = ours.bytes().zip(theirs.bytes());
    ours.len() == theirs.len() && pairs.fold(0, |sum, (a, b)| sum | (a ^ b)) == 0
}
