//! Iq requests of the server itself, and their answers (STZ-13).

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::connection::SharedConnection;
use crate::extension::RequestError;
use crate::oneshot::{self, Sender};
use crate::server::{Core, Server};
use crate::stanza::{Kind, Stanza};
use crate::sync::common::Mutex;

/// How long an answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The component that asks (empty: the server), the address a request went to, and its id.
type RequestKey = (String, String, String);

/// Requests that wait for their answer.
#[derive(Default)]
pub(crate) struct Requests {
    waiting: Mutex<HashMap<RequestKey, Sender<Stanza>>>,
}

impl Requests {
    /// Gives an iq result or error to the request that waits for it; `false` where none does (IQ-4).
    pub(super) fn take_answer(&self, asker: &str, answer: &Stanza) -> bool {
        let (Some(from), Some(id)) = (answer.from(), answer.id()) else { return false };
        if !matches!(answer.raw_type(), Some("result" | "error")) {
            return false;
        }
        let key = (asker.to_owned(), from.into_owned(), id.into_owned());
        let waiting = self.waiting.lock().remove(&key);
        waiting.is_some_and(|sender| {
            sender.send(answer.clone());
            true
        })
    }
}

impl<C: SharedConnection> Server<C> {
    /// Sends an iq get or set, and waits for its answer: the result or error with its id and from
    /// its `to` ([STZ-13](crate::rules#stz-13)).
    ///
    /// # Errors
    ///
    /// [`RequestError`] when no answer comes within 60 seconds, or the iq is no request.
    pub async fn request(&self, iq: Stanza) -> Result<Stanza, RequestError> {
        self.0.request("", iq).await
    }
}

impl<C: SharedConnection> Core<C> {
    /// A request of the server itself, or of the component `asker`.
    pub(super) async fn request(
        self: &Arc<Self>,
        asker: &str,
        iq: Stanza,
    ) -> Result<Stanza, RequestError> {
        let request = iq.kind() == Kind::Iq && matches!(iq.type_().as_deref(), Some("get" | "set"));
        let (Some(to), Some(id), true) = (iq.to(), iq.id(), request) else {
            return Err(RequestError::NotARequest);
        };
        let to = self.address(&to).map_err(|_| RequestError::NotARequest)?.to_text();
        let key = (asker.to_owned(), to, id.into_owned());
        let (sender, receiver) = oneshot::channel();
        match self.requests.waiting.lock().entry(key.clone()) {
            Entry::Occupied(_) => return Err(RequestError::Duplicate),
            Entry::Vacant(place) => _ = place.insert(sender),
        }
        let _waiter = Waiter { core: self, key };
        self.route_for_host(&iq);
        self.timers.within(REQUEST_TIMEOUT, receiver).await.flatten().ok_or(RequestError::TimedOut)
    }
}

/// A request that waits; not longer than this lives.
struct Waiter<'a, C: SharedConnection> {
    core: &'a Core<C>,
    key: RequestKey,
}

impl<C: SharedConnection> Drop for Waiter<'_, C> {
    fn drop(&mut self) {
        // Its waker is host code: woken without the lock.
        let _sender = self.core.requests.waiting.lock().remove(&self.key);
    }
}
