//! The stores of this crate beside each other: calls a second, one at a time and from many accounts at once.
//!
//! Needs a PostgreSQL server: `XMPP_TEST_POSTGRES=postgres://…  cargo bench --features postgres,sqlite --bench stores`. It makes
//! a schema of its own there, and an SQLite file in the directory for temporary files.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a bench fails by panicking"
)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use xmpp_session::jid::BareJid;
use xmpp_session::rules::roster::Item;
use xmpp_session::store::{
    Credentials, OfflineMessage, Postgres, PostgresConfig, RosterChange, ScramHash, ScramKeys,
    Sqlite, StoreFuture, Stores,
};

const ROUNDS: usize = 5;
const ACCOUNTS: usize = 64;
const ITEMS: u64 = 50;

type Work = fn(&Stores, &BareJid, u64) -> StoreFuture<()>;

/// What is called, and how often in a round by one and by all.
const WORK: [(&str, Work, u64, u64); 6] = [
    ("offline message kept", push, 200, 4000),
    ("roster item changed", change, 200, 4000),
    ("both rosters of a subscription changed", pair, 200, 4000),
    ("credentials read", credentials, 2000, 16_000),
    ("one contact of a roster read", contact, 2000, 16_000),
    ("roster of 50 read", load, 500, 4000),
];

fn push(stores: &Stores, account: &BareJid, _: u64) -> StoreFuture<()> {
    let message = OfflineMessage::new(vec![b'x'; 300], SystemTime::UNIX_EPOCH);
    let (offline, account) = (stores.offline.clone().unwrap(), account.clone());
    Box::pin(async move { offline.push(&account, message).await })
}

fn change(stores: &Stores, account: &BareJid, n: u64) -> StoreFuture<()> {
    stores.rosters.apply(account, put(n))
}

fn pair(stores: &Stores, account: &BareJid, n: u64) -> StoreFuture<()> {
    let other = BareJid::new(&format!("other-{account}")).unwrap();
    stores.rosters.apply_pair(account, put(n), &other, put(n))
}

fn credentials(stores: &Stores, account: &BareJid, _: u64) -> StoreFuture<()> {
    let found = stores.accounts.credentials(account);
    Box::pin(async { found.await.map(|found| assert!(found.is_some())) })
}

fn contact(stores: &Stores, account: &BareJid, n: u64) -> StoreFuture<()> {
    let found = stores.rosters.contact(account, &item(n).jid);
    Box::pin(async { found.await.map(|found| assert!(found.item.is_some())) })
}

fn load(stores: &Stores, account: &BareJid, _: u64) -> StoreFuture<()> {
    let found = stores.rosters.load(account);
    Box::pin(async { found.await.map(|found| assert!(found.items.len() as u64 == ITEMS)) })
}

fn item(n: u64) -> Item {
    let mut item = Item::new(BareJid::new(&format!("contact{}@example.com", n % ITEMS)).unwrap());
    (item.name, item.groups) = (Some("Contact".into()), vec!["Friends".into()]);
    item
}

fn put(n: u64) -> RosterChange {
    RosterChange::new().version(n + 1).put(item(n))
}

fn account(n: usize) -> BareJid {
    BareJid::new(&format!("account{n}@example.com")).unwrap()
}

async fn fill(stores: &Stores) {
    for n in 0..ACCOUNTS {
        let account = account(n);
        let keys = ScramKeys::from_parts(vec![1; 16], 4096, vec![2; 32], vec![3; 32]);
        let credentials = Credentials::new().with_keys(ScramHash::Sha256, keys);
        stores.accounts.set_credentials(&account, credentials).await.unwrap();
        for n in 0..ITEMS {
            stores.rosters.apply(&account, put(n)).await.unwrap();
        }
    }
}

/// Calls a second.
async fn round(stores: &Stores, work: Work, accounts: usize, calls: u64) -> f64 {
    let each = calls / accounts as u64;
    let begun = Instant::now();
    let tasks: Vec<_> = (0..accounts)
        .map(|n| {
            let (stores, account) = (stores.clone(), account(n));
            tokio::spawn(async move {
                for n in 0..each {
                    work(&stores, &account, n).await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let took = begun.elapsed();
    for n in 0..accounts {
        stores.offline.as_ref().unwrap().clear(&account(n)).await.unwrap();
    }
    (each * accounts as u64) as f64 / took.as_secs_f64()
}

fn median(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 2]
}

#[tokio::main]
async fn main() {
    let Ok(url) = std::env::var("XMPP_TEST_POSTGRES") else {
        println!("SKIPPED: XMPP_TEST_POSTGRES names no server");
        return;
    };
    let schema = format!("xmpp_bench_{}", std::process::id());
    let config = PostgresConfig::new(&url).unwrap().schema(schema.clone());
    let postgres: Postgres = config.timeout(Duration::from_secs(60)).connect().await.unwrap();
    let directory = std::env::temp_dir().join(&schema);
    std::fs::create_dir(&directory).unwrap();
    let sqlite = Sqlite::open(directory.join("data.sqlite")).unwrap();
    let stores = [Stores::all_in(Arc::new(sqlite)), Stores::all_in(Arc::new(postgres))];
    for stores in &stores {
        fill(stores).await;
    }
    println!("calls a second, medians of {ROUNDS} rounds");
    println!("{:40} {:>8} {:>10} {:>10} {:>6}", "what", "accounts", "Sqlite", "Postgres", "ratio");
    for (name, work, alone, together) in WORK {
        for (accounts, calls) in [(1, alone), (ACCOUNTS, together)] {
            let mut rates = [Vec::new(), Vec::new()];
            for _ in 0..ROUNDS {
                for (stores, rates) in stores.iter().zip(&mut rates) {
                    rates.push(round(stores, work, accounts, calls).await);
                }
            }
            let [sqlite, postgres] = rates.map(median);
            let ratio = postgres / sqlite;
            println!("{name:40} {accounts:>8} {sqlite:>10.0} {postgres:>10.0} {ratio:>6.2}");
        }
    }
    drop(stores);
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.unwrap();
    std::fs::remove_dir_all(&directory).unwrap();
}
