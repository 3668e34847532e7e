//! What nobody is shown, and what no input does (SEC-1, SEC-6, SEC-7).

use super::*;

#[test]
fn sec_1_nonces_come_from_the_environment_and_differ() {
    let nonce = |world: &mut World| {
        let challenge = challenge(
            world.auth(Mechanism::ScramSha1, Client::default().first().as_bytes()).unwrap(),
        );
        challenge.split(',').next().unwrap().to_owned()
    };
    let (mut a, mut b) = (World::new(), World::new());
    let first = nonce(&mut a);
    assert_eq!(first.len(), "r=clientnonce".len() + 24);
    assert_eq!(first, nonce(&mut b));
    assert_ne!(first, nonce(&mut a));
}

#[test]
fn sec_6_debug_shows_no_name_and_no_secret() {
    let mut world = World::new();
    let step = world.negotiation.receive(Ok(Request::Auth {
        mechanism: "PLAIN",
        initial: Some(format!("\0juliet\0{PASSWORD}").into_bytes()),
    }));
    let text = format!("{step:?}");
    assert!(
        !text.contains("juliet") && !text.contains(PASSWORD) && !text.contains(DOMAIN),
        "{text}"
    );
}

proptest! {
    #[test]
    fn sec_7_no_changed_message_of_a_good_exchange_succeeds(
        which in 1..8_usize, second: bool, place: prop::sample::Index, bit in 0..8_u8, cut: bool,
    ) {
        let mechanism = SCRAMS.get(which).copied().unwrap_or(Mechanism::Plain);
        let change = |message: &[u8]| {
            let mut message = message.to_vec();
            let place = place.index(message.len());
            if cut { message.truncate(place) } else { message[place] ^= 1 << bit }
            message
        };
        let mut world = World::new();
        let Some(hash) = mechanism.hash() else {
            let message = change(format!("\0juliet\0{PASSWORD}").as_bytes());
            // A capital letter in the name is the same name.
            let same = message.to_ascii_lowercase().starts_with(b"\0juliet\0")
                && message.ends_with(PASSWORD.as_bytes());
            let step = world.auth(mechanism, &message);
            prop_assert_eq!(matches!(step, Ok(Step::Success { .. })), same);
            return Ok(());
        };
        let (header, channel): (_, &[u8]) =
            if mechanism.binds_channel() { ("p=tls-exporter,,", b"exported") } else { ("n,,", b"") };
        let client = Client { header, channel, ..Client::default() };
        let first = client.first().into_bytes();
        let step = world.auth(mechanism, &if second { first } else { change(&first) });
        if let Ok(Step::Challenge(data)) = step {
            // The client's own view of its first message is what it signs.
            let last = client.last(hash, std::str::from_utf8(&data).unwrap()).into_bytes();
            let step = world.respond(&if second { change(&last) } else { last });
            let succeeded = matches!(step, Ok(Step::Success { .. }));
            prop_assert!(!succeeded);
        }
    }

    #[test]
    fn sec_7_no_input_panics(
        requests in prop::collection::vec(
            (0..4_usize, "[a-zA-Z0-9=,npyrc+/@.\u{0}\u{e9} -]{0,24}", 0..6_usize), 1..8,
        ),
    ) {
        let mut world = World::new();
        for (kind, text, mechanism) in requests {
            let name = ["auth", "response", "abort", "other"][kind];
            let mechanism = Mechanism::ALL.get(mechanism).map(|mechanism| mechanism.as_str());
            for text in [text.clone(), STANDARD.encode(&text)] {
                let step = world.receive(wire::parse(name, mechanism, &text));
                let succeeded = matches!(step, Ok(Step::Success { .. }));
                prop_assert!(!succeeded);
            }
        }
    }
}
