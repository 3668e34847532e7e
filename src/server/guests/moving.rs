//! Guests at several nodes: one is let in at any, and its account lives where its name belongs (GUEST-7).

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use jid::BareJid;

use super::{Guest, Guests};
use crate::connection::SharedConnection;
use crate::packed::{Reader, Writer};
use crate::rules::roster::{Item, Roster};
use crate::server::Core;
use crate::session::{Which, read_roster, write_roster};
use crate::store::{RosterChange, RosterStore, SubscriptionRequest};

/// What is kept for guests is in memory: nobody waits for it.
fn at_once<T: Default, E>(future: impl Future<Output = Result<T, E>>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(value)) => value,
        _ => T::default(),
    }
}

impl Guests {
    /// The account of a guest that another node has let in, or this one, lives here from now on.
    pub(in crate::server) fn lodge(&self, account: &BareJid, elsewhere: bool) {
        let mut accounts = self.accounts.write();
        let guest = Guest { elsewhere, is_here: false, is_let_in: false };
        accounts.entry(account.clone()).or_insert(guest).is_here = true;
    }

    fn those(&self, which: Which<'_>) -> Vec<(BareJid, bool)> {
        let accounts = self.accounts.read();
        let here = accounts.iter().filter(|(one, guest)| guest.is_here && which.has(one.as_str()));
        here.map(|(one, guest)| (one.clone(), guest.elsewhere)).collect()
    }

    pub(in crate::server) fn export(&self, which: Which<'_>, out: &mut Writer) {
        let guests = self.those(which);
        out.count(guests.len());
        for (account, elsewhere) in guests {
            let stored = at_once(self.kept.load(&account));
            let requests: Vec<_> = at_once(self.kept.requests(&account));
            out.text(account.as_str());
            out.flag(elsewhere);
            write_roster(out, &Roster::from_items(stored.items, stored.version, []));
            out.list(&requests, |out, request: &SubscriptionRequest| {
                out.text(request.from.as_str());
                out.bytes(&request.stanza);
            });
        }
    }

    /// They live here from now on.
    pub(in crate::server) fn import(&self, guests: &[Lodger]) {
        for Lodger { account, elsewhere, roster, requests } in guests {
            self.lodge(account, *elsewhere);
            let put = |change| at_once(self.kept.apply(account, change));
            for item in roster.iter() {
                let Ok(jid) = BareJid::new(item.jid()) else { continue };
                let mut one = Item::new(jid);
                one.name = item.name().map(str::to_owned);
                one.groups = item.groups().map(str::to_owned).collect();
                one.subscription = item.subscription();
                (one.ask, one.approved) = (item.ask(), item.approved());
                put(RosterChange::new().version(roster.version()).put(one));
            }
            for request in requests {
                put(RosterChange::new().add_request(request.clone()));
            }
        }
    }

    /// They live elsewhere.
    pub(in crate::server) fn forget(&self, which: Which<'_>) {
        for (account, _) in self.those(which) {
            self.change(&account, |guest| guest.is_here = false);
            at_once(RosterStore::clear(&self.kept, &account));
        }
    }
}

/// A guest on its way to another node.
pub(in crate::server) struct Lodger {
    pub(in crate::server) account: BareJid,
    elsewhere: bool,
    roster: Roster,
    requests: Vec<SubscriptionRequest>,
}

impl Lodger {
    pub(in crate::server) fn read(input: &mut Reader<'_>) -> Option<Self> {
        let jid = |input: &mut Reader<'_>| BareJid::new(input.text()?).ok();
        Some(Self {
            account: jid(input)?,
            elsewhere: input.flag()?,
            roster: read_roster(input)?,
            requests: input.list(|input| {
                Some(SubscriptionRequest::new(jid(input)?, input.bytes()?.to_vec()))
            })?,
        })
    }
}

impl<C: SharedConnection> Core<C> {
    /// The client of an account is here, which is a guest's.
    pub(in crate::server) fn lodge_guest(&self, account: &BareJid) {
        let domain = self.domain(account.domain().as_str());
        let policy = domain.and_then(|domain| domain.guests.as_ref());
        if let Some((guests, policy)) = self.guests.as_ref().zip(policy) {
            guests.lodge(account, policy.elsewhere);
        }
    }
}
