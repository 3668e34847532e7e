//! Work that outlives a call: chains of jobs, deadlines, and one-shot channels for results.

pub(super) mod jobs;
pub(super) mod oneshot;
pub(super) mod park;
pub(super) mod timers;
