use xmpp_session::connection::Recorder;
use xmpp_session::session::SessionHandle;

fn main() {}

fn priority(session: &SessionHandle<Recorder>) -> i8 {
    session.priority()
}
