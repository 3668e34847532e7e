use xmpp_session::connection::Recorder;
use xmpp_session::session::{Bound, Session};

fn main() {}

fn share(session: Session<Bound, Recorder>) -> [Session<Bound, Recorder>; 2] {
    [session.clone(), session]
}
