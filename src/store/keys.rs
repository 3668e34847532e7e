//! SCRAM keys: what an account keeps in place of its password (RFC 5802 §3).

use std::borrow::Cow;
use std::fmt;
use std::num::NonZeroU32;

use hmac::{Hmac, Mac};
use sha1::Sha1;
use sha2::digest::OutputSizeUser;
use sha2::digest::generic_array::typenum::Unsigned;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use crate::named::named;

named! {
    /// A hash function of SCRAM.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    #[non_exhaustive]
    pub enum ScramHash {
        /// SHA-512 ([draft-melnikov-scram-sha-512](https://datatracker.ietf.org/doc/draft-melnikov-scram-sha-512/)).
        Sha512 = "SHA-512",
        /// SHA-256 ([RFC 7677](https://www.rfc-editor.org/rfc/rfc7677)).
        Sha256 = "SHA-256",
        /// SHA-1 ([RFC 5802](https://www.rfc-editor.org/rfc/rfc5802)).
        Sha1 = "SHA-1",
    }
    /// All of them, the strongest first.
    pub const ALL;
    /// The registered name, as databases may keep it.
    pub const fn as_str;
}

/// `$body`, with `$type` for the function of `$hash`.
macro_rules! of {
    ($hash:expr, $type:ident => $body:expr) => {
        match $hash {
            ScramHash::Sha512 => {
                type $type = Sha512;
                $body
            }
            ScramHash::Sha256 => {
                type $type = Sha256;
                $body
            }
            ScramHash::Sha1 => {
                type $type = Sha1;
                $body
            }
        }
    };
}

impl ScramHash {
    /// Length of a digest, and so of each key, in bytes.
    #[must_use]
    pub const fn output_len(self) -> usize {
        of!(self, H => <H as OutputSizeUser>::OutputSize::USIZE)
    }

    pub(crate) fn hash(self, data: &[u8]) -> Vec<u8> {
        of!(self, H => H::digest(data).to_vec())
    }

    pub(crate) fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        of!(self, H => mac::<Hmac<H>>(key, data))
    }

    /// `Hi` of RFC 5802 §2.2: `SaltedPassword`.
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 §2)")]
    fn salted(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        let mut out = vec![0; self.output_len()];
        of!(self, H => pbkdf2::pbkdf2::<Hmac<H>>(password, salt, iterations, &mut out))
            .expect("HMAC takes keys of any length");
        out
    }
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length (RFC 2104 §2)")]
fn mac<M: Mac + hmac::digest::KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = <M as Mac>::new_from_slice(key).expect("HMAC takes keys of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

/// Stored SCRAM keys of one account and hash function.
///
/// They let a server check a password, and not read it. Whoever steals them can try passwords
/// against them, and can impersonate the *server* to this account.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScramKeys {
    /// Salt of this account: random bytes, not empty.
    pub salt: Vec<u8>,
    /// PBKDF2 iterations, not zero.
    pub iterations: u32,
    /// `StoredKey`, as long as a digest of the hash function.
    pub stored_key: Vec<u8>,
    /// `ServerKey`, as long as a digest of the hash function.
    pub server_key: Vec<u8>,
}

impl ScramKeys {
    /// The keys of `password`, which is prepared with SASLprep first
    /// ([RFC 5802 §3](https://www.rfc-editor.org/rfc/rfc5802#section-3)).
    ///
    /// Takes about a millisecond of CPU time per 4096 iterations. Every account and every hash
    /// function needs a different random `salt`.
    ///
    /// # Errors
    ///
    /// [`PasswordError`] where the password cannot be prepared.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::num::NonZeroU32;
    /// use xmpp_session::store::{ScramHash, ScramKeys};
    ///
    /// let iterations = NonZeroU32::new(4096).unwrap();
    /// let keys = ScramKeys::derive("pencil", b"0123456789abcdef", iterations, ScramHash::Sha256)?;
    /// assert_eq!(keys.stored_key.len(), 32);
    /// # Ok::<(), xmpp_session::store::PasswordError>(())
    /// ```
    pub fn derive(
        password: &str,
        salt: &[u8],
        iterations: NonZeroU32,
        hash: ScramHash,
    ) -> Result<Self, PasswordError> {
        Ok(Self::derive_prepared(&prepare_password(password)?, salt, iterations.get(), hash))
    }

    fn derive_prepared(password: &str, salt: &[u8], iterations: u32, hash: ScramHash) -> Self {
        let salted = hash.salted(password.as_bytes(), salt, iterations);
        Self::of_salted(&salted, salt, iterations, hash)
    }

    /// The keys of a password that somebody else has salted (`SaltedPassword`, RFC 5802 §3).
    pub(crate) fn of_salted(salted: &[u8], salt: &[u8], iterations: u32, hash: ScramHash) -> Self {
        let client_key = hash.hmac(salted, b"Client Key");
        Self {
            salt: salt.to_vec(),
            iterations,
            stored_key: hash.hash(&client_key),
            server_key: hash.hmac(salted, b"Server Key"),
        }
    }

    /// Keys that were stored elsewhere, for example by another server.
    ///
    /// Nothing is checked here: keys that do not have the length of the hash function's digest,
    /// an empty salt or zero iterations let nobody in.
    #[must_use]
    pub const fn from_parts(
        salt: Vec<u8>,
        iterations: u32,
        stored_key: Vec<u8>,
        server_key: Vec<u8>,
    ) -> Self {
        Self { salt, iterations, stored_key, server_key }
    }

    /// Whether a client can be given this salt and this count, and answer with a proof of these
    /// keys.
    pub(crate) fn fit(&self, hash: ScramHash) -> bool {
        let length = hash.output_len();
        !self.salt.is_empty()
            && self.iterations > 0
            && self.stored_key.len() == length
            && self.server_key.len() == length
    }

    /// Whether these are the keys of a password that went through [`prepare_password`]. Does the
    /// whole derivation, and compares in constant time (SEC-1).
    pub(crate) fn verify(&self, prepared: &str, hash: ScramHash) -> bool {
        let derived = Self::derive_prepared(prepared, &self.salt, self.iterations, hash);
        derived.stored_key.ct_eq(&self.stored_key).into()
    }
}

impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScramKeys").field("iterations", &self.iterations).finish_non_exhaustive()
    }
}

/// Why a text cannot be a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Nothing is left of it after SASLprep.
    #[error("the password is empty")]
    Empty,
    /// SASLprep refuses a character of it (RFC 4013 §2.3).
    #[error("the password has a character that SASLprep prohibits")]
    Prohibited,
}

/// SASLprep ([RFC 4013](https://www.rfc-editor.org/rfc/rfc4013)), as RFC 5802 §2.2 and RFC 4616 §2
/// want it for passwords.
pub(crate) fn prepare_password(password: &str) -> Result<Cow<'_, str>, PasswordError> {
    let prepared = stringprep::saslprep(password).map_err(|_| PasswordError::Prohibited)?;
    if prepared.is_empty() { Err(PasswordError::Empty) } else { Ok(prepared) }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    const COUNT: NonZeroU32 = NonZeroU32::new(4096).unwrap();

    /// Proof and verifier of a whole exchange, from the client's side of the formulas.
    fn exchange(hash: ScramHash, salt: &str, message: &str) -> (String, String) {
        let salt = STANDARD.decode(salt).unwrap();
        let keys = ScramKeys::derive("pencil", &salt, COUNT, hash).unwrap();
        let client_key = hash.hmac(&hash.salted(b"pencil", &salt, COUNT.get()), b"Client Key");
        let signature = hash.hmac(&keys.stored_key, message.as_bytes());
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        (STANDARD.encode(proof), STANDARD.encode(hash.hmac(&keys.server_key, message.as_bytes())))
    }

    #[test]
    fn sasl_7_keys_give_the_vectors_of_rfc_5802() {
        let message = "n=user,r=fyko+d2lbbFgONRv9qkxdawL,\
            r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096,\
            c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j";
        let (proof, verifier) = exchange(ScramHash::Sha1, "QSXCR+Q6sek8bf92", message);
        assert_eq!(proof, "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=");
        assert_eq!(verifier, "rmF9pqV8S7suAoZWja4dJRkFsKQ=");
    }

    #[test]
    fn sasl_7_keys_give_the_vectors_of_rfc_7677() {
        let message = "n=user,r=rOprNGfwEbeRWgbNEkqO,\
            r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096,\
            c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let (proof, verifier) = exchange(ScramHash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", message);
        assert_eq!(proof, "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        assert_eq!(verifier, "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=");
    }

    #[test]
    fn sec_1_only_the_password_itself_verifies() {
        let keys = ScramKeys::derive("pencil", b"salt", COUNT, ScramHash::Sha256).unwrap();
        assert!(keys.verify("pencil", ScramHash::Sha256));
        assert!(!keys.verify("pencils", ScramHash::Sha256));
        assert!(!keys.verify("pencil", ScramHash::Sha1));
    }

    #[test]
    fn sasl_7_passwords_are_prepared() {
        let derive = |password| ScramKeys::derive(password, b"salt", COUNT, ScramHash::Sha1);
        // RFC 4013 §3: SOFT HYPHEN is mapped to nothing, ROMAN NUMERAL NINE to IX.
        assert_eq!(derive("I\u{ad}X"), derive("IX"));
        assert_eq!(derive("\u{2168}"), derive("IX"));
        assert_eq!(derive("a\u{7}"), Err(PasswordError::Prohibited));
        assert_eq!(derive("\u{ad}"), Err(PasswordError::Empty));
    }

    #[test]
    fn sasl_7_keys_of_a_wrong_shape_do_not_fit() {
        let keys = ScramKeys::derive("pencil", b"salt", COUNT, ScramHash::Sha1).unwrap();
        assert!(keys.fit(ScramHash::Sha1));
        assert!(!keys.fit(ScramHash::Sha256));
        assert!(!ScramKeys { iterations: 0, ..keys.clone() }.fit(ScramHash::Sha1));
        assert!(!ScramKeys { salt: Vec::new(), ..keys }.fit(ScramHash::Sha1));
    }

    #[test]
    fn sec_6_debug_shows_no_key() {
        let keys = ScramKeys::from_parts(vec![170; 4], 4096, vec![171; 20], vec![172; 20]);
        assert_eq!(format!("{keys:?}"), "ScramKeys { iterations: 4096, .. }");
    }
}
