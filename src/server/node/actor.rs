//! The place where all that a node is happens.

mod calls;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use jid::BareJid;

use calls::Calls;

use super::act::Said;
use super::letter::{Letter, Tale};
use super::placement::fence;
use super::presence::{Presences, subscription};
use super::submit::{Submission, Undelivered};
use super::{Clustered, Command, Inbox};
use crate::address;
use crate::cluster::{
    Answer, Ask, AskId, Change, Effect, EngineError, Incarnation, Node, Slot, View, Work,
};
use crate::connection::SharedConnection;
use crate::outbox::Marks;
use crate::server::breaks::broken;
use crate::server::deliver::answer::try_again;
use crate::server::legs::{Homes, SaidDown, SaidUp, is_line};
use crate::server::{Core, FaultKind, PeerAddress, Task};
use crate::session::{Accounts, HostCode, Item};
use crate::stanza::{Condition, Stanza};
use crate::store::StoreError;
use crate::xep::acknowledgement;

pub(super) struct Actor<C: SharedConnection> {
    node: Node,
    calls: Calls<AskId, Result<Answer, EngineError>>,
    claims: Calls<(Slot, View), Result<(), StoreError>>,
    terms: Calls<Arc<str>, Result<u64, StoreError>>,
    presence: Presences,
    is_over: bool,
    /// The end of its lease is told.
    released: Option<Task>,
    /// Claims that the store could not hear.
    unheard: Vec<(Slot, View)>,
    /// For these so much waits that others are to pause.
    pressed: BTreeSet<Slot>,
    me: Incarnation,
    /// Of which all members have been told what is here.
    view: View,
    members: BTreeSet<Incarnation>,
    /// The clients whose accounts live here, once it runs.
    homes: Option<Homes<C>>,
    /// Since when they stand still.
    frozen: BTreeMap<Slot, Duration>,
    /// What has come for slots that are not open yet.
    early: BTreeMap<Slot, Vec<Effect>>,
    /// Those that are to be handed over, as soon as nothing of them is under way.
    exports: BTreeSet<Slot>,
    again: Option<Task>,
    /// What is left of a turn that was long, and when this one is.
    commands: VecDeque<Command<C>>,
    turn_ends: Duration,
}

/// Says that a job is done, also where it has panicked.
struct Done<C: SharedConnection> {
    inbox: Arc<Inbox<C>>,
    work: Work,
    /// Whose turn it was.
    account: Option<Arc<str>>,
}

impl<C: SharedConnection> Drop for Done<C> {
    fn drop(&mut self) {
        self.inbox.put(Command::Finished(self.work));
        if let Some(account) = self.account.take() {
            self.inbox.put(Command::Through(account));
        }
    }
}

impl<C: SharedConnection> Actor<C> {
    pub(super) fn new(me: Incarnation, node: Node) -> Self {
        Self {
            node,
            released: None,
            unheard: Vec::new(),
            pressed: BTreeSet::new(),
            me,
            view: View { term: 0, number: 0 },
            members: BTreeSet::new(),
            calls: Calls::new(),
            claims: Calls::new(),
            terms: Calls::new(),
            presence: Presences::new(),
            is_over: false,
            homes: None,
            frozen: BTreeMap::new(),
            early: BTreeMap::new(),
            exports: BTreeSet::new(),
            again: None,
            commands: VecDeque::new(),
            turn_ends: Duration::ZERO,
        }
    }

    /// Listens to others.
    pub(super) fn begin(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) {
        if let Some(flaw) = self.node.settings().flaw() {
            misfit(core, flaw.to_owned());
            core.fence(false);
            return self.end(clustered);
        }
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
        let inbox = Arc::downgrade(&clustered.inbox);
        let wake = move || inbox.upgrade().into_iter().for_each(|inbox| inbox.wake());
        let (connect, marks) = (clustered.connect, Marks::default());
        let reader = Arc::clone(core);
        self.node.reads_by(move |content| {
            let reads = Presences::reads(content, |rest| reader.reads(rest, is_line));
            if !reads {
                reader.faults.tell(FaultKind::Arrival, &PeerAddress::UNKNOWN, None);
            }
            reads
        });
        self.homes = Some(Homes::new(Arc::clone(core), connect, marks, wake));
        clustered.inbox.put(Command::Timeout);
    }

    /// Does all that there is to do; ready once it is over.
    pub(super) fn poll(
        &mut self,
        core: &Arc<Core<C>>,
        clustered: &Clustered<C>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let now = core.environment.now();
        self.turn_ends = now.saturating_add(TURN);
        // What the last turn has left is void where it is too late by now.
        let _may_act = self.node.may_act(now);
        for turn in 1.. {
            let mut is_idle = !self.carry_out(core, clustered);
            self.commands.extend(clustered.inbox.take());
            while !self.is_long(core)
                && let Some(command) = self.commands.pop_front()
            {
                is_idle = false;
                self.command(core, clustered, command);
                self.carry_out(core, clustered);
            }
            if self.is_long(core) {
                self.rest(core, cx);
                break;
            }
            is_idle &= !self.hear(core, clustered, cx);
            self.greet(core, clustered);
            is_idle &= !self.carry_out(core, clustered);
            self.node.open(core.environment.now(), |slot| !clustered.inbox.has_for(slot));
            is_idle &= !self.carry_out(core, clustered);
            if self.is_long(core) {
                // Whoever is here says nothing past what is to be done.
                self.rest(core, cx);
                break;
            }
            is_idle &= !self.legs(core, clustered);
            is_idle &= !acknowledge(clustered);
            is_idle &= !self.hand_over(core, clustered);
            is_idle &= !self.looks_again(core, cx);
            if is_idle || turn % TURNS == 0 {
                self.node.settle(core.environment.now());
                is_idle &= !self.carry_out(core, clustered);
            }
            if self.is_over {
                return match &mut self.released {
                    Some(released) => released.as_mut().poll(cx),
                    None => Poll::Ready(()),
                };
            }
            if is_idle && clustered.inbox.rests(cx) {
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
                self.give_up(core, clustered, now);
                self.node.handle_timeout(now);
                for (slot, token) in std::mem::take(&mut self.unheard) {
                    self.node.handle_claimed(now, slot, token, None);
                }
            }
            Command::Leave(stays) => {
                self.node.leave(stays);
                self.node.handle_timeout(now);
            }
            Command::Tell { source, to, bytes } => self.node.tell(now, source, to, bytes),
            Command::TellAll(bytes) => self.tell_all(now, &bytes),
            Command::AskAll(answers) => {
                let asked = self.others().into_iter().map(|node| {
                    let (number, answer) = clustered.acts.begin();
                    self.node.tell(now, None, node, Tale::WhoIsOnline { number }.encode());
                    (number, answer)
                });
                answers.send(asked.collect());
            }
            Command::Finished(work) => self.node.finish(now, work),
            Command::Gone(account) => self.presence.gone(core, &account),
            Command::Through(account) => {
                for effect in self.presence.through(&account) {
                    self.effect(core, clustered, effect);
                }
            }
            Command::Submit(Submission { source, to, word, bytes, undelivered, receipt }) => {
                let submitted = match word {
                    Some(word) => self.node.submit_presence(now, source, to.clone(), word, bytes),
                    None => self.node.submit(now, source, to.clone(), bytes, receipt),
                };
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
        for node in self.others() {
            self.node.tell(now, None, node, Arc::clone(bytes));
        }
    }

    fn others(&self) -> Vec<Incarnation> {
        let others = self.node.members().map(|(node, _)| node).filter(|node| *node != self.me);
        others.collect()
    }

    /// Who has come is told what is here; what was at those that have gone is forgotten.
    fn greet(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) {
        if self.view == self.node.record().view {
            return;
        }
        self.view = self.node.record().view;
        let members: BTreeSet<_> = self.node.members().map(|(node, _)| node).collect();
        let domains: Vec<_> = core.components.domains().map(str::to_owned).collect();
        let voided: Vec<_> = clustered.voided.lock().iter().cloned().collect();
        let domains = (!domains.is_empty()).then(|| Tale::Domains(domains).encode());
        let voided = (!voided.is_empty()).then(|| Tale::Voided(voided).encode());
        if members.contains(&self.me) {
            let now = core.environment.now();
            for node in members.difference(&self.members).filter(|node| **node != self.me) {
                for bytes in [&domains, &voided].into_iter().flatten() {
                    self.node.tell(now, None, *node, Arc::clone(bytes));
                }
            }
        }
        clustered.inbox.domains.write().retain(|node, _| members.contains(node));
        if members.contains(&self.me) {
            self.members = members;
        }
    }

    /// All that the node wants; whether that was anything.
    fn carry_out(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) -> bool {
        let mut any = false;
        while !self.is_long(core)
            && let Some(effect) = self.node.poll()
        {
            any = true;
            self.effect(core, clustered, effect);
        }
        any
    }

    /// The others of this thread have waited long enough.
    fn rest(&mut self, core: &Core<C>, cx: &Context<'_>) {
        self.node.settle(core.environment.now());
        cx.waker().wake_by_ref();
    }

    /// Whether they have.
    fn is_long(&self, core: &Core<C>) -> bool {
        core.environment.now() >= self.turn_ends
    }

    fn effect(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, effect: Effect) {
        match effect {
            Effect::Ask(id, ask) => {
                let call = match ask {
                    Ask::Renew { lease, first } => clustered.engine.renew(lease, first),
                    Ask::Replace { over, record } => clustered.engine.replace(over, record),
                    Ask::Read => clustered.engine.read(),
                };
                self.calls.begin(id, core.environment.now(), call);
            }
            Effect::CountTerm(instance) => {
                let call = clustered.store.next_term();
                self.terms.begin(instance, core.environment.now(), call);
            }
            Effect::Claim { slot, token } => {
                let claim = clustered.store.claim(fence(slot, token));
                self.claims.begin((slot, token), core.environment.now(), claim);
            }
            Effect::Slot(slot, change) => self.slot(core, clustered, slot, change),
            Effect::Freezing(slots) => self.presence.part_directed(core, &slots),
            Effect::Export(slot) => _ = self.exports.insert(slot),
            Effect::Handle { .. } | Effect::Hear { .. } => {
                let Some(effect) = self.presence.wait(effect) else { return };
                self.handle(core, clustered, effect);
            }
            Effect::Up { slot, leg, number, said, work } if self.node.does(work.job) => {
                let is_there = self.node.record().has(leg.edge);
                if let Some(homes) = self.homes.as_mut().filter(|_| is_there) {
                    homes.handle_up(slot, leg, number, said);
                }
                self.node.finish(core.environment.now(), work);
            }
            Effect::Up { work, .. } => self.put_by(work, effect),
            Effect::Down { leg, number, said } => clustered.edges.handle_down(leg, number, said),
            Effect::Broken(_) | Effect::Emptied(_) if broken!(LegsOutliveHome) => {}
            Effect::Broken(leg) => clustered.edges.broken(leg),
            Effect::Emptied(slot) => clustered.edges.lost(slot),
            Effect::Lost { slots, only } => self.presence.lose(core, &slots, only),
            Effect::Gone(_) if broken!(LegsOutliveEdge) => {}
            Effect::Gone(node) => {
                self.homes.iter_mut().for_each(|homes| homes.edge_lost(node));
            }
            Effect::Told { from, bytes } => self.told(core, clustered, from, &bytes),
            Effect::Post(to, post) => clustered.posts.post(to, post),
            Effect::Misfit(other) => {
                let (name, settings) = (&other.name, self.node.settings());
                let what = if settings.is_elsewhere(&other) {
                    let (their, ours) = (&other.store, &settings.store);
                    format!("node {name} keeps accounts in {their}, this one in {ours}")
                } else {
                    let (their, ours) = (other.ttl, settings.ttl);
                    format!(
                        "the leases of node {name} live for {their:?}, those of this one for {ours:?}"
                    )
                };
                misfit(core, format!("{what}: all nodes of a cluster need the same"));
                self.release(core, clustered);
            }
            Effect::Fenced => {
                core.fence(false);
                self.end(clustered);
            }
            Effect::Left => {
                core.fence(true);
                self.release(core, clustered);
                self.end(clustered);
            }
        }
    }

    /// Ends the lease, which would end by itself as well.
    fn release(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) {
        let (core, call) = (Arc::clone(core), clustered.engine.release(clustered.me));
        let patience = self.node.patience().0;
        self.released = Some(Box::pin(async move {
            let _released = core.timers.within(patience, call).await;
        }));
    }

    /// Nothing is done here any more.
    fn end(&mut self, clustered: &Clustered<C>) {
        self.homes.iter_mut().for_each(Homes::clear);
        clustered.edges.lose_all();
        clustered.inbox.close();
        self.commands.clear();
        self.is_over = true;
    }

    /// What has become of a slot here.
    fn slot(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, slot: Slot, change: Change) {
        let placement = &clustered.placement;
        let token = self.node.token(slot);
        placement.set_token(slot, token);
        match change {
            // Its effect is another one.
            Change::Claim { .. } => {}
            Change::Opened => {
                // In the first view of all nothing can have been lost.
                if token.is_some_and(|token| token.number > 0) {
                    clustered.inbox.figures.lock().lost += 1;
                }
                self.goes_on(core, clustered, slot);
            }
            Change::Arrived(export) => {
                clustered.inbox.figures.lock().moved += 1;
                self.arrived(core, slot, &export.content);
            }
            Change::Frozen => {
                if let Some(early) = self.early.get_mut(&slot) {
                    let node = &mut self.node;
                    early.retain(|effect| effect.work().is_none_or(|work| !node.refuse(work)));
                }
                // Before what others tell it goes another way.
                self.presence.part(core, slot, true);
                placement.set_served(slot, broken!(ServedWhileFrozen));
                self.frozen.entry(slot).or_insert_with(|| core.environment.now());
                core.freeze(&of(slot));
            }
            Change::Thawed => {
                self.exports.remove(&slot);
                self.goes_on(core, clustered, slot);
            }
            // Where it is lost, the edges of its clients know, and those who see them.
            Change::GivenUp { lost } => {
                if !lost {
                    clustered.inbox.figures.lock().moved += 1;
                }
                placement.set_served(slot, false);
                self.presence.part(core, slot, false);
                self.presence.give_up(slot);
                self.early.remove(&slot);
                self.exports.remove(&slot);
                self.frozen.remove(&slot);
                if !broken!(KeptAfterMove) {
                    core.forget(&of(slot), None);
                }
                self.homes.iter_mut().for_each(|homes| homes.give_up(slot));
            }
        }
    }

    /// A slot is served: whoever is here speaks to its accounts directly from here on.
    fn goes_on(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, slot: Slot) {
        clustered.placement.set_served(slot, true);
        if let Some(since) = self.frozen.remove(&slot) {
            let stood = core.environment.now().saturating_sub(since);
            self.presence.unite(core, slot);
            core.thaw(&of(slot), stood);
            self.homes.iter_mut().for_each(|homes| homes.thaw(slot, stood));
        }
        self.homes.iter().for_each(|homes| homes.opened(slot));
        for effect in self.early.remove(&slot).unwrap_or_default() {
            self.effect(core, clustered, effect);
        }
    }

    /// Until its slot is open it waits. What is of an earlier stay is nobody's.
    fn put_by(&mut self, work: Work, effect: Effect) {
        if self.node.token(work.job.slot) == Some(work.job.token) {
            self.early.entry(work.job.slot).or_default().push(effect);
        }
    }

    /// A slot has come here with all that it had. It stands still until it is served.
    fn arrived(&mut self, core: &Arc<Core<C>>, slot: Slot, content: &[u8]) {
        let content = self.presence.import(content);
        let imported = self
            .homes
            .as_mut()
            .map(|homes| homes.import(slot, |connect| core.import(content, connect)));
        if imported.is_some_and(|imported| imported.is_err()) {
            // What nobody can read is lost (NODE-9).
            core.faults.tell(FaultKind::Arrival, &PeerAddress::UNKNOWN, None);
        }
        self.frozen.insert(slot, core.environment.now());
        if let Some(homes) = &mut self.homes {
            let record = self.node.record();
            homes.lose_edges(slot, |edge| record.has(edge));
        }
    }

    /// Hands over one of the slots that stand still and have nothing under way; whether there was any.
    fn hand_over(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) -> bool {
        for slot in self.exports.clone() {
            // What was finished just before may have said something that waits in the inbox.
            let is_quiet = || clustered.inbox.is_quiet(slot) || broken!(InboxUnheard);
            if !self.node.is_through(slot) || !is_quiet() {
                continue;
            }
            let Some(homes) = self.homes.as_mut() else { continue };
            let leaving = homes.export(slot);
            let content = leaving.and_then(|leaving| core.export(&of(slot), &leaving));
            let Some(content) = content.filter(|_| is_quiet()) else { continue };
            self.exports.remove(&slot);
            let content = self.presence.export(slot, &content);
            self.node.export(core.environment.now(), slot, content);
            return true;
        }
        false
    }

    /// Whether those that wait are to be looked at again: nobody says when what is under way is done.
    fn looks_again(&mut self, core: &Arc<Core<C>>, cx: &mut Context<'_>) -> bool {
        if self.exports.is_empty() {
            self.again = None;
            return false;
        }
        let again = self.again.get_or_insert_with(|| {
            let core = Arc::clone(core);
            Box::pin(async move { core.sleep(LOOK_AGAIN).await })
        });
        let is_due = again.as_mut().poll(cx).is_ready();
        if is_due {
            self.again = None;
        }
        is_due
    }

    /// Something for an account that lives here.
    fn handle(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>, effect: Effect) {
        let (Effect::Handle { work, .. } | Effect::Hear { work, .. }) = &effect else { return };
        if !self.node.does(work.job) {
            return self.put_by(*work, effect);
        }
        let (account, word, bytes, work) = match effect {
            Effect::Handle { account, bytes, work } => (account, None, bytes, work),
            Effect::Hear { account, word, bytes, work } => (account, Some(word), bytes, work),
            _ => return,
        };
        let letter = Letter::decode(&bytes);
        let is_in_turn = letter.as_ref().is_some_and(Letter::is_in_turn);
        // A panic of an extension ends what it was asked about, and no more.
        let carry_out = || match letter {
            Some(Letter::Stanza(stanza)) => {
                if let Some(word) = &word {
                    self.presence.directed(core, &account, word, &stanza);
                }
                core.from_another_node(&stanza)
            }
            Some(Letter::Reply(answer)) => {
                core.route_answer(answer);
                None
            }
            Some(Letter::OfHost(stanza)) => core.route_by_host(&stanza),
            Some(Letter::Act { from, number, act }) => BareJid::new(&account).ok().map(|account| {
                let (core, inbox) = (Arc::clone(core), Arc::clone(&clustered.inbox));
                let task: Task = Box::pin(async move {
                    let said = core.perform(account, *act).await;
                    let bytes = Tale::Said { number, said }.encode();
                    // In front of what says that it is done.
                    inbox.put(Command::Tell { source: None, to: from, bytes });
                });
                task
            }),
            Some(letter) => self.presence.letter(core, &account, word.as_ref(), letter),
            None => None,
        };
        match core.shielded(HostCode::Extension, None, carry_out).flatten() {
            None => self.node.finish(core.environment.now(), work),
            Some(task) => {
                let account = is_in_turn.then(|| self.presence.begin(account));
                let done = Done { inbox: Arc::clone(&clustered.inbox), work, account };
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
            Some(Tale::Barred { account, error, time, is_for_all }) => {
                core.barred(&account, error, time, is_for_all);
            }
            Some(Tale::WhoIsOnline { number }) => {
                let online = core.online().map(|account| account.to_string()).collect();
                let bytes = Tale::Said { number, said: Said::Names(online) }.encode();
                self.node.tell(core.environment.now(), None, from, bytes);
            }
            Some(Tale::Voided(those)) => core.voided(clustered, those),
            None => {}
        }
    }

    /// What clients here have said, and what those whose accounts live here are told; whether that was anything.
    fn legs(&mut self, core: &Arc<Core<C>>, clustered: &Clustered<C>) -> bool {
        let now = core.environment.now();
        let up = clustered.edges.take_said(now);
        let mut any = !up.is_empty();
        for SaidUp { slot, leg, number, said } in up {
            self.node.submit_up(now, slot, leg, number, said);
        }
        if let Some(homes) = self.homes.as_mut().filter(|_| self.node.may_act(now)) {
            let is_still = |slot| self.node.serves(slot);
            homes.handle_timeout(now, is_still);
            homes.run(is_still);
            for SaidDown { slot, leg, number, said } in homes.take_said() {
                any = true;
                self.node.submit_down(now, slot, leg, number, said);
            }
        }
        any
    }

    fn publish(&mut self, core: &Core<C>, clustered: &Clustered<C>) {
        let placement = &clustered.placement;
        self.pressed.retain(|slot| {
            let is_pressed = self.node.is_pressed(*slot);
            placement.set_pressed(*slot, is_pressed);
            is_pressed
        });
        {
            let mut figures = clustered.inbox.figures.lock();
            figures.read(&self.node, core.environment.now());
            figures.known = self.presence.known();
        }
        clustered.inbox.is_emptied.store(self.node.is_emptied(), Ordering::Release);
        clustered.placement.set_deadline(self.node.acts_until());
        let of_legs = self.homes.as_ref().and_then(Homes::next_timeout);
        let of_legs = of_legs.into_iter().chain(clustered.edges.next_timeout());
        let next = of_legs.fold(self.node.next_timeout(), Duration::min);
        clustered.inbox.state.lock().next_timeout = Some(next);
    }
}

/// The host hears why this node is none.
fn misfit<C: SharedConnection>(core: &Core<C>, error: String) {
    core.faults.tell(FaultKind::Engine { error }, &PeerAddress::UNKNOWN, None);
}

/// Tells clients what is handled elsewhere (SM-5); whether that was anything.
fn acknowledge<C: SharedConnection>(clustered: &Clustered<C>) -> bool {
    let arrived = std::mem::take(&mut *clustered.arrived.lock());
    for (session, stanza) in &arrived {
        for handled in session.has_arrived(*stanza) {
            let _gone = session.send_item(&Item::element(acknowledgement(handled).as_bytes()));
        }
    }
    !arrived.is_empty()
}

/// The accounts of a slot.
pub(super) struct OfSlot(Slot);

pub(super) const fn of(slot: Slot) -> OfSlot {
    OfSlot(slot)
}

impl Accounts for OfSlot {
    fn has(&self, bare: &str) -> bool {
        Slot::of(bare) == self.0
    }

    fn group(&self) -> Option<usize> {
        Some(self.0.index())
    }
}

/// So long a turn takes at most, and what is begun in it: other tasks of its thread wait for so long.
const TURN: Duration = Duration::from_millis(5);
/// After so many turns the posts go, though there is more to do: what one thing leads to goes along with it, and under
/// load nobody waits for an end of it.
const TURNS: usize = 4;

/// How soon what is under way in a slot that is to be handed over is looked at again.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl<C: SharedConnection> Core<C> {
    /// A stanza of another home of ours: it is what that has made of it, and goes to whom it is for.
    fn from_another_node(self: &Arc<Self>, stanza: &Stanza) -> Option<Task> {
        let text = stanza.to()?;
        let to = self.address(&text).ok()?;
        // What other domains send goes the way of all presence.
        let is_ours = stanza.from().is_some_and(|from| self.is_ours(address::bare_of(&from)));
        let route = || match subscription(stanza).filter(|_| is_ours) {
            Some(kind) => self.inbound_subscription(stanza, kind, &to.bare, false),
            None => self.route_to(None, stanza, &to),
        };
        match self.shielded(HostCode::Extension, None, route) {
            Some(task) => task,
            None => self.refuse(None, stanza, Condition::InternalServerError),
        }
    }
}
