//! Who may reach a full JID, and learn by it that the resource is there.

use crate::rules::presence::Directed;
use crate::rules::roster::Roster;

/// What makes an entity *entitled* towards an account: one fact is enough (rules IQ-2 and SEC-4,
/// [RFC 6121 §8.5.3.1](https://www.rfc-editor.org/rfc/rfc6121#section-8.5.3.1)).
///
/// A host that switches the check off takes everybody as entitled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Entitlement {
    /// It is another session of the account itself.
    pub own: bool,
    /// It sees the account's presence.
    pub subscriber: bool,
    /// A session of the account sent it directed presence: to its bare JID or to any of its full
    /// ones, so that in a joined room each occupant passes.
    pub directed: bool,
    /// It is a domain that this server serves.
    pub local_domain: bool,
}

impl Entitlement {
    /// The facts about `sender` (a bare JID) towards the account `own`, from the account's roster and
    /// the directed presence of all its sessions. `local_domain` stays false: the caller knows.
    #[must_use]
    pub fn of<'a>(
        sender: &str,
        own: &str,
        roster: &Roster,
        directed: impl IntoIterator<Item = &'a Directed>,
    ) -> Self {
        Self {
            own: sender == own,
            subscriber: roster.is_subscriber(sender),
            directed: directed.into_iter().any(|directed| directed.reaches(sender)),
            local_domain: false,
        }
    }

    /// Whether one of the facts holds.
    #[must_use]
    pub const fn holds(self) -> bool {
        self.own || self.subscriber || self.directed || self.local_domain
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::roster::{Item, Subscription};

    const OWN: &str = "juliet@example.com";

    fn contact(jid: &str, subscription: Subscription) -> Item {
        let mut item = Item::new(jid::BareJid::new(jid).unwrap());
        item.subscription = subscription;
        item
    }

    #[test]
    fn iq_2_subscribers_and_own_sessions_are_entitled() {
        let roster = Roster::from_items(
            [
                contact("from@example.net", Subscription::From),
                contact("both@example.net", Subscription::Both),
                contact("to@example.net", Subscription::To),
                contact("none@example.net", Subscription::None),
            ],
            0,
            [],
        );
        let entitled = |sender| Entitlement::of(sender, OWN, &roster, []).holds();
        for sender in [OWN, "from@example.net", "both@example.net"] {
            assert!(entitled(sender), "{sender}");
        }
        for sender in ["to@example.net", "none@example.net", "stranger@example.net", "example.com"]
        {
            assert!(!entitled(sender), "{sender}");
        }
    }

    #[test]
    fn iq_2_directed_presence_is_judged_by_the_bare_jid() {
        let mut directed = Directed::new();
        directed.record("room@muc.example.org/juliet", 10).unwrap();
        let sessions = [Directed::new(), directed];
        let entitled = |sender| Entitlement::of(sender, OWN, &Roster::new(), &sessions).holds();
        assert!(entitled("room@muc.example.org"));
        assert!(!entitled("room@muc.example.or"));
        assert!(!entitled("other@muc.example.org"));
    }

    #[test]
    fn iq_2_local_domains_are_entitled() {
        let facts = Entitlement { local_domain: true, ..Entitlement::default() };
        assert!(facts.holds());
        assert!(!Entitlement::default().holds());
    }
}
