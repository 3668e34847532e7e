//! What happens when a connection is about to write, and when it has written.

use std::sync::{Arc, OnceLock};
use std::task::Waker;

use parking_lot::Mutex;

use crate::connection::{PreDrain, SharedConnection};
use crate::environment::Environment;
use crate::extension::Extension;
use crate::server::faults::{Faults, PeerAddress};
use crate::server::metrics::{RareCounters, Samples};
use crate::session::{Epoch, HostCode, SessionHandle};
use crate::shield::shielded;
use crate::stanza::Frame;

/// What the connections of all sessions call. Not the server itself: a connection may outlive it.
pub(in crate::server) struct Drains<C: SharedConnection> {
    pub(in crate::server) extensions: Arc<Vec<Box<dyn Extension<C>>>>,
    pub(in crate::server) samples: Samples,
    pub(in crate::server) counters: Arc<RareCounters>,
    pub(in crate::server) environment: Arc<dyn Environment>,
    pub(in crate::server) faults: Arc<Faults>,
}

/// Takes a connection's calls to the extensions, the session and the driver.
pub(super) struct DrainHook<C: SharedConnection> {
    pub(super) session: OnceLock<(SessionHandle<C>, Epoch)>,
    pub(super) drains: Arc<Drains<C>>,
    /// The driver's, while it waits for the client to read.
    pub(super) waker: Mutex<Option<Waker>>,
}

impl<C: SharedConnection> DrainHook<C> {
    pub(super) fn wake_on_write(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = self.waker.lock().replace(waker);
        drop(old);
    }
}

impl<C: SharedConnection> PreDrain for DrainHook<C> {
    fn pre_drain(&self, out: &mut dyn FnMut(Frame<'_>)) {
        let waker = self.waker.lock().take();
        if let Some(waker) = waker {
            shielded(|| waker.wake());
        }
        let session = self.session.get().filter(|(session, at)| session.is_current(*at));
        let Some((session, epoch)) = session else { return };
        for extension in self.drains.extensions.iter() {
            let account = Some(&session.account().bare);
            let (code, peer) = (HostCode::Extension, &PeerAddress::UNKNOWN);
            let add = || extension.pre_drain(session, *epoch, out);
            let _panicked = self.drains.faults.shielded(code, peer, account, add);
        }
    }

    fn drained(&self) {
        let Some((session, epoch)) = self.session.get() else { return };
        if session.is_sampled() && session.has_none_queued() {
            self.drains.sample_written(session);
        }
        session.go_on(*epoch);
    }
}
