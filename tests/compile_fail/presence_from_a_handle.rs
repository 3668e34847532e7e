use xmpp_session::connection::Recorder;
use xmpp_session::session::{Presence, SessionHandle};

fn main() {}

fn appear(session: &mut SessionHandle<Recorder>, presence: Presence<'_>) {
    session.set_presence(presence);
}
