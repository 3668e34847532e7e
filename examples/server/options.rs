//! What the command line says.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use xmpp_session::address as addresses;

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
  --adduser JID:PASSWORD   adds an account to the --data file or database, or gives it a new password, and exits
  --cluster URLS           this is one node of several, which are one server (docs/cluster.md): posts go by these instances
                           of Redis or Valkey, redis:// or rediss://, separated by commas; wants --node and a --data
                           postgres://… that all nodes share; needs features redis and postgres
  --engine ENGINE          where leases are, and who owns what: redis (the first of the --cluster URLs), or postgres
                           (the --data database) (default redis)
  --node NAME              the name of this node, by which people tell it from others
  --cluster-name NAME      of clusters that share an instance of Redis each has another one (default xmpp)
  --see-other-host HOST[:PORT]
                           where clients are sent when this node leaves
  --options FILE           more options, a line each; a line that begins with # is a comment. What is on the command line
                           everybody on the machine can read, passwords too
  --help                   prints this
";

/// All options.
pub(crate) fn help() -> String {
    format!("{HEAD}\n{}", settings::HELP)
}

pub(crate) const NO_WEBSOCKET: &str = "--websocket needs a server built with WebSockets: \
    cargo run --release --features tokio,websocket --example server -- --websocket ADDR:PORT";

pub(crate) const NO_CLUSTER: &str = "--cluster needs a server built with what nodes stand on: \
    cargo run --release --features tokio,redis,postgres --example server -- --cluster redis://… --node NAME --data postgres://…";

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
    pub(crate) cluster: Option<Cluster>,
    pub(crate) settings: Settings,
}

/// What makes a server one node of several.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Cluster {
    pub(crate) urls: String,
    pub(crate) engine: Engine,
    pub(crate) node: String,
    pub(crate) name: Option<String>,
    pub(crate) other_host: Option<(String, Option<u16>)>,
}

/// Where leases and the record of who owns what are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Redis,
    Postgres,
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
        cluster: None,
        settings: Settings::new(),
    };
    let (mut certificate, mut key, mut add_user) = (None, None, None);
    let (mut urls, mut engine, mut node, mut name_of_all, mut other_host) =
        (None, None, None, None, None);
    let mut args = with_files(args)?.into_iter().peekable();
    while let Some(name) = args.next() {
        let name = name.as_str();
        let mut value = |form: &str| {
            // Another option in its place is no value.
            let value = args.next_if(|value| !value.starts_with("--"));
            value.ok_or_else(|| format!("{name} wants {form} after it"))
        };
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
            "--cluster" => urls = Some(instances(&value("redis://HOST:PORT")?)?),
            "--engine" => engine = Some(self::engine(name, &value("redis or postgres")?)?),
            "--node" => node = Some(value("a name")?),
            "--cluster-name" => name_of_all = Some(value("a name")?),
            "--see-other-host" => other_host = Some(place(name, &value("HOST or HOST:PORT")?)?),
            "--clients-from" => options.clients_from = Some(value("a PEM file")?.into()),
            other => options.settings.take(other, &mut value)?,
        }
    }
    if !options.websocket.is_empty() && cfg!(not(feature = "websocket")) {
        return Err(NO_WEBSOCKET.into());
    }
    if urls.is_some() && node.is_some() {
        if cfg!(not(all(feature = "redis", feature = "postgres"))) {
            return Err(NO_CLUSTER.into());
        }
        if !options.settings.data.as_deref().is_some_and(settings::is_database) {
            let why = "the database that all nodes share";
            return Err(format!("--cluster wants --data postgres://… as well: {why}"));
        }
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
    options.cluster = match (urls, node) {
        (Some(urls), Some(node)) => {
            let engine = engine.unwrap_or(Engine::Redis);
            Some(Cluster { urls, engine, node, name: name_of_all, other_host })
        }
        (Some(_), None) => {
            return Err("--cluster wants --node NAME as well: another one for each node".into());
        }
        (None, node) => {
            let alone = [
                ("--node", node.is_some()),
                ("--engine", engine.is_some()),
                ("--cluster-name", name_of_all.is_some()),
                ("--see-other-host", other_host.is_some()),
            ];
            if let Some((name, _)) = alone.iter().find(|(_, is_there)| *is_there) {
                return Err(format!("{name} is for nodes: add --cluster redis://HOST:PORT"));
            }
            None
        }
    };
    options.complete()?;
    Ok(Command::Serve(Box::new(options)))
}

/// The arguments, with the lines of a file where one is named.
fn with_files(args: impl IntoIterator<Item = String>) -> Result<Vec<String>, String> {
    let (mut all, mut args) = (Vec::new(), args.into_iter());
    while let Some(arg) = args.next() {
        if arg != "--options" {
            all.push(arg);
            continue;
        }
        let file = args.next().ok_or("--options wants a file after it")?;
        let text =
            fs::read_to_string(&file).map_err(|error| format!("cannot read {file}: {error}"))?;
        for line in text.lines().map(str::trim) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if !line.starts_with("--") {
                return Err(format!(
                    "each line of {file} is an option, such as --domain example.com"
                ));
            }
            let (name, value) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
            let value = Some(value.trim_start()).filter(|value| !value.is_empty());
            all.extend([Some(name), value].into_iter().flatten().map(str::to_owned));
        }
    }
    Ok(all)
}

impl Options {
    /// Fills in what was left out, and looks at what has to fit together.
    fn complete(&mut self) -> Result<(), String> {
        for (option, name) in self.cluster.iter().flat_map(|cluster| {
            [("--node", Some(&cluster.node)), ("--cluster-name", cluster.name.as_ref())]
        }) {
            if name.is_some_and(|name| name.trim().is_empty()) {
                return Err(format!("{option} wants a name that is not empty"));
            }
        }
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

/// URLs, which may have passwords: no error shows them.
fn instances(urls: &str) -> Result<String, String> {
    let is_one = |url: &str| {
        let rest = url.strip_prefix("redis://").or_else(|| url.strip_prefix("rediss://"));
        rest.is_some_and(|rest| !rest.is_empty())
    };
    if urls.split(',').all(|url| is_one(url.trim())) {
        return Ok(urls.to_owned());
    }
    let right = "redis://HOST:PORT, or rediss:// for TLS, with commas between several";
    Err(format!("what follows --cluster has to be {right}"))
}

fn engine(name: &str, value: &str) -> Result<Engine, String> {
    match value {
        "redis" => Ok(Engine::Redis),
        "postgres" => Ok(Engine::Postgres),
        other => Err(no(name, other, "redis or postgres")),
    }
}

/// A host, and a port if there is one: `two.example.com`, `127.0.0.1:5223`, `[::1]:5223`, `::1`.
fn place(name: &str, value: &str) -> Result<(String, Option<u16>), String> {
    let is_alone = value.parse::<IpAddr>().is_ok();
    let (host, port) = match value.rsplit_once(':').filter(|_| !is_alone && !value.ends_with(']')) {
        Some((host, port)) => (host, port.parse().ok()),
        None => (value, None),
    };
    let has_port = host.len() < value.len();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let is_host = host.parse::<IpAddr>().is_ok() || addresses::domain(host).is_ok();
    if is_host && has_port == port.is_some() {
        return Ok((host.to_owned(), port));
    }
    Err(no(name, value, "a host or a host and a port, such as two.example.com:5222"))
}
