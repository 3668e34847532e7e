//! Rosters on the wire: the payloads of results and pushes, in canonical form.

use std::borrow::Cow;

use super::{ItemRef, Roster, RosterError};
use crate::stanza::{Child, write};

/// The namespace of roster queries.
pub(crate) const NAMESPACE: &str = "jabber:iq:roster";

/// Reads a roster get: the version that the client holds, as it wrote it.
///
/// # Errors
///
/// [`RosterError::ItemInGet`] if the query asks about an item
/// ([RFC 6121 §2.1.3](https://www.rfc-editor.org/rfc/rfc6121#section-2.1.3), rule ROSTER-1).
pub(crate) fn parse_get<'a>(query: &Child<'a>) -> Result<Option<Cow<'a, str>>, RosterError> {
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
pub(crate) fn result(roster: &Roster, held: Option<&str>) -> Vec<u8> {
    if held.is_some_and(|held| held == roster.ver()) {
        return Vec::new();
    }
    query(roster, roster.bytes(), |out| {
        for entry in roster.iter() {
            write_item(out, entry);
        }
    })
}

/// The payload of a push for one contact, after the change: its item, or its removal
/// ([RFC 6121 §2.1.6](https://www.rfc-editor.org/rfc/rfc6121#section-2.1.6)).
///
/// Make it while nothing else can change the roster, so that it carries the version of this change
/// (rule ROSTER-17).
#[must_use]
pub(crate) fn push(roster: &Roster, contact: &str) -> Vec<u8> {
    let item = roster.get(contact);
    let bytes = item.map_or(contact.len(), |item| item.most_bytes());
    query(roster, bytes, |out| match item {
        Some(entry) => write_item(out, entry),
        None => {
            write::leaf(out, "item", &[("jid", contact), ("subscription", "remove")], None);
        }
    })
}

/// Appends one `<item/>`. The subscription is always written, `none` too (rule ROSTER-12).
pub(crate) fn write_item(out: &mut Vec<u8>, entry: ItemRef<'_>) {
    out.extend_from_slice(b"<item");
    write::attribute(out, "jid", entry.jid());
    if let Some(name) = entry.name() {
        write::attribute(out, "name", name);
    }
    write::attribute(out, "subscription", entry.subscription().as_str());
    if entry.ask() {
        write::attribute(out, "ask", "subscribe");
    }
    if entry.approved() {
        write::attribute(out, "approved", "true");
    }
    let mut groups = entry.groups().peekable();
    if groups.peek().is_none() {
        out.extend_from_slice(b"/>");
        return;
    }
    out.push(b'>');
    for group in groups {
        write::leaf(out, "group", &[], Some(group));
    }
    out.extend_from_slice(b"</item>");
}

fn query(roster: &Roster, bytes: usize, items: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.saturating_add(128));
    out.extend_from_slice(b"<query");
    write::attribute(&mut out, "xmlns", NAMESPACE);
    write::attribute(&mut out, "ver", &roster.ver());
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

#[cfg(test)]
mod tests {
    use jid::BareJid;

    use super::*;
    use crate::rules::roster::{Item, Subscription};

    fn item(jid: &str) -> Item {
        Item::new(BareJid::new(jid).unwrap())
    }

    /// Of the version, the number alone.
    fn shown(bytes: Vec<u8>) -> String {
        let text = String::from_utf8(bytes).unwrap();
        let Some((start, rest)) = text.split_once(" ver='") else { return text };
        let (version, rest) = rest.split_once('\'').unwrap();
        let (number, digest) = version.split_once('-').unwrap();
        assert!(digest.len() == 16 && digest.chars().all(|c| c.is_ascii_hexdigit()), "{version}");
        format!("{start} ver='{number}'{rest}")
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
        let ver = roster.ver();
        assert_eq!(shown(result(&roster, Some(&ver))), "");
        let (number, digest) = ver.split_once('-').unwrap();
        let others = ["", "7", "6", "ver7"].map(str::to_owned);
        let alike = [format!("0{ver}"), format!(" {ver}"), format!("{ver} "), ver.to_uppercase()];
        let parts = [format!("6-{digest}"), format!("{number}-"), digest.to_owned()];
        for other in others.iter().chain(&alike).chain(&parts) {
            assert!(shown(result(&roster, Some(other))).contains("nurse@example.com"), "{other:?}");
        }
    }

    #[test]
    fn limit_15_a_result_is_no_longer_than_its_roster_says() {
        let mut items = vec![item("a@example.com"), item("&.example")];
        items[0].name = Some("<'&\"\t\n>\u{1}".repeat(10));
        items[0].groups = vec!["&'".repeat(9), "\t".into(), "g".into()];
        (items[0].ask, items[0].approved) = (true, true);
        items[1].subscription = Subscription::Both;
        for items in [vec![], items[..1].to_vec(), items[1..].to_vec(), items.clone()] {
            let roster = Roster::from_items(items, u64::MAX, []);
            let written = result(&roster, None).len();
            let least = (roster.bytes() / 2).max(60);
            assert!((least..=roster.bytes() + 100).contains(&written), "{written} {roster:?}");
            let room = result(&roster, None).capacity();
            assert!(room <= roster.bytes() + 128, "{room}");
        }
        // No change of a subscription makes a difference.
        let mut roster = Roster::from_items(items.clone(), 1, []);
        let before = roster.bytes();
        for item in &mut items {
            (item.ask, item.approved, item.subscription) = (false, false, Subscription::None);
            roster.put(item);
        }
        assert_eq!(roster.bytes(), before);
    }

    #[test]
    fn roster_3_requests_are_not_shown() {
        let roster = Roster::from_items([], 0, [BareJid::new("stranger@example.org").unwrap()]);
        assert_eq!(shown(result(&roster, None)), "<query xmlns='jabber:iq:roster' ver='0'/>");
    }
}
