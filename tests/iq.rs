//! Iq stanzas on the wire (rules IQ-1 to IQ-7, IQ-T1, IQ-T2).

#![cfg(feature = "server")]

#[cfg(test)]
#[path = "common/wire.rs"]
mod wire;

use wire::World;

#[test]
fn iq_6_the_own_roster_is_answered() {
    let world = World::new();
    let romeo = world.client("romeo", "orchard");
    let answer = romeo.ask("<iq type='get' id='1'><query xmlns='jabber:iq:roster'/></iq>");
    assert_eq!(answer.len(), 1);
}
