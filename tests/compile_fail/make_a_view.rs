use xmpp_session::connection::Recorder;
use xmpp_session::session::{Interested, SessionHandle};

fn main() {}

fn view(session: &SessionHandle<Recorder>) -> Interested<'_, Recorder> {
    Interested { session }
}
