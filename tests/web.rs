//! The example `web` over HTTP: its pages, who may see and do what, its WebSocket's door.
#![cfg(feature = "server")]
#![expect(clippy::expect_used, reason = "a test may fail by a panic")]

#[path = "../examples/web/app.rs"]
mod app;
#[path = "../examples/web/discovery.rs"]
mod discovery;
#[path = "../examples/web/http.rs"]
mod http;
#[path = "../examples/web/live.rs"]
mod live;
#[path = "../examples/server/log.rs"]
mod log;
#[path = "../examples/web/operator.rs"]
mod operator;
#[expect(dead_code, reason = "the process uses more of it")]
#[path = "../examples/web/options.rs"]
mod options;
#[path = "../examples/web/pages.rs"]
mod pages;
#[path = "../examples/server/settings.rs"]
mod settings;
#[expect(dead_code, reason = "the process uses more of it")]
#[path = "../examples/server/setup.rs"]
mod setup;
#[path = "../examples/web/site.rs"]
mod site;
#[path = "../examples/web/socket.rs"]
mod socket;

use std::net::SocketAddr;
use std::sync::Arc;

use app::App;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use xmpp_session::host::Host;
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{Bot, Server};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A site on a port of its own.
struct World {
    address: SocketAddr,
    host: Arc<Host<Arc<Outbox>>>,
    server: Server<Arc<Outbox>>,
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines();
        lines
            .filter_map(|line| line.split_once(": "))
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value)
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect(&self.body)
    }
}

impl World {
    async fn new(line: &str) -> Self {
        let line = format!("--account romeo@localhost:montague --log off {line}");
        let options = options::parse(line.split_whitespace().map(String::from));
        let app = App::new(options.expect("options").expect("no help")).await.expect("an app");
        assert!(app.invented.is_empty());
        tokio::spawn(xmpp_session::host::tokio::background(app.server.clone()));
        let socket = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = socket.local_addr().expect("an address");
        tokio::spawn(http::serve(socket, app.routes, false, log::Log(settings::Level::Off)));
        Self { address, host: app.host, server: app.server }
    }

    fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// With these headers; the host is named unless they do.
    async fn ask(&self, method: &str, path: &str, headers: &[&str], body: &str) -> Answer {
        let mut socket = TcpStream::connect(self.address).await.expect("a connection");
        let mut text = format!("{method} {path} HTTP/1.1\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|header| header.starts_with("Host: ")) {
            text += &format!("Host: {}\r\n", self.address);
        }
        headers.iter().for_each(|header| text += &format!("{header}\r\n"));
        text += &format!("\r\n{body}");
        socket.write_all(text.as_bytes()).await.expect("written");
        let mut answer = Vec::new();
        while !is_whole(&answer) && socket.read_buf(&mut answer).await.expect("read") > 0 {}
        let answer = String::from_utf8(answer).expect("text");
        let (head, body) = answer.split_once("\r\n\r\n").expect("an end of the head");
        let status = head.get(9..12).and_then(|status| status.parse().ok()).expect("a status");
        Answer { status, head: head.to_lowercase(), body: body.to_owned() }
    }

    async fn get(&self, path: &str, headers: &[&str]) -> Answer {
        self.ask("GET", path, headers, "").await
    }

    async fn post(&self, path: &str, origin: Option<&str>, body: &Value) -> Answer {
        let origin = origin.map(|origin| format!("Origin: {origin}"));
        let mut headers = vec!["Content-Type: application/json"];
        headers.extend(origin.as_deref());
        self.ask("POST", path, &headers, &body.to_string()).await
    }

    async fn bot(&self, jid: &str) -> Bot<Arc<Outbox>> {
        self.server.bot(&jid.parse().expect("a full JID")).await.expect("a session")
    }

    async fn data(&self, query: &str) -> Value {
        self.get(&format!("/live/data?{query}"), &[]).await.json()
    }
}

/// Whether the body is there, as long as the head says. A WebSocket has none.
fn is_whole(answer: &[u8]) -> bool {
    let text = String::from_utf8_lossy(answer).to_lowercase();
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.lines().next());
    length.map_or(0, |length| length.parse().expect("a number")) <= body.len()
}

fn names(data: &Value) -> Vec<&str> {
    let sessions = data["sessions"].as_array().expect("an array").iter();
    sessions.map(|one| one["jid"].as_str().expect("text")).collect()
}

const TOKEN: &str = "0123456789abcdef";

#[tokio::test]
async fn pages_have_their_kind_and_a_policy_and_are_sent_once() {
    let world = World::new("").await;
    let kinds = [
        ("/", "text/html; charset=utf-8"),
        ("/live", "text/html; charset=utf-8"),
        ("/live.css", "text/css; charset=utf-8"),
        ("/live.js", "text/javascript; charset=utf-8"),
        ("/live/table.js", "text/javascript; charset=utf-8"),
    ];
    for (path, kind) in kinds {
        let page = world.get(path, &[]).await;
        assert_eq!((page.status, page.header("content-type")), (200, Some(kind)), "{path}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        let known = format!("If-None-Match: {}", page.header("etag").expect("a tag"));
        let again = world.get(path, &[&known]).await;
        assert_eq!((again.status, &*again.body), (304, ""));
        assert_eq!(world.get(path, &["If-None-Match: \"1\""]).await.status, 200);
    }
    assert_eq!(world.get("/nothing", &[]).await.status, 404);
    // What the policy would not let run is in no page.
    for page in ["/", "/live"] {
        let page = world.get(page, &[]).await.body;
        let is_handler = |rest: &str| rest.trim_start_matches(char::is_alphabetic).starts_with('=');
        assert!(!page.split(" on").skip(1).any(is_handler) && !page.contains("style="), "{page}");
    }
}

#[tokio::test]
async fn the_websocket_is_found() {
    let world = World::new("").await;
    let there = format!("ws://{}/xmpp-websocket", world.address);
    let json = world.get("/.well-known/host-meta.json", &[]).await;
    assert_eq!(json.header("access-control-allow-origin"), Some("*"));
    assert_eq!(json.json()["links"][0]["href"], *there);
    let xml = world.get("/.well-known/host-meta", &[]).await;
    assert_eq!(xml.header("content-type"), Some("application/xrd+xml"));
    assert!(xml.body.contains(&format!("href='{there}'")), "{}", xml.body);
    let hostile = world.get("/.well-known/host-meta", &["Host: x'/><script>"]).await;
    assert_eq!(hostile.status, 400);
    let proxied = World::new("--secure").await;
    let xml = proxied.get("/.well-known/host-meta", &["Host: chat.example.com"]).await;
    assert!(xml.body.contains("href='wss://chat.example.com/xmpp-websocket'"), "{}", xml.body);
}

#[tokio::test]
async fn ws_13_pages_of_elsewhere_open_no_websocket() {
    let world = World::new("--origin https://chat.example.com").await;
    let own = format!("Origin: {}", world.origin());
    let named = format!("localhost:{}", world.address.port());
    let cases = [
        (vec![], 101),
        (vec![&*own], 101),
        (vec!["Origin: https://chat.example.com"], 101),
        (vec!["Origin: https://chat.example.com.evil.example"], 403),
        (vec!["Origin: http://chat.example.com"], 403),
        (vec!["Origin: null"], 403),
        (vec!["Origin: https://evil.example"], 403),
        // A name that leads here, and is the origin of another's page.
        (vec!["Origin: http://evil.example", "Host: evil.example"], 403),
    ];
    let upgrade = [
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: xmpp",
    ];
    for (headers, status) in cases {
        let headers = [&upgrade[..], &headers[..]].concat();
        assert_eq!(world.get("/xmpp-websocket", &headers).await.status, status, "{headers:?}");
    }
    let (host, origin) = (format!("Host: {named}"), format!("Origin: http://{named}"));
    let headers = [&upgrade[..], &[&host, &origin]].concat();
    assert_eq!(world.get("/xmpp-websocket", &headers).await.status, 101);
    // All four have been handed over, and have gone.
    while world.host.connections() > 0 || world.server.metrics().accepted < 4 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(world.server.metrics().accepted, 4);
    let [connection, kind, version, key, _] = upgrade;
    let chat = "Sec-WebSocket-Protocol: chat";
    assert_eq!(
        world.get("/xmpp-websocket", &[connection, kind, version, key, chat]).await.status,
        400
    );
}

#[tokio::test]
async fn without_a_token_the_live_view_is_for_this_machine() {
    let world = World::new("").await;
    for path in ["/live", "/live/data", "/live.js"] {
        assert_eq!(world.get(path, &[]).await.status, 200);
        let named = format!("Host: localhost:{}", world.address.port());
        assert_eq!(world.get(path, &[&named]).await.status, 200);
        for header in
            ["Host: evil.example", "X-Forwarded-For: 192.0.2.1", "Forwarded: for=x", "Via: 1.1 x"]
        {
            assert_eq!(world.get(path, &[header]).await.status, 403, "{path} {header}");
        }
    }
    assert_eq!(
        world.get(&format!("/live?token={TOKEN}"), &["Host: evil.example"]).await.status,
        403
    );
    let proxied = World::new("--secure").await;
    let closed = proxied.get("/live/data", &[]).await;
    assert_eq!((closed.status, closed.body.contains("--operator-token")), (403, true));
}

#[tokio::test]
async fn a_token_opens_the_live_view() {
    let world = World::new(&format!("--operator-token {TOKEN}")).await;
    let asked = world.get("/live", &[]).await;
    assert_eq!((asked.status, asked.body.contains("type=\"password\"")), (403, true));
    assert_eq!(world.get("/live/data", &["Cookie: operator="]).await.status, 403);
    assert_eq!(world.get("/live/data", &[&format!("Cookie: operator={TOKEN}")]).await.status, 403);
    let logins = [world.get(&format!("/live?token={TOKEN}"), &[]).await, {
        let headers = ["Content-Type: application/x-www-form-urlencoded"];
        world.ask("POST", "/live/login", &headers, &format!("token={TOKEN}")).await
    }];
    for login in logins {
        assert_eq!((login.status, login.header("location")), (303, Some("/live")));
        let cookie = login.header("set-cookie").expect("a cookie");
        assert!(
            cookie.contains("; httponly; samesite=strict") && !cookie.contains(TOKEN),
            "{cookie}"
        );
        // The script of the page is not below it.
        assert!(cookie.contains("; path=/;"), "{cookie}");
        let cookie = format!("Cookie: other=1; {}", cookie.split(';').next().expect("its value"));
        assert_eq!(world.get("/live/data", &[&cookie]).await.status, 200);
        // A cookie is sent along whoever asks.
        let foreign = [&*cookie, "Origin: https://evil.example"];
        assert_eq!(world.ask("POST", "/live/drain", &foreign, "").await.status, 403);
    }
    let bearer = format!("Authorization: Bearer {TOKEN}");
    assert_eq!(world.get("/live/data", &[&bearer]).await.status, 200);
    // The clock does not have to be looked at: each of these has to wait for the one before.
    for wrong in ["/live?token=0123456789abcdeg", "/live/data?token="] {
        assert_eq!(world.get(wrong, &[]).await.status, 403);
    }
    assert_eq!(world.get("/live/data", &[&format!("{bearer}x")]).await.status, 403);
    assert!(world.server.metrics().sessions.sessions == 0);
}

#[tokio::test]
async fn host_9_the_live_view_shows_sessions_and_ends_them() {
    let world = World::new("").await;
    let _bots = [world.bot("romeo@localhost/one").await, world.bot("romeo@localhost/two").await];
    let data = world.data("").await;
    assert_eq!(names(&data), ["romeo@localhost/one", "romeo@localhost/two"]);
    assert_eq!((data["counts"]["bound"].as_u64(), data["drain"].is_null()), (Some(2), true));
    assert_eq!(
        names(&world.data("order=newest").await),
        ["romeo@localhost/two", "romeo@localhost/one"]
    );
    assert_eq!(
        names(&world.data("containing=TWO&order=loud&state=none").await),
        ["romeo@localhost/two"]
    );
    assert_eq!(names(&world.data("state=hibernating").await), [""; 0]);

    let session = &data["sessions"][0];
    let (end, origin) = ("/live/end", world.origin());
    for origin in [None, Some("https://evil.example"), Some("null")] {
        assert_eq!(world.post(end, origin, session).await.status, 403);
        assert_eq!(world.post("/live/drain", origin, session).await.status, 403);
    }
    let mut other = session.clone();
    other["number"] = 999.into();
    for (body, ended) in [(&other, false), (session, true), (session, false)] {
        let answer = world.post(end, Some(&origin), body).await;
        assert_eq!((answer.status, answer.json()["ended"].as_bool()), (200, Some(ended)));
    }
    assert_eq!(
        world.post(end, Some(&origin), &serde_json::json!({"jid": "@", "number": 1})).await.status,
        400
    );
    let data = world.data("").await;
    assert_eq!(names(&data), ["romeo@localhost/two"]);
    let end = &data["ends"][0];
    assert_eq!(
        (&end["reason"], &end["jid"], &end["number"]),
        (&"kicked".into(), &session["jid"], &session["number"])
    );
}

#[tokio::test]
async fn destroy_16_the_live_view_drains_the_server() {
    let world = World::new("").await;
    let _bot = world.bot("romeo@localhost/one").await;
    let origin = world.origin();
    let drain = async || {
        world.post("/live/drain", Some(&origin), &Value::Null).await.json()["draining"].as_bool()
    };
    assert_eq!((drain().await, drain().await), (Some(true), Some(false)));
    loop {
        let data = world.data("").await;
        if data["drain"]["done"] == true {
            assert_eq!(names(&data), [""; 0]);
            assert_eq!(data["ends"][0]["reason"], "shutdown");
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(world.server.bot(&"romeo@localhost/two".parse().expect("a JID")).await.is_err());
}
