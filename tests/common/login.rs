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

/// What a client has seen of the offer: the features of the stream, or the part about its profile and channel bindings;
/// and its version of TLS if any.
pub type Seen<'a> = (&'a str, Option<&'a str>);

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

/// The same by a client that has seen this offer.
pub fn login_having_seen(
    seen: Option<Seen<'_>>,
    user: (&'static str, &'static str),
    mechanism: &str,
    channel: Channel,
    mut talk: impl FnMut(&str) -> String,
) -> String {
    let (mut client, text) = begin(user, mechanism, channel);
    client.has_seen(seen, "mechanisms");
    let mut element = format!("<auth xmlns='{NS}' mechanism='{mechanism}'>{text}</auth>");
    loop {
        let answer = talk(&element);
        let content = |name: &str| {
            let rest = answer.strip_prefix(&format!("<{name} xmlns='{NS}'>"))?;
            rest.split('<').next().map(|text| STANDARD.decode(text).unwrap())
        };
        let mut text = Vec::new();
        if let Some(challenge) = content("challenge") {
            client.step(Some(&challenge), &mut text).unwrap();
            let text = STANDARD.encode(text);
            element = format!("<response xmlns='{NS}'>{text}</response>");
        } else {
            if let Some(proof) = content("success") {
                client.step(Some(&proof), &mut text).expect("the server's proof");
            }
            return answer;
        }
    }
}

/// A client, and its first message.
pub fn begin(
    (name, password): (&'static str, &'static str),
    mechanism: &str,
    Channel(kind, data): Channel,
) -> (Session, String) {
    let is_bound = mechanism.ends_with("-PLUS");
    let header = if is_bound { format!("p={kind},,") } else { "n,,".to_owned() };
    let first = match mechanism {
        "PLAIN" => format!("\0{name}\0{password}"),
        _ => format!("{header}n={name},r=fyko+d2lbbFgONRv9qkxdawL"),
    };
    let session = Session {
        hash: Hash(mechanism.trim_start_matches("SCRAM-").trim_end_matches("-PLUS").to_owned()),
        password,
        bare: first.strip_prefix(&header).unwrap_or_default().to_owned(),
        binding: [header.into_bytes(), if is_bound { data } else { Vec::new() }].concat(),
        offer: None,
        verifier: None,
    };
    (session, STANDARD.encode(first))
}

/// A client in the midst of it.
pub struct Session {
    hash: Hash,
    password: &'static str,
    bare: String,
    /// What `c=` has to be.
    binding: Vec<u8>,
    /// What `h=` and `t=` have to be.
    offer: Option<(String, Option<String>)>,
    /// What the server's last message has to be.
    verifier: Option<String>,
}

impl Session {
    /// What is to be told of the offer; `list`: the name of the element that has the mechanisms of the profile.
    pub fn has_seen(&mut self, seen: Option<Seen<'_>>, list: &str) {
        // PLAIN is told nothing.
        self.offer = seen.filter(|_| self.hash.0 != "PLAIN").map(|(features, version)| {
            let hash = self.hash.digest(offer(features, list).as_bytes());
            (STANDARD.encode(hash), version.map(str::to_owned))
        });
    }

    /// Takes a message of the server and writes the next one.
    pub fn step(&mut self, data: Option<&[u8]>, out: &mut Vec<u8>) -> Result<(), &'static str> {
        let text = std::str::from_utf8(data.unwrap_or_default()).map_err(|_| "not UTF-8")?;
        if self.hash.0 == "PLAIN" {
            return if text.is_empty() { Ok(()) } else { Err("PLAIN says nothing") };
        }
        if let Some(verifier) = &self.verifier {
            return if text == verifier { Ok(()) } else { Err("not the server's proof") };
        }
        let field = |name: &str| text.split(',').find_map(|field| field.strip_prefix(name));
        if let Some((hash, version)) = &self.offer {
            assert_eq!(field("h="), Some(&**hash), "another offer than was seen");
            assert_eq!(field("t="), version.as_deref(), "another version of TLS");
        }
        let [Some(nonce), Some(salt), Some(count)] = ["r=", "s=", "i="].map(field) else {
            return Err("not a first message");
        };
        let salt = STANDARD.decode(salt).map_err(|_| "no base64")?;
        let count = count.parse().map_err(|_| "no number")?;
        let salted = self.hash.salted(self.password, &salt, count);
        let unproved = format!("c={},r={nonce}", STANDARD.encode(&self.binding));
        let signed = format!("{},{text},{unproved}", self.bare);
        let key = self.hash.mac(&salted, b"Client Key");
        let signature = self.hash.mac(&self.hash.digest(&key), signed.as_bytes());
        let proof: Vec<_> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        out.extend(format!("{unproved},p={}", STANDARD.encode(proof)).into_bytes());
        let theirs = self.hash.mac(&self.hash.mac(&salted, b"Server Key"), signed.as_bytes());
        self.verifier = Some(format!("v={}", STANDARD.encode(theirs)));
        Ok(())
    }
}

/// The string of XEP-0474 §6.1 for these features.
fn offer(features: &str, list: &str) -> String {
    let all = |text: &str, before: &str, after: &str| {
        let mut found: Vec<_> =
            text.split(before).skip(1).map(|rest| rest.split(after).next().unwrap()).collect();
        found.sort_unstable();
        found.join("\u{1e}")
    };
    let (_, rest) = features.split_once(&format!("<{list} xmlns='")).expect("the list");
    let (own, _) = rest.split_once(&format!("</{list}>")).expect("its end");
    // What comes with an authentication in SASL2 has mechanisms of its own.
    let own = own.split("<inline").next().unwrap();
    let mechanisms = all(own, "<mechanism>", "</mechanism>");
    match features.contains("<sasl-channel-binding") {
        true => format!("{mechanisms}\u{1f}{}", all(features, "<channel-binding type='", "'")),
        false => mechanisms,
    }
}

/// A hash function by its name.
pub struct Hash(pub String);

impl Hash {
    fn digest(&self, data: &[u8]) -> Vec<u8> {
        match &*self.0 {
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
        match &*self.0 {
            "SHA-1" => mac!(Sha1),
            "SHA-256" => mac!(Sha256),
            "SHA-512" => mac!(Sha512),
            other => panic!("{other}"),
        }
    }

    /// `Hi` of RFC 5802 §2.2, as it is written there.
    pub fn salted(&self, password: &str, salt: &[u8], iterations: usize) -> Vec<u8> {
        let mut last = self.mac(password.as_bytes(), &[salt, &[0, 0, 0, 1]].concat());
        let mut salted = last.clone();
        for _ in 1..iterations {
            last = self.mac(password.as_bytes(), &last);
            salted.iter_mut().zip(&last).for_each(|(sum, byte)| *sum ^= byte);
        }
        salted
    }
}
