//! Contacts: the rest of the network, roster requests, and what is to be read of pushes.

#![expect(unreachable_pub, reason = "the module is private to its test binary")]

use std::sync::{Arc, Mutex, PoisonError};

use xmpp_session::server::{Limits, RouteError, Router};
use xmpp_session::stanza::{Frame, Stanza, canonicalise};

use super::wire::{Client, World};

type Hook = Box<dyn Fn(&str) + Send + Sync>;

/// All other domains. Clones are the same.
#[derive(Clone, Default)]
pub struct Remote(Arc<Inner>);

#[derive(Default)]
struct Inner {
    routed: Mutex<Vec<String>>,
    refusal: Mutex<Option<RouteError>>,
    hook: Mutex<Option<Arc<Hook>>>,
}

impl Router for Remote {
    fn route(&self, stanza: &Stanza) -> Result<(), RouteError> {
        let text = Frame::stanza(stanza).to_string();
        let hook = lock(&self.0.hook).clone();
        if let Some(refusal) = *lock(&self.0.refusal) {
            return Err(refusal);
        }
        lock(&self.0.routed).push(text.clone());
        if let Some(hook) = hook {
            hook(&text);
        }
        Ok(())
    }
}

impl Remote {
    /// A world with other domains around it.
    pub fn world() -> (World, Self) {
        let remote = Self::default();
        let router = remote.clone();
        (World::with(|builder, _| builder.router(router)), remote)
    }

    /// The same with other limits.
    pub fn world_with(limits: Limits) -> (World, Self) {
        let remote = Self::default();
        let router = remote.clone();
        (World::with(|builder, _| builder.router(router).limits(limits)), remote)
    }

    /// What left since the last call.
    pub fn routed(&self) -> Vec<String> {
        std::mem::take(&mut *lock(&self.0.routed))
    }

    /// Refuses everything from now on, or takes it again.
    pub fn refuse(&self, why: Option<RouteError>) {
        *lock(&self.0.refusal) = why;
    }

    /// Calls `hook` with each stanza, inside of the router.
    pub fn on_route(&self, hook: impl Fn(&str) + Send + Sync + 'static) {
        *lock(&self.0.hook) = Some(Arc::new(Box::new(hook)));
    }

    /// A stanza arrives.
    pub fn send(&self, world: &World, xml: &str) {
        world.server().send(canonicalise(xml.as_bytes()).unwrap());
        world.settle();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A roster get.
pub const GET: &str = "<iq type='get' id='get'><query xmlns='jabber:iq:roster'/></iq>";

/// A roster get by a client that holds a version.
pub fn get(ver: &str) -> String {
    format!("<iq type='get' id='get'><query xmlns='jabber:iq:roster' ver='{ver}'/></iq>")
}

/// A roster set with these items.
pub fn set(items: &str) -> String {
    format!("<iq type='set' id='set'><query xmlns='jabber:iq:roster'>{items}</query></iq>")
}

/// A roster set that removes a contact.
pub fn remove(jid: &str) -> String {
    set(&format!("<item jid='{jid}' subscription='remove'/>"))
}

/// What stands for a push: its version and its item.
pub fn push(ver: u64, item: &str) -> String {
    format!("push {ver} {item}")
}

/// What a client received, with each push written short and checked for its form (ROSTER-11), and
/// each roster version by its number.
pub fn short(client: &Client) -> Vec<String> {
    let full = client.jid();
    let bare = full.split('/').next().unwrap();
    let received = client.received();
    received.iter().map(|one| shorten(&numbered(one), bare, &full)).collect()
}

/// Sends, and takes what came, short.
pub fn ask(client: &Client, xml: &str) -> Vec<String> {
    let _before = client.received();
    client.send(xml);
    short(client)
}

/// The version in a roster query, whole.
pub fn version(stanza: &str) -> Option<&str> {
    stanza.split_once("<query xmlns='jabber:iq:roster' ver='")?.1.split('\'').next()
}

/// The same stanza with the number of its roster version alone: that is what says which change it
/// is of, while the rest follows from the items.
pub fn numbered(stanza: &str) -> String {
    let Some(version) = version(stanza) else { return stanza.to_owned() };
    let (number, digest) = version.split_once('-').unwrap_or_else(|| panic!("{stanza}"));
    assert!(digest.len() == 16 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{stanza}");
    stanza.replacen(&format!("ver='{version}'"), &format!("ver='{number}'"), 1)
}

fn shorten(stanza: &str, bare: &str, full: &str) -> String {
    let head = format!("<iq from='{bare}' to='{full}' id='");
    let Some((id, rest)) = stanza.strip_prefix(&head).and_then(|rest| rest.split_once('\'')) else {
        return stanza.to_owned();
    };
    if !rest.starts_with(" type='set'") {
        return stanza.to_owned();
    }
    // Nobody can guess it.
    assert!(id.len() == 24 && id.chars().all(|c| c.is_ascii_hexdigit()), "{stanza}");
    let query = " type='set'><query xmlns='jabber:iq:roster' ver='";
    let rest = rest.strip_prefix(query).unwrap_or_else(|| panic!("{stanza}"));
    let (ver, rest) = rest.split_once("'>").unwrap();
    let item = rest.strip_suffix("</query></iq>").unwrap();
    assert_eq!(item.matches("<item ").count(), 1, "{stanza}");
    format!("push {ver} {item}")
}

/// A client that has requested the roster and read the answer.
pub fn interested(client: Client) -> Client {
    client.send(GET);
    let _roster = client.received();
    client
}
