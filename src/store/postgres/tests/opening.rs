//! What `connect` says of servers and databases of all kinds.

use super::proxy::{Mode, Proxy};
use super::*;

fn fails(database: &Database, url: &str) -> ConnectError {
    let connected = PostgresConfig::new(url).map(|config| database.connect(config));
    let error = match connected {
        Ok(Ok(_)) => panic!("connected to {url}"),
        Ok(Err(error)) | Err(error) => error,
    };
    let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
    assert!(!format!("{error} {error:?} {cause}").contains("secret"), "{error:?}");
    error
}

/// It is stopped, or is something else.
#[test]
fn bind_13_a_server_that_says_nothing_is_not_waited_for() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://x@{}/x", silent.local_addr().unwrap());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let config = PostgresConfig::new(&url).unwrap().timeout(Duration::from_millis(200));
    let error = runtime.block_on(config.connect()).unwrap_err();
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
}

#[test]
fn bind_13_of_several_that_start_at_once_one_makes_the_tables() {
    let database = Arc::new(database!());
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let config = database.config().connections(2);
            let handle = database.runtime.handle().clone();
            std::thread::spawn(move || handle.block_on(config.connect()).unwrap())
        })
        .collect();
    let stores: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert_eq!(database.number("SELECT count(*) FROM schema_version"), 1);
    let known = i64::from(schema::known());
    assert_eq!(database.number("SELECT version::bigint FROM schema_version"), known);
    block_on(stores[0].rosters().apply(&jid("a@example.com"), put(1, "b@example.com"))).unwrap();
    assert_eq!(block_on(stores[7].rosters().load(&jid("a@example.com"))).unwrap().version, 1);
}

#[test]
fn bind_13_tables_of_schema_version_1_are_brought_up_to_date() {
    let database = database!();
    database.execute("CREATE SCHEMA xmpp_session");
    database.execute(schema::MIGRATIONS[0]);
    database.execute(
        "CREATE TABLE schema_version (version integer NOT NULL); INSERT INTO schema_version VALUES (1);
         INSERT INTO roster VALUES ('a@example.com', 7)",
    );
    let store = database.store();
    assert_eq!(block_on(store.rosters().load(&jid("a@example.com"))).unwrap().version, 7);
    assert_eq!(database.number("SELECT version::bigint FROM schema_version"), 2);
}

#[test]
#[cfg(feature = "cluster")]
fn node_1_a_store_is_told_from_others() {
    use crate::store::SharedStore;

    let (database, other) = (database!(), database!());
    let identity = |database: &Database, schema: &str| {
        database.connect(database.config().schema(schema)).unwrap().identity()
    };
    let one = identity(&database, "one");
    assert!(one.contains(&database.name), "{one}");
    assert_eq!(identity(&database, "one"), one, "whoever asks");
    for different in [identity(&database, "two"), identity(&other, "one")] {
        assert_ne!(different, one);
    }
}

#[test]
fn bind_13_newer_tables_are_refused_and_left_alone() {
    let database = database!();
    let store = database.store();
    database.execute("UPDATE schema_version SET version = 77");
    let error = fails(&database, &database.url());
    let known = schema::known();
    assert!(
        matches!(error, ConnectError::Newer { found: 77, known: k } if k == known),
        "{error:?}"
    );
    assert_eq!(database.number("SELECT version::bigint FROM schema_version"), 77);
    // Nor does one that is connected already connect anew.
    database.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'xmpp-session'",
    );
    let error = block_on(store.count(&jid("a@example.com"))).unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.starts_with("the tables have schema version 77"), "{cause}");
}

#[test]
fn bind_13_tables_that_are_no_store_are_refused_and_left_alone() {
    let database = database!();
    database.execute("CREATE SCHEMA xmpp_session; CREATE TABLE xmpp_session.roster (jid text)");
    let error = fails(&database, &database.url());
    assert!(matches!(error, ConnectError::Foreign(_)), "{error:?}");
    let tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'xmpp_session'";
    assert_eq!(database.number(tables), 1);
    // Beside them there is room.
    database.connect(database.config().schema("a \"b\"; DROP TABLE x")).unwrap();
}

#[test]
fn bind_13_what_is_wrong_with_a_server_or_a_database_is_said() {
    let database = database!();
    let url = database.url();
    let name = &database.name;
    let user = format!("{name}_user");
    let authority = url.split_once("://").unwrap().1.split('/').next().unwrap().to_owned();
    let host = authority.rsplit('@').next().unwrap().to_owned();
    let other = |user: &str, database: &str, query: &str| {
        format!("postgres://{user}:secret@{host}/{database}?{query}")
    };
    let owner = authority.split(['@', ':']).next().unwrap();

    let error = fails(&database, "mysql://x");
    assert!(matches!(error, ConnectError::Url(_)), "{error:?}");
    for query in ["sslmode=perhaps", "a=b", "sslrootcert=%zz", "sslmode"] {
        let error = fails(&database, &other(owner, name, query));
        assert!(matches!(error, ConnectError::Url(_)), "{query}: {error:?}");
    }
    let error = fails(&database, &other(owner, "no_such_database", ""));
    assert!(matches!(error, ConnectError::NoDatabase(_)), "{error:?}");
    let error = fails(&database, &other("no_such_user", name, ""));
    assert!(matches!(error, ConnectError::Refused(_)), "{error:?}");
    let error = fails(&database, "postgres://x:secret@127.0.0.1:1/x");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    let error = fails(&database, "postgres://x:secret@no.such.host.invalid/x");
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");

    database.administer(&[&format!("CREATE ROLE {user} LOGIN PASSWORD 'secret'")]);
    let error = fails(&database, &other(&user, name, ""));
    assert!(matches!(error, ConnectError::MissingRights(_)), "{error:?}");
    drop(database.store());
    let error = fails(&database, &other(&user, name, ""));
    assert!(matches!(error, ConnectError::MissingRights(_)), "{error:?}");
    database.execute(&format!(
        "GRANT USAGE ON SCHEMA xmpp_session TO {user};
         GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA xmpp_session TO {user};
         REVOKE DELETE ON blocked FROM {user}"
    ));
    let error = fails(&database, &other(&user, name, ""));
    let ConnectError::MissingRights(cause) = error else { panic!("{error:?}") };
    assert!(cause.to_string().ends_with("on blocked"), "{cause}");
    database.execute(&format!("GRANT DELETE ON blocked TO {user}"));
    let store = database.connect(PostgresConfig::new(&other(&user, name, "")).unwrap()).unwrap();
    block_on(store.push(&jid("a@example.com"), message("1"))).unwrap();
    drop(store);

    database
        .administer(&[&format!("ALTER DATABASE {name} SET default_transaction_read_only = on")]);
    let error = fails(&database, &url);
    assert!(matches!(error, ConnectError::ReadOnly), "{error:?}");
    database.administer(&[&format!("ALTER DATABASE {name} RESET default_transaction_read_only")]);
    database.administer(&[
        &format!("CREATE DATABASE {name}_latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"),
    ]);
    let error = fails(&database, &url.replace(name.as_str(), &format!("{name}_latin")));
    database.administer(&[
        &format!("DROP DATABASE {name}_latin"),
        &format!("ALTER ROLE {user} CONNECTION LIMIT 0"),
    ]);
    assert!(matches!(&error, ConnectError::Encoding { found } if found == "LATIN1"), "{error:?}");
    let error = fails(&database, &other(&user, name, ""));
    assert!(matches!(error, ConnectError::Unreachable(_)), "{error:?}");
    database.execute(&format!("DROP OWNED BY {user}; DROP ROLE {user}"));
}

#[test]
fn bind_13_commits_are_durable_whatever_the_database_says() {
    let database = database!();
    let name = &database.name;
    database.administer(&[&format!("ALTER DATABASE {name} SET synchronous_commit = off")]);
    database.administer(&[&format!(
        "ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'"
    )]);
    let store = database.connect(database.config().connections(2)).unwrap();
    let setting = |setting: &str| {
        let sql = format!("SELECT current_setting('{setting}')");
        let asked = store.anybodys(Kind::Write, &[]).step(Box::leak(sql.into_boxed_str()), vec![]);
        let read = asked.call(|rows| Ok(call::first(rows)[0].get::<_, String>(0)));
        block_on(read).unwrap()
    };
    assert_eq!(setting("synchronous_commit"), "on");
    assert_eq!(setting("transaction_isolation"), "read committed");
    assert_eq!(setting("statement_timeout"), "10s");
    assert_eq!(setting("idle_in_transaction_session_timeout"), "5s");
    // Outside transactions nothing can be written.
    assert_eq!(setting("default_transaction_read_only"), "on");
}

#[test]
fn sec_6_debug_shows_no_password() {
    let url = "postgres://xmpp:secret@db.example/chat?sslmode=verify-full";
    assert!(!format!("{:?}", PostgresConfig::new(url).unwrap()).contains("secret"));
}

#[cfg(feature = "ring")]
fn pem(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    let text = BASE64_STANDARD.encode(certified.cert.der());
    format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n")
}

#[cfg(feature = "ring")]
#[test]
fn sslmode_means_what_it_does_elsewhere() {
    let database = database!();
    let plain = Proxy::new(&database, Mode::Open);
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key.unwrap())
        .unwrap();
    let tls = Proxy::with_tls(&database, Mode::Open, Some(Arc::new(server)));
    let file = |name: &str, pem: &str| {
        let file = std::env::temp_dir().join(format!("{}-{name}.pem", database.name));
        std::fs::write(&file, pem).unwrap();
        file
    };
    let (root, wrong) = (file("root", &pem(&certified)), file("wrong", &pem(&other)));
    let with =
        |mode: &str, root: &std::path::Path| format!("{mode}&sslrootcert={}", root.display());
    for (proxy, host, query, is_good) in [
        (&tls, "localhost", "sslmode=require".to_owned(), true),
        (&tls, "localhost", "".to_owned(), true),
        (&tls, "127.0.0.1", "sslmode=require".to_owned(), true),
        (&tls, "localhost", with("sslmode=verify-full", &root), true),
        (&tls, "127.0.0.1", with("sslmode=verify-full", &root), false),
        (&tls, "127.0.0.1", with("sslmode=verify-ca", &root), true),
        (&tls, "127.0.0.1", with("sslmode=require", &root), true),
        (&tls, "localhost", with("sslmode=verify-full", &wrong), false),
        (&tls, "localhost", with("sslmode=verify-ca", &wrong), false),
        (&tls, "localhost", with("sslmode=require", &wrong), false),
        (&tls, "localhost", "sslmode=verify-full".to_owned(), false),
        (&tls, "localhost", "sslmode=verify-full&sslrootcert=%2Fno%2Fsuch".to_owned(), false),
        (&plain, "localhost", "sslmode=prefer".to_owned(), true),
        (&plain, "localhost", "sslmode=disable".to_owned(), true),
        (&plain, "localhost", "sslmode=require".to_owned(), false),
    ] {
        let url = proxy.url(&database, host, &query);
        let connected = database.connect(PostgresConfig::new(&url).unwrap().connections(2));
        match connected {
            Ok(_) => assert!(is_good, "{host} {query}"),
            Err(ConnectError::Tls(_)) => assert!(!is_good, "{host} {query}"),
            Err(error) => panic!("{host} {query}: {error:?}"),
        }
    }
    for file in [root, wrong] {
        std::fs::remove_file(file).unwrap();
    }
}
