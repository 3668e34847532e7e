//! What a client has asked for together with its authentication, done in one step (XEP-0388 §2.6.1).

use std::sync::Arc;
#[cfg(feature = "cluster")]
use std::time::SystemTime;

use jid::BareJid;

use super::super::admission::Signal;
use super::super::blocked::Pending;
use super::bind::{Asks, register};
use super::{Driver, State};
use crate::connection::SharedConnection;
use crate::extension::{Entering, Flow, LoggingIn, NewSession};
use crate::oneshot;
use crate::sasl::{Bind2, Description, Establish, Holder, UserAgent, fast, wire};
use crate::server::tokens::TokenWish;
use crate::server::{Core, PeerAddress, StoreCall, caught};
use crate::session::{Authed, Bound, HostCode, Reason, Reply, Session};
use crate::shield::shielded_or;
use crate::stanza::write;
use crate::store::ClientKey;
use crate::stream::Features;

/// What came of it.
pub(in super::super) enum Established<C: SharedConnection> {
    /// The client has a session, and is told so.
    Bound(Session<Bound, C>, UserAgent),
    /// It has none; this is the outcome that it is to be told.
    Authed(Session<Authed, C>, UserAgent, Vec<u8>),
    /// It could not have what it asked for, and nothing has happened.
    Failed,
}

/// A client that has proved who it is.
pub(in crate::server) struct Proved {
    pub(in crate::server) asked: Box<Establish>,
    /// Of the mechanism, for the client.
    pub(in crate::server) data: Option<Vec<u8>>,
    /// When the token was issued that it has proved it with, if that was one.
    #[cfg(feature = "cluster")]
    pub(in crate::server) issued: Option<SystemTime>,
    /// What it wants of its tokens.
    pub(in crate::server) wish: Option<TokenWish>,
    pub(in crate::server) peer: PeerAddress,
}

impl<C: SharedConnection> Driver<C> {
    /// SASL2-8: does what the client has asked for, on the account's chain. Until that is done the stream is
    /// not authenticated.
    pub(super) fn establish(
        &mut self,
        account: BareJid,
        asked: Box<Establish>,
        data: Option<Vec<u8>>,
    ) {
        let wish = self.token_wish(&account, &asked);
        #[cfg(feature = "cluster")]
        let issued = asked.evidence.token.as_ref().map(|used| used.issued);
        let Some(session) = self.authenticate(account) else {
            return self.login_impossible();
        };
        let proved = Proved {
            asked,
            data,
            #[cfg(feature = "cluster")]
            issued,
            wish,
            peer: self.peer.clone(),
        };
        #[cfg(feature = "cluster")]
        if let Some(edges) = self.core.edges.get() {
            return self.go_away(&Arc::clone(edges), session.account().clone(), Some(proved));
        }
        self.establish_here(session, proved);
    }

    /// The same where the account lives.
    pub(super) fn establish_here(&mut self, session: Session<Authed, C>, proved: Proved) {
        let key = session.account().to_string();
        let (core, signal) = (Arc::clone(&self.core), Arc::clone(self.place().signal()));
        let (sender, done) = oneshot::channel();
        if let Some(negotiating) = &mut self.negotiating {
            let binds = proved.asked.bind.is_some() || !proved.asked.requests.is_empty();
            negotiating.since.bind = binds.then(|| core.environment.now());
        }
        let _ran = self.core.jobs.run(&key, establish(core, session, proved, signal, sender));
        self.pending = Some(Pending::Establish(Box::new(done)));
    }

    /// FAST-2, FAST-4, FAST-5: the token that the client is to have.
    fn token_wish(&self, account: &BareJid, asked: &Establish) -> Option<TokenWish> {
        let negotiating = self.negotiating.as_ref()?;
        let client = ClientKey::of(account, asked.agent.id?);
        let used = asked.evidence.token.clone();
        let requested = fast::requested(asked, negotiating.sasl.as_ref()?.for_tokens());
        let requested = requested.filter(|_| negotiating.from.is_some());
        let is_due = used.as_ref().is_some_and(|used| used.is_due);
        let issue = requested.or_else(|| negotiating.mechanism.filter(|_| is_due));
        // It would outlive the login.
        let mechanism = issue.filter(|_| !self.is_limited(account))?;
        let policy = Arc::clone(&self.core.domain(account.domain().as_str())?.sasl);
        let of_token = used.as_ref().map(|used| used.fingerprint.clone());
        let fingerprint = of_token
            .or_else(|| asked.evidence.credentials.as_ref().map(|known| policy.fingerprint(known)));
        Some(TokenWish {
            policy,
            holder: Holder { account: account.clone(), client },
            mechanism,
            used,
            fingerprint,
            description: Description::of(&asked.agent),
        })
    }

    /// The job that does it has ended; `None` if it panicked.
    pub(in super::super) fn established(&mut self, outcome: Option<Established<C>>) {
        self.place().signal().end_bind();
        self.parser.set_strict(false);
        match outcome {
            Some(Established::Bound(session, agent)) => {
                self.logged_in_2(session.account(), agent);
                self.begin_session(session);
            }
            Some(Established::Authed(session, agent, success)) => {
                self.logged_in_2(session.account(), agent);
                if let Some(negotiating) = &mut self.negotiating {
                    negotiating.forget_login();
                    negotiating.since.bind = None;
                }
                self.state = State::Authed(session);
                self.offer_bind(Some(&success));
            }
            Some(Established::Failed) | None => {
                #[cfg(feature = "cluster")]
                if self.refuse_here() {
                    return;
                }
                self.login_impossible();
            }
        }
    }

    /// The stream goes on without a restart.
    fn logged_in_2(&mut self, account: &BareJid, agent: UserAgent) {
        self.logged_in(account);
        self.parser.authenticated(&self.core.limits.stream);
        if let Some(negotiating) = &mut self.negotiating {
            negotiating.agent = Some(agent);
        }
    }
}

/// SASL2-8: resumes, or else binds; then says so, with nothing before it on the session.
async fn establish<C: SharedConnection>(
    core: Arc<Core<C>>,
    session: Session<Authed, C>,
    proved: Proved,
    signal: Arc<Signal>,
    done: oneshot::Sender<Established<C>>,
) {
    let Proved { asked, data, wish, peer, .. } = proved;
    let account = session.account().clone();
    let Some((entering, mut answers)) = core.ask_inline(session, &asked, &peer, &signal) else {
        return done.send(Established::Failed);
    };
    let (session, is_resumed) = match (entering, &asked.bind) {
        (Entering::Resumed(session), _) => {
            if let Some(client) = asked.agent.id {
                session.handle().set_extension(ClientKey::of(&account, client));
            }
            (session, true)
        }
        (Entering::Authed(session), Some(bind)) => {
            let (asks, bound) = core.bind_2(&account, &asked, bind, &peer);
            match register(&core, session, &asks, &peer, &signal, || done.is_closed()).await {
                Ok(session) => {
                    let more = core.told_when_bound(&session, &peer).await;
                    write_bound(&[bound, more].concat(), &mut answers);
                    (session, false)
                }
                // BIND2-8
                Err(_) => return done.send(Established::Failed),
            }
        }
        (Entering::Authed(session), None) => {
            core.token(wish, &mut answers).await;
            let success = success(&data, account.as_str(), &answers);
            return done.send(Established::Authed(session, asked.agent, success));
        }
    };
    core.token(wish, &mut answers).await;
    let success = success(&data, session.jid().as_str(), &answers);
    let features = (!is_resumed).then(|| core.bound_features(&session, &peer).into_content());
    if done.is_closed() {
        // DESTROY-10: the client was never told of a session that is new.
        if !is_resumed {
            session.end(Reason::TransportLost);
        }
        return;
    }
    session.greet(Reply::Login(success, features));
    done.send(Established::Bound(session, asked.agent));
}

fn write_bound(content: &[u8], out: &mut Vec<u8>) {
    let parts: [&[u8]; 3] = match content {
        [] => [b"<bound xmlns='urn:xmpp:bind:0'/>", b"", b""],
        content => [b"<bound xmlns='urn:xmpp:bind:0'>", content, b"</bound>"],
    };
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn success(data: &Option<Vec<u8>>, identifier: &str, answers: &[u8]) -> Vec<u8> {
    let mut success = Vec::with_capacity(512);
    wire::write_success_2(data.as_deref(), identifier, answers, &mut success);
    success
}

impl<C: SharedConnection> Core<C> {
    /// Issues the token that the client is to have. One that it does not get it can ask for again.
    async fn token(&self, wish: Option<TokenWish>, answers: &mut Vec<u8>) {
        let Some(wish) = wish else { return };
        let account = wish.holder.account.clone();
        match self.timers.within(self.limits.load, self.grant_token(wish)).await {
            Some(Ok(Some(issued))) => fast::write_token(&issued, answers),
            Some(Ok(None) | Err(_)) => {}
            None => self.late(StoreCall::LoadTokens, &PeerAddress::UNKNOWN, &account),
        }
    }

    /// Asks extensions about the requests that came with an authentication, until one of them has resumed a
    /// session; `None` where the stream is to be closed.
    fn ask_inline(
        &self,
        session: Session<Authed, C>,
        asked: &Establish,
        peer: &PeerAddress,
        signal: &Signal,
    ) -> Option<(Entering<C>, Vec<u8>)> {
        if !signal.begin_bind() {
            return None;
        }
        let account = session.account().clone();
        let mut login = LoggingIn::new(session, &self.registry);
        for request in &asked.requests {
            for extension in self.extensions.iter() {
                let answered = login.answered();
                let act = || extension.inline(request, &mut login);
                let flow = self.faults.shielded(HostCode::Extension, peer, Some(&account), act);
                if flow.is_none() {
                    login.unanswer(answered);
                }
                if flow != Some(Flow::Next) {
                    break;
                }
            }
            if login.is_resumed() {
                return login.into_parts();
            }
        }
        // What comes next may have to wait: till then the stream is reached as one without a session.
        signal.end_bind();
        login.into_parts()
    }

    /// What the session is to have that a Bind 2 is about, and what is answered in the `<bound/>`.
    fn bind_2(
        &self,
        account: &BareJid,
        asked: &Establish,
        bind: &Bind2,
        peer: &PeerAddress,
    ) -> (Asks, Vec<u8>) {
        let mut session = NewSession::new(&self.registry, account);
        for request in &bind.requests {
            for extension in self.extensions.iter() {
                let so_far = session.so_far();
                let act = || extension.inline_bind(request, &mut session);
                let flow = self.faults.shielded(HostCode::Extension, peer, Some(account), act);
                if flow.is_none() {
                    session.back_to(so_far);
                }
                if flow != Some(Flow::Next) {
                    break;
                }
            }
        }
        let (mut setup, bound) = session.into_parts();
        if let Some(client) = asked.agent.id {
            // FAST-10
            setup.set_extension(ClientKey::of(account, client));
        }
        let asks = Asks { resource: None, tag: bind.tag.clone(), client: asked.agent.id, setup };
        (asks, bound)
    }

    /// BIND2-7: what extensions have to say about a session that was just registered.
    async fn told_when_bound(&self, session: &Session<Bound, C>, peer: &PeerAddress) -> Vec<u8> {
        let (handle, account) = (session.handle(), session.account());
        let told = |message| {
            self.faults.panicked(HostCode::Extension, peer, Some(account), message);
        };
        let mut said = Vec::new();
        for extension in self.extensions.iter() {
            let Some(Some(answer)) = shielded_or(|| extension.bound(&handle), told) else {
                continue;
            };
            let answer = self.timers.within(self.limits.load, caught(answer, told)).await;
            match answer {
                Some(Some(Ok(element))) => {
                    element.iter().for_each(|element| write::element(&mut said, element));
                }
                Some(Some(Err(error))) => {
                    self.faults.store_failed(StoreCall::Extension, &error, account);
                }
                // It has panicked, which is told.
                Some(None) => {}
                None => self.late(StoreCall::Extension, peer, account),
            }
        }
        said
    }

    /// STREAM-F5
    fn bound_features(&self, session: &Session<Bound, C>, peer: &PeerAddress) -> Features {
        let handle = session.handle();
        let features = self.authenticated_features(Features::bound());
        self.extend_by(features, peer, |extension, more| extension.bound_features(&handle, more))
    }
}
