//! Rosters and the subscription requests that wait for their user.

use std::fmt;
use std::sync::Arc;

use jid::BareJid;

use super::StoreFuture;
use crate::rules::roster::{Item, Stray};

/// Keeps rosters, their versions and inbound subscription requests.
///
/// For hosts to implement; the [room](super) says what holds for every store. The server loads a
/// roster when the first session of its account binds, changes it in memory, and writes each
/// change before anyone learns of it. It counts items, lengths and requests against its limits
/// ([LIMIT-15](crate::rules#limit-15), [LIMIT-16](crate::rules#limit-16)) before it calls: a store needs none of its own.
pub trait RosterStore: Send + Sync + 'static {
    /// The whole roster, its version, and who asked for a subscription. An account without a
    /// roster has an empty one.
    fn load(&self, account: &BareJid) -> StoreFuture<StoredRoster>;

    /// What is kept about one contact, as [`load`](Self::load) would return it: how the
    /// server reads the roster of an account without sessions when a stanza arrives.
    ///
    /// It is called as often as others send, so a store should not read the whole roster for it, as
    /// the default does.
    fn contact(&self, account: &BareJid, contact: &BareJid) -> StoreFuture<StoredContact> {
        let (loaded, contact) = (self.load(account), contact.clone());
        Box::pin(async move { Ok(loaded.await?.into_contact(&contact)) })
    }

    /// Does everything `change` says, or nothing.
    fn apply(&self, account: &BareJid, change: RosterChange) -> StoreFuture<()>;

    /// Does what both changes say, `first` before `second`, or nothing at all.
    ///
    /// The two ends of a subscription between accounts of this server change with one call
    /// ([SUB-4](crate::rules#sub-4)). Two calls of [`apply`](Self::apply) cannot take its place: after a crash between
    /// them the subscription would exist on one side only, and no stanza would ever repair it,
    /// since only requests to remote contacts are sent again ([SUB-13](crate::rules#sub-13)). Hence there is no default.
    /// A store that cannot do it for a pair of accounts answers
    /// [`StoreError::Failed`](super::StoreError::Failed) without having changed either; the
    /// presence stanza then has no effect.
    ///
    /// Meanwhile the server makes no other call about either account.
    fn apply_pair(
        &self,
        first: &BareJid,
        first_change: RosterChange,
        second: &BareJid,
        second_change: RosterChange,
    ) -> StoreFuture<()>;

    /// The requests that wait for an answer of `account`, whole, in order of their arrival.
    fn requests(&self, account: &BareJid) -> StoreFuture<Vec<SubscriptionRequest>>;

    /// Forgets roster, version and requests of `account`, which is being removed ([DESTROY-15](crate::rules#destroy-15)).
    fn clear(&self, account: &BareJid) -> StoreFuture<()>;
}

/// What [`RosterStore::load`] finds.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredRoster {
    /// The items, in any order, one for each contact.
    pub items: Vec<Item>,
    /// The version last stored, 0 if there never was one.
    pub version: u64,
    /// Who waits for an answer to a subscription request, in order of arrival.
    pub requests: Vec<BareJid>,
    /// Older items whose text [`address::bare`](crate::address::bare) would change: shown, and removed
    /// by that text ([JID-6](crate::rules#jid-6)).
    pub strays: Vec<Stray>,
    /// Entries that cannot be read, and were left out.
    pub unread: usize,
}

impl StoredRoster {
    /// A roster as it was stored.
    #[must_use]
    pub const fn new(items: Vec<Item>, version: u64, requests: Vec<BareJid>) -> Self {
        Self { items, version, requests, strays: Vec::new(), unread: 0 }
    }

    pub(super) fn into_contact(self, contact: &BareJid) -> StoredContact {
        StoredContact {
            item: self.items.into_iter().find(|item| item.jid == *contact),
            version: self.version,
            request: self.requests.contains(contact),
            requests: self.requests.len(),
        }
    }
}

impl fmt::Debug for StoredRoster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredRoster")
            .field("items", &self.items.len())
            .field("version", &self.version)
            .field("requests", &self.requests.len())
            .field("strays", &self.strays.len())
            .field("unread", &self.unread)
            .finish()
    }
}

/// What [`RosterStore::contact`] finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredContact {
    /// The contact's item, if it has one.
    pub item: Option<Item>,
    /// The version of the roster last stored, 0 if there never was one.
    pub version: u64,
    /// Whether the contact waits for an answer to a subscription request.
    pub request: bool,
    /// How many wait for one.
    pub requests: usize,
}

impl StoredContact {
    /// What is kept about a contact: its item, the version of the roster, whether it waits for an
    /// answer, and how many do.
    #[must_use]
    pub const fn new(item: Option<Item>, version: u64, request: bool, requests: usize) -> Self {
        Self { item, version, request, requests }
    }
}

/// One change of a roster: all of it is stored, or none.
///
/// A removal comes before an addition, so that both may name the same contact.
///
/// ```
/// use xmpp_session::jid::BareJid;
/// use xmpp_session::store::RosterChange;
///
/// let contact = BareJid::new("romeo@example.net")?;
/// let change = RosterChange::new().version(8).remove(contact.clone()).remove_request(contact);
/// assert!(!change.is_empty());
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use = "a change does nothing before a store applies it"]
pub struct RosterChange {
    /// The new version of the roster; `None` keeps the old one ([ROSTER-18](crate::rules#roster-18)).
    pub version: Option<u64>,
    /// The item to add, or to put in the place of the contact's former item.
    pub put: Option<Item>,
    /// The contact whose item is removed; one without an item is no error.
    pub remove: Option<BareJid>,
    /// The text of the [stray](StoredRoster::strays) item that is removed; one that does not exist is
    /// no error.
    pub remove_stray: Option<String>,
    /// The request to keep. If that requester has one already, the older one stays, which is no error
    /// ([SUB-9](crate::rules#sub-9)).
    pub add_request: Option<SubscriptionRequest>,
    /// The requester whose request is removed; one without a request is no error.
    pub remove_request: Option<BareJid>,
}

impl RosterChange {
    /// A change that changes nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the version of the roster.
    pub const fn version(mut self, version: u64) -> Self {
        self.version = Some(version);
        self
    }

    /// Adds `item` or puts it in the place of the contact's former item.
    pub fn put(mut self, item: Item) -> Self {
        self.put = Some(item);
        self
    }

    /// Removes the item of `contact`.
    pub fn remove(mut self, contact: BareJid) -> Self {
        self.remove = Some(contact);
        self
    }

    /// Removes the stray item of this text.
    pub fn remove_stray(mut self, text: String) -> Self {
        self.remove_stray = Some(text);
        self
    }

    /// Keeps `request` until it is answered or withdrawn.
    pub fn add_request(mut self, request: SubscriptionRequest) -> Self {
        self.add_request = Some(request);
        self
    }

    /// Forgets the request of `requester`.
    pub fn remove_request(mut self, requester: BareJid) -> Self {
        self.remove_request = Some(requester);
        self
    }

    /// Whether there is nothing to store.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.version.is_none()
            && self.put.is_none()
            && self.remove.is_none()
            && self.remove_stray.is_none()
            && self.add_request.is_none()
            && self.remove_request.is_none()
    }
}

impl fmt::Debug for RosterChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RosterChange")
            .field("version", &self.version)
            .field("put", &self.put.is_some())
            .field("remove", &self.remove.is_some())
            .field("remove_stray", &self.remove_stray.is_some())
            .field("add_request", &self.add_request.is_some())
            .field("remove_request", &self.remove_request.is_some())
            .finish()
    }
}

/// A subscription request that waits for its user, whole, with its extensions
/// ([RFC 6121 §3.1.3](https://www.rfc-editor.org/rfc/rfc6121#section-3.1.3), [SUB-9](crate::rules#sub-9)).
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SubscriptionRequest {
    /// Who asks.
    pub from: BareJid,
    /// The presence stanza in canonical form. A store keeps the bytes as they are.
    pub stanza: Arc<[u8]>,
}

impl SubscriptionRequest {
    /// The request of `from`.
    #[must_use]
    pub fn new(from: BareJid, stanza: impl Into<Arc<[u8]>>) -> Self {
        Self { from, stanza: stanza.into() }
    }
}

impl fmt::Debug for SubscriptionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubscriptionRequest")
            .field("bytes", &self.stanza.len())
            .finish_non_exhaustive()
    }
}
