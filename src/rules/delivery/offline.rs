//! What the offline store may keep (XEP-0160 §3, XEP-0334).

use super::MessageType;
use crate::stanza::{CONTENT_NAMESPACE, Child, Stanza};

const CHAT_STATES: &str = "http://jabber.org/protocol/chatstates";
const HINTS: &str = "urn:xmpp:hints";

/// What becomes of a message that no session takes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Offline {
    /// It may be stored.
    Store,
    /// It may not, and its sender is told.
    Bounce,
    /// It may not, and nobody misses it.
    Drop,
}

/// What the offline store makes of a message (rules OFF-1 and OFF-2,
/// [XEP-0160 §3](https://xmpp.org/extensions/xep-0160.html#types),
/// [XEP-0334 §4](https://xmpp.org/extensions/xep-0334.html#hints)). `has_store` is false on a server
/// that keeps no offline messages.
///
/// Type groupchat, headline and error are never stored, nor is what says `<no-store/>`, nor a chat
/// message of chat states alone, unless it says `<store/>`. What is kept out is dropped: an answer
/// would tell anybody that the user is away.
#[must_use]
pub(crate) fn offline(message: &Stanza, has_store: bool) -> Offline {
    match (may_be_stored(message), has_store) {
        (true, true) => Offline::Store,
        (true, false) => Offline::Bounce,
        (false, _) => Offline::Drop,
    }
}

fn may_be_stored(message: &Stanza) -> bool {
    let type_ = MessageType::of(message.type_().as_deref());
    if !matches!(type_, MessageType::Normal | MessageType::Chat) {
        return false;
    }
    let hinted = |name| message.children().any(|child| child.is(name, HINTS));
    // Of two contradicting hints the one that keeps less counts.
    if hinted("no-store") {
        return false;
    }
    hinted("store") || type_ == MessageType::Normal || !is_chat_states_only(message)
}

/// Whether a message holds nothing but chat states, which may come with the thread that they belong to (XEP-0085
/// §5.5) and with hints.
pub(crate) fn is_chat_states_only(message: &Stanza) -> bool {
    let is_state = |child: &Child<'_>| child.namespace() == CHAT_STATES;
    let accompanies =
        |child: &Child<'_>| child.is("thread", CONTENT_NAMESPACE) || child.namespace() == HINTS;
    message.children().any(|child| is_state(&child))
        && message.children().all(|child| is_state(&child) || accompanies(&child))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stanza::Kind;

    fn verdict(type_: &str, payload: &str) -> Offline {
        let message =
            Stanza::builder(Kind::Message).type_(type_).payload(payload.as_bytes()).build();
        offline(&message, true)
    }

    const BODY: &str = "<body>hello</body>";
    const ACTIVE: &str = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
    const STORE: &str = "<store xmlns='urn:xmpp:hints'/>";
    const NO_STORE: &str = "<no-store xmlns='urn:xmpp:hints'/>";

    #[test]
    fn off_1_normal_and_chat_are_stored() {
        let untyped = Stanza::builder(Kind::Message).payload(BODY.as_bytes()).build();
        assert_eq!(offline(&untyped, true), Offline::Store);
        for type_ in ["normal", "chat", "no-such-type"] {
            assert_eq!(verdict(type_, BODY), Offline::Store, "{type_}");
        }
        assert_eq!(verdict("chat", "<received xmlns='urn:xmpp:receipts' id='1'/>"), Offline::Store);
    }

    #[test]
    fn off_1_other_types_are_not_stored_whatever_they_hint() {
        for type_ in ["groupchat", "headline", "error"] {
            assert_eq!(verdict(type_, &format!("{BODY}{STORE}")), Offline::Drop, "{type_}");
        }
    }

    #[test]
    fn off_1_chat_states_alone_are_not_stored() {
        assert_eq!(verdict("chat", ACTIVE), Offline::Drop);
        assert_eq!(verdict("chat", &format!("{ACTIVE}<thread>t</thread>")), Offline::Drop);
        assert_eq!(verdict("chat", &format!("{ACTIVE}{BODY}")), Offline::Store);
        assert_eq!(verdict("chat", &format!("{ACTIVE}<x xmlns='urn:example:x'/>")), Offline::Store);
    }

    #[test]
    fn off_1_hints_decide() {
        assert_eq!(verdict("chat", &format!("{ACTIVE}{STORE}")), Offline::Store);
        assert_eq!(verdict("chat", &format!("{BODY}{NO_STORE}")), Offline::Drop);
        assert_eq!(verdict("chat", &format!("{BODY}{NO_STORE}{STORE}")), Offline::Drop);
        assert_eq!(verdict("normal", "<no-store xmlns='urn:example:x'/>"), Offline::Store);
    }

    #[test]
    fn off_2_what_is_kept_out_is_dropped_whatever_it_holds() {
        for payload in ["", BODY, ACTIVE] {
            for type_ in ["chat", "normal", "no-such-type"] {
                let kept_out = format!("{payload}{NO_STORE}");
                assert_eq!(verdict(type_, &kept_out), Offline::Drop, "{type_} {payload}");
            }
        }
    }

    #[test]
    fn msg_5_without_a_store_what_could_be_stored_is_bounced() {
        let payload = format!("{ACTIVE}{BODY}");
        let message =
            Stanza::builder(Kind::Message).type_("chat").payload(payload.as_bytes()).build();
        assert_eq!(offline(&message, false), Offline::Bounce);
        let state = Stanza::builder(Kind::Message).type_("chat").payload(ACTIVE.as_bytes()).build();
        assert_eq!(offline(&state, false), Offline::Drop);
    }
}
