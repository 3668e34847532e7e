//! Work that outlives a call: the chains of jobs, deadlines, one value for whoever waits for it.

pub(in crate::server) mod jobs;
pub(in crate::server) mod oneshot;
pub(in crate::server) mod timers;
