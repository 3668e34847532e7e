//! Streams that begin behind authentication: their client is the host itself.

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use super::{Driver, State};
use crate::connection::SharedConnection;
use crate::server::driver::Transport;
use crate::server::{Core, PeerAddress};
use crate::session::{Bound, Session};
use crate::stream::StreamCondition;

/// The namespace of the element behind which stanzas are counted.
pub(in crate::server) const ENABLED: &str = "urn:xmpp:sm:3";

impl<C: SharedConnection> Driver<C> {
    /// A driver whose client is a program of this process, and is this account. The client opens its stream
    /// as behind SASL.
    pub(in crate::server) fn of_account(
        core: Arc<Core<C>>,
        connection: C,
        account: BareJid,
    ) -> Self {
        let mut driver = Self::behind(core, connection, &account, PeerAddress::UNKNOWN, true);
        driver.is_local = true;
        #[cfg(feature = "cluster")]
        if let Some(edges) = driver.core.edges.get().cloned() {
            // NODE-12
            driver.logged_in(&account);
            driver.go_away(&edges, account, None);
            return driver;
        }
        if driver.become_account(account) {
            driver.parser.authenticated(&driver.core.limits.stream);
        } else {
            driver.fail(StreamCondition::InternalServerError.into());
        }
        driver
    }

    /// A driver of a stream to the domain of this account, as which its client is about to be authenticated. It takes
    /// nobody's place.
    pub(super) fn behind(
        core: Arc<Core<C>>,
        connection: C,
        account: &BareJid,
        peer: PeerAddress,
        is_secure: bool,
    ) -> Self {
        let transport = Transport::new().secure(is_secure);
        let place = core.ledger.enter_local(account);
        let mut driver = Self::placed(core, connection, transport, peer, place);
        if let State::Unauthed(session) = &mut driver.state {
            session.open(account.domain().to_owned());
        }
        driver
    }

    /// What the client has not taken is known from here on, and goes elsewhere when it is gone (BOT-4).
    pub(super) fn count_taken(&self, session: &mut Session<Bound, C>) {
        let counted = format!("<enabled xmlns='{}'/>", ENABLED).into_bytes();
        let _not_resumable = session.retain(Duration::ZERO, |_| counted);
        session.handle().never_ask();
    }
}
