//! What a server is told at its start: accounts, certificate, and when to stop.

use std::fmt::Write as _;
use std::io;
use std::path::Path;
use std::sync::Arc;

use xmpp_session::address;
use xmpp_session::environment::{Environment, System};
use xmpp_session::host::TlsConfig;
use xmpp_session::jid::{BareJid, DomainPart};
use xmpp_session::sasl::{Mechanism, Policy};
use xmpp_session::server::{DomainPolicy, GuestPolicy};
use xmpp_session::store::{AnyAccount, Credentials, Stores};

use crate::Failure;
use crate::options::{Account, Options};

/// The stores with the accounts of the options, how these log in, and what to tell of them.
pub(crate) async fn accounts(
    options: &mut Options,
    environment: &System,
) -> Result<(Stores, DomainPolicy, String), Failure> {
    let mut greeting = String::new();
    let mut stores = match &options.data {
        Some(file) => open(file)?,
        None => Stores::memory(),
    };
    let mut sasl = Policy::new(environment);
    if let Some(mechanisms) = &options.mechanisms {
        sasl = sasl.mechanisms(mechanisms);
    }
    let mut policy = DomainPolicy::default();
    policy.sasl = Some(sasl);
    policy.guests = options.guests.then(GuestPolicy::default);
    if let Some(password) = &options.any_account {
        let any_account = Arc::new(AnyAccount::new(password)?);
        stores.accounts = Arc::clone(&any_account) as _;
        // It is quick as an authenticator, which cannot do SCRAM.
        let only_plain = |named: &Vec<_>| named.iter().all(|one| *one == Mechanism::Plain);
        if options.mechanisms.as_ref().is_none_or(only_plain) {
            policy.authenticator = Some(any_account);
        }
    } else if options.accounts.is_empty() && options.data.is_none() {
        options.accounts = demonstration(options, environment)?;
        for (jid, password) in &options.accounts {
            writeln!(greeting, "account {jid}, password {password}")?;
        }
        greeting += "To try it out, log in with any XMPP client: give it one of these accounts and, as its \
                     server, an address from below; accept the certificate.\n";
    }
    add(&stores, environment, &options.accounts).await?;
    Ok((stores, policy, greeting))
}

/// Two accounts with passwords of their own each time.
fn demonstration(options: &Options, environment: &System) -> Result<Vec<Account>, Failure> {
    let domain = options.domains.first().ok_or("no domain")?;
    let mut accounts = Vec::new();
    for name in ["romeo", "juliet"] {
        let mut random = [0; 5];
        environment.random(&mut random);
        let password: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        accounts.push((BareJid::new(&format!("{name}@{domain}"))?, password));
    }
    Ok(accounts)
}

/// Makes accounts, or gives them new passwords.
pub(crate) async fn add(
    stores: &Stores,
    environment: &System,
    accounts: &[Account],
) -> Result<(), Failure> {
    for (jid, password) in accounts {
        let credentials = Credentials::from_password(password, environment)?;
        stores.accounts.set_credentials(jid, credentials).await?;
    }
    Ok(())
}

#[cfg(feature = "sqlite")]
pub(crate) fn open(file: &Path) -> Result<Stores, Failure> {
    let store = xmpp_session::store::Sqlite::open(file)
        .map_err(|error| format!("cannot open {}: {error}", file.display()))?;
    Ok(Stores::all_in(Arc::new(store)))
}

#[cfg(not(feature = "sqlite"))]
pub(crate) fn open(_: &Path) -> Result<Stores, Failure> {
    Err(crate::options::NO_SQLITE.into())
}

/// The certificate of the options, or one that nobody vouches for.
pub(crate) fn tls(options: &Options) -> Result<TlsConfig, Failure> {
    if let Some((certificate, key)) = &options.certificate {
        return Ok(TlsConfig::from_pem_files(certificate, key)?);
    }
    // A certificate names a domain by its A-labels, and an IPv6 address without brackets.
    let name = |domain: &DomainPart| {
        address::a_labels(domain).map(|name| name.trim_matches(['[', ']']).to_owned())
    };
    let names = options.domains.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = made.signing_key.serialize_der().try_into()?;
    Ok(TlsConfig::new(vec![made.cert.der().clone()], key)?)
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
