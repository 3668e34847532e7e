//! A node among the others: its lease, the view that it knows, and its turn at writing the record (NODE-1, 2, 8, 11).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::engine::{Answer, Ask};
use super::fence::Deadline;
use super::record::{Lease, Record};
use super::view::{Incarnation, Slot, View};
use super::{Settings, broken};

/// A number for each call of the engine, in the order of the calls.
pub(crate) type AskId = u64;

/// What a member wants, or what has happened to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Output {
    Ask(AskId, Ask),
    /// A number that the store has given to nobody yet, for a term in this instance of the engine.
    CountTerm(Arc<str>),
    /// A higher view is known.
    Adopted,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Renew,
    Replace,
    Read,
}

/// What is known of the engine that answers now.
struct Instance {
    name: Arc<str>,
    /// The call whose answer told of it, and when that came. The answer to an earlier call says of another
    /// instance only what was.
    told_by: AskId,
    since: Duration,
    /// This node has a lease of it.
    is_leased: bool,
    /// A term that the store has counted for it, and when one was last asked for. What was counted for an earlier
    /// instance may be below what has come of that one.
    term: Option<u64>,
    term_asked: Option<Duration>,
}

/// An answer, and when it was asked for.
struct Census {
    answer: Answer,
    asked: Duration,
}

pub(super) struct Member {
    pub(super) me: Incarnation,
    name: Arc<str>,
    settings: Settings,
    deadline: Deadline,
    renew_at: Duration,
    asked: BTreeMap<AskId, (Kind, Duration)>,
    last_ask: AskId,
    instance: Option<Instance>,
    census: Option<Census>,
    /// What there is to write over the record was not looked at since something was heard.
    has_news: bool,
    /// Over this view there was nothing to write, with these leases, each leaving or not.
    pub(super) at_rest: Option<(View, Vec<(Incarnation, bool)>)>,
    record: Arc<Record>,
    wants_record: bool,
    /// Until when slots are left where they are.
    refused: BTreeMap<Slot, Duration>,
    pub(super) leaving: bool,
    /// Somebody whose leases live for another time, or who keeps accounts elsewhere, beside whom this node has no place.
    pub(super) misfit: Option<Lease>,
    outputs: VecDeque<Output>,
    /// A move to begin when this one leads.
    #[cfg(test)]
    pub(super) whim: Option<(Slot, Incarnation)>,
}

/// A renewal that fails is tried so often within the time between two.
const RETRIES: u32 = 4;

impl Member {
    pub(super) fn new(me: Incarnation, name: Arc<str>, slots: u16, settings: Settings) -> Self {
        Self {
            me,
            name,
            settings,
            deadline: Deadline::default(),
            renew_at: Duration::ZERO,
            asked: BTreeMap::new(),
            last_ask: 0,
            instance: None,
            census: None,
            has_news: false,
            at_rest: None,
            record: Arc::new(Record::nothing(slots)),
            wants_record: false,
            refused: BTreeMap::new(),
            leaving: false,
            misfit: None,
            outputs: VecDeque::new(),
            #[cfg(test)]
            whim: None,
        }
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    pub(super) const fn record(&self) -> &Arc<Record> {
        &self.record
    }

    pub(super) fn view(&self) -> View {
        self.record.view
    }

    /// NODE-1
    pub(super) fn may_act(&mut self, now: Duration) -> bool {
        self.deadline.may_act(now, &self.settings)
    }

    pub(super) const fn fence(&mut self) {
        self.deadline.fence();
    }

    /// Until when it may act, where it has a lease.
    pub(super) fn acts_until(&self) -> Option<Duration> {
        self.deadline.until().filter(|_| self.record.has(self.me))
    }

    /// Whether it has had a lease of the engine that answers now, hence may hear others.
    pub(super) fn is_leased(&self) -> bool {
        self.instance.as_ref().is_some_and(|instance| instance.is_leased)
    }

    /// When time alone has something to do.
    pub(super) fn next_timeout(&self) -> Duration {
        self.deadline.until().map_or(self.renew_at, |until| until.min(self.renew_at))
    }

    /// Whether every other member of its view says that nothing has no answer which was numbered before this one.
    pub(super) fn all_settled(&self, view: View) -> bool {
        let Some(census) = &self.census else { return false };
        let others = self.record.members.iter().filter(|member| member.incarnation != self.me);
        let says_so = |of: Incarnation| {
            let mut living = census.answer.living.iter();
            living.any(|lease| lease.incarnation == of && lease.settled >= view)
        };
        others.map(|member| member.incarnation).all(says_so)
    }

    /// Whether there is anybody else who stays, as far as is known. Of a member without a lease that is not known.
    pub(super) fn has_heirs(&self) -> bool {
        let living = self.census.as_ref().map(|census| &*census.answer.living).unwrap_or_default();
        let leaves = |of| living.iter().any(|lease| lease.incarnation == of && lease.leaving);
        let members = self.record.members.iter().map(|member| member.incarnation);
        let others = members.chain(living.iter().map(|lease| lease.incarnation));
        others.into_iter().any(|other| other != self.me && !leaves(other))
    }

    /// Something may have changed: the record is to be read.
    pub(super) const fn look(&mut self) {
        self.wants_record = true;
    }

    /// Time has passed. `settled`: the oldest view under which something was numbered that has no answer.
    pub(super) fn handle_timeout(&mut self, now: Duration, settled: View) {
        // An answer that is this late does not come any more.
        let patience = self.settings.renew;
        self.asked.retain(|_, (_, at)| now < *at + patience);
        if now >= self.renew_at {
            self.renew(now, settled);
        }
    }

    /// The engine answers. The clock has been asked first: nothing that comes late revives.
    pub(super) fn handle_answer(&mut self, now: Duration, id: AskId, answer: Answer) {
        let Some((kind, start)) = self.asked.remove(&id) else { return };
        if !self.heeds(now, id, &answer) {
            return;
        }
        let is_first = kind == Kind::Renew && !self.is_leased();
        if kind == Kind::Renew && !self.heed_renewal(now, start, answer.done) {
            return;
        }
        let Some(answer) = self.fitting(answer, is_first) else { return };
        let is_current = |record: &&Arc<Record>| {
            record.instance == answer.instance || broken!(self.settings, ViewRegress)
        };
        if let Some(record) = answer.record.as_ref().filter(is_current) {
            self.adopt(Arc::clone(record));
        }
        #[cfg(test)]
        let answer = match self.census.take() {
            Some(before) if broken!(self.settings, StaleCensus) => {
                Answer { living: before.answer.living, ..answer }
            }
            _ => answer,
        };
        self.census = Some(Census { answer, asked: start });
        self.has_news = true;
    }

    /// The engine could not be asked. A lease does not wait for its next turn: what is left of it is for trying again.
    pub(super) fn handle_failure(&mut self, now: Duration, id: AskId) {
        if self.asked.get(&id).is_some_and(|(kind, _)| *kind == Kind::Renew) {
            self.asked.remove(&id);
            self.renew_at = self.renew_at.min(now + self.settings.renew / RETRIES);
        }
    }

    /// The store has counted a term for this instance of the engine.
    pub(super) fn handle_term(&mut self, instance: &str, term: u64) {
        let any = broken!(self.settings, TermKept);
        if let Some(current) = self.instance.as_mut().filter(|one| any || *one.name == *instance) {
            current.term = Some(term);
        }
    }

    /// Asks for what is wanted, and does what is due: the end of every step.
    pub(super) fn settle(&mut self, now: Duration) {
        self.lead(now);
        if std::mem::take(&mut self.wants_record) && !self.is_asking(Kind::Read) {
            self.ask(now, Kind::Read, Ask::Read);
        }
    }

    /// The view that this node would write over the one it knows; `None` where it may not, or is writing.
    pub(super) fn next_view(&self) -> Option<View> {
        let is_current =
            self.instance.as_ref().is_some_and(|instance| instance.name == self.record.instance);
        (is_current && self.record.has(self.me) && !self.is_asking(Kind::Replace))
            .then(|| self.view().next())
    }

    /// Writes a record over the one it knows.
    pub(super) fn write(&mut self, now: Duration, record: Record) {
        self.replace(now, record, Some(self.view()));
    }

    /// The answer without those who do not fit, who never become members: by the time that leases live all judge how
    /// long somebody may still act, and an account is in one store. `None` where it is this node that does not fit: a
    /// cluster goes on already, or somebody has begun one before.
    fn fitting(&mut self, answer: Answer, is_first: bool) -> Option<Answer> {
        let fits = |lease: &&Lease| self.settings.fits(lease);
        let is_first = is_first && answer.done;
        let is_before = |lease: &&Lease| !fits(lease) && (is_first || lease.seen > View::default());
        if !self.record.has(self.me)
            && let Some(other) = answer.living.iter().find(is_before)
        {
            self.misfit = Some(other.clone());
            self.deadline.fence();
            return None;
        }
        if answer.living.iter().all(|lease| fits(&lease)) {
            return Some(answer);
        }
        Some(Answer { living: answer.living.iter().filter(fits).cloned().collect(), ..answer })
    }

    /// Takes note of which engine answers; `false` where the answer is of one that is gone.
    fn heeds(&mut self, now: Duration, id: AskId, answer: &Answer) -> bool {
        match &self.instance {
            Some(known) if known.name == answer.instance => return true,
            Some(known) if id < known.told_by => return false,
            _ => {}
        }
        let term = self.instance.take().and_then(|before| before.term);
        self.instance = Some(Instance {
            name: Arc::clone(&answer.instance),
            told_by: id,
            since: now,
            is_leased: false,
            term: term.filter(|_| broken!(self.settings, TermKept)),
            term_asked: None,
        });
        true
    }

    /// `false` where the renewal was refused by the engine that had given the lease: it is over (NODE-1).
    fn heed_renewal(&mut self, now: Duration, start: Duration, done: bool) -> bool {
        let Some(instance) = &mut self.instance else { return false };
        match (done, instance.is_leased) {
            (true, _) => {
                instance.is_leased = true;
                self.deadline.renewed(start, &self.settings);
                true
            }
            (false, true) => {
                self.deadline.fence();
                false
            }
            // Another one answers, which has never heard of it.
            (false, false) => {
                self.renew_at = now;
                true
            }
        }
    }

    fn renew(&mut self, now: Duration, settled: View) {
        self.renew_at = now + self.settings.renew;
        self.deadline.asked(now, &self.settings);
        let first = !self.is_leased();
        let (incarnation, name) = (self.me, Arc::clone(&self.name));
        let (seen, leaving, ttl) = (self.view(), self.leaving, self.settings.ttl);
        let store = Arc::clone(&self.settings.store);
        let lease = Lease { incarnation, name, seen, settled, leaving, ttl, store };
        self.ask(now, Kind::Renew, Ask::Renew { lease, first });
    }

    fn replace(&mut self, now: Duration, record: Record, over: Option<View>) {
        self.ask(now, Kind::Replace, Ask::Replace { over, record: Arc::new(record) });
    }

    fn ask(&mut self, now: Duration, kind: Kind, ask: Ask) {
        self.last_ask += 1;
        self.asked.insert(self.last_ask, (kind, now));
        self.outputs.push_back(Output::Ask(self.last_ask, ask));
    }

    fn is_asking(&self, kind: Kind) -> bool {
        self.asked.values().any(|(asked, _)| *asked == kind)
    }

    /// Writes the record, where it is this node's turn.
    fn lead(&mut self, now: Duration) {
        let Some(census) = self.census.take() else { return };
        if !self.is_asking(Kind::Replace) {
            let instance = &census.answer.instance;
            let has_record =
                census.answer.record.as_ref().is_some_and(|record| record.instance == *instance);
            if has_record {
                if std::mem::take(&mut self.has_news) {
                    self.lead_on(now, &census.answer);
                }
            } else {
                self.begin_anew(now, &census);
            }
        }
        self.census = Some(census);
    }

    /// NODE-8. Who has no lease in this answer had none while the record stood that came in the same one, and only
    /// over that record is written: its lease is over for good.
    fn lead_on(&mut self, now: Duration, census: &Answer) {
        let (record, living) = (Arc::clone(&self.record), &census.living);
        let read = census.record.as_ref().map(|read| (read.view, &read.instance));
        if read != Some((record.view, &record.instance)) || record.leader(living) != Some(self.me) {
            return;
        }
        let leases: Vec<_> =
            living.iter().map(|lease| (lease.incarnation, lease.leaving)).collect();
        if self.at_rest.as_ref().is_some_and(|(at, of)| *at == record.view && *of == leases) {
            return;
        }
        let rests = self.rests(now);
        let view = record.view.next();
        let next = record.with_members(living, view, false);
        let next = next.or_else(|| {
            record.with_moves(living, view, self.settings.moves, |slot| !rests.contains(&slot))
        });
        #[cfg(test)]
        let next = next.or_else(|| {
            let (slot, to) = self.whim.take()?;
            record.with_move(slot, to, view)
        });
        match next {
            Some(next) => self.write(now, next),
            // What rests is looked at again, though nothing else has changed.
            None if rests.is_empty() => self.at_rest = Some((record.view, leases)),
            None => {}
        }
    }

    /// The slots whose moves wait for a while, since the last one was refused: else it would be at once again, without end.
    fn rests(&mut self, now: Duration) -> BTreeSet<Slot> {
        let refused: BTreeSet<_> =
            self.record.slots().filter(|(_, place)| place.refused).map(|(slot, _)| slot).collect();
        self.refused.retain(|slot, _| refused.contains(slot));
        let until = now.saturating_add(self.settings.patience);
        refused.iter().for_each(|slot| _ = self.refused.entry(*slot).or_insert(until));
        let waits = self.refused.iter().filter(|(_, until)| now < **until);
        waits.map(|(slot, _)| *slot).collect()
    }

    /// NODE-11. Another instance answers, which has no record of its own: what it had may be forgotten, and what it has
    /// may be old. Whoever may still act somewhere has, by the end of the wait, a lease of this instance: the leases
    /// are read after it.
    fn begin_anew(&mut self, now: Duration, census: &Census) {
        let Some(instance) = &mut self.instance else { return };
        let over = instance.since + self.settings.ttl + self.settings.margin;
        let waits = !broken!(self.settings, NoWait);
        if waits && now < over {
            return;
        }
        if waits && census.asked < over && !broken!(self.settings, CensusBeforeWait) {
            self.wants_record = true;
            return;
        }
        // Not who leads: who has seen most. Only that record has all that was.
        let living = &census.answer.living;
        let rank =
            |lease: &&Lease| (lease.seen, Reverse((Arc::clone(&lease.name), lease.incarnation)));
        let best = living.iter().max_by_key(rank).map(|lease| lease.incarnation);
        let best =
            if broken!(self.settings, OwnRecord) { self.record.leader(living) } else { best };
        if best != Some(self.me) {
            return;
        }
        let known = census.answer.record.as_ref().map(|record| record.view);
        #[cfg(test)]
        if broken!(self.settings, TermUnasked) && instance.term_asked.is_none() {
            let seen = living.iter().map(|lease| lease.seen).chain(known).max();
            instance.term = seen.map(|seen| seen.term + 1);
        }
        let counted = instance.term.take();
        // A store that was restored counts what it has counted before.
        let term = counted.filter(|term| *term > self.record.view.term);
        if counted.is_some() && term.is_none() {
            instance.term_asked = None;
        }
        let Some(term) = term else {
            if instance.term_asked.is_none_or(|at| now > at + self.settings.ttl) {
                instance.term_asked = Some(now);
                self.outputs.push_back(Output::CountTerm(Arc::clone(&instance.name)));
            }
            return;
        };
        instance.term_asked = None;
        let (instance, view) = (Arc::clone(&instance.name), View::first_of(term));
        let next = self.record.with_members(living, view, true);
        let next = next.unwrap_or_else(|| Record::clone(&self.record));
        self.replace(now, Record { instance, view, ..next }, known);
    }

    /// A record that the engine has. Never an older one than is known (NODE-11); views may be skipped.
    fn adopt(&mut self, new: Arc<Record>) {
        if new.view == self.view() || new.view < self.view() && !broken!(self.settings, ViewRegress)
        {
            return;
        }
        let was_member = self.record.has(self.me);
        self.record = new;
        if was_member && !self.record.has(self.me) {
            return self.deadline.fence();
        }
        self.outputs.push_back(Output::Adopted);
    }

    #[cfg(test)]
    pub(super) const fn deadline_now(&self) -> Option<Duration> {
        self.deadline.until()
    }

    #[cfg(test)]
    pub(super) const fn deadline(&mut self) -> &mut Deadline {
        &mut self.deadline
    }

    #[cfg(test)]
    pub(super) fn renewal_started(&self, id: AskId) -> Option<Duration> {
        let renewal = |(kind, start): &(Kind, Duration)| (*kind == Kind::Renew).then_some(*start);
        self.asked.get(&id).and_then(renewal)
    }
}
