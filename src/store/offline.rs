//! Messages that wait for a session.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use jid::BareJid;

use super::StoreFuture;

/// Keeps the messages of accounts that have no session to take them
/// ([XEP-0160](https://xmpp.org/extensions/xep-0160.html)).
///
/// For hosts to implement; the [room](super) says what holds for every store. Which messages are
/// worth keeping is the server's decision ([OFF-1](crate::rules#off-1)). A message is removed only when a session has
/// accepted it ([OFF-4](crate::rules#off-4)): the server lists, delivers, and removes what was accepted.
///
/// The store limits what one account may hold and refuses what goes beyond; it never makes room by
/// dropping an older message, which its sender believes to be kept.
pub trait OfflineStore: Send + Sync + 'static {
    /// Keeps `message` after all others.
    ///
    /// Answers [`StoreError::Full`](super::StoreError::Full) when the account's limit does not
    /// allow it; the sender then gets `service-unavailable` ([OFF-2](crate::rules#off-2)).
    fn push(&self, account: &BareJid, message: OfflineMessage) -> StoreFuture<()>;

    /// Every message of the account, in the order of arrival. They stay.
    fn list(&self, account: &BareJid) -> StoreFuture<Vec<(OfflineId, OfflineMessage)>>;

    /// Removes these messages of the account; ids that are not there, or no longer, are no error.
    fn remove(&self, account: &BareJid, ids: Vec<OfflineId>) -> StoreFuture<()>;

    /// How many messages the account has.
    fn count(&self, account: &BareJid) -> StoreFuture<usize>;

    /// Removes every message of `account`, which is being removed ([DESTROY-15](crate::rules#destroy-15)).
    fn clear(&self, account: &BareJid) -> StoreFuture<()>;
}

/// Names a message within its store. An account never gets an id twice, even after a removal and a
/// restart: a late removal cannot hit a newer message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OfflineId(u64);

impl OfflineId {
    /// The id a store knows as `id`.
    #[must_use]
    pub const fn new(id: u64) -> Self {
        Self(id)
    }

    /// What the store knows it as.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// A message that waits for a session.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfflineMessage {
    /// The message stanza in canonical form. A store keeps the bytes as they are.
    pub stanza: Arc<[u8]>,
    /// When it arrived, for its `<delay/>` ([OFF-3](crate::rules#off-3)). A store keeps it to the microsecond or
    /// better: messages that sessions leave later are sorted in by it.
    pub received: SystemTime,
}

impl OfflineMessage {
    /// A message that arrived at `received`.
    #[must_use]
    pub fn new(stanza: impl Into<Arc<[u8]>>, received: SystemTime) -> Self {
        Self { stanza: stanza.into(), received }
    }
}

impl fmt::Debug for OfflineMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfflineMessage").field("bytes", &self.stanza.len()).finish_non_exhaustive()
    }
}

/// How much one account may have waiting in a store of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OfflineLimits {
    /// Messages.
    pub messages: usize,
    /// Bytes of their stanzas together.
    pub bytes: usize,
}

impl OfflineLimits {
    /// At most this many messages and bytes of stanzas for each account.
    #[must_use]
    pub const fn new(messages: usize, bytes: usize) -> Self {
        Self { messages, bytes }
    }

    /// Whether an account that holds `messages` of `bytes` together has room for `more` bytes.
    pub(super) const fn allow(self, messages: usize, bytes: usize, more: usize) -> bool {
        messages < self.messages && bytes.saturating_add(more) <= self.bytes
    }
}

impl Default for OfflineLimits {
    /// 1000 messages, 4 MiB.
    fn default() -> Self {
        Self { messages: 1000, bytes: 4 << 20 }
    }
}
