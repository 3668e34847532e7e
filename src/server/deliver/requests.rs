//! Iq requests of the server itself, and their answers (STZ-13).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::connection::SharedConnection;
use crate::extension::RequestError;
use crate::server::Core;
use crate::server::work::oneshot::{self, Sender};
use crate::stanza::{Kind, Stanza};

/// How long an answer may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The address a request went to, and its id.
type RequestKey = (String, String);

/// Requests that wait for their answer.
#[derive(Default)]
pub(crate) struct Requests {
    waiting: Mutex<HashMap<RequestKey, Sender<Stanza>>>,
}

impl Requests {
    /// Gives an iq result or error to the request that waits for it; anything else is dropped (IQ-4).
    pub(super) fn take_answer(&self, answer: &Stanza) {
        let (Some(from), Some(id)) = (answer.from(), answer.id()) else { return };
        let waiting = self.waiting.lock().remove(&(from.into_owned(), id.into_owned()));
        if let Some(sender) = waiting {
            sender.send(answer.clone());
        }
    }
}

impl<C: SharedConnection> Core<C> {
    pub(crate) async fn request(self: &Arc<Self>, iq: Stanza) -> Result<Stanza, RequestError> {
        let request = iq.kind() == Kind::Iq && matches!(iq.type_().as_deref(), Some("get" | "set"));
        let (Some(to), Some(id), true) = (iq.to(), iq.id(), request) else {
            return Err(RequestError::NotARequest);
        };
        let to = self.address(&to).map_err(|_| RequestError::NotARequest)?.to_text();
        let key = (to, id.into_owned());
        let receiver = {
            let mut waiting = self.requests.waiting.lock();
            if waiting.contains_key(&key) {
                return Err(RequestError::Duplicate);
            }
            let (sender, receiver) = oneshot::channel();
            waiting.insert(key.clone(), sender);
            receiver
        };
        let _waiter = Waiter { core: self, key };
        self.route_for_host(iq);
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
