use xmpp_session::connection::Recorder;
use xmpp_session::session::{Authed, Presence, Session};

fn main() {}

fn appear(session: &mut Session<Authed, Recorder>, presence: Presence<'_>) {
    session.set_presence(presence);
}
