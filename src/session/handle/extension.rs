//! What extensions keep for a session.

use std::any::Any;
use std::sync::Arc;

use super::SessionHandle;
use crate::connection::SharedConnection;
use crate::session::account::{AccountState, Value};

impl<C: SharedConnection> SessionHandle<C> {
    /// The value of this type that an extension keeps for the session.
    #[must_use]
    pub fn extension<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.0.presence.lock().rare()?.values.get()
    }

    /// Keeps a value for the session, across resumptions too; it replaces the one of its type.
    pub fn set_extension<T: Any + Send + Sync>(&self, value: T) {
        let value: Value = Arc::new(value);
        let _old = self.0.presence.lock().change(|rare| rare.values.put(value));
    }

    /// Keeps the value of this type no longer.
    pub fn remove_extension<T: Any + Send + Sync>(&self) {
        let _old = self.0.presence.lock().change(|rare| rare.values.take::<T>());
    }

    /// What is kept for the session's account.
    #[must_use]
    pub fn account_state(&self) -> AccountState {
        AccountState(Arc::clone(&self.0.account))
    }
}
