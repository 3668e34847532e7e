//! Every cell of the outbound table as `docs/rules.md` section 6 has it.

use super::SubscriptionKind::{Subscribe, Subscribed, Unsubscribe, Unsubscribed};
use super::{State, outbound_cell};

#[test]
fn sub_o1_n_subscribe() {
    outbound_cell(State::None, Subscribe, "PO R P");
}

#[test]
fn sub_o1_po_subscribe() {
    outbound_cell(State::PendingOut, Subscribe, "= R");
}

#[test]
fn sub_o1_pi_subscribe() {
    outbound_cell(State::PendingIn, Subscribe, "POI R P");
}

#[test]
fn sub_o1_poi_subscribe() {
    outbound_cell(State::PendingOutIn, Subscribe, "= R");
}

#[test]
fn sub_o1_t_subscribe() {
    outbound_cell(State::To, Subscribe, "= R");
}

#[test]
fn sub_o1_tpi_subscribe() {
    outbound_cell(State::ToPendingIn, Subscribe, "= R");
}

#[test]
fn sub_o1_f_subscribe() {
    outbound_cell(State::From, Subscribe, "FPO R P");
}

#[test]
fn sub_o1_fpo_subscribe() {
    outbound_cell(State::FromPendingOut, Subscribe, "= R");
}

#[test]
fn sub_o1_b_subscribe() {
    outbound_cell(State::Both, Subscribe, "= R");
}

#[test]
fn sub_o2_n_unsubscribe() {
    outbound_cell(State::None, Unsubscribe, "= R");
}

#[test]
fn sub_o2_po_unsubscribe() {
    outbound_cell(State::PendingOut, Unsubscribe, "N R P");
}

#[test]
fn sub_o2_pi_unsubscribe() {
    outbound_cell(State::PendingIn, Unsubscribe, "= R");
}

#[test]
fn sub_o2_poi_unsubscribe() {
    outbound_cell(State::PendingOutIn, Unsubscribe, "PI R P");
}

#[test]
fn sub_o2_t_unsubscribe() {
    outbound_cell(State::To, Unsubscribe, "N R P");
}

#[test]
fn sub_o2_tpi_unsubscribe() {
    outbound_cell(State::ToPendingIn, Unsubscribe, "PI R P");
}

#[test]
fn sub_o2_f_unsubscribe() {
    outbound_cell(State::From, Unsubscribe, "= R");
}

#[test]
fn sub_o2_fpo_unsubscribe() {
    outbound_cell(State::FromPendingOut, Unsubscribe, "F R P");
}

#[test]
fn sub_o2_b_unsubscribe() {
    outbound_cell(State::Both, Unsubscribe, "F R P");
}

#[test]
fn sub_o3_n_subscribed() {
    outbound_cell(State::None, Subscribed, "= + P");
}

#[test]
fn sub_o3_po_subscribed() {
    outbound_cell(State::PendingOut, Subscribed, "= + P");
}

#[test]
fn sub_o3_pi_subscribed() {
    outbound_cell(State::PendingIn, Subscribed, "F R P (b)");
}

#[test]
fn sub_o3_poi_subscribed() {
    outbound_cell(State::PendingOutIn, Subscribed, "FPO R P (b)");
}

#[test]
fn sub_o3_t_subscribed() {
    outbound_cell(State::To, Subscribed, "= + P");
}

#[test]
fn sub_o3_tpi_subscribed() {
    outbound_cell(State::ToPendingIn, Subscribed, "B R P (b)");
}

#[test]
fn sub_o3_f_subscribed() {
    outbound_cell(State::From, Subscribed, "=");
}

#[test]
fn sub_o3_fpo_subscribed() {
    outbound_cell(State::FromPendingOut, Subscribed, "=");
}

#[test]
fn sub_o3_b_subscribed() {
    outbound_cell(State::Both, Subscribed, "=");
}

#[test]
fn sub_o4_n_unsubscribed() {
    outbound_cell(State::None, Unsubscribed, "= (a)");
}

#[test]
fn sub_o4_po_unsubscribed() {
    outbound_cell(State::PendingOut, Unsubscribed, "= (a)");
}

#[test]
fn sub_o4_pi_unsubscribed() {
    outbound_cell(State::PendingIn, Unsubscribed, "N R (c)");
}

#[test]
fn sub_o4_poi_unsubscribed() {
    outbound_cell(State::PendingOutIn, Unsubscribed, "PO R (c)");
}

#[test]
fn sub_o4_t_unsubscribed() {
    outbound_cell(State::To, Unsubscribed, "= (a)");
}

#[test]
fn sub_o4_tpi_unsubscribed() {
    outbound_cell(State::ToPendingIn, Unsubscribed, "T R (c)");
}

#[test]
fn sub_o4_f_unsubscribed() {
    outbound_cell(State::From, Unsubscribed, "N R P (d)");
}

#[test]
fn sub_o4_fpo_unsubscribed() {
    outbound_cell(State::FromPendingOut, Unsubscribed, "PO R P (d)");
}

#[test]
fn sub_o4_b_unsubscribed() {
    outbound_cell(State::Both, Unsubscribed, "T R P (d)");
}
