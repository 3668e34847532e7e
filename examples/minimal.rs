//! The life of two sessions, without network, parser or runtime: `cargo run --example minimal`.

use std::sync::Arc;

use xmpp_session::connection::{Close, Connection, SendError};
use xmpp_session::environment::Virtual;
use xmpp_session::jid::{BareJid, DomainPart, ResourcePart};
use xmpp_session::minidom::Element;
use xmpp_session::rules::roster::{Item, Roster, Subscription};
use xmpp_session::session::{BindRequest, Bound, Presence, Reason, Session, SessionRegistry};
use xmpp_session::stanza::{Frame, Stanza};

/// The one trait that a host implements: here a terminal.
#[derive(Clone)]
struct Terminal(&'static str);

impl Connection for Terminal {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        println!("  to {}: {frame}", self.0);
        Ok(())
    }

    fn close(&self, how: Close) {
        println!("  to {}: (closed, {how:?})", self.0);
    }
}

type Failure = Box<dyn std::error::Error>;

/// Stream header, authentication and bind, as a server would do them after what it reads.
fn log_in(
    registry: &SessionRegistry<Terminal>,
    name: &'static str,
    contact: &str,
) -> Result<Session<Bound, Terminal>, Failure> {
    let mut friend = Item::new(BareJid::new(contact)?);
    friend.subscription = Subscription::Both;
    let request = BindRequest::new()
        .resource(ResourcePart::new("home")?.into_owned())
        .roster(Roster::from_items([friend], 1, []));

    let mut session = Session::new(Terminal(name));
    session.open(DomainPart::new("example.com")?.into_owned());
    let session = session.authenticate(BareJid::new(&format!("{name}@example.com"))?)?;
    Ok(session.bind(registry, request)?)
}

fn appear(session: &mut Session<Bound, Terminal>) {
    let stanza = Stanza::presence().from(session.jid().as_str()).build();
    session.set_presence(Presence::Available { stanza: &stanza, priority: 0 });
}

/// What a client says. It takes a ticket first: none is given to one that was kicked or replaced, however
/// much it still sends.
fn say(
    registry: &SessionRegistry<Terminal>,
    from: &mut Session<Bound, Terminal>,
    to: &BareJid,
    text: &str,
) -> Result<(), Failure> {
    // A host that can wait awaits `begin_input`.
    let Some(Ok(_ticket)) = from.try_input() else {
        println!("  (not taken from {}: {text})", from.jid());
        return Ok(());
    };
    let body = Element::builder("body", "jabber:client").append(text).build();
    let message = Stanza::message().from(from.jid().as_str()).type_("chat").child(&body).build();
    for session in registry.top(to) {
        session.send(&message)?;
    }
    Ok(())
}

fn main() -> Result<(), Failure> {
    let registry = SessionRegistry::builder(Arc::new(Virtual::new(1)))
        .listener(|event| println!("* session {}: {:?}", event.session().id().get(), event.kind()))
        .build();

    println!("Two clients log in and show themselves.");
    let mut juliet = log_in(&registry, "juliet", "romeo@example.com")?;
    let mut romeo = log_in(&registry, "romeo", "juliet@example.com")?;
    appear(&mut juliet);
    appear(&mut romeo);

    println!("One writes to the other, whom it finds in the registry.");
    let to = juliet.account().clone();
    say(&registry, &mut romeo, &to, "Neither, fair saint")?;

    println!("The same resource logs in again: the older session is replaced.");
    let mut again = log_in(&registry, "romeo", "juliet@example.com")?;
    println!("  the old owner may still feed input: {}", romeo.is_current());
    say(&registry, &mut romeo, &to, "if either thee dislike")?;
    say(&registry, &mut again, &to, "With love's light wings")?;

    println!("An administrator ends the new one; the other client closes its stream.");
    registry.destroy_session(&again.handle(), Reason::Kicked);
    say(&registry, &mut again, &to, "did I o'er-perch these walls")?;
    juliet.end(Reason::Closed);
    println!("Sessions left: {}", registry.len());
    Ok(())
}
