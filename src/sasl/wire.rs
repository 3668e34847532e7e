//! SASL on the wires of RFC 6120 §6 and XEP-0388: elements to requests, steps to elements.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::SaslError;
use super::upgrade;
use crate::stanza::write;
use crate::store::ScramHash;
use crate::stream::Nonza;

/// The namespace of SASL1.
pub(crate) const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

/// The namespace of SASL2.
pub(crate) const NS_2: &str = "urn:xmpp:sasl:2";

/// How SASL is written in XMPP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Profile {
    /// RFC 6120 §6
    #[default]
    Sasl1,
    /// XEP-0388
    Sasl2,
}

impl Profile {
    pub(crate) const fn namespace(self) -> &'static str {
        match self {
            Self::Sasl1 => NS,
            Self::Sasl2 => NS_2,
        }
    }
}

/// What a client asks for, in whichever profile it was written.
#[derive(PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Start an exchange, with an initial response or without.
    Auth { mechanism: &'a str, initial: Option<Vec<u8>> },
    /// Go on with the exchange.
    Response(Vec<u8>),
    /// Begin the task of this name.
    Next(String),
    /// Go on with the task.
    TaskData(Vec<u8>),
    /// Give the exchange up.
    Abort,
}

/// Reads an element of the namespace [`NS`]: its name, its `mechanism` attribute and its text.
pub(crate) fn parse<'a>(
    name: &str,
    mechanism: Option<&'a str>,
    text: &str,
) -> Result<Request<'a>, SaslError> {
    match name {
        // An absent mechanism is one that is not offered (RFC 6120 §6.5.7).
        "auth" => {
            Ok(Request::Auth { mechanism: mechanism.unwrap_or_default(), initial: payload(text)? })
        }
        "response" => Ok(Request::Response(payload(text)?.unwrap_or_default())),
        "abort" => Ok(Request::Abort),
        _ => Err(SaslError::MalformedRequest),
    }
}

/// Reads an element of the namespace [`NS_2`], whose `mechanism` attribute is given.
pub(crate) fn parse_2<'a>(
    element: &Nonza,
    mechanism: Option<&'a str>,
) -> Result<Request<'a>, SaslError> {
    match element.name() {
        "authenticate" => {
            let mut initial = element.children().filter(|child| child.is("initial-response", NS_2));
            let first = initial.next().map(|child| decode(&child.text())).transpose()?;
            if initial.next().is_some() {
                return Err(SaslError::MalformedRequest);
            }
            Ok(Request::Auth { mechanism: mechanism.unwrap_or_default(), initial: first })
        }
        "response" => Ok(Request::Response(decode(&element.text())?)),
        "next" => Ok(Request::Next(element.attribute("task").unwrap_or_default().into_owned())),
        "task-data" => {
            let hash = element.children().find(|child| child.is("hash", upgrade::SCRAM_NS));
            let hash = hash.ok_or(SaslError::MalformedRequest)?;
            Ok(Request::TaskData(decode(hash.text().trim())?))
        }
        "abort" => Ok(Request::Abort),
        _ => Err(SaslError::MalformedRequest),
    }
}

/// SASL2-6: what is empty is an empty payload.
fn decode(text: &str) -> Result<Vec<u8>, SaslError> {
    STANDARD.decode(text).map_err(|_| SaslError::IncorrectEncoding)
}

/// SASL-2: `=` is an empty payload, an absent text is no payload.
fn payload(text: &str) -> Result<Option<Vec<u8>>, SaslError> {
    match text {
        "" => Ok(None),
        "=" => Ok(Some(Vec::new())),
        _ => decode(text).map(Some),
    }
}

/// Appends `<challenge/>`.
pub(crate) fn write_challenge(profile: Profile, data: &[u8], out: &mut Vec<u8>) {
    element(profile, "challenge", &STANDARD.encode(data), out);
}

/// Appends `<success/>` of SASL2: who the client is now, and `answers` to what it asked for, whole elements.
pub(crate) fn write_success_2(
    data: Option<&[u8]>,
    identifier: &str,
    answers: &[u8],
    out: &mut Vec<u8>,
) {
    out.extend_from_slice(format!("<success xmlns='{NS_2}'>").as_bytes());
    if let Some(data) = data {
        write::leaf(out, "additional-data", &[], Some(&STANDARD.encode(data)));
    }
    write::leaf(out, "authorization-identifier", &[], Some(identifier));
    out.extend_from_slice(answers);
    out.extend_from_slice(b"</success>");
}

/// Appends `<success/>` (SASL-2: an empty payload is `=`).
pub(crate) fn write_success(data: Option<&[u8]>, out: &mut Vec<u8>) {
    let text = match data {
        None => String::new(),
        Some([]) => "=".to_owned(),
        Some(data) => STANDARD.encode(data),
    };
    element(Profile::Sasl1, "success", &text, out);
}

/// Appends `<failure/>`, with a text in English if there is one.
pub(crate) fn write_failure(
    profile: Profile,
    error: SaslError,
    text: Option<&str>,
    out: &mut Vec<u8>,
) {
    let mut content = match profile {
        Profile::Sasl1 => format!("<{}/>", error.as_str()),
        Profile::Sasl2 => format!("<{} xmlns='{NS}'/>", error.as_str()),
    }
    .into_bytes();
    if let Some(text) = text {
        write::leaf(&mut content, "text", &[("xml:lang", "en")], Some(text));
    }
    element(profile, "failure", &String::from_utf8_lossy(&content), out);
}

/// Appends `<continue/>` with one task (XEP-0480 §2.2).
pub(crate) fn write_continue(data: Option<&[u8]>, task: ScramHash, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("<continue xmlns='{NS_2}'>").as_bytes());
    if let Some(data) = data {
        write::leaf(out, "additional-data", &[], Some(&STANDARD.encode(data)));
    }
    out.extend_from_slice(b"<tasks>");
    write::leaf(out, "task", &[], Some(&upgrade::task(task)));
    out.extend_from_slice(b"</tasks></continue>");
}

/// Appends `<task-data/>` with what the client is to salt its password with (XEP-0480 §3).
pub(crate) fn write_salt(salt: &[u8], iterations: u32, out: &mut Vec<u8>) {
    let (salt, ns) = (STANDARD.encode(salt), upgrade::SCRAM_NS);
    let salt = format!("<salt xmlns='{ns}' iterations='{iterations}'>{salt}</salt>");
    element(Profile::Sasl2, "task-data", &salt, out);
}

/// Appends what is beside the mechanisms of SASL2: the tasks that bring keys for these hash functions (XEP-0480 §2.1).
pub(crate) fn write_upgrades(hashes: impl Iterator<Item = ScramHash>, out: &mut Vec<u8>) {
    for hash in hashes {
        write::leaf(out, "upgrade", &[("xmlns", upgrade::NS)], Some(&upgrade::task(hash)));
    }
}

fn element(profile: Profile, name: &str, content: &str, out: &mut Vec<u8>) {
    let ns = profile.namespace();
    let text = match content {
        "" => format!("<{name} xmlns='{ns}'/>"),
        _ => format!("<{name} xmlns='{ns}'>{content}</{name}>"),
    };
    out.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&mut out);
        String::from_utf8(out).unwrap()
    }

    fn auth(text: &str) -> Result<Option<Vec<u8>>, SaslError> {
        match parse("auth", Some("PLAIN"), text)? {
            Request::Auth { mechanism: "PLAIN", initial } => Ok(initial),
            _ => panic!("not auth"),
        }
    }

    #[test]
    fn sasl_2_equals_sign_is_empty_and_absent_text_is_nothing() {
        assert_eq!(auth(""), Ok(None));
        assert_eq!(auth("="), Ok(Some(vec![])));
        assert_eq!(auth("AAA="), Ok(Some(vec![0, 0])));
        for text in ["", "="] {
            assert!(parse("response", None, text) == Ok(Request::Response(vec![])));
        }
        assert_eq!(
            written(|out| write_success(None, out)),
            "<success xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
        );
        assert!(written(|out| write_success(Some(&[]), out)).ends_with(">=</success>"));
        assert!(written(|out| write_success(Some(&[0, 0]), out)).ends_with(">AAA=</success>"));
    }

    #[test]
    fn sasl_2_anything_but_base64_is_an_incorrect_encoding() {
        for text in
            ["A", "AA", "AAA", "AAA=A", " AAA=", "AAA=\n", "A-_=", "==", "AAB=", "ä", "AAAA===="]
        {
            assert_eq!(auth(text), Err(SaslError::IncorrectEncoding), "{text:?}");
        }
    }

    #[test]
    fn sasl2_8_success_says_who_the_client_is_and_what_it_gets() {
        assert_eq!(
            written(|out| write_success_2(Some(b"v="), "a@x/<", b"<b xmlns='urn:b'/>", out)),
            "<success xmlns='urn:xmpp:sasl:2'><additional-data>dj0=</additional-data>\
             <authorization-identifier>a@x/&lt;</authorization-identifier><b xmlns='urn:b'/></success>"
        );
        assert_eq!(
            written(|out| write_success_2(None, "a@x", b"", out)),
            "<success xmlns='urn:xmpp:sasl:2'>\
             <authorization-identifier>a@x</authorization-identifier></success>"
        );
        assert_eq!(
            written(|out| write_failure(Profile::Sasl2, SaslError::Aborted, None, out)),
            "<failure xmlns='urn:xmpp:sasl:2'>\
             <aborted xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/></failure>"
        );
    }

    #[test]
    fn sasl_4_other_elements_are_malformed() {
        assert!(parse("abort", None, "") == Ok(Request::Abort));
        assert!(parse("success", None, "") == Err(SaslError::MalformedRequest));
    }

    #[test]
    fn sasl_1_an_absent_mechanism_is_no_mechanism() {
        assert!(parse("auth", None, "") == Ok(Request::Auth { mechanism: "", initial: None }));
    }

    #[test]
    fn sasl_7_failures_name_their_condition() {
        assert_eq!(
            written(|out| {
                write_failure(Profile::Sasl1, SaslError::TemporaryAuthFailure, None, out)
            }),
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/></failure>"
        );
        assert_eq!(
            written(|out| write_challenge(Profile::Sasl1, &[], out)),
            "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
        );
    }
}
