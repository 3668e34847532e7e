use xmpp_session::connection::Recorder;
use xmpp_session::session::{Session, SessionRegistry, Unauthed};

fn main() {}

fn resume(session: Session<Unauthed, Recorder>, registry: &SessionRegistry<Recorder>) {
    let _ = session.resume(registry, "token", 0, &mut |_| Vec::new());
}
