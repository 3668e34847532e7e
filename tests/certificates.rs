//! Logins by the certificate of a client (rules EXTERNAL-1 to EXTERNAL-3).

use std::sync::Arc;
#[cfg(feature = "certificates")]
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::jid::{BareJid, DomainPart, DomainRef};
use xmpp_session::sasl::{ChannelBindings, Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Transport};
use xmpp_session::store::{
    AccountStore as _, Authenticator, CertificateMapper, ClientCertificate, Credentials,
    LoginRequest, StoreError, StoreFuture, Verdict,
};

use crate::common::wire::{Client, World, now};

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

/// Under TLS, with a certificate that has these addresses.
fn shown(world: &World, addresses: &[&str]) -> Client {
    shows(world, ClientCertificate::new([1, 2, 3], addresses.iter().map(|text| jid(text))))
}

fn shows(world: &World, certificate: ClientCertificate) -> Client {
    let client = world.accept(Transport::new());
    let bindings = ChannelBindings::new().client_certificate(certificate);
    client.driver(|driver| driver.secured(bindings));
    client
}

fn open(client: &Client, domain: &str) -> String {
    client.send(&format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{domain}' version='1.0'>"
    ));
    client.received().concat()
}

fn external(authzid: &str) -> String {
    let text = if authzid.is_empty() { "=".to_owned() } else { STANDARD.encode(authzid) };
    format!("<auth xmlns='{NS}' mechanism='EXTERNAL'>{text}</auth>")
}

fn failure(condition: &str) -> String {
    format!("<failure xmlns='{NS}'><{condition}/></failure>")
}

fn success() -> String {
    format!("<success xmlns='{NS}'/>")
}

/// A world that serves example.net too, under this policy.
fn with(change: impl FnOnce(&mut DomainPolicy) + Clone) -> World {
    World::with(|builder, _| {
        let mut policy = DomainPolicy::default();
        change(&mut policy);
        builder.domain_with(DomainPart::new("example.net").unwrap().into_owned(), policy)
    })
}

#[test]
fn external_1_offered_first_to_whom_a_certificate_names() {
    let world = with(|_| ());
    world.account("romeo");
    let first = "<mechanism>EXTERNAL</mechanism>";
    let list = "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>";
    for (addresses, domain, offered) in [
        (&["romeo@example.com"][..], "example.com", true),
        (&["Romeo@EXAMPLE.com"], "example.com", true),
        (&["juliet@example.org", "romeo@example.com"], "example.com", true),
        (&["nobody@example.com"], "example.com", false),
        (&["romeo@example.com"], "example.net", false),
        (&["example.com"], "example.com", false),
        (&[], "example.com", false),
    ] {
        let client = shown(&world, addresses);
        let features = open(&client, domain);
        assert_eq!(
            features.contains(&format!("{list}{first}")),
            offered,
            "{addresses:?} {features}"
        );
        assert_eq!(features.contains(first), offered, "{features}");
        // Enforced where it is used, and not only where it is offered.
        let answer = if offered { success() } else { failure("invalid-mechanism") };
        assert_eq!(client.ask(&external("")), [answer], "{addresses:?}");
    }
    assert!(!open(&world.connect(), "example.com").contains(first));
}

#[test]
fn external_1_the_session_is_the_certificates() {
    let world = World::new();
    world.account("romeo");
    let client = shown(&world, &["romeo@example.com"]);
    open(&client, "example.com");
    // Without an initial response there is an empty challenge.
    let auth = format!("<auth xmlns='{NS}' mechanism='EXTERNAL'/>");
    assert_eq!(client.ask(&auth), [format!("<challenge xmlns='{NS}'/>")]);
    assert_eq!(client.ask(&format!("<response xmlns='{NS}'/>")), [success()]);
    open(&client, "example.com");
    client.send("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>");
    assert!(client.jid().starts_with("romeo@example.com/"), "{}", client.jid());
    let logins = world.metrics().logins;
    assert_eq!(logins, [(Mechanism::External, 1)]);
}

#[test]
fn external_1_not_where_the_policy_leaves_it_out_or_before_tls() {
    let world = with(|policy| {
        let plain = Policy::new(&xmpp_session::environment::Virtual::new(1));
        policy.sasl = Some(plain.mechanisms(&[Mechanism::Plain]));
    });
    let romeo = jid("romeo@example.net");
    now(world.stores().accounts.set_credentials(&romeo, Credentials::new())).unwrap();
    let client = shown(&world, &["romeo@example.net"]);
    assert!(!open(&client, "example.net").contains("EXTERNAL"));
    assert_eq!(client.ask(&external("")), [failure("invalid-mechanism")]);
}

#[test]
fn external_2_authorization_identities() {
    let world = World::new();
    world.account("romeo");
    world.account("juliet");
    let one = &["romeo@example.com"][..];
    let two = &["romeo@example.com", "juliet@example.com"][..];
    for (addresses, authzid, answer) in [
        (one, "", success()),
        (one, "romeo@example.com", success()),
        (one, "Romeo@Example.com", success()),
        (one, "juliet@example.com", failure("invalid-authzid")),
        (one, "romeo@example.com/orchard", failure("invalid-authzid")),
        (one, "romeo", failure("invalid-authzid")),
        (one, "example.com", failure("invalid-authzid")),
        (one, "romeo@example.com\0", failure("malformed-request")),
        (two, "", failure("invalid-authzid")),
        (two, "juliet@example.com", success()),
        (two, "romeo@example.com", success()),
        (two, "nobody@example.com", failure("invalid-authzid")),
        // Of the two addresses one has no account.
        (&["nobody@example.com", "juliet@example.com"], "", success()),
        // Twice the same.
        (&["romeo@example.com", "ROMEO@example.com"], "", success()),
    ] {
        let client = shown(&world, addresses);
        open(&client, "example.com");
        assert_eq!(client.ask(&external(authzid)), [answer], "{addresses:?} {authzid}");
    }
    let client = shown(&world, one);
    open(&client, "example.com");
    let text = STANDARD.encode(b"\xff");
    let auth = format!("<auth xmlns='{NS}' mechanism='EXTERNAL'>{text}</auth>");
    assert_eq!(client.ask(&auth), [failure("malformed-request")]);
}

#[test]
fn external_2_the_header_and_the_certificate_agree() {
    let world = World::new();
    world.account("romeo");
    world.account("juliet");
    for (from, starts) in
        [("romeo@example.com", "<success"), ("juliet@example.com", "<stream:error")]
    {
        let client = shown(&world, &["romeo@example.com"]);
        client.send(&format!(
            "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
             from='{from}' to='example.com' version='1.0'>"
        ));
        let _features = client.received();
        let answer = client.ask(&external(""));
        assert!(answer[0].starts_with(starts), "{from}: {answer:?}");
    }
}

#[test]
fn external_3_an_account_that_was_disabled_or_removed_meanwhile() {
    let world = World::new();
    let romeo = world.account("romeo");
    let client = shown(&world, &["romeo@example.com"]);
    open(&client, "example.com");
    let disabled = {
        let mut credentials = now(world.accounts().credentials(&romeo)).unwrap().unwrap();
        credentials.disabled = true;
        credentials
    };
    world.accounts().insert(romeo.clone(), disabled);
    assert_eq!(client.ask(&external("")), [failure("account-disabled")]);
    assert!(now(world.accounts().remove(&romeo)).unwrap());
    assert_eq!(client.ask(&external("")), [failure("not-authorized")]);
    // It failed like any login, and the password is still another way.
    world.account("romeo");
    assert_eq!(client.ask(&external("")), [success()]);
}

/// Says about each account what it is told to.
struct Doorman(Verdict);

impl Authenticator for Doorman {
    fn check_account(&self, account: &BareJid, login: &LoginRequest) -> StoreFuture<Verdict> {
        assert_eq!((account.as_str(), login.mechanism()), ("romeo@example.net", "EXTERNAL"));
        let verdict = self.0;
        Box::pin(async move { Ok(verdict) })
    }
}

#[test]
fn external_3_a_host_that_checks_passwords_is_asked_about_the_account() {
    for (verdict, answer) in [
        (Verdict::Accepted, success()),
        (Verdict::Refused, failure("not-authorized")),
        (Verdict::Disabled, failure("account-disabled")),
        (Verdict::Expired, failure("credentials-expired")),
        (Verdict::Temporary, failure("temporary-auth-failure")),
    ] {
        let world = with(|policy| policy.authenticator = Some(Arc::new(Doorman(verdict))));
        world.accounts().insert(jid("romeo@example.net"), Credentials::new());
        let client = shown(&world, &["romeo@example.net"]);
        open(&client, "example.net");
        assert_eq!(client.ask(&external("")), [answer], "{verdict:?}");
    }
}

/// A certificate of romeo's that ends when the first day of the world's clock does.
#[cfg(feature = "certificates")]
fn for_a_day() -> ClientCertificate {
    use rcgen::{CertificateParams, KeyPair, OtherNameValue, SanType};
    let kind = vec![1, 3, 6, 1, 5, 5, 7, 8, 5];
    let name = OtherNameValue::Utf8String("romeo@example.com".into());
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::OtherName((kind, name))];
    params.not_after = rcgen::date_time_ymd(2026, 1, 2);
    let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
    ClientCertificate::from_der(der.der()).unwrap()
}

#[cfg(feature = "certificates")]
#[test]
fn external_3_a_session_ends_with_the_certificate_and_no_token_outlives_it() {
    let world = World::new();
    world.account("romeo");
    let client = shows(&world, for_a_day());
    client.send(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         from='romeo@example.com' to='example.com' version='1.0'>",
    );
    assert!(client.received().concat().contains("HT-SHA-256-NONE"));
    let success = client.ask(
        "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='EXTERNAL'><initial-response/><user-agent id='d4565fa7-4d72-4749-b3d3-740edbf87770'/>\
         <request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>\
         <bind xmlns='urn:xmpp:bind:0'/></authenticate>",
    );
    let success = success.concat();
    assert!(success.starts_with("<success "), "{success}");
    assert!(!success.contains("<token "), "{success}");
    for _ in 0..863 {
        world.advance(Duration::from_secs(100));
        client.send(" ");
    }
    assert!(client.received().is_empty());
    world.advance(Duration::from_secs(101));
    assert!(client.received().concat().contains("<reset "));
    assert!(world.sessions() == 0);
}

/// Knows one certificate.
struct Directory(Result<Vec<BareJid>, ()>);

impl CertificateMapper for Directory {
    fn accounts(
        &self,
        certificate: &ClientCertificate,
        domain: &DomainRef,
    ) -> StoreFuture<Vec<BareJid>> {
        assert_eq!((certificate.der(), domain.as_str()), (&[1, 2, 3][..], "example.net"));
        let answer = self.0.clone().map_err(|()| StoreError::failed(std::fmt::Error));
        Box::pin(async { answer })
    }
}

#[test]
fn external_1_the_host_maps_certificates() {
    for (found, offered) in [
        (Ok(vec![jid("juliet@example.net")]), true),
        (Ok(vec![jid("juliet@example.com"), jid("nobody@example.net")]), false),
        (Ok(vec![]), false),
        (Err(()), false),
    ] {
        let world = with(|policy| policy.certificates = Some(Arc::new(Directory(found.clone()))));
        world.account("juliet");
        for account in ["romeo@example.net", "juliet@example.net"] {
            world.accounts().insert(jid(account), Credentials::new());
        }
        // What the certificate says itself does not count then.
        let client = shown(&world, &["romeo@example.net"]);
        assert_eq!(open(&client, "example.net").contains("EXTERNAL"), offered, "{found:?}");
        if offered {
            let romeo = client.ask(&external("romeo@example.net"));
            assert_eq!(romeo, [failure("invalid-authzid")]);
            assert_eq!(client.ask(&external("")), [success()]);
        }
    }
}

#[test]
fn external_1_no_more_than_16_accounts_are_looked_up() {
    let world = World::new();
    let names: Vec<_> = (0..40).map(|n| format!("user{n}@example.com")).collect();
    let calls = || {
        let metrics = world.metrics();
        metrics.store_calls.iter().map(|(_, calls)| calls.count()).sum::<u64>()
    };
    let before = calls();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    let client = shown(&world, &names);
    open(&client, "example.com");
    assert_eq!(calls() - before, 16);
}

/// Has accounts, and no keys.
struct Elsewhere;

impl Authenticator for Elsewhere {
    fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
        Box::pin(async { Ok(Verdict::Refused) })
    }
}

#[test]
fn external_1_beside_an_authenticator() {
    let world = with(|policy| policy.authenticator = Some(Arc::new(Elsewhere)));
    world.accounts().insert(jid("romeo@example.net"), Credentials::new());
    let client = shown(&world, &["romeo@example.net"]);
    let features = open(&client, "example.net");
    let list = "<mechanism>EXTERNAL</mechanism><mechanism>PLAIN</mechanism></mechanisms>";
    assert!(features.contains(list), "{features}");
    assert_eq!(client.ask(&external("")), [success()]);
}

#[test]
fn external_1_a_new_handshake_forgets_the_certificate_of_the_last_stream() {
    let world = with(|_| ());
    world.account("romeo");
    // To one domain and then, before a login, to another one.
    let client = shown(&world, &["romeo@example.com"]);
    open(&client, "example.com");
    assert_eq!(client.ask(&external("nobody@example.com")), [failure("invalid-authzid")]);
    let other = shown(&world, &["romeo@example.com"]);
    assert!(!open(&other, "example.net").contains("EXTERNAL"));
}
