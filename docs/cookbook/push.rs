use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xmpp_session::address::bare;
use xmpp_session::connection::SharedConnection;
use xmpp_session::extension::{
    Delivery, Extension, IqReply, IqRequest, Outcome, ServerHandle, Target, Wants,
};
use xmpp_session::jid::BareJid;
use xmpp_session::minidom::Element;
use xmpp_session::stanza::{Child, Condition, Stanza, element};

const PUSH: &str = "urn:xmpp:push:0";
const PUBSUB: &str = "http://jabber.org/protocol/pubsub";
const FORM: &str = "jabber:x:data";
/// Devices of one account; the oldest gives way.
const MOST: usize = 10;

/// Wakes the devices of an account when a message waits that no client has (XEP-0357).
#[derive(Clone)]
pub struct Push(Arc<Inner>);

struct Inner {
    domain: String,
    // CREATE TABLE push (account TEXT, service TEXT, node TEXT, options BLOB,
    //                    PRIMARY KEY (account, service, node))
    devices: Mutex<HashMap<BareJid, Vec<Device>>>,
    next: AtomicU64,
}

/// Where the notifications of one device go.
#[derive(Clone)]
struct Device {
    /// Of the registration: an answer to an older one says nothing about it.
    number: u64,
    service: String,
    node: String,
    options: Option<Element>,
}

impl Push {
    /// Notifications come from this domain of the server.
    pub fn new(domain: &str) -> Self {
        let next = AtomicU64::new(1);
        Self(Arc::new(Inner { domain: domain.to_owned(), devices: Mutex::default(), next }))
    }

    fn devices(&self) -> MutexGuard<'_, HashMap<BareJid, Vec<Device>>> {
        self.0.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, account: &BareJid, is_meant: impl Fn(&Device) -> bool) {
        let mut devices = self.devices();
        let Some(all) = devices.get_mut(account) else { return };
        all.retain(|one| !is_meant(one));
        if all.is_empty() {
            devices.remove(account);
        }
    }

    fn enable(&self, account: &BareJid, service: &str, enable: &Child<'_>) {
        let node = enable.attribute("node").unwrap_or_default().into_owned();
        let options = enable.children().find(|child| child.is("x", FORM));
        let options = options.map(|form| form.to_element());
        self.forget(account, |one| one.service == service && one.node == node);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        let mut devices = self.devices();
        let all = devices.entry(account.clone()).or_default();
        if all.len() >= MOST {
            all.remove(0);
        }
        all.push(Device { number, service: service.to_owned(), node, options });
    }

    /// Tells the service of a device. One that does not want to know of the device is not told again.
    async fn notify<C: SharedConnection>(
        self,
        account: BareJid,
        device: Device,
        server: ServerHandle<C>,
    ) {
        let id = format!("push-{}", self.0.next.fetch_add(1, Ordering::Relaxed));
        let iq = Stanza::iq("set").from(&self.0.domain).to(&device.service).id(&id);
        let Some(pubsub) = device.publish() else { return };
        if let Ok(answer) = server.request(iq.child(&pubsub).build()).await
            && answer.type_().as_deref() == Some("error")
            && !answer.children().any(|error| error.attribute("type").as_deref() == Some("wait"))
        {
            self.forget(&account, |one| one.number == device.number);
        }
    }
}

impl Device {
    fn publish(&self) -> Option<Element> {
        // Who wrote what is for the device to fetch, and none of the service's business.
        let notification: Element = format!(
            "<notification xmlns='{PUSH}'><x xmlns='{FORM}' type='submit'>\
             <field var='FORM_TYPE' type='hidden'><value>urn:xmpp:push:summary</value></field>\
             <field var='message-count'><value>1</value></field></x></notification>"
        )
        .parse()
        .ok()?;
        let mut publish = element("publish", PUBSUB, &[("node", &self.node)]);
        publish.append_child(Element::builder("item", PUBSUB).append(notification).build());
        let mut pubsub = Element::builder("pubsub", PUBSUB).append(publish).build();
        if let Some(form) = &self.options {
            let options = Element::builder("publish-options", PUBSUB).append(form.clone());
            pubsub.append_child(options.build());
        }
        Some(pubsub)
    }
}

impl<C: SharedConnection> Extension<C> for Push {
    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn wants(&self) -> Wants {
        Wants::OUTCOMES
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        if target == Target::Account { &[PUSH] } else { &[] }
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let (query, account) = (request.query(), request.to());
        if query.namespace() != PUSH || !request.is_set() || !request.is_own_account() {
            return None;
        }
        let Some(service) = query.attribute("jid").filter(|jid| bare(jid).is_ok()) else {
            return Some(IqReply::error(Condition::BadRequest));
        };
        match query.name() {
            "enable" => self.enable(account, &service, query),
            "disable" => {
                let node = query.attribute("node");
                let is_named = |one: &Device| node.as_deref().is_none_or(|node| one.node == node);
                self.forget(account, |one| one.service == *service && is_named(one));
            }
            _ => return None,
        }
        Some(IqReply::empty())
    }

    fn delivered(&self, delivery: &Delivery<'_, C>) {
        let Some(account) = delivery.account() else { return };
        if delivery.outcome() != Outcome::Waiting || !wakes(delivery.stanza()) {
            return;
        }
        let devices = self.devices().get(account).cloned().unwrap_or_default();
        for device in devices {
            let (push, server) = (self.clone(), delivery.server().clone());
            delivery.server().spawn(push.notify(account.clone(), device, server));
        }
    }
}

/// Whether a message is for somebody to read.
fn wakes(message: &Stanza) -> bool {
    let is_read = |child: Child<'_>| {
        child.is("body", "jabber:client")
            || child.is("store", "urn:xmpp:hints")
            || child.name() == "encrypted"
    };
    !matches!(message.type_().as_deref(), Some("error" | "headline"))
        && message.children().any(is_read)
}
