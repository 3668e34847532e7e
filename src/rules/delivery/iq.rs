//! Info/query (RFC 6121 §8.5; RFC 6120 §8.2.3, §10.3.3, §10.5).

/// Where an iq is addressed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IqSituation {
    /// No `to`, or the sender's own bare JID.
    OwnAccount,
    /// The bare JID of another account, or of one that does not exist: a handler is asked as by a
    /// stranger (rule IQ-7).
    OtherAccount,
    /// A full JID that is connected.
    FullMatch {
        /// Whether the sender may know that: see [`Relation`](super::Relation).
        entitled: bool,
    },
    /// A full JID that is not connected, whether or not there is such an account.
    FullWithoutMatch,
    /// The domain, with or without resource.
    Domain,
}

/// What becomes of an iq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum IqDecision {
    /// To a handler; without one for this payload, [`Bounce`](Self::Bounce). Never to a session
    /// (rule IQ-1).
    Handler,
    /// To the session that is addressed.
    Addressed,
    /// Back to the sender, as [`BOUNCE`](super::BOUNCE).
    Bounce,
    /// To the request of the server that it answers; if there is none, nowhere (rule IQ-4).
    Consume,
    /// Nowhere.
    Silent,
}

/// Decides where an iq goes (rules IQ-T1 and IQ-T2). `is_request`: type get or set, not result or error.
#[must_use]
pub(crate) const fn iq(is_request: bool, situation: IqSituation) -> IqDecision {
    use IqDecision::{Addressed, Bounce, Consume, Handler, Silent};
    #[rustfmt::skip]
    let (request, response) = match situation {
        IqSituation::OwnAccount                    => (Handler,   Consume),
        IqSituation::OtherAccount                  => (Handler,   Silent),
        IqSituation::FullMatch { entitled: true }  => (Addressed, Addressed),
        IqSituation::FullMatch { entitled: false } => (Bounce,    Addressed),
        IqSituation::FullWithoutMatch              => (Bounce,    Silent),
        IqSituation::Domain                        => (Handler,   Consume),
    };
    if is_request { request } else { response }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SITUATIONS: [IqSituation; 6] = [
        IqSituation::OwnAccount,
        IqSituation::OtherAccount,
        IqSituation::FullMatch { entitled: true },
        IqSituation::FullMatch { entitled: false },
        IqSituation::FullWithoutMatch,
        IqSituation::Domain,
    ];

    fn row(is_request: bool) -> String {
        let cells = SITUATIONS.map(|situation| match iq(is_request, situation) {
            IqDecision::Handler => "handler",
            IqDecision::Addressed => "D",
            IqDecision::Bounce => "E",
            IqDecision::Consume => "consumed",
            IqDecision::Silent => "S",
        });
        cells.join(" ")
    }

    #[test]
    fn iq_t1_requests() {
        assert_eq!(row(true), "handler handler D E E handler");
    }

    #[test]
    fn iq_t2_responses_are_never_answered() {
        assert_eq!(row(false), "consumed S D D S consumed");
    }

    #[test]
    fn iq_1_a_bare_jid_never_means_a_session() {
        for situation in [IqSituation::OwnAccount, IqSituation::OtherAccount] {
            assert_ne!(iq(true, situation), IqDecision::Addressed);
            assert_ne!(iq(false, situation), IqDecision::Addressed);
        }
    }
}
