//! Protocol extensions that come with the crate, one file each.
//!
//! Each of them is an [`Extension`](crate::extension::Extension), knows none of the others, and is
//! served only where the host adds it:
//!
//! ```
//! use std::sync::Arc;
//! use xmpp_session::connection::Recorder;
//! use xmpp_session::environment::{Environment, System};
//! use xmpp_session::server::Server;
//! use xmpp_session::store::Stores;
//! use xmpp_session::xep;
//!
//! let environment: Arc<dyn Environment> = Arc::new(System::new());
//! let server: Server<Recorder> = Server::builder(Arc::clone(&environment), Stores::memory())
//!     .domain("example.com".parse()?)
//!     .extension(xep::Ping)
//!     .extension(xep::SoftwareVersion::new("Example", "1.0"))
//!     .extension(xep::LastActivity::new(environment))
//!     .extension(xep::StreamManagement::new())
//!     .extension(xep::Disco::new())
//!     .build();
//! # Ok::<(), xmpp_session::jid::Error>(())
//! ```

mod blocking;
mod carbons;
mod csi;
mod disco;
mod last;
mod ping;
mod registration;
mod sm;
mod version;

pub use blocking::Blocking;
pub use carbons::Carbons;
pub use csi::ClientState;
pub use disco::Disco;
pub use last::LastActivity;
pub use ping::Ping;
pub use registration::{Invitation, Invitations, Invite, Registration};
pub use sm::StreamManagement;
#[cfg(feature = "cluster")]
pub(crate) use sm::answer as acknowledgement;
pub use version::SoftwareVersion;

use crate::stanza::element;
