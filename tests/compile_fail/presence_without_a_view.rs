use xmpp_session::connection::Recorder;
use xmpp_session::session::SessionHandle;

fn main() {}

fn presence(session: &SessionHandle<Recorder>) {
    let _ = session.presence();
}
