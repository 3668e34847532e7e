//! Invitations to make an account: given out by the host, used once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, DomainPart, DomainRef};
use parking_lot::Mutex;

use crate::address;
use crate::environment::{Environment, random_hex};
use crate::store::{InvitationStore, ScramHash, StoreError, StoreFuture, StoredInvitation};

/// What the host invites somebody to.
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::xep::Invite;
///
/// // A name of their own choice, within a week, and a first contact.
/// let invite = Invite::to("example.com".parse()?)
///     .valid_for(Duration::from_secs(7 * 24 * 3600))
///     .contact("romeo@example.com".parse()?);
/// // Or this name.
/// let invite = Invite::account("juliet@example.com".parse()?);
/// # let _ = invite;
/// # Ok::<(), xmpp_session::jid::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "invites nobody by itself"]
pub struct Invite {
    stored: StoredInvitation,
    valid_for: Option<Duration>,
}

impl Invite {
    /// To make an account of this domain.
    pub const fn to(domain: DomainPart) -> Self {
        Self { stored: StoredInvitation::new(domain), valid_for: None }
    }

    /// To make this account. Nobody else gets the name until the invitation is used, revoked or has expired.
    pub fn account(account: BareJid) -> Self {
        let mut stored = StoredInvitation::new(account.domain().to_owned());
        stored.account = Some(account);
        Self { stored, valid_for: None }
    }

    /// For so long. Without this it is good until it is used.
    pub const fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }

    /// An account of the server that becomes the first contact, subscribed both ways.
    pub fn contact(mut self, contact: BareJid) -> Self {
        self.stored.contact = Some(contact);
        self
    }
}

/// An invitation, to be handed to whom it is for: whoever has it may use it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Invitation {
    /// The secret.
    pub token: String,
    /// The same as a link that clients open
    /// ([XEP-0445 §2](https://xmpp.org/extensions/xep-0445.html#usecases)).
    pub uri: String,
}

impl fmt::Debug for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitation")
    }
}

/// The invitations of a server: what its host makes, and what [`Registration`](super::Registration) takes (rules
/// [REG-7](crate::rules#reg-7), [REG-8](crate::rules#reg-8)). Cheap to clone.
///
/// ```
/// use xmpp_session::store::StoreError;
/// use xmpp_session::xep::{Invitations, Invite};
///
/// async fn invite(invitations: &Invitations) -> Result<String, StoreError> {
///     let invite = Invite::to("example.com".parse().unwrap());
///     Ok(invitations.create(invite).await?.uri) // xmpp:example.com?register;preauth=…
/// }
/// ```
#[derive(Clone)]
pub struct Invitations(Arc<Inner>);

struct Inner {
    environment: Arc<dyn Environment>,
    store: Box<dyn InvitationStore>,
    /// Those that somebody is using, by their keys: the store has them no longer.
    in_use: Mutex<HashMap<String, StoredInvitation>>,
}

impl Invitations {
    /// Invitations that are kept in `store`.
    #[must_use]
    pub fn new(environment: Arc<dyn Environment>, store: impl InvitationStore) -> Self {
        let store = Box::new(store);
        Self(Arc::new(Inner { environment, store, in_use: Mutex::default() }))
    }

    /// Makes an invitation that can be used once.
    ///
    /// # Errors
    ///
    /// That of the store, or an account or domain that has no normal form.
    pub async fn create(&self, invite: Invite) -> Result<Invitation, StoreError> {
        let Invite { mut stored, valid_for } = invite;
        let environment = &self.0.environment;
        stored.domain = address::domain(stored.domain.as_str()).map_err(StoreError::failed)?;
        let normal = |jid: Option<BareJid>| jid.map(|jid| address::account(&jid)).transpose();
        stored.account = normal(stored.account).map_err(StoreError::failed)?;
        stored.contact = normal(stored.contact).map_err(StoreError::failed)?;
        let now = environment.utc();
        stored.expires = valid_for.and_then(|time| now.checked_add(time));
        // Whoever has shown one may use it a little later (XEP-0445 §4).
        if let Some(then) = now.checked_sub(GRACE) {
            self.0.store.forget(then).await?;
        }
        let token = random_hex::<20>(&**environment);
        let whom = stored.account.as_ref().map_or(stored.domain.as_str(), |jid| jid.as_str());
        let uri = format!("xmpp:{}?register;preauth={token}", escaped(whom));
        self.0.store.put(&key(&token), stored).await?;
        Ok(Invitation { token, uri })
    }

    /// Takes an invitation back; `false` if it was used, or there was none.
    ///
    /// # Errors
    ///
    /// That of the store.
    pub async fn revoke(&self, token: &str) -> Result<bool, StoreError> {
        self.0.store.take(&key(token)).await
    }

    /// The invitation that a client shows, if it is good for this domain.
    pub(super) fn find(
        &self,
        token: &str,
        domain: &DomainRef,
    ) -> StoreFuture<Option<(String, StoredInvitation)>> {
        let (inner, key, domain) = (Arc::clone(&self.0), key(token), domain.to_owned());
        Box::pin(async move {
            let (found, now) = (inner.store.get(&key).await?, inner.environment.utc());
            let found = found.filter(|found| found.domain == domain && !found.has_expired(now));
            Ok(found.map(|found| (key, found)))
        })
    }

    /// Whether the name is kept for the holders of other invitations than this one.
    pub(super) async fn is_reserved(
        &self,
        account: &BareJid,
        key: Option<&str>,
    ) -> Result<bool, StoreError> {
        let (of_account, now) = (self.0.store.of_account(account).await?, self.0.environment.utc());
        let is_other = |(other, one): &(String, StoredInvitation)| {
            Some(&**other) != key && !one.has_expired(now)
        };
        let is_for_it = |(other, one): (&String, &StoredInvitation)| {
            Some(&**other) != key && one.account.as_ref() == Some(account)
        };
        Ok(of_account.iter().any(is_other) || self.0.in_use.lock().iter().any(is_for_it))
    }

    /// Begins to use an invitation, which takes it from the store. `None` if it is gone.
    pub(super) async fn begin(
        &self,
        key: &str,
        invitation: StoredInvitation,
    ) -> Result<Option<InUse>, StoreError> {
        match self.0.in_use.lock().entry(key.to_owned()) {
            Entry::Occupied(_) => return Ok(None),
            Entry::Vacant(free) => _ = free.insert(invitation.clone()),
        }
        let using = InUse { inner: Arc::clone(&self.0), key: key.to_owned(), invitation };
        Ok(self.0.store.take(key).await?.then_some(using))
    }
}

impl fmt::Debug for Invitations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Invitations")
    }
}

/// An invitation that somebody is using. Dropped, it is used.
pub(super) struct InUse {
    inner: Arc<Inner>,
    key: String,
    invitation: StoredInvitation,
}

impl InUse {
    /// Nothing has come of it: it can be used again.
    pub(super) async fn give_back(self) -> Result<(), StoreError> {
        self.inner.store.put(&self.key, self.invitation.clone()).await
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.inner.in_use.lock().remove(&self.key);
    }
}

/// How long an invitation is kept after it has expired: longer than a stream goes without a login.
const GRACE: Duration = Duration::from_secs(24 * 3600);

/// What is kept in place of a token.
fn key(token: &str) -> String {
    let digest = ScramHash::Sha256.hash(token.as_bytes());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// An address in a URI (RFC 5122): all but unreserved characters and `@` in percents.
fn escaped(jid: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte);
    let mut text = String::with_capacity(jid.len());
    for byte in jid.bytes() {
        match plain(byte) {
            true => text.push(char::from(byte)),
            false => text.push_str(&format!("%{byte:02X}")),
        }
    }
    text
}
