//! Logins that hold for a time, or for a guest: of most drivers nothing is kept.

use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::{Driver, State};
use crate::connection::SharedConnection;
#[cfg(feature = "cluster")]
use crate::packed::{Reader, Writer};
use crate::session::Reason;
use crate::stream::StreamCondition;

/// What limits a login.
#[derive(Default)]
pub(super) struct Terms {
    /// When what the client has proved is good no longer (TOKEN-6).
    expires: Option<Duration>,
    /// The account, if it ends with this transport (GUEST-3).
    pub(super) guest: Option<BareJid>,
    /// Of several nodes this is where that account lives.
    #[cfg(feature = "cluster")]
    pub(super) lives_here: bool,
}

#[cfg(feature = "cluster")]
impl Terms {
    pub(super) fn export(&self, now: Duration, out: &mut Writer) {
        out.option(self.expires, |out, at| out.time(at.saturating_sub(now)));
        out.option(self.guest.as_ref(), |out, guest| out.text(guest.as_str()));
    }

    pub(super) fn thaw(&mut self, stood: Duration) {
        self.expires = self.expires.map(|at| at.saturating_add(stood));
    }

    pub(super) fn import(now: Duration, input: &mut Reader<'_>) -> Option<Self> {
        let expires = input.option(Reader::time)?.map(|left| now.saturating_add(left));
        let guest = input.option(|input| BareJid::new(input.text()?).ok())?;
        Some(Self { expires, guest, lives_here: true })
    }

    pub(super) const fn expires_at(&mut self, at: Duration) {
        self.expires = Some(at);
    }
}

impl<C: SharedConnection> Driver<C> {
    pub(super) fn terms_mut(&mut self) -> &mut Terms {
        &mut self.rare.get_or_insert_default().terms
    }

    /// Whether the client is logged in as this account because it is a guest.
    pub(super) fn is_guest(&self, account: &BareJid) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.terms.guest.as_ref() == Some(account))
    }

    /// Whether the login as this account ends by itself, or with its transport.
    pub(super) fn is_limited(&self, account: &BareJid) -> bool {
        self.expires().is_some() || self.is_guest(account)
    }

    /// The client is logged in as this account: that of a guest, which an earlier login was for, ends.
    pub(super) fn leave_guest(&mut self, account: &BareJid) {
        let terms = self.rare.as_mut().map(|rare| &mut rare.terms);
        let guest = terms.and_then(|terms| terms.guest.take_if(|guest| guest != account));
        if let Some(guest) = guest {
            self.end_guest(guest);
        }
    }

    /// The client is no guest any more.
    #[cfg(feature = "cluster")]
    pub(super) fn leave_guests(&mut self) {
        let guest = self.rare.as_mut().and_then(|rare| rare.terms.guest.take());
        guest.into_iter().for_each(|guest| self.end_guest(guest));
    }

    /// The client is not this guest any more, and nobody else will be.
    pub(super) fn end_guest(&self, guest: BareJid) {
        #[cfg(feature = "cluster")]
        {
            let lives_here = self.rare.as_ref().is_some_and(|rare| rare.terms.lives_here);
            if self.core.is_node() && !lives_here {
                self.core.guests.iter().for_each(|guests| guests.left(&guest));
                return;
            }
        }
        self.core.guest_left(guest);
    }

    /// Of several nodes this is where the account of its client lives, which is a guest.
    #[cfg(feature = "cluster")]
    pub(super) fn lodge(&mut self, account: &BareJid) {
        self.core.lodge_guest(account);
        let terms = self.terms_mut();
        (terms.guest, terms.lives_here) = (Some(account.clone()), true);
    }

    /// The login is good until then, on the clock of day.
    pub(super) fn expires_at(&mut self, at: Option<SystemTime>) {
        let (now, utc) = (self.core.environment.now(), self.core.environment.utc());
        let left = at.map(|at| at.duration_since(utc).unwrap_or_default());
        let expires = left.map(|left| now.saturating_add(left));
        if expires.is_some() || self.rare.is_some() {
            self.terms_mut().expires = expires;
        }
    }

    pub(super) fn expires(&self) -> Option<Duration> {
        let is_over = matches!(self.state, State::Closing(_) | State::Over);
        self.rare.as_ref().and_then(|rare| rare.terms.expires).filter(|_| !is_over)
    }

    /// TOKEN-6: a stream whose token has expired is closed; its session ends, resumable or not.
    pub(super) fn expire(&mut self, now: Duration) {
        if self.expires().is_some_and(|at| at <= now) {
            self.fail_as(StreamCondition::Reset.into(), Reason::LoginExpired);
        }
    }

    /// The transport is gone.
    pub(super) fn leave(&mut self) {
        let guest = self.rare.as_mut().and_then(|rare| rare.terms.guest.take());
        if let Some(guest) = guest {
            // Its session first.
            self.state = State::Over;
            self.end_guest(guest);
        }
    }
}
