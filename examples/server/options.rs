//! What the command line says.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use crate::settings::{self, Account, Settings, address, no};

const HEAD: &str = "\
An XMPP server for clients, to try the crate out and to measure it.

Usage: cargo run --release --features tokio --example server -- [options]

  --listen ADDR:PORT       accepts clients here; repeatable (default 127.0.0.1:5222 if no address is given)
  --direct-tls ADDR:PORT   as --listen, for clients that begin with TLS; repeatable
  --websocket ADDR:PORT    as --direct-tls, for WebSockets of pages of any origin; without TLS if there is
                           --allow-plaintext; repeatable; needs feature websocket
  --proxy ADDR             every connection comes from this proxy and begins with a PROXY header, of version
                           1 or 2; repeatable
  --cert FILE --key FILE   certificate chain and its private key, PEM (default: self-signed, made at start)
  --clients-from FILE      clients may log in by a certificate which an authority in this PEM file has issued
  --allow-plaintext        no TLS needed; loopback addresses only
  --metrics ADDR:PORT      answers Prometheus here, at /metrics
  --adduser JID:PASSWORD   adds an account to the --data file, or gives it a new password, and exits
  --help                   prints this
";

/// All options.
pub(crate) fn help() -> String {
    format!("{HEAD}\n{}", settings::HELP)
}

pub(crate) const NO_WEBSOCKET: &str = "--websocket needs a server built with WebSockets: \
    cargo run --release --features tokio,websocket --example server -- --websocket ADDR:PORT";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    AddUser(PathBuf, Account),
    Serve(Box<Options>),
}

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) direct_tls: Vec<SocketAddr>,
    pub(crate) websocket: Vec<SocketAddr>,
    pub(crate) proxies: Vec<IpAddr>,
    /// The files of the chain and of the key.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) clients_from: Option<PathBuf>,
    pub(crate) allow_plaintext: bool,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) settings: Settings,
}

/// Reads the command line, without the name of the program. An error says what would be right.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options {
        listen: Vec::new(),
        direct_tls: Vec::new(),
        websocket: Vec::new(),
        proxies: Vec::new(),
        certificate: None,
        clients_from: None,
        allow_plaintext: false,
        metrics: None,
        settings: Settings::new(),
    };
    let (mut certificate, mut key, mut add_user) = (None, None, None);
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let name = name.as_str();
        let mut value =
            |form: &str| args.next().ok_or_else(|| format!("{name} wants {form} after it"));
        match name {
            "--help" => return Ok(Command::Help),
            "--allow-plaintext" => options.allow_plaintext = true,
            "--listen" => options.listen.push(address(name, &value("ADDR:PORT")?)?),
            "--direct-tls" => options.direct_tls.push(address(name, &value("ADDR:PORT")?)?),
            "--websocket" => options.websocket.push(address(name, &value("ADDR:PORT")?)?),
            "--proxy" => options.proxies.push(proxy(name, &value("an IP address")?)?),
            "--metrics" => options.metrics = Some(address(name, &value("ADDR:PORT")?)?),
            "--adduser" => add_user = Some(settings::account(&value("JID:PASSWORD")?, ':')?),
            "--cert" => certificate = Some(value("a PEM file")?.into()),
            "--key" => key = Some(value("a PEM file")?.into()),
            "--clients-from" => options.clients_from = Some(value("a PEM file")?.into()),
            other => options.settings.take(other, &mut value)?,
        }
    }
    if !options.websocket.is_empty() && cfg!(not(feature = "websocket")) {
        return Err(NO_WEBSOCKET.into());
    }
    options.settings.complete()?;
    if let Some(account) = add_user {
        let data = options.settings.data;
        let data = data.ok_or("--adduser wants --data FILE as well: where to add it")?;
        return Ok(Command::AddUser(data, account));
    }
    options.certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("--cert FILE and --key FILE go together".into()),
    };
    options.complete()?;
    Ok(Command::Serve(Box::new(options)))
}

impl Options {
    /// Fills in what was left out, and looks at what has to fit together.
    fn complete(&mut self) -> Result<(), String> {
        if self.listen.is_empty() && self.direct_tls.is_empty() && self.websocket.is_empty() {
            self.listen.push((IpAddr::from(Ipv4Addr::LOCALHOST), 5222).into());
        }
        let mut unprotected = self.listen.iter().chain(&self.websocket);
        let elsewhere = unprotected.find(|address| !address.ip().is_loopback());
        if let Some(address) = elsewhere.filter(|_| self.allow_plaintext) {
            return Err(format!(
                "--allow-plaintext would send passwords over the network from {address}: \
                 leave it out, or listen on loopback only (127.0.0.1 or [::1])"
            ));
        }
        Ok(())
    }
}

fn proxy(name: &str, value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| no(name, value, "an IP address, such as 127.0.0.1 or ::1"))
}
