//! The certificate of the options, or one that nobody vouches for.

use std::path::PathBuf;

use xmpp_session::address;
use xmpp_session::host::TlsConfig;
use xmpp_session::jid::DomainPart;

use crate::Failure;

/// Of the files of a chain and a key, else self-signed.
pub(crate) fn tls(
    files: Option<&(PathBuf, PathBuf)>,
    domains: &[DomainPart],
) -> Result<TlsConfig, Failure> {
    if let Some((certificate, key)) = files {
        return Ok(TlsConfig::from_pem_files(certificate, key)?);
    }
    // A certificate names a domain by its A-labels, and an IPv6 address without brackets.
    let name = |domain: &DomainPart| {
        address::a_labels(domain).map(|name| name.trim_matches(['[', ']']).to_owned())
    };
    let names = domains.iter().map(name).collect::<Result<Vec<_>, _>>()?;
    let made = rcgen::generate_simple_self_signed(names)?;
    let key = made.signing_key.serialize_der().try_into()?;
    Ok(TlsConfig::new(vec![made.cert.der().clone()], key)?)
}
