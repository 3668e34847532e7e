//! One node, by hand: what a world of seeds does not come to, or not alone.

use std::sync::Arc;
use std::time::Duration;

use super::Break;
use crate::cluster::Settings;
use crate::cluster::engine::{Answer, Ask};
use crate::cluster::frame::{
    Body, Frame, Numbered, Post, Receipt, Recipient, Recipients, Refused, Word,
};
use crate::cluster::member::AskId;
use crate::cluster::node::{Effect, Node, Stored, Work};
use crate::cluster::record::{Lease, Member, Move, Place, Record};
use crate::cluster::slots::{Change, Export, Job};
use crate::cluster::view::{Incarnation, Slot, View};

const ME: Incarnation = Incarnation(1);
const OTHER: Incarnation = Incarnation(2);
const THIRD: Incarnation = Incarnation(3);
/// It lives here, and that one at the other node.
const MINE: Slot = Slot(0);
const THEIRS: Slot = Slot(1);

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn view(number: u64) -> View {
    View { term: 1, number }
}

fn lease(incarnation: Incarnation, settled: View) -> Lease {
    let name = format!("node{}", incarnation.0).into();
    Lease {
        incarnation,
        name,
        seen: settled,
        settled,
        leaving: false,
        ttl: Settings::of_tests().ttl,
        store: Arc::default(),
    }
}

fn record(
    number: u64,
    members: &[Incarnation],
    owners: [Incarnation; 2],
    lost: [u64; 2],
) -> Record {
    let member = |one: &Incarnation| Member { name: lease(*one, view(0)).name, incarnation: *one };
    let place = |(owner, lost)| Place {
        owner: Some(owner),
        since: view(lost),
        lost: view(lost),
        refused: false,
        moving: None,
    };
    Record {
        view: view(number),
        instance: "1".into(),
        members: members.iter().map(member).collect(),
        places: owners.into_iter().zip(lost).map(place).collect(),
    }
}

struct World {
    node: Node,
    now: Duration,
    ask: AskId,
    /// What it has wanted, but calls of the engine.
    wanted: Vec<Effect>,
    settled: View,
}

impl World {
    /// A node that serves its slot in view 1, beside another one. It is the last in the row of leaders.
    fn new(broken: Option<Break>) -> Self {
        let settings = Settings { broken, ..Settings::of_tests() };
        let node = Node::new(ME, "z".into(), 2, settings);
        let mut world = Self { node, now: ms(0), ask: 0, wanted: Vec::new(), settled: view(9) };
        world.see(record(1, &[ME, OTHER], [ME, OTHER], [1, 1]));
        world.store(Stored::Done);
        assert!(world.node.serves(MINE));
        world.wanted.clear();
        world
    }

    /// One that has got their slot, with all that it had, and has sent it something before: that has no answer yet.
    fn with_theirs(broken: Option<Break>) -> Self {
        let mut world = Self::new(broken);
        world.say("0");
        let mut moving = record(2, &[ME, OTHER], [ME, OTHER], [1, 1]);
        moving.places[1].moving = Some(Move { to: ME, began: view(2) });
        world.see(moving);
        let export = Export {
            slot: THEIRS,
            began: view(2),
            lost: view(1),
            seen: view(2),
            content: (*b"all").into(),
            outgoing: Vec::new(),
        };
        let frame = Arc::new(Frame { source: None, body: Body::Export(export) });
        world.hear_post(OTHER, 2, vec![Numbered { seq: 1, view: view(2), frame }], 0, &[]);
        let mut come = record(3, &[ME, OTHER], [ME, ME], [1, 1]);
        come.places[1].since = view(3);
        world.see(come);
        world
    }

    fn take(&mut self) {
        self.node.open(self.now, |_| true);
        self.node.settle(self.now);
        while let Some(effect) = self.node.poll() {
            match effect {
                Effect::Ask(id, Ask::Renew { .. }) => self.ask = id,
                Effect::Ask(..) => {}
                other => self.wanted.push(other),
            }
        }
    }

    fn answer(&mut self, record: Record) {
        let living: Vec<_> =
            record.members.iter().map(|one| lease(one.incarnation, self.settled)).collect();
        let record = Some(Arc::new(record));
        let answer = Answer { done: true, instance: "1".into(), living: living.into(), record };
        self.node.handle_answer(self.now, self.ask, answer);
        self.take();
    }

    /// The lease is renewed, and this record comes with the answer.
    fn see(&mut self, record: Record) {
        self.now += ms(400);
        self.node.handle_timeout(self.now);
        self.take();
        self.answer(record);
    }

    fn store(&mut self, stored: Stored) {
        let job = Job { slot: MINE, token: view(1) };
        self.node.handle_stored(self.now, job, stored);
        self.take();
    }

    /// A post of one frame, with what it answers.
    fn hear(
        &mut self,
        from: Incarnation,
        seq: u64,
        stamp: u64,
        source: Slot,
        handled: u64,
        refused: &[u64],
    ) {
        let frame = Arc::new(Frame { source: Some(source), body: stanza("hello", MINE) });
        let frames = vec![Numbered { seq, view: view(stamp), frame }];
        self.hear_post(from, stamp, frames, handled, refused);
    }

    fn hear_post(
        &mut self,
        from: Incarnation,
        seen: u64,
        frames: Vec<Numbered>,
        handled: u64,
        refused: &[u64],
    ) {
        let refused =
            refused.iter().map(|seq| Refused { seq: *seq, slots: vec![THEIRS] }).collect();
        let post = Post { from, view: view(seen), base: 1, frames, handled, refused, again: false };
        self.node.handle_post(self.now, &post.encode());
        self.take();
    }

    fn say(&mut self, text: &str) -> bool {
        let to =
            smallvec::smallvec![Recipient { slot: THEIRS, account: "romeo@example.com".into() }];
        let submitted =
            self.node.submit(self.now, MINE, to, text.as_bytes().into(), Receipt::default());
        self.take();
        assert!(submitted.bounced.is_empty() || submitted.is_pressed);
        submitted.bounced.is_empty()
    }

    fn say_presence(&mut self, from: &str, text: &str, is_for_all: bool) {
        let to =
            smallvec::smallvec![Recipient { slot: THEIRS, account: "romeo@example.com".into() }];
        let word = Word { from: from.into(), is_available: !text.starts_with('-'), is_for_all };
        self.node.submit_presence(self.now, Some(MINE), to, word, text.as_bytes().into());
        self.take();
    }

    fn posts(&mut self) -> Vec<(Incarnation, Post)> {
        let posts = self.wanted.iter().filter_map(|effect| match effect {
            Effect::Post(to, post) => Some((*to, Post::decode(post).expect("a post"))),
            _ => None,
        });
        let posts = posts.collect();
        self.wanted.clear();
        posts
    }

    fn handled(&self) -> Vec<Work> {
        let work = |effect: &Effect| match effect {
            Effect::Handle { work, .. } => Some(*work),
            _ => None,
        };
        self.wanted.iter().filter_map(work).collect()
    }

    fn is_fenced(&self) -> bool {
        matches!(self.wanted.last(), Some(Effect::Fenced))
    }
}

fn stanza(text: &str, slot: Slot) -> Body {
    let to = smallvec::smallvec![Recipient { slot, account: "juliet@example.com".into() }];
    Body::Stanza { to, bytes: text.as_bytes().into(), receipt: Receipt::default() }
}

/// What frames a post has, by their texts.
fn texts(post: &Post) -> Vec<String> {
    let text = |one: &Numbered| match &one.frame.body {
        Body::Stanza { bytes, .. } | Body::Presence { bytes, .. } => {
            String::from_utf8(bytes.to_vec()).expect("text")
        }
        Body::Export(_) => "export".into(),
        Body::Told(_) => "told".into(),
        Body::Up { .. } | Body::Down { .. } => "leg".into(),
    };
    post.frames.iter().map(text).collect()
}

/// Both that the answer is not looked at and that the lease is over for good stand in the way of this.
#[test]
fn node_1_an_answer_behind_the_deadline_is_not_looked_at() {
    for broken in [None, Some(Break::AnswerRevives)] {
        let mut world = World::new(broken);
        let now = world.node.deadline().unwrap();
        world.now = now - ms(50);
        world.node.handle_timeout(world.now);
        world.take();
        world.now = now + ms(50);
        world.answer(record(1, &[ME, OTHER], [ME, OTHER], [1, 1]));
        assert_eq!(world.is_fenced(), broken.is_none(), "{broken:?}");
        assert_eq!(world.node.serves(MINE), broken.is_some(), "{broken:?}");
    }
}

#[test]
fn node_2_a_fenced_node_wants_nothing_any_more() {
    let mut world = World::new(None);
    world.node.submit(world.now, MINE, Recipients::new(), (*b"").into(), Receipt::default());
    let late = world.now + ms(60_000);
    world.node.handle_timeout(late);
    world.node.open(world.now, |_| true);
    world.node.settle(world.now);
    let effects: Vec<_> = std::iter::from_fn(|| world.node.poll()).collect();
    assert!(matches!(effects[..], [Effect::Fenced]), "{effects:?}");
    world.node.handle_timeout(late);
    world.node.handle_hint(late);
    assert!(world.node.poll().is_none());
    assert!(!world.node.serves(MINE));
}

#[test]
fn node_3_a_slot_that_the_store_refuses_waits_for_a_newer_view() {
    let mut world = World::new(None);
    world.store(Stored::Refused { by: view(2) });
    assert!(!world.node.serves(MINE));
    assert!(!world.is_fenced());
    world.see(record(2, &[ME, OTHER], [OTHER, OTHER], [2, 1]));
    let wanted = &world.wanted[..];
    let [
        Effect::Emptied(MINE),
        Effect::Slot(MINE, Change::GivenUp { lost: true }),
        Effect::Lost { .. },
    ] = wanted
    else {
        panic!("{wanted:?}")
    };
}

/// Two engines at once: nodes that know another one had taken the slot, in a term that is over.
#[test]
fn node_3_a_slot_that_nodes_of_another_engine_have_used_begins_anew() {
    let mut world = World::new(None);
    world.node.handle_stored(
        world.now,
        Job { slot: MINE, token: view(1) },
        Stored::Refused { by: view(3) },
    );
    let written = |world: &mut World| {
        let mut written = Vec::new();
        world.node.open(world.now, |_| true);
        world.node.settle(world.now);
        while let Some(effect) = world.node.poll() {
            if let Effect::Ask(_, Ask::Replace { over, record }) = effect {
                written.push((over, record));
            }
        }
        written
    };
    assert_eq!(written(&mut world), [], "a later view may say who has it");
    world.now += ms(400);
    world.node.handle_timeout(world.now);
    world.node.open(world.now, |_| true);
    world.node.settle(world.now);
    while let Some(effect) = world.node.poll() {
        if let Effect::Ask(id, Ask::Renew { .. }) = effect {
            world.ask = id;
        }
    }
    let current = Record { view: view(5), ..record(5, &[ME, OTHER], [ME, OTHER], [1, 1]) };
    let living = [ME, OTHER].map(|node| lease(node, view(9)));
    let answer = Answer {
        done: true,
        instance: "1".into(),
        living: living.into(),
        record: Some(Arc::new(current.clone())),
    };
    world.node.handle_answer(world.now, world.ask, answer);
    let [(over, next)] = &written(&mut world)[..] else { panic!("one record") };
    assert_eq!((*over, next.view), (Some(view(5)), view(6)));
    let anew =
        Place { owner: Some(ME), since: view(6), lost: view(6), moving: None, refused: false };
    assert_eq!((next.places[0], next.places[1]), (anew, current.places[1]));
    world.see(Record::clone(next));
    let claims = |effect: &Effect| matches!(effect, Effect::Claim { slot: MINE, token } if *token == view(6));
    assert!(world.wanted.iter().any(claims), "{:?}", world.wanted);
}

#[test]
fn node_3_a_node_that_the_store_refuses_for_a_newer_term_is_fenced() {
    let mut world = World::new(None);
    world.store(Stored::Refused { by: View::first_of(2) });
    assert!(world.is_fenced());
}

#[test]
fn node_4_who_is_no_member_is_not_heard() {
    for (broken, heard) in [(None, 0), (Some(Break::StrangersHeard), 1)] {
        let mut world = World::new(broken);
        world.hear(THIRD, 1, 1, THEIRS, 0, &[]);
        assert_eq!(world.handled().len(), heard, "{broken:?}");
    }
}

#[test]
fn node_4_what_a_slot_sent_before_it_was_lost_is_void() {
    for (broken, heard) in [(None, 0), (Some(Break::VoidHeard), 1)] {
        let mut world = World::new(broken);
        world.see(record(2, &[ME, OTHER], [ME, OTHER], [1, 2]));
        world.hear(OTHER, 1, 1, THEIRS, 0, &[]);
        assert_eq!(world.handled().len(), heard, "{broken:?}");
        world.hear(OTHER, 2, 2, THEIRS, 0, &[]);
        assert_eq!(world.handled().len(), heard + 1, "{broken:?}");
    }
}

#[test]
fn node_4_a_frame_of_a_newer_view_is_taken_when_that_is_known() {
    let mut world = World::new(None);
    world.hear(OTHER, 1, 2, THEIRS, 0, &[]);
    assert_eq!(world.handled(), []);
    world.see(record(2, &[ME, OTHER], [ME, OTHER], [1, 1]));
    world.hear(OTHER, 1, 2, THEIRS, 0, &[]);
    assert_eq!(world.handled().len(), 1);
}

#[test]
fn node_4_a_frame_of_before_a_slot_came_is_refused() {
    let mut world = World::new(None);
    world.see(record(2, &[ME, OTHER], [ME, OTHER], [2, 1]));
    world.hear(OTHER, 1, 1, THEIRS, 0, &[]);
    assert_eq!(world.handled(), []);
    let (_, answer) = world.posts().pop().unwrap();
    assert_eq!((answer.handled, answer.refused), (1, vec![Refused { seq: 1, slots: vec![MINE] }]));
}

#[test]
fn node_4_what_is_sent_again_bears_the_view_of_then() {
    for (broken, taken) in [(None, 0), (Some(Break::StampedAnew), 1)] {
        let mut world = World::new(broken);
        // A move of its slot was begun, and cancelled.
        let mut later = record(3, &[ME, OTHER], [ME, OTHER], [1, 1]);
        later.places[0].since = view(3);
        world.see(later);
        let frame = Arc::new(Frame { source: Some(THEIRS), body: stanza("hello", MINE) });
        let frames = vec![Numbered { seq: 1, view: view(1), frame }];
        let (from, refused) = (OTHER, Vec::new());
        let post = Post { from, view: view(3), base: 1, frames, handled: 0, refused, again: false };
        world.node.handle_post(world.now, &post.encode());
        world.take();
        assert_eq!(world.handled().len(), taken, "{broken:?}");
    }
}

#[test]
fn node_5_a_frame_is_answered_when_it_is_handled() {
    for (broken, at_once) in [(None, 0), (Some(Break::AckOnReceipt), 1)] {
        let mut world = World::new(broken);
        world.hear(OTHER, 1, 1, THEIRS, 0, &[]);
        let work = world.handled().pop().unwrap();
        assert_eq!(world.posts().pop().unwrap().1.handled, at_once, "{broken:?}");
        world.node.finish(world.now, work);
        world.take();
        assert_eq!(world.posts().pop().map_or(1, |(_, post)| post.handled), 1);
    }
}

/// Its sender is told that it is handled by its receipt.
#[test]
fn sm_5_what_a_node_tells_itself_is_handled_when_it_is_done() {
    for broken in [None, Some(Break::AckOnReceipt)] {
        let (mut world, sent) = (World::new(broken), Arc::new(()));
        let to =
            smallvec::smallvec![Recipient { slot: MINE, account: "juliet@example.com".into() }];
        let receipt = Receipt::new(Arc::clone(&sent));
        world.node.submit(world.now, MINE, to, (*b"hello").into(), receipt);
        world.take();
        let [work] = world.handled()[..] else { panic!("it is taken") };
        assert_eq!(Arc::strong_count(&sent) > 1, broken.is_none(), "{broken:?}");
        assert_eq!(world.node.is_through(MINE), broken.is_some(), "{broken:?}");
        world.node.finish(world.now, work);
        assert_eq!(Arc::strong_count(&sent), 1);
        assert!(world.node.is_through(MINE));
    }
}

#[test]
fn node_6_what_is_refused_comes_again_in_front_of_what_is_new() {
    let mut world = World::new(None);
    (0..2).for_each(|n| assert!(world.say(&format!("{n}"))));
    assert_eq!(world.posts().iter().flat_map(|(_, post)| texts(post)).collect::<String>(), "01");
    world.hear(OTHER, 1, 1, THEIRS, 1, &[1]);
    world.say("2");
    assert_eq!(world.posts().iter().flat_map(|(_, post)| texts(post)).count(), 0, "1 is under way");
    world.hear(OTHER, 2, 1, THEIRS, 2, &[1, 2]);
    let again = world.posts();
    assert_eq!(again.iter().flat_map(|(_, post)| texts(post)).collect::<String>(), "012");
}

#[test]
fn node_7_who_fills_a_slot_is_to_pause_and_then_gets_it_back() {
    let mut world = World::new(None);
    let text = "x".repeat(100);
    let taken = (0..100).take_while(|_| world.say(&text)).count();
    assert!((10..40).contains(&taken), "{taken} of 100 bytes in {}", Settings::of_tests().hard);
    assert!(world.node.most_bytes() < Settings::of_tests().hard + 400);
    world.hear(OTHER, 1, 1, THEIRS, taken as u64, &[]);
    assert_eq!(world.node.most_bytes(), 0);
    assert!(world.say(&text));
}

#[test]
fn node_10_what_the_dead_have_not_answered_goes_to_who_has_the_slot_now() {
    let mut world = World::new(None);
    world.see(record(2, &[ME, OTHER, THIRD], [ME, OTHER], [1, 1]));
    world.say("0");
    world.posts();
    world.see(record(3, &[ME, THIRD], [ME, THIRD], [1, 3]));
    let mut posts = world.posts();
    // It was time to say it again, before that was known.
    posts.retain(|(to, _)| *to != OTHER);
    assert_eq!(
        posts.iter().map(|(to, post)| (*to, texts(post))).collect::<Vec<_>>(),
        [(THIRD, vec!["0".into()])]
    );
    assert_eq!(posts[0].1.frames[0].view, view(3), "it is numbered anew, for somebody else");
}

/// A home that had heard it, and handed its slot over, may have died before it said so: then all would be heard again,
/// and "available" behind the end.
#[test]
fn node_18_of_presence_only_the_last_word_is_said_again() {
    for (broken, again) in
        [(None, "m b1 -a2 b2"), (Some(Break::PresenceSentAgain), "a1 m b1 -a2 b2")]
    {
        let mut world = World::new(broken);
        world.see(record(2, &[ME, OTHER, THIRD], [ME, OTHER], [1, 1]));
        world.say_presence("juliet@example.com/a", "a1", true);
        world.say("m");
        world.say_presence("juliet@example.com/b", "b1", true);
        world.say_presence("juliet@example.com/a", "-a2", true);
        // An answer to one session leaves what the others were told.
        world.say_presence("juliet@example.com/b", "b2", false);
        world.posts();
        world.see(record(3, &[ME, THIRD], [ME, THIRD], [1, 3]));
        let mut posts = world.posts();
        posts.retain(|(to, _)| *to == THIRD);
        let said: Vec<_> = posts.iter().flat_map(|(_, post)| texts(post)).collect();
        assert_eq!(said.join(" "), again, "{broken:?}");
    }
}

/// Whose slot was lost was told of by it, until then; whose owner only is another one was not lost.
#[test]
fn node_17_what_is_lost_is_said_when_a_view_says_so() {
    let lost = |world: &World| {
        let lost = |effect: &Effect| match effect {
            Effect::Lost { slots, only } => Some((slots.clone(), *only)),
            _ => None,
        };
        world.wanted.iter().filter_map(lost).collect::<Vec<_>>()
    };
    for (broken, says) in [(None, 0), (Some(Break::SweepByOwner), 1)] {
        let mut world = World::new(broken);
        // It had moved on before its former owner went.
        let mut moved = record(2, &[ME, THIRD], [ME, THIRD], [1, 1]);
        moved.places[1].since = view(2);
        world.see(moved);
        assert_eq!(lost(&world).len(), says, "{broken:?}");
    }
    let mut world = World::new(None);
    world.see(record(2, &[ME, THIRD], [ME, THIRD], [1, 2]));
    assert_eq!(lost(&world), [(vec![THEIRS], None)]);
    world.see(record(3, &[ME, THIRD], [ME, THIRD], [1, 2]));
    assert_eq!(lost(&world).len(), 1, "once");
}

#[test]
fn node_7_presence_is_heard_however_much_waits() {
    let mut world = World::new(None);
    let text = "x".repeat(100);
    while world.say(&text) {}
    world.say_presence("juliet@example.com/a", "-a", true);
    let said: Vec<_> = world.posts().iter().flat_map(|(_, post)| texts(post)).collect();
    assert_eq!(said.last().map(|text| &**text), Some("-a"));
}

#[test]
fn node_10_what_goes_to_a_slot_that_has_come_here_is_handled_here() {
    let mut world = World::new(None);
    world.say("0");
    world.posts();
    world.see(record(2, &[ME], [ME, ME], [1, 2]));
    assert_eq!(world.handled().len(), 0, "the store has not heard of its owner");
    world.node.handle_stored(world.now, Job { slot: THEIRS, token: view(2) }, Stored::Done);
    world.take();
    let opened = |effect: &Effect| matches!(effect, Effect::Slot(THEIRS, Change::Opened));
    let handles = |effect: &Effect| matches!(effect, Effect::Handle { .. });
    let [.., first, last] = &world.wanted[..] else { panic!("{:?}", world.wanted) };
    assert!(opened(first) && handles(last), "{:?}", world.wanted);
}

/// That is open, and elsewhere again, as if it had never been here.
#[test]
fn node_9_what_comes_for_a_slot_that_leaves_before_it_is_open_is_refused() {
    let mut world = World::with_theirs(None);
    let frame = Arc::new(Frame { source: None, body: stanza("early", THEIRS) });
    world.hear_post(OTHER, 3, vec![Numbered { seq: 2, view: view(3), frame }], 0, &[]);
    let [work] = world.handled()[..] else { panic!("{:?}", world.wanted) };
    assert!(!world.node.does(work.job), "it waits");
    let mut leaves = record(4, &[ME, OTHER], [ME, ME], [1, 1]);
    leaves.places[1].since = view(3);
    leaves.places[1].moving = Some(Move { to: OTHER, began: view(4) });
    world.wanted.clear();
    world.see(leaves);
    let slot = |effect: &Effect| matches!(effect, Effect::Slot(THEIRS, Change::Frozen));
    assert!(world.wanted.iter().any(slot), "{:?}", world.wanted);
    assert!(world.node.refuse(work));
    world.take();
    let posts = world.posts();
    let (to, post) = posts.last().expect("an answer");
    let refused = Refused { seq: 2, slots: vec![THEIRS] };
    assert_eq!((*to, post.handled, &post.refused[..]), (OTHER, 2, &[refused][..]));
}

/// Nobody here may speak to it before what was sent to where it was has an answer (NODE-6).
#[test]
fn node_6_a_slot_that_has_come_is_open_when_nothing_is_under_way_to_where_it_was() {
    for broken in [None, Some(Break::OpensAtOnce)] {
        let mut world = World::with_theirs(broken);
        assert_eq!(
            world.node.serves(THEIRS),
            broken.is_some(),
            "its former owner has not said what it took"
        );
        if broken.is_some() {
            continue;
        }
        world.say("1");
        assert_eq!(world.handled().len(), 0);
        world.hear_post(OTHER, 3, Vec::new(), 1, &[1]);
        assert!(world.node.serves(THEIRS));
        let effects = world.wanted.iter().filter(|effect| !matches!(effect, Effect::Post(..)));
        let effects: Vec<_> = effects.collect();
        let [
            ..,
            Effect::Slot(THEIRS, Change::Thawed),
            Effect::Handle { bytes, .. },
            Effect::Handle { bytes: next, .. },
        ] = &effects[..]
        else {
            panic!("{effects:?}")
        };
        assert_eq!((&**bytes, &**next), (&b"0"[..], &b"1"[..]));
    }
}

#[test]
fn node_19_a_node_has_left_when_nobody_waits_for_anything() {
    for (broken, at_once) in [(None, false), (Some(Break::LeavesAtOnce), true)] {
        let mut world = World::new(broken);
        world.node.leave(false);
        world.settled = view(1);
        world.see(record(2, &[ME, OTHER], [OTHER, OTHER], [2, 1]));
        let has_left = |world: &World| world.wanted.iter().any(|one| matches!(one, Effect::Left));
        assert_eq!(
            has_left(&world),
            at_once,
            "somebody waits for an answer to what it numbered in view 1"
        );
        world.settled = view(2);
        world.see(record(2, &[ME, OTHER], [OTHER, OTHER], [2, 1]));
        assert!(has_left(&world));
    }
}
