//! What is offered, and the order of an exchange (SASL-1 to SASL-4, SASL-9, TLS-3).

use super::*;

#[test]
fn sasl_1_another_implementation_logs_in_by_every_mechanism() {
    for mechanism in SCRAMS.into_iter().chain([Mechanism::Plain]) {
        // That client says "y" in the mechanisms without channel binding.
        let mut world = World::with(|context| {
            if !mechanism.binds_channel() {
                context.bindings = ChannelBindings::new();
            }
        });
        assert_success(world.run(mechanism, None, "juliet", PASSWORD), "juliet@im.example.com");
        assert_refused(world.run(mechanism, None, "juliet", "wrong"), SaslError::NotAuthorized);
        assert_refused(world.run(mechanism, None, "romeo", PASSWORD), SaslError::NotAuthorized);
    }
}

#[test]
fn sasl_1_what_is_offered_follows_from_stream_and_policy() {
    let all = [
        "SCRAM-SHA-512-PLUS",
        "SCRAM-SHA-256-PLUS",
        "SCRAM-SHA-1-PLUS",
        "SCRAM-SHA-512",
        "SCRAM-SHA-256",
        "SCRAM-SHA-1",
        "PLAIN",
    ];
    assert_eq!(names(&World::new()), all);
    assert_eq!(names(&World::with(|context| context.bindings = ChannelBindings::new())), all[3..]);
    assert_eq!(names(&World::with(|context| context.secure = false)), [""; 0]);
    let insecure = World::with(|context| {
        context.secure = false;
        context.policy = Arc::new(policy().allow_insecure(true));
        context.certified = vec![BareJid::new("juliet@im.example.com").unwrap()];
    });
    assert_eq!(names(&insecure), all[3..6]);
    let offered = |change: fn(Policy) -> Policy| {
        names(&World::with(|context| context.policy = Arc::new(change(policy()))))
    };
    assert_eq!(
        offered(|policy| policy.mechanisms(&[Mechanism::Plain, Mechanism::ScramSha256])),
        [all[4], all[6]]
    );
    assert_eq!(offered(|policy| policy.authenticator()), ["PLAIN"]);
}

#[test]
fn sasl_1_what_is_not_offered_is_an_invalid_mechanism() {
    let mut world = World::with(|context| {
        context.bindings = ChannelBindings::new();
        context.policy = Arc::new(policy().mechanisms(&SCRAMS));
    });
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::InvalidMechanism);
    assert_refused(world.auth(Mechanism::ScramSha1Plus, b""), SaslError::InvalidMechanism);
    let unknown = Request::Auth { mechanism: "", initial: None };
    assert_refused(world.receive(Ok(unknown)), SaslError::InvalidMechanism);
    assert!(world.asked.is_empty());
}

#[test]
fn tls_3_an_insecure_stream_wants_encryption_first() {
    let mut world = World::with(|context| context.secure = false);
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::EncryptionRequired);
    assert!(world.asked.is_empty());
    let mut world = World::with(|context| {
        context.secure = false;
        context.policy = Arc::new(policy().allow_insecure(true));
    });
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::InvalidMechanism);
    assert_success(
        world.scram(Mechanism::ScramSha256, &Client::default()),
        "juliet@im.example.com",
    );
}

#[test]
fn sasl_2_without_initial_response_the_client_is_asked_for_it() {
    let asks = |one: &Mechanism| *one != Mechanism::Anonymous && !one.is_for_tokens();
    for mechanism in Mechanism::ALL.into_iter().filter(asks) {
        let mut world = World::with(|context| {
            context.certified = vec![BareJid::new("juliet@im.example.com").unwrap()];
            context.policy = Arc::new(policy().tokens().guests());
        });
        let step =
            world.receive(Ok(Request::Auth { mechanism: mechanism.as_str(), initial: None }));
        assert_eq!(challenge(step.unwrap()), "");
    }
    let mut world = World::new();
    world.receive(Ok(Request::Auth { mechanism: "PLAIN", initial: None })).unwrap();
    assert_success(
        world.respond(format!("\0juliet\0{PASSWORD}").as_bytes()),
        "juliet@im.example.com",
    );
}

#[test]
fn sasl_2_bad_encoding_ends_the_exchange() {
    let mut world = World::new();
    world.auth(Mechanism::ScramSha1, Client::default().first().as_bytes()).unwrap();
    assert_refused(world.receive(wire::parse("response", None, "?")), SaslError::IncorrectEncoding);
    assert_refused(world.respond(b""), SaslError::MalformedRequest);
}

#[test]
fn sasl_3_a_further_auth_discards_the_exchange() {
    let mut world = World::new();
    let client = Client::default();
    let first = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
    let second = challenge(world.auth(Mechanism::ScramSha256, client.first().as_bytes()).unwrap());
    assert_ne!(first.split(',').next(), second.split(',').next());
    assert_success(
        world.respond(client.last(ScramHash::Sha256, &second).as_bytes()),
        "juliet@im.example.com",
    );

    let first = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
    world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap();
    assert_refused(
        world.respond(client.last(ScramHash::Sha1, &first).as_bytes()),
        SaslError::NotAuthorized,
    );
}

#[test]
fn sasl_4_abort_is_a_failed_attempt_and_a_lone_response_is_malformed() {
    let mut world = World::new();
    assert_refused(world.respond(b""), SaslError::MalformedRequest);
    let client = Client::default();
    let first = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
    assert_refused(world.receive(Ok(Request::Abort)), SaslError::Aborted);
    assert_refused(
        world.respond(client.last(ScramHash::Sha1, &first).as_bytes()),
        SaslError::MalformedRequest,
    );
    let last = world.receive(Ok(Request::Abort)).unwrap_err();
    assert_eq!(last, Failure { error: SaslError::Aborted, text: None, close: true });
}

#[test]
fn sasl_9_the_failure_after_the_last_retry_closes() {
    for retries in [2, 3, 5] {
        let mut world = World::with(|context| {
            context.policy = Arc::new(policy().mechanisms(&SCRAMS).retries(retries));
        });
        for attempt in 0..=retries {
            let refused = world.plain("", "juliet", "x").unwrap_err();
            assert_eq!(refused.close, attempt == retries, "attempt {attempt} of {retries}");
        }
    }
}

#[test]
fn limit_7_three_retries_unless_said_otherwise() {
    let mut world = World::new();
    let closes: Vec<_> =
        (0..4).map(|_| world.receive(Ok(Request::Abort)).unwrap_err().close).collect();
    assert_eq!(closes, [false, false, false, true]);
}
