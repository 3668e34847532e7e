//! Scenarios that the tokio-xmpp client plays against a running server.
//!
//! Usage: `tokio-xmpp-client STARTTLS-ADDRESS DIRECT-TLS-ADDRESS`, with the server's certificate in the file that
//! `SSL_CERT_FILE` names. The accounts `user0@localhost` … exist, each with the password `secret-of-NAME`.

use std::borrow::Cow;
use std::future::Future;
use std::time::Duration;

use futures::{SinkExt, StreamExt};
use sasl::common::Credentials;
use tokio_xmpp::connect::{AsyncReadAndWrite, DnsConfig, ServerConnector, StartTlsServerConnector};
use tokio_xmpp::jid::{BareJid, FullJid, Jid};
use tokio_xmpp::parsers::bind::{BindQuery, BindResponse};
use tokio_xmpp::parsers::iq::Iq;
use tokio_xmpp::parsers::message::{Lang, Message};
use tokio_xmpp::parsers::ns;
use tokio_xmpp::parsers::ping::Ping;
use tokio_xmpp::parsers::presence::{Presence, Show, Type};
use tokio_xmpp::parsers::roster::{Item, Roster, Subscription};
use tokio_xmpp::parsers::sasl::DefinedCondition as SaslCondition;
use tokio_xmpp::parsers::stream_error::DefinedCondition;
use tokio_xmpp::xmlstream::{ReadError, StreamHeader, Timeouts, XmppStream, XmppStreamElement};
use tokio_xmpp::{Client, Error, Event, IqRequest, IqResponse, Stanza, client_login};

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// For failures only: no scenario that passes waits for it.
const PATIENCE: Duration = Duration::from_secs(10);

/// tokio-xmpp 6.0.0 may go to sleep for good when an answer comes while it is still sending: its
/// `StanzaReceiver::poll_next` returns `Pending` without a waker while the other half holds the lock.
/// What has come is counted and acknowledged, and nobody gets it. On one thread, where the lock is seldom
/// held when others run, that is rare; hence the runtime below, and a second try.
const TRIES: usize = 2;

#[derive(Clone)]
struct Server {
    starttls: String,
    direct_tls: String,
}

/// Fails a scenario with a reason.
fn fail<T>(reason: impl Into<String>) -> Outcome<T> {
    Err(reason.into().into())
}

fn check(right: bool, what: &str) -> Outcome {
    if right { Ok(()) } else { fail(format!("not so: {what}")) }
}

async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> Outcome<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => Ok(done),
        Err(_) => fail(format!("waited in vain for {what}")),
    }
}

fn full(user: &str, resource: &str) -> Outcome<FullJid> {
    Ok(FullJid::new(&format!("{user}@localhost/{resource}"))?)
}

fn password(jid: &FullJid) -> String {
    format!("secret-of-{}", jid.node().map_or("", |node| node.as_str()))
}

/// A session of the library's own making: it negotiates all that it can, and would reconnect by itself.
struct User {
    client: Client,
    jid: FullJid,
}

impl User {
    async fn login(server: &Server, user: &str, resource: &str) -> Outcome<Self> {
        let jid = full(user, resource)?;
        let dns = DnsConfig::addr(&server.starttls);
        Self::online(Client::new_starttls(jid.clone(), password(&jid), dns, Timeouts::tight()), jid)
            .await
    }

    async fn login_direct_tls(server: &Server, user: &str, resource: &str) -> Outcome<Self> {
        let jid = full(user, resource)?;
        let dns = DnsConfig::addr(&server.direct_tls);
        Self::online(
            Client::new_direct_tls_with_config(jid.clone(), password(&jid), dns, Timeouts::tight()),
            jid,
        )
        .await
    }

    async fn online(mut client: Client, wanted: FullJid) -> Outcome<Self> {
        match in_time("a session", client.next()).await? {
            Some(Event::Online { bound_jid, resumed: false, .. }) => {
                check(bound_jid == Jid::from(wanted.clone()), "the resource is the one asked for")?;
                Ok(Self { client, jid: wanted })
            }
            other => fail(format!("{other:?} instead of a session")),
        }
    }

    async fn send(&mut self, stanza: impl Into<Stanza>) -> Outcome {
        self.client.send_stanza(stanza.into()).await?;
        Ok(())
    }

    async fn available(&mut self) -> Outcome {
        self.send(Presence::available().with_show(Show::Chat)).await?;
        let own = Jid::from(self.jid.clone());
        self.presence(&own, Type::None).await.map(drop)
    }

    async fn stanza(&mut self, what: &str) -> Outcome<Stanza> {
        match in_time(what, self.client.next()).await? {
            Some(Event::Stanza(stanza)) => Ok(stanza),
            other => fail(format!("{other:?} instead of {what}")),
        }
    }

    async fn presence(&mut self, from: &Jid, type_: Type) -> Outcome<Presence> {
        loop {
            match self.stanza("presence").await? {
                Stanza::Presence(seen)
                    if seen.from.as_ref() == Some(from) && seen.type_ == type_ =>
                {
                    return Ok(seen);
                }
                _ => {}
            }
        }
    }

    async fn message(&mut self) -> Outcome<Message> {
        loop {
            if let Stanza::Message(message) = self.stanza("a message").await? {
                return Ok(message);
            }
        }
    }

    /// Sends a request; what else arrives before its answer is dropped.
    async fn request(&mut self, to: Option<Jid>, request: IqRequest) -> Outcome<IqResponse> {
        let mut token = self.client.send_iq(to, request).await;
        let answer = async {
            loop {
                tokio::select! {
                    answer = &mut token => return Some(answer),
                    event = self.client.next() => { event.as_ref()?; }
                }
            }
        };
        match in_time("the answer to a request", answer).await? {
            Some(answer) => Ok(answer?),
            None => fail("the stream ended before the answer"),
        }
    }

    async fn roster(&mut self) -> Outcome<Vec<Item>> {
        let query = Roster { ver: None, items: Vec::new() };
        match self.request(None, IqRequest::Get(query.into())).await? {
            IqResponse::Result(Some(payload)) => Ok(Roster::try_from(payload)?.items),
            other => fail(format!("{other:?} instead of a roster")),
        }
    }

    async fn close(self) -> Outcome {
        in_time("the close tag", self.client.send_end()).await??;
        Ok(())
    }
}

fn chat(to: impl Into<Jid>, text: &str) -> Message {
    Message::chat(to.into()).with_body(Lang::new(), text.to_owned())
}

fn text(message: &Message) -> &str {
    message
        .bodies
        .get(&Lang::new())
        .or_else(|| message.bodies.values().next())
        .map_or("", String::as_str)
}

async fn messages(server: Server) -> Outcome {
    let mut one = User::login(&server, "user30", "a").await?;
    let mut two = User::login_direct_tls(&server, "user31", "b").await?;
    one.available().await?;
    two.available().await?;
    for n in 0..50 {
        let to = if n % 2 == 0 { Jid::from(two.jid.clone()) } else { Jid::from(two.jid.to_bare()) };
        one.send(chat(to.clone(), &format!("{n} <&> ü"))).await?;
        let got = two.message().await?;
        check(text(&got) == format!("{n} <&> ü"), "the text arrives as it was sent")?;
        check(
            got.from == Some(Jid::from(one.jid.clone())),
            "`from` is the full JID of the sender",
        )?;
        check(got.to == Some(to), "`to` is as it was sent")?;
        two.send(chat(one.jid.clone(), "back")).await?;
        check(text(&one.message().await?) == "back", "the answer arrives")?;
    }
    for n in 0..200 {
        one.send(chat(two.jid.to_bare(), &n.to_string())).await?;
    }
    for n in 0..200 {
        check(text(&two.message().await?) == n.to_string(), "a burst arrives in order")?;
    }
    one.close().await?;
    two.close().await
}

async fn presence(server: Server) -> Outcome {
    let mut one = User::login(&server, "user32", "one").await?;
    let mut two = User::login(&server, "user32", "two").await?;
    one.available().await?;
    two.available().await?;
    let (first, second) = (Jid::from(one.jid.clone()), Jid::from(two.jid.clone()));
    check(
        one.presence(&second, Type::None).await?.show == Some(Show::Chat),
        "presence arrives whole",
    )?;
    two.presence(&first, Type::None).await?;
    two.close().await?;
    one.presence(&second, Type::Unavailable).await?;
    one.close().await
}

async fn roster(server: Server) -> Outcome {
    let mut user = User::login(&server, "user33", "a").await?;
    let contact = BareJid::new("contact@localhost")?;
    let item = |subscription| Roster {
        ver: None,
        items: vec![Item {
            jid: contact.clone(),
            name: Some("Contact".into()),
            subscription,
            ask: Default::default(),
            groups: Vec::new(),
            approved: None,
        }],
    };
    let before = user.roster().await?.len();
    let set = user.request(None, IqRequest::Set(item(Subscription::None).into())).await?;
    check(matches!(set, IqResponse::Result(_)), "a roster set succeeds")?;
    let items = user.roster().await?;
    check(items.len() == before + 1, "the item is there once")?;
    let name = items.iter().find(|item| item.jid == contact).and_then(|item| item.name.as_deref());
    check(name == Some("Contact"), "the item has its name")?;
    let remove = user.request(None, IqRequest::Set(item(Subscription::Remove).into())).await?;
    check(matches!(remove, IqResponse::Result(_)), "the item can be removed")?;
    check(user.roster().await?.len() == before, "the item is gone")?;
    let pong = user.request(Some(Jid::new("localhost")?), IqRequest::Get(Ping.into())).await?;
    check(matches!(pong, IqResponse::Result(_)), "the server answers a ping")?;
    user.close().await
}

/// A bare authenticated stream, without the library's reconnecting.
async fn bound_stream(
    server: &Server,
    jid: &FullJid,
    password: String,
) -> Outcome<XmppStream<impl AsyncReadAndWrite + use<>>> {
    let connector = StartTlsServerConnector::from(DnsConfig::addr(&server.starttls));
    let header = || StreamHeader { to: Some(Cow::Borrowed("localhost")), from: None, id: None };
    let (pending, channel_binding) =
        connector.connect(&Jid::from(jid.clone()), ns::JABBER_CLIENT, Timeouts::tight()).await?;
    let (features, stream) = pending.recv_features().await?;
    let user = jid.node().map_or("", |node| node.as_str());
    let credentials = Credentials::default()
        .with_username(user)
        .with_password(password)
        .with_channel_binding(channel_binding);
    let stream = client_login(stream, features.sasl_mechanisms, credentials).await?;
    let (features, mut stream) = stream.send_header(header()).await?.recv_features().await?;
    check(features.can_bind(), "bind is offered after authentication")?;
    stream
        .send(&Stanza::from(Iq::from_set("bind", BindQuery::new(Some(jid.resource().to_string())))))
        .await?;
    match element(&mut stream).await? {
        Some(XmppStreamElement::Stanza(Stanza::Iq(Iq::Result {
            payload: Some(payload), ..
        }))) => {
            check(
                FullJid::from(BindResponse::try_from(payload)?) == *jid,
                "the first stanza is the bind result",
            )?;
            Ok(stream)
        }
        other => fail(format!("{other:?} instead of the bind result")),
    }
}

/// The next element; `None` at the close tag.
async fn element<S: AsyncReadAndWrite>(
    stream: &mut XmppStream<S>,
) -> Outcome<Option<XmppStreamElement>> {
    match in_time("an element", stream.next()).await? {
        Some(Ok(element)) => Ok(Some(element.into_read_error()?)),
        Some(Err(ReadError::StreamFooterReceived)) => Ok(None),
        Some(Err(error)) => Err(error.into()),
        None => fail("the transport ended without a close tag"),
    }
}

async fn conflict(server: Server) -> Outcome {
    let jid = full("user34", "phone")?;
    let mut old = bound_stream(&server, &jid, password(&jid)).await?;
    let mut new = User::login(&server, "user34", "phone").await?;
    match element(&mut old).await? {
        Some(XmppStreamElement::StreamError(error)) => {
            check(
                error.0.condition == DefinedCondition::Conflict,
                "the older session is told `conflict`",
            )?;
        }
        other => return fail(format!("{other:?} instead of a stream error")),
    }
    check(
        element(&mut old).await?.is_none(),
        "the error is followed by the close tag and by nothing else",
    )?;
    new.available().await?;
    new.send(chat(jid, "to myself")).await?;
    check(text(&new.message().await?) == "to myself", "the newer session lives")?;
    new.close().await
}

async fn wrong_password(server: Server) -> Outcome {
    let jid = full("user35", "a")?;
    for (jid, password) in
        [(&jid, "not it".to_owned()), (&full("nobody-of-this-name", "a")?, "x".to_owned())]
    {
        match bound_stream(&server, jid, password).await {
            Ok(_) => return fail("wrong credentials got a session"),
            Err(error) => match error.downcast_ref::<Error>() {
                Some(Error::Auth(tokio_xmpp::error::AuthError::Fail(
                    SaslCondition::NotAuthorized,
                ))) => {}
                _ => return fail(format!("{error:?} instead of `not-authorized`")),
            },
        }
    }
    bound_stream(&server, &jid, password(&jid)).await.map(drop)
}

/// Runs one scenario in a task of its own, so that a panic in the library fails that scenario alone.
async fn play<F: Future<Output = Outcome> + Send + 'static>(
    name: &str,
    scenario: fn(Server) -> F,
    server: &Server,
) -> bool {
    for left in (0..TRIES).rev() {
        let error = match tokio::spawn(scenario(server.clone())).await {
            Ok(Ok(())) => {
                println!("ok {name}");
                return true;
            }
            Ok(Err(error)) => error.to_string(),
            Err(panic) => panic.to_string(),
        };
        println!("{} {name}: {error}", if left > 0 { "again" } else { "FAILED" });
    }
    false
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut addresses = std::env::args().skip(1);
    let (Some(starttls), Some(direct_tls)) = (addresses.next(), addresses.next()) else {
        eprintln!("usage: tokio-xmpp-client STARTTLS-ADDRESS DIRECT-TLS-ADDRESS");
        std::process::exit(2);
    };
    let server = Server { starttls, direct_tls };
    let results = [
        play("messages", messages, &server).await,
        play("presence", presence, &server).await,
        play("roster", roster, &server).await,
        play("conflict", conflict, &server).await,
        play("wrong_password", wrong_password, &server).await,
    ];
    let passed = results.iter().filter(|passed| **passed).count();
    let failed = results.len() - passed;
    println!("{passed} passed, {failed} failed");
    std::process::exit(i32::from(failed > 0));
}
