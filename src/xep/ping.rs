use crate::connection::SharedConnection;
use crate::extension::{Extension, IqReply, IqRequest, Target};

const NAMESPACE: &str = "urn:xmpp:ping";

/// XMPP Ping ([XEP-0199](https://xmpp.org/extensions/xep-0199.html)): the server answers pings to
/// itself and to accounts.
///
/// A ping to an account from a sender that may not know of its presence is not answered here: the
/// sender gets the same error as for an account that does not exist ([IQ-7](crate::rules#iq-7)). A ping to a
/// full JID is for that client to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to set")]
pub struct Ping;

impl<C: SharedConnection> Extension<C> for Ping {
    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn disco_features(&self, _: Target) -> &[&'static str] {
        &[NAMESPACE]
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let mine = !request.is_set() && request.is("ping", NAMESPACE) && request.is_entitled();
        mine.then(IqReply::empty)
    }
}
