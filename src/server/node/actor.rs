//! The place where all that a node is happens.

use std::collections::BTreeSet;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use jid::BareJid;

use super::act::Said;
use super::letter::{Letter, Tale};
use super::placement::fence;
use super::submit::{Submission, Undelivered};
use super::{Clustered, Command, Inbox};
use crate::cluster::{
    Answer, Ask, AskId, Change, Effect, EngineFuture, Incarnation, Node, Slot, Stored, View, Work,
};
use crate::connection::SharedConnection;
use crate::server::deliver::answer::try_again;
use crate::server::{Core, FaultKind, PeerAddress, Task};
use crate::store::{StoreError, StoreFuture, deposed};

pub(super) struct Actor<C: SharedConnection> {
    node: Node,
    calls: Vec<(AskId, EngineFuture<Answer>)>,
    claims: Vec<(Slot, View, StoreFuture<()>)>,
    terms: Vec<(Arc<str>, StoreFuture<u64>)>,
    is_over: bool,
    /// The end of its lease is told.
    released: Option<EngineFuture<()>>,
    /// Claims that the store could not hear.
    again: Vec<(Slot, View)>,
    /// For these so much waits that others are to pause.
    pressed: BTreeSet<Slot>,
    me: Incarnation,
    /// Of which all members have been told what is here.
    view: View,
    members: BTreeSet<Incarnation>,
    of: std::marker::PhantomData<fn() -> C>,
}

/// Says that a job is done, also where it has panicked.
struct Done<C: SharedConnection>(Arc<Inbox<C>>, Work);

impl<C: SharedConnection> Drop for Done<C> {
    fn drop(&mut self) {
        self.0.put(Command::Finished(self.1));
    }
}

/// Those that are ready, out of `all`.
fn ready<K, T>(
    all: &mut Vec<(K, Pin<Box<dyn Future<Output = T> + Send>>)>,
    cx: &mut Context<'_>,
) -> Vec<(K, T)> {
    let mut done = Vec::new();
    let mut rest = Vec::with_capacity(all.len());
    for (key, mut future) in all.drain(..) {
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => done.push((key, value)),
            Poll::Pending => rest.push((key, future)),
        }
    }
    *all = rest;
    done
}

impl<C: SharedConnection> Actor<C> {
    pub(super) const fn new(me: Incarnation, node: Node) -> Self {
        Self {
            node,
            released: None,
            again: Vec::new(),
            pressed: BTreeSet::new(),
            me,
            view: View { term: 0, number: 0 },
            members: BTreeSet::new(),
            calls: Vec::new(),
            claims: Vec::new(),
            terms: Vec::new(),
            is_over: false,
            of: std::marker::PhantomData,
        }
    }

    /// Listens to others.
    pub(super) fn begin(&mut self, _core: &Arc<Core<C>>, clustered: &Clustered<C>) {
        let inbox = Arc::downgrade(&clustered.inbox);
        let post = move |post: Arc<[u8]>| {
            if let Some(inbox) = inbox.upgrade() {
                inbox.put(Command::Post(post));
            }
        };
        clustered.posts.listen(clustered.me, Arc::new(post));
        let inbox = Arc::downgrade(&clustered.inbox);
        clustered.engine.watch(Arc::new(move || {
            if let Some(inbox) = inbox.upgrade() {
                inbox.put(Command::Hint);
            }
        }));
        clustered.inbox.put(Command::Timeout);
    }

    /// Does all that there is to do; ready once it is over.
    pub(super) fn poll(
        &mut self,
        core: &Arc<Core<C>>,
        clustered: &Clustered<C>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        loop {
            let commands = clustered.inbox.take(cx);
            let mut is_idle = commands.is_empty();
            for command in commands {
                self.command(core, clustered, command);
                self.carry_out(core, clustered);
            }
            is_idle &= !self.hear(core, clustered, cx);
            self.greet(core, clustered);
            is_idle &= !self.carry_out(core, clustered);
            if self.is_over {
                return match &mut self.released {
                    Some(released) => released.as_mut().poll(cx).map(|_done| ()),
                    None => Poll::Ready(()),
                };
            }
            if is_idle {
                break;
            }
        }
        self.publish(core, clustered);
        Poll::Pending
    }

    fn command(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, command: Command<C>) {
        let now = core.environment.now();
        match command {
            Command::Post(post) => self.node.handle_post(now, &post),
            Command::Hint => self.node.handle_hint(now),
            Command::Timeout => {
                self.node.handle_timeout(now);
                for (slot, token) in std::mem::take(&mut self.again) {
                    self.node.handle_claimed(now, slot, token, None);
                }
            }
            Command::Leave(stays) => {
                self.node.leave(stays);
                self.node.handle_timeout(now);
            }
            Command::Tell { source, to, bytes } => self.node.tell(now, source, to, bytes),
            Command::TellAll(bytes) => self.tell_all(now, &bytes),
            Command::Finished(work) => self.node.finish(now, work),
            Command::Submit(Submission { source, to, bytes, undelivered }) => {
                let submitted = self.node.submit(now, source, to.clone(), bytes);
                // NODE-7
                if submitted.is_pressed {
                    self.pressed.extend(to.iter().map(|one| one.slot));
                }
                if !submitted.bounced.is_empty() {
                    match undelivered {
                        Undelivered::Nothing => {}
                        Undelivered::Stanza(outgoing) => core.not_routed(outgoing, try_again()),
                        Undelivered::Act(number) => {
                            let error = StoreError::failed("too much waits for the account's home");
                            clustered.acts.said(number, Said::Failed(error.into()));
                        }
                    }
                }
            }
        }
    }

    fn tell_all(&mut self, now: Duration, bytes: &Arc<[u8]>) {
        let others = self.node.members().map(|(node, _)| node).filter(|node| *node != self.me);
        for node in others.collect::<Vec<_>>() {
            self.node.tell(now, None, node, Arc::clone(bytes));
        }
    }

    /// Who has come is told what is here; what was at those that have gone is forgotten.
    fn greet(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) {
        if self.view == self.node.record().view {
            return;
        }
        self.view = self.node.record().view;
        let members: BTreeSet<_> = self.node.members().map(|(node, _)| node).collect();
        let domains: Vec<_> = core.components.domains().map(str::to_owned).collect();
        if !domains.is_empty() && members.contains(&self.me) {
            let bytes = Tale::Domains(domains).encode();
            let now = core.environment.now();
            for node in members.difference(&self.members).filter(|node| **node != self.me) {
                self.node.tell(now, None, *node, Arc::clone(&bytes));
            }
        }
        clustered.inbox.domains.write().retain(|node, _| members.contains(node));
        if members.contains(&self.me) {
            self.members = members;
        }
    }

    /// Answers of the engine and of the store; whether there were any.
    fn hear(
        &mut self,
        core: &Arc<Core<C>>,
        clustered: &Clustered<C>,
        cx: &mut Context<'_>,
    ) -> bool {
        let mut heard = false;
        let now = || core.environment.now();
        for (id, answer) in ready(&mut self.calls, cx) {
            heard = true;
            match answer {
                Ok(answer) => self.node.handle_answer(now(), id, answer),
                Err(error) => {
                    clustered.inbox.figures.lock().engine_failures += 1;
                    let error = error.0.to_string();
                    core.faults.tell(FaultKind::Engine { error }, &PeerAddress::UNKNOWN, None);
                }
            }
        }
        for (instance, term) in ready(&mut self.terms, cx) {
            heard = true;
            if let Ok(term) = term {
                self.node.handle_term(now(), &instance, term);
            }
        }
        let mut claims = Vec::new();
        for (slot, token, mut claim) in self.claims.drain(..) {
            match claim.as_mut().poll(cx) {
                Poll::Pending => claims.push((slot, token, claim)),
                Poll::Ready(said) => {
                    heard = true;
                    match stored(said) {
                        None => self.again.push((slot, token)),
                        stored => self.node.handle_claimed(now(), slot, token, stored),
                    }
                }
            }
        }
        self.claims = claims;
        heard
    }

    /// All that the node wants; whether that was anything.
    fn carry_out(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) -> bool {
        let mut any = false;
        while let Some(effect) = self.node.poll() {
            any = true;
            self.effect(core, clustered, effect);
        }
        any
    }

    fn effect(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, effect: Effect) {
        match effect {
            Effect::Ask(id, ask) => {
                let call = match ask {
                    Ask::Renew { lease, first } => clustered.engine.renew(lease, first),
                    Ask::Replace { over, record } => clustered.engine.replace(over, record),
                    Ask::Read => clustered.engine.read(),
                };
                self.calls.push((id, call));
            }
            Effect::CountTerm(instance) => {
                self.terms.push((instance, clustered.store.next_term()));
            }
            Effect::Claim { slot, token } => {
                let claim = clustered.store.claim(fence(slot, token));
                self.claims.push((slot, token, claim));
            }
            Effect::Slot(slot, change) => self.slot(core, clustered, slot, change),
            Effect::Export(slot) => {
                let now = core.environment.now();
                self.node.export(now, slot, core.export_slot(slot));
            }
            Effect::Handle { account, bytes, work } => {
                self.handle(core, clustered, &account, &bytes, work);
            }
            Effect::Told { from, bytes } => self.told(core, clustered, from, &bytes),
            Effect::Post(to, post) => clustered.posts.post(to, post),
            Effect::Fenced => {
                core.fence(false);
                self.is_over = true;
            }
            Effect::Left => {
                core.fence(true);
                self.released = Some(clustered.engine.release(clustered.me));
                self.is_over = true;
            }
        }
    }

    /// What has become of a slot here.
    fn slot(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, slot: Slot, change: Change) {
        let placement = &clustered.placement;
        let token = self.node.token(slot);
        placement.set_token(slot, token);
        match change {
            // Its effect is another one.
            Change::Claim { token } => {
                if token.number > 0 {
                    clustered.inbox.figures.lock().lost += 1;
                }
            }
            Change::Opened => placement.set_served(slot, true),
            Change::Arrived(export) => {
                clustered.inbox.figures.lock().moved += 1;
                core.import_slot(slot, &export.content);
                placement.set_served(slot, true);
            }
            Change::Frozen => {
                placement.set_served(slot, false);
                core.freeze_slot(slot);
            }
            Change::Thawed => {
                core.thaw_slot(slot);
                placement.set_served(slot, true);
            }
            Change::GivenUp { lost } => {
                if !lost {
                    clustered.inbox.figures.lock().moved += 1;
                }
                placement.set_served(slot, false);
                core.give_up_slot(slot, lost);
            }
        }
    }

    /// Something for an account that lives here.
    fn handle(
        &mut self,
        core: &Arc<Core<C>>,
        clustered: &Clustered<C>,
        account: &str,
        bytes: &[u8],
        work: Work,
    ) {
        if !self.node.does(work.job) {
            return;
        }
        let task: Option<Task> = match Letter::decode(bytes) {
            Some(Letter::Stanza(stanza)) => core.from_another_node(&stanza),
            Some(Letter::OfHost(stanza)) => core.route_by_host(&stanza),
            Some(Letter::Act { from, number, act }) => BareJid::new(account).ok().map(|account| {
                let (core, inbox) = (Arc::clone(core), Arc::clone(&clustered.inbox));
                let task: Task = Box::pin(async move {
                    let said = core.perform(account, act).await;
                    let bytes = Tale::Said { number, said }.encode();
                    // In front of what says that it is done.
                    inbox.put(Command::Tell { source: None, to: from, bytes });
                });
                task
            }),
            None => None,
        };
        match task {
            None => self.node.finish(core.environment.now(), work),
            Some(task) => {
                let done = Done(Arc::clone(&clustered.inbox), work);
                core.jobs.spawn(async move {
                    let _done = done;
                    task.await;
                });
            }
        }
    }

    /// Something for this node.
    fn told(
        &mut self,
        core: &Arc<Core<C>>,
        clustered: &Clustered<C>,
        from: Incarnation,
        bytes: &[u8],
    ) {
        match Tale::decode(bytes) {
            Some(Tale::Said { number, said }) => clustered.acts.said(number, said),
            Some(Tale::Domains(domains)) => {
                clustered.inbox.domains.write().insert(from, domains);
            }
            Some(Tale::ForComponent(stanza)) => core.to_component_here(stanza),
            Some(Tale::Answer(stanza)) => core.take_answer(&stanza),
            Some(Tale::Barred { account, error, time }) => core.barred(&account, error, time),
            None => {}
        }
    }

    fn publish(&mut self, core: &Core<C>, clustered: &Clustered<C>) {
        let placement = &clustered.placement;
        self.pressed.retain(|slot| {
            let is_pressed = self.node.is_pressed(*slot);
            placement.set_pressed(*slot, is_pressed);
            is_pressed
        });
        clustered.inbox.figures.lock().read(&self.node, core.environment.now());
        clustered.placement.set_deadline(self.node.acts_until());
        clustered.inbox.state.lock().next_timeout = Some(self.node.next_timeout());
    }
}

fn stored(said: Result<(), StoreError>) -> Option<Stored> {
    match said {
        Ok(()) => Some(Stored::Done),
        Err(error) => deposed(&error).map(|deposed| Stored::Refused {
            by: View { term: deposed.by.term, number: deposed.by.number },
        }),
    }
}

impl<C: SharedConnection> Core<C> {
    /// A stanza of another home of ours: it is what that has made of it, and goes to whom it is for.
    fn from_another_node(self: &Arc<Self>, stanza: &crate::stanza::Stanza) -> Option<Task> {
        let text = stanza.to()?;
        let to = self.address(&text).ok()?;
        self.route_to(None, stanza, &to)
    }

    fn export_slot(&self, _slot: Slot) -> Arc<[u8]> {
        Arc::default()
    }

    fn import_slot(&self, _slot: Slot, _content: &[u8]) {}

    fn freeze_slot(&self, slot: Slot) {
        self.registry.freeze(&|account| Slot::of(account) == slot);
    }

    fn thaw_slot(&self, slot: Slot) {
        self.registry.thaw(&|account| Slot::of(account) == slot, Duration::ZERO);
    }

    fn give_up_slot(&self, slot: Slot, _lost: bool) {
        self.registry.forget(&|account| Slot::of(account) == slot, None);
    }
}
