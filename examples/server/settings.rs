//! What the command line says of a server, wherever it listens.

use std::fmt::Write as _;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use xmpp_session::address as addresses;
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::sasl::Mechanism;
use xmpp_session::session::Conflict;

pub(crate) const HELP: &str = "\
  --domain NAME            a domain that is served; repeatable (default localhost)
  --account JID:PASSWORD   an account; repeatable (default: two to try it out)
  --accounts FILE          more of them, a line each: JID, a space, the password
  --any-account PASSWORD   every user name exists and has this password: for load tests. With SCRAM
                           only if --mechanisms names it: PLAIN is then as costly as it usually is
  --data FILE              keeps everything in this SQLite file, and beside it in FILE.secret what clients' tokens
                           are made from (default: in memory); needs feature sqlite
  --data postgres://…      keeps everything in this PostgreSQL database; needs feature postgres
  --secret FILE            what clients' tokens are made from, drawn where there is no such file: without it a server
                           on PostgreSQL issues none
  --guests                 lets guests in, without an account (SASL ANONYMOUS)
  --register               everybody may make an account, ten an hour from one address (XEP-0077); without it
                           clients may change their password and remove their account
  --mechanisms LIST        SASL mechanisms, separated by commas (default: all; with --data without
                           SCRAM-SHA-512, for which older accounts have no keys before they log in once)
  --conflict POLICY        who gets a resource in use: replace (the new session), override (the older
                           one, the new one gets another resource), refuse (default replace)
  --no-limits              no limits on rates, on the number of sessions, and on what waits for a
                           client that reads slowly
  --log LEVEL              off; error: what fails here; info: who logs in from where, why sessions end and what
                           is refused; debug: all that happens to sessions (default info)";

pub(crate) const NO_SQLITE: &str = "--data needs an example built with SQLite: \
    cargo run --release --features tokio,sqlite --example server -- --data FILE";

pub(crate) const NO_POSTGRES: &str = "--data postgres://… needs an example built with PostgreSQL: \
    cargo run --release --features tokio,postgres --example server -- --data postgres://…";

pub(crate) type Account = (BareJid, String);

#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) domains: Vec<DomainPart>,
    pub(crate) accounts: Vec<Account>,
    pub(crate) any_account: Option<String>,
    pub(crate) guests: bool,
    pub(crate) register: bool,
    pub(crate) mechanisms: Option<Vec<Mechanism>>,
    pub(crate) conflict: Conflict,
    pub(crate) no_limits: bool,
    pub(crate) log: Level,
    pub(crate) data: Option<PathBuf>,
    pub(crate) secret: Option<PathBuf>,
}

/// Whether `--data` names a database, and no file.
pub(crate) fn is_database(data: &Path) -> bool {
    let url = data.to_string_lossy();
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// How much is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Off,
    Error,
    Info,
    Debug,
}

/// What follows an option on the command line, or an error that says what should.
pub(crate) type Value<'a> = &'a mut dyn FnMut(&str) -> Result<String, String>;

impl Settings {
    pub(crate) const fn new() -> Self {
        Self {
            domains: Vec::new(),
            accounts: Vec::new(),
            any_account: None,
            guests: false,
            register: false,
            mechanisms: None,
            conflict: Conflict::Replace,
            no_limits: false,
            log: Level::Info,
            data: None,
            secret: None,
        }
    }

    /// Takes an option, if it is one of these.
    pub(crate) fn take(&mut self, name: &str, value: Value<'_>) -> Result<(), String> {
        match name {
            "--guests" => self.guests = true,
            "--register" => self.register = true,
            "--no-limits" => self.no_limits = true,
            "--domain" => self.domains.push(domain(&value("a domain name")?)?),
            "--account" => self.accounts.push(account(&value("JID:PASSWORD")?, ':')?),
            "--accounts" => self.accounts.extend(accounts(&value("a file")?)?),
            "--any-account" => self.any_account = Some(value("a password")?),
            "--data" => self.data = Some(value("a file")?.into()),
            "--secret" => self.secret = Some(value("a file")?.into()),
            "--mechanisms" => self.mechanisms = Some(mechanisms(&value("a list")?)?),
            "--conflict" => {
                self.conflict = match &*value("a policy")? {
                    "replace" => Conflict::Replace,
                    "override" => Conflict::Override,
                    "refuse" => Conflict::Refuse,
                    other => return Err(no(name, other, "replace, override or refuse")),
                }
            }
            "--log" => {
                self.log = match &*value("a level")? {
                    "off" => Level::Off,
                    "error" => Level::Error,
                    "info" => Level::Info,
                    "debug" => Level::Debug,
                    other => return Err(no(name, other, "off, error, info or debug")),
                }
            }
            other => return Err(format!("there is no option {other}: see --help")),
        }
        Ok(())
    }

    /// Fills in what was left out, and looks at what has to fit together.
    pub(crate) fn complete(&mut self) -> Result<(), String> {
        match self.data.as_deref().map(is_database) {
            Some(true) if cfg!(not(feature = "postgres")) => return Err(NO_POSTGRES.into()),
            Some(false) if cfg!(not(feature = "sqlite")) => return Err(NO_SQLITE.into()),
            _ => {}
        }
        if self.domains.is_empty() {
            self.domains.push(domain("localhost")?);
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

pub(crate) fn no(name: &str, value: &str, right: &str) -> String {
    format!("{name} {value}: it has to be {right}")
}

pub(crate) fn address(name: &str, value: &str) -> Result<SocketAddr, String> {
    let right = "an IP address and a port, such as 127.0.0.1:5222 or [::]:5222";
    value.parse().map_err(|_| no(name, value, right))
}

fn domain(value: &str) -> Result<DomainPart, String> {
    addresses::domain(value)
        .map_err(|_| no("--domain", value, "a domain name, such as example.com"))
}

/// The password is behind the first separator: a bare JID has neither colon nor space, unless its
/// domain is an IPv6 address.
pub(crate) fn account(value: &str, separator: char) -> Result<Account, String> {
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
