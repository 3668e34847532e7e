use std::fmt::Write as _;
use std::sync::Arc;

use proptest::prelude::*;

use super::law::check;
use super::*;
use crate::stanza::canonical::Declarations;
use crate::stanza::testing::Dice;

const BOUNDS: Bounds = Bounds { bytes: 10_000, depth: 8, attributes: 8, elements: 16 };

fn declared(declarations: &[(Option<&str>, &str)]) -> Arc<Declarations> {
    let owned =
        |(prefix, namespace): &(Option<&str>, &str)| (prefix.map(Box::from), Arc::from(*namespace));
    Arc::new(Declarations(declarations.iter().map(owned).collect()))
}

fn usual() -> Arc<Declarations> {
    declared(&[(None, "jabber:client"), (Some("stream"), "http://etherx.jabber.org/streams")])
}

fn recognises(xml: impl AsRef<[u8]>) -> bool {
    let xml = xml.as_ref();
    let every_cut: Vec<usize> = (1..xml.len()).collect();
    let bounds = Bounds { elements: 64, ..BOUNDS };
    let whole = check(xml, &[], bounds, &usual());
    assert_eq!(check(xml, &every_cut, bounds, &usual()), whole, "byte by byte");
    whole
}

/// As their clients write them.
const CLIENTS: [&str; 8] = [
    // Gajim
    "<message xmlns=\"jabber:client\" to=\"juliet@capulet.example\" type=\"chat\" id=\"c5b2f9f4-6c54-4a1d-9b6f-1d2f2a3f4b5c\" xml:lang=\"en\"><origin-id xmlns=\"urn:xmpp:sid:0\" id=\"c5b2f9f4-6c54-4a1d-9b6f-1d2f2a3f4b5c\" /><body>Art thou not Romeo, and a Montague?</body><active xmlns=\"http://jabber.org/protocol/chatstates\" /><request xmlns=\"urn:xmpp:receipts\" /></message>",
    "<presence xmlns=\"jabber:client\" id=\"8\"><priority>50</priority><show>away</show><c xmlns=\"http://jabber.org/protocol/caps\" hash=\"sha-1\" node=\"https://gajim.org\" ver=\"q07IKJEyjvHSyhy//CH0CxmKi8w=\" /></presence>",
    // Conversations
    "<message to='juliet@capulet.example/balcony' id='b1e3' type='chat'><encrypted xmlns='eu.siacs.conversations.axolotl'><header sid='1122334455'><key prekey='true' rid='27183'>MwohBQ==</key><iv>ZGVmZw==</iv></header><payload>c2VjcmV0</payload></encrypted><encryption name='OMEMO' namespace='eu.siacs.conversations.axolotl' xmlns='urn:xmpp:eme:0'/><body>I sent you an OMEMO encrypted message but your client doesn&apos;t seem to support that.</body><store xmlns='urn:xmpp:hints'/></message>",
    "<iq id='sZWkB' type='get'><query xmlns='jabber:iq:roster' ver=''/></iq>",
    // slixmpp
    "<iq id=\"4a6f\" type=\"set\" to=\"juliet@capulet.example\"><pubsub xmlns=\"http://jabber.org/protocol/pubsub\"><publish node=\"urn:xmpp:avatar:metadata\"><item id=\"1\"><metadata xmlns=\"urn:xmpp:avatar:metadata\"><info bytes=\"12\" id=\"1\" type=\"image/png\" /></metadata></item></publish><publish-options><x xmlns=\"jabber:x:data\" type=\"submit\"><field var=\"FORM_TYPE\" type=\"hidden\"><value>http://jabber.org/protocol/pubsub#publish-options</value></field></x></publish-options></pubsub></iq>",
    "<presence />",
    // xmpp.js
    "<message type=\"chat\" to=\"juliet@capulet.example\"><body>it's \u{1F339} &lt;3 &amp; &quot;more&quot; > ]]</body></message>",
    "<message\n\tto='a@b'\n\ttype='normal'\n>\n  <html xmlns='http://jabber.org/protocol/xhtml-im'><body xmlns='http://www.w3.org/1999/xhtml'><p style=\"font-family: 'x'\" xml:lang='de'>a</p></body></html>\n</message>",
];

#[test]
fn stream_15_what_clients_write_is_recognised() {
    for xml in CLIENTS {
        assert!(recognises(xml), "{xml}");
        assert!(recognises(format!("{xml}<presence/>")), "with another behind it: {xml}");
    }
}

#[test]
fn stream_15_what_is_not_known_is_left_to_the_parser() {
    for xml in [
        "<x/>",
        "<message/ >",
        "<message x='1'/>",
        "<message lang='de'/>",
        "<message xmlns='jabber:server'/>",
        "<message xmlns:x='urn:x'/>",
        "<message to='a&amp;b'/>",
        "<message to='a\"b'/>",
        "<message to='a>b'/>",
        "<message to = 'a'/>",
        "<message to='a'id='b'/>",
        "<message to='a' to='b'/>",
        "<message\r/>",
        "<message><a></message>",
        "<message><a></b></message>",
        "<message><a></ab></message>",
        "<message><ab></a></message>",
        "<message><a></a ></message>",
        "<message><p:a xmlns:p='urn:p'/></message>",
        "<message><a p:b=''/></message>",
        "<message><a xmlns:p=''/></message>",
        "<message><a xml:space='x'/></message>",
        "<message><a b='1' c='' b='2'/></message>",
        "<message><a b='<'/></message>",
        "<message><a b='\t'/></message>",
        "<message><a b='&#65;'/></message>",
        "<message><a b/></message>",
        "<message><1/></message>",
        "<message><-a/></message>",
        "<message><\u{e9}/></message>",
        "<message><a xmlns='http://www.w3.org/2000/xmlns/'/></message>",
        "<message><a xmlns='http://www.w3.org/XML/1998/namespace'/></message>",
        "<message>&nbsp;</message>",
        "<message>&#xA;</message>",
        "<message>]]></message>",
        "<message><![CDATA[]]></message>",
        "<message><!----></message>",
        "<message><?a?></message>",
        "<message>a\r\nb</message>",
        "<message>\u{1}</message>",
        "<message>\u{ffff}</message>",
        "<message><a b='\u{fffe}'/></message>",
    ] {
        assert!(!recognises(xml), "{xml}");
    }
    assert!(!recognises(b"<message>\xff</message>"));
    assert!(!recognises(b"<message>\xed\xa0\x80</message>"));
    assert!(recognises("<message>\u{fffd}\u{feff}\u{ff21}\u{7f}</message>"));
}

/// Several bytes are looked at together: wherever among them it stands.
#[test]
fn stream_15_characters_that_xml_excludes_are_found_everywhere() {
    for at in 0..40 {
        let (before, behind) = ("a".repeat(at), "b".repeat(40 - at));
        for (character, known) in [
            ("\u{fffe}", false),
            ("\u{ffff}", false),
            ("\u{1f}", false),
            ("\u{fffd}", true),
            ("\u{feff}\u{ff0c}", true),
            ("\u{ffbf}\u{10ffff}", true),
            ("&amp;", true),
        ] {
            let text = format!("{before}{character}{behind}");
            assert_eq!(recognises(format!("<message>{text}</message>")), known, "{text}");
            assert_eq!(recognises(format!("<message><a b='{text}'/></message>")), known, "{text}");
        }
        let cut = [before.as_bytes(), b"\xef<", behind.as_bytes()].concat();
        assert!(!recognises([b"<message>", &cut[..], b"</message>"].concat()));
        assert!(!recognises([b"<message><a b='", &cut[..], b"'/></message>"].concat()));
    }
}

#[test]
fn stream_21_what_is_no_text_is_handed_on_at_once() {
    let mut recogniser = Recogniser::new(true);
    assert!(matches!(recogniser.advance(b"<message>\xc3", &BOUNDS), Recognised::More));
    assert!(matches!(recogniser.advance(b"<message>\xc3\xc3", &BOUNDS), Recognised::Unknown));
}

#[test]
fn stream_13_the_content_namespace_has_to_be_declared() {
    for outer in [declared(&[]), declared(&[(None, "http://etherx.jabber.org/streams")])] {
        assert!(!check(b"<message><a/></message>", &[], BOUNDS, &outer));
        assert!(check(b"<message xmlns='jabber:client'><a/></message>", &[], BOUNDS, &outer));
        let inside = b"<message><a xmlns='jabber:client'/></message>";
        assert!(!check(inside, &[], BOUNDS, &outer));
    }
}

#[test]
fn limit_5_what_exceeds_a_bound_is_left_to_the_parser() {
    let nested =
        |levels| format!("<message>{}{}</message>", "<a>".repeat(levels), "</a>".repeat(levels));
    let known = |xml: String, bounds| check(xml.as_bytes(), &[], bounds, &usual());
    let shallow = Bounds { depth: 4, ..BOUNDS };
    assert!(known(nested(3), shallow) && !known(nested(4), shallow));
    assert!(known(nested(LEVELS), BOUNDS) && !known(nested(LEVELS + 1), BOUNDS));
    let children = |count: usize| format!("<message>{}</message>", "<a/>".repeat(count));
    assert!(known(children(15), BOUNDS) && !known(children(16), BOUNDS));
    let attributes = |count| {
        let attributes: String = (0..count).map(|n| format!(" a{n}=''")).collect();
        format!("<message><a{attributes}/></message>")
    };
    assert!(known(attributes(8), BOUNDS) && !known(attributes(9), BOUNDS));
    let many = Bounds { attributes: 64, ..BOUNDS };
    assert!(known(attributes(ATTRIBUTES), many) && !known(attributes(ATTRIBUTES + 1), many));
    let name = |length| format!("<message><{}/></message>", "a".repeat(length));
    assert!(known(name(NAME_FOLLOWED), BOUNDS) && !known(name(NAME_FOLLOWED + 1), BOUNDS));
}

/// What is kept as it came does not grow, so it has no limit but that of the stanza.
#[test]
fn limit_40_what_would_grow_is_recognised_as_long_as_it_is_kept() {
    let known = |xml: String| check(xml.as_bytes(), &[4000, 9000], BOUNDS, &usual());
    let text = |length| format!("<message>{}</message>", "\"".repeat(length - 19));
    assert!(known(text(BOUNDS.bytes)) && !known(text(BOUNDS.bytes + 1)));
    let value = |length| format!("<message><a b=\"{}\"/></message>", "'".repeat(length - 28));
    assert!(known(value(BOUNDS.bytes)) && !known(value(BOUNDS.bytes + 1)));
}

#[test]
fn stream_15_namespaces_that_are_no_uri_are_left_to_the_parser() {
    let known = |namespace: &str| {
        let xml = format!("<message><a xmlns=\"{namespace}\"/></message>");
        check(xml.as_bytes(), &[], BOUNDS, &usual())
    };
    assert!(known("urn:~!$()*+,;=%") && known(""));
    for byte in "\"'<>\\^`{|} \t\n&\u{e9}\u{7f}".chars() {
        assert!(!known(&format!("urn:{byte}")), "{byte:?}");
    }
    assert!(!known("urn:&amp;") && !known("urn:&#x9;") && !known("urn:&lt;"));
}

#[test]
fn limit_4_an_endless_element_is_handed_on() {
    let endless = [b"<message>", &[b'x'; 20_000][..]].concat();
    let mut recogniser = Recogniser::new(true);
    assert!(matches!(recogniser.advance(&endless[..3000], &BOUNDS), Recognised::More));
    assert!(matches!(recogniser.advance(&endless, &BOUNDS), Recognised::Unknown));
}

/// Everything in the sources of the tests that looks like the beginning of a stanza.
#[test]
fn stream_15_the_law_holds_for_the_transcripts_of_other_tests() {
    let sources = [
        include_str!("tests.rs"),
        include_str!("../tests.rs"),
        include_str!("../frame/mod.rs"),
        include_str!("../derived.rs"),
        include_str!("../canonical/tests.rs"),
        include_str!("../../stream/tests.rs"),
        include_str!("../../stream/tests/elements.rs"),
        include_str!("../../stream/tests/header.rs"),
        include_str!("../../stream/tests/limits.rs"),
        include_str!("../../rules/delivery/offline.rs"),
    ];
    let mut recognised = 0;
    for source in sources {
        let source = source.replace("\\\"", "\"");
        for (at, _) in source.match_indices('<') {
            let end = source.len().min(at + 2000);
            let bytes = &source.as_bytes()[at..end];
            recognised += usize::from(check(bytes, &[], BOUNDS, &usual()));
        }
    }
    assert!(recognised > 50, "{recognised}");
}

/// Writes an element as clients do; seldom something that is legal and odd, or wrong.
fn element(dice: &mut Dice<'_>, out: &mut String, level: usize) {
    let odd = |dice: &mut Dice<'_>| dice.roll(40) == 39;
    let name = match level {
        0 => dice.pick(&["message", "presence", "iq"]),
        _ if odd(dice) => dice.pick(&["p:x", "xml:x", "\u{e9}", "-", "message", "xmlns", "a:b:c"]),
        _ => dice.pick(&["body", "x", "item-1", "_a.b", "bodys", "bod"]),
    };
    write!(out, "<{name}").unwrap();
    for _ in 0..dice.roll(5) {
        let attribute = match level {
            _ if odd(dice) => dice.pick(&[
                "xmlns:p",
                "p:a",
                "xml:space",
                "\u{e9}",
                "xml",
                "xml:",
                "xmlns:xml",
                "a b",
            ]),
            0 => dice.pick(&["from", "to", "id", "type", "xml:lang"]),
            _ => dice.pick(&["xmlns", "a", "ab", "xml:lang", "lang", "xmlnsa", "xmla", "id"]),
        };
        let quote = dice.pick(&["'", "\""]);
        let space = if odd(dice) { "" } else { dice.pick(&[" ", "  ", "\n", "\t"]) };
        let equals = if odd(dice) { dice.pick(&[" =", "= ", "", "=="]) } else { "=" };
        write!(out, "{space}{attribute}{equals}{quote}").unwrap();
        for _ in 0..dice.roll(4) {
            let plain = ["v", "jabber:client", "urn:x", "\u{e9}", "a@b/c", "\u{1F339}"];
            let escaped = ["&amp;", "&#xA;", "&#xD;", "&#x9;", "&quot;", "'", "\"", ">"];
            let wrong = ["<", "&", "\t", "\r", "\n", "&#10;", "&x;", "\u{ffff}", "\u{1}", "&#x41;"];
            out.push_str(match dice.roll(40) {
                39 => dice.pick(&wrong),
                32.. if level > 0 => dice.pick(&escaped),
                31 => dice.pick(&[
                    "http://www.w3.org/2000/xmlns/",
                    "http://www.w3.org/XML/1998/namespace",
                ]),
                _ => dice.pick(&plain),
            });
        }
        out.push_str(quote);
    }
    out.push_str(dice.pick(&["", "", " ", "\n"]));
    let pieces = if level > 7 { 0 } else { dice.roll(5) };
    if pieces == 0 && dice.roll(2) == 0 {
        out.push_str(if odd(dice) { "/ >" } else { "/>" });
        return;
    }
    out.push('>');
    for _ in 0..pieces {
        if dice.roll(2) == 1 {
            element(dice, out, level + 1);
            continue;
        }
        let plain =
            ["hi", "&lt;", "&#xD;", "\n", " ]] ", "> ", "'", "\"", "\u{feff}", "]", "\u{e9}"];
        let wrong = ["\r", "&#65;", "]]>", "<![CDATA[a]]>", "&", "\u{fffe}", "<!---->", "\u{b}"];
        out.push_str(if odd(dice) { dice.pick(&wrong) } else { dice.pick(&plain) });
    }
    if odd(dice) {
        write!(out, "</{name}{}>", dice.pick(&[" ", "s", "\r", "/"])).unwrap();
    } else {
        write!(out, "</{name}>").unwrap();
    }
}

fn written() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<u8>(), 0..400).prop_map(|bytes| {
        let mut out = String::new();
        element(&mut Dice(bytes.iter()), &mut out, 0);
        out
    })
}

/// A change that keeps most of the structure.
#[derive(Clone, Debug)]
enum Mutation {
    Set(prop::sample::Index, u8),
    Remove(prop::sample::Index),
    Insert(prop::sample::Index, &'static [u8]),
    /// Repeats a piece somewhere else.
    Copy(prop::sample::Index, usize, prop::sample::Index),
    Truncate(prop::sample::Index),
}

const TOKENS: [&[u8]; 20] = [
    b"<",
    b">",
    b"/>",
    b"</",
    b"'",
    b"\"",
    b"&",
    b";",
    b"=",
    b" ",
    b" xmlns='",
    b"xml:",
    b":",
    b"]]>",
    b"<a>",
    b"</a>",
    b" a='1'",
    b"\xc3",
    b"\xef\xbf\xbf",
    b"&amp;",
];

fn mutation() -> impl Strategy<Value = Mutation> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        (index(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        index().prop_map(Mutation::Remove),
        (index(), prop::sample::select(&TOKENS[..]))
            .prop_map(|(at, token)| Mutation::Insert(at, token)),
        (index(), 1_usize..30, index())
            .prop_map(|(from, length, to)| Mutation::Copy(from, length, to)),
        index().prop_map(Mutation::Truncate),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    let length = bytes.len().max(1);
    match mutation {
        Mutation::Set(at, byte) => {
            if let Some(place) = bytes.get_mut(at.index(length)) {
                *place = *byte;
            }
        }
        Mutation::Remove(at) if !bytes.is_empty() => drop(bytes.remove(at.index(length))),
        Mutation::Remove(_) => {}
        Mutation::Insert(at, token) => {
            let at = at.index(length).min(bytes.len());
            bytes.splice(at..at, token.iter().copied());
        }
        Mutation::Copy(from, piece, to) => {
            let from = from.index(length).min(bytes.len());
            let piece: Vec<u8> = bytes[from..].iter().copied().take(*piece).collect();
            let to = to.index(length).min(bytes.len());
            bytes.splice(to..to, piece);
        }
        Mutation::Truncate(at) => bytes.truncate(at.index(length)),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn stream_15_the_recogniser_says_yes_only_where_the_parser_keeps_the_payload(
        xml in written(),
        mutations in prop::collection::vec(mutation(), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        bounds in (1_usize..10, 1_usize..10, 1_usize..20, 100_usize..3000),
        outer in 0_usize..4,
    ) {
        let mut bytes = xml.into_bytes();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.sort_unstable();
        let (depth, attributes, elements, size) = bounds;
        let bounds = Bounds { bytes: size, depth, attributes, elements };
        let outer = match outer {
            0 => declared(&[]),
            1 => declared(&[(Some("p"), "urn:p"), (None, "jabber:client")]),
            2 => declared(&[(None, ""), (Some("p"), "jabber:client")]),
            _ => usual(),
        };
        check(&bytes, &cuts, bounds, &outer);
    }
}

/// The property above would hold of a recogniser that never says yes.
#[test]
fn stream_15_most_of_what_is_generated_is_recognised() {
    use proptest::strategy::ValueTree;
    use proptest::test_runner::TestRunner;

    let mut runner = TestRunner::deterministic();
    let known = (0..500).filter(|_| {
        let xml = written().new_tree(&mut runner).unwrap().current();
        check(xml.as_bytes(), &[], Bounds { attributes: 64, ..BOUNDS }, &usual())
    });
    let known = known.count();
    assert!(known > 150, "{known} of 500");
}
