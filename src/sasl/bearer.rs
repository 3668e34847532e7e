//! Bearer tokens: OAUTHBEARER (RFC 7628), and X-OAUTH2, which is PLAIN with a token for a password.

use jid::{BareJid, DomainRef};

use super::error::SaslError;
use super::exchange::{Exchange, Next, Step, identity};
use super::scram::unescape;
use crate::address;
use crate::store::{TokenError, TokenVerdict};

/// The one message of OAUTHBEARER: `gs2-header kvsep *kvpair kvsep` (RFC 7628 §3.1). Of its pairs only the token
/// matters: host and port are those that the client has connected to, whatever leads here.
pub(super) fn first(data: &[u8], domain: &DomainRef) -> Next {
    const BAD: SaslError = SaslError::MalformedRequest;
    let text = std::str::from_utf8(data).map_err(|_| BAD)?;
    let (header, pairs) = text.split_once('\x01').ok_or(BAD)?;
    let claimed = claimed(header, domain)?;
    let mut token = None;
    let mut rest = pairs;
    // The last separator ends the list, which is empty where nothing stands before it.
    while rest != "\x01" {
        let (pair, after) = rest.split_once('\x01').ok_or(BAD)?;
        let (name, value) = pair.split_once('=').ok_or(BAD)?;
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(BAD);
        }
        if name == "auth" && token.replace(bearer(value)?).is_some() {
            return Err(BAD);
        }
        rest = after;
    }
    Ok(match token.filter(|token| !token.is_empty()) {
        Some(token) => ask(claimed, token, true),
        // RFC 7628 §4.3: the client wants to know where it gets one.
        None => (Some(Exchange::Token { claimed, tells: true }), Step::NeedDiscovery),
    })
}

/// The one message of X-OAUTH2: that of PLAIN (RFC 4616).
pub(super) fn first_plain(data: &[u8], domain: &DomainRef) -> Next {
    const BAD: SaslError = SaslError::MalformedRequest;
    let text = std::str::from_utf8(data).map_err(|_| BAD)?;
    let mut parts = text.split('\0');
    let (Some(authzid), Some(authcid), Some(token), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    let account = identity(authcid, authzid, domain)?;
    if token.is_empty() {
        return Err(SaslError::NotAuthorized);
    }
    Ok(ask(Some(account), token, false))
}

fn ask(claimed: Option<BareJid>, token: &str, tells: bool) -> (Option<Exchange>, Step) {
    let step = Step::CheckToken { claimed: claimed.clone(), token: token.to_owned() };
    (Some(Exchange::Token { claimed, tells }), step)
}

/// The account that a GS2 header asks for. There is no channel binding in this mechanism.
fn claimed(header: &str, domain: &DomainRef) -> Result<Option<BareJid>, SaslError> {
    const BAD: SaslError = SaslError::MalformedRequest;
    let mut fields = header.split(',');
    let (Some("n" | "y"), Some(authzid), Some(""), None) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Err(BAD);
    };
    if authzid.is_empty() {
        return Ok(None);
    }
    let authzid = unescape(authzid.strip_prefix("a=").ok_or(BAD)?)?;
    if authzid.is_empty() {
        return Ok(None);
    }
    // SASL-5
    let account = address::bare(&authzid).map_err(|_| SaslError::InvalidAuthzid)?;
    let is_possible = account.node().is_some() && account.domain() == domain;
    if is_possible { Ok(Some(account)) } else { Err(SaslError::InvalidAuthzid) }
}

/// `Bearer` and a token (RFC 6750 §2.1); nothing at all is no token.
fn bearer(value: &str) -> Result<&str, SaslError> {
    if value.is_empty() {
        return Ok(value);
    }
    let (scheme, token) = value.split_once(' ').ok_or(SaslError::MalformedRequest)?;
    let token = token.trim_start_matches(' ');
    let is_token = token.bytes().all(|byte| byte.is_ascii_graphic());
    let is_one = scheme.eq_ignore_ascii_case("Bearer") && is_token;
    if is_one { Ok(token) } else { Err(SaslError::MalformedRequest) }
}

impl Exchange {
    /// Goes on with what the host found out about a token.
    pub(super) fn token(
        self,
        verdict: TokenVerdict,
        domain: &DomainRef,
        utc: std::time::SystemTime,
    ) -> Next {
        let Self::Token { claimed, tells } = self else { return Err(SaslError::MalformedRequest) };
        let refuse = |error: &TokenError, condition| {
            if !tells {
                return Err(condition);
            }
            let told = Self::Told(condition);
            Ok((Some(told), Step::Challenge(json(error).into_bytes())))
        };
        let grant = match verdict {
            TokenVerdict::Accepted(grant) => grant,
            TokenVerdict::Refused(error) => return refuse(&error, SaslError::NotAuthorized),
            TokenVerdict::Expired(error) => return refuse(&error, SaslError::CredentialsExpired),
            TokenVerdict::Disabled => return Err(SaslError::AccountDisabled),
            TokenVerdict::Temporary => return Err(SaslError::TemporaryAuthFailure),
        };
        if grant.expires.is_some_and(|at| at <= utc) {
            return refuse(&TokenError::new(), SaslError::CredentialsExpired);
        }
        // JID-1: what the host says is no exception.
        let account = address::account(&grant.account).map_err(|_| SaslError::NotAuthorized)?;
        if account.domain() != domain || account.node().is_none() {
            return Err(SaslError::NotAuthorized);
        }
        if claimed.is_some_and(|claimed| claimed != account) {
            return Err(SaslError::InvalidAuthzid);
        }
        let host = Self::Host { account: account.clone(), until: grant.expires };
        Ok((Some(host), Step::CheckAccount { account }))
    }
}

/// The error of OAUTHBEARER (RFC 7628 §3.2.2).
fn json(error: &TokenError) -> String {
    let mut text = String::from("{");
    member("status", error.status.as_str(), &mut text);
    let others = [("scope", &error.scope), ("openid-configuration", &error.openid_configuration)];
    for (name, value) in others {
        if let Some(value) = value {
            text.push(',');
            member(name, value, &mut text);
        }
    }
    text.push('}');
    text
}

/// Appends a member with a text as its value (RFC 8259 §7).
fn member(name: &str, value: &str, out: &mut String) {
    out.push_str(&format!("\"{name}\":\""));
    for c in value.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\0'..='\u{1f}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use jid::DomainPart;

    use super::*;

    fn asks(message: &str) -> Result<(Option<String>, Option<String>), SaslError> {
        let domain = DomainPart::new("example.com").unwrap();
        match first(message.as_bytes(), &domain)? {
            (_, Step::CheckToken { claimed, token }) => {
                Ok((claimed.map(|jid| jid.to_string()), Some(token)))
            }
            (Some(Exchange::Token { claimed, .. }), Step::NeedDiscovery) => {
                Ok((claimed.map(|jid| jid.to_string()), None))
            }
            (_, step) => panic!("{step:?}"),
        }
    }

    #[test]
    fn token_3_the_message_of_oauthbearer_is_read() {
        let token = |claimed: Option<&str>, token: Option<&str>| {
            Ok((claimed.map(str::to_owned), token.map(str::to_owned)))
        };
        // RFC 7628 §4.1
        let example = "n,a=juliet@example.com,\x01host=server.example.com\x01port=143\x01\
            auth=Bearer vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==\x01\x01";
        let expected = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg==";
        assert_eq!(asks(example), token(Some("juliet@example.com"), Some(expected)));
        assert_eq!(asks("n,,\x01auth=bearer  t\x01\x01"), token(None, Some("t")));
        assert_eq!(asks("y,a=,\x01auth=BEARER t\x01x=y\x01\x01"), token(None, Some("t")));
        for none in ["n,,\x01\x01", "n,,\x01auth=\x01\x01", "n,,\x01auth=Bearer \x01\x01"] {
            assert_eq!(asks(none), token(None, None), "{none:?}");
        }
        for bad in [
            "",
            "\x01",
            "n,,",
            "n,,\x01",
            "n,\x01auth=Bearer t\x01\x01",
            "n,,x\x01auth=Bearer t\x01\x01",
            "p=tls-exporter,,\x01auth=Bearer t\x01\x01",
            "n,b=x,\x01auth=Bearer t\x01\x01",
            "n,,\x01auth=Bearer t\x01",
            "n,,\x01auth=Bearer t",
            "n,,\x01auth=Bearer t\x01\x01\x01",
            "n,,\x01auth=Bearer t\x01\x01x=y\x01\x01",
            "n,,\x01auth=Bearer t\x01auth=Bearer u\x01\x01",
            "n,,\x01auth=Basic t\x01\x01",
            "n,,\x01auth=Bearer\x01\x01",
            "n,,\x01auth=Bearer t u\x01\x01",
            "n,,\x01auth=Bearer \u{e9}\x01\x01",
            "n,,\x01auth\x01\x01",
            "n,,\x01=x\x01\x01",
        ] {
            assert_eq!(asks(bad), Err(SaslError::MalformedRequest), "{bad:?}");
        }
        for other in ["juliet", "juliet@example.net", "example.com", "juliet@example.com/x", "@"] {
            let message = format!("n,a={other},\x01auth=Bearer t\x01\x01");
            assert_eq!(asks(&message), Err(SaslError::InvalidAuthzid), "{other}");
        }
    }

    #[test]
    fn token_4_the_error_is_json_whatever_the_host_writes() {
        let error = TokenError::new().scope("a \"b\"\\\n").openid_configuration("https://\u{e9}");
        assert_eq!(
            json(&error),
            "{\"status\":\"invalid_token\",\"scope\":\"a \\\"b\\\"\\\\\\u000a\",\
             \"openid-configuration\":\"https://\u{e9}\"}"
        );
    }
}
