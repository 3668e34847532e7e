//! The last step of a delivery: a stanza goes to a session, and extensions see it.

use std::time::Duration;

use crate::connection::SharedConnection;
use crate::server::Core;
use crate::session::{Copies, Item, NotSent, SessionHandle};
use crate::stanza::Stanza;

/// The local session that sent a stanza; `None` where it came from another domain or from the host.
pub(crate) type Origin<'a, C> = Option<&'a SessionHandle<C>>;

/// A message as its recipient gets it, and as its sender's account sees it.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) stanza: &'a Stanza,
    pub(crate) sent: &'a Stanza,
}

impl<'a> Message<'a> {
    /// One that is the same to both.
    pub(crate) const fn of(stanza: &'a Stanza) -> Self {
        Self { stanza, sent: stanza }
    }
}

impl<C: SharedConnection> Core<C> {
    /// Gives a stanza to a session, as it is.
    pub(crate) fn give(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Result<(), NotSent> {
        session.send(stanza)?;
        self.given(session, stanza);
        Ok(())
    }

    /// Gives a session a message that may go to other sessions of the account as well. `since`: an
    /// ended session left it, and had accepted it then.
    pub(super) fn give_copy(
        &self,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        copies: Option<&Copies>,
        since: Option<Duration>,
    ) -> Result<(), NotSent> {
        let is_given = match (since, copies) {
            (Some(since), copies) => session.send_left(stanza, copies, since)?,
            (None, Some(copies)) => {
                session.send_item(&Item::new(stanza).copy_of(copies)).map(|()| true)?
            }
            (None, None) => session.send(stanza).map(|()| true)?,
        };
        if is_given {
            self.given(session, stanza);
        }
        Ok(())
    }

    /// Counts a stanza that a session has accepted, and shows it to extensions.
    pub(super) fn given(&self, session: &SessionHandle<C>, stanza: &Stanza) {
        self.metrics.out(stanza);
        self.show(|extension| extension.outbound(session, stanza));
    }
}
