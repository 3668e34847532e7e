//! Tokens: what a client may log in with instead of a password, as long as the server trusts it (XEP-0484).
//!
//! Nothing here waits. A record of the client's tokens comes from the store and a changed one goes back, on condition that
//! nobody has changed it meanwhile; else all is judged anew.
//!
//! ```text
//! secret of the server ─┐
//!                       ├─ HMAC ─▶ token ─▶ the client
//! account, client,      │
//! mechanism, number ────┤
//! nonce of the record ──┘
//! ```

use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jid::BareJid;

use super::error::SaslError;
use super::establish::UsedToken;
use super::ht::FastProof;
use super::mechanism::Mechanism;
use super::policy::Policy;
use crate::environment::Environment;
use crate::store::{ClientKey, ClientTokens, Credentials, Revision, ScramHash, Token};

/// How long the tokens of fast logins are good for.
///
/// ```
/// use std::time::Duration;
/// use xmpp_session::environment::System;
/// use xmpp_session::sasl::{Policy, FastPolicy};
///
/// let week = Duration::from_secs(7 * 24 * 3600);
/// let policy = Policy::new(&System::new()).fast(FastPolicy::new().lifetime(week));
/// ```
#[derive(Clone, Debug)]
#[must_use = "does nothing until a policy is given it"]
pub struct FastPolicy {
    lifetime: Duration,
    renewal: Duration,
    pub(super) early_data: bool,
}

impl FastPolicy {
    /// Tokens for 21 days, replaced when they are used after a day; not in early data.
    pub const fn new() -> Self {
        Self {
            lifetime: Duration::from_secs(21 * DAY),
            renewal: Duration::from_secs(DAY),
            early_data: false,
        }
    }

    /// How long a token can be used, and so how long a device may be away without logging in with its password. A shorter
    /// time holds for the tokens that were issued before, too. Between a second and ten years.
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime.clamp(Duration::from_secs(1), Duration::from_secs(3653 * DAY));
        self
    }

    /// How old a token may be without being replaced at its next use; at most half of its lifetime.
    pub const fn renewal(mut self, age: Duration) -> Self {
        self.renewal = age;
        self
    }

    /// Whether clients may log in with a token in the early data of TLS, which others can send again: the count that
    /// comes with it must then be higher each time ([FAST-6](crate::rules#fast-6)). Default: no.
    pub const fn early_data(mut self, allowed: bool) -> Self {
        self.early_data = allowed;
        self
    }

    /// What holds of the token now, whatever held when it was issued.
    fn expiry(&self, token: &Token) -> SystemTime {
        let now = token.issued.checked_add(self.lifetime);
        now.map_or(token.expiry, |now| now.min(token.expiry))
    }

    fn is_expired(&self, token: &Token, now: SystemTime) -> bool {
        self.expiry(token) <= now
    }

    fn is_due(&self, token: &Token, now: SystemTime) -> bool {
        let age = now.duration_since(token.issued).unwrap_or_default();
        age >= self.renewal.min(self.lifetime / 2)
    }
}

impl Default for FastPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// Whose token it is: one client of one account (FAST-3).
#[derive(Clone)]
pub(crate) struct Holder {
    pub(crate) account: BareJid,
    pub(crate) client: ClientKey,
}

/// What a client calls itself, for its user to know it by.
#[derive(Clone, Default)]
pub(crate) struct Description {
    pub(crate) software: Option<String>,
    pub(crate) device: Option<String>,
}

/// The credentials that an account has, as far as a token depends on them: a tag for each kind of key. Credentials that have a
/// key in common are of one password: another kind of key may be added and taken away.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Fingerprint(Vec<u8>);

impl Fingerprint {
    #[cfg(feature = "cluster")]
    pub(crate) const fn of_node(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    fn fits(&self, then: &[u8]) -> bool {
        if self.0.is_empty() || then.is_empty() {
            return self.0.is_empty() && then.is_empty();
        }
        let tags = |of| <[u8]>::chunks_exact(of, TAG_LEN);
        tags(&self.0).any(|tag| tags(then).any(|then| then == tag))
    }
}

/// An account that can log in.
#[derive(Default)]
pub(crate) struct Standing {
    /// None where they are the host's own affair.
    pub(crate) credentials: Option<Credentials>,
}

impl Standing {
    fn is_disabled(&self) -> bool {
        self.credentials.as_ref().is_some_and(|credentials| credentials.disabled)
    }

    pub(crate) fn fingerprint(&self, policy: &Policy) -> Fingerprint {
        self.credentials.as_ref().map(|known| policy.fingerprint(known)).unwrap_or_default()
    }
}

/// A token has proved who the client is.
pub(crate) struct Accepted {
    /// For the client.
    pub(crate) answer: Vec<u8>,
    /// What has to be stored first, if it is not as it was.
    pub(crate) changed: Option<ClientTokens>,
    pub(crate) used: UsedToken,
    /// The host lets the client in until then.
    pub(crate) until: Option<SystemTime>,
}

/// A token, for the client.
pub(crate) struct Issued {
    pub(crate) token: String,
    pub(crate) expiry: SystemTime,
}

impl Policy {
    /// The fingerprint of these credentials.
    pub(crate) fn fingerprint(&self, credentials: &Credentials) -> Fingerprint {
        let tag = |hash: ScramHash| {
            let keys = credentials.keys(hash)?;
            let iterations = keys.iterations.to_be_bytes();
            let kind = [hash.output_len() as u8];
            let parts = [b"credentials", &kind[..], &keys.salt, &iterations, &keys.stored_key];
            let mut tag = mac(&self.secret, &parts);
            tag.truncate(TAG_LEN);
            Some(tag)
        };
        Fingerprint(ScramHash::ALL.into_iter().filter_map(tag).flatten().collect())
    }

    /// Judges a login, by the record of the client's tokens if there is one. `None` for the account is one that does not exist.
    ///
    /// As long as no token was right, the work is the same whatever there is (SASL-7).
    pub(crate) fn check_token(
        &self,
        holder: &Holder,
        found: Option<&ClientTokens>,
        account: Option<&Standing>,
        proof: &FastProof,
        count: Option<u64>,
        now: SystemTime,
    ) -> Result<Accepted, SaslError> {
        let decoy = ClientTokens::new(Revision::new(0), [0; 16], now);
        let record = found.unwrap_or(&decoy);
        let is_known = found.is_some() && account.is_some();
        let is_of = |secret: &[u8; 32], number| {
            let token = derive(secret, holder, proof.mechanism, record, number);
            proof.is_of(&token) & is_known
        };
        let slot = |token: &Option<Token>| {
            let number = token.as_ref().map_or(0, |token| token.number);
            is_of(&self.secret, number) & token.is_some()
        };
        let (is_new, is_current) = (slot(&record.new), slot(&record.current));
        let used = match (is_new, is_current) {
            (true, _) => record.new.as_ref(),
            (_, true) => record.current.as_ref(),
            _ => None,
        };
        let (Some(token), Some(account)) = (used, account) else {
            return Err(self.retired(record, is_of));
        };
        // FAST-3: which the derivation has made sure of.
        if token.mechanism != proof.mechanism.as_str() {
            return Err(SaslError::NotAuthorized);
        }
        let fingerprint = account.fingerprint(self);
        let is_of_now = fingerprint.fits(&token.credentials);
        if self.fast.is_expired(token, now) || !is_of_now {
            return Err(SaslError::CredentialsExpired);
        }
        // FAST-6
        if count.map_or(token.count > 0, |count| count <= token.count) {
            return Err(SaslError::NotAuthorized);
        }
        if account.is_disabled() {
            return Err(SaslError::AccountDisabled);
        }
        let text = derive(&self.secret, holder, proof.mechanism, record, token.number);
        let mut changed = record.clone();
        if is_new {
            // FAST-4
            changed.current = changed.new.take();
        }
        let expiry = self.fast.expiry(token);
        if changed.new.as_ref().is_some_and(|new| self.fast.expiry(new) < expiry) {
            changed.new = None;
        }
        if let (Some(count), Some(used)) = (count, &mut changed.current) {
            used.count = count;
        }
        let since = now.duration_since(record.used).unwrap_or(Duration::MAX);
        if since >= ACCURACY {
            changed.used = now;
        }
        Ok(Accepted {
            answer: proof.answer(&text),
            used: UsedToken {
                number: Some(token.number),
                is_due: self.fast.is_due(token, now),
                fingerprint,
                #[cfg(feature = "cluster")]
                issued: token.issued,
            },
            until: None,
            changed: (changed != *record).then_some(changed),
        })
    }

    /// What to say of a token that is in no slot: whether it was in one once (FAST-7). Looks at the last ones, those in the
    /// slots among them, and at as many of each former secret.
    fn retired(&self, record: &ClientTokens, is_of: impl Fn(&[u8; 32], u64) -> bool) -> SaslError {
        let mut was = false;
        for secret in std::iter::once(&self.secret).chain(&self.former) {
            for back in 0..RETIRED {
                let number = record.last.saturating_sub(back);
                was |= is_of(secret, number) & (number > 0);
            }
        }
        if was { SaslError::CredentialsExpired } else { SaslError::NotAuthorized }
    }

    /// Issues a token: the record with it, and the token itself. `again`: one that was issued lately, and not used, is told
    /// once more, so that of several logins at once all get the same.
    pub(crate) fn issue_token(
        &self,
        holder: &Holder,
        found: Option<ClientTokens>,
        mechanism: Mechanism,
        fingerprint: &Fingerprint,
        again: bool,
        environment: &dyn Environment,
    ) -> (ClientTokens, Issued) {
        let now = environment.utc();
        let mut record = found.unwrap_or_else(|| new_record(environment));
        let pending = record.new.as_ref().filter(|new| {
            let is_good = !self.fast.is_due(new, now) && fingerprint.fits(&new.credentials);
            again && is_good && new.mechanism == mechanism.as_str()
        });
        let (number, expiry) = match pending {
            Some(pending) => (pending.number, self.fast.expiry(pending)),
            None => {
                record.last = record.last.saturating_add(1);
                let expiry = now.checked_add(self.fast.lifetime).unwrap_or(now);
                let name = mechanism.as_str().to_owned();
                let credentials = fingerprint.0.clone();
                record.new = Some(Token::new(record.last, name, now, expiry, credentials));
                (record.last, expiry)
            }
        };
        record.used = now;
        let token = derive(&self.secret, holder, mechanism, &record, number);
        (record, Issued { token, expiry })
    }

    /// When the last token of this client expires, if it has one that is good.
    pub(crate) fn tokens_expire(
        &self,
        record: &ClientTokens,
        now: SystemTime,
    ) -> Option<SystemTime> {
        let tokens = record.current.iter().chain(&record.new);
        tokens.map(|token| self.fast.expiry(token)).filter(|expiry| *expiry > now).max()
    }

    /// Whether tokens may log in by early data.
    pub(crate) const fn takes_early_data(&self) -> bool {
        self.fast.early_data
    }
}

/// The record of a client that had none.
fn new_record(environment: &dyn Environment) -> ClientTokens {
    let mut nonce = [0; 16];
    environment.random(&mut nonce);
    ClientTokens::new(revision(environment), nonce, environment.utc())
}

/// One that was never there.
pub(crate) fn revision(environment: &dyn Environment) -> Revision {
    let mut bytes = [0; 8];
    environment.random(&mut bytes);
    Revision::new(u64::from_be_bytes(bytes))
}

/// The token of this number: 256 bits, as text (FAST-8, FAST-9).
fn derive(
    secret: &[u8; 32],
    holder: &Holder,
    mechanism: Mechanism,
    record: &ClientTokens,
    number: u64,
) -> String {
    let parts: [&[u8]; 6] = [
        b"token",
        holder.account.as_str().as_bytes(),
        holder.client.as_bytes(),
        mechanism.as_str().as_bytes(),
        &record.nonce,
        &number.to_be_bytes(),
    ];
    URL_SAFE_NO_PAD.encode(mac(secret, &parts))
}

/// A MAC of several texts, each of which may be empty: where one ends is part of it.
fn mac(secret: &[u8; 32], parts: &[&[u8]]) -> Vec<u8> {
    let mut all = Vec::with_capacity(256);
    for part in parts {
        all.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        all.extend_from_slice(part);
    }
    ScramHash::Sha256.hmac(secret, &all)
}

const DAY: u64 = 24 * 3600;

/// How many tokens of a client are remembered as having been good.
const RETIRED: u64 = 8;

/// Of one kind of key in a fingerprint, in bytes.
const TAG_LEN: usize = 16;

/// To what a client's last login is known.
const ACCURACY: Duration = Duration::from_secs(3600);

#[cfg(test)]
mod tests;
