//! Authentication on the wire (rules SASL-1 to SASL-10, TLS-3).

use crate::common::{login, wire};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use login::{Channel, login, login_having_seen};
use wire::{Client, PASSWORD, World, now};
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::sasl::{ChannelBindings, Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Transport, Want};
use xmpp_session::store::{Authenticator, Credentials, StoreError, StoreFuture, Verdict};
use xmpp_session::stream::Limit;

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const CLOSE: &str = "</stream:stream>";

fn auth(mechanism: &str, text: &str) -> String {
    format!("<auth xmlns='{NS}' mechanism='{mechanism}'>{text}</auth>")
}

fn plain(authzid: &str, node: &str, password: &str) -> String {
    auth("PLAIN", &STANDARD.encode(format!("{authzid}\0{node}\0{password}")))
}

fn response(text: &str) -> String {
    format!("<response xmlns='{NS}'>{text}</response>")
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='{NS}'><{condition}/></failure>")
}

fn success() -> String {
    format!("<success xmlns='{NS}'/>")
}

fn error(condition: &str) -> String {
    format!(
        "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
    )
}

/// A client that has read the features of its first stream.
fn opened(world: &World) -> Client {
    let client = world.connect();
    client.open();
    let _features = client.received();
    client
}

fn policy(change: impl FnOnce(Policy) -> Policy + Clone, tls_required: bool) -> World {
    World::with(|builder, environment| {
        let mut policy = DomainPolicy::default();
        policy.sasl = Some(change(Policy::new(&*environment)));
        policy.tls_required = tls_required;
        builder
            .domain_with(DomainPart::new("example.net").unwrap().into_owned(), policy)
            .default_domain(DomainPart::new("example.net").unwrap().into_owned())
    })
}

/// Opens a stream to the domain of [`policy`].
fn open_net(client: &Client) -> String {
    client.send(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='example.net' version='1.0'>",
    );
    client.received().concat()
}

#[test]
fn sasl_1_only_what_is_offered_is_accepted() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    for mechanism in ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-256-PLUS", "plain"] {
        assert_eq!(client.ask(&auth(mechanism, "")), [failure("invalid-mechanism")], "{mechanism}");
    }
    let client = opened(&world);
    for xml in [auth("DIGEST-MD5", "="), format!("<auth xmlns='{NS}'/>")] {
        assert_eq!(client.ask(&xml), [failure("invalid-mechanism")], "{xml}");
    }
    let world = policy(|policy| policy.mechanisms(&[Mechanism::ScramSha256]), true);
    let client = world.connect();
    let features = open_net(&client);
    assert!(!features.contains("PLAIN") && features.contains("SCRAM-SHA-256"), "{features}");
    assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), [failure("invalid-mechanism")]);
}

#[test]
fn sasl_1_scram_goes_through_with_another_implementation() {
    let world = World::new();
    world.account("romeo");
    for mechanism in ["SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN"] {
        let client = world.connect();
        client.open();
        let features = client.received().concat();
        let seen = Some((&*features, None));
        let channel = Channel("", Vec::new());
        let last = login_having_seen(seen, ("romeo", PASSWORD), mechanism, channel, |xml| {
            client.ask(xml).concat()
        });
        assert!(last.starts_with(&format!("<success xmlns='{NS}'")), "{mechanism}: {last}");
        client.open();
        assert!(client.received().concat().contains("<bind "), "{mechanism}");
    }
}

#[test]
fn sasl_11_channel_binding_in_virtual_time() {
    let world = World::new();
    world.account("romeo");
    let data = vec![7; 32];
    for (mechanism, right) in
        [("SCRAM-SHA-256-PLUS", true), ("SCRAM-SHA-1-PLUS", true), ("SCRAM-SHA-256-PLUS", false)]
    {
        let client = world.accept(Transport::new());
        client.driver(|driver| {
            let bindings =
                ChannelBindings::new().exporter(data.clone()).server_end_point(vec![9; 32]);
            driver.secured(bindings.version(0x0304))
        });
        client.open();
        let features = client.received().concat();
        assert!(features.contains("<channel-binding type='tls-exporter'/>"), "{features}");
        assert!(features.contains("<channel-binding type='tls-server-end-point'/>"), "{features}");
        let theirs = if right { data.clone() } else { vec![8; 32] };
        let channel = Channel("tls-exporter", theirs);
        // SASL-12
        let seen = Some((&*features, Some("0304")));
        let last = login_having_seen(seen, ("romeo", PASSWORD), mechanism, channel, |xml| {
            client.ask(xml).concat()
        });
        if right {
            assert!(last.starts_with("<success"), "{mechanism}: {last}");
        } else {
            assert!(last.starts_with("<failure"), "{mechanism}: {last}");
        }
    }
}

#[test]
fn sasl_1_sha_512_where_the_host_says_so() {
    let world = policy(|policy| policy.mechanisms(&Mechanism::ALL), true);
    let romeo = BareJid::new("romeo@example.net").unwrap();
    let credentials = Credentials::from_password(PASSWORD, world.environment()).unwrap();
    now(world.stores().accounts.set_credentials(&romeo, credentials)).unwrap();
    for mechanism in ["SCRAM-SHA-512", "PLAIN"] {
        let client = world.connect();
        let features = open_net(&client);
        assert!(features.contains("<mechanism>SCRAM-SHA-512</mechanism>"), "{features}");
        let channel = Channel("", Vec::new());
        let last = login(("romeo", PASSWORD), mechanism, channel, |xml| client.ask(xml).concat());
        assert!(last.starts_with("<success"), "{mechanism}: {last}");
    }
}

#[test]
fn sasl_2_payloads() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    // No payload: asked for it. White space between the elements is nothing.
    let challenge = format!("<challenge xmlns='{NS}'/>");
    assert_eq!(client.ask(&format!(" {} ", auth("PLAIN", ""))), [challenge]);
    let text = STANDARD.encode(format!("\0romeo\0{PASSWORD}"));
    assert_eq!(client.ask(&format!("\n{}", response(&text))), [success()]);
    // An empty payload is one: an empty PLAIN message is malformed.
    let client = opened(&world);
    assert_eq!(client.ask(&auth("PLAIN", "=")), [failure("malformed-request")]);
    assert_eq!(client.ask(&auth("PLAIN", "%%%")), [failure("incorrect-encoding")]);
    assert_eq!(client.ask(&auth("PLAIN", " AAA=")), [failure("incorrect-encoding")]);
}

#[test]
fn sasl_3_a_further_auth_starts_anew() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    assert_eq!(client.ask(&auth("SCRAM-SHA-1", "")).len(), 1);
    assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), [success()]);
}

#[test]
fn sasl_4_abort_and_response_out_of_place() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    assert_eq!(client.ask(&auth("PLAIN", "")).len(), 1);
    let abort = format!("<abort xmlns='{NS}'/>");
    assert_eq!(client.ask(&abort), [failure("aborted")]);
    assert_eq!(client.ask(&response("=")), [failure("malformed-request")]);
    // Both count as attempts.
    assert_eq!(client.ask(&abort), [failure("aborted")]);
    let last = client.ask(&abort);
    assert_eq!(last, [failure("aborted"), error("policy-violation"), CLOSE.to_owned()]);
}

#[test]
fn sasl_5_authorization_identities() {
    let world = World::new();
    world.account("romeo");
    world.account("juliet");
    for (authzid, answer) in [
        ("", success()),
        ("romeo@example.com", success()),
        ("Romeo@EXAMPLE.com", success()),
        ("juliet@example.com", failure("invalid-authzid")),
        ("romeo@example.com/orchard", failure("invalid-authzid")),
        ("romeo", failure("invalid-authzid")),
    ] {
        let client = opened(&world);
        assert_eq!(client.ask(&plain(authzid, "romeo", PASSWORD)), [answer], "{authzid}");
    }
}

#[test]
fn sasl_6_the_user_is_normalised() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    assert_eq!(client.ask(&plain("", "ROMEO", PASSWORD)), [success()]);
    client.open();
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(client.jid().starts_with("romeo@example.com/"), "{}", client.jid());
    for node in ["ro meo", "romeo@example.com", "ro/meo", &"r".repeat(1024)] {
        let client = opened(&world);
        assert_eq!(client.ask(&plain("", node, PASSWORD)), [failure("not-authorized")], "{node}");
    }
}

#[test]
fn sasl_7_an_unknown_user_looks_like_a_wrong_password() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    let wrong = client.ask(&plain("", "romeo", "wrong"));
    let unknown = client.ask(&plain("", "nobody", PASSWORD));
    assert_eq!(wrong, unknown);
    assert_eq!(wrong, [failure("not-authorized")]);
    // SCRAM gets as far for both.
    let first = |user: &str| auth("SCRAM-SHA-256", &STANDARD.encode(format!("n,,n={user},r=abc")));
    for user in ["romeo", "nobody"] {
        let answer = opened(&world).ask(&first(user)).concat();
        assert!(answer.starts_with(&format!("<challenge xmlns='{NS}'>")), "{user}: {answer}");
    }
}

#[test]
fn sasl_8_the_header_names_another_account() {
    let world = World::new();
    world.account("romeo");
    let header = |from: &str| {
        format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             from='{from}' to='example.com' version='1.0'>"
        )
    };
    for (from, answer) in [
        ("juliet@example.com", vec![error("invalid-from"), CLOSE.to_owned()]),
        ("romeo@example.com", vec![success()]),
        ("Romeo@example.com/orchard", vec![success()]),
    ] {
        let client = world.accept(Transport::new());
        client.driver(|driver| driver.secured(ChannelBindings::new()));
        client.send(&header(from));
        let _features = client.received();
        assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), answer, "{from}");
    }
}

#[test]
fn sasl_9_three_retries() {
    for (retries, failures) in [(None, 4), (Some(2), 3), (Some(5), 6), (Some(0), 3), (Some(99), 6)]
    {
        let world = policy(
            |policy| match retries {
                Some(retries) => policy.retries(retries),
                None => policy,
            },
            true,
        );
        let client = world.connect();
        open_net(&client);
        for attempt in 1..failures {
            let answer = client.ask(&plain("", "romeo", "wrong"));
            assert_eq!(answer, [failure("not-authorized")], "{retries:?}: {attempt}");
        }
        let answer = client.ask(&plain("", "romeo", "wrong"));
        let expected = [failure("not-authorized"), error("policy-violation"), CLOSE.to_owned()];
        assert_eq!(answer, expected, "{retries:?}");
        assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), [""; 0]);
        assert!(world.metrics().limits.contains(&(Limit::Retries, 1)));
    }
}

#[test]
fn sasl_10_after_success_there_is_a_header_and_no_sasl() {
    let world = World::new();
    world.account("romeo");
    let client = opened(&world);
    client.send(&plain("", "romeo", PASSWORD));
    let _success = client.received();
    let said = client.ask(&plain("", "romeo", PASSWORD));
    assert!(said[0].starts_with("<?xml"), "{said:?}");
    assert_eq!(said[1..], [error("invalid-namespace"), CLOSE.to_owned()]);
    for client in [world.authenticated("romeo"), world.client("romeo", "orchard")] {
        let said = client.ask(&plain("", "romeo", PASSWORD));
        assert_eq!(said, [error("not-authorized"), CLOSE.to_owned()]);
    }
}

#[test]
fn tls_3_sasl_on_an_insecure_stream() {
    // TLS is required: whatever the policy says of mechanisms.
    for allow in [true, false] {
        let world = policy(|policy| policy.allow_insecure(allow), true);
        let client = world.accept(Transport::new().starttls(true));
        open_net(&client);
        for xml in [plain("", "romeo", PASSWORD), auth("SCRAM-SHA-1", "")] {
            assert_eq!(client.ask(&xml), [failure("encryption-required")], "{allow}: {xml}");
        }
    }
    // TLS is optional: SCRAM, and never PLAIN (SASL-1).
    let world = policy(|policy| policy.allow_insecure(true), false);
    let client = world.accept(Transport::new().starttls(true));
    assert!(!open_net(&client).contains("PLAIN"));
    assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), [failure("invalid-mechanism")]);
    assert!(client.ask(&auth("SCRAM-SHA-1", "")).concat().starts_with("<challenge"));
}

/// What a host's directory says.
struct Directory(Box<dyn Fn() -> Result<Verdict, StoreError> + Send + Sync>);

impl Authenticator for Directory {
    fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
        let verdict = (self.0)();
        Box::pin(async move { verdict })
    }
}

fn directory(
    verdict: impl Fn() -> Result<Verdict, StoreError> + Clone + Send + Sync + 'static,
) -> World {
    World::with(|builder, _| {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(Arc::new(Directory(Box::new(verdict))));
        builder.domain_with(DomainPart::new("example.net").unwrap().into_owned(), policy)
    })
}

#[test]
fn sasl_7_verdicts_of_the_host() {
    for (verdict, answer) in [
        (Verdict::Accepted, success()),
        (Verdict::Refused, failure("not-authorized")),
        (Verdict::Disabled, failure("account-disabled")),
        (Verdict::Expired, failure("credentials-expired")),
    ] {
        let world = directory(move || Ok(verdict));
        let client = world.connect();
        open_net(&client);
        assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), [answer]);
    }
}

#[test]
fn sasl_7_a_fault_of_the_host_is_no_attempt() {
    for panics in [false, true] {
        let world = directory(move || {
            assert!(!panics, "a directory with a defect");
            Err(StoreError::failed("no route to the directory"))
        });
        let client = world.connect();
        open_net(&client);
        for _ in 0..20 {
            let answer = client.ask(&plain("", "romeo", PASSWORD));
            assert_eq!(answer, [failure("temporary-auth-failure")], "{panics}");
        }
        assert_eq!(client.want(), Some(Want::Input));
    }
}

#[test]
fn sasl_7_a_disabled_account_is_told_so_after_its_proof() {
    let world = World::new();
    let jid = world.account("romeo");
    let mut found = now(world.stores().accounts.credentials(&jid)).unwrap().unwrap();
    found.disabled = true;
    world.accounts().insert(jid, found);
    let client = opened(&world);
    assert_eq!(client.ask(&plain("", "romeo", "wrong")), [failure("not-authorized")]);
    assert_eq!(client.ask(&plain("", "romeo", PASSWORD)), [failure("account-disabled")]);
}

#[test]
fn sec_2_a_login_leaves_nothing_behind() {
    let world = World::new();
    for _ in 0..20 {
        let client = opened(&world);
        client.send(&auth("SCRAM-SHA-1", ""));
        assert_eq!(world.metrics().unauthenticated, 1);
        client.lose();
        assert_eq!(world.metrics().unauthenticated, 0);
    }
    // And is never asked anything (SEC-2).
    let client = opened(&world);
    world.advance(Duration::from_secs(59));
    assert_eq!(client.received(), [""; 0]);
}
