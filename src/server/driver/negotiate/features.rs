//! What a stream offers (RFC 6120 §4.3).

use std::sync::Arc;

use jid::DomainPart;

use super::{Driver, Negotiating};
use crate::connection::SharedConnection;
use crate::extension::Stage;
use crate::sasl::{Context, Mechanism, Negotiation};
use crate::server::builder::Domain;
use crate::server::{Core, PeerAddress};
use crate::session::HostCode;
use crate::stream::{Features, StreamCondition, StreamError};

impl<C: SharedConnection> Driver<C> {
    /// STREAM-F1, F2, F3, F8, and F7 where nothing can be offered.
    pub(super) fn offer_authentication(&mut self, domain: &DomainPart) {
        let core = Arc::clone(&self.core);
        let Some(served) = core.domain(domain.as_str()) else { return };
        let Some(negotiating) = &mut self.negotiating else { return };
        let context = Context {
            policy: Arc::clone(&served.sasl),
            environment: Arc::clone(&core.environment),
            domain: domain.clone(),
            secure: negotiating.secure,
            bindings: negotiating.bindings.clone(),
            certified: negotiating.certified.clone(),
        };
        let Some(mut features) = negotiating.features(&context, served.tls_required) else {
            let error = StreamError::new(StreamCondition::PolicyViolation);
            return self
                .fail(error.with_text("en", "no way to log in can be offered on this transport"));
        };
        let secure = negotiating.secure;
        let only_tls = !secure && served.tls_required;
        negotiating.sasl = Some(Negotiation::new(context));
        if !only_tls {
            let bytes = core.limits.stream.element_bytes_before_auth();
            features = features.limits(bytes, core.limits.negotiation.as_secs());
        }
        if secure {
            features = core.extend(features, Stage::Secure, &self.peer);
        }
        self.send(features.frame());
    }

    /// STREAM-F4
    pub(super) fn offer_bind(&mut self) {
        let limits = &self.core.limits;
        let features = Features::authenticated()
            .roster_versioning()
            .pre_approval()
            .limits(limits.stream.element_bytes(), limits.silence.as_secs());
        let features = self.core.extend(features, Stage::Authenticated, &self.peer);
        self.send(features.frame());
    }
}

impl Negotiating {
    /// What is offered before authentication; `None` where nothing can be.
    fn features(&self, context: &Context, tls_required: bool) -> Option<Features> {
        let names: Vec<_> = context.offered().map(Mechanism::as_str).collect();
        if !self.starttls && (names.is_empty() || (!self.secure && tls_required)) {
            return None;
        }
        let bindings: Vec<_> = context.bindings.types().collect();
        Some(match (self.tls, self.secure) {
            (true, _) => Features::secure(names, bindings),
            (false, true) => Features::declared_secure(names, self.starttls),
            (false, false) if tls_required => Features::tls_required(),
            (false, false) if !self.starttls => Features::declared_secure(names, false),
            (false, false) => Features::tls_optional(names),
        })
    }
}

impl<C: SharedConnection> Core<C> {
    /// With what the extensions offer.
    fn extend(&self, features: Features, stage: Stage, peer: &PeerAddress) -> Features {
        let mut more = Vec::new();
        for extension in &self.extensions {
            let before = more.len();
            let add = || extension.features(stage, &mut more);
            if self.faults.shielded(HostCode::Extension, peer, None, add).is_none() {
                more.truncate(before);
            }
        }
        if more.is_empty() { features } else { features.extension(&more) }
    }

    pub(super) fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name.as_str() == name)
    }
}
