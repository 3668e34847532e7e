//! Work that outlives a call: the chains of jobs, deadlines, one value for whoever waits for it.

pub(super) mod jobs;
pub(super) mod oneshot;
pub(super) mod timers;
