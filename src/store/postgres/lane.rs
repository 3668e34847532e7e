//! The pool: tasks with a connection each that take what waits.

use std::collections::{BTreeSet, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;

use super::call::{Call, Kind, Rows};
use super::connection::{ConnectError, Connection, Connector, Reply, all, describe, is_gone};
use super::text;
use crate::store::StoreError;

/// How many calls go into one transaction.
const MOST: usize = 64;

/// How long a lane waits before it tries again, at first and at last.
const PAUSES: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));

/// Numbers of one's own, until the transaction ends. In ascending order, so that two never wait for each other. The
/// lane's own is one of them.
const ALONE: &str =
    "SELECT count(pg_advisory_xact_lock(number)) FROM unnest($1::bigint[]) AS number";

/// Which transaction of its lane this is: if its COMMIT is not answered, the server can be asked. `txid_status` would not
/// do: a server that crashed gives numbers again that it had not written down.
const MARK: &str = "INSERT INTO lane (id, last) VALUES ($1, $2)
    ON CONFLICT (id) DO UPDATE SET last = excluded.last, used = now()";
/// Behind the end of the transaction, if the server has not noticed yet that its connection was lost.
const ENDED: &str = "SELECT pg_advisory_xact_lock($1)";
const MARKED: &str = "SELECT FROM lane WHERE id = $1 AND last = $2";
#[cfg(feature = "cluster")]
const PASS: &str = "SELECT pass($1, $2, $3)";

/// The queues, and the lanes that serve them until they are dropped.
pub(super) struct Pool {
    reads: Arc<Queue>,
    writes: Arc<Queue>,
    pub(super) timeout: Duration,
}

impl Pool {
    pub(super) fn new(
        connector: Connector,
        first: Connection,
        connections: usize,
        timeout: Duration,
    ) -> Self {
        let pool = Self { reads: Arc::default(), writes: Arc::default(), timeout };
        let connector = Arc::new(connector);
        let runtime = Handle::current();
        let mut first = Some(first);
        for n in 0..connections.max(2) {
            let (kind, queue) = match n % 2 {
                0 => (Kind::Write, &pool.writes),
                _ => (Kind::Read, &pool.reads),
            };
            let lane = Lane {
                kind,
                id: RandomState::new().hash_one(n).cast_signed(),
                last: 0,
                connector: Arc::clone(&connector),
                connection: first.take(),
                pause: PAUSES.0,
                timeout,
            };
            runtime.spawn(lane.serve(Served::new(queue)));
        }
        pool
    }

    pub(super) fn push(&self, kind: Kind, call: Call) {
        let queue = match kind {
            Kind::Read => &self.reads,
            Kind::Write => &self.writes,
        };
        let mut state = queue.state.lock();
        // Nobody is left to answer: to drop it is an answer too.
        if state.lanes > 0 {
            state.waiting.push_back(call);
            drop(state);
            queue.changed.notify_one();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        for queue in [&self.reads, &self.writes] {
            queue.state.lock().is_closed = true;
            queue.changed.notify_waiters();
        }
    }
}

#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Call>,
    lanes: usize,
    /// Lanes that have nothing to do.
    idle: usize,
    is_closed: bool,
}

impl Queue {
    /// What waits, or this lane's part of it if others have nothing to do; `None` when there will be nothing more.
    async fn next(&self) -> Option<Vec<Call>> {
        let mut is_idle = false;
        loop {
            // Before the look, so that no change is missed behind it.
            let changed = self.changed.notified();
            {
                let mut state = self.state.lock();
                if !is_idle {
                    state.idle += 1;
                }
                is_idle = true;
                if !state.waiting.is_empty() {
                    let part = state.waiting.len().div_ceil(state.idle.max(1)).min(MOST);
                    state.idle = state.idle.saturating_sub(1);
                    return Some(state.waiting.drain(..part).collect());
                }
                if state.is_closed {
                    return None;
                }
            }
            changed.await;
        }
    }
}

/// A queue with one more lane, until this is dropped with it: at its end, or at that of the runtime.
struct Served(Arc<Queue>);

impl Served {
    fn new(queue: &Arc<Queue>) -> Self {
        queue.state.lock().lanes += 1;
        Self(Arc::clone(queue))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.lanes = state.lanes.saturating_sub(1);
        let left = match state.lanes {
            0 => std::mem::take(&mut state.waiting),
            _ => VecDeque::new(),
        };
        drop(state);
        drop(left);
    }
}

struct Lane {
    kind: Kind,
    /// Which lane this is, of those of all servers.
    id: i64,
    /// Its transactions, counted.
    last: i64,
    connector: Arc<Connector>,
    connection: Option<Connection>,
    pause: Duration,
    timeout: Duration,
}

/// Why calls were not done.
enum Trouble {
    /// A statement was refused: nothing has changed.
    Refused(Refusal),
    /// The connection was lost: nothing has changed.
    Lost(String),
    /// The connection was lost behind the COMMIT of this transaction.
    InDoubt(Vec<Rows>),
}

struct Refusal {
    error: StoreError,
    /// Whether it may pass when it is tried again.
    is_temporary: bool,
}

impl Lane {
    async fn serve(mut self, queue: Served) {
        while let Some(calls) = queue.0.next().await {
            self.all_of(calls).await;
        }
    }

    /// Answers each of them, together if that is possible.
    async fn all_of(&mut self, calls: Vec<Call>) {
        let mut groups = VecDeque::from([calls]);
        let mut last = None;
        while let Some(mut calls) = groups.pop_front() {
            let now = Instant::now();
            for late in calls.extract_if(.., |call| call.until <= now) {
                late.answer(Err(too_late(self.timeout, last.as_deref())));
            }
            let Some(first) = calls.first() else { continue };
            let left = first.until.saturating_duration_since(now);
            match timeout(left, self.connected()).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) if error.is_temporary() => {
                    last = Some(chain(&error));
                    self.rest().await;
                    groups.push_front(calls);
                    continue;
                }
                Ok(Err(error)) => {
                    let text = chain(&error);
                    for call in calls {
                        call.answer(Err(StoreError::failed(text.clone())));
                    }
                    continue;
                }
                Err(_) => {
                    groups.push_front(calls);
                    continue;
                }
            }
            match self.attempt(&calls).await {
                Ok(rows) => {
                    self.pause = PAUSES.0;
                    answer(calls, rows);
                }
                // One of them is to blame, or the server ends whenever it sees it.
                Err(Trouble::Refused(_)) if calls.len() > 1 => apart(&mut groups, calls),
                Err(Trouble::Refused(refusal)) if refusal.is_temporary => {
                    last = Some(chain(&refusal.error));
                    self.rest().await;
                    groups.push_front(calls);
                }
                Err(Trouble::Refused(refusal)) => {
                    if let Some(call) = calls.pop() {
                        call.answer(Err(refusal.error));
                    }
                }
                Err(Trouble::Lost(why)) => {
                    self.connection = None;
                    last = Some(why);
                    self.rest().await;
                    apart(&mut groups, calls);
                }
                Err(Trouble::InDoubt(rows)) => {
                    self.connection = None;
                    match self.settle(&calls).await {
                        Some(true) => answer(calls, rows),
                        Some(false) => groups.push_front(calls),
                        None => {
                            for call in calls {
                                call.answer(Err(StoreError::failed(UNKNOWN)));
                            }
                        }
                    }
                }
            }
        }
    }

    /// Makes sure that there is a connection.
    async fn connected(&mut self) -> Result<(), ConnectError> {
        if self.connection.as_ref().is_none_or(|connection| connection.client.is_closed()) {
            self.connection = None;
            self.connection = Some(self.connector.reopen().await?);
        }
        Ok(())
    }

    async fn rest(&mut self) {
        sleep(self.pause).await;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    async fn attempt(&mut self, calls: &[Call]) -> Result<Vec<Rows>, Trouble> {
        // The server's own time-out comes first where it can.
        let patience = self.timeout.saturating_add(Duration::from_secs(1));
        self.last += 1;
        let mark = (self.kind == Kind::Write).then_some((self.id, self.last));
        let Some(connection) = &mut self.connection else {
            return Err(Trouble::Lost("no connection".into()));
        };
        let sent = async {
            let steps = calls.iter().flat_map(|call| &call.steps).map(|step| step.sql);
            #[cfg(feature = "cluster")]
            let steps =
                steps.chain(calls.iter().any(|call| !call.fences.is_empty()).then_some(PASS));
            let alone = mark.map(|_| [ALONE, MARK]).into_iter().flatten();
            connection.prepare(steps.chain(alone)).await.map_err(trouble)?;
            send(connection, mark, calls).await
        };
        let rows = match timeout(patience, sent).await {
            Ok(sent) => match sent {
                Ok(sent) => sent,
                Err(refused @ Trouble::Refused(_)) => {
                    let undone = connection.command("ROLLBACK");
                    return match timeout(patience, undone).await {
                        Ok(Ok(_)) => Err(refused),
                        _ => Err(Trouble::Lost("the server does not answer".into())),
                    };
                }
                Err(trouble) => return Err(trouble),
            },
            Err(_) => return Err(Trouble::Lost("the server does not answer".into())),
        };
        if mark.is_none() {
            return Ok(rows);
        }
        match timeout(patience, connection.command("COMMIT")).await {
            Ok(Ok(_)) => Ok(rows),
            Ok(Err(error)) => Err(match trouble(error) {
                Trouble::Refused(refusal) => Trouble::Refused(refusal),
                _ => Trouble::InDoubt(rows),
            }),
            Err(_) => Err(Trouble::InDoubt(rows)),
        }
    }

    /// Whether the last transaction took place; `None` where that is not to be found out in time.
    async fn settle(&mut self, calls: &[Call]) -> Option<bool> {
        // As long again as they have waited at most: to say nothing is worse than to be late.
        let until = calls.iter().map(|call| call.until).max()?.checked_add(self.timeout)?;
        let asked = async {
            loop {
                if let Some(took_place) = self.ask().await {
                    return took_place;
                }
                self.rest().await;
            }
        };
        timeout(until.saturating_duration_since(Instant::now()), asked).await.ok()
    }

    async fn ask(&mut self) -> Option<bool> {
        self.connected().await.ok()?;
        let client = &self.connection.as_ref()?.client;
        let (lane, id, number) = (lock_of(self.id), self.id, self.last);
        let asked = async {
            let values: [&(dyn ToSql + Sync); 1] = [&lane];
            client.query(ENDED, &values).await?;
            let values: [&(dyn ToSql + Sync); 2] = [&id, &number];
            client.query_opt(MARKED, &values).await
        };
        if let Ok(Ok(found)) = timeout(self.timeout, asked).await {
            return Some(found.is_some());
        }
        self.connection = None;
        None
    }
}

fn lock_of(lane: i64) -> i64 {
    text::number("lane", &lane.to_string())
}

const UNKNOWN: &str = "the connection was lost behind a commit, and the server cannot be asked: \
    what was to be changed may have been changed";

/// All statements of all calls, up to the COMMIT of those that write: these bear the mark.
async fn send(
    connection: &Connection,
    mark: Option<(i64, i64)>,
    calls: &[Call],
) -> Result<Vec<Rows>, Trouble> {
    let mut numbers: BTreeSet<_> =
        calls.iter().flat_map(|call| &call.alone_with).copied().collect();
    numbers.extend(mark.map(|(lane, _)| lock_of(lane)));
    let numbers: Vec<_> = numbers.into_iter().collect();
    let fences = fences(calls)?;
    let mut replies: Vec<Reply<'_>> = Vec::new();
    let is_fenced = !fences.0.is_empty();
    if mark.is_some() || is_fenced {
        replies.push(connection.command("BEGIN READ WRITE"));
    }
    #[cfg(feature = "cluster")]
    if is_fenced {
        let values: [&(dyn ToSql + Sync); 3] = [&fences.0, &fences.1, &fences.2];
        replies.push(connection.query(PASS, values.into_iter()));
    }
    if let Some((lane, number)) = &mark {
        let values: [&(dyn ToSql + Sync); 1] = [&numbers];
        replies.push(connection.query(ALONE, values.into_iter()));
        let values: [&(dyn ToSql + Sync); 2] = [lane, number];
        replies.push(connection.query(MARK, values.into_iter()));
    }
    let before = replies.len();
    for step in calls.iter().flat_map(|call| &call.steps) {
        let values = step.values.iter().map(|value| &**value as &(dyn ToSql + Sync));
        replies.push(connection.query(step.sql, values));
    }
    if is_fenced && mark.is_none() {
        replies.push(connection.command("COMMIT"));
    }
    let mut results = Vec::with_capacity(replies.len());
    for result in all(replies).await {
        // The first error is the cause of the others.
        results.push(result.map_err(trouble)?);
    }
    let mut results = results.into_iter().skip(before);
    let rows = |call: &Call| results.by_ref().take(call.steps.len()).collect();
    Ok(calls.iter().map(rows).collect())
}

/// Slots in ascending order with the highest token of each.
type Fences = (Vec<i32>, Vec<i64>, Vec<i64>);

#[cfg(not(feature = "cluster"))]
fn fences(_: &[Call]) -> Result<Fences, Trouble> {
    Ok(Fences::default())
}

#[cfg(feature = "cluster")]
fn fences(calls: &[Call]) -> Result<Fences, Trouble> {
    use crate::store::fence::Deposed;
    let mut highest = std::collections::BTreeMap::new();
    for fence in calls.iter().flat_map(|call| &call.fences) {
        let token = highest.entry(fence.slot).or_insert(fence.token);
        *token = fence.token.max(*token);
    }
    for fence in calls.iter().flat_map(|call| &call.fences) {
        let Some(by) = highest.get(&fence.slot).filter(|by| fence.token < **by) else { continue };
        let error = Deposed { slot: fence.slot, by: *by }.into();
        return Err(Trouble::Refused(Refusal { error, is_temporary: false }));
    }
    let signed = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let mut fences = Fences::default();
    for (slot, token) in highest {
        fences.0.push(slot.into());
        fences.1.push(signed(token.term));
        fences.2.push(signed(token.number));
    }
    Ok(fences)
}

/// What an error of the driver's means for the calls that it came of.
fn trouble(error: tokio_postgres::Error) -> Trouble {
    let text = describe(&error);
    let Some(code) = error.code() else {
        // A value that cannot be sent, or read, is the call's own; all else is the connection's.
        let is_ours = error.to_string().contains("serializing")
            || error.to_string().contains("invalid column")
            || error.to_string().contains("parameters");
        return match is_ours {
            true => refused(StoreError::failed(text), false),
            false => Trouble::Lost(text),
        };
    };
    #[cfg(feature = "cluster")]
    if let Some(deposed) = super::fence::deposed(&error) {
        return refused(deposed.into(), false);
    }
    let is_temporary =
        [SqlState::T_R_DEADLOCK_DETECTED, SqlState::T_R_SERIALIZATION_FAILURE].contains(code);
    match *code {
        _ if is_gone(code) => Trouble::Lost(text),
        // It was the main server before.
        SqlState::READ_ONLY_SQL_TRANSACTION => Trouble::Lost(text),
        // Prepared for tables that have changed since, or behind a pooler on another connection.
        SqlState::FEATURE_NOT_SUPPORTED | SqlState::INVALID_SQL_STATEMENT_NAME => {
            Trouble::Lost(text)
        }
        SqlState::DISK_FULL => refused(StoreError::no_space(text), false),
        _ => refused(StoreError::failed(text), is_temporary),
    }
}

const fn refused(error: StoreError, is_temporary: bool) -> Trouble {
    Trouble::Refused(Refusal { error, is_temporary })
}

fn answer(calls: Vec<Call>, rows: Vec<Rows>) {
    for (call, rows) in calls.into_iter().zip(rows) {
        call.answer(Ok(rows));
    }
}

/// Each for itself from now on, in the same order.
fn apart(groups: &mut VecDeque<Vec<Call>>, calls: Vec<Call>) {
    for call in calls.into_iter().rev() {
        groups.push_front(vec![call]);
    }
}

fn too_late(timeout: Duration, last: Option<&str>) -> StoreError {
    let why = last.map_or_else(String::new, |last| format!(": {last}"));
    StoreError::failed(format!("not done within {timeout:?}{why}"))
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
