//! What extensions keep for a session or for an account, told apart by its type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use jid::BareJid;
use smallvec::SmallVec;

use super::Account;

pub(crate) type Value = Arc<dyn Any + Send + Sync>;

/// Values of different types: one pointer where there are none.
#[derive(Clone, Default)]
pub(crate) struct Values(Option<Box<SmallVec<[Value; 1]>>>);

impl Values {
    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    pub(crate) fn get<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let value = self.0.as_ref()?.iter().find(|value| (***value).is::<T>())?;
        Arc::clone(value).downcast().ok()
    }

    /// Puts in a value. What it replaces is returned, to be dropped without a lock.
    pub(crate) fn put(&mut self, value: Value) -> Option<Value> {
        let values = self.0.get_or_insert_default();
        let type_ = (*value).type_id();
        match values.iter_mut().find(|old| (***old).type_id() == type_) {
            Some(old) => Some(std::mem::replace(old, value)),
            None => {
                values.push(value);
                None
            }
        }
    }

    /// Puts in those of whose types there are none. The others are returned, to be dropped without a lock.
    pub(crate) fn fill(&mut self, more: Self) -> Self {
        let mut left = Self::default();
        for value in more.0.into_iter().flat_map(|more| *more) {
            let is_known = self.0.iter().flat_map(|values| values.iter());
            let mut is_known = is_known.map(|known| (**known).type_id());
            if is_known.any(|known| known == (*value).type_id()) {
                let _new = left.put(value);
            } else {
                let _new = self.put(value);
            }
        }
        left
    }

    pub(crate) fn take<T: Any + Send + Sync>(&mut self) -> Option<Value> {
        let values = self.0.as_mut()?;
        let at = values.iter().position(|value| (**value).is::<T>())?;
        let value = values.remove(at);
        if values.is_empty() {
            self.0 = None;
        }
        Some(value)
    }
}

/// What is kept in memory for one account: shared by its sessions as long as it has any, or loaded
/// for the moment in which a stanza arrives for it. Cheap to clone.
#[derive(Clone)]
pub struct AccountState(pub(crate) Arc<Account>);

impl AccountState {
    /// The account.
    #[must_use]
    pub fn jid(&self) -> &BareJid {
        &self.0.bare
    }

    /// The value of this type, if an extension keeps one.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.values(Values::get)
    }

    /// Keeps a value for as long as the account has a session; it replaces the one of its type.
    pub fn set_extension<T: Any + Send + Sync>(&self, value: T) {
        self.0.change_values(|values| values.put(Arc::new(value)));
    }

    /// Keeps the value of this type no longer.
    pub fn remove_extension<T: Any + Send + Sync>(&self) {
        self.0.change_values(Values::take::<T>);
    }
}

impl fmt::Debug for AccountState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccountState").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_told_apart_by_type() {
        let mut values = Values::default();
        assert!(values.get::<u8>().is_none() && values.is_empty());
        assert!(values.put(Arc::new(1_u8)).is_none());
        assert!(values.put(Arc::new("text")).is_none());
        assert!(values.put(Arc::new(2_u8)).is_some());
        assert_eq!(values.get::<u8>().as_deref(), Some(&2));
        assert_eq!(values.get::<&str>().as_deref(), Some(&"text"));
        assert!(values.take::<u8>().is_some() && values.take::<u8>().is_none());
        assert!(!values.is_empty());
        assert!(values.take::<&str>().is_some() && values.is_empty());
    }

    #[test]
    fn nothing_kept_costs_one_pointer() {
        assert_eq!(size_of::<Values>(), size_of::<usize>());
    }
}
