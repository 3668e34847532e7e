use xmpp_session::connection::Recorder;
use xmpp_session::jid::BareJid;
use xmpp_session::session::{Authed, Session};

fn main() {}

fn authenticate(session: Session<Authed, Recorder>, account: BareJid) {
    let _ = session.authenticate(account);
}
