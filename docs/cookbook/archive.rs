use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use xmpp_session::address::bare;
use xmpp_session::connection::SharedConnection;
use xmpp_session::environment::Environment;
use xmpp_session::extension::{
    Extension, IqReply, IqRequest, Passage, Passing, Review, Target, Wants, Way,
};
use xmpp_session::jid::BareJid;
use xmpp_session::minidom::Element;
use xmpp_session::session::{Item, SessionHandle};
use xmpp_session::stanza::{Child, Condition, Stanza, element, read_stamp, stamp};
use xmpp_session::store::StoreError;

const MAM: &str = "urn:xmpp:mam:2";
const SID: &str = "urn:xmpp:sid:0";
const RSM: &str = "http://jabber.org/protocol/rsm";
const FORM: &str = "jabber:x:data";
const HINTS: &str = "urn:xmpp:hints";
/// The most that one page has.
const MOST: usize = 50;

/// An archive of the messages of every account (XEP-0313).
#[derive(Clone)]
pub struct Archive {
    environment: Arc<dyn Environment>,
    // CREATE TABLE archive (account TEXT, id INTEGER, at INTEGER, peer TEXT, message BLOB,
    //                       PRIMARY KEY (account, id))
    rows: Arc<Mutex<HashMap<BareJid, Vec<Row>>>>,
}

#[derive(Clone)]
struct Row {
    id: u64,
    at: SystemTime,
    peer: String,
    message: Stanza,
}

/// What a client asks for.
#[derive(Default)]
struct Query {
    with: Option<String>,
    start: Option<SystemTime>,
    end: Option<SystemTime>,
    ids: Vec<String>,
    after: Vec<String>,
    before: Vec<String>,
    max: Option<usize>,
    /// The page is the last one that fits, not the first.
    is_last: bool,
    flips: bool,
}

struct Page {
    rows: Vec<Row>,
    /// The number of all that match.
    count: usize,
    is_complete: bool,
}

impl Archive {
    pub fn new(environment: Arc<dyn Environment>) -> Self {
        Self { environment, rows: Arc::default() }
    }

    /// Keeps a message, for good by the time that this returns, and gives it its id.
    // INSERT INTO archive SELECT ?1, COALESCE(MAX(id), 0) + 1, ?2, ?3, ?4 FROM archive WHERE account = ?1
    // RETURNING id
    async fn insert(
        self,
        account: BareJid,
        peer: String,
        message: Stanza,
    ) -> Result<u64, StoreError> {
        let now = self.environment.utc();
        // What a client is shown of a time is what it may ask for.
        let at = read_stamp(&stamp(now)).unwrap_or(now);
        let mut rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = rows.entry(account).or_default();
        let id = rows.last().map_or(1, |last| last.id + 1);
        rows.push(Row { id, at, peer, message });
        Ok(id)
    }

    /// One page of what an account has; `None` where it has no message of an id that is named.
    // SELECT ... WHERE account = ? AND ... ORDER BY id LIMIT ?, with an index on (account, peer, id)
    async fn select(self, account: BareJid, query: &Query) -> Result<Option<Page>, StoreError> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner);
        let rows = rows.get(&account).map_or(&[][..], Vec::as_slice);
        let known = |id: &String| {
            let id = id.parse().ok()?;
            rows.iter().any(|row| row.id == id).then_some(id)
        };
        let known = |ids: &[String]| ids.iter().map(known).collect::<Option<Vec<u64>>>();
        let named = (known(&query.ids), known(&query.after), known(&query.before));
        let (Some(ids), Some(after), Some(before)) = named else { return Ok(None) };
        let is_with = |peer: &str| {
            let bare = peer.split('/').next();
            query.with.as_deref().is_none_or(|with| with == peer || Some(with) == bare)
        };
        let matches = |row: &&Row| {
            is_with(&row.peer)
                && query.start.is_none_or(|start| row.at >= start)
                && query.end.is_none_or(|end| row.at <= end)
                && (ids.is_empty() || ids.contains(&row.id))
        };
        let found: Vec<_> = rows.iter().filter(matches).collect();
        let after = after.into_iter().max().unwrap_or(0);
        let before = before.into_iter().min().unwrap_or(u64::MAX);
        let low = found.partition_point(|row| row.id <= after);
        let high = found.partition_point(|row| row.id < before).max(low);
        let max = query.max.unwrap_or(MOST).min(MOST);
        let (first, end) = match query.is_last {
            true => (high.saturating_sub(max).max(low), high),
            false => (low, high.min(low + max)),
        };
        let is_complete = if query.is_last { first == low } else { end == high };
        let rows = found.iter().take(end).skip(first).map(|row| Row::clone(row)).collect();
        Ok(Some(Page { rows, count: found.len(), is_complete }))
    }
}

impl<C: SharedConnection> Extension<C> for Archive {
    fn takes(&self, _: &str, _: &str) -> bool {
        false
    }

    fn wants(&self) -> Wants {
        Wants::MESSAGES
    }

    fn disco_features(&self, target: Target) -> &[&'static str] {
        match target {
            Target::Account => &[MAM, "urn:xmpp:mam:2#extended", SID],
            _ => &[],
        }
    }

    /// Before anybody has the message it is in the archive, and carries its id from then on.
    fn review(&self, message: &Passing<'_, C>) -> Review {
        let (account, stanza) = (message.account().jid().clone(), message.stanza().clone());
        if !is_kept(&stanza) {
            return Passage::Pass.into();
        }
        let peer = match message.way() {
            Way::Sent => stanza.to(),
            Way::Received => stanza.from(),
        };
        let peer = peer.and_then(|peer| normal(&peer)).unwrap_or_else(|| account.to_string());
        let kept = self.clone().insert(account.clone(), peer, stanza);
        Review::later(async move {
            match kept.await {
                Ok(id) => {
                    let id = id.to_string();
                    Passage::Mark(vec![element(
                        "stanza-id",
                        SID,
                        &[("by", account.as_str()), ("id", &id)],
                    )])
                }
                Err(_) => Passage::Refuse(Condition::InternalServerError.into()),
            }
        })
    }

    fn iq(&self, request: &IqRequest<'_, C>) -> Option<IqReply> {
        let (query, session) = (request.query(), request.session()?.clone());
        if query.namespace() != MAM || !request.is_own_account() {
            return None;
        }
        match (query.name(), request.is_set()) {
            ("query", false) => Some(IqReply::result(form())),
            ("query", true) => {
                let queryid = query.attribute("queryid").map(|id| id.into_owned());
                let reply = match Query::read(query) {
                    Some(query) => self.clone().answer(session, queryid, query),
                    None => return Some(IqReply::error(Condition::BadRequest)),
                };
                Some(IqReply::Later(Box::pin(reply)))
            }
            ("metadata", false) => {
                Some(IqReply::Later(Box::pin(self.clone().metadata(request.to().clone()))))
            }
            _ => None,
        }
    }
}

type Reply = Result<Option<Element>, xmpp_session::stanza::StanzaError>;

impl Archive {
    /// The messages of a page, and then what it is.
    async fn answer<C: SharedConnection>(
        self,
        session: SessionHandle<C>,
        queryid: Option<String>,
        query: Query,
    ) -> Reply {
        let account = session.jid().to_bare();
        let page = self.select(account.clone(), &query).await;
        let page =
            page.map_err(|_| Condition::InternalServerError)?.ok_or(Condition::ItemNotFound)?;
        let (rows, flipped);
        if query.flips {
            flipped = page.rows.iter().rev().cloned().collect::<Vec<_>>();
            rows = &flipped;
        } else {
            rows = &page.rows;
        }
        for row in rows {
            let delay = element("delay", "urn:xmpp:delay", &[("stamp", &stamp(row.at))]);
            let mut forwarded = Element::bare("forwarded", "urn:xmpp:forward:0");
            forwarded.append_child(delay);
            forwarded.append_child(row.message.to_element());
            let id = row.id.to_string();
            let mut attributes = vec![("id", id.as_str())];
            attributes.extend(queryid.as_deref().map(|queryid| ("queryid", queryid)));
            let mut result = element("result", MAM, &attributes);
            result.append_child(forwarded);
            let message = Stanza::message().from(account.as_str()).child(&result).build();
            // For this session alone. Where one does not get in, the page has a hole: its client asks again.
            if session.send_item(&Item::new(&message).addressed()).is_err() {
                return Err(Condition::ResourceConstraint.into());
            }
        }
        let complete: &[_] = if page.is_complete { &[("complete", "true")] } else { &[] };
        let mut fin = element("fin", MAM, complete);
        let mut rsm = Element::bare("set", RSM);
        if let (Some(first), Some(last)) = (page.rows.first(), page.rows.last()) {
            // Without its index, which a database would have to count, and by which some clients end early.
            rsm.append_child(text("first", RSM, &first.id.to_string()));
            rsm.append_child(text("last", RSM, &last.id.to_string()));
        }
        rsm.append_child(text("count", RSM, &page.count.to_string()));
        fin.append_child(rsm);
        Ok(Some(fin))
    }

    /// The first and the last message of all.
    async fn metadata(self, account: BareJid) -> Reply {
        let mut metadata = Element::bare("metadata", MAM);
        for (name, is_last) in [("start", false), ("end", true)] {
            let query = Query { max: Some(1), is_last, ..Query::default() };
            let page = self.clone().select(account.clone(), &query).await;
            let page = page.map_err(|_| Condition::InternalServerError)?;
            if let Some(row) = page.iter().flat_map(|page| &page.rows).next() {
                let (id, at) = (row.id.to_string(), stamp(row.at));
                metadata.append_child(element(name, MAM, &[("id", &id), ("timestamp", &at)]));
            }
        }
        Ok(Some(metadata))
    }
}

impl Query {
    /// `None` where it makes no sense.
    fn read(query: &Child<'_>) -> Option<Self> {
        let mut this = Self::default();
        for child in query.children() {
            if child.is("x", FORM) {
                for field in child.children().filter(|field| field.is("field", FORM)) {
                    let name = field.attribute("var").unwrap_or_default();
                    let values = field.children().filter(|value| value.is("value", FORM));
                    let values: Vec<_> = values.map(|value| value.text().into_owned()).collect();
                    this.set(&name, values)?;
                }
            } else if child.is("flip-page", MAM) {
                this.flips = true;
            } else if child.is("set", RSM) {
                for part in child.children() {
                    let value = part.text().into_owned();
                    match part.name() {
                        "max" => this.max = Some(value.parse().ok()?),
                        "after" => this.after.push(value),
                        "before" => {
                            this.is_last = true;
                            this.before.extend(Some(value).filter(|id| !id.is_empty()));
                        }
                        // Pages by their number change while they are read.
                        "index" => return None,
                        _ => {}
                    }
                }
            }
        }
        Some(this)
    }

    fn set(&mut self, name: &str, values: Vec<String>) -> Option<()> {
        if name == "ids" {
            self.ids = values;
            return Some(());
        }
        let Some(value) = values.into_iter().next() else { return Some(()) };
        match name {
            "FORM_TYPE" => return (value == MAM).then_some(()),
            "with" => self.with = Some(normal(&value)?),
            "start" => self.start = Some(read_stamp(&value)?),
            "end" => self.end = Some(read_stamp(&value)?),
            "after-id" => self.after.push(value),
            "before-id" => self.before.push(value),
            _ => return None,
        }
        Some(())
    }
}

/// What can be asked for.
fn form() -> Element {
    let mut form = element("x", FORM, &[("type", "form")]);
    let mut kind = element("field", FORM, &[("type", "hidden"), ("var", "FORM_TYPE")]);
    kind.append_child(text("value", FORM, MAM));
    form.append_child(kind);
    for (name, type_) in [
        ("with", "jid-single"),
        ("start", "text-single"),
        ("end", "text-single"),
        ("before-id", "text-single"),
        ("after-id", "text-single"),
        ("ids", "list-multi"),
    ] {
        form.append_child(element("field", FORM, &[("type", type_), ("var", name)]));
    }
    let mut query = Element::bare("query", MAM);
    query.append_child(form);
    query
}

/// Whether a message belongs in the archive (XEP-0313, XEP-0334).
fn is_kept(message: &Stanza) -> bool {
    let hints = |name: &str| message.children().any(|child| child.is(name, HINTS));
    if matches!(message.type_().as_deref(), Some("error" | "groupchat" | "headline"))
        || hints("no-store")
        || hints("no-permanent-store")
    {
        return false;
    }
    let says = |child: Child<'_>| child.is("body", "jabber:client") || child.name() == "encrypted";
    hints("store") || message.children().any(says)
}

/// An address in the spelling in which addresses are compared.
fn normal(jid: &str) -> Option<String> {
    match jid.split_once('/') {
        None => Some(bare(jid).ok()?.to_string()),
        Some((account, resource)) => Some(format!("{}/{resource}", bare(account).ok()?)),
    }
}

fn text(name: &str, namespace: &str, text: &str) -> Element {
    Element::builder(name, namespace).append(text).build()
}
