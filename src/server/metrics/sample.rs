//! How long messages are on their way, of some of them (METRIC-4).

use std::collections::VecDeque;
use std::time::Duration;

use crate::connection::SharedConnection;
use crate::server::Core;
use crate::server::driver::Drains;
use crate::session::{SessionHandle, SessionId};
use crate::sync::{Mutex, Padded, for_each_core};

/// Sessions that were given a message whose way is measured, and when its sender had sent it: each in the place that
/// its number names, so that no two cores often meet. Leaf locks.
pub(in crate::server) struct Samples(Box<[Padded<Mutex<Under>>]>);

/// What is under way.
type Under = VecDeque<(SessionId, Duration)>;

/// At once in one place. Beyond that the oldest are given up: their recipients do not read.
const MOST: usize = 16;

impl Default for Samples {
    fn default() -> Self {
        Self((0..for_each_core(4, 4, 256)).map(|_| Padded::default()).collect())
    }
}

impl Samples {
    #[expect(
        clippy::indexing_slicing,
        reason = "a remainder of the slice's length, which is not 0"
    )]
    fn place(&self, session: SessionId) -> &Mutex<Under> {
        let places = self.0.len();
        &self.0[usize::try_from(session.get()).unwrap_or(0) % places]
    }

    fn begin(&self, session: SessionId, since: Duration) {
        let mut samples = self.place(session).lock();
        samples.retain(|(id, _)| *id != session);
        if samples.len() >= MOST {
            samples.pop_front();
        }
        samples.push_back((session, since));
    }

    fn end(&self, session: SessionId) -> Option<Duration> {
        let mut samples = self.place(session).lock();
        let at = samples.iter().position(|(id, _)| *id == session)?;
        samples.remove(at).map(|(_, since)| since)
    }
}

impl<C: SharedConnection> Core<C> {
    /// A message that a client has sent at `since` is where it goes, as far as the server can bring it.
    #[cold]
    pub(in crate::server) fn sample(&self, to: Option<&str>, since: Duration) {
        let Some(Ok(to)) = to.map(|to| self.address(to)) else { return };
        let is_meant = |session: &SessionHandle<C>| match to.resource.as_deref() {
            Some(resource) => session.resource().as_str() == resource,
            None => session.is_available(),
        };
        let Some(session) = self.registry.sessions_of(to.key()).find(is_meant) else { return };
        self.drains.samples.begin(session.id(), since);
        // From now on its transport says when it has written.
        session.set_sampled();
        if session.is_written() {
            self.drains.sample_written(&session);
        }
    }
}

impl<C: SharedConnection> Drains<C> {
    /// The transport of a session has taken all that there was for it.
    #[cold]
    pub(in crate::server) fn sample_written(&self, session: &SessionHandle<C>) {
        session.unset_sampled();
        if let Some(since) = self.samples.end(session.id()) {
            let time = self.environment.now().saturating_sub(since);
            self.counters.delivered_in(time);
        }
    }
}
