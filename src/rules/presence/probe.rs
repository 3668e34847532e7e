//! Answers to probes (RFC 6121 §4.3.2, §4.6.6).

/// What the answer to a probe depends on. For an account that does not exist all four are false, and
/// the answer is the one that a stranger gets from an existing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Probe {
    /// It is addressed to a full JID.
    pub(crate) full: bool,
    /// Its sender sees the account's presence: a subscriber, or the account itself.
    pub(crate) subscriber: bool,
    /// The session that is addressed, or for a bare JID any session, is available.
    pub(crate) available: bool,
    /// Its sender holds directed presence of the session that is addressed, or for a bare JID of any
    /// session ([`Directed::reaches`](super::Directed::reaches)).
    pub(crate) directed: bool,
}

/// The answer to a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum ProbeAnswer {
    /// `unsubscribed` from the bare JID with the probe's id; no state changes (rule PRES-14).
    Unsubscribed,
    /// `unavailable` from the JID that was probed: for a bare one with the probe's id and the time of the
    /// last unavailable (rule PRES-15).
    Unavailable,
    /// The last broadcast presence of each available session, whole, with the time it was sent (rule
    /// PRES-16).
    Broadcasts,
    /// `<presence/>` without children from the session that is addressed (rule PRES-18); for a bare
    /// JID from each session whose directed presence the sender holds (rule PRES-17).
    Mere,
}

/// Decides the answer to a probe (rules PRES-14 to PRES-18,
/// [RFC 6121 §4.3.2](https://www.rfc-editor.org/rfc/rfc6121#section-4.3.2)).
#[must_use]
pub(crate) const fn answer_probe(probe: Probe) -> ProbeAnswer {
    match probe {
        Probe { subscriber: true, available: false, .. } => ProbeAnswer::Unavailable,
        Probe { subscriber: true, full: false, .. } => ProbeAnswer::Broadcasts,
        Probe { subscriber: true, full: true, .. } => ProbeAnswer::Mere,
        Probe { subscriber: false, directed: true, .. } => ProbeAnswer::Mere,
        // RFC 6121 §4.3.2 applies its first rule to full JIDs as well.
        Probe { subscriber: false, directed: false, .. } => ProbeAnswer::Unsubscribed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BARE: Probe = Probe { full: false, subscriber: false, available: false, directed: false };
    const FULL: Probe = Probe { full: true, ..BARE };

    #[test]
    fn pres_14_strangers_and_unknown_accounts_are_told_the_same() {
        for available in [false, true] {
            assert_eq!(answer_probe(Probe { available, ..BARE }), ProbeAnswer::Unsubscribed);
            assert_eq!(answer_probe(Probe { available, ..FULL }), ProbeAnswer::Unsubscribed);
        }
    }

    #[test]
    fn pres_15_a_subscriber_learns_that_nobody_is_available() {
        assert_eq!(answer_probe(Probe { subscriber: true, ..BARE }), ProbeAnswer::Unavailable);
    }

    #[test]
    fn pres_16_a_subscriber_gets_the_broadcasts() {
        assert_eq!(
            answer_probe(Probe { subscriber: true, available: true, ..BARE }),
            ProbeAnswer::Broadcasts
        );
    }

    #[test]
    fn pres_17_directed_presence_is_confirmed_and_no_more() {
        for available in [false, true] {
            assert_eq!(
                answer_probe(Probe { directed: true, available, ..BARE }),
                ProbeAnswer::Mere
            );
            assert_eq!(
                answer_probe(Probe { directed: true, available, ..FULL }),
                ProbeAnswer::Mere
            );
        }
    }

    #[test]
    fn pres_18_a_full_jid_is_answered_for_itself_only() {
        assert_eq!(
            answer_probe(Probe { subscriber: true, available: true, ..FULL }),
            ProbeAnswer::Mere
        );
        assert_eq!(answer_probe(Probe { subscriber: true, ..FULL }), ProbeAnswer::Unavailable);
        assert_eq!(
            answer_probe(Probe { subscriber: true, directed: true, ..FULL }),
            ProbeAnswer::Unavailable
        );
    }
}
