//! What a bare JID is to this server. Two questions that are easily taken for one: whether it is *ours*, which
//! says what may be believed and how it is spelt, and whether it lives *here*, which says who acts for it.

use jid::BareJid;

#[cfg(feature = "cluster")]
use super::address::Address;
use crate::connection::SharedConnection;
use crate::server::Core;
#[cfg(feature = "cluster")]
use crate::server::node::Clustered;

/// Where a stanza goes.
pub(super) enum Destination {
    /// To an account that lives here, or to one of our domains.
    Here,
    /// To an account of ours that lives on another node, to a component, or by the host's router.
    Elsewhere,
}

impl<C: SharedConnection> Core<C> {
    /// Whether this names the server itself: it is one of our domains.
    pub(in crate::server) fn serves(&self, domain: &str) -> bool {
        self.domains.iter().any(|served| served.name.as_str() == domain)
    }

    /// Whether it is one of our domains, or in one: nobody else speaks in its name.
    pub(in crate::server) fn is_ours(&self, bare: &str) -> bool {
        self.registry.is_ours(bare)
    }

    /// Whether it lives here: its sessions are in this registry, its chain is among our jobs, and nobody else
    /// writes its roster. What is not here is sent on.
    #[inline]
    pub(super) fn is_here(&self, bare: &str) -> bool {
        self.registry.is_local(bare)
    }

    #[inline]
    pub(super) fn destination(&self, to: &BareJid) -> Destination {
        if self.is_here(to.as_str()) { Destination::Here } else { Destination::Elsewhere }
    }

    /// The node that this is, where an account lives at another one.
    #[cfg(feature = "cluster")]
    pub(super) fn is_afar(&self, to: &Address<'_>) -> Option<&Clustered<C>> {
        let node = self.node.as_ref().filter(|_| to.is_account())?;
        let bare = to.bare.as_str();
        (!self.is_here(bare) && self.is_ours(bare)).then_some(node)
    }
}
