//! Tables 2–9 of RFC 6121 Appendix A, with the notes that its sections 3.1–3.4 add.

use super::State::{
    Both as B, From as F, FromPendingOut as FPO, None as N, PendingIn as PI, PendingOut as PO,
    PendingOutIn as POI, To as T, ToPendingIn as TPI,
};
use super::{Farewell, Standing, State, Step, SubscriptionKind, Transition};
use SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};

/// New state and steps.
type Cell = (State, &'static [Step]);

const NOTHING: &[Step] = &[];
const ROUTE: &[Step] = &[Step::Route];
const PUSH: &[Step] = &[Step::Push];
const DELIVER: &[Step] = &[Step::Deliver];

/// The client sees the change, and the contact learns of it first (rule SUB-2).
const ROUTE_PUSH: &[Step] = &[Step::Route, Step::Push];

/// Note (b): the contact is told, the clients are, then it gets the presence it may now see
/// (RFC 6121 §3.1.5).
const APPROVE: &[Step] = &[Step::Route, Step::Push, Step::Current];

/// Note (d): unavailable goes out while the contact is still subscribed (RFC 6121 §3.2.2).
const CANCEL: &[Step] = &[Step::Unavailable, Step::Route, Step::Push];

const DELIVER_PUSH: &[Step] = &[Step::Deliver, Step::Push];

const WITHDRAWN: &[Step] = &[Step::Deliver, Step::Reply(Unsubscribed)];

/// Note (h): RFC 6121 §3.3.3.
const LEFT: &[Step] = &[Step::Deliver, Step::Push, Step::Unavailable, Step::Reply(Unsubscribed)];

/// Note (f): a contact that asks again has forgotten both the approval and the presence (RFC 6121 §3.1.3(2)).
const REPEAT: &[Step] = &[Step::Reply(Subscribed), Step::Current];

/// Note (e): the user is not asked, only shown the outcome (RFC 6121 §3.4.2).
const PRE_APPROVED: &[Step] = &[Step::Reply(Subscribed), Step::Push, Step::Current];

/// What a subscription stanza does that the account's own client sends (RFC 6121 §A.2, Tables 2–5;
/// rules SUB-O1 to SUB-O4).
pub(crate) const fn outbound(standing: Standing, kind: SubscriptionKind) -> Transition {
    let Standing { state, approved, .. } = standing;
    #[rustfmt::skip]
    let [subscribe, unsubscribe, subscribed, unsubscribed]: [Cell; 4] = match state {
        N   => [(PO, ROUTE_PUSH),  (N, ROUTE),       (N, NOTHING),   (N, NOTHING)],
        PO  => [(PO, ROUTE),       (N, ROUTE_PUSH),  (PO, NOTHING),  (PO, NOTHING)],
        PI  => [(POI, ROUTE_PUSH), (PI, ROUTE),      (F, APPROVE),   (N, ROUTE)],
        POI => [(POI, ROUTE),      (PI, ROUTE_PUSH), (FPO, APPROVE), (PO, ROUTE)],
        T   => [(T, ROUTE),        (N, ROUTE_PUSH),  (T, NOTHING),   (T, NOTHING)],
        TPI => [(TPI, ROUTE),      (PI, ROUTE_PUSH), (B, APPROVE),   (T, ROUTE)],
        F   => [(FPO, ROUTE_PUSH), (F, ROUTE),       (F, NOTHING),   (N, CANCEL)],
        FPO => [(FPO, ROUTE),      (F, ROUTE_PUSH),  (FPO, NOTHING), (PO, CANCEL)],
        B   => [(B, ROUTE),        (F, ROUTE_PUSH),  (B, NOTHING),   (T, CANCEL)],
    };
    let (to, steps, approved_after) = match kind {
        Subscribe => (subscribe.0, subscribe.1, approved),
        Unsubscribe => (unsubscribe.0, unsubscribe.1, approved),
        // RFC 6121 §3.4.2: an approval that nobody asked for yet is kept, and never routed.
        Subscribed if !approved && matches!(state, N | PO | T) => (state, PUSH, true),
        Subscribed => (subscribed.0, subscribed.1, approved),
        // Note (a): RFC 6121 §3.2.2(2).
        Unsubscribed if approved && matches!(state, N | PO | T) => (state, PUSH, false),
        Unsubscribed => (unsubscribed.0, unsubscribed.1, approved),
    };
    Transition { from: standing, state: to, approved: approved_after, steps }
}

/// What a subscription stanza does that comes from the contact (RFC 6121 §A.3, Tables 6–9; rules
/// SUB-I1 to SUB-I4).
pub(crate) const fn inbound(standing: Standing, kind: SubscriptionKind) -> Transition {
    let Standing { state, approved, listed } = standing;
    #[rustfmt::skip]
    let [subscribe, unsubscribe, subscribed, unsubscribed]: [Cell; 4] = match state {
        N   => [(PI, DELIVER),  (N, NOTHING),    (N, NOTHING),        (N, NOTHING)],
        PO  => [(POI, DELIVER), (PO, NOTHING),   (T, DELIVER_PUSH),   (N, DELIVER_PUSH)],
        PI  => [(PI, NOTHING),  (N, WITHDRAWN),  (PI, NOTHING),       (PI, NOTHING)],
        POI => [(POI, NOTHING), (PO, WITHDRAWN), (TPI, DELIVER_PUSH), (PI, DELIVER_PUSH)],
        T   => [(TPI, DELIVER), (T, NOTHING),    (T, NOTHING),        (N, DELIVER_PUSH)],
        TPI => [(TPI, NOTHING), (T, WITHDRAWN),  (TPI, NOTHING),      (PI, DELIVER_PUSH)],
        F   => [(F, REPEAT),    (N, LEFT),       (F, NOTHING),        (F, NOTHING)],
        FPO => [(FPO, REPEAT),  (PO, LEFT),      (B, DELIVER_PUSH),   (F, DELIVER_PUSH)],
        B   => [(B, REPEAT),    (T, LEFT),       (B, NOTHING),        (F, DELIVER_PUSH)],
    };
    let (to, steps, approved_after) = match (kind, state) {
        (Subscribe, N) if approved => (F, PRE_APPROVED, false),
        (Subscribe, PO) if approved => (FPO, PRE_APPROVED, false),
        (Subscribe, T) if approved => (B, PRE_APPROVED, false),
        (Subscribe, _) => (subscribe.0, subscribe.1, approved),
        // Note (g): the user was never shown an item, so RFC 6121 §3.3.3 is followed against Table 7.
        (Unsubscribe, PI) if !listed => (N, NOTHING, approved),
        (Unsubscribe, _) => (unsubscribe.0, unsubscribe.1, approved),
        (Subscribed, _) => (subscribed.0, subscribed.1, approved),
        (Unsubscribed, _) => (unsubscribed.0, unsubscribed.1, approved),
    };
    Transition { from: standing, state: to, approved: approved_after, steps }
}

/// What a contact is told when its item is removed, in order (RFC 6121 §2.5.2; rule ROSTER-15). A
/// stored request is dropped with it.
#[must_use]
pub(crate) const fn removal(state: State) -> &'static [Farewell] {
    const ENDS: Farewell = Farewell::Send(Unsubscribed);
    const LEAVES: Farewell = Farewell::Send(Unsubscribe);
    match state {
        N => &[],
        PO | T => &[LEAVES],
        PI => &[ENDS],
        POI | TPI => &[ENDS, LEAVES],
        F => &[Farewell::Unavailable, ENDS],
        FPO | B => &[Farewell::Unavailable, ENDS, LEAVES],
    }
}
