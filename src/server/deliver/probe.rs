//! Probes: what an account of this server answers when asked for its presence (RFC 6121 §4.3.2, §4.6.6).

use std::sync::Arc;

use jid::BareJid;

use super::address::Address;
use super::give::Origin;
use crate::connection::SharedConnection;
use crate::extension::Admission;
use crate::rules::presence::{Probe, ProbeAnswer, answer_probe};
use crate::rules::roster::Roster;
use crate::server::{Core, Task};
use crate::session::{Item, SessionHandle, Validity};
use crate::stanza::Stanza;
use crate::stanza::delay::delay;

/// A probe, and its sender.
struct Asked<C: SharedConnection> {
    /// The session that asks, if it is a local one.
    origin: Option<SessionHandle<C>>,
    stanza: Stanza,
    to: Address<'static>,
    from: BareJid,
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
        let from = BareJid::clone(&self.address(&stanza.from()?).ok()?.bare);
        let asked =
            Asked { origin: origin.cloned(), stanza: stanza.clone(), to: to.to_static(), from };
        let core = Arc::clone(self);
        let job = async move {
            // An account that had sessions when the probe came was asked then; but the probe is from
            // the bare JID, and the answer goes to the session.
            let Ok(state) = core.loaded_state(&asked.to.bare).await else { return };
            let hidden = |origin: &SessionHandle<C>| core.is_hidden(&state, origin.jid().as_str());
            if !matches!(core.admit_to(&state, &asked.stanza), Admission::Accept)
                || asked.origin.as_ref().is_some_and(hidden)
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
                self.answer(asked.origin.as_ref(), asked.reply(Some("unsubscribed"), account))
            }
            ProbeAnswer::Unavailable => {
                let mut answer = asked.reply(Some("unavailable"), &to.to_text());
                let last = self.registry.last_gone(account).filter(|_| !facts.full);
                if let Some(at) = last {
                    answer = answer.with_appended(&delay(account, at));
                }
                self.answer(asked.origin.as_ref(), answer);
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
        let (origin, from) = (asked.origin.as_ref(), asked.from.as_str());
        let to = origin.map_or(from, |origin| origin.jid().as_str());
        let presence = presence.readdressed(Some(session.jid().as_str()), Some(to));
        if let Some(origin) = origin {
            let _refused = origin.send_item(&Item::new(&presence).while_valid(validity));
        } else if !self.is_here(from) {
            self.route_elsewhere(None, presence, validity);
        }
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
