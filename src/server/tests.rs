//! What it takes to find out where a stanza goes.

#[expect(dead_code, unreachable_pub, reason = "shared with the benches")]
#[path = "../../benches/world.rs"]
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use super::{Core, ServerBuilder};
use crate::extension::{Admission, Delivery, Extension, Flow, Wants};
use crate::session::{AccountState, SessionHandle, hashes};
use crate::stanza::Stanza;
use crate::store::Stores;
use crate::sync::common::writes;
use crate::xep::{Blocking, Carbons, ClientState, Disco, Ping, StreamManagement};
use world::{Client, Wire, World};

/// The destination is hashed for all look-ups on the way; the sender is at hand.
#[test]
fn a_stanza_is_hashed_once() {
    let world = World::new();
    let mut sender = world.online("romeo", "orchard");
    let recipients = ["balcony", "garden", "chamber"].map(|name| world.online("juliet", name));
    for (stanza, copies) in [
        ("<message to='juliet@example.com/balcony'><body>1</body></message>", 1),
        ("<message to='juliet@example.com'><body>2</body></message>", 3),
        ("<message to='juliet@example.com/none' type='chat'><body>3</body></message>", 3),
        ("<message to='juliet@example.com/none' type='groupchat'><body>4</body></message>", 0),
        ("<message to='nobody@example.com' type='headline'><body>5</body></message>", 0),
        ("<message to='a@remote.example'><body>6</body></message>", 0),
        ("<presence to='juliet@example.com'><show>away</show></presence>", 3),
        ("<presence to='juliet@example.com/balcony' type='unavailable'/>", 1),
        ("<iq to='juliet@example.com/balcony' type='get' id='1'><q xmlns='urn:q'/></iq>", 0),
        ("<iq to='juliet@example.com/balcony' type='result' id='2'/>", 1),
    ] {
        for recipient in &recipients {
            recipient.wire.take();
        }
        assert_eq!(hashes(|| sender.driver.receive(stanza.as_bytes())), 1, "{stanza}");
        let reached = recipients.iter().filter(|recipient| !recipient.wire.is_empty()).count();
        assert_eq!(reached, copies, "{stanza}");
    }
}

/// Every extension of the crate that has to do with messages.
fn with_extensions() -> World {
    World::with(|builder| {
        builder
            .extension(StreamManagement::new())
            .extension(Carbons::new())
            .extension(ClientState)
            .extension(Blocking::new(Stores::memory().blocks))
            .extension(Ping)
            .extension(Disco::new())
    })
}

const ENABLE: &str = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";

/// The whole way of a message: to its recipient's connection, out of that, and its acknowledgement.
fn exchange([sender, recipient]: [&mut Client; 2], to: &str, number: usize, is_retained: bool) {
    let body =
        format!("<message to='{to}' type='chat' id='m{number}'><body>{number}</body></message>");
    sender.ask(&body);
    let written = String::from_utf8(recipient.wire.write()).unwrap();
    assert!(written.contains(&format!("<body>{number}</body>")), "{written}");
    if is_retained {
        recipient.ask(&format!("<a xmlns='urn:xmpp:sm:3' h='{number}'/>"));
    }
    sender.wire.write();
    let _due = (sender.driver.next_timeout(), recipient.driver.next_timeout());
}

/// All that is between two sessions is theirs, whatever the extensions, and also where a message is measured, whose
/// turn comes with one in 64 (METRIC-4): nothing is written that sessions of other accounts write.
#[test]
fn a_message_writes_nothing_that_all_accounts_share() {
    for (world, is_retained) in
        [(World::new(), false), (with_extensions(), false), (with_extensions(), true)]
    {
        let mut sender = world.online("romeo", "orchard");
        let mut recipient = world.online("juliet", "balcony");
        let mut number = 0;
        if is_retained {
            for client in [&mut sender, &mut recipient] {
                client.ask(ENABLE);
            }
        }
        for to in ["juliet@example.com/balcony", "juliet@example.com"] {
            // The first one finds her.
            let mut say = || {
                number += 1;
                writes(|| exchange([&mut sender, &mut recipient], to, number, is_retained))
            };
            let first = say();
            assert!(first <= 1, "{first} for the first");
            for _ in 0..200 {
                assert_eq!(say(), 0, "{to} {is_retained}");
            }
        }
        // She has another session now, and is looked for anew.
        let other = world.online("juliet", "garden");
        number += 1;
        let to = "juliet@example.com/balcony";
        let again = writes(|| exchange([&mut sender, &mut recipient], to, number, is_retained));
        assert_eq!(again, 1);
        drop(other);
        assert_eq!(world.server.metrics().delivery.count() > 0, number > 64);
    }
}

/// What shows that the test above counts: a message that has to wait for a store, a login.
#[test]
fn what_all_accounts_share_is_counted() {
    let world = World::new();
    let mut sender = world.online("romeo", "orchard");
    let stored = "<message to='benvolio@example.com' type='chat'><body>1</body></message>";
    assert!(writes(|| drop(sender.ask(stored))) > 0);
    assert!(writes(|| drop(world.online("juliet", "balcony"))) > 0);
}

/// Looks at the counts of the server and of the registry whenever an extension or a connection is called.
#[derive(Default)]
struct Counts {
    core: OnceLock<Weak<Core<Wire>>>,
    most: AtomicUsize,
    looks: AtomicUsize,
}

impl Counts {
    fn look(&self) {
        let Some(core) = self.core.get() else { return };
        self.most.fetch_max(core.strong_count(), Ordering::SeqCst);
        self.looks.fetch_add(1, Ordering::SeqCst);
    }
}

struct Looks(Arc<Counts>);

impl Extension<Wire> for Looks {
    fn inbound(&self, _: &SessionHandle<Wire>, _: &Stanza) -> Flow {
        self.0.look();
        Flow::Next
    }

    fn delivered(&self, _: &Delivery<'_, Wire>) {
        self.0.look();
    }

    fn outbound(&self, _: &SessionHandle<Wire>, _: &Stanza) {
        self.0.look();
    }

    fn pre_drain(
        &self,
        _: &SessionHandle<Wire>,
        _: crate::session::Epoch,
        _: &mut dyn FnMut(crate::stanza::Frame<'_>),
    ) {
        self.0.look();
    }
}

/// A count of references is a write: nobody takes one to the server on the way of a message.
#[test]
fn a_message_counts_no_reference_to_the_server() {
    let counts = Arc::new(Counts::default());
    let looks = Looks(Arc::clone(&counts));
    let world = World::with(|builder| builder.extension(looks));
    let mut sender = world.online("romeo", "orchard");
    let mut recipient = world.online("juliet", "balcony");
    assert!(counts.core.set(Arc::downgrade(&world.server.0)).is_ok());
    let at_rest = Arc::strong_count(&world.server.0);
    for number in 1..=3 {
        exchange([&mut sender, &mut recipient], "juliet@example.com/balcony", number, false);
    }
    assert!(counts.looks.load(Ordering::SeqCst) >= 12);
    assert_eq!(counts.most.load(Ordering::SeqCst), at_rest);
}

/// An extension that is asked and told only about accounts for which something is kept, or about all.
struct Hears(Arc<AtomicUsize>, Wants);

impl Hears {
    fn hear(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Extension<Wire> for Hears {
    fn wants(&self) -> Wants {
        self.1
    }

    fn inbound(&self, _: &SessionHandle<Wire>, _: &Stanza) -> Flow {
        self.hear();
        Flow::Next
    }

    fn admit(&self, _: &AccountState, _: &Stanza) -> Admission {
        self.hear();
        Admission::Accept
    }

    fn delivered(&self, _: &Delivery<'_, Wire>) {
        self.hear();
    }
}

#[test]
fn hook_10_an_account_for_which_nothing_is_kept_is_not_asked_about() {
    let [some, all] = [0, 0].map(|none| Arc::new(AtomicUsize::new(none)));
    let hears =
        [Hears(Arc::clone(&some), Wants::KEPT_ONLY), Hears(Arc::clone(&all), Wants::NOTHING)];
    let world = World::with(|builder| hears.into_iter().fold(builder, ServerBuilder::extension));
    let mut sender = world.online("romeo", "orchard");
    let recipient = world.online("juliet", "balcony");
    let accounts =
        [&sender, &recipient].map(|client| client.driver.session().unwrap().account_state());
    // Of the sender, of the recipient; what is asked about is inbound, admit, delivered.
    for (kept, expected) in [
        ([false, false], 0),
        ([true, false], 2),
        ([false, true], 2),
        ([true, true], 3),
        ([false, false], 0),
    ] {
        for (account, keeps) in accounts.iter().zip(kept) {
            match keeps {
                true => account.set_extension(1_u8),
                false => account.remove_extension::<u8>(),
            }
        }
        for to in ["juliet@example.com/balcony", "juliet@example.com"] {
            let before = [&some, &all].map(|heard| heard.load(Ordering::SeqCst));
            sender.ask(&format!("<message to='{to}' type='chat'><body>1</body></message>"));
            let after = [&some, &all].map(|heard| heard.load(Ordering::SeqCst));
            assert_eq!(
                [after[0] - before[0], after[1] - before[1]],
                [expected, 3],
                "{kept:?} {to}"
            );
        }
    }
}
