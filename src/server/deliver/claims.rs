//! What others say in the name of this server (STZ-14).

use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::server::Core;
use crate::stanza::claims::Claim;
use crate::stanza::{Kind, Stanza};

impl<C: SharedConnection> Core<C> {
    /// Takes out of a stanza, whose `from` is true, what it claims in the name of this server or of one of
    /// its accounts.
    pub(crate) fn without_claims(&self, stanza: Stanza) -> Stanza {
        // Nobody reads such a thing in an iq, which has one child.
        if stanza.kind() == Kind::Iq {
            return stanza;
        }
        let ours = stanza.without(|child| {
            Claim::of(child).is_some_and(|claim| self.is_about_us(&stanza, &claim))
        });
        ours.unwrap_or(stanza)
    }

    fn is_about_us(&self, stanza: &Stanza, claim: &Claim<'_>) -> bool {
        let from = stanza.from().unwrap_or_default();
        match claim {
            // A name that cannot be read here may be read as a local one by somebody else.
            Claim::Entity(name) => self.address(name).map_or(true, |named| {
                // A session may say when its own message was written; when its presence was received,
                // the server says in its name (PRES-16).
                let own = stanza.kind() == Kind::Message && named.to_text() == from;
                self.is_ours(named.bare.as_str()) && !own
            }),
            // A session sets no ids.
            Claim::Setter(name) => {
                self.address(name).map_or(true, |named| self.is_ours(named.bare.as_str()))
            }
            // From another account `from` shows that it is no copy (XEP-0280 §11).
            Claim::Recipient => {
                let to = stanza.to();
                let to = to.as_deref().and_then(|to| self.address(to).ok());
                to.is_none_or(|to| bare_of(&from) == to.bare.as_str())
            }
        }
    }
}
