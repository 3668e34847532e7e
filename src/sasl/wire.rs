//! SASL on the wire of RFC 6120 §6: elements to requests, steps to elements.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::error::SaslError;
use crate::stanza::write;

/// The namespace of SASL1.
pub(crate) const NS: &str = "urn:ietf:params:xml:ns:xmpp-sasl";

/// What a client asks for, in whichever profile it was written.
#[derive(PartialEq, Eq)]
pub(crate) enum Request<'a> {
    /// Start an exchange, with an initial response or without.
    Auth { mechanism: &'a str, initial: Option<Vec<u8>> },
    /// Go on with the exchange.
    Response(Vec<u8>),
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

/// SASL-2: `=` is an empty payload, an absent text is no payload.
fn payload(text: &str) -> Result<Option<Vec<u8>>, SaslError> {
    match text {
        "" => Ok(None),
        "=" => Ok(Some(Vec::new())),
        _ => STANDARD.decode(text).map(Some).map_err(|_| SaslError::IncorrectEncoding),
    }
}

/// Appends `<challenge/>`.
pub(crate) fn write_challenge(data: &[u8], out: &mut Vec<u8>) {
    element("challenge", &STANDARD.encode(data), out);
}

/// Appends `<success/>` (SASL-2: an empty payload is `=`).
pub(crate) fn write_success(data: Option<&[u8]>, out: &mut Vec<u8>) {
    let text = match data {
        None => String::new(),
        Some([]) => "=".to_owned(),
        Some(data) => STANDARD.encode(data),
    };
    element("success", &text, out);
}

/// Appends `<failure/>`, with a text in English if there is one.
pub(crate) fn write_failure(error: SaslError, text: Option<&str>, out: &mut Vec<u8>) {
    let mut content = format!("<{}/>", error.as_str()).into_bytes();
    if let Some(text) = text {
        write::leaf(&mut content, "text", &[("xml:lang", "en")], Some(text));
    }
    element("failure", &String::from_utf8_lossy(&content), out);
}

fn element(name: &str, content: &str, out: &mut Vec<u8>) {
    let text = match content {
        "" => format!("<{name} xmlns='{NS}'/>"),
        _ => format!("<{name} xmlns='{NS}'>{content}</{name}>"),
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
            written(|out| write_failure(SaslError::TemporaryAuthFailure, None, out)),
            "<failure xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><temporary-auth-failure/></failure>"
        );
        assert_eq!(
            written(|out| write_challenge(&[], out)),
            "<challenge xmlns='urn:ietf:params:xml:ns:xmpp-sasl'/>"
        );
    }
}
