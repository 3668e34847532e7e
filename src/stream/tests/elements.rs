use proptest::prelude::*;

use super::*;

const AUTH: &str =
    "<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>AGEAYg==</auth>";

#[test]
fn stream_16_what_is_no_stanza_is_left_to_the_caller() {
    assert_eq!(within(AUTH), AUTH);
    assert_eq!(
        within("<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"),
        "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>"
    );
    assert_eq!(
        within("<r xmlns='urn:xmpp:sm:3'/><a xmlns='urn:xmpp:sm:3' h='1'/>"),
        "<r xmlns='urn:xmpp:sm:3'/>\n<a xmlns='urn:xmpp:sm:3' h='1'/>"
    );
    assert_eq!(within("<pubsub/>"), "<pubsub xmlns='jabber:client'/>");
}

#[test]
fn a_nonza_can_be_looked_into() {
    let mut parser = Parser::new(&Limits::default());
    parser.feed(OPEN.as_bytes());
    parser.feed(b"<e:enable xmlns:e='urn:e' max=\"1&lt;2\" xml:lang='de'>a<e:x y='1'/><![CDATA[&b]]></e:enable>");
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    let Ok(Some(Event::Nonza(nonza))) = parser.next() else { panic!("no nonza") };
    assert!(nonza.is("enable", "urn:e") && !nonza.is("enable", "urn:x") && !nonza.is("e", "urn:e"));
    assert_eq!((nonza.name(), &*nonza.namespace()), ("enable", "urn:e"));
    assert_eq!(nonza.attribute("max").as_deref(), Some("1<2"));
    assert_eq!(nonza.attribute("xml:lang").as_deref(), Some("de"));
    assert_eq!(nonza.attribute("min"), None);
    assert_eq!(nonza.text(), "a&b");
    assert_eq!(nonza.children().map(|child| child.name().to_owned()).collect::<Vec<_>>(), ["x"]);
    let element = nonza.to_element();
    assert!(element.is("enable", "urn:e") && element.get_child("x", "urn:e").is_some());
    assert!(!format!("{nonza:?}").contains("1<2"));
}

#[test]
fn stream_17_text_between_elements_is_refused_and_white_space_is_not() {
    assert_eq!(within(format!(" \t\r\n{AUTH}\n\n")), AUTH);
    assert_eq!(within("x"), "error bad-format");
    assert_eq!(within(format!("{AUTH}\u{e9}")), format!("{AUTH}\nerror bad-format"));
    assert_eq!(within("&amp;"), "error bad-format");
    assert_eq!(within("<![CDATA[ ]]>"), "error bad-format");
    assert_eq!(within("\u{feff}"), "error bad-format");
    assert_eq!(within("\u{c}"), "error not-well-formed");
    assert_eq!(within("\0"), "error not-well-formed");
    assert_eq!(within(b"\xff"), "error unsupported-encoding");
}

#[test]
fn stream_20_nothing_restricted_comes_between_elements() {
    for xml in [
        "<!-- -->",
        "<!DOCTYPE x>",
        "<?pi?>",
        "<?xml version='1.0'?>",
        "<a xmlns='urn:a'><!-- --></a>",
        "<message>&nbsp;</message>",
    ] {
        assert_eq!(within(xml), "error restricted-xml", "{xml}");
    }
}

#[test]
fn stream_19_elements_have_to_be_well_formed() {
    for xml in [
        "<message></presence>",
        "<x:message/>",
        "<>",
        "< message/>",
        "</stream>",
        "</stream:streamx>",
        "</stream:stream x",
        "</ ",
    ] {
        assert_eq!(within(xml), "error not-well-formed", "{xml}");
    }
}

#[test]
fn stream_23_nothing_happens_before_the_end_tag_and_what_follows_waits() {
    let mut parser = Parser::new(&Limits::default());
    parser.feed(OPEN.as_bytes());
    parser.feed(b"<message><body>hi</body></message");
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    assert!(matches!(parser.next(), Ok(None)));
    parser.feed(b"><x");
    parser.feed(b":broken/>");
    assert!(matches!(parser.next(), Ok(Some(Event::Stanza(_)))));
    assert_eq!(parser.take_unread(), b"<x:broken/>");
    parser.feed(b"<r xmlns='urn:xmpp:sm:3'/>");
    assert!(matches!(parser.next(), Ok(Some(Event::Nonza(_)))));
}

#[test]
fn stream_27_nothing_follows_the_close_tag() {
    assert_eq!(within(format!("{AUTH}</stream:stream \n>{AUTH}\0")), format!("{AUTH}\nend"));
    let mut parser = Parser::new(&Limits::default());
    parser.feed(format!("{OPEN}</stream:stream><x").as_bytes());
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    assert!(matches!(parser.next(), Ok(Some(Event::End))));
    parser.feed(b"more");
    parser.restart(true);
    assert!(matches!(parser.next(), Ok(None)));
    assert_eq!(parser.take_unread(), b"");
}

#[test]
fn stream_28_a_restart_drops_or_keeps_what_was_not_read() {
    let started = || {
        let mut parser = Parser::new(&Limits::default());
        parser.feed(format!("{OPEN}{AUTH}\n<?xml version='1.0'?>{OPEN}<message/>").as_bytes());
        assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
        assert!(matches!(parser.next(), Ok(Some(Event::Nonza(_)))));
        parser
    };
    let mut lines = Vec::new();
    let mut parser = started();
    parser.restart(true);
    drain(&mut parser, &mut lines);
    assert_eq!(lines, ["header to=example.org version=1.0", "<message/>"]);

    let mut parser = started();
    parser.restart(false);
    assert!(matches!(parser.next(), Ok(None)));
    parser.feed(OPEN.as_bytes());
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    assert!(matches!(parser.next(), Ok(None)));
}

#[test]
fn sec_2_an_idle_parser_owns_no_buffer() {
    let mut parser = Parser::new(&Limits::default());
    parser.feed(format!("{OPEN}<message><body>{}</body></message>\n", "x".repeat(5000)).as_bytes());
    while let Ok(Some(_)) = parser.next() {}
    assert_eq!(parser.unread.capacity(), 0);
    assert!(format!("{parser:?}").contains("between"), "no element is being read");
    assert!(size_of::<Parser>() <= 128, "{}", size_of::<Parser>());

    parser.feed(b"<message>");
    assert!(matches!(parser.next(), Ok(None)));
    assert_eq!(parser.unread.capacity(), 0, "the element has its own");
}

const PIECES: [&str; 16] = [
    "<message to='a'><body>hi &amp; ho</body></message>",
    "<x:message xmlns:x='jabber:client'><x:body><![CDATA[<]]></x:body></x:message>",
    "<presence/>",
    "<iq type=\"get\" id='1'><ping xmlns='urn:xmpp:ping'/></iq>",
    AUTH,
    "<r xmlns='urn:xmpp:sm:3'/>",
    " \n",
    "</stream:stream>",
    "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>",
    "<message>\u{e9}\u{1F600}</message>",
    "<!-- -->",
    "text",
    "<message><a></message>",
    "<",
    "&lt;",
    "\u{1}",
];

proptest! {
    #[test]
    fn stream_23_pieces_do_not_matter(
        choices in prop::collection::vec(0_usize..PIECES.len(), 0..8),
        cuts in prop::collection::vec(1_usize..60, 1..20),
        damage in prop::option::of((any::<prop::sample::Index>(), any::<u8>())),
    ) {
        let mut input = OPEN.as_bytes().to_vec();
        choices.iter().for_each(|&choice| input.extend_from_slice(PIECES[choice].as_bytes()));
        if let Some((at, byte)) = damage {
            let at = at.index(input.len());
            input[at] = byte;
        }
        let whole = in_pieces(Parser::new(&Limits::default()), &input, input.len());
        prop_assert_eq!(&in_pieces(Parser::new(&Limits::default()), &input, 1), &whole);

        let mut parser = Parser::new(&Limits::default());
        let (mut lines, mut rest) = (Vec::new(), &input[..]);
        for cut in cuts.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            parser.feed(piece);
            // Sometimes more arrives before the last bytes are read.
            if cut % 3 > 0 {
                drain(&mut parser, &mut lines);
            }
            rest = after;
        }
        drain(&mut parser, &mut lines);
        prop_assert_eq!(&lines, &whole);
    }

    #[test]
    fn sec_7_any_bytes_are_survived(input in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut all = OPEN.as_bytes().to_vec();
        all.extend_from_slice(&input);
        let _lines = (read(&input), read(&all));
    }
}
