//! Whose the client's certificate is (EXTERNAL-1).

use std::sync::Arc;

use jid::{BareJid, DomainPart};

use super::super::blocked::Pending;
use super::{Driver, State};
use crate::address;
use crate::connection::SharedConnection;
use crate::server::Core;
use crate::store::ClientCertificate;

/// How many accounts of one certificate are looked up.
const MOST: usize = 16;

impl<C: SharedConnection> Driver<C> {
    /// Finds out which accounts the certificate of a stream to `domain` is for, before anything is offered.
    pub(super) fn identify_client(&mut self, domain: DomainPart) {
        let core = Arc::clone(&self.core);
        let offers =
            core.domain(domain.as_str()).is_some_and(|served| served.sasl.by_certificate());
        let now = self.core.environment.utc();
        let certificate = self
            .negotiating
            .as_ref()
            .and_then(|negotiating| negotiating.bindings.certificate())
            .filter(|certificate| offers && !certificate.is_expired(now))
            .cloned();
        let Some(certificate) = certificate else { return self.offer_authentication(&domain) };
        self.pending = Some(Pending::Certificate(Box::pin(async move {
            (core.certified(&certificate, &domain).await, domain)
        })));
    }

    /// The accounts are known.
    pub(in super::super) fn client_identified(&mut self, found: Vec<BareJid>, domain: &DomainPart) {
        let Some(negotiating) = &mut self.negotiating else { return };
        negotiating.certified = found;
        if matches!(self.state, State::Unauthed(_)) {
            self.offer_authentication(domain);
        }
    }
}

impl<C: SharedConnection> Core<C> {
    /// The accounts of `domain` that the certificate is for; none where they cannot be looked up.
    async fn certified(
        &self,
        certificate: &ClientCertificate,
        domain: &DomainPart,
    ) -> Vec<BareJid> {
        let mapper = self.domain(domain.as_str()).and_then(|served| served.certificates.clone());
        let named = match mapper {
            Some(mapper) => mapper.accounts(certificate, domain).await.unwrap_or_default(),
            None => certificate.addresses().to_vec(),
        };
        let mut found = Vec::new();
        let here = |jid: &BareJid| jid.node().is_some() && jid.domain() == &**domain;
        for jid in named.iter().filter_map(|jid| address::bare(jid.as_str()).ok()).filter(here) {
            if found.len() == MOST {
                break;
            }
            if !found.contains(&jid) {
                found.push(jid);
            }
        }
        let mut there = Vec::new();
        for account in found {
            match self.stores.accounts.exists(&account).await {
                Ok(true) => there.push(account),
                Ok(false) => {}
                Err(_) => return Vec::new(),
            }
        }
        there
    }
}
