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
    let all = "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN";
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
