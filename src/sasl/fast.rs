//! What FAST adds to an authentication, on the wire ([XEP-0484](https://xmpp.org/extensions/xep-0484.html)).

use std::time::{Duration, SystemTime};

use super::establish::Establish;
use super::mechanism::Mechanism;
use super::tokens::{Description, Issued};
use crate::client::UserAgent;
use crate::stanza::{delay, write};

const NS: &str = "urn:xmpp:fast:0";

/// `<fast/>`: the client proves that it has a token.
#[derive(Clone, Copy)]
pub(crate) struct Fast {
    /// The how manieth login with this token it is.
    pub(crate) count: Option<u64>,
    /// The client's tokens shall end.
    pub(crate) invalidate: bool,
}

impl Fast {
    pub(crate) fn of(asked: &Establish) -> Option<Self> {
        let fast = asked.request("fast", NS)?;
        // FAST-6: what is no number is too low.
        let count = fast.attribute("count").map(|count| count.parse().unwrap_or(0));
        let invalidate = matches!(fast.attribute("invalidate").as_deref(), Some("true" | "1"));
        Some(Self { count, invalidate })
    }
}

/// The mechanism that the client wants a token for, if it is one of `offered` (FAST-2).
pub(crate) fn requested(
    asked: &Establish,
    mut offered: impl Iterator<Item = Mechanism>,
) -> Option<Mechanism> {
    let wanted = asked.request("request-token", NS)?.attribute("mechanism")?.parse().ok()?;
    offered.find(|mechanism| *mechanism == wanted)
}

/// Appends what is offered inline: `<fast/>`, or nothing without a mechanism.
pub(crate) fn write_offer(
    offered: impl Iterator<Item = Mechanism>,
    early_data: bool,
    out: &mut Vec<u8>,
) {
    let mut offered = offered.peekable();
    if offered.peek().is_none() {
        return;
    }
    let early_data = if early_data { " tls-0rtt='true'" } else { "" };
    out.extend_from_slice(format!("<fast xmlns='{NS}'{early_data}>").as_bytes());
    offered.for_each(|mechanism| write::leaf(out, "mechanism", &[], Some(mechanism.as_str())));
    out.extend_from_slice(b"</fast>");
}

/// Appends `<token/>`.
pub(crate) fn write_token(issued: &Issued, out: &mut Vec<u8>) {
    let since = issued.expiry.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let expiry = SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs());
    let expiry = delay::stamp(expiry);
    write::leaf(
        out,
        "token",
        &[("xmlns", NS), ("expiry", &expiry), ("token", &issued.token)],
        None,
    );
}

impl Description {
    /// As much of it as is kept (LIMIT-31).
    pub(crate) fn of(agent: &UserAgent) -> Self {
        let kept = |said: &Option<Box<str>>| {
            let said = said.as_deref()?;
            let mut ends = (0..=said.len().min(LONGEST_NAME)).rev();
            ends.find_map(|end| said.get(..end)).map(str::to_owned)
        };
        Self { software: kept(&agent.software), device: kept(&agent.device) }
    }
}

/// Of a program or a device, in bytes.
const LONGEST_NAME: usize = 256;
