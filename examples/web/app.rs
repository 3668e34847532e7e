//! The server, and what is answered where.

use std::sync::Arc;

use axum::Router;
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{get, post};
use xmpp_session::host::Host;
use xmpp_session::outbox::Outbox;
use xmpp_session::server::Server;

use crate::live::{Ends, Live};
use crate::log::Log;
use crate::operator::{self, Guard};
use crate::options::Options;
use crate::settings::Account;
use crate::site::Site;
use crate::socket::{self, Socket};
use crate::{Failure, discovery, pages, setup};

pub(crate) struct App {
    pub(crate) host: Arc<Host<Arc<Outbox>>>,
    pub(crate) server: Server<Arc<Outbox>>,
    pub(crate) routes: Router,
    /// Accounts that were made up.
    pub(crate) invented: Vec<Account>,
}

impl App {
    pub(crate) async fn new(options: Options) -> Result<Self, Failure> {
        let log = Log(options.settings.log);
        let ends = Arc::<Ends>::default();
        let stores = setup::stores(&options.settings).await?;
        let server = setup::server(&options.settings, options.allow_plaintext, stores);
        let (server, invented) = server.await?;
        let server = server.listener({
            let ends = Arc::clone(&ends);
            move |event| {
                log.event(event);
                ends.event(event);
            }
        });
        let server = server.build();
        let host = Arc::new(Host::new(server.clone()));
        let live = Live::new(server.clone(), ends, log);
        let routes = routes(options, Arc::clone(&host), live, log);
        Ok(Self { host, server, routes, invented })
    }
}

fn routes(options: Options, host: Arc<Host<Arc<Outbox>>>, live: Arc<Live>, log: Log) -> Router {
    let is_protected = options.is_protected();
    let site = Arc::new(Site { proxied: options.secure, origins: options.origins });
    let files = options.files.as_ref();
    let guard = Arc::new(Guard::new(Arc::clone(&site), options.operator_token, log));
    let operators = pages::router(pages::LIVE, files)
        .merge(live.router())
        .layer(from_fn_with_state(Arc::clone(&guard), operator::guard))
        .merge(Router::new().route("/live/login", post(operator::log_in)).with_state(guard));
    let socket = Arc::new(Socket { site: Arc::clone(&site), host, is_protected, log });
    Router::new()
        .route("/xmpp-websocket", get(socket::upgrade))
        .with_state(socket)
        .route("/.well-known/host-meta", get(discovery::xml))
        .route("/.well-known/host-meta.json", get(discovery::json))
        .with_state(site)
        .merge(pages::router(pages::CHAT, files))
        .merge(pages::router(pages::LOGIN, files))
        .merge(operators)
        .layer(map_response(pages::harden))
}
