//! Logins that the host checks: with what it knows of them, by tokens, for a time (rules TOKEN-1 to TOKEN-6).

use crate::common::wire;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use wire::{Client, World, now};
use xmpp_session::environment::Environment as _;
use xmpp_session::jid::BareJid;
use xmpp_session::sasl::Policy;
use xmpp_session::server::{DomainPolicy, FaultKind, ServerBuilder, Transport, Want};
use xmpp_session::session::{EventKind, Reason};
use xmpp_session::store::{
    AccountStore as _, Authenticator, ClientKey, ClientTokens, Credentials, LoginRequest, Memory,
    Revision, StoreError, StoreFuture, Stores, TokenAuthenticator, TokenError, TokenGrant,
    TokenStatus, TokenStore, TokenVerdict, Verdict,
};
use xmpp_session::xep::StreamManagement;

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const HOUR: Duration = Duration::from_secs(3600);
const OPEN: &str = "<stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.net' version='1.0'>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
    <resource>r</resource></bind></iq>";

fn auth(mechanism: &str, message: &str) -> String {
    let text = STANDARD.encode(message);
    format!("<auth xmlns='{NS}' mechanism='{mechanism}'>{text}</auth>")
}

fn bearer(claimed: &str, token: &str) -> String {
    auth("OAUTHBEARER", &format!("n,{claimed},\x01auth=Bearer {token}\x01\x01"))
}

fn dummy() -> String {
    format!("<response xmlns='{NS}'>AQ==</response>")
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='{NS}'><{condition}/></failure>")
}

fn success() -> String {
    format!("<success xmlns='{NS}'/>")
}

/// The JSON of a challenge.
fn json(answer: &str) -> String {
    let text = answer.strip_prefix(&format!("<challenge xmlns='{NS}'>"));
    let text = text.and_then(|text| text.strip_suffix("</challenge>")).expect(answer);
    String::from_utf8(STANDARD.decode(text).unwrap()).unwrap()
}

type Asked = Arc<Mutex<Vec<String>>>;

/// Knows some tokens, and notes what it was asked.
struct Tokens {
    asked: Asked,
    hour: Option<SystemTime>,
}

impl TokenAuthenticator for Tokens {
    fn check_token(&self, token: &str, login: &LoginRequest) -> StoreFuture<TokenVerdict> {
        let asked = format!("{token} {} {:?}", login.mechanism(), login.source());
        self.asked.lock().unwrap().push(asked);
        let grant = |account: &str| TokenGrant::new(BareJid::new(account).unwrap());
        let verdict = match token {
            "good" => Ok(TokenVerdict::Accepted(grant("juliet@example.net"))),
            "hour" => {
                let grant = grant("juliet@example.net").expires(self.hour.unwrap());
                Ok(TokenVerdict::Accepted(grant))
            }
            "past" => {
                let grant = grant("juliet@example.net").expires(SystemTime::UNIX_EPOCH);
                Ok(TokenVerdict::Accepted(grant))
            }
            "elsewhere" => Ok(TokenVerdict::Accepted(grant("juliet@example.com"))),
            "domain" => Ok(TokenVerdict::Accepted(grant("example.net"))),
            "expired" => Ok(TokenVerdict::Expired(self.discovery())),
            "narrow" => {
                Ok(TokenVerdict::Refused(self.discovery().status(TokenStatus::InsufficientScope)))
            }
            "disabled" => Ok(TokenVerdict::Disabled),
            "later" => Ok(TokenVerdict::Temporary),
            "fails" => Err(StoreError::failed("no route to the identity provider")),
            "panics" => panic!("a defect"),
            _ => Ok(TokenVerdict::Refused(self.discovery())),
        };
        Box::pin(async move { verdict })
    }

    fn discovery(&self) -> TokenError {
        TokenError::new().scope("chat").openid_configuration("https://login.example.net/o")
    }
}

/// A world whose domain `example.net` takes tokens.
fn world() -> (World, Asked) {
    world_with(|builder| builder)
}

fn world_with(
    more: impl FnOnce(
        ServerBuilder<xmpp_session::connection::Recorder>,
    ) -> ServerBuilder<xmpp_session::connection::Recorder>
    + Clone,
) -> (World, Asked) {
    let asked = Asked::default();
    let told = Arc::clone(&asked);
    let world = World::with(|builder, environment| {
        let mut policy = DomainPolicy::default();
        let hour = Some(environment.utc() + HOUR);
        policy.tokens = Some(Arc::new(Tokens { asked: told, hour }));
        more(builder.domain_with("example.net".parse().unwrap(), policy))
            .extension(StreamManagement::new())
    });
    world.accounts().insert(juliet(), Credentials::new());
    (world, asked)
}

fn juliet() -> BareJid {
    BareJid::new("juliet@example.net").unwrap()
}

fn opened(world: &World) -> (Client, String) {
    let client = world.accept(Transport::new().secure(true).source("192.0.2.7"));
    client.send(OPEN);
    let features = client.received().concat();
    (client, features)
}

/// A bound client that has logged in with this token.
fn bound(world: &World, token: &str) -> Client {
    let (client, _) = opened(world);
    assert_eq!(client.ask(&bearer("", token)), [success()], "{token}");
    client.send(OPEN);
    client.send(BIND);
    let answer = client.received().concat();
    assert!(answer.contains("<jid>juliet@example.net/r</jid>"), "{answer}");
    client
}

const NS_2: &str = "urn:xmpp:sasl:2";

/// The same in SASL2, with more to ask for.
fn auth_2(mechanism: &str, message: &str, more: &str) -> String {
    let text = STANDARD.encode(message);
    format!(
        "<authenticate xmlns='{NS_2}' mechanism='{mechanism}'>\
         <initial-response>{text}</initial-response>{more}</authenticate>"
    )
}

const AGENT: &str = "<user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'>\
    <software>AwesomeXMPP</software><device>phone</device></user-agent>";
const BIND_2: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>T</tag></bind>";

/// Says what it is told to, and notes what it was asked.
#[derive(Clone)]
struct Directory(Result<Verdict, ()>, Asked);

impl Authenticator for Directory {
    fn check_login(
        &self,
        account: &BareJid,
        password: &str,
        login: &LoginRequest,
    ) -> StoreFuture<Verdict> {
        let (mechanism, source) = (login.mechanism(), login.source());
        let asked = format!("{account} {password} {mechanism} {source:?} {}", login.domain());
        self.1.lock().unwrap().push(asked);
        if let Some(agent) = login.user_agent() {
            let agent = format!("{:?} {:?} {:?}", agent.id.is_some(), agent.software, agent.device);
            self.1.lock().unwrap().push(agent);
        }
        let verdict = self.0.map_err(|()| StoreError::failed("gone"));
        Box::pin(async move { verdict })
    }
}

fn directory(verdict: Verdict) -> (World, Asked) {
    let asked = Asked::default();
    let host = Directory(Ok(verdict), Arc::clone(&asked));
    let world = World::with(|builder, _| {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(Arc::new(host));
        builder.domain_with("example.net".parse().unwrap(), policy)
    });
    (world, asked)
}

#[test]
fn token_1_the_host_knows_who_asks_and_says_what_the_client_gets() {
    let text = |condition: &str, text: &str| {
        format!("<failure xmlns='{NS}'><{condition}/><text xml:lang='en'>{text}</text></failure>")
    };
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    for (verdict, answer) in [
        (Verdict::Accepted, success()),
        (Verdict::AcceptedUntil(at), success()),
        (Verdict::AcceptedUntil(SystemTime::UNIX_EPOCH), failure("credentials-expired")),
        (Verdict::Refused, failure("not-authorized")),
        (Verdict::Disabled, failure("account-disabled")),
        (Verdict::LockedUntil(at), text("account-disabled", "Locked until 2027-01-15T08:00:00Z")),
        (Verdict::Expired, failure("credentials-expired")),
        (Verdict::MustChange, text("credentials-expired", "The password has to be changed")),
        (Verdict::Temporary, failure("temporary-auth-failure")),
    ] {
        let (world, asked) = directory(verdict);
        let (client, _) = opened(&world);
        assert_eq!(client.ask(&auth("PLAIN", "\0Juliet\0secret")), [answer], "{verdict:?}");
        let asked = asked.lock().unwrap().join("\n");
        assert_eq!(asked, "juliet@example.net secret PLAIN Some(\"192.0.2.7\") example.net");
    }
    // "Temporary" is no attempt, and no fault.
    let (world, _) = directory(Verdict::Temporary);
    let (client, _) = opened(&world);
    for _ in 0..20 {
        let answer = client.ask(&auth("PLAIN", "\0juliet\0secret"));
        assert_eq!(answer, [failure("temporary-auth-failure")]);
    }
    assert_eq!(client.want(), Some(Want::Input));
}

#[test]
fn token_1_in_sasl2_the_host_knows_what_the_client_claims_to_be() {
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let (world, asked) = directory(Verdict::LockedUntil(at));
    let (client, _) = opened(&world);
    let answer = client.answer(&auth_2("PLAIN", "\0juliet\0secret", AGENT));
    assert_eq!(
        answer,
        format!(
            "<failure xmlns='{NS_2}'><account-disabled xmlns='{NS}'/>\
             <text xml:lang='en'>Locked until 2027-01-15T08:00:00Z</text></failure>"
        )
    );
    let asked = asked.lock().unwrap().join("\n");
    assert!(asked.contains("true Some(\"AwesomeXMPP\") Some(\"phone\")"), "{asked}");
}

#[test]
fn token_1_a_host_that_implements_nothing_lets_nobody_in() {
    struct Nothing;
    impl Authenticator for Nothing {}
    let world = World::with(|builder, _| {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(Arc::new(Nothing));
        builder.domain_with("example.net".parse().unwrap(), policy)
    });
    let (client, _) = opened(&world);
    let answer = client.ask(&auth("PLAIN", "\0juliet\0secret"));
    assert_eq!(answer, [failure("not-authorized")]);
}

#[test]
fn token_2_tokens_are_taken_where_the_host_checks_them() {
    let (world, asked) = world();
    let (client, features) = opened(&world);
    for name in ["OAUTHBEARER", "X-OAUTH2", "SCRAM-SHA-256", "PLAIN"] {
        assert!(features.contains(&format!("<mechanism>{name}</mechanism>")), "{features}");
    }
    assert!(!features.contains("ANONYMOUS"), "{features}");
    assert_eq!(client.ask(&bearer("a=juliet@example.net", "good")), [success()]);
    let (client, _) = opened(&world);
    assert_eq!(client.ask(&auth("X-OAUTH2", "\0juliet\0good")), [success()]);
    let expected =
        ["OAUTHBEARER", "X-OAUTH2"].map(|name| format!("good {name} Some(\"192.0.2.7\")"));
    assert_eq!(*asked.lock().unwrap(), expected);

    // Another domain of the same server, whose host checks none.
    let client = world.connect();
    client.open();
    let features = client.received().concat();
    assert!(!features.contains("OAUTH"), "{features}");
    for mechanism in ["OAUTHBEARER", "X-OAUTH2", "ANONYMOUS"] {
        let answer = client.ask(&auth(mechanism, "n,,\x01auth=Bearer good\x01\x01"));
        assert_eq!(answer, [failure("invalid-mechanism")], "{mechanism}");
    }
    // Nor on a stream that anybody may read.
    let mut policy = DomainPolicy::default();
    policy.tls_required = false;
    policy.sasl = Some(Policy::new(world.environment()).allow_insecure(true));
    policy.tokens = Some(Arc::new(Tokens { asked: Asked::default(), hour: None }));
    let world =
        World::with(|builder, _| builder.domain_with("example.net".parse().unwrap(), policy));
    let client = world.accept(Transport::new());
    client.send(OPEN);
    let features = client.received().concat();
    assert!(features.contains("SCRAM-SHA-1") && !features.contains("OAUTH"), "{features}");
    assert_eq!(client.ask(&bearer("", "good")), [failure("invalid-mechanism")]);
}

#[test]
fn token_3_the_account_asked_for_is_that_of_the_token() {
    let (world, _) = world();
    for (claimed, token, answer) in [
        ("", "good", success()),
        ("a=Juliet@Example.NET", "good", success()),
        ("a=romeo@example.net", "good", failure("invalid-authzid")),
        ("a=juliet@example.com", "good", failure("invalid-authzid")),
        ("a=juliet", "good", failure("invalid-authzid")),
    ] {
        let (client, _) = opened(&world);
        assert_eq!(client.ask(&bearer(claimed, token)), [answer], "{claimed}");
    }
    let (client, _) = opened(&world);
    let answer = client.ask(&auth("X-OAUTH2", "\0romeo\0good"));
    assert_eq!(answer, [failure("invalid-authzid")]);
    let answer = client.ask(&auth("X-OAUTH2", "romeo@example.net\0juliet\0good"));
    assert_eq!(answer, [failure("invalid-authzid")]);
    let answer = client.ask(&auth("X-OAUTH2", "\0juliet\0"));
    assert_eq!(answer, [failure("not-authorized")]);
}

#[test]
fn token_4_a_refused_token_is_explained_and_then_fails() {
    let told = "\"scope\":\"chat\",\"openid-configuration\":\"https://login.example.net/o\"}";
    for (token, status, condition) in [
        ("bad", "invalid_token", "not-authorized"),
        ("narrow", "insufficient_scope", "not-authorized"),
        ("expired", "invalid_token", "credentials-expired"),
    ] {
        let (world, _) = world();
        let (client, _) = opened(&world);
        let answer = client.ask(&bearer("", token)).concat();
        assert_eq!(json(&answer), format!("{{\"status\":\"{status}\",{told}"), "{token}");
        assert_eq!(client.ask(&dummy()), [failure(condition)], "{token}");
        // Whatever it responds, and if it gives up.
        client.send(&bearer("", token));
        let _told = client.received();
        let other = format!("<response xmlns='{NS}'/>");
        assert_eq!(client.ask(&other), [failure(condition)], "{token}");
        client.send(&bearer("", token));
        let _told = client.received();
        let abort = format!("<abort xmlns='{NS}'/>");
        assert_eq!(client.ask(&abort), [failure("aborted")], "{token}");
        // X-OAUTH2 has no such thing.
        let (client, _) = opened(&world);
        let answer = client.ask(&auth("X-OAUTH2", &format!("\0juliet\0{token}")));
        assert_eq!(answer, [failure(condition)], "{token}");
    }
    // Without a token: where to get one. The host is not asked.
    let (world, asked) = world();
    let (client, _) = opened(&world);
    for empty in ["n,,\x01\x01", "n,,\x01auth=\x01\x01"] {
        let answer = client.ask(&auth("OAUTHBEARER", empty)).concat();
        assert_eq!(json(&answer), format!("{{\"status\":\"invalid_token\",{told}"));
        assert_eq!(client.ask(&dummy()), [failure("not-authorized")]);
    }
    assert!(asked.lock().unwrap().is_empty());
}

#[test]
fn token_4_who_begins_anew_instead_of_hearing_the_failure_has_failed() {
    let (world, asked) = world();
    let (client, _) = opened(&world);
    for n in 0..4 {
        let answer = client.ask(&bearer("", "bad")).concat();
        assert!(answer.starts_with("<challenge"), "{n}: {answer}");
    }
    let answer = client.ask(&bearer("", "good")).concat();
    assert!(answer.contains("<policy-violation "), "{answer}");
    assert_eq!(asked.lock().unwrap().len(), 4);
    // In time it may still get it right.
    let (client, _) = opened(&world);
    client.send(&bearer("", "bad"));
    let _told = client.received();
    assert_eq!(client.ask(&bearer("", "good")), [success()]);
}

#[test]
fn token_4_guesses_of_a_source_are_slowed_down() {
    let (world, asked) = world();
    for _ in 0..40 {
        let (client, _) = opened(&world);
        client.send(&bearer("", "bad"));
        client.lose();
    }
    let before = asked.lock().unwrap().len();
    let (client, _) = opened(&world);
    assert_eq!(client.ask(&bearer("", "good")), [""; 0], "LIMIT-29");
    world.advance(Duration::from_secs(9));
    assert_eq!(client.received(), [success()]);
    assert!(asked.lock().unwrap().len() > before);
}

#[test]
fn token_4_in_sasl2_as_well() {
    let (world, _) = world();
    let (client, features) = opened(&world);
    let list = features.split("<authentication ").nth(1).unwrap();
    assert!(list.contains("<mechanism>OAUTHBEARER</mechanism>"), "{features}");
    let message = |token: &str| format!("n,,\x01auth=Bearer {token}\x01\x01");
    let answer = client.answer(&auth_2("OAUTHBEARER", &message("bad"), BIND_2));
    let text = answer.strip_prefix(&format!("<challenge xmlns='{NS_2}'>")).expect(&answer);
    let text = STANDARD.decode(text.split('<').next().unwrap()).unwrap();
    assert!(text.starts_with(b"{\"status\":\"invalid_token\""));
    let answer = client.answer(&format!("<response xmlns='{NS_2}'>AQ==</response>"));
    let failed = format!("<failure xmlns='{NS_2}'><not-authorized xmlns='{NS}'/></failure>");
    assert_eq!(answer, failed);
    // The attempt is over, and what it asked for with it.
    let success = client.ask(&auth_2("OAUTHBEARER", &message("good"), "")).concat();
    let identifier = "<authorization-identifier>juliet@example.net</authorization-identifier>";
    assert!(success.contains(identifier), "{success}");
}

#[test]
fn token_6_in_sasl2_with_and_without_a_session() {
    for more in ["", BIND_2] {
        let (world, _) = world();
        let (client, _) = opened(&world);
        let message = "n,,\x01auth=Bearer hour\x01\x01";
        let success = client.ask(&auth_2("OAUTHBEARER", message, more)).concat();
        assert!(success.starts_with("<success "), "{success}");
        if more.is_empty() {
            // Its time for a bind is over before that.
            continue;
        }
        idle(&world, &client, 3500);
        assert!(client.received().is_empty());
        world.advance(Duration::from_secs(101));
        assert_eq!(client.received().concat(), RESET);
        assert!(world.sessions() == 0);
    }
}

#[test]
fn fast_2_a_login_for_a_time_gets_no_token_that_outlives_it() {
    const MORE: &str = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
    for (token, is_for_good) in [("hour", false), ("good", true)] {
        let (world, _) = world();
        let client = world.accept(Transport::new().secure(true).source("192.0.2.7"));
        client.send(&OPEN.replace("to=", "from='juliet@example.net' to="));
        let features = client.received().concat();
        assert!(features.contains("HT-SHA-256-NONE"), "{features}");
        let message = format!("n,,\x01auth=Bearer {token}\x01\x01");
        let more = format!("{AGENT}{MORE}{BIND_2}");
        let success = client.ask(&auth_2("OAUTHBEARER", &message, &more)).concat();
        assert!(success.starts_with("<success "), "{success}");
        assert_eq!(success.contains("<token "), is_for_good, "{success}");
    }
}

/// Keeps tokens, and ends none.
struct Stubborn(Memory);

impl TokenStore for Stubborn {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        self.0.client(account, client)
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        self.0.clients(account)
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let is_end = |tokens: &ClientTokens| tokens.current.is_none() && tokens.new.is_none();
        match tokens.as_ref().is_some_and(is_end) {
            true => Box::pin(async { Err(StoreError::failed("no disk")) }),
            false => self.0.replace(account, client, found, tokens),
        }
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        TokenStore::clear(&self.0, account)
    }
}

#[test]
fn fast_5_a_logout_that_the_store_does_not_take_is_no_login() {
    const MORE: &str = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
    let stores = Stores::memory().with_tokens(Arc::new(Stubborn(Memory::new())));
    let world = World::with_stores(stores, |builder, environment| {
        let mut policy = DomainPolicy::default();
        policy.sasl = Some(Policy::new(&*environment).secret([7; 32]));
        policy.tokens = Some(Arc::new(Tokens { asked: Asked::default(), hour: None }));
        builder.domain_with("example.net".parse().unwrap(), policy)
    });
    world.accounts().insert(juliet(), Credentials::new());
    let opened = || {
        let client = world.accept(Transport::new().secure(true));
        client.send(&OPEN.replace("to=", "from='juliet@example.net' to="));
        let _features = client.received();
        client
    };
    let more = format!("{AGENT}{MORE}");
    let message = "n,,\x01auth=Bearer good\x01\x01";
    let success = opened().ask(&auth_2("OAUTHBEARER", message, &more)).concat();
    let token = success.split(" token='").nth(1).expect(&success).split('\'').next().unwrap();
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(b"Initiator");
    let proof = [&b"juliet\0"[..], &mac.finalize().into_bytes()].concat();
    let login = |attributes: &str| {
        let text = STANDARD.encode(&proof);
        opened().ask(&format!(
            "<authenticate xmlns='{NS_2}' mechanism='HT-SHA-256-NONE'>\
             <initial-response>{text}</initial-response>{AGENT}\
             <fast xmlns='urn:xmpp:fast:0'{attributes}/>{BIND_2}</authenticate>"
        ))
    };
    let failed =
        format!("<failure xmlns='{NS_2}'><temporary-auth-failure xmlns='{NS}'/></failure>");
    assert_eq!(login(" invalidate='true'"), [failed]);
    assert!(world.sessions() == 0, "nothing has happened");
    assert!(login("").concat().starts_with("<success "));
}

#[test]
fn token_5_what_the_host_says_is_checked() {
    let (world, _) = world();
    for (token, condition) in [
        ("elsewhere", "not-authorized"),
        ("domain", "not-authorized"),
        ("disabled", "account-disabled"),
    ] {
        let (client, _) = opened(&world);
        assert_eq!(client.ask(&bearer("", token)), [failure(condition)], "{token}");
    }
    let (client, _) = opened(&world);
    let told = client.ask(&bearer("", "past")).concat();
    assert_eq!(json(&told), "{\"status\":\"invalid_token\"}");
    assert_eq!(client.ask(&dummy()), [failure("credentials-expired")]);
    // A fault of the host is no attempt.
    for token in ["later", "fails", "panics"] {
        let (client, _) = opened(&world);
        for _ in 0..20 {
            let answer = client.ask(&bearer("", token));
            assert_eq!(answer, [failure("temporary-auth-failure")], "{token}");
        }
        assert_eq!(client.want(), Some(Want::Input));
    }
}

#[test]
fn token_5_a_disabled_or_removed_account_gets_no_session() {
    for mechanism in ["OAUTHBEARER", "X-OAUTH2"] {
        let (world, _) = world();
        let (client, _) = opened(&world);
        let xml = match mechanism {
            "OAUTHBEARER" => bearer("", "hour"),
            _ => auth(mechanism, "\0juliet\0hour"),
        };
        let mut disabled = Credentials::new();
        disabled.disabled = true;
        world.accounts().insert(juliet(), disabled);
        assert_eq!(client.ask(&xml), [failure("account-disabled")]);
        assert!(now(world.accounts().remove(&juliet())).unwrap());
        assert_eq!(client.ask(&xml), [failure("not-authorized")]);
        world.accounts().insert(juliet(), Credentials::new());
        assert_eq!(client.ask(&xml), [success()]);
        // Its time is that of the token all the same.
        client.send(OPEN);
        client.send(BIND);
        idle(&world, &client, 3500);
        let _bound = client.received();
        world.advance(Duration::from_secs(101));
        assert_eq!(client.received().concat(), RESET);
    }
    // Each is one failed attempt (SASL-9).
    let (world, _) = world();
    assert!(now(world.accounts().remove(&juliet())).unwrap());
    let (client, _) = opened(&world);
    for _ in 0..3 {
        assert_eq!(client.ask(&bearer("", "good")), [failure("not-authorized")]);
    }
    assert!(client.ask(&bearer("", "good")).concat().contains("<policy-violation "));
}

#[test]
fn token_4_another_profile_is_no_other_count_of_guesses() {
    let (world, asked) = world();
    let (client, _) = opened(&world);
    let message = "n,,\x01auth=Bearer bad\x01\x01";
    let mut guesses = 0;
    while guesses < 20 && client.want() == Some(Want::Input) {
        guesses += 1;
        client.send(&bearer("", "bad"));
        client.send(&auth_2("OAUTHBEARER", message, ""));
        client.send(&format!("<response xmlns='{NS_2}'>AQ==</response>"));
    }
    let said = client.received().concat();
    assert!(said.contains("<policy-violation "), "{said}");
    assert_eq!(asked.lock().unwrap().len(), 4);
}

#[test]
fn token_5_a_fault_of_the_host_is_told() {
    let faults = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&faults);
    let (world, _) = world_with(|builder| {
        builder.on_fault(move |fault| told.lock().unwrap().push(fault.clone()))
    });
    let (client, _) = opened(&world);
    client.send(&bearer("", "fails"));
    let faults = faults.lock().unwrap();
    let text: Vec<_> = faults.iter().map(ToString::to_string).collect();
    let is_store = |kind: &FaultKind| matches!(kind, FaultKind::Store { .. });
    let of_store = faults.iter().filter(|fault| is_store(fault.kind())).count();
    assert_eq!(of_store, 1, "{text:?}");
    assert!(text[0].contains("check-token") && text[0].contains("no route"), "{text:?}");
}

/// Lets time pass in which the client is there.
fn idle(world: &World, client: &Client, seconds: u64) {
    for _ in 0..seconds / 100 {
        world.advance(Duration::from_secs(100));
        client.send(" ");
    }
}

const RESET: &str = "<stream:error><reset xmlns='urn:ietf:params:xml:ns:xmpp-streams'/>\
    </stream:error></stream:stream>";

#[test]
fn token_6_a_session_ends_with_its_token() {
    let ends = Arc::new(Mutex::new(Vec::new()));
    let told = Arc::clone(&ends);
    let (world, _) = world_with(|builder| {
        builder.listener(move |event| {
            if let EventKind::Ended { reason, .. } = event.kind() {
                told.lock().unwrap().push(reason);
            }
        })
    });
    let client = bound(&world, "hour");
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let _enabled = client.received();
    idle(&world, &client, 3500);
    assert!(client.received().is_empty());
    world.advance(Duration::from_secs(101));
    assert_eq!(client.received().concat(), RESET);
    assert!(world.sessions() == 0, "it is not resumable");
    assert_eq!(*ends.lock().unwrap(), [Reason::LoginExpired]);
    // One that does not expire.
    let client = bound(&world, "good");
    idle(&world, &client, 7200);
    assert!(client.received().is_empty());
}

#[test]
fn token_6_the_time_is_the_logins_also_where_a_later_one_resumes_the_session() {
    let (world, _) = world();
    let client = bound(&world, "hour");
    let enabled = client.answer("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    let id = enabled.split(" id='").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    idle(&world, &client, 3500);
    // The first transport is still there: the second one takes its session.
    let (second, _) = opened(&world);
    assert_eq!(second.ask(&bearer("", "good")), [success()]);
    second.send(OPEN);
    let _features = second.received();
    let resumed = second.ask(&format!("<resume xmlns='urn:xmpp:sm:3' h='0' previd='{id}'/>"));
    assert!(resumed.concat().contains("<resumed "), "{resumed:?}");
    world.advance(Duration::from_secs(200));
    assert!(second.received().is_empty());
    second.send(" ");
    assert_eq!(world.sessions(), 1);
    // And the other way round: the new login is the shorter one.
    let (third, _) = opened(&world);
    let answer = third.ask(&bearer("", "hour")).concat();
    assert!(answer.starts_with("<challenge"), "past by now: {answer}");
}

#[test]
fn token_6_a_session_that_waits_ends_with_its_window_and_not_with_its_token() {
    let (world, _) = world();
    let client = bound(&world, "hour");
    client.send("<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    idle(&world, &client, 3500);
    client.lose();
    world.advance(Duration::from_secs(200));
    assert_eq!(world.sessions(), 1, "who resumes it logs in first");
    world.advance(Duration::from_secs(600));
    assert!(world.sessions() == 0);
}

#[test]
fn token_6_a_stream_without_a_session_ends_as_well() {
    let soon = Duration::from_secs(20);
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600) + soon;
    let (world, _) = directory(Verdict::AcceptedUntil(at));
    let (before, _) = opened(&world);
    assert_eq!(before.ask(&auth("PLAIN", "\0juliet\0secret")), [success()]);
    let (after, _) = opened(&world);
    assert_eq!(after.ask(&auth("PLAIN", "\0juliet\0secret")), [success()]);
    after.send(OPEN);
    let _features = after.received();
    world.advance(soon);
    assert_eq!(after.received().concat(), RESET);
    let answer = before.received().concat();
    assert!(answer.contains("<stream:stream ") && answer.ends_with(RESET), "{answer}");
    assert!(!world.environment().now().is_zero());
}
