//! Every cell of the inbound table as `docs/rules.md` section 6 has it.

use super::SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};
use super::{State, inbound_cell};

#[test]
fn sub_i1_n_subscribe() {
    inbound_cell(State::None, Subscribe, "PI D (e)");
}

#[test]
fn sub_i1_po_subscribe() {
    inbound_cell(State::PendingOut, Subscribe, "POI D (e)");
}

#[test]
fn sub_i1_pi_subscribe() {
    inbound_cell(State::PendingIn, Subscribe, "=");
}

#[test]
fn sub_i1_poi_subscribe() {
    inbound_cell(State::PendingOutIn, Subscribe, "=");
}

#[test]
fn sub_i1_t_subscribe() {
    inbound_cell(State::To, Subscribe, "TPI D (e)");
}

#[test]
fn sub_i1_tpi_subscribe() {
    inbound_cell(State::ToPendingIn, Subscribe, "=");
}

#[test]
fn sub_i1_f_subscribe() {
    inbound_cell(State::From, Subscribe, "= A:subscribed (f)");
}

#[test]
fn sub_i1_fpo_subscribe() {
    inbound_cell(State::FromPendingOut, Subscribe, "= A:subscribed (f)");
}

#[test]
fn sub_i1_b_subscribe() {
    inbound_cell(State::Both, Subscribe, "= A:subscribed (f)");
}

#[test]
fn sub_i2_n_unsubscribe() {
    inbound_cell(State::None, Unsubscribe, "=");
}

#[test]
fn sub_i2_po_unsubscribe() {
    inbound_cell(State::PendingOut, Unsubscribe, "=");
}

#[test]
fn sub_i2_pi_unsubscribe() {
    inbound_cell(State::PendingIn, Unsubscribe, "N D A:unsubscribed (g)");
}

#[test]
fn sub_i2_poi_unsubscribe() {
    inbound_cell(State::PendingOutIn, Unsubscribe, "PO D A:unsubscribed");
}

#[test]
fn sub_i2_t_unsubscribe() {
    inbound_cell(State::To, Unsubscribe, "=");
}

#[test]
fn sub_i2_tpi_unsubscribe() {
    inbound_cell(State::ToPendingIn, Unsubscribe, "T D A:unsubscribed");
}

#[test]
fn sub_i2_f_unsubscribe() {
    inbound_cell(State::From, Unsubscribe, "N D P A:unsubscribed (h)");
}

#[test]
fn sub_i2_fpo_unsubscribe() {
    inbound_cell(State::FromPendingOut, Unsubscribe, "PO D P A:unsubscribed (h)");
}

#[test]
fn sub_i2_b_unsubscribe() {
    inbound_cell(State::Both, Unsubscribe, "T D P A:unsubscribed (h)");
}

#[test]
fn sub_i3_n_subscribed() {
    inbound_cell(State::None, Subscribed, "=");
}

#[test]
fn sub_i3_po_subscribed() {
    inbound_cell(State::PendingOut, Subscribed, "T D P");
}

#[test]
fn sub_i3_pi_subscribed() {
    inbound_cell(State::PendingIn, Subscribed, "=");
}

#[test]
fn sub_i3_poi_subscribed() {
    inbound_cell(State::PendingOutIn, Subscribed, "TPI D P");
}

#[test]
fn sub_i3_t_subscribed() {
    inbound_cell(State::To, Subscribed, "=");
}

#[test]
fn sub_i3_tpi_subscribed() {
    inbound_cell(State::ToPendingIn, Subscribed, "=");
}

#[test]
fn sub_i3_f_subscribed() {
    inbound_cell(State::From, Subscribed, "=");
}

#[test]
fn sub_i3_fpo_subscribed() {
    inbound_cell(State::FromPendingOut, Subscribed, "B D P");
}

#[test]
fn sub_i3_b_subscribed() {
    inbound_cell(State::Both, Subscribed, "=");
}

#[test]
fn sub_i4_n_unsubscribed() {
    inbound_cell(State::None, Unsubscribed, "=");
}

#[test]
fn sub_i4_po_unsubscribed() {
    inbound_cell(State::PendingOut, Unsubscribed, "N D P");
}

#[test]
fn sub_i4_pi_unsubscribed() {
    inbound_cell(State::PendingIn, Unsubscribed, "=");
}

#[test]
fn sub_i4_poi_unsubscribed() {
    inbound_cell(State::PendingOutIn, Unsubscribed, "PI D P");
}

#[test]
fn sub_i4_t_unsubscribed() {
    inbound_cell(State::To, Unsubscribed, "N D P");
}

#[test]
fn sub_i4_tpi_unsubscribed() {
    inbound_cell(State::ToPendingIn, Unsubscribed, "PI D P");
}

#[test]
fn sub_i4_f_unsubscribed() {
    inbound_cell(State::From, Unsubscribed, "=");
}

#[test]
fn sub_i4_fpo_unsubscribed() {
    inbound_cell(State::FromPendingOut, Unsubscribed, "F D P");
}

#[test]
fn sub_i4_b_unsubscribed() {
    inbound_cell(State::Both, Unsubscribed, "F D P");
}
