//! Work that outlives a call: chains of jobs, and deadlines.

pub(super) mod jobs;
pub(super) mod timers;
