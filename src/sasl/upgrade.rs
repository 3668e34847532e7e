//! Keys for a stronger hash function, from a client that has just proved who it is
//! ([XEP-0480](https://xmpp.org/extensions/xep-0480.html)).

use jid::BareJid;

use super::error::SaslError;
use super::exchange::{Context, Exchange, Next, Step};
use crate::store::{Credentials, ScramHash, ScramKeys};

/// The namespace of the names of tasks, in the offer and in `<authenticate/>`.
pub(crate) const NS: &str = "urn:xmpp:sasl:upgrade:0";

/// The namespace of what is exchanged.
pub(crate) const SCRAM_NS: &str = "urn:xmpp:scram-upgrade:0";

/// The name of the task that brings keys for `hash`.
pub(crate) fn task(hash: ScramHash) -> String {
    format!("UPGR-SCRAM-{}", hash.as_str())
}

/// The hash function whose keys a task brings.
pub(crate) fn hash(task: &str) -> Option<ScramHash> {
    let name = task.strip_prefix("UPGR-SCRAM-")?;
    ScramHash::ALL.into_iter().find(|hash| hash.as_str() == name)
}

/// By what a client has proved who it is, and what its account has no keys for.
pub(super) struct Proved {
    keys: (ScramHash, ScramKeys),
    lacks: Vec<ScramHash>,
}

impl Proved {
    pub(super) fn new(found: Option<&Credentials>, hash: ScramHash, keys: &ScramKeys) -> Self {
        let lacks = |found: &Credentials| {
            ScramHash::ALL.into_iter().filter(|hash| found.usable(*hash).is_none()).collect()
        };
        Self { keys: (hash, keys.clone()), lacks: found.map(lacks).unwrap_or_default() }
    }
}

/// The tasks of a client that has proved who it is: the one under way, and those after it (UPGRADE-1).
pub(super) struct Upgrade {
    account: BareJid,
    proved: (ScramHash, ScramKeys),
    hash: ScramHash,
    later: Vec<ScramHash>,
    /// What the client was given to salt its password with.
    salt: Option<Vec<u8>>,
}

impl Upgrade {
    /// The tasks that a client has asked for, as far as they are offered and its account has any use for them.
    pub(super) fn new(
        account: BareJid,
        Proved { keys: proved, lacks }: Proved,
        asked: &[ScramHash],
        context: &Context,
    ) -> Option<Self> {
        let is_due = |hash: &ScramHash| context.upgrades().any(|one| one == *hash);
        let due = asked.iter().copied().filter(|hash| lacks.contains(hash)).filter(is_due);
        let mut later: Vec<_> = due.rev().collect();
        Some(Self { account, proved, hash: later.pop()?, later, salt: None })
    }

    /// `<continue/>`: `data` is what the mechanism has to say last.
    pub(super) fn begin(self, data: Option<Vec<u8>>) -> Next {
        let step = Step::Continue { account: self.account.clone(), data, task: self.hash };
        Ok((Some(Exchange::Upgrade(Box::new(self))), step))
    }

    /// `<next/>`
    pub(super) fn start(mut self, task: &str, context: &Context) -> Next {
        if hash(task) != Some(self.hash) || self.salt.is_some() {
            return Err(SaslError::MalformedRequest);
        }
        let mut salt = vec![0; Credentials::SALT_LEN];
        context.environment.random(&mut salt);
        self.salt = Some(salt.clone());
        let step = Step::Salt { salt, iterations: context.policy.iterations.get() };
        Ok((Some(Exchange::Upgrade(Box::new(self))), step))
    }

    /// `<task-data/>` with the `SaltedPassword` of RFC 5802 §3.
    pub(super) fn salted(mut self, salted: &[u8], context: &Context) -> Next {
        let salt = self.salt.take().ok_or(SaslError::MalformedRequest)?;
        if salted.len() != self.hash.output_len() {
            return Err(SaslError::MalformedRequest);
        }
        let iterations = context.policy.iterations.get();
        let keys = ScramKeys::of_salted(salted, &salt, iterations, self.hash);
        let (account, proved) = (self.account.clone(), self.proved.clone());
        let step = Step::AddKeys { account, proved, added: (self.hash, keys) };
        Ok((Some(Exchange::Upgrade(Box::new(self))), step))
    }

    /// Whether the store has added them. Where it has not, the password has been changed since it was proved
    /// (UPGRADE-2).
    pub(super) fn added(mut self, is_added: bool) -> Next {
        if !is_added {
            return Err(SaslError::CredentialsExpired);
        }
        match self.later.pop() {
            Some(hash) => Self { hash, ..self }.begin(None),
            None => Ok((None, Step::Success { account: self.account, data: None, expires: None })),
        }
    }
}
