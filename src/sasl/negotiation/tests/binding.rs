//! Channel binding (SASL-11).

use super::*;

#[test]
fn sasl_11_features_list_mechanisms_and_binding_types() {
    let features = |world: &World| {
        let context = &world.negotiation.context;
        let names: Vec<_> = context.offered().map(Mechanism::as_str).collect();
        let types: Vec<_> = context.bindings.types().collect();
        (names.join(" "), types.join(" "))
    };
    let world =
        World::with(|context| context.bindings = ChannelBindings::new().server_end_point(vec![1]));
    let all = "SCRAM-SHA-512-PLUS SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS \
               SCRAM-SHA-512 SCRAM-SHA-256 SCRAM-SHA-1 PLAIN";
    assert_eq!(features(&world), (all.into(), "tls-server-end-point".into()));
    assert_eq!(features(&World::new()).1, "tls-exporter tls-server-end-point");
    let none = World::with(|context| context.bindings = ChannelBindings::new().exporter(vec![1]));
    assert!(!features(&none).0.contains("PLUS"));
    assert_eq!(features(&World::with(|context| context.secure = false)).0, "");
}

#[test]
fn sasl_11_both_binding_types_bind() {
    let mechanism = Mechanism::ScramSha256Plus;
    for (kind, data) in
        [("tls-exporter", &b"exported"[..]), ("tls-server-end-point", b"certificate")]
    {
        let header = format!("p={kind},,");
        let client = Client { header: &header, channel: data, ..Client::default() };
        assert_success(World::new().scram(mechanism, &client), "juliet@im.example.com");
        let other = Client { header: &header, channel: b"another channel", ..Client::default() };
        assert_refused(World::new().scram(mechanism, &other), SaslError::NotAuthorized);
    }
    let unknown = Client { header: "p=tls-unique,,", ..Client::default() };
    assert_refused(World::new().scram(mechanism, &unknown), SaslError::MalformedRequest);
}

#[test]
fn sasl_11_a_stripped_offer_is_noticed() {
    let stripped = Client { header: "y,,", ..Client::default() };
    assert_refused(World::new().scram(Mechanism::ScramSha1, &stripped), SaslError::NotAuthorized);
    assert_refused(
        World::new().scram(Mechanism::ScramSha1Plus, &stripped),
        SaslError::NotAuthorized,
    );
    let mut world = World::with(|context| context.bindings = ChannelBindings::new());
    assert_success(world.scram(Mechanism::ScramSha1, &stripped), "juliet@im.example.com");
}

#[test]
fn sasl_11_flag_and_mechanism_agree() {
    let bound = Client { header: "p=tls-exporter,,", channel: b"exported", ..Client::default() };
    assert_refused(World::new().scram(Mechanism::ScramSha256, &bound), SaslError::MalformedRequest);
    let unbound = Client::default();
    assert_refused(
        World::new().scram(Mechanism::ScramSha256Plus, &unbound),
        SaslError::MalformedRequest,
    );
}

/// What the client works out from the offer that it has seen (XEP-0474 §6.1), with the hash function of RustCrypto.
fn seen(mechanisms: &[&str], bindings: &[&str]) -> String {
    use sha1::Digest as _;
    let sorted = |names: &[&str]| {
        let mut names: Vec<_> = names.to_vec();
        names.sort_unstable();
        names.join("\u{1e}")
    };
    let mut text = sorted(mechanisms);
    if !bindings.is_empty() {
        text = format!("{text}\u{1f}{}", sorted(bindings));
    }
    STANDARD.encode(Sha1::digest(text))
}

/// The attributes behind those of RFC 5802 in SCRAM's first message of the server.
fn told(world: &mut World) -> Vec<String> {
    let first = Client::default().first();
    let challenge = challenge(world.auth(Mechanism::ScramSha1, first.as_bytes()).unwrap());
    challenge.split(',').skip(3).map(str::to_owned).collect()
}

#[test]
fn sasl_12_scram_tells_what_was_offered() {
    let with = |mechanisms: &'static [Mechanism], bindings: ChannelBindings| {
        World::with(|context| {
            context.policy = Arc::new(policy().mechanisms(mechanisms));
            context.bindings = bindings;
        })
    };
    const TWO: &[Mechanism] = &[Mechanism::ScramSha1, Mechanism::ScramSha1Plus];
    let both = with(TWO, bindings());
    // The example of XEP-0474.
    let hash =
        seen(&["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"], &["tls-exporter", "tls-server-end-point"]);
    assert_eq!(hash, "G6k/rBLDqgOhRRaCuuatSDFkJ08=");
    for (mut world, hash) in [
        (both, hash),
        (with(TWO, ChannelBindings::new()), seen(&["SCRAM-SHA-1"], &[])),
        // Bindings that are not announced, since nothing binds.
        (with(&TWO[..1], bindings()), seen(&["SCRAM-SHA-1"], &[])),
        (
            with(TWO, ChannelBindings::new().server_end_point(vec![1])),
            seen(&["SCRAM-SHA-1", "SCRAM-SHA-1-PLUS"], &["tls-server-end-point"]),
        ),
        (
            with(&[Mechanism::Plain, Mechanism::ScramSha1], bindings()),
            seen(&["PLAIN", "SCRAM-SHA-1"], &[]),
        ),
    ] {
        assert_eq!(told(&mut world), [format!("h={hash}")]);
    }
}

#[test]
fn sasl_12_a_certificate_is_part_of_the_offer() {
    let mut world = World::with(|context| {
        context.policy =
            Arc::new(policy().mechanisms(&[Mechanism::External, Mechanism::ScramSha1]));
        context.certified = vec![BareJid::new("juliet@im.example.com").unwrap()];
    });
    assert_eq!(told(&mut world), [format!("h={}", seen(&["EXTERNAL", "SCRAM-SHA-1"], &[]))]);
}

#[test]
fn sasl_12_the_tls_version_is_told_where_the_host_knows_it() {
    let version = |world: &mut World| told(world).get(1).cloned();
    assert_eq!(version(&mut World::new()), None);
    for (number, text) in [(0x0304, "t=0304"), (0x0303, "t=0303"), (0xfefc, "t=fefc")] {
        let mut world = World::with(|context| context.bindings = bindings().version(number));
        assert_eq!(version(&mut world).as_deref(), Some(text));
    }
    let mut silent = World::with(|context| {
        context.bindings = bindings().version(0x0304);
        context.policy = Arc::new(policy().downgrade_protection(false));
    });
    assert_eq!(told(&mut silent), [""; 0]);
}

#[test]
fn sasl_12_the_proof_covers_what_was_told() {
    let client = Client { header: "p=tls-exporter,,", channel: b"exported", ..Client::default() };
    for mechanism in [Mechanism::ScramSha1Plus, Mechanism::ScramSha512Plus] {
        let hash = mechanism.hash().unwrap();
        let mut world = World::with(|context| context.bindings = bindings().version(0x0304));
        let sent = challenge(world.auth(mechanism, client.first().as_bytes()).unwrap());
        assert_success(world.respond(client.last(hash, &sent).as_bytes()), "juliet@im.example.com");
        // Somebody between the two tells the client another version, or no hash.
        let fields: Vec<_> = sent.split(',').collect();
        let [.., told, version] = &fields[..] else { panic!("{sent}") };
        assert!(told.starts_with("h=") && *version == "t=0304", "{sent}");
        for forged in
            [sent.replace("t=0304", "t=0303"), sent.replace(told, "h=AAAA"), fields[..3].join(",")]
        {
            let mut world = World::with(|context| context.bindings = bindings().version(0x0304));
            let real = challenge(world.auth(mechanism, client.first().as_bytes()).unwrap());
            assert_eq!(real, sent);
            assert_refused(
                world.respond(client.last(hash, &forged).as_bytes()),
                SaslError::NotAuthorized,
            );
        }
    }
}
