//! What is told about sessions.

use std::io::{Write as _, stderr};

use xmpp_session::connection::SharedConnection;
use xmpp_session::session::{Event, EventKind};

use crate::options::Level;

#[derive(Clone, Copy)]
pub(crate) struct Log(pub(crate) Level);

impl Log {
    pub(crate) fn error(self, text: &str) {
        self.tell(Level::Error, text);
    }

    pub(crate) fn debug(self, text: &str) {
        self.tell(Level::Debug, text);
    }

    pub(crate) fn event<C: SharedConnection>(self, event: &Event<C>) {
        let (number, jid) = (event.session().id().get(), event.session().jid());
        let kind = event.kind();
        match kind {
            // Who is here is the users' own business.
            _ if self.0 >= Level::Debug => say(&format!("session {number} of {jid}: {kind:?}")),
            EventKind::Ended { reason, .. } => {
                self.tell(Level::Info, &format!("session {number} ended: {reason:?}"));
            }
            EventKind::Bound => self.tell(Level::Info, &format!("session {number} began")),
            _ => {}
        }
    }

    fn tell(self, level: Level, text: &str) {
        if self.0 >= level {
            say(text);
        }
    }
}

/// A server goes on if nobody reads what it tells.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(stderr(), "{text}");
}
