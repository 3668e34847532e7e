//! Two accounts that send each other random stanzas, against a naive reading of RFC 6121 §3.

use std::collections::VecDeque;

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::{Step, SubscriptionKind, inbound, outbound};
use crate::rules::roster::{Item, Roster};

/// One party in the words of sections 3.1–3.4: flags, no states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Prose {
    sees: bool,
    seen: bool,
    asks: bool,
    asked: bool,
    approved: bool,
}

impl Prose {
    /// The account's client sends; what goes on to the contact.
    fn send(&mut self, kind: SubscriptionKind) -> Vec<SubscriptionKind> {
        match kind {
            SubscriptionKind::Subscribe => {
                self.asks |= !self.sees;
                vec![kind]
            }
            SubscriptionKind::Unsubscribe => {
                (self.asks, self.sees) = (false, false);
                vec![kind]
            }
            SubscriptionKind::Subscribed if self.asked => {
                (self.asked, self.seen) = (false, true);
                vec![kind]
            }
            SubscriptionKind::Subscribed => {
                self.approved |= !self.seen;
                vec![]
            }
            SubscriptionKind::Unsubscribed if self.asked || self.seen => {
                (self.asked, self.seen) = (false, false);
                vec![kind]
            }
            SubscriptionKind::Unsubscribed => {
                self.approved = false;
                vec![]
            }
        }
    }

    /// The contact's stanza arrives; what goes back to it. `listed` as the roster has it.
    fn receive(&mut self, kind: SubscriptionKind, listed: bool) -> Vec<SubscriptionKind> {
        match kind {
            SubscriptionKind::Subscribe if self.seen => vec![SubscriptionKind::Subscribed],
            SubscriptionKind::Subscribe if self.approved => {
                (self.approved, self.seen) = (false, true);
                vec![SubscriptionKind::Subscribed]
            }
            SubscriptionKind::Subscribe => {
                self.asked = true;
                vec![]
            }
            SubscriptionKind::Unsubscribe if self.seen || self.asked => {
                (self.seen, self.asked) = (false, false);
                if listed { vec![SubscriptionKind::Unsubscribed] } else { vec![] }
            }
            SubscriptionKind::Unsubscribe => vec![],
            SubscriptionKind::Subscribed => {
                self.sees |= self.asks;
                self.asks = false;
                vec![]
            }
            SubscriptionKind::Unsubscribed => {
                (self.sees, self.asks) = (false, false);
                vec![]
            }
        }
    }
}

/// One party as the crate keeps it.
struct Party {
    roster: Roster,
    contact: jid::BareJid,
    prose: Prose,
    waiting: VecDeque<SubscriptionKind>,
}

impl Party {
    fn new(contact: &str) -> Self {
        let contact = jid::BareJid::new(contact).unwrap();
        Self { roster: Roster::new(), contact, prose: Prose::default(), waiting: VecDeque::new() }
    }

    fn standing(&self) -> super::Standing {
        self.roster.standing(self.contact.as_str())
    }

    /// Carries a transition out; what goes to the contact.
    fn apply(
        &mut self,
        transition: super::Transition,
        sent: SubscriptionKind,
    ) -> Vec<SubscriptionKind> {
        let present: Option<Item> = self.roster.item(&self.contact);
        let version = self.roster.version();
        if let Some(item) = transition.item(&self.contact, present) {
            self.roster.put(&item);
        }
        match transition.request() {
            Some(super::RequestChange::Store) => assert!(self.roster.add_request(&self.contact)),
            Some(super::RequestChange::Drop) => {
                assert!(self.roster.remove_request(self.contact.as_str()))
            }
            None => {}
        }
        let pushed = transition.steps().contains(&Step::Push);
        assert_eq!(
            self.roster.version(),
            version + u64::from(pushed),
            "pushes and versions go together"
        );
        assert_eq!(self.standing().state, transition.state, "the state is what the roster shows");
        let out = transition.steps().iter().filter_map(|step| match step {
            Step::Route => Some(sent),
            Step::Reply(kind) => Some(*kind),
            _ => None,
        });
        out.collect()
    }

    fn send(&mut self, kind: SubscriptionKind) -> Vec<SubscriptionKind> {
        let transition = outbound(self.standing(), kind);
        let out = self.apply(transition, kind);
        assert_eq!(out, self.prose.send(kind));
        self.agree();
        out
    }

    fn receive(&mut self) -> Vec<SubscriptionKind> {
        let Some(kind) = self.waiting.pop_front() else { return vec![] };
        let listed = self.standing().listed;
        let transition = inbound(self.standing(), kind);
        let out = self.apply(transition, kind);
        assert_eq!(out, self.prose.receive(kind, listed));
        self.agree();
        out
    }

    fn agree(&self) {
        let state = self.standing().state;
        let shown = Prose {
            sees: state.subscription().has_to(),
            seen: state.subscription().has_from(),
            asks: state.is_pending_out(),
            asked: state.is_pending_in(),
            approved: self.standing().approved,
        };
        assert_eq!(shown, self.prose);
    }
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Send(usize, SubscriptionKind),
    Receive(usize),
}

fn sends() -> impl Strategy<Value = Move> {
    (0..2usize, prop::sample::select(super::KINDS.to_vec()))
        .prop_map(|(who, kind)| Move::Send(who, kind))
}

fn play(parties: &mut [Party; 2], action: Move) {
    let (who, out) = match action {
        Move::Send(who, kind) => (who, parties[who].send(kind)),
        Move::Receive(who) => (who, parties[who].receive()),
    };
    parties[1 - who].waiting.extend(out);
}

/// Delivers until nothing is under way.
fn settle(parties: &mut [Party; 2]) {
    for turn in 0.. {
        assert!(turn < 1000, "replies to replies without end");
        if parties.iter().all(|party| party.waiting.is_empty()) {
            break;
        }
        play(parties, Move::Receive(turn % 2));
    }
}

proptest! {
    #[test]
    fn sub_4_two_parties_agree_when_stanzas_do_not_cross(sends in vec(sends(), 0..40)) {
        let mut parties = [Party::new("b@example.com"), Party::new("a@example.com")];
        for send in sends {
            play(&mut parties, send);
            settle(&mut parties);
            for who in 0..2 {
                let (own, other) = (parties[who].standing().state, parties[1 - who].standing().state);
                prop_assert_eq!(own.subscription().has_to(), other.subscription().has_from());
                prop_assert_eq!(own.is_pending_out(), other.is_pending_in());
            }
        }
    }

    #[test]
    fn sub_11_stanzas_that_cross_follow_the_prose_and_never_let_a_stranger_in(
        moves in vec(prop_oneof![sends(), (0..2usize).prop_map(Move::Receive)], 0..60)
    ) {
        let mut parties = [Party::new("b@example.com"), Party::new("a@example.com")];
        let mut consents = [false; 2];
        for action in moves {
            match action {
                Move::Send(who, SubscriptionKind::Subscribed) => consents[who] = true,
                Move::Send(who, SubscriptionKind::Unsubscribed) => consents[who] = false,
                _ => {}
            }
            play(&mut parties, action);
            for (party, consent) in parties.iter().zip(consents) {
                prop_assert!(consent || !party.standing().state.subscription().has_from());
            }
        }
        settle(&mut parties);
    }
}
