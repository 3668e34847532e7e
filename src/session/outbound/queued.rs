//! One thing in the queue of a session.

use std::sync::Arc;
use std::time::Duration;

use super::Left;
use super::copies::Copies;
use super::item::{Content, Item, Reply, To};
use crate::address::bare_of;
use crate::environment::Nanos;
use crate::stanza::{Kind, Stanza, StreamError};

/// One thing that waits.
#[derive(Clone)]
pub(super) enum Queued {
    Stanza {
        stanza: Stanza,
        to: To,
        /// Counted for acknowledgement: appended after retention began.
        counted: bool,
        bounded: Bounded,
        /// The client may have got it, and is not to get it again; nor is anybody else.
        void: bool,
        /// When it was accepted; of presence that was sent `before`, since when it is so.
        at: Nanos,
        before: bool,
        copies: Option<Copies>,
    },
    Element(Arc<[u8]>),
    /// What comes first on a transport.
    Reply(Arc<Reply>),
    /// The last words of the session.
    End(Option<Arc<StreamError>>),
    /// The transport is to be closed: nothing is ever behind it.
    Close,
}

impl Queued {
    /// When it was accepted, if it has to be acknowledged and that was noted.
    pub(super) fn counted_since(&self) -> Option<Duration> {
        match self {
            Self::Stanza { counted: true, before: false, at, .. } => Some((*at).into()),
            _ => None,
        }
    }

    pub(super) fn new(item: &Item<'_>, counted: bool, at: Duration) -> Self {
        let at = at.into();
        let (stanza, to, copies, at, before) = match item.content {
            Content::Stanza(stanza, to) => (stanza, to, None, at, false),
            Content::Copy(stanza, to, copies) => (stanza, to, Some(copies.clone()), at, false),
            Content::Since(stanza, since) => (stanza, To::OwnBare, None, since, true),
            Content::Element(xml) => return Self::Element(xml.into()),
            Content::Reply(stanza) => return Self::Reply(Arc::new(stanza.clone().into())),
            Content::Login(success, features) => {
                return Self::Reply(Arc::new(Reply::Login(success.clone(), features.clone())));
            }
            Content::End(error) => return Self::End(error.cloned().map(Arc::new)),
        };
        let bounded = if item.is_state() { Bounded::Source } else { Bounded::No };
        let stanza = stanza.clone();
        Self::Stanza { stanza, to, counted, bounded, void: false, at, before, copies }
    }

    pub(super) fn content(&self) -> Option<Content<'_>> {
        match self {
            Self::Stanza { stanza, before: true, at, .. } => Some(Content::Since(stanza, *at)),
            Self::Stanza { stanza, to, .. } => Some(Content::Stanza(stanza, *to)),
            Self::Element(xml) => Some(Content::Element(xml)),
            Self::Reply(reply) => Some(match &**reply {
                Reply::Stanza(stanza) => Content::Reply(stanza),
                Reply::Element(xml) => Content::Element(xml),
                Reply::Login(success, features) => Content::Login(success, features),
            }),
            Self::End(error) => Some(Content::End(error.as_deref())),
            Self::Close => None,
        }
    }

    pub(super) const fn stanza(&self) -> Option<&Stanza> {
        if let Self::Stanza { stanza, .. } = self { Some(stanza) } else { None }
    }

    /// Whether it is for this client alone, with nowhere else to go: what it has asked for.
    pub(super) fn is_answer(&self) -> bool {
        matches!(self, Self::Stanza { stanza, to: To::AsIs, counted: false, void: false, .. }
            if stanza.kind() == Kind::Iq && matches!(stanza.raw_type(), Some("result" | "error")))
    }

    /// What is left of it when its session ends.
    pub(super) fn into_left(self, written: bool) -> Option<Left> {
        if self.is_void() {
            self.forget();
            return None;
        }
        let Self::Stanza { stanza, counted, at, copies, .. } = self else { return None };
        Some(Left { stanza, at: at.into(), counted, written, copies })
    }

    /// The same, of a session whose transport was there until now.
    pub(super) fn into_lost(self, written: bool) -> Option<Left> {
        self.copies().into_iter().for_each(Copies::lose);
        self.into_left(written)
    }

    /// What it counts for, if it is a message that others of the account have as well.
    pub(super) const fn copies(&self) -> Option<&Copies> {
        if let Self::Stanza { copies: Some(copies), void: false, .. } = self {
            Some(copies)
        } else {
            None
        }
    }

    /// Says whether it is to be counted for acknowledgement.
    pub(super) const fn set_counted(&mut self, is_counted: bool) {
        if let Self::Stanza { counted, .. } = self {
            *counted = is_counted;
        }
    }

    /// Leaves of an unavailable no more than the addresses.
    pub(super) fn strip(&mut self) {
        let Self::Stanza { stanza, .. } = self else { return };
        let bare = Stanza::presence().type_("unavailable").build();
        *stanza = bare.readdressed(stanza.from().as_deref(), stanza.to().as_deref());
    }

    pub(super) const fn bounded(&self) -> Bounded {
        if let Self::Stanza { bounded, .. } = self { *bounded } else { Bounded::No }
    }

    /// Whom it says to be there or not, where a later presence of the same says all that it says.
    ///
    /// What comes for the full JID from another domain may be of a room: there each presence counts.
    pub(super) fn tells_of(&self, domain: &str) -> Option<String> {
        let Self::Stanza { stanza, to, .. } = self else { return None };
        let is_presence = !self.is_void()
            && stanza.kind() == Kind::Presence
            && matches!(stanza.type_().as_deref(), None | Some("unavailable"));
        let from = stanza.from().filter(|_| is_presence)?;
        let bare = bare_of(&from);
        let is_here = bare.rsplit_once('@').map_or(bare, |(_, domain)| domain) == domain;
        let is_broadcast = *to != To::AsIs || stanza.to().is_none_or(|to| !to.contains('/'));
        (is_here || is_broadcast).then(|| from.into_owned())
    }

    /// The stanza that it brings: of a message in whatever form, the message.
    #[cfg(feature = "server")]
    pub(super) fn message(&self) -> Option<&Stanza> {
        let Self::Stanza { stanza, copies, .. } = self else { return None };
        Some(copies.as_ref().map_or(stanza, Copies::message))
    }

    /// Leaves its number alone: what it said is kept no longer.
    pub(super) fn make_void(&mut self, nothing: &Stanza) {
        if let Self::Stanza { stanza, void, bounded, .. } = self {
            *stanza = nothing.clone();
            (*void, *bounded) = (true, Bounded::Source);
        }
    }

    pub(super) const fn is_void(&self) -> bool {
        matches!(self, Self::Stanza { void: true, .. })
    }

    /// It is dropped: a later one has taken its place, or nobody is to get it.
    pub(super) fn forget(self) {
        if let Self::Stanza { copies: Some(copies), .. } = self {
            let _last = copies.release();
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Stanza { stanza, .. } => stanza.len(),
            Self::Element(xml) => xml.len(),
            Self::Reply(_) | Self::End(_) | Self::Close => 0,
        }
    }
}

/// What else limits an entry.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bounded {
    No,
    /// The session whose presence it is, which keeps these very bytes, and of which one is enough.
    Source,
    /// The store that it has waited in. It gives more only as that is acknowledged.
    Store,
}
