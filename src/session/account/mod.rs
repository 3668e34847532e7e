//! What the sessions of one account share.

mod values;

use std::sync::Arc;

use jid::BareJid;

use crate::rules::roster::Roster;
use crate::sync::RwLock;

pub use values::AccountState;
pub(crate) use values::{Value, Values};

/// What the sessions of one account share.
pub(crate) struct Account {
    pub(crate) bare: BareJid,
    data: RwLock<Data>,
}

struct Data {
    /// `None`: as that of a new account.
    roster: Option<Arc<Roster>>,
    values: Values,
}

impl Account {
    pub(crate) fn new(bare: BareJid, roster: Roster, values: Values) -> Self {
        Self { bare, data: RwLock::new(Data { roster: compact(roster), values }) }
    }

    /// The roster as it is now: what is returned never changes.
    pub(crate) fn roster(&self) -> Arc<Roster> {
        self.data.read().roster.clone().unwrap_or_default()
    }

    /// Replaces the roster. Readers of an older one keep that.
    pub(crate) fn set_roster(&self, roster: Roster) {
        let roster = compact(roster);
        let _old = std::mem::replace(&mut self.data.write().roster, roster);
    }

    /// Whether extensions keep something.
    #[cfg(feature = "server")]
    pub(crate) fn keeps_values(&self) -> bool {
        !self.data.read().values.is_empty()
    }

    pub(super) fn values<T>(&self, look: impl FnOnce(&Values) -> T) -> T {
        look(&self.data.read().values)
    }

    /// Puts in what extensions want to keep and do not yet. The rest is returned.
    pub(super) fn fill_values(&self, more: Values) -> Values {
        if more.is_empty() {
            return more;
        }
        self.data.write().values.fill(more)
    }

    /// Changes what extensions keep; what is taken out is dropped without the lock.
    pub(super) fn change_values<T>(&self, change: impl FnOnce(&mut Values) -> T) {
        let _old = change(&mut self.data.write().values);
    }
}

/// Many accounts have no contacts: their roster takes no memory.
fn compact(roster: Roster) -> Option<Arc<Roster>> {
    (!roster.is_new()).then(|| Arc::new(roster))
}
