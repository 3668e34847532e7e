//! What a host says about authentication.

use std::fmt;
use std::num::NonZeroU32;

use jid::BareJid;

use super::mechanism::Mechanism;
use super::tokens::FastPolicy;
use crate::environment::Environment;
use crate::store::{Credentials, ScramHash, ScramKeys};

/// How a server authenticates: one for all its streams.
///
/// ```
/// use xmpp_session::environment::System;
/// use xmpp_session::sasl::{Mechanism, Policy};
///
/// // No PLAIN, and two retries after a failure.
/// let policy = Policy::new(&System::new())
///     .mechanisms(&[Mechanism::ScramSha256, Mechanism::ScramSha256Plus])
///     .retries(2);
/// ```
#[derive(Clone)]
#[must_use = "a policy does nothing until a server is given it"]
pub struct Policy {
    pub(super) mechanisms: Vec<Mechanism>,
    pub(super) retries: u8,
    pub(super) secure_only: bool,
    pub(super) host_checks_passwords: bool,
    pub(super) host_checks_tokens: bool,
    pub(super) guests: bool,
    pub(super) downgrade_protection: bool,
    pub(super) upgrades: Vec<ScramHash>,
    pub(super) iterations: NonZeroU32,
    pub(super) fast: FastPolicy,
    pub(super) secret: [u8; 32],
    pub(super) former: Vec<[u8; 32]>,
}

impl Policy {
    /// All mechanisms but those of SCRAM-SHA-512, on secure streams only, with 3 retries and a random
    /// [`secret`](Self::secret).
    ///
    /// SCRAM-SHA-512 locks out accounts that have no keys for it, as those have which were made before there were
    /// any: a host says by [`mechanisms`](Self::mechanisms) that all accounts have them.
    pub fn new(environment: &dyn Environment) -> Self {
        let mut secret = [0; 32];
        environment.random(&mut secret);
        Self {
            mechanisms: Mechanism::ALL
                .into_iter()
                .filter(|mechanism| mechanism.hash() != Some(ScramHash::Sha512))
                .collect(),
            retries: 3,
            secure_only: true,
            host_checks_passwords: false,
            host_checks_tokens: false,
            guests: false,
            downgrade_protection: true,
            upgrades: vec![ScramHash::Sha512, ScramHash::Sha256],
            iterations: Credentials::DEFAULT_ITERATIONS,
            fast: FastPolicy::new(),
            secret,
            former: Vec::new(),
        }
    }

    /// The mechanisms that may be offered, in any order; [`Mechanism::ALL`] for all of them.
    ///
    /// Every account of the domain should have the keys of each SCRAM mechanism here: a client takes the strongest,
    /// and an account without its keys looks like none. A password that comes by PLAIN is checked against the keys
    /// of the strongest hash function here ([SASL-7](crate::rules#sasl-7)).
    ///
    /// PLAIN and tokens are never offered on an insecure stream ([SASL-1](crate::rules#sasl-1)), tokens and ANONYMOUS only where
    /// the [domain](crate::server::DomainPolicy) has what they need, `-PLUS` only where the channel can be
    /// bound to ([SASL-11](crate::rules#sasl-11)): with a `-PLUS` mechanism, list the one without it as well.
    ///
    /// A list without mechanisms [for tokens](Mechanism::is_for_tokens) leaves those as they are: who keeps no tokens offers
    /// none ([`Stores::without_tokens`](crate::store::Stores::without_tokens)).
    pub fn mechanisms(mut self, mechanisms: &[Mechanism]) -> Self {
        let names_any = mechanisms.iter().any(|one| one.is_for_tokens());
        let stays = |one: &Mechanism| one.is_for_tokens() && !names_any;
        let before = std::mem::take(&mut self.mechanisms);
        let stays = |one: &Mechanism| stays(one) && before.contains(one);
        self.mechanisms = Mechanism::ALL
            .into_iter()
            .filter(|one| mechanisms.contains(one) || stays(one))
            .collect();
        self
    }

    /// How many retries a stream has after its first failure, 2 to 5 ([SASL-9](crate::rules#sasl-9)): other numbers are
    /// brought into that range.
    pub fn retries(mut self, retries: u8) -> Self {
        self.retries = retries.clamp(2, 5);
        self
    }

    /// Whether SCRAM is also offered on streams that are not secure ([TLS-3](crate::rules#tls-3)). Without this, any
    /// attempt there is answered `encryption-required`.
    pub const fn allow_insecure(mut self, allow: bool) -> Self {
        self.secure_only = !allow;
        self
    }

    /// The hash functions for which clients may bring the keys that their account has not
    /// ([XEP-0480](https://xmpp.org/extensions/xep-0480.html), [UPGRADE-1](crate::rules#upgrade-1)): SHA-512 and SHA-256 by
    /// default, where the store can keep them ([`AccountStore::adds_keys`](crate::store::AccountStore::adds_keys)).
    ///
    /// So accounts that were made before a mechanism was there get its keys when their clients log in next; once all
    /// have them, it may be offered by [`mechanisms`](Self::mechanisms).
    pub fn upgrades(mut self, hashes: &[ScramHash]) -> Self {
        self.upgrades = ScramHash::ALL.into_iter().filter(|one| hashes.contains(one)).collect();
        self
    }

    /// Whether SCRAM tells the client which mechanisms and channel bindings were offered
    /// ([XEP-0474](https://xmpp.org/extensions/xep-0474.html)), and the TLS version
    /// ([XEP-0515](https://xmpp.org/extensions/xep-0515.html)), so that it notices if somebody has changed them on the way
    /// ([SASL-12](crate::rules#sasl-12)). Default: yes. A client that takes offence at attributes which it does not
    /// know breaks RFC 5802 §5.1; for such ones it can be left out.
    pub const fn downgrade_protection(mut self, tell: bool) -> Self {
        self.downgrade_protection = tell;
        self
    }

    /// The number of PBKDF2 iterations that accounts usually have; 4096 by default.
    ///
    /// It is what unknown users are shown, and how much work is done for them, so that they look
    /// like the others ([SASL-7](crate::rules#sasl-7)). An account with another number can be told from an unknown one.
    pub const fn iterations(mut self, iterations: NonZeroU32) -> Self {
        self.iterations = iterations;
        self
    }

    /// The number of iterations for new passwords.
    pub(crate) const fn iteration_count(&self) -> NonZeroU32 {
        self.iterations
    }

    /// The secret that the tokens of fast logins, and the salts of unknown users, are derived from.
    ///
    /// A server that draws a new one at each start forgets its clients' tokens, and shows other salts for unknown users
    /// after it and the same ones for accounts. To prevent that, draw it once and keep it like a key, apart from the
    /// [store of tokens](crate::store::TokenStore): who has both can log in as everybody who has a token.
    pub const fn secret(mut self, secret: [u8; 32]) -> Self {
        self.secret = secret;
        self
    }

    /// Secrets that were in use before. Their tokens are no longer good, and known: their clients are told
    /// `credentials-expired` ([FAST-7](crate::rules#fast-7)).
    pub fn former_secrets(mut self, secrets: &[[u8; 32]]) -> Self {
        self.former = secrets.to_vec();
        self
    }

    /// How long tokens are good for, and whether early data may hold them.
    pub const fn fast(mut self, fast: FastPolicy) -> Self {
        self.fast = fast;
        self
    }

    /// There is no store of tokens.
    pub(crate) fn without_tokens(mut self) -> Self {
        self.mechanisms.retain(|mechanism| !mechanism.is_for_tokens());
        self
    }

    /// Whether accounts may log in by tokens of the host's, without credentials.
    pub(crate) const fn host_checks_tokens(&self) -> bool {
        self.host_checks_tokens
    }

    /// Whether the host's `Authenticator` checks passwords, and the account store may have no keys.
    pub(crate) const fn host_checks_passwords(&self) -> bool {
        self.host_checks_passwords
    }

    /// Passwords are checked by the host's `Authenticator`, which can do no SCRAM.
    pub(crate) fn authenticator(mut self) -> Self {
        self.host_checks_passwords = true;
        self.mechanisms.retain(|mechanism| mechanism.hash().is_none());
        self
    }

    /// Tokens are checked by the host's `TokenAuthenticator`.
    pub(crate) const fn tokens(mut self) -> Self {
        self.host_checks_tokens = true;
        self
    }

    /// Guests are let in.
    pub(crate) const fn guests(mut self) -> Self {
        self.guests = true;
        self
    }

    /// Whether EXTERNAL is offered to those who have a certificate.
    pub(crate) fn by_certificate(&self) -> bool {
        self.mechanisms.contains(&Mechanism::External)
    }

    /// The hash function whose keys a password is checked against, if the account has them: that of most accounts.
    pub(super) fn password_hash(&self) -> ScramHash {
        let offered =
            |hash: &ScramHash| self.mechanisms.iter().any(|one| one.hash() == Some(*hash));
        ScramHash::ALL.into_iter().find(offered).unwrap_or(ScramHash::Sha256)
    }

    /// The keys of an account that does not exist (SASL-7): always the same for one name, and
    /// no password matches them.
    pub(super) fn decoy(&self, account: &BareJid, hash: ScramHash) -> ScramKeys {
        // As long as the longest digest: what follows is cut from it.
        let derive = |purpose: &[u8]| {
            let input = [purpose, &[hash.output_len() as u8], account.as_str().as_bytes()].concat();
            ScramHash::Sha512.hmac(&self.secret, &input)
        };
        let mut salt = derive(b"salt");
        salt.truncate(Credentials::SALT_LEN);
        let key = |purpose| {
            let mut key = derive(purpose);
            key.truncate(hash.output_len());
            key
        };
        ScramKeys::from_parts(salt, self.iterations.get(), key(b"stored"), key(b"server"))
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("mechanisms", &self.mechanisms)
            .field("retries", &self.retries)
            .field("secure_only", &self.secure_only)
            .field("host_checks_passwords", &self.host_checks_passwords)
            .field("downgrade_protection", &self.downgrade_protection)
            .field("upgrades", &self.upgrades)
            .field("iterations", &self.iterations)
            .field("fast", &self.fast)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::Virtual;

    #[test]
    fn sasl_7_decoys_are_stable_and_differ_by_name_hash_and_secret() {
        let policy = Policy::new(&Virtual::new(1));
        let [a, b] = ["a@example.com", "b@example.com"].map(|jid| BareJid::new(jid).unwrap());
        let salt = |policy: &Policy, jid, hash| policy.decoy(jid, hash).salt;
        assert_eq!(salt(&policy, &a, ScramHash::Sha1), salt(&policy.clone(), &a, ScramHash::Sha1));
        assert_ne!(salt(&policy, &a, ScramHash::Sha1), salt(&policy, &b, ScramHash::Sha1));
        assert_ne!(salt(&policy, &a, ScramHash::Sha1), salt(&policy, &a, ScramHash::Sha256));
        let other = policy.clone().secret([1; 32]);
        assert_ne!(salt(&policy, &a, ScramHash::Sha1), salt(&other, &a, ScramHash::Sha1));
        for hash in ScramHash::ALL {
            assert!(policy.decoy(&a, hash).fit(hash));
        }
    }

    #[test]
    fn sasl_7_passwords_are_checked_against_what_most_accounts_have() {
        let policy = Policy::new(&Virtual::new(1));
        assert_eq!(policy.password_hash(), ScramHash::Sha256);
        let hash = |mechanisms: &[_]| policy.clone().mechanisms(mechanisms).password_hash();
        assert_eq!(hash(&Mechanism::ALL), ScramHash::Sha512);
        assert_eq!(hash(&[Mechanism::Plain, Mechanism::ScramSha1]), ScramHash::Sha1);
        assert_eq!(hash(&[Mechanism::Plain]), ScramHash::Sha256);
    }

    #[test]
    fn sasl_1_sha_512_is_offered_where_the_host_says_so() {
        let policy = Policy::new(&Virtual::new(1));
        let with_512 = |policy: &Policy| policy.mechanisms.contains(&Mechanism::ScramSha512);
        assert!(!with_512(&policy));
        assert!(with_512(&policy.mechanisms(&Mechanism::ALL)));
    }

    #[test]
    fn sasl_9_retries_stay_within_two_and_five() {
        let policy = Policy::new(&Virtual::new(1));
        assert_eq!(policy.retries, 3);
        assert_eq!(policy.clone().retries(0).retries, 2);
        assert_eq!(policy.retries(9).retries, 5);
    }

    #[test]
    fn sec_6_debug_shows_no_secret() {
        let text = format!("{:?}", Policy::new(&Virtual::new(1)).secret([251; 32]));
        assert!(!text.contains("251"), "{text}");
    }
}
