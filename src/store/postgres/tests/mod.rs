//! Against a real server: where `XMPP_TEST_POSTGRES` says how to reach one, as a role that may create databases and roles.

mod faults;
#[cfg(feature = "sqlite")]
mod model;
mod opening;
mod proxy;
mod races;

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::runtime::Runtime;
use tokio_postgres::{Client, NoTls};

use super::*;
use crate::park::block_on;
use crate::rules::roster::{Item, Subscription};
use crate::store::{
    AccountStore, BlockStore, InvitationStore, OfflineMessage, OfflineStore, RosterChange,
    RosterStore, Stores, TokenStore, conformance,
};

/// A database of its own, and a runtime for what connects to it.
pub(crate) struct Database {
    name: String,
    server: String,
    pub(crate) runtime: Runtime,
}

impl Database {
    /// `None`, and a word, where there is no server to test with.
    pub(crate) fn new() -> Option<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("XMPP_TEST_POSTGRES") else {
            // Not captured, unlike `println!`.
            let word = format!(
                "SKIPPED: no XMPP_TEST_POSTGRES: {}\n",
                std::thread::current().name().unwrap_or_default()
            );
            std::io::Write::write_all(&mut std::io::stderr(), word.as_bytes()).unwrap();
            return None;
        };
        let name =
            format!("xmpp_test_{}_{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let database = Self { name, server, runtime };
        database.administer(&[
            &format!("DROP DATABASE IF EXISTS {}", database.name),
            &format!("CREATE DATABASE {} ENCODING 'UTF8' TEMPLATE template0", database.name),
        ]);
        Some(database)
    }

    /// Commands to the server.
    pub(crate) fn administer(&self, commands: &[&str]) {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.server, NoTls).await.unwrap();
            tokio::spawn(connection);
            for command in commands {
                client.batch_execute(command).await.unwrap();
            }
        });
    }

    pub(crate) fn url(&self) -> String {
        let (address, query) = self.server.split_once('?').unwrap_or((&self.server, ""));
        let at = address.rfind('/').unwrap();
        format!("{}/{}?{query}", &address[..at], self.name)
    }

    pub(crate) fn config(&self) -> PostgresConfig {
        PostgresConfig::new(&self.url()).unwrap()
    }

    pub(crate) fn connect(&self, config: PostgresConfig) -> Result<Postgres, ConnectError> {
        self.runtime.block_on(config.connect())
    }

    pub(crate) fn store(&self) -> Postgres {
        self.connect(self.config()).unwrap()
    }

    /// Another program that looks into the store.
    fn client(&self) -> Client {
        self.runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&self.url(), NoTls).await.unwrap();
            tokio::spawn(connection);
            client.batch_execute("SET search_path = xmpp_session").await.unwrap();
            client
        })
    }

    fn execute(&self, sql: &str) {
        let client = self.client();
        self.runtime.block_on(client.batch_execute(sql)).unwrap();
    }

    fn number(&self, sql: &str) -> i64 {
        let client = self.client();
        self.runtime.block_on(client.query_one(sql, &[])).unwrap().get(0)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.administer(&[&format!("DROP DATABASE {} WITH (FORCE)", self.name)]);
        }
    }
}

/// The database of a test, or the end of it.
macro_rules! database {
    () => {
        match super::Database::new() {
            Some(database) => database,
            None => return,
        }
    };
}
use database;

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

fn item(contact: &str) -> Item {
    Item {
        jid: jid(contact),
        name: Some("Contact".into()),
        groups: vec!["Friends".into(), "Verona".into()],
        subscription: Subscription::To,
        ask: false,
        approved: false,
    }
}

fn put(version: u64, contact: &str) -> RosterChange {
    RosterChange::new().version(version).put(item(contact))
}

fn message(text: &str) -> OfflineMessage {
    OfflineMessage::new(text.as_bytes(), UNIX_EPOCH)
}

impl Postgres {
    fn rosters(&self) -> &dyn RosterStore {
        self
    }

    fn offline(&self) -> &dyn OfflineStore {
        self
    }

    fn blocks(&self) -> &dyn BlockStore {
        self
    }
}

#[test]
fn roster_10_sub_9_off_2_block_2_fast_4_postgres_conforms() {
    let Some(database) = Database::new() else { return };
    let limits = OfflineLimits::new(30, 100_000);
    let open = || Stores::all_in(Arc::new(database.store().with_offline_limits(limits)));
    conformance::durable(open);
    let stores = open();
    conformance::all(|| stores.clone());
    conformance::all(open);
}

#[test]
fn reg_7_reg_8_postgres_conforms() {
    let Some(database) = Database::new() else { return };
    let open = || Arc::new(database.store()) as Arc<dyn InvitationStore>;
    conformance::invitations(open);
    conformance::durable_invitations(open);
    assert_eq!(database.number("SELECT count(*) FROM invitation"), 0);
}
