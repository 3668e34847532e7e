//! What is known of a stream when a home takes it over.

use std::sync::Arc;
use std::time::Duration;

use jid::BareJid;

use crate::packed::{Reader, Writer};
use crate::sasl::{
    Bind2, Description, Establish, Fingerprint, Holder, Mechanism, Policy, UsedToken, UserAgent,
};
use crate::server::PeerAddress;
use crate::server::driver::admission::BarNumber;
use crate::server::driver::negotiate::Proved;
use crate::server::tokens::TokenWish;
use crate::session::ClientId;
use crate::stanza::Framing;
use crate::store::ClientKey;
use crate::stream::{Nonza, OpenedStream};

/// Adoptions of another form are not understood.
const VERSION: u8 = 1;

/// A stream that begins behind authentication: all that is to be known of it (NODE-12).
pub(in crate::server) struct Adoption {
    pub(in crate::server) account: BareJid,
    pub(in crate::server) peer: PeerAddress,
    pub(in crate::server) framing: Framing,
    pub(in crate::server) secure: bool,
    /// The account is a guest's.
    pub(in crate::server) is_guest: bool,
    /// The client is a bot of the edge's process.
    pub(in crate::server) is_local: bool,
    pub(in crate::server) mechanism: Option<Mechanism>,
    pub(in crate::server) bind_failures: u8,
    /// The last bar of the account that its edge knew.
    pub(in crate::server) bar: Option<BarNumber>,
    pub(in crate::server) times: Times,
    /// What the client has said behind that, and nobody has read.
    pub(in crate::server) unread: Vec<u8>,
    /// Where the stream goes on behind a header; else the client opens it anew.
    pub(in crate::server) goes_on: Option<GoesOn>,
}

/// Since when, and for how long, on the way from one clock to another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::server) struct Times {
    /// Since the transport was accepted.
    pub(in crate::server) accepted_ago: Duration,
    /// Since the login began.
    pub(in crate::server) auth_ago: Duration,
    /// Until it has to have a session.
    pub(in crate::server) negotiation_left: Duration,
    /// Until the login ends.
    pub(in crate::server) login_left: Option<Duration>,
}

/// A stream behind its header.
pub(in crate::server) struct GoesOn {
    /// What the header has said: `None` where each element is a message.
    pub(in crate::server) opened: Option<OpenedStream>,
    pub(in crate::server) lang: Option<Box<str>>,
    pub(in crate::server) login: Login,
}

/// How far its client has come.
pub(in crate::server) enum Login {
    /// It has proved who it is, and has not been told so.
    Proved(Box<Proved>),
    /// It has, and may bind; what it has said about itself.
    Told(Option<UserAgent>),
}

impl Adoption {
    pub(in crate::server) fn encode(&self) -> Arc<[u8]> {
        let mut out = Writer::default();
        out.byte(VERSION);
        out.text(self.account.as_str());
        out.option(self.peer.is_known().then_some(&self.peer), |out, peer| {
            out.text(&peer.to_string());
        });
        out.flag(self.framing == Framing::Message);
        out.flag(self.secure);
        out.flag(self.is_guest);
        out.flag(self.is_local);
        out.option(self.mechanism, |out, mechanism| out.text(mechanism.as_str()));
        out.number(self.bind_failures);
        out.option(self.bar, Writer::number);
        let times = &self.times;
        [times.accepted_ago, times.auth_ago, times.negotiation_left]
            .into_iter()
            .for_each(|time| out.time(time));
        out.option(times.login_left, Writer::time);
        out.bytes(&self.unread);
        out.option(self.goes_on.as_ref(), |out, goes_on| {
            out.option(goes_on.opened.as_ref(), |out, opened| {
                out.text(&opened.name);
                out.list(&opened.declarations, |out, (prefix, namespace)| {
                    out.option(prefix.as_deref(), Writer::text);
                    out.text(namespace);
                });
            });
            out.option(goes_on.lang.as_deref(), Writer::text);
            let (proved, told) = match &goes_on.login {
                Login::Proved(proved) => (Some(&**proved), None),
                Login::Told(agent) => (None, agent.as_ref()),
            };
            out.option(proved, Writer::proved);
            out.option(told, Writer::agent);
        });
        out.into_bytes().into()
    }

    /// `policy`: what the domain of an account has said about tokens. `None` where it is no adoption of this version.
    pub(in crate::server) fn decode(
        bytes: &[u8],
        policy: impl Fn(&BareJid) -> Option<Arc<Policy>>,
    ) -> Option<Self> {
        let mut input = Reader::new(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        let account = BareJid::new(input.text()?).ok()?;
        let policy = policy(&account)?;
        let peer = PeerAddress::new(input.option(|input| input.text())?);
        let adoption = Self {
            peer: peer.clone(),
            framing: if input.flag()? { Framing::Message } else { Framing::Stream },
            secure: input.flag()?,
            is_guest: input.flag()?,
            is_local: input.flag()?,
            mechanism: input.option(|input| input.text()?.parse().ok())?,
            bind_failures: input.number()?.try_into().ok()?,
            bar: input.option(Reader::number)?,
            times: Times {
                accepted_ago: input.time()?,
                auth_ago: input.time()?,
                negotiation_left: input.time()?,
                login_left: input.option(Reader::time)?,
            },
            unread: input.bytes()?.to_vec(),
            goes_on: input.option(|input| {
                let opened = input.option(|input| {
                    let name = input.text()?.to_owned();
                    let declarations = input.list(|input| {
                        let prefix = input.option(|input| input.owned_text())?;
                        Some((prefix, input.owned_text()?))
                    })?;
                    Some(OpenedStream { name, declarations })
                })?;
                let lang = input.option(|input| Some(input.text()?.into()))?;
                let proved = input.option(|input| input.proved(&account, policy, peer))?;
                let told = input.option(Reader::agent)?;
                let login = proved.map_or(Login::Told(told), |it| Login::Proved(it.into()));
                Some(GoesOn { opened, lang, login })
            })?,
            account,
        };
        input.is_empty().then_some(adoption)
    }
}

impl Writer {
    fn requests(&mut self, requests: &[Nonza]) {
        self.list(requests, |out, request| out.bytes(request.xml()));
    }

    fn agent(&mut self, agent: &UserAgent) {
        self.option(agent.id, |out, id| out.bytes(&id.to_bytes()));
        self.option(agent.software.as_deref(), Self::text);
        self.option(agent.device.as_deref(), Self::text);
    }

    fn proved(&mut self, proved: &Proved) {
        let Proved { asked, data, issued, wish, peer: _ } = proved;
        self.agent(&asked.agent);
        self.option(*issued, Self::date);
        self.requests(&asked.requests);
        self.option(asked.bind.as_ref(), |out, bind| {
            out.option(bind.tag.as_deref(), Self::text);
            out.requests(&bind.requests);
        });
        self.option(data.as_deref(), Self::bytes);
        self.option(wish.as_ref(), |out, wish| {
            out.bytes(wish.holder.client.as_bytes());
            out.text(wish.mechanism.as_str());
            out.option(wish.used.as_ref(), |out, used| {
                out.option(used.number, |out, number| out.number(number));
                out.flag(used.is_due);
                out.bytes(used.fingerprint.as_bytes());
                out.date(used.issued);
            });
            out.option(wish.fingerprint.as_ref().map(Fingerprint::as_bytes), Self::bytes);
            out.option(wish.description.software.as_deref(), Self::text);
            out.option(wish.description.device.as_deref(), Self::text);
        });
    }
}

impl Reader<'_> {
    fn owned_text(&mut self) -> Option<String> {
        self.text().map(str::to_owned)
    }

    fn requests(&mut self) -> Option<Vec<Nonza>> {
        self.list(|input| Some(Nonza::of_node(input.bytes()?.to_vec())))
    }

    fn agent(&mut self) -> Option<UserAgent> {
        Some(UserAgent {
            id: self.option(|input| input.bytes()?.try_into().ok().map(ClientId::from_bytes))?,
            software: self.option(|input| Some(input.text()?.into()))?,
            device: self.option(|input| Some(input.text()?.into()))?,
        })
    }

    fn proved(
        &mut self,
        account: &BareJid,
        policy: Arc<Policy>,
        peer: PeerAddress,
    ) -> Option<Proved> {
        let agent = self.agent()?;
        let issued = self.option(Self::date)?;
        let requests = self.requests()?;
        let bind = self.option(|input| {
            let tag = input.option(|input| Some(input.text()?.into()))?;
            Some(Bind2 { tag, requests: input.requests()? })
        })?;
        let asked = Box::new(Establish { agent, requests, bind, ..Establish::default() });
        let data = self.option(|input| Some(input.bytes()?.to_vec()))?;
        let wish = self.option(|input| {
            let client = ClientKey::from_bytes(input.bytes()?.try_into().ok()?);
            let fingerprint =
                |input: &mut Self| Some(Fingerprint::of_node(input.bytes()?.to_vec()));
            Some(TokenWish {
                policy,
                holder: Holder { account: account.clone(), client },
                mechanism: input.text()?.parse().ok()?,
                used: input.option(|input| {
                    Some(UsedToken {
                        number: input.option(Self::number)?,
                        is_due: input.flag()?,
                        fingerprint: fingerprint(input)?,
                        issued: input.date()?,
                    })
                })?,
                fingerprint: input.option(fingerprint)?,
                description: Description {
                    software: input.option(Self::owned_text)?,
                    device: input.option(Self::owned_text)?,
                },
            })
        })?;
        Some(Proved { asked, data, issued, wish, peer })
    }
}
