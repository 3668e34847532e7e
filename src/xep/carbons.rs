use std::collections::VecDeque;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use jid::BareJid;

use crate::address;
use crate::connection::SharedConnection;
use crate::extension::{
    Admission, Delivery, Extension, Flow, IqReply, IqRequest, NewSession, Outcome, Stage, Target,
    Wants,
};
use crate::named::named;
use crate::rules::delivery::MessageType;
use crate::session::{AccountState, Item, SessionHandle};
use crate::stanza::{CONTENT_NAMESPACE, Child, Condition, Frame, Framing, Kind, Stanza};
use crate::stream::Nonza;
use crate::sync::Mutex;

const NAMESPACE: &str = "urn:xmpp:carbons:2";
const RULES: &str = "urn:xmpp:carbons:rules:0";
const FORWARD: &str = "urn:xmpp:forward:0";
const HINTS: &str = "urn:xmpp:hints";
const MUC_USER: &str = "http://jabber.org/protocol/muc#user";
const CONFERENCE: &str = "jabber:x:conference";
/// Payloads that say that a message belongs to a conversation: receipts, chat states, markers.
const CONVERSATION: [&str; 3] =
    ["urn:xmpp:receipts", "http://jabber.org/protocol/chatstates", "urn:xmpp:chat-markers:0"];

/// Eligible messages remembered for each account, so that their errors are copied too (CARBONS-4).
const REMEMBERED: usize = 64;

/// Which accounts the host does not let use carbons.
type Policy = Box<dyn Fn(&BareJid) -> bool + Send + Sync>;

/// Message Carbons ([XEP-0280](https://xmpp.org/extensions/xep-0280.html)): each of an account's
/// sessions sees the conversations that the others have (rules [CARBONS-1](crate::rules#carbons-1)…10).
///
/// A client enables it for its session. A copy is made once for all sessions that get it.
#[derive(Default)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct Carbons {
    forbidden: Option<Policy>,
}

impl Carbons {
    /// Carbons for all accounts.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names the accounts whose sessions must not enable carbons: they get `forbidden` ([CARBONS-2](crate::rules#carbons-2)).
    pub fn forbidden(self, accounts: impl Fn(&BareJid) -> bool + Send + Sync + 'static) -> Self {
        Self { forbidden: Some(Box::new(accounts)) }
    }

    fn is_forbidden(&self, account: &BareJid) -> bool {
        self.forbidden.as_ref().is_some_and(|forbidden| forbidden(account))
    }

    fn switch<C: SharedConnection>(&self, session: &SessionHandle<C>, on: bool) -> IqReply {
        let account = session.account_state();
        if !on {
            session.remove_extension::<Enabled>();
        } else if self.is_forbidden(account.jid()) {
            return IqReply::error(Condition::Forbidden);
        } else {
            if account.extension::<RecentIds>().is_none() {
                account.set_extension(RecentIds::default());
            }
            session.set_extension(Enabled);
        }
        IqReply::empty()
    }
}

impl fmt::Debug for Carbons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Carbons").finish_non_exhaustive()
    }
}

/// The session has enabled carbons.
struct Enabled;

named! {
    /// Which way a message goes, seen from the account whose sessions may get a copy.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Way {
        Sent = "sent",
        Received = "received",
    }
    const fn name;
}

impl<C: SharedConnection> Extension<C> for Carbons {
    /// An account keeps something from when one of its sessions enables them.
    fn wants(&self) -> Wants {
        Wants::KEPT_ONLY
    }

    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        match target {
            Target::Domain => &[NAMESPACE, RULES],
            Target::Account => &[],
        }
    }

    fn features(&self, stage: Stage, out: &mut Vec<u8>) {
        if stage == Stage::InlineBind {
            out.extend_from_slice(b"<feature var='urn:xmpp:carbons:2'/>");
        }
    }

    fn inline_bind(&self, request: &Nonza, session: &mut NewSession<'_, C>) -> Flow {
        if !request.is("enable", NAMESPACE) {
            return Flow::Next;
        }
        if !self.is_forbidden(session.account()) {
            session.set_account_extension(RecentIds::default());
            session.set_extension(Enabled);
        }
        Flow::Done
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let query = request.query();
        let known = matches!(query.name(), "enable" | "disable");
        if !request.is_set() || query.namespace() != NAMESPACE || !known {
            return None;
        }
        match request.session() {
            Some(session) if request.is_own_account() => {
                Some(self.switch(session, query.name() == "enable"))
            }
            Some(_) if request.target() == Target::Domain => None,
            // CARBONS-2
            _ => Some(IqReply::error(Condition::NotAllowed)),
        }
    }

    // Remembered before they are delivered: an error may be quicker than what comes after it.

    fn inbound(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Flow {
        if stanza.kind() == Kind::Message {
            remember(&session.account_state(), stanza, Way::Sent);
        }
        Flow::Next
    }

    fn admit(&self, account: &AccountState, stanza: &Stanza) -> Admission {
        if stanza.kind() == Kind::Message {
            remember(account, stanza, Way::Received);
        }
        Admission::Accept
    }

    fn delivered(&self, delivery: &Delivery<'_, C>) {
        let sender = delivery.sender().map(SessionHandle::account_state);
        let is_own = |account: &AccountState| delivery.account() == Some(account.jid());
        // One from an own session that is stored comes from there to all the others as well.
        let copied = sender
            .as_ref()
            .filter(|account| delivery.outcome() != Outcome::Stored || !is_own(account));
        if let Some(account) = copied {
            copy(delivery, account.jid(), Way::Sent);
        }
        // What the store has comes once, when a session gets it.
        let arrived = matches!(delivery.outcome(), Outcome::Delivered | Outcome::Retrieved);
        // CARBONS-7: between own sessions, sent wins.
        let received =
            delivery.account().filter(|_| arrived && !sender.as_ref().is_some_and(is_own));
        if let Some(account) = received {
            copy(delivery, account, Way::Received);
        }
    }
}

/// Sends a copy to each session of `account` that enabled carbons and has not got the message
/// (CARBONS-5, CARBONS-6).
fn copy<C: SharedConnection>(delivery: &Delivery<'_, C>, account: &BareJid, way: Way) {
    let known = match way {
        Way::Sent => delivery.sender(),
        Way::Received => delivery.reached().first(),
    };
    let has_enabled =
        |session: &SessionHandle<C>| session.account_state().extension::<RecentIds>().is_some();
    if !known.is_none_or(has_enabled) {
        return;
    }
    let from = delivery.stanza().from();
    let mut sessions = delivery.registry().sessions(account).filter(|session| {
        session.extension::<Enabled>().is_some()
            && from.as_deref() != Some(session.jid().as_str())
            && !delivery.reached().contains(session)
    });
    let Some(first) = sessions.next() else { return };
    let message = if way == Way::Sent { delivery.sent() } else { delivery.stanza() };
    if !is_eligible(message, way, &first.account_state()) {
        return;
    }
    let copy = wrap(message, account, way);
    for session in std::iter::once(first).chain(sessions) {
        // SM-17: what a session has received by a copy it does not get again.
        let _gone = match delivery.copies().filter(|_| way == Way::Received) {
            Some(copies) => session.send_item(&Item::new(&copy).addressed().copy_of(copies)),
            None => session.send_item(&Item::new(&copy).addressed()),
        };
    }
}

/// CARBONS-8; `to` is written for each session.
fn wrap(message: &Stanza, account: &BareJid, way: Way) -> Stanza {
    let forwarded = Frame::stanza(message).framing(Framing::Message);
    let name = way.name();
    let before = format!("<{name} xmlns='{NAMESPACE}'><forwarded xmlns='{FORWARD}'>");
    let after = format!("</forwarded></{name}>");
    let mut payload = Vec::with_capacity(before.len() + forwarded.len() + after.len());
    payload.extend_from_slice(before.as_bytes());
    forwarded.write_to(&mut payload);
    payload.extend_from_slice(after.as_bytes());
    let copy = Stanza::message().from(account.as_str());
    let copy = match message.type_() {
        Some(type_) => copy.type_(&type_),
        None => copy,
    };
    copy.payload(&payload).build()
}

/// CARBONS-3, CARBONS-4
fn is_eligible(message: &Stanza, way: Way, account: &AccountState) -> bool {
    let type_ = MessageType::of(message.type_().as_deref());
    if type_ == MessageType::Error {
        let recent = account.extension::<RecentIds>();
        return recent.zip(RecentIds::key(message, way)).is_some_and(|(r, key)| r.knows(key));
    }
    if matches!(type_, MessageType::Groupchat | MessageType::Headline) {
        return false;
    }
    let (mut invitation, mut private, mut conversation) = (false, false, false);
    for child in message.children() {
        if child.is("private", NAMESPACE) || child.is("no-copy", HINTS) {
            return false;
        }
        let of_room = child.is("x", MUC_USER);
        let invites = of_room && child.children().any(|child| child.is("invite", MUC_USER));
        invitation |= invites || child.is("x", CONFERENCE);
        private |= of_room && !invites;
        conversation |= is_conversation(&child);
    }
    // A room has sent a private message to every session that is in it.
    let from_occupant = private && way == Way::Received;
    invitation || (!from_occupant && (type_ == MessageType::Chat || conversation))
}

fn is_conversation(child: &Child<'_>) -> bool {
    child.is("body", CONTENT_NAMESPACE) || CONVERSATION.contains(&&*child.namespace())
}

fn remember(account: &AccountState, message: &Stanza, way: Way) {
    let Some(recent) = account.extension::<RecentIds>() else { return };
    let is_error = message.type_().as_deref() == Some("error");
    if !is_error
        && is_eligible(message, way, account)
        && let Some(key) = RecentIds::key(message, way)
    {
        recent.add(key);
    }
}

/// The last eligible messages of an account, each as a hash of its peer and its id.
#[derive(Default)]
struct RecentIds(Mutex<VecDeque<u64>>);

impl RecentIds {
    /// `None` for a message without id, whose error could not be told from others.
    fn key(message: &Stanza, way: Way) -> Option<u64> {
        let peer = match way {
            Way::Sent => message.to().or_else(|| message.from()),
            Way::Received => message.from(),
        }?;
        // An error may come from another resource than the one that was addressed.
        let peer = address::bare(address::bare_of(&peer)).ok()?;
        let mut hasher = DefaultHasher::new();
        (peer.as_str(), message.id()?).hash(&mut hasher);
        Some(hasher.finish())
    }

    fn add(&self, key: u64) {
        let mut keys = self.0.lock();
        if keys.len() >= REMEMBERED {
            keys.pop_front();
        }
        keys.push_back(key);
    }

    fn knows(&self, key: u64) -> bool {
        self.0.lock().contains(&key)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::rules::roster::Roster;
    use crate::session::{Account, Values};

    fn account() -> AccountState {
        let jid = BareJid::new("romeo@example.com").unwrap();
        let state = AccountState(Arc::new(Account::new(jid, Roster::new(), Values::default())));
        state.set_extension(RecentIds::default());
        state
    }

    fn eligible(way: Way, type_: &str, payload: &str) -> bool {
        let message = Stanza::message().from("a@x.example/r").to("b@x.example").type_(type_);
        is_eligible(&message.payload(payload.as_bytes()).build(), way, &account())
    }

    const BODY: &str = "<body>hello</body>";
    const ACTIVE: &str = "<active xmlns='http://jabber.org/protocol/chatstates'/>";
    const INVITE: &str = "<x xmlns='http://jabber.org/protocol/muc#user'><invite to='c@x'/></x>";
    const OCCUPANT: &str = "<x xmlns='http://jabber.org/protocol/muc#user'/>";

    #[test]
    fn carbons_3_what_is_copied_both_ways() {
        for way in [Way::Sent, Way::Received] {
            for (type_, payload) in [
                ("chat", ""),
                ("chat", BODY),
                ("normal", BODY),
                ("no-such-type", BODY),
                ("normal", ACTIVE),
                ("normal", "<received xmlns='urn:xmpp:receipts' id='1'/>"),
                ("normal", "<displayed xmlns='urn:xmpp:chat-markers:0' id='1'/>"),
                ("normal", "<x xmlns='jabber:x:conference' jid='r@muc.x.example'/>"),
                ("normal", INVITE),
            ] {
                assert!(eligible(way, type_, payload), "{type_} {payload}");
            }
        }
    }

    #[test]
    fn carbons_3_what_is_never_copied() {
        let private = format!("{BODY}<private xmlns='urn:xmpp:carbons:2'/>");
        let no_copy = format!("{BODY}<no-copy xmlns='urn:xmpp:hints'/>");
        for way in [Way::Sent, Way::Received] {
            for (type_, payload) in [
                ("groupchat", BODY),
                ("headline", BODY),
                ("normal", ""),
                ("normal", "<event xmlns='http://jabber.org/protocol/pubsub#event'/>"),
                ("chat", &private),
                ("chat", &no_copy),
                ("error", BODY),
            ] {
                assert!(!eligible(way, type_, payload), "{type_} {payload}");
            }
        }
    }

    #[test]
    fn carbons_3_private_messages_of_a_room_are_copied_when_sent() {
        let payload = format!("{BODY}{OCCUPANT}");
        assert!(eligible(Way::Sent, "chat", &payload));
        assert!(!eligible(Way::Received, "chat", &payload));
        assert!(eligible(Way::Received, "chat", BODY));
    }

    #[test]
    fn carbons_4_errors_are_known_by_peer_and_id_of_the_last_64() {
        let account = account();
        let message = |n: usize| {
            let message = Stanza::message().to("B@x.example/r").type_("chat");
            message.from("romeo@example.com/x").id(&n.to_string()).build()
        };
        let error = |from: &str, n: usize| {
            let error = Stanza::message().from(from).type_("error").id(&n.to_string()).build();
            is_eligible(&error, Way::Received, &account)
        };
        remember(&account, &message(0), Way::Sent);
        assert!(error("b@x.example", 0) && error("b@x.example/other", 0));
        assert!(!error("c@x.example", 0) && !error("b@x.example", 1));
        for n in 1..=REMEMBERED {
            remember(&account, &message(n), Way::Sent);
        }
        assert!(!error("b@x.example", 0));
        assert!(error("b@x.example", 1));
    }
}
