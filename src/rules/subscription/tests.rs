//! Each cell is written as in `docs/rules.md` section 6 and read here without a look at the table:
//! new state (`=` unchanged), **R**oute or **D**eliver, **P**ush, `A:` auto-reply, `+` approved, note.

use super::*;

mod inbound;
mod model;
mod outbound;

fn state_named(name: &str) -> State {
    match name {
        "N" => State::None,
        "PO" => State::PendingOut,
        "PI" => State::PendingIn,
        "POI" => State::PendingOutIn,
        "T" => State::To,
        "TPI" => State::ToPendingIn,
        "F" => State::From,
        "FPO" => State::FromPendingOut,
        "B" => State::Both,
        _ => panic!("no state {name}"),
    }
}

/// What a cell says for a listed contact without pre-approval.
struct Cell<'a> {
    words: Vec<&'a str>,
    state: State,
}

impl<'a> Cell<'a> {
    fn read(text: &'a str, before: State) -> Self {
        let mut words: Vec<&str> = text.split(' ').collect();
        let state = match words.remove(0) {
            "=" => before,
            name => state_named(name),
        };
        Self { words, state }
    }

    fn has(&self, word: &str) -> bool {
        self.words.contains(&word)
    }

    fn check(&self, transition: &Transition) {
        assert_eq!(transition.state, self.state);
        let steps = transition.steps();
        assert_eq!(steps.contains(&Step::Route), self.has("R"), "route");
        assert_eq!(steps.contains(&Step::Deliver), self.has("D"), "deliver");
        assert_eq!(steps.contains(&Step::Push), self.has("P"), "push");
        assert_eq!(
            steps.contains(&Step::Reply(SubscriptionKind::Subscribed)),
            self.has("A:subscribed")
        );
        assert_eq!(
            steps.contains(&Step::Reply(SubscriptionKind::Unsubscribed)),
            self.has("A:unsubscribed")
        );
        assert_eq!(
            steps.contains(&Step::Current),
            self.has("(b)") || self.has("(f)"),
            "current presence"
        );
        assert_eq!(
            steps.contains(&Step::Unavailable),
            self.has("(d)") || self.has("(h)"),
            "unavailable"
        );
        assert_eq!(transition.approved, self.has("+"));
        assert_order(steps, Step::Route, Step::Push);
        assert_order(steps, Step::Deliver, Step::Push);
    }
}

/// If both happen, `first` comes before `second`; nothing happens twice.
fn assert_order(steps: &[Step], first: Step, second: Step) {
    let at = |step| {
        let mut places =
            steps.iter().enumerate().filter(|(_, other)| **other == step).map(|(at, _)| at);
        let place = places.next();
        assert_eq!(places.next(), None, "{step:?} twice");
        place
    };
    if let (Some(first), Some(second)) = (at(first), at(second)) {
        assert!(first < second, "{steps:?}");
    }
}

fn listed(state: State, approved: bool) -> Standing {
    Standing { state, approved, listed: true }
}

fn outbound_cell(state: State, kind: SubscriptionKind, text: &str) {
    let cell = Cell::read(text, state);
    let transition = outbound(listed(state, false), kind);
    cell.check(&transition);
    if cell.has("(d)") {
        assert_eq!(transition.steps(), [Step::Unavailable, Step::Route, Step::Push]);
    }
    if cell.has("(b)") {
        assert_order(transition.steps(), Step::Route, Step::Current);
    }
    if cell.has("(a)") {
        let cancelled = outbound(listed(state, true), kind);
        assert!(!cancelled.approved);
        assert_eq!(cancelled.state, cell.state);
        assert_eq!(cancelled.steps(), [Step::Push]);
    }
    if cell.has("+") {
        // The second approval changes nothing, and is not routed either.
        let again = outbound(listed(state, true), kind);
        assert!(again.approved);
        assert!(again.steps().is_empty());
    }
}

fn inbound_cell(state: State, kind: SubscriptionKind, text: &str) {
    let cell = Cell::read(text, state);
    let transition = inbound(listed(state, false), kind);
    cell.check(&transition);
    if cell.has("(e)") {
        let approved = inbound(listed(state, true), kind);
        let expected = match state {
            State::None => State::From,
            State::PendingOut => State::FromPendingOut,
            _ => State::Both,
        };
        assert_eq!(approved.state, expected);
        assert!(!approved.approved);
        assert_eq!(approved.request(), None);
        assert_eq!(
            approved.steps(),
            [Step::Reply(SubscriptionKind::Subscribed), Step::Push, Step::Current]
        );
    }
    if cell.has("(f)") {
        assert_order(transition.steps(), Step::Reply(SubscriptionKind::Subscribed), Step::Current);
    }
    if cell.has("(g)") {
        let stranger = inbound(Standing { state, approved: false, listed: false }, kind);
        assert_eq!(stranger.state, cell.state);
        assert_eq!(stranger.request(), Some(RequestChange::Drop));
        assert!(stranger.steps().is_empty());
    }
    if cell.has("(h)") {
        let reply = Step::Reply(SubscriptionKind::Unsubscribed);
        assert_eq!(transition.steps(), [Step::Deliver, Step::Push, Step::Unavailable, reply]);
    }
}

const KINDS: [SubscriptionKind; 4] = [
    SubscriptionKind::Subscribe,
    SubscriptionKind::Unsubscribe,
    SubscriptionKind::Subscribed,
    SubscriptionKind::Unsubscribed,
];

/// Every standing that can be, every kind, both directions.
fn all() -> impl Iterator<Item = (Standing, Transition)> {
    let standings = State::ALL.into_iter().flat_map(|state| {
        let may_be_unlisted = matches!(state, State::None | State::PendingIn);
        let may_be_approved = matches!(state, State::None | State::PendingOut | State::To);
        let unlisted =
            may_be_unlisted.then_some(Standing { state, approved: false, listed: false });
        let approved = may_be_approved.then_some(listed(state, true));
        unlisted.into_iter().chain(approved).chain([listed(state, false)])
    });
    standings.flat_map(|standing| {
        KINDS.into_iter().flat_map(move |kind| {
            [outbound(standing, kind), inbound(standing, kind)]
                .map(|transition| (standing, transition))
        })
    })
}

fn item_in(standing: Standing) -> Option<Item> {
    let mut item = Item::new(BareJid::new("juliet@example.com").unwrap());
    item.name = Some("Juliet".into());
    item.subscription = standing.state.subscription();
    item.ask = standing.state.is_pending_out();
    item.approved = standing.approved;
    standing.listed.then_some(item)
}

#[test]
fn sub_2_a_push_goes_out_exactly_for_a_visible_change() {
    let contact = BareJid::new("juliet@example.com").unwrap();
    for (standing, transition) in all() {
        let before = item_in(standing);
        let visible = transition.state.subscription() != standing.state.subscription()
            || transition.state.is_pending_out() != standing.state.is_pending_out()
            || transition.approved != standing.approved;
        let after = transition.item(&contact, before.clone());
        assert_eq!(after.is_some(), visible, "{transition:?}");
        assert_eq!(transition.steps().contains(&Step::Push), visible, "{transition:?}");
        if let (Some(before), Some(after)) = (before, after) {
            assert_ne!(before, after, "{transition:?}");
            assert_eq!(before.name, after.name, "{transition:?}");
        }
    }
}

#[test]
fn sub_3_unsubscribe_and_subscribe_are_routed_in_every_state() {
    for state in State::ALL {
        for kind in [SubscriptionKind::Subscribe, SubscriptionKind::Unsubscribe] {
            assert!(
                outbound(listed(state, false), kind).steps().contains(&Step::Route),
                "{state:?} {kind:?}"
            );
        }
    }
}

#[test]
fn sub_9_a_request_is_stored_once_and_makes_no_item() {
    let contact = BareJid::new("juliet@example.com").unwrap();
    let first = inbound(
        Standing { state: State::None, approved: false, listed: false },
        SubscriptionKind::Subscribe,
    );
    assert_eq!(first.request(), Some(RequestChange::Store));
    assert_eq!(first.item(&contact, None), None);
    let second = inbound(
        Standing { state: first.state, approved: false, listed: false },
        SubscriptionKind::Subscribe,
    );
    assert_eq!(second.request(), None);
    assert!(second.steps().is_empty());
}

#[test]
fn sub_11_only_pre_approval_lets_a_stranger_in() {
    for state in State::ALL.into_iter().filter(|state| !state.subscription().has_from()) {
        let transition = inbound(listed(state, false), SubscriptionKind::Subscribe);
        assert!(!transition.state.subscription().has_from());
        assert!(!transition.steps().contains(&Step::Current));
        assert!(!transition.steps().contains(&Step::Reply(SubscriptionKind::Subscribed)));
    }
}

#[test]
fn sub_12_presence_follows_an_approval_at_once() {
    let approved = outbound(listed(State::PendingIn, false), SubscriptionKind::Subscribed);
    assert_eq!(approved.steps(), [Step::Route, Step::Push, Step::Current]);
}

#[test]
fn sub_15_approval_survives_among_none_pending_out_and_to() {
    let walk = [
        outbound(listed(State::None, true), SubscriptionKind::Subscribe),
        inbound(listed(State::PendingOut, true), SubscriptionKind::Subscribed),
        inbound(listed(State::To, true), SubscriptionKind::Unsubscribed),
        outbound(listed(State::To, true), SubscriptionKind::Unsubscribe),
    ];
    let states = walk.map(|transition| transition.state);
    assert_eq!(states, [State::PendingOut, State::To, State::None, State::None]);
    assert!(walk.iter().all(|transition| transition.approved));
}

#[test]
fn roster_15_farewells_leave_nothing_dangling() {
    let told = |state| {
        removal(state)
            .iter()
            .map(|farewell| match farewell {
                Farewell::Unavailable => "unavailable",
                Farewell::Send(kind) => kind.as_str(),
            })
            .collect::<Vec<_>>()
            .join(" ")
    };
    let rows = [
        (State::None, ""),
        (State::PendingOut, "unsubscribe"),
        (State::PendingIn, "unsubscribed"),
        (State::PendingOutIn, "unsubscribed unsubscribe"),
        (State::To, "unsubscribe"),
        (State::ToPendingIn, "unsubscribed unsubscribe"),
        (State::From, "unavailable unsubscribed"),
        (State::FromPendingOut, "unavailable unsubscribed unsubscribe"),
        (State::Both, "unavailable unsubscribed unsubscribe"),
    ];
    for (state, expected) in rows {
        assert_eq!(told(state), expected, "{state:?}");
    }
}

#[test]
fn limit_16_requests_over_the_limits_are_not_admitted() {
    let limits = crate::rules::roster::RequestLimits::default();
    assert!(limits.admit(499, 8192));
    assert!(!limits.admit(500, 1));
    assert!(!limits.admit(0, 8193));
}

#[test]
fn states_are_read_from_what_they_show() {
    for state in State::ALL {
        assert_eq!(
            State::of(state.subscription(), state.is_pending_out(), state.is_pending_in()),
            state
        );
    }
}
