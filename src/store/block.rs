//! Block lists.

use jid::BareJid;

use super::StoreFuture;

/// Keeps block lists ([XEP-0191](https://xmpp.org/extensions/xep-0191.html)).
///
/// For hosts to implement; the [room](super) says what holds for every store. The server counts
/// the entries against its limit ([LIMIT-18](crate::rules#limit-18)) before it calls: a store needs none of its own.
///
/// Entries are texts: addresses in normal form, with a resource that may be valid only elsewhere, and
/// whatever was stored in the past. A store keeps and compares their bytes ([JID-6](crate::rules#jid-6)).
pub trait BlockStore: Send + Sync + 'static {
    /// The whole list, in any order, without duplicates ([BLOCK-1](crate::rules#block-1)).
    fn load(&self, account: &BareJid) -> StoreFuture<Vec<String>>;

    /// Takes `removed` off the list, then puts `added` on it: all or none ([BLOCK-2](crate::rules#block-2)). Entries that are
    /// already on it (or not on it) are no error.
    fn apply(&self, account: &BareJid, added: Vec<String>, removed: Vec<String>)
    -> StoreFuture<()>;

    /// Empties the list (`<unblock/>` without items, and account removal).
    fn clear(&self, account: &BareJid) -> StoreFuture<()>;
}
