//! Posts: published to the channel of a node, each pair of nodes by one instance.

use std::collections::BTreeMap;
use std::future::{Future as _, poll_fn};
use std::mem::take;
use std::pin::pin;
use std::sync::Arc;

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::link::{Line, Link};
use super::{Hint, Inbox, RedisError, random};
use crate::cluster::view::Incarnation;
use crate::recent::Recent;

/// Bytes that wait for an instance, at most: what comes then is dropped. Links send it again.
const MOST_WAITING: usize = 64 << 20;
/// Bytes that are published at a time, about.
const BATCH: usize = 1 << 20;
/// Nodes whose last number is remembered, at least.
const SENDERS: usize = 1024;

/// Before each post: who sends it, and its number, by which what comes late is dropped (an instance that hung, a pair
/// that went over to another one).
const STAMP: usize = 16;

fn channel(name: &str, node: Incarnation) -> String {
    format!("{name}:to:{:016x}", node.0)
}

/// Where hints are published.
pub(super) fn hint_channel(name: &str) -> String {
    format!("{name}:hint")
}

/// The way out.
pub(super) struct Sender {
    name: String,
    me: u64,
    state: Mutex<Waiting>,
    ways: Vec<Way>,
}

/// What waits for each instance. One lock: the numbers of posts go up in the order in which they wait.
struct Waiting {
    last: u64,
    queues: Vec<Queue>,
}

#[derive(Default)]
struct Queue {
    posts: Vec<(Incarnation, Vec<u8>)>,
    bytes: usize,
}

struct Way {
    link: Arc<Link>,
    wake: Arc<Notify>,
}

impl Sender {
    pub(super) fn new(name: &str, links: &[Arc<Link>]) -> Self {
        let way = |link: &Arc<Link>| Way { link: Arc::clone(link), wake: Arc::default() };
        let queues = links.iter().map(|_| Queue::default()).collect();
        Self {
            name: name.into(),
            me: random(),
            state: Mutex::new(Waiting { last: 0, queues }),
            ways: links.iter().map(way).collect(),
        }
    }

    /// Never blocks. What cannot go now is dropped.
    pub(super) fn post(&self, to: Incarnation, post: &[u8]) {
        let Some(index) = self.way(to) else { return };
        let Some(way) = self.ways.get(index) else { return };
        let mut state = self.state.lock();
        state.last += 1;
        let number = state.last;
        let Some(queue) = state.queues.get_mut(index) else { return };
        if queue.bytes + post.len() > MOST_WAITING {
            return;
        }
        let mut stamped = Vec::with_capacity(STAMP + post.len());
        stamped.extend_from_slice(&self.me.to_be_bytes());
        stamped.extend_from_slice(&number.to_be_bytes());
        stamped.extend_from_slice(post);
        queue.bytes += stamped.len();
        queue.posts.push((to, stamped));
        drop(state);
        way.wake.notify_one();
    }

    /// That of the pair, or the next that is up.
    fn way(&self, to: Incarnation) -> Option<usize> {
        let many = self.ways.len();
        let first = (self.me ^ to.0).checked_rem(many as u64)? as usize;
        let mut all = (first..many).chain(0..first);
        all.find(|index| self.ways.get(*index).is_some_and(|way| way.link.is_up()))
    }

    fn take(&self, index: usize) -> Vec<(Incarnation, Vec<u8>)> {
        let mut state = self.state.lock();
        let Some(queue) = state.queues.get_mut(index) else { return Vec::new() };
        queue.bytes = 0;
        take(&mut queue.posts)
    }

    /// Publishes what waits for an instance, in order. What fails is not tried again: it might come twice, or late.
    async fn publish(&self, way: &Way, index: usize, first: Line) {
        let mut line = Some(first);
        loop {
            let mut woken = pin!(way.wake.notified());
            poll_fn(|cx| {
                line.take_if(|line| line.poll_ended(&way.link, cx).is_ready());
                woken.as_mut().poll(cx)
            })
            .await;
            loop {
                let posts = self.take(index);
                if posts.is_empty() {
                    break;
                }
                if self.publish_all(&way.link, &mut line, &posts).await.is_err() {
                    way.link.set_up(false);
                    line = None;
                }
            }
        }
    }

    async fn publish_all(
        &self,
        link: &Link,
        line: &mut Option<Line>,
        posts: &[(Incarnation, Vec<u8>)],
    ) -> Result<(), RedisError> {
        let line = match line {
            Some(line) => line,
            None => line.insert(self.line(link).await?),
        };
        let mut bytes = 0;
        for (to, post) in posts {
            line.put(publish(&self.name, *to, post));
            bytes += post.len();
            if bytes >= BATCH {
                line.flush(link).await?;
                bytes = 0;
            }
        }
        line.flush(link).await
    }

    async fn line(&self, link: &Link) -> Result<Line, RedisError> {
        link.line(trial(&self.name)).await
    }
}

fn publish(name: &str, to: Incarnation, post: &[u8]) -> Cmd {
    let mut command = redis::cmd("PUBLISH");
    command.arg(channel(name, to)).arg(post);
    command
}

/// A post to nobody, to see whether an instance publishes.
fn trial(name: &str) -> Cmd {
    publish(name, Incarnation(0), &[])
}

/// The tasks that publish, for as long as they are kept.
pub(super) struct Publishers(Vec<JoinHandle<()>>);

impl Publishers {
    /// Each is connected once when this returns.
    pub(super) async fn start(handle: &Handle, sender: &Arc<Sender>) -> Result<Self, RedisError> {
        let mut lines = Vec::new();
        for way in &sender.ways {
            lines.push(sender.line(&way.link).await?);
        }
        let start = |(index, line)| {
            let sender = Arc::clone(sender);
            handle.spawn(async move {
                if let Some(way) = sender.ways.get(index) {
                    sender.publish(way, index, line).await;
                }
            })
        };
        Ok(Self(lines.into_iter().enumerate().map(start).collect()))
    }
}

impl Drop for Publishers {
    fn drop(&mut self) {
        self.0.iter().for_each(JoinHandle::abort);
    }
}

/// Who is told what comes from the instances.
pub(super) struct Heard {
    name: String,
    hints: Mutex<Vec<Hint>>,
    inboxes: Mutex<BTreeMap<String, Inbox>>,
    /// The last number of each sender to each inbox. Held while a post is put into the inbox: two instances may bring two of
    /// one sender at the same time.
    last: Mutex<Recent<u64>>,
}

impl Heard {
    pub(super) fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            hints: Mutex::default(),
            inboxes: Mutex::default(),
            last: Mutex::new(Recent::new(SENDERS)),
        }
    }

    pub(super) fn watch(&self, hint: Hint) {
        self.hints.lock().push(hint);
    }

    pub(super) fn listen(&self, me: Incarnation, inbox: Inbox) {
        self.inboxes.lock().insert(channel(&self.name, me), inbox);
    }

    pub(super) fn forget(&self, me: Incarnation) {
        self.inboxes.lock().remove(&channel(&self.name, me));
    }

    pub(super) fn channels(&self) -> Vec<String> {
        let inboxes = self.inboxes.lock();
        inboxes.keys().cloned().chain([hint_channel(&self.name)]).collect()
    }

    pub(super) fn trial(&self) -> Cmd {
        trial(&self.name)
    }

    pub(super) fn hint(&self) {
        let hints = self.hints.lock().clone();
        hints.iter().for_each(|hint| hint());
    }

    /// Something was published.
    pub(super) fn take(&self, published: &[Value]) {
        let [Value::BulkString(channel), Value::BulkString(post)] = published else { return };
        let Ok(channel) = str::from_utf8(channel) else { return };
        let Some(inbox) = self.inboxes.lock().get(channel).cloned() else {
            if channel == hint_channel(&self.name) {
                self.hint();
            }
            return;
        };
        let Some((stamp, post)) = post.split_first_chunk::<STAMP>() else { return };
        let stamp = u128::from_be_bytes(*stamp);
        let (sender, number) = ((stamp >> 64) as u64, stamp as u64);
        let mut last = self.last.lock();
        if last.get(&(sender, channel)).is_none_or(|last| last < number) {
            last.insert(&(sender, channel), number);
            inbox(post.into());
        }
    }
}

#[cfg(test)]
mod unit {
    use super::*;

    fn heard() -> (Heard, Arc<Mutex<Vec<u8>>>) {
        let (heard, inbox) = (Heard::new("xmpp"), Arc::new(Mutex::new(Vec::new())));
        let into = Arc::clone(&inbox);
        heard.listen(Incarnation(1), Arc::new(move |post| into.lock().extend_from_slice(&post)));
        (heard, inbox)
    }

    fn published(to: u64, sender: u64, number: u64, post: u8) -> [Value; 2] {
        let stamped = [&sender.to_be_bytes()[..], &number.to_be_bytes()[..], &[post]].concat();
        let channel = channel("xmpp", Incarnation(to));
        [Value::BulkString(channel.into()), Value::BulkString(stamped)]
    }

    #[test]
    fn node_4_what_comes_late_is_dropped() {
        let (heard, inbox) = heard();
        for (sender, number, post) in
            [(7, 1, b'a'), (7, 3, b'b'), (7, 2, b'x'), (7, 3, b'x'), (8, 1, b'c'), (7, 4, b'd')]
        {
            heard.take(&published(1, sender, number, post));
        }
        heard.take(&published(2, 7, 9, b'x'));
        assert_eq!(*inbox.lock(), b"abcd", "in order or not at all");
        heard.forget(Incarnation(1));
        heard.take(&published(1, 7, 5, b'x'));
        assert_eq!(inbox.lock().len(), 4);
    }

    #[test]
    fn node_4_what_is_no_post_is_dropped() {
        let (heard, inbox) = heard();
        let text = |text: &str| Value::BulkString(text.into());
        let to = || text(&channel("xmpp", Incarnation(1)));
        heard.take(&[to(), text("short")]);
        heard.take(&[to()]);
        heard.take(&[Value::Nil, text("")]);
        heard.take(&[Value::BulkString(vec![0xff]), text("")]);
        assert!(inbox.lock().is_empty());
    }
}
