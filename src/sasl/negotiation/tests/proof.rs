//! Who is let in, and what the others see (SASL-7).

use super::*;

#[test]
fn sasl_7_plain_refuses_unknown_users_wrong_and_odd_passwords_alike() {
    for (user, password) in [
        ("juliet", "x"),
        ("romeo", PASSWORD),
        ("juliet", ""),
        ("juliet", "\u{7}"),
        ("romeo", "\u{7}"),
    ] {
        let mut world = World::new();
        assert_refused(world.plain("", user, password), SaslError::NotAuthorized);
    }
    for message in ["", "juliet", "\0juliet", "\0juliet\0pw\0", "\0\0\0\0"] {
        assert_refused(
            World::new().auth(Mechanism::Plain, message.as_bytes()),
            SaslError::MalformedRequest,
        );
    }
    assert_refused(
        World::new().auth(Mechanism::Plain, b"\0juliet\0\xff"),
        SaslError::MalformedRequest,
    );
}

#[test]
fn sasl_7_scram_shows_an_unknown_user_what_it_shows_a_known_one() {
    let shown = |world: &mut World, user: &str| {
        let client = Client { user, ..Client::default() };
        let challenge =
            challenge(world.auth(Mechanism::ScramSha256, client.first().as_bytes()).unwrap());
        let fields: Vec<_> = challenge.split(',').map(str::to_owned).collect();
        let refused =
            world.respond(client.last(ScramHash::Sha256, &challenge).as_bytes()).map(|_| ());
        (
            fields[0].len(),
            fields[1].clone(),
            fields[2].clone(),
            refused.err().map(|refused| refused.error),
        )
    };
    let (nonce, salt, count, _) = shown(&mut World::new(), "juliet");
    let unknown = shown(&mut World::new(), "romeo");
    assert_eq!((unknown.0, &unknown.2, unknown.3), (nonce, &count, Some(SaslError::NotAuthorized)));
    assert_eq!(unknown.1.len(), salt.len());
    // The same salt at every attempt, in whatever way the name is written; another one for another
    // name.
    let mut world = World::new();
    shown(&mut world, "juliet");
    assert_eq!(shown(&mut world, "Romeo").1, unknown.1);
    assert_ne!(shown(&mut world, "mercutio").1, unknown.1);
}

#[test]
fn sasl_7_keys_for_one_hash_look_like_no_account_to_the_other() {
    let mut world = World::new();
    world.credentials.scram_sha_1 = None;
    let first = Client::default().first();
    let without = challenge(world.auth(Mechanism::ScramSha1, first.as_bytes()).unwrap());
    world.user = "nobody";
    let unknown = challenge(world.auth(Mechanism::ScramSha1, first.as_bytes()).unwrap());
    assert_eq!(without.split(',').nth(1), unknown.split(',').nth(1));
    assert_refused(world.scram(Mechanism::ScramSha1, &Client::default()), SaslError::NotAuthorized);
    world.user = "juliet";
    assert_success(
        world.scram(Mechanism::ScramSha256, &Client::default()),
        "juliet@im.example.com",
    );
}

#[test]
fn sasl_7_keys_of_a_wrong_shape_look_like_no_account() {
    let mut world = World::new();
    let first = Client::default().first();
    let salt = |world: &mut World| {
        let challenge = challenge(world.auth(Mechanism::ScramSha256, first.as_bytes()).unwrap());
        challenge.split(',').nth(1).unwrap().to_owned()
    };
    world.user = "nobody";
    let unknown = salt(&mut world);
    world.user = "juliet";
    let keys = world.credentials.scram_sha_256.take().unwrap();
    let truncated = ScramKeys { stored_key: keys.stored_key[..31].to_vec(), ..keys.clone() };
    for keys in [truncated, ScramKeys { iterations: 0, ..keys.clone() }] {
        world.credentials = Credentials::from_keys(None, Some(keys));
        assert_eq!(salt(&mut world), unknown);
        assert_refused(world.plain("", "juliet", PASSWORD), SaslError::NotAuthorized);
    }
    world.credentials = Credentials::from_keys(None, Some(keys));
    assert_ne!(salt(&mut world), unknown);
}

#[test]
fn sasl_7_a_right_key_does_not_make_up_for_another_nonce_or_a_longer_proof() {
    let client = Client::default();
    for change in ["nonce", "proof", "none"] {
        let mut world = World::new();
        let sent = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
        let last = match change {
            // A client that signs what the server sent, and answers to something else.
            "nonce" => client.last_with(ScramHash::Sha1, &sent, "another"),
            "proof" => {
                let last = client.last(ScramHash::Sha1, &sent);
                let (unproved, proof) = last.split_once(",p=").unwrap();
                let longer = [STANDARD.decode(proof).unwrap(), vec![0]].concat();
                format!("{unproved},p={}", STANDARD.encode(longer))
            }
            _ => client.last(ScramHash::Sha1, &sent),
        };
        let step = world.respond(last.as_bytes());
        match change {
            "none" => assert_success(step, "juliet@im.example.com"),
            _ => assert_refused(step, SaslError::NotAuthorized),
        }
    }
}

#[test]
fn sasl_7_plain_takes_whichever_keys_there_are() {
    let mut world = World::new();
    world.credentials.scram_sha_512 = None;
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
    world.credentials.scram_sha_256 = None;
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
    assert_refused(world.plain("", "juliet", "x"), SaslError::NotAuthorized);
    world.credentials.scram_sha_1 = None;
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::NotAuthorized);
}

#[test]
fn sasl_7_a_password_is_checked_with_one_hash_function_whoever_it_is() {
    // What is derived is what takes time: the salts tell which keys were taken.
    for (mechanisms, usual) in [
        (&[Mechanism::Plain, Mechanism::ScramSha1][..], ScramHash::Sha1),
        (&[Mechanism::Plain], ScramHash::Sha256),
        (&Mechanism::ALL, ScramHash::Sha512),
    ] {
        let checked = |wrong: Option<ScramHash>| {
            let mut world = World::with(|context| {
                context.policy = Arc::new(policy().mechanisms(mechanisms));
            });
            // Keys of another password: whoever is checked against them is refused.
            if let Some(hash) = wrong {
                let keys = ScramKeys::derive("x", b"salt", FEW, hash).unwrap();
                world.credentials = world.credentials.clone().with_keys(hash, keys);
            }
            world.plain("", "juliet", PASSWORD).is_ok()
        };
        assert!(checked(None));
        for hash in ScramHash::ALL {
            assert_eq!(checked(Some(hash)), hash != usual, "{hash:?} for {usual:?}");
        }
    }
}

#[test]
fn sasl_7_an_account_with_older_keys_looks_like_none_to_sha_512() {
    let mut world = World::new();
    world.credentials.scram_sha_512 = None;
    let first = Client::default().first();
    let without = challenge(world.auth(Mechanism::ScramSha512, first.as_bytes()).unwrap());
    world.user = "nobody";
    let unknown = challenge(world.auth(Mechanism::ScramSha512, first.as_bytes()).unwrap());
    assert_eq!(without.split(',').nth(1), unknown.split(',').nth(1));
    world.user = "juliet";
    let refused = world.scram(Mechanism::ScramSha512, &Client::default());
    assert_refused(refused, SaslError::NotAuthorized);
    // Its password still works otherwise.
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
    let older = world.scram(Mechanism::ScramSha256, &Client::default());
    assert_success(older, "juliet@im.example.com");
}

#[test]
fn sasl_7_the_decoy_itself_lets_nobody_in() {
    // Even a client that could know the decoy's keys: they are nobody's.
    let world = World::new();
    let account = BareJid::new("romeo@im.example.com").unwrap();
    let keys = ScramKeys::derive(PASSWORD, b"salt", NonZeroU32::MIN, ScramHash::Sha1).unwrap();
    let client = Client { user: "romeo", ..Client::default() };
    let first = client.first();
    for known in [true, false] {
        let message = crate::sasl::scram::ClientFirst::parse(first.as_bytes()).unwrap();
        let context = &world.negotiation.context;
        let binding = message.binding(false, false, &context.bindings).unwrap();
        let (expected, challenge) = message.challenge(
            ScramHash::Sha1,
            keys.clone(),
            known,
            binding,
            "",
            &*context.environment,
        );
        let last = client.last(ScramHash::Sha1, std::str::from_utf8(&challenge).unwrap());
        assert_eq!(expected.verify(last.as_bytes()).is_ok(), known, "{account}");
    }
}

#[test]
fn sasl_7_a_disabled_account_is_told_so_after_the_proof() {
    let mut world = World::with(|context| context.bindings = ChannelBindings::new());
    world.credentials.disabled = true;
    assert_refused(world.plain("", "juliet", "x"), SaslError::NotAuthorized);
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::AccountDisabled);
    assert_refused(
        world.scram(Mechanism::ScramSha1, &Client::default()),
        SaslError::AccountDisabled,
    );
    let wrong = Client { password: "x", ..Client::default() };
    assert_refused(world.scram(Mechanism::ScramSha1, &wrong), SaslError::NotAuthorized);
}

#[test]
fn sasl_7_a_fault_of_the_store_is_no_attempt() {
    let mut world = World::new();
    for _ in 0..9 {
        let message = format!("\0juliet\0{PASSWORD}");
        let initial = Some(message.into_bytes());
        let step = world.negotiation.receive(Ok(Request::Auth { mechanism: "PLAIN", initial }));
        assert!(matches!(step, Ok(Step::NeedCredentials { .. })));
        let refused = world.negotiation.store_failed();
        assert_eq!(
            refused,
            Failure { error: SaslError::TemporaryAuthFailure, text: None, close: false }
        );
    }
    assert_refused(
        world.negotiation.credentials(Some(world.credentials.clone())),
        SaslError::MalformedRequest,
    );
    let wrong = world.plain("", "juliet", "x").unwrap_err();
    assert_eq!(wrong, Failure { error: SaslError::NotAuthorized, text: None, close: false });
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
}

#[test]
fn sasl_7_the_host_may_check_passwords_itself() {
    let asked = |verdict| {
        let mut world = World::with(|context| {
            context.policy = Arc::new(policy().authenticator());
        });
        match world.plain("", "Juliet", "I\u{ad}X").unwrap() {
            Step::CheckPassword { account, password } => {
                assert_eq!((account.as_str(), password.as_str()), ("juliet@im.example.com", "IX"));
            }
            other => panic!("{other:?}"),
        }
        assert!(world.asked.is_empty());
        world.negotiation.verdict(verdict)
    };
    assert_success(asked(Verdict::Accepted), "juliet@im.example.com");
    assert_refused(asked(Verdict::Refused), SaslError::NotAuthorized);
    assert_refused(asked(Verdict::Disabled), SaslError::AccountDisabled);
    assert_refused(asked(Verdict::Expired), SaslError::CredentialsExpired);
}

#[test]
fn sasl_7_answers_that_nobody_asked_for_are_refused() {
    let mut world = World::new();
    assert_refused(world.negotiation.verdict(Verdict::Accepted), SaslError::MalformedRequest);
    assert_refused(
        world.negotiation.credentials(Some(world.credentials.clone())),
        SaslError::MalformedRequest,
    );
    assert_refused(world.negotiation.hashed(true), SaslError::MalformedRequest);
    world.auth(Mechanism::ScramSha1, Client::default().first().as_bytes()).unwrap();
    assert_refused(world.negotiation.verdict(Verdict::Accepted), SaslError::MalformedRequest);
}
