//! Acts of the host on accounts: their rosters, their sessions, who is there.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::{BareJid, ResourceRef};

use super::deliver::roster::change::ChangeError;
use super::deliver::roster::transaction::{Asker, Change};
#[cfg(feature = "cluster")]
use super::node::act::{Act, Said};
use super::{Core, Server};
use crate::address;
use crate::connection::SharedConnection;
pub use crate::extension::AccountError;
use crate::rules::roster::{Item, Roster, RosterSet};
use crate::session::{Reason, SessionHandle, SessionId};
use crate::stanza::{Kind, Stanza};
use crate::store::{ClientKey, ClientTokens, StoreError};
use crate::stream::{StreamCondition, StreamError};

/// One account, for its host to act on: see [`Server::account`].
///
/// What changes a roster is stored when it returns `Ok`, and everybody has been told as if a client of
/// the account had done it: roster pushes to its sessions, presence and subscription stanzas to its
/// contacts ([HOST-3](crate::rules#host-3)). An account without sessions is treated the same, from its store. A future that is
/// dropped takes back nothing.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use xmpp_session::connection::Recorder;
/// # use xmpp_session::environment::System;
/// # use xmpp_session::server::Server;
/// # use xmpp_session::store::{AnyAccount, Stores};
/// use xmpp_session::jid::BareJid;
/// use xmpp_session::rules::roster::Item;
/// use xmpp_session::server::AccountError;
///
/// # let mut stores = Stores::memory();
/// # stores.accounts = Arc::new(AnyAccount::new("secret").unwrap());
/// # let server: Server<Recorder> =
/// #     Server::builder(Arc::new(System::new()), stores).domain("example.com".parse().unwrap()).build();
/// async fn welcome(server: &Server<Recorder>) -> Result<(), AccountError> {
///     let juliet: BareJid = "juliet@example.com".parse().unwrap();
///     let romeo: BareJid = "romeo@example.com".parse().unwrap();
///
///     let account = server.account(&juliet);
///     account.befriend(&romeo).await?;
///     let mut item = Item::new(romeo);
///     item.name = Some("Romeo".into());
///     account.set_contact(&item).await?;
///     assert_eq!(account.roster().await?.len(), 1);
///     assert!(!account.is_online());
///     Ok(())
/// }
/// # use std::{future::Future, pin::pin, task::{Context, Poll, Waker}};
/// # let done = pin!(welcome(&server)).poll(&mut Context::from_waker(Waker::noop()));
/// # assert!(matches!(done, Poll::Ready(Ok(()))));
/// ```
#[must_use = "does nothing by itself"]
pub struct Account<C: SharedConnection> {
    core: Arc<Core<C>>,
    jid: BareJid,
}

impl From<ChangeError> for AccountError {
    fn from(error: ChangeError) -> Self {
        match error {
            ChangeError::Store(error) => Self::Store(error),
            ChangeError::NoAccount => Self::NoAccount,
            ChangeError::Roster(error) => error.into(),
            #[cfg(feature = "cluster")]
            ChangeError::Afar(error) => error,
        }
    }
}

impl<C: SharedConnection> Server<C> {
    /// An account of this server, to act on.
    pub fn account(&self, account: &BareJid) -> Account<C> {
        let jid = address::account(account).unwrap_or_else(|_| account.clone());
        Account { core: Arc::clone(&self.0), jid }
    }

    /// The accounts that are online: those with an available session, be it live or waiting to be resumed.
    /// Who comes or goes meanwhile may be among them or not. Of several nodes: those that live at this one.
    ///
    /// ```
    /// # use xmpp_session::{connection::Recorder, server::Server};
    /// fn report(server: &Server<Recorder>) {
    ///     println!("{} accounts are online", server.online().count());
    /// }
    /// ```
    pub fn online(&self) -> impl Iterator<Item = BareJid> + Send {
        self.0.online()
    }

    /// The same of all nodes, each of which is asked ([NODE-16](crate::rules#node-16)). An account that moves meanwhile may
    /// be missing, or be there twice.
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`]: a node does not answer.
    #[cfg(feature = "cluster")]
    pub async fn online_anywhere(&self) -> Result<Vec<BareJid>, AccountError> {
        let mut online: Vec<_> = self.online().collect();
        online.extend(self.0.online_elsewhere().await?);
        Ok(online)
    }

    /// Those of `accounts` that are online. Of several nodes: and live at this one; `online_of_anywhere` asks the others.
    ///
    /// ```
    /// # use xmpp_session::{connection::Recorder, jid::BareJid, server::Server};
    /// fn who_can_play(server: &Server<Recorder>, team: Vec<BareJid>) -> Vec<BareJid> {
    ///     server.online_of(team).collect()
    /// }
    /// ```
    pub fn online_of(
        &self,
        accounts: impl IntoIterator<Item = BareJid>,
    ) -> impl Iterator<Item = BareJid> {
        accounts.into_iter().filter(|account| self.account(account).is_online())
    }

    /// The same of all nodes: the home of each is asked, of all at once ([NODE-16](crate::rules#node-16)).
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`]: the home of an account does not answer.
    #[cfg(feature = "cluster")]
    pub async fn online_of_anywhere(
        &self,
        accounts: impl IntoIterator<Item = BareJid>,
    ) -> Result<Vec<BareJid>, AccountError> {
        let (mut online, mut asked) = (Vec::new(), Vec::new());
        for jid in accounts {
            let account = self.account(&jid);
            if self.0.is_elsewhere(&account.jid) {
                asked.push((jid, self.0.ask_home(&account.jid, Act::IsOnline)));
            } else if account.is_online() {
                online.push(jid);
            }
        }
        for (jid, answer) in asked {
            let is_online = answer.await?.flag();
            online.extend(is_online.then_some(jid));
        }
        Ok(online)
    }

    /// Sends a message to every account that is online, `accounts` of them in each `period`, and returns
    /// how many there were ([HOST-7](crate::rules#host-7)). Each gets it at its bare JID, from its domain if the message names no
    /// sender; an account that has left by its turn, or whose sessions all have a negative priority, does not. Of
    /// several nodes the accounts of all are told, wherever they live by their turn; not those of a node that does not
    /// say who is online there.
    ///
    /// The waits depend on [`handle_timeout`](Self::handle_timeout).
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use xmpp_session::{connection::Recorder, minidom::Element, server::Server, stanza::Stanza};
    /// async fn warn(server: &Server<Recorder>) {
    ///     let body = Element::builder("body", "jabber:client").append("Back at ten.").build();
    ///     let note = Stanza::message().type_("headline").child(&body).build();
    ///     server.announce(&note, 100, Duration::from_secs(1)).await;
    /// }
    /// ```
    pub async fn announce(&self, message: &Stanza, accounts: usize, period: Duration) -> usize {
        if message.kind() != Kind::Message {
            return 0;
        }
        let (core, mut sent, mut in_period) = (&self.0, 0, 0);
        #[cfg(feature = "cluster")]
        let elsewhere = core.online_elsewhere().await.unwrap_or_default();
        #[cfg(not(feature = "cluster"))]
        let elsewhere = Vec::new();
        #[cfg(feature = "cluster")]
        let mut asked = Vec::new();
        // One that moves meanwhile may be there twice.
        let mut known = HashSet::new();
        for account in core.online().chain(elsewhere) {
            if core.is_node() && !known.insert(account.clone()) {
                continue;
            }
            if in_period >= accounts.max(1) {
                #[cfg(feature = "cluster")]
                for answer in asked.drain(..) {
                    sent += usize::from(was_told(answer).await);
                }
                core.sleep(period).await;
                in_period = 0;
            }
            #[cfg(feature = "cluster")]
            if core.is_elsewhere(&account) {
                asked.push(core.ask_home(&account, Act::Announce(message.clone())));
                in_period += 1;
                continue;
            }
            if core.announce_to(&account, message) {
                sent += 1;
                in_period += 1;
            }
        }
        #[cfg(feature = "cluster")]
        for answer in asked {
            sent += usize::from(was_told(answer).await);
        }
        sent
    }
}

/// Whether an account of another node was told.
#[cfg(feature = "cluster")]
async fn was_told(answer: impl Future<Output = Result<Said, AccountError>>) -> bool {
    answer.await.is_ok_and(|said| said.flag())
}

impl<C: SharedConnection> Core<C> {
    /// The accounts that are online, and live here.
    pub(super) fn online(&self) -> impl Iterator<Item = BareJid> + Send {
        let mut last = None;
        let available = self.registry.iter().filter(SessionHandle::is_available);
        // The sessions of an account come one after the other.
        available.filter_map(move |session| {
            let account = Arc::clone(session.account());
            let is_new = last.as_ref().is_none_or(|last| !Arc::ptr_eq(last, &account));
            last = is_new.then(|| Arc::clone(&account)).or_else(|| last.take());
            is_new.then(|| account.bare.clone())
        })
    }

    /// Tells an account that lives here, if one of its sessions would get it.
    pub(super) fn announce_to(self: &Arc<Self>, account: &BareJid, message: &Stanza) -> bool {
        if self.registry.top(account).is_empty() {
            return false;
        }
        let from = message.from();
        let from = from.as_deref().unwrap_or_else(|| account.domain().as_str());
        let message = message.readdressed(Some(from), Some(account.as_str()));
        Server(Arc::clone(self)).send(message);
        true
    }
}

impl<C: SharedConnection> Account<C> {
    /// The account's address.
    #[must_use]
    pub const fn jid(&self) -> &BareJid {
        &self.jid
    }

    /// Whether it has an available session, be it live or waiting to be resumed. Of several nodes only its home knows.
    #[must_use]
    pub fn is_online(&self) -> bool {
        !self.core.registry.available(&self.jid).is_empty()
    }

    /// The same of an account of any node: its home is asked, and may not answer ([NODE-16](crate::rules#node-16)).
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`]: the account's home does not answer.
    #[cfg(feature = "cluster")]
    pub async fn is_online_anywhere(&self) -> Result<bool, AccountError> {
        match self.core.is_elsewhere(&self.jid) {
            true => Ok(self.core.at_home(&self.jid, Act::IsOnline).await?.flag()),
            false => Ok(self.is_online()),
        }
    }

    /// The roster, behind every change that was asked for before.
    ///
    /// # Errors
    ///
    /// [`AccountError::NoAccount`], [`AccountError::Store`].
    pub async fn roster(&self) -> Result<Arc<Roster>, AccountError> {
        if !self.is_possible() {
            return Err(AccountError::NoAccount);
        }
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) {
            return match self.core.at_home(&self.jid, Act::Roster).await? {
                Said::Roster(roster) => Ok(Arc::new(roster)),
                _ => Err(AccountError::NoAccount),
            };
        }
        let (core, jid) = (Arc::clone(&self.core), self.jid.clone());
        let read = self.core.jobs.run(self.jid.as_str(), async move {
            if !core.exists(&jid).await? {
                return Err(AccountError::NoAccount);
            }
            match core.registry.account(core.registry.key(jid.as_str())) {
                Some(account) => Ok(account.roster()),
                None => Ok(Arc::new(core.load_roster(&jid).await?)),
            }
        });
        read.await.unwrap_or_else(|| Err(StoreError::failed("the store panicked").into()))
    }

    /// Adds a contact to the roster, or gives it another name and other groups. What the item says of the
    /// subscription is not looked at, as in a client's roster set ([ROSTER-8](crate::rules#roster-8)): presence changes that, or
    /// [`befriend`](Self::befriend).
    ///
    /// # Errors
    ///
    /// [`AccountError`].
    pub async fn set_contact(&self, item: &Item) -> Result<(), AccountError> {
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) {
            let act = Act::SetContact(item.clone());
            return self.core.at_home(&self.jid, act).await.map(|_done| ());
        }
        let (contact, groups) = (contact(&item.jid)?, item.groups.iter().map(String::as_str));
        let limits = &self.core.limits.roster;
        let set = RosterSet::update(contact.clone(), item.name.as_deref(), groups, limits)?;
        self.change(contact, Change::Set(set, Asker::Host)).await
    }

    /// Removes a contact: each is told what it is told when a client removes it ([ROSTER-15](crate::rules#roster-15)).
    ///
    /// # Errors
    ///
    /// [`AccountError`]; [`AccountError::NoContact`] if it is not in the roster ([ROSTER-14](crate::rules#roster-14)).
    pub async fn remove_contact(&self, jid: &BareJid) -> Result<(), AccountError> {
        let contact = contact(jid)?;
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) {
            let act = Act::RemoveContact(contact);
            return self.core.at_home(&self.jid, act).await.map(|_done| ());
        }
        let set = RosterSet::removal(contact.clone());
        self.change(contact, Change::Set(set, Asker::Host)).await
    }

    /// Subscribes this account and another one of this server to each other, in one step on both sides: each
    /// has the other in its roster with subscription `both`, under the name and in the groups that it had
    /// ([HOST-4](crate::rules#host-4)). Requests between the two are done with; who sees the other only now gets its presence.
    ///
    /// # Errors
    ///
    /// [`AccountError`]; then neither side has changed.
    pub async fn befriend(&self, other: &BareJid) -> Result<(), AccountError> {
        let other = address::account(other).map_err(|_| AccountError::NoAccount)?;
        if other == self.jid {
            return Err(AccountError::InvalidContact);
        }
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) || self.core.is_elsewhere(&other) {
            return self.core.befriend_afar(&self.jid, &other).await;
        }
        self.change(other, Change::Befriend).await
    }

    /// Creates the account with this password, whose hashes the store gets; they are made where logins are
    /// checked ([LIMIT-28](crate::rules#limit-28)). Of several who want one name, one gets it.
    ///
    /// ```
    /// # use xmpp_session::{connection::Recorder, jid::BareJid, server::Server};
    /// use xmpp_session::server::AccountError;
    ///
    /// async fn sign_up(server: &Server<Recorder>, name: &BareJid, password: &str) {
    ///     match server.account(name).create(password).await {
    ///         Ok(()) => println!("welcome"),
    ///         Err(AccountError::Exists) => println!("this name is taken"),
    ///         Err(error) => println!("{error}"),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// [`AccountError::Exists`], [`AccountError::InvalidAddress`], [`AccountError::Password`],
    /// [`AccountError::Store`].
    pub async fn create(&self, password: &str) -> Result<(), AccountError> {
        let (core, jid) = (Arc::clone(&self.core), self.jid.clone());
        let source = core.ledger.as_source(&jid);
        core.create_account(jid, password.to_owned(), source).await
    }

    /// Changes the password. Once the store has it, all sessions of the account end with `reset`, except this
    /// one, as [`Server::password_changed`] says.
    ///
    /// # Errors
    ///
    /// [`AccountError::NoAccount`], also where the store has no credentials of it; [`AccountError::Password`],
    /// [`AccountError::Store`].
    pub async fn set_password(
        &self,
        password: &str,
        except: Option<SessionId>,
    ) -> Result<(), AccountError> {
        let (core, jid) = (Arc::clone(&self.core), self.jid.clone());
        core.change_password(jid, password.to_owned(), except).await
    }

    /// Ends all sessions of the account with this error, and its streams that are authenticated and have not
    /// bound yet ([DESTROY-19](crate::rules#destroy-19)). Returns how many sessions there were; they may log in again at once.
    ///
    /// ```
    /// # use xmpp_session::{connection::Recorder, jid::BareJid, server::Server};
    /// use xmpp_session::stream::{StreamCondition, StreamError};
    ///
    /// async fn send_home(server: &Server<Recorder>, account: &BareJid) -> usize {
    ///     let error = StreamError::new(StreamCondition::PolicyViolation);
    ///     server.account(account).kick(&error.with_text("en", "Go to bed.")).await
    /// }
    /// ```
    pub async fn kick(&self, error: &StreamError) -> usize {
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) {
            return match self.core.at_home(&self.jid, Act::Kick(error.clone())).await {
                Ok(Said::Number(ended)) => ended,
                _ => 0,
            };
        }
        self.core.dismiss(&self.jid, error);
        self.end_sessions(error.clone(), |_| true).await
    }

    /// Ends the session of the account with this resource, also one that is being bound ([DESTROY-19](crate::rules#destroy-19)).
    /// `false` if there was none. Of several nodes this works at any, and is `false` where the account's home does not
    /// answer.
    pub async fn kick_resource(&self, resource: &ResourceRef, error: &StreamError) -> bool {
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) {
            let act = Act::KickResource(resource.to_owned(), error.clone());
            return self.core.at_home(&self.jid, act).await.is_ok_and(|said| said.flag());
        }
        let resource = resource.to_owned();
        let is_it = move |session: &SessionHandle<C>| *session.jid().resource() == *resource;
        self.end_sessions(error.clone(), is_it).await > 0
    }

    /// Ends those sessions of the account, and says how many.
    async fn end_sessions(
        &self,
        error: StreamError,
        which: impl Fn(&SessionHandle<C>) -> bool + Send + 'static,
    ) -> usize {
        let sweep = {
            let (core, jid) = (Arc::clone(&self.core), self.jid.clone());
            move || {
                let end = |session: &SessionHandle<C>| {
                    which(session) && core.end_session(session, Reason::Kicked, &error)
                };
                core.registry.sessions(&jid).filter(end).count()
            }
        };
        let ended = sweep();
        // By then a bind that was under way has ended.
        let swept = self.core.jobs.run(self.jid.as_str(), async move { sweep() });
        ended + swept.await.unwrap_or_default()
    }

    /// The clients that can log in with a token ([FAST-10](crate::rules#fast-10)), the one that did so last first.
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`].
    pub async fn clients(&self) -> Result<Vec<TokenClient>, AccountError> {
        let Some(policy) = self.core.policy_for(&self.jid) else { return Ok(Vec::new()) };
        let clients = self.core.token_clients(&policy, &self.jid).await?.into_iter();
        let client = |(key, record, expiry): (_, ClientTokens, _)| TokenClient {
            key,
            software: record.software,
            device: record.device,
            used: record.used,
            expiry,
        };
        Ok(clients.map(client).collect())
    }

    /// Logs a client out: its tokens end, and its sessions with `reset` ([FAST-10](crate::rules#fast-10)). Streams of the account that
    /// have no session yet end too. `false` if it had no token.
    ///
    /// A client that has kept the password can log in with that: change it as well
    /// ([`password_changed`](Server::password_changed)), if the device is lost.
    ///
    /// # Errors
    ///
    /// [`AccountError::Store`]; then it can still log in.
    pub async fn revoke(&self, client: ClientKey) -> Result<bool, AccountError> {
        #[cfg(feature = "cluster")]
        if self.core.is_elsewhere(&self.jid) {
            return Ok(self.core.at_home(&self.jid, Act::Revoke(client)).await?.flag());
        }
        let error = StreamError::new(StreamCondition::Reset);
        // A login under way may have been one with a token.
        self.core.bar(&self.jid, &error);
        let had = self.core.retire_client(&self.jid, client).await?;
        self.end_sessions(error, move |session| {
            session.extension::<ClientKey>().is_some_and(|of| *of == client)
        })
        .await;
        // That one may have been given a token, which nobody has been told.
        let given = self.core.retire_client(&self.jid, client).await?;
        Ok(had || given)
    }

    /// Whether there may be such an account, whatever a store says.
    fn is_possible(&self) -> bool {
        let jid = &self.jid;
        jid.node().is_some() && address::is_normal(jid) && self.core.is_ours(jid.as_str())
    }

    async fn change(&self, contact: BareJid, change: Change) -> Result<(), AccountError> {
        if !self.is_possible() {
            return Err(AccountError::NoAccount);
        }
        let account = self.jid.clone();
        Ok(self.core.change_roster(account, contact, change, None, || ()).await?)
    }
}

/// The normal form of a contact's address.
fn contact(jid: &BareJid) -> Result<BareJid, AccountError> {
    address::bare(jid.as_str()).map_err(|_| AccountError::InvalidContact)
}

/// A client that can log in with a token: see [`Account::clients`].
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenClient {
    /// What [`Account::revoke`] knows it by.
    pub key: ClientKey,
    /// What it calls its program. Nobody has checked that.
    pub software: Option<String>,
    /// What it calls its device. Nobody has checked that.
    pub device: Option<String>,
    /// When it logged in, to within an hour.
    pub used: SystemTime,
    /// When it can no longer log in, unless it has done so before.
    pub expiry: SystemTime,
}

impl fmt::Debug for TokenClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("used", &self.used)
            .field("expiry", &self.expiry)
            .finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Clone for Account<C> {
    fn clone(&self) -> Self {
        Self { core: Arc::clone(&self.core), jid: self.jid.clone() }
    }
}

impl<C: SharedConnection> fmt::Debug for Account<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Account").finish_non_exhaustive()
    }
}
