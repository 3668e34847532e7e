//! Who lives in every world, and what the server allows them.

use std::num::NonZeroU32;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use xmpp_session::environment::Virtual;
use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::{Item, Subscription};
use xmpp_session::server::Limits;
use xmpp_session::store::{
    AccountStore, Credentials, RosterChange, RosterStore, StoreError, StoreFuture,
};

use super::device::{DOMAIN, PASSWORD};
use super::random::Random;

pub const NODES: [&str; 3] = ["romeo", "juliet", "nurse"];

pub const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The accounts, and what they see of each other.
pub fn furnish(accounts: &dyn AccountStore, rosters: &dyn RosterStore, environment: &Virtual) {
    for node in NODES {
        let account = bare(node);
        let credentials =
            Credentials::from_password_with(PASSWORD, NonZeroU32::MIN, environment).unwrap();
        at_once(accounts.set_credentials(&account, credentials)).unwrap();
        for (contact, version) in NODES.into_iter().zip(1..) {
            let mut item = Item::new(bare(contact));
            item.subscription = Subscription::Both;
            if contact == node {
                continue;
            }
            let change = RosterChange::new().version(version).put(item);
            at_once(rosters.apply(&account, change)).unwrap();
        }
    }
}

/// The answer of a store that does not wait.
pub fn at_once<T>(mut answer: StoreFuture<T>) -> Result<T, StoreError> {
    match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => panic!("memory does not wait"),
    }
}

/// The limits of a world.
pub fn limits(random: &mut Random) -> Limits {
    let mut limits = Limits::default();
    limits.presence = None;
    limits.stanzas = None;
    if random.chance(30) {
        limits.retention.window = seconds(30);
    }
    if random.chance(30) {
        limits.hibernating_per_account = 1;
    }
    if random.chance(20) {
        limits.soft_mark = 500;
    }
    limits
}

pub fn bare(node: &str) -> BareJid {
    BareJid::new(&format!("{node}@{DOMAIN}")).unwrap()
}
