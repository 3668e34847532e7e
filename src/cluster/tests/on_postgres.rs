//! The engine on PostgreSQL, with servers of our own.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::running::{Running, TTL, World};
use super::servers::{PostgresServer, eventually, postgres_folders};
use crate::cluster::conformance;
use crate::cluster::engine::{Answer, Engine, EngineFuture};
use crate::cluster::memory::MemoryEngine;
use crate::cluster::postgres::{Postgres, PostgresBuilder, PostgresError};
use crate::cluster::record::{Lease, Record};
use crate::cluster::view::{Incarnation, View};
use crate::park::block_on;
use crate::store::{ConnectError, PostgresConfig};

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn builder(url: &str) -> PostgresBuilder {
    Postgres::builder(PostgresConfig::new(url).unwrap()).timeout(Duration::from_secs(2))
}

fn connect(runtime: &Runtime, url: &str) -> Arc<Postgres> {
    Arc::new(runtime.block_on(builder(url).connect()).unwrap())
}

fn refused(runtime: &Runtime, url: &str) -> PostgresError {
    runtime.block_on(builder(url).connect()).unwrap_err()
}

fn why<T: std::fmt::Debug>(future: EngineFuture<T>) -> PostgresError {
    *block_on(future).unwrap_err().0.downcast().unwrap()
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
fn node_8_an_engine_on_postgres_conforms() {
    for bin in postgres_folders("node_8_an_engine_on_postgres_conforms") {
        let (runtime, server) = (runtime(), PostgresServer::start(&bin));
        let open = || connect(&runtime, &server.url()) as Arc<dyn Engine>;
        conformance::engine(open, TTL, thread::sleep);
        conformance::forgetting(open, || {
            server.sql("DELETE FROM xmpp_session.xmpp_cluster");
        });
        let odd = || builder(&server.url()).name("it's \"odd\" \\ \u{e4}").connect();
        let odd = || Arc::new(runtime.block_on(odd()).unwrap()) as Arc<dyn Engine>;
        conformance::engine(odd, TTL, thread::sleep);
        let other = done(open().read()).instance;
        assert_ne!(done(odd().read()).instance, other, "clusters of two names are two");
    }
}

#[test]
fn node_11_a_database_that_restarts_has_forgotten_nothing() {
    for bin in postgres_folders("node_11_a_database_that_restarts_has_forgotten_nothing") {
        let (runtime, mut server) = (runtime(), PostgresServer::start(&bin));
        // What is asked for in the settings would forget.
        server.sql("ALTER SYSTEM SET synchronous_commit = off");
        server.sql("SELECT pg_reload_conf()");
        let engine = connect(&runtime, &server.url());
        let before = done(engine.renew(lease(1), true)).instance;
        assert!(done(engine.replace(None, record(&before, 1))).done);
        server.kill();
        let error = why(engine.read());
        assert!(
            matches!(
                error,
                PostgresError::Database(ConnectError::Unreachable(_)) | PostgresError::TimedOut
            ),
            "{error:?}"
        );
        server.begin();
        let after = eventually("it answers", || block_on(engine.read()).ok());
        assert_eq!((&after.instance, after.record), (&before, Some(record(&before, 1))));
    }
}

#[test]
fn node_11_a_database_that_was_restored_is_another_instance() {
    for bin in postgres_folders("node_11_a_database_that_was_restored_is_another_instance") {
        let (runtime, server) = (runtime(), PostgresServer::start(&bin));
        let engine = connect(&runtime, &server.url());
        let before = done(engine.renew(lease(1), true)).instance;
        assert!(done(engine.replace(None, record(&before, 1))).done);
        server.dump("kept.sql");
        assert!(done(engine.replace(Some(View { term: 1, number: 1 }), record(&before, 2))).done);
        server.sql("DROP TABLE xmpp_session.xmpp_cluster_lease, xmpp_session.xmpp_cluster");
        server.restore("kept.sql");
        let after = eventually("it answers", || block_on(engine.read()).ok());
        assert_ne!(after.instance, before);
        assert_eq!(after.record, Some(record(&before, 1)), "that of the backup");
        server.sql("TRUNCATE xmpp_session.xmpp_cluster CASCADE");
        let emptied = done(engine.read());
        assert!(emptied.instance != before && emptied.instance != after.instance);
        assert_eq!((emptied.living.len(), emptied.record), (0, None));
    }
}

#[test]
fn node_11_a_standby_that_takes_over_is_another_instance() {
    for bin in postgres_folders("node_11_a_standby_that_takes_over_is_another_instance") {
        let (runtime, mut first) = (runtime(), PostgresServer::start(&bin));
        let engine = connect(&runtime, &first.url());
        let before = done(engine.renew(lease(1), true)).instance;
        assert!(done(engine.replace(None, record(&before, 1))).done);
        let second = PostgresServer::standby_of(&first);
        eventually("it follows", || {
            (first.sql("SELECT count(*) FROM pg_stat_replication") == "1").then_some(())
        });
        let error = refused(&runtime, &second.url());
        assert!(matches!(error, PostgresError::Database(ConnectError::ReadOnly)), "{error:?}");
        // It is behind.
        second.signal("STOP");
        first.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication");
        assert!(done(engine.replace(Some(View { term: 1, number: 1 }), record(&before, 2))).done);
        first.kill();
        second.signal("CONT");
        second.promote();
        // A URL of both leads to the one that takes writes.
        let both = format!(
            "postgres://postgres@127.0.0.1:{},127.0.0.1:{}/postgres?sslmode=disable&target_session_attrs=read-write",
            first.port(),
            second.port()
        );
        let engine = connect(&runtime, &both);
        let after = done(engine.read());
        assert_ne!(after.instance, before);
        assert_eq!(after.record, Some(record(&before, 1)), "it is behind");
        assert!(!done(engine.replace(Some(View { term: 1, number: 1 }), record(&before, 2))).done);
    }
}

#[test]
fn node_1_a_database_that_hangs_is_not_waited_for() {
    for bin in postgres_folders("node_1_a_database_that_hangs_is_not_waited_for") {
        let (runtime, server) = (runtime(), PostgresServer::start(&bin));
        let engine = connect(&runtime, &server.url());
        let before = done(engine.renew(lease(1), true)).instance;
        server.signal("STOP");
        for _ in 0..3 {
            let error = why(engine.renew(lease(1), false));
            assert!(matches!(error, PostgresError::TimedOut), "{error:?}");
        }
        thread::sleep(TTL);
        server.signal("CONT");
        let after = eventually("it answers", || block_on(engine.read()).ok());
        assert_eq!(after.instance, before);
        // Nor for somebody who holds the row, whom nobody minds who only looks, and finds nothing that is over.
        let held = server.hold("SELECT 1 FROM xmpp_session.xmpp_cluster FOR UPDATE");
        let renew = || engine.renew(Lease { ttl: Duration::from_secs(600), ..lease(1) }, true);
        eventually("it is held", || block_on(renew()).is_err().then_some(()));
        let error = why(renew());
        assert!(matches!(error, PostgresError::TimedOut), "{error:?}");
        done(engine.read());
        drop(held);
        eventually("it answers", || block_on(renew()).ok());
    }
}

#[test]
fn node_1_what_is_wrong_with_a_database_is_said() {
    for bin in postgres_folders("node_1_what_is_wrong_with_a_database_is_said") {
        let (runtime, server) = (runtime(), PostgresServer::start(&bin));
        let port = server.port();
        let error = refused(&runtime, "postgres://postgres@127.0.0.1:1/postgres?sslmode=disable");
        assert!(
            matches!(error, PostgresError::Database(ConnectError::Unreachable(_))),
            "{error:?}"
        );
        assert!(matches!(
            block_on(builder(&server.url()).connect()),
            Err(PostgresError::NoRuntime)
        ));
        server.sql("CREATE ROLE nothing LOGIN");
        server.sql("CREATE ROLE one LOGIN SUPERUSER CONNECTION LIMIT 0");
        server.sql("ALTER ROLE one NOSUPERUSER");
        server.sql("CREATE ROLE secret LOGIN SUPERUSER PASSWORD 'secret'");
        server.asks_password_of("secret");
        let of = |user: &str| {
            refused(
                &runtime,
                &format!("postgres://{user}@127.0.0.1:{port}/postgres?sslmode=disable"),
            )
        };
        let error = of("nothing");
        assert!(
            matches!(error, PostgresError::Database(ConnectError::MissingRights(_))),
            "{error:?}"
        );
        let error = of("one");
        assert!(matches!(error, PostgresError::Full(_)), "{error:?}");
        let error = of("secret:wrong");
        assert!(matches!(error, PostgresError::Database(ConnectError::Refused(_))), "{error:?}");
        let url = format!("postgres://secret:secret@127.0.0.1:{port}/postgres?sslmode=disable");
        let engine = connect(&runtime, &url);
        // Whoever finds the tables there needs no right to make any.
        server.sql("GRANT USAGE ON SCHEMA xmpp_session TO nothing");
        server.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON xmpp_session.xmpp_cluster, xmpp_session.xmpp_cluster_lease TO nothing");
        let url = format!("postgres://nothing@127.0.0.1:{port}/postgres?sslmode=disable");
        done(connect(&runtime, &url).renew(lease(1), true));
        server.sql("ALTER SYSTEM SET default_transaction_read_only = on");
        server.sql("SELECT pg_reload_conf()");
        let error =
            eventually("it takes no writes", || match block_on(engine.renew(lease(1), true)) {
                Err(error) => error.0.downcast::<PostgresError>().ok().map(|error| *error),
                Ok(_) => None,
            });
        assert!(matches!(error, PostgresError::Database(ConnectError::ReadOnly)), "{error:?}");
        server.sql("ALTER SYSTEM RESET default_transaction_read_only");
        server.sql("SELECT pg_reload_conf()");
        eventually("it takes writes", || block_on(engine.renew(lease(1), true)).ok());
        server.sql(
            "UPDATE xmpp_session.xmpp_cluster_lease SET lease = 'nonsense', until = 'infinity'",
        );
        let error = why(engine.read());
        assert!(matches!(error, PostgresError::Foreign), "{error:?}");
    }
}

#[test]
fn node_11_nodes_outlive_what_a_database_suffers() {
    for bin in postgres_folders("node_11_nodes_outlive_what_a_database_suffers") {
        let (runtime, world, mut server) = (runtime(), World::new(), PostgresServer::start(&bin));
        // Posts by something else.
        let clock = Arc::new(crate::environment::System::new());
        let posts = Arc::new(MemoryEngine::new(clock));
        let start =
            |name| world.run(name, connect(&runtime, &server.url()) as _, Arc::clone(&posts) as _);
        let [mut a, b, mut c]: [Running; 3] = [start(1), start(2), start(3)];
        world.settles(&[&a, &b, &c]);
        assert_eq!(world.fenced(), [0; 0]);
        let before = world.view(&a);
        server.kill();
        server.begin();
        world.settles(&[&a, &b, &c]);
        assert_eq!(world.view(&a).term, before.term, "it has forgotten nothing");
        server.sql("TRUNCATE xmpp_session.xmpp_cluster CASCADE");
        eventually("a new term", || (world.view(&a).term > before.term).then_some(()));
        world.settles(&[&a, &b, &c]);
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

#[cfg(feature = "ring")]
#[test]
fn node_8_an_engine_on_postgres_conforms_by_tls() {
    use super::certificates::Certificate;
    use crate::store::SharedStore;
    for bin in postgres_folders("node_8_an_engine_on_postgres_conforms_by_tls") {
        let (runtime, server) = (runtime(), PostgresServer::start(&bin));
        let (good, other) = (Certificate::new(), Certificate::new());
        server.encrypts(&good);
        let file = |name: &str, of: &Certificate| {
            let file =
                std::env::temp_dir().join(format!("xmpp-session-{name}-{}.pem", server.port()));
            std::fs::write(&file, &of.certificate).unwrap();
            file
        };
        let (root, wrong) = (file("root", &good), file("wrong", &other));
        let url = |host: &str, mode: &str, root: Option<&std::path::PathBuf>| {
            let root =
                root.map(|root| format!("&sslrootcert={}", root.display())).unwrap_or_default();
            format!("postgres://postgres@{host}:{}/postgres?sslmode={mode}{root}", server.port())
        };
        for (host, mode, root, is_good) in [
            ("localhost", "require", None, true),
            ("localhost", "verify-full", Some(&root), true),
            ("127.0.0.1", "require", None, true),
            ("127.0.0.1", "verify-full", Some(&root), false),
            ("localhost", "verify-full", Some(&wrong), false),
            ("localhost", "verify-full", None, false),
            ("localhost", "disable", None, false),
        ] {
            let url = url(host, mode, root);
            let engine = runtime.block_on(builder(&url).connect()).err();
            assert_eq!(engine.is_none(), is_good, "{url}: {engine:?}");
            let store = runtime.block_on(PostgresConfig::new(&url).unwrap().connect());
            assert_eq!(store.is_ok(), is_good, "{url}: {:?}", store.err());
            if mode != "disable" && !is_good {
                assert!(matches!(engine, Some(PostgresError::Database(ConnectError::Tls(_)))));
            }
        }
        let url = url("localhost", "verify-full", Some(&root));
        conformance::engine(|| connect(&runtime, &url) as _, TTL, thread::sleep);
        let store = runtime.block_on(PostgresConfig::new(&url).unwrap().connect()).unwrap();
        let term = || block_on(SharedStore::next_term(&store)).unwrap();
        assert!(term() < term());
        for file in [root, wrong] {
            std::fs::remove_file(file).unwrap();
        }
    }
}
