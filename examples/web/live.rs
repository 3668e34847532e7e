//! What the live view shows and does.

use std::collections::{HashMap, VecDeque};
use std::fmt::Display;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::extract::{ConnectInfo, Query, State};
use axum::http::StatusCode;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use tokio::task::spawn_blocking;
use xmpp_session::jid::FullJid;
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{ByKind, Listing, Metrics, Order, Server, Shutdown, StreamInfo};
use xmpp_session::session::{Event, EventKind, SessionInfo, SessionState};
use xmpp_session::stream::{StreamCondition, StreamError};

use crate::log::Log;

/// Ends that are shown.
const ENDS: usize = 100;
/// The longest listing.
const MOST: usize = 500;

pub(crate) struct Live {
    server: Server<Arc<Outbox>>,
    ends: Arc<Ends>,
    drain: Mutex<Drain>,
    /// One look at a time.
    turn: tokio::sync::Mutex<()>,
    started: Instant,
    log: Log,
}

/// The last ends, the newest first.
#[derive(Default)]
pub(crate) struct Ends(Mutex<VecDeque<Value>>);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    Under { ended: usize, left: usize },
    Done,
}

impl Ends {
    /// To be told of every event.
    pub(crate) fn event(&self, event: &Event<Arc<Outbox>>) {
        let EventKind::Ended { reason, left, was_available, .. } = event.kind() else { return };
        let info = event.session().info();
        let end = json!({
            "number": info.id.get(),
            "jid": info.jid.as_str(),
            "reason": reason.as_str(),
            "at": since_1970(SystemTime::now()),
            "left": left,
            "available": was_available,
            "received": info.stanzas_received,
            "sent": info.stanzas_sent,
        });
        let mut ends = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        ends.push_front(end);
        ends.truncate(ENDS);
    }
}

impl Live {
    pub(crate) fn new(server: Server<Arc<Outbox>>, ends: Arc<Ends>, log: Log) -> Arc<Self> {
        Arc::new(Self {
            server,
            ends,
            drain: Mutex::new(Drain::No),
            turn: tokio::sync::Mutex::default(),
            started: Instant::now(),
            log,
        })
    }

    pub(crate) fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/live/data", get(data))
            .route("/live/end", post(end))
            .route("/live/drain", post(drain))
            .with_state(self)
    }

    fn set(&self, drain: Drain) {
        *self.drain.lock().unwrap_or_else(PoisonError::into_inner) = drain;
    }

    /// What there is now.
    fn look(&self, listing: &Listing) -> Value {
        let (seen, metrics) = (self.server.overview(listing), self.server.metrics());
        let now = self.server.now();
        let age = |since: Duration| millis(now.saturating_sub(since));
        let session = |one: &SessionInfo| {
            json!({
                "number": one.id.get(),
                "jid": one.jid.as_str(),
                "state": one.state().as_str(),
                "interested": one.interested,
                "priority": one.priority,
                "since": age(one.since),
                "state_since": match (one.hibernating_since, one.presence_at) {
                    (Some(since), _) => age(since),
                    (None, Some(at)) => millis(at.elapsed().unwrap_or_default()),
                    (None, None) => age(one.since),
                },
                "received": one.stanzas_received,
                "sent": one.stanzas_sent,
                "waiting": one.bytes_waiting,
                "unacknowledged": one.unacknowledged_since.map(age),
            })
        };
        let stream = |one: &StreamInfo| {
            json!({
                "number": one.number,
                "peer": one.peer.to_string(), "state": one.stage.as_str(), "since": age(one.since),
            })
        };
        let drain = *self.drain.lock().unwrap_or_else(PoisonError::into_inner);
        let ends = self.ends.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        json!({
            "at": since_1970(SystemTime::now()),
            "uptime": millis(self.started.elapsed()),
            "drain": match drain {
                Drain::No => Value::Null,
                Drain::Under { ended, left } => json!({ "ended": ended, "left": left }),
                Drain::Done => json!({ "done": true }),
            },
            "counts": {
                "unauthenticated": seen.unauthenticated,
                "authenticated": seen.authenticated,
                "closing": seen.closing,
                "bound": seen.bound,
                "available": seen.available,
                "hibernating": seen.hibernating,
                "interested": seen.interested,
                "matching": seen.matching,
            },
            "counters": counters(&metrics),
            "sessions": seen.sessions.iter().map(session).collect::<Vec<_>>(),
            "streams": seen.streams.iter().map(stream).collect::<Vec<_>>(),
            "ends": ends,
        })
    }
}

fn counters(metrics: &Metrics) -> Value {
    let sum = |kinds: ByKind| kinds.messages + kinds.presences + kinds.iqs;
    let named = |pairs: Vec<(String, u64)>| {
        pairs.into_iter().map(|(name, count)| (name, count.into())).collect::<Map<_, Value>>()
    };
    json!({
        "received": sum(metrics.received),
        "delivered": sum(metrics.delivered),
        "messages": metrics.received.messages,
        "presences": metrics.received.presences,
        "iqs": metrics.received.iqs,
        "bytes_received": metrics.bytes_received,
        "bytes_delivered": metrics.bytes_delivered,
        "accepted": metrics.accepted,
        "binds": metrics.binds,
        "resumptions": metrics.resumptions,
        "offline_stored": metrics.offline_stored,
        "offline_retrieved": metrics.offline_retrieved,
        "retained_bytes": metrics.sessions.retained_bytes,
        "logins": metrics.logins.iter().map(|(_, count)| count).sum::<u64>(),
        "login_failures": metrics.login_failures.iter().map(|(_, count)| count).sum::<u64>(),
        "ends": named(texts(&metrics.ends)),
        "faults": named(texts(&metrics.faults)),
        "limits": named(metrics.limits.iter().map(|(limit, n)| (limit.as_str().into(), *n)).collect()),
    })
}

fn texts(counts: &[(impl Display, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(name, count)| (name.to_string(), *count)).collect()
}

async fn data(
    State(live): State<Arc<Live>>,
    Query(query): Query<HashMap<String, String>>,
) -> Response {
    let asked = |name| query.get(name).map(String::as_str);
    let order = Order::ALL.into_iter().find(|order| asked("order") == Some(order.as_str()));
    let state = SessionState::ALL.into_iter().find(|state| asked("state") == Some(state.as_str()));
    let mut listing = Listing::new()
        .most(MOST)
        .order(order.unwrap_or_default())
        .containing(asked("containing").unwrap_or_default());
    if let Some(state) = state {
        listing = listing.state(state);
    }
    let _turn = live.turn.lock().await;
    let looking = Arc::clone(&live);
    match spawn_blocking(move || looking.look(&listing)).await {
        Ok(seen) => ([(CACHE_CONTROL, "no-store")], Json(seen)).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Ends one session: that of this number, and not a later one on its resource.
async fn end(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    Json(session): Json<Value>,
) -> Response {
    let jid = session.get("jid").and_then(Value::as_str).and_then(|jid| FullJid::new(jid).ok());
    let number = session.get("number").and_then(Value::as_u64);
    let (Some(jid), Some(number)) = (jid, number) else {
        return (StatusCode::BAD_REQUEST, "a jid and a number").into_response();
    };
    let session = live.server.registry().session(&jid).filter(|one| one.id().get() == number);
    let error = StreamError::new(StreamCondition::PolicyViolation);
    let error = error.with_text("en", "The operator has ended this session.");
    let ended = session.is_some_and(|session| live.server.kick_with(&session, &error));
    if ended {
        live.log
            .info(&format!("the operator, from {}, ended session {number} of {jid}", peer.ip()));
    }
    Json(json!({ "ended": ended })).into_response()
}

/// Ends all sessions, some at a time, and accepts no more.
async fn drain(
    State(live): State<Arc<Live>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> Response {
    let left = live.server.registry().len();
    {
        let mut drain = live.drain.lock().unwrap_or_else(PoisonError::into_inner);
        if *drain != Drain::No {
            return Json(json!({ "draining": false })).into_response();
        }
        *drain = Drain::Under { ended: 0, left };
    }
    live.log.info(&format!("the operator, from {}, drains the server", peer.ip()));
    let told = Arc::clone(&live);
    let how = Shutdown::new().pace((left / 20).max(50), Duration::from_secs(1)).progress(
        move |progress| told.set(Drain::Under { ended: progress.ended, left: progress.left }),
    );
    tokio::spawn(async move {
        live.server.shutdown(how).await;
        live.set(Drain::Done);
        live.log.info("drained: no session is left, and nothing is accepted");
    });
    Json(json!({ "draining": true })).into_response()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn since_1970(time: SystemTime) -> u64 {
    millis(time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default())
}
