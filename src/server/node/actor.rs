//! The place where all that a node is happens.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::letter::Letter;
use super::placement::fence;
use super::submit::Submission;
use super::{Clustered, Command};
use crate::cluster::{
    Answer, Ask, AskId, Change, Effect, EngineFuture, Node, Slot, Stored, View, Work,
};
use crate::connection::SharedConnection;
use crate::server::deliver::answer::try_again;
use crate::server::{Core, Task};
use crate::store::{StoreError, StoreFuture, deposed};

pub(super) struct Actor<C: SharedConnection> {
    node: Node,
    calls: Vec<(AskId, EngineFuture<Answer>)>,
    claims: Vec<(Slot, View, StoreFuture<()>)>,
    terms: Vec<(Arc<str>, StoreFuture<u64>)>,
    is_over: bool,
    of: std::marker::PhantomData<fn() -> C>,
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
    pub(super) const fn new(node: Node) -> Self {
        Self {
            node,
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
                self.command(core, command);
                self.carry_out(core, clustered);
            }
            is_idle &= !self.hear(core, cx);
            is_idle &= !self.carry_out(core, clustered);
            if self.is_over {
                return Poll::Ready(());
            }
            if is_idle {
                break;
            }
        }
        self.publish(clustered);
        Poll::Pending
    }

    fn command(&mut self, core: &Arc<Core<C>>, command: Command<C>) {
        let now = core.environment.now();
        match command {
            Command::Post(post) => self.node.handle_post(now, &post),
            Command::Hint => self.node.handle_hint(now),
            Command::Timeout => self.node.handle_timeout(now),
            Command::Leave => self.node.leave(),
            Command::Finished(work) => self.node.finish(now, work),
            Command::Submit(Submission { source, to, bytes, outgoing }) => {
                let submitted = self.node.submit(now, source, to, bytes);
                // NODE-7
                if !submitted.bounced.is_empty()
                    && let Some(outgoing) = outgoing
                {
                    core.not_routed(outgoing, try_again());
                }
            }
        }
    }

    /// Answers of the engine and of the store; whether there were any.
    fn hear(&mut self, core: &Arc<Core<C>>, cx: &mut Context<'_>) -> bool {
        let mut heard = false;
        let now = || core.environment.now();
        for (id, answer) in ready(&mut self.calls, cx) {
            heard = true;
            if let Ok(answer) = answer {
                self.node.handle_answer(now(), id, answer);
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
                    self.node.handle_claimed(now(), slot, token, stored(said));
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
            Effect::Post(to, post) => clustered.posts.post(to, post),
            Effect::Fenced => {
                clustered.placement.fence();
                core.fenced();
                self.is_over = true;
            }
            Effect::Left => self.is_over = true,
        }
    }

    /// What has become of a slot here.
    fn slot(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, slot: Slot, change: Change) {
        let placement = &clustered.placement;
        let token = self.node.token(slot);
        placement.set_token(slot, token);
        match change {
            // Its effect is another one.
            Change::Claim { .. } => {}
            Change::Opened => placement.set_served(slot, true),
            Change::Arrived(export) => {
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
        _account: &str,
        bytes: &[u8],
        work: Work,
    ) {
        if !self.node.does(work.job) {
            return;
        }
        let task = match Letter::decode(bytes) {
            Some(Letter::Stanza(stanza)) => core.from_another_node(&stanza),
            None => None,
        };
        match task {
            None => self.node.finish(core.environment.now(), work),
            Some(task) => {
                let inbox = Arc::clone(&clustered.inbox);
                core.jobs.spawn(async move {
                    task.await;
                    inbox.put(Command::Finished(work));
                });
            }
        }
    }

    fn publish(&self, clustered: &Clustered<C>) {
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

    /// NODE-2: all sessions end, and nobody but their clients hears of it.
    fn fenced(&self) {
        self.registry.forget(&|_| true, Some(crate::connection::Close::Abort));
    }

    fn export_slot(&self, _slot: Slot) -> Arc<[u8]> {
        Arc::default()
    }

    fn import_slot(&self, _slot: Slot, _content: &[u8]) {}

    fn freeze_slot(&self, slot: Slot) {
        self.registry.freeze(&|account| Slot::of(account) == slot);
    }

    fn thaw_slot(&self, slot: Slot) {
        self.registry.thaw(&|account| Slot::of(account) == slot, std::time::Duration::ZERO);
    }

    fn give_up_slot(&self, slot: Slot, _lost: bool) {
        self.registry.forget(&|account| Slot::of(account) == slot, None);
    }
}
