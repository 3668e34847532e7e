use super::*;

const STREAMS: &str = "http://etherx.jabber.org/streams";

#[test]
fn stream_2_a_header_without_version_cannot_be_negotiated() {
    let negotiate = |attribute: &str| {
        let mut parser = Parser::new(&Limits::default());
        parser.feed(OPEN.replace(" version='1.0'", attribute).as_bytes());
        let Ok(Some(Event::Header(header))) = parser.next() else { panic!("no header") };
        header.negotiate().map_err(|error| error.condition())
    };
    for unsupported in [
        "",
        " version=''",
        " version='1'",
        " version='0.9'",
        " version='one.two'",
        " version='-1.0'",
        " version='+1.0'",
    ] {
        assert_eq!(
            negotiate(unsupported),
            Err(StreamCondition::UnsupportedVersion),
            "{unsupported}"
        );
    }
    for supported in ["1.0", "1.1", "1.10", "01.00", "2.0", "10.0", "99999999999.0"] {
        assert_eq!(negotiate(&format!(" version='{supported}'")), Ok(Version::ONE), "{supported}");
    }
}

#[test]
fn stream_3_versions_are_compared_as_numbers() {
    let version = |major, minor| Version { major, minor };
    assert!(version(1, 2) < version(1, 10));
    assert!(version(2, 0) < version(10, 0));
    assert_eq!(version(1, 10).to_string(), "1.10");
}

#[test]
fn stream_4_to_may_be_absent() {
    assert_eq!(outcome(OPEN.replace(" to='example.org'", "")), "header version=1.0");
}

#[test]
fn stream_10_an_id_of_the_client_is_ignored() {
    assert_eq!(outcome(OPEN.replace(" to=", " id='x' to=")), outcome(OPEN));
}

#[test]
fn stream_11_the_language_of_the_header_is_known() {
    let open = OPEN.replace(" to=", " xml:lang='de' from='a&amp;b@c' to=");
    assert_eq!(outcome(&open), "header to=example.org from=a&b@c lang=de version=1.0");
}

#[test]
fn limit_6_a_long_language_is_ignored() {
    let with = |length: usize| {
        outcome(OPEN.replace(" to=", &format!(" xml:lang='{}' to=", "x".repeat(length))))
    };
    assert_eq!(with(35), format!("header to=example.org lang={} version=1.0", "x".repeat(35)));
    assert_eq!(with(36), "header to=example.org version=1.0");
    assert_eq!(with(0), "header to=example.org version=1.0");
}

#[test]
fn stream_12_the_root_is_a_stream() {
    assert_eq!(outcome("<stream>"), "error invalid-namespace");
    assert_eq!(outcome("<stream xmlns='jabber:client'>"), "error invalid-namespace");
    assert_eq!(
        outcome(OPEN.replace(STREAMS, "http://wrong.namespace.example.org/")),
        "error invalid-namespace"
    );
    assert_eq!(outcome(OPEN.replace("<stream:stream", "<stream:flow")), "error bad-format");
    assert_eq!(outcome("<flow xmlns='urn:x'>"), "error invalid-namespace");
}

#[test]
fn stream_13_another_content_namespace_is_refused() {
    for other in ["jabber:server", "jabber:component:accept", "urn:x"] {
        assert_eq!(outcome(OPEN.replace("jabber:client", other)), "error invalid-namespace");
    }
    assert_eq!(within("<message xmlns='jabber:server'/>"), "error invalid-namespace");
    assert_eq!(within("<iq xmlns='urn:x'/>"), "error invalid-namespace");
}

#[test]
fn stream_14_namespaces_may_be_declared_in_any_style() {
    for open in [
        format!("<stream xmlns='{STREAMS}' to='a' version='1.0'>"),
        format!("<x:stream xmlns:x='{STREAMS}' to='a' version='1.0'>"),
        format!("<x:stream xmlns:x='{STREAMS}' xmlns='' to='a' version='1.0'>"),
    ] {
        let close = if open.starts_with("<x") { "</x:stream>" } else { "</stream>" };
        let input =
            format!("{open}<message xmlns='jabber:client'><body>hi</body></message>{close}");
        assert_eq!(
            read(input),
            ["header to=a version=1.0", "<message><body>hi</body></message>", "end"]
        );
    }
    let prefixed = format!(
        "<s:stream xmlns:s='{STREAMS}' xmlns:c='jabber:client' version='1.0'><c:presence><c:show>away</c:show></c:presence>"
    );
    assert_eq!(read(prefixed), ["header version=1.0", "<presence><show>away</show></presence>"]);
    assert_eq!(
        read(format!("<stream xmlns='{STREAMS}' version='1.0'><message/>")),
        ["header version=1.0", "error invalid-namespace"]
    );
}

#[test]
fn stream_15_extension_namespaces_of_the_header_hold_for_its_stream_only() {
    let open = OPEN.replace(" to=", " xmlns:e='urn:e' to=");
    let input = format!("{open}<message><e:x/></message>");
    assert_eq!(read(&input)[1], "<message><e:x xmlns:e='urn:e'/></message>");

    let mut parser = Parser::new(&Limits::default());
    parser.feed(open.as_bytes());
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    parser.restart(true);
    assert_eq!(
        in_pieces(parser, format!("{OPEN}<message><e:x/></message>").as_bytes(), 5)[1],
        "error not-well-formed"
    );
}

#[test]
fn stream_19_a_header_has_to_be_well_formed() {
    for input in [
        "GET / HTTP/1.1\r\n",
        "<>",
        "</stream:stream>",
        "<stream:stream>",
        "<stream:stream to='a' to='b'>",
        "<stream:stream xmlns='a' xmlns='b'>",
        "<stream:stream a:b='c'>",
        "<stream:stream xmlns:x='http://www.w3.org/2000/xmlns/'>",
        "\u{16}\u{3}\u{1}",
        "\u{c}<",
    ] {
        assert_eq!(outcome(input), "error not-well-formed", "{input:?}");
    }
}

#[test]
fn stream_20_nothing_but_a_declaration_comes_before_the_header() {
    for prolog in [
        "<!-- -->",
        "<!DOCTYPE x>",
        "<?pi?>",
        "<?xml-stylesheet a='b'?>",
        "<?xml?>",
        "<?",
        "<?xmlx",
        "<?XML version='1.0'?>",
    ] {
        let expected = if prolog == "<?" { "" } else { "error restricted-xml" };
        assert_eq!(outcome(prolog), expected, "{prolog}");
    }
    let twice = "<?xml version='1.0'?><?xml version='1.0'?>";
    assert_eq!(outcome(twice), "error restricted-xml");
    assert_eq!(outcome(OPEN.replace("example.org", "&lol;")), "error restricted-xml");
}

#[test]
fn stream_21_the_encoding_is_utf_8() {
    let declared = |declaration: &str| outcome(format!("{declaration}{OPEN}"));
    for declaration in [
        "<?xml version='1.0' encoding='ISO-8859-1'?>",
        "<?xml version=\"1.0\"\tencoding = \"UTF-16\" ?>",
        "<?xml version='1.0' encoding=''?>",
    ] {
        assert_eq!(declared(declaration), "error unsupported-encoding", "{declaration}");
    }
    for declaration in
        ["<?xml version='1.0' encoding='UTF-8'?>", "<?xml version='1.0' encoding=\"utf-8\" ?>\r\n"]
    {
        assert_eq!(declared(declaration), "header to=example.org version=1.0", "{declaration}");
    }
    assert_eq!(outcome(b"\xff\xfe<\0"), "error unsupported-encoding");
    assert_eq!(outcome(b"\x80"), "error unsupported-encoding");
    assert_eq!(outcome(b"<stream:stream to='\xff'>"), "error unsupported-encoding");
}

#[test]
fn stream_22_standalone_is_ignored_and_a_byte_order_mark_is_not() {
    for value in ["yes", "no"] {
        for encoding in ["", " encoding='utf-8'"] {
            let input = format!("<?xml version='1.0'{encoding} standalone='{value}'?>{OPEN}");
            assert_eq!(outcome(input), "header to=example.org version=1.0");
        }
    }
    assert_eq!(outcome(format!("\u{feff}{OPEN}")), "error not-well-formed");
    assert_eq!(outcome(format!("\u{feff}<?xml version='1.0'?>{OPEN}")), "error not-well-formed");
}

#[test]
fn stream_19_a_declaration_has_to_be_well_formed() {
    for declaration in [
        "<?xml encoding='utf-8'?>",
        "<?xml version='1.1'?>",
        "<?xml version=1.0?>",
        "<?xml version='1.0'encoding='utf-8'?>",
        "<?xml version='1.0' standalone='yes' encoding='utf-8'?>",
        "<?xml version='1.0' version='1.0'?>",
        "<?xml version='1.0' standalone='maybe'?>",
        "<?xml version='1.0' x?>",
        "<?xml version='1.0?>",
        "<?xml ?>",
    ] {
        assert_eq!(
            outcome(format!("{declaration}{OPEN}")),
            "error not-well-formed",
            "{declaration}"
        );
    }
    assert_eq!(outcome(format!("<?xml version='1.0'{}", " ".repeat(300))), "error not-well-formed");
    let longest = format!("<?xml version='1.0'{}?>{OPEN}", " ".repeat(230));
    assert_eq!(outcome(longest), "header to=example.org version=1.0");
}

#[test]
fn white_space_before_a_header_is_skipped() {
    assert_eq!(
        outcome(format!(" \r\n\t<?xml version='1.0'?>\n{OPEN}")),
        "header to=example.org version=1.0"
    );
}

#[test]
fn an_empty_stream_ends_where_it_starts() {
    assert_eq!(read(OPEN.replace('>', "/>")), ["header to=example.org version=1.0", "end"]);
}

#[test]
fn the_usual_headers_share_what_they_declare() {
    let opened = |open: &str| {
        let mut parser = Parser::new(&Limits::default());
        parser.feed(open.as_bytes());
        assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
        parser.opened.expect("a header was read")
    };
    let other_order =
        "<stream:stream xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>";
    let xml_too = OPEN.replace(" to=", " xmlns:xml='http://www.w3.org/XML/1998/namespace' to=");
    assert!(std::sync::Arc::ptr_eq(&opened(OPEN), &opened(other_order)));
    assert!(std::sync::Arc::ptr_eq(&opened(OPEN), &opened(&xml_too)));
    assert!(!std::sync::Arc::ptr_eq(
        &opened(OPEN),
        &opened(&OPEN.replace(" to=", " xmlns:e='urn:e' to="))
    ));
}
