//! Authentication in the SASL2 profile, and what comes with it (rules SASL2-1 to SASL2-11, BIND2-1 to BIND2-8,
//! STREAM-F5, STREAM-F6).

use crate::common::{login, slow, wire};
use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use login::{Channel, login};
use slow::{Mode, Slow};
use wire::{Client, PASSWORD, World};
use xmpp_session::connection::{Recorder, SharedConnection};
use xmpp_session::extension::{Extension, Flow, LoggingIn, NewSession};
use xmpp_session::minidom::Element;
use xmpp_session::sasl::{Mechanism, SaslError};
use xmpp_session::server::{FaultKind, Limits, ServerBuilder, Transport};
use xmpp_session::session::SessionHandle;
use xmpp_session::stanza::{Framing, element};
use xmpp_session::store::{StoreError, StoreFuture};
use xmpp_session::stream::Nonza;
use xmpp_session::xep::{Carbons, ClientState, StreamManagement};

const NS: &str = "urn:xmpp:sasl:2";
const NS_1: &str = "urn:ietf:params:xml:ns:xmpp-sasl";
const PHONE: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";
const SM: &str = "urn:xmpp:sm:3";

/// `<authenticate/>` by PLAIN, with this inside.
fn authenticate(node: &str, password: &str, inside: &str) -> String {
    let plain = STANDARD.encode(format!("\0{node}\0{password}"));
    format!(
        "<authenticate xmlns='{NS}' mechanism='PLAIN'>\
         <initial-response>{plain}</initial-response>{inside}</authenticate>"
    )
}

fn right(inside: &str) -> String {
    authenticate("romeo", PASSWORD, inside)
}

fn agent(id: &str) -> String {
    format!("<user-agent id='{id}'><software>S0</software><device>D0</device></user-agent>")
}

fn bind(tag: &str, inside: &str) -> String {
    format!("<bind xmlns='urn:xmpp:bind:0'><tag>{tag}</tag>{inside}</bind>")
}

fn failure(condition: &str) -> String {
    format!(
        "<failure xmlns='{NS}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    )
}

fn stream_error(condition: &str) -> [String; 2] {
    [
        format!(
            "<stream:error><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"
        ),
        "</stream:stream>".into(),
    ]
}

fn with(
    configure: impl FnOnce(ServerBuilder<Recorder>) -> ServerBuilder<Recorder> + Clone,
) -> World {
    let world = World::with(|builder, _| {
        let builder = builder.extension(StreamManagement::new());
        configure(builder.extension(Carbons::new()).extension(ClientState))
    });
    world.account("romeo");
    world
}

fn world() -> World {
    with(|builder| builder)
}

fn header(from: Option<&str>) -> String {
    let from = from.map(|from| format!(" from='{from}'")).unwrap_or_default();
    format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='example.com' version='1.0'{from}>"
    )
}

/// A client that has read the features of its first stream.
fn opened(world: &World) -> Client {
    let client = world.connect();
    client.open();
    let _features = client.received();
    client
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).unwrap_or_else(|| panic!("no {before} in {text}"));
    rest.split_once(after).unwrap_or_else(|| panic!("no {after} in {text}")).0
}

fn identifier(success: &str) -> &str {
    between(success, "<authorization-identifier>", "</authorization-identifier>")
}

/// Logs a client of romeo in with a resource; what it got.
fn bound(world: &World, inside: &str) -> (Client, Vec<String>) {
    let client = opened(world);
    let got = client.ask(&right(inside));
    assert!(got[0].starts_with("<success "), "{got:?}");
    (client, got)
}

/// Logs in by another implementation of the mechanism, with this inside of `<authenticate/>`; what came last.
fn login_2(client: &Client, mechanism: &str, channel: Channel, inside: &str) -> Vec<String> {
    let mut last = Vec::new();
    let _proved = login(("romeo", PASSWORD), mechanism, channel, |xml| {
        let xml = xml.replace(NS_1, NS).replace("<auth ", "<authenticate ");
        let xml = match xml.strip_suffix("</auth>") {
            None => xml,
            Some(xml) => {
                let initial = xml.replacen('>', "><initial-response>", 1);
                format!("{initial}</initial-response>{inside}</authenticate>")
            }
        };
        last = client.ask(&xml);
        let (answer, _) =
            last[0].split_once("<authorization-identifier>").unwrap_or((&last[0], ""));
        let (name, data) = (&answer[..answer.find('>').unwrap()], answer.split('>'));
        if !name.starts_with("<success") {
            return answer.replace(NS, NS_1);
        }
        let data = data.clone().nth(2).and_then(|data| data.split('<').next());
        format!("<success xmlns='{NS_1}'>{}</success>", data.unwrap_or_default())
    });
    last
}

#[test]
fn sasl2_1_offered_on_secure_streams_alone() {
    let world = world();
    let client = world.connect();
    client.open();
    let features = client.received().concat();
    let offer = between(&features, "<authentication xmlns='urn:xmpp:sasl:2'>", "<inline>");
    let features = features.split("<fast ").next().unwrap();
    let mechanisms = |text: &str| text.matches("<mechanism>").count();
    assert!(mechanisms(offer) > 2, "{features}");
    assert_eq!(mechanisms(features), 2 * mechanisms(offer), "both profiles: {features}");
    let insecure = world.accept(Transport::new().starttls(true));
    insecure.open();
    assert!(!insecure.received().concat().contains(NS));
    assert_eq!(insecure.ask(&right("")), stream_error("not-authorized"));
}

#[test]
fn sasl2_2_a_header_from_another_domain() {
    let world = world();
    let client = world.connect();
    let got = client.ask(&header(Some("romeo@example.net")));
    assert_eq!(got[1..], stream_error("invalid-from"), "{got:?}");
}

#[test]
fn sasl2_3_without_from_and_the_same_for_everybody() {
    let world = world();
    let offers = [None, Some("romeo@example.com"), Some("nobody@example.com")].map(|from| {
        let client = world.connect();
        let got = client.ask(&header(from));
        (got[1].clone(), client)
    });
    assert!(offers.iter().all(|(offer, _)| *offer == offers[0].0 && offer.contains(NS)));
    assert!(offers[0].1.ask(&right(""))[0].starts_with("<success "));
}

#[test]
fn sasl2_4_what_is_not_announced_and_who_one_is_not() {
    let world = world();
    world.account("juliet");
    let client = opened(&world);
    for mechanism in ["SCRAM-SHA-256-PLUS", "plain", ""] {
        let xml = format!("<authenticate xmlns='{NS}' mechanism='{mechanism}'/>");
        assert_eq!(client.answer(&xml), failure("invalid-mechanism"));
    }
    // The header is in the name of another account: no stream error.
    let client = world.connect();
    client.send(&header(Some("juliet@example.com")));
    assert_eq!(client.received().len(), 2);
    assert_eq!(client.answer(&right(&bind("T", ""))), failure("invalid-authzid"));
    assert_eq!(world.sessions(), 0);
    assert!(client.ask(&authenticate("juliet", PASSWORD, ""))[0].starts_with("<success "));
    // So does an authorization string.
    let client = opened(&world);
    let plain = STANDARD.encode(format!("juliet@example.com\0romeo\0{PASSWORD}"));
    let xml = format!(
        "<authenticate xmlns='{NS}' mechanism='PLAIN'><initial-response>{plain}</initial-response>\
         </authenticate>"
    );
    assert_eq!(client.answer(&xml), failure("invalid-authzid"));
}

#[test]
fn sasl2_5_nothing_else_during_an_exchange() {
    let world = world();
    let first = STANDARD.encode("n,,n=romeo,r=abc");
    let begin = format!(
        "<authenticate xmlns='{NS}' mechanism='SCRAM-SHA-256'>\
         <initial-response>{first}</initial-response></authenticate>"
    );
    for other in [
        " ",
        "\n",
        " <response xmlns='urn:xmpp:sasl:2'/>",
        "<presence/>",
        "<presence>",
        &*begin,
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'/>",
        "<response xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>",
        "<next xmlns='urn:xmpp:sasl:2'/>",
        "<success xmlns='urn:xmpp:sasl:2'/>",
        "<r xmlns='urn:xmpp:sm:3'/>",
    ] {
        let client = opened(&world);
        assert!(client.answer(&begin).starts_with("<challenge "), "{other:?}");
        assert_eq!(client.ask(other), stream_error("policy-violation"), "{other:?}");
    }
    // Behind the element, too; a line end in the same piece is its own.
    for (behind, is_fine) in
        [("\n", true), ("\r\n", true), (" ", false), ("\n\n", false), ("<presence/>", false)]
    {
        for element in [&*begin, &*right("")] {
            let client = opened(&world);
            let got = client.ask(&format!("{element}{behind}"));
            assert_eq!(got != stream_error("policy-violation"), is_fine, "{behind:?}: {got:?}");
        }
    }
    // The exchange is over: white space is nothing again.
    let client = opened(&world);
    client.send(&begin);
    assert_eq!(client.received().len(), 1);
    assert_eq!(client.answer("<abort xmlns='urn:xmpp:sasl:2'/>"), failure("aborted"));
    assert_eq!(client.ask("\n \n"), [] as [&str; 0]);
    assert!(client.ask(&right(""))[0].starts_with("<success "));
    assert_eq!(client.ask(" "), [] as [&str; 0]);
}

#[test]
fn sasl2_6_absent_and_empty_payloads() {
    let world = world();
    let client = opened(&world);
    let authenticate = |inside: &str| {
        format!("<authenticate xmlns='{NS}' mechanism='PLAIN'>{inside}</authenticate>")
    };
    let challenge = format!("<challenge xmlns='{NS}'/>");
    assert_eq!(client.answer(&authenticate("")), challenge);
    let text = STANDARD.encode(format!("\0romeo\0{PASSWORD}"));
    let got = client.ask(&format!("<response xmlns='{NS}'>{text}</response>"));
    assert!(got[0].starts_with("<success "), "{got:?}");

    let client = opened(&world);
    let initial =
        |text: &str| authenticate(&format!("<initial-response>{text}</initial-response>"));
    assert_eq!(client.answer(&initial("")), failure("malformed-request"));
    assert_eq!(client.answer(&initial("=")), failure("incorrect-encoding"));
    assert_eq!(client.answer(&initial("%")), failure("incorrect-encoding"));
    let client = opened(&world);
    assert_eq!(client.answer(&authenticate("")), challenge);
    let response = |text: &str| format!("<response xmlns='{NS}'>{text}</response>");
    assert_eq!(client.answer(&response("=")), failure("incorrect-encoding"));
    // That exchange is over.
    assert_eq!(client.answer(&response(&text)), failure("malformed-request"));
    let twice = initial("").replace("<initial-response>", "<initial-response/><initial-response>");
    assert_eq!(client.answer(&twice), failure("malformed-request"));
}

#[test]
fn sasl2_7_a_failure_leaves_nothing_behind() {
    let world = world();
    world.account("juliet");
    let all = format!("{}{}", agent(PHONE), bind("T", "<enable xmlns='urn:xmpp:carbons:2'/>"));
    let client = opened(&world);
    assert_eq!(client.answer(&authenticate("romeo", "wrong", &all)), failure("not-authorized"));
    let got = client.ask(&right("<unknown xmlns='urn:x'/>"));
    assert_eq!(identifier(&got[0]), "romeo@example.com");
    assert!(!got[0].contains("bound") && got[1].contains("<bind "), "{got:?}");
    assert_eq!(world.sessions(), 0);
    // Neither does an attempt that is given up, nor one that another takes the place of.
    let first = STANDARD.encode("n,,n=romeo,r=abc");
    let client = opened(&world);
    client.send(&format!(
        "<authenticate xmlns='{NS}' mechanism='SCRAM-SHA-256'>\
         <initial-response>{first}</initial-response>{all}</authenticate>"
    ));
    client.send(&format!("<abort xmlns='{NS}'/>"));
    let _challenge = client.received();
    let plain = STANDARD.encode(format!("\0romeo\0{PASSWORD}"));
    let got = client.ask(&format!(
        "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
    ));
    assert_eq!(got, ["<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"]);
    client.open();
    assert_eq!(client.received().len(), 2);
    assert_eq!(world.sessions(), 0);
}

#[test]
fn sasl2_7_both_profiles_share_the_retries() {
    let world = world();
    let client = opened(&world);
    let wrong = authenticate("romeo", "wrong", "");
    let plain = STANDARD.encode("\0romeo\0wrong");
    let old =
        format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>");
    assert_eq!(client.answer(&wrong), failure("not-authorized"));
    assert!(client.answer(&old).contains("<not-authorized/>"));
    assert_eq!(client.answer(&wrong), failure("not-authorized"));
    let last = client.ask(&wrong);
    assert_eq!(last[0], failure("not-authorized"));
    assert_eq!(last[1..], stream_error("policy-violation"));
}

#[test]
fn sasl2_8_success_and_features_without_a_restart() {
    let world = world();
    for mechanism in ["SCRAM-SHA-1", "SCRAM-SHA-256", "PLAIN"] {
        let client = opened(&world);
        let last = login_2(&client, mechanism, Channel("", Vec::new()), "");
        assert_eq!(identifier(&last[0]), "romeo@example.com", "{mechanism}");
        assert!(last[1].starts_with("<stream:features><bind "), "{last:?}");
        assert!(last[1].contains("<sm ") && last[1].contains("<csi "), "{last:?}");
        assert!(!last[1].contains("mechanism") && last.len() == 2, "{last:?}");
        let got = client.ask(
            "<iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>r</resource></bind></iq>",
        );
        assert!(got[0].contains("<jid>romeo@example.com/r</jid>"), "{got:?}");
    }
}

#[test]
fn sasl2_8_byte_by_byte() {
    let world = world();
    let client = world.connect();
    let all = format!("{}{}", header(None), right(&bind("T", "<enable xmlns='urn:xmpp:sm:3'/>")));
    for at in 0..all.len() {
        client.send(&all[at..=at]);
    }
    let got = client.received();
    assert!(got[2].starts_with("<success ") && got.len() == 4, "{got:?}");
}

#[test]
fn sasl2_8_header_and_authentication_in_one_flight() {
    let world = world();
    let client = world.connect();
    let got = client.ask(&format!("{}{}", header(None), right(&bind("T", ""))));
    assert!(got[2].starts_with("<success ") && got[3].starts_with("<stream:features>"), "{got:?}");
    assert!(client.answer("<iq type='get' id='1'/>").contains("bad-request"));
}

#[test]
fn sasl2_9_no_second_authentication() {
    let world = world();
    for inside in ["", &*bind("T", "")] {
        let client = opened(&world);
        assert!(client.ask(&right(inside))[0].starts_with("<success "));
        assert_eq!(client.ask(&right("")), stream_error("not-authorized"));
    }
    let client = opened(&world);
    client.authenticate("romeo", PASSWORD);
    client.open();
    let _features = client.received();
    assert_eq!(client.ask(&right("")), stream_error("not-authorized"));
}

#[test]
fn sasl2_10_what_a_client_says_of_itself_is_for_the_host_alone() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let host = Arc::clone(&told);
    let world = with(|builder| {
        builder.on_login(move |login| {
            let agent = login.user_agent.cloned().unwrap_or_default();
            host.lock().unwrap().push((agent.id.is_some(), agent.software, agent.device));
        })
    });
    let (client, got) = bound(&world, &format!("{}{}", agent(PHONE), bind("T", "")));
    client.send("<presence/>");
    let seen = [got.concat(), client.received().concat()].concat();
    for secret in [PHONE, "d4565fa7", "S0", "D0"] {
        assert!(!seen.contains(secret), "{seen}");
    }
    let (_second, _) = bound(&world, &format!("{}{}", agent("no uuid"), bind("T", "")));
    let expected = [(true, Some("S0".into()), Some("D0".into()))];
    assert_eq!(told.lock().unwrap()[..1], expected);
    assert!(!told.lock().unwrap()[1].0);
}

#[test]
fn stream_f5_features_with_a_resource() {
    let world = world();
    let (_client, got) = bound(&world, &bind("T", ""));
    assert!(got[1].starts_with("<stream:features>") && got.len() == 2, "{got:?}");
    for (feature, is_there) in
        [("<csi ", true), ("<ver ", true), ("<sub ", true), ("<limits ", true), ("<sm ", true)]
            .into_iter()
            .chain([("<bind ", false), ("<session ", false), ("mechanism", false)])
    {
        assert_eq!(got[1].contains(feature), is_there, "{feature} in {}", got[1]);
    }
    let (_client, got) = bound(&world, &bind("T", "<enable xmlns='urn:xmpp:sm:3'/>"));
    assert!(!got[1].contains("<sm "), "{}", got[1]);
}

/// A resumable session of romeo whose transport is lost, its id and its full JID.
fn hibernating(world: &World) -> (String, String) {
    let (client, got) = bound(world, &bind("T", "<enable xmlns='urn:xmpp:sm:3' resume='true'/>"));
    let token = between(&got[0], " id='", "'").to_owned();
    let jid = identifier(&got[0]).to_owned();
    client.lose();
    (token, jid)
}

fn resume(token: &str, h: &str) -> String {
    format!("<resume xmlns='{SM}' previd='{token}' h='{h}'/>")
}

#[test]
fn stream_f6_a_resumption_gets_no_features() {
    let world = world();
    let juliet = world.client("juliet", "balcony");
    let (token, jid) = hibernating(&world);
    juliet.send(&format!("<message to='{jid}' id='m'><body>Hi</body></message>"));
    let client = opened(&world);
    let got = client.ask(&right(&format!("{}{}", resume(&token, "0"), bind("U", ""))));
    let resumed = format!("<resumed xmlns='{SM}' previd='{token}' h='0'/>");
    assert!(got[0].starts_with("<success ") && got[0].contains(&resumed), "{got:?}");
    assert_eq!(identifier(&got[0]), jid);
    assert!(!got[0].contains("bound"), "{got:?}");
    assert!(got[1].starts_with("<message "), "what waited comes next: {got:?}");
    assert!(!got.concat().contains("features"), "{got:?}");
    assert_eq!(world.counts().hibernating, 0);
    assert_eq!(client.ask(&right("")), stream_error("not-authorized"));
}

#[test]
fn bind2_1_namespaces_and_inline_features() {
    let world = world();
    let client = world.connect();
    client.open();
    let features = client.received().concat();
    let inline = between(&features, "<inline>", "</inline><upgrade ");
    assert_eq!(
        inline,
        "<sm xmlns='urn:xmpp:sm:3'/><bind xmlns='urn:xmpp:bind:0'><inline>\
         <feature var='urn:xmpp:sm:3'/><feature var='urn:xmpp:carbons:2'/>\
         <feature var='urn:xmpp:csi:0'/></inline></bind>\
         <fast xmlns='urn:xmpp:fast:0'><mechanism>HT-SHA-256-NONE</mechanism></fast>"
    );
    assert!(!features.replace(inline, "").contains("bind"), "{features}");
    // The namespaces of XEP-0198's examples mean nothing.
    let got = client.ask(&right("<bind xmlns='urn:xmpp:bind2:1'><tag>T</tag></bind>"));
    assert_eq!(identifier(&got[0]), "romeo@example.com");
}

#[test]
fn bind2_2_a_failed_resumption_is_told_beside_the_bind() {
    let world = world();
    let (token, jid) = hibernating(&world);
    for (resume, condition) in [
        (resume("unknown", "0"), "item-not-found"),
        (resume(&token, "7"), "bad-request"),
        (format!("<resume xmlns='{SM}' previd='{token}'/>"), "bad-request"),
        (format!("<resume xmlns='{SM}' h='0'/>"), "bad-request"),
        (resume(&token, "-1"), "bad-request"),
    ] {
        let (_client, got) = bound(&world, &format!("{}{resume}", bind("U", "")));
        let failed = format!(
            "<failed xmlns='{SM}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></failed>\
             <bound xmlns='urn:xmpp:bind:0'/></success>"
        );
        assert!(got[0].ends_with(&failed), "{condition}: {}", got[0]);
        assert!(identifier(&got[0]).starts_with("romeo@example.com/U/"), "{got:?}");
    }
    // That session is as it was.
    let client = opened(&world);
    let got = client.ask(&right(&resume(&token, "0")));
    assert_eq!(identifier(&got[0]), jid);
    // Without a bind the stream has no resource yet.
    let client = opened(&world);
    let got = client.ask(&right(&resume("unknown", "0")));
    assert!(got[0].contains("<failed ") && got[1].contains("<bind "), "{got:?}");
}

#[test]
fn bind2_3_resources() {
    let world = world();
    let mut seen = std::collections::HashSet::new();
    for (tag, prefix) in [
        ("T", "T/"),
        ("a/b", "a/b/"),
        ("", ""),
        (&*"x".repeat(64), &*format!("{}/", "x".repeat(64))),
        (&*"x".repeat(65), ""),
        ("a\u{7f}b", ""),
    ] {
        for inside in [bind(tag, ""), format!("{}{}", agent(PHONE), bind(tag, ""))] {
            let (_client, got) = bound(&world, &inside);
            let resource = identifier(&got[0]).strip_prefix("romeo@example.com/").unwrap();
            let random = resource.strip_prefix(prefix).unwrap_or_else(|| panic!("{resource}"));
            assert!(random.len() >= 24 && !random.contains('/'), "{resource}");
            assert!(!resource.contains("d4565fa7"), "{resource}");
            assert!(seen.insert(random.to_owned()), "{resource}");
        }
    }
    let (_client, got) = bound(&world, "<bind xmlns='urn:xmpp:bind:0'/>");
    assert!(!identifier(&got[0])["romeo@example.com/".len()..].contains('/'));
}

#[test]
fn bind2_4_the_older_session_of_a_client_ends() {
    let world = world();
    world.friends("romeo", "juliet");
    let juliet = world.online("juliet", "balcony");
    let inside = format!("{}{}", agent(PHONE), bind("T", ""));
    let (first, got) = bound(&world, &inside);
    first.send("<presence/>");
    let first_jid = identifier(&got[0]).to_owned();
    assert!(juliet.received().concat().contains(&first_jid));
    let (other, _) = bound(
        &world,
        &format!("{}{}", agent("00000000-0000-4000-8000-000000000000"), bind("T", "")),
    );
    let (anonymous, _) = bound(&world, &bind("T", ""));
    let (second, got) = bound(&world, &inside);
    assert_eq!(first.received().last_chunk(), Some(&stream_error("conflict")));
    assert!(first.session().is_ended());
    assert!(other.session().is_live() && anonymous.session().is_live());
    // Gone before the new one is announced.
    second.send("<presence/>");
    let seen = juliet.received();
    assert!(seen[0].contains(&first_jid) && seen[0].contains("unavailable"), "{seen:?}");
    assert!(seen[1].contains(identifier(&got[0])), "{seen:?}");
    // One of another account is not meant.
    world.account("tybalt");
    let client = opened(&world);
    assert!(client.ask(&authenticate("tybalt", PASSWORD, &inside))[0].starts_with("<success "));
    assert!(second.is_connected());
}

#[test]
fn bind2_4_it_ends_hibernating_too_and_leaves_its_messages_to_the_new_one() {
    let world = world();
    let juliet = world.client("juliet", "balcony");
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    let inside = format!("{}{}", agent(PHONE), bind("T", enable));
    let (client, _) = bound(&world, &inside);
    client.send("<presence/>");
    let _own = client.received();
    client.lose();
    juliet.send("<message to='romeo@example.com' type='chat' id='m'><body>Hi</body></message>");
    let (client, _) = bound(&world, &inside);
    assert_eq!(world.counts().hibernating, 0);
    client.send("<presence/>");
    let got = client.received().concat();
    assert_eq!(got.matches(" id='m'").count(), 1, "{got}");
    assert_eq!(juliet.received(), [] as [&str; 0]);
}

#[test]
fn bind2_4_at_the_limit_of_sessions_it_makes_room() {
    let mut limits = Limits::default();
    limits.sessions_per_account = 1;
    let world = with(|builder| builder.limits(limits));
    let inside = format!("{}{}", agent(PHONE), bind("T", ""));
    let (first, _) = bound(&world, &inside);
    let (_second, _) = bound(&world, &inside);
    assert_eq!(first.received().last_chunk(), Some(&stream_error("conflict")));
}

#[test]
fn bind2_5_carbons_client_state_and_stream_management_from_the_beginning() {
    let world = world();
    world.friends("romeo", "juliet");
    let (client, got) = bound(
        &world,
        &bind(
            "T",
            "<enable xmlns='urn:xmpp:sm:3' resume='true' max='60'/><inactive xmlns='urn:xmpp:csi:0'/>\
             <enable xmlns='urn:xmpp:carbons:2'/>",
        ),
    );
    let enabled = between(&got[0], "<bound xmlns='urn:xmpp:bind:0'>", "</bound>");
    assert!(enabled.starts_with("<enabled xmlns='urn:xmpp:sm:3' id='"), "{enabled}");
    assert!(enabled.ends_with(" resume='true' max='60'/>"), "{enabled}");
    client.send("<presence/>");
    let _own = client.received();
    let other = world.online("romeo", "orchard");
    let juliet = world.online("juliet", "balcony");
    let seen = client.received().concat();
    assert!(!seen.contains("juliet"), "held back: {seen}");
    juliet.send("<message to='romeo@example.com/orchard' type='chat'><body>Hi</body></message>");
    assert!(client.received().concat().contains("<received xmlns='urn:xmpp:carbons:2'>"));
    drop(other);
    // What is sent from the first stanza on counts.
    assert_eq!(client.answer("<r xmlns='urn:xmpp:sm:3'/>"), "<a xmlns='urn:xmpp:sm:3' h='1'/>");
    // Enabled twice over: the second fails alone.
    assert!(client.answer("<enable xmlns='urn:xmpp:sm:3'/>").contains("unexpected-request"));
}

#[test]
fn bind2_6_offline_messages_stay_for_the_first_presence() {
    let world = world();
    let juliet = world.client("juliet", "balcony");
    juliet.send("<message to='romeo@example.com' type='chat' id='m'><body>Hi</body></message>");
    let (client, got) = bound(&world, &bind("T", ""));
    assert!(!got.concat().contains("<message "), "{got:?}");
    client.send("<presence/>");
    assert!(client.received().concat().contains(" id='m'"));
}

#[test]
fn bind2_8_a_bind_that_fails_fails_the_login() {
    let mut limits = Limits::default();
    limits.sessions_per_account = 1;
    let world = with(|builder| builder.limits(limits));
    let (first, _) = bound(&world, &bind("T", ""));
    let client = opened(&world);
    assert_eq!(client.answer(&right(&bind("U", ""))), failure("temporary-auth-failure"));
    assert_eq!(world.sessions(), 1);
    // Not authenticated, and it may try again.
    assert_eq!(client.answer(&right(&bind("U", ""))), failure("temporary-auth-failure"));
    drop(first.ask("</stream:stream>"));
    let got = client.ask(&right(&bind("U", "")));
    assert!(identifier(&got[0]).starts_with("romeo@example.com/U/"), "{got:?}");

    let (_other, client) = (opened(&world), opened(&world));
    assert_eq!(client.answer(&right(&bind("U", ""))), failure("temporary-auth-failure"));
    assert_eq!(world.metrics().unauthenticated, 2);
    assert_eq!(client.ask("<presence/>"), stream_error("not-authorized"));
}

/// A server whose rosters wait when they are told to.
fn slow_world() -> (Slow, World) {
    let slow = Slow::new();
    let world = World::with_stores(slow.stores(), |builder, _| {
        builder.extension(StreamManagement::new()).extension(Carbons::new())
    });
    world.account("romeo");
    (slow, world)
}

#[test]
fn sasl2_5_nothing_while_a_store_is_asked() {
    for other in [" ", "\n", "<presence/>", "</stream:stream>", "<"] {
        let (slow, world) = slow_world();
        let client = opened(&world);
        slow.set(Mode::Wait);
        client.send(&right(&bind("T", "")));
        assert_eq!(client.received(), [""; 0]);
        assert_eq!(client.ask(other), stream_error("policy-violation"), "{other:?}");
        slow.set(Mode::Answer);
        world.settle();
        assert_eq!(world.sessions(), 0, "{other:?}");
        assert_eq!(client.received(), [""; 0]);
    }
}

#[test]
fn sasl2_8_success_and_features_are_one_write() {
    let world = world();
    for inside in ["", &*bind("T", "")] {
        let client = opened(&world);
        client.send(&right(inside));
        let writes = client.recorder().drain();
        assert_eq!(writes.len(), 1, "{writes:?}");
        assert!(writes[0].contains("</success><stream:features>"), "{writes:?}");
    }
}

#[test]
fn sasl2_8_nothing_comes_before_the_success() {
    let (slow, world) = slow_world();
    let juliet = world.client("juliet", "balcony");
    let (_other, _) = bound(&world, &bind("T", "<enable xmlns='urn:xmpp:carbons:2'/>"));
    let client = opened(&world);
    slow.set(Mode::Wait);
    // A change of the roster stands before it in the account's chain.
    let other = world.client("romeo", "street");
    other.send(
        "<iq type='set' id='a'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>",
    );
    client.send(&right(&bind("T", "<enable xmlns='urn:xmpp:carbons:2'/>")));
    juliet.send("<message to='romeo@example.com/street' type='chat'><body>1</body></message>");
    assert_eq!(client.received(), [""; 0]);
    slow.set(Mode::Answer);
    world.settle();
    let got = client.received();
    assert!(got[0].starts_with("<success ") && got.len() == 2, "{got:?}");
    juliet.send("<message to='romeo@example.com/street' type='chat'><body>2</body></message>");
    assert!(client.received()[0].contains("<received "));
}

#[test]
fn bind2_8_account_data_that_cannot_be_loaded() {
    let (slow, world) = slow_world();
    let client = opened(&world);
    for mode in [Mode::Fail, Mode::Panic] {
        slow.set(mode);
        let got = client.answer(&right(&bind("T", "")));
        assert_eq!(got, failure("temporary-auth-failure"), "{mode:?}");
    }
    slow.set(Mode::Wait);
    client.send(&right(&bind("T", "")));
    world.advance(Duration::from_secs(5));
    assert_eq!(client.received(), [failure("temporary-auth-failure")]);
    slow.set(Mode::Answer);
    assert_eq!(world.sessions(), 0);
    // A login without a bind needs none of it, and what failed has left nothing.
    slow.set(Mode::Fail);
    let got = client.ask(&right(""));
    assert_eq!(identifier(&got[0]), "romeo@example.com");
}

#[test]
fn bind2_8_counts_as_a_failed_bind() {
    let (slow, world) = slow_world();
    let client = opened(&world);
    slow.set(Mode::Fail);
    for _ in 0..5 {
        let got = client.answer(&right(&bind("T", "")));
        assert_eq!(got, failure("temporary-auth-failure"));
    }
    let got = client.ask(&right(&bind("T", "")));
    assert_eq!(got[1..], stream_error("policy-violation"), "{got:?}");
}

#[test]
fn destroy_10_a_transport_lost_while_it_logs_in_binds_and_replaces_nothing() {
    let (slow, world) = slow_world();
    let inside = format!("{}{}", agent(PHONE), bind("T", "<enable xmlns='urn:xmpp:sm:3'/>"));
    let (first, _) = bound(&world, &inside);
    let client = opened(&world);
    slow.set(Mode::Wait);
    first.send(
        "<iq type='set' id='a'><query xmlns='jabber:iq:roster'><item jid='a@b'/></query></iq>",
    );
    client.send(&right(&inside));
    client.lose();
    slow.set(Mode::Answer);
    world.settle();
    assert_eq!(world.sessions(), 1);
    assert!(first.session().is_live());
}

#[test]
fn destroy_15_an_account_removed_while_its_client_logs_in() {
    let (slow, world) = slow_world();
    let client = opened(&world);
    slow.set(Mode::Wait);
    client.send(&right(&bind("T", "")));
    let romeo = world.account("romeo");
    let mut removal = Box::pin(world.server().account_removed(&romeo));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let _pending = removal.as_mut().poll(&mut cx);
    world.settle();
    slow.set(Mode::Answer);
    world.settle();
    assert_eq!(world.sessions(), 0);
    let got = client.received();
    assert_eq!(got.last_chunk(), Some(&stream_error("not-authorized")), "{got:?}");
    assert!(!got.concat().contains("<success"), "{got:?}");
}

#[test]
fn limit_29_logins_in_either_profile_are_delayed() {
    let world = world();
    let peer = || Transport::new().secure(true).source("192.0.2.1");
    for _ in 0..10 {
        let client = world.accept(peer());
        client.open();
        for _ in 0..2 {
            client.send(&authenticate("romeo", "wrong", ""));
        }
        client.lose();
    }
    let _one_more = world.accept(peer()).ask(&format!(
        "{}{}",
        header(None),
        authenticate("romeo", "wrong", "")
    ));
    let client = world.accept(peer());
    client.open();
    let _features = client.received();
    client.send(&right(&bind("T", "")));
    world.advance(Duration::from_millis(249));
    assert_eq!(client.received(), [""; 0]);
    world.advance(Duration::from_millis(1));
    assert!(client.received()[0].starts_with("<success "));
}

#[test]
fn limit_29_a_login_as_somebody_else_than_the_header_says_has_failed() {
    let world = world();
    let peer = || Transport::new().secure(true).source("192.0.2.1");
    for _ in 0..21 {
        let client = world.accept(peer());
        let got = client.ask(&(header(Some("juliet@example.com")) + &right("")));
        assert_eq!(got[2..], [failure("invalid-authzid")]);
        client.lose();
    }
    let client = world.accept(peer());
    client.open();
    let _features = client.received();
    client.send(&right(&bind("T", "")));
    world.advance(Duration::from_millis(249));
    assert_eq!(client.received(), [""; 0]);
    world.advance(Duration::from_millis(1));
    assert!(client.received()[0].starts_with("<success "));
}

#[test]
fn fault_5_failures_in_either_profile_are_told() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let host = Arc::clone(&told);
    let world = with(|builder| {
        builder.on_fault(move |fault| {
            if let FaultKind::Login { mechanism, error, .. } = fault.kind() {
                host.lock().unwrap().push((*mechanism, *error, fault.account().cloned()));
            }
        })
    });
    let client = opened(&world);
    client.send(&authenticate("romeo", "wrong", ""));
    let romeo = world.account("romeo");
    let expected = (Some(Mechanism::Plain), SaslError::NotAuthorized, Some(romeo));
    assert_eq!(*told.lock().unwrap(), [expected]);
    let before = world.metrics().logins;
    assert!(client.ask(&right(&bind("T", "")))[0].starts_with("<success "));
    assert_ne!(world.metrics().logins, before);
}

/// Panics where it is told to.
struct Careless(&'static str);

impl<C: SharedConnection> Extension<C> for Careless {
    fn inline(&self, request: &Nonza, login: &mut LoggingIn<'_, C>) -> Flow {
        if !request.is("careless", "urn:x") {
            return Flow::Next;
        }
        login.answer(b"<half xmlns='urn:x'/>");
        assert!(self.0 != "inline", "careless");
        Flow::Done
    }

    fn inline_bind(&self, request: &Nonza, session: &mut NewSession<'_, C>) -> Flow {
        if !request.is("careless", "urn:x") {
            return Flow::Next;
        }
        session.answer(b"<half xmlns='urn:x'/>");
        session.set_holding(true);
        assert!(self.0 != "inline_bind", "careless");
        Flow::Done
    }

    fn bound(&self, _: &SessionHandle<C>) -> Option<StoreFuture<Option<Element>>> {
        assert!(self.0 != "bound", "careless");
        let (is_late, fails, panics) = (self.0 == "late", self.0 == "fails", self.0 == "later");
        Some(Box::pin(async move {
            assert!(!panics, "careless");
            if is_late {
                std::future::pending::<()>().await;
            }
            let metadata = element("metadata", "urn:xmpp:mam:2", &[]);
            if fails { Err(StoreError::failed("no archive")) } else { Ok(Some(metadata)) }
        }))
    }
}

#[test]
fn bind2_7_what_is_said_of_an_archive_is_in_bound() {
    let careless = "<careless xmlns='urn:x'/>";
    let half = "<half xmlns='urn:x'/>";
    let metadata = "<metadata xmlns='urn:xmpp:mam:2'/>";
    for (defect, answers) in [
        ("", [true, true, true]),
        ("inline", [false, true, true]),
        ("inline_bind", [true, false, true]),
        ("bound", [true, true, false]),
        ("later", [true, true, false]),
        ("fails", [true, true, false]),
        ("late", [true, true, false]),
    ] {
        let world = with(|builder| builder.extension(Careless(defect)));
        let client = opened(&world);
        client.send(&right(&format!(
            "{careless}{}",
            bind("T", &format!("{careless}<enable xmlns='urn:xmpp:sm:3'/>"))
        )));
        if defect == "late" {
            assert_eq!(client.received(), [""; 0]);
            world.advance(Duration::from_secs(5));
        }
        let got = client.received();
        let (before, inside) = got[0].split_once("<bound ").unwrap();
        let found = [before.contains(half), inside.contains(half), inside.contains(metadata)];
        assert_eq!(found, answers, "{defect}: {got:?}");
        assert!(inside.contains("<enabled ") && got[1].starts_with("<stream:features>"), "{got:?}");
    }
}

#[test]
fn destroy_10_a_client_that_is_lost_behind_its_bind_was_never_told_of_it() {
    let world = with(|builder| builder.extension(Careless("late")));
    let retained = bind("T", "<enable xmlns='urn:xmpp:sm:3' resume='true'/>");
    for way in ["lost", "speaks", "time"] {
        let client = opened(&world);
        client.send(&right(&retained));
        assert_eq!(world.sessions(), 1);
        match way {
            "lost" => client.lose(),
            "speaks" => client.send(" "),
            _ => world.environment().advance(Duration::from_secs(120)),
        }
        world.advance(Duration::from_secs(10));
        assert!(!client.received().concat().contains("<success"), "{way}");
        let counts = world.counts();
        assert_eq!((counts.sessions, counts.hibernating), (0, 0), "{way}");
    }
}

#[test]
fn ws_1_a_login_by_messages() {
    let world = world();
    let client =
        world.accept_on(Recorder::with_framing(Framing::Message), Transport::new().secure(true));
    client.driver(|driver| {
        let open =
            b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' to='example.com' version='1.0'/>";
        driver.receive_message(open, true);
    });
    let opened = client.frames();
    assert!(opened[1].contains(NS), "{opened:?}");
    client.driver(|driver| driver.receive_message(right(&bind("T", "")).as_bytes(), true));
    let got = client.frames();
    assert!(got[0].starts_with("<success ") && got[0].ends_with("</success>"), "{got:?}");
    assert!(got[1].starts_with("<stream:features xmlns:stream=") && got.len() == 2, "{got:?}");
}

#[test]
fn bind2_4_several_at_once_and_those_that_are_ending() {
    let world = world();
    let juliet = world.client("juliet", "balcony");
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    let inside = format!("{}{}", agent(PHONE), bind("T", enable));
    // Each leaves something to the next.
    for n in 0..3 {
        let (client, _) = bound(&world, &inside);
        client.send("<presence/>");
        client.lose();
        let text =
            format!("<message to='romeo@example.com' type='chat' id='m{n}'><body/></message>");
        juliet.send(&text);
    }
    let (client, _) = bound(&world, &inside);
    client.send("<presence/>");
    let got = client.received().concat();
    let places: Vec<_> = (0..3).map(|n| got.find(&format!(" id='m{n}'"))).collect();
    assert!(places.is_sorted() && places.iter().all(Option::is_some), "{got}");
    assert_eq!(world.sessions(), 2);
}
