//! What is told to the operator: a line each, with the time, the level and the peer.

use std::io::{Write as _, stderr};
use std::time::SystemTime;

use xmpp_session::connection::SharedConnection;
use xmpp_session::server::{Fault, Login};
use xmpp_session::session::{Event, EventKind};

use crate::settings::Level;

#[derive(Clone, Copy)]
pub(crate) struct Log(pub(crate) Level);

impl Log {
    pub(crate) fn error(self, text: &str) {
        self.tell(Level::Error, text);
    }

    pub(crate) fn info(self, text: &str) {
        self.tell(Level::Info, text);
    }

    pub(crate) fn debug(self, text: &str) {
        self.tell(Level::Debug, text);
    }

    /// What is broken here is an error, what clients do wrong is not.
    pub(crate) fn fault(self, fault: &Fault) {
        let level = match fault.kind().as_str() {
            "store" | "panic" | "fenced" | "engine" | "arrival" => Level::Error,
            _ => Level::Info,
        };
        self.tell(level, &fault.to_string());
    }

    pub(crate) fn login<C: SharedConnection>(self, login: &Login<'_, C>) {
        let (number, jid) = (login.session.id().get(), login.session.jid());
        let what = if login.is_resumed { "resumed" } else { "began" };
        let how = login.mechanism.map_or("no mechanism", |mechanism| mechanism.as_str());
        let text = format!("session {number} of {jid} {what}, from {}, by {how}", login.peer);
        self.info(&text);
    }

    pub(crate) fn event<C: SharedConnection>(self, event: &Event<C>) {
        let (number, jid) = (event.session().id().get(), event.session().jid());
        match event.kind() {
            EventKind::Ended { reason, .. } => {
                let reason = reason.as_str();
                self.info(&format!("session {number} of {jid} ended: {reason}"));
            }
            kind => self.debug(&format!("session {number} of {jid}: {kind:?}")),
        }
    }

    fn tell(self, level: Level, text: &str) {
        if self.0 >= level {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            let level = match level {
                Level::Off | Level::Error => "ERROR",
                Level::Info => "INFO ",
                Level::Debug => "DEBUG",
            };
            say(&format!("{} {level} {text}", time(now.as_secs())));
        }
    }
}

/// A server goes on if nobody reads what it tells.
pub(crate) fn say(text: &str) {
    let _nobody_reads = writeln!(stderr(), "{text}");
}

/// Seconds since 1970 as RFC 3339 has them.
fn time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The civil calendar from the first of March of the year 0, in eras of 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let date = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = era * 400 + year + u64::from(month <= 2);
    let (hour, minute) = (second / 3600, second / 60 % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}
