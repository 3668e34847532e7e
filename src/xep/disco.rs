use std::fmt;

use jid::Jid;
use minidom::Element;

use super::element;
use crate::connection::SharedConnection;
use crate::extension::{Extension, IqReply, IqRequest, Target};
use crate::stanza::Condition;

const INFO: &str = "http://jabber.org/protocol/disco#info";
const ITEMS: &str = "http://jabber.org/protocol/disco#items";

/// Service Discovery ([XEP-0030](https://xmpp.org/extensions/xep-0030.html)) of the server's domains
/// and of its accounts.
///
/// The features are those of all extensions of the server, of the roster, and what the host adds.
/// An account's items are its sessions that the sender may know of. To strangers an account looks
/// like one that does not exist ([IQ-7](crate::rules#iq-7), XEP-0030 §8).
///
/// It knows no nodes. An extension that has some is added before this one.
#[derive(Clone)]
#[must_use = "an extension does nothing until it is added to a server"]
pub struct Disco {
    name: Option<String>,
    identities: Vec<(String, String)>,
    features: Vec<&'static str>,
    items: Vec<(Jid, Option<String>)>,
}

impl Disco {
    /// An instant messaging server that has no items.
    pub fn new() -> Self {
        Self {
            name: None,
            identities: vec![("server".into(), "im".into())],
            // Rosters are served without an extension.
            features: vec![INFO, ITEMS, "jabber:iq:roster"],
            items: Vec::new(),
        }
    }

    /// The name of the server, for people. It stands in every identity of the domain.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds an identity to the domain, of a category and type that the
    /// [registry](https://xmpp.org/registrar/disco-categories.html) has.
    pub fn identity(mut self, category: impl Into<String>, type_: impl Into<String>) -> Self {
        let identity = (category.into(), type_.into());
        if !self.identities.contains(&identity) {
            self.identities.push(identity);
        }
        self
    }

    /// Adds a feature to the domain that no extension of the server lists.
    pub fn feature(mut self, feature: &'static str) -> Self {
        self.features.push(feature);
        self
    }

    /// Lists that messages are kept for accounts that are offline: for a server with an offline
    /// store ([XEP-0160 §4](https://xmpp.org/extensions/xep-0160.html#disco)).
    pub fn offline_messages(self) -> Self {
        self.feature("msgoffline")
    }

    /// Adds an item to the domain, such as a chat room service.
    pub fn item(mut self, jid: impl Into<Jid>, name: Option<String>) -> Self {
        self.items.push((jid.into(), name));
        self
    }

    fn info<C: SharedConnection>(&self, request: &IqRequest<'_, C>) -> Element {
        let mut query = Element::bare("query", INFO);
        let mut identity = |category: &str, type_: &str, name: Option<&String>| {
            let mut attributes = vec![("category", category), ("type", type_)];
            attributes.extend(name.map(|name| ("name", name.as_str())));
            query.append_child(element("identity", INFO, &attributes));
        };
        match request.target() {
            Target::Domain => self
                .identities
                .iter()
                .for_each(|(category, type_)| identity(category, type_, self.name.as_ref())),
            Target::Account => identity("account", "registered", None),
        }
        for feature in request.disco_features() {
            query.append_child(element("feature", INFO, &[("var", feature)]));
        }
        query
    }

    fn items<C: SharedConnection>(&self, request: &IqRequest<'_, C>) -> Element {
        let mut query = Element::bare("query", ITEMS);
        match request.target() {
            Target::Domain => {
                for (jid, name) in &self.items {
                    let mut attributes = vec![("jid", jid.as_str())];
                    attributes.extend(name.as_ref().map(|name| ("name", name.as_str())));
                    query.append_child(element("item", ITEMS, &attributes));
                }
                let is_named =
                    |domain: &str| self.items.iter().any(|(jid, _)| jid.as_str() == domain);
                for &domain in request.components.iter().filter(|domain| !is_named(domain)) {
                    query.append_child(element("item", ITEMS, &[("jid", domain)]));
                }
            }
            Target::Account => request.sessions().for_each(|session| {
                query.append_child(element("item", ITEMS, &[("jid", session.jid().as_str())]));
            }),
        }
        query
    }
}

impl Default for Disco {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Disco {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Disco")
            .field("identities", &self.identities.len())
            .field("features", &self.features.len())
            .field("items", &self.items.len())
            .finish_non_exhaustive()
    }
}

impl<C: SharedConnection> Extension<C> for Disco {
    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        match target {
            Target::Domain => &self.features,
            Target::Account => &[INFO, ITEMS],
        }
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        if request.is_set() {
            return None;
        }
        let node = request.query().attribute("node");
        if request.is("query", INFO) {
            return match node {
                _ if !request.is_entitled() => None,
                Some(_) => Some(IqReply::error(Condition::ItemNotFound)),
                None => Some(IqReply::result(self.info(request))),
            };
        }
        if !request.is("query", ITEMS) {
            return None;
        }
        match node {
            // XEP-0030 §8: an account that does not exist answers with an empty result, whether a
            // node was named or not, and the node is mirrored (XEP-0030 §3.2).
            Some(node) if !request.is_entitled() => {
                Some(IqReply::result(element("query", ITEMS, &[("node", &node)])))
            }
            Some(_) => Some(IqReply::error(Condition::ItemNotFound)),
            None => Some(IqReply::result(self.items(request))),
        }
    }
}
