//! HT: logging in with a token, in one message and without a hash of a password
//! ([draft-schmaus-kitten-sasl-ht](https://datatracker.ietf.org/doc/html/draft-schmaus-kitten-sasl-ht-09)), in the form
//! that is deployed under the names `HT-SHA-256-…`.
//!
//! ```text
//! client: authcid NUL HMAC(token, "Initiator" || binding)
//! server:             HMAC(token, "Responder" || binding)
//! ```

use subtle::ConstantTimeEq;

use super::error::SaslError;
use super::mechanism::Mechanism;
use crate::store::ScramHash;

/// Who says to be whom, and what is to prove it.
pub(super) struct Initiator<'a> {
    pub(super) authcid: &'a str,
    pub(super) proof: &'a [u8],
}

impl<'a> Initiator<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, SaslError> {
        // The proof may have such bytes too.
        let nul = data.iter().position(|&byte| byte == 0).ok_or(SaslError::MalformedRequest)?;
        let (authcid, proof) = data.split_at(nul);
        let authcid = std::str::from_utf8(authcid).map_err(|_| SaslError::MalformedRequest)?;
        match proof {
            [_, proof @ ..] if proof.len() == HASH.output_len() => Ok(Self { authcid, proof }),
            _ => Err(SaslError::MalformedRequest),
        }
    }
}

/// What a client has sent in place of its token.
#[derive(Clone)]
pub(crate) struct FastProof {
    pub(super) mechanism: Mechanism,
    pub(super) proof: Vec<u8>,
    /// Of the channel, as the mechanism wants it.
    pub(super) binding: Vec<u8>,
}

impl FastProof {
    /// Whether it was made with this token. In constant time (FAST-8).
    pub(super) fn is_of(&self, token: &str) -> bool {
        self.mac(token, b"Initiator").ct_eq(&self.proof).into()
    }

    /// The server's proof that it knows the token too.
    pub(super) fn answer(&self, token: &str) -> Vec<u8> {
        self.mac(token, b"Responder")
    }

    fn mac(&self, token: &str, role: &[u8]) -> Vec<u8> {
        HASH.hmac(token.as_bytes(), &[role, &self.binding].concat())
    }
}

/// That of all these mechanisms.
const HASH: ScramHash = ScramHash::Sha256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fast_3_a_message_is_a_name_and_a_proof_that_may_hold_any_byte() {
        let message = [b"juliet\0".as_slice(), &[0; 32]].concat();
        let parsed = Initiator::parse(&message).unwrap();
        assert_eq!((parsed.authcid, parsed.proof), ("juliet", &[0; 32][..]));
        for length in (0..message.len()).chain([message.len() + 1]) {
            let mut other = message.clone();
            other.resize(length, 0);
            assert_eq!(Initiator::parse(&other).err(), Some(SaslError::MalformedRequest));
        }
        let no_text = [b"\xff\0".as_slice(), &[0; 32]].concat();
        assert_eq!(Initiator::parse(&no_text).err(), Some(SaslError::MalformedRequest));
        let no_name = [b"\0".as_slice(), &[1; 32]].concat();
        assert_eq!(Initiator::parse(&no_name).unwrap().authcid, "");
    }

    #[test]
    fn fast_8_a_proof_is_of_its_token_and_channel_alone() {
        let hex = |text: &str| -> Vec<u8> {
            (0..text.len())
                .step_by(2)
                .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
                .collect()
        };
        // Made with `openssl dgst -sha256 -hmac secret-token`.
        let none = hex("3f6de92b45cddc50c601ad166458f7b5874565e399f3006b1afb03f0bb03ff88");
        let proof =
            FastProof { mechanism: Mechanism::HtSha256None, proof: none, binding: Vec::new() };
        assert!(proof.is_of("secret-token"));
        assert!(!proof.is_of("secret-tokem"));
        assert!(!FastProof { binding: vec![1], ..proof.clone() }.is_of("secret-token"));
        assert_eq!(
            proof.answer("secret-token"),
            hex("5572a63e0496195609273c23be8a50b9bee64e0369324079e73245bf4472a5b1")
        );
        let bound = FastProof {
            binding: vec![1, 2, 3],
            proof: hex("d991aaf3e0bd49033cbf47beed3734082d0153b641eeaca45c32cb5ddd6747ec"),
            ..proof
        };
        assert!(bound.is_of("secret-token"));
    }
}
