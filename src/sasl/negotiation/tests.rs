mod binding;
mod exchange;
mod hostile;
mod identity;
mod proof;
mod tasks;

use std::num::NonZeroU32;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use jid::BareJid;
use pbkdf2::pbkdf2_array;
use proptest::prelude::*;
use rsasl::callback::SessionCallback;
use rsasl::config::SASLConfig;
use rsasl::mechanisms::plain::PLAIN;
use rsasl::mechanisms::scram::{
    SCRAM_SHA1, SCRAM_SHA1_PLUS, SCRAM_SHA256, SCRAM_SHA256_PLUS, SCRAM_SHA512, SCRAM_SHA512_PLUS,
};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Registry, SASLClient};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use crate::environment::Virtual;
use crate::sasl::wire::Request;
use crate::sasl::{
    ChannelBindings, Context, Failure, Mechanism, Negotiation, Policy, SaslError, Step, wire,
};
use crate::store::{Credentials, ScramHash, ScramKeys, Verdict};

const DOMAIN: &str = "im.example.com";
const PASSWORD: &str = "r0m30myr0m30";
const SCRAMS: [Mechanism; 6] = [
    Mechanism::ScramSha1,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha256Plus,
    Mechanism::ScramSha512,
    Mechanism::ScramSha512Plus,
];

/// Few iterations, since some of these tests run hundreds of exchanges.
const FEW: NonZeroU32 = NonZeroU32::new(3).unwrap();

fn policy() -> Policy {
    Policy::new(&Virtual::new(1)).mechanisms(&Mechanism::ALL).iterations(FEW)
}

/// A stream, and a store with one account.
struct World {
    negotiation: Negotiation,
    user: &'static str,
    credentials: Credentials,
    asked: Vec<BareJid>,
}

impl World {
    fn new() -> Self {
        Self::with(|_| ())
    }

    fn with(change: impl FnOnce(&mut Context)) -> Self {
        let environment = Arc::new(Virtual::new(1));
        let mut context = Context {
            policy: Arc::new(policy()),
            environment: environment.clone(),
            domain: jid::DomainPart::new(DOMAIN).unwrap().into_owned(),
            secure: true,
            bindings: bindings(),
            certified: Vec::new(),
            adds_keys: true,
        };
        change(&mut context);
        let credentials = Credentials::from_password_with(PASSWORD, FEW, &*environment).unwrap();
        Self {
            negotiation: Negotiation::new(context),
            user: "juliet",
            credentials,
            asked: Vec::new(),
        }
    }

    /// Hands in a request and answers from the store.
    fn receive(&mut self, request: Result<Request<'_>, SaslError>) -> Result<Step, Failure> {
        match self.negotiation.receive(request)? {
            Step::NeedCredentials { account } => {
                let found = account.node().is_some_and(|node| node.as_str() == self.user);
                self.asked.push(account);
                match self.negotiation.credentials(found.then(|| self.credentials.clone()))? {
                    Step::CheckKeys(check) => self.negotiation.hashed(check()),
                    step => Ok(step),
                }
            }
            step => Ok(step),
        }
    }

    fn auth(&mut self, mechanism: Mechanism, initial: &[u8]) -> Result<Step, Failure> {
        self.receive(Ok(Request::Auth {
            mechanism: mechanism.as_str(),
            initial: Some(initial.to_vec()),
        }))
    }

    fn plain(&mut self, authzid: &str, user: &str, password: &str) -> Result<Step, Failure> {
        self.auth(Mechanism::Plain, format!("{authzid}\0{user}\0{password}").as_bytes())
    }

    fn respond(&mut self, data: &[u8]) -> Result<Step, Failure> {
        self.receive(Ok(Request::Response(data.to_vec())))
    }

    /// A whole SCRAM exchange by the client below.
    fn scram(&mut self, mechanism: Mechanism, client: &Client<'_>) -> Result<Step, Failure> {
        let challenge = challenge(self.auth(mechanism, client.first().as_bytes())?);
        let last = client.last(mechanism.hash().unwrap(), &challenge);
        self.respond(last.as_bytes())
    }

    /// Runs a client that is not ours against the stream.
    fn run(
        &mut self,
        mechanism: Mechanism,
        authzid: Option<&str>,
        user: &str,
        password: &str,
    ) -> Result<Step, Failure> {
        // It leaves attributes that it does not know out of what it signs, against RFC 5802 §5.1.
        let context = &mut self.negotiation.context;
        context.policy = Arc::new(Policy::clone(&context.policy).downgrade_protection(false));
        // Its defaults leave the mechanisms with channel binding out.
        static ALL: [rsasl::prelude::Mechanism; 7] = [
            PLAIN,
            SCRAM_SHA1,
            SCRAM_SHA256,
            SCRAM_SHA512,
            SCRAM_SHA1_PLUS,
            SCRAM_SHA256_PLUS,
            SCRAM_SHA512_PLUS,
        ];
        let config = SASLConfig::builder()
            .with_registry(if mechanism.binds_channel() {
                Registry::with_mechanisms(&ALL[4..])
            } else {
                Registry::with_mechanisms(&ALL[..4])
            })
            .with_callback(Login {
                authzid: authzid.map(str::to_owned),
                user: user.to_owned(),
                password: password.to_owned(),
            })
            .unwrap();
        let name = Mechname::parse(mechanism.as_str().as_bytes()).unwrap();
        let mut client = SASLClient::with_cb(config, Channel).start_suggested(&[name]).unwrap();
        let mut out = Vec::new();
        client.step(None, &mut out).unwrap();
        let mut step = self.auth(mechanism, &out)?;
        while let Step::Challenge(data) = step {
            out.clear();
            client.step(Some(&data), &mut out).unwrap();
            step = self.respond(&out)?;
        }
        if let Step::Success { data: Some(data), .. } = &step {
            // The client checks that the server knows the keys too (RFC 5802 §3).
            client.step(Some(data), &mut Vec::new()).unwrap();
        }
        Ok(step)
    }
}

fn bindings() -> ChannelBindings {
    ChannelBindings::new().exporter(b"exported".to_vec()).server_end_point(b"certificate".to_vec())
}

struct Login {
    authzid: Option<String>,
    user: String,
    password: String,
}

impl SessionCallback for Login {
    fn callback(
        &self,
        _: &rsasl::callback::SessionData,
        _: &rsasl::callback::Context<'_>,
        request: &mut rsasl::callback::Request<'_>,
    ) -> Result<(), rsasl::prelude::SessionError> {
        use rsasl::property::{AuthId, AuthzId, Password};
        request.satisfy::<AuthId>(&self.user)?.satisfy::<Password>(self.password.as_bytes())?;
        if let Some(authzid) = &self.authzid {
            request.satisfy::<AuthzId>(authzid)?;
        }
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}

struct Channel;

impl rsasl::prelude::ChannelBindingCallback for Channel {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        (name == "tls-exporter").then_some(b"exported")
    }
}

/// A SCRAM client that can also be made to break the rules.
struct Client<'a> {
    header: &'a str,
    user: &'a str,
    password: &'a str,
    channel: &'a [u8],
}

impl Default for Client<'_> {
    fn default() -> Self {
        Self { header: "n,,", user: "juliet", password: PASSWORD, channel: b"" }
    }
}

impl Client<'_> {
    fn bare(&self) -> String {
        format!("n={},r=clientnonce", self.user)
    }

    fn first(&self) -> String {
        format!("{}{}", self.header, self.bare())
    }

    fn last(&self, hash: ScramHash, challenge: &str) -> String {
        self.last_with(hash, challenge, &challenge.split(',').next().unwrap()[2..])
    }

    fn last_with(&self, hash: ScramHash, challenge: &str, nonce: &str) -> String {
        let fields: Vec<_> = challenge.split(',').collect();
        let (salt, iterations) = (STANDARD.decode(&fields[1][2..]).unwrap(), &fields[2][2..]);
        let unproved = format!(
            "c={},r={nonce}",
            STANDARD.encode([self.header.as_bytes(), self.channel].concat())
        );
        let message = format!("{},{challenge},{unproved}", self.bare());
        let (password, count) = (self.password.as_bytes(), iterations.parse().unwrap());
        let salted = match hash {
            ScramHash::Sha1 => {
                pbkdf2_array::<Hmac<Sha1>, 20>(password, &salt, count).unwrap().to_vec()
            }
            ScramHash::Sha256 => {
                pbkdf2_array::<Hmac<Sha256>, 32>(password, &salt, count).unwrap().to_vec()
            }
            ScramHash::Sha512 => {
                pbkdf2_array::<Hmac<Sha512>, 64>(password, &salt, count).unwrap().to_vec()
            }
        };
        let key = hash.hmac(&salted, b"Client Key");
        let signature = hash.hmac(&hash.hash(&key), message.as_bytes());
        let proof: Vec<u8> = key.iter().zip(signature).map(|(a, b)| a ^ b).collect();
        format!("{unproved},p={}", STANDARD.encode(proof))
    }
}

fn challenge(step: Step) -> String {
    let Step::Challenge(data) = step else { panic!("not a challenge: {step:?}") };
    String::from_utf8(data).unwrap()
}

#[track_caller]
fn assert_success(step: Result<Step, Failure>, jid: &str) {
    match step {
        Ok(Step::Success { account, .. }) => assert_eq!(account.as_str(), jid),
        other => panic!("not a success: {other:?}"),
    }
}

#[track_caller]
fn assert_refused(step: Result<Step, Failure>, error: SaslError) {
    match step {
        Err(refused) => assert_eq!(refused.error, error),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn names(world: &World) -> Vec<&'static str> {
    world.negotiation.context.offered().map(Mechanism::as_str).collect()
}
