//! How a connection's pre-drain call reaches the extensions, and the driver.

use std::sync::{OnceLock, Weak};
use std::task::Waker;

use parking_lot::Mutex;

use crate::connection::{PreDrain, SharedConnection};
use crate::server::Core;
use crate::session::{Epoch, SessionHandle};

/// How a connection's pre-drain call reaches the extensions.
pub(super) struct Hook<C: SharedConnection> {
    pub(super) session: OnceLock<(SessionHandle<C>, Epoch)>,
    pub(super) core: Weak<Core<C>>,
    /// Who waits for the client to read.
    pub(super) paused: Mutex<Option<Waker>>,
}

impl<C: SharedConnection> Hook<C> {
    pub(super) fn wake_on_write(&self, waker: &Waker) {
        let waker = waker.clone();
        let old = self.paused.lock().replace(waker);
        drop(old);
    }
}

impl<C: SharedConnection> PreDrain for Hook<C> {
    fn pre_drain(&self, out: &mut Vec<u8>) {
        let paused = self.paused.lock().take();
        if let Some(waker) = paused {
            crate::server::shielded(|| waker.wake());
        }
        let session = self.session.get().filter(|(session, at)| session.is_current(*at));
        if let (Some((session, epoch)), Some(core)) = (session, self.core.upgrade()) {
            for extension in &core.extensions {
                let whole = out.len();
                let add = || extension.pre_drain(session, *epoch, out);
                if crate::server::shielded(add).is_none() {
                    out.truncate(whole); // half an element would end the stream
                }
            }
        }
    }

    fn drained(&self) {
        if let Some((session, epoch)) = self.session.get() {
            session.go_on(*epoch);
        }
    }
}
