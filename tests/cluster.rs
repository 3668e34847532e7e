//! Several nodes in one process: one module for each behaviour.

#![cfg(feature = "cluster")]

#[cfg(test)]
#[path = "cluster_presence.rs"]
mod cluster_presence;
