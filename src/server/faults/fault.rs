//! What may go wrong, in the words in which it is told.

use std::fmt;

use jid::BareJid;

use super::peer::PeerAddress;
use crate::named::named;
use crate::sasl::{Mechanism, SaslError};
use crate::session::HostCode;
use crate::store::StoreError;
use crate::stream::{Limit, StreamCondition};

/// Something that went wrong, or was refused.
///
/// `Display` says it in a line for the operator, with the peer and the account where they are known;
/// `Debug` names neither ([SEC-6](crate::rules#sec-6)).
#[derive(Clone)]
#[non_exhaustive]
pub struct Fault {
    pub(super) kind: FaultKind,
    pub(super) peer: PeerAddress,
    pub(super) account: Option<BareJid>,
    pub(super) left_out: u64,
}

/// What went wrong.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FaultKind {
    /// A login has failed. The account is the one that was asked for, whether or not there is one.
    #[non_exhaustive]
    Login {
        /// The mechanism, if it is one that this crate knows.
        mechanism: Option<Mechanism>,
        /// Why: [`SaslError::InvalidMechanism`] is the mechanism, [`SaslError::NotAuthorized`] the
        /// credentials, [`SaslError::TemporaryAuthFailure`] a store (which has a fault of its own).
        error: SaslError,
    },
    /// A store, or an authenticator, could not do what was asked.
    #[non_exhaustive]
    Store {
        /// What was asked.
        call: StoreCall,
        /// In which way it failed.
        failure: StoreFailure,
        /// Its error, with all its sources.
        error: String,
    },
    /// Code of the host has panicked, and failed alone.
    #[non_exhaustive]
    Panic {
        /// Whose code it was.
        code: HostCode,
        /// Its message, where that is a text.
        message: Option<String>,
    },
    /// A TLS handshake, or TLS after it.
    #[non_exhaustive]
    Tls {
        /// What the TLS library says.
        error: String,
    },
    /// A limit was hit (section 13 of the rules).
    Limit(Limit),
    /// A stream was closed with this error, for what its client sent.
    Stream(StreamCondition),
    /// This node may not act any more ([NODE-2](crate::rules#node-2)): its sessions are gone, and a new server has to take its place.
    #[cfg(feature = "cluster")]
    Fenced,
    /// The engine of the cluster has failed.
    #[cfg(feature = "cluster")]
    #[non_exhaustive]
    Engine {
        /// What it, or its client, says.
        error: String,
    },
    /// What another node is about to hand over of some accounts cannot be read: they stay there, and that is tried again
    /// ([NODE-9](crate::rules#node-9)).
    Arrival,
}

impl Fault {
    /// What went wrong.
    #[must_use]
    pub const fn kind(&self) -> &FaultKind {
        &self.kind
    }

    /// The client's transport, where it is known: [`Transport::source`](crate::server::Transport::source).
    #[must_use]
    pub const fn peer(&self) -> &PeerAddress {
        &self.peer
    }

    /// The account, where it is known.
    #[must_use]
    pub const fn account(&self) -> Option<&BareJid> {
        self.account.as_ref()
    }

    /// How many of the same kind, of the same peer, were left out since the last one that was told ([FAULT-5](crate::rules#fault-5)).
    #[must_use]
    pub const fn left_out(&self) -> u64 {
        self.left_out
    }
}

impl FaultKind {
    /// Its name, for logs and metrics.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Login { .. } => "login",
            Self::Store { .. } => "store",
            Self::Panic { .. } => "panic",
            Self::Tls { .. } => "tls",
            Self::Limit(_) => "limit",
            Self::Stream(_) => "stream",
            #[cfg(feature = "cluster")]
            Self::Fenced => "fenced",
            #[cfg(feature = "cluster")]
            Self::Engine { .. } => "engine",
            Self::Arrival => "arrival",
        }
    }

    /// What is wrong about it, in one word of its kind: a condition, a limit's id, a call.
    #[must_use]
    pub const fn detail(&self) -> &'static str {
        match self {
            Self::Login { error, .. } => error.as_str(),
            Self::Store { call, .. } => call.as_str(),
            Self::Panic { code, .. } => code.as_str(),
            Self::Tls { .. } => "handshake",
            Self::Limit(limit) => limit.as_str(),
            Self::Stream(condition) => condition.as_str(),
            #[cfg(feature = "cluster")]
            Self::Fenced => "node",
            #[cfg(feature = "cluster")]
            Self::Engine { .. } => "call",
            Self::Arrival => "unreadable",
        }
    }

    /// Whether it is the peer's doing, so that faults of two peers are not the same.
    pub(super) const fn is_of_peer(&self) -> bool {
        #[cfg(feature = "cluster")]
        if matches!(self, Self::Fenced | Self::Engine { .. }) {
            return false;
        }
        !matches!(self, Self::Store { .. } | Self::Panic { .. } | Self::Arrival)
    }
}

impl fmt::Debug for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple(self.as_str()).field(&self.detail()).finish()
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Login { mechanism: Some(mechanism), error } => {
                write!(f, "login with {mechanism} failed: {error}")
            }
            Self::Login { mechanism: None, error } => write!(f, "login failed: {error}"),
            Self::Store { call, error, .. } => write!(f, "{call}: {}", OneLine(error)),
            Self::Panic { code, message } => {
                let message = message.as_deref().unwrap_or("it left no message");
                write!(f, "the host's {code} panicked: {}", OneLine(message))
            }
            Self::Tls { error } => write!(f, "TLS failed: {}", OneLine(error)),
            Self::Limit(limit) => write!(f, "limit {limit}"),
            Self::Stream(condition) => write!(f, "stream closed: {}", condition.as_str()),
            #[cfg(feature = "cluster")]
            Self::Fenced => f.write_str("this node may not act any more"),
            #[cfg(feature = "cluster")]
            Self::Engine { error } => write!(f, "the cluster's engine: {}", OneLine(error)),
            Self::Arrival => {
                f.write_str("accounts of another node came in a form that cannot be read")
            }
        }
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fault").field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        if let Some(account) = &self.account {
            write!(f, ", account {account}")?;
        }
        if self.peer.is_known() {
            write!(f, ", from {}", self.peer)?;
        }
        if self.left_out > 0 {
            write!(f, " ({} more of these left out)", self.left_out)?;
        }
        Ok(())
    }
}

/// Text of others in a log: no character of it begins a line or controls a terminal.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        let mut text = self.0.chars();
        text.try_for_each(|c| f.write_char(if c.is_control() { ' ' } else { c }))
    }
}

named! {
    /// What a store was asked for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum StoreCall {
        /// [`AccountStore::credentials`](crate::store::AccountStore::credentials)
        Credentials = "credentials",
        /// [`AccountStore::exists`](crate::store::AccountStore::exists)
        Exists = "exists",
        /// [`AccountStore::set_credentials`](crate::store::AccountStore::set_credentials)
        SetCredentials = "set-credentials",
        /// [`AccountStore::add_keys`](crate::store::AccountStore::add_keys)
        AddKeys = "add-keys",
        /// [`AccountStore::remove`](crate::store::AccountStore::remove)
        RemoveAccount = "remove-account",
        /// [`Authenticator::check_login`](crate::store::Authenticator::check_login)
        CheckPassword = "check-password",
        /// [`TokenAuthenticator::check_token`](crate::store::TokenAuthenticator::check_token)
        CheckToken = "check-token",
        /// [`CertificateMapper::accounts`](crate::store::CertificateMapper::accounts)
        MapCertificate = "map-certificate",
        /// [`RosterStore::load`](crate::store::RosterStore::load)
        LoadRoster = "load-roster",
        /// [`RosterStore::contact`](crate::store::RosterStore::contact)
        LoadContact = "load-contact",
        /// [`RosterStore::apply`](crate::store::RosterStore::apply) and [`RosterStore::apply_pair`](crate::store::RosterStore::apply_pair)
        ChangeRoster = "change-roster",
        /// [`RosterStore::requests`](crate::store::RosterStore::requests)
        LoadRequests = "load-requests",
        /// [`RosterStore::clear`](crate::store::RosterStore::clear)
        ClearRoster = "clear-roster",
        /// [`OfflineStore::push`](crate::store::OfflineStore::push)
        PushMessage = "push-message",
        /// [`OfflineStore::list`](crate::store::OfflineStore::list)
        ListMessages = "list-messages",
        /// [`OfflineStore::remove`](crate::store::OfflineStore::remove)
        RemoveMessages = "remove-messages",
        /// [`OfflineStore::count`](crate::store::OfflineStore::count)
        CountMessages = "count-messages",
        /// [`OfflineStore::clear`](crate::store::OfflineStore::clear)
        ClearMessages = "clear-messages",
        /// [`BlockStore::load`](crate::store::BlockStore::load), by the host. [`xep::Blocking`](crate::xep::Blocking) calls its store itself, told as
        /// [`Extension`](Self::Extension); so it does for changes.
        LoadBlocks = "load-blocks",
        /// [`BlockStore::apply`](crate::store::BlockStore::apply)
        ChangeBlocks = "change-blocks",
        /// [`BlockStore::clear`](crate::store::BlockStore::clear)
        ClearBlocks = "clear-blocks",
        /// [`TokenStore::client`](crate::store::TokenStore::client)
        LoadTokens = "load-tokens",
        /// [`TokenStore::clients`](crate::store::TokenStore::clients)
        ListTokens = "list-tokens",
        /// [`TokenStore::replace`](crate::store::TokenStore::replace)
        ChangeTokens = "change-tokens",
        /// [`TokenStore::clear`](crate::store::TokenStore::clear)
        ClearTokens = "clear-tokens",
        /// Of an extension: [`Extension::load`](crate::extension::Extension::load), or the cause of an error
        /// with which it has answered.
        Extension = "extension",
        /// Everything that a session needs of its account: too late ([BIND-7](crate::rules#bind-7)).
        LoadAccount = "load-account",
        /// That a slot has come to this node (of a store that several share).
        ClaimSlot = "claim-slot",
        /// For a term of the cluster (of a store that several share).
        CountTerm = "count-term",
    }
    /// All of them.
    pub(in crate::server) const ALL;
    /// Its name, for logs and metrics.
    pub const fn as_str;
}

impl fmt::Display for StoreCall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store call {}", self.as_str())
    }
}

/// In which way a store failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StoreFailure {
    /// [`StoreError::Failed`], or a panic.
    Failed,
    /// [`StoreError::Full`]: as much as the account may keep.
    Full,
    /// [`StoreError::NoSpace`]: a full disk.
    NoSpace,
    /// There was no answer in time.
    Late,
}

impl StoreFailure {
    pub(super) const fn of(error: &StoreError) -> Self {
        match error {
            StoreError::Failed(_) => Self::Failed,
            StoreError::Full => Self::Full,
            StoreError::NoSpace(_) => Self::NoSpace,
        }
    }
}
