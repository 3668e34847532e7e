//! What a view makes of a slot.

use std::time::Duration;

use super::super::Settings;
use crate::cluster::record::{Move, Place, Record};
use crate::cluster::slots::{Change, Export, Slots, State};
use crate::cluster::view::{Incarnation, Slot, View};

const ME: Incarnation = Incarnation(1);
const OTHER: Incarnation = Incarnation(2);
const SLOT: Slot = Slot(0);
const NOW: Duration = Duration::from_secs(1);

fn view(number: u64) -> View {
    View { term: 1, number }
}

fn place(owner: Incarnation, since: u64, lost: u64, moving: Option<(Incarnation, u64)>) -> Place {
    let moving = moving.map(|(to, began)| Move { to, began: view(began) });
    Place { owner: Some(owner), since: view(since), lost: view(lost), moving, refused: false }
}

struct World {
    slots: Slots,
    record: Record,
}

impl World {
    fn new() -> Self {
        Self { slots: Slots::default(), record: Record::nothing(1) }
    }

    /// One that serves the slot since view 1.
    fn serving() -> Self {
        let mut world = Self::new();
        assert_eq!(world.see(place(ME, 1, 1, None)), [Change::Claim { token: view(1) }]);
        world.slots.claimed(SLOT, view(1));
        assert_eq!(world.slots.open(SLOT), Some(Change::Opened));
        world
    }

    fn see(&mut self, place: Place) -> Vec<Change> {
        self.record.view = self.record.view.next();
        self.record.places = vec![place];
        self.slots.take(ME, NOW, SLOT, &self.record)
    }

    fn serves(&self) -> bool {
        self.slots.is_served(SLOT, &Settings::of_tests())
    }

    fn export(&mut self) -> Option<Export> {
        self.slots.export(SLOT, view(9), (*b"all").into(), Vec::new(), &Settings::of_tests())
    }

    fn arrive(&mut self, began: u64, lost: u64) {
        let export = Export {
            slot: SLOT,
            began: view(began),
            lost: view(lost),
            seen: view(1),
            content: (*b"all").into(),
            outgoing: Vec::new(),
        };
        self.slots.arrive(ME, export, &self.record, |_| true);
    }
}

#[test]
fn node_3_an_empty_slot_is_served_when_the_store_has_heard_of_its_owner() {
    let mut world = World::new();
    assert_eq!(world.see(place(ME, 3, 3, None)), [Change::Claim { token: view(3) }]);
    assert!(!world.serves());
    world.slots.claimed(SLOT, view(2));
    assert_eq!(world.slots.waiting(), [], "of an earlier one");
    assert_eq!(world.slots.open(SLOT), None);
    world.slots.claimed(SLOT, view(3));
    assert_eq!(world.slots.waiting(), [SLOT]);
    assert!(!world.serves(), "something may go before it");
    assert_eq!(world.slots.open(SLOT), Some(Change::Opened));
    assert!(world.serves());
    world.slots.claimed(SLOT, view(3));
    assert_eq!(world.slots.open(SLOT), None);
}

#[test]
fn node_3_what_the_store_refuses_is_served_no_more() {
    let mut world = World::serving();
    world.slots.deposed(SLOT, view(0), view(4));
    assert!(world.serves(), "that was an earlier owner");
    world.slots.deposed(SLOT, view(1), view(4));
    assert!(!world.serves());
    assert_eq!(world.slots.usurped(view(3)), [], "a view may say who");
    assert_eq!(world.slots.usurped(view(4)), [SLOT], "no view has said it");
    world.slots.claimed(SLOT, view(1));
    assert_eq!(world.slots.open(SLOT), None, "an answer from before");
    assert_eq!(world.see(place(ME, 1, 1, None)), []);
    assert!(!world.serves());
    assert_eq!(world.see(place(OTHER, 4, 4, None)), [Change::GivenUp { lost: true }]);
}

#[test]
fn node_9_a_slot_that_moves_takes_nothing_and_is_forgotten_when_it_is_elsewhere() {
    let mut world = World::serving();
    assert_eq!(world.see(place(ME, 1, 1, Some((OTHER, 2)))), [Change::Frozen]);
    assert!(!world.serves());
    assert_eq!(world.slots.due(|_| false), [], "it has sent something that has no answer");
    assert_eq!(world.slots.due(|_| true), [SLOT]);
    assert_eq!(world.slots.due(|_| true), [], "once");
    let export = world.export().unwrap();
    assert_eq!((export.began, export.lost, export.seen), (view(2), view(1), view(9)));
    assert!(world.slots.home(SLOT).is_some(), "it may have to stay");
    assert_eq!(world.see(place(OTHER, 3, 1, None)), [Change::GivenUp { lost: false }]);
    assert!(world.slots.home(SLOT).is_none());
}

#[test]
fn node_9_jobs_are_finished_before_a_slot_is_exported() {
    let mut world = World::serving();
    let job = world.slots.begin(SLOT).unwrap();
    world.see(place(ME, 1, 1, Some((OTHER, 2))));
    assert_eq!(world.slots.due(|_| true), []);
    world.slots.finish(job);
    assert_eq!(world.slots.due(|_| true), [SLOT]);
}

#[test]
fn node_9_a_job_of_an_earlier_stay_is_not_one_of_this() {
    let mut world = World::serving();
    let old = world.slots.begin(SLOT).unwrap();
    world.see(place(OTHER, 2, 2, None));
    world.see(place(ME, 3, 3, None));
    world.slots.claimed(SLOT, view(3));
    world.slots.open(SLOT);
    let _new = world.slots.begin(SLOT).unwrap();
    world.slots.finish(old);
    world.see(place(ME, 3, 3, Some((OTHER, 4))));
    assert_eq!(world.slots.due(|_| true), []);
}

#[test]
fn node_9_a_cancelled_move_goes_on_where_it_was() {
    let mut world = World::serving();
    world.see(place(ME, 1, 1, Some((OTHER, 2))));
    assert_eq!(world.slots.due(|_| true), [SLOT]);
    assert_eq!(world.see(place(ME, 3, 1, None)), []);
    assert!(!world.serves(), "something may be held for it");
    assert_eq!(world.slots.open(SLOT), Some(Change::Thawed));
    assert!(world.serves());
    assert_eq!(world.export(), None);
    // And begun again, maybe unseen in between.
    world.see(place(ME, 3, 1, Some((OTHER, 4))));
    assert_eq!(world.slots.due(|_| true), [SLOT]);
    assert_eq!(world.see(place(ME, 5, 1, Some((OTHER, 6)))), []);
    assert_eq!(world.slots.due(|_| true), [SLOT], "that is another move");
    assert_eq!(world.export().unwrap().began, view(6));
}

#[test]
fn node_9_a_slot_that_was_not_open_yet_is_not_exported() {
    let mut world = World::new();
    world.see(place(ME, 1, 1, Some((OTHER, 2))));
    assert_eq!(world.slots.due(|_| true), []);
    world.slots.claimed(SLOT, view(1));
    assert_eq!(world.slots.open(SLOT), None, "frozen");
    assert_eq!(world.slots.due(|_| true), [SLOT]);
}

#[test]
fn node_9_what_has_arrived_lives_here_when_a_view_says_so() {
    let mut world = World::new();
    world.see(place(OTHER, 1, 1, Some((ME, 2))));
    world.arrive(2, 1);
    assert_eq!(world.slots.arrived(ME, &world.record), [SLOT]);
    assert!(!world.serves());
    let [Change::Arrived(export)] = &world.see(place(ME, 3, 1, None))[..] else { panic!() };
    assert_eq!(*export.content, *b"all");
    assert!(!world.serves(), "something may go before it");
    assert_eq!(world.slots.open(SLOT), Some(Change::Thawed));
    assert!(world.serves());
    assert_eq!(world.slots.home(SLOT).unwrap().token, view(3));
    assert_eq!(world.slots.home(SLOT).unwrap().state, State::Open);
}

#[test]
fn node_9_the_picture_of_another_move_is_not_taken() {
    let mut world = World::new();
    world.see(place(OTHER, 1, 1, Some((ME, 2))));
    world.arrive(1, 1);
    assert_eq!(world.slots.arrived(ME, &world.record), []);
    world.arrive(2, 1);
    world.see(place(OTHER, 3, 1, Some((ME, 4))));
    assert_eq!(world.slots.arrived(ME, &world.record), [], "cancelled, and begun again");
    assert_eq!(world.see(place(ME, 5, 5, None)), [Change::Claim { token: view(5) }]);
}

#[test]
fn node_10_what_is_lost_on_the_way_begins_empty() {
    let mut world = World::new();
    world.see(place(OTHER, 1, 1, Some((ME, 2))));
    world.arrive(2, 1);
    assert_eq!(world.see(place(ME, 3, 3, None)), [Change::Claim { token: view(3) }]);
}

#[test]
fn node_11_a_slot_that_is_lost_and_here_again_begins_empty() {
    let mut world = World::serving();
    let changes = [Change::GivenUp { lost: true }, Change::Claim { token: view(2) }];
    assert_eq!(world.see(place(ME, 2, 2, None)), changes);
    assert!(!world.serves());
}

#[test]
fn node_9_a_move_that_takes_too_long_is_late() {
    let settings = Settings::of_tests();
    let mut world = World::serving();
    assert_eq!(world.slots.next_late(&settings), None);
    world.see(place(ME, 1, 1, Some((OTHER, 2))));
    assert_eq!(world.slots.next_late(&settings), Some(NOW + settings.patience));
    assert_eq!(world.slots.late(NOW, &settings), []);
    assert_eq!(world.slots.late(NOW + settings.patience, &settings), [SLOT]);
}

#[test]
fn node_9_a_slot_that_leaves_before_it_is_open_takes_along_what_had_come_with_it() {
    let mut world = World::new();
    world.see(place(OTHER, 1, 1, Some((ME, 2))));
    world.arrive(2, 1);
    world.see(place(ME, 3, 1, None));
    let job = world.slots.begin(SLOT).unwrap();
    assert_eq!(world.see(place(ME, 3, 1, Some((OTHER, 4)))), [Change::Frozen]);
    assert_eq!(world.slots.open(SLOT), None);
    assert_eq!(world.slots.due(|_| true), [], "what has come for it is to be refused first");
    world.slots.finish(job);
    assert_eq!(world.slots.due(|_| true), [SLOT]);
    assert_eq!(world.export().unwrap().lost, view(1));
}
