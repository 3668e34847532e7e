use xmpp_session::connection::Recorder;
use xmpp_session::jid::BareJid;
use xmpp_session::session::{Session, Unauthed};

fn main() {}

fn authenticate(session: Session<Unauthed, Recorder>, account: BareJid) {
    let _ = session.authenticate(account);
    let _ = session.domain();
}
