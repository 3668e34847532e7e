//! The tables, through the versions.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::connection::ConnectError;

/// `MIGRATIONS[n]` leads from schema version `n` to `n + 1`. What was released is never changed.
///
/// A `key` of `text` is what is looked for, `whole` the text where that is too long for an index.
pub(super) const MIGRATIONS: &[&str] = &[
    r#"
    CREATE TABLE account (
        jid text COLLATE "C" PRIMARY KEY,
        disabled boolean NOT NULL
    );
    CREATE TABLE scram_keys (
        account text COLLATE "C" NOT NULL,
        hash text COLLATE "C" NOT NULL,
        salt bytea NOT NULL,
        iterations bigint NOT NULL,
        stored_key bytea NOT NULL,
        server_key bytea NOT NULL,
        PRIMARY KEY (account, hash)
    );
    CREATE TABLE roster (
        account text COLLATE "C" PRIMARY KEY,
        version bigint NOT NULL
    );
    CREATE TABLE roster_item (
        account text COLLATE "C" NOT NULL,
        contact text COLLATE "C" NOT NULL,
        whole text,
        name text,
        groups text[] NOT NULL,
        subscription text NOT NULL,
        ask boolean NOT NULL,
        approved boolean NOT NULL,
        PRIMARY KEY (account, contact)
    );
    CREATE TABLE subscription_request (
        account text COLLATE "C" NOT NULL,
        requester text COLLATE "C" NOT NULL,
        whole text,
        arrival bigint GENERATED ALWAYS AS IDENTITY,
        stanza bytea NOT NULL,
        PRIMARY KEY (account, requester)
    );
    -- A sequence never goes back (OFF-4). The index answers how much an account has waiting without a look at the stanzas.
    CREATE TABLE offline_message (
        account text COLLATE "C" NOT NULL,
        id bigint GENERATED ALWAYS AS IDENTITY,
        received bigint NOT NULL,
        bytes bigint NOT NULL,
        stanza bytea NOT NULL,
        PRIMARY KEY (account, id) INCLUDE (bytes)
    );
    CREATE TABLE blocked (
        account text COLLATE "C" NOT NULL,
        jid text COLLATE "C" NOT NULL,
        whole text,
        PRIMARY KEY (account, jid)
    );
    -- No token: what it is derived from.
    CREATE TABLE token_client (
        account text COLLATE "C" NOT NULL,
        client bytea NOT NULL,
        revision bigint NOT NULL,
        nonce bytea NOT NULL,
        last bigint NOT NULL,
        software text,
        device text,
        used bigint NOT NULL,
        current_number bigint,
        current_mechanism text,
        current_issued bigint,
        current_expiry bigint,
        current_count bigint,
        current_credentials bytea,
        new_number bigint,
        new_mechanism text,
        new_issued bigint,
        new_expiry bigint,
        new_count bigint,
        new_credentials bytea,
        PRIMARY KEY (account, client)
    );
    -- No token: its digest.
    CREATE TABLE invitation (
        key text COLLATE "C" PRIMARY KEY,
        whole text,
        domain text NOT NULL,
        account text COLLATE "C",
        contact text,
        expires bigint
    );
    CREATE INDEX invitation_of_account ON invitation USING hash (account);
    CREATE INDEX invitation_by_expiry ON invitation (expires);
    -- Of each lane of each server, its last transaction.
    CREATE TABLE lane (
        id bigint PRIMARY KEY,
        last bigint NOT NULL,
        used timestamptz NOT NULL DEFAULT now()
    );
    -- Of stores that several nodes share (NODE-3): the highest token of each slot, and the last term.
    CREATE TABLE slot_fence (
        slot integer PRIMARY KEY,
        term bigint NOT NULL,
        number bigint NOT NULL
    );
    CREATE TABLE term (
        one boolean PRIMARY KEY CHECK (one),
        last bigint NOT NULL
    );
    -- Lets a transaction pass, and from then on none with lower tokens. Until it ends nobody else raises the fence of these
    -- slots: it shares them, or has those to itself that it raises. Slots are in ascending order, so that two never wait
    -- for each other. Each statement in here sees what was committed before it.
    CREATE FUNCTION pass(slots integer[], terms bigint[], numbers bigint[]) RETURNS void
    LANGUAGE plpgsql VOLATILE AS $$
    DECLARE
        known slot_fence;
    BEGIN
        FOR n IN 1 .. cardinality(slots) LOOP
            SELECT * INTO known FROM slot_fence WHERE slot = slots[n];
            IF FOUND AND (known.term, known.number) >= (terms[n], numbers[n]) THEN
                PERFORM pg_advisory_xact_lock_shared(2020438899, slots[n]);
            ELSE
                PERFORM pg_advisory_xact_lock(2020438899, slots[n]);
            END IF;
            SELECT * INTO known FROM slot_fence WHERE slot = slots[n];
            IF NOT FOUND THEN
                INSERT INTO slot_fence VALUES (slots[n], terms[n], numbers[n]);
            ELSIF (known.term, known.number) > (terms[n], numbers[n]) THEN
                RAISE EXCEPTION USING ERRCODE = 'XS003', MESSAGE = 'the slot has another owner',
                    DETAIL = format('%s %s %s', slots[n], known.term, known.number);
            ELSIF (known.term, known.number) < (terms[n], numbers[n]) THEN
                UPDATE slot_fence SET term = terms[n], number = numbers[n] WHERE slot = slots[n];
            END IF;
        END LOOP;
    END $$;
"#,
    r#"
    -- Tells this store from others, also when its database moves or is upgraded (NODE-1).
    CREATE TABLE store (
        one boolean PRIMARY KEY DEFAULT true CHECK (one),
        id text NOT NULL DEFAULT left(gen_random_uuid()::text, 8)
    );
    INSERT INTO store DEFAULT VALUES;
"#,
];

/// "xmss", and what is done under it.
const MIGRATE: i64 = 0x786d_7373_0000_0001;

pub(super) fn known() -> i32 {
    i32::try_from(MIGRATIONS.len()).unwrap_or(i32::MAX)
}

/// Makes the tables, or brings them up to date. Of several that do this at the same time one does it, the others find it done.
pub(super) async fn migrate(client: &Client, schema: &str) -> Result<(), ConnectError> {
    let done = step(client, schema).await;
    let end = if done.is_ok() { "COMMIT" } else { "ROLLBACK" };
    let ended = client.batch_execute(end).await;
    done?;
    Ok(ended?)
}

async fn step(client: &Client, schema: &str) -> Result<(), ConnectError> {
    client.batch_execute("BEGIN READ WRITE; SET LOCAL statement_timeout = 0").await?;
    client.query("SELECT pg_advisory_xact_lock($1)", &[&MIGRATE]).await?;
    let there = "SELECT FROM pg_namespace WHERE nspname = $1";
    if client.query_opt(there, &[&schema]).await?.is_none() {
        client.batch_execute(&format!("CREATE SCHEMA {}", quoted(schema))).await?;
    }
    let mut version = match version(client).await? {
        Some(version) => version,
        None => {
            let begun = "CREATE TABLE schema_version (version integer NOT NULL);
                INSERT INTO schema_version VALUES (0)";
            client.batch_execute(begun).await?;
            0
        }
    };
    if version > known() {
        return Err(ConnectError::Newer { found: version, known: known() });
    }
    while let Some(migration) = usize::try_from(version).ok().and_then(|v| MIGRATIONS.get(v)) {
        let made = client.batch_execute(migration).await;
        made.map_err(|error| match error.code() {
            Some(&SqlState::DUPLICATE_TABLE) => ConnectError::Foreign(error.into()),
            _ => error.into(),
        })?;
        version += 1;
        client.execute("UPDATE schema_version SET version = $1", &[&version]).await?;
    }
    // Of servers that are long gone.
    client.batch_execute("DELETE FROM lane WHERE used < now() - interval '7 days'").await?;
    Ok(())
}

/// `None` where there is none.
pub(super) async fn version(client: &Client) -> Result<Option<i32>, ConnectError> {
    // By its name first: a missing table would end the transaction.
    let there = "SELECT to_regclass('schema_version')::text";
    let there: Option<String> = client.query_one(there, &[]).await?.try_get(0)?;
    if there.is_none() {
        return Ok(None);
    }
    let found = client.query_opt("SELECT version FROM schema_version", &[]).await?;
    Ok(found.map(|row| row.try_get(0)).transpose()?)
}

/// Which store it is, in few words: each lease has it.
#[cfg(feature = "cluster")]
pub(super) async fn identity(client: &Client) -> Result<std::sync::Arc<str>, ConnectError> {
    let identity = "SELECT current_database() || '/' || id FROM store";
    match client.query_opt(identity, &[]).await? {
        Some(row) => Ok(row.try_get::<_, &str>(0)?.into()),
        None => Err(ConnectError::Failed("the table `store` is empty".into())),
    }
}

/// An identifier.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
