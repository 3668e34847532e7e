//! Keys that clients bring for a stronger hash function (rules UPGRADE-1 to UPGRADE-3, SASL2-9).

use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::sasl::{ChannelBindings, Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Transport};
use xmpp_session::store::{
    AccountStore as _, Authenticator, ClientCertificate, Credentials, ScramHash, ScramKeys,
    StoreFuture, Verdict,
};

use crate::common::login::{Channel, Hash, Session, begin};
use crate::common::wire::{Client, PASSWORD, World, now};

const NS: &str = "urn:xmpp:sasl:2";
const SCRAM: &str = "urn:xmpp:scram-upgrade:0";
const DOMAIN: &str = "example.net";

/// A world whose domain has this policy, and in it romeo with keys for SHA-1 alone.
fn with(change: impl FnOnce(&mut DomainPolicy, Policy) + Clone) -> World {
    let world = World::with(|builder, environment| {
        let mut policy = DomainPolicy::default();
        change(&mut policy, Policy::new(&*environment).iterations(NonZeroU32::new(2).unwrap()));
        builder.domain_with(DomainPart::new(DOMAIN).unwrap().into_owned(), policy)
    });
    world.accounts().insert(romeo(), old(PASSWORD));
    world
}

fn world() -> World {
    with(|domain, policy| domain.sasl = Some(policy.mechanisms(&Mechanism::ALL)))
}

fn romeo() -> BareJid {
    BareJid::new("romeo@example.net").unwrap()
}

fn old(password: &str) -> Credentials {
    let keys = ScramKeys::derive(password, b"salt", NonZeroU32::MIN, ScramHash::Sha1).unwrap();
    Credentials::new().with_keys(ScramHash::Sha1, keys)
}

/// For which hash functions romeo has keys.
fn has(world: &World) -> Vec<&'static str> {
    let found = now(world.accounts().credentials(&romeo())).unwrap().unwrap();
    let all = ScramHash::ALL.into_iter().filter(|hash| found.keys(*hash).is_some());
    all.map(ScramHash::as_str).collect()
}

fn header(from: &str) -> String {
    format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{DOMAIN}' version='1.0'{from}>"
    )
}

fn open(client: &Client) -> String {
    client.send(&header(""));
    client.received().concat()
}

fn opened(world: &World) -> Client {
    let client = world.connect();
    open(&client);
    client
}

fn upgrade(hash: &str) -> String {
    format!("<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>UPGR-SCRAM-{hash}</upgrade>")
}

fn authenticate(mechanism: &str, initial: &str, inside: &str) -> String {
    format!(
        "<authenticate xmlns='{NS}' mechanism='{mechanism}'>\
         <initial-response>{initial}</initial-response>{inside}</authenticate>"
    )
}

fn plain(inside: &str) -> String {
    authenticate("PLAIN", &STANDARD.encode(format!("\0romeo\0{PASSWORD}")), inside)
}

fn next(hash: &str) -> String {
    format!("<next xmlns='{NS}' task='UPGR-SCRAM-{hash}'/>")
}

fn task_data(hash: &str) -> String {
    format!("<task-data xmlns='{NS}'><hash xmlns='{SCRAM}'>{hash}</hash></task-data>")
}

fn asked_for(hash: &str) -> String {
    format!("<continue xmlns='{NS}'><tasks><task>UPGR-SCRAM-{hash}</task></tasks></continue>")
}

fn failure(condition: &str) -> String {
    format!(
        "<failure xmlns='{NS}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    )
}

/// By SCRAM with SHA-1, up to the answer to the proof; the client has still to check what the server says last.
fn prove(client: &Client, inside: &str) -> (Session, String) {
    let channel = Channel("", Vec::new());
    let (mut session, first) = begin(("romeo", PASSWORD), "SCRAM-SHA-1", channel);
    let answer = client.ask(&authenticate("SCRAM-SHA-1", &first, inside)).concat();
    let (_, rest) = answer.split_once("<challenge xmlns='urn:xmpp:sasl:2'>").unwrap();
    let challenge = STANDARD.decode(rest.split('<').next().unwrap()).unwrap();
    let mut last = Vec::new();
    session.step(Some(&challenge), &mut last).unwrap();
    let response = format!("<response xmlns='{NS}'>{}</response>", STANDARD.encode(last));
    (session, client.ask(&response).concat())
}

/// What a client works out from `<task-data/>` of the server.
fn salted(hash: &str, answer: &str, password: &str) -> String {
    let before =
        format!("<task-data xmlns='{NS}'><salt xmlns='urn:xmpp:scram-upgrade:0' iterations='2'>");
    let rest = answer.strip_prefix(&before).unwrap_or_else(|| panic!("{answer}"));
    let salt = STANDARD.decode(rest.strip_suffix("</salt></task-data>").unwrap()).unwrap();
    assert_eq!(salt.len(), 16);
    STANDARD.encode(Hash(hash.to_owned()).salted(password, &salt, 2))
}

/// Does the task, of which `<continue/>` has come; the answer to its end.
fn bring(client: &Client, hash: &str) -> String {
    let answer = client.ask(&next(hash)).concat();
    client.ask(&task_data(&salted(hash, &answer, PASSWORD))).concat()
}

/// Whether romeo can log in so.
fn works(world: &World, mechanism: &str) -> bool {
    let client = opened(world);
    let channel = Channel("", Vec::new());
    let answer = crate::common::login::login(("romeo", PASSWORD), mechanism, channel, |xml| {
        client.ask(xml).concat()
    });
    answer.starts_with("<success")
}

#[test]
fn upgrade_1_tasks_are_listed_where_they_can_be_done() {
    let list = |change: fn(&mut DomainPolicy, Policy)| -> Vec<String> {
        let features = open(&with(change).connect());
        let (_, rest) = features.split_once("<authentication").unwrap();
        let rest = rest.split("</authentication>").next().unwrap().to_owned();
        assert_eq!(features.matches("<upgrade").count(), rest.matches("<upgrade").count());
        rest.split("UPGR-").skip(1).map(|rest| rest.split("<").next().unwrap().to_owned()).collect()
    };
    let none = [""; 0];
    assert_eq!(list(|_, _| ()), ["SCRAM-SHA-512", "SCRAM-SHA-256"]);
    assert_eq!(
        list(|domain, policy| domain.sasl = Some(policy.upgrades(&[ScramHash::Sha512]))),
        ["SCRAM-SHA-512"]
    );
    assert_eq!(list(|domain, policy| domain.sasl = Some(policy.upgrades(&[]))), none);
    // SCRAM is not used at all.
    let plain = |domain: &mut DomainPolicy, policy: Policy| {
        domain.sasl = Some(policy.mechanisms(&[Mechanism::Plain]));
    };
    assert_eq!(list(plain), none);
    assert_eq!(list(|domain, _| domain.authenticator = Some(Arc::new(Elsewhere))), none);
}

struct Elsewhere;

impl Authenticator for Elsewhere {
    fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
        Box::pin(async { Ok(Verdict::Accepted) })
    }
}

#[test]
fn upgrade_1_one_task_after_the_other_and_every_mechanism_works() {
    let world = world();
    let client = opened(&world);
    let (mut session, answer) =
        prove(&client, &format!("{}{}", upgrade("SHA-512"), upgrade("SHA-256")));
    let before = format!("<continue xmlns='{NS}'><additional-data>");
    let rest = answer.strip_prefix(&before).unwrap_or_else(|| panic!("{answer}"));
    let (data, rest) = rest.split_once("</additional-data>").unwrap();
    session.step(Some(&STANDARD.decode(data).unwrap()), &mut Vec::new()).expect("the proof");
    assert_eq!(rest, "<tasks><task>UPGR-SCRAM-SHA-512</task></tasks></continue>");
    assert_eq!(bring(&client, "SHA-512"), asked_for("SHA-256"));
    let success = bring(&client, "SHA-256");
    let expected = format!(
        "<success xmlns='{NS}'><authorization-identifier>romeo@example.net</authorization-identifier></success>"
    );
    assert!(success.starts_with(&expected), "{success}");
    assert_eq!(has(&world), ["SHA-512", "SHA-256", "SHA-1"]);
    for mechanism in ["SCRAM-SHA-512", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"] {
        assert!(works(&world, mechanism), "{mechanism}");
    }
}

#[test]
fn upgrade_1_only_what_was_asked_for_offered_and_is_lacking() {
    let asked = |world: &World, inside: &str| opened(world).ask(&plain(inside)).concat();
    let world = world();
    assert_eq!(asked(&world, &upgrade("SHA-512")), asked_for("SHA-512"));
    // Twice the same is once.
    let twice = [upgrade("SHA-512"), upgrade("SHA-512")].concat();
    let client = opened(&world);
    assert_eq!(client.ask(&plain(&twice)).concat(), asked_for("SHA-512"));
    assert!(bring(&client, "SHA-512").starts_with("<success"));
    for (inside, why) in [
        (String::new(), "nothing"),
        (upgrade("SHA-512"), "it is there"),
        (upgrade("SHA-1"), "not offered"),
        (upgrade("SHA-384"), "unknown"),
        ("<upgrade xmlns='urn:xmpp:sasl:upgrade:1'>UPGR-SCRAM-SHA-256</upgrade>".into(), "other"),
        ("<upgrade xmlns='urn:xmpp:sasl:upgrade:0'>SCRAM-SHA-256</upgrade>".into(), "no task"),
    ] {
        assert!(asked(&world, &inside).starts_with("<success"), "{why}");
    }
    // Not offered here.
    let few = with(|domain, policy| domain.sasl = Some(policy.upgrades(&[ScramHash::Sha512])));
    assert!(asked(&few, &upgrade("SHA-256")).starts_with("<success"));
    assert_eq!(has(&few), ["SHA-1"]);
}

#[test]
fn upgrade_1_who_has_not_shown_the_password_brings_no_keys() {
    let world = world();
    let client = world.accept(Transport::new());
    let certificate = ClientCertificate::new([1], [romeo()]);
    client.driver(|driver| {
        driver.secured(ChannelBindings::new().client_certificate(certificate));
    });
    assert!(open(&client).contains("UPGR-SCRAM-SHA-512"));
    let xml = authenticate("EXTERNAL", "", &upgrade("SHA-512"));
    assert!(client.ask(&xml).concat().starts_with("<success"));
    assert_eq!(has(&world), ["SHA-1"]);
}

#[test]
fn upgrade_2_a_password_that_was_changed_meanwhile_stays() {
    let world = world();
    let client = opened(&world);
    client.ask(&plain(&upgrade("SHA-512")));
    world.accounts().insert(romeo(), old("another"));
    assert_eq!(bring(&client, "SHA-512"), failure("credentials-expired"));
    assert_eq!(has(&world), ["SHA-1"]);
    assert_eq!(client.ask(&plain("")), [failure("not-authorized")]);
}

#[test]
fn upgrade_2_of_two_devices_that_bring_the_same_keys_both_log_in() {
    let world = world();
    let devices = [opened(&world), opened(&world)];
    for device in &devices {
        assert_eq!(device.ask(&plain(&upgrade("SHA-512"))), [asked_for("SHA-512")]);
    }
    let stored = || now(world.accounts().credentials(&romeo())).unwrap().unwrap().scram_sha_512;
    assert!(bring(&devices[0], "SHA-512").starts_with("<success"));
    let first = stored();
    assert!(bring(&devices[1], "SHA-512").starts_with("<success"));
    assert!(first.is_some() && stored() == first, "what the first one has brought stays");
    assert!(works(&world, "SCRAM-SHA-512"));
}

#[test]
fn upgrade_3_tasks_that_fail_leave_nothing_and_the_login_can_be_tried_again() {
    let world = world();
    let short = STANDARD.encode([1; 63]);
    let long = STANDARD.encode([1; 65]);
    let fits = STANDARD.encode([1; 64]);
    let no_hash = format!("<task-data xmlns='{NS}'/>");
    let other_hash = format!("<task-data xmlns='{NS}'><hash>{fits}</hash></task-data>");
    let abort = format!("<abort xmlns='{NS}'/>");
    for (says, condition) in [
        (vec![next("SHA-256")], "malformed-request"),
        (vec![format!("<next xmlns='{NS}'/>")], "malformed-request"),
        (vec![format!("<next xmlns='{NS}' task='SCRAM-SHA-512'/>")], "malformed-request"),
        (vec![task_data(&fits)], "malformed-request"),
        (vec![next("SHA-512"), next("SHA-512")], "malformed-request"),
        (vec![next("SHA-512"), task_data(&short)], "malformed-request"),
        (vec![next("SHA-512"), task_data(&long)], "malformed-request"),
        (vec![next("SHA-512"), task_data("")], "malformed-request"),
        (vec![next("SHA-512"), task_data("?")], "incorrect-encoding"),
        (vec![next("SHA-512"), no_hash], "malformed-request"),
        (vec![next("SHA-512"), other_hash], "malformed-request"),
        (vec![abort.clone()], "aborted"),
        (vec![next("SHA-512"), abort], "aborted"),
    ] {
        let client = opened(&world);
        assert_eq!(client.ask(&plain(&upgrade("SHA-512"))), [asked_for("SHA-512")]);
        let mut answer = Vec::new();
        for xml in &says {
            answer = client.ask(xml);
        }
        assert_eq!(answer, [failure(condition)], "{says:?}");
        assert_eq!(has(&world), ["SHA-1"]);
        // A later task of the attempt that has failed is none.
        assert_eq!(client.ask(&next("SHA-512")), [failure("malformed-request")], "{says:?}");
        assert!(client.ask(&plain("")).concat().starts_with("<success"), "{says:?}");
    }
    let client = opened(&world);
    client.ask(&plain(&upgrade("SHA-512")));
    let abort = format!("<abort xmlns='{NS}'/>");
    assert_eq!(client.ask(&abort), [failure("aborted")]);
    assert_eq!(client.ask(&plain(&upgrade("SHA-512"))), [asked_for("SHA-512")]);
    assert!(bring(&client, "SHA-512").starts_with("<success"));
}

#[test]
fn sasl2_9_what_else_a_client_says_behind_continue_closes_the_stream() {
    let world = world();
    for (says, condition) in [
        (plain(""), "not-authorized"),
        (format!("<response xmlns='{NS}'/>"), "policy-violation"),
        (" ".into(), "policy-violation"),
        ("<presence/>".into(), "policy-violation"),
        ("<a xmlns='urn:a'/>".into(), "policy-violation"),
        (
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>".into(),
            "policy-violation",
        ),
        (format!("{} ", next("SHA-512")), "policy-violation"),
        (format!("{}{}", next("SHA-512"), task_data("AA==")), "policy-violation"),
    ] {
        for begun in [false, true] {
            let client = opened(&world);
            client.ask(&plain(&upgrade("SHA-512")));
            if begun && !says.starts_with("<next") {
                client.ask(&next("SHA-512"));
            }
            let answer = client.ask(&says).concat();
            assert!(answer.contains(&format!("<{condition} ")), "{says} {begun}: {answer}");
            assert!(answer.ends_with("</stream:stream>"), "{says}: {answer}");
        }
    }
    // Before it, there are no tasks.
    for says in [next("SHA-512"), task_data("AA==")] {
        assert_eq!(opened(&world).ask(&says), [failure("malformed-request")]);
        let client = opened(&world);
        let xml = format!("<authenticate xmlns='{NS}' mechanism='PLAIN'/>");
        assert_eq!(client.ask(&xml), [format!("<challenge xmlns='{NS}'/>")]);
        assert!(client.ask(&says).concat().contains("<policy-violation "));
    }
    assert_eq!(has(&world), ["SHA-1"]);
}

#[test]
fn upgrade_3_nothing_else_happens_before_the_last_task() {
    let world = world();
    let client = opened(&world);
    let bind = "<bind xmlns='urn:xmpp:bind:0'><tag>T</tag></bind>";
    client.ask(&plain(&format!("{}{bind}", upgrade("SHA-512"))));
    assert_eq!(world.counts().sessions, 0);
    let answer = client.ask(&next("SHA-512")).concat();
    assert_eq!(world.counts().sessions, 0);
    let success = client.ask(&task_data(&salted("SHA-512", &answer, PASSWORD))).concat();
    assert!(success.contains("<authorization-identifier>romeo@example.net/T/"), "{success}");
    assert_eq!(world.counts().sessions, 1);
}

#[test]
fn sasl2_4_another_identity_than_the_headers_gets_no_task() {
    let world = world();
    let client = world.connect();
    client.send(&header(" from='juliet@example.net'"));
    let _features = client.received();
    assert_eq!(client.ask(&plain(&upgrade("SHA-512"))), [failure("invalid-authzid")]);
    assert_eq!(client.ask(&next("SHA-512")), [failure("malformed-request")]);
}

#[test]
fn sasl_12_each_profile_tells_of_its_own_list() {
    let world = world();
    for profile in ["mechanisms", "authentication"] {
        let client = world.accept(Transport::new());
        let bindings = ChannelBindings::new().exporter(vec![7]).server_end_point(vec![8]);
        client.driver(|driver| driver.secured(bindings.version(0x0303)));
        let features = open(&client);
        let channel = Channel("tls-exporter", vec![7]);
        let (mut session, first) = begin(("romeo", PASSWORD), "SCRAM-SHA-1-PLUS", channel);
        session.has_seen(Some((&features, Some("0303"))), profile);
        let xml = match profile {
            "mechanisms" => format!(
                "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1-PLUS'>{first}</auth>"
            ),
            _ => authenticate("SCRAM-SHA-1-PLUS", &first, ""),
        };
        let answer = client.ask(&xml).concat();
        let (_, rest) = answer.split_once('>').unwrap();
        let challenge = STANDARD.decode(rest.split('<').next().unwrap()).unwrap();
        let mut last = Vec::new();
        // It looks at what it is told.
        session.step(Some(&challenge), &mut last).unwrap();
        let ns = if profile == "mechanisms" { "urn:ietf:params:xml:ns:xmpp-sasl" } else { NS };
        let response = format!("<response xmlns='{ns}'>{}</response>", STANDARD.encode(last));
        assert!(client.ask(&response).concat().starts_with("<success"), "{profile}");
    }
}
