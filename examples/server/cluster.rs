//! The server as one node of several (docs/cluster.md): it waits until it is a member, then listens, and leaves when it is
//! told to stop.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::time::sleep;
use xmpp_session::cluster::{Engine, Postgres, Posts, Redis};
use xmpp_session::host::tokio::{background, listen, shutdown};
use xmpp_session::host::{Host, TlsConfig};
use xmpp_session::outbox::Outbox;
use xmpp_session::server::{Cluster, NodeHandle, Shutdown};
use xmpp_session::store::{
    AccountStore, AnyAccount, Fence, FenceTokens, PostgresConfig, SharedStore, StoreFuture, Stores,
};

use crate::log::Log;
use crate::options::{self, Options};
use crate::setup::{self, told};
use crate::{Failure, serve_metrics, sockets};

/// How long leaving may take: a little less than systemd waits before it kills.
const LEAVE: Duration = Duration::from_secs(80);
/// How long the last bytes for clients may take after it.
const LAST_WORDS: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(50);

/// Runs a node until it is told to stop, or may not act any more.
pub(crate) async fn serve(
    cluster: &options::Cluster,
    options: &Options,
    tls: TlsConfig,
) -> Result<(), Failure> {
    let (log, name) = (Log(options.settings.log), &cluster.node);
    let sockets = sockets(options)?;
    let mut stop = pin!(setup::stop()?);
    let begun = async {
        let (joined, stores) = join(cluster, options).await?;
        let (server, _) = setup::server(&options.settings, false, stores).await?;
        Ok::<_, Failure>(server.cluster(joined))
    };
    let server = tokio::select! {
        begun = begun => begun?,
        () = &mut stop => return Ok(()),
    };
    let was_fenced = Arc::new(AtomicBool::new(false));
    let server = server.listener(move |event| log.event(event)).on_fault({
        let was_fenced = Arc::clone(&was_fenced);
        move |fault| {
            log.fault(fault);
            was_fenced.fetch_or(fault.kind().as_str() == "fenced", Ordering::Relaxed);
        }
    });
    let server = server.build();
    let node = server.node().ok_or("no node")?;
    let host = Arc::new(Host::new(server.clone()).tls(tls));

    let (mut text, mut metrics) = (String::new(), String::new());
    serve_metrics(options, server.clone(), &mut metrics).await?;
    let mut runs = tokio::spawn({
        let node = node.clone();
        async move { node.run().await }
    });
    // Until there are listeners, which do it.
    let work = tokio::spawn(background(server));
    log.info(&format!("node {name} waits until it is a member"));
    let accepting = async {
        while !node.is_member() {
            sleep(LOOK).await;
        }
        log.info(&format!("node {name} is a member"));
        let mut listening = tokio::task::JoinSet::new();
        for listener in sockets.listen(options, log, &mut text)? {
            listening.spawn(listen(Arc::clone(&host), listener, std::future::pending()));
        }
        work.abort();
        print!("{text}{metrics}");
        watch(&node, name, log).await;
        Ok(())
    };
    let stopped = tokio::select! {
        stopped = accepting => stopped,
        _ended = &mut runs => Ok(()),
        () = &mut stop => {
            log.info(&format!("node {name} leaves; a second signal ends it at once"));
            Ok(())
        }
    };
    if !runs.is_finished() {
        let again = setup::stop()?;
        let mut how = Shutdown::new();
        if let Some((host, port)) = &cluster.other_host {
            how = how.see_other_host(host, *port);
        }
        tokio::select! {
            () = node.leave(how) => {}
            () = sleep(LEAVE) => return Err(late(name)),
            () = again => return Err(format!("node {name} was ended before it had left").into()),
        }
        shutdown(&host, LAST_WORDS).await;
    }
    if was_fenced.load(Ordering::Relaxed) {
        return Err(format!("node {name} is fenced: to be started again").into());
    }
    log.info(&format!("node {name} has left"));
    stopped
}

fn late(name: &str) -> Failure {
    format!("node {name} has not left within {} seconds", LEAVE.as_secs()).into()
}

/// Tells who is there, whenever that has changed and nothing moves.
async fn watch(node: &NodeHandle<Arc<Outbox>>, name: &str, log: Log) {
    let (mut before, mut said) = ((0, 0), (0, 0));
    loop {
        let seen = node.metrics();
        let now = (seen.members, seen.slots);
        if seen.moving == 0 && now == before && now != said {
            let (members, slots) = now;
            log.info(&format!("node {name}: nodes: {members}, slots of 1024 here: {slots}"));
            said = now;
        }
        before = now;
        sleep(LOOK * 10).await;
    }
}

/// Connects to what nodes stand on. The stores are those to make a server of: accounts are made before it is a member.
async fn join(cluster: &options::Cluster, options: &Options) -> Result<(Cluster, Stores), Failure> {
    let data = options.settings.data.as_deref().unwrap_or_else(|| "".as_ref());
    let config = PostgresConfig::new(&data.to_string_lossy()).map_err(|error| told(&error))?;
    let at_redis = |error| format!("Redis: {}", told(&error));
    let database = Arc::new(config.clone().connect().await.map_err(|error| told(&error))?);
    let mut redis = Redis::builder(&cluster.urls);
    if let Some(name) = &cluster.name {
        redis = redis.name(name);
    }
    let (engine, posts): (Arc<dyn Engine>, Arc<dyn Posts>) = match cluster.engine {
        options::Engine::Redis => {
            let redis = Arc::new(redis.connect().await.map_err(at_redis)?);
            (Arc::clone(&redis) as _, redis)
        }
        options::Engine::Postgres => {
            let engine = Postgres::builder(config).connect().await;
            let posts = redis.connect_posts().await.map_err(at_redis)?;
            (Arc::new(engine.map_err(|error| told(&error))?), Arc::new(posts))
        }
    };
    let any_account = match &options.settings.any_account {
        Some(password) => Some(Arc::new(AnyAccount::new(password)?) as _),
        None => None,
    };
    let shared = Shared { database: Arc::clone(&database), any_account };
    let cluster = Cluster::new(cluster.node.as_str(), engine, posts, Arc::new(shared));
    let mut stores = Stores::all_in(database);
    stores.blocks = cluster.stores().blocks;
    Ok((cluster, stores))
}

/// The database, with accounts of another kind if there are such.
struct Shared {
    database: Arc<xmpp_session::store::Postgres>,
    any_account: Option<Arc<dyn AccountStore>>,
}

impl SharedStore for Shared {
    fn of_node(&self, tokens: Arc<dyn FenceTokens>) -> Stores {
        let mut stores = self.database.of_node(tokens);
        if let Some(accounts) = &self.any_account {
            stores.accounts = Arc::clone(accounts);
        }
        stores
    }

    fn claim(&self, fence: Fence) -> StoreFuture<()> {
        self.database.claim(fence)
    }

    fn next_term(&self) -> StoreFuture<u64> {
        self.database.next_term()
    }

    fn identity(&self) -> Arc<str> {
        self.database.identity()
    }
}
