//! What a stream offers (RFC 6120 §4.3).

use std::sync::Arc;

use jid::{BareJid, DomainPart};

use super::{Driver, Negotiating};
use crate::connection::SharedConnection;
use crate::extension::{Extension, Stage};
use crate::sasl::{Context, Mechanism, Negotiation, Policy, fast, wire};
use crate::server::builder::Domain;
use crate::server::{Core, PeerAddress};
use crate::session::HostCode;
use crate::stanza::Frame;
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
            adds_keys: core.stores.accounts.adds_keys(),
        };
        let Some(mut features) = negotiating.features(&context, served.tls_required) else {
            let error = StreamError::new(StreamCondition::PolicyViolation);
            return self
                .fail(error.with_text("en", "no way to log in can be offered on this transport"));
        };
        let secure = negotiating.secure;
        let only_tls = !secure && served.tls_required;
        // SASL2-1, SASL2-3
        if secure {
            let mut inline = core.inline_features(&self.peer);
            fast::write_offer(context.for_tokens(), served.sasl.takes_early_data(), &mut inline);
            let mut tasks = Vec::new();
            wire::write_upgrades(context.upgrades(), &mut tasks);
            features = features.sasl2(context.offered().map(Mechanism::as_str), &inline, &tasks);
        }
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

    /// STREAM-F4; behind the outcome of the login where the stream goes on (SASL2-8).
    pub(super) fn offer_bind(&mut self, success: Option<&[u8]>) {
        let features = self.core.authenticated_features(Features::authenticated());
        let features = self.core.extend(features, Stage::Authenticated, &self.peer);
        match success {
            Some(success) => self.send_both([Frame::element(success), features.frame()]),
            None => self.send(features.frame()),
        }
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
    /// What a stream has from its authentication on, whatever extensions add.
    pub(super) fn authenticated_features(&self, features: Features) -> Features {
        let limits = &self.limits;
        features
            .roster_versioning()
            .pre_approval()
            .limits(limits.stream.element_bytes(), limits.silence.as_secs())
    }

    /// What can be asked for together with an authentication (BIND2-1).
    fn inline_features(&self, peer: &PeerAddress) -> Vec<u8> {
        let mut inline =
            self.added(peer, |extension, more| extension.features(Stage::Inline, more));
        let add = |extension: &dyn Extension<C>, more: &mut Vec<u8>| {
            extension.features(Stage::InlineBind, more);
        };
        match &*self.added(peer, add) {
            [] => inline.extend_from_slice(b"<bind xmlns='urn:xmpp:bind:0'/>"),
            features => inline.extend_from_slice(
                &[b"<bind xmlns='urn:xmpp:bind:0'><inline>", features, b"</inline></bind>"]
                    .concat(),
            ),
        }
        inline
    }

    /// With what the extensions offer.
    fn extend(&self, features: Features, stage: Stage, peer: &PeerAddress) -> Features {
        self.extend_by(features, peer, |extension, more| extension.features(stage, more))
    }

    /// With what each extension adds.
    pub(super) fn extend_by(
        &self,
        features: Features,
        peer: &PeerAddress,
        add: impl Fn(&dyn Extension<C>, &mut Vec<u8>),
    ) -> Features {
        match &*self.added(peer, add) {
            [] => features,
            more => features.extension(more),
        }
    }

    fn added(&self, peer: &PeerAddress, add: impl Fn(&dyn Extension<C>, &mut Vec<u8>)) -> Vec<u8> {
        let mut more = Vec::new();
        for extension in self.extensions.iter() {
            let before = more.len();
            let add = || add(&**extension, &mut more);
            if self.faults.shielded(HostCode::Extension, peer, None, add).is_none() {
                more.truncate(before);
            }
        }
        more
    }

    pub(in crate::server) fn domain(&self, name: &str) -> Option<&Domain> {
        self.domains.iter().find(|domain| domain.name.as_str() == name)
    }

    /// How the clients of this account log in.
    pub(in crate::server) fn policy_for(&self, account: &BareJid) -> Option<Arc<Policy>> {
        Some(Arc::clone(&self.domain(account.domain().as_str())?.sasl))
    }
}
