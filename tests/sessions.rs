//! Sessions and their registry, without a stream: one module for each behaviour, in one binary.

#[cfg(test)]
mod common;

#[cfg(test)]
#[path = "bind.rs"]
mod bind;
#[cfg(test)]
#[path = "destroy.rs"]
mod destroy;
#[cfg(test)]
#[path = "growth.rs"]
mod growth;
#[cfg(test)]
#[path = "presence.rs"]
mod presence;
#[cfg(test)]
#[path = "races.rs"]
mod races;
#[cfg(test)]
#[path = "resume.rs"]
mod resume;
#[cfg(test)]
#[path = "retention.rs"]
mod retention;
