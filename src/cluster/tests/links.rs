//! Links, flows and the bytes of posts, each alone.

use std::sync::Arc;
use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use crate::cluster::Settings;
use crate::cluster::flow::Flow;
use crate::cluster::frame::{Body, Frame, Numbered, Post, Receipt, Recipient, Refused, Word};
use crate::cluster::leg::{Down, Ending, LegId, Up};
use crate::cluster::link::{Arrival, Link};
use crate::cluster::record::{Move, Place};
use crate::cluster::slots::Export;
use crate::cluster::view::{Incarnation, Slot, View};
use crate::stream::StreamCondition;

const ME: Incarnation = Incarnation(1);
const OTHER: Incarnation = Incarnation(2);
const RESEND: Duration = Duration::from_millis(200);

fn view(number: u64) -> View {
    View { term: 1, number }
}

fn frame(text: &str, slots: &[u16]) -> Arc<Frame> {
    let recipient =
        |slot: &u16| Recipient { slot: Slot(*slot), account: format!("a{slot}").into() };
    let to = slots.iter().map(recipient).collect();
    Arc::new(Frame {
        source: None,
        body: Body::Stanza { to, bytes: text.as_bytes().into(), receipt: Receipt::default() },
    })
}

fn text(frame: &Frame) -> String {
    let (Body::Stanza { bytes, .. } | Body::Presence { bytes, .. }) = &frame.body else {
        panic!("a stanza")
    };
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Presence of a session of a slot: `-` is its end.
fn presence(from: &str, text: &str, slots: &[u16]) -> Arc<Frame> {
    let to = frame(text, slots).body.to().to_vec();
    let is_available = !text.starts_with('-');
    let word = Word { from: from.into(), is_available, is_for_all: true };
    let body = Body::Presence { to: to.into(), word, bytes: text.as_bytes().into() };
    Arc::new(Frame { source: Some(Slot(9)), body })
}

fn flush(link: &mut Link, ms: u64) -> Option<Post> {
    link.flush(ME, view(1), Duration::from_millis(ms), RESEND, Duration::ZERO)
}

fn seqs(post: &Post) -> Vec<u64> {
    post.frames.iter().map(|numbered| numbered.seq).collect()
}

#[test]
fn node_7_what_waits_goes_in_one_post() {
    let mut link = Link::default();
    assert_eq!(flush(&mut link, 0), None);
    link.number(view(1), frame("a", &[0]));
    link.number(view(2), frame("b", &[0]));
    let post = flush(&mut link, 0).unwrap();
    assert_eq!((seqs(&post), post.base, post.frames[1].view), (vec![1, 2], 1, view(2)));
    assert_eq!(flush(&mut link, 1), None);
}

#[test]
fn node_7_an_answer_that_nobody_waits_for_goes_along_with_something_else() {
    let mut link = Link::default();
    let flush = |link: &mut Link, ms| {
        let answer = Duration::from_millis(20);
        link.flush(ME, view(1), Duration::from_millis(ms), RESEND, answer)
    };
    link.arrives(1, view(1), view(1));
    assert_eq!(flush(&mut link, 5), None);
    link.arrives(2, view(1), view(1));
    assert_eq!(flush(&mut link, 24), None);
    assert_eq!(link.answers_at(Duration::from_millis(20)), Some(Duration::from_millis(25)));
    assert_eq!(flush(&mut link, 25).unwrap().handled, 2, "alone, since the first has waited");
    link.arrives(3, view(1), view(1));
    assert_eq!(flush(&mut link, 26), None);
    link.number(view(1), frame("a", &[0]));
    assert_eq!(flush(&mut link, 27).unwrap().handled, 3, "with a frame");
    assert_eq!(link.answers_at(Duration::ZERO), None);
    link.arrives(4, view(1), view(1));
    link.refuse(4, Slot(0));
    assert!(flush(&mut link, 28).is_some(), "whose it is has to be held");
    link.arrives(4, view(1), view(1));
    assert!(flush(&mut link, 29).is_some(), "who says it again has not heard the answer");
    link.arrives(6, view(1), view(1));
    assert!(flush(&mut link, 30).is_some(), "one is missing");
    for seq in 5..5 + 31 {
        link.arrives(seq, view(1), view(1));
        assert_eq!(flush(&mut link, 31), None);
    }
    link.arrives(36, view(1), view(1));
    assert_eq!(flush(&mut link, 31).unwrap().handled, 36, "what is kept for answers is bounded");
}

#[test]
fn node_5_what_is_lost_is_sent_again_however_much_comes_behind_it() {
    let mut link = Link::default();
    link.number(view(1), frame("lost", &[0]));
    flush(&mut link, 0).unwrap();
    // Nobody is heard asking for it.
    let mut again = Vec::new();
    for ms in (50..3500).step_by(50) {
        link.number(view(1), frame("next", &[0]));
        let post = flush(&mut link, ms).unwrap();
        again.extend(seqs(&post).contains(&1).then_some(ms));
    }
    // Half as often each time, up to a bound.
    assert_eq!(again, [200, 600, 1400, 2200, 3000]);
    // What has an answer begins anew.
    link.answered(5, &[]);
    link.number(view(1), frame("next", &[0]));
    assert_eq!(seqs(&flush(&mut link, 3550).unwrap()), [71]);
    link.number(view(1), frame("next", &[0]));
    assert_eq!(seqs(&flush(&mut link, 3740).unwrap()), [72]);
    assert_eq!(seqs(&flush(&mut link, 3750).unwrap()), (6..=72).collect::<Vec<_>>());
}

#[test]
fn node_5_what_has_no_answer_is_sent_again() {
    let mut link = Link::default();
    link.number(view(1), frame("a", &[0]));
    flush(&mut link, 0).unwrap();
    assert_eq!(flush(&mut link, 199), None);
    let again = flush(&mut link, 200).unwrap();
    assert_eq!((seqs(&again), again.frames[0].view), (vec![1], view(1)), "with the view of then");
    link.number(view(1), frame("b", &[0]));
    assert_eq!(seqs(&flush(&mut link, 201).unwrap()), [2]);
    link.send_again();
    assert_eq!(seqs(&flush(&mut link, 202).unwrap()), [1, 2], "after a gap");
    let answered = link.answered(1, &[]);
    assert_eq!(answered.iter().map(|one| one.numbered.seq).collect::<Vec<_>>(), [1]);
    // From the answer on.
    assert_eq!(flush(&mut link, 203), None);
    assert_eq!(flush(&mut link, 402), None);
    assert_eq!(flush(&mut link, 403).map(|post| (seqs(&post), post.base)), Some((vec![2], 2)));
}

#[test]
fn node_5_what_is_new_does_not_put_off_what_is_sent_again() {
    let mut link = Link::default();
    let mut says = |ms| {
        link.number(view(1), frame("a", &[0]));
        seqs(&flush(&mut link, ms).unwrap())
    };
    assert_eq!((says(0), says(100), says(199)), (vec![1], vec![2], vec![3]));
    assert_eq!(says(200), [1, 2, 3, 4]);
    assert_eq!((says(599), says(600)), (vec![5], vec![1, 2, 3, 4, 5, 6]));
    // Something has an answer: from then on, as at first.
    assert_eq!(link.answered(2, &[]).len(), 2);
    assert_eq!(flush(&mut link, 700), None);
    assert_eq!(flush(&mut link, 899), None);
    assert_eq!(seqs(&flush(&mut link, 900).unwrap()), [3, 4, 5, 6]);
}

#[test]
fn node_5_frames_are_taken_once_and_in_order() {
    let mut link = Link::default();
    assert_eq!(link.arrives(2, view(1), view(1)), Arrival::Early);
    assert!(flush(&mut link, 0).unwrap().again);
    assert_eq!(link.arrives(1, view(1), view(1)), Arrival::Next);
    assert_eq!(link.arrives(1, view(1), view(1)), Arrival::Again);
    assert_eq!(link.arrives(2, view(1), view(1)), Arrival::Next);
    let post = flush(&mut link, 1).unwrap();
    assert_eq!((post.handled, post.again), (2, false));
}

#[test]
fn node_4_a_frame_of_a_newer_view_waits_with_all_behind_it() {
    let mut link = Link::default();
    assert_eq!(link.arrives(1, view(2), view(1)), Arrival::Early);
    assert_eq!(link.arrives(2, view(1), view(1)), Arrival::Early);
    assert_eq!(link.arrives(1, view(2), view(2)), Arrival::Next);
}

#[test]
fn node_5_what_is_missing_is_asked_for_once() {
    let mut link = Link::default();
    let mut asks = |seq, stamp, ms| {
        link.arrives(seq, view(stamp), view(1));
        flush(&mut link, ms).unwrap().again
    };
    assert!(asks(2, 1, 0));
    // All that was under way behind it comes as well.
    assert!(!asks(3, 1, 1));
    assert!(!asks(4, 1, 2));
    assert!(!asks(1, 1, 3));
    assert!(asks(3, 1, 4), "another gap");
}

#[test]
fn node_4_what_is_of_a_newer_view_is_asked_for_when_that_is_known() {
    let mut link = Link::default();
    link.arrives(1, view(2), view(1));
    assert!(!flush(&mut link, 0).unwrap().again);
    link.arrives(2, view(2), view(1));
    assert!(!flush(&mut link, 1).unwrap().again);
    link.view_known();
    assert!(flush(&mut link, 2).unwrap().again);
    link.view_known();
    assert_eq!(flush(&mut link, 3), None);
}

#[test]
fn node_5_an_answer_says_handled_not_received() {
    let mut link = Link::default();
    for seq in 1..=3 {
        link.arrives(seq, view(1), view(1));
    }
    (0..2).for_each(|_| link.begin(2, Slot(0)));
    link.begin(2, Slot(1));
    assert_eq!(flush(&mut link, 0).unwrap().handled, 1);
    link.finish(2, Slot(0));
    link.finish(2, Slot(1));
    assert_eq!(flush(&mut link, 1).unwrap().handled, 1, "one account of two has it");
    link.finish(2, Slot(0));
    assert_eq!(flush(&mut link, 2).unwrap().handled, 3);
    link.finish(2, Slot(0));
    assert_eq!(flush(&mut link, 3), None);
}

#[test]
fn node_5_what_a_slot_cannot_do_any_more_is_refused() {
    let mut link = Link::default();
    link.arrives(1, view(1), view(1));
    link.begin(1, Slot(0));
    link.begin(1, Slot(1));
    link.give_up(Slot(0));
    let refused = [Refused { seq: 1, slots: vec![Slot(0)] }];
    let post = flush(&mut link, 0).unwrap();
    assert_eq!((post.handled, &post.refused[..]), (0, &refused[..]));
    link.finish(1, Slot(1));
    let post = flush(&mut link, 1).unwrap();
    assert_eq!((post.handled, &post.refused[..]), (1, &refused[..]));
    link.known(2);
    link.arrives(2, view(1), view(1));
    assert_eq!(flush(&mut link, 2).unwrap().refused, []);
}

#[test]
fn node_6_a_refused_frame_comes_back_by_slot() {
    let mut link = Link::default();
    link.number(view(1), frame("a", &[0, 1]));
    link.number(view(1), frame("b", &[0]));
    let answered = link.answered(2, &[Refused { seq: 1, slots: vec![Slot(1)] }]);
    assert_eq!(answered[0].refused, [Slot(1)]);
    assert_eq!(answered[1].refused, []);
    assert_eq!(link.resends_at(RESEND), None);
}

fn place(since: u64, moving: bool) -> Place {
    let moving = moving.then_some(Move { to: ME, began: view(since) });
    Place { owner: Some(OTHER), since: view(since), lost: View::default(), moving, refused: false }
}

fn goes(flow: &Flow, place: Place, at: u64) -> bool {
    flow.goes(place, view(at), &Settings::of_tests())
}

fn goes_on(flow: &Flow, place: Place, at: u64) -> bool {
    flow.goes_on(place, view(at), &Settings::of_tests())
}

#[test]
fn node_6_a_flow_stops_where_its_slot_is_moving() {
    let flow = Flow::default();
    assert!(goes(&flow, place(1, false), 1));
    assert!(!goes(&flow, place(1, true), 1));
    assert!(!goes(&flow, Place::default(), 1), "nobody has it");
}

#[test]
fn node_6_a_flow_stops_where_a_former_owner_has_not_answered() {
    let mut flow = Flow::default();
    flow.sent(view(1), 10);
    assert!(goes(&flow, place(1, false), 1), "the same owner");
    assert!(!goes(&flow, place(2, false), 2));
    flow.answered();
    assert!(goes(&flow, place(2, false), 2));
    assert_eq!(flow.bytes(), 0);
}

#[test]
fn node_6_what_came_back_goes_in_front_of_what_is_new() {
    let mut flow = Flow::default();
    flow.sent(view(1), 10);
    flow.sent(view(1), 10);
    flow.hold(frame("c", &[0]));
    flow.answered();
    flow.take_back(frame("a", &[0]), view(2), &Settings::of_tests());
    assert!(!goes_on(&flow, place(2, false), 2), "something is under way");
    flow.answered();
    flow.take_back(frame("b", &[0]), view(2), &Settings::of_tests());
    assert!(!goes_on(&flow, place(1, false), 1), "they would refuse again");
    assert!(!goes(&flow, place(2, false), 2), "there is something in front");
    assert!(goes_on(&flow, place(2, false), 2));
    assert!(flow.bytes() > 0);
    assert_eq!(flow.release().iter().map(|frame| text(frame)).collect::<String>(), "abc");
    assert_eq!((flow.holds(), flow.bytes()), (false, 0));
}

#[test]
fn node_9_what_has_gone_along_is_forgotten() {
    let mut flow = Flow::default();
    let of = |slot| Arc::new(Frame { source: slot, ..Frame::clone(&frame("a", &[0])) });
    flow.hold(of(Some(Slot(1))));
    flow.take_back(of(Some(Slot(1))), view(1), &Settings::of_tests());
    flow.hold(of(Some(Slot(2))));
    flow.forget(Slot(1));
    assert_eq!(flow.held().count(), 1);
    assert_eq!(flow.bytes(), of(None).cost());
}

fn held(frames: &[Arc<Frame>]) -> String {
    let mut flow = Flow::default();
    frames.iter().for_each(|frame| flow.hold(Arc::clone(frame)));
    let bytes: usize = flow.held().map(|frame| frame.cost()).sum();
    assert_eq!(flow.bytes(), bytes);
    flow.release().iter().map(|frame| text(frame)).collect::<Vec<_>>().join(" ")
}

#[test]
fn node_7_of_available_presence_that_is_held_the_latest_is_kept() {
    let a = |text| presence("a@x/1", text, &[0]);
    assert_eq!(held(&[a("1"), a("2"), a("3")]), "3");
    assert_eq!(held(&[a("1"), frame("m", &[0]), a("2")]), "m 2", "of another slot");
}

#[test]
fn node_7_held_presence_stays_where_something_was_said_between() {
    let a = |text| presence("a@x/1", text, &[0]);
    let mut said = Frame::clone(&frame("m", &[0]));
    said.source = Some(Slot(9));
    assert_eq!(held(&[a("1"), Arc::new(said), a("2")]), "1 m 2");
    assert_eq!(held(&[a("1"), a("-"), a("2")]), "1 - 2");
    assert_eq!(held(&[a("1"), presence("b@x/1", "b", &[0]), a("2")]), "1 b 2");
    assert_eq!(held(&[a("1"), presence("a@x/1", "2", &[0, 0])]), "1 2", "for others");
    let one = |text| {
        let mut frame = Frame::clone(&a(text));
        if let Body::Presence { word, .. } = &mut frame.body {
            word.is_for_all = false;
        }
        Arc::new(frame)
    };
    assert_eq!(held(&[a("1"), one("2"), one("3")]), "1 2 3", "for one session");
}

/// What came back is older than what is new.
#[test]
fn node_7_a_new_word_takes_the_place_of_one_that_came_back() {
    let (mut flow, settings) = (Flow::default(), Settings::of_tests());
    flow.take_back(presence("a@x/1", "1", &[0]), view(1), &settings);
    flow.hold(presence("a@x/1", "2", &[0]));
    assert_eq!(flow.release().iter().map(|frame| text(frame)).collect::<String>(), "2");
}

fn any_view() -> impl Strategy<Value = View> {
    (any::<u64>(), any::<u64>()).prop_map(|(term, number)| View { term, number })
}

fn any_stanza() -> impl Strategy<Value = Frame> {
    let recipient = (any::<u16>(), "[a-zü@.]{0,12}");
    let recipient =
        recipient.prop_map(|(slot, name)| Recipient { slot: Slot(slot), account: name.into() });
    let word = ("[a-zü@./]{0,12}", any::<bool>(), any::<bool>());
    let word = word.prop_map(|(from, is_available, is_for_all)| Word {
        from: from.into(),
        is_available,
        is_for_all,
    });
    let source = proptest::option::of(any::<u16>());
    let word = proptest::option::of(word);
    let stanza = (source, vec(recipient, 0..3), word, vec(any::<u8>(), 0..9));
    stanza.prop_map(|(source, to, word, bytes)| Frame {
        source: source.map(Slot),
        body: match word {
            None => {
                Body::Stanza { to: to.into(), bytes: bytes.into(), receipt: Receipt::default() }
            }
            Some(word) => Body::Presence { to: to.into(), word, bytes: bytes.into() },
        },
    })
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let export =
        (any::<u16>(), any_view(), any_view(), vec(any::<u8>(), 0..9), vec(any_stanza(), 0..3));
    let export = export.prop_map(|(slot, began, seen, content, outgoing)| {
        let outgoing = outgoing.into_iter().map(Arc::new).collect();
        let export =
            Export { slot: Slot(slot), began, lost: seen, seen, content: content.into(), outgoing };
        Frame { source: None, body: Body::Export(export) }
    });
    prop_oneof![any_stanza(), export, any_up(), any_down()]
}

fn any_leg() -> impl Strategy<Value = (LegId, u64)> {
    let leg = (any::<u64>(), any::<u64>(), any::<u64>());
    leg.prop_map(|(edge, leg, number)| (LegId { edge: Incarnation(edge), number: leg }, number))
}

fn any_up() -> impl Strategy<Value = Frame> {
    let bytes = || vec(any::<u8>(), 0..9);
    let said = prop_oneof![
        bytes().prop_map(|bytes| Up::Open(bytes.into())),
        bytes().prop_map(|bytes| Up::Input(bytes.into())),
        any::<u32>().prop_map(Up::Alive),
        any::<u64>().prop_map(Up::Taken),
        Just(Up::EndOfInput),
        Just(Up::Gone),
        any::<u32>().prop_map(Up::Handled),
    ];
    (any::<u16>(), any_leg(), said).prop_map(|(slot, (leg, number), said)| Frame {
        source: None,
        body: Body::Up { slot: Slot(slot), leg, number, said },
    })
}

fn any_down() -> impl Strategy<Value = Frame> {
    let condition = proptest::option::of(0..StreamCondition::ALL.len());
    let ending = (condition, any::<bool>()).prop_map(|(at, is_too_long)| {
        let condition = at.map(|at| StreamCondition::ALL[at]);
        Ending { condition, is_too_long }
    });
    let output = (vec(any::<u8>(), 0..9), proptest::option::of(ending));
    let said = prop_oneof![
        output.prop_map(|(bytes, ending)| Down::Output { bytes: bytes.into(), ending }),
        any::<u64>().prop_map(Down::Read),
        Just(Down::Bound),
        Just(Down::Refused),
        any::<bool>().prop_map(|is_flushed| Down::Closed { is_flushed }),
    ];
    (any::<u16>(), any_leg(), said).prop_map(|(source, (leg, number), said)| Frame {
        source: Some(Slot(source)),
        body: Body::Down { leg, number, said },
    })
}

fn any_post() -> impl Strategy<Value = Post> {
    let refused = (any::<u64>(), vec(any::<u16>(), 0..3));
    let refused = refused
        .prop_map(|(seq, slots)| Refused { seq, slots: slots.into_iter().map(Slot).collect() });
    let numbered = (any::<u64>(), any_view(), any_frame());
    let numbered =
        numbered.prop_map(|(seq, view, frame)| Numbered { seq, view, frame: Arc::new(frame) });
    let head = (any::<u64>(), any_view(), any::<u64>(), any::<u64>(), any::<bool>());
    (head, vec(refused, 0..3), vec(numbered, 0..3)).prop_map(|(head, refused, frames)| {
        let (from, view, base, handled, again) = head;
        Post { from: Incarnation(from), view, base, frames, handled, refused, again }
    })
}

proptest! {
    #[test]
    fn node_7_a_post_is_read_as_it_was_written(post in any_post()) {
        prop_assert_eq!(Post::decode(&post.encode()), Some(post));
    }

    /// Whatever comes, it is read in one way or not at all.
    #[test]
    fn node_7_what_is_no_post_is_dropped(
        post in any_post(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = post.encode().to_vec();
        prop_assert_eq!(Post::decode(&bytes[..cut.index(bytes.len())]), None);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Some(post) = Post::decode(&bytes) {
            prop_assert_eq!(&*post.encode(), &*bytes);
        }
    }

    #[test]
    fn node_7_bytes_of_anything_are_read_or_dropped(bytes in vec(any::<u8>(), 0..64)) {
        let _read = Post::decode(&[&[1], &*bytes].concat());
        let _read = Post::decode(&bytes);
    }
}

#[test]
fn node_7_a_post_of_another_version_is_dropped() {
    let post = Post {
        from: ME,
        view: view(1),
        base: 1,
        frames: Vec::new(),
        handled: 0,
        refused: Vec::new(),
        again: false,
    };
    let mut bytes = post.encode().to_vec();
    assert!(Post::decode(&bytes).is_some());
    bytes[0] += 1;
    assert_eq!(Post::decode(&bytes), None);
}
