//! Tests of the room as a whole. The oracle is `rxml`'s own parser with namespaces.

use std::fmt::Write as _;

use minidom::Element;
use proptest::prelude::*;

use super::scope::Declarations;
use super::*;
use crate::stanza::testing::{Dice, parse};
use crate::stanza::{Frame, Framing, Kind};

fn within_stream(xml: &str) -> Element {
    let stream =
        format!("<stream:stream xmlns='jabber:client' xmlns:stream='urn:s'>{xml}</stream:stream>");
    parse(&stream).children().next().expect("an element").clone()
}

/// The declarations of a header, as those that surround an element.
fn outer(declarations: &[(Option<&str>, &str)]) -> Arc<Declarations> {
    let owned =
        |(prefix, namespace): &(Option<&str>, &str)| (prefix.map(Box::from), Arc::from(*namespace));
    Arc::new(Declarations(declarations.iter().map(owned).collect()))
}

fn usual() -> Arc<Declarations> {
    outer(&[(None, "jabber:client"), (Some("stream"), "urn:s")])
}

const BOUNDS: Bounds = Bounds { bytes: 10_000, depth: 64, attributes: 64, elements: 4096 };

/// Reads one element in pieces of that size; what is left of the input goes with the result.
fn read(
    xml: &[u8],
    size: usize,
    outer: &Arc<Declarations>,
) -> Result<(Option<String>, usize), Refusal> {
    let mut reader = ElementReader::new(BOUNDS, Arc::clone(outer));
    let mut left = xml.len();
    for mut piece in xml.chunks(size) {
        let length = piece.len();
        let parsed = reader.feed(&mut piece)?;
        left -= length - piece.len();
        if let Some(parsed) = parsed {
            let text = match parsed {
                Parsed::Stanza(received) => frame(&received.stamp(received.from(), None)),
                Parsed::Other(xml) => String::from_utf8(xml).expect("text"),
            };
            return Ok((Some(text), left));
        }
        assert!(piece.is_empty(), "all is taken of what is not enough");
    }
    Ok((None, left))
}

fn frame(stanza: &Stanza) -> String {
    Frame::stanza(stanza).to_string()
}

/// What becomes of a stanza.
fn corrected(xml: &str) -> String {
    let (text, left) = read(xml.as_bytes(), xml.len(), &usual())
        .unwrap_or_else(|refusal| panic!("{refusal:?}: {xml}"));
    assert_eq!(left, 0);
    text.expect("a whole element")
}

fn refused(xml: &[u8]) -> Refusal {
    let whole = read(xml, xml.len().max(1), &usual());
    assert_eq!(whole, read(xml, 1, &usual()), "byte by byte, {:?}", String::from_utf8_lossy(xml));
    whole.expect_err(&String::from_utf8_lossy(xml))
}

#[test]
fn stream_15_canonical_payload_is_kept_byte_for_byte() {
    for payload in [
        "",
        "text",
        "<body>hi</body>",
        "<body >hi</body\n>",
        "<body></body>",
        "<body xml:lang = \"de\">a > b ' \" ]] &amp;&lt;&gt;&apos;&quot;&#xD;\n\t\u{e9}\u{feff}</body>",
        "<x xmlns=\"urn:x\" b='1' a=\"'&#x9;&#xA;&#xD;\u{e9}>\"/>",
        "<p:x xmlns:p='urn:p' p:a='1'><p:y/><z/></p:x>",
        "<x xmlns='urn:x'><body xmlns='jabber:client'/></x>",
        "<x xmlns=''/>",
    ] {
        let message = format!("<message to='a'>{payload}</message>");
        let (Ok(stanza), outer) = (canonicalise(message.as_bytes()), usual()) else {
            panic!("refused: {payload}")
        };
        assert_eq!(String::from_utf8_lossy(stanza.payload()), payload);
        let expected =
            if payload.is_empty() { "<message to='a'/>".to_owned() } else { message.clone() };
        let read = read(message.as_bytes(), 1, &outer);
        let read = read.map(|(text, _)| {
            text.map(|text| text.replace("<message to='a'></message>", "<message to='a'/>"))
        });
        assert_eq!(read, Ok(Some(expected)));
    }
}

#[test]
fn stream_15_all_else_is_written_anew() {
    for (xml, expected) in [
        // The content namespace bears no prefix.
        (
            "<x:message xmlns:x='jabber:client'><x:body>hi</x:body></x:message>",
            "<message><body>hi</body></message>",
        ),
        (
            "<message><x:body xmlns:x='jabber:client'><x:y/></x:body></message>",
            "<message><body xmlns:x='jabber:client'><y/></body></message>",
        ),
        // Nor is it declared where it is in force.
        (
            "<message><body xmlns='jabber:client'><y xmlns=\"jabber:client\"/></body></message>",
            "<message><body><y/></body></message>",
        ),
        // Its default namespace is not that of the children.
        (
            "<x:message xmlns:x='jabber:client' xmlns='urn:d'><y><z/></y><x:body/></x:message>",
            "<message><y xmlns='urn:d'><z/></y><body/></message>",
        ),
        (
            "<message><x:a xmlns:x='jabber:client' xmlns='urn:d'><b/></x:a></message>",
            "<message><a xmlns:x='jabber:client'><b xmlns='urn:d'/></a></message>",
        ),
        // Namespaces of the start tag and of the header are declared where they are used.
        (
            "<message xmlns:p='urn:p'><p:x><p:y a='1'/></p:x><z p:a='1'/></message>",
            "<message><p:x xmlns:p='urn:p'><p:y a='1'/></p:x><z xmlns:p='urn:p' p:a='1'/></message>",
        ),
        ("<message><stream:x/></message>", "<message><stream:x xmlns:stream='urn:s'/></message>"),
        (
            "<message xmlns:p='urn:p'><p:x xmlns:p='urn:q'/><p:y/></message>",
            "<message><p:x xmlns:p='urn:q'/><p:y xmlns:p='urn:p'/></message>",
        ),
        // A namespace that the start tag itself needs.
        (
            "<message xmlns:p='urn:p' p:a='1' b='2'/>",
            "<message xmlns:ns0='urn:p' ns0:a='1' b='2'/>",
        ),
        // Text.
        ("<message><a><![CDATA[<&>]]></a></message>", "<message><a>&lt;&amp;&gt;</a></message>"),
        ("<message><![CDATA[]]><a/></message>", "<message><a/></message>"),
        ("<message><a>&#65;&#x42;&#xd;&#10;</a></message>", "<message><a>AB&#xD;\n</a></message>"),
        ("<message><a>1\r\n2\r3</a></message>", "<message><a>1\n2\n3</a></message>"),
        (
            "<message><a b='1\t2\n3\r\n4&#38;'/></message>",
            "<message><a b='1 2 3 4&amp;'/></message>",
        ),
        // Declaring the prefix `xml` is allowed but not passed on.
        (
            "<message><a xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:lang='e'/></message>",
            "<message><a xml:lang='e'/></message>",
        ),
        // `minidom`'s own writer panics on these.
        ("<message xmlns:x='a'><y xmlns:x='a'/></message>", "<message><y xmlns:x='a'/></message>"),
        (
            "<message xmlns:tns0='a'><tns0:y/></message>",
            "<message><tns0:y xmlns:tns0='a'/></message>",
        ),
        // A name that is not ASCII cannot be corrected but is always written by us.
        ("<message><\u{e9} a = \"1\" /></message>", "<message><\u{e9} a='1'/></message>"),
    ] {
        assert_eq!(corrected(xml), expected);
        assert_eq!(corrected(expected), expected, "twice");
    }
}

#[test]
fn stream_15_the_start_tag_is_always_ours() {
    let xml = "<message\n\tid = \"1\"  to='a&#x26;b' xml:lang='de' type=\"chat\" from='c' other='x'></message >";
    let expected = "<message from='c' to='a&amp;b' id='1' type='chat' xml:lang='de' other='x'";
    assert!(corrected(xml).starts_with(expected), "{}", corrected(xml));
    let stanza = canonicalise(xml.as_bytes()).expect("a stanza");
    assert_eq!((stanza.from().as_deref(), stanza.to().as_deref()), (Some("c"), Some("a&b")));
}

#[test]
fn stz_1_stamping_replaces_the_sender() {
    let mut reader = ElementReader::new(BOUNDS, usual());
    let parsed = reader.feed(&mut &b"<iq from='x' to='t' id='i' type='get'><q/></iq>"[..]);
    let Ok(Some(Parsed::Stanza(received))) = parsed else { panic!("no stanza") };
    assert_eq!((received.kind(), received.from(), received.to()), (Kind::Iq, Some("x"), Some("t")));
    assert_eq!((received.id(), received.type_(), received.lang()), (Some("i"), Some("get"), None));
    assert_eq!(
        frame(&received.stamp(Some("me"), None)),
        "<iq from='me' to='t' id='i' type='get'><q/></iq>"
    );
    assert_eq!(frame(&received.stamp(None, None)), "<iq to='t' id='i' type='get'><q/></iq>");
}

#[test]
fn stream_11_the_language_is_added_but_never_changed() {
    for (xml, expected) in [
        ("<message><a/></message>", "<message xml:lang='de'><a/></message>"),
        ("<message xml:lang='en'><a/></message>", "<message xml:lang='en'><a/></message>"),
        ("<message xml:lang=''><a/></message>", "<message xml:lang=''><a/></message>"),
    ] {
        let parsed = ElementReader::new(BOUNDS, usual()).feed(&mut xml.as_bytes());
        let Ok(Some(Parsed::Stanza(received))) = parsed else { panic!("no stanza") };
        assert_eq!(frame(&received.stamp(None, Some("de"))), expected);
    }
}

#[test]
fn stream_13_a_stanza_of_another_content_namespace_is_refused() {
    for xml in ["<message xmlns='jabber:server'/>", "<iq xmlns=''/>", "<stream:presence/>"] {
        assert_eq!(refused(xml.as_bytes()), Refusal::InvalidNamespace);
    }
    let nothing = Arc::default();
    assert_eq!(read(b"<message/>", 1, &nothing), Err(Refusal::InvalidNamespace));
    let own = read(b"<message xmlns='jabber:client'><a/></message>", 1, &nothing);
    assert_eq!(own, Ok((Some("<message><a/></message>".into()), 0)));
}

#[test]
fn stream_14_elements_that_are_no_stanzas_stand_alone() {
    for (xml, expected) in [
        (
            "<auth xmlns='urn:a' mechanism=\"X\">AA==</auth>",
            "<auth xmlns='urn:a' mechanism='X'>AA==</auth>",
        ),
        (
            "<stream:error><a xmlns='urn:e'/></stream:error>",
            "<stream:error xmlns:stream='urn:s'><a xmlns='urn:e'/></stream:error>",
        ),
        ("<x/>", "<x xmlns='jabber:client'/>"),
        ("<x xmlns=''><y/></x>", "<x><y/></x>"),
    ] {
        assert_eq!(corrected(xml), expected);
        parse(expected);
    }
}

#[test]
fn stream_19_what_is_not_well_formed_is_refused() {
    for xml in [
        "<message><a></message>",
        "<message><a></b></message>",
        "<message a='1' a='2'/>",
        "<message><a xmlns='urn:1' xmlns='urn:1'/></message>",
        "<message><a xmlns:p='urn:1' xmlns:p='urn:1'/></message>",
        "<message><a xmlns:p='urn:1' xmlns:q='urn:1' p:x='' q:x=''/></message>",
        "<message><p:a/></message>",
        "<message><a p:x=''/></message>",
        "<message><xmlns:a/></message>",
        "<message><a xmlns:xml='urn:1'/></message>",
        "<message><a xmlns:p='http://www.w3.org/XML/1998/namespace'/></message>",
        "<message><a xmlns='http://www.w3.org/XML/1998/namespace'/></message>",
        "<message><a xmlns:xmlns='urn:1'/></message>",
        "<message><a xmlns:p='http://www.w3.org/2000/xmlns/'/></message>",
        "<message><a xmlns='http://www.w3.org/2000/xmlns/'/></message>",
        "<message><a xmlns:p=''/></message>",
        "<message><a:b:c/></message>",
        "<message><:a/></message>",
        "<message><1/></message>",
        "<message a=1/>",
        "<message a/>",
        "<message a='<'/>",
        "<message a='1'b='2'/>",
        "<message>]]></message>",
        "<message>&;</message>",
        "<message>& </message>",
        "<message>&#0;</message>",
        "<message>&#x1F;</message>",
        "<message>&#xD800;</message>",
        "<message>&#xFFFE;</message>",
        "<message>&#1114112;</message>",
        "<message>&#123456789;</message>",
        "<message>\u{1}</message>",
        "<message>\u{b}</message>",
        "<message\u{c}/>",
        "<message>\u{ffff}</message>",
        "<message a='\u{0}'/>",
        "<message><![CDATA[\u{7}]]></message>",
        "<message><![INCLUDE[</message>",
        "</message>",
    ] {
        assert_eq!(refused(xml.as_bytes()), Refusal::NotWellFormed, "{xml}");
    }
}

#[test]
fn stream_19_a_lone_carriage_return_in_a_value_is_refused() {
    for xml in ["<message a='1\r2'/>", "<message a='1\r'/>", "<message a=\"\r\r\n\"/>"] {
        assert_eq!(refused(xml.as_bytes()), Refusal::NotWellFormed, "{xml:?}");
    }
    assert_eq!(corrected("<message\ra='1\r\n'\r/>"), "<message a='1 '/>");
}

#[test]
fn stream_20_restricted_xml_is_refused() {
    for xml in [
        "<message><!-- --></message>",
        "<message><!----></message>",
        "<message><?pi?></message>",
        "<message><?xml version='1.0'?></message>",
        "<message><!DOCTYPE a></message>",
        "<message><!ENTITY a 'b'></message>",
        "<message>&nbsp;</message>",
        "<message>&averylongname;</message>",
        "<message a='&lol9;'/>",
    ] {
        assert_eq!(refused(xml.as_bytes()), Refusal::RestrictedXml, "{xml}");
        assert_eq!(canonicalise(xml.as_bytes()).err(), Some(CanonicaliseError::RestrictedXml));
    }
}

#[test]
fn stream_21_invalid_utf_8_is_refused() {
    for xml in [
        &b"<message>\xff</message>"[..],
        b"<message>\xc3</message>",
        b"<message>\xed\xa0\x80</message>",
        b"<message>\xc0\xaf</message>",
        b"<message a='\xff'/>",
        b"<message \xff='a'/>",
        b"<me\xffssage/>",
        b"<message>&\xff;</message>",
        b"<message><![CDATA[\xf5]]></message>",
        b"<\xff/>",
    ] {
        assert_eq!(refused(xml), Refusal::UnsupportedEncoding, "{}", String::from_utf8_lossy(xml));
    }
}

#[test]
fn limit_4_bytes_are_counted_as_they_arrive() {
    let empty = "<message></message>".len();
    let fits = format!("<message>{}</message>", "x".repeat(BOUNDS.bytes - empty));
    assert_eq!(corrected(&fits), fits);
    let too_long = format!("<message>{}</message>", "x".repeat(BOUNDS.bytes - empty + 1));
    assert_eq!(refused(too_long.as_bytes()), Refusal::Exceeded(Bound::Bytes));
    let never_ends = vec![b'x'; 3 * BOUNDS.bytes];
    assert_eq!(refused(&[b"<message>", &never_ends[..]].concat()), Refusal::Exceeded(Bound::Bytes));
}

#[test]
fn limit_4_what_is_written_anew_is_limited_too() {
    let declared = "u".repeat(1000);
    let used = "<p:x/>".repeat(100);
    let xml = format!("<message xmlns:p='{declared}'>{used}</message>");
    assert_eq!(refused(xml.as_bytes()), Refusal::Exceeded(Bound::Bytes));
}

#[test]
fn limit_5_depth_is_checked_at_every_element() {
    let nested = |levels: usize| {
        format!("<message>{}{}</message>", "<a>".repeat(levels), "</a>".repeat(levels))
    };
    assert_eq!(corrected(&nested(BOUNDS.depth - 1)), nested(BOUNDS.depth - 1));
    assert_eq!(refused(nested(BOUNDS.depth).as_bytes()), Refusal::Exceeded(Bound::Depth));
    assert_eq!(refused("<a>".repeat(1000).as_bytes()), Refusal::Exceeded(Bound::Depth));
}

#[test]
fn limit_5_attributes_and_declarations_are_counted_together() {
    let with = |attributes: usize| {
        let declarations = (0..10).map(|n| format!(" xmlns:p{n}='urn:{n}'"));
        let plain = (10..attributes).map(|n| format!(" a{n}=''"));
        format!("<message><x{}/></message>", declarations.chain(plain).collect::<String>())
    };
    assert_eq!(corrected(&with(BOUNDS.attributes)), with(BOUNDS.attributes));
    assert_eq!(
        refused(with(BOUNDS.attributes + 1).as_bytes()),
        Refusal::Exceeded(Bound::Attributes)
    );
}

#[test]
fn limit_5_tiny_children_are_counted() {
    let bounds = Bounds { elements: 10, ..BOUNDS };
    let read = |children: usize| {
        let xml = format!("<message>{}</message>", "<a/>".repeat(children));
        ElementReader::new(bounds, usual()).feed(&mut xml.as_bytes()).map(|parsed| parsed.is_some())
    };
    assert_eq!(read(9), Ok(true));
    assert_eq!(read(10), Err(Refusal::Exceeded(Bound::Elements)));
}

#[test]
fn limit_5_long_names_and_values_are_refused_and_long_text_is_not() {
    let long = "x".repeat(8193);
    assert_eq!(
        refused(format!("<message a='{long}'/>").as_bytes()),
        Refusal::Exceeded(Bound::Token)
    );
    assert_eq!(
        refused(format!("<message><{long}/></message>").as_bytes()),
        Refusal::Exceeded(Bound::Token)
    );
    assert_eq!(
        refused(format!("<message><![CDATA[<!]]><a {long}=''/></message>").as_bytes()),
        Refusal::Exceeded(Bound::Token)
    );
    // Text is split into pieces at that length, wherever a character may be.
    let text = format!("x{}", "\u{e9}".repeat(4900));
    let xml = format!("<message><![CDATA[{text}]]></message>");
    assert_eq!(
        read(xml.as_bytes(), 1, &usual()),
        Ok((Some(format!("<message>{text}</message>")), 0))
    );
}

#[test]
fn an_element_ends_where_it_ends() {
    for (xml, left) in [
        ("<r xmlns='urn:x'/><a", 2),
        ("<message></message>\n", 1),
        ("<message />\n</stream:stream>", 17),
    ] {
        for size in 1..xml.len() {
            let Ok((Some(_), rest)) = read(xml.as_bytes(), size, &usual()) else { panic!("{xml}") };
            assert_eq!(rest, left, "{xml}");
        }
    }
}

#[test]
fn canonicalise_takes_exactly_one_stanza() {
    let error = |xml: &str| canonicalise(xml.as_bytes()).err();
    assert_eq!(error(" <message/>\n"), None);
    assert_eq!(error("<message/><message/>"), Some(CanonicaliseError::NotWellFormed));
    assert_eq!(error("<message>"), Some(CanonicaliseError::NotWellFormed));
    assert_eq!(error(""), Some(CanonicaliseError::NotWellFormed));
    assert_eq!(error("message"), Some(CanonicaliseError::NotWellFormed));
    assert_eq!(error("<?xml version='1.0'?><message/>"), Some(CanonicaliseError::RestrictedXml));
    assert_eq!(
        error("<message xmlns='jabber:server'/>"),
        Some(CanonicaliseError::InvalidNamespace)
    );
    assert_eq!(error("<r xmlns='urn:xmpp:sm:3'/>"), Some(CanonicaliseError::NotAStanza));
    assert_eq!(error(&"<message>".repeat(129)), Some(CanonicaliseError::TooLarge));
    assert_eq!(
        canonicalise(b"<message>\xff</message>").err(),
        Some(CanonicaliseError::UnsupportedEncoding)
    );
}

#[test]
fn debug_shows_no_content() {
    let parsed = ElementReader::new(BOUNDS, usual())
        .feed(&mut &b"<message to='secret'>secret</message>"[..]);
    let Ok(Some(Parsed::Stanza(received))) = parsed else { panic!("no stanza") };
    assert!(!format!("{received:?}").contains("secret"));
}

/// Writes a well-formed element in which everything that is legal may be odd.
fn generate(dice: &mut Dice<'_>, out: &mut String, prefixes: &[&str], level: usize) {
    let mut prefixes = prefixes.to_vec();
    let mut tag = String::new();
    let space = |dice: &mut Dice<'_>| dice.pick(&[" ", "\n", "\t\r\n "]);
    for prefix in ["a", "stream", "q"] {
        if dice.roll(5) == 1 {
            let namespace =
                dice.pick(&["jabber:client", "urn:x", "urn:y?a&amp;b", "urn:z'", "urn:\u{e9}"]);
            write!(tag, "{}xmlns:{prefix}{}\"{namespace}\"", space(dice), dice.pick(&["=", " = "]))
                .unwrap();
            prefixes.push(prefix);
        }
    }
    let prefix =
        if level > 0 && dice.roll(3) == 1 { prefixes[dice.roll(prefixes.len())] } else { "" };
    // A stanza has to stay in the content namespace.
    let default = if level == 0 { dice.roll(7) % 2 } else { dice.roll(8) };
    let default = ["", "jabber:client", "urn:x", "urn:z", "", "", "", ""][default];
    if level > 0 && dice.roll(9) == 1 {
        write!(tag, " xmlns=''").unwrap();
    } else if !default.is_empty() {
        write!(tag, "{}xmlns='{default}'", space(dice)).unwrap();
    }
    for local in ["k", "xmlnsx", "\u{e9}", "to"] {
        if dice.roll(4) != 1 {
            continue;
        }
        let prefix = if dice.roll(3) == 1 { prefixes[dice.roll(prefixes.len())] } else { "" };
        let colon = if prefix.is_empty() { "" } else { ":" };
        let quote = dice.pick(&["'", "\""]);
        let mut value = String::new();
        for _ in 0..dice.roll(4) {
            let piece = [
                "v", "&amp;", "&#x41;", "&#xA;", "&#10;", "\t", "\n", "\r\n", ">", "'", "\"",
                "\u{e9}", "&#xD;", "&quot;",
            ];
            value.push_str(dice.pick(&piece));
        }
        let value = value.replace(quote, "");
        write!(tag, "{}{prefix}{colon}{local}={quote}{value}{quote}", space(dice)).unwrap();
    }
    if dice.roll(6) == 1 {
        tag.push_str(" xml:lang='d&#x65;'");
    }
    let name = match (level, prefix) {
        (0, _) => dice.pick(&["message", "presence", "iq"]).to_owned(),
        (_, "") => dice.pick(&["body", "x", "item-1", "\u{e9}"]).to_owned(),
        (_, prefix) => format!("{prefix}:{}", dice.pick(&["body", "x"])),
    };
    write!(out, "<{name}{tag}{}", dice.pick(&["", " ", "\n"])).unwrap();
    let pieces = if level > 4 { 0 } else { dice.roll(5) };
    if pieces == 0 && dice.roll(2) == 0 {
        out.push_str("/>");
        return;
    }
    out.push('>');
    for _ in 0..pieces {
        if dice.roll(2) == 1 {
            generate(dice, out, &prefixes, level + 1);
            continue;
        }
        out.push_str(dice.pick(&[
            "hi",
            "&lt;",
            "&#xD;",
            "\r\n",
            "\r",
            "\n",
            "<![CDATA[<&]]]]>",
            "<![CDATA[]]>",
            "<![CDATA[\r]]>",
            " ]] ",
            "> ",
            "'",
            "\"",
            " ",
            "&#x1F600;",
            "\u{feff}",
            "&#65;",
        ]));
    }
    write!(out, "</{name}{}>", dice.pick(&["", " ", "\r\n"])).unwrap();
}

fn generated() -> impl Strategy<Value = String> {
    prop::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| {
        let mut out = String::new();
        generate(&mut Dice(bytes.iter()), &mut out, &["stream", "xml"], 0);
        out
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn stream_15_nothing_of_the_meaning_is_lost(xml in generated()) {
        let written = corrected(&xml);
        let expected = within_stream(&xml);
        prop_assert_eq!(&within_stream(&written), &expected, "read again: {}", &written);
        let stanza = canonicalise(written.as_bytes()).expect("what is written is a stanza");
        prop_assert_eq!(&stanza.to_element(), &expected, "as a tree: {}", &written);
        parse(&Frame::stanza(&stanza).framing(Framing::Message).to_string());
    }

    #[test]
    fn stream_15_canonicalising_twice_changes_nothing(xml in generated()) {
        let once = corrected(&xml);
        let twice = canonicalise(once.as_bytes()).expect("what is written is a stanza");
        prop_assert_eq!(frame(&twice), once);
    }

    #[test]
    fn stream_23_pieces_do_not_matter(xml in generated(), size in 1_usize..40, cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut xml = xml.into_bytes();
        prop_assert_eq!(read(&xml, size, &usual()), read(&xml, usize::MAX, &usual()));
        // Also where something is wrong.
        let cut = cut.index(xml.len());
        xml[cut] = byte;
        prop_assert_eq!(read(&xml, size, &usual()), read(&xml, usize::MAX, &usual()));
    }

    #[test]
    fn stream_19_what_is_accepted_the_namespaced_parser_accepts(xml in generated(), cut in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut xml = xml.into_bytes();
        let cut = cut.index(xml.len());
        xml[cut] = byte;
        if let Ok((Some(written), 0)) = read(&xml, usize::MAX, &usual()) {
            let original = String::from_utf8(xml).expect("accepted as UTF-8");
            prop_assert_eq!(within_stream(&written), within_stream(&original));
        }
    }
}
