//! What is kept of the tokens that clients log in with.

use std::fmt;
use std::time::SystemTime;

use jid::BareJid;
use sha2::{Digest, Sha256};

use super::StoreFuture;
use crate::client::ClientId;

/// Keeps what the server needs to know of the tokens of fast logins ([XEP-0484](https://xmpp.org/extensions/xep-0484.html)).
///
/// For hosts to implement; the [room](super) says what holds for every store. A token itself is never kept: the
/// server derives it from what is kept here and from a secret which the store does not have ([FAST-9](crate::rules#fast-9)), so
/// whoever reads the store can log in as nobody.
///
/// A store understands nothing of this: it gives back the record of a client as it got it, and replaces it only where
/// nobody else has meanwhile.
pub trait TokenStore: Send + Sync + 'static {
    /// The record of one client of `account`.
    ///
    /// Should do the same work whether there is one or not ([SASL-7](crate::rules#sasl-7)): strangers may ask for
    /// invented accounts and clients.
    fn client(&self, account: &BareJid, client: &ClientKey) -> StoreFuture<Option<ClientTokens>>;

    /// The records of all clients of `account`, in any order. One that cannot be read is left out.
    fn clients(&self, account: &BareJid) -> StoreFuture<Vec<(ClientKey, ClientTokens)>>;

    /// Replaces the record of a client by `tokens` (`None` removes it), if its revision is still `found`, where `None` is that
    /// of no record. `false`: it is not, and nothing was changed.
    ///
    /// The comparison and the change are one step, whoever else uses the store ([FAST-4](crate::rules#fast-4)). Revisions do not repeat: a
    /// store that has to repeat the call finds its own revision, and answers `true`.
    fn replace(
        &self,
        account: &BareJid,
        client: &ClientKey,
        found: Option<Revision>,
        tokens: Option<ClientTokens>,
    ) -> StoreFuture<bool>;

    /// Removes every record of `account`, which is being removed ([DESTROY-15](crate::rules#destroy-15)).
    fn clear(&self, account: &BareJid) -> StoreFuture<()>;
}

/// Names a client of an account: a hash of the account and of the id in the client's user agent, which is not to be had
/// from it ([SASL2-10](crate::rules#sasl2-10)).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientKey([u8; 32]);

impl ClientKey {
    /// The key of the client of `account` whose user agent has this id.
    #[must_use]
    pub fn of(account: &BareJid, id: ClientId) -> Self {
        let hash = Sha256::new().chain_update(b"client\0").chain_update(account.as_str());
        Self(hash.chain_update(b"\0").chain_update(id.to_bytes()).finalize().into())
    }

    /// The key that a store knows as these bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// What a store knows it as.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ClientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClientKey")
    }
}

/// Tells one state of a record from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Revision(u64);

impl Revision {
    /// The revision that a store knows as `revision`.
    #[must_use]
    pub const fn new(revision: u64) -> Self {
        Self(revision)
    }

    /// What a store knows it as.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The record of one client of an account.
///
/// What a store may change, or take for something, is nothing of it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientTokens {
    /// Which state of the record this is.
    pub revision: Revision,
    /// What the client's tokens are derived from, with their numbers: 16 random bytes.
    pub nonce: [u8; 16],
    /// The number of the token that was issued last. Those below that are in no slot are retired.
    pub last: u64,
    /// The token that was used last.
    pub current: Option<Token>,
    /// One that was issued since and has not been used.
    pub new: Option<Token>,
    /// What the client calls its program.
    pub software: Option<String>,
    /// What the client calls its device.
    pub device: Option<String>,
    /// When the client logged in, to within an hour. A store keeps times to the microsecond or better.
    pub used: SystemTime,
}

impl ClientTokens {
    /// A record without tokens.
    #[must_use]
    pub const fn new(revision: Revision, nonce: [u8; 16], used: SystemTime) -> Self {
        Self {
            revision,
            nonce,
            last: 0,
            current: None,
            new: None,
            software: None,
            device: None,
            used,
        }
    }
}

impl fmt::Debug for ClientTokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTokens")
            .field("last", &self.last)
            .field("current", &self.current)
            .field("new", &self.new)
            .field("used", &self.used)
            .finish_non_exhaustive()
    }
}

/// What is kept of a token that can log in.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Token {
    /// Its number among the tokens of the client.
    pub number: u64,
    /// The one mechanism that it can be used with.
    pub mechanism: String,
    /// When it was issued.
    pub issued: SystemTime,
    /// When it expires.
    pub expiry: SystemTime,
    /// The highest count that it was used with, 0 if it was used with none.
    pub count: u64,
    /// A fingerprint of the credentials that the account had then: the token ends with these.
    pub credentials: Vec<u8>,
}

impl Token {
    /// A token that was not used yet.
    #[must_use]
    pub const fn new(
        number: u64,
        mechanism: String,
        issued: SystemTime,
        expiry: SystemTime,
        credentials: Vec<u8>,
    ) -> Self {
        Self { number, mechanism, issued, expiry, count: 0, credentials }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token")
            .field("number", &self.number)
            .field("mechanism", &self.mechanism)
            .field("issued", &self.issued)
            .field("expiry", &self.expiry)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_3_a_client_is_another_for_each_account_and_id() {
        let [one, other] = ["a@example.com", "b@example.com"].map(|jid| BareJid::new(jid).unwrap());
        let id = |n| ClientId::from_bytes([n; 16]);
        let key = ClientKey::of(&one, id(1));
        assert_eq!(key, ClientKey::of(&one, id(1)));
        assert_ne!(key, ClientKey::of(&other, id(1)));
        assert_ne!(key, ClientKey::of(&one, id(2)));
        assert_eq!(key, ClientKey::from_bytes(*key.as_bytes()));
    }

    #[test]
    fn sec_6_debug_shows_neither_nonces_nor_fingerprints() {
        let mut tokens = ClientTokens::new(Revision::new(1), [171; 16], SystemTime::UNIX_EPOCH);
        let token = Token::new(1, "HT".into(), tokens.used, tokens.used, vec![172; 16]);
        tokens.current = Some(token);
        let text = format!("{tokens:?} {:?}", ClientKey::from_bytes([173; 32]));
        assert!(!["171", "172", "173"].iter().any(|secret| text.contains(secret)), "{text}");
    }
}
