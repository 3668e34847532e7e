//! The engine on Redis and Valkey, with servers of our own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::running::{Proxy, Running, TTL, World};
use super::servers::{RedisServer, eventually, redis_programs};
use crate::cluster::conformance;
use crate::cluster::engine::{Answer, Engine, EngineFuture, Posts};
use crate::cluster::record::{Lease, Record};
use crate::cluster::redis::{Redis, RedisBuilder, RedisError};
use crate::cluster::view::{Incarnation, View};
use crate::park::block_on;

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn builder(urls: &str) -> RedisBuilder {
    Redis::builder(urls).timeout(Duration::from_secs(1))
}

fn connect(runtime: &Runtime, urls: &str) -> Arc<Redis> {
    Arc::new(runtime.block_on(builder(urls).connect()).unwrap())
}

fn refused(runtime: &Runtime, builder: RedisBuilder) -> RedisError {
    runtime.block_on(builder.connect()).unwrap_err()
}

/// Why a call failed.
fn why<T: std::fmt::Debug>(future: EngineFuture<T>) -> RedisError {
    block_on(future).unwrap_err().0.downcast_ref::<RedisError>().unwrap().clone()
}

fn done(future: EngineFuture<Answer>) -> Answer {
    block_on(future).unwrap_or_else(|error| panic!("{:?}", error.0))
}

fn lease(node: u64) -> Lease {
    let (incarnation, name) = (Incarnation(node), format!("node{node}").into());
    Lease {
        incarnation,
        name,
        seen: View::default(),
        settled: View::default(),
        leaving: false,
        ttl: TTL,
        store: Arc::default(),
    }
}

fn record(instance: &Arc<str>, number: u64) -> Arc<Record> {
    let view = View { term: 1, number };
    Arc::new(Record { view, instance: Arc::clone(instance), ..Record::nothing(4) })
}

#[test]
fn node_8_an_engine_on_redis_conforms() {
    for program in redis_programs("node_8_an_engine_on_redis_conforms") {
        let (runtime, server) = (runtime(), RedisServer::start(&program, &[]));
        let open = || connect(&runtime, &server.url());
        conformance::engine(|| open() as _, TTL, thread::sleep);
        conformance::posts(|| open() as _);
        conformance::forgetting(
            || open() as _,
            || {
                server.command(&["FLUSHALL"]);
            },
        );
    }
}

#[test]
fn node_4_posts_go_by_several_instances() {
    for program in redis_programs("node_4_posts_go_by_several_instances") {
        let runtime = runtime();
        let mut servers = [(); 3].map(|()| RedisServer::start(&program, &[]));
        let urls = servers.iter().map(RedisServer::url).collect::<Vec<_>>().join(", ");
        let open = || connect(&runtime, &urls);
        conformance::posts(|| open() as _);
        let by = |server: &RedisServer| -> u64 {
            let stats = server.command(&["INFO", "commandstats"]);
            let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_publish:calls="));
            line.map_or(0, |line| line.split(',').next().unwrap().parse().unwrap())
        };
        assert!(by(&servers[0]) < 10, "the first one is for leases: it is tried, and no more");
        assert!(by(&servers[1]) > 100 && by(&servers[2]) > 100, "each has its pairs");
        let alone = || Arc::new(runtime.block_on(builder(&urls).connect_posts()).unwrap());
        conformance::posts(|| alone() as _);
        assert!(by(&servers[0]) > 100, "where there are no leases, it has its pairs as well");

        // One of them is gone: its pairs go by the other one, until it is there again.
        let (from, to) = (open(), open());
        let (sender, inbox) = std::sync::mpsc::channel();
        to.listen(Incarnation(7), Arc::new(move |post| sender.send(post[0]).unwrap()));
        servers[1].kill();
        let all = |post: u8| {
            eventually("every pair goes on", || {
                from.post(Incarnation(7), Arc::new([post]));
                thread::sleep(Duration::from_millis(20));
                inbox.try_iter().any(|came| came == post).then_some(())
            });
        };
        all(1);
        servers[1].begin();
        servers[2].kill();
        all(2);
    }
}

/// What another node may have, and this one may not: a lease of an engine that is gone.
#[test]
fn node_11_another_instance_has_another_name() {
    for program in redis_programs("node_11_another_instance_has_another_name") {
        let runtime = runtime();
        for options in [&[][..], &["--appendonly", "yes", "--appendfsync", "always"]] {
            let keeps = !options.is_empty();
            let mut server = RedisServer::start(&program, options);
            let engine = connect(&runtime, &server.url());
            let before = done(engine.renew(lease(1), true)).instance;
            assert!(done(engine.replace(None, record(&before, 1))).done);
            assert_eq!(done(engine.read()).instance, before, "the same until it restarts");
            server.kill();
            let error = why(engine.read());
            assert!(
                matches!(error, RedisError::Unreachable(_) | RedisError::TimedOut),
                "{error:?}"
            );
            server.begin();
            let after = eventually("it answers", || block_on(engine.read()).ok());
            assert_ne!(after.instance, before);
            assert_eq!(after.record, keeps.then(|| record(&before, 1)), "what it kept, it says");
            assert!(!done(engine.replace(None, record(&before, 2))).done);
            let over = keeps.then(|| record(&before, 1).view);
            assert!(!done(engine.replace(over, record(&before, 2))).done, "not its instance");
            assert!(done(engine.replace(over, record(&after.instance, 2))).done);
        }
        // The hash alone is deleted, or all is read anew from the disk.
        let server = RedisServer::start(&program, &[]);
        let engine = connect(&runtime, &server.url());
        let before = done(engine.renew(lease(1), true)).instance;
        server.command(&["DEL", "xmpp"]);
        let after = done(engine.read());
        assert_ne!(after.instance, before);
        assert!(after.living.is_empty());
        assert!(!done(engine.renew(lease(1), false)).done, "that lease was another one's");
    }
}

#[test]
fn node_11_a_replica_that_takes_over_is_another_instance() {
    for program in redis_programs("node_11_a_replica_that_takes_over_is_another_instance") {
        let runtime = runtime();
        let (first, second) =
            (RedisServer::start(&program, &[]), RedisServer::start(&program, &[]));
        let engine = connect(&runtime, &first.url());
        let before = done(engine.renew(lease(1), true)).instance;
        assert!(done(engine.replace(None, record(&before, 1))).done);
        second.command(&["REPLICAOF", "127.0.0.1", &first.port.to_string()]);
        eventually("it has all", || {
            second.command(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        // A replica is no engine, though it could answer.
        let error = refused(&runtime, builder(&second.url()));
        assert!(matches!(error, RedisError::ReadOnly(_)), "{error:?}");
        let before = done(engine.read()).instance;
        // It is behind.
        second.signal("STOP");
        first.command(&["CLIENT", "KILL", "TYPE", "replica"]);
        assert!(done(engine.replace(Some(View { term: 1, number: 1 }), record(&before, 2))).done);
        first.signal("STOP");
        second.signal("CONT");
        second.command(&["REPLICAOF", "NO", "ONE"]);
        let other = connect(&runtime, &second.url());
        let answer = done(other.read());
        assert_ne!(answer.instance, before);
        assert_eq!(answer.record.unwrap().view, View { term: 1, number: 1 }, "it is behind");
        assert!(!done(other.replace(Some(View { term: 1, number: 1 }), record(&before, 2))).done);
        // The one that was is made a replica, and takes over again: nobody takes it for what it was.
        first.signal("CONT");
        let former = done(other.read()).instance;
        first.command(&["REPLICAOF", "127.0.0.1", &second.port.to_string()]);
        eventually("it has all", || {
            first.command(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        let error = why(engine.read());
        assert!(matches!(error, RedisError::ReadOnly(_)), "{error:?}");
        first.command(&["REPLICAOF", "NO", "ONE"]);
        let again = eventually("it answers", || block_on(engine.read()).ok()).instance;
        assert!(again != before && again != former, "{again} {before} {former}");
    }
}

#[test]
fn node_1_an_instance_that_hangs_is_not_waited_for() {
    for program in redis_programs("node_1_an_instance_that_hangs_is_not_waited_for") {
        let (runtime, server) = (runtime(), RedisServer::start(&program, &[]));
        let engine = connect(&runtime, &server.url());
        let before = done(engine.renew(lease(1), true));
        server.signal("STOP");
        for _ in 0..3 {
            let error = why(engine.renew(lease(1), false));
            assert!(
                matches!(error, RedisError::TimedOut | RedisError::Unreachable(_)),
                "{error:?}"
            );
        }
        thread::sleep(TTL);
        server.signal("CONT");
        // What it is told late is judged by its own clock: the lease is over.
        let after = eventually("it answers", || block_on(engine.read()).ok());
        assert_eq!((after.instance, after.living.len()), (before.instance, 0));
        assert!(!done(engine.renew(lease(1), false)).done);
    }
}

#[test]
fn node_1_what_is_wrong_with_an_instance_is_said() {
    for program in redis_programs("node_1_what_is_wrong_with_an_instance_is_said") {
        let runtime = runtime();
        for wrong in ["http://127.0.0.1", "127.0.0.1:1:2", "redis://h:port"] {
            let error = refused(&runtime, builder(wrong));
            assert!(matches!(error, RedisError::Url(_)), "{wrong}: {error:?}");
        }
        assert!(matches!(refused(&runtime, builder(" , ")), RedisError::NoUrl));
        let nobody = refused(&runtime, builder("redis://127.0.0.1:1"));
        assert!(matches!(nobody, RedisError::Unreachable(_)), "{nobody:?}");
        assert!(matches!(block_on(builder("redis://h").connect()), Err(RedisError::NoRuntime)));

        let server = RedisServer::start(&program, &[]);
        let engine = connect(&runtime, &server.url());
        server.command(&[
            "ACL",
            "SETUSER",
            "whole",
            "on",
            ">secret",
            "~xmpp",
            "&xmpp:*",
            "+hello",
            "+info",
            "+time",
            "+eval",
            "+evalsha",
            "+script|load",
            "+hget",
            "+hset",
            "+hdel",
            "+hgetall",
            "+publish",
            "+subscribe",
            "+client|reply",
        ]);
        server.command(&[
            "ACL", "SETUSER", "asked", "on", ">secret", "~xmpp", "&*", "+@all", "-client",
        ]);
        server.command(&["ACL", "SETUSER", "half", "on", ">secret", "~xmpp", "+@all", "-time"]);
        server.command(&[
            "ACL",
            "SETUSER",
            "deaf",
            "on",
            ">secret",
            "~xmpp",
            "+@all",
            "resetchannels",
        ]);
        server
            .command(&["ACL", "SETUSER", "late", "on", ">secret", "~xmpp", "&*", "+@all", "-hdel"]);
        server.command(&["ACL", "SETUSER", "keys", "on", ">secret", "~other", "&*", "+@all"]);
        let as_user = |user: &str, password: &str| {
            builder(&format!("redis://{user}:{password}@127.0.0.1:{}", server.port))
        };
        drop(runtime.block_on(as_user("whole", "secret").connect()).unwrap());
        let error = refused(&runtime, as_user("whole", "wrong"));
        assert!(matches!(error, RedisError::Password(_)), "{error:?}");
        for user in ["half", "deaf", "keys", "asked", "late"] {
            let error = refused(&runtime, as_user(user, "secret"));
            assert!(matches!(error, RedisError::Rights(_)), "{user}: {error:?}");
        }

        // Full: nothing is renewed until there is room again.
        assert!(done(engine.renew(lease(1), true)).done);
        server.command(&["CONFIG", "SET", "maxmemory", "1"]);
        let error = why(engine.renew(lease(1), false));
        assert!(matches!(error, RedisError::Full(_)), "{error:?}");
        server.command(&["CONFIG", "SET", "maxmemory", "0"]);
        assert!(done(engine.renew(lease(1), true)).done);

        // Somebody else's hash, or that of another version.
        server.command(&["HSET", "xmpp", "lease:00", "9999999999999999nonsense"]);
        let error = why(engine.read());
        assert!(matches!(error, RedisError::Foreign), "{error:?}");

        server.command(&["CONFIG", "SET", "requirepass", "secret"]);
        let error = refused(&runtime, builder(&server.url()));
        assert!(matches!(error, RedisError::Password(_)), "{error:?}");
        let url = format!("redis://:secret@127.0.0.1:{}", server.port);
        drop(runtime.block_on(builder(&url).name("other").connect()).unwrap());
    }
}

fn nodes<const N: usize>(runtime: &Runtime, world: &Arc<World>, urls: [String; N]) -> [Running; N] {
    let mut name = 0;
    urls.map(|url| {
        let engine = connect(runtime, &url);
        name += 1;
        world.run(name, Arc::clone(&engine) as _, engine as _)
    })
}

#[test]
fn node_11_nodes_outlive_what_an_instance_suffers() {
    for program in redis_programs("node_11_nodes_outlive_what_an_instance_suffers") {
        for options in [&[][..], &["--appendonly", "yes", "--appendfsync", "always"]] {
            let (runtime, world) = (runtime(), World::new());
            let mut server = RedisServer::start(&program, options);
            let [mut a, b, mut c] = nodes(&runtime, &world, [(); 3].map(|()| server.url()));
            world.settles(&[&a, &b, &c]);
            assert_eq!(world.fenced(), [0; 0]);

            // It restarts, with nothing or with all: the next term, and nobody stops.
            let before = world.view(&a);
            server.kill();
            server.begin();
            eventually("a new term", || (world.view(&a).term > before.term).then_some(()));
            world.settles(&[&a, &b, &c]);
            assert_eq!(world.fenced(), [0; 0], "it was away for less than a lease");

            // It is emptied.
            let before = world.view(&a);
            server.command(&["FLUSHALL"]);
            eventually("a new term", || (world.view(&a).term > before.term).then_some(()));
            world.settles(&[&a, &b, &c]);

            // It hangs for longer than a lease: all stop, and come back.
            server.signal("STOP");
            eventually("all are fenced", || {
                [1, 2, 3].iter().all(|node| world.fenced().contains(node)).then_some(())
            });
            server.signal("CONT");
            world.settles(&[&a, &b, &c]);

            a.kill();
            world.settles(&[&b, &c]);
            c.leave();
            world.settles(&[&b]);
            world.ends();
            world.was_single();
        }
    }
}

/// One that is behind takes over, and for a while both answer, each to a part of the nodes.
#[test]
fn node_3_two_instances_at_once_leave_the_stores_whole() {
    for program in redis_programs("node_3_two_instances_at_once_leave_the_stores_whole") {
        let (runtime, world) = (runtime(), World::new());
        let (first, second) =
            (RedisServer::start(&program, &[]), RedisServer::start(&program, &[]));
        let ways = [(); 3].map(|()| Proxy::to(first.port));
        let urls = ways.each_ref().map(|way| format!("redis://127.0.0.1:{}", way.port));
        let [a, b, c] = nodes(&runtime, &world, urls);
        world.settles(&[&a, &b, &c]);
        second.command(&["REPLICAOF", "127.0.0.1", &first.port.to_string()]);
        eventually("it has all", || {
            second.command(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
        });
        // A history of its own begins with the first replica.
        thread::sleep(TTL * 2);
        let before = world.view(&a);
        second.command(&["REPLICAOF", "NO", "ONE"]);
        ways[1].turn(second.port);
        ways[2].turn(second.port);
        // The side that has the lower term is fenced by the stores, whichever that is, and comes back where it can.
        eventually("a higher term", || {
            let (one, other) = (world.view(&a), world.view(&b));
            (one.term > before.term || other.term > before.term).then_some(())
        });
        eventually("one side is fenced", || (!world.fenced().is_empty()).then_some(()));
        ways[0].turn(second.port);
        world.settles(&[&a, &b, &c]);
        assert_eq!(world.view(&a).term, world.view(&b).term);
        world.ends();
    }
}

#[cfg(feature = "ring")]
#[test]
fn node_8_an_engine_on_redis_conforms_by_tls() {
    use super::certificates::Certificate;
    for program in redis_programs("node_8_an_engine_on_redis_conforms_by_tls") {
        let (good, other) = (Certificate::new(), Certificate::new());
        let (_server, port) = RedisServer::with_tls(&program, &good);
        let runtime = runtime();
        let by = |scheme: &str, host: &str, root: Option<&Certificate>| {
            let builder = builder(&format!("{scheme}://{host}:{port}"));
            let root = root.map(|root| root.certificate.clone());
            let builder = root.into_iter().fold(builder, RedisBuilder::root_certificates);
            runtime.block_on(builder.connect())
        };
        let open = || Arc::new(by("rediss", "localhost", Some(&good)).unwrap());
        conformance::engine(|| open() as _, TTL, thread::sleep);
        conformance::posts(|| open() as _);
        for (scheme, host, root, what) in [
            ("rediss", "localhost", Some(&other), "another issuer"),
            ("rediss", "localhost", None, "an issuer that nobody trusts"),
            ("rediss", "127.0.0.1", Some(&good), "another name"),
            ("redis", "localhost", None, "no TLS"),
        ] {
            let error = by(scheme, host, root).err();
            let is_said = matches!(error, Some(RedisError::Unreachable(_) | RedisError::TimedOut));
            assert!(is_said, "{what}: {error:?}");
        }
    }
}
