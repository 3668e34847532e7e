//! Redis or Valkey: leases and the record in one hash, changed by one script, and posts by publish/subscribe.

mod error;
mod link;
mod posts;
mod quiet;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use redis::Script;
use tokio::runtime::Handle;

pub use error::RedisError;

use super::engine::{Answer, Engine, EngineError, EngineFuture, Posts};
use super::record::{Lease, Record};
use super::view::{Incarnation, View};
use link::{Link, Listener};
use posts::{Heard, Publishers, Sender, hint_channel};

type Hint = Arc<dyn Fn() + Send + Sync>;
type Inbox = Arc<dyn Fn(Arc<[u8]>) + Send + Sync>;

/// Redis or Valkey as what nodes stand on: leases and the record of who owns which slot, and the way for posts.
///
/// One value for each node. It connects again by itself, and runs on the tokio runtime that it was made in; its
/// futures may be polled anywhere. [What happens](crate::guide::engines) when an instance restarts, hangs, or fails over.
///
/// ```no_run
/// use std::sync::Arc;
/// use xmpp_session::cluster::{Engine, Posts, Redis};
///
/// # async fn open() -> Result<(), Box<dyn std::error::Error>> {
/// let redis = Redis::builder("rediss://xmpp:secret@leases.example, rediss://posts.example");
/// let redis = Arc::new(redis.name("chat").connect().await?);
/// let (engine, posts): (Arc<dyn Engine>, Arc<dyn Posts>) = (redis.clone(), redis);
/// # Ok(())
/// # }
/// ```
pub struct Redis {
    leases: Arc<Leases>,
    posts: RedisPosts,
    handle: Handle,
}

/// What a [`Redis`] is made from.
#[derive(Clone)]
#[must_use = "nothing is connected yet"]
pub struct RedisBuilder {
    urls: Vec<String>,
    name: String,
    timeout: Duration,
    roots: Option<Vec<u8>>,
}

/// Posts by Redis or Valkey alone, where another engine keeps leases and the record: [`RedisBuilder::connect_posts`].
pub struct RedisPosts {
    sender: Arc<Sender>,
    heard: Arc<Heard>,
    listeners: Vec<Listener>,
    _publishers: Publishers,
}

struct Leases {
    link: Arc<Link>,
    name: String,
    script: Script,
    /// The record that came last, by its name.
    known: Mutex<Option<(Arc<str>, Arc<Record>)>>,
}

impl RedisBuilder {
    /// Nodes of the same name are one cluster: keys and channels begin with it. "xmpp" unless set.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// How long an answer, or a connection, is waited for. A second unless set.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The certificates (PEM) that sign those of the instances, where URLs begin with `rediss://`. Unless set, those
    /// that the operating system trusts.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Connects to all instances, and tries whether each does what is wanted. The first keeps leases and the record;
    /// posts go by the others, each pair of nodes by one of them, or by the first where there is no other: a busy
    /// instance answers late.
    ///
    /// # Errors
    ///
    /// The first that is wrong with one of them. Afterwards they may come and go.
    pub async fn connect(self) -> Result<Redis, RedisError> {
        let (handle, links) = self.links().await?;
        let Some((link, others)) = links.split_first() else { return Err(RedisError::NoUrl) };
        let leases = Leases {
            link: Arc::clone(link),
            name: self.name.clone(),
            script: Script::new(include_str!("ask.lua")),
            known: Mutex::default(),
        };
        // The script, and the rights for it.
        leases.ask(&["try".into()]).await?;
        let of_posts = if others.is_empty() { &links } else { others };
        let posts = RedisPosts::start(&handle, &self.name, of_posts, &links).await?;
        Ok(Redis { leases: Arc::new(leases), posts, handle })
    }

    /// The same for posts alone, by all of these instances.
    ///
    /// # Errors
    ///
    /// As [`connect`](Self::connect).
    pub async fn connect_posts(self) -> Result<RedisPosts, RedisError> {
        let (handle, links) = self.links().await?;
        if links.is_empty() {
            return Err(RedisError::NoUrl);
        }
        RedisPosts::start(&handle, &self.name, &links, &links).await
    }

    async fn links(&self) -> Result<(Handle, Vec<Arc<Link>>), RedisError> {
        let handle = Handle::try_current().map_err(|_| RedisError::NoRuntime)?;
        let mut links = Vec::new();
        for url in &self.urls {
            let link = Link::new(url, self.timeout, self.roots.clone())?;
            link.check().await?;
            links.push(Arc::new(link));
        }
        Ok((handle, links))
    }
}

impl Redis {
    /// On these instances: URLs such as `redis://user:password@host:6379/0`, or `rediss://` for TLS, with commas between
    /// them. All nodes are given the same.
    pub fn builder(urls: &str) -> RedisBuilder {
        let urls = urls.split(',').map(|url| url.trim().to_owned()).filter(|url| !url.is_empty());
        RedisBuilder {
            urls: urls.collect(),
            name: "xmpp".into(),
            timeout: Duration::from_secs(1),
            roots: None,
        }
    }

    fn call(&self, what: Vec<Vec<u8>>) -> EngineFuture<Answer> {
        let leases = Arc::clone(&self.leases);
        let task = self.handle.spawn(async move { leases.ask(&what).await });
        Box::pin(async move {
            let answer = task.await.map_err(EngineError::new)?;
            answer.map_err(EngineError::new)
        })
    }
}

impl Leases {
    async fn ask(&self, what: &[Vec<u8>]) -> Result<Answer, RedisError> {
        let known = self.known.lock().clone();
        let mut call = self.script.key(&self.name);
        call.arg(format!("{:016x}", random())).arg(hint_channel(&self.name));
        call.arg(known.as_ref().map_or("", |(name, _)| name));
        for part in what {
            call.arg(part.as_slice());
        }
        let mut connection = self.link.connection().await?;
        let called = call.invoke_async(&mut connection.inner).await;
        let (done, instance, named, record, living): (u8, String, String, Vec<u8>, Vec<Vec<u8>>) =
            self.link.settled(&connection, called)?;
        let living = living.iter().map(|lease| Lease::decode(lease)).collect::<Option<_>>();
        let record = match known.filter(|(name, _)| **name == *named) {
            _ if named.is_empty() => None,
            Some((_, record)) => Some(record),
            None => {
                let record = Arc::new(Record::decode(&record).ok_or(RedisError::Foreign)?);
                *self.known.lock() = Some((named.into(), Arc::clone(&record)));
                Some(record)
            }
        };
        Ok(Answer {
            done: done == 1,
            instance: instance.into(),
            living: living.ok_or(RedisError::Foreign)?,
            record,
        })
    }
}

impl RedisPosts {
    async fn start(
        handle: &Handle,
        name: &str,
        of_posts: &[Arc<Link>],
        all: &[Arc<Link>],
    ) -> Result<Self, RedisError> {
        let heard = Arc::new(Heard::new(name));
        let mut listeners = Vec::new();
        for link in all {
            listeners.push(Listener::start(handle, link, &heard).await?);
        }
        let sender = Arc::new(Sender::new(name, of_posts));
        let _publishers = Publishers::start(handle, &sender).await?;
        Ok(Self { sender, heard, listeners, _publishers })
    }
}

impl Engine for Redis {
    fn renew(&self, lease: Lease, first: bool) -> EngineFuture<Answer> {
        let ttl = lease.ttl.as_micros().to_string().into();
        let first = u8::from(first).to_string().into();
        self.call(vec!["renew".into(), hex(lease.incarnation), lease.encode().to_vec(), ttl, first])
    }

    fn release(&self, node: Incarnation) -> EngineFuture<()> {
        self.posts.heard.forget(node);
        let answer = self.call(vec!["release".into(), hex(node)]);
        Box::pin(async move { answer.await.map(drop) })
    }

    fn replace(&self, over: Option<View>, record: Arc<Record>) -> EngineFuture<Answer> {
        let text = |view: View| format!("{}.{}", view.term, view.number).into_bytes();
        let (over, view) = (over.map(text).unwrap_or_default(), text(record.view));
        let instance = record.instance.as_bytes().to_vec();
        self.call(vec!["replace".into(), over, view, instance, record.encode().to_vec()])
    }

    fn read(&self) -> EngineFuture<Answer> {
        self.call(vec!["read".into()])
    }

    fn watch(&self, hint: Hint) {
        self.posts.heard.watch(hint);
    }
}

impl Posts for Redis {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        self.posts.post(to, post);
    }

    fn listen(&self, me: Incarnation, inbox: Inbox) {
        self.posts.listen(me, inbox);
    }
}

impl Posts for RedisPosts {
    fn post(&self, to: Incarnation, post: Arc<[u8]>) {
        self.sender.post(to, &post);
    }

    fn listen(&self, me: Incarnation, inbox: Inbox) {
        self.heard.listen(me, inbox);
        self.listeners.iter().for_each(Listener::again);
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").field("name", &self.leases.name).finish_non_exhaustive()
    }
}

/// Its URLs have passwords.
impl fmt::Debug for RedisBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBuilder").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for RedisPosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPosts").finish_non_exhaustive()
    }
}

fn hex(node: Incarnation) -> Vec<u8> {
    format!("{:016x}", node.0).into_bytes()
}

/// A number that nobody else has. Nothing secret is made from it.
fn random() -> u64 {
    RandomState::new().hash_one(())
}
