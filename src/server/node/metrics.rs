//! What a node has done, and what it has to do.

use std::time::Duration;

use super::{Clustered, NodeHandle};
use crate::cluster::{Node, View};
use crate::connection::SharedConnection;

/// What there is to say of a node: as of the last time that it had something to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeMetrics {
    /// The nodes of the view that it knows.
    pub members: usize,
    /// That view: a later one is higher.
    pub view: View,
    /// How many of the 1,024 slots of accounts live here.
    pub slots: usize,
    /// Slots that are on their way from here to other nodes.
    pub moving: usize,
    /// Slots that have come from others, or went to them, with all that they had.
    pub moved: u64,
    /// Slots that have begun empty here, since their home was lost.
    pub lost: u64,
    /// Bytes that other nodes have not answered.
    pub link_bytes: usize,
    /// For how long no node has answered what was sent to it; of several the longest.
    pub link_age: Duration,
    /// Bytes that are held, until their slot has come to its new home.
    pub held_bytes: usize,
    /// Sessions at other nodes of which clients here have been told, each once for each of their accounts
    /// ([NODE-17](crate::rules#node-17)).
    pub known: usize,
    /// Calls of the engine that have failed, or had no answer.
    pub engine_failures: u64,
    /// Whether it may never act again.
    pub fenced: bool,
}

impl NodeMetrics {
    /// What the node itself says.
    pub(super) fn read(&mut self, node: &Node, now: Duration) {
        self.members = node.members().count();
        self.view = node.record().view;
        self.moving = node.moving();
        let links = node.links(now).map(|(_, bytes, age)| (bytes, age));
        (self.link_bytes, self.link_age) =
            links.fold((0, Duration::ZERO), |all, one| (all.0 + one.0, all.1.max(one.1)));
        self.held_bytes = node.held_bytes();
    }
}

impl<C: SharedConnection> Clustered<C> {
    pub(super) fn metrics(&self) -> NodeMetrics {
        let figures = self.inbox.figures.lock().clone();
        let (slots, fenced) = (self.placement.slots(), self.placement.is_fenced());
        NodeMetrics { slots, fenced, ..figures }
    }
}

impl<C: SharedConnection> NodeHandle<C> {
    /// What it has done, and what it has to do.
    #[must_use]
    pub fn metrics(&self) -> NodeMetrics {
        self.clustered().map(Clustered::metrics).unwrap_or_default()
    }
}
