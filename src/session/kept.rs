//! What extensions keep, on its way to another node.

use std::collections::BTreeMap;
use std::fmt;

use super::account::AccountState;
use super::handle::SessionHandle;
use crate::connection::SharedConnection;

/// For what something is kept.
#[non_exhaustive]
pub enum Keeper<'a, C: SharedConnection> {
    /// A session.
    Session(&'a SessionHandle<C>),
    /// An account that has sessions.
    Account(&'a AccountState),
}

impl<C: SharedConnection> fmt::Debug for Keeper<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Session(_) => "Session",
            Self::Account(_) => "Account",
        })
    }
}

/// What is kept for a session, or for an account, as bytes: it moves to another node with that ([NODE-9](crate::rules#node-9)).
///
/// Each value has a name, which says what the bytes mean: a namespace of the extension's own, say.
///
/// ```
/// use xmpp_session::session::Kept;
///
/// let mut kept = Kept::default();
/// kept.put("urn:example:weather", b"fair".to_vec());
/// assert_eq!(kept.get("urn:example:weather"), Some(&b"fair"[..]));
/// assert_eq!(kept.get("urn:example:tides"), None);
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Kept(BTreeMap<Box<str>, Vec<u8>>);

impl Kept {
    /// Puts in a value; it replaces the one of its name.
    pub fn put(&mut self, name: &str, bytes: Vec<u8>) {
        self.0.insert(name.into(), bytes);
    }

    /// The value of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    #[cfg(feature = "cluster")]
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.0.iter().map(|(name, bytes)| (&**name, bytes.as_slice()))
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kept").field("values", &self.0.len()).finish()
    }
}
