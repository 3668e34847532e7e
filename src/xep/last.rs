use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::element;
use crate::connection::SharedConnection;
use crate::environment::Environment;
use crate::extension::{Extension, IqReply, IqRequest, Target};

const NAMESPACE: &str = "jabber:iq:last";

/// Last Activity ([XEP-0012](https://xmpp.org/extensions/xep-0012.html)): how long the server has
/// been up, and whether a contact is there.
///
/// A domain answers with the seconds since this value was made. An account answers 0 while it has a
/// session that the sender may know of, else with the seconds since its last one left. Where that is
/// not remembered the sender gets `service-unavailable`. So does a sender that may not know of the
/// account's presence, where XEP-0012 §3 asks for `forbidden`: that would tell strangers which accounts
/// exist ([IQ-8](crate::rules#iq-8)).
#[derive(Clone)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct LastActivity {
    environment: Arc<dyn Environment>,
    start: Duration,
}

impl LastActivity {
    /// Counts from now. `environment` should be the server's.
    pub fn new(environment: Arc<dyn Environment>) -> Self {
        Self { start: environment.now(), environment }
    }

    fn seconds<C: SharedConnection>(&self, request: &IqRequest<'_, C>) -> Option<u64> {
        match request.target() {
            Target::Domain => Some(self.environment.now().saturating_sub(self.start).as_secs()),
            // The session that asks is one that is connected.
            Target::Account if request.is_own_account() => Some(0),
            Target::Account if !request.is_entitled() => None,
            Target::Account if request.sessions().next().is_some() => Some(0),
            Target::Account => {
                let last = request.registry().last_gone(request.to().as_str())?;
                Some(self.environment.utc().duration_since(last).map_or(0, |since| since.as_secs()))
            }
        }
    }
}

impl fmt::Debug for LastActivity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LastActivity").field("start", &self.start).finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Extension<C> for LastActivity {
    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn disco_features(&self, _: Target) -> &[&'static str] {
        &[NAMESPACE]
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        if request.is_set() || !request.is("query", NAMESPACE) {
            return None;
        }
        let seconds = self.seconds(request)?.to_string();
        Some(IqReply::result(element("query", NAMESPACE, &[("seconds", &seconds)])))
    }
}
