use xmpp_session::connection::Recorder;
use xmpp_session::session::{BindRequest, Bound, Session, SessionRegistry};

fn main() {}

fn bind(session: Session<Bound, Recorder>, registry: &SessionRegistry<Recorder>) {
    let _ = session.bind(registry, BindRequest::new());
}
