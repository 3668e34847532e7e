use xmpp_session::session::State;

enum Mine {}

impl State for Mine {
    type Data<C: xmpp_session::connection::SharedConnection> = ();
    const NAME: &'static str = "mine";
}

fn main() {}
