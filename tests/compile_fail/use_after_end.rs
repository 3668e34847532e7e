use xmpp_session::connection::Recorder;
use xmpp_session::session::{Bound, Reason, Session};

fn main() {}

fn end(mut session: Session<Bound, Recorder>) {
    session.end(Reason::Closed);
    session.set_interested();
}
