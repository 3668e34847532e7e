//! What a stanza costs in allocations on its way from the bytes of its sender to those of its
//! recipients, in a server that is warm: the bytes that are shared, and nothing else.

#![cfg(feature = "server")]

#[cfg(test)]
#[expect(dead_code, unreachable_pub, reason = "shared with the benches")]
#[path = "../benches/world.rs"]
mod world;

use allocation_counter::{AllocationInfo, measure};
use world::{Client, World};

const MESSAGE: &str = "<message to='juliet@example.com/balcony' type='chat' id='c5b2f9f4' \
    xml:lang='en'><body>Wherefore art thou Romeo?</body>\
    <active xmlns='http://jabber.org/protocol/chatstates'/></message>";

/// What it takes to handle `xml`, after it was handled once before.
fn cost(sender: &mut Client, recipients: &[Client], xml: &str) -> AllocationInfo {
    let wires: Vec<_> = recipients.iter().chain([&*sender]).map(|one| one.wire.clone()).collect();
    let clear = || wires.iter().for_each(|wire| wire.reset());
    clear();
    sender.driver.receive(xml.as_bytes());
    clear();
    let cost = measure(|| sender.driver.receive(xml.as_bytes()));
    for recipient in recipients {
        let received = String::from_utf8_lossy(&recipient.wire.take()).into_owned();
        assert!(received.contains("from='romeo@example.com/orchard'"), "{received}");
    }
    cost
}

fn pair(resources: &[&str]) -> (World, Client, Vec<Client>) {
    let world = World::new();
    let sender = world.online("romeo", "orchard");
    let recipients = resources.iter().map(|name| world.online("juliet", name)).collect();
    (world, sender, recipients)
}

#[test]
fn a_message_to_a_session_is_allocated_once() {
    let (_world, mut sender, recipients) = pair(&["balcony"]);
    let cost = cost(&mut sender, &recipients, MESSAGE);
    assert_eq!(cost.count_total, 1, "{cost:?}");
    assert!(cost.bytes_total < MESSAGE.len() as u64 + 100, "{cost:?}");
}

/// And what its copies share: that they are copies of one message.
#[test]
fn a_message_to_an_account_is_allocated_once_for_all_sessions() {
    let (_world, mut sender, recipients) = pair(&["balcony", "garden", "chamber"]);
    let message = MESSAGE.replace("/balcony", "");
    let cost = cost(&mut sender, &recipients, &message);
    assert_eq!(cost.count_total, 2, "{cost:?}");
}

#[test]
fn several_stanzas_in_one_piece_are_allocated_once_each() {
    let (_world, mut sender, recipients) = pair(&["balcony"]);
    let cost = cost(&mut sender, &recipients, &MESSAGE.repeat(5));
    assert_eq!(cost.count_total, 5, "{cost:?}");
}

#[test]
fn a_broadcast_costs_no_more_for_more_contacts() {
    let broadcast = |contacts: usize| {
        let world = World::new();
        let name = |n| format!("contact{n}");
        (0..contacts).for_each(|n| world.friends("romeo", &name(n)));
        let mut sender = world.online("romeo", "orchard");
        let recipients: Vec<_> = (0..contacts).map(|n| world.online(&name(n), "home")).collect();
        cost(&mut sender, &recipients, "<presence><show>away</show></presence>").count_total
    };
    assert_eq!(broadcast(20), broadcast(1));
    // The stanza, and the box around the last presence.
    assert!(broadcast(1) <= 2, "{}", broadcast(1));
}
