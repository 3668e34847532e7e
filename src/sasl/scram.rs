//! The messages and the proof of SCRAM ([RFC 5802](https://www.rfc-editor.org/rfc/rfc5802)).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use subtle::ConstantTimeEq;

use super::binding::ChannelBindings;
use super::error::SaslError;
use crate::environment::Environment;
use crate::store::{ScramHash, ScramKeys};

/// What the client said about channel binding (`gs2-cbind-flag`, RFC 5802 §6).
#[derive(PartialEq, Eq)]
enum Flag<'a> {
    /// `n`: the client cannot.
    Unsupported,
    /// `y`: the client can, and was told that the server cannot.
    NotOffered,
    /// `p=`: bound to a channel of this type.
    Bound(&'a str),
}

/// `client-first-message`.
pub(super) struct ClientFirst<'a> {
    flag: Flag<'a>,
    gs2_header: &'a str,
    bare: &'a str,
    nonce: &'a str,
    /// Empty where there is none.
    pub(super) authzid: String,
    pub(super) username: String,
}

impl<'a> ClientFirst<'a> {
    pub(super) fn parse(data: &'a [u8]) -> Result<Self, SaslError> {
        const BAD: SaslError = SaslError::MalformedRequest;
        let text = std::str::from_utf8(data).map_err(|_| BAD)?;
        let mut fields = text.splitn(3, ',');
        let (Some(flag), Some(authzid), Some(bare)) = (fields.next(), fields.next(), fields.next())
        else {
            return Err(BAD);
        };
        let flag = match (flag, flag.strip_prefix("p=")) {
            ("n", _) => Flag::Unsupported,
            ("y", _) => Flag::NotOffered,
            (_, Some(name)) => Flag::Bound(name),
            _ => return Err(BAD),
        };
        let authzid = match authzid {
            "" => String::new(),
            _ => unescape(authzid.strip_prefix("a=").ok_or(BAD)?)?,
        };
        let gs2_header = text.strip_suffix(bare).ok_or(BAD)?;
        // A mandatory extension comes first (`m=`), so it fails here (RFC 5802 §5.1).
        let mut fields = bare.split(',');
        let username =
            unescape(fields.next().and_then(|field| field.strip_prefix("n=")).ok_or(BAD)?)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(BAD)?;
        if nonce.is_empty()
            || !nonce.bytes().all(|byte| byte.is_ascii_graphic())
            || !fields.all(is_extension)
        {
            return Err(BAD);
        }
        Ok(Self { flag, gs2_header, bare, nonce, authzid, username })
    }

    /// The expected content of `c=`: the header and the data of the channel (RFC 5802 §6).
    ///
    /// `plus`: whether the mechanism in use is a `-PLUS` one; `offered`: whether any such was
    /// offered.
    pub(super) fn binding(
        &self,
        plus: bool,
        offered: bool,
        bindings: &ChannelBindings,
    ) -> Result<Vec<u8>, SaslError> {
        let data = match self.flag {
            // With "y" someone has taken the -PLUS mechanisms from our list on its way to the
            // client.
            Flag::NotOffered if offered => return Err(SaslError::NotAuthorized),
            Flag::Unsupported | Flag::NotOffered if !plus => &[],
            Flag::Bound(name) if plus => bindings.data(name).ok_or(SaslError::MalformedRequest)?,
            _ => return Err(SaslError::MalformedRequest),
        };
        Ok([self.gs2_header.as_bytes(), data].concat())
    }

    /// Picks the server's nonce and makes `server-first-message`.
    ///
    /// `binding` is what [`binding`](Self::binding) gave. `known` is false where the keys are
    /// a decoy: the exchange goes on, and no proof is right. `told` are further attributes, each behind a comma.
    pub(super) fn challenge(
        &self,
        hash: ScramHash,
        keys: ScramKeys,
        known: bool,
        binding: Vec<u8>,
        told: &str,
        environment: &dyn Environment,
    ) -> (ServerFirst, Vec<u8>) {
        // 144 bits: base64 of them has neither padding nor commas.
        let mut random = [0; 18];
        environment.random(&mut random);
        let nonce = format!("{}{}", self.nonce, STANDARD.encode(random));
        let salt = STANDARD.encode(&keys.salt);
        let message = format!("r={nonce},s={salt},i={}{told}", keys.iterations);
        let transcript = format!("{},{message},", self.bare);
        (ServerFirst { hash, keys, known, binding, nonce, transcript }, message.into_bytes())
    }
}

/// After `server-first-message`: what the client's proof has to fit.
pub(super) struct ServerFirst {
    hash: ScramHash,
    keys: ScramKeys,
    known: bool,
    binding: Vec<u8>,
    nonce: String,
    /// `AuthMessage` up to the client's last message.
    transcript: String,
}

impl ServerFirst {
    /// Checks `client-final-message` and makes `server-final-message`.
    pub(super) fn verify(self, data: &[u8]) -> Result<Vec<u8>, SaslError> {
        const BAD: SaslError = SaslError::MalformedRequest;
        let text = std::str::from_utf8(data).map_err(|_| BAD)?;
        let (unproved, proof) = text.rsplit_once(",p=").ok_or(BAD)?;
        let mut fields = unproved.split(',');
        let binding = fields.next().and_then(|field| field.strip_prefix("c=")).ok_or(BAD)?;
        let nonce = fields.next().and_then(|field| field.strip_prefix("r=")).ok_or(BAD)?;
        if !fields.all(is_extension) {
            return Err(BAD);
        }
        let binding = STANDARD.decode(binding).map_err(|_| BAD)?;
        let proof = STANDARD.decode(proof).map_err(|_| BAD)?;

        let message = [self.transcript.as_bytes(), unproved.as_bytes()].concat();
        let signature = self.hash.hmac(&self.keys.stored_key, &message);
        let client_key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        // No early return among these, and constant time for each (SEC-1). A proof of another
        // length than the signature's gives another key or is refused by its length.
        let right = self.hash.hash(&client_key).ct_eq(&self.keys.stored_key)
            & subtle::Choice::from(u8::from(self.known))
            & subtle::Choice::from(u8::from(proof.len() == signature.len()))
            & nonce.as_bytes().ct_eq(self.nonce.as_bytes())
            & binding.ct_eq(&self.binding);
        if !bool::from(right) {
            return Err(SaslError::NotAuthorized);
        }
        let verifier = self.hash.hmac(&self.keys.server_key, &message);
        Ok(format!("v={}", STANDARD.encode(verifier)).into_bytes())
    }
}

/// `attr-val` (RFC 5802 §7): unknown extensions are part of what is signed, and otherwise
/// ignored.
fn is_extension(field: &str) -> bool {
    let mut characters = field.chars();
    let named =
        matches!(characters.next(), Some(name) if name.is_ascii_alphabetic() && name != 'm');
    named && characters.next() == Some('=') && characters.next().is_some() && !field.contains('\0')
}

/// `saslname` (RFC 5802 §7): `,` and `=` are written `=2C` and `=3D`.
pub(super) fn unescape(name: &str) -> Result<String, SaslError> {
    let mut pieces = name.split('=');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (character, rest) = match (piece.strip_prefix("2C"), piece.strip_prefix("3D")) {
            (Some(rest), _) => (',', rest),
            (_, Some(rest)) => ('=', rest),
            _ => return Err(SaslError::MalformedRequest),
        };
        text.push(character);
        text.push_str(rest);
    }
    if text.contains('\0') { Err(SaslError::MalformedRequest) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    /// Runs the server's side of a published exchange, with the server's part of the nonce put in.
    fn published(
        hash: ScramHash,
        salt: &str,
        first: &str,
        nonce: &str,
        last: &str,
    ) -> Result<String, SaslError> {
        published_with(hash, salt, first, nonce, last, (false, &ChannelBindings::new(), ""))
    }

    /// The same, with channel binding and further attributes.
    fn published_with(
        hash: ScramHash,
        salt: &str,
        first: &str,
        nonce: &str,
        last: &str,
        (plus, bindings, told): (bool, &ChannelBindings, &str),
    ) -> Result<String, SaslError> {
        let first = ClientFirst::parse(first.as_bytes())?;
        let salt = STANDARD.decode(salt).unwrap();
        let keys =
            ScramKeys::derive("pencil", &salt, NonZeroU32::new(4096).unwrap(), hash).unwrap();
        let binding = first.binding(plus, plus, bindings)?;
        let world = crate::environment::Virtual::new(1);
        let (mut expected, challenge) = first.challenge(hash, keys, true, binding, told, &world);
        let challenge = String::from_utf8(challenge).unwrap().replace(&expected.nonce, nonce);
        expected.nonce = nonce.to_owned();
        expected.transcript = format!("{},{challenge},", first.bare);
        Ok(String::from_utf8(expected.verify(last.as_bytes())?).unwrap())
    }

    #[test]
    fn sasl_7_the_exchange_of_rfc_5802_succeeds() {
        let verifier = published(
            ScramHash::Sha1,
            "QSXCR+Q6sek8bf92",
            "n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL",
            "fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j",
            "c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        );
        assert_eq!(verifier.as_deref(), Ok("v=rmF9pqV8S7suAoZWja4dJRkFsKQ="));
    }

    #[test]
    fn sasl_7_the_exchange_of_rfc_7677_succeeds() {
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let last = format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=");
        let first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
        let verifier =
            published(ScramHash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", first, nonce, &last);
        assert_eq!(verifier.as_deref(), Ok("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="));
        // The same proof for another nonce, another header, another hash function.
        let other = last.replace("biws", "eSws");
        let refused =
            published(ScramHash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", first, nonce, &other);
        assert_eq!(refused, Err(SaslError::NotAuthorized));
        let other = last.replace("rOpr", "rOps");
        let refused =
            published(ScramHash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", first, nonce, &other);
        assert_eq!(refused, Err(SaslError::NotAuthorized));
    }

    /// The examples of XEP-0474 §6.3 and XEP-0515 §4.3. The first has an `x=` in its last message, and a proof that is
    /// right.
    #[test]
    fn sasl_12_the_exchanges_of_xep_0474_and_xep_0515_succeed() {
        let nonce = "12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6a09117a6-ac50-4f2f-93f1-93799c2bddf6";
        let unproved = format!("c=cD10bHMtZXhwb3J0ZXIsLFRISVMgSVMgRkFLRSBDQiBEQVRB,r={nonce}");
        let bindings = ChannelBindings::new().exporter(b"THIS IS FAKE CB DATA".to_vec());
        let verifier = |told: &str, last: &str| {
            published_with(
                ScramHash::Sha1,
                "QSXCR+Q6sek8bf92",
                "p=tls-exporter,,n=user,r=12C4CD5C-E38E-4A98-8F6D-15C38F51CCC6",
                nonce,
                &format!("{unproved}{last}"),
                (true, &bindings, told),
            )
        };
        let (ssdp, tdp) = (",h=G6k/rBLDqgOhRRaCuuatSDFkJ08=", ",t=0304");
        let last = ",x=19C6532F-1CF4-4A27-A18D-DC9CEA41BBB3,p=M/SIDjT+dfcxUh89jZEypRvFxB4=";
        assert_eq!(verifier(ssdp, last).as_deref(), Ok("v=MQrMPvv7yv4x4Cq4W4Ih25EqS2c="));
        let both = [ssdp, tdp].concat();
        let last = ",p=KHUfN8dSy1K95crT4D5y1ItLJfs=";
        assert_eq!(verifier(&both, last).as_deref(), Ok("v=3w34ZIMVRkx2f2Ozb3/ecRPVdv4="));
        for other in [ssdp, "", &both.replace("0304", "0303")] {
            assert_eq!(verifier(other, last), Err(SaslError::NotAuthorized), "{other}");
        }
    }

    #[test]
    fn sasl_6_names_are_unescaped() {
        let name = |first: &str| {
            ClientFirst::parse(first.as_bytes()).map(|first| (first.username, first.authzid))
        };
        assert_eq!(name("n,,n=a=2Cb=3Dc,r=x"), Ok(("a,b=c".to_owned(), String::new())));
        assert_eq!(name("n,a=u=3D,n=,r=x"), Ok((String::new(), "u=".to_owned())));
        for bad in ["n,,n=a=,r=x", "n,,n=a=2c,r=x", "n,,n==,r=x", "n,a=\0,n=a,r=x"] {
            assert_eq!(name(bad), Err(SaslError::MalformedRequest), "{bad}");
        }
    }

    #[test]
    fn sec_7_messages_that_break_the_grammar_are_malformed() {
        for first in [
            "",
            "n",
            "n,",
            "n,,",
            "n,,n",
            "n,,n=",
            "n,,n=a",
            "n,,n=a,",
            "n,,n=a,r",
            "n,,n=a,r=",
            "n,,n=a,r= ",
            "x,,n=a,r=x",
            "p,,n=a,r=x",
            "n,b,n=a,r=x",
            "n,a,n=a,r=x",
            "n,,m=x,n=a,r=x",
            "n,,r=x,n=a",
            "n,,n=a,r=x,",
            "n,,n=a,r=x,m=y",
            "n,,n=a,r=x,1=y",
            "n,,n=a,r=\u{e9}",
            "\u{e9},,n=a,r=x",
            "F,n,,n=a,r=x",
        ] {
            assert_eq!(
                ClientFirst::parse(first.as_bytes()).err(),
                Some(SaslError::MalformedRequest),
                "{first}"
            );
        }
        assert!(ClientFirst::parse(b"n,,n=a,r=x,e=1").is_ok());
        assert_eq!(ClientFirst::parse(b"n,,n=\xff,r=x").err(), Some(SaslError::MalformedRequest));
    }
}
