//! Logging in with a token (rules FAST-1 to FAST-10, SASL2-11, LIMIT-31), and what an attacker can do about it.

use crate::common::wire;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;
use wire::{Client, DOMAIN, PASSWORD, World, now};
use xmpp_session::connection::Recorder;
use xmpp_session::environment::{Environment as _, Virtual};
use xmpp_session::jid::BareJid;
use xmpp_session::sasl::{ChannelBindings, FastPolicy, Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, Limits, ServerBuilder, Transport};
use xmpp_session::store::{
    AccountStore, AnyAccount, Authenticator, ClientKey, ClientTokens, Credentials, LoginRequest,
    Memory, Revision, StoreError, StoreFuture, Stores, TokenStore, Verdict,
};
use xmpp_session::stream::Limit;
use xmpp_session::xep::StreamManagement;

const NS: &str = "urn:xmpp:sasl:2";
const FAST: &str = "urn:xmpp:fast:0";
const PHONE: &str = "d4565fa7-4d72-4749-b3d3-740edbf87770";
const LAPTOP: &str = "00112233-4455-6677-8899-aabbccddeeff";
const NONE: &str = "HT-SHA-256-NONE";
const EXPR: &str = "HT-SHA-256-EXPR";
const ENDP: &str = "HT-SHA-256-ENDP";
const UNIQ: &str = "HT-SHA-256-UNIQ";
const DAY: Duration = Duration::from_secs(86_400);
const BIND: &str = "<bind xmlns='urn:xmpp:bind:0'><tag>T</tag></bind>";

/// One installation of a client, and what it asks its server.
#[derive(Clone, Copy)]
struct Device {
    node: &'static str,
    id: &'static str,
}

const ROMEO: Device = Device { node: "romeo", id: PHONE };

/// A token as the client has it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Token {
    text: String,
    expiry: String,
}

fn hmac(token: &str, role: &str, binding: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).unwrap();
    mac.update(role.as_bytes());
    mac.update(binding);
    mac.finalize().into_bytes().to_vec()
}

/// What HT sends.
fn proof(node: &str, token: &str, binding: &[u8]) -> String {
    STANDARD.encode([node.as_bytes(), b"\0", &hmac(token, "Initiator", binding)].concat())
}

fn authenticate(mechanism: &str, response: &str, id: &str, inside: &str) -> String {
    format!(
        "<authenticate xmlns='{NS}' mechanism='{mechanism}'><initial-response>{response}</initial-response>\
         <user-agent id='{id}'><software>Gajim &amp; Co</software><device>Phone</device></user-agent>\
         {inside}</authenticate>"
    )
}

fn request(mechanism: &str) -> String {
    format!("<request-token xmlns='{FAST}' mechanism='{mechanism}'/>")
}

fn fast(attributes: &str) -> String {
    format!("<fast xmlns='{FAST}'{attributes}/>")
}

fn failure(condition: &str) -> [String; 1] {
    [format!(
        "<failure xmlns='{NS}'><{condition} xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
    )]
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    Some(text.split_once(before)?.1.split_once(after)?.0)
}

fn token(success: &str) -> Option<Token> {
    let token = between(success, &format!("<token xmlns='{FAST}' "), "/>")?;
    let value = |name: &str| between(token, &format!("{name}='"), "'").unwrap().to_owned();
    Some(Token { text: value("token"), expiry: value("expiry") })
}

/// That a login has succeeded; the token that came with it.
#[track_caller]
fn succeeded(got: &[String]) -> Option<Token> {
    assert!(got.first().is_some_and(|one| one.starts_with("<success ")), "{got:?}");
    token(&got[0])
}

/// All channel bindings of one connection.
fn channel(n: u8) -> ChannelBindings {
    ChannelBindings::new().exporter(vec![n; 32]).server_end_point(vec![99; 32])
}

fn binding(mechanism: &str, n: u8) -> Vec<u8> {
    match mechanism {
        EXPR => vec![n; 32],
        ENDP => vec![99; 32],
        UNIQ => vec![n; 12],
        _ => Vec::new(),
    }
}

/// A client that has opened its stream over TLS, in the name of an account.
fn open_tls(world: &World, bindings: ChannelBindings, node: &str) -> (Client, String) {
    let client = world.accept(Transport::new().direct_tls(true));
    client.driver(|driver| driver.secured(bindings));
    let header = format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{DOMAIN}' from='{node}@{DOMAIN}' version='1.0'>"
    );
    let features = client.ask(&header).concat();
    (client, features)
}

impl Device {
    fn open(self, world: &World) -> Client {
        open_tls(world, channel(1), self.node).0
    }

    fn by_password(self, inside: &str) -> String {
        let plain = STANDARD.encode(format!("\0{}\0{PASSWORD}", self.node));
        authenticate("PLAIN", &plain, self.id, inside)
    }

    fn by_token(self, token: &str, mechanism: &str, attributes: &str, inside: &str) -> String {
        let proof = proof(self.node, token, &binding(mechanism, 1));
        authenticate(mechanism, &proof, self.id, &(fast(attributes) + inside))
    }

    /// Logs in with the password, for a token.
    fn token(self, world: &World, mechanism: &str) -> Token {
        let got = self.open(world).ask(&self.by_password(&request(mechanism)));
        succeeded(&got).unwrap_or_else(|| panic!("no token in {got:?}"))
    }

    /// Logs in with a token on a connection of its own.
    fn login(self, world: &World, token: &Token, mechanism: &str) -> Vec<String> {
        self.open(world).ask(&self.by_token(&token.text, mechanism, "", ""))
    }
}

type Builder = ServerBuilder<Recorder>;

fn world_of(
    stores: Stores,
    change: impl FnOnce(Policy) -> Policy + Clone,
    configure: impl FnOnce(Builder) -> Builder + Clone,
) -> World {
    let policy = |environment: &Virtual| {
        let mut policy = DomainPolicy::default();
        policy.sasl = Some(change(Policy::new(environment)));
        policy
    };
    let world = World::with_policy(stores, policy, |builder, _| {
        configure(builder.extension(StreamManagement::new()))
    });
    world.account("romeo");
    world
}

fn policy(change: impl FnOnce(Policy) -> Policy + Clone) -> World {
    world_of(Stores::memory(), change, |builder| builder)
}

fn world() -> World {
    policy(|policy| policy)
}

#[test]
fn fast_1_offered_inline_with_what_the_channel_has() {
    let world = world();
    let offer = |bindings| {
        let features = open_tls(&world, bindings, "romeo").1;
        let inline = between(&features, "<inline>", "</authentication>").unwrap();
        let fast = between(inline, &format!("<fast xmlns='{FAST}'>"), "</fast>").unwrap();
        let others = features.replace(fast, "");
        assert!(!others.contains("HT-"), "{others}");
        fast.replace("<mechanism>", "").replace("</mechanism>", " ")
    };
    assert_eq!(offer(ChannelBindings::new()), format!("{NONE} "));
    assert_eq!(offer(channel(1)), format!("{EXPR} {ENDP} {NONE} "));
    let tls12 = ChannelBindings::new().unique(vec![1; 12]);
    assert_eq!(offer(tls12), format!("{UNIQ} {NONE} "));
    // Neither without a place for tokens nor without TLS.
    let without = world_of(Stores::memory().without_tokens(), |policy| policy, |builder| builder);
    assert!(!open_tls(&without, channel(1), "romeo").1.contains(FAST));
    let got = ROMEO.open(&without).ask(&ROMEO.by_password(&request(NONE)));
    assert_eq!(succeeded(&got), None);
    let only = policy(|policy| policy.mechanisms(&[Mechanism::Plain, Mechanism::HtSha256Endp]));
    let features = open_tls(&only, channel(1), "romeo").1;
    assert!(features.contains(ENDP) && !features.contains(NONE), "{features}");
}

#[test]
fn fast_1_mechanisms_for_tokens_are_nothing_without_fast() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    let proof = proof("romeo", &token.text, &[]);
    let client = ROMEO.open(&world);
    assert_eq!(client.ask(&authenticate(NONE, &proof, PHONE, "")), failure("invalid-mechanism"));
    let sasl1 = "urn:ietf:params:xml:ns:xmpp-sasl";
    assert_eq!(
        client.ask(&format!("<auth xmlns='{sasl1}' mechanism='{NONE}'>{proof}</auth>")),
        [format!("<failure xmlns='{sasl1}'><invalid-mechanism/></failure>")]
    );
    // A password is none because of it.
    let plain = STANDARD.encode(format!("\0romeo\0{}", token.text));
    let xml = authenticate("PLAIN", &plain, PHONE, &fast(""));
    assert_eq!(client.ask(&xml), failure("not-authorized"));
    assert_eq!(succeeded(&ROMEO.login(&world, &token, NONE)), None);
}

#[test]
fn fast_2_a_token_is_for_who_is_logged_in_and_says_who_and_where() {
    let world = world();
    let client = ROMEO.open(&world);
    let wrong = authenticate("PLAIN", &STANDARD.encode("\0romeo\0no"), PHONE, &request(NONE));
    assert_eq!(client.ask(&wrong), failure("not-authorized"));
    // What was asked for with a failed attempt is not there at the next.
    assert_eq!(succeeded(&client.ask(&ROMEO.by_password(BIND))), None);
    let asks = |device: Device, inside: &str| {
        succeeded(&device.open(&world).ask(&device.by_password(inside)))
    };
    assert_eq!(asks(ROMEO, &request("HT-SHA-512-NONE")), None);
    assert_eq!(asks(ROMEO, &request(UNIQ)), None, "not offered here");
    assert_eq!(asks(ROMEO, &request("PLAIN")), None);
    assert_eq!(asks(Device { id: "my phone", ..ROMEO }, &request(NONE)), None);
    // No header `from`.
    let client = world.connect();
    client.open();
    assert_eq!(succeeded(&client.ask(&ROMEO.by_password(&request(NONE)))), None);
    assert!(world.run(world.server().account(&jid("romeo")).clients()).unwrap().is_empty());

    let token = asks(ROMEO, &(request(NONE) + BIND)).unwrap();
    assert_eq!(token.expiry, "2026-01-22T00:00:00Z", "21 days");
    // Without a login by SASL2 there is nothing to ask with.
    assert_eq!(token.text.len(), 43);
}

fn jid(node: &str) -> BareJid {
    BareJid::new(&format!("{node}@{DOMAIN}")).unwrap()
}

#[test]
fn fast_3_each_mechanism_logs_in_with_its_own_tokens_alone() {
    let world = world();
    for mechanism in [NONE, EXPR, ENDP] {
        let token = ROMEO.token(&world, mechanism);
        let got = ROMEO.login(&world, &token, mechanism);
        assert_eq!(succeeded(&got), None);
        // The server's own proof.
        let answer = between(&got[0], "<additional-data>", "</additional-data>").unwrap();
        let expected = hmac(&token.text, "Responder", &binding(mechanism, 1));
        assert_eq!(STANDARD.decode(answer).unwrap(), expected);
        for other in [NONE, EXPR, ENDP].into_iter().filter(|other| *other != mechanism) {
            assert_eq!(ROMEO.login(&world, &token, other), failure("not-authorized"));
        }
    }
    let bindings = || ChannelBindings::new().unique(vec![1; 12]);
    let client = open_tls(&world, bindings(), "romeo").0;
    let token = succeeded(&client.ask(&ROMEO.by_password(&request(UNIQ)))).unwrap();
    let client = open_tls(&world, bindings(), "romeo").0;
    assert_eq!(succeeded(&client.ask(&ROMEO.by_token(&token.text, UNIQ, "", BIND))), None);
}

#[test]
fn fast_3_a_token_is_nothing_for_another_account_or_client() {
    let world = world();
    world.account("juliet");
    let token = ROMEO.token(&world, NONE);
    for other in [
        Device { node: "juliet", ..ROMEO },
        Device { id: LAPTOP, ..ROMEO },
        Device { node: "nobody", ..ROMEO },
    ] {
        assert_eq!(other.login(&world, &token, NONE), failure("not-authorized"));
    }
    // Not even where that one has tokens of its own; nor in the name of another.
    let juliet = Device { node: "juliet", ..ROMEO };
    let _hers = juliet.token(&world, NONE);
    assert_eq!(juliet.login(&world, &token, NONE), failure("not-authorized"));
    let client = juliet.open(&world);
    let xml = ROMEO.by_token(&token.text, NONE, "", "");
    assert_eq!(client.ask(&xml), failure("invalid-authzid"));
    // Without an id nobody has a token.
    let nameless = Device { id: "", ..ROMEO };
    assert_eq!(nameless.login(&world, &token, NONE), failure("malformed-request"));
    assert_eq!(succeeded(&ROMEO.login(&world, &token, NONE)), None);
}

#[test]
fn fast_3_a_proof_is_of_its_connection() {
    let world = world();
    for (mechanism, is_stopped) in [(EXPR, true), (ENDP, false), (NONE, false)] {
        let token = ROMEO.token(&world, mechanism);
        // Who has seen it sends it on another connection to the same server.
        let seen = ROMEO.by_token(&token.text, mechanism, "", "");
        let client = open_tls(&world, channel(2), "romeo").0;
        assert_eq!(client.ask(&seen) == failure("not-authorized"), is_stopped, "{mechanism}");
        // A man in the middle has another certificate.
        let middle = ChannelBindings::new().exporter(vec![1; 32]).server_end_point(vec![1; 32]);
        let client = open_tls(&world, middle, "romeo").0;
        let is_stopped = mechanism == ENDP;
        assert_eq!(client.ask(&seen) == failure("not-authorized"), is_stopped, "{mechanism}");
    }
}

#[test]
fn fast_3_what_is_no_message_of_the_mechanism_is_malformed() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    let good = STANDARD.decode(proof("romeo", &token.text, &[])).unwrap();
    for bad in [&b""[..], b"romeo", b"\0", &good[..good.len() - 1], &good[5..], b"\xff\0"] {
        let client = ROMEO.open(&world);
        let xml = authenticate(NONE, &STANDARD.encode(bad), PHONE, &fast(""));
        let got = client.ask(&xml);
        assert!(got == failure("malformed-request") || got == failure("not-authorized"), "{got:?}");
    }
    // Without an initial response the client is asked for it.
    let client = ROMEO.open(&world);
    let xml = format!(
        "<authenticate xmlns='{NS}' mechanism='{NONE}'><user-agent id='{PHONE}'/>{}</authenticate>",
        fast("")
    );
    assert_eq!(client.ask(&xml), [format!("<challenge xmlns='{NS}'/>")]);
    let response = STANDARD.encode(good);
    let got = client.ask(&format!("<response xmlns='{NS}'>{response}</response>"));
    assert_eq!(succeeded(&got), None);
}

#[test]
fn fast_4_tokens_are_renewed_and_the_older_one_holds_until_the_new_one_is_used() {
    let world = world();
    let first = ROMEO.token(&world, NONE);
    assert_eq!(succeeded(&ROMEO.login(&world, &first, NONE)), None);
    world.advance(DAY);
    let second = succeeded(&ROMEO.login(&world, &first, NONE)).expect("a day old");
    assert_ne!(first, second);
    assert_eq!(second.expiry, "2026-01-23T00:00:00Z");
    // The answer was lost, more than once.
    for _ in 0..3 {
        assert_eq!(succeeded(&ROMEO.login(&world, &first, NONE)), Some(second.clone()));
    }
    assert_eq!(succeeded(&ROMEO.login(&world, &second, NONE)), None);
    assert_eq!(ROMEO.login(&world, &first, NONE), failure("credentials-expired"));
    assert_eq!(succeeded(&ROMEO.login(&world, &second, NONE)), None);
    // One that the client asks for voids another that was not used, and not the one in use.
    let (lost, third) = (ROMEO.token(&world, NONE), ROMEO.token(&world, NONE));
    assert_eq!(ROMEO.login(&world, &lost, NONE), failure("credentials-expired"));
    assert_eq!(succeeded(&ROMEO.login(&world, &second, NONE)), None);
    assert_eq!(succeeded(&ROMEO.login(&world, &third, NONE)), None);
    assert_eq!(ROMEO.login(&world, &second, NONE), failure("credentials-expired"));
}

#[test]
fn fast_4_a_session_that_is_resumed_gets_its_new_token_too() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    let client = ROMEO.open(&world);
    let enable = "<enable xmlns='urn:xmpp:sm:3' resume='true'/>";
    let bind = format!("<bind xmlns='urn:xmpp:bind:0'>{enable}</bind>");
    let got = client.ask(&ROMEO.by_token(&token.text, NONE, "", &bind)).concat();
    let id = between(&got, " id='", "'").unwrap().to_owned();
    world.advance(DAY / 300);
    client.lose();
    let resume = format!("<resume xmlns='urn:xmpp:sm:3' previd='{id}' h='0'/>");
    let client = ROMEO.open(&world);
    let asks = resume + &request(NONE) + BIND;
    let got = client.ask(&ROMEO.by_token(&token.text, NONE, "", &asks));
    assert!(got[0].contains("<resumed ") && succeeded(&got).is_some(), "{got:?}");
    assert!(!got.concat().contains("<stream:features"), "{got:?}");
    let clients = world.run(world.server().account(&jid("romeo")).clients()).unwrap();
    assert!(world.run(world.server().account(&jid("romeo")).revoke(clients[0].key)).unwrap());
    assert!(!client.is_connected() || world.sessions() == 0);
}

/// Tokens whose store answers when the test says so.
#[derive(Clone)]
struct Gated {
    memory: Arc<Memory>,
    gate: Arc<Mutex<(usize, Vec<std::task::Waker>)>>,
    fails: Arc<Mutex<bool>>,
}

impl Gated {
    fn new() -> Self {
        Self { memory: Arc::new(Memory::new()), gate: Arc::default(), fails: Arc::default() }
    }

    fn stores(&self) -> Stores {
        Stores::memory().with_tokens(Arc::new(self.clone()))
    }

    /// Lets all go on that wait now.
    fn open(&self, world: &World) {
        let waiting = {
            let mut gate = self.gate.lock().unwrap();
            gate.0 += 1;
            std::mem::take(&mut gate.1)
        };
        waiting.into_iter().for_each(std::task::Waker::wake);
        world.settle();
    }

    fn wait<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn TokenStore) -> StoreFuture<T> + Send + 'static,
    ) -> StoreFuture<T> {
        if *self.fails.lock().unwrap() {
            return Box::pin(async { Err(StoreError::failed("no disk")) });
        }
        let (memory, gate) = (Arc::clone(&self.memory), Arc::clone(&self.gate));
        let at = gate.lock().unwrap().0;
        Box::pin(async move {
            std::future::poll_fn(|cx| {
                let mut gate = gate.lock().unwrap();
                if gate.0 > at {
                    return std::task::Poll::Ready(());
                }
                gate.1.push(cx.waker().clone());
                std::task::Poll::Pending
            })
            .await;
            call(&*memory).await
        })
    }
}

impl TokenStore for Gated {
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>> {
        let (account, client) = (account.clone(), *client);
        self.wait(move |store| store.client(&account, &client))
    }

    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>> {
        let account = account.clone();
        self.wait(move |store| store.clients(&account))
    }

    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool> {
        let (account, client) = (account.clone(), *client);
        self.wait(move |store| store.replace(&account, &client, found, tokens))
    }

    fn clear(&self, account: &BareJid) -> StoreFuture<()> {
        let account = account.clone();
        self.wait(move |store| TokenStore::clear(store, &account))
    }
}

/// What a client gets from a store that is opened as often as it takes.
fn patiently(world: &World, store: &Gated, client: &Client) -> Vec<String> {
    for _ in 0..50 {
        let got = client.received();
        if !got.is_empty() {
            return got;
        }
        store.open(world);
    }
    panic!("no answer");
}

#[test]
fn fast_4_of_eight_logins_at_once_none_is_refused_and_all_get_the_same_token() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        client
    };
    let got = patiently(&world, &store, &asks(&ROMEO.by_password(&request(NONE))));
    let first = succeeded(&got).unwrap();
    world.advance(DAY);
    // The first use of a new token, which moves it, and brings the next one: eight times at once.
    let mut token = first;
    for _ in 0..3 {
        let clients: Vec<_> =
            (0..8).map(|_| asks(&ROMEO.by_token(&token.text, NONE, "", BIND))).collect();
        let tokens: Vec<_> = clients
            .iter()
            .map(|client| succeeded(&patiently(&world, &store, client)).expect("a new one"))
            .collect();
        assert!(tokens.iter().all(|one| *one == tokens[0]), "{tokens:?}");
        let got = patiently(&world, &store, &asks(&ROMEO.by_token(&token.text, NONE, "", "")));
        assert_eq!(succeeded(&got), Some(tokens[0].clone()), "it holds until the new one is used");
        token = tokens[0].clone();
        world.advance(DAY);
    }
}

#[test]
fn fast_6_of_eight_logins_with_one_count_one_is_let_in() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        client
    };
    let got = patiently(&world, &store, &asks(&ROMEO.by_password(&request(NONE))));
    let token = succeeded(&got).unwrap();
    let xml = ROMEO.by_token(&token.text, NONE, " count='7'", "");
    let clients: Vec<_> = (0..8).map(|_| asks(&xml)).collect();
    let got = clients.iter().map(|client| patiently(&world, &store, client));
    let refused = got.filter(|got| *got == failure("not-authorized")).count();
    assert_eq!(refused, 7);
}

#[test]
fn fast_4_nothing_is_issued_for_a_token_that_has_ended_meanwhile() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        client
    };
    let record = || now(store.memory.clients(&jid("romeo"))).unwrap().remove(0);
    let login = || {
        let got = patiently(&world, &store, &asks(&ROMEO.by_password(&request(NONE))));
        let token = succeeded(&got).unwrap();
        world.advance(DAY);
        // It has been judged, that it was used is stored, and another is to be issued.
        let client = asks(&ROMEO.by_token(&token.text, NONE, "", BIND));
        store.open(&world);
        store.open(&world);
        assert!(client.received().is_empty());
        let (key, found) = record();
        assert!(found.current.is_some() && found.new.is_none());
        (client, key, found)
    };
    // By another process.
    let (client, key, mut found) = login();
    found.current = None;
    let before = found.revision;
    now(store.memory.replace(&jid("romeo"), &key, Some(before), Some(found))).unwrap();
    assert_eq!(succeeded(&patiently(&world, &store, &client)), None);
    assert!(record().1.new.is_none());
    // By the host.
    let (client, key, _) = login();
    let account = world.server().account(&jid("romeo"));
    let mut revoke = std::pin::pin!(account.revoke(key));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let had = (0..50).find_map(|_| match revoke.as_mut().poll(&mut cx) {
        std::task::Poll::Ready(had) => Some(had.unwrap()),
        std::task::Poll::Pending => {
            store.open(&world);
            None
        }
    });
    assert_eq!(had, Some(true));
    assert!(client.received().concat().contains("<reset "));
    (0..5).for_each(|_| store.open(&world));
    let (_, left) = record();
    assert!(left.current.is_none() && left.new.is_none());
}

#[test]
fn fast_5_where_the_store_fails_a_client_does_not_believe_that_its_tokens_have_ended() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        client
    };
    let got = patiently(&world, &store, &asks(&ROMEO.by_password(&request(NONE))));
    let token = succeeded(&got).unwrap();
    let login = ROMEO.by_token(&token.text, NONE, "", "");
    assert_eq!(succeeded(&patiently(&world, &store, &asks(&login))), None);
    let client = asks(&ROMEO.by_token(&token.text, NONE, " invalidate='true'", BIND));
    *store.fails.lock().unwrap() = true;
    assert_eq!(patiently(&world, &store, &client), failure("temporary-auth-failure"));
    assert!(world.sessions() == 0);
    *store.fails.lock().unwrap() = false;
    assert_eq!(succeeded(&patiently(&world, &store, &asks(&login))), None);
}

#[test]
fn fast_5_a_client_ends_its_tokens() {
    let world = world();
    for value in ["true", "1"] {
        let used = ROMEO.token(&world, NONE);
        assert_eq!(succeeded(&ROMEO.login(&world, &used, NONE)), None);
        let unused = ROMEO.token(&world, NONE);
        world.advance(2 * DAY);
        let attributes = format!(" invalidate='{value}'");
        let client = ROMEO.open(&world);
        // No other in its place, though it is due.
        let got = client.ask(&ROMEO.by_token(&used.text, NONE, &attributes, BIND));
        assert_eq!(succeeded(&got), None);
        for token in [&used, &unused] {
            assert_eq!(ROMEO.login(&world, token, NONE), failure("credentials-expired"));
        }
    }
    // But for who asks.
    let token = ROMEO.token(&world, NONE);
    let xml = ROMEO.by_token(&token.text, NONE, " invalidate='true'", &request(NONE));
    let other = succeeded(&ROMEO.open(&world).ask(&xml)).unwrap();
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("credentials-expired"));
    assert_eq!(succeeded(&ROMEO.login(&world, &other, NONE)), None);
    // Not without a token, and not where the login fails.
    let laptop = Device { id: LAPTOP, ..ROMEO };
    let attributes = fast(" invalidate='true'");
    assert_eq!(succeeded(&ROMEO.open(&world).ask(&ROMEO.by_password(&attributes))), None);
    let xml = laptop.by_token(&other.text, NONE, " invalidate='true'", "");
    assert_eq!(laptop.open(&world).ask(&xml), failure("not-authorized"));
    let xml = ROMEO.by_token("no", NONE, " invalidate='true'", "");
    assert_eq!(ROMEO.open(&world).ask(&xml), failure("not-authorized"));
    let xml = ROMEO.by_token(&other.text, NONE, " invalidate='no'", "");
    assert_eq!(succeeded(&ROMEO.open(&world).ask(&xml)), None);
    assert_eq!(succeeded(&ROMEO.login(&world, &other, NONE)), None);
}

#[test]
fn fast_6_counts_rise_wherever_they_are_sent() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    let counted = |count: &str| {
        let attributes = format!(" count='{count}'");
        ROMEO.open(&world).ask(&ROMEO.by_token(&token.text, NONE, &attributes, ""))
    };
    assert_eq!(succeeded(&counted("1")), None);
    for too_low in ["1", "0", "-1", "", "many", "99999999999999999999999"] {
        assert_eq!(counted(too_low), failure("not-authorized"), "{too_low:?}");
    }
    assert_eq!(succeeded(&counted("2147483647")), None);
    assert_eq!(counted("2147483646"), failure("not-authorized"));
}

#[test]
fn fast_6_who_has_counted_goes_on_counting() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    assert_eq!(succeeded(&ROMEO.login(&world, &token, NONE)), None);
    let counted = ROMEO.by_token(&token.text, NONE, " count='5'", "");
    assert_eq!(succeeded(&ROMEO.open(&world).ask(&counted)), None);
    // The same without the count, which no proof covers; so a higher one is let in.
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("not-authorized"));
    assert_eq!(succeeded(&ROMEO.open(&world).ask(&counted.replace("'5'", "'6'"))), None);
    // Each token has its own.
    let other = ROMEO.token(&world, NONE);
    assert_eq!(succeeded(&ROMEO.login(&world, &other, NONE)), None);
}

#[test]
fn sasl2_11_authentication_in_early_data_is_refused() {
    early_data(false);
}

#[test]
fn fast_6_early_data_is_for_tokens_with_a_count_where_the_host_allows_it() {
    early_data(true);
}

fn early_data(allowed: bool) {
    let world = policy(|policy| policy.fast(FastPolicy::new().early_data(allowed)));
    let features = open_tls(&world, channel(1), "romeo").1;
    assert_eq!(features.contains(" tls-0rtt='true'>"), allowed);
    let token = ROMEO.token(&world, NONE);
    // All of the first flight, the header too.
    let early = |xml: &str| {
        let client = world.accept(Transport::new().direct_tls(true));
        client.driver(|driver| {
            driver.secured(channel(1));
            driver.early_data(true);
        });
        let header = format!(
            "<stream:stream xmlns='jabber:client' version='1.0' to='{DOMAIN}' \
                 xmlns:stream='http://etherx.jabber.org/streams' from='romeo@{DOMAIN}'>"
        );
        let got = client.ask(&(header + xml));
        (client, got[2..].to_vec())
    };
    let refused = failure("temporary-auth-failure");
    let xml = ROMEO.by_token(&token.text, NONE, " count='1'", BIND);
    let (_first, got) = early(&xml);
    assert_eq!(got == refused, !allowed, "{got:?}");
    if allowed {
        // Sent again.
        assert_eq!(early(&xml).1, failure("not-authorized"));
    }
    for xml in [
        ROMEO.by_token(&token.text, NONE, "", BIND),
        ROMEO.by_password(BIND),
        ROMEO.by_password(&(fast(" count='5'") + BIND)),
    ] {
        let (client, got) = early(&xml);
        assert_eq!(got, refused);
        // Behind the handshake it is welcome.
        client.driver(|driver| driver.early_data(false));
        assert_eq!(succeeded(&client.ask(&ROMEO.by_password(BIND))), None);
    }
    let plain = STANDARD.encode(format!("\0romeo\0{PASSWORD}"));
    let sasl1 = "urn:ietf:params:xml:ns:xmpp-sasl";
    let xml = format!("<auth xmlns='{sasl1}' mechanism='PLAIN'>{plain}</auth>");
    let failed = format!("<failure xmlns='{sasl1}'><temporary-auth-failure/></failure>");
    assert_eq!(early(&xml).1, [failed]);
    // An element that has begun early is early.
    let xml = ROMEO.by_password(BIND);
    let (client, got) = early(&xml[..40]);
    assert!(got.is_empty());
    client.driver(|driver| driver.early_data(false));
    assert_eq!(client.ask(&xml[40..]), refused);
    assert_eq!(succeeded(&client.ask(&xml)), None);
}

#[test]
fn fast_7_an_expired_token_and_another_way_in_on_the_same_stream() {
    let world = policy(|policy| policy.fast(FastPolicy::new().lifetime(3 * DAY)));
    let token = ROMEO.token(&world, NONE);
    world.advance(3 * DAY);
    let client = ROMEO.open(&world);
    let xml = ROMEO.by_token(&token.text, NONE, "", BIND);
    assert_eq!(client.ask(&xml), failure("credentials-expired"));
    assert!(succeeded(&client.ask(&ROMEO.by_password(&request(NONE)))).is_some());
}

#[test]
fn fast_7_failures_count_and_the_next_one_waits() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    let forged = ROMEO.by_token("forged", NONE, "", "");
    let client = ROMEO.open(&world);
    for _ in 0..3 {
        assert_eq!(client.ask(&forged), failure("not-authorized"));
    }
    let got = client.ask(&forged);
    assert!(got.concat().contains("<policy-violation "), "SASL-9: {got:?}");
    for _ in 0..5 {
        let client = ROMEO.open(&world);
        (0..4).for_each(|_| drop(client.ask(&forged)));
    }
    // LIMIT-29: also for who is right.
    assert!(ROMEO.login(&world, &token, NONE).is_empty());
    assert!(world.metrics().limits.iter().any(|(limit, _)| *limit == Limit::FailedLogins));
}

#[test]
fn fast_7_strangers_cannot_tell_accounts_and_clients() {
    let world = world_of(
        Stores::memory(),
        |policy| policy,
        |builder| {
            let mut limits = Limits::default();
            limits.failures = None;
            builder.limits(limits)
        },
    );
    let _known = ROMEO.token(&world, NONE);
    let calls = |device: Device| {
        let before = world.metrics().store_calls;
        let got = device.open(&world).ask(&device.by_token("forged", NONE, "", BIND));
        assert_eq!(got, failure("not-authorized"));
        let after = world.metrics().store_calls;
        let count = |calls: &[(_, xmpp_session::server::Histogram)]| {
            calls.iter().map(|(call, of)| (format!("{call}"), of.count())).collect::<Vec<_>>()
        };
        let (before, after) = (count(&before), count(&after));
        let spent: Vec<_> = after
            .into_iter()
            .zip(before)
            .map(|((call, after), (_, before))| (call, after - before))
            .filter(|(_, more)| *more > 0)
            .collect();
        assert!(!spent.is_empty());
        spent
    };
    // A first one, for all calls to be listed.
    let _one = calls(ROMEO);
    let known = calls(ROMEO);
    assert_eq!(calls(Device { id: LAPTOP, ..ROMEO }), known);
    assert_eq!(calls(Device { node: "nobody", ..ROMEO }), known);
}

#[test]
fn fast_7_a_store_that_fails_is_no_fault_of_the_client() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    *store.fails.lock().unwrap() = true;
    // FAST-2: the login succeeds without a token.
    let client = ROMEO.open(&world);
    assert_eq!(succeeded(&client.ask(&ROMEO.by_password(&(request(NONE) + BIND)))), None);
    for _ in 0..10 {
        let client = ROMEO.open(&world);
        for _ in 0..6 {
            let xml = ROMEO.by_token("any", NONE, "", "");
            assert_eq!(client.ask(&xml), failure("temporary-auth-failure"));
        }
    }
    // One that does not answer holds nobody up for long.
    *store.fails.lock().unwrap() = false;
    let client = ROMEO.open(&world);
    client.send(&ROMEO.by_password(&(request(NONE) + BIND)));
    assert!(client.received().is_empty());
    world.advance(Duration::from_secs(6));
    assert_eq!(succeeded(&client.received()), None);
}

#[test]
fn fast_9_a_changed_secret_ends_all_tokens() {
    let memory = Arc::new(Memory::new());
    let with = |secret: [u8; 32], former: &[[u8; 32]]| {
        let stores = Stores::memory().with_tokens(Arc::clone(&memory) as _);
        world_of(stores, |policy| policy.secret(secret).former_secrets(former), |builder| builder)
    };
    let (token, credentials) = {
        let world = with([1; 32], &[]);
        let token = ROMEO.token(&world, NONE);
        assert_eq!(succeeded(&ROMEO.login(&world, &token, NONE)), None);
        (token, now(world.accounts().credentials(&jid("romeo"))).unwrap().unwrap())
    };
    let again = |secret, former: &[[u8; 32]]| {
        let world = with(secret, former);
        world.accounts().insert(jid("romeo"), credentials.clone());
        world
    };
    // A restart with the same secret changes nothing.
    let same = again([1; 32], &[]);
    assert_eq!(succeeded(&ROMEO.login(&same, &token, NONE)), None);
    assert_eq!(ROMEO.login(&again([2; 32], &[]), &token, NONE), failure("not-authorized"));
    let changed = again([2; 32], &[[1; 32]]);
    assert_eq!(ROMEO.login(&changed, &token, NONE), failure("credentials-expired"));
    let new = ROMEO.token(&changed, NONE);
    assert_eq!(succeeded(&ROMEO.login(&changed, &new, NONE)), None);
}

/// All that a thief finds in a file, in whatever form it may be sent.
#[cfg(feature = "sqlite")]
fn loot(file: &std::path::Path) -> Vec<String> {
    use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
    let db = rusqlite::Connection::open(file).unwrap();
    let mut values: Vec<Vec<u8>> = Vec::new();
    let mut tables = db.prepare("SELECT name FROM sqlite_schema WHERE type = 'table'").unwrap();
    let tables = tables.query_map([], |row| row.get::<_, String>(0)).unwrap();
    for table in tables.map(Result::unwrap) {
        let mut select = db.prepare(&format!("SELECT * FROM {table}")).unwrap();
        let columns = select.column_count();
        let mut rows = select.query([]).unwrap();
        while let Some(row) = rows.next().unwrap() {
            for column in 0..columns {
                use rusqlite::types::ValueRef;
                match row.get_ref(column).unwrap() {
                    ValueRef::Text(text) | ValueRef::Blob(text) => values.push(text.to_vec()),
                    ValueRef::Integer(number) => values.push(number.to_string().into_bytes()),
                    _ => {}
                }
            }
        }
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut all: Vec<String> = values
        .iter()
        .flat_map(|bytes| {
            let text = String::from_utf8(bytes.clone()).ok();
            let forms = [
                hex(bytes),
                STANDARD.encode(bytes),
                STANDARD_NO_PAD.encode(bytes),
                URL_SAFE_NO_PAD.encode(bytes),
            ];
            text.into_iter().chain(forms)
        })
        .collect();
    all.sort();
    all.dedup();
    all
}

#[cfg(feature = "sqlite")]
#[test]
fn fast_9_nothing_in_the_database_logs_in() {
    let directory = std::env::temp_dir().join(format!("xmpp-session-fast-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let file = directory.join("data.sqlite");
    let sqlite = Arc::new(xmpp_session::store::Sqlite::open(&file).unwrap());
    // Tokens are what the endpoint asks of it here; everything else is there for the thief.
    let store = Arc::clone(&sqlite);
    let world = world_of(
        Stores::memory().with_tokens(sqlite),
        |policy| policy,
        |builder| builder.limits(Limits::unlimited()),
    );
    let credentials = now(world.accounts().credentials(&jid("romeo"))).unwrap().unwrap();
    waiting(store.set_credentials(&jid("romeo"), credentials));
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        for _ in 0..1000 {
            let got = client.received();
            if !got.is_empty() {
                return got;
            }
            std::thread::sleep(Duration::from_millis(1));
            world.settle();
        }
        panic!("no answer");
    };
    let used = succeeded(&asks(&ROMEO.by_password(&request(NONE)))).unwrap();
    assert_eq!(succeeded(&asks(&ROMEO.by_token(&used.text, NONE, "", ""))), None);
    let unused = succeeded(&asks(&ROMEO.by_password(&request(EXPR)))).unwrap();
    let loot = loot(&file);
    assert!(loot.len() > 50, "{loot:?}");
    for value in &loot {
        for mechanism in [NONE, EXPR] {
            let got = asks(&ROMEO.by_token(value, mechanism, "", BIND));
            assert_eq!(got, failure("not-authorized"), "{value}");
        }
        let plain = STANDARD.encode(format!("\0romeo\0{value}"));
        let got = asks(&authenticate("PLAIN", &plain, PHONE, BIND));
        assert_eq!(got, failure("not-authorized"), "{value}");
    }
    // Nor is it in there in another way, or the client's id.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes.extend(std::fs::read(directory.join("data.sqlite-wal")).unwrap_or_default());
    let id: Vec<u8> = PHONE.replace('-', "").into_bytes();
    let id_bytes: Vec<u8> = id
        .chunks(2)
        .map(|hex| u8::from_str_radix(std::str::from_utf8(hex).unwrap(), 16).unwrap())
        .collect();
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let secrets = [
        used.text.as_bytes().to_vec(),
        unused.text.as_bytes().to_vec(),
        URL_SAFE_NO_PAD.decode(&used.text).unwrap(),
        PASSWORD.as_bytes().to_vec(),
        PHONE.as_bytes().to_vec(),
        id,
        id_bytes,
    ];
    for secret in secrets {
        assert!(!bytes.windows(secret.len()).any(|window| window == secret), "{secret:?}");
    }
    assert!(bytes.windows(5).any(|window| window == b"Phone"), "the right file");
    assert_eq!(succeeded(&asks(&ROMEO.by_token(&used.text, NONE, "", ""))), None);
    drop((world, store));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// What comes of a call of a store with threads of its own.
#[cfg(feature = "sqlite")]
fn waiting<T>(mut call: StoreFuture<T>) -> T {
    use std::task::{Context, Poll, Waker};
    loop {
        if let Poll::Ready(done) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return done.unwrap();
        }
        std::thread::yield_now();
    }
}

#[test]
fn fast_10_tokens_end_with_the_password_whoever_changes_it() {
    let world = world();
    let change = |password| {
        let credentials = Credentials::from_password(password, world.environment()).unwrap();
        now(world.stores().accounts.set_credentials(&jid("romeo"), credentials)).unwrap();
    };
    // Behind the server's back, to another and to the same.
    for password in ["other", PASSWORD] {
        let (used, unused) = (ROMEO.token(&world, NONE), ());
        assert_eq!(succeeded(&ROMEO.login(&world, &used, NONE)), None);
        let () = unused;
        change(PASSWORD);
        let second = ROMEO.token(&world, EXPR);
        change(password);
        for (token, mechanism) in [(&used, NONE), (&second, EXPR)] {
            assert_eq!(ROMEO.login(&world, token, mechanism), failure("credentials-expired"));
        }
        change(PASSWORD);
    }
    // A new kind of key for the same password is no change.
    let keys = now(world.accounts().credentials(&jid("romeo"))).unwrap().unwrap();
    let token = ROMEO.token(&world, NONE);
    let fewer = Credentials::from_keys(None, keys.scram_sha_256.clone());
    world.accounts().insert(jid("romeo"), fewer);
    assert_eq!(succeeded(&ROMEO.login(&world, &token, NONE)), None);
    // And a disabled account is told so, where the token is right.
    let mut disabled = keys;
    disabled.disabled = true;
    world.accounts().insert(jid("romeo"), disabled);
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("account-disabled"));
}

#[test]
fn fast_10_a_token_is_of_the_password_that_its_client_knew() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    let client = ROMEO.open(&world);
    client.send(&ROMEO.by_password(&request(NONE)));
    // Changed while the client's token is being made, and nobody has told the server.
    let credentials = Credentials::from_password("other", world.environment()).unwrap();
    world.accounts().insert(jid("romeo"), credentials);
    let token = succeeded(&patiently(&world, &store, &client)).unwrap();
    let client = ROMEO.open(&world);
    client.send(&ROMEO.by_token(&token.text, NONE, "", ""));
    assert_eq!(patiently(&world, &store, &client), failure("credentials-expired"));
}

#[test]
fn fast_10_a_new_token_is_of_the_password_that_the_used_one_was_of() {
    let store = Gated::new();
    let world = world_of(store.stores(), |policy| policy, |builder| builder);
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        client
    };
    let got = patiently(&world, &store, &asks(&ROMEO.by_password(&request(NONE))));
    let token = succeeded(&got).unwrap();
    world.advance(DAY);
    // Changed by another process while the login is judged.
    let client = asks(&ROMEO.by_token(&token.text, NONE, "", ""));
    let credentials = Credentials::from_password("other", world.environment()).unwrap();
    world.accounts().insert(jid("romeo"), credentials);
    let renewed = succeeded(&patiently(&world, &store, &client)).unwrap();
    let client = asks(&ROMEO.by_token(&renewed.text, NONE, "", ""));
    assert_eq!(patiently(&world, &store, &client), failure("credentials-expired"));
}

#[test]
fn fast_10_where_the_host_checks_passwords_it_says_when_tokens_end() {
    let store = Gated::new();
    let host = |_: &Virtual| {
        let mut policy = DomainPolicy::default();
        policy.authenticator = Some(Arc::new(AnyAccount::new(PASSWORD).unwrap()));
        policy
    };
    let world = World::with_policy(store.stores(), host, |builder, _| builder);
    world.account("romeo");
    let asks = |xml: &str| {
        let client = ROMEO.open(&world);
        client.send(xml);
        patiently(&world, &store, &client)
    };
    let token = succeeded(&asks(&ROMEO.by_password(&request(NONE)))).unwrap();
    let login = ROMEO.by_token(&token.text, NONE, "", "");
    assert_eq!(succeeded(&asks(&login)), None);
    world.advance(Duration::from_secs(1));
    // Whether or not the store can be told.
    *store.fails.lock().unwrap() = true;
    world.server().password_changed(&jid("romeo"), None);
    world.settle();
    *store.fails.lock().unwrap() = false;
    assert_eq!(asks(&login), failure("credentials-expired"));
    let other = succeeded(&asks(&ROMEO.by_password(&request(NONE)))).unwrap();
    assert_eq!(succeeded(&asks(&ROMEO.by_token(&other.text, NONE, "", ""))), None);
    // An account that the host does not know.
    now(world.accounts().remove(&jid("romeo"))).unwrap();
    assert_eq!(asks(&ROMEO.by_token(&other.text, NONE, "", "")), failure("not-authorized"));
}

/// Knows every password, and lets in whom it is told to.
struct Doorman(Arc<Mutex<Verdict>>, Option<SystemTime>);

impl Authenticator for Doorman {
    fn check_password(&self, _: &BareJid, _: &str) -> StoreFuture<Verdict> {
        let verdict = self.1.map_or(Verdict::Accepted, Verdict::AcceptedUntil);
        Box::pin(async move { Ok(verdict) })
    }

    fn check_account(&self, account: &BareJid, login: &LoginRequest) -> StoreFuture<Verdict> {
        assert_eq!((account.as_str(), login.mechanism()), ("romeo@example.com", NONE));
        let verdict = *self.0.lock().unwrap();
        Box::pin(async move { Ok(verdict) })
    }
}

#[test]
fn fast_10_a_host_that_checks_passwords_is_asked_about_the_account() {
    let verdict = Arc::new(Mutex::new(Verdict::Accepted));
    let door = |until: Option<Duration>| {
        let doorman = |environment: &Virtual| {
            let until = until.map(|until| environment.utc() + until);
            let mut policy = DomainPolicy::default();
            policy.authenticator = Some(Arc::new(Doorman(Arc::clone(&verdict), until)));
            policy
        };
        let world = World::with_policy(Stores::memory(), doorman, |builder, _| builder);
        world.account("romeo");
        world
    };
    let world = door(None);
    let token = ROMEO.token(&world, NONE);
    for (says, condition) in [
        (Verdict::Disabled, "account-disabled"),
        (Verdict::Refused, "not-authorized"),
        (Verdict::MustChange, "credentials-expired"),
        (Verdict::Temporary, "temporary-auth-failure"),
        (Verdict::AcceptedUntil(world.environment().utc()), "credentials-expired"),
    ] {
        *verdict.lock().unwrap() = says;
        assert_eq!(ROMEO.login(&world, &token, NONE), failure(condition));
        // It is not asked about what is forged.
        let forged = Token { text: "forged".into(), ..token.clone() };
        assert_eq!(ROMEO.login(&world, &forged, NONE), failure("not-authorized"));
    }
    *verdict.lock().unwrap() = Verdict::AcceptedUntil(world.environment().utc() + DAY + DAY / 1440);
    world.advance(DAY);
    let client = ROMEO.open(&world);
    let got = client.ask(&ROMEO.by_token(&token.text, NONE, "", &(request(NONE) + BIND)));
    assert_eq!(succeeded(&got), None, "FAST-2: no token for more than a time");
    world.advance(DAY / 1440);
    assert!(client.received().concat().contains("<reset "), "TOKEN-6");

    // The same where a password is good for a time.
    let world = door(Some(DAY));
    let got = ROMEO.open(&world).ask(&ROMEO.by_password(&request(NONE)));
    assert_eq!(succeeded(&got), None);
}

#[test]
fn fast_10_a_removed_account_leaves_no_token() {
    let world = world();
    let token = ROMEO.token(&world, NONE);
    let credentials = now(world.accounts().credentials(&jid("romeo"))).unwrap().unwrap();
    assert!(world.run(world.server().account_removed(&jid("romeo"))).unwrap());
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("not-authorized"));
    // One of the same name, and even of the same keys, is another.
    world.accounts().insert(jid("romeo"), credentials.clone());
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("not-authorized"));
    // Removed behind the server's back.
    let token = ROMEO.token(&world, NONE);
    now(world.stores().accounts.remove(&jid("romeo"))).unwrap();
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("not-authorized"));
    world.account("romeo");
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("credentials-expired"));
}

#[test]
fn fast_10_the_host_sees_the_clients_of_an_account_and_logs_one_out() {
    let world = world();
    let laptop = Device { id: LAPTOP, ..ROMEO };
    let account = world.server().account(&jid("romeo"));
    assert!(world.run(account.clients()).unwrap().is_empty());
    let token = ROMEO.token(&world, NONE);
    world.advance(2 * DAY);
    let other = laptop.token(&world, NONE);
    let clients = world.run(account.clients()).unwrap();
    let said: Vec<_> = clients.iter().map(|one| one.software.as_deref()).collect();
    assert_eq!(said, [Some("Gajim & Co"); 2]);
    assert_eq!(clients[0].device.as_deref(), Some("Phone"));
    assert!(clients[0].used > clients[1].used && clients[0].expiry > clients[1].expiry);
    let phone = clients[1].key;

    // Three sessions: of the phone by each way to bind, and of the laptop.
    let bound = |device: Device, xml: &str| {
        let client = device.open(&world);
        assert_eq!(succeeded(&client.ask(xml)), None);
        client
    };
    let sessions = [
        bound(ROMEO, &ROMEO.by_password("")),
        bound(laptop, &laptop.by_token(&other.text, NONE, "", BIND)),
    ];
    let iq = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/></iq>";
    assert_eq!(sessions[0].ask(iq).len(), 1);
    assert_eq!(world.sessions(), 2);
    assert!(world.run(account.revoke(phone)).unwrap());
    let last = sessions[0].received().concat();
    assert!(last.contains("<reset "), "{last}");
    assert!(sessions[1].received().is_empty());
    assert_eq!(world.sessions(), 1);
    assert_eq!(ROMEO.login(&world, &token, NONE), failure("credentials-expired"));
    assert_eq!(succeeded(&laptop.login(&world, &other, NONE)), None);
    let left: Vec<_> = world.run(account.clients()).unwrap().iter().map(|one| one.key).collect();
    assert_eq!(left, [clients[0].key]);
    assert!(!world.run(account.revoke(phone)).unwrap());
    // The phone may come again, with the password.
    let again = ROMEO.token(&world, NONE);
    assert_eq!(succeeded(&ROMEO.login(&world, &again, NONE)), None);
    assert_eq!(world.run(account.clients()).unwrap().len(), 2);
}

#[test]
fn limit_31_so_many_clients_have_tokens_and_the_longest_away_goes_first() {
    let world = world_of(
        Stores::memory(),
        |policy| policy,
        |builder| {
            let mut limits = Limits::default();
            limits.clients_per_account = 3;
            builder.limits(limits)
        },
    );
    let ids: [&'static str; 5] = [
        "00000000-0000-4000-8000-000000000001",
        "00000000-0000-4000-8000-000000000002",
        "00000000-0000-4000-8000-000000000003",
        "00000000-0000-4000-8000-000000000004",
        "00000000-0000-4000-8000-000000000005",
    ];
    let account = world.server().account(&jid("romeo"));
    let devices = ids.map(|id| Device { id, ..ROMEO });
    let mut tokens = Vec::new();
    for device in devices {
        tokens.push(device.token(&world, NONE));
        world.advance(Duration::from_secs(7200));
        assert!(world.run(account.clients()).unwrap().len() <= 3);
    }
    for (n, device) in devices.into_iter().enumerate() {
        let got = device.login(&world, &tokens[n], NONE);
        assert_eq!(got == failure("not-authorized"), n < 2, "{n}: {got:?}");
    }
    // What a client calls itself is cut.
    let long = "\u{1f98a}".repeat(100);
    let xml = ROMEO.by_password(&request(NONE)).replace("Phone", &long);
    assert!(succeeded(&ROMEO.open(&world).ask(&xml)).is_some());
    let cut = "\u{1f98a}".repeat(64);
    let clients = world.run(account.clients()).unwrap();
    assert!(clients.iter().any(|client| client.device.as_ref() == Some(&cut)), "{clients:?}");
}
