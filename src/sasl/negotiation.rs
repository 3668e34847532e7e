//! Authentication of one stream: exchanges, retries, the last word.

use super::error::SaslError;
use super::establish::Establish;
use super::exchange::{Context, Exchange, Next, Step};
use super::fast::Fast;
use super::mechanism::Mechanism;
use super::tokens::Accepted;
use super::wire::{Profile, Request};
use crate::stanza::delay;
use crate::store::{Credentials, TokenVerdict, Verdict};
use jid::BareJid;

/// A failure: tell the client, and close the stream with `policy-violation` if it was one too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: SaslError,
    /// What the user may read beside it.
    pub(crate) text: Option<String>,
    /// SASL-9: no retry is left.
    pub(crate) close: bool,
}

/// What a stream knows until it is authenticated. Drop it after [`Step::Success`].
///
/// Between [`Step::NeedCredentials`], [`Step::CheckPassword`] or [`Step::CheckKeys`] and the answer to
/// it, pass in no request.
pub(crate) struct Negotiation {
    context: Context,
    attempt: Option<Attempt>,
    failures: u8,
}

/// An attempt to authenticate, in the profile in which it began.
struct Attempt {
    /// `None`: it has succeeded.
    exchange: Option<Exchange>,
    /// In SASL2 what the client asked for with it.
    asked: Option<Box<Establish>>,
}

impl Attempt {
    const fn profile(&self) -> Profile {
        if self.asked.is_some() { Profile::Sasl2 } else { Profile::Sasl1 }
    }
}

impl Negotiation {
    pub(crate) const fn new(context: Context) -> Self {
        Self { context, attempt: None, failures: 0 }
    }

    /// Takes what the client asked for in SASL1, or why that could not be read.
    pub(crate) fn receive(
        &mut self,
        request: Result<Request<'_>, SaslError>,
    ) -> Result<Step, Failure> {
        self.receive_in(Profile::Sasl1, request, None)
    }

    /// The same in SASL2; `asked`: what came with `<authenticate/>`.
    pub(crate) fn receive_2(
        &mut self,
        request: Result<Request<'_>, SaslError>,
        asked: Option<Box<Establish>>,
    ) -> Result<Step, Failure> {
        self.receive_in(Profile::Sasl2, request, asked)
    }

    fn receive_in(
        &mut self,
        profile: Profile,
        request: Result<Request<'_>, SaslError>,
        asked: Option<Box<Establish>>,
    ) -> Result<Step, Failure> {
        // Whatever comes, it takes the attempt: a further `<auth/>` discards it (SASL-3), a
        // failure ends it.
        let attempt = self.attempt.take().filter(|attempt| attempt.profile() == profile);
        let (exchange, before) =
            attempt.map_or((None, None), |attempt| (attempt.exchange, attempt.asked));
        if let (Some(Exchange::Told(error)), Ok(Request::Auth { .. })) = (&exchange, &request) {
            // It has failed, whether or not the client waits to hear so (SASL-9).
            let failed = self.refuse(*error);
            if failed.close {
                return Err(failed);
            }
        }
        let (asked, next) = match (request, exchange) {
            (Ok(Request::Auth { mechanism, initial }), _) => {
                let next = self.start(mechanism, initial.as_deref(), asked.as_deref());
                (asked, next)
            }
            (Ok(Request::Response(data)), Some(exchange)) => {
                (before, exchange.respond(&data, &self.context))
            }
            (Ok(Request::Next(task)), Some(exchange)) => {
                (before, exchange.start_task(&task, &self.context))
            }
            (Ok(Request::TaskData(data)), Some(exchange)) => {
                (before, exchange.task_data(&data, &self.context))
            }
            // SASL-4
            (Ok(Request::Response(_) | Request::Next(_) | Request::TaskData(_)), None) => {
                (None, Err(SaslError::MalformedRequest))
            }
            (Ok(Request::Abort), _) => (None, Err(SaslError::Aborted)),
            (Err(error), _) => (None, Err(error)),
        };
        self.keep(next, asked)
    }

    /// Whether an exchange of SASL2 is under way, during which nothing else may come (SASL2-5).
    pub(crate) fn is_exclusive(&self) -> bool {
        self.attempt.as_ref().is_some_and(|attempt| attempt.profile() == Profile::Sasl2)
    }

    /// Whether the client has proved who it is, and does tasks.
    pub(crate) fn is_continued(&self) -> bool {
        let exchange = self.attempt.as_ref().and_then(|attempt| attempt.exchange.as_ref());
        exchange.is_some_and(|exchange| matches!(exchange, Exchange::Upgrade(_)))
    }

    /// Takes what the client asked for with the attempt that has succeeded; `None` in SASL1.
    pub(crate) fn take_asked(&mut self) -> Option<Box<Establish>> {
        self.attempt.take()?.asked
    }

    /// What came with the attempt under way; `None` in SASL1.
    pub(crate) fn asked(&self) -> Option<&Establish> {
        self.attempt.as_ref()?.asked.as_deref()
    }

    fn asked_mut(&mut self) -> Option<&mut Establish> {
        self.attempt.as_mut()?.asked.as_deref_mut()
    }

    /// The mechanisms that a token may be of on this stream (FAST-1).
    pub(crate) fn for_tokens(&self) -> impl Iterator<Item = Mechanism> + '_ {
        self.context.for_tokens()
    }

    /// What the store found for [`Step::NeedCredentials`].
    pub(crate) fn credentials(&mut self, found: Option<Credentials>) -> Result<Step, Failure> {
        let step = self.go_on(|exchange, context| exchange.credentials(found.as_ref(), context));
        if let Some(asked) = self.asked_mut() {
            asked.evidence.credentials = found;
        }
        step
    }

    /// What was found of the token for [`Step::CheckFast`], or why it is not good.
    pub(crate) fn fast(&mut self, found: Result<Accepted, SaslError>) -> Result<Step, Failure> {
        let used = found.as_ref().ok().map(|accepted| accepted.used.clone());
        let step = self.go_on(|exchange, _| exchange.fast(found));
        if let Some(asked) = self.asked_mut() {
            asked.evidence.token = used;
        }
        step
    }

    /// The result of [`Step::CheckKeys`].
    pub(crate) fn hashed(&mut self, right: bool) -> Result<Step, Failure> {
        self.go_on(|exchange, _| exchange.hashed(right))
    }

    /// Whether the store did [`Step::AddKeys`].
    pub(crate) fn added(&mut self, is_added: bool) -> Result<Step, Failure> {
        self.go_on(|exchange, _| exchange.added(is_added))
    }

    /// What the host found for [`Step::CheckPassword`].
    pub(crate) fn verdict(&mut self, verdict: Verdict) -> Result<Step, Failure> {
        let step =
            self.go_on(|exchange, context| exchange.verdict(verdict, context.environment.utc()));
        let text = match verdict {
            Verdict::LockedUntil(at) => Some(format!("Locked until {}", delay::stamp(at))),
            Verdict::MustChange => Some("The password has to be changed".to_owned()),
            _ => None,
        };
        step.map_err(|refused| Failure { text, ..refused })
    }

    /// What the host found for [`Step::CheckToken`], and what it says for [`Step::NeedDiscovery`].
    pub(crate) fn token(&mut self, verdict: TokenVerdict) -> Result<Step, Failure> {
        self.go_on(|exchange, context| {
            exchange.token(verdict, &context.domain, context.environment.utc())
        })
    }

    /// The account for [`Step::NeedGuest`]; `None` where there is no room for a guest.
    pub(crate) fn guest(&mut self, account: Option<BareJid>) -> Result<Step, Failure> {
        self.go_on(|exchange, _| exchange.guest(account))
    }

    /// The host could not answer: no fault of the client's, so no attempt is counted (SASL-7).
    pub(crate) fn store_failed(&mut self) -> Failure {
        self.attempt = None;
        self.refuse(SaslError::TemporaryAuthFailure)
    }

    /// The client has proved to be somebody else than its stream says (SASL2-4).
    pub(crate) fn wrong_identity(&mut self) -> Failure {
        self.attempt = None;
        self.refuse(SaslError::InvalidAuthzid)
    }

    fn start(&self, name: &str, initial: Option<&[u8]>, asked: Option<&Establish>) -> Next {
        if !self.context.secure && self.context.policy.secure_only {
            return Err(SaslError::EncryptionRequired);
        }
        // FAST-1
        let is_fast = asked.and_then(Fast::of).is_some();
        let mut offered = self.context.offered().chain(self.for_tokens().filter(|_| is_fast));
        let mechanism = offered.find(|mechanism| mechanism.as_str() == name);
        let mechanism = mechanism.ok_or(SaslError::InvalidMechanism)?;
        let first = Exchange::First(mechanism);
        match initial {
            Some(data) => first.respond(data, &self.context),
            // GUEST-1: a guest need not say anything.
            None if mechanism == Mechanism::Anonymous => first.respond(&[], &self.context),
            // RFC 4422 §3.2
            None => Ok((Some(first), Step::Challenge(Vec::new()))),
        }
    }

    fn go_on(&mut self, step: impl FnOnce(Exchange, &Context) -> Next) -> Result<Step, Failure> {
        let attempt = self.attempt.take();
        let (exchange, asked) =
            attempt.map_or((None, None), |attempt| (attempt.exchange, attempt.asked));
        let exchange = exchange.ok_or(SaslError::MalformedRequest);
        let next = exchange.and_then(|exchange| step(exchange, &self.context));
        self.keep(next, asked)
    }

    fn keep(&mut self, next: Next, asked: Option<Box<Establish>>) -> Result<Step, Failure> {
        let tasks = asked.as_deref().map(|asked| &*asked.upgrades).unwrap_or_default();
        let next = match next {
            Ok((Some(exchange), step)) => exchange.with_tasks(step, tasks, &self.context),
            next => next,
        };
        let (exchange, step) = next.map_err(|error| self.refuse(error))?;
        self.attempt = Some(Attempt { exchange, asked });
        Ok(step)
    }

    fn refuse(&mut self, error: SaslError) -> Failure {
        self.failures = self.failures.saturating_add(u8::from(error.counts()));
        Failure {
            error,
            text: None,
            close: error.counts() && self.failures > self.context.policy.retries,
        }
    }
}

#[cfg(test)]
mod tests;
