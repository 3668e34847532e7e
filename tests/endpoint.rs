//! The endpoint on the wire: one module for each behaviour, in one binary so that it is linked once.

#![cfg(feature = "server")]

#[cfg(test)]
mod common {
    pub(crate) mod contacts;
    pub(crate) mod faults;
    pub(crate) mod login;
    pub(crate) mod slow;
    pub(crate) mod wire;
}

#[cfg(test)]
#[path = "addresses.rs"]
mod addresses;
#[cfg(test)]
#[path = "amplification.rs"]
mod amplification;
#[cfg(test)]
#[path = "bind_wire.rs"]
mod bind_wire;
#[cfg(test)]
#[path = "blocking.rs"]
mod blocking;
#[cfg(test)]
#[path = "blocking_table.rs"]
mod blocking_table;
#[cfg(test)]
#[path = "carbons.rs"]
mod carbons;
#[cfg(test)]
#[path = "certificates.rs"]
mod certificates;

#[cfg(test)]
#[path = "client_state.rs"]
mod client_state;
#[cfg(test)]
#[path = "contacts.rs"]
mod contacts;
#[cfg(test)]
#[path = "contacts_model.rs"]
mod contacts_model;
#[cfg(test)]
#[path = "crowds.rs"]
mod crowds;
#[cfg(test)]
#[path = "ends.rs"]
mod ends;
#[cfg(test)]
#[path = "entities.rs"]
mod entities;
#[cfg(test)]
#[path = "extensions.rs"]
mod extensions;
#[cfg(test)]
#[path = "fast.rs"]
mod fast;
#[cfg(test)]
#[path = "faults.rs"]
mod faults;
#[cfg(test)]
#[path = "guests.rs"]
mod guests;
#[cfg(test)]
#[path = "hostile.rs"]
mod hostile;
#[cfg(test)]
#[path = "iq.rs"]
mod iq;
#[cfg(test)]
#[path = "limits.rs"]
mod limits;
#[cfg(test)]
#[path = "logins.rs"]
mod logins;
#[cfg(test)]
#[path = "messages.rs"]
mod messages;
#[cfg(test)]
#[path = "offline.rs"]
mod offline;
#[cfg(test)]
#[path = "order.rs"]
mod order;
#[cfg(test)]
#[path = "overview.rs"]
mod overview;
#[cfg(test)]
#[path = "paced.rs"]
mod paced;
#[cfg(test)]
#[path = "recipes.rs"]
mod recipes;
#[cfg(test)]
#[path = "registration.rs"]
mod registration;
#[cfg(test)]
#[path = "reports.rs"]
mod reports;
#[cfg(test)]
#[path = "reviews.rs"]
mod reviews;
#[cfg(test)]
#[path = "roster.rs"]
mod roster;
#[cfg(test)]
#[path = "sasl.rs"]
mod sasl;
#[cfg(test)]
#[path = "sasl2.rs"]
mod sasl2;
#[cfg(test)]
#[path = "stanzas.rs"]
mod stanzas;
#[cfg(test)]
#[path = "stream.rs"]
mod stream;
#[cfg(test)]
#[path = "stream_management.rs"]
mod stream_management;
#[cfg(test)]
#[path = "subscriptions.rs"]
mod subscriptions;
#[cfg(test)]
#[path = "tokens.rs"]
mod tokens;
#[cfg(test)]
#[path = "upgrades.rs"]
mod upgrades;
#[cfg(test)]
#[path = "waiting.rs"]
mod waiting;
#[cfg(test)]
#[path = "websocket.rs"]
mod websocket;
#[cfg(test)]
#[path = "xep.rs"]
mod xep;
