//! Several nodes as one server: what holds for accounts of one server holds across nodes (section 18 of the rules).

#![cfg(all(feature = "cluster", feature = "server"))]

#[cfg(test)]
mod common {
    pub(crate) mod nodes;
}

#[cfg(test)]
#[path = "cluster_acts.rs"]
mod cluster_acts;
#[cfg(test)]
#[path = "cluster_clients.rs"]
mod cluster_clients;
#[cfg(test)]
#[path = "cluster_presence.rs"]
mod cluster_presence;
#[cfg(test)]
#[path = "nodes.rs"]
mod nodes;
