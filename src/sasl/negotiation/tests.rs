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
use rsasl::mechanisms::scram::{SCRAM_SHA1, SCRAM_SHA1_PLUS, SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::mechname::Mechname;
use rsasl::prelude::{Registry, SASLClient};
use sha1::Sha1;
use sha2::Sha256;

use crate::environment::Virtual;
use crate::sasl::wire::Request;
use crate::sasl::{
    ChannelBindings, Context, Mechanism, Negotiation, Policy, Refused, SaslError, Step, wire,
};
use crate::store::{Credentials, ScramHash, ScramKeys, Verdict};

const DOMAIN: &str = "im.example.com";
const PASSWORD: &str = "r0m30myr0m30";
const SCRAMS: [Mechanism; 4] = [
    Mechanism::ScramSha1,
    Mechanism::ScramSha1Plus,
    Mechanism::ScramSha256,
    Mechanism::ScramSha256Plus,
];

/// Few iterations, since some of these tests run hundreds of exchanges.
const FEW: NonZeroU32 = NonZeroU32::new(3).unwrap();

fn policy() -> Policy {
    Policy::new(&Virtual::new(1)).iterations(FEW)
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
    fn receive(&mut self, request: Result<Request<'_>, SaslError>) -> Result<Step, Refused> {
        match self.negotiation.receive(request)? {
            Step::NeedCredentials { account } => {
                let found = account.node().is_some_and(|node| node.as_str() == self.user);
                self.asked.push(account);
                self.negotiation.credentials(found.then(|| self.credentials.clone()))
            }
            step => Ok(step),
        }
    }

    fn auth(&mut self, mechanism: Mechanism, initial: &[u8]) -> Result<Step, Refused> {
        self.receive(Ok(Request::Auth {
            mechanism: mechanism.name(),
            initial: Some(initial.to_vec()),
        }))
    }

    fn plain(&mut self, authzid: &str, user: &str, password: &str) -> Result<Step, Refused> {
        self.auth(Mechanism::Plain, format!("{authzid}\0{user}\0{password}").as_bytes())
    }

    fn respond(&mut self, data: &[u8]) -> Result<Step, Refused> {
        self.receive(Ok(Request::Response(data.to_vec())))
    }

    /// A whole SCRAM exchange by the client below.
    fn scram(&mut self, mechanism: Mechanism, client: &Client<'_>) -> Result<Step, Refused> {
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
    ) -> Result<Step, Refused> {
        // Its defaults leave the mechanisms with channel binding out.
        static ALL: [rsasl::prelude::Mechanism; 5] =
            [PLAIN, SCRAM_SHA1, SCRAM_SHA256, SCRAM_SHA1_PLUS, SCRAM_SHA256_PLUS];
        let config = SASLConfig::builder()
            .with_registry(if mechanism.binds_channel() {
                Registry::with_mechanisms(&ALL[3..])
            } else {
                Registry::with_mechanisms(&ALL[..3])
            })
            .with_callback(Login {
                authzid: authzid.map(str::to_owned),
                user: user.to_owned(),
                password: password.to_owned(),
            })
            .unwrap();
        let name = Mechname::parse(mechanism.name().as_bytes()).unwrap();
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
fn assert_success(step: Result<Step, Refused>, jid: &str) {
    match step {
        Ok(Step::Success { account, .. }) => assert_eq!(account.as_str(), jid),
        other => panic!("not a success: {other:?}"),
    }
}

#[track_caller]
fn assert_refused(step: Result<Step, Refused>, error: SaslError) {
    match step {
        Err(refused) => assert_eq!(refused.error, error),
        other => panic!("not a refusal: {other:?}"),
    }
}

fn names(world: &World) -> Vec<&'static str> {
    world.negotiation.context.offered().map(Mechanism::name).collect()
}

#[test]
fn sasl_1_another_implementation_logs_in_by_every_mechanism() {
    for mechanism in Mechanism::ALL {
        // That client says "y" in the mechanisms without channel binding.
        let mut world = World::with(|context| {
            if !mechanism.binds_channel() {
                context.bindings = ChannelBindings::new();
            }
        });
        assert_success(world.run(mechanism, None, "juliet", PASSWORD), "juliet@im.example.com");
        assert_refused(world.run(mechanism, None, "juliet", "wrong"), SaslError::NotAuthorized);
        assert_refused(world.run(mechanism, None, "romeo", PASSWORD), SaslError::NotAuthorized);
    }
}

#[test]
fn sasl_1_what_is_offered_follows_from_stream_and_policy() {
    let all = ["SCRAM-SHA-256-PLUS", "SCRAM-SHA-1-PLUS", "SCRAM-SHA-256", "SCRAM-SHA-1", "PLAIN"];
    assert_eq!(names(&World::new()), all);
    assert_eq!(names(&World::with(|context| context.bindings = ChannelBindings::new())), all[2..]);
    assert_eq!(names(&World::with(|context| context.secure = false)), [""; 0]);
    let insecure = World::with(|context| {
        context.secure = false;
        context.policy = Arc::new(policy().allow_insecure(true));
    });
    assert_eq!(names(&insecure), ["SCRAM-SHA-256", "SCRAM-SHA-1"]);
    let offered = |change: fn(Policy) -> Policy| {
        names(&World::with(|context| context.policy = Arc::new(change(policy()))))
    };
    assert_eq!(
        offered(|policy| policy.mechanisms(&[Mechanism::Plain, Mechanism::ScramSha256])),
        [all[2], all[4]]
    );
    assert_eq!(offered(|policy| policy.authenticator(false)), ["PLAIN"]);
    assert_eq!(offered(|policy| policy.authenticator(true)), all);
}

#[test]
fn sasl_1_what_is_not_offered_is_an_invalid_mechanism() {
    let mut world = World::with(|context| {
        context.bindings = ChannelBindings::new();
        context.policy = Arc::new(policy().mechanisms(&SCRAMS));
    });
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::InvalidMechanism);
    assert_refused(world.auth(Mechanism::ScramSha1Plus, b""), SaslError::InvalidMechanism);
    let unknown = Request::Auth { mechanism: "", initial: None };
    assert_refused(world.receive(Ok(unknown)), SaslError::InvalidMechanism);
    assert!(world.asked.is_empty());
}

#[test]
fn tls_3_an_insecure_stream_wants_encryption_first() {
    let mut world = World::with(|context| context.secure = false);
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::EncryptionRequired);
    assert!(world.asked.is_empty());
    let mut world = World::with(|context| {
        context.secure = false;
        context.policy = Arc::new(policy().allow_insecure(true));
    });
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::InvalidMechanism);
    assert_success(
        world.scram(Mechanism::ScramSha256, &Client::default()),
        "juliet@im.example.com",
    );
}

#[test]
fn sasl_2_without_initial_response_the_client_is_asked_for_it() {
    for mechanism in Mechanism::ALL {
        let mut world = World::new();
        let step = world.receive(Ok(Request::Auth { mechanism: mechanism.name(), initial: None }));
        assert_eq!(challenge(step.unwrap()), "");
    }
    let mut world = World::new();
    world.receive(Ok(Request::Auth { mechanism: "PLAIN", initial: None })).unwrap();
    assert_success(
        world.respond(format!("\0juliet\0{PASSWORD}").as_bytes()),
        "juliet@im.example.com",
    );
}

#[test]
fn sasl_2_bad_encoding_ends_the_exchange() {
    let mut world = World::new();
    world.auth(Mechanism::ScramSha1, Client::default().first().as_bytes()).unwrap();
    assert_refused(world.receive(wire::parse("response", None, "?")), SaslError::IncorrectEncoding);
    assert_refused(world.respond(b""), SaslError::MalformedRequest);
}

#[test]
fn sasl_3_a_further_auth_discards_the_exchange() {
    let mut world = World::new();
    let client = Client::default();
    let first = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
    let second = challenge(world.auth(Mechanism::ScramSha256, client.first().as_bytes()).unwrap());
    assert_ne!(first.split(',').next(), second.split(',').next());
    assert_success(
        world.respond(client.last(ScramHash::Sha256, &second).as_bytes()),
        "juliet@im.example.com",
    );

    let first = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
    world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap();
    assert_refused(
        world.respond(client.last(ScramHash::Sha1, &first).as_bytes()),
        SaslError::NotAuthorized,
    );
}

#[test]
fn sasl_4_abort_is_a_failed_attempt_and_a_lone_response_is_malformed() {
    let mut world = World::new();
    assert_refused(world.respond(b""), SaslError::MalformedRequest);
    let client = Client::default();
    let first = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
    assert_refused(world.receive(Ok(Request::Abort)), SaslError::Aborted);
    assert_refused(
        world.respond(client.last(ScramHash::Sha1, &first).as_bytes()),
        SaslError::MalformedRequest,
    );
    let last = world.receive(Ok(Request::Abort)).unwrap_err();
    assert_eq!(last, Refused { error: SaslError::Aborted, close: true });
}

#[test]
fn sasl_5_only_the_own_bare_jid_is_an_authorization_identity() {
    let own = ["", "juliet@im.example.com", "Juliet@IM.example.com"];
    let not = [
        "romeo@im.example.com",
        "juliet@example.com",
        "juliet",
        "im.example.com",
        "juliet@im.example.com/balcony",
        "juliet@im.example.com./balcony",
        "juliet@im.example.com/",
        "@",
        "@im.example.com",
        " ",
    ];
    for authzid in own {
        assert_success(World::new().plain(authzid, "juliet", PASSWORD), "juliet@im.example.com");
        let header = if authzid.is_empty() { "n,,".to_owned() } else { format!("n,a={authzid},") };
        let client = Client { header: &header, ..Client::default() };
        assert_success(World::new().scram(Mechanism::ScramSha1, &client), "juliet@im.example.com");
    }
    for authzid in not {
        assert_refused(World::new().plain(authzid, "juliet", PASSWORD), SaslError::InvalidAuthzid);
        let client = Client { header: &format!("n,a={authzid},"), ..Client::default() };
        assert_refused(
            World::new().scram(Mechanism::ScramSha1, &client),
            SaslError::InvalidAuthzid,
        );
    }
    assert_success(
        World::new().run(Mechanism::Plain, Some("juliet@im.example.com"), "juliet", PASSWORD),
        "juliet@im.example.com",
    );
    // RFC 5802 §7: "a=" needs a name, an empty one cannot be written so.
    let client = Client { header: "n,a=,", ..Client::default() };
    assert_success(World::new().scram(Mechanism::ScramSha1, &client), "juliet@im.example.com");
}

#[test]
fn sasl_6_the_user_is_normalised() {
    let mut world = World::new();
    assert_success(world.plain("", "JULIET", PASSWORD), "juliet@im.example.com");
    let client = Client { user: "JuliEt", ..Client::default() };
    assert_success(world.scram(Mechanism::ScramSha256, &client), "juliet@im.example.com");
    assert!(world.asked.iter().all(|account| account.as_str() == "juliet@im.example.com"));
}

#[test]
fn sasl_6_an_empty_or_invalid_name_is_not_authorized() {
    let long = "a".repeat(1024);
    for user in
        ["", "juliet@im.example.com", "a b", "a/b", "\u{feff}", "\u{e000}", "a\u{1f600}", &long]
    {
        let mut world = World::new();
        assert_refused(world.plain("", user, PASSWORD), SaslError::NotAuthorized);
        let client = Client { user, ..Client::default() };
        assert_refused(world.scram(Mechanism::ScramSha1, &client), SaslError::NotAuthorized);
        assert!(world.asked.is_empty(), "{user}");
    }
}

#[test]
fn limit_24_a_localpart_of_1023_bytes_is_one() {
    let mut world = World::new();
    let _ = world.plain("", &"a".repeat(1023), PASSWORD);
    assert_eq!(world.asked.len(), 1);
}

#[test]
fn sasl_7_plain_refuses_unknown_users_wrong_and_odd_passwords_alike() {
    for (user, password) in [
        ("juliet", "x"),
        ("romeo", PASSWORD),
        ("juliet", ""),
        ("juliet", "\u{7}"),
        ("romeo", "\u{7}"),
    ] {
        let mut world = World::new();
        assert_refused(world.plain("", user, password), SaslError::NotAuthorized);
    }
    for message in ["", "juliet", "\0juliet", "\0juliet\0pw\0", "\0\0\0\0"] {
        assert_refused(
            World::new().auth(Mechanism::Plain, message.as_bytes()),
            SaslError::MalformedRequest,
        );
    }
    assert_refused(
        World::new().auth(Mechanism::Plain, b"\0juliet\0\xff"),
        SaslError::MalformedRequest,
    );
}

#[test]
fn sasl_7_scram_shows_an_unknown_user_what_it_shows_a_known_one() {
    let shown = |world: &mut World, user: &str| {
        let client = Client { user, ..Client::default() };
        let challenge =
            challenge(world.auth(Mechanism::ScramSha256, client.first().as_bytes()).unwrap());
        let fields: Vec<_> = challenge.split(',').map(str::to_owned).collect();
        let refused =
            world.respond(client.last(ScramHash::Sha256, &challenge).as_bytes()).map(|_| ());
        (
            fields[0].len(),
            fields[1].clone(),
            fields[2].clone(),
            refused.err().map(|refused| refused.error),
        )
    };
    let (nonce, salt, count, _) = shown(&mut World::new(), "juliet");
    let unknown = shown(&mut World::new(), "romeo");
    assert_eq!((unknown.0, &unknown.2, unknown.3), (nonce, &count, Some(SaslError::NotAuthorized)));
    assert_eq!(unknown.1.len(), salt.len());
    // The same salt at every attempt, in whatever way the name is written; another one for another
    // name.
    let mut world = World::new();
    shown(&mut world, "juliet");
    assert_eq!(shown(&mut world, "Romeo").1, unknown.1);
    assert_ne!(shown(&mut world, "mercutio").1, unknown.1);
}

#[test]
fn sasl_7_keys_for_one_hash_look_like_no_account_to_the_other() {
    let mut world = World::new();
    world.credentials.scram_sha_1 = None;
    let first = Client::default().first();
    let without = challenge(world.auth(Mechanism::ScramSha1, first.as_bytes()).unwrap());
    world.user = "nobody";
    let unknown = challenge(world.auth(Mechanism::ScramSha1, first.as_bytes()).unwrap());
    assert_eq!(without.split(',').nth(1), unknown.split(',').nth(1));
    assert_refused(world.scram(Mechanism::ScramSha1, &Client::default()), SaslError::NotAuthorized);
    world.user = "juliet";
    assert_success(
        world.scram(Mechanism::ScramSha256, &Client::default()),
        "juliet@im.example.com",
    );
}

#[test]
fn sasl_7_keys_of_a_wrong_shape_look_like_no_account() {
    let mut world = World::new();
    let first = Client::default().first();
    let salt = |world: &mut World| {
        let challenge = challenge(world.auth(Mechanism::ScramSha256, first.as_bytes()).unwrap());
        challenge.split(',').nth(1).unwrap().to_owned()
    };
    world.user = "nobody";
    let unknown = salt(&mut world);
    world.user = "juliet";
    let keys = world.credentials.scram_sha_256.take().unwrap();
    let truncated = ScramKeys { stored_key: keys.stored_key[..31].to_vec(), ..keys.clone() };
    for keys in [truncated, ScramKeys { iterations: 0, ..keys.clone() }] {
        world.credentials = Credentials::from_keys(None, Some(keys));
        assert_eq!(salt(&mut world), unknown);
        assert_refused(world.plain("", "juliet", PASSWORD), SaslError::NotAuthorized);
    }
    world.credentials = Credentials::from_keys(None, Some(keys));
    assert_ne!(salt(&mut world), unknown);
}

#[test]
fn sasl_7_a_right_key_does_not_make_up_for_another_nonce_or_a_longer_proof() {
    let client = Client::default();
    for change in ["nonce", "proof", "none"] {
        let mut world = World::new();
        let sent = challenge(world.auth(Mechanism::ScramSha1, client.first().as_bytes()).unwrap());
        let last = match change {
            // A client that signs what the server sent, and answers to something else.
            "nonce" => client.last_with(ScramHash::Sha1, &sent, "another"),
            "proof" => {
                let last = client.last(ScramHash::Sha1, &sent);
                let (unproved, proof) = last.split_once(",p=").unwrap();
                let longer = [STANDARD.decode(proof).unwrap(), vec![0]].concat();
                format!("{unproved},p={}", STANDARD.encode(longer))
            }
            _ => client.last(ScramHash::Sha1, &sent),
        };
        let step = world.respond(last.as_bytes());
        match change {
            "none" => assert_success(step, "juliet@im.example.com"),
            _ => assert_refused(step, SaslError::NotAuthorized),
        }
    }
}

#[test]
fn sasl_7_plain_takes_whichever_keys_there_are() {
    let mut world = World::new();
    world.credentials.scram_sha_256 = None;
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
    assert_refused(world.plain("", "juliet", "x"), SaslError::NotAuthorized);
    world.credentials.scram_sha_1 = None;
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::NotAuthorized);
}

#[test]
fn sasl_7_the_decoy_itself_lets_nobody_in() {
    // Even a client that could know the decoy's keys: they are nobody's.
    let world = World::new();
    let account = BareJid::new("romeo@im.example.com").unwrap();
    let keys = ScramKeys::derive(PASSWORD, b"salt", NonZeroU32::MIN, ScramHash::Sha1).unwrap();
    let client = Client { user: "romeo", ..Client::default() };
    let first = client.first();
    for known in [true, false] {
        let message = crate::sasl::scram::ClientFirst::parse(first.as_bytes()).unwrap();
        let context = &world.negotiation.context;
        let binding = message.binding(false, false, &context.bindings).unwrap();
        let (expected, challenge) =
            message.challenge(ScramHash::Sha1, keys.clone(), known, binding, &*context.environment);
        let last = client.last(ScramHash::Sha1, std::str::from_utf8(&challenge).unwrap());
        assert_eq!(expected.verify(last.as_bytes()).is_ok(), known, "{account}");
    }
}

#[test]
fn sasl_7_a_disabled_account_is_told_so_after_the_proof() {
    let mut world = World::with(|context| context.bindings = ChannelBindings::new());
    world.credentials.disabled = true;
    assert_refused(world.plain("", "juliet", "x"), SaslError::NotAuthorized);
    assert_refused(world.plain("", "juliet", PASSWORD), SaslError::AccountDisabled);
    assert_refused(
        world.scram(Mechanism::ScramSha1, &Client::default()),
        SaslError::AccountDisabled,
    );
    let wrong = Client { password: "x", ..Client::default() };
    assert_refused(world.scram(Mechanism::ScramSha1, &wrong), SaslError::NotAuthorized);
}

#[test]
fn sasl_7_a_fault_of_the_store_is_no_attempt() {
    let mut world = World::new();
    for _ in 0..9 {
        let message = format!("\0juliet\0{PASSWORD}");
        let initial = Some(message.into_bytes());
        let step = world.negotiation.receive(Ok(Request::Auth { mechanism: "PLAIN", initial }));
        assert!(matches!(step, Ok(Step::NeedCredentials { .. })));
        let refused = world.negotiation.store_failed();
        assert_eq!(refused, Refused { error: SaslError::TemporaryAuthFailure, close: false });
    }
    assert_refused(
        world.negotiation.credentials(Some(world.credentials.clone())),
        SaslError::MalformedRequest,
    );
    let wrong = world.plain("", "juliet", "x").unwrap_err();
    assert_eq!(wrong, Refused { error: SaslError::NotAuthorized, close: false });
    assert_success(world.plain("", "juliet", PASSWORD), "juliet@im.example.com");
}

#[test]
fn sasl_7_the_host_may_check_passwords_itself() {
    let asked = |verdict| {
        let mut world = World::with(|context| {
            context.policy = Arc::new(policy().authenticator(true));
        });
        match world.plain("", "Juliet", "I\u{ad}X").unwrap() {
            Step::CheckPassword { account, password } => {
                assert_eq!((account.as_str(), password.as_str()), ("juliet@im.example.com", "IX"));
            }
            other => panic!("{other:?}"),
        }
        assert!(world.asked.is_empty());
        world.negotiation.verdict(verdict)
    };
    assert_success(asked(Verdict::Accepted), "juliet@im.example.com");
    assert_refused(asked(Verdict::Refused), SaslError::NotAuthorized);
    assert_refused(asked(Verdict::Disabled), SaslError::AccountDisabled);
    assert_refused(asked(Verdict::Expired), SaslError::CredentialsExpired);
}

#[test]
fn sasl_7_answers_that_nobody_asked_for_are_refused() {
    let mut world = World::new();
    assert_refused(world.negotiation.verdict(Verdict::Accepted), SaslError::MalformedRequest);
    assert_refused(
        world.negotiation.credentials(Some(world.credentials.clone())),
        SaslError::MalformedRequest,
    );
    world.auth(Mechanism::ScramSha1, Client::default().first().as_bytes()).unwrap();
    assert_refused(world.negotiation.verdict(Verdict::Accepted), SaslError::MalformedRequest);
}

#[test]
fn sasl_9_the_failure_after_the_last_retry_closes() {
    for retries in [2, 3, 5] {
        let mut world = World::with(|context| {
            context.policy = Arc::new(policy().mechanisms(&SCRAMS).retries(retries));
        });
        for attempt in 0..=retries {
            let refused = world.plain("", "juliet", "x").unwrap_err();
            assert_eq!(refused.close, attempt == retries, "attempt {attempt} of {retries}");
        }
    }
}

#[test]
fn limit_7_three_retries_unless_said_otherwise() {
    let mut world = World::new();
    let closes: Vec<_> =
        (0..4).map(|_| world.receive(Ok(Request::Abort)).unwrap_err().close).collect();
    assert_eq!(closes, [false, false, false, true]);
}

#[test]
fn sasl_11_features_list_mechanisms_and_binding_types() {
    let features = |world: &World| {
        let context = &world.negotiation.context;
        let names: Vec<_> = context.offered().map(Mechanism::name).collect();
        let types: Vec<_> = context.bindings.types().collect();
        (names.join(" "), types.join(" "))
    };
    let world =
        World::with(|context| context.bindings = ChannelBindings::new().server_end_point(vec![1]));
    let all = "SCRAM-SHA-256-PLUS SCRAM-SHA-1-PLUS SCRAM-SHA-256 SCRAM-SHA-1 PLAIN";
    assert_eq!(features(&world), (all.into(), "tls-server-end-point".into()));
    assert_eq!(features(&World::new()).1, "tls-exporter tls-server-end-point");
    let none = World::with(|context| context.bindings = ChannelBindings::new().exporter(vec![1]));
    assert!(!features(&none).0.contains("PLUS"));
    assert_eq!(features(&World::with(|context| context.secure = false)).0, "");
}

#[test]
fn sasl_11_both_binding_types_bind() {
    let mechanism = Mechanism::ScramSha256Plus;
    for (kind, data) in
        [("tls-exporter", &b"exported"[..]), ("tls-server-end-point", b"certificate")]
    {
        let header = format!("p={kind},,");
        let client = Client { header: &header, channel: data, ..Client::default() };
        assert_success(World::new().scram(mechanism, &client), "juliet@im.example.com");
        let other = Client { header: &header, channel: b"another channel", ..Client::default() };
        assert_refused(World::new().scram(mechanism, &other), SaslError::NotAuthorized);
    }
    let unknown = Client { header: "p=tls-unique,,", ..Client::default() };
    assert_refused(World::new().scram(mechanism, &unknown), SaslError::MalformedRequest);
}

#[test]
fn sasl_11_a_stripped_offer_is_noticed() {
    let stripped = Client { header: "y,,", ..Client::default() };
    assert_refused(World::new().scram(Mechanism::ScramSha1, &stripped), SaslError::NotAuthorized);
    assert_refused(
        World::new().scram(Mechanism::ScramSha1Plus, &stripped),
        SaslError::NotAuthorized,
    );
    let mut world = World::with(|context| context.bindings = ChannelBindings::new());
    assert_success(world.scram(Mechanism::ScramSha1, &stripped), "juliet@im.example.com");
}

#[test]
fn sasl_11_flag_and_mechanism_agree() {
    let bound = Client { header: "p=tls-exporter,,", channel: b"exported", ..Client::default() };
    assert_refused(World::new().scram(Mechanism::ScramSha256, &bound), SaslError::MalformedRequest);
    let unbound = Client::default();
    assert_refused(
        World::new().scram(Mechanism::ScramSha256Plus, &unbound),
        SaslError::MalformedRequest,
    );
}

#[test]
fn sec_1_nonces_come_from_the_environment_and_differ() {
    let nonce = |world: &mut World| {
        let challenge = challenge(
            world.auth(Mechanism::ScramSha1, Client::default().first().as_bytes()).unwrap(),
        );
        challenge.split(',').next().unwrap().to_owned()
    };
    let (mut a, mut b) = (World::new(), World::new());
    let first = nonce(&mut a);
    assert_eq!(first.len(), "r=clientnonce".len() + 24);
    assert_eq!(first, nonce(&mut b));
    assert_ne!(first, nonce(&mut a));
}

#[test]
fn sec_6_debug_shows_no_name_and_no_secret() {
    let mut world = World::new();
    let step = world.negotiation.receive(Ok(Request::Auth {
        mechanism: "PLAIN",
        initial: Some(format!("\0juliet\0{PASSWORD}").into_bytes()),
    }));
    let text = format!("{:?} {step:?}", world.negotiation);
    assert!(
        !text.contains("juliet") && !text.contains(PASSWORD) && !text.contains(DOMAIN),
        "{text}"
    );
}

proptest! {
    #[test]
    fn sec_7_no_changed_message_of_a_good_exchange_succeeds(
        which in 0..5_usize, second: bool, place: prop::sample::Index, bit in 0..8_u8, cut: bool,
    ) {
        let mechanism = Mechanism::ALL[which];
        let change = |message: &[u8]| {
            let mut message = message.to_vec();
            let place = place.index(message.len());
            if cut { message.truncate(place) } else { message[place] ^= 1 << bit }
            message
        };
        let mut world = World::new();
        let Some(hash) = mechanism.hash() else {
            let message = change(format!("\0juliet\0{PASSWORD}").as_bytes());
            // A capital letter in the name is the same name.
            let same = message.to_ascii_lowercase().starts_with(b"\0juliet\0")
                && message.ends_with(PASSWORD.as_bytes());
            let step = world.auth(mechanism, &message);
            prop_assert_eq!(matches!(step, Ok(Step::Success { .. })), same);
            return Ok(());
        };
        let (header, channel): (_, &[u8]) =
            if mechanism.binds_channel() { ("p=tls-exporter,,", b"exported") } else { ("n,,", b"") };
        let client = Client { header, channel, ..Client::default() };
        let first = client.first().into_bytes();
        let step = world.auth(mechanism, &if second { first } else { change(&first) });
        if let Ok(Step::Challenge(data)) = step {
            // The client's own view of its first message is what it signs.
            let last = client.last(hash, std::str::from_utf8(&data).unwrap()).into_bytes();
            let step = world.respond(&if second { change(&last) } else { last });
            let succeeded = matches!(step, Ok(Step::Success { .. }));
            prop_assert!(!succeeded);
        }
    }

    #[test]
    fn sec_7_no_input_panics(
        requests in prop::collection::vec(
            (0..4_usize, "[a-zA-Z0-9=,npyrc+/@.\u{0}\u{e9} -]{0,24}", 0..6_usize), 1..8,
        ),
    ) {
        let mut world = World::new();
        for (kind, text, mechanism) in requests {
            let name = ["auth", "response", "abort", "other"][kind];
            let mechanism = Mechanism::ALL.get(mechanism).map(|mechanism| mechanism.name());
            for text in [text.clone(), STANDARD.encode(&text)] {
                let step = world.receive(wire::parse(name, mechanism, &text));
                let succeeded = matches!(step, Ok(Step::Success { .. }));
                prop_assert!(!succeeded);
            }
        }
    }
}
