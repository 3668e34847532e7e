//! What the command line says.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::settings::{self, Settings, address, no};

const HEAD: &str = "\
An XMPP server for browsers: the WebSocket (RFC 7395) at /xmpp-websocket, a chat page at /, and at /live
what happens on the server, for its operator.

Usage: cargo run --release --features web --example web -- [options]

  --listen ADDR:PORT       answers HTTP here (default 127.0.0.1:8080)
  --secure                 a proxy that does TLS is in front: what comes here came over https or wss, and
                           its header X-Forwarded-For says from where
  --allow-plaintext        listens without TLS on addresses other than loopback: passwords stay secret (SCRAM),
                           messages do not
  --origin ORIGIN          a site whose pages may use the WebSocket, such as https://chat.example.com;
                           repeatable. That of /, if its address is an IP address or localhost, always may
  --operator-token TOKEN   opens /live to whoever knows it, from anywhere (default: to this machine,
                           and to nobody behind a proxy)
  --files DIR              reads the pages from there, to work on them: examples/web
  --help                   prints this
";

/// All options.
pub(crate) fn help() -> String {
    format!("{HEAD}\n{}", settings::HELP)
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: SocketAddr,
    pub(crate) secure: bool,
    pub(crate) allow_plaintext: bool,
    pub(crate) origins: Vec<String>,
    pub(crate) operator_token: Option<String>,
    pub(crate) files: Option<PathBuf>,
    pub(crate) settings: Settings,
}

/// Reads the command line, without the name of the program; `None` if it asks for help. An error says what
/// would be right.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        listen: (Ipv4Addr::LOCALHOST, 8080).into(),
        secure: false,
        allow_plaintext: false,
        origins: Vec::new(),
        operator_token: None,
        files: None,
        settings: Settings::new(),
    };
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let name = name.as_str();
        let mut value =
            |form: &str| args.next().ok_or_else(|| format!("{name} wants {form} after it"));
        match name {
            "--help" => return Ok(None),
            "--secure" => options.secure = true,
            "--allow-plaintext" => options.allow_plaintext = true,
            "--listen" => options.listen = address(name, &value("ADDR:PORT")?)?,
            "--origin" => options.origins.push(origin(&value("an origin")?)?),
            "--operator-token" => options.operator_token = Some(token(value("a token")?)?),
            "--files" => options.files = Some(value("a directory")?.into()),
            other => options.settings.take(other, &mut value)?,
        }
    }
    options.settings.complete()?;
    options.complete()?;
    Ok(Some(options))
}

impl Options {
    /// Looks at what has to fit together.
    fn complete(&self) -> Result<(), String> {
        let address = self.listen;
        if !(address.ip().is_loopback() || self.secure || self.allow_plaintext) {
            return Err(format!(
                "{address} would be open to the network without TLS: put a proxy that does TLS in front and say \
                 --secure, or listen on loopback only (127.0.0.1 or [::1]), or say --allow-plaintext"
            ));
        }
        if self.secure && self.allow_plaintext {
            return Err("--secure and --allow-plaintext exclude each other: leave one out".into());
        }
        Ok(())
    }

    /// Whom the live view is open to.
    pub(crate) const fn operator(&self) -> &'static str {
        match (&self.operator_token, self.secure) {
            (Some(_), _) => "shows who is logged in and ends sessions: for whoever has the token",
            (None, false) => "shows who is logged in and ends sessions: open to this machine alone",
            (None, true) => "closed: --operator-token opens it",
        }
    }

    /// Whether nobody can read what the socket's clients send.
    pub(crate) const fn is_protected(&self) -> bool {
        self.secure || !self.allow_plaintext
    }
}

/// Scheme, host and perhaps port, as browsers write it (RFC 6454 §6).
fn origin(value: &str) -> Result<String, String> {
    let right = "a scheme and a host, such as https://chat.example.com";
    let origin = value.to_ascii_lowercase();
    let (scheme, host) = origin.split_once("://").ok_or_else(|| no("--origin", value, right))?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || "-.:[]".contains(c);
    if !["http", "https"].contains(&scheme) || host.is_empty() || !host.chars().all(is_host) {
        return Err(no("--origin", value, right));
    }
    Ok(origin)
}

/// One that nobody guesses.
fn token(value: String) -> Result<String, String> {
    let is_plain =
        value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte));
    if value.len() < 16 || !is_plain {
        return Err("--operator-token wants at least 16 letters, digits, or - . _ ~".into());
    }
    Ok(value)
}
