//! What becomes of a message, as extensions are told.

use std::fmt;

use jid::BareJid;

use super::ServerHandle;
use crate::connection::SharedConnection;
use crate::session::{Copies, SessionHandle, SessionRegistry};
use crate::stanza::Stanza;

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// At least one session has accepted it.
    Delivered,
    /// It waits in the offline store.
    Stored,
    /// The account does not exist; the sender is not told ([MSG-5](crate::rules#msg-5)).
    NoAccount,
    /// It was [`Stored`](Self::Stored) before, and a session has got it now.
    Retrieved,
    /// It is on its way to another domain, or to an account of ours that lives at another node, where what becomes of it
    /// is told then.
    Routed,
    /// It was bounced or dropped.
    Refused,
    /// Nobody who is there has it: it is in the offline store, or only sessions have it whose clients are
    /// gone (and may come back for it) without having acknowledged it. Told once for each message, when
    /// that is so for the first time, after what it [came to](Self::Delivered) at first ([HOOK-7](crate::rules#hook-7)).
    Waiting,
    /// Sessions that had accepted it have ended, and no client has acknowledged it: it was routed
    /// again ([SM-17](crate::rules#sm-17)), to the sessions that [it has reached](Delivery::reached) now. If there are none, it
    /// is in the store or has ended.
    Rerouted,
}

/// A message, and what became of it.
pub struct Delivery<'a, C: SharedConnection> {
    pub(crate) stanza: &'a Stanza,
    pub(crate) sent: &'a Stanza,
    pub(crate) server: &'a ServerHandle<C>,
    pub(crate) sender: Option<&'a SessionHandle<C>>,
    pub(crate) account: Option<&'a BareJid>,
    pub(crate) reached: &'a [SessionHandle<C>],
    pub(crate) outcome: Outcome,
    pub(crate) copies: Option<&'a Copies>,
    pub(crate) registry: &'a SessionRegistry<C>,
}

impl<'a, C: SharedConnection> Delivery<'a, C> {
    /// The message, with its true `from`, as its recipient gets it.
    #[must_use]
    pub const fn stanza(&self) -> &'a Stanza {
        self.stanza
    }

    /// The message as its sender's account sees it: with what it was [marked](super::Passage::Mark) with for
    /// that.
    #[must_use]
    pub const fn sent(&self) -> &'a Stanza {
        self.sent
    }

    /// The server.
    #[must_use]
    pub const fn server(&self) -> &'a ServerHandle<C> {
        self.server
    }

    /// The session that sent it; `None` where it came from another domain or from the server.
    #[must_use]
    pub const fn sender(&self) -> Option<&'a SessionHandle<C>> {
        self.sender
    }

    /// The local account that it is for.
    #[must_use]
    pub const fn account(&self) -> Option<&'a BareJid> {
        self.account
    }

    /// The sessions that have accepted it.
    #[must_use]
    pub const fn reached(&self) -> &'a [SessionHandle<C>] {
        self.reached
    }

    /// What became of it.
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Counts the copies of the message, so that it does not arrive twice when a session that has one
    /// is lost ([SM-17](crate::rules#sm-17)): an extension that gives it to another session of the account counts it here.
    /// `None` where no session got it.
    #[must_use]
    pub const fn copies(&self) -> Option<&'a Copies> {
        self.copies
    }

    /// All sessions.
    #[must_use]
    pub const fn registry(&self) -> &'a SessionRegistry<C> {
        self.registry
    }
}

impl<C: SharedConnection> fmt::Debug for Delivery<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("outcome", &self.outcome)
            .field("reached", &self.reached.len())
            .finish_non_exhaustive()
    }
}
