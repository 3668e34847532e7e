use std::any::Any;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use jid::BareJid;
use minidom::Element;

use super::element;
use crate::address;
use crate::connection::SharedConnection;
use crate::extension::{Admission, Extension, Flow, IqDone, IqReply, IqRequest, Target, Wants};
use crate::session::{AccountState, Item, Keeper, Kept, Pattern, SessionHandle, SessionRegistry};
use crate::stanza::{Condition, ErrorType, Kind, Stanza, StanzaError};
use crate::store::{BlockStore, StoreError, StoreFuture};
use crate::stream::Limit;

const NAMESPACE: &str = "urn:xmpp:blocking";
const ERRORS: &str = "urn:xmpp:blocking:errors";
const FORWARD: &str = "urn:xmpp:forward:0";
/// Under which name what is kept goes to another node.
const MARKED: &str = "urn:xmpp:blocking#asked";
const LIST: &str = "urn:xmpp:blocking#list";

/// Blocking Command ([XEP-0191](https://xmpp.org/extensions/xep-0191.html)): each account has a list
/// of JIDs whose stanzas do not get in and which learn nothing of its presence (rules [BLOCK-1](crate::rules#block-1)…11).
///
/// The list is loaded with the account's roster, and a change is stored before it is answered.
/// Subscriptions stay as they are. Should be added before extensions that keep or copy messages,
/// so that these never see a blocked one.
#[derive(Clone)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct Blocking(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    store: Arc<dyn BlockStore>,
    items: usize,
    bytes: usize,
}

impl Blocking {
    /// Keeps the lists in `store`: [`Stores::blocks`](crate::store::Stores::blocks) of the server.
    pub fn new(store: Arc<dyn BlockStore>) -> Self {
        Self(Arc::new(Inner { store, items: 1000, bytes: 256 << 10 }))
    }

    /// JIDs that one list may hold ([LIMIT-18](crate::rules#limit-18)). Default: 1000.
    pub fn items(self, items: usize) -> Self {
        Self(Arc::new(Inner { items, ..Inner::clone(&self.0) }))
    }

    /// Bytes of all JIDs of a list, which is sent in one answer ([LIMIT-18](crate::rules#limit-18)). Default: 256 KiB.
    pub fn bytes(self, bytes: usize) -> Self {
        Self(Arc::new(Inner { bytes, ..Inner::clone(&self.0) }))
    }
}

impl fmt::Debug for Blocking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blocking").field("items", &self.0.items).finish_non_exhaustive()
    }
}

/// The session has asked for the list, so it gets pushes (BLOCK-1).
struct Marked;

/// A list, as texts in normal form. An old entry that is not in it blocks nobody (JID-6).
#[derive(Clone, Default)]
struct List(BTreeSet<Box<str>>);

impl List {
    fn of(jids: Vec<String>) -> Self {
        Self(jids.into_iter().map(Into::into).collect())
    }

    /// No address has a NUL in it.
    fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|jid| jid.bytes().chain([0])).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let text = str::from_utf8(bytes).unwrap_or_default();
        Self(text.split_terminator('\0').map(Into::into).collect())
    }

    fn bytes(&self) -> usize {
        self.0.iter().map(|jid| jid.len()).sum()
    }

    /// Those of this bare JID that are listed by themselves.
    fn resources(&self, bare: &str) -> Vec<String> {
        let resources = self.0.iter().filter_map(|jid| jid.strip_prefix(bare)?.strip_prefix('/'));
        resources.map(str::to_owned).collect()
    }

    /// BLOCK-4: the JID itself, its bare JID, or its domain.
    fn covers(&self, jid: &str) -> bool {
        let bare = address::bare_of(jid);
        let domain = bare.split_once('@').map_or(bare, |(_, domain)| domain);
        [jid, bare, domain].into_iter().any(|jid| self.0.contains(jid))
    }
}

/// Whether `account` blocks `jid`; never its own sessions or the server itself (BLOCK-8).
fn blocks(account: &AccountState, jid: &str) -> bool {
    let Some(list) = account.extension::<List>() else { return false };
    let Ok(jid) = address::comparable(jid) else { return false };
    is_other(account.jid(), &jid) && list.covers(&jid)
}

/// Whether this is neither the account nor its server (BLOCK-8).
fn is_other(own: &BareJid, jid: &str) -> bool {
    let bare = address::bare_of(jid);
    bare != own.as_str() && bare != own.domain().as_str()
}

/// The sender of the message that a carbon copy wraps (XEP-0297).
fn forwarded_from(stanza: &Stanza) -> Option<Cow<'_, str>> {
    let forwarded = stanza.children().flat_map(|copy| copy.children());
    let forwarded = forwarded.filter(|child| child.is("forwarded", FORWARD));
    forwarded.flat_map(|child| child.children()).find_map(|message| message.attribute("from"))
}

/// What a request changes.
enum Change {
    Block(Vec<String>),
    Unblock(Vec<String>),
    Clear,
}

impl Change {
    fn read<C: SharedConnection>(request: &IqRequest<'_, C>) -> Result<Self, Condition> {
        let items = request.query().children().filter(|child| child.is("item", NAMESPACE));
        let list = request.session().and_then(|s| s.account_state().extension::<List>());
        let jids = items.map(|item| {
            let jid = item.attribute("jid").ok_or(Condition::BadRequest)?;
            // JID-6: what the list shows can be taken off it.
            let shown = list.as_ref().is_some_and(|list| list.0.contains(&*jid));
            if shown && request.query().name() == "unblock" {
                return Ok(jid.into_owned());
            }
            address::comparable(&jid).map_err(|_| Condition::JidMalformed)
        });
        let jids = jids.collect::<Result<Vec<_>, _>>()?;
        match (request.query().name(), jids.is_empty()) {
            ("block", false) => Ok(Self::Block(jids)),
            ("unblock", false) => Ok(Self::Unblock(jids)),
            ("unblock", true) => Ok(Self::Clear),
            // BLOCK-2
            _ => Err(Condition::BadRequest),
        }
    }

    /// The push that tells of it (BLOCK-3).
    fn push(&self) -> Element {
        let (name, jids) = match self {
            Self::Block(jids) => ("block", &jids[..]),
            Self::Unblock(jids) => ("unblock", &jids[..]),
            Self::Clear => ("unblock", &[][..]),
        };
        let mut push = Element::bare(name, NAMESPACE);
        for jid in jids {
            push.append_child(item(jid));
        }
        push
    }
}

fn item(jid: &str) -> Element {
    element("item", NAMESPACE, &[("jid", jid)])
}

/// The JIDs that a change concerns: those that one list covers and the other does not.
struct Difference {
    own: BareJid,
    with: List,
    without: List,
}

impl Pattern for Difference {
    fn covers(&self, jid: &str) -> bool {
        is_other(&self.own, jid) && self.with.covers(jid) && !self.without.covers(jid)
    }

    fn covers_source(&self, stanza: &Stanza) -> bool {
        let Some(from) = stanza.from() else { return false };
        let source = if *from == *self.own.as_str() { forwarded_from(stanza) } else { Some(from) };
        source
            .and_then(|from| address::comparable(&from).ok())
            .is_some_and(|from| self.covers(&from))
    }

    fn full(&self) -> impl Iterator<Item = &str> {
        let full = self.with.0.iter().filter(|jid| jid.contains('/'));
        full.map(|jid| &**jid).filter(|jid| self.covers(jid))
    }

    fn hidden_before(&self, bare: &str) -> Vec<String> {
        self.without.resources(bare)
    }
}

impl<C: SharedConnection> Extension<C> for Blocking {
    /// An account keeps its list, if there is anything on it.
    fn wants(&self) -> Wants {
        Wants::KEPT_ONLY
    }

    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        match target {
            Target::Domain => &[NAMESPACE],
            Target::Account => &[],
        }
    }

    fn load(&self, account: &BareJid) -> Option<StoreFuture<Option<Arc<dyn Any + Send + Sync>>>> {
        let jids = self.0.store.load(account);
        Some(Box::pin(async move {
            let list = List::of(jids.await?);
            let is_some = !list.0.is_empty();
            Ok(is_some.then(|| Arc::new(list) as Arc<dyn Any + Send + Sync>))
        }))
    }

    fn export(&self, of: &Keeper<'_, C>, kept: &mut Kept) {
        match of {
            Keeper::Session(session) if session.extension::<Marked>().is_some() => {
                kept.put(MARKED, Vec::new());
            }
            Keeper::Account(account) => {
                if let Some(list) = account.extension::<List>() {
                    kept.put(LIST, list.to_bytes());
                }
            }
            Keeper::Session(_) => {}
        }
    }

    fn import(&self, of: &Keeper<'_, C>, kept: &Kept) {
        match of {
            Keeper::Session(session) if kept.get(MARKED).is_some() => {
                session.set_extension(Marked);
            }
            Keeper::Account(account) => {
                if let Some(list) = kept.get(LIST) {
                    account.set_extension(List::from_bytes(list));
                }
            }
            Keeper::Session(_) => {}
        }
    }

    /// [BLOCK-6](crate::rules#block-6)
    fn inbound(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Flow {
        let Some(to) = stanza.to() else { return Flow::Next };
        if !blocks(&session.account_state(), &to) || is_farewell(stanza) {
            return Flow::Next;
        }
        let blocked = Element::bare("blocked", ERRORS);
        let error = StanzaError::new(Condition::NotAcceptable).with_type(ErrorType::Cancel);
        if let Some(answer) = stanza.error_answer(&error.with_application(&blocked)) {
            let answer = answer.readdressed(Some(&to), Some(session.jid().as_str()));
            let _gone = session.send(&answer);
        }
        Flow::Done
    }

    /// [BLOCK-5](crate::rules#block-5)
    fn admit(&self, account: &AccountState, stanza: &Stanza) -> Admission {
        if !stanza.from().is_some_and(|from| blocks(account, &from)) {
            return Admission::Accept;
        }
        let is_answer = match stanza.kind() {
            Kind::Presence => true,
            Kind::Message => stanza.type_().as_deref() == Some("error"),
            Kind::Iq => matches!(stanza.type_().as_deref(), Some("result" | "error")),
        };
        if is_answer {
            return Admission::Drop;
        }
        Admission::Refuse(Condition::ServiceUnavailable.into())
    }

    fn hides(&self, account: &AccountState, jid: &str) -> bool {
        blocks(account, jid)
    }

    fn hidden_resources(&self, account: &AccountState, bare: &str) -> Vec<String> {
        account.extension::<List>().map(|list| list.resources(bare)).unwrap_or_default()
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let session = request.session().filter(|_| request.is_own_account())?;
        let query = request.query();
        if query.namespace() != NAMESPACE {
            return None;
        }
        match (query.name(), request.is_set()) {
            ("blocklist", false) => {
                let session = session.clone();
                // Behind the changes under way: later ones are pushed.
                Some(IqReply::Job(Box::pin(async move { IqDone::new(Ok(Some(list(&session)))) })))
            }
            ("block" | "unblock", true) => match Change::read(request) {
                Err(condition) => Some(IqReply::error(condition)),
                Ok(change) => {
                    let (inner, account) = (Arc::clone(&self.0), request.to().clone());
                    let registry = request.registry().clone();
                    Some(IqReply::Job(Box::pin(async move {
                        let done = inner.change(registry, account, change).await;
                        done.unwrap_or_else(|error| IqDone::new(Err(error)))
                    })))
                }
            },
            _ => None,
        }
    }
}

/// Whether a stanza denies or ends a subscription: that changes the roster, and its contact is not
/// told (BLOCK-9).
fn is_farewell(stanza: &Stanza) -> bool {
    stanza.kind() == Kind::Presence
        && matches!(stanza.type_().as_deref(), Some("unsubscribe" | "unsubscribed"))
}

/// BLOCK-1
fn list<C: SharedConnection>(session: &SessionHandle<C>) -> Element {
    session.set_extension(Marked);
    let mut list = Element::bare("blocklist", NAMESPACE);
    if let Some(blocked) = session.account_state().extension::<List>() {
        for jid in &blocked.0 {
            list.append_child(item(jid));
        }
    }
    list
}

fn failed(error: StoreError) -> StanzaError {
    StanzaError::new(Condition::InternalServerError).with_cause(error)
}

impl Inner {
    /// Stores a change, then puts it into memory; what others learn of it follows the result.
    async fn change<C: SharedConnection>(
        self: Arc<Self>,
        registry: SessionRegistry<C>,
        account: BareJid,
        change: Change,
    ) -> Result<IqDone, StanzaError> {
        // The session that asked may be gone, and have been the last one.
        let state = registry.account_state(&account);
        let old = match &state {
            Some(state) => state.extension::<List>().map(|l| List::clone(&l)).unwrap_or_default(),
            None => List::of(self.store.load(&account).await.map_err(failed)?),
        };
        let new = self.store(&account, &change, &old).await?;
        let own = account.clone();
        let (difference, before) = if let Change::Block(_) = change {
            let difference = Difference { own, with: new.clone(), without: old };
            let before = registry.prepare_hiding(account.as_str(), &difference);
            (difference, Some(before))
        } else {
            (Difference { own, with: old, without: new.clone() }, None)
        };
        if let Some(state) = &state {
            if new.0.is_empty() {
                state.remove_extension::<List>();
            } else {
                state.set_extension(new);
            }
        }
        Ok(IqDone::new(Ok(None)).then(move || {
            Self::push(&registry, &account, &change);
            // BLOCK-7
            match before {
                Some(before) => registry.hide_from(account.as_str(), &difference, before),
                None => registry.show_to(account.as_str(), &difference),
            }
        }))
    }

    /// Stores a change of the list `old`: the new list.
    async fn store(
        &self,
        account: &BareJid,
        change: &Change,
        old: &List,
    ) -> Result<List, StanzaError> {
        let mut new = old.clone();
        match change {
            Change::Block(jids) => {
                let mut added = jids.clone();
                added.retain(|jid| new.0.insert(jid.as_str().into()));
                // One from before that is larger may become smaller.
                let is_larger = new.bytes() > self.bytes.max(old.bytes());
                if new.0.len() > self.items || is_larger {
                    let error = StanzaError::new(Condition::PolicyViolation);
                    return Err(error.with_type(ErrorType::Modify).with_cause(Limit::BlockList));
                }
                self.store.apply(account, added, Vec::new()).await.map_err(failed)?;
            }
            Change::Unblock(jids) => {
                let mut removed = jids.clone();
                removed.retain(|jid| new.0.remove(jid.as_str()));
                self.store.apply(account, Vec::new(), removed).await.map_err(failed)?;
            }
            Change::Clear => {
                new = List::default();
                self.store.clear(account).await.map_err(failed)?;
            }
        }
        Ok(new)
    }

    fn push<C: SharedConnection>(
        registry: &SessionRegistry<C>,
        account: &BareJid,
        change: &Change,
    ) {
        let id = registry.push_id();
        let push = Stanza::iq("set").from(account.as_str()).id(&id).child(&change.push()).build();
        for session in registry.sessions(account) {
            if session.extension::<Marked>().is_some() {
                let _gone = session.send_item(&Item::new(&push).addressed());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(items: &[&str], jid: &str) -> bool {
        let items = items.iter().map(|jid| address::comparable(jid).unwrap()).collect();
        List::of(items).covers(&address::comparable(jid).unwrap())
    }

    #[test]
    fn block_4_which_jids_an_item_covers() {
        for (item, yes, no) in [
            ("a@x.example/r", &["a@x.example/r"][..], &["a@x.example", "a@x.example/s"][..]),
            ("a@x.example", &["a@x.example", "a@x.example/r"], &["b@x.example", "x.example"]),
            ("x.example/r", &["x.example/r"], &["x.example", "a@x.example/r", "x.example/s"]),
            (
                "x.example",
                &["x.example", "x.example/r", "a@x.example", "a@x.example/r"],
                &["y.x.example", "a@y.x.example"],
            ),
        ] {
            for jid in yes {
                assert!(covers(&[item], jid), "{item} {jid}");
            }
            for jid in no {
                assert!(!covers(&[item], jid), "{item} {jid}");
            }
        }
    }

    #[test]
    fn block_4_addresses_are_compared_in_normal_form() {
        assert!(covers(&["a@x.example"], "A@X.Example./Any"));
        assert!(covers(&["room@muc.example"], "room@muc.example/🦊"));
    }
}
