//! Who somebody is (SASL-5, SASL-6, LIMIT-24).

use super::*;

#[test]
fn sasl_5_only_the_own_bare_jid_is_an_authorization_identity() {
    let own = ["", "juliet@im.example.com", "Juliet@IM.example.com"];
    let not = [
        "romeo@im.example.com",
        "juliet@example.com",
        "juliet",
        "im.example.com",
        "juliet@im.example.com/balcony",
        "juliet@im.example.com./balcony",
        "juliet@im.example.com/",
        "@",
        "@im.example.com",
        " ",
    ];
    for authzid in own {
        assert_success(World::new().plain(authzid, "juliet", PASSWORD), "juliet@im.example.com");
        let header = if authzid.is_empty() { "n,,".to_owned() } else { format!("n,a={authzid},") };
        let client = Client { header: &header, ..Client::default() };
        assert_success(World::new().scram(Mechanism::ScramSha1, &client), "juliet@im.example.com");
    }
    for authzid in not {
        assert_refused(World::new().plain(authzid, "juliet", PASSWORD), SaslError::InvalidAuthzid);
        let client = Client { header: &format!("n,a={authzid},"), ..Client::default() };
        assert_refused(
            World::new().scram(Mechanism::ScramSha1, &client),
            SaslError::InvalidAuthzid,
        );
    }
    assert_success(
        World::new().run(Mechanism::Plain, Some("juliet@im.example.com"), "juliet", PASSWORD),
        "juliet@im.example.com",
    );
    // RFC 5802 §7: "a=" needs a name, an empty one cannot be written so.
    let client = Client { header: "n,a=,", ..Client::default() };
    assert_success(World::new().scram(Mechanism::ScramSha1, &client), "juliet@im.example.com");
}

#[test]
fn sasl_6_the_user_is_normalised() {
    let mut world = World::new();
    assert_success(world.plain("", "JULIET", PASSWORD), "juliet@im.example.com");
    let client = Client { user: "JuliEt", ..Client::default() };
    assert_success(world.scram(Mechanism::ScramSha256, &client), "juliet@im.example.com");
    assert!(world.asked.iter().all(|account| account.as_str() == "juliet@im.example.com"));
}

#[test]
fn sasl_6_an_empty_or_invalid_name_is_not_authorized() {
    let long = "a".repeat(1024);
    for user in
        ["", "juliet@im.example.com", "a b", "a/b", "\u{feff}", "\u{e000}", "a\u{1f600}", &long]
    {
        let mut world = World::new();
        assert_refused(world.plain("", user, PASSWORD), SaslError::NotAuthorized);
        let client = Client { user, ..Client::default() };
        assert_refused(world.scram(Mechanism::ScramSha1, &client), SaslError::NotAuthorized);
        assert!(world.asked.is_empty(), "{user}");
    }
}

#[test]
fn limit_24_a_localpart_of_1023_bytes_is_one() {
    let mut world = World::new();
    let _ = world.plain("", &"a".repeat(1023), PASSWORD);
    assert_eq!(world.asked.len(), 1);
}
