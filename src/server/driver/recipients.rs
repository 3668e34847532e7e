//! How many others a client may address (LIMIT-21).

use std::collections::HashSet;
use std::time::Duration;

use crate::connection::SharedConnection;
#[cfg(feature = "cluster")]
use crate::packed::{Reader, Writer};
use crate::server::Core;
use crate::server::deliver::address::Address;
use crate::server::limits::Rate;
use crate::session::SessionHandle;
use crate::stanza::Stanza;

/// The bare JIDs that a session has addressed in the current period.
#[derive(Default)]
pub(super) struct Recipients {
    began: Duration,
    seen: HashSet<Box<str>>,
}

impl Recipients {
    fn allows(&mut self, bare: &str, now: Duration, rate: Rate) -> bool {
        if now.saturating_sub(self.began) >= rate.period {
            self.began = now;
            self.seen.clear();
        }
        let most = usize::try_from(rate.amount).unwrap_or(usize::MAX);
        self.seen.contains(bare) || (self.seen.len() < most && self.seen.insert(bare.into()))
    }

    #[cfg(feature = "cluster")]
    pub(super) fn export(&self, now: Duration, out: &mut Writer) {
        out.time(now.saturating_sub(self.began));
        out.texts(self.seen.iter().map(|jid| &**jid));
    }

    #[cfg(feature = "cluster")]
    pub(super) fn import(now: Duration, input: &mut Reader<'_>) -> Option<Self> {
        let began = now.saturating_sub(input.time()?);
        Some(Self { began, seen: input.texts()?.into_iter().map(Into::into).collect() })
    }

    /// Whether the period is not over.
    pub(super) fn owes(&self, now: Duration, rate: Rate) -> bool {
        now.saturating_sub(self.began) < rate.period
    }
}

impl<C: SharedConnection> Core<C> {
    /// Whether a session may send this stanza to that address. The server and the own account may always
    /// be asked, and who is answered is no new recipient.
    pub(super) fn allows_recipient(
        &self,
        recipients: &mut Option<Box<Recipients>>,
        session: &SessionHandle<C>,
        stanza: &Stanza,
        to: Option<&Address<'_>>,
    ) -> bool {
        let (Some(rate), Some(to)) = (self.limits.recipients, to) else { return true };
        let to = to.bare.as_str();
        let answers = matches!(stanza.type_().as_deref(), Some("result" | "error"));
        if answers || self.serves(to) || to == session.account().bare.as_str() {
            return true;
        }
        let recipients = recipients.get_or_insert_default();
        recipients.allows(to, self.environment.now(), rate)
    }
}
