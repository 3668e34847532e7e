//! What the command line says.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use xmpp_session::address as addresses;
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::sasl::Mechanism;
use xmpp_session::session::Conflict;

pub(crate) const HELP: &str = "\
An XMPP server for clients, to try the crate out and to measure it.

Usage: cargo run --release --features tokio --example server -- [options]

  --listen ADDR:PORT       accepts clients here; repeatable (default 127.0.0.1:5222 if no address is given)
  --direct-tls ADDR:PORT   as --listen, for clients that begin with TLS; repeatable
  --websocket ADDR:PORT    as --direct-tls, for WebSockets of pages of any origin; without TLS if there is
                           --allow-plaintext; repeatable; needs feature websocket
  --proxy ADDR             every connection comes from this proxy and begins with a PROXY header, of version
                           1 or 2; repeatable
  --domain NAME            a domain that is served; repeatable (default localhost)
  --account JID:PASSWORD   an account; repeatable (default: two to try it out)
  --accounts FILE          more of them, a line each: JID, a space, the password
  --any-account PASSWORD   every user name exists and has this password: for load tests. With SCRAM
                           only if --mechanisms names it: PLAIN is then as costly as it usually is
  --cert FILE --key FILE   certificate chain and its private key, PEM (default: self-signed, made at start)
  --allow-plaintext        no TLS needed; loopback addresses only
  --guests                 lets guests in, without an account (SASL ANONYMOUS)
  --register               everybody may make an account, ten an hour from one address (XEP-0077); without it
                           clients may change their password and remove their account
  --mechanisms LIST        SASL mechanisms, separated by commas (default: all)
  --conflict POLICY        who gets a resource in use: replace (the new session), override (the older
                           one, the new one gets another resource), refuse (default replace)
  --no-limits              no limits on rates, on the number of sessions, and on what waits for a
                           client that reads slowly
  --log LEVEL              off; error: what fails here; info: who logs in from where, why sessions end and what
                           is refused; debug: all that happens to sessions (default info)
  --metrics ADDR:PORT      answers Prometheus here, at /metrics
  --data FILE              keeps everything in this SQLite file (default: in memory); needs feature sqlite
  --adduser JID:PASSWORD   adds an account to the --data file, or gives it a new password, and exits
  --help                   prints this";

pub(crate) const NO_SQLITE: &str = "--data needs a server built with SQLite: \
    cargo run --release --features tokio,sqlite --example server -- --data FILE";

pub(crate) const NO_WEBSOCKET: &str = "--websocket needs a server built with WebSockets: \
    cargo run --release --features tokio,websocket --example server -- --websocket ADDR:PORT";

/// What is to be done.
#[derive(Debug)]
pub(crate) enum Command {
    Help,
    AddUser(PathBuf, Account),
    Serve(Options),
}

pub(crate) type Account = (BareJid, String);

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) direct_tls: Vec<SocketAddr>,
    pub(crate) websocket: Vec<SocketAddr>,
    pub(crate) proxies: Vec<IpAddr>,
    pub(crate) domains: Vec<DomainPart>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) any_account: Option<String>,
    /// The files of the chain and of the key.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    pub(crate) allow_plaintext: bool,
    pub(crate) guests: bool,
    pub(crate) register: bool,
    pub(crate) mechanisms: Option<Vec<Mechanism>>,
    pub(crate) conflict: Conflict,
    pub(crate) no_limits: bool,
    pub(crate) log: Level,
    pub(crate) metrics: Option<SocketAddr>,
    pub(crate) data: Option<PathBuf>,
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Off,
    Error,
    Info,
    Debug,
}

/// Reads the command line, without the name of the program. An error says what would be right.
pub(crate) fn parse(args: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut options = Options {
        listen: Vec::new(),
        direct_tls: Vec::new(),
        websocket: Vec::new(),
        proxies: Vec::new(),
        domains: Vec::new(),
        accounts: Vec::new(),
        any_account: None,
        certificate: None,
        allow_plaintext: false,
        guests: false,
        register: false,
        mechanisms: None,
        conflict: Conflict::Replace,
        no_limits: false,
        log: Level::Info,
        metrics: None,
        data: None,
    };
    let (mut certificate, mut key, mut add_user) = (None, None, None);
    let mut args = args.into_iter();
    while let Some(name) = args.next() {
        let name = name.as_str();
        let mut value = |form| args.next().ok_or_else(|| format!("{name} wants {form} after it"));
        match name {
            "--help" => return Ok(Command::Help),
            "--allow-plaintext" => options.allow_plaintext = true,
            "--guests" => options.guests = true,
            "--register" => options.register = true,
            "--no-limits" => options.no_limits = true,
            "--listen" => options.listen.push(address(name, &value("ADDR:PORT")?)?),
            "--direct-tls" => options.direct_tls.push(address(name, &value("ADDR:PORT")?)?),
            "--websocket" => options.websocket.push(address(name, &value("ADDR:PORT")?)?),
            "--proxy" => options.proxies.push(proxy(name, &value("an IP address")?)?),
            "--metrics" => options.metrics = Some(address(name, &value("ADDR:PORT")?)?),
            "--domain" => options.domains.push(domain(&value("a domain name")?)?),
            "--account" => options.accounts.push(account(&value("JID:PASSWORD")?, ':')?),
            "--accounts" => options.accounts.extend(accounts(&value("a file")?)?),
            "--adduser" => add_user = Some(account(&value("JID:PASSWORD")?, ':')?),
            "--any-account" => options.any_account = Some(value("a password")?),
            "--cert" => certificate = Some(value("a PEM file")?.into()),
            "--key" => key = Some(value("a PEM file")?.into()),
            "--data" => options.data = Some(value("a file")?.into()),
            "--mechanisms" => options.mechanisms = Some(mechanisms(&value("a list")?)?),
            "--conflict" => {
                options.conflict = match &*value("a policy")? {
                    "replace" => Conflict::Replace,
                    "override" => Conflict::Override,
                    "refuse" => Conflict::Refuse,
                    other => return Err(no(name, other, "replace, override or refuse")),
                }
            }
            "--log" => {
                options.log = match &*value("a level")? {
                    "off" => Level::Off,
                    "error" => Level::Error,
                    "info" => Level::Info,
                    "debug" => Level::Debug,
                    other => return Err(no(name, other, "off, error, info or debug")),
                }
            }
            other => return Err(format!("there is no option {other}: see --help")),
        }
    }
    if options.data.is_some() && cfg!(not(feature = "sqlite")) {
        return Err(NO_SQLITE.into());
    }
    if !options.websocket.is_empty() && cfg!(not(feature = "websocket")) {
        return Err(NO_WEBSOCKET.into());
    }
    if let Some(account) = add_user {
        let data = options.data.ok_or("--adduser wants --data FILE as well: where to add it")?;
        return Ok(Command::AddUser(data, account));
    }
    options.certificate = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        _ => return Err("--cert FILE and --key FILE go together".into()),
    };
    options.complete()?;
    Ok(Command::Serve(options))
}

impl Options {
    /// Fills in what was left out, and looks at what has to fit together.
    fn complete(&mut self) -> Result<(), String> {
        if self.listen.is_empty() && self.direct_tls.is_empty() && self.websocket.is_empty() {
            self.listen.push((IpAddr::from(Ipv4Addr::LOCALHOST), 5222).into());
        }
        if self.domains.is_empty() {
            self.domains.push(domain("localhost")?);
        }
        let mut unprotected = self.listen.iter().chain(&self.websocket);
        let elsewhere = unprotected.find(|address| !address.ip().is_loopback());
        if let Some(address) = elsewhere.filter(|_| self.allow_plaintext) {
            return Err(format!(
                "--allow-plaintext would send passwords over the network from {address}: \
                 leave it out, or listen on loopback only (127.0.0.1 or [::1])"
            ));
        }
        if self.any_account.is_some() && !self.accounts.is_empty() {
            return Err(
                "--any-account leaves no room for other accounts: leave it or them out".into()
            );
        }
        let homeless = self.accounts.iter().find(|(jid, _)| {
            self.domains.iter().all(|domain| domain.as_str() != jid.domain().as_str())
        });
        if let Some((jid, _)) = homeless {
            return Err(format!("{jid} is at no domain of ours: add --domain {}", jid.domain()));
        }
        Ok(())
    }
}

fn no(name: &str, value: &str, right: &str) -> String {
    format!("{name} {value}: it has to be {right}")
}

fn address(name: &str, value: &str) -> Result<SocketAddr, String> {
    let right = "an IP address and a port, such as 127.0.0.1:5222 or [::]:5222";
    value.parse().map_err(|_| no(name, value, right))
}

fn proxy(name: &str, value: &str) -> Result<IpAddr, String> {
    value.parse().map_err(|_| no(name, value, "an IP address, such as 127.0.0.1 or ::1"))
}

fn domain(value: &str) -> Result<DomainPart, String> {
    addresses::domain(value)
        .map_err(|_| no("--domain", value, "a domain name, such as example.com"))
}

/// The password is behind the first separator: a bare JID has neither colon nor space, unless its
/// domain is an IPv6 address.
fn account(value: &str, separator: char) -> Result<Account, String> {
    let host = value.find('@').map_or(0, |at| at + 1);
    let from = match value.get(host..) {
        Some(rest) if rest.starts_with('[') => host + rest.find(']').unwrap_or(0),
        _ => host,
    };
    let at = value.get(from..).and_then(|rest| rest.find(separator)).map(|at| at + from);
    let (jid, password) = at
        .and_then(|at| Some((value.get(..at)?, value.get(at + separator.len_utf8()..)?)))
        .filter(|(_, password)| !password.is_empty())
        .ok_or_else(|| {
            format!("an account is written romeo@example.com{separator}PASSWORD, with a password")
        })?;
    let jid = addresses::bare(jid).ok().filter(|jid| jid.node().is_some());
    let jid = jid.ok_or("the JID of an account has a user name and a domain: romeo@example.com")?;
    Ok((jid, password.to_owned()))
}

fn accounts(file: &str) -> Result<Vec<Account>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("--accounts {file}: {error}"))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let read = |(number, line): (usize, &str)| {
        account(line, ' ').map_err(|error| format!("{file}, line {}: {error}", number + 1))
    };
    lines.map(read).collect()
}

fn mechanisms(list: &str) -> Result<Vec<Mechanism>, String> {
    let one = |name: &str| {
        name.parse().map_err(|_| {
            let mut right = String::from("some of");
            for mechanism in Mechanism::ALL {
                let _infallible = write!(right, " {mechanism}");
            }
            no("--mechanisms", name, &right)
        })
    };
    list.split(',').map(one).collect()
}
