//! Posts by publish/subscribe, as they go, and by streams beside them (`docs/decisions/0020-engines.md`).
//!
//! `XMPP_TEST_REDIS=redis-server cargo test --release --features redis,system --lib cluster::tests::measured -- --ignored --nocapture`

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Runtime;

use super::servers::{RedisServer, redis_programs};
use crate::cluster::engine::Posts;
use crate::cluster::redis::Redis;
use crate::cluster::view::Incarnation;

const TO: Incarnation = Incarnation(1);

type Inbox = Arc<dyn Fn(Arc<[u8]>) + Send + Sync>;

/// Its number, and its one field.
type Entry = (String, (String, Vec<u8>));

/// The same promise as ours, by `XADD` and `XREAD`: what waits goes in one pipeline.
struct Streams {
    runtime: Runtime,
    client: redis::Client,
    queue: tokio::sync::mpsc::UnboundedSender<Arc<[u8]>>,
}

impl Streams {
    fn new(url: &str) -> Self {
        let runtime = Runtime::new().unwrap();
        let client = redis::Client::open(url).unwrap();
        let (queue, mut waiting) = tokio::sync::mpsc::unbounded_channel::<Arc<[u8]>>();
        let out = client.clone();
        runtime.spawn(async move {
            let mut connection = out.get_multiplexed_async_connection().await.unwrap();
            let mut batch = Vec::new();
            while waiting.recv_many(&mut batch, 2000).await > 0 {
                let mut pipe = redis::pipe();
                for post in batch.drain(..) {
                    pipe.cmd("XADD").arg(&["inbox", "MAXLEN", "~", "10000", "*", "p"]);
                    pipe.arg(&*post).ignore();
                }
                pipe.exec_async(&mut connection).await.unwrap();
            }
        });
        Self { runtime, client, queue }
    }
}

impl Posts for Streams {
    fn post(&self, _to: Incarnation, post: Arc<[u8]>) {
        self.queue.send(post).unwrap();
    }

    fn listen(&self, _me: Incarnation, inbox: Inbox) {
        let client = self.client.clone();
        self.runtime.spawn(async move {
            let config = redis::AsyncConnectionConfig::new().set_response_timeout(None);
            let connecting = client.get_multiplexed_async_connection_with_config(&config);
            let mut connection = connecting.await.unwrap();
            let mut last = "0".to_owned();
            loop {
                let mut read = redis::cmd("XREAD");
                let read = read.arg(&["COUNT", "1000", "BLOCK", "0", "STREAMS", "inbox", &last]);
                let read = read.query_async(&mut connection).await;
                let reply: Vec<(String, Vec<Entry>)> = match read {
                    Err(error) if error.is_io_error() => return,
                    reply => reply.unwrap(),
                };
                for (id, (_, post)) in reply.into_iter().flat_map(|(_, entries)| entries) {
                    inbox(post.into());
                    last = id;
                }
            }
        });
    }
}

/// So many seconds of as many posts as go, with a thousand under way; then a thousand a second.
fn measure(name: &str, from: &dyn Posts, to: &dyn Posts, size: usize, server: &RedisServer) {
    let (came, all) = mpsc::channel();
    let came = Mutex::new(came);
    let begin = Instant::now();
    let tell: Inbox = Arc::new(move |post: Arc<[u8]>| {
        let sent = u64::from_be_bytes(*post.first_chunk().unwrap());
        let _told = came.lock().send(begin.elapsed() - Duration::from_nanos(sent));
    });
    to.listen(TO, tell);
    thread::sleep(Duration::from_millis(300));
    let post = || {
        let mut post = (begin.elapsed().as_nanos() as u64).to_be_bytes().to_vec();
        post.resize(size, 0);
        from.post(TO, post.into());
    };
    let cpu = |server: &RedisServer| -> f64 {
        let info = server.command(&["INFO", "cpu"]);
        let used = |name: &str| -> f64 {
            info.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse().unwrap()
        };
        used("used_cpu_sys:") + used("used_cpu_user:")
    };
    let (start, before) = (Instant::now(), cpu(server));
    let (mut sent, mut got) = (0_u64, 0_u64);
    while start.elapsed() < Duration::from_secs(4) {
        while sent < got + 1000 {
            post();
            sent += 1;
        }
        if all.recv_timeout(Duration::from_secs(2)).is_ok() {
            got += 1 + all.try_iter().count() as u64;
        } else {
            println!("{name}: {} were lost", sent - got);
            sent = got;
        }
    }
    let rate = got as f64 / start.elapsed().as_secs_f64();
    let micros = (cpu(server) - before) * 1e6 / got as f64;
    while all.recv_timeout(Duration::from_millis(300)).is_ok() {}
    let mut late = Vec::new();
    for _ in 0..3000 {
        post();
        late.push(all.recv_timeout(Duration::from_secs(5)).unwrap());
        thread::sleep(Duration::from_micros(900));
    }
    late.sort();
    let (median, most) = (late[late.len() / 2], late[late.len() * 99 / 100]);
    println!(
        "{name}, {size} bytes: {rate:.0} posts/s, {micros:.1} µs of the server each; \
         {median:?} at the median, {most:?} at 99 %"
    );
}

#[test]
#[ignore = "measures"]
fn posts_by_both_ways() {
    for program in redis_programs("posts_by_both_ways") {
        println!("{program}");
        let runtime = Runtime::new().unwrap();
        for size in [300, 2400] {
            let server = RedisServer::start(&program, &[]);
            let url = server.url();
            let open = || runtime.block_on(Redis::builder(&url).connect()).unwrap();
            measure("publish/subscribe", &open(), &open(), size, &server);
            measure("streams", &Streams::new(&url), &Streams::new(&url), size, &server);
        }
    }
}
