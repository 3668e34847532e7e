//! The order of messages from one stream to one account, over all of its sessions and its store.
//!
//! Of two messages that came by one stream, the later one may be seen before the earlier one for
//! one reason only: when it was given to the session that saw it, the earlier one was with another
//! session of the account that was still there (SM-17).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use xmpp_session::session::Reason;

use super::device::Stream;
use super::spy::{Act, Deed, Key};

/// How an order was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// It was behind, or on its way to, somebody else in the same session.
    InOneSession,
    /// It was on its way still, and had reached neither a session nor the store.
    OnTheWay,
    /// It was in the store.
    PastTheBacklog,
    /// The same, and the store had failed to say so.
    PastTheUnlisted,
    /// It was left by a session that had ended, and nobody had it.
    PastTheLeft(&'static str),
    /// The same, and the later one was stored before it.
    StoredBeforeTheLeft(&'static str),
    /// The same, where the later one had come in before that end and had waited since.
    WaitedBeforeTheLeft(&'static str),
    /// The later one was stored, or waited for its turn, while the earlier one was with a session
    /// that was still there and ended then.
    LeftMeanwhile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// It has come in, or has been left by a session, and may have to wait for its turn.
    Line,
    Session(Key),
    /// The session that replaced the one that had it has inherited it, and has not got it yet.
    Heir(Key),
    Store,
}

impl Place {
    /// The session that keeps it.
    const fn session(self) -> Option<Key> {
        match self {
            Self::Session(key) | Self::Heir(key) => Some(key),
            Self::Line | Self::Store => None,
        }
    }
}

/// Where a message came to.
struct Fact {
    at: usize,
    place: Place,
    /// The sessions of the account that could be found then.
    present: Vec<Key>,
}

struct Track {
    stream: Stream,
    number: u32,
    account: String,
    facts: Vec<Fact>,
    /// The store could not forget it, so that it may come again at any time.
    kept: bool,
}

impl Track {
    fn given(&self, session: Key) -> Option<&Fact> {
        self.facts.iter().find(|fact| matches!(fact.place, Place::Session(key) if key == session))
    }

    /// The last session or store that had it before.
    fn before(&self, at: usize) -> Option<&Fact> {
        let mut before = self.facts.iter().rev().filter(|fact| fact.at < at);
        before.find(|fact| fact.place != Place::Line)
    }

    /// The last session that had it before, and since when.
    fn session_before(&self, at: usize) -> Option<(usize, Key)> {
        let before = self.facts.iter().rev().filter(|fact| fact.at < at);
        let mut sessions = before.filter_map(|fact| Some((fact.at, fact.place.session()?)));
        sessions.next()
    }

    /// When it began to wait for the place that it had then, if it did.
    fn waited(&self, at: usize) -> Option<&Fact> {
        let before = self.facts.iter().rev().find(|fact| fact.at < at);
        before.filter(|fact| fact.place == Place::Line)
    }

    fn history(&self) -> String {
        let facts = self.facts.iter().map(|Fact { at, place, .. }| format!("{at} {place:?}"));
        facts.collect::<Vec<_>>().join(", ")
    }
}

/// Messages of one stream to one account, by number, with the session that saw each first.
type Seen = HashMap<(Stream, String), BTreeMap<u32, (String, Key)>>;

#[derive(Default)]
pub struct Order {
    tracks: HashMap<String, Track>,
    seen: Seen,
    /// The same for each session.
    seen_by: HashMap<Key, Seen>,
    ends: HashMap<Key, Reason>,
    /// The session that has replaced each.
    heirs: HashMap<Key, Key>,
    /// Where the last list of an account's messages has failed.
    unlisted: HashMap<String, usize>,
    facts: usize,
    broken: BTreeSet<String>,
    pub violations: Vec<(Kind, String)>,
}

impl Order {
    /// A message goes to an account, or goes there again in another stream.
    pub fn sent(&mut self, id: &str, stream: Stream, number: u32, account: &str) {
        let account = account.to_owned();
        let track = Track { stream, number, account, facts: Vec::new(), kept: false };
        self.tracks.insert(id.to_owned(), track);
    }

    pub fn sent_again(&mut self, id: &str, stream: Stream) {
        if let Some(track) = self.tracks.get_mut(id) {
            track.stream = stream;
        }
    }

    pub fn done(&mut self, deed: &Deed) {
        self.facts += 1;
        let fact = |place| Fact { at: self.facts, place, present: deed.present.clone() };
        let place = match deed.act {
            Act::Entered => Place::Line,
            Act::Given(session) => Place::Session(session),
            Act::Stored => Place::Store,
            Act::Direct(_) => return,
            Act::Kept => {
                let track = self.tracks.get_mut(&deed.message);
                track.into_iter().for_each(|track| track.kept = true);
                return;
            }
            Act::Unlisted => {
                self.unlisted.insert(deed.message.clone(), self.facts);
                return;
            }
            Act::Ended(session, reason) => {
                self.ends.insert(session, reason);
                let next = match reason {
                    Reason::Replaced { by, .. } => {
                        let heir = Key(session.0, by.get());
                        self.heirs.insert(session, heir);
                        Place::Heir(heir)
                    }
                    _ => Place::Line,
                };
                for track in self.tracks.values_mut() {
                    let last = track.facts.last().and_then(|fact| fact.place.session());
                    track.facts.extend((last == Some(session)).then(|| fact(next)));
                }
                return;
            }
        };
        if let Some(track) = self.tracks.get_mut(&deed.message) {
            track.facts.push(fact(place));
        }
    }

    pub fn received(&mut self, id: &str, session: Key) {
        let Some(track) = self.tracks.get(id) else { return };
        let key = (track.stream, track.account.clone());
        let by_session = self.seen_by.entry(session).or_default().entry(key.clone()).or_default();
        let by_all = self.seen.entry(key).or_default();
        let number = track.number;
        // What has been seen before may come again, in its place.
        let is_first = !by_all.contains_key(&number);
        if track.kept && !is_first {
            return;
        }
        by_session.entry(number).or_insert_with(|| (id.to_owned(), session));
        by_all.entry(number).or_insert_with(|| (id.to_owned(), session));
        let later = by_all.range(number + 1..).filter(|_| is_first);
        let later = by_session.range(number + 1..).chain(later);
        let later: Vec<_> = later.map(|(_, seen)| seen.clone()).collect();
        let judged = later.into_iter().find_map(|(other, by)| {
            let (earlier, later) = (self.tracks.get(id)?, self.tracks.get(&other)?);
            // Handed over in order, on two transports; a client reads them in any.
            let handed = |track: &Track, to| track.given(to).map(|fact| fact.at);
            if let (Some(one), Some(two)) = (handed(earlier, session), handed(later, by))
                && session != by
                && one < two
            {
                return None;
            }
            let kind = self.judge(earlier, later, by)?;
            let (one, two) = (earlier.history(), later.history());
            Some((
                kind,
                format!("{id} [{one}]: got by {session:?} behind {other} [{two}] of {by:?}"),
            ))
        });
        if let Some(judged) = judged
            && self.broken.insert(id.to_owned())
        {
            self.violations.push(judged);
        }
    }

    /// How it came that `by` saw `later` before anybody saw `earlier`; `None` = that is right.
    fn judge(&self, earlier: &Track, later: &Track, by: Key) -> Option<Kind> {
        let Some(given) = later.given(by) else { return Some(Kind::InOneSession) };
        let is_with = |at: &Fact, others: bool| {
            earlier.facts.iter().filter(|fact| fact.at < at.at).any(|fact| {
                let mut holders =
                    std::iter::successors(fact.place.session(), |key| self.heirs.get(key).copied());
                holders.any(|key| at.present.contains(&key) && (key != by || others))
            })
        };
        // Of one attempt it was on its way to all of them from the first.
        let attempt = later.facts.iter().rev().skip_while(|fact| fact.at > given.at);
        let attempt = attempt.take_while(|fact| matches!(fact.place, Place::Session(_)));
        if is_with(attempt.last().unwrap_or(given), false) {
            return None;
        }
        let left = |key| match self.ends.get(&key) {
            Some(Reason::Closed) => "closed",
            Some(Reason::StreamError) => "stream error",
            Some(Reason::TransportLost) => "transport lost",
            Some(Reason::SlowReader) => "slow reader",
            Some(Reason::Replaced { .. }) => "replaced",
            Some(Reason::Evicted) => "evicted",
            Some(Reason::Expired) => "expired",
            Some(Reason::Overflow) => "overflow",
            Some(Reason::Kicked) => "kicked",
            Some(Reason::Shutdown) => "shutdown",
            _ => "other",
        };
        let stored = |track: &Track, at| {
            track.before(at).filter(|fact| matches!(fact.place, Place::Store)).map(|fact| fact.at)
        };
        // Where the store had both, what counts is how they came there.
        let behind = stored(later, given.at)
            .filter(|at| stored(earlier, given.at).is_none_or(|earlier| earlier > *at));
        let point = match behind {
            Some(at) => later.facts.iter().find(|fact| fact.at == at)?,
            None => given,
        };
        // Where one session had left both, what counts is how they came there.
        if let (Some((one, to)), Some((other, from))) =
            (later.session_before(point.at), earlier.session_before(given.at))
            && from == to
            && one < other
        {
            return self.judge(earlier, later, to);
        }
        let waited = later.waited(point.at);
        if behind.is_some() && is_with(point, true)
            || waited.is_some_and(|waited| is_with(waited, behind.is_some()))
        {
            return Some(Kind::LeftMeanwhile);
        }
        Some(match earlier.before(point.at) {
            Some(Fact { place: Place::Store, at, .. }) => {
                match self.unlisted.get(&earlier.account) {
                    Some(failed) if failed >= at => Kind::PastTheUnlisted,
                    _ => Kind::PastTheBacklog,
                }
            }
            Some(Fact { place: Place::Session(key) | Place::Heir(key), .. }) if *key == by => {
                Kind::InOneSession
            }
            Some(Fact { place: Place::Session(key) | Place::Heir(key), at, .. })
                if behind.is_some() =>
            {
                let has_waited =
                    waited.is_some_and(|waited| waited.at < *at || waited.present.contains(key));
                let kind =
                    if has_waited { Kind::WaitedBeforeTheLeft } else { Kind::StoredBeforeTheLeft };
                kind(left(*key))
            }
            Some(Fact { place: Place::Session(key) | Place::Heir(key), .. }) => {
                Kind::PastTheLeft(left(*key))
            }
            None | Some(Fact { place: Place::Line, .. }) => Kind::OnTheWay,
        })
    }
}

mod tests {
    use super::*;

    const ONE: Key = Key(0, 1);
    const TWO: Key = Key(0, 2);

    /// Two messages of one stream come in, and this becomes of them; then `first` has the later one
    /// and `then` the earlier one.
    fn judged(deeds: &[(&str, Act, &[Key])], first: Key, then: Key) -> Option<Kind> {
        let mut order = Order::default();
        for (number, id) in (1..).zip(["m1", "m2"]) {
            order.sent(id, Stream(0, 0), number, "romeo@example.com");
        }
        for (id, act, present) in deeds {
            order.done(&Deed { act: *act, message: (*id).to_owned(), present: present.to_vec() });
        }
        order.received("m2", first);
        order.received("m1", then);
        order.violations.pop().map(|(kind, _)| kind)
    }

    #[test]
    fn the_later_one_may_come_first_while_the_earlier_one_is_with_another_session() {
        let kept = ("m1", Act::Given(ONE), &[ONE][..]);
        let ended = ("", Act::Ended(ONE, Reason::Expired), &[TWO][..]);
        let again = ("m1", Act::Given(TWO), &[TWO][..]);
        let there = ("m2", Act::Given(TWO), &[ONE, TWO][..]);
        assert_eq!(judged(&[kept, there, ended, again], TWO, TWO), None);
        let gone = ("m2", Act::Given(TWO), &[TWO][..]);
        let past = Some(Kind::PastTheLeft("expired"));
        assert_eq!(judged(&[kept, ended, gone, again], TWO, TWO), past);
        // The end was decided, and its effects were still to come.
        assert_eq!(judged(&[kept, gone, ended, again], TWO, TWO), past);
    }

    #[test]
    fn nothing_goes_past_what_is_stored() {
        let stored = ("m1", Act::Stored, &[][..]);
        let live = ("m2", Act::Given(ONE), &[ONE][..]);
        let given = ("m1", Act::Given(ONE), &[ONE][..]);
        assert_eq!(judged(&[stored, live, given], ONE, ONE), Some(Kind::PastTheBacklog));
        let unlisted = ("romeo@example.com", Act::Unlisted, &[][..]);
        let past = Some(Kind::PastTheUnlisted);
        assert_eq!(judged(&[stored, unlisted, live, given], ONE, ONE), past);
        assert_eq!(judged(&[live, given], ONE, ONE), Some(Kind::OnTheWay));
        assert_eq!(judged(&[given, live], ONE, ONE), Some(Kind::InOneSession));
    }

    #[test]
    fn what_is_left_is_stored_first() {
        let kept = ("m1", Act::Given(ONE), &[ONE][..]);
        let ended = ("", Act::Ended(ONE, Reason::Closed), &[][..]);
        let (later, earlier) = (("m2", Act::Stored, &[][..]), ("m1", Act::Stored, &[][..]));
        let two = ("m2", Act::Given(TWO), &[TWO][..]);
        let one = ("m1", Act::Given(TWO), &[TWO][..]);
        let left = |came: &[Key]| {
            let came = ("m2", Act::Entered, came);
            judged(&[kept, came, later, ended, earlier, two, one], TWO, TWO)
        };
        assert_eq!(left(&[]), Some(Kind::StoredBeforeTheLeft("closed")));
        assert_eq!(left(&[ONE]), Some(Kind::LeftMeanwhile));
    }
}
