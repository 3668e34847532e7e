//! Invitations to make an account.

use std::collections::HashMap;
use std::fmt;
use std::future::ready;
use std::sync::Arc;
use std::time::SystemTime;

use jid::{BareJid, DomainPart};
use parking_lot::Mutex;

use super::{StoreError, StoreFuture};

/// Keeps invitations until they are used, or have expired.
///
/// For hosts to implement where invitations outlive the server; the [room](super) says what holds for every
/// store. A key is a digest of the token that was given out: what the store keeps lets nobody in.
/// [`MemoryInvitations`] forgets them with the process; `Sqlite` (feature `sqlite`) keeps them in its file.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::environment::System;
/// use xmpp_session::store::MemoryInvitations;
/// use xmpp_session::xep::Invitations;
///
/// let invitations = Invitations::new(Arc::new(System::new()), MemoryInvitations::new(1000));
/// # let _ = invitations;
/// ```
pub trait InvitationStore: Send + Sync + 'static {
    /// Keeps an invitation under a new key. [`StoreError::Full`] where there are too many.
    fn put(&self, key: &str, invitation: StoredInvitation) -> StoreFuture<()>;

    /// The invitation with this key, be it expired or not.
    fn get(&self, key: &str) -> StoreFuture<Option<StoredInvitation>>;

    /// Removes the invitation; `false` if there was none. Of several calls one gets `true`.
    fn take(&self, key: &str) -> StoreFuture<bool>;

    /// Removes those that had expired by then.
    fn forget(&self, then: SystemTime) -> StoreFuture<()>;

    /// The invitations for this account, with their keys: its name is reserved for them.
    fn of_account(&self, account: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>>;
}

/// An invitation as it is kept.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoredInvitation {
    /// Where an account may be made.
    pub domain: DomainPart,
    /// Which account, if that was said.
    pub account: Option<BareJid>,
    /// Who becomes its first contact.
    pub contact: Option<BareJid>,
    /// Until when.
    pub expires: Option<SystemTime>,
}

impl StoredInvitation {
    /// An invitation to make an account of this domain, for good.
    #[must_use]
    pub const fn new(domain: DomainPart) -> Self {
        Self { domain, account: None, contact: None, expires: None }
    }

    pub(crate) fn has_expired(&self, now: SystemTime) -> bool {
        self.expires.is_some_and(|at| at <= now)
    }
}

impl fmt::Debug for StoredInvitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredInvitation").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// Invitations that are gone when the program ends. Its futures are ready when they are made.
pub struct MemoryInvitations {
    kept: Mutex<HashMap<String, StoredInvitation>>,
    most: usize,
}

impl MemoryInvitations {
    /// Keeps up to so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self { kept: Mutex::default(), most }
    }
}

impl fmt::Debug for MemoryInvitations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryInvitations").field("kept", &self.kept.lock().len()).finish()
    }
}

impl InvitationStore for MemoryInvitations {
    fn put(&self, key: &str, invitation: StoredInvitation) -> StoreFuture<()> {
        let mut kept = self.kept.lock();
        let fits = kept.len() < self.most;
        if fits {
            kept.insert(key.to_owned(), invitation);
        }
        Box::pin(ready(if fits { Ok(()) } else { Err(StoreError::Full) }))
    }

    fn get(&self, key: &str) -> StoreFuture<Option<StoredInvitation>> {
        Box::pin(ready(Ok(self.kept.lock().get(key).cloned())))
    }

    fn take(&self, key: &str) -> StoreFuture<bool> {
        Box::pin(ready(Ok(self.kept.lock().remove(key).is_some())))
    }

    fn forget(&self, then: SystemTime) -> StoreFuture<()> {
        self.kept.lock().retain(|_, one| !one.has_expired(then));
        Box::pin(ready(Ok(())))
    }

    fn of_account(&self, account: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>> {
        let kept = self.kept.lock();
        let of = kept.iter().filter(|(_, one)| one.account.as_ref() == Some(account));
        let of = of.map(|(key, one)| (key.clone(), one.clone())).collect();
        Box::pin(ready(Ok(of)))
    }
}

impl<S: InvitationStore + ?Sized> InvitationStore for Arc<S> {
    fn put(&self, key: &str, invitation: StoredInvitation) -> StoreFuture<()> {
        (**self).put(key, invitation)
    }

    fn get(&self, key: &str) -> StoreFuture<Option<StoredInvitation>> {
        (**self).get(key)
    }

    fn take(&self, key: &str) -> StoreFuture<bool> {
        (**self).take(key)
    }

    fn forget(&self, then: SystemTime) -> StoreFuture<()> {
        (**self).forget(then)
    }

    fn of_account(&self, account: &BareJid) -> StoreFuture<Vec<(String, StoredInvitation)>> {
        (**self).of_account(account)
    }
}
