//! What extensions make of a message before it has any effect.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use minidom::Element;

use super::ServerHandle;
use crate::connection::SharedConnection;
use crate::session::{AccountState, SessionHandle};
use crate::stanza::{Stanza, StanzaError};

/// Which way a message goes, seen from an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a message has a sender and a recipient")]
pub enum Way {
    /// The account has sent it, perhaps to itself.
    Sent,
    /// It has come for the account.
    Received,
}

/// A message that waits for what extensions make of it, for one account.
pub struct Passing<'a, C: SharedConnection> {
    pub(crate) stanza: &'a Stanza,
    pub(crate) account: &'a AccountState,
    pub(crate) way: Way,
    pub(crate) sender: Option<&'a SessionHandle<C>>,
    pub(crate) server: &'a ServerHandle<C>,
}

impl<'a, C: SharedConnection> Passing<'a, C> {
    /// The message, with its true `from`, as earlier extensions have left it.
    #[must_use]
    pub const fn stanza(&self) -> &'a Stanza {
        self.stanza
    }

    /// The account that is asked about, with what is kept for it.
    #[must_use]
    pub const fn account(&self) -> &'a AccountState {
        self.account
    }

    /// Whether this account has sent it, or it has come for it.
    #[must_use]
    pub const fn way(&self) -> Way {
        self.way
    }

    /// The session that sent it; `None` where it came from another domain or from the host.
    #[must_use]
    pub const fn sender(&self) -> Option<&'a SessionHandle<C>> {
        self.sender
    }

    /// The server.
    #[must_use]
    pub const fn server(&self) -> &'a ServerHandle<C> {
        self.server
    }
}

impl<C: SharedConnection> fmt::Debug for Passing<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Passing").field("way", &self.way).finish_non_exhaustive()
    }
}

/// What becomes of a message that was reviewed.
#[derive(Clone)]
#[must_use = "says whether the message goes on"]
#[expect(clippy::exhaustive_enums, reason = "it goes on, or it does not")]
pub enum Passage {
    /// It goes on as it is.
    Pass,
    /// It goes on, and wherever the account gets or sees it, it carries these elements: live, in carbon
    /// copies, in the offline store, after a resumption, when it is routed again. The other account does
    /// not see them. What the message says already by such an element in the account's name is taken out.
    Mark(Vec<Element>),
    /// It goes on changed, for everybody who gets it from here on. Kind and addresses stay what they are.
    Change(Stanza),
    /// It goes no further, and its sender gets this error where one is due ([STZ-7](crate::rules#stz-7)).
    Refuse(StanzaError),
    /// It goes no further, and its sender is told nothing: the extension has taken it.
    Take,
}

impl fmt::Debug for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pass => "Pass",
            Self::Mark(_) => "Mark",
            Self::Change(_) => "Change",
            Self::Refuse(_) => "Refuse",
            Self::Take => "Take",
        })
    }
}

/// An extension's answer about a message.
#[must_use = "says whether the message goes on"]
#[expect(clippy::exhaustive_enums, reason = "the answer is there or it is not")]
pub enum Review {
    /// At hand.
    Now(Passage),
    /// Still to come, within 10 seconds ([HOOK-4](crate::rules#hook-4)). The message waits for it, and behind it whatever else
    /// its sender's stream brings and all later messages of the account ([HOOK-2](crate::rules#hook-2)).
    Later(Pin<Box<dyn Future<Output = Passage> + Send>>),
}

impl Review {
    /// An answer that takes its time.
    pub fn later(answer: impl Future<Output = Passage> + Send + 'static) -> Self {
        Self::Later(Box::pin(answer))
    }
}

impl From<Passage> for Review {
    fn from(passage: Passage) -> Self {
        Self::Now(passage)
    }
}

impl fmt::Debug for Review {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Now(_) => "Now",
            Self::Later(_) => "Later",
        })
    }
}

/// What an extension wants to be asked or told beyond what costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use = "says what an extension is asked"]
pub struct Wants(u8);

impl Wants {
    /// None of it.
    pub const NOTHING: Self = Self(0);
    /// To review messages: [`Extension::review`](super::Extension::review).
    pub const MESSAGES: Self = Self(1);
    /// What becomes of messages later: [`Outcome::Waiting`](super::Outcome::Waiting) and
    /// [`Outcome::Rerouted`](super::Outcome::Rerouted).
    pub const OUTCOMES: Self = Self(2);
    /// What happens to sessions: [`Extension::session`](super::Extension::session).
    pub const SESSIONS: Self = Self(4);
    /// To answer clients that have not authenticated:
    /// [`Extension::unauthenticated_iq`](super::Extension::unauthenticated_iq).
    pub const STRANGERS: Self = Self(8);
    /// To be asked and told about stanzas on their way only where something is [kept](crate::session::AccountState::set_extension)
    /// for the account in question, by this extension or another: [`inbound`](super::Extension::inbound) for the
    /// sender's, [`admit`](super::Extension::admit) for the recipient's, [`delivered`](super::Extension::delivered) for
    /// either. Accounts that nothing is kept for then cost nothing ([HOOK-10](crate::rules#hook-10)).
    pub const KEPT_ONLY: Self = Self(16);

    /// Both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether any of `other` is wanted.
    pub(crate) const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wanted_adds_up() {
        let both = Wants::MESSAGES.and(Wants::OUTCOMES);
        assert!(both.has_any(Wants::MESSAGES) && both.has_any(Wants::OUTCOMES));
        assert!(!both.has_any(Wants::SESSIONS) && !Wants::NOTHING.has_any(both));
    }

    #[test]
    fn debug_shows_no_content() {
        let passage = Passage::Change(Stanza::message().to("secret@x").build());
        assert_eq!(format!("{passage:?} {:?}", Review::from(passage.clone())), "Change Now");
        assert_eq!(format!("{:?}", Review::later(async { Passage::Pass })), "Later");
    }
}
