use xmpp_session::connection::Recorder;
use xmpp_session::session::{BindRequest, Session, SessionRegistry, Unauthed};

fn main() {}

fn bind(session: Session<Unauthed, Recorder>, registry: &SessionRegistry<Recorder>) {
    let _ = session.bind(registry, BindRequest::new());
}
