//! Who may reach a full JID, and learn by it that the resource is there.

/// What the sender of an iq is to the account that is asked: all but strangers are *entitled*
/// (rules IQ-2 and SEC-4,
/// [RFC 6121 §8.5.3.1](https://www.rfc-editor.org/rfc/rfc6121#section-8.5.3.1)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Relation {
    /// The account itself.
    Own,
    /// May see its presence: a subscriber, or a domain that this server serves.
    Subscriber,
    /// A session of the account sent it directed presence: to its bare JID or to any of its full
    /// ones, so that in a joined room each occupant passes.
    Directed,
    /// None of these.
    Stranger,
}

impl Relation {
    /// The closest relation that holds; what costs more is asked only where what costs less does not hold.
    #[must_use]
    pub(crate) fn of(
        own: bool,
        subscriber: impl FnOnce() -> bool,
        directed: impl FnOnce() -> bool,
    ) -> Self {
        if own {
            Self::Own
        } else if subscriber() {
            Self::Subscriber
        } else if directed() {
            Self::Directed
        } else {
            Self::Stranger
        }
    }

    /// Whether the sender may know of the account's presence.
    #[must_use]
    pub(crate) const fn is_entitled(self) -> bool {
        !matches!(self, Self::Stranger)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iq_2_one_fact_is_enough() {
        for facts in 0..8 {
            let [own, subscriber, directed] = [1, 2, 4].map(|fact| facts & fact != 0);
            let relation = Relation::of(own, || subscriber, || directed);
            assert_eq!(relation.is_entitled(), facts != 0, "{facts:03b}");
            assert_eq!(relation == Relation::Own, own);
            // Who sees all sessions is not shown only those that directed presence to it.
            assert_eq!(relation == Relation::Directed, directed && !own && !subscriber);
        }
    }
}
