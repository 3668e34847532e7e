//! Sessions of accounts whose client is code of the host.
//!
//! A bot is a client of this process: a driver that begins behind authentication, an outbox, and the stream
//! between them. Whatever holds for a client's stanzas holds for its stanzas too.

mod bell;
mod line;
mod reader;

use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};

use jid::FullJid;

use super::Server;
use super::driver::Driver;
use crate::address;
use crate::connection::SharedConnection;
use crate::outbox::{FromOutbox, Marks, Outbox};
use crate::park::block_on;
use crate::session::SessionHandle;
use crate::stanza::{Stanza, StanzaError, write};
use crate::store::StoreError;
use crate::stream::StreamCondition;
use bell::Waiting;
pub(super) use line::Bots;
use line::{Line, Over};
use reader::{Element, Reader};

/// One stanza at a time: what the bot has not taken waits in its session, which knows what to do with it.
const MARKS: Marks = Marks::new(0, 2 << 20);

/// A session of an account whose client is a program of the host.
///
/// It is bound as a client's session is: stores are loaded, extensions asked, limits kept, and another session
/// of its resource gets out of its way ([BOT-1](crate::rules#bot-1)). To the server it is a client that says nothing yet: it becomes
/// available with `<presence/>`, and gets offline messages then; it is interested once it has asked for the
/// roster; it enables carbons if it wants them.
///
/// Dropping it ends the session. What the bot has not taken by then goes where it would go without it: to other
/// sessions, to the offline store, or back ([BOT-4](crate::rules#bot-4)).
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
/// use xmpp_session::connection::Connection;
/// use xmpp_session::environment::System;
/// use xmpp_session::server::{BotError, Server};
/// use xmpp_session::stanza::{Kind, Stanza};
/// # use xmpp_session::store::{AnyAccount, Stores};
///
/// /// Answers every message with itself.
/// async fn parrot(server: Server<Arc<dyn Connection>>) -> Result<(), BotError> {
///     let mut bot = server.bot(&"polly@example.com/cage".parse().unwrap()).await?;
///     bot.send(&Stanza::presence().build()).await?;
///     while let Some(stanza) = bot.recv().await {
///         if stanza.kind() == Kind::Message {
///             bot.send(&stanza.readdressed(None, stanza.from().as_deref())).await?;
/// #           break;
///         }
///     }
///     Ok(())
/// }
/// # let mut stores = Stores::memory();
/// # stores.accounts = Arc::new(AnyAccount::new("secret")?);
/// # let server: Server<Arc<dyn Connection>> =
/// #     Server::builder(Arc::new(System::new()), stores).domain("example.com".parse()?).build();
/// # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
/// # let mut polly = pin!(parrot(server.clone()));
/// # let mut cx = Context::from_waker(Waker::noop());
/// # assert!(polly.as_mut().poll(&mut cx).is_pending());
/// # let hello = Stanza::message().from("jo@example.net").to("polly@example.com").type_("chat").build();
/// # server.send(hello);
/// # assert!(matches!(polly.poll(&mut cx), Poll::Ready(Ok(()))));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "dropping a bot ends its session"]
pub struct Bot<C: SharedConnection> {
    line: Arc<Line<C>>,
    reader: Reader,
    client: Client<C>,
    /// Stanzas taken since they are counted.
    taken: u32,
    is_counted: bool,
}

/// Where its session is.
enum Client<C: SharedConnection> {
    Here(SessionHandle<C>),
    /// Of a node: it may be at any (NODE-12).
    #[cfg(feature = "cluster")]
    Away(FullJid, Arc<super::legs::Line<C>>),
}

impl<C: SharedConnection> Client<C> {
    /// The bot has taken so many stanzas in all; `false` where the last one is not its any more.
    fn take(&self, taken: u32) -> bool {
        match self {
            Self::Here(session) => session.take(taken),
            #[cfg(feature = "cluster")]
            Self::Away(_, line) => line.handled(taken),
        }
    }
}

/// A way to send as a bot, beside the [`Bot`] itself: cheap to clone.
pub struct BotSender<C: SharedConnection>(Weak<Line<C>>);

/// Why there is no bot, or no longer one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BotError {
    /// There is no such account.
    #[error("there is no such account")]
    NoAccount,
    /// The store failed.
    #[error("the store failed")]
    Store(#[source] StoreError),
    /// The resource was not bound: too many sessions, or the account's data could not be loaded.
    #[error("the resource cannot be bound: {}", .0.condition().as_str())]
    Refused(StanzaError),
    /// The stream was closed: with this condition, if it was an error.
    #[error("the session is over")]
    Ended(Option<StreamCondition>),
}

impl<C: FromOutbox> Server<C> {
    /// Binds a session of an account of this server for a program of the host.
    ///
    /// # Errors
    ///
    /// [`BotError`]: no session is left.
    pub async fn bot(&self, jid: &FullJid) -> Result<Bot<C>, BotError> {
        let core = &self.0;
        let account = address::account(&jid.to_bare()).map_err(|_| BotError::NoAccount)?;
        if !core.is_ours(account.as_str()) {
            return Err(BotError::NoAccount);
        }
        match core.exists(&account).await {
            Ok(true) => {}
            Ok(false) => return Err(BotError::NoAccount),
            Err(error) => return Err(BotError::Store(error)),
        }
        let (outbox, drain) = Outbox::new(MARKS);
        let mut reader = Reader::new(drain);
        let driver = Driver::of_account(Arc::clone(core), C::from_outbox(outbox), account);
        let line = core.bots.enter(driver);
        let mut opening = opening(jid).into_iter();
        let client = {
            let mut place = Waiting::new(&line.bell);
            poll_fn(|cx| line.poll_bound(cx, &mut place, &mut reader, &mut opening)).await?
        };
        Ok(Bot { line, reader, client, taken: 0, is_counted: false })
    }

    /// [`bot`](Self::bot) for threads. [`background`](Self::background) runs on another one.
    ///
    /// # Errors
    ///
    /// [`BotError`], as there.
    pub fn bot_blocking(&self, jid: &FullJid) -> Result<Bot<C>, BotError> {
        block_on(self.bot(jid))
    }
}

/// What a client sends up to its bind: each part once the one before it is answered.
fn opening(jid: &FullJid) -> [Vec<u8>; 2] {
    let mut header = b"<stream:stream xmlns='jabber:client' version='1.0' \
        xmlns:stream='http://etherx.jabber.org/streams' to='"
        .to_vec();
    write::attribute_value(&mut header, jid.domain().as_str());
    header.extend_from_slice(b"'>");
    let mut bind = b"<iq type='set' id='bind'>\
        <bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'><resource>"
        .to_vec();
    write::text(&mut bind, jid.resource().as_str());
    bind.extend_from_slice(b"</resource></bind></iq>");
    [header, bind]
}

impl<C: SharedConnection> Bot<C> {
    /// The full JID that was bound. Its resource may be another than was asked for ([BIND-5](crate::rules#bind-5)).
    #[must_use]
    pub fn jid(&self) -> &FullJid {
        match &self.client {
            Client::Here(session) => session.jid(),
            #[cfg(feature = "cluster")]
            Client::Away(jid, _) => jid,
        }
    }

    /// The session, as others see it; `None` where this server is one of several nodes, at any of which it may be.
    #[must_use]
    pub const fn session(&self) -> Option<&SessionHandle<C>> {
        match &self.client {
            Client::Here(session) => Some(session),
            #[cfg(feature = "cluster")]
            Client::Away(..) => None,
        }
    }

    /// The next stanza for the bot; `None` once its session is over. A stanza that is taken is the bot's: it
    /// goes nowhere else. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Stanza> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// [`recv`](Self::recv) for programs that poll.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Stanza>> {
        #[cfg(feature = "cluster")]
        if let Client::Away(..) = self.client {
            self.line.tend(cx);
        }
        loop {
            match ready!(self.reader.poll_next(cx)) {
                None => return Poll::Ready(None),
                // The answer to our bind is nobody's business: it comes before the session counts, from nobody.
                Some(Element::Stanza(stanza))
                    if !self.is_counted && stanza.raw_from().is_none() => {}
                Some(Element::Stanza(stanza)) if !self.is_counted => {
                    return Poll::Ready(Some(stanza));
                }
                Some(Element::Stanza(stanza)) => {
                    self.taken = self.taken.wrapping_add(1);
                    // Of a session that has ended, what was not taken has gone elsewhere.
                    if self.client.take(self.taken) {
                        return Poll::Ready(Some(stanza));
                    }
                }
                Some(Element::Counted) => self.is_counted = true,
            }
        }
    }

    /// [`recv`](Self::recv) for threads.
    pub fn recv_blocking(&mut self) -> Option<Stanza> {
        block_on(self.recv())
    }

    /// Sends a stanza as the account's client would: its `from` is the bot's, whatever it says. Waits while
    /// an earlier stanza is in work, while a limit pauses a client ([LIMIT-20](crate::rules#limit-20)), and a little for recipients that
    /// are far behind ([LIMIT-13](crate::rules#limit-13)); never for the bot to take what comes. To take it meanwhile, send from another
    /// task ([`sender`](Self::sender)). A future that is dropped before it is ready has sent nothing.
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`]: the session is over, and the stanza has no effect.
    pub async fn send(&self, stanza: &Stanza) -> Result<(), BotError> {
        self.line.send(stanza).await.map_err(|Over| self.ended())
    }

    /// [`send`](Self::send) for threads. Not from code that a stanza of this very bot has called (an extension,
    /// `on_fault`): that would wait for itself.
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`].
    pub fn send_blocking(&self, stanza: &Stanza) -> Result<(), BotError> {
        block_on(self.send(stanza))
    }

    /// A way to send from elsewhere, as long as the bot lives.
    #[must_use]
    pub fn sender(&self) -> BotSender<C> {
        BotSender(Arc::downgrade(&self.line))
    }

    /// The error that closed the session, once [`recv`](Self::recv) has come to the end.
    #[must_use]
    pub const fn condition(&self) -> Option<StreamCondition> {
        self.reader.condition
    }

    fn ended(&self) -> BotError {
        BotError::Ended(self.reader.condition)
    }
}

impl<C: SharedConnection> BotSender<C> {
    /// As [`Bot::send`].
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`].
    pub async fn send(&self, stanza: &Stanza) -> Result<(), BotError> {
        let ended = || BotError::Ended(None);
        let line = self.0.upgrade().ok_or_else(ended)?;
        line.send(stanza).await.map_err(|Over| ended())
    }

    /// As [`Bot::send_blocking`].
    ///
    /// # Errors
    ///
    /// [`BotError::Ended`].
    pub fn send_blocking(&self, stanza: &Stanza) -> Result<(), BotError> {
        block_on(self.send(stanza))
    }
}

impl<C: SharedConnection> Clone for BotSender<C> {
    fn clone(&self) -> Self {
        Self(Weak::clone(&self.0))
    }
}

impl<C: SharedConnection> Drop for Bot<C> {
    fn drop(&mut self) {
        self.line.leave();
    }
}

impl<C: SharedConnection> fmt::Debug for Bot<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bot").field("taken", &self.taken).finish_non_exhaustive()
    }
}

impl<C: SharedConnection> fmt::Debug for BotSender<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BotSender").finish_non_exhaustive()
    }
}
