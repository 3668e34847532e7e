//! A hundred thousand connects and disconnects (DESTROY-11, SEC-2). Alone in its process, since it looks
//! at the memory of all of it.

#![cfg(feature = "server")]

#[cfg(test)]
#[expect(dead_code, reason = "shared with the tests of the endpoint")]
#[path = "common/wire.rs"]
mod wire;

use std::task::{Context, Waker};

use wire::World;
use xmpp_session::connection::Recorder;
use xmpp_session::server::Transport;

const HEADER: &str = "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
    xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0' xml:lang='en'>";
const AUTH: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AHJvbWVvAHNlY3JldA==</auth>";
const BIND: &str = "<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>orchard</resource></bind></iq>";

/// Bytes of memory that this process has in use; `None` where that cannot be known.
fn resident() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: usize = text.split(' ').nth(1)?.parse().ok()?;
    Some(pages * 4096)
}

#[test]
fn destroy_11_a_hundred_thousand_transports_leave_nothing() {
    let world = World::new();
    world.account("romeo");
    let juliet = world.online("juliet", "balcony");
    let server = world.server();
    // Every kind of end, at every stage.
    let parts = [
        String::new(),
        HEADER.to_owned(),
        format!(
            "{HEADER}<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='SCRAM-SHA-1'>biwsbj1yb21lbyxyPWFiYw==</auth>"
        ),
        format!("{HEADER}{AUTH}"),
        format!("{HEADER}{AUTH}{HEADER}"),
        format!("{HEADER}{AUTH}{HEADER}{BIND}"),
        format!("{HEADER}{AUTH}{HEADER}{BIND}<presence/><message to='juliet@example.com'>"),
        format!(
            "{HEADER}{AUTH}{HEADER}{BIND}<presence/><presence to='juliet@example.com/balcony'/><nothing/>"
        ),
        format!(
            "{HEADER}{AUTH}{HEADER}{BIND}<presence type='subscribe' to='juliet@example.com'/></stream:stream>"
        ),
        "\u{0}".to_owned(),
    ];
    let connect = |n: usize| {
        // A login costs a hundred times as much as a transport: one in five has one.
        let part = &parts[if n.is_multiple_of(5) { (n / 5) % parts.len() } else { n % 3 }];
        let recorder = Recorder::new();
        let source = format!("192.0.2.{}", n % 250);
        let peer = Transport::new().secure(true).starttls(true).source(source);
        let mut driver = server.accept(recorder, peer);
        driver.receive(part.as_bytes());
        let _want = driver.poll_want(&mut Context::from_waker(Waker::noop()));
        if n.is_multiple_of(3) {
            driver.receive(b"</stream:stream>");
        }
    };
    (0..10_000).for_each(connect);
    let _read = juliet.recorder().take();
    let before = (server.metrics().accepted, resident());
    for n in 0..100_000 {
        connect(n);
        if n.is_multiple_of(1000) {
            let _read = juliet.recorder().take();
        }
    }
    let _read = juliet.recorder().take();
    let metrics = server.metrics();
    assert_eq!((metrics.unauthenticated, metrics.jobs), (0, 0));
    assert_eq!((metrics.sessions.sessions, metrics.sessions.hibernating), (1, 0));
    assert_eq!(server.metrics().accepted, before.0 + 100_000);
    // An admission, a session, a hook kept for each would be 50 MB and more.
    if let (Some(before), Some(after)) = (before.1, resident()) {
        let grown = after.saturating_sub(before);
        assert!(grown < 4 << 20, "memory grew by {grown} bytes");
    }
}
