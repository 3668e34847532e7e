//! Every interleaving of two senders and one hand-over (`RUSTFLAGS="--cfg loom_model"`).

use std::sync::{Arc, Mutex as Log};
use std::time::{Duration, SystemTime};

use jid::{BareJid, FullJid};

use super::limits::RetentionLimits;
use super::*;
use crate::connection::{Close, Connection};
use crate::stanza::Frame;
use crate::sync::Mutex;
use crate::sync::Tally;

/// A transport that records the numbers of the messages it was given.
#[derive(Clone, Default)]
struct Line(Arc<Log<Vec<usize>>>);

impl Line {
    fn got(&self) -> Vec<usize> {
        self.0.lock().unwrap().clone()
    }
}

impl Connection for Line {
    fn send(&self, frame: Frame<'_>) -> Result<(), SendError> {
        let text = frame.to_string();
        let id = text
            .split("id='")
            .nth(1)
            .and_then(|rest| rest.split('\'').next()?.parse::<usize>().ok());
        self.0.lock().unwrap().extend(id);
        Ok(())
    }

    fn close(&self, _: Close) {}
}

fn retained(link: Line) -> Outbound<Line> {
    let mut out = Outbound::new(link, Gates::default(), false);
    let clocks = (Duration::ZERO, SystemTime::UNIX_EPOCH);
    let all = Arc::new(Tally::new(0));
    let retained = Retained::new(String::new(), Duration::from_secs(1), 0, clocks, &all);
    out.retained = Some(Box::new(retained));
    out
}

impl Owner for (FullJid, BareJid) {
    fn jid(&self) -> &FullJid {
        &self.0
    }

    fn account(&self) -> &BareJid {
        &self.1
    }

    fn panicked(&self, _: Option<String>) {}
}

fn addresses() -> (FullJid, BareJid) {
    let jid = FullJid::new("a@x/1").unwrap();
    let account = jid.to_bare();
    (jid, account)
}

fn say(out: &Mutex<Outbound<Line>>, id: usize) {
    let stanza = Stanza::message().id(&id.to_string()).build();
    let writer = Writer { out, owner: &addresses() };
    let limits = RetentionLimits::default();
    let (sent, after) = writer.send(&Item::new(&stanza), None, true, &|| Duration::ZERO, &limits);
    assert_eq!(sent, Ok(()));
    assert!(matches!(after, After::Nothing));
}

fn explore(body: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(body);
}

#[test]
fn sm_22_a_hand_over_between_two_senders_loses_doubles_and_reorders_nothing() {
    explore(|| {
        let (old, new) = (Line::default(), Line::default());
        let out = Arc::new(Mutex::new(retained(old.clone())));
        let senders: Vec<_> = [[0, 1].as_slice(), &[10]]
            .into_iter()
            .map(|ids| {
                let out = Arc::clone(&out);
                loom::thread::spawn(move || ids.iter().for_each(|id| say(&out, *id)))
            })
            .collect();
        // What the client had read when its line was cut.
        let mut got = old.got();
        {
            let mut o = out.lock();
            let handled = u32::try_from(got.len()).unwrap();
            assert!(matches!(o.acknowledge(handled), Some(Acknowledged::Freed(_))));
            drop(o.replace_link(new.clone()));
        }
        out.lock().gates.open(Gate::Greeting);
        let writer = Writer { out: &out, owner: &addresses() };
        assert!(matches!(writer.kick(), After::Nothing));
        for sender in senders {
            sender.join().unwrap();
        }
        got.extend(new.got());
        let one: Vec<_> = got.iter().copied().filter(|id| *id < 10).collect();
        assert_eq!((one, got.len()), (vec![0, 1], 3), "{got:?}");
    });
}

#[test]
fn sm_6_an_acknowledgement_frees_exactly_what_it_covers() {
    explore(|| {
        let line = Line::default();
        let out = Arc::new(Mutex::new(retained(line.clone())));
        let senders: Vec<_> = (0..2)
            .map(|id| {
                let out = Arc::clone(&out);
                loom::thread::spawn(move || say(&out, id))
            })
            .collect();
        // The client acknowledges what it has, perhaps before the writer is back.
        let handled = u32::try_from(line.got().len()).unwrap();
        assert_eq!(out.lock().acknowledge(handled), Some(Acknowledged::Freed(handled)));
        for sender in senders {
            sender.join().unwrap();
        }
        let mut out = out.lock();
        assert_eq!(line.got().len(), 2);
        assert_eq!(out.acknowledge(2), Some(Acknowledged::Freed(2 - handled)));
        let too_high = Acknowledged::TooHigh { handled: 3, sent: 2 };
        assert_eq!((out.queue.bytes(), out.acknowledge(3)), (0, Some(too_high)));
    });
}
