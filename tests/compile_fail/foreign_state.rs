use xmpp_session::session::State;

enum Mine {}

impl State for Mine {
    type Before = ();
    type After = ();
    const NAME: &'static str = "mine";
}

fn main() {}
