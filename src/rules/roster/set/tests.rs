use proptest::prelude::*;

use super::*;
use crate::rules::roster::{Subscription, parse_get};
use crate::rules::subscription::SubscriptionKind;
use crate::stanza::{Kind, Stanza};

const OWN: &str = "juliet@example.com";

fn jid(text: &str) -> BareJid {
    BareJid::new(text).unwrap()
}

/// A stanza with a roster query that holds `items`, in canonical form.
fn query(items: &str) -> Stanza {
    let payload = format!("<query xmlns='jabber:iq:roster'>{items}</query>");
    Stanza::builder(Kind::Iq).type_("set").id("1").payload(payload.as_bytes()).build()
}

fn parse(items: &str) -> Result<RosterSet, RosterError> {
    RosterSet::parse(&query(items).child().unwrap(), &RosterLimits::default())
}

fn plan(roster: &Roster, items: &str) -> Result<SetPlan, RosterError> {
    let limits = RosterLimits::default();
    plan_set(roster, &jid(OWN), &parse(items)?, &limits)
}

fn nurse() -> Item {
    Item {
        name: Some("Nurse".into()),
        groups: vec!["Servants".into()],
        subscription: Subscription::From,
        ask: true,
        approved: false,
        ..Item::new(jid("nurse@example.com"))
    }
}

#[test]
fn roster_1_a_get_holds_no_item() {
    let get = |items| parse_get(&query(items).child().unwrap()).map(|held| held.map(String::from));
    assert_eq!(get(""), Ok(None));
    assert_eq!(get("<item jid='nurse@example.com'/>"), Err(RosterError::ItemInGet));
    let with_version =
        Stanza::builder(Kind::Iq).payload(b"<query xmlns='jabber:iq:roster' ver='7'/>").build();
    assert_eq!(parse_get(&with_version.child().unwrap()).unwrap().as_deref(), Some("7"));
}

#[test]
fn roster_5_exactly_one_item_with_a_jid() {
    assert_eq!(parse(""), Err(RosterError::NotOneItem));
    assert_eq!(
        parse("<item jid='a@example.com'/><item jid='a@example.com'/>"),
        Err(RosterError::NotOneItem)
    );
    assert_eq!(
        parse("<item xmlns='urn:example:x' jid='a@example.com'/>"),
        Err(RosterError::NotOneItem)
    );
    assert_eq!(parse("<item name='nobody'/>"), Err(RosterError::NoJid));
    for error in [
        RosterError::NotOneItem,
        RosterError::NoJid,
        RosterError::DuplicateGroup,
        RosterError::ItemInGet,
    ] {
        assert_eq!(error.condition(), Condition::BadRequest);
    }
}

#[test]
fn roster_5_duplicate_groups() {
    let groups = |a: &str, b: &str| {
        parse(&format!("<item jid='a@example.com'><group>{a}</group><group>{b}</group></item>"))
            .map(|_| ())
    };
    assert_eq!(groups("Friends", "Friends"), Err(RosterError::DuplicateGroup));
    // Resourceprep makes these one: a no-break space, a compatibility character.
    assert_eq!(groups("My Friends", "My\u{a0}Friends"), Err(RosterError::DuplicateGroup));
    assert_eq!(groups("\u{ff26}riends", "Friends"), Err(RosterError::DuplicateGroup));
    // And not these: resourceparts are case-sensitive.
    assert_eq!(groups("friends", "Friends"), Ok(()));
    // What cannot be made a resourcepart is compared as it is.
    assert_eq!(groups("\u{1f600}", "\u{1f600}"), Err(RosterError::DuplicateGroup));
    assert_eq!(groups("\u{1f600}", "\u{1f601}"), Ok(()));
}

#[test]
fn roster_6_names_and_groups() {
    let long = "n".repeat(1023);
    assert!(
        parse(&format!("<item jid='a@example.com' name='{long}'><group>{long}</group></item>"))
            .is_ok()
    );
    let name = parse(&format!("<item jid='a@example.com' name='{long}n'/>"));
    assert_eq!(name, Err(RosterError::NameTooLong));
    let group = parse(&format!("<item jid='a@example.com'><group>{long}g</group></item>"));
    assert_eq!(group, Err(RosterError::GroupTooLong));
    assert_eq!(parse("<item jid='a@example.com'><group/></item>"), Err(RosterError::EmptyGroup));
    for error in [RosterError::NameTooLong, RosterError::GroupTooLong, RosterError::EmptyGroup] {
        assert_eq!(error.condition(), Condition::NotAcceptable);
    }
}

#[test]
fn roster_7_item_jids() {
    let of = |jid: &str| plan(&Roster::new(), &format!("<item jid='{jid}'/>")).map(|_| ());
    assert_eq!(of("a@example.com"), Ok(()));
    assert_eq!(of("example.com"), Ok(()));
    assert_eq!(of("a@example.com."), Ok(()));
    assert_eq!(of("a@example.com/balcony"), Err(RosterError::FullJid));
    assert_eq!(of("a@example.com./\u{1f98a}"), Err(RosterError::FullJid));
    assert_eq!(of(OWN), Err(RosterError::OwnJid));
    assert_eq!(of("Juliet@EXAMPLE.com."), Err(RosterError::OwnJid));
    // One that is there nevertheless can only go.
    let own = Item { subscription: Subscription::Both, ..Item::new(jid(OWN)) };
    let roster = Roster::from_items([own], 3, []);
    let of = |rest: &str| plan(&roster, &format!("<item jid='{OWN}' {rest}/>"));
    assert_eq!(of("name='n'"), Err(RosterError::OwnJid));
    let Ok(SetPlan::Remove(gone)) = of("subscription='remove'") else { panic!("removed") };
    assert!(gone.contact == jid(OWN) && gone.farewells.is_empty());
    let of = |jid: &str| plan(&Roster::new(), &format!("<item jid='{jid}'/>")).map(|_| ());
    for wrong in [
        "",
        "@example.com",
        "a@",
        "a@b@c",
        "a@example.com/",
        "a@x../r",
        "a@\u{1806}",
        "\u{1806}",
        "a@\u{1806}.z",
        "\u{1d2c}lice@example.com",
        #[cfg(feature = "server")]
        "\u{2665}@example.com",
    ] {
        assert_eq!(of(wrong), Err(RosterError::InvalidJid), "{wrong}");
    }
    assert_eq!(RosterError::FullJid.condition(), Condition::BadRequest);
    assert_eq!(RosterError::OwnJid.condition(), Condition::NotAllowed);
    assert_eq!(RosterError::InvalidJid.condition(), Condition::JidMalformed);
}

#[test]
fn roster_8_only_presence_changes_subscription_state() {
    let set = "<item jid='nurse@example.com' name='N' subscription='both' ask='subscribe' approved='true'/>";
    let SetPlan::Put(new) = plan(&Roster::new(), set).unwrap() else { panic!() };
    assert_eq!((new.subscription, new.ask, new.approved), (Subscription::None, false, false));
    let roster = Roster::from_items([nurse()], 3, []);
    let SetPlan::Put(kept) = plan(&roster, set).unwrap() else { panic!() };
    assert_eq!((kept.subscription, kept.ask, kept.approved), (Subscription::From, true, false));
    assert_eq!(kept.name.as_deref(), Some("N"));
}

#[test]
fn roster_9_name_and_groups_are_replaced_as_a_whole() {
    let roster = Roster::from_items([nurse()], 3, []);
    for set in ["<item jid='nurse@example.com'/>", "<item jid='nurse@example.com' name=''/>"] {
        let SetPlan::Put(item) = plan(&roster, set).unwrap() else { panic!() };
        assert_eq!(item, Item { name: None, groups: vec![], ..nurse() });
    }
    let set =
        "<item jid='nurse@example.com' name='A&amp;B'><group>X</group><group>Y</group></item>";
    let SetPlan::Put(item) = plan(&roster, set).unwrap() else { panic!() };
    assert_eq!(
        item,
        Item { name: Some("A&B".into()), groups: vec!["X".into(), "Y".into()], ..nurse() }
    );
}

#[test]
fn roster_13_a_set_that_changes_nothing() {
    let roster = Roster::from_items([nurse()], 3, []);
    let set = "<item jid='Nurse@example.com' name='Nurse'><group>Servants</group></item>";
    assert_eq!(plan(&roster, set), Ok(SetPlan::Unchanged));
}

#[test]
fn roster_14_removal_of_what_is_not_there() {
    let remove = "<item jid='romeo@example.net' subscription='remove'/>";
    assert_eq!(plan(&Roster::new(), remove), Err(RosterError::UnknownItem));
    let with_request = Roster::from_items([], 0, [jid("romeo@example.net")]);
    assert_eq!(plan(&with_request, remove), Err(RosterError::UnknownItem));
    let error = StanzaError::from(RosterError::UnknownItem);
    assert_eq!((error.condition(), error.type_()), (Condition::ItemNotFound, ErrorType::Cancel));
}

#[test]
fn roster_15_removal_says_farewell() {
    let roster = Roster::from_items([nurse()], 3, []);
    // What else the item holds is of no interest, valid or not.
    let remove = "<item jid='nurse@example.com' subscription='remove'><group/><group/></item>";
    let SetPlan::Remove(removal) = plan(&roster, remove).unwrap() else { panic!() };
    assert_eq!(removal.contact, jid("nurse@example.com"));
    assert!(!removal.request);
    let sent = [SubscriptionKind::Unsubscribed, SubscriptionKind::Unsubscribe].map(Farewell::Send);
    assert_eq!(removal.farewells, [Farewell::Unavailable, sent[0], sent[1]]);
}

#[test]
fn roster_15_removal_drops_the_request() {
    let item = Item::new(jid("romeo@example.net"));
    let roster = Roster::from_items([item], 3, [jid("romeo@example.net")]);
    let remove = "<item jid='romeo@example.net' subscription='remove'/>";
    let SetPlan::Remove(removal) = plan(&roster, remove).unwrap() else { panic!() };
    assert!(removal.request);
    assert_eq!(removal.farewells, [Farewell::Send(SubscriptionKind::Unsubscribed)]);
}

#[test]
fn limit_15_bytes_of_an_item_and_of_a_roster() {
    let named = |n: usize, len: usize| {
        let mut item = Item::new(jid(&format!("c{n}@example.com")));
        item.name = Some("&".repeat(len));
        item
    };
    let mut limits = RosterLimits::default();
    (limits.item_bytes, limits.bytes) = (1_000, 2_500);
    let allow = |limits: &RosterLimits, roster: &Roster, item| limits.allow(roster, &item);
    let mut roster = Roster::new();
    assert_eq!(allow(&limits, &roster, named(1, 190)), Err(RosterError::ItemTooLarge));
    for n in 0..2 {
        assert_eq!(allow(&limits, &roster, named(n, 170)), Ok(()));
        roster.put(&named(n, 170));
    }
    assert_eq!(allow(&limits, &roster, named(2, 170)), Err(RosterError::TooLarge));
    assert_eq!(allow(&limits, &roster, named(2, 80)), Ok(()));
    let error = StanzaError::from(RosterError::TooLarge);
    assert_eq!((error.condition(), error.type_()), (Condition::PolicyViolation, ErrorType::Modify));
    let error = StanzaError::from(RosterError::ItemTooLarge);
    assert_eq!(error.condition(), Condition::NotAcceptable);
    // What is there already, from times of other limits, may be kept or made smaller, not larger.
    (limits.item_bytes, limits.bytes, limits.items) = (500, 600, 1);
    for (item, expected) in [
        (named(1, 171), Err(RosterError::ItemTooLarge)),
        (named(1, 170), Ok(())),
        (named(1, 169), Ok(())),
        (named(2, 0), Err(RosterError::TooManyItems)),
    ] {
        assert_eq!(allow(&limits, &roster, item), expected);
    }
    limits.item_bytes = 2_000;
    assert_eq!(allow(&limits, &roster, named(1, 171)), Err(RosterError::TooLarge));
    let mut state = named(1, 170);
    (state.ask, state.approved, state.subscription) = (true, true, Subscription::Both);
    assert_eq!(allow(&limits, &roster, state), Ok(()));
    let removal = RosterSet::removal(named(1, 0).jid);
    assert!(plan_set(&roster, &jid(OWN), &removal, &limits).is_ok());
}

#[test]
fn limit_15_items() {
    let limits = RosterLimits { items: 2, ..RosterLimits::default() };
    let full = Roster::from_items([nurse(), Item::new(jid("a@example.com"))], 0, []);
    let plan = |set| plan_set(&full, &jid(OWN), &parse(set).unwrap(), &limits);
    assert_eq!(plan("<item jid='b@example.com'/>"), Err(RosterError::TooManyItems));
    assert!(matches!(plan("<item jid='a@example.com' name='A'/>"), Ok(SetPlan::Put(_))));
    assert!(matches!(
        plan("<item jid='a@example.com' subscription='remove'/>"),
        Ok(SetPlan::Remove(_))
    ));
    let error = StanzaError::from(RosterError::TooManyItems);
    assert_eq!((error.condition(), error.type_()), (Condition::PolicyViolation, ErrorType::Modify));
}

#[test]
fn limit_15_groups_per_item() {
    let with = |count: usize| {
        let groups: String = (0..count).map(|n| format!("<group>{n}</group>")).collect();
        parse(&format!("<item jid='a@example.com'>{groups}</item>")).map(|_| ())
    };
    assert_eq!(with(64), Ok(()));
    assert_eq!(with(65), Err(RosterError::TooManyGroups));
    assert_eq!(RosterError::TooManyGroups.condition(), Condition::NotAcceptable);
}

#[test]
fn sec_6_debug_of_a_set_and_its_plan_names_nobody() {
    let roster = Roster::from_items([nurse()], 3, []);
    for set in [
        "<item jid='nurse@example.com' name='Angelica'><group>Household</group></item>",
        "<item jid='nurse@example.com' subscription='remove'/>",
    ] {
        let printed = format!("{:?} {:?}", parse(set), plan(&roster, set));
        for secret in ["nurse", "Angelica", "Household", "Servants"] {
            assert!(!printed.contains(secret), "{printed}");
        }
    }
}

proptest! {
    #[test]
    fn roster_10_what_is_set_is_what_is_shown(
        name in "[ -~é\u{1f600}]{0,20}",
        groups in prop::collection::btree_set("[a-zA-Z&<>'\"]{1,9}", 0..5),
    ) {
        let item = Item { name: Some(name.clone()), groups: groups.into_iter().collect(), ..nurse() };
        let mut roster = Roster::from_items([item.clone()], 0, []);
        let shown = crate::rules::roster::push(&roster, item.jid.as_str());
        let answer = Stanza::builder(Kind::Iq).payload(&shown).build();
        let set = RosterSet::parse(&answer.child().unwrap(), &RosterLimits::default());
        let plan = plan_set(&roster, &jid(OWN), &set.unwrap(), &RosterLimits::default());
        prop_assert_eq!(plan, Ok(SetPlan::Unchanged));
        roster.remove(item.jid.as_str());
        let set = RosterSet::parse(&answer.child().unwrap(), &RosterLimits::default());
        let Ok(SetPlan::Put(put)) = plan_set(&roster, &jid(OWN), &set.unwrap(), &RosterLimits::default()) else {
            panic!()
        };
        prop_assert_eq!(put.groups, item.groups);
        prop_assert_eq!(put.name.unwrap_or_default(), name);
    }
}
