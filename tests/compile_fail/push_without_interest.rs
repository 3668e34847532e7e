use xmpp_session::connection::Recorder;
use xmpp_session::session::SessionHandle;
use xmpp_session::stanza::Stanza;

fn main() {}

fn push(session: &SessionHandle<Recorder>, iq: &Stanza) {
    let _ = session.push(iq);
}
