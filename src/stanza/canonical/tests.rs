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
                Parsed::Refused(received, flaw) => {
                    assert_eq!(received.payload(), b"");
                    format!("{flaw:?}: {}", frame(&received.stamp(None, None)))
                }
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

/// What is left of a stanza that is refused while the stream goes on: why, and what it is answered by.
fn flawed(xml: &str, flaw: Flaw) -> String {
    let followed = format!("{xml}</stream:stream>");
    let whole = read(followed.as_bytes(), followed.len(), &usual());
    assert_eq!(whole, read(followed.as_bytes(), 1, &usual()), "byte by byte, {xml}");
    let Ok((Some(text), left)) = whole else { panic!("{whole:?}: {xml}") };
    assert_eq!(left, "</stream:stream>".len(), "{xml}");
    let (found, stanza) = text.split_once(": ").expect("a flaw");
    assert_eq!(found, format!("{flaw:?}"), "{xml}");
    stanza.to_owned()
}

fn exceeded(xml: &str, bound: Excess) {
    let stanza = flawed(xml, Flaw::Exceeded(bound));
    assert!(stanza.starts_with("<message"), "{stanza}");
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
fn stream_15_a_carriage_return_alone_ends_a_line() {
    let cases = [
        ("<message a='1\r2'/>", "<message a='1 2'/>"),
        ("<message a='1\r'/>", "<message a='1 '/>"),
        ("<message a=\"\r\r\n\"/>", "<message a='  '/>"),
        ("<message a='\r\n\n\r'/>", "<message a='   '/>"),
        ("<message\ra='1\r\n'\r/>", "<message a='1 '/>"),
        ("<message>\r<a\r\n>\r\r\n\n</a\r></message>", "<message>\n<a>\n\n\n</a></message>"),
        ("<message><![CDATA[\r]]>&#13;\r</message>", "<message>\n&#xD;\n</message>"),
    ];
    for (xml, expected) in cases {
        assert_eq!(corrected(xml), expected, "{xml:?}");
        let (text, _) = read(xml.as_bytes(), 1, &usual()).expect("byte by byte");
        assert_eq!(text.as_deref(), Some(expected), "{xml:?}");
    }
}

#[test]
fn stream_19_what_blurs_the_end_of_a_refused_stanza_is_noticed() {
    for inside in
        ["<b/ >", "<b / c=''>", "<>", "< b>", "<<b>", "<='1'>", "<b a='<'>", "<b\u{1}>", "<b></b<"]
    {
        let xml = format!("<message><\u{e9}>{inside}");
        assert_eq!(refused(xml.as_bytes()), Refusal::NotWellFormed, "{xml}");
    }
    for inside in
        ["<b a='/'/>", "<b a=\"/ >\"></b>", "<b\n/>", "</b ><b>", "<![CDATA[<b/ ></message>]]>"]
    {
        let xml = format!("<message><\u{e9}>{inside}</\u{e9}></message>");
        let read = read(xml.as_bytes(), 1, &usual());
        assert_eq!(read, Ok((Some("Names: <message/>".to_owned()), 0)), "{xml}");
    }
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
    let message = |bytes: usize| {
        let empty = "<message></message>".len();
        format!("<message>{}</message>", "x".repeat(bytes - empty))
    };
    let fits = message(BOUNDS.bytes);
    assert_eq!(corrected(&fits), fits);
    // What is longer is skipped, and what is much longer ends the stream.
    exceeded(&message(BOUNDS.bytes + 1), Excess::Bytes);
    exceeded(&message(4 * BOUNDS.bytes), Excess::Bytes);
    let too_long = Refusal::Exceeded(Excess::Bytes);
    assert_eq!(refused(message(4 * BOUNDS.bytes + 1).as_bytes()), too_long);
    let never_ends = vec![b'x'; 5 * BOUNDS.bytes];
    assert_eq!(refused(&[b"<message>", &never_ends[..]].concat()), too_long);
    // Without a start tag there is nobody to answer.
    assert_eq!(refused(&[b"<message id='", &never_ends[..]].concat()), too_long);
    assert_eq!(refused(&[b"<r xmlns='urn:x'>", &never_ends[..]].concat()), too_long);
}

#[test]
fn limit_40_what_is_written_anew_is_a_few_times_what_came() {
    // Declared outside, and used often.
    let declared = "u".repeat(1000);
    for used in ["<p:x/>", "<x p:a=''/>", "<x><p:x/></x>"] {
        let xml = format!("<message xmlns:p='{declared}'>{}</message>", used.repeat(20));
        exceeded(&xml, Excess::Growth);
        let xml = format!("<message xmlns:p='{declared}'>{}</message>", used.repeat(2));
        assert!(corrected(&xml).len() < BOUNDS.growth(xml.len()));
    }
    let outer = outer(&[(None, "jabber:client"), (Some("p"), &declared)]);
    let read = |xml: &str| read(xml.as_bytes(), xml.len(), &outer).expect("well-formed").0;
    let refused = "Exceeded(Growth): <message/>".to_owned();
    assert_eq!(read(&format!("<message>{}</message>", "<p:x/>".repeat(50))), Some(refused.clone()));
    assert_eq!(read("<message><p:x/><![CDATA[]]></message>"), Some(refused));
    // Head and payload together.
    let half = |children| {
        let (id, used) = ("'".repeat(200), "<p:x/>".repeat(children));
        format!("<message id=\"{id}\" xmlns:p='{declared}'>{used}</message>")
    };
    assert!(corrected(&half(4)).len() < BOUNDS.growth(half(4).len()));
    exceeded(&half(5), Excess::Growth);
    // Attributes of the stanza itself.
    let quotes = "'".repeat(1000);
    exceeded(&format!("<message id=\"{quotes}\"/>"), Excess::Growth);
    exceeded(&format!("<message x=\"{quotes}\"/>"), Excess::Growth);
    // All else that is escaped.
    exceeded(
        &format!("<message><x><![CDATA[{}]]></x></message>", "&".repeat(2000)),
        Excess::Growth,
    );
    exceeded(&format!("<message><![CDATA[]]><x y=\"{quotes}\"/></message>"), Excess::Growth);
    // Nor is it more than twice what any stanza may have.
    let long = |count| format!("<message><a><![CDATA[{}]]></a></message>", "<".repeat(count));
    assert!(corrected(&long(BOUNDS.bytes / 2 - 100)).len() <= 2 * BOUNDS.bytes);
    exceeded(&long(BOUNDS.bytes / 2 + 100), Excess::Growth);
    // What is kept as it came does not grow, whatever it would be if it were written.
    let kept = format!("<message><x y=\"{quotes}\"/></message>");
    assert_eq!(corrected(&kept), kept);
    // What people write is less than that.
    let json = "{\"a\": ['b', \"c\"]}\n".repeat(100);
    let written = corrected(&format!("<message><json><![CDATA[{json}]]></json></message>"));
    assert_eq!(written, format!("<message><json>{json}</json></message>"));
}

#[test]
fn limit_5_depth_is_checked_at_every_element() {
    let nested = |levels: usize| {
        format!("<message>{}{}</message>", "<a>".repeat(levels), "</a>".repeat(levels))
    };
    assert_eq!(corrected(&nested(BOUNDS.depth - 1)), nested(BOUNDS.depth - 1));
    for levels in [BOUNDS.depth, 1000, 5000] {
        exceeded(&nested(levels), Excess::Depth);
    }
    assert_eq!(refused("<a>".repeat(1000).as_bytes()), Refusal::Exceeded(Excess::Depth));
}

#[test]
fn limit_5_attributes_and_declarations_are_counted_together() {
    let with = |attributes: usize| {
        let declarations = (0..10).map(|n| format!(" xmlns:p{n}='urn:{n}'"));
        let plain = (10..attributes).map(|n| format!(" a{n}=''"));
        format!("<message><x{}/></message>", declarations.chain(plain).collect::<String>())
    };
    assert_eq!(corrected(&with(BOUNDS.attributes)), with(BOUNDS.attributes));
    exceeded(&with(BOUNDS.attributes + 1), Excess::Attributes);
    exceeded(&with(1000), Excess::Attributes);
    // Of the stanza itself, what an answer needs is found wherever it stands.
    let many: String = (0..BOUNDS.attributes).map(|n| format!(" a{n}=''")).collect();
    let refused = flawed(
        &format!("<iq{many} type='get' xmlns:q='urn:q' to='t' q:id='x' id='1'><q:q/></iq>"),
        Flaw::Exceeded(Excess::Attributes),
    );
    assert!(refused.starts_with("<iq to='t' id='1' type='get'"), "{refused}");
    // A prefix may be declared where nobody looks any more.
    let declared = format!("<message><p:x{many} xmlns:p='urn:p' p:a=''/></message>");
    exceeded(&declared, Excess::Attributes);
}

#[test]
fn limit_5_tiny_children_are_counted() {
    let bounds = Bounds { elements: 10, ..BOUNDS };
    let read = |children: usize| {
        let xml = format!("<message>{}</message>", "<a/>".repeat(children));
        match ElementReader::new(bounds, usual()).feed(&mut xml.as_bytes()) {
            Ok(Some(Parsed::Stanza(_))) => None,
            Ok(Some(Parsed::Refused(_, flaw))) => Some(flaw),
            _ => panic!("neither read nor refused"),
        }
    };
    assert_eq!(read(9), None);
    assert_eq!(read(10), Some(Flaw::Exceeded(Excess::Elements)));
    assert_eq!(read(1000), Some(Flaw::Exceeded(Excess::Elements)));
}

#[test]
fn limit_5_names_have_a_limit_and_values_have_that_of_the_stanza() {
    for long in [1025, 3000, 8192, 8193, 9000] {
        let name = "x".repeat(long);
        exceeded(&format!("<message><{name}/></message>"), Excess::Name);
        exceeded(&format!("<message><a {name}=''/></message>"), Excess::Name);
        exceeded(&format!("<message><![CDATA[<!]]><a {name}=''/></message>"), Excess::Name);
        exceeded(&format!("<message><a xmlns:{name}='urn:x'/></message>"), Excess::Name);
        exceeded(&format!("<message {name}='1'><a/></message>"), Excess::Name);
        assert_eq!(refused(format!("<{name}/>").as_bytes()), Refusal::Exceeded(Excess::Name));
        // In values that is no name.
        for xml in [
            format!("<message id='{name}'/>"),
            format!("<message to='a'><x y='{name}'/>b<z/></message>"),
            format!("<message><img src=\"{name}&#xA;'\"/></message>"),
        ] {
            assert_eq!(corrected(&xml), xml);
        }
    }
    // Text is split into pieces at that length, wherever a character may be.
    let text = format!("x{}", "\u{e9}".repeat(4900));
    let xml = format!("<message><![CDATA[{text}]]></message>");
    assert_eq!(
        read(xml.as_bytes(), 1, &usual()),
        Ok((Some(format!("<message>{text}</message>")), 0))
    );
}

#[test]
fn stream_15_names_that_are_not_ascii_are_not_passed_on() {
    for xml in [
        "<message><\u{e9}/></message>",
        "<message><\u{2c00} xmlns='urn:x'/></message>",
        "<message><a><b \u{e9}='1'/></a></message>",
        "<message><a xmlns:\u{e9}='urn:x'/></message>",
        "<message><\u{e9}:a xmlns:\u{e9}='urn:x'/></message>",
        "<message xmlns:\u{e9}='urn:x'><\u{e9}:a/></message>",
        "<message \u{e9}='1'/>",
        "<message xmlns:p='urn:x' p:\u{e9}='1'/>",
        "<message xmlns:\u{e9}='urn:x' \u{e9}:a='1'><a/></message>",
        // Nor a namespace that no URI is.
        "<message><a xmlns='urn:a b'/></message>",
        "<message><a xmlns='urn:}'/></message>",
        "<message><a xmlns=\"urn:&#xA;\"/></message>",
        "<message><a xmlns='urn:&#x20;'/></message>",
        "<message><a xmlns='urn:>'/></message>",
        "<message><a xmlns='urn:&lt;'/></message>",
        "<message><a xmlns:p='urn:|'/></message>",
        "<message><a><b xmlns='urn:\u{e9}'/></a></message>",
        "<message xmlns:p='urn:^' p:a=''/>",
        "<message xmlns:p='urn:^'><p:a/></message>",
        "<message xmlns:p='urn:^'><a p:a=''/></message>",
    ] {
        flawed(xml, Flaw::Names);
        assert_eq!(canonicalise(xml.as_bytes()).err(), Some(CanonicaliseError::Names), "{xml}");
    }
    // What is not written does no harm.
    for (xml, expected) in [
        ("<message xmlns:\u{e9}='urn: '>\u{e9}</message>", "<message>\u{e9}</message>"),
        ("<message><a b='\u{e9} '/></message>", "<message><a b='\u{e9} '/></message>"),
        (
            "<message><a xmlns='urn:&apos;'/></message>",
            "<message><a xmlns='urn:&apos;'/></message>",
        ),
    ] {
        assert_eq!(corrected(xml), expected);
    }
}

#[test]
fn stream_19_what_is_left_of_a_refused_stanza_is_read_to_its_end() {
    let deep = "<a>".repeat(BOUNDS.depth);
    let end = format!("{}</message>", "</a>".repeat(BOUNDS.depth));
    for inside in [
        "",
        "text > ]] ' \"",
        "<b c='>' d=\"/>'\" />",
        "<b c='/'></b ><d />",
        "<b/><c\n/>",
        "<![CDATA[</a></message> ]] ]]]>",
        "<![CDATA[]]>",
        "<message></message>",
        "\u{e9}\u{feff}",
    ] {
        exceeded(&format!("<message to='t'>{deep}{inside}{end}"), Excess::Depth);
    }
    for (inside, refusal) in [
        ("<!-- -->", Refusal::RestrictedXml),
        ("<?pi?>", Refusal::RestrictedXml),
        ("<!DOCTYPE a>", Refusal::RestrictedXml),
        ("<![CDATA x]]>", Refusal::RestrictedXml),
        ("\u{0}", Refusal::NotWellFormed),
        ("<a b='<'/>", Refusal::NotWellFormed),
        ("<a <b>", Refusal::NotWellFormed),
    ] {
        let xml = format!("<message to='t'>{deep}{inside}{end}");
        assert_eq!(refused(xml.as_bytes()), refusal, "{inside}");
    }
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
    let deep = ["<message>", "</message>"].map(|tag| tag.repeat(129)).concat();
    assert_eq!(error(&deep), Some(CanonicaliseError::TooLarge));
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
                dice.pick(&["jabber:client", "urn:x", "urn:y?a&amp;b", "urn:z'", "urn:&#x7e;"]);
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
    for local in ["k", "xmlnsx", "l-1", "to"] {
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
        (_, "") => dice.pick(&["body", "x", "item-1", "_y.2"]).to_owned(),
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
    fn limit_40_growth_is_bounded_in_any_stream(xml in generated(), length in 0_usize..2000) {
        // As [`usual`], and one of the prefixes stands for something long.
        let outer = outer(&[(None, "jabber:client"), (Some("stream"), &"u".repeat(length))]);
        let (written, left) = read(xml.as_bytes(), xml.len(), &outer).expect("well-formed");
        let written = written.expect("a whole element");
        prop_assert_eq!(left, 0);
        if written.starts_with('<') {
            let names = "<presence from='' to='' id='' type='' xml:lang=''></presence>".len();
            let bytes = written.len().saturating_sub(names);
            prop_assert!(bytes <= BOUNDS.growth(xml.len()), "{} of {}: {}", bytes, xml.len(), &written);
        } else {
            prop_assert!(written.starts_with("Exceeded(Growth)"), "{}", &written);
        }
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
        if let Ok((Some(written), 0)) = read(&xml, usize::MAX, &usual()) && written.starts_with('<') {
            let original = String::from_utf8(xml).expect("accepted as UTF-8");
            prop_assert_eq!(within_stream(&written), within_stream(&original));
        }
    }
}
