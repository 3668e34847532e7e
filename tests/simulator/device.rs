//! A client with its own reading of XEP-0198: it counts, acknowledges, comes back and sends again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use super::random::Random;
use super::splitter::{Splitter, attribute};

pub const DOMAIN: &str = "example.com";
pub const PASSWORD: &str = "secret";

const NS: &str = "xmlns='urn:xmpp:sm:3'";
const HEADER: &str = "<stream:stream xmlns='jabber:client' \
     xmlns:stream='http://etherx.jabber.org/streams' to='example.com' version='1.0'>";

/// What a client is told that makes mistakes, or whose server goes.
const ROUGH: [&str; 3] = ["<unsupported-stanza-type ", "<system-shutdown ", "<reset "];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// No transport.
    Away,
    /// Its first header is out.
    Opening,
    Authenticating,
    /// Its second header is out.
    Reopening,
    Resuming,
    Binding,
    Enabling,
    Ready,
    /// Its close tag is out: what comes now is not looked at.
    Closing,
}

/// A stanza that may have to be sent again, and the message it is.
type Kept = (String, Option<String>);

/// What a client keeps of a session.
#[derive(Default)]
struct Management {
    /// The resumption id, once there is one.
    id: Option<String>,
    handled: u32,
    acknowledged: u32,
    unacknowledged: VecDeque<Kept>,
}

/// What a client does not do as it should.
#[derive(Clone, Copy, Default)]
pub struct Habits {
    /// In percent: how many `<r/>` it leaves unanswered.
    pub lazy: usize,
    /// In percent: how many streams it closes without a last `<a/>`.
    pub curt: usize,
    /// It makes mistakes, and is sent away, so that it knows more stream errors.
    pub rough: bool,
    /// It always logs in by SASL2, with all that it wants: nothing reaches it before it acknowledges.
    pub inline: bool,
    /// It wants copies of what the other clients of its account say and hear.
    pub copies: bool,
}

/// How a client logs in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Way {
    #[default]
    Password,
    /// The token that it has got last and not used.
    New,
    /// The one that it used last.
    Used,
    /// One that a newer one has voided.
    Void,
}

/// The tokens of a client that it is sure of.
#[derive(Default)]
struct Tokens {
    new: Option<String>,
    used: Option<String>,
    void: Option<String>,
    /// Void if the login by a newer one has come to its end.
    doubtful: Option<String>,
    /// Of the login under way.
    way: Way,
}

impl Tokens {
    fn of(&self, way: Way) -> Option<&String> {
        match way {
            Way::Password => None,
            Way::New => self.new.as_ref(),
            Way::Used => self.used.as_ref(),
            Way::Void => self.void.as_ref(),
        }
    }

    fn choose(&self, random: &mut Random) -> Way {
        let way = match random.below(20) {
            _ if self.void.is_some() && random.chance(50) => Way::Void,
            0..=10 => Way::New,
            11..=16 => Way::Used,
            _ => Way::Password,
        };
        if self.of(way).is_some() { way } else { Way::Password }
    }

    /// The server may have done it by now, and nobody may ever hear of it.
    fn sent(&mut self, way: Way, asks: bool) {
        self.way = way;
        match way {
            Way::New => self.doubtful = self.used.take().or_else(|| self.doubtful.take()),
            // What it gets voids one that was not used.
            Way::Password if asks => (self.new, self.doubtful) = (None, None),
            _ => {}
        }
    }

    /// The login has succeeded, with a new token perhaps; `false` if it should not have.
    fn succeeded(&mut self, token: Option<String>) -> bool {
        if self.way == Way::New {
            self.used = self.new.take();
            self.void = self.doubtful.take().or_else(|| self.void.take());
        }
        if token.is_some() {
            self.new = token;
        }
        self.way != Way::Void
    }

    /// `false` if it should have succeeded.
    fn failed(&mut self) -> bool {
        let is_right = self.way == Way::Void;
        match self.way {
            Way::New => self.new = None,
            Way::Used => self.used = None,
            Way::Void => self.void = None,
            Way::Password => {}
        }
        is_right
    }
}

/// The way that a message came by: who sent it, and in which of its sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stream(pub usize, pub u32);

/// A message as its sender knows it.
pub struct Sent {
    pub sender: usize,
    pub stream: Stream,
    pub number: u32,
    /// The session that it goes out in.
    pub session: Option<usize>,
}

/// What devices tell an oracle.
pub trait Witness {
    fn blame(&mut self, what: String);
    /// A device has a new session.
    fn began(&mut self, _device: usize) {}
    /// A device is without its session, and has not ended it: what it did not acknowledge may come again.
    fn left(&mut self, _device: usize) {}
    fn sent(&mut self, id: &str, sent: Sent, to: &str, may_bounce: bool);
    /// In a later session, since the server has not handled it.
    fn sent_again(&mut self, id: &str, stream: Stream);
    /// The sender will never know whether it was handled.
    fn uncertain(&mut self, id: &str);
    /// With its number in the stream management of the session.
    fn received(&mut self, id: &str, device: usize, session: usize, number: Option<u32>);
    /// By its `<a/>` the server has handled it.
    fn handled(&mut self, _id: &str) {}
    /// It sees what another client of its account has said, or has heard.
    fn copied(&mut self, _id: &str, _device: usize, _is_heard: bool) {}
    fn bounced(&mut self, id: &str);
    /// What the server says to whoever comes back.
    fn resumed(&mut self, _device: usize, _is_resumed: bool) {}
    /// Another login has taken its place.
    fn replaced(&mut self, _device: usize) {}
    /// An end comes of somebody whom it sees.
    fn unavailable(&mut self, _device: usize, _jid: &str) {}
    /// The server has certainly read this `h`.
    fn acknowledged(&mut self, session: usize, h: u32);
    /// Whether the end of a session of this full JID may be told to one that has not seen it.
    fn has_crossed(&self, session: usize, jid: &str) -> bool;
}

pub struct Device {
    pub number: usize,
    pub node: &'static str,
    resource: String,
    /// Whether it uses stream management.
    managed: bool,
    pub stage: Stage,
    input: Splitter,
    /// What it has written and the transport has not taken.
    pub out: Vec<u8>,
    /// Places in `out` behind which the server knows an `h`.
    pub marks: Vec<(usize, u32)>,
    session: Option<Management>,
    pub jid: Option<String>,
    pub priority: Option<i8>,
    /// Messages of an earlier session that the server has not handled.
    again: Vec<Kept>,
    /// Whom it sees available.
    pub view: BTreeMap<String, bool>,
    pings: BTreeSet<String>,
    /// The names of its contacts, once it has asked for them.
    pub roster: Option<BTreeMap<String, String>>,
    /// The ping behind its own unavailable presence.
    mark: Option<String>,
    /// The server has closed with an error: what it had not handled by then is not handled.
    failed: bool,
    messages: u32,
    queries: u32,
    /// Sessions that it has had.
    sessions: u32,
    /// On this transport it logs in by SASL2, with all that it wants.
    is_inline: bool,
    /// The features behind a success are still to come.
    awaits_features: bool,
    tokens: Tokens,
    pub conflicts: bool,
    pub habits: Habits,
}

impl Device {
    pub fn new(number: usize, node: &'static str, managed: bool) -> Self {
        Self {
            number,
            node,
            resource: format!("d{number}"),
            managed,
            stage: Stage::Away,
            input: Splitter::default(),
            out: Vec::new(),
            marks: Vec::new(),
            session: None,
            jid: None,
            priority: None,
            again: Vec::new(),
            view: BTreeMap::new(),
            pings: BTreeSet::new(),
            roster: None,
            mark: None,
            failed: false,
            messages: 0,
            queries: 0,
            sessions: 0,
            is_inline: false,
            awaits_features: false,
            tokens: Tokens::default(),
            conflicts: true,
            habits: Habits::default(),
        }
    }

    /// Whether nothing of its own waits for the server.
    pub fn is_settled(&self) -> bool {
        let session = self.session.as_ref();
        let kept = session.filter(|_| self.managed).map_or(0, |s| s.unacknowledged.len());
        kept == 0 && self.pings.is_empty() && self.again.is_empty()
    }

    fn write(&mut self, xml: &str) {
        self.out.extend_from_slice(xml.as_bytes());
    }

    fn stanza(&mut self, xml: String, message: Option<String>) {
        self.write(&xml);
        if let Some(session) = &mut self.session {
            session.unacknowledged.push_back((xml, message));
        }
    }

    /// A transport is there.
    pub fn connected(&mut self, random: &mut Random) {
        self.stage = Stage::Opening;
        self.failed = false;
        self.input = Splitter::default();
        self.out.clear();
        self.marks.clear();
        self.is_inline = random.chance(50) || self.habits.inline;
        self.awaits_features = false;
        // Who wants tokens says who it is.
        let from = format!(" from='{}@{DOMAIN}' to=", self.node);
        self.write(&if self.is_inline { HEADER.replace(" to=", &from) } else { HEADER.to_owned() });
        if random.chance(30) {
            self.authenticate(random);
        }
    }

    fn authenticate(&mut self, random: &mut Random) {
        if self.is_inline {
            let way = self.tokens.choose(random);
            return self.log_in(way, random);
        }
        let plain = STANDARD.encode(format!("\0{}\0{PASSWORD}", self.node));
        self.write(&format!(
            "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{plain}</auth>"
        ));
        self.stage = Stage::Authenticating;
    }

    /// SASL2, with the session that it had or else a new one. By its id, older ones of it are replaced.
    fn log_in(&mut self, way: Way, random: &mut Random) {
        let (mechanism, message, fast) = match self.tokens.of(way) {
            None => ("PLAIN", format!("\0{}\0{PASSWORD}", self.node).into_bytes(), ""),
            Some(token) => {
                let mut mac = Hmac::<Sha256>::new_from_slice(token.as_bytes()).expect("any length");
                mac.update(b"Initiator");
                let name = format!("{}\0", self.node).into_bytes();
                let message = [name, mac.finalize().into_bytes().to_vec()].concat();
                ("HT-SHA-256-NONE", message, "<fast xmlns='urn:xmpp:fast:0'/>")
            }
        };
        let message = STANDARD.encode(message);
        let asks = random.chance(70);
        let request = "<request-token xmlns='urn:xmpp:fast:0' mechanism='HT-SHA-256-NONE'/>";
        let request = if asks { request } else { "" };
        self.tokens.sent(way, asks);
        let id = format!("00000000-0000-4000-8000-{:012}", self.number);
        let known = self.session.as_ref().and_then(|s| Some((s.id.clone()?, s.handled)));
        let resume = known.map(|(id, h)| format!("<resume {NS} previd='{id}' h='{h}'/>"));
        let enable =
            if self.managed { format!("<enable {NS} resume='true'/>") } else { String::new() };
        let copies = if self.habits.copies { "<enable xmlns='urn:xmpp:carbons:2'/>" } else { "" };
        self.write(&format!(
            "<authenticate xmlns='urn:xmpp:sasl:2' mechanism='{mechanism}'>\
             <initial-response>{message}</initial-response><user-agent id='{id}'/>{fast}{request}\
             <bind xmlns='urn:xmpp:bind:0'><tag>d{}</tag>{copies}{enable}</bind>{}</authenticate>",
            self.number,
            resume.unwrap_or_default(),
        ));
        self.stage = Stage::Authenticating;
    }

    /// What it has got by SASL2.
    fn logged_in(&mut self, xml: &str, session: Option<usize>, oracle: &mut dyn Witness) {
        let part = |name: &str| xml.find(&format!("<{name} ")).map(|at| &xml[at..]);
        let token = part("token").and_then(|token| attribute(token, "token"));
        if !self.tokens.succeeded(token.map(str::to_owned)) {
            oracle.blame(format!("device {}: let in with a token that is void", self.number));
        }
        if let Some(resumed) = part("resumed") {
            if let (Some(session), Some(own)) = (session, &self.session) {
                oracle.acknowledged(session, own.handled);
            }
            return self.resumed(resumed, oracle);
        }
        if let Some(failed) = part("failed") {
            self.refused(failed, oracle);
        }
        if self.session.is_some() {
            oracle.blame(format!("device {}: no word of its session: {xml}", self.number));
        }
        let jid = xml
            .split_once("<authorization-identifier>")
            .and_then(|(_, rest)| rest.split('<').next());
        self.jid = jid.map(str::to_owned);
        let id = part("enabled").and_then(|enabled| attribute(enabled, "id"));
        if id.is_some() != self.managed || part("bound").is_none() {
            oracle.blame(format!("device {}: {xml}", self.number));
        }
        self.session = Some(Management { id: id.map(str::to_owned), ..Management::default() });
        self.sessions += 1;
        oracle.began(self.number);
        self.awaits_features = true;
        self.ready(oracle);
    }

    /// The transport is gone, or what it was is not wanted any more.
    pub fn lost(&mut self, oracle: &mut dyn Witness) {
        self.stage = Stage::Away;
        self.out.clear();
        self.marks.clear();
        if self.session.as_ref().is_none_or(|session| session.id.is_none()) {
            self.forget(oracle);
        }
    }

    /// The client has lost its memory: nobody knows what became of what was not acknowledged.
    pub fn forget(&mut self, oracle: &mut dyn Witness) {
        oracle.left(self.number);
        let session = self.session.take().unwrap_or_default();
        for id in session.unacknowledged.into_iter().filter_map(|(_, message)| message) {
            oracle.uncertain(&id);
        }
        self.no_session();
    }

    fn no_session(&mut self) {
        self.session = None;
        self.jid = None;
        self.priority = None;
        self.view.clear();
        self.pings.clear();
        self.roster = None;
        self.mark = None;
    }

    fn bind(&mut self, random: &mut Random) {
        self.stage = Stage::Binding;
        let shared = self.conflicts && random.chance(30);
        self.resource = if shared { "one".to_owned() } else { format!("d{}", self.number) };
        let resource = &self.resource;
        self.write(&format!(
            "<iq type='set' id='bind'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>\
             <resource>{resource}</resource></bind></iq>"
        ));
    }

    /// Bytes of the server.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        session: Option<usize>,
        oracle: &mut dyn Witness,
        random: &mut Random,
    ) {
        self.input.feed(bytes);
        while self.stage != Stage::Away {
            let Some(element) = self.input.next() else { break };
            self.element(&element, session, oracle, random);
        }
    }

    fn element(
        &mut self,
        xml: &str,
        session: Option<usize>,
        oracle: &mut dyn Witness,
        random: &mut Random,
    ) {
        if xml.starts_with("<stream:stream") {
            return;
        }
        if xml.starts_with("</stream:stream") {
            if self.stage == Stage::Closing && !self.failed {
                // All that was sent was handled, and the session is over.
                self.no_session();
            }
            self.write("</stream:stream>");
            return self.lost(oracle);
        }
        if xml.starts_with("<stream:error") {
            let early = !matches!(self.stage, Stage::Ready | Stage::Enabling | Stage::Closing);
            let known = xml.contains("<conflict ")
                || (early || self.habits.rough) && xml.contains("<policy-violation ")
                || self.habits.rough && ROUGH.iter().any(|condition| xml.contains(condition));
            if !known {
                oracle.blame(format!("device {}: {xml}", self.number));
            }
            if xml.contains("<conflict ") {
                oracle.replaced(self.number);
            }
            self.failed = true;
            return;
        }
        match self.stage {
            Stage::Away | Stage::Closing => {}
            Stage::Opening => self.authenticate(random),
            Stage::Authenticating if self.is_inline && xml.starts_with("<success") => {
                self.logged_in(xml, session, oracle);
            }
            // No room, or the store has failed.
            Stage::Authenticating if self.is_inline && xml.contains("<temporary-auth-failure") => {
                self.lost(oracle);
            }
            Stage::Authenticating if self.is_inline && xml.starts_with("<failure") => {
                if !self.tokens.failed() && !self.habits.rough {
                    oracle.blame(format!("device {}: a token that is good: {xml}", self.number));
                }
                self.log_in(Way::Password, random);
            }
            Stage::Ready if self.awaits_features => {
                self.awaits_features = false;
                if !xml.starts_with("<stream:features") {
                    oracle.blame(format!("device {}: before its features: {xml}", self.number));
                }
            }
            Stage::Authenticating if xml.starts_with("<success") => {
                self.stage = Stage::Reopening;
                self.write(HEADER);
            }
            Stage::Authenticating if xml.starts_with("<stream:features") => {}
            // The store has failed.
            Stage::Authenticating
                if self.habits.rough && xml.contains("<temporary-auth-failure") =>
            {
                self.lost(oracle);
            }
            Stage::Reopening => {
                match self.session.as_ref().and_then(|s| Some((s.id.clone()?, s.handled))) {
                    Some((id, h)) => {
                        self.write(&format!("<resume {NS} previd='{id}' h='{h}'/>"));
                        self.marks.push((self.out.len(), h));
                        self.stage = Stage::Resuming;
                    }
                    None => self.bind(random),
                }
            }
            Stage::Resuming if xml.starts_with("<resumed ") => self.resumed(xml, oracle),
            Stage::Resuming if xml.starts_with("<failed ") => {
                self.refused(xml, oracle);
                self.bind(random);
            }
            Stage::Binding if xml.starts_with("<iq ") && attribute(xml, "id") == Some("bind") => {
                self.bound(xml, oracle);
            }
            Stage::Enabling if xml.starts_with("<enabled ") => {
                if let Some(session) = &mut self.session {
                    session.id = attribute(xml, "id").map(str::to_owned);
                    session.handled = 0;
                }
                self.ready(oracle);
            }
            Stage::Binding | Stage::Enabling | Stage::Ready => {
                let is_asked = xml.starts_with("<r ");
                let lazy = self.habits.lazy;
                if !(is_asked && lazy > 0 && random.chance(lazy)) {
                    self.stanza_or_nonza(xml, session, oracle);
                }
            }
            stage => oracle.blame(format!("device {}: in {stage:?}: {xml}", self.number)),
        }
    }

    fn bound(&mut self, xml: &str, oracle: &mut dyn Witness) {
        let Some((_, rest)) = xml.split_once("<jid>") else {
            // No room: it tries again on another transport.
            return self.lost(oracle);
        };
        self.jid = rest.split('<').next().map(str::to_owned);
        self.session = Some(Management::default());
        self.sessions += 1;
        oracle.began(self.number);
        if self.managed {
            self.write(&format!("<enable {NS} resume='true'/>"));
            self.stage = Stage::Enabling;
        } else {
            self.stage = Stage::Ready;
        }
    }

    fn ready(&mut self, oracle: &mut dyn Witness) {
        self.stage = Stage::Ready;
        for (xml, message) in std::mem::take(&mut self.again) {
            if let Some(id) = &message {
                oracle.sent_again(id, self.stream());
            }
            self.stanza(xml, message);
        }
    }

    /// What is freed.
    fn free(&mut self, h: u32, oracle: &mut dyn Witness) -> Vec<Kept> {
        let number = self.number;
        let Some(session) = &mut self.session else { return Vec::new() };
        let count = h.wrapping_sub(session.acknowledged) as usize;
        if count > session.unacknowledged.len() {
            let (had, sent) = (session.acknowledged, session.unacknowledged.len());
            oracle.blame(format!("device {number}: h={h} behind {had} with {sent} sent"));
            return Vec::new();
        }
        session.acknowledged = h;
        session.unacknowledged.drain(..count).collect()
    }

    fn resumed(&mut self, xml: &str, oracle: &mut dyn Witness) {
        oracle.resumed(self.number, true);
        let h = attribute(xml, "h").and_then(|h| h.parse().ok()).unwrap_or(u32::MAX);
        let _received = self.free(h, oracle);
        self.stage = Stage::Ready;
        let kept = self.session.as_ref().map(|session| session.unacknowledged.clone());
        for (xml, _) in kept.unwrap_or_default() {
            self.write(&xml);
        }
    }

    /// The session is over. With its last `h` the client knows what to send again.
    fn refused(&mut self, xml: &str, oracle: &mut dyn Witness) {
        oracle.resumed(self.number, false);
        let Some(h) = attribute(xml, "h").and_then(|h| h.parse().ok()) else {
            return self.forget(oracle);
        };
        let _received = self.free(h, oracle);
        oracle.left(self.number);
        let session = self.session.take().unwrap_or_default();
        let messages = session.unacknowledged.into_iter().filter(|(_, message)| message.is_some());
        self.again.extend(messages);
        self.no_session();
    }

    fn stanza_or_nonza(&mut self, xml: &str, session: Option<usize>, oracle: &mut dyn Witness) {
        if xml.starts_with("<r ") {
            return self.acknowledge();
        }
        if xml.starts_with("<a ") {
            let h = attribute(xml, "h").and_then(|h| h.parse().ok()).unwrap_or(u32::MAX);
            let handled = self.free(h, oracle);
            let handled = handled.into_iter().filter_map(|(_, message)| message);
            return handled.for_each(|id| oracle.handled(&id));
        }
        let mut number = None;
        if let Some(management) = &mut self.session
            && management.id.is_some()
        {
            management.handled = management.handled.wrapping_add(1);
            number = Some(management.handled);
        }
        let id = attribute(xml, "id").unwrap_or_default();
        let type_ = attribute(xml.split('>').next().unwrap_or_default(), "type");
        if let Some((way, copied)) = xml.split_once("<forwarded ") {
            let is_heard = way.contains("<received ");
            oracle.copied(attribute(copied, "id").unwrap_or_default(), self.number, is_heard);
        } else if xml.starts_with("<message") {
            match (type_, session) {
                (Some("error"), _) => oracle.bounced(id),
                (_, Some(session)) => oracle.received(id, self.number, session, number),
                _ => oracle.blame(format!("{id}: received without a session")),
            }
        } else if xml.starts_with("<presence") {
            self.presence(xml, type_, session, oracle);
        } else if xml.starts_with("<iq") {
            self.iq(xml, id, type_, oracle);
        } else {
            oracle.blame(format!("device {}: {xml}", self.number));
        }
    }

    fn presence(
        &mut self,
        xml: &str,
        type_: Option<&str>,
        session: Option<usize>,
        oracle: &mut dyn Witness,
    ) {
        let from = attribute(xml, "from").unwrap_or_default();
        if !from.contains('/') {
            return;
        }
        match type_ {
            None => {
                self.view.insert(from.to_owned(), true);
            }
            Some("unavailable") => {
                let seen = self.view.insert(from.to_owned(), false);
                oracle.unavailable(self.number, from);
                let crossed = || session.is_some_and(|session| oracle.has_crossed(session, from));
                if seen == Some(false) || (seen.is_none() && !crossed()) {
                    let number = self.number;
                    oracle.blame(format!("device {number}: {from} unavailable without available"));
                }
            }
            _ => oracle.blame(format!("device {}: {xml}", self.number)),
        }
    }

    fn iq(&mut self, xml: &str, id: &str, type_: Option<&str>, oracle: &mut dyn Witness) {
        if type_ == Some("get") {
            let to = attribute(xml, "from").map(|from| format!(" to='{from}'")).unwrap_or_default();
            return self.stanza(format!("<iq type='result' id='{id}'{to}/>"), None);
        }
        if type_ == Some("set") {
            self.roster.iter_mut().for_each(|roster| roster.extend(names(xml)));
            return self.stanza(format!("<iq type='result' id='{id}'/>"), None);
        }
        if !self.pings.remove(id) {
            oracle.blame(format!("device {}: an answer to nothing: {xml}", self.number));
        }
        if type_ == Some("result") && xml.contains("<query xmlns='jabber:iq:roster'") {
            self.roster = Some(names(xml).collect());
        }
        if self.mark.as_deref() == Some(id) {
            self.mark = None;
            self.view.clear();
        }
    }

    /// Sends `<a/>`.
    pub fn acknowledge(&mut self) {
        let id = self.session.as_ref().filter(|session| session.id.is_some());
        let Some(h) = id.map(|session| session.handled) else { return };
        self.write(&format!("<a {NS} h='{h}'/>"));
        self.marks.push((self.out.len(), h));
    }

    /// Sends `<r/>`.
    pub fn ask(&mut self) {
        if self.managed {
            self.write(&format!("<r {NS}/>"));
        }
    }

    pub fn message(
        &mut self,
        to: &str,
        normal: bool,
        padding: usize,
        oracle: &mut dyn Witness,
        session: Option<usize>,
    ) -> String {
        self.messages += 1;
        let id = format!("m{}-{}", self.number, self.messages);
        let type_ = if normal { "normal" } else { "chat" };
        let may_bounce = normal && to.contains('/');
        let sent =
            Sent { sender: self.number, stream: self.stream(), number: self.messages, session };
        oracle.sent(&id, sent, to, may_bounce);
        let body = "x".repeat(padding);
        let xml =
            format!("<message to='{to}' type='{type_}' id='{id}'><body>{body}</body></message>");
        self.stanza(xml, Some(id.clone()));
        id
    }

    /// What it sends now comes by.
    const fn stream(&self) -> Stream {
        Stream(self.number, self.sessions)
    }

    /// Asks the server something that has an answer.
    pub fn query(&mut self, payload: &str) -> String {
        self.request("get", payload)
    }

    fn request(&mut self, type_: &str, payload: &str) -> String {
        self.queries += 1;
        let id = format!("q{}-{}", self.number, self.queries);
        self.stanza(format!("<iq type='{type_}' id='{id}'>{payload}</iq>"), None);
        self.pings.insert(id.clone());
        id
    }

    /// Gives a contact a new name.
    pub fn rename(&mut self, contact: &str) {
        let name = format!("n{}-{}", self.number, self.queries);
        self.request(
            "set",
            &format!(
                "<query xmlns='jabber:iq:roster'>\
                 <item jid='{contact}@{DOMAIN}' name='{name}'/></query>"
            ),
        );
    }

    pub fn available(&mut self, priority: i8) {
        if self.mark.is_some() {
            return;
        }
        self.priority = Some(priority);
        self.stanza(format!("<presence><priority>{priority}</priority></presence>"), None);
    }

    pub fn unavailable(&mut self) {
        if self.priority.take().is_some() {
            self.stanza("<presence type='unavailable'/>".to_owned(), None);
            self.mark = Some(self.query("<ping xmlns='urn:xmpp:ping'/>"));
        }
    }

    /// A clean end: what has come is acknowledged first, by most.
    pub fn close(&mut self, random: &mut Random) {
        if self.habits.curt == 0 || !random.chance(self.habits.curt) {
            self.acknowledge();
        }
        self.write("</stream:stream>");
        self.stage = Stage::Closing;
    }

    /// An end with an error, of its own or of the server's.
    pub fn err(&mut self, own: bool) {
        if own {
            self.write(
                "<stream:error><undefined-condition \
                 xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>",
            );
            self.stage = Stage::Closing;
        } else {
            self.write("<what xmlns='urn:example:nothing'/>");
        }
    }
}

/// The items of a roster, each with its name.
fn names(xml: &str) -> impl Iterator<Item = (String, String)> {
    xml.split("<item ").skip(1).filter_map(|item| {
        let item = format!(" {item}");
        let name = attribute(&item, "name").unwrap_or_default();
        Some((attribute(&item, "jid")?.to_owned(), name.to_owned()))
    })
}

/// Which of the devices see somebody who is not there, or not somebody who is.
pub fn wrong_views(devices: &[Device]) -> Vec<String> {
    let here = |device: &&Device| device.stage == Stage::Ready && device.priority.is_some();
    let there = devices.iter().filter(here).filter_map(|device| device.jid.clone());
    let there: BTreeSet<_> = there.collect();
    let mut wrong = Vec::new();
    for device in devices.iter().filter(here) {
        let seen = device.view.iter().filter(|(_, available)| **available);
        let seen: BTreeSet<_> = seen.map(|(jid, _)| jid.clone()).collect();
        let mut due = there.clone();
        due.retain(|jid| Some(jid) != device.jid.as_ref() || seen.contains(jid));
        if seen != due {
            wrong.push(format!("device {} sees {seen:?}, not {due:?}", device.number));
        }
    }
    wrong
}
