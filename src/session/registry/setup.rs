//! What a session is to have from its first moment.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use super::resume::Retention;
use crate::session::account::Values;

/// What a session is to have from its first moment: before it can be found, hence before any stanza
/// reaches it ([BIND2-5](crate::rules#bind2-5)).
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use xmpp_session::connection::Recorder;
/// use xmpp_session::environment::Virtual;
/// use xmpp_session::session::{BindRequest, SessionRegistry, SessionSetup};
///
/// let registry = SessionRegistry::<Recorder>::builder(Arc::new(Virtual::new(1))).build();
/// let retention = registry.retention(Duration::from_secs(300));
/// let id = retention.token.clone(); // for the client, in the reply to its bind
/// let mut setup = SessionSetup::default();
/// setup.retain(retention);
/// let request = BindRequest::new().setup(setup);
/// # drop((id, request));
/// ```
#[derive(Clone, Default)]
pub struct SessionSetup {
    pub(super) retention: Option<Retention>,
    pub(super) values: Values,
    pub(super) of_account: Values,
    pub(super) holding: bool,
}

impl SessionSetup {
    /// Keeps stanzas until the client acknowledges them, as [`Session::retain`] does later.
    ///
    /// [`Session::retain`]: crate::session::Session::retain
    pub fn retain(&mut self, retention: Retention) {
        self.retention = Some(retention);
    }

    /// Whether stanzas are to be kept.
    #[must_use]
    pub const fn is_retained(&self) -> bool {
        self.retention.is_some()
    }

    /// Keeps a value for the session ([`SessionHandle::set_extension`]).
    ///
    /// [`SessionHandle::set_extension`]: crate::session::SessionHandle::set_extension
    pub fn set_extension<T: Any + Send + Sync>(&mut self, value: T) {
        let _old = self.values.put(Arc::new(value));
    }

    /// Keeps a value for the account ([`AccountState::set_extension`]), unless there is one of its type.
    ///
    /// [`AccountState::set_extension`]: crate::session::AccountState::set_extension
    pub fn set_account_extension<T: Any + Send + Sync>(&mut self, value: T) {
        let _old = self.of_account.put(Arc::new(value));
    }

    /// Holds back what the client of an inactive session is spared ([`SessionHandle::set_holding`]).
    ///
    /// [`SessionHandle::set_holding`]: crate::session::SessionHandle::set_holding
    pub const fn set_holding(&mut self, holding: bool) {
        self.holding = holding;
    }
}

impl fmt::Debug for SessionSetup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionSetup")
            .field("retention", &self.retention)
            .field("holding", &self.holding)
            .finish_non_exhaustive()
    }
}
