//! How many others a client may address (LIMIT-21).

use std::collections::HashSet;
use std::time::Duration;

use crate::connection::SharedConnection;
use crate::server::Core;
use crate::server::deliver::address::Address;
use crate::server::limits::Rate;
use crate::session::SessionHandle;
use crate::stanza::Stanza;

/// Whom a session has addressed in the period of now, by bare JID.
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
}

impl Recipients {
    /// Whether its period is not over.
    pub(super) fn owes(&self, now: Duration, rate: Rate) -> bool {
        now.saturating_sub(self.began) < rate.period
    }
}

impl<C: SharedConnection> Core<C> {
    /// Whether a session may send this stanza to that address. The server and the own account are always there to
    /// be asked, and what answers another is no new recipient.
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
