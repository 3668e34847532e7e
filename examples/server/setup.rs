//! A server as its settings say: accounts, limits, extensions; and when to stop.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::runtime::Handle;
use xmpp_session::connection::SharedConnection;
use xmpp_session::environment::{Environment, System};
use xmpp_session::jid::BareJid;
use xmpp_session::sasl::{Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, GuestPolicy, Limits, Server, ServerBuilder};
use xmpp_session::store::{AnyAccount, Credentials, ScramHash, ScramKeys, Stores};
use xmpp_session::xep;

use crate::Failure;
use crate::log::Log;
use crate::settings::{Account, Settings, is_database};

/// What keeps all that a server has.
pub(crate) async fn stores(settings: &Settings) -> Result<Stores, Failure> {
    match &settings.data {
        Some(data) => open(data).await,
        None => Ok(Stores::memory()),
    }
}

/// A server to add to, and the accounts that it has made up.
pub(crate) async fn server<C: SharedConnection>(
    settings: &Settings,
    allow_insecure: bool,
    stores: Stores,
) -> Result<(ServerBuilder<C>, Vec<Account>), Failure> {
    let log = Log(settings.log);
    let environment = Arc::new(System::new());
    let made = accounts(settings, allow_insecure, stores, &environment);
    let (stores, policy, invented) = made.await?;
    let mut limits = Limits::default();
    if settings.no_limits {
        limits = Limits::unlimited();
        (limits.retention.live_stanzas, limits.retention.bytes) = (usize::MAX, usize::MAX);
    }
    let registration = match settings.register {
        true => xep::Registration::open(),
        false => xep::Registration::closed(),
    };
    let blocks = Arc::clone(&stores.blocks);
    let mut server = Server::builder(Arc::clone(&environment) as _, stores)
        .extension(xep::Blocking::new(blocks))
        .extension(xep::Carbons::new())
        .extension(xep::StreamManagement::new())
        .extension(registration)
        .extension(xep::ClientState)
        .extension(xep::Ping)
        .extension(xep::SoftwareVersion::new("xmpp-session example", env!("CARGO_PKG_VERSION")))
        .extension(xep::LastActivity::new(environment))
        .extension(xep::Disco::new().name("xmpp-session example").offline_messages())
        .conflict(settings.conflict)
        .hashing(Handle::current())
        .limits(limits)
        .on_fault(move |fault| log.fault(fault))
        .on_login(move |login| log.login(login));
    for domain in &settings.domains {
        server = server.domain_with(domain.clone(), policy.clone());
    }
    Ok((server, invented))
}

/// The stores with the accounts of the settings, how these log in, and those that were made up.
async fn accounts(
    settings: &Settings,
    allow_insecure: bool,
    mut stores: Stores,
    environment: &System,
) -> Result<(Stores, DomainPolicy, Vec<Account>), Failure> {
    let mut invented = Vec::new();
    let mut sasl = Policy::new(environment).allow_insecure(allow_insecure);
    match &settings.mechanisms {
        Some(mechanisms) => sasl = sasl.mechanisms(mechanisms),
        // All accounts are made below.
        None if settings.data.is_none() => sasl = sasl.mechanisms(&Mechanism::ALL),
        None => {}
    }
    let beside = settings.data.as_deref().filter(|data| !is_database(data)).map(|data| {
        let mut name = data.as_os_str().to_owned();
        name.push(".secret");
        PathBuf::from(name)
    });
    if let Some(file) = settings.secret.clone().or(beside) {
        sasl = sasl.secret(secret(&file, environment)?);
    }
    let mut policy = DomainPolicy::default();
    policy.tls_required = !allow_insecure;
    policy.sasl = Some(sasl);
    policy.guests = settings.guests.then(GuestPolicy::default);
    if let Some(password) = &settings.any_account {
        let any_account = Arc::new(AnyAccount::new(password)?);
        stores.accounts = Arc::clone(&any_account) as _;
        // It is quick as an authenticator, which cannot do SCRAM.
        let only_plain = |named: &Vec<_>| named.iter().all(|one| *one == Mechanism::Plain);
        if settings.mechanisms.as_ref().is_none_or(only_plain) {
            policy.authenticator = Some(any_account);
        }
    } else if settings.accounts.is_empty() && settings.data.is_none() {
        invented = demonstration(settings, environment)?;
    }
    add(&stores, environment, settings.accounts.iter().chain(&invented)).await?;
    Ok((stores, policy, invented))
}

/// Two accounts with passwords of their own each time.
fn demonstration(settings: &Settings, environment: &System) -> Result<Vec<Account>, Failure> {
    let domain = settings.domains.first().ok_or("no domain")?;
    let mut accounts = Vec::new();
    for name in ["romeo", "juliet"] {
        let mut random = [0; 5];
        environment.random(&mut random);
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        accounts.push((BareJid::new(&format!("{name}@{domain}"))?, password));
    }
    Ok(accounts)
}

/// Makes accounts, or gives them new passwords. Who has this one already stays as it is: other nodes may be using it.
pub(crate) async fn add(
    stores: &Stores,
    environment: &System,
    accounts: impl IntoIterator<Item = &Account>,
) -> Result<(), Failure> {
    for (jid, password) in accounts {
        let kept = stores.accounts.credentials(jid).await?;
        if kept.is_some_and(|kept| is_of(&kept, password)) {
            continue;
        }
        let credentials = Credentials::from_password(password, environment)?;
        stores.accounts.set_credentials(jid, credentials).await?;
    }
    Ok(())
}

/// Whether all that may be kept of a password is there.
fn is_of(kept: &Credentials, password: &str) -> bool {
    let has = |hash: ScramHash| {
        let keys = kept.keys(hash)?;
        let iterations = NonZeroU32::new(keys.iterations)?;
        let derived = ScramKeys::derive(password, &keys.salt, iterations, hash).ok()?;
        Some(derived == *keys)
    };
    !kept.disabled && ScramHash::ALL.into_iter().all(|hash| has(hash) == Some(true))
}

/// What tokens are derived from: drawn once, and kept apart from the data. Who copies the data alone cannot log in with it.
fn secret(file: &Path, environment: &System) -> Result<[u8; 32], Failure> {
    let failed = |error: io::Error| format!("{}: {error}", file.display());
    match fs::read(file) {
        Ok(kept) => {
            let wrong = || format!("{} is no secret: it has to have 32 bytes", file.display());
            Ok(kept.try_into().map_err(|_| wrong())?)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let mut secret = [0; 32];
            environment.random(&mut secret);
            let mut new = file.as_os_str().to_owned();
            new.push(format!(".{}", std::process::id()));
            let mut options = OpenOptions::new();
            options.write(true).create(true).truncate(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            let written = options.open(&new).and_then(|mut file| {
                file.write_all(&secret)?;
                file.sync_all()
            });
            // Of several nodes that begin at the same time, one is the first.
            let linked = written.and_then(|()| fs::hard_link(&new, file));
            fs::remove_file(&new).map_err(failed)?;
            match linked {
                Ok(()) => Ok(secret),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self::secret(file, environment)
                }
                Err(error) => Err(failed(error).into()),
            }
        }
        Err(error) => Err(failed(error).into()),
    }
}

pub(crate) async fn open(data: &Path) -> Result<Stores, Failure> {
    if is_database(data) { connect(data).await } else { open_file(data) }
}

#[cfg(feature = "postgres")]
async fn connect(url: &Path) -> Result<Stores, Failure> {
    let connected = xmpp_session::store::Postgres::connect(&url.to_string_lossy()).await;
    Ok(Stores::all_in(Arc::new(connected.map_err(|error| told(&error))?)))
}

/// An error with what has caused it. None of them has the URL, in which there may be a password.
#[cfg(feature = "postgres")]
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let (mut text, mut cause) = (error.to_string(), error.source());
    while let Some(error) = cause {
        let more = error.to_string();
        // Some say their cause themselves.
        if !text.ends_with(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(not(feature = "postgres"))]
async fn connect(_: &Path) -> Result<Stores, Failure> {
    Err(crate::settings::NO_POSTGRES.into())
}

#[cfg(feature = "sqlite")]
fn open_file(file: &Path) -> Result<Stores, Failure> {
    let store = xmpp_session::store::Sqlite::open(file)
        .map_err(|error| format!("cannot open {}: {error}", file.display()))?;
    Ok(Stores::all_in(Arc::new(store)))
}

#[cfg(not(feature = "sqlite"))]
fn open_file(_: &Path) -> Result<Stores, Failure> {
    Err(crate::settings::NO_SQLITE.into())
}

/// Ends when the process is asked to.
#[cfg(unix)]
pub(crate) fn stop() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Ends when the process is asked to.
#[cfg(not(unix))]
pub(crate) fn stop() -> io::Result<impl Future<Output = ()>> {
    Ok(async { tokio::signal::ctrl_c().await.unwrap_or_default() })
}
