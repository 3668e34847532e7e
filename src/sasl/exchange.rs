//! One exchange: from `<auth/>` to success or failure.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jid::{BareJid, DomainPart, DomainRef};

use super::binding::ChannelBindings;
use super::error::SaslError;
use super::ht::{FastProof, Initiator};
use super::mechanism::Mechanism;
use super::policy::Policy;
use super::scram::{ClientFirst, ServerFirst};
use super::tokens::Accepted;
use super::upgrade::{Proved, Upgrade};
use super::{anonymous, bearer};
use crate::address;
use crate::environment::Environment;
use crate::store::{
    ClientCertificate, Credentials, ScramHash, ScramKeys, Verdict, prepare_password,
};

/// What an exchange knows of its stream.
pub(crate) struct Context {
    pub(crate) policy: Arc<Policy>,
    pub(crate) environment: Arc<dyn Environment>,
    pub(crate) domain: DomainPart,
    /// TLS-3: said by the host.
    pub(crate) secure: bool,
    pub(crate) bindings: ChannelBindings,
    /// The accounts of the domain that the client's certificate is for (EXTERNAL-1).
    pub(crate) certified: Vec<BareJid>,
    /// The store can add keys (UPGRADE-1).
    pub(crate) adds_keys: bool,
}

impl Context {
    /// The mechanisms of this stream, the preferred one first (SASL-1, SASL-11).
    pub(crate) fn offered(&self) -> impl Iterator<Item = Mechanism> + '_ {
        self.policy.mechanisms.iter().copied().filter(|mechanism| match mechanism {
            _ if !self.secure && self.policy.secure_only => false,
            _ if mechanism.is_for_tokens() => false,
            Mechanism::Plain => self.secure,
            Mechanism::OauthBearer | Mechanism::XOauth2 => {
                self.secure && self.policy.host_checks_tokens
            }
            Mechanism::Anonymous => self.policy.guests,
            Mechanism::External => self.secure && !self.certified.is_empty(),
            _ if mechanism.binds_channel() => self.secure && self.bindings.any(),
            _ => true,
        })
    }

    /// The mechanisms for tokens, for fast logins over SASL2 alone (FAST-1).
    pub(crate) fn for_tokens(&self) -> impl Iterator<Item = Mechanism> + '_ {
        let all = self.policy.mechanisms.iter().copied().filter(|_| self.secure);
        all.filter(|mechanism| self.bindings.of_token(*mechanism).is_some())
    }

    pub(crate) fn offers_binding(&self) -> bool {
        self.offered().any(Mechanism::binds_channel)
    }

    /// The hash functions for which a client may bring keys (UPGRADE-1).
    pub(crate) fn upgrades(&self) -> impl Iterator<Item = ScramHash> + '_ {
        let is_scram = |mechanism: &Mechanism| mechanism.hash().is_some();
        let are_of_use =
            self.adds_keys && self.secure && self.policy.mechanisms.iter().any(is_scram);
        self.policy.upgrades.iter().copied().filter(move |_| are_of_use)
    }

    /// What SCRAM tells the client of the offer it was made (SASL-12): attributes behind those of RFC 5802, which the
    /// proof covers.
    fn told(&self, hash: ScramHash) -> String {
        if !self.policy.downgrade_protection {
            return String::new();
        }
        // XEP-0474 §6.1
        let sorted = |mut names: Vec<&'static str>| {
            names.sort_unstable();
            names.join("\x1e")
        };
        let mut offer = sorted(self.offered().map(Mechanism::as_str).collect());
        if self.offers_binding() {
            offer.push('\x1f');
            offer.push_str(&sorted(self.bindings.types().collect()));
        }
        let mut told = format!(",h={}", STANDARD.encode(hash.hash(offer.as_bytes())));
        // XEP-0515 §4.1
        if let Some(version) = self.bindings.tls_version() {
            told.push_str(&format!(",t={version:04x}"));
        }
        told
    }
}

/// What comes next in an exchange that has not failed.
pub(crate) enum Step {
    /// Send this to the client.
    Challenge(Vec<u8>),
    /// Ask the store for the credentials of this account; then `credentials` or `store_failed`.
    NeedCredentials {
        /// Normalised (SASL-6); may not exist.
        account: BareJid,
    },
    /// Ask the host's `Authenticator`; then `verdict` or `store_failed`.
    CheckPassword {
        /// Normalised (SASL-6); may not exist.
        account: BareJid,
        /// As SASLprep left it.
        password: String,
    },
    /// Ask the host's `TokenAuthenticator`; then `token` or `store_failed`.
    CheckToken {
        /// Who the client says it is: normalised; may not exist.
        claimed: Option<BareJid>,
        /// As it came.
        token: String,
    },
    /// Ask the host's `TokenAuthenticator` what a client is told that has no token; then `token`.
    NeedDiscovery,
    /// Make an account for a guest; then `guest`.
    NeedGuest,
    /// Look for the token; then `fast` or `store_failed`.
    CheckFast {
        /// Normalised (SASL-6); may not exist.
        account: BareJid,
        /// That the client has a token.
        proof: FastProof,
    },
    /// The client is `account`'s: ask the store whether it may log in; then `verdict` or `store_failed`.
    CheckAccount {
        /// Of the domain; had been there a moment ago.
        account: BareJid,
    },
    /// Do this, wherever it delays nobody; then `hashed` with the result.
    CheckKeys(Box<dyn FnOnce() -> bool + Send>),
    /// The client has proved to be `account`; before it is let in, ask it for the keys for `task` in `<continue/>`.
    Continue {
        /// The user of the session (SASL-6).
        account: BareJid,
        /// Additional data.
        data: Option<Vec<u8>>,
        /// What the task is about.
        task: ScramHash,
    },
    /// Tell the client what to salt its password with.
    Salt {
        /// Of this account and hash function.
        salt: Vec<u8>,
        /// Of PBKDF2.
        iterations: u32,
    },
    /// Ask the store to add these keys; then `added` or `store_failed`.
    AddKeys {
        /// Whose.
        account: BareJid,
        /// By what the client has proved who it is.
        proved: (ScramHash, ScramKeys),
        /// What it brings.
        added: (ScramHash, ScramKeys),
    },
    /// The client has proved to be `account`, which is also the authorization identity it asked
    /// for.
    Success {
        /// The user of the session (SASL-6).
        account: BareJid,
        /// Additional data with success.
        data: Option<Vec<u8>>,
        /// Until when that is good (TOKEN-6).
        expires: Option<SystemTime>,
    },
}

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Challenge(_) => "Challenge",
            Self::NeedCredentials { .. } => "NeedCredentials",
            Self::CheckPassword { .. } => "CheckPassword",
            Self::CheckToken { .. } => "CheckToken",
            Self::NeedDiscovery => "NeedDiscovery",
            Self::NeedGuest => "NeedGuest",
            Self::CheckFast { .. } => "CheckFast",
            Self::CheckAccount { .. } => "CheckAccount",
            Self::CheckKeys(_) => "CheckKeys",
            Self::Continue { .. } => "Continue",
            Self::Salt { .. } => "Salt",
            Self::AddKeys { .. } => "AddKeys",
            Self::Success { .. } => "Success",
        })
    }
}

/// An exchange in progress, by what it waits for.
pub(super) enum Exchange {
    /// The client's first message.
    First(Mechanism),
    /// The store, with a password prepared by SASLprep.
    Plain { account: BareJid, password: String },
    /// The keys of the password.
    Hashing { account: BareJid, disabled: bool, proved: Proved },
    /// The store, with the client's first message and what `c=` has to be.
    Scram { account: BareJid, hash: ScramHash, message: Vec<u8>, binding: Vec<u8> },
    /// The host's verdict. `until`: what has been proved is good no longer.
    Host { account: BareJid, until: Option<SystemTime> },
    /// The host's verdict on a token. `tells`: whether the client is told more than a condition.
    Token { claimed: Option<BareJid>, tells: bool },
    /// The client was told what is wrong with its token, and has to answer before it fails (RFC 7628 §3.2.3).
    Told(SaslError),
    /// The server, which makes an account.
    Guest,
    /// What is known of the token.
    Fast { account: BareJid },
    /// The client's proof.
    Proof { account: BareJid, disabled: bool, expected: ServerFirst, proved: Proved },
    /// Nothing: it has succeeded, by these keys.
    Proved(Proved),
    /// Tasks behind the proof.
    Upgrade(Box<Upgrade>),
}

/// What to do, and the exchange after it unless it is over.
pub(super) type Next = Result<(Option<Exchange>, Step), SaslError>;

impl Exchange {
    /// Goes on with a message of the client.
    pub(super) fn respond(self, data: &[u8], context: &Context) -> Next {
        match self {
            Self::First(mechanism) if mechanism.is_for_tokens() => {
                first_fast(data, mechanism, context)
            }
            Self::First(mechanism) => match (mechanism, mechanism.hash()) {
                (_, Some(hash)) => first_scram(data, mechanism, hash, context),
                (Mechanism::External, None) => first_external(data, context),
                (Mechanism::OauthBearer, None) => bearer::first(data, &context.domain),
                (Mechanism::XOauth2, None) => bearer::first_plain(data, &context.domain),
                (Mechanism::Anonymous, None) => anonymous::first(data),
                (_, None) => first_plain(data, context),
            },
            Self::Told(error) => Err(error),
            Self::Proof { account, disabled, expected, proved } => {
                let data = expected.verify(data)?;
                succeed_by(proved, account, disabled, Some(data))
            }
            _ => Err(SaslError::MalformedRequest),
        }
    }

    /// Goes on with what the store found.
    pub(super) fn credentials(self, found: Option<&Credentials>, context: &Context) -> Next {
        let disabled = found.is_some_and(|credentials| credentials.disabled);
        match self {
            Self::Plain { account, password } => {
                // One hash function for all that have it, so that the time tells nothing.
                let usual = context.policy.password_hash();
                let has =
                    |hash: &ScramHash| found.is_some_and(|found| found.usable(*hash).is_some());
                let hash = std::iter::once(usual).chain(ScramHash::ALL).find(has).unwrap_or(usual);
                let (keys, known) = keys_or_decoy(found, hash, &account, context);
                let proved = Proved::new(found, hash, &keys);
                let check = Box::new(move || keys.verify(&password, hash) & known);
                Ok((Some(Self::Hashing { account, disabled, proved }), Step::CheckKeys(check)))
            }
            Self::Scram { account, hash, message, binding } => {
                let (keys, known) = keys_or_decoy(found, hash, &account, context);
                let proved = Proved::new(found, hash, &keys);
                let message = ClientFirst::parse(&message)?;
                let (expected, challenge) = message.challenge(
                    hash,
                    keys,
                    known,
                    binding,
                    &context.told(hash),
                    &*context.environment,
                );
                let proof = Self::Proof { account, disabled, expected, proved };
                Ok((Some(proof), Step::Challenge(challenge)))
            }
            _ => Err(SaslError::MalformedRequest),
        }
    }

    /// Goes on with the server's own proof, or why the token is not good.
    pub(super) fn fast(self, found: Result<Accepted, SaslError>) -> Next {
        let Self::Fast { account } = self else { return Err(SaslError::MalformedRequest) };
        let Accepted { answer, until, .. } = found?;
        Ok((None, Step::Success { account, data: Some(answer), expires: until }))
    }

    /// Goes on with the result of [`Step::CheckKeys`].
    pub(super) fn hashed(self, right: bool) -> Next {
        match self {
            Self::Hashing { account, disabled, proved } if right => {
                succeed_by(proved, account, disabled, None)
            }
            Self::Hashing { .. } => Err(SaslError::NotAuthorized),
            _ => Err(SaslError::MalformedRequest),
        }
    }

    /// Goes on with the tasks that a client has asked for, once it has succeeded (UPGRADE-1).
    pub(super) fn with_tasks(self, step: Step, asked: &[ScramHash], context: &Context) -> Next {
        match (self, step) {
            (Self::Proved(proved), Step::Success { account, data, expires }) => {
                match Upgrade::new(account.clone(), proved, asked, context) {
                    Some(upgrade) => upgrade.begin(data),
                    None => Ok((None, Step::Success { account, data, expires })),
                }
            }
            (exchange, step) => Ok((Some(exchange), step)),
        }
    }

    /// Goes on with a task that the client begins.
    pub(super) fn start_task(self, task: &str, context: &Context) -> Next {
        match self {
            Self::Upgrade(upgrade) => upgrade.start(task, context),
            _ => Err(SaslError::MalformedRequest),
        }
    }

    /// Goes on with what the client has worked out for a task.
    pub(super) fn task_data(self, data: &[u8], context: &Context) -> Next {
        match self {
            Self::Upgrade(upgrade) => upgrade.salted(data, context),
            _ => Err(SaslError::MalformedRequest),
        }
    }

    /// Goes on with the result of [`Step::AddKeys`].
    pub(super) fn added(self, is_added: bool) -> Next {
        match self {
            Self::Upgrade(upgrade) => upgrade.added(is_added),
            _ => Err(SaslError::MalformedRequest),
        }
    }

    /// Goes on with what the host's `Authenticator` found.
    pub(super) fn verdict(self, verdict: Verdict, utc: SystemTime) -> Next {
        let Self::Host { account, until } = self else { return Err(SaslError::MalformedRequest) };
        let admitted = admitted(verdict, utc)?;
        let expires = [admitted, until].into_iter().flatten().min();
        Ok((None, Step::Success { account, data: None, expires }))
    }

    /// Goes on with the account that was made for a guest; `None` where there is no room for one.
    pub(super) fn guest(self, account: Option<BareJid>) -> Next {
        match (self, account) {
            (Self::Guest, Some(account)) => succeed(account, false, None),
            (Self::Guest, None) => Err(SaslError::TemporaryAuthFailure),
            _ => Err(SaslError::MalformedRequest),
        }
    }
}

/// The one message of PLAIN ([RFC 4616](https://www.rfc-editor.org/rfc/rfc4616)): `[authzid] NUL authcid NUL passwd`.
fn first_plain(data: &[u8], context: &Context) -> Next {
    let text = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
    let mut parts = text.split('\0');
    let (Some(authzid), Some(authcid), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(SaslError::MalformedRequest);
    };
    let account = identity(authcid, authzid, &context.domain)?;
    let password = prepare_password(password).map_err(|_| SaslError::NotAuthorized)?.into_owned();
    let known = account.clone();
    Ok(if context.policy.host_checks_passwords {
        (
            Some(Exchange::Host { account: known, until: None }),
            Step::CheckPassword { account, password },
        )
    } else {
        (Some(Exchange::Plain { account: known, password }), Step::NeedCredentials { account })
    })
}

/// Until when a login is good that the host has found to be right, if that is not for ever.
pub(crate) fn admitted(verdict: Verdict, utc: SystemTime) -> Result<Option<SystemTime>, SaslError> {
    match verdict {
        Verdict::Accepted => Ok(None),
        Verdict::AcceptedUntil(at) if at <= utc => Err(SaslError::CredentialsExpired),
        Verdict::AcceptedUntil(at) => Ok(Some(at)),
        Verdict::Refused => Err(SaslError::NotAuthorized),
        Verdict::Disabled | Verdict::LockedUntil(_) => Err(SaslError::AccountDisabled),
        Verdict::Expired | Verdict::MustChange => Err(SaslError::CredentialsExpired),
        Verdict::Temporary => Err(SaslError::TemporaryAuthFailure),
    }
}

fn first_fast(data: &[u8], mechanism: Mechanism, context: &Context) -> Next {
    let message = Initiator::parse(data)?;
    let account = identity(message.authcid, "", &context.domain)?;
    let binding = context.bindings.of_token(mechanism).ok_or(SaslError::InvalidMechanism)?.to_vec();
    let proof = FastProof { mechanism, proof: message.proof.to_vec(), binding };
    Ok((Some(Exchange::Fast { account: account.clone() }), Step::CheckFast { account, proof }))
}

fn first_scram(data: &[u8], mechanism: Mechanism, hash: ScramHash, context: &Context) -> Next {
    let message = ClientFirst::parse(data)?;
    let binding =
        message.binding(mechanism.binds_channel(), context.offers_binding(), &context.bindings)?;
    let account = identity(&message.username, &message.authzid, &context.domain)?;
    let scram = Exchange::Scram { account: account.clone(), hash, message: data.to_vec(), binding };
    Ok((Some(scram), Step::NeedCredentials { account }))
}

/// The one message of EXTERNAL (RFC 4422 §A): an authorization identity, or nothing (EXTERNAL-2).
fn first_external(data: &[u8], context: &Context) -> Next {
    let authzid = std::str::from_utf8(data).map_err(|_| SaslError::MalformedRequest)?;
    if authzid.contains('\0') {
        return Err(SaslError::MalformedRequest);
    }
    let account = match (authzid, &*context.certified) {
        ("", [only]) => Some(only.clone()),
        ("", _) => None,
        _ => address::bare(authzid).ok().filter(|asked| context.certified.contains(asked)),
    };
    let account = account.ok_or(SaslError::InvalidAuthzid)?;
    let until = context.bindings.certificate().and_then(ClientCertificate::not_after);
    Ok((Some(Exchange::Host { account: account.clone(), until }), Step::CheckAccount { account }))
}

/// The end of every right proof: only here is a client told that its account is disabled (SASL-7).
fn succeed(account: BareJid, disabled: bool, data: Option<Vec<u8>>) -> Next {
    if disabled {
        return Err(SaslError::AccountDisabled);
    }
    Ok((None, Step::Success { account, data, expires: None }))
}

/// The same of a proof by stored keys, which the account may have too few of.
fn succeed_by(proved: Proved, account: BareJid, disabled: bool, data: Option<Vec<u8>>) -> Next {
    let (_, step) = succeed(account, disabled, data)?;
    Ok((Some(Exchange::Proved(proved)), step))
}

/// The keys to go on with, and whether they are real. An account without keys for this mechanism,
/// and one that does not exist, get a decoy, which is made in any case: the same work for all
/// (SASL-7).
fn keys_or_decoy(
    found: Option<&Credentials>,
    hash: ScramHash,
    account: &BareJid,
    context: &Context,
) -> (ScramKeys, bool) {
    let decoy = context.policy.decoy(account, hash);
    match found.and_then(|credentials| credentials.usable(hash)) {
        Some(keys) => (keys.clone(), true),
        None => (decoy, false),
    }
}

/// The account of a localpart (SASL-6), which is the only identity it may ask for (SASL-5).
pub(super) fn identity(
    authcid: &str,
    authzid: &str,
    domain: &DomainRef,
) -> Result<BareJid, SaslError> {
    let node = address::local(authcid).map_err(|_| SaslError::NotAuthorized)?;
    let account = BareJid::from_parts(Some(&node), domain);
    let own = |authzid| address::bare(authzid).is_ok_and(|authzid| authzid == account);
    if authzid.is_empty() || own(authzid) { Ok(account) } else { Err(SaslError::InvalidAuthzid) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Virtual;

    #[test]
    fn sasl_7_a_decoy_is_known_to_be_one() {
        let environment = Arc::new(Virtual::new(1));
        let context = Context {
            policy: Arc::new(Policy::new(&*environment)),
            environment,
            domain: DomainPart::new("example.com").unwrap().into_owned(),
            secure: true,
            bindings: ChannelBindings::new(),
            certified: Vec::new(),
            adds_keys: true,
        };
        let account = BareJid::new("juliet@example.com").unwrap();
        let keys =
            |found: Option<&Credentials>| keys_or_decoy(found, ScramHash::Sha1, &account, &context);
        assert!(!keys(None).1);
        assert!(!keys(Some(&Credentials::new())).1);
        let found = Credentials::from_password("pencil", &Virtual::new(1)).unwrap();
        let (keys, known) = keys(Some(&found));
        assert!(known && Some(keys) == found.scram_sha_1);
    }
}
