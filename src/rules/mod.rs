//! RFC 6121 as pure functions and tables: no session, no I/O, no clock, no lock.

pub mod roster;
