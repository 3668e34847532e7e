//! Something to send, what is special about it, and until when it is true.

use std::fmt;
use std::time::Duration;

use super::copies::Copies;
use crate::environment::Nanos;
use crate::stanza::{Kind, Stanza, StreamError};
use crate::sync::atomic::{AtomicU32, Ordering};

/// The `to` of a copy, resolved when it is written: the copies of a broadcast differ in it alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    /// As the stanza has it (STZ-2).
    AsIs,
    /// The receiving account's bare JID (PRES-4).
    OwnBare,
    /// The receiving session's full JID (STZ-3).
    OwnFull,
}

/// Something to send to a client, borrowed from the sender, and what is special about it.
#[derive(Clone, Copy)]
#[must_use = "an item does nothing until it is sent"]
pub struct Item<'a> {
    pub(super) content: Content<'a>,
    pub(crate) validity: Validity<'a>,
    /// When it was accepted, if that was before it is sent.
    accepted: Option<Nanos>,
}

/// What is sent. It is cloned only where it has to wait.
#[derive(Clone, Copy)]
pub(super) enum Content<'a> {
    Stanza(&'a Stanza, To),
    /// A message that goes to other sessions of the account as well.
    Copy(&'a Stanza, To, &'a Copies),
    /// Presence that was sent before, to the receiving account's bare JID: since when it is so is said as
    /// well (PRES-16), and the bytes stay those that the contact's session keeps.
    Since(&'a Stanza, Nanos),
    Element(&'a [u8]),
    /// The result of the bind.
    Reply(&'a Stanza),
    /// The outcome of a login, and the features behind it.
    Login(&'a Vec<u8>, &'a Option<Vec<u8>>),
    /// The error, if it is one, and the end of the stream.
    End(Option<&'a StreamError>),
}

impl<'a> Item<'a> {
    /// A stanza, with nothing special about it.
    #[inline]
    pub const fn new(stanza: &'a Stanza) -> Self {
        Self::of(Content::Stanza(stanza, To::AsIs))
    }

    /// An element that is no stanza, complete and in canonical form: in order with the stanzas, refused
    /// where the session has no transport, and never kept for another one.
    #[inline]
    pub const fn element(xml: &'a [u8]) -> Self {
        Self::of(Content::Element(xml))
    }

    /// What the session's stream ends with.
    pub(super) const fn last_words(words: LastWords<'a>) -> Self {
        Self::of(Content::End(match words {
            LastWords::Close => None,
            LastWords::Error(error) => Some(error),
        }))
    }

    /// Presence of a contact to its subscriber's bare JID (PRES-4).
    #[inline]
    pub(crate) const fn to_account(stanza: &'a Stanza) -> Self {
        Self::of(Content::Stanza(stanza, To::OwnBare))
    }

    /// The same for presence that was broadcast before, at that time (PRES-16).
    #[inline]
    pub(crate) const fn since(stanza: &'a Stanza, at: Nanos) -> Self {
        Self::of(Content::Since(stanza, at))
    }

    #[inline]
    const fn of(content: Content<'a>) -> Self {
        Self { content, validity: Validity::FOR_GOOD, accepted: None }
    }

    /// The stanza was made, without a `to`, for several sessions of an account: `to` becomes the
    /// receiving session's full JID as it is written. If the session ends before the client has it, it
    /// goes to nobody else.
    pub const fn addressed(mut self) -> Self {
        self.content = match self.content {
            Content::Stanza(stanza, _) => Content::Stanza(stanza, To::OwnFull),
            Content::Copy(stanza, _, copies) => Content::Copy(stanza, To::OwnFull, copies),
            content => content,
        };
        self
    }

    /// The message goes to other sessions of the account as well, as it is or in another form (a carbon
    /// copy): of copies that nobody acknowledges one is left when the last of their sessions ends ([SM-17](crate::rules#sm-17)).
    pub const fn copy_of(mut self, copies: &'a Copies) -> Self {
        if let Content::Stanza(stanza, to) = self.content {
            self.content = Content::Copy(stanza, to, copies);
        }
        self
    }

    /// Presence that is dropped once it is void.
    #[inline]
    pub const fn while_valid(mut self, validity: Validity<'a>) -> Self {
        self.validity = validity;
        self
    }

    /// It was accepted at an earlier time, by the registry's monotonic clock.
    #[cfg(feature = "server")]
    pub(crate) fn accepted_at(mut self, at: Duration) -> Self {
        self.accepted = Some(at.into());
        self
    }

    #[inline]
    pub(crate) fn accepted(&self) -> Option<Duration> {
        self.accepted.map(Into::into)
    }

    #[inline]
    pub(crate) const fn stanza(&self) -> Option<&'a Stanza> {
        match self.content {
            Content::Stanza(stanza, _)
            | Content::Copy(stanza, _, _)
            | Content::Since(stanza, _) => Some(stanza),
            Content::Element(_) | Content::Reply(_) | Content::Login(..) | Content::End(_) => None,
        }
    }

    /// Presence that was broadcast before, and when.
    #[cfg(feature = "cluster")]
    pub(crate) fn broadcast_at(&self) -> Option<(&'a Stanza, std::time::SystemTime)> {
        match self.content {
            Content::Since(stanza, at) => Some((stanza, at.into())),
            _ => None,
        }
    }

    pub(super) const fn copies(&self) -> Option<&'a Copies> {
        if let Content::Copy(_, _, copies) = self.content { Some(copies) } else { None }
    }

    /// A copy in another form than the message itself.
    #[cfg(feature = "server")]
    pub(crate) const fn as_carbon(&self) -> Option<(&'a Stanza, &'a Copies)> {
        match self.content {
            Content::Copy(stanza, To::OwnFull, copies) => Some((stanza, copies)),
            _ => None,
        }
    }

    /// Whether it is the present state of another session, which keeps the bytes.
    pub(super) fn is_state(&self) -> bool {
        match self.content {
            Content::Stanza(stanza, To::OwnBare) => {
                stanza.kind() == Kind::Presence && stanza.type_().is_none()
            }
            Content::Since(..) => true,
            _ => false,
        }
    }
}

/// What ends a stream: an error if there is one, and the end itself.
#[derive(Clone, Copy)]
pub(crate) enum LastWords<'a> {
    Close,
    Error(&'a StreamError),
}

impl<'a> LastWords<'a> {
    pub(crate) fn of(error: Option<&'a StreamError>) -> Self {
        error.map_or(Self::Close, Self::Error)
    }
}

/// What a client gets first on a session.
#[derive(Clone)]
#[non_exhaustive]
pub enum Reply {
    /// A stanza, such as the result of a bind.
    Stanza(Stanza),
    /// Another element, complete and in canonical form; for a connection that does not write XML, bytes of
    /// your own.
    Element(Vec<u8>),
    /// The outcome of a login, and the content of the stream features behind it, if the stream has some: both
    /// leave in one write.
    Login(Vec<u8>, Option<Vec<u8>>),
}

impl From<Vec<u8>> for Reply {
    fn from(xml: Vec<u8>) -> Self {
        Self::Element(xml)
    }
}

impl From<Stanza> for Reply {
    fn from(stanza: Stanza) -> Self {
        Self::Stanza(stanza)
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stanza(_) => "Stanza",
            Self::Element(_) => "Element",
            Self::Login(..) => "Login",
        })
    }
}

impl fmt::Debug for Item<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Item").field("stanza", &self.stanza()).finish_non_exhaustive()
    }
}

/// Whether a presence is still true ([PRES-21](crate::rules#pres-21)).
///
/// What is said of a session holds until that session changes its presence or ends, and is *void* from
/// then on: wherever it is on its way, it is dropped, so that nothing comes behind the session's
/// unavailable. This is checked under the lock that orders what the recipient gets; a session that
/// ends makes void what is under way before it sends its unavailable.
#[derive(Clone, Copy)]
pub struct Validity<'a>(Lasts<'a>);

#[derive(Clone, Copy)]
enum Lasts<'a> {
    ForGood,
    /// As long as the presence of its source has this number.
    While {
        number: u32,
        of: &'a AtomicU32,
    },
    Not,
}

impl<'a> Validity<'a> {
    /// Of what no change makes untrue: an unavailable, a message, a request.
    pub const FOR_GOOD: Self = Self(Lasts::ForGood);
    /// Of what a session that has ended would say.
    pub const VOID: Self = Self(Lasts::Not);

    /// For as long as `source` stays at the number that it has now.
    #[inline]
    pub(crate) fn of(source: &'a AtomicU32) -> Self {
        Self(Lasts::While { number: source.load(Ordering::SeqCst), of: source })
    }

    /// Whether it must no longer be delivered.
    #[inline]
    #[must_use]
    pub fn is_void(self) -> bool {
        match self.0 {
            Lasts::ForGood => false,
            Lasts::While { number, of } => of.load(Ordering::SeqCst) != number,
            Lasts::Not => true,
        }
    }

    #[inline]
    pub(crate) const fn is_for_good(self) -> bool {
        matches!(self.0, Lasts::ForGood)
    }
}

impl fmt::Debug for Validity<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Validity").finish_non_exhaustive()
    }
}
