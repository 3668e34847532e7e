//! Work that outlives a call: chains of jobs, and deadlines.

pub(super) mod jobs;
pub(super) use crate::oneshot;
pub(super) mod park;
pub(super) mod timers;
