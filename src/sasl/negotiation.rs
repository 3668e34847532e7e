//! Authentication of one stream: exchanges, retries, the last word.

use super::error::SaslError;
use super::exchange::{Context, Exchange, Step};
use super::mechanism::Mechanism;
use super::wire::Request;
use crate::store::{Credentials, Verdict};

/// A failure: tell the client, and close the stream with `policy-violation` if it was one too many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: SaslError,
    /// SASL-9: no retry is left.
    pub(crate) close: bool,
}

/// What a stream knows until it is authenticated. Drop it after [`Step::Success`].
///
/// Between [`Step::NeedCredentials`], [`Step::CheckPassword`] or [`Step::CheckKeys`] and the answer to
/// it, pass in no request.
#[derive(Debug)]
pub(crate) struct Negotiation {
    context: Context,
    exchange: Option<Exchange>,
    failures: u8,
}

impl Negotiation {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context, exchange: None, failures: 0 }
    }

    /// Takes what the client asked for, or why that could not be read.
    pub(crate) fn receive(
        &mut self,
        request: Result<Request<'_>, SaslError>,
    ) -> Result<Step, Failure> {
        // Whatever comes, it takes the exchange: a further `<auth/>` discards it (SASL-3), a
        // failure ends it.
        let exchange = self.exchange.take();
        let step = match (request, exchange) {
            (Ok(Request::Auth { mechanism, initial }), _) => {
                self.start(mechanism, initial.as_deref())
            }
            (Ok(Request::Response(data)), Some(mut exchange)) => {
                exchange.respond(&data, &self.context).map(|step| (exchange, step))
            }
            // SASL-4
            (Ok(Request::Response(_)), None) => Err(SaslError::MalformedRequest),
            (Ok(Request::Abort), _) => Err(SaslError::Aborted),
            (Err(error), _) => Err(error),
        };
        self.keep(step)
    }

    /// What the store found for [`Step::NeedCredentials`].
    pub(crate) fn credentials(&mut self, found: Option<Credentials>) -> Result<Step, Failure> {
        let step = self.waiting().and_then(|mut exchange| {
            let step = exchange.credentials(found, &self.context)?;
            Ok((exchange, step))
        });
        self.keep(step)
    }

    /// The result of [`Step::CheckKeys`].
    pub(crate) fn hashed(&mut self, right: bool) -> Result<Step, Failure> {
        let step = self.waiting().and_then(|mut exchange| {
            let step = exchange.hashed(right)?;
            Ok((exchange, step))
        });
        self.keep(step)
    }

    /// What the host found for [`Step::CheckPassword`].
    pub(crate) fn verdict(&mut self, verdict: Verdict) -> Result<Step, Failure> {
        let step = self.waiting().and_then(|mut exchange| {
            let step = exchange.verdict(verdict)?;
            Ok((exchange, step))
        });
        self.keep(step)
    }

    /// The host could not answer: no fault of the client's, so no attempt is counted (SASL-7).
    pub(crate) fn store_failed(&mut self) -> Failure {
        self.exchange = None;
        self.refuse(SaslError::TemporaryAuthFailure)
    }

    fn start(&self, name: &str, initial: Option<&[u8]>) -> Result<(Exchange, Step), SaslError> {
        if !self.context.secure && self.context.policy.secure_only {
            return Err(SaslError::EncryptionRequired);
        }
        let mechanism = name
            .parse()
            .ok()
            .filter(|one: &Mechanism| self.context.offered().any(|offered| offered == *one));
        Exchange::start(mechanism.ok_or(SaslError::InvalidMechanism)?, initial, &self.context)
    }

    fn waiting(&mut self) -> Result<Exchange, SaslError> {
        self.exchange.take().ok_or(SaslError::MalformedRequest)
    }

    fn keep(&mut self, step: Result<(Exchange, Step), SaslError>) -> Result<Step, Failure> {
        match step {
            Ok((exchange, step)) => {
                self.exchange = Some(exchange);
                Ok(step)
            }
            Err(error) => Err(self.refuse(error)),
        }
    }

    fn refuse(&mut self, error: SaslError) -> Failure {
        self.failures = self.failures.saturating_add(u8::from(error.counts()));
        Failure { error, close: error.counts() && self.failures > self.context.policy.retries }
    }
}

#[cfg(test)]
mod tests;
