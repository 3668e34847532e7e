//! One member, against an engine that says what the test wants.

use std::sync::Arc;
use std::time::Duration;

use super::Break;
use crate::cluster::Settings;
use crate::cluster::engine::{Answer, Ask};
use crate::cluster::member::{AskId, Member, Output};
use crate::cluster::record::{Lease, Record};
use crate::cluster::view::{Incarnation, View};

const ME: Incarnation = Incarnation(1);
const OTHER: Incarnation = Incarnation(2);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn lease(incarnation: Incarnation, seen: View) -> Lease {
    let name = format!("node{}", incarnation.0).into();
    Lease {
        incarnation,
        name,
        seen,
        settled: seen,
        leaving: false,
        ttl: Settings::of_tests().ttl,
        store: Arc::default(),
    }
}

fn answer(done: bool, instance: &str, living: &[Lease], record: Option<&Arc<Record>>) -> Answer {
    Answer { done, instance: instance.into(), living: living.into(), record: record.cloned() }
}

fn view(term: u64, number: u64) -> View {
    View { term, number }
}

fn member(broken: Option<Break>) -> Member {
    Member::new(ME, "node1".into(), 4, Settings { broken, ..Settings::of_tests() })
}

impl Member {
    fn asks(&mut self) -> Vec<(AskId, Ask)> {
        let mut asks = Vec::new();
        while let Some(output) = self.poll() {
            if let Output::Ask(id, ask) = output {
                asks.push((id, ask));
            }
        }
        asks
    }

    /// Time passes, and something is asked.
    fn next_ask(&mut self, now: Duration) -> (AskId, Ask) {
        self.handle_timeout(now, View::default());
        self.settle(now);
        self.asks().pop().expect("an ask")
    }

    /// It has a lease of this instance since `now`, and what came with it.
    fn leased(
        &mut self,
        now: Duration,
        instance: &str,
        living: &[Lease],
        record: Option<&Arc<Record>>,
    ) {
        let (id, _) = self.next_ask(now);
        assert!(self.may_act(now));
        self.handle_answer(now, id, answer(true, instance, living, record));
        self.settle(now);
    }
}

fn first(members: &[Incarnation], instance: &str, view: View) -> Arc<Record> {
    let living: Vec<_> = members.iter().map(|one| lease(*one, View::default())).collect();
    let record = Record::nothing(4).with_members(&living, view, false).unwrap();
    Arc::new(Record { instance: instance.into(), ..record })
}

#[test]
fn node_1_before_an_answer_the_deadline_counts_from_the_first_question() {
    let mut member = member(None);
    assert!(member.may_act(ms(50)), "it has not begun");
    member.next_ask(ms(100));
    member.next_ask(ms(1000));
    assert!(member.may_act(ms(1999)));
    assert!(!member.may_act(ms(2000)), "100 + 2000 - 100");
    assert!(!member.may_act(ms(100)), "never again");
}

#[test]
fn node_1_the_deadline_is_before_the_end_of_the_lease() {
    let until = |broken| {
        let mut member = member(broken);
        member.next_ask(ms(0));
        (0..3000).find(|now| !member.may_act(ms(*now)))
    };
    assert_eq!(until(None), Some(1900));
    assert_eq!(until(Some(Break::NoMargin)), Some(2000));
    assert_eq!(until(Some(Break::NoDeadline)), None);
}

#[test]
fn node_1_an_answer_counts_from_when_it_was_asked_for() {
    let mut member = member(None);
    let (id, ask) = member.next_ask(ms(0));
    assert!(matches!(ask, Ask::Renew { first: true, .. }));
    member.handle_answer(ms(399), id, answer(true, "1", &[], None));
    assert!(member.may_act(ms(1899)));
    let (id, ask) = member.next_ask(ms(1899));
    assert!(matches!(ask, Ask::Renew { first: false, .. }));
    member.handle_answer(ms(1899), id, answer(true, "1", &[], None));
    assert!(member.may_act(ms(3798)));
    assert!(!member.may_act(ms(3799)));
}

#[test]
fn node_1_a_refused_renewal_fences() {
    let mut member = member(None);
    member.leased(ms(0), "1", &[], None);
    let (id, _) = member.next_ask(ms(500));
    member.handle_answer(ms(501), id, answer(false, "1", &[], None));
    assert!(!member.may_act(ms(501)));
}

#[test]
fn node_1_a_renewal_that_fails_is_tried_again_before_its_next_turn() {
    let mut member = member(None);
    member.leased(ms(0), "1", &[], None);
    // The engine is away, and is back shortly before the deadline, between two turns.
    for now in (400..1800).step_by(100) {
        let (id, ask) = member.next_ask(ms(now));
        assert!(matches!(ask, Ask::Renew { first: false, .. }));
        member.handle_failure(ms(now), id);
        assert_eq!(member.next_timeout(), ms(now + 100));
    }
    let (id, _) = member.next_ask(ms(1800));
    member.handle_answer(ms(1810), id, answer(true, "1", &[], None));
    assert!(member.may_act(ms(3699)));
    // Of what else fails the next turn says enough.
    member.look();
    let (id, ask) = member.next_ask(ms(1900));
    assert_eq!((ask, member.next_timeout()), (Ask::Read, ms(2200)));
    member.handle_failure(ms(1900), id);
    assert_eq!(member.next_timeout(), ms(2200));
}

#[test]
fn node_11_an_engine_that_has_never_heard_of_it_gives_a_first_lease() {
    let mut member = member(None);
    member.leased(ms(0), "1", &[], None);
    let (id, _) = member.next_ask(ms(500));
    member.handle_answer(ms(501), id, answer(false, "2", &[], None));
    assert!(member.may_act(ms(501)));
    let (_, ask) = member.next_ask(ms(501));
    assert!(matches!(ask, Ask::Renew { first: true, .. }), "at once");
}

#[test]
fn node_1_an_answer_that_is_later_than_the_next_question_is_not_looked_at() {
    let mut member = member(None);
    let (id, _) = member.next_ask(ms(0));
    member.next_ask(ms(400));
    member.handle_answer(ms(401), id, answer(true, "1", &[], None));
    assert!(!member.is_leased());
}

#[test]
fn node_1_only_leases_of_one_time_to_live_and_one_store_are_of_one_cluster() {
    refuses(|seen| Lease { ttl: ms(9000), ..lease(OTHER, seen) });
    refuses(|seen| Lease { store: "there".into(), ..lease(OTHER, seen) });
}

fn refuses(other: impl Fn(View) -> Lease) {
    let answers = |member: &mut Member, now: u64, living: &[Lease], record| {
        member.leased(ms(now), "1", living, record);
        member.may_act(ms(now))
    };
    // Somebody was there before.
    let mut late = member(None);
    assert!(!answers(&mut late, 0, &[lease(ME, View::default()), other(View::default())], None));
    assert_eq!(late.misfit.map(|misfit| misfit.incarnation), Some(OTHER));
    // Somebody comes, and is refused there.
    let mut early = member(None);
    let mine = lease(ME, View::default());
    assert!(answers(&mut early, 0, std::slice::from_ref(&mine), None));
    assert!(answers(&mut early, 400, &[mine.clone(), other(View::default())], None));
    // A cluster comes back to this instance, which it had been cut from.
    assert!(!answers(&mut early, 800, &[mine.clone(), other(view(3, 4))], None));
    // A member stays, and writes nobody in who does not fit.
    let mut settled = member(None);
    let record = first(&[ME], "1", view(1, 1));
    assert!(answers(&mut settled, 0, std::slice::from_ref(&mine), Some(&record)));
    assert!(answers(&mut settled, 400, &[mine.clone(), other(view(3, 4))], Some(&record)));
    assert_eq!(settled.poll(), None);
    // One that cannot tell where it keeps things is taken.
    let mut settled = member(None);
    answers(&mut settled, 0, std::slice::from_ref(&mine), Some(&record));
    member_leads(&mut settled, &[mine, lease(OTHER, View::default())], &record);
}

/// It writes in who has come.
fn member_leads(member: &mut Member, living: &[Lease], record: &Arc<Record>) {
    let (id, _) = member.next_ask(ms(400));
    member.handle_answer(ms(400), id, answer(true, "1", living, Some(record)));
    member.settle(ms(400));
    let asks = member.asks();
    assert!(matches!(&asks[..], [(_, Ask::Replace { .. })]), "{asks:?}");
}

#[test]
fn node_11_a_first_node_waits_before_it_writes() {
    let mut member = member(None);
    let living = [lease(ME, View::default())];
    member.leased(ms(0), "1", &living, None);
    for now in (400..2100).step_by(400) {
        member.leased(ms(now), "1", &living, None);
        assert_eq!(member.poll(), None, "at {now}");
    }
    // The leases are read again, since somebody may have come meanwhile.
    member.handle_timeout(ms(2100), View::default());
    member.settle(ms(2100));
    let asks = member.asks();
    let (id, _) = asks.iter().find(|(_, ask)| *ask == Ask::Read).expect("they are read");
    member.handle_answer(ms(2101), *id, answer(true, "1", &living, None));
    member.settle(ms(2101));
    assert_eq!(member.poll(), Some(Output::CountTerm("1".into())));
    member.handle_term("1", 7);
    member.settle(ms(2110));
    let (_, Ask::Replace { over: None, record }) = member.asks().pop().unwrap() else { panic!() };
    assert_eq!((record.view, &*record.instance), (View::first_of(7), "1"));
    assert!(record.has(ME));
}

#[test]
fn node_8_members_are_judged_by_leases_that_were_read_with_the_record() {
    let record = first(&[ME, OTHER], "1", view(1, 0));
    let both = [lease(ME, view(1, 0)), lease(OTHER, view(1, 0))];
    let mut member = member(None);
    member.leased(ms(0), "1", &both, Some(&record));
    assert_eq!(*member.record(), record);
    assert!(member.asks().is_empty(), "all is well");
    member.leased(ms(400), "1", &both[..1], Some(&record));
    let (_, Ask::Replace { over, record: next }) = member.asks().pop().unwrap() else { panic!() };
    assert_eq!((over, next.view), (Some(view(1, 0)), view(1, 1)));
    assert!(!next.has(OTHER));
}

#[test]
fn node_8_only_the_leader_writes() {
    let record = first(&[Incarnation(0), ME], "1", view(1, 0));
    let living =
        [lease(Incarnation(0), view(1, 0)), lease(ME, view(1, 0)), lease(OTHER, view(1, 0))];
    let mut member = member(None);
    member.leased(ms(0), "1", &living, Some(&record));
    assert!(member.asks().is_empty());
    member.leased(ms(400), "1", &living[1..], Some(&record));
    assert!(matches!(member.asks().pop(), Some((_, Ask::Replace { .. }))), "its leader is gone");
}

#[test]
fn node_11_no_lower_view_is_known_again() {
    let (old, new) = (first(&[ME], "1", view(1, 3)), first(&[ME], "1", view(1, 4)));
    let mut member = member(None);
    member.leased(ms(0), "1", &[], Some(&new));
    member.leased(ms(400), "1", &[], Some(&old));
    assert_eq!(member.view(), view(1, 4));
    member.leased(ms(800), "2", &[], Some(&first(&[ME], "1", view(2, 0))));
    assert_eq!(member.view(), view(1, 4), "nobody trusts what another instance has");
}

#[test]
fn node_2_a_member_that_is_none_any_more_is_fenced() {
    let mut member = member(None);
    member.leased(ms(0), "1", &[], Some(&first(&[OTHER], "1", view(1, 0))));
    assert!(member.may_act(ms(1)), "it has not been one");
    member.leased(ms(400), "1", &[], Some(&first(&[ME], "1", view(1, 1))));
    assert!(member.may_act(ms(401)));
    member.leased(ms(800), "1", &[], Some(&first(&[OTHER], "1", view(1, 2))));
    assert!(!member.may_act(ms(801)));
}

/// What a member does that knows `record` when another instance answers, which has none.
#[derive(Debug, Default, PartialEq, Eq)]
struct Anew {
    writes: bool,
    /// The store has counted a term for that.
    counted: bool,
    /// It has read the leases once more.
    read: bool,
}

fn begins_anew(member: &mut Member, living: &[Lease], record: Option<&Arc<Record>>) -> Anew {
    member.leased(ms(0), "1", living, record);
    member.handle_term("1", 3);
    let mut anew = Anew::default();
    for now in (400..3600).step_by(100) {
        member.handle_timeout(ms(now), View::default());
        member.settle(ms(now));
        while let Some(output) = member.poll() {
            match output {
                Output::CountTerm(_) => {
                    anew.counted = true;
                    member.handle_term("2", 4);
                }
                Output::Ask(_, Ask::Replace { .. }) => return Anew { writes: true, ..anew },
                Output::Ask(id, ask) => {
                    anew.read |= ask == Ask::Read;
                    member.handle_answer(ms(now), id, answer(true, "2", living, None));
                }
                Output::Adopted => {}
            }
        }
    }
    anew
}

fn writes_anew(broken: Option<Break>, mine: u64, theirs: u64) -> bool {
    let record = first(&[ME, OTHER], "1", view(1, mine));
    let living = [lease(ME, view(1, mine)), lease(OTHER, view(1, theirs))];
    begins_anew(&mut member(broken), &living, Some(&record)).writes
}

#[test]
fn node_11_who_has_seen_most_writes_on() {
    assert!(writes_anew(None, 5, 4));
    assert!(writes_anew(None, 4, 4), "of two the lower name");
    assert!(!writes_anew(None, 4, 5));
    assert!(writes_anew(Some(Break::OwnRecord), 4, 5), "as it would be broken");
}

/// By hand, since it needs an engine that forgets twice while one member waits.
#[test]
fn node_11_a_term_is_counted_for_one_instance() {
    let living = [lease(ME, View::default())];
    assert!(begins_anew(&mut member(None), &living, None).counted);
    let broken = Some(Break::TermKept);
    assert!(!begins_anew(&mut member(broken), &living, None).counted);
}

/// A store that was restored has forgotten which terms it has counted.
#[test]
fn node_11_a_term_that_was_there_before_is_counted_on() {
    let mut member = member(None);
    let known = first(&[ME], "1", view(7, 3));
    let living = [lease(ME, View::default())];
    member.leased(ms(0), "1", &living, Some(&known));
    member.leased(ms(400), "2", &living, None);
    let mut terms = Vec::new();
    for step in 2..16 {
        let now = ms(400 * step);
        member.leased(now, "2", &living, None);
        while let Some(output) = member.poll() {
            match output {
                Output::CountTerm(instance) => {
                    terms.push(());
                    member.handle_term(&instance, 5 + terms.len() as u64);
                    member.settle(now);
                }
                Output::Ask(_, Ask::Replace { record, .. }) => {
                    assert_eq!((record.view, terms.len()), (View::first_of(8), 3));
                    return;
                }
                _ => {}
            }
        }
    }
    panic!("it never goes on: {} terms", terms.len());
}

#[test]
fn node_11_the_leases_are_read_again_after_the_wait() {
    let living = [lease(ME, View::default())];
    let all = Anew { writes: true, counted: true, read: true };
    assert_eq!(begins_anew(&mut member(None), &living, None), all);
    let broken = Some(Break::CensusBeforeWait);
    assert_eq!(begins_anew(&mut member(broken), &living, None), Anew { read: false, ..all });
}

#[test]
fn node_11_an_answer_of_an_engine_that_is_gone_changes_nothing() {
    let mut member = member(None);
    member.leased(ms(0), "1", &[], None);
    member.look();
    member.settle(ms(1));
    let (old, _) = member.asks().pop().unwrap();
    member.leased(ms(400), "2", &[], None);
    member.handle_answer(ms(401), old, answer(true, "1", &[], None));
    assert!(member.is_leased(), "of 2");
}
