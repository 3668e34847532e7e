//! What the fuzz targets in `fuzz/` do with bytes, and what has to hold of it.
//!
//! Here and not there, since most of it is about what is private. `cargo test` replays their corpora.

use std::future::Future;
use std::num::NonZeroU32;
use std::pin::pin;
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use jid::{BareJid, DomainPart};
use minidom::Element;

use crate::connection::Recorder;
use crate::environment::{Environment, Virtual};
use crate::sasl::wire::Request;
use crate::sasl::{
    self, ChannelBindings, Establish, Holder, Mechanism, Negotiation, Policy, Standing, Step,
};
use crate::server::{Driver, Server, Transport, Want};
use crate::stanza::bounds::Bounds;
use crate::stanza::canonical::Declarations;
use crate::stanza::recognise::law;
use crate::stanza::{Frame, Framing, Stanza, canonicalise};
use crate::store::{
    ClientKey, Credentials, MemoryAccounts, ScramHash, Stores, TokenError, TokenVerdict, Verdict,
};
use crate::stream::{Event, Limits, Parser, StreamError};
use crate::xep::{Carbons, ClientState, StreamManagement};

const DOMAIN: &str = "example.com";
const PASSWORD: &str = "secret";
const FEW: NonZeroU32 = NonZeroU32::new(1).unwrap();

/// The recogniser keeps its law, in a stream with any header and any limits, however the bytes are
/// cut. The first four bytes choose these.
pub fn recogniser(data: &[u8]) {
    let Some((&[header, limits, first, second], xml)) = data.split_first_chunk() else { return };
    let (first, second) = (usize::from(first), usize::from(first) + usize::from(second));
    let bounds = match limits % 3 {
        0 => Bounds { bytes: 262_144, depth: 64, attributes: 64, elements: 4096 },
        1 => Bounds { bytes: 10_000, depth: 8, attributes: 16, elements: 64 },
        _ => Bounds { bytes: 600, depth: 3, attributes: 3, elements: 5 },
    };
    let outer: &[(Option<&str>, &str)] = match header % 4 {
        0 => &[(None, "jabber:client"), (Some("stream"), "http://etherx.jabber.org/streams")],
        1 => &[(None, "jabber:client"), (Some("p"), "urn:p")],
        2 => &[(None, ""), (Some("p"), "jabber:client")],
        _ => &[],
    };
    let outer = outer.iter().map(|(prefix, name)| (prefix.map(Box::from), Arc::from(*name)));
    law::check(xml, &[first, second], bounds, &Arc::new(Declarations(outer.collect())));
}

/// A stream reads the same however it is cut, and what comes out of it is in canonical form. The
/// first byte chooses the pieces.
pub fn parser(data: &[u8]) {
    let Some((&size, bytes)) = data.split_first() else { return };
    let whole = events(bytes, usize::MAX, false);
    let size = usize::from(size).max(1);
    assert!(events(bytes, size, true) == whole, "in pieces of {size}");
    assert!(events(bytes, size, false) == whole, "in pieces of {size}, borrowed");
    let whole = messages(bytes, usize::MAX);
    assert!(messages(bytes, size) == whole, "messages in fragments of {size}");
}

/// The same for messages, which a zero byte ends. Which error it is may depend on where a fragment ends:
/// some are told at a start tag.
fn messages(bytes: &[u8], size: usize) -> Vec<Option<Vec<u8>>> {
    const OPEN: &[u8] = b"<open xmlns='urn:ietf:params:xml:ns:xmpp-framing' version='1.0'/>";
    let limits = Limits::default();
    let mut parser = Parser::with_framing(&limits, Framing::Message);
    let mut shown_events = Vec::new();
    for message in std::iter::once(OPEN).chain(bytes.split(|byte| *byte == 0)) {
        for fragment in message.chunks(size) {
            parser.feed_message(fragment, false);
        }
        parser.feed_message(b"", true);
        loop {
            match parser.next() {
                Ok(None) => break,
                Err(_) => {
                    shown_events.push(None);
                    return shown_events;
                }
                Ok(Some(event)) => {
                    if matches!(event, Event::Header(_)) {
                        parser.authenticated(&limits);
                    }
                    shown_events.push(Some(shown(&event)));
                }
            }
        }
    }
    shown_events
}

fn events(bytes: &[u8], size: usize, feed: bool) -> Vec<Result<Vec<u8>, StreamError>> {
    let limits = Limits::default();
    let mut parser = Parser::new(&limits);
    let mut events = Vec::new();
    for mut piece in bytes.chunks(size) {
        if feed {
            parser.feed(std::mem::take(&mut piece));
        }
        loop {
            match parser.read(&mut piece) {
                Ok(None) => break,
                Err(error) => {
                    events.push(Err(error));
                    return events;
                }
                Ok(Some(event)) => {
                    if matches!(event, Event::Header(_)) {
                        parser.authenticated(&limits);
                    }
                    events.push(Ok(shown(&event)));
                }
            }
        }
        parser.feed(piece);
    }
    events
}

fn shown(event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Header(_) => b"header".to_vec(),
        Event::Stanza(received) => {
            let stanza = received.stamp(received.from(), None);
            stays(&stanza);
            written(&stanza)
        }
        Event::Refused(refused) => {
            let stanza = refused.stanza().stamp(None, None);
            [format!("{:?} ", refused.limit()).into_bytes(), written(&stanza)].concat()
        }
        Event::Nonza(nonza) => {
            drop(nonza.to_element());
            nonza.xml().to_vec()
        }
        Event::End => b"end".to_vec(),
    }
}

/// What was brought into canonical form stays as it is, and survives as a tree.
pub fn canonical(data: &[u8]) {
    if let Ok(stanza) = canonicalise(data) {
        stays(&stanza);
    }
}

fn stays(stanza: &Stanza) {
    let once = written(stanza);
    let again = canonicalise(&once);
    assert!(again.is_ok(), "what is written is a stanza");
    let Ok(again) = again else { return };
    assert!(written(&again) == once, "twice changes nothing");
    let element = stanza.to_element();
    let rebuilt = Stanza::from_element(&element);
    assert!(rebuilt.is_ok(), "a tree of a stanza is one");
    let Ok(rebuilt) = rebuilt else { return };
    assert!(rebuilt.to_element() == element, "a tree keeps what it says");
    assert!(rebuilt.to() == stanza.to() && rebuilt.id() == stanza.id(), "and to whom");
}

fn written(stanza: &Stanza) -> Vec<u8> {
    let mut out = Vec::new();
    Frame::stanza(stanza).write_to(&mut out);
    out
}

static CREDENTIALS: LazyLock<Option<Credentials>> =
    LazyLock::new(|| Credentials::from_password_with(PASSWORD, FEW, &Virtual::new(1)).ok());

fn domain() -> Option<DomainPart> {
    Some(DomainPart::new(DOMAIN).ok()?.into_owned())
}

/// How the names of mechanisms begin.
const STARTS: [&str; 5] = ["PLAIN", "SCRAM", "OAUTHBEARER", "X-OAUTH2", "ANONYMOUS"];

/// An exchange comes to an end, and never to success without the password. Each line is what a
/// client sends: `PLAIN …` starts an exchange, `-` aborts one, anything else responds.
pub fn sasl(data: &[u8]) {
    let environment = Arc::new(Virtual::new(1));
    let Some(domain) = domain() else { return };
    let context = sasl::Context {
        policy: Arc::new(
            Policy::new(&*environment)
                .mechanisms(&Mechanism::ALL)
                .iterations(FEW)
                .tokens()
                .guests(),
        ),
        environment,
        domain,
        secure: true,
        bindings: ChannelBindings::default().exporter(vec![7; 32]),
        certified: Vec::new(),
        adds_keys: true,
    };
    let mut negotiation = Negotiation::new(context);
    for line in data.split(|&byte| byte == b'\n') {
        let space = line.iter().position(|&byte| byte == b' ');
        let (word, rest) = line.split_at(space.unwrap_or(line.len()));
        let rest = rest.get(1..).map(<[u8]>::to_vec);
        let request = match std::str::from_utf8(word) {
            Ok("-") => Request::Abort,
            Ok(mechanism) if STARTS.iter().any(|start| mechanism.starts_with(start)) => {
                Request::Auth { mechanism, initial: rest }
            }
            _ => Request::Response(line.to_vec()),
        };
        let mut step = negotiation.receive(Ok(request));
        if let Ok(Step::NeedCredentials { account }) = &step {
            let known = account.as_str() == "juliet@example.com";
            step = negotiation.credentials(CREDENTIALS.clone().filter(|_| known));
            if let Ok(Step::CheckKeys(check)) = step {
                step = negotiation.hashed(check());
            }
        } else if let Ok(Step::CheckToken { .. } | Step::NeedDiscovery) = &step {
            step = negotiation.token(TokenVerdict::Refused(TokenError::new()));
        } else if let Ok(Step::NeedGuest) = &step {
            step = negotiation.guest(None);
        } else if let Ok(Step::CheckPassword { .. }) = &step {
            step = negotiation.verdict(Verdict::Refused);
        }
        match step {
            Ok(Step::Success { .. }) => {
                let by_proof = data.windows(3).any(|three| three == b",p=");
                let by_password = data.windows(7).any(|seven| seven == b"\0secret");
                assert!(by_proof || by_password, "success without a password");
                return;
            }
            Err(refused) if refused.close => return,
            Ok(_) | Err(_) => {}
        }
    }
}

/// A login with a token succeeds with nothing but the token's own proof, for its account and mechanism. The first byte chooses
/// mechanism and count, the rest is the client's message.
pub fn ht(data: &[u8]) {
    let Some((&kind, message)) = data.split_first() else { return };
    let (Some(domain), Some(credentials)) = (domain(), &*CREDENTIALS) else { return };
    let Ok(account) = BareJid::new("juliet@example.com") else { return };
    let environment = Arc::new(Virtual::new(1));
    let policy = Arc::new(Policy::new(&*environment).secret([7; 32]));
    let fingerprint = policy.fingerprint(credentials);
    let holder = Holder { account, client: ClientKey::from_bytes([1; 32]) };
    let own = Mechanism::HtSha256Expr;
    let (record, issued) =
        policy.issue_token(&holder, None, own, &fingerprint, false, &*environment);
    let binding = vec![7; 32];
    let right =
        ScramHash::Sha256.hmac(issued.token.as_bytes(), &[b"Initiator", &*binding].concat());

    let mechanisms = Mechanism::ALL.into_iter().filter(|one| one.is_for_tokens());
    let mechanism = mechanisms.cycle().nth(usize::from(kind & 3)).unwrap_or(own);
    let count = (kind & 4 == 4).then(|| u64::from(kind >> 3));
    let context = sasl::Context {
        policy: Arc::clone(&policy),
        environment: Arc::clone(&environment) as _,
        domain,
        secure: true,
        bindings: ChannelBindings::new().exporter(binding).unique(vec![8; 12]),
        certified: Vec::new(),
        adds_keys: false,
    };
    let mut negotiation = Negotiation::new(context);
    let request = Request::Auth { mechanism: mechanism.as_str(), initial: Some(message.to_vec()) };
    let mut step = negotiation.receive_2(Ok(request), Some(Box::new(with_fast())));
    if let Ok(Step::CheckFast { account, proof }) = &step {
        let asked = Holder { account: account.clone(), ..holder.clone() };
        let standing = Standing { credentials: Some(credentials.clone()) };
        let (now, found) =
            (environment.utc(), (asked.account == holder.account).then_some(&record));
        step =
            negotiation.fast(policy.check_token(&asked, found, Some(&standing), proof, count, now));
    }
    if let Ok(step) = step {
        assert!(matches!(step, Step::Success { .. }), "one message, one answer");
        assert!(mechanism == own && message.ends_with(&right), "success without the token");
        assert!(count != Some(0), "success with a count that was seen");
    }
}

/// What comes with a login with a token.
fn with_fast() -> Establish {
    let mut parser = Parser::new(&Limits::default());
    parser.feed(
        b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>\
          <authenticate xmlns='urn:xmpp:sasl:2'><fast xmlns='urn:xmpp:fast:0'/></authenticate>",
    );
    while let Ok(Some(event)) = parser.next() {
        if let Event::Nonza(nonza) = event {
            return Establish::read(&nonza);
        }
    }
    Establish::default()
}

/// A whole server takes whatever one client sends, in any pieces, from the first byte to bind and
/// beyond. The first byte chooses the pieces, the second what kind of transport it is.
pub fn driver(data: &[u8]) {
    let Some((&[size, transport], bytes)) = data.split_first_chunk() else { return };
    let (Some(domain), Some(credentials)) = (domain(), CREDENTIALS.clone()) else { return };
    let environment = Arc::new(Virtual::new(1));
    let accounts = Arc::new(MemoryAccounts::new());
    for account in ["juliet@example.com", "romeo@example.com"] {
        let Ok(account) = BareJid::new(account) else { return };
        accounts.insert(account, credentials.clone());
    }
    let mut stores = Stores::memory();
    stores.accounts = accounts;
    let server = Server::builder(Arc::clone(&environment) as Arc<dyn Environment>, stores)
        .domain(domain)
        .build();
    let recorder = Recorder::new();
    let transport = Transport::new().secure(transport & 1 == 1).starttls(transport & 2 == 2);
    let mut driver = server.accept(recorder.clone(), transport);
    for piece in bytes.chunks(usize::from(size).max(1)) {
        driver.receive(piece);
        if !drive(&server, &mut driver, &environment) {
            assert!(recorder.closed().is_some(), "a driver that is done has closed");
            drop(recorder.take());
            driver.receive(b"<presence/>");
            assert!(recorder.take().is_empty(), "nothing follows the end");
            break;
        }
        drop(recorder.drain());
    }
    drop(driver);
    drive_background(&server);
    assert!(server.registry().is_empty(), "no ghost is left");
}

/// TLS hears what the peer has said and nothing else, and keeps nothing that is not incomplete.
#[cfg(all(feature = "ring", any(feature = "tokio", feature = "threads")))]
pub fn tls(data: &[u8]) {
    crate::host::law::check(data);
}

/// What a client writes inside of `<authenticate/>` gets nobody in without the password, and whatever it
/// asks for, the answer is whole. The first byte chooses the pieces, the second in which attempts the
/// password is right; each line is what one attempt holds, where `$` is the last resumption id.
pub fn sasl2(data: &[u8]) {
    let Some((&[size, right], lines)) = data.split_first_chunk() else { return };
    let (Some(domain), Some(credentials)) = (domain(), CREDENTIALS.clone()) else { return };
    let environment = Arc::new(Virtual::new(1));
    let accounts = Arc::new(MemoryAccounts::new());
    let Ok(account) = BareJid::new("juliet@example.com") else { return };
    accounts.insert(account, credentials);
    let mut stores = Stores::memory();
    stores.accounts = accounts;
    let server = Server::builder(Arc::clone(&environment) as Arc<dyn Environment>, stores)
        .domain(domain)
        .extension(StreamManagement::new())
        .extension(Carbons::new())
        .extension(ClientState)
        .build();
    let mut id = String::new();
    let size = usize::from(size).max(1);
    for (n, line) in lines.split(|byte| *byte == b'\n').take(8).enumerate() {
        let is_right = right >> n & 1 == 1;
        let inside: Vec<&[u8]> = line.split(|byte| *byte == b'$').collect();
        let inside = inside.join(id.as_bytes());
        let got = attempt(&server, &environment, is_right, &inside, size);
        // Whoever else it is that it names, the answer is about juliet.
        let Some((_, rest)) = got.split_once("<success ") else { continue };
        assert!(is_right, "nobody is let in without the password");
        let Some((success, rest)) = rest.split_once("</success>") else { unreachable!() };
        let success: Option<Element> = format!("<success {success}</success>").parse().ok();
        let Some(success) = success else { unreachable!("it is whole") };
        let has = |name| success.children().filter(|child| child.name() == name).count();
        assert!(has("authorization-identifier") == 1 && has("bound") + has("resumed") <= 1);
        assert!(rest.starts_with("<stream:features>") != (has("resumed") == 1), "{rest}");
        assert!(!got.contains("d4565fa7"), "what a client says of itself is shown to nobody");
        if let Some((_, enabled)) = got.split_once("<enabled xmlns='urn:xmpp:sm:3' id='") {
            id = enabled.split('\'').next().unwrap_or_default().to_owned();
        }
    }
    drive_background(&server);
    environment.advance(Duration::from_secs(3600));
    server.handle_timeout();
    drive_background(&server);
    assert!(server.registry().is_empty(), "no ghost is left");
}

/// What a client gets that opens a stream, sends this inside of its authentication and is lost.
fn attempt(
    server: &Server<Recorder>,
    environment: &Virtual,
    is_right: bool,
    inside: &[u8],
    size: usize,
) -> String {
    let plain = if is_right { "AGp1bGlldABzZWNyZXQ=" } else { "AGp1bGlldAB3cm9uZw==" };
    let before = format!(
        "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' \
         to='{DOMAIN}' version='1.0'><authenticate xmlns='urn:xmpp:sasl:2' mechanism='PLAIN'>\
         <initial-response>{plain}</initial-response>"
    );
    let bytes = [before.as_bytes(), inside, b"</authenticate>"].concat();
    let recorder = Recorder::new();
    let mut driver = server.accept(recorder.clone(), Transport::new().secure(true));
    for piece in bytes.chunks(size) {
        driver.receive(piece);
    }
    let _is_open = drive(server, &mut driver, environment);
    recorder.drain().concat()
}

/// Lets the driver come to rest; `false` when it is done.
fn drive(server: &Server<Recorder>, driver: &mut Driver<Recorder>, environment: &Virtual) -> bool {
    for _ in 0..8 {
        drive_background(server);
        match driver.poll_want(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Want::Input) => return true,
            Poll::Ready(Want::StartTls) => driver.secured(ChannelBindings::new()),
            Poll::Ready(Want::Close) => return false,
            Poll::Pending => {
                environment.advance(Duration::from_secs(1));
                server.handle_timeout();
                driver.handle_timeout();
            }
        }
    }
    true
}

fn drive_background(server: &Server<Recorder>) {
    let _never = pin!(server.background()).poll(&mut Context::from_waker(Waker::noop()));
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    /// Runs a target on each file of its corpus. A packaged crate has no corpora.
    fn replay(target: &str, run: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let Ok(entries) = fs::read_dir(&corpus) else { return };
        let mut files = 0;
        for entry in entries {
            let file = entry.expect("an entry").path();
            println!("{}", file.display());
            run(&fs::read(&file).expect("a file"));
            files += 1;
        }
        assert!(files > 0, "{target} has an empty corpus");
    }

    #[test]
    fn corpus_of_the_recogniser() {
        replay("recogniser", super::recogniser);
    }

    #[test]
    fn corpus_of_the_parser() {
        replay("parser", super::parser);
    }

    #[test]
    fn corpus_of_the_canonical_form() {
        replay("canonical", super::canonical);
    }

    #[test]
    fn corpus_of_sasl() {
        replay("sasl", super::sasl);
    }

    #[test]
    fn corpus_of_ht() {
        replay("ht", super::ht);
    }

    #[test]
    fn sasl2_7_corpus_of_what_comes_with_an_authentication() {
        replay("sasl2", super::sasl2);
    }

    #[cfg(all(feature = "ring", any(feature = "tokio", feature = "threads")))]
    #[test]
    fn corpus_of_tls() {
        replay("tls", super::tls);
    }

    #[test]
    fn corpus_of_the_driver() {
        replay("driver", super::driver);
    }
}
