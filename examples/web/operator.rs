//! Who is an operator: whoever sits at this machine, or knows the token.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Form;
use axum::extract::{ConnectInfo, Query, Request, State};
use axum::http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, COOKIE, FORWARDED, LOCATION, SET_COOKIE, VIA,
};
use axum::http::{HeaderMap, StatusCode, Version};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tokio::sync::{Mutex, Semaphore};
use tokio::time::sleep;
use xmpp_session::environment::{Environment as _, System};

use crate::log::Log;
use crate::site::{Site, host};

/// How long a wrong token takes, one after the other.
const PENANCE: Duration = Duration::from_secs(1);
/// Tokens that are looked at meanwhile: the others are not.
const MOST: usize = 8;

const LOGIN: &str = include_str!("login.html");

pub(crate) struct Guard {
    site: Arc<Site>,
    token: Option<String>,
    /// What the cookie has instead of the token, for as long as the process runs.
    key: String,
    turns: Semaphore,
    penance: Mutex<()>,
    log: Log,
}

type Parameters = std::collections::HashMap<String, String>;

impl Guard {
    pub(crate) fn new(site: Arc<Site>, token: Option<String>, log: Log) -> Self {
        let mut random = [0; 16];
        System::new().random(&mut random);
        let key = random.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { site, token, key, turns: Semaphore::new(MOST), penance: Mutex::default(), log }
    }

    /// A browser at this machine, which no page of elsewhere has sent here under a name of its own, and no
    /// proxy.
    ///
    /// A proxy that says nothing of itself, and comes by HTTP 1.1, is not known to be one: behind any there has to be a
    /// token (`--secure` asks for it).
    fn is_at_home(&self, peer: SocketAddr, version: Version, headers: &HeaderMap) -> bool {
        let is_forwarded = [FORWARDED.as_str(), VIA.as_str(), "x-forwarded-for"]
            .iter()
            .any(|name| headers.contains_key(*name));
        let at_home = host(headers).is_some_and(|host| host.is_loopback());
        self.token.is_none()
            && !self.site.proxied
            && !is_forwarded
            && version > Version::HTTP_10
            && at_home
            && peer.ip().to_canonical().is_loopback()
    }

    /// `None`: it is right. Else what its sender gets, after a while.
    async fn refuses(&self, token: &str, peer: SocketAddr) -> Option<Response> {
        let Ok(_turn) = self.turns.try_acquire() else {
            let later = "Too many wrong tokens at the moment: try again in a few seconds.\n";
            return Some((StatusCode::TOO_MANY_REQUESTS, later).into_response());
        };
        if self.is_token(token) {
            return None;
        }
        self.log.info(&format!("a wrong operator token, from {}", peer.ip()));
        let _one_at_a_time = self.penance.lock().await;
        sleep(PENANCE).await;
        Some(forbidden(LOGIN.replace("{why}", "This is not the operator’s token.")))
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
        if let Some(refusal) = self.refuses(token, peer).await {
            return refusal;
        }
        let secure = if self.site.proxied { "; Secure" } else { "" };
        let cookie = format!("operator={}; Path=/; HttpOnly; SameSite=Strict{secure}", self.key);
        let head = [(SET_COOKIE, cookie), (LOCATION, "/live".into())];
        (StatusCode::SEE_OTHER, head).into_response()
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
    if let Some(value) = headers.get(AUTHORIZATION).filter(|_| guard.token.is_some()) {
        let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        return match guard.refuses(token.unwrap_or_default(), peer).await {
            Some(refusal) => refusal,
            // No page of elsewhere can make a browser send it.
            None => next.run(request).await,
        };
    }
    if !guard.is_at_home(peer, request.version(), headers) && !guard.has_cookie(headers) {
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
