//! What it takes to find out where a stanza goes.

#[expect(dead_code, unreachable_pub, reason = "shared with the benches")]
#[path = "../../benches/world.rs"]
mod world;

use world::World;

use crate::session::hashes;

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
