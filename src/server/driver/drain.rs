//! What happens when a connection is about to write, and when it has written.

use std::sync::{OnceLock, Weak};
use std::task::Waker;

use parking_lot::Mutex;

use crate::connection::{PreDrain, SharedConnection};
use crate::server::Core;
use crate::session::{Epoch, HostCode, SessionHandle};
use crate::shield::shielded;
use crate::stanza::Frame;

/// Takes a connection's calls to the extensions, the session and the driver.
pub(super) struct DrainHook<C: SharedConnection> {
    pub(super) session: OnceLock<(SessionHandle<C>, Epoch)>,
    pub(super) core: Weak<Core<C>>,
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
        if let (Some((session, epoch)), Some(core)) = (session, self.core.upgrade()) {
            for extension in &core.extensions {
                let account = Some(&session.account().bare);
                let add = || extension.pre_drain(session, *epoch, out);
                let _panicked = core.shielded(HostCode::Extension, account, add);
            }
        }
    }

    fn drained(&self) {
        let Some((session, epoch)) = self.session.get() else {
            let waker = self.waker.lock().take();
            if let Some(waker) = waker {
                shielded(|| waker.wake());
            }
            return;
        };
        if session.is_sampled()
            && session.has_none_queued()
            && let Some(core) = self.core.upgrade()
        {
            core.sample_written(session);
        }
        session.go_on(*epoch);
    }
}
