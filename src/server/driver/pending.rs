//! Work that the driver waits for before it goes on with its input (STREAM-23).

use std::pin::Pin;

use crate::connection::SharedConnection;
use crate::server::work::oneshot::Receiver;
use crate::session::{Authed, Bound, Session};
use crate::stanza::Condition;
use crate::store::{Credentials, StoreError, Verdict};

pub(super) enum Pending<C: SharedConnection> {
    /// The answer of a store to SASL.
    Sasl(Pin<Box<dyn Future<Output = SaslAnswer> + Send>>),
    Bind(Box<BindWait<C>>),
    /// A stanza that waits for a store or a handler.
    Stanza(Receiver<()>),
}

/// What a store answered to SASL.
pub(super) enum SaslAnswer {
    Credentials(Result<Option<Credentials>, StoreError>),
    Verdict(Result<Verdict, StoreError>),
    /// `None`: it could not be checked.
    Hashed(Option<bool>),
}

/// A bind under way on the account's chain.
pub(super) struct BindWait<C: SharedConnection> {
    pub(super) done: Receiver<BindOutcome<C>>,
    /// The id of the request.
    pub(super) id: Box<str>,
}

/// The session bound, or given back with what its client is told.
pub(super) type BindOutcome<C> = Result<Session<Bound, C>, (Session<Authed, C>, Condition)>;
