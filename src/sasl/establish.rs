//! What a client asks for together with its authentication (XEP-0388 §2.3).

use std::fmt;
#[cfg(feature = "cluster")]
use std::time::SystemTime;

use super::tokens::Fingerprint;
use super::upgrade;
use super::wire::NS_2;
use crate::client::{ClientId, UserAgent};
use crate::stanza::Child;
use crate::store::{ClientTokens, Credentials, ScramHash};
use crate::stream::Nonza;

/// The namespace of Bind 2.
const BIND_2: &str = "urn:xmpp:bind:0";

/// What a client asks for together with its authentication: read with `<authenticate/>`, and acted on at its
/// success alone, in one step.
///
/// It is data without borrowed state, and lives in the attempt that it came with: what fails takes it along
/// (SASL2-7).
#[derive(Clone, Default)]
pub(crate) struct Establish {
    /// Who asks.
    pub(crate) agent: UserAgent,
    /// What extensions may act on, in the client's order: no two of one name.
    pub(crate) requests: Vec<Nonza>,
    /// The hash functions that it would bring keys for, in its order.
    pub(crate) upgrades: Vec<ScramHash>,
    /// The resource that it wants bound, unless it gets one back.
    pub(crate) bind: Option<Bind2>,
    pub(crate) evidence: Evidence,
}

/// What has proved who the client is, as far as its tokens depend on it.
#[derive(Clone, Default)]
pub(crate) struct Evidence {
    /// Those that were looked up.
    pub(crate) credentials: Option<Credentials>,
    pub(crate) token: Option<UsedToken>,
}

/// A token that the client has logged in with.
#[derive(Clone)]
pub(crate) struct UsedToken {
    /// Its number; `None` if it has ended with this login (FAST-5).
    pub(crate) number: Option<u64>,
    /// It is time for a new one.
    pub(crate) is_due: bool,
    /// Of the credentials that it was good for.
    pub(crate) fingerprint: Fingerprint,
    #[cfg(feature = "cluster")]
    pub(crate) issued: SystemTime,
}

impl UsedToken {
    /// Whether nobody has ended it since.
    pub(crate) fn is_good(&self, found: Option<&ClientTokens>) -> bool {
        let slots = found.map(|record| [&record.current, &record.new]);
        slots.is_some_and(|slots| {
            let mut numbers = slots.into_iter().flatten().map(|token| token.number);
            self.number.is_none_or(|used| numbers.any(|number| number == used))
        })
    }
}

/// A resource, and what its session is to have from its first moment (XEP-0386).
#[derive(Clone, Default)]
pub(crate) struct Bind2 {
    pub(crate) tag: Option<Box<str>>,
    /// What extensions may act on, in the client's order: no two of one name.
    pub(crate) requests: Vec<Nonza>,
}

impl Establish {
    /// Reads `<authenticate/>`. What is unknown in it is left out (SASL2-7).
    pub(crate) fn read(authenticate: &Nonza) -> Self {
        let mut establish = Self::default();
        for child in authenticate.children() {
            match (child.name(), &*child.namespace()) {
                ("user-agent", NS_2) => establish.agent = agent(&child),
                (_, NS_2) => {}
                ("bind", BIND_2) => {
                    establish.bind.get_or_insert_with(|| Bind2::read(&child));
                }
                ("upgrade", upgrade::NS) => {
                    let hash = upgrade::hash(child.text().trim());
                    let is_new = |hash: &ScramHash| !establish.upgrades.contains(hash);
                    establish.upgrades.extend(hash.filter(is_new));
                }
                _ => add(&mut establish.requests, &child),
            }
        }
        establish
    }

    /// The request of this name, if it is among them.
    pub(crate) fn request(&self, name: &str, namespace: &str) -> Option<&Nonza> {
        self.requests.iter().find(|request| request.is(name, namespace))
    }
}

impl Bind2 {
    fn read(bind: &Child<'_>) -> Self {
        let mut asked = Self::default();
        for child in bind.children() {
            match (child.name(), &*child.namespace()) {
                ("tag", BIND_2) => asked.tag = Some(child.text().into()),
                (_, BIND_2) => {}
                _ => add(&mut asked.requests, &child),
            }
        }
        asked
    }
}

/// The first of each name counts.
fn add(requests: &mut Vec<Nonza>, child: &Child<'_>) {
    if !requests.iter().any(|known| known.is(child.name(), &child.namespace())) {
        requests.push(Nonza::of(child));
    }
}

/// SASL2-10
fn agent(element: &Child<'_>) -> UserAgent {
    let id = element.attribute("id").and_then(|id| ClientId::parse(&id));
    let mut agent = UserAgent { id, ..UserAgent::default() };
    for child in element.children() {
        let said = match (child.name(), &*child.namespace()) {
            ("software", NS_2) => &mut agent.software,
            ("device", NS_2) => &mut agent.device,
            _ => continue,
        };
        let text = child.text();
        *said = (!text.is_empty()).then(|| text.into());
    }
    agent
}

impl fmt::Debug for Establish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Establish")
            .field("requests", &self.requests.len())
            .field("bind", &self.bind.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stream::{Event, Limits, Parser};

    fn read(inside: &str) -> Establish {
        let mut parser = Parser::new(&Limits::default());
        let header = "<stream:stream xmlns='jabber:client' version='1.0' \
                      xmlns:stream='http://etherx.jabber.org/streams'>";
        parser.feed(header.as_bytes());
        parser.feed(format!("<authenticate xmlns='{NS_2}'>{inside}</authenticate>").as_bytes());
        let _header = parser.next().unwrap();
        let Ok(Some(Event::Nonza(nonza))) = parser.next() else { panic!("no element") };
        Establish::read(&nonza)
    }

    fn names(requests: &[Nonza]) -> Vec<String> {
        requests.iter().map(|one| format!("{{{}}}{}", one.namespace(), one.name())).collect()
    }

    #[test]
    fn sasl2_8_requests_are_owned_and_stand_alone() {
        let asked = read(
            "<initial-response>AA==</initial-response><p:a xmlns:p='urn:a'><p:b/></p:a>\
             <bind xmlns='urn:xmpp:bind:0' xmlns:q='urn:q'><tag>T</tag><q:c q:x='1'/><enable xmlns='urn:d'/>\
             </bind><other/>",
        );
        assert_eq!(names(&asked.requests), ["{urn:a}a"]);
        let bind = asked.bind.unwrap();
        assert_eq!(bind.tag.as_deref(), Some("T"));
        assert_eq!(names(&bind.requests), ["{urn:q}c", "{urn:d}enable"]);
        let inner: Vec<_> =
            asked.requests[0].children().map(|b| b.namespace().into_owned()).collect();
        assert_eq!(inner, ["urn:a"]);
    }

    #[test]
    fn sasl2_8_the_first_of_each_name_counts() {
        let asked = read(
            "<resume xmlns='urn:xmpp:sm:3' n='1'/><resume xmlns='urn:xmpp:sm:3' n='2'/>\
             <bind xmlns='urn:xmpp:bind:0'><tag>one</tag></bind><bind xmlns='urn:xmpp:bind:0'/>",
        );
        assert_eq!(asked.requests.len(), 1);
        let resume = asked.request("resume", "urn:xmpp:sm:3").unwrap();
        assert_eq!(resume.attribute("n").as_deref(), Some("1"));
        assert_eq!(asked.bind.unwrap().tag.as_deref(), Some("one"));
    }

    #[test]
    fn sasl2_10_what_is_no_uuid_is_no_id() {
        let agent = |id: &str| {
            read(&format!(
                "<user-agent id='{id}'><software>A&amp;B</software><device/></user-agent>"
            ))
            .agent
        };
        assert!(agent("d4565fa7-4d72-4749-b3d3-740edbf87770").id.is_some());
        let agent = agent("phone");
        assert_eq!((agent.id, agent.software.as_deref(), agent.device), (None, Some("A&B"), None));
    }

    #[test]
    fn sec_6_debug_shows_no_content() {
        let asked = read("<bind xmlns='urn:xmpp:bind:0'><tag>secret</tag></bind>");
        assert_eq!(format!("{asked:?}"), "Establish { requests: 0, bind: true, .. }");
    }
}
