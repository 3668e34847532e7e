//! An embeddable, transport-agnostic session manager for XMPP client-to-server streams.
//!
//! A host program implements one trait for its transports, [`Connection`](connection::Connection),
//! and gets everything between "bytes arrived" and "stanza delivered": typed sessions, a registry,
//! binding, rosters, subscriptions, presence, delivery. The crate has no socket, no
//! runtime and no database; it does no server-to-server streams (stanzas for other domains go to
//! the host's [`Router`](server::Router)).
//!
//! There are two ways in. Hosts with a parser and a login use [`session`]: the typed
//! [`Session`](session::Session) and the [`SessionRegistry`](session::SessionRegistry). Hosts that want
//! the whole endpoint use [`server`]: bytes in, effects out, and `host` for the loops around a
//! socket.
//!
//! ```text
//!            open, TLS            authenticate          bind | resume
//! transport ──────────▶ Unauthed ─────────────▶ Authed ──────────────▶ Bound ──▶ ended (once)
//!                         ▲ │ restart            ▲ │ restart           │   ▲
//!                         └─┘                    └─┘         transport │   │ resume
//!                                                            lost      ▼   │
//!                                                                 hibernating ──▶ ended
//! views of a bound session:  Available (presence sent)   Interested (roster requested)
//!
//! bytes ──▶ stream ──▶ Stanza ──▶ rules ──▶ SessionHandle ──▶ Connection ──▶ bytes
//! ```
//!
//! # A session in memory
//!
//! ```
//! use std::sync::Arc;
//! use xmpp_session::connection::Recorder;
//! use xmpp_session::environment::Virtual;
//! use xmpp_session::jid::{BareJid, ResourcePart};
//! use xmpp_session::session::{BindRequest, Session, SessionRegistry};
//! use xmpp_session::stanza::Stanza;
//!
//! let registry = SessionRegistry::builder(Arc::new(Virtual::new(1))).build();
//! let (wire, account) = (Recorder::new(), BareJid::new("juliet@example.com")?);
//! let mut session = Session::new(wire.clone());
//! session.open(account.domain().to_owned());
//! let session = session.authenticate(account)?;
//! let request = BindRequest::new().resource(ResourcePart::new("balcony")?.into_owned());
//! let session = session.bind(&registry, request)?;
//!
//! let found = registry.session(session.jid()).ok_or("it can be found")?;
//! found.send(&Stanza::message().from("romeo@example.net/orchard").id("1").build())?;
//! assert_eq!(wire.take(), ["<message from='romeo@example.net/orchard' id='1'/>"]);
//!
//! drop(session); // its transport is lost: not resumable, so it ends
//! assert!(registry.is_empty());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Features
//!
//! - `system` (default): the operating system's clocks and random numbers, as an
//!   [`Environment`](environment::Environment).
//! - `server` (default, brings `stream`, the reading and writing of XML streams): a whole server without sockets.
//! - `tokio`, `threads`: its sockets and TLS. `ring` (default) is the cryptography of that TLS.
//! - `certificates`: the addresses in client certificates. `sqlite`: stores in one file. `postgres`: stores in a
//!   database. `conformance`: tests for stores of your own. `tracing`, `metrics`: for a log, for monitoring.
//! - `cluster`: several nodes as one server; `redis`: what they stand on, on Redis or Valkey.
//!
//! Without any there are [`session`], [`connection`], [`outbox`], rosters ([`rules::roster`]) and [`stanza`], on six
//! dependencies.
//!
//! The minimum supported Rust version is `rust-version` in `Cargo.toml`. Ids such as [BIND-5](crate::rules#bind-5) name the
//! [rules](crate::rules#behaviour-rules), each with its source; the [`guide`] has the other pages of the documentation.
#![forbid(unsafe_code)]
#![cfg_attr(
    all(feature = "websocket", not(any(feature = "tokio", feature = "threads"))),
    expect(dead_code, reason = "the feature is for a host, and there is none")
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod address;
mod client;
#[cfg(feature = "cluster")]
pub mod cluster;
pub mod connection;
pub mod environment;
#[cfg(feature = "server")]
pub mod extension;
#[cfg(all(feature = "server", any(test, fuzzing)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(all(doc, not(doctest)))]
pub mod guide;
#[cfg(any(feature = "tokio", feature = "threads"))]
pub mod host;
mod named;
#[cfg(feature = "server")]
mod oneshot;
pub mod outbox;
#[cfg(feature = "cluster")]
mod packed;
mod park;
mod recent;
pub mod rules;
#[cfg(feature = "server")]
pub mod sasl;
#[cfg(feature = "server")]
pub mod server;
pub mod session;
mod shield;
pub mod stanza;
#[cfg(feature = "server")]
pub mod store;
#[cfg(feature = "stream")]
pub mod stream;
mod sync;
#[cfg(feature = "server")]
pub mod xep;

/// Lets tests in here share code with those outside.
#[cfg(all(test, feature = "server"))]
extern crate self as xmpp_session;

pub use jid;
pub use minidom;

/// Compiles the code of the README.
#[cfg(all(doctest, feature = "ring", feature = "system", feature = "tokio"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(doctest)]
#[doc = include_str!("../docs/connection.md")]
mod connection_guide {}

#[cfg(all(doctest, feature = "server"))]
#[doc = include_str!("../docs/extensions.md")]
mod extensions_guide {}

#[cfg(all(doctest, feature = "cluster", feature = "system", feature = "tokio"))]
#[doc = include_str!("../docs/cluster.md")]
mod cluster_guide {}

/// Compiles and runs the pages of the cookbook.
#[cfg(all(doctest, feature = "server", feature = "system"))]
mod cookbook {
    #[doc = include_str!("../docs/cookbook/archive.md")]
    mod archive {}

    #[doc = include_str!("../docs/cookbook/push.md")]
    mod push {}

    #[doc = include_str!("../docs/cookbook/testing.md")]
    mod testing {}

    #[doc = include_str!("../docs/cookbook/users-http.md")]
    mod users_http {}

    #[doc = include_str!("../docs/cookbook/users-tokens.md")]
    mod users_tokens {}

    #[doc = include_str!("../docs/cookbook/sign-up.md")]
    mod sign_up {}

    #[cfg(all(feature = "conformance", feature = "sqlite"))]
    #[doc = include_str!("../docs/cookbook/users-sql.md")]
    mod users_sql {}

    #[cfg(feature = "tokio")]
    #[doc = include_str!("../docs/cookbook/bot.md")]
    mod bot {}

    #[cfg(feature = "tokio")]
    #[doc = include_str!("../docs/cookbook/component.md")]
    mod component {}

    #[cfg(feature = "tokio")]
    #[doc = include_str!("../docs/cookbook/administration.md")]
    mod administration {}

    #[doc = include_str!("../docs/cookbook/metrics.md")]
    mod metrics {}

    #[cfg(all(feature = "ring", feature = "sqlite", feature = "tokio"))]
    #[doc = include_str!("../docs/cookbook/server.md")]
    mod server {}

    #[cfg(all(feature = "tokio", unix))]
    #[doc = include_str!("../docs/cookbook/gateway.md")]
    mod gateway {}

    #[cfg(all(feature = "ring", feature = "tokio", feature = "websocket"))]
    #[doc = include_str!("../docs/cookbook/websocket.md")]
    mod websocket {}
}
