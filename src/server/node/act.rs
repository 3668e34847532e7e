//! What the host of any node does with an account, carried out at its home (NODE-16).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jid::{BareJid, ResourcePart};
use parking_lot::Mutex;
use smallvec::smallvec;

use super::letter::{Letter, read_stanza, stanza as write_stanza};
use super::submit::{Submission, Undelivered};
use super::{Clustered, Command};
use crate::cluster::{Receipt, Recipient};
use crate::connection::SharedConnection;
use crate::extension::AccountError;
use crate::oneshot::{self, Sender};
use crate::packed::{Reader, Writer};
use crate::rules::roster::{Item, Roster, Subscription};
use crate::server::{Core, Server};
use crate::session::{SessionId, read_roster, write_roster};
use crate::stanza::Stanza;
use crate::store::{ClientKey, Credentials, ScramKeys, StoreError};
use crate::stream::StreamError;

/// How long the home of an account may take for an act: after that it may have been lost with the home.
const ACT_TIMEOUT: Duration = Duration::from_secs(30);

/// What is wanted of an account.
#[derive(Debug)]
pub(in crate::server) enum Act {
    Roster,
    IsOnline,
    SetContact(Item),
    RemoveContact(BareJid),
    Befriend(BareJid),
    /// Its half of that, in the turn of the other account, which comes first in the order of names.
    BefriendBack(BareJid),
    /// Both halves are done: the contact is told its presence.
    Show(BareJid),
    /// New ones: of an account that there is not, or with all its sessions ended but for one.
    SetCredentials(Credentials, Option<Option<SessionId>>),
    PasswordChanged(Option<SessionId>),
    Remove,
    Kick(StreamError),
    Revoke(ClientKey),
    KickResource(ResourcePart, StreamError),
    KickSession(SessionId, StreamError),
    /// The host's message to everybody who is online, for this one.
    Announce(Stanza),
}

/// What has become of it.
#[derive(Debug)]
pub(in crate::server) enum Said {
    Done,
    Flag(bool),
    Number(usize),
    Roster(Roster),
    Failed(AccountError),
    Names(Vec<String>),
}

/// Acts whose answers are waited for.
#[derive(Default)]
pub(super) struct Acts(Mutex<(u64, HashMap<u64, Sender<Said>>)>);

impl Acts {
    /// Something is asked, by this number.
    pub(super) fn begin(&self) -> (u64, oneshot::Receiver<Said>) {
        let (sender, receiver) = oneshot::channel();
        let mut acts = self.0.lock();
        acts.0 += 1;
        let number = acts.0;
        acts.1.insert(number, sender);
        (number, receiver)
    }

    pub(super) fn said(&self, number: u64, said: Said) {
        let waiting = self.0.lock().1.remove(&number);
        if let Some(sender) = waiting {
            sender.send(said);
        }
    }
}

/// The answer to an act; it is not waited for any longer than this lives.
struct Waiter<'a>(&'a Acts, u64);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        // Its waker is host code: woken without the lock.
        let _sender = self.0.0.lock().1.remove(&self.1);
    }
}

impl<C: SharedConnection> Clustered<C> {
    /// Asks the home of an account, in the order of what else is said to it.
    fn act(&self, account: &BareJid, act: Act) -> (u64, oneshot::Receiver<Said>) {
        let (number, receiver) = self.acts.begin();
        let letter = Letter::Act { from: self.me, number, act: act.into() };
        self.write(account, &letter, Undelivered::Act(number));
        (number, receiver)
    }

    /// A letter of this node to an account.
    pub(super) fn write(&self, account: &BareJid, letter: &Letter, undelivered: Undelivered<C>) {
        let to = smallvec![Recipient::of(account.as_str().into())];
        let bytes = letter.encode();
        self.inbox.put(Command::Submit(Submission {
            source: None,
            to,
            word: None,
            bytes,
            undelivered,
            receipt: Receipt::default(),
        }));
    }
}

impl<C: SharedConnection> Core<C> {
    /// Whether an account of ours does not live here.
    pub(in crate::server) fn is_elsewhere(&self, account: &BareJid) -> bool {
        self.node.is_some()
            && account.node().is_some()
            && self.is_ours(account.as_str())
            && !self.registry.is_local(account.as_str())
    }

    /// Has something done at the home of an account, where that is another node.
    pub(in crate::server) async fn at_home(
        &self,
        account: &BareJid,
        act: Act,
    ) -> Result<Said, AccountError> {
        self.ask_home(account, act).await
    }

    /// The same: the home is asked at once.
    pub(in crate::server) fn ask_home(
        &self,
        account: &BareJid,
        act: Act,
    ) -> impl Future<Output = Result<Said, AccountError>> + Send + use<'_, C> {
        let asked = self.node.as_ref().map(|node| {
            let (number, receiver) = node.act(account, act);
            (Waiter(&node.acts, number), receiver)
        });
        async move {
            let no_answer = || StoreError::failed("the account's home does not answer");
            let Some((_waiter, receiver)) = asked else { return Err(no_answer().into()) };
            match self.timers.within(ACT_TIMEOUT, receiver).await.flatten() {
                Some(Said::Failed(error)) => Err(error),
                Some(said) => Ok(said),
                None => Err(no_answer().into()),
            }
        }
    }

    /// Who is online at the other nodes.
    pub(in crate::server) async fn online_elsewhere(&self) -> Result<Vec<BareJid>, AccountError> {
        let Some(node) = &self.node else { return Ok(Vec::new()) };
        let no_answer = || StoreError::failed("a node does not answer");
        let (sender, asked) = oneshot::channel();
        node.inbox.put(Command::AskAll(sender));
        let asked = self.timers.within(ACT_TIMEOUT, asked).await.flatten();
        let asked = asked.ok_or_else(no_answer)?.into_iter();
        // All are asked by now.
        let asked: Vec<_> =
            asked.map(|(number, answer)| (Waiter(&node.acts, number), answer)).collect();
        let mut online = Vec::new();
        for (_waiter, answer) in asked {
            match self.timers.within(ACT_TIMEOUT, answer).await.flatten() {
                Some(Said::Names(names)) => {
                    online.extend(names.iter().filter_map(|name| BareJid::new(name).ok()));
                }
                _ => return Err(no_answer().into()),
            }
        }
        Ok(online)
    }

    /// The same where nobody waits for it.
    pub(in crate::server) fn tell_home(&self, account: &BareJid, act: Act) {
        if let Some(node) = &self.node {
            let _nobody_waits = node.act(account, act);
        }
    }

    /// Does what the host of another node wants of an account here.
    pub(super) async fn perform(self: Arc<Self>, jid: BareJid, act: Act) -> Said {
        let server = Server(Arc::clone(&self));
        let account = server.account(&jid);
        let done = match act {
            Act::Roster => account.roster().await.map(|roster| Said::Roster((*roster).clone())),
            Act::IsOnline => Ok(Said::Flag(account.is_online())),
            Act::SetContact(item) => account.set_contact(&item).await.map(|()| Said::Done),
            Act::RemoveContact(contact) => {
                account.remove_contact(&contact).await.map(|()| Said::Done)
            }
            Act::Befriend(other) => account.befriend(&other).await.map(|()| Said::Done),
            Act::BefriendBack(other) => self.befriend_back(jid, other).await.map(Said::Flag),
            Act::Show(contact) => {
                self.registry.tell_contact(jid.as_str(), contact.as_str());
                Ok(Said::Done)
            }
            Act::SetCredentials(credentials, changed) => {
                self.put_credentials(&jid, credentials, changed).await.map(|()| Said::Done)
            }
            Act::PasswordChanged(except) => {
                server.password_changed(&jid, except);
                Ok(Said::Done)
            }
            Act::Remove => server.account_removed(&jid).await.map(Said::Flag).map_err(Into::into),
            Act::Kick(error) => Ok(Said::Number(account.kick(&error).await)),
            Act::Revoke(client) => account.revoke(client).await.map(Said::Flag),
            Act::KickResource(resource, error) => {
                Ok(Said::Flag(account.kick_resource(&resource, &error).await))
            }
            Act::KickSession(id, error) => {
                let session = self.registry.sessions(&jid).find(|session| session.id() == id);
                Ok(Said::Flag(session.is_some_and(|session| server.kick_with(&session, &error))))
            }
            Act::Announce(message) => Ok(Said::Flag(self.announce_to(&jid, &message))),
        };
        done.unwrap_or_else(Said::Failed)
    }

    /// A stanza of the host in the name of an account of another node, which is that account's own act.
    pub(in crate::server) fn of_host_elsewhere(&self, from: &BareJid, stanza: &Stanza) -> bool {
        let Some(node) = self.node.as_ref().filter(|_| self.is_elsewhere(from)) else {
            return false;
        };
        node.write(from, &Letter::OfHost(stanza.clone()), Undelivered::Nothing);
        true
    }
}

impl Said {
    pub(in crate::server) const fn flag(&self) -> bool {
        matches!(self, Self::Flag(true))
    }

    pub(super) fn write(&self, out: &mut Writer) {
        match self {
            Self::Done => out.byte(0),
            Self::Flag(flag) => {
                out.byte(1);
                out.flag(*flag);
            }
            Self::Number(number) => {
                out.byte(2);
                out.count(*number);
            }
            Self::Roster(roster) => {
                out.byte(3);
                write_roster(out, roster);
            }
            Self::Failed(error) => {
                out.byte(4);
                write_error(out, error);
            }
            Self::Names(names) => {
                out.byte(5);
                out.texts(names.iter().map(String::as_str));
            }
        }
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Option<Self> {
        Some(match input.byte()? {
            0 => Self::Done,
            1 => Self::Flag(input.flag()?),
            2 => Self::Number(input.count()?),
            3 => Self::Roster(read_roster(input)?),
            4 => Self::Failed(read_error(input)?),
            5 => Self::Names(input.texts()?.into_iter().map(str::to_owned).collect()),
            _ => return None,
        })
    }
}

fn write_error(out: &mut Writer, error: &AccountError) {
    let kind = match error {
        AccountError::NoAccount => 0,
        AccountError::InvalidContact => 1,
        AccountError::NoContact => 2,
        AccountError::InvalidGroup => 3,
        AccountError::TooLarge => 4,
        AccountError::Exists => 5,
        AccountError::InvalidAddress => 6,
        AccountError::Store(StoreError::Full) => 7,
        AccountError::Store(StoreError::NoSpace(_)) => 8,
        // The password has been looked at where it was told.
        AccountError::Store(StoreError::Failed(_)) | AccountError::Password(_) => 9,
    };
    out.byte(kind);
    if kind >= 8 {
        out.text(&sources(error));
    }
}

fn read_error(input: &mut Reader<'_>) -> Option<AccountError> {
    Some(match input.byte()? {
        0 => AccountError::NoAccount,
        1 => AccountError::InvalidContact,
        2 => AccountError::NoContact,
        3 => AccountError::InvalidGroup,
        4 => AccountError::TooLarge,
        5 => AccountError::Exists,
        6 => AccountError::InvalidAddress,
        7 => StoreError::Full.into(),
        8 => StoreError::NoSpace(input.text()?.into()).into(),
        9 => StoreError::failed(input.text()?).into(),
        _ => return None,
    })
}

/// The innermost cause, which says it.
fn sources(error: &AccountError) -> String {
    let mut source: &dyn std::error::Error = error;
    while let Some(inner) = source.source() {
        source = inner;
    }
    source.to_string()
}

impl Act {
    pub(super) fn write(&self, out: &mut Writer) {
        let jid = |out: &mut Writer, kind, jid: &BareJid| {
            out.byte(kind);
            out.text(jid.as_str());
        };
        let session =
            |out: &mut Writer, id: Option<SessionId>| out.option(id, |out, id| out.number(id.0));
        match self {
            Self::Roster => out.byte(0),
            Self::IsOnline => out.byte(1),
            Self::SetContact(item) => {
                jid(out, 2, &item.jid);
                out.option(item.name.as_deref(), Writer::text);
                out.texts(item.groups.iter().map(String::as_str));
            }
            Self::RemoveContact(contact) => jid(out, 3, contact),
            Self::Befriend(other) => jid(out, 4, other),
            Self::BefriendBack(other) => jid(out, 5, other),
            Self::Show(contact) => jid(out, 6, contact),
            Self::SetCredentials(credentials, changed) => {
                out.byte(7);
                let Credentials { scram_sha_1, scram_sha_256, scram_sha_512, disabled } =
                    credentials;
                for keys in [scram_sha_1, scram_sha_256, scram_sha_512] {
                    out.option(keys.as_ref(), |out, keys| {
                        out.bytes(&keys.salt);
                        out.number(keys.iterations);
                        out.bytes(&keys.stored_key);
                        out.bytes(&keys.server_key);
                    });
                }
                out.flag(*disabled);
                out.option(*changed, session);
            }
            Self::PasswordChanged(except) => {
                out.byte(8);
                session(out, *except);
            }
            Self::Remove => out.byte(9),
            Self::Kick(error) => {
                out.byte(10);
                error.pack(out);
            }
            Self::Revoke(client) => {
                out.byte(11);
                out.bytes(client.as_bytes());
            }
            Self::KickResource(resource, error) => {
                out.byte(12);
                out.text(resource.as_str());
                error.pack(out);
            }
            Self::KickSession(id, error) => {
                out.byte(13);
                out.number(id.0);
                error.pack(out);
            }
            Self::Announce(message) => {
                out.byte(14);
                write_stanza(out, message);
            }
        }
    }

    pub(super) fn read(input: &mut Reader<'_>) -> Option<Self> {
        fn jid(input: &mut Reader<'_>) -> Option<BareJid> {
            BareJid::new(input.text()?).ok()
        }
        #[expect(clippy::option_option, reason = "none may be what was written")]
        fn session(input: &mut Reader<'_>) -> Option<Option<SessionId>> {
            input.option(|input| input.number().map(SessionId))
        }
        Some(match input.byte()? {
            0 => Self::Roster,
            1 => Self::IsOnline,
            2 => Self::SetContact(Item {
                jid: jid(input)?,
                name: input.option(Reader::text)?.map(str::to_owned),
                groups: input.texts()?.into_iter().map(str::to_owned).collect(),
                subscription: Subscription::None,
                ask: false,
                approved: false,
            }),
            3 => Self::RemoveContact(jid(input)?),
            4 => Self::Befriend(jid(input)?),
            5 => Self::BefriendBack(jid(input)?),
            6 => Self::Show(jid(input)?),
            7 => {
                let keys = |input: &mut Reader<'_>| {
                    input.option(|input| {
                        Some(ScramKeys {
                            salt: input.bytes()?.to_vec(),
                            iterations: input.small()?,
                            stored_key: input.bytes()?.to_vec(),
                            server_key: input.bytes()?.to_vec(),
                        })
                    })
                };
                let credentials = Credentials {
                    scram_sha_1: keys(input)?,
                    scram_sha_256: keys(input)?,
                    scram_sha_512: keys(input)?,
                    disabled: input.flag()?,
                };
                Self::SetCredentials(credentials, input.option(session)?)
            }
            8 => Self::PasswordChanged(session(input)?),
            9 => Self::Remove,
            10 => Self::Kick(StreamError::unpack(input)?),
            11 => Self::Revoke(ClientKey::from_bytes(input.bytes()?.try_into().ok()?)),
            12 => {
                let resource = ResourcePart::new(input.text()?).ok()?.into_owned();
                Self::KickResource(resource, StreamError::unpack(input)?)
            }
            13 => Self::KickSession(SessionId(input.number()?), StreamError::unpack(input)?),
            14 => Self::Announce(read_stanza(input)?),
            _ => return None,
        })
    }
}
