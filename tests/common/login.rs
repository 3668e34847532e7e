//! SASL of a client that is not ours: rsasl.

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsasl::callback::{Context, Request, SessionCallback, SessionData};
use rsasl::mechanisms::plain::PLAIN;
use rsasl::mechanisms::scram::{SCRAM_SHA1, SCRAM_SHA1_PLUS, SCRAM_SHA256, SCRAM_SHA256_PLUS};
use rsasl::prelude::{
    ChannelBindingCallback, Mechanism, Mechname, Registry, SASLClient, SASLConfig, Session,
    SessionError,
};
use rsasl::property::{AuthId, OverrideCBType, Password};
use rsasl::validate::NoValidation;

const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

struct User {
    name: &'static str,
    password: &'static str,
    binding: &'static str,
}

impl SessionCallback for User {
    fn callback(
        &self,
        _: &SessionData,
        _: &Context<'_>,
        request: &mut Request<'_>,
    ) -> Result<(), SessionError> {
        request.satisfy::<AuthId>(self.name)?.satisfy::<Password>(self.password.as_bytes())?;
        request.satisfy::<OverrideCBType>(self.binding)?;
        Ok(())
    }

    fn enable_channel_binding(&self) -> bool {
        true
    }
}

/// The binding of a channel: its type and its data.
pub struct Channel(pub &'static str, pub Vec<u8>);

impl ChannelBindingCallback for Channel {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        (name == self.0).then_some(&*self.1)
    }
}

/// Logs in. `talk` sends an element and gives the server's answer; the last answer is returned,
/// and a proof of the server's in it was right.
pub fn login(
    user: (&'static str, &'static str),
    mechanism: &str,
    channel: Channel,
    mut talk: impl FnMut(&str) -> String,
) -> String {
    let (mut client, text) = begin(user, mechanism, channel);
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
    channel: Channel,
) -> (Session<NoValidation, Channel>, String) {
    // Its defaults leave the mechanisms with channel binding out.
    static ALL: [Mechanism; 5] =
        [PLAIN, SCRAM_SHA1, SCRAM_SHA256, SCRAM_SHA1_PLUS, SCRAM_SHA256_PLUS];
    let known = if mechanism.ends_with("-PLUS") { &ALL[3..] } else { &ALL[..3] };
    let config = SASLConfig::builder()
        .with_registry(Registry::with_mechanisms(known))
        .with_callback(User { name, password, binding: channel.0 })
        .unwrap();
    let mechanism_name = Mechname::parse(mechanism.as_bytes()).unwrap();
    let mut client =
        SASLClient::with_cb(config, channel).start_suggested(&[mechanism_name]).unwrap();
    let mut text = Vec::new();
    client.step(None, &mut text).unwrap();
    (client, STANDARD.encode(text))
}
