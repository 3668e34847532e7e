use crate::address::bare_of;
use crate::connection::SharedConnection;
use crate::extension::{Extension, Flow, Negotiated, NewSession, Stage};
use crate::rules::delivery::is_chat_states_only;
use crate::session::{Authed, Bound, Hold, Session, SessionHandle, SessionRegistry};
use crate::stanza::{Kind, Stanza};
use crate::stream::Nonza;

const NAMESPACE: &str = "urn:xmpp:csi:0";

/// Client State Indication ([XEP-0352](https://xmpp.org/extensions/xep-0352.html)): an inactive
/// client is spared presence and chat states until it is active again, or until it gets something else
/// (rules [CSI-1](crate::rules#csi-1)…5).
///
/// Of what is held back the client gets the latest: of presence for each full JID, of chat states for
/// each sender. Presence of rooms that the client has joined is not held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::exhaustive_structs, reason = "there is nothing to set")]
pub struct ClientState;

/// Whether the client says that it is inactive.
fn said(element: &Nonza) -> Option<bool> {
    if element.namespace() != NAMESPACE {
        return None;
    }
    match element.name() {
        "inactive" => Some(true),
        "active" => Some(false),
        _ => None,
    }
}

impl<C: SharedConnection> Extension<C> for ClientState {
    fn features(&self, stage: Stage, out: &mut Vec<u8>) {
        match stage {
            Stage::Authenticated => out.extend_from_slice(b"<csi xmlns='urn:xmpp:csi:0'/>"),
            Stage::InlineBind => out.extend_from_slice(b"<feature var='urn:xmpp:csi:0'/>"),
            Stage::Secure | Stage::Inline => {}
        }
    }

    fn inline_bind(&self, request: &Nonza, session: &mut NewSession<'_, C>) -> Flow {
        let Some(inactive) = said(request) else { return Flow::Next };
        session.set_holding(inactive);
        Flow::Done
    }

    fn takes(&self, name: &str, namespace: &str) -> bool {
        namespace == NAMESPACE && matches!(name, "active" | "inactive")
    }

    fn authenticated(
        &self,
        mut session: Session<Authed, C>,
        _: &SessionRegistry<C>,
        element: &Nonza,
    ) -> Negotiated<C> {
        let Some(inactive) = said(element) else { return Negotiated::Next(session) };
        session.set_holding(inactive);
        Negotiated::Done(session)
    }

    fn nonza(&self, session: &mut Session<Bound, C>, element: &Nonza) -> Flow {
        let Some(inactive) = said(element) else { return Flow::Next };
        session.handle().set_holding(inactive);
        Flow::Done
    }

    fn hold(&self, session: &SessionHandle<C>, stanza: &Stanza) -> Hold {
        let Some(from) = stanza.from() else { return Hold::Pass };
        let bare = bare_of(&from);
        match stanza.kind() {
            Kind::Presence if is_availability(stanza) && !session.has_directed_to(bare) => {
                Hold::Latest(format!("presence {from}"))
            }
            Kind::Message if is_chat_state(stanza) => Hold::Latest(format!("state {from}")),
            _ => Hold::Pass,
        }
    }
}

fn is_availability(presence: &Stanza) -> bool {
    matches!(presence.type_().as_deref(), None | Some("unavailable"))
}

fn is_chat_state(message: &Stanza) -> bool {
    message.type_().as_deref() != Some("error") && is_chat_states_only(message)
}
