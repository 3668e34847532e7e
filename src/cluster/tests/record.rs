//! The record, by its pure functions.

use std::sync::Arc;

use super::Break;
use crate::cluster::Settings;
use crate::cluster::record::{Lease, Member, Move, Place, Record};
use crate::cluster::view::{Incarnation, Slot, View};

const TTL: std::time::Duration = std::time::Duration::from_secs(2);
const A: Incarnation = Incarnation(1);
const B: Incarnation = Incarnation(2);
const C: Incarnation = Incarnation(3);

fn view(number: u64) -> View {
    View { term: 1, number }
}

fn lease(incarnation: Incarnation) -> Lease {
    let name = format!("node{}", incarnation.0).into();
    Lease {
        incarnation,
        name,
        seen: view(1),
        settled: view(1),
        leaving: false,
        ttl: TTL,
        store: Arc::default(),
    }
}

fn leases(of: &[Incarnation]) -> Vec<Lease> {
    of.iter().map(|node| lease(*node)).collect()
}

fn leaving(node: Incarnation) -> Lease {
    Lease { leaving: true, ..lease(node) }
}

fn record(members: &[Incarnation], owners: &[Incarnation]) -> Record {
    let member = |node: &Incarnation| Member { name: lease(*node).name, incarnation: *node };
    let place =
        |owner: &Incarnation| Place { owner: Some(*owner), since: view(1), ..Place::default() };
    Record {
        view: view(1),
        instance: "engine".into(),
        members: members.iter().map(member).collect(),
        places: owners.iter().map(place).collect(),
    }
}

fn owners(record: &Record) -> Vec<Incarnation> {
    record.places.iter().filter_map(|place| place.owner).collect()
}

fn moving(mut record: Record, slot: usize, to: Incarnation) -> Record {
    record.places[slot].moving = Some(Move { to, began: view(1) });
    record
}

#[test]
fn node_8_the_lowest_name_of_the_living_members_leads() {
    let record = record(&[B, C], &[B, C]);
    assert_eq!(record.leader(&leases(&[A, B, C])), Some(B), "A is no member");
    assert_eq!(record.leader(&leases(&[C])), Some(C), "B does not live");
    assert_eq!(record.leader(&leases(&[A])), Some(A), "no member lives");
    assert_eq!(record.leader(&[]), None);
    let twin = Lease { name: lease(B).name, ..lease(C) };
    assert_eq!(record.leader(&[twin, lease(B)]), Some(B), "names may be equal");
}

#[test]
fn node_8_a_first_view_gives_every_slot_to_somebody() {
    let first = Record::nothing(5).with_members(&leases(&[A, B]), view(1), false).unwrap();
    assert_eq!(owners(&first), [A, B, A, B, A]);
    assert!(first.places.iter().all(|place| place.since == view(1) && place.lost == view(1)));
    assert!(first.has(A) && first.has(B));
    assert_eq!(Record::nothing(5).with_members(&[], view(1), false), None, "nobody is there");
}

#[test]
fn node_8_slots_of_the_dead_begin_empty_at_the_lightest() {
    let next = record(&[A, B, C], &[A, A, B, C, C])
        .with_members(&leases(&[A, B]), view(2), false)
        .unwrap();
    assert_eq!(owners(&next), [A, A, B, B, A]);
    assert_eq!(
        next.places[3],
        Place { owner: Some(B), since: view(2), lost: view(2), moving: None, refused: false }
    );
    assert_eq!(next.places[0], record(&[A], &[A]).places[0], "what lives stays as it is");
    assert!(!next.has(C));
}

#[test]
fn node_8_nothing_changes_where_nobody_has_come_or_gone() {
    assert_eq!(record(&[A, B], &[A, B]).with_members(&leases(&[A, B]), view(2), false), None);
}

#[test]
fn node_8_who_has_come_joins_without_a_slot() {
    let next = record(&[A], &[A, A]).with_members(&leases(&[A, B]), view(2), false).unwrap();
    assert!(next.has(B));
    assert_eq!(owners(&next), [A, A]);
    let leases = [lease(A), leaving(B)];
    assert_eq!(record(&[A], &[A]).with_members(&leases, view(2), false), None, "it is about to go");
}

#[test]
fn node_8_a_member_that_leaves_gets_no_slot_unless_all_do() {
    let before = record(&[A, B, C], &[C, C]);
    let next = before.with_members(&[lease(A), leaving(B)], view(2), false).unwrap();
    assert_eq!(owners(&next), [A, A]);
    assert!(next.has(B), "it stays a member until it has gone");
    let next = before.with_members(&[leaving(A), leaving(B)], view(2), false).unwrap();
    assert_eq!(owners(&next), [A, B]);
}

#[test]
fn node_10_a_move_to_somebody_who_is_gone_is_cancelled() {
    let next =
        moving(record(&[A, B], &[A]), 0, B).with_members(&leases(&[A]), view(2), false).unwrap();
    // Raised, so that what was numbered before does not slip in front of what was refused.
    assert_eq!(
        next.places[0],
        Place {
            owner: Some(A),
            since: view(2),
            lost: View::default(),
            moving: None,
            refused: false
        }
    );
}

#[test]
fn node_11_where_the_engine_forgot_such_a_move_ends_in_loss() {
    let next =
        moving(record(&[A, B], &[A]), 0, B).with_members(&leases(&[A]), view(2), true).unwrap();
    assert_eq!(
        next.places[0],
        Place { owner: Some(A), since: view(2), lost: view(2), moving: None, refused: false }
    );
}

#[test]
fn node_10_a_slot_whose_owner_died_on_the_way_does_not_arrive() {
    let next =
        moving(record(&[A, B], &[A]), 0, B).with_members(&leases(&[B]), view(2), false).unwrap();
    assert_eq!(
        next.places[0],
        Place { owner: Some(B), since: view(2), lost: view(2), moving: None, refused: false }
    );
}

#[test]
fn node_8_moves_go_from_the_heaviest_to_the_lightest() {
    let before = record(&[A, B], &[A, A, A, A, B]);
    let next = before.with_moves(&leases(&[A, B]), view(2), 9, |_| true).unwrap();
    let to = |place: &Place| place.moving.map(|one| one.to);
    assert_eq!(next.places.iter().map(to).collect::<Vec<_>>(), [Some(B), None, None, None, None]);
    assert_eq!(next.places[0].moving, Some(Move { to: B, began: view(2) }));
    assert_eq!(
        (next.places[0].owner, next.places[0].since),
        (Some(A), view(1)),
        "it is where it was"
    );
    assert_eq!(
        next.with_moves(&leases(&[A, B]), view(3), 9, |_| true),
        None,
        "three and two are even"
    );
}

#[test]
fn node_8_no_more_moves_are_under_way_than_may() {
    let before = record(&[A, B], &[A; 10]);
    let next = before.with_moves(&leases(&[A, B]), view(2), 2, |_| true).unwrap();
    assert_eq!(next.places.iter().filter(|place| place.moving.is_some()).count(), 2);
    assert_eq!(next.with_moves(&leases(&[A, B]), view(3), 2, |_| true), None);
}

#[test]
fn node_19_who_leaves_is_emptied_first() {
    let before = record(&[A, B, C], &[A, B, B, B, C]);
    let next = before.with_moves(&[lease(A), lease(B), leaving(C)], view(2), 1, |_| true).unwrap();
    assert_eq!(next.places[4].moving, Some(Move { to: A, began: view(2) }));
    assert_eq!(
        before.with_moves(&[leaving(A), leaving(B), leaving(C)], view(2), 9, |_| true),
        None,
        "nobody stays"
    );
}

#[test]
fn node_8_only_living_members_get_slots() {
    assert_eq!(record(&[A], &[A, A]).with_moves(&leases(&[A, B]), view(2), 9, |_| true), None);
    assert_eq!(record(&[A, B], &[A, A]).with_moves(&leases(&[A]), view(2), 9, |_| true), None);
}

#[test]
fn node_9_the_new_owner_or_the_old_one_ends_a_move() {
    let before = moving(moving(record(&[A, B], &[A, A, A]), 0, B), 1, B);
    let ended = Place {
        owner: Some(B),
        since: view(2),
        lost: View::default(),
        moving: None,
        refused: false,
    };
    let arrived = before.with_arrived(&[Slot(0)], view(2));
    assert_eq!(arrived.places[0], ended);
    assert_eq!(arrived.places[1..], before.places[1..]);
    let kept = before.with_cancelled(&[Slot(0)], view(2), &Settings::of_tests());
    assert_eq!(kept.places[0], Place { owner: Some(A), ..ended });
    assert_eq!(kept.places[1..], before.places[1..]);
}

#[test]
fn node_9_a_cancelled_move_raises_since() {
    for (broken, since) in [(None, view(2)), (Some(Break::CancelUnstamped), view(1))] {
        let settings = Settings { broken, ..Settings::of_tests() };
        let before = moving(record(&[A, B], &[A]), 0, B);
        assert_eq!(before.with_cancelled(&[Slot(0)], view(2), &settings).places[0].since, since);
    }
}

#[test]
fn node_9_what_does_not_move_neither_arrives_nor_stays() {
    let before = record(&[A, B], &[A]);
    for slots in [&[Slot(0)][..], &[Slot(7)]] {
        assert_eq!(before.with_arrived(slots, view(2)).places, before.places);
        assert_eq!(
            before.with_cancelled(slots, view(2), &Settings::of_tests()).places,
            before.places
        );
    }
}

/// Whatever has happened, the next view is one in which every slot has a living owner, `since` and `lost` only rise,
/// and nothing moves to the dead.
#[test]
fn node_8_whoever_lives_every_slot_has_a_living_owner() {
    let nodes = [A, B, C];
    let some = |set: usize| {
        nodes.iter().enumerate().filter(move |(at, _)| set >> at & 1 == 1).map(|(_, node)| *node)
    };
    let mut cases = 0;
    for owner in nodes {
        for to in [None, Some(A), Some(B), Some(C)].into_iter().filter(|to| *to != Some(owner)) {
            for (alive, leaves, forgot) in (0..128).map(|n| (n & 7, n >> 3 & 7, n >> 6 == 1)) {
                let mut before = record(&nodes, &[owner, A, B]);
                before.places[0].moving = to.map(|to| Move { to, began: view(1) });
                let mut living: Vec<_> = some(alive).map(lease).collect();
                living
                    .iter_mut()
                    .for_each(|l| l.leaving = some(leaves).any(|node| node == l.incarnation));
                let next = before.with_members(&living, view(2), forgot);
                let next = next.unwrap_or_else(|| before.clone());
                let lives = |node: Incarnation| some(alive).any(|living| living == node);
                for (was, is) in before.places.iter().zip(&next.places).filter(|_| alive != 0) {
                    assert!(is.owner.is_some_and(lives));
                    assert!(is.moving.is_none_or(|one| lives(one.to)));
                    assert!(is.since >= was.since && is.lost >= was.lost);
                    let is_empty = is.lost == view(2);
                    assert!(is_empty || is.owner == was.owner, "another owner, and not empty");
                    assert!(is.moving == was.moving || is.since == view(2));
                    assert!(!is_empty || !was.owner.is_some_and(lives) || forgot);
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, 3 * 3 * 128 * 3 * 7 / 8);
}

/// From any start, moves end: whoever leaves has nothing then, and the others differ by one slot at most.
#[test]
fn node_8_moves_come_to_an_end_in_balance() {
    let nodes = [A, B, C];
    for case in 0..3_usize.pow(6) {
        let owner = |at: u32| nodes[case / 3_usize.pow(at) % 3];
        for leaves in 0..7 {
            let of = |(at, node): (usize, &Incarnation)| Lease {
                leaving: leaves >> at & 1 == 1,
                ..lease(*node)
            };
            let living: Vec<_> = nodes.iter().enumerate().map(of).collect();
            let mut now = record(&nodes, &(0..6).map(owner).collect::<Vec<_>>());
            let mut number = 2;
            while let Some(next) = now.with_moves(&living, view(number), 2, |_| true) {
                let moving: Vec<_> =
                    next.slots().filter(|(_, place)| place.moving.is_some()).collect();
                assert!((1..=2).contains(&moving.len()));
                assert!(
                    moving.iter().all(|(_, place)| place.moving.map(|one| one.to) != place.owner)
                );
                let slots: Vec<_> = moving.iter().map(|(slot, _)| *slot).collect();
                now = next.with_arrived(&slots, view(number + 1));
                number += 2;
                assert!(number < 40, "it never ends");
            }
            let has =
                |node: Incarnation| owners(&now).iter().filter(|owner| **owner == node).count();
            let (gone, stay): (Vec<_>, Vec<_>) = living.iter().partition(|one| one.leaving);
            assert!(gone.iter().all(|one| has(one.incarnation) == 0));
            let loads: Vec<_> = stay.iter().map(|one| has(one.incarnation)).collect();
            assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{loads:?}");
        }
    }
}

#[test]
fn node_8_a_record_keeps_what_it_does_not_change() {
    let before = record(&[A, B], &[A, B]);
    let next = before.with_arrived(&[], view(2));
    assert_eq!(next, Record { view: view(2), ..before.clone() });
    assert!(Arc::ptr_eq(&next.instance, &before.instance));
}
