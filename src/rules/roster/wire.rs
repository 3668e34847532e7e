//! Rosters on the wire: the payloads of results and pushes, in canonical form.

use std::borrow::Cow;

use super::{Entry, Roster, RosterError};
use crate::stanza::{Child, write};

/// The namespace of roster queries.
pub const NAMESPACE: &str = "jabber:iq:roster";

/// Reads a roster get: the version that the client holds, as it wrote it.
///
/// # Errors
///
/// [`RosterError::ItemInGet`] if the query asks about an item
/// ([RFC 6121 §2.1.3](https://www.rfc-editor.org/rfc/rfc6121#section-2.1.3), rule ROSTER-1).
pub fn parse_get<'a>(query: &Child<'a>) -> Result<Option<Cow<'a, str>>, RosterError> {
    if query.children().any(|child| child.is("item", NAMESPACE)) {
        return Err(RosterError::ItemInGet);
    }
    Ok(query.attribute("ver"))
}

/// The payload of the result for a roster get by a client that holds version `held`: the whole
/// roster, or nothing at all if that is the current one (rules ROSTER-1 and ROSTER-19,
/// [RFC 6121 §2.6.3](https://www.rfc-editor.org/rfc/rfc6121#section-2.6.3)).
///
/// The version is written even where the client named none (rule ROSTER-16).
#[must_use]
pub fn result(roster: &Roster, held: Option<&str>) -> Vec<u8> {
    if held.is_some_and(|held| held == roster.version().to_string()) {
        return Vec::new();
    }
    query(roster, |out| {
        for entry in roster.iter() {
            write_item(out, entry);
        }
    })
}

/// The payload of a push for one contact, after the change: its item, or the news that it has none
/// any more ([RFC 6121 §2.1.6](https://www.rfc-editor.org/rfc/rfc6121#section-2.1.6)).
///
/// Make it while nothing else can change the roster, so that it carries the version of this change
/// (rule ROSTER-17).
#[must_use]
pub fn push(roster: &Roster, contact: &str) -> Vec<u8> {
    query(roster, |out| match roster.get(contact) {
        Some(entry) => write_item(out, entry),
        None => {
            out.extend_from_slice(b"<item");
            write_attribute(out, "jid", contact);
            write_attribute(out, "subscription", "remove");
            out.extend_from_slice(b"/>");
        }
    })
}

/// Appends one `<item/>`. The subscription is always written, `none` too (rule ROSTER-12).
pub fn write_item(out: &mut Vec<u8>, entry: Entry<'_>) {
    out.extend_from_slice(b"<item");
    write_attribute(out, "jid", entry.jid());
    if let Some(name) = entry.name() {
        write_attribute(out, "name", name);
    }
    write_attribute(out, "subscription", entry.subscription().as_str());
    if entry.ask() {
        write_attribute(out, "ask", "subscribe");
    }
    if entry.approved() {
        write_attribute(out, "approved", "true");
    }
    let mut groups = entry.groups().peekable();
    if groups.peek().is_none() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    for group in groups {
        out.extend_from_slice(b"<group>");
        write::text(out, group);
        out.extend_from_slice(b"</group>");
    }
    out.extend_from_slice(b"</item>");
}

fn query(roster: &Roster, items: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    out.extend_from_slice(b"<query");
    write_attribute(&mut out, "xmlns", NAMESPACE);
    write_attribute(&mut out, "ver", &roster.version().to_string());
    let start_tag = out.len();
    out.push(b'>');
    items(&mut out);
    if out.len() == start_tag + 1 {
        out.truncate(start_tag);
        out.extend_from_slice(b"/>");
    } else {
        out.extend_from_slice(b"</query>");
    }
    out
}

fn write_attribute(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b' ');
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"='");
    write::attribute_value(out, value);
    out.push(b'\'');
}

#[cfg(test)]
mod tests {
    use jid::BareJid;

    use super::*;
    use crate::rules::roster::{Item, Subscription};

    fn item(jid: &str) -> Item {
        Item::new(BareJid::new(jid).unwrap())
    }

    fn shown(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    fn juliet() -> Roster {
        let mut nurse = item("nurse@example.com");
        nurse.name = Some("Nurse & 'Angelica'".into());
        nurse.groups = vec!["Servants".into(), "<Friends>".into()];
        nurse.subscription = Subscription::Both;
        let mut romeo = item("romeo@example.net");
        romeo.ask = true;
        romeo.approved = true;
        Roster::from_items([romeo, nurse], 7, [])
    }

    #[test]
    fn roster_1_empty_roster_is_an_empty_query() {
        assert_eq!(
            shown(result(&Roster::new(), None)),
            "<query xmlns='jabber:iq:roster' ver='0'/>"
        );
    }

    #[test]
    fn roster_12_items_show_subscription_ask_and_approval() {
        assert_eq!(
            shown(result(&juliet(), None)),
            "<query xmlns='jabber:iq:roster' ver='7'>\
             <item jid='nurse@example.com' name='Nurse &amp; &apos;Angelica&apos;' subscription='both'>\
             <group>Servants</group><group>&lt;Friends&gt;</group></item>\
             <item jid='romeo@example.net' subscription='none' ask='subscribe' approved='true'/>\
             </query>"
        );
    }

    #[test]
    fn roster_16_pushes_carry_the_version_of_the_change() {
        let mut roster = juliet();
        roster.put(&item("romeo@example.net"));
        assert_eq!(
            shown(push(&roster, "romeo@example.net")),
            "<query xmlns='jabber:iq:roster' ver='8'><item jid='romeo@example.net' subscription='none'/></query>"
        );
    }

    #[test]
    fn roster_15_push_of_a_removal() {
        let mut roster = juliet();
        roster.remove("romeo@example.net");
        assert_eq!(
            shown(push(&roster, "romeo@example.net")),
            "<query xmlns='jabber:iq:roster' ver='8'><item jid='romeo@example.net' subscription='remove'/></query>"
        );
    }

    #[test]
    fn roster_19_only_the_current_version_gets_an_empty_result() {
        let roster = juliet();
        assert_eq!(shown(result(&roster, Some("7"))), "");
        for other in ["", "6", "8", "07", "+7", "ver7", " 7"] {
            assert!(shown(result(&roster, Some(other))).contains("nurse@example.com"), "{other:?}");
        }
    }

    #[test]
    fn roster_3_requests_are_not_shown() {
        let roster = Roster::from_items([], 0, [BareJid::new("stranger@example.org").unwrap()]);
        assert_eq!(shown(result(&roster, None)), "<query xmlns='jabber:iq:roster' ver='0'/>");
    }
}
