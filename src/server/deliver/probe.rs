//! Probes: what an account of this server answers when asked for its presence (RFC 6121 §4.3.2, §4.6.6).

use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::give::Origin;
#[cfg(feature = "cluster")]
use super::roster::transaction::subscription;
use crate::connection::SharedConnection;
use crate::extension::Admission;
use crate::rules::presence::{Probe, ProbeAnswer, answer_probe};
use crate::rules::roster::Roster;
#[cfg(feature = "cluster")]
use crate::server::breaks::broken;
use crate::server::{Core, Task};
use crate::session::{Item, SessionHandle, Validity};
use crate::stanza::Stanza;
use crate::stanza::delay::delay;
#[cfg(feature = "cluster")]
use crate::{
    address, rules::subscription::SubscriptionKind, session::AccountState, store::FenceTokens as _,
};

/// A probe, and its sender.
struct Asked<C: SharedConnection> {
    prober: Prober<C>,
    stanza: Stanza,
    to: Address<'static>,
    from: BareJid,
}

/// Who is answered.
enum Prober<C: SharedConnection> {
    /// A session here.
    Session(SessionHandle<C>),
    /// One at another node, by its full JID.
    #[cfg(feature = "cluster")]
    Afar(Box<str>),
    /// The sender, at another domain.
    Sender,
}

impl<C: SharedConnection> Prober<C> {
    /// The full JID of the session.
    fn jid(&self) -> Option<&str> {
        match self {
            Self::Session(session) => Some(session.jid().as_str()),
            #[cfg(feature = "cluster")]
            Self::Afar(jid) => Some(jid),
            Self::Sender => None,
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// A probe for a local account (PRES-14…18).
    ///
    /// Answered on the account's chain: no subscription ends between the look at the roster and
    /// the answer, so that "available" cannot come behind the news of that end.
    pub(super) fn probe(
        self: &Arc<Self>,
        origin: Origin<'_, C>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        self.probe_for(origin.cloned().map_or(Prober::Sender, Prober::Session), stanza, to)
    }

    fn probe_for(
        self: &Arc<Self>,
        prober: Prober<C>,
        stanza: &Stanza,
        to: &Address<'_>,
    ) -> Option<Task> {
        let from = BareJid::clone(&self.address(&stanza.from()?).ok()?.bare);
        let asked = Asked { prober, stanza: stanza.clone(), to: to.to_static(), from };
        let core = Arc::clone(self);
        let job = async move {
            // An account that had sessions when the probe came was asked then; but the probe is from
            // the bare JID, and the answer goes to the session.
            let Ok(state) = core.loaded_state(&asked.to.bare).await else { return };
            let hidden = |jid: &str| core.is_hidden(&state, jid);
            if !matches!(core.admit_to(&state, &asked.stanza), Admission::Accept)
                || asked.prober.jid().is_some_and(hidden)
            {
                return;
            }
            // An unknown account has an empty roster, and answers like one that refuses (PRES-14).
            let roster = match core.registry.account(asked.to.key()) {
                Some(account) => account.roster(),
                None => match core.load_contact(&asked.to.bare, &asked.from).await {
                    Ok((roster, _)) => Arc::new(roster),
                    // What is not known now is no reason to deny it: "unsubscribed" would end the
                    // subscription at the other end.
                    Err(_) => return,
                },
            };
            core.answer_probe(&asked, &roster);
        };
        let done = self.jobs.run(to.bare.as_str(), job);
        Some(Box::pin(async move {
            done.await;
        }))
    }

    fn answer_probe(self: &Arc<Self>, asked: &Asked<C>, roster: &Roster) {
        let (to, from) = (&asked.to, asked.from.as_str());
        let account = to.bare.as_str();
        let mut sessions: Vec<_> = self.registry.sessions_of(to.key()).collect();
        if let Some(resource) = to.resource.as_deref() {
            // Never a word about another session (PRES-17, PRES-18).
            sessions.retain(|session| session.resource().as_str() == resource);
        }
        let facts = Probe {
            full: to.resource.is_some(),
            subscriber: from == account || roster.is_subscriber(from),
            available: sessions.iter().any(SessionHandle::is_available),
            directed: sessions.iter().any(|session| session.has_directed_to(from)),
        };
        match answer_probe(facts) {
            ProbeAnswer::Unsubscribed => {
                self.answer_to(&asked.prober, asked.reply(Some("unsubscribed"), account))
            }
            ProbeAnswer::Unavailable => {
                let mut answer = asked.reply(Some("unavailable"), &to.to_text());
                let last = self.registry.last_gone(account).filter(|_| !facts.full);
                if let Some(at) = last {
                    answer = answer.with_appended(&delay(account, at));
                }
                self.answer_to(&asked.prober, answer);
            }
            ProbeAnswer::Mere => {
                for session in &sessions {
                    // This first: what the session does after that makes the answer void.
                    let validity = session.validity();
                    let seen = if facts.subscriber {
                        session.is_available()
                    } else {
                        session.has_directed_to(from)
                    };
                    if seen {
                        let answer = asked.reply(None, session.jid().as_str());
                        self.answer_for(asked, session, validity, answer);
                    }
                }
            }
            ProbeAnswer::Broadcasts => {
                for session in &sessions {
                    if let Some((presence, at, validity)) = session.present() {
                        let jid = session.jid().as_str();
                        let presence = presence.with_appended(&delay(jid, at));
                        self.answer_for(asked, session, validity, presence);
                    }
                }
            }
        }
    }

    /// Presence of a session, for as long as that session has not moved on (PRES-21).
    fn answer_for(
        self: &Arc<Self>,
        asked: &Asked<C>,
        session: &SessionHandle<C>,
        validity: Validity<'_>,
        presence: Stanza,
    ) {
        let to = asked.prober.jid().unwrap_or(asked.from.as_str());
        let presence = presence.readdressed(Some(session.jid().as_str()), Some(to));
        match &asked.prober {
            Prober::Session(session) => {
                let _refused = session.send_item(&Item::new(&presence).while_valid(validity));
            }
            #[cfg(feature = "cluster")]
            Prober::Afar(jid) => self.answer_afar(jid, presence, validity),
            Prober::Sender if self.is_here(asked.from.as_str()) => {}
            Prober::Sender => self.route_elsewhere(None, presence, validity),
        }
    }

    fn answer_to(self: &Arc<Self>, prober: &Prober<C>, answer: Stanza) {
        match prober {
            Prober::Session(session) => self.answer(Some(session), answer),
            #[cfg(feature = "cluster")]
            Prober::Afar(jid) => {
                let answer = answer.readdressed(answer.from().as_deref(), Some(jid));
                self.answer_afar(jid, answer, Validity::FOR_GOOD);
            }
            Prober::Sender => self.answer(None, answer),
        }
    }
}

#[cfg(feature = "cluster")]
impl<C: SharedConnection> Core<C> {
    fn answer_afar(&self, asker: &str, answer: Stanza, validity: Validity<'_>) {
        let (account, resource) = address::parts(asker);
        if self.is_here(account) && !broken!(AnsweredFromAfar) {
            // By now. What is said to it next goes directly too.
            let resource = resource.unwrap_or_default();
            self.registry.answered(account, resource, &answer, validity);
        } else if let Some(node) = &self.node {
            node.answer(asker, answer, validity);
        }
    }

    /// The probe of a client at another node, a full JID, for an account here (PRES-19).
    pub(in crate::server) fn asked_by_another_node(
        self: &Arc<Self>,
        asker: &str,
        stanza: &Stanza,
    ) -> Option<Task> {
        let to = stanza.to()?;
        let to = self.address(&to).ok()?;
        match self.admit(&to, stanza) {
            Admission::Accept => self.probe_for(Prober::Afar(asker.into()), stanza, &to),
            Admission::Drop | Admission::Refuse(_) => None,
        }
    }

    /// A session at another node, a full JID, has become available and sees this account. It is answered as one here is
    /// (PRES-13…16); but where it has a half of a subscription alone, it is told that (NODE-15).
    pub(in crate::server) fn probe_of_another_node(
        self: &Arc<Self>,
        account: &str,
        asker: &str,
    ) -> Option<Task> {
        let account = BareJid::new(account).ok()?;
        let own = BareJid::new(address::bare_of(asker)).ok()?;
        let (core, asker, chain) = (Arc::clone(self), Box::<str>::from(asker), account.to_string());
        let job = async move {
            let is_subscriber = |roster: &Roster| roster.is_subscriber(own.as_str());
            let has_half = match core.registry.account(core.registry.key(account.as_str())) {
                Some(account) => is_subscriber(&account.roster()),
                None if core.is_half_known(&account, &own) => true,
                None => match core.load_contact(&account, &own).await {
                    Ok((roster, _)) => is_subscriber(&roster),
                    Err(_) => return,
                },
            };
            core.note_half(&account, &own, has_half);
            if !has_half {
                let denial = subscription(SubscriptionKind::Unsubscribed, &account, &own).build();
                return core.route_elsewhere(None, denial, Validity::FOR_GOOD);
            }
            let give = |stanza: &Stanza, validity: Validity<'_>| {
                core.answer_afar(&asker, stanza.clone(), validity);
            };
            core.registry.show_afar(account.as_str(), &asker, own.as_str(), give);
        };
        let done = self.jobs.run(&chain, job);
        Some(Box::pin(async move {
            done.await;
        }))
    }

    /// Whether it was seen, since the account came here and its roster was changed, that it lets the contact see it:
    /// else each login of a contact asks the store about each account that is away.
    fn is_half_known(&self, account: &BareJid, contact: &BareJid) -> bool {
        let halves = self.halves.lock();
        self.half(account, contact).is_some_and(|half| halves.get(&half).is_some())
    }

    /// To be called on the account's chain.
    pub(in crate::server::deliver) fn note_half(
        &self,
        account: &BareJid,
        contact: &BareJid,
        is_there: bool,
    ) {
        let Some(half) = self.half(account, contact) else { return };
        let mut halves = self.halves.lock();
        match is_there {
            true => halves.insert(&half, ()),
            false => halves.remove(&half),
        }
    }

    fn half<'a>(
        &self,
        account: &'a BareJid,
        contact: &'a BareJid,
    ) -> Option<(u64, u64, &'a str, &'a str)> {
        let token = self.node.as_ref()?.placement.fence(account)?.token;
        Some((token.term, token.number, account.as_str(), contact.as_str()))
    }

    /// Presence has come of a contact at another node that the account does not see, so that there is one half of a
    /// subscription alone: it is told so (NODE-15). On the account's chain, behind the change that may explain it.
    pub(in crate::server) fn heal(self: &Arc<Self>, account: &str, contact: &str) {
        if self.is_explained(account, contact) {
            return;
        }
        let (Ok(account), Ok(contact)) = (BareJid::new(account), BareJid::new(contact)) else {
            return;
        };
        let (core, chain) = (Arc::clone(self), account.to_string());
        let done = self.jobs.run(&chain, async move {
            if !core.is_explained(account.as_str(), contact.as_str()) {
                let left = subscription(SubscriptionKind::Unsubscribe, &account, &contact).build();
                core.route_elsewhere(None, left, Validity::FOR_GOOD);
            }
        });
        self.jobs.spawn(async move {
            done.await;
        });
    }

    /// Whether the account, which has sessions, sees the contact's presence.
    pub(in crate::server) fn sees(&self, account: &str, contact: &str) -> bool {
        let row = self.registry.account(self.registry.key(account));
        row.is_some_and(|row| {
            row.roster().get(contact).is_some_and(|item| item.subscription().has_to())
        })
    }

    /// Whether the account sees the contact, or asks to. Of one without sessions nothing is known, and nobody is told.
    fn is_explained(&self, account: &str, contact: &str) -> bool {
        let row = self.registry.account(self.registry.key(account));
        row.is_none_or(|row| {
            let roster = row.roster();
            let item = roster.get(contact);
            item.is_some_and(|item| item.subscription().has_to() || item.ask())
        })
    }

    /// Whether the account that sends a subscription stanza hides from the contact at another node (BLOCK-9).
    pub(in crate::server::deliver) fn is_silent(&self, stanza: &Stanza) -> bool {
        let (Some(from), Some(to)) = (stanza.from(), stanza.to()) else { return false };
        let account = self.registry.account(self.registry.key(&from));
        self.node.is_some()
            && self.is_ours(&to)
            && account.is_some_and(|row| self.is_hidden(&AccountState(row), &to))
    }
}

impl<C: SharedConnection> Asked<C> {
    fn reply(&self, type_: Option<&str>, from: &str) -> Stanza {
        let mut answer = Stanza::presence().from(from).to(self.from.as_str());
        if let Some(type_) = type_ {
            answer = answer.type_(type_);
        }
        if let Some(id) = self.stanza.id() {
            answer = answer.id(&id);
        }
        answer.build()
    }
}
