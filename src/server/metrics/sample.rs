//! How long messages are on their way, of some of them (METRIC-4).

use std::collections::VecDeque;
use std::time::Duration;

use parking_lot::Mutex;

use crate::connection::SharedConnection;
use crate::server::Core;
use crate::session::{SessionHandle, SessionId};

/// Sessions that were given a message whose way is measured, and when its sender had sent it. A leaf lock.
#[derive(Default)]
pub(in crate::server) struct Samples(Mutex<VecDeque<(SessionId, Duration)>>);

/// What is under way at once. Beyond that the oldest are given up: their recipients do not read.
const MOST: usize = 64;

impl Samples {
    fn begin(&self, session: SessionId, since: Duration) {
        let mut samples = self.0.lock();
        samples.retain(|(id, _)| *id != session);
        if samples.len() >= MOST {
            samples.pop_front();
        }
        samples.push_back((session, since));
    }

    fn end(&self, session: SessionId) -> Option<Duration> {
        let mut samples = self.0.lock();
        let at = samples.iter().position(|(id, _)| *id == session)?;
        samples.remove(at).map(|(_, since)| since)
    }
}

impl<C: SharedConnection> Core<C> {
    /// A message that a client has sent at `since` is where it goes, as far as the server can bring it.
    #[cold]
    pub(in crate::server) fn sample(&self, to: Option<&str>, since: Duration) {
        let Some(Ok(to)) = to.map(|to| self.address(to)) else { return };
        let session = match to.resource.as_deref() {
            Some(resource) => self.registry.find(to.key(), resource),
            None => self.registry.sessions_of(to.key()).find(SessionHandle::is_available),
        };
        let Some(session) = session else { return };
        self.samples.begin(session.id(), since);
        // From now on its transport says when it has written.
        session.set_sampled();
        if session.is_written() {
            self.sample_written(&session);
        }
    }

    /// The transport of a session has taken all that there was for it.
    #[cold]
    pub(in crate::server) fn sample_written(&self, session: &SessionHandle<C>) {
        session.unset_sampled();
        if let Some(since) = self.samples.end(session.id()) {
            let time = self.environment.now().saturating_sub(since);
            self.metrics.rare.delivery.time(time);
        }
    }
}
