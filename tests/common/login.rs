//! SASL of a client of the tests' own. It knows nothing of the server's code, and holds what SCRAM tells of the offer
//! (SASL-12) against what it has seen. (rsasl, the other end in the unit tests, signs no attribute that it does not know.)

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha1::{Digest as _, Sha1};
use sha2::{Sha256, Sha512};

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

/// The binding of a channel: its type and its data.
pub struct Channel(pub &'static str, pub Vec<u8>);

/// Logs in. `talk` sends an element and gives the server's answer; the last answer is returned,
/// and a proof of the server's in it was right.
pub fn login(
    user: (&'static str, &'static str),
    mechanism: &str,
    channel: Channel,
    talk: impl FnMut(&str) -> String,
) -> String {
    login_having_seen(None, user, mechanism, channel, talk)
}

/// The same by a client that has seen these features, on a channel with this version of TLS if any.
pub fn login_having_seen(
    seen: Option<(&str, Option<&str>)>,
    (name, password): (&'static str, &'static str),
    mechanism: &str,
    channel: Channel,
    mut talk: impl FnMut(&str) -> String,
) -> String {
    let auth = |text: &str| {
        let text = STANDARD.encode(text);
        format!("<auth xmlns='{NS}' mechanism='{mechanism}'>{text}</auth>")
    };
    if mechanism == "PLAIN" {
        return talk(&auth(&format!("\0{name}\0{password}")));
    }
    let hash = Hash(mechanism.trim_start_matches("SCRAM-").trim_end_matches("-PLUS"));
    let is_bound = mechanism.ends_with("-PLUS");
    let header = if is_bound { format!("p={},,", channel.0) } else { "n,,".to_owned() };
    let data = if is_bound { channel.1 } else { Vec::new() };
    let bare = format!("n={name},r=fyko+d2lbbFgONRv9qkxdawL");
    let answer = talk(&auth(&format!("{header}{bare}")));
    let Some(first) = content(&answer, "challenge") else { return answer };

    let field = |name: &str| first.split(',').find_map(|field| field.strip_prefix(name));
    if let Some((features, version)) = seen {
        assert_eq!(field("h="), Some(&*STANDARD.encode(hash.digest(offer(features).as_bytes()))));
        assert_eq!(field("t="), version);
    }
    let (nonce, count) = (field("r=").unwrap(), field("i=").unwrap().parse().unwrap());
    let salted = hash.salted(password, &STANDARD.decode(field("s=").unwrap()).unwrap(), count);
    let binding = STANDARD.encode([header.as_bytes(), &data].concat());
    let unproved = format!("c={binding},r={nonce}");
    let signed = format!("{bare},{first},{unproved}");
    let key = hash.mac(&salted, b"Client Key");
    let signature = hash.mac(&hash.digest(&key), signed.as_bytes());
    let proof: Vec<_> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    let last = STANDARD.encode(format!("{unproved},p={}", STANDARD.encode(proof)));
    let answer = talk(&format!("<response xmlns='{NS}'>{last}</response>"));
    if let Some(proof) = content(&answer, "success") {
        let theirs = hash.mac(&hash.mac(&salted, b"Server Key"), signed.as_bytes());
        assert_eq!(proof, format!("v={}", STANDARD.encode(theirs)), "the server's proof");
    }
    answer
}

fn content(answer: &str, name: &str) -> Option<String> {
    let rest = answer.strip_prefix(&format!("<{name} xmlns='{NS}'>"))?;
    let text = STANDARD.decode(rest.split('<').next()?).unwrap();
    Some(String::from_utf8(text).unwrap())
}

/// The string of XEP-0474 §6.1 for these features.
fn offer(features: &str) -> String {
    let all = |text: &str, before: &str, after: &str| {
        let mut found: Vec<_> =
            text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect();
        found.sort_unstable();
        found.join("\u{1e}")
    };
    // The other profile has a list of its own.
    let list = features.split("<mechanisms").nth(1).unwrap().split("</mechanisms>").next().unwrap();
    let mechanisms = all(list, "<mechanism>", "</mechanism>");
    match features.contains("<sasl-channel-binding") {
        true => format!("{mechanisms}\u{1f}{}", all(features, "<channel-binding type='", "'")),
        false => mechanisms,
    }
}

/// A hash function by its name.
struct Hash<'a>(&'a str);

impl Hash<'_> {
    fn digest(&self, data: &[u8]) -> Vec<u8> {
        match self.0 {
            "SHA-1" => Sha1::digest(data).to_vec(),
            "SHA-256" => Sha256::digest(data).to_vec(),
            "SHA-512" => Sha512::digest(data).to_vec(),
            other => panic!("{other}"),
        }
    }

    fn mac(&self, key: &[u8], data: &[u8]) -> Vec<u8> {
        macro_rules! mac {
            ($hash:ty) => {
                Hmac::<$hash>::new_from_slice(key)
                    .unwrap()
                    .chain_update(data)
                    .finalize()
                    .into_bytes()
                    .to_vec()
            };
        }
        match self.0 {
            "SHA-1" => mac!(Sha1),
            "SHA-256" => mac!(Sha256),
            "SHA-512" => mac!(Sha512),
            other => panic!("{other}"),
        }
    }

    /// `Hi` of RFC 5802 §2.2, as it is written there.
    fn salted(&self, password: &str, salt: &[u8], iterations: usize) -> Vec<u8> {
        let mut last = self.mac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
        let mut salted = last.clone();
        for _ in 1..iterations {
            last = self.mac(password.as_bytes(), &last);
            salted.iter_mut().zip(&last).for_each(|(sum, byte)| *sum ^= byte);
        }
        salted
    }
}
