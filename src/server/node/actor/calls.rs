//! What the engine and the store were asked, and their answers.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Actor;
use crate::cluster::{Stored, View};
use crate::connection::SharedConnection;
use crate::server::faults::is_panic;
use crate::server::node::Clustered;
use crate::server::{Core, StoreCall};
use crate::store::{StoreError, deposed};

/// What the engine, or the store, was asked, and when.
pub(super) struct Calls<K, T>(Vec<(K, Duration, Call<T>)>);

type Call<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl<K, T> Calls<K, T> {
    pub(super) const fn new() -> Self {
        Self(Vec::new())
    }

    pub(super) fn begin(&mut self, key: K, now: Duration, call: Call<T>) {
        self.0.push((key, now, call));
    }

    /// Those that are answered.
    pub(super) fn ready(&mut self, cx: &mut Context<'_>) -> Vec<(K, T)> {
        let mut done = Vec::new();
        let mut rest = Vec::with_capacity(self.0.len());
        for (key, since, mut call) in self.0.drain(..) {
            match call.as_mut().poll(cx) {
                Poll::Ready(value) => done.push((key, value)),
                Poll::Pending => rest.push((key, since, call)),
            }
        }
        self.0 = rest;
        done
    }

    /// Those that have had no answer for so long: they are waited for no longer.
    pub(super) fn give_up(&mut self, now: Duration, patience: Duration) -> Vec<K> {
        let is_late = |since: Duration| now >= since.saturating_add(patience);
        let late = self.0.extract_if(.., |(_, since, _)| is_late(*since));
        late.map(|(key, _, _)| key).collect()
    }
}

impl<C: SharedConnection> Actor<C> {
    /// Answers of the engine and of the store; whether there were any.
    pub(super) fn hear(
        &mut self,
        core: &Arc<Core<C>>,
        clustered: &Clustered<C>,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut heard = false;
        let now = || core.environment.now();
        for (id, answer) in self.calls.ready(cx) {
            heard = true;
            match answer {
                Ok(answer) => self.node.handle_answer(now(), id, answer),
                Err(error) => {
                    self.node.handle_failure(now(), id);
                    clustered.inbox.figures.lock().engine_failures += 1;
                    if !is_panic(&error) {
                        core.faults.engine_failed(Some(&error));
                    }
                }
            }
        }
        for (instance, term) in self.terms.ready(cx) {
            heard = true;
            match term {
                Ok(term) => self.node.handle_term(now(), &instance, term),
                Err(error) if is_panic(&error) => {}
                Err(error) => {
                    core.faults.shared_store_failed(StoreCall::CountTerm, Some(&error));
                }
            }
        }
        for ((slot, token), said) in self.claims.ready(cx) {
            heard = true;
            match stored(&said) {
                None => {
                    let error = said.as_ref().err().filter(|error| !is_panic(*error));
                    if error.is_some() {
                        core.faults.shared_store_failed(StoreCall::ClaimSlot, error);
                    }
                    self.unheard.push((slot, token));
                }
                stored => self.node.handle_claimed(now(), slot, token, stored),
            }
        }
        heard
    }

    /// What has had no answer for too long is asked again.
    pub(super) fn give_up(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, now: Duration) {
        let (engine, store) = self.node.patience();
        for _call in self.calls.give_up(now, engine) {
            clustered.inbox.figures.lock().engine_failures += 1;
            core.faults.engine_failed(None);
        }
        for _instance in self.terms.give_up(now, store) {
            core.faults.shared_store_failed(StoreCall::CountTerm, None);
        }
        for claim in self.claims.give_up(now, store) {
            core.faults.shared_store_failed(StoreCall::ClaimSlot, None);
            self.unheard.push(claim);
        }
    }
}

/// `None`: it could not hear it.
fn stored(said: &Result<(), StoreError>) -> Option<Stored> {
    match said {
        Ok(()) => Some(Stored::Done),
        Err(error) => deposed(error).map(|deposed| Stored::Refused {
            by: View { term: deposed.by.term, number: deposed.by.number },
        }),
    }
}
