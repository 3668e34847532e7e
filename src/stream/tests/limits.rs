use super::*;

#[test]
fn limit_2_an_element_before_authentication_is_small() {
    let message = |bytes: usize| format!("<message>{}</message>", "x".repeat(bytes - 19));
    assert_eq!(within(message(10_000)), message(10_000));
    assert_eq!(within(message(10_001)), "policy-violation (modify) (LIMIT-2) <message/>");
    let nonza = |bytes: usize| message(bytes).replace("message", "element");
    assert_eq!(within(nonza(10_001)), "error policy-violation (LIMIT-2)");
    assert_eq!(
        outcome(format!("<stream:stream {}", " ".repeat(10_000))),
        "error policy-violation (LIMIT-2)"
    );
}

#[test]
fn limit_3_all_bytes_before_authentication_are_counted() {
    let message = format!("<message>{}</message>", "x".repeat(5000 - 19));
    let spaces = " ".repeat(65_536 - OPEN.len() - 13 * 5000);
    let fits = format!("{OPEN}{spaces}{}", message.repeat(13));
    assert_eq!(fits.len(), 65_536);
    let lines = read(&fits);
    assert_eq!((lines.len(), lines.last()), (14, Some(&message)));
    for more in [" ", "<", "x"] {
        let lines = read(format!("{fits}{more}"));
        assert_eq!((lines.len(), lines[14].as_str()), (15, "error policy-violation (LIMIT-3)"));
    }
    assert_eq!(outcome(" ".repeat(65_537)), "error policy-violation (LIMIT-3)");
    assert_eq!(read(" ".repeat(65_536)), [""; 0]);
}

#[test]
fn limit_3_ends_with_authentication_and_not_with_a_restart() {
    let mut parser = Parser::new(&Limits::default().with_bytes_before_auth(OPEN.len() + 10));
    parser.feed(OPEN.as_bytes());
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    parser.restart(true);
    let mut lines = Vec::new();
    parser.feed(OPEN.as_bytes());
    drain(&mut parser, &mut lines);
    assert_eq!(lines, ["error policy-violation (LIMIT-3)"]);

    let lines = read_authenticated(format!("{OPEN}{}", "<presence/>".repeat(10_000)));
    assert_eq!(lines.len(), 10_001);
}

#[test]
fn limit_4_an_element_after_authentication_may_be_larger() {
    let message = |bytes: usize| format!("<message>{}</message>", "x".repeat(bytes - 19));
    let read = |bytes: usize| in_pieces_authenticated(&format!("{OPEN}{}", message(bytes)));
    assert_eq!(read(262_144)[1].len(), 262_144);
    // Four times as much is skipped.
    for bytes in [262_145, 1_048_576] {
        assert_eq!(read(bytes)[1], "policy-violation (modify) (LIMIT-4) <message/>");
    }
    assert_eq!(read(1_048_577)[1], "error policy-violation (LIMIT-4)");
    let value = format!("<message to='a'><x y='{}'/></message>", "x".repeat(300_000));
    let lines = in_pieces_authenticated(&format!("{OPEN}{value}<presence/>"));
    assert_eq!(
        lines[1..],
        ["policy-violation (modify) (LIMIT-4) <message to='a'/>", "<presence/>"]
    );
}

fn in_pieces_authenticated(input: &str) -> Vec<String> {
    let parser = || {
        let mut parser = Parser::new(&Limits::default());
        parser.authenticated(&Limits::default());
        parser
    };
    let lines = in_pieces(parser(), input.as_bytes(), input.len());
    assert_eq!(in_pieces(parser(), input.as_bytes(), 1000), lines);
    lines
}

#[test]
fn limit_4_cannot_be_set_below_what_every_client_may_send() {
    let limits = Limits::default().with_element_bytes(5).with_element_bytes_before_auth(5);
    assert_eq!((limits.element_bytes(), limits.element_bytes_before_auth()), (10_000, 10_000));
    let limits = limits.with_element_bytes(20_000).with_element_bytes_before_auth(30_000);
    assert_eq!((limits.element_bytes(), limits.element_bytes_before_auth()), (20_000, 30_000));
}

/// Both sets of limits: levels, attributes, elements.
#[test]
fn limit_5_bombs_are_stopped() {
    let nested = |levels: usize| {
        format!("<message>{}{}</message>", "<a>".repeat(levels - 1), "</a>".repeat(levels - 1))
    };
    let attributes = |count: usize| {
        format!("<message {}/>", (0..count).map(|n| format!(" a{n}=''")).collect::<String>())
    };
    let declarations = |count: usize| {
        format!(
            "<message {}/>",
            (0..count).map(|n| format!(" xmlns:a{n}='urn:a'")).collect::<String>()
        )
    };
    let children = |count: usize| format!("<message>{}</message>", "<a/>".repeat(count - 1));
    type Bomb<'a> = &'a dyn Fn(usize) -> String;
    let bombs: [(Bomb<'_>, usize, usize); 4] =
        [(&nested, 8, 64), (&attributes, 16, 64), (&declarations, 16, 64), (&children, 64, 4096)];
    for (bomb, before, after) in bombs {
        let refused = "policy-violation (modify) (LIMIT-5) <message";
        assert!(within(bomb(before)).starts_with("<message"));
        assert!(within(bomb(before + 1)).starts_with(refused));
        let authenticated =
            |count: usize| in_pieces_authenticated(&format!("{OPEN}{}", bomb(count))).pop();
        assert!(authenticated(after).is_some_and(|line| line.starts_with("<message")));
        assert!(authenticated(after + 1).is_some_and(|line| line.starts_with(refused)));
        // What is no stanza cannot be answered.
        let nonza = bomb(after + 1).replace("message", "element");
        let lines = in_pieces_authenticated(&format!("{OPEN}{nonza}"));
        assert_eq!(lines[1], "error policy-violation (LIMIT-5)");
    }
    assert_eq!(
        outcome(format!(
            "<stream:stream {}>",
            (0..17).map(|n| format!(" a{n}=''")).collect::<String>()
        )),
        "error policy-violation (LIMIT-5)"
    );
}

#[test]
fn limit_5_is_a_setting() {
    let limits = Limits::default().with_depth(2, 3).with_attributes(3, 4).with_elements(4, 5);
    let last = |input: String, authenticated: bool| {
        let mut parser = Parser::new(&limits);
        if authenticated {
            parser.authenticated(&limits);
        }
        in_pieces(
            parser,
            format!(
                "<x:stream xmlns:x='http://etherx.jabber.org/streams' xmlns='jabber:client'>{input}"
            )
            .as_bytes(),
            9,
        )
        .pop()
        .map(|line| line.replace("/>", "").replace(" a='' b='' c=''", "").replace(" d=''", ""))
    };
    let refused = Some("policy-violation (modify) (LIMIT-5) <message".to_owned());
    for (fits, more, most) in [
        (
            "<message><a/></message>",
            "<message><a><b/></a></message>",
            "<message><a><b><c/></b></a></message>",
        ),
        (
            "<message a='' b='' c=''/>",
            "<message a='' b='' c='' d=''/>",
            "<message a='' b='' c='' d='' e=''/>",
        ),
        (
            "<message><a/><a/><a/></message>",
            "<message><a/><a/><a/><a/></message>",
            "<message><a/><a/><a/><a/><a/></message>",
        ),
    ] {
        assert_ne!(last(fits.to_owned(), false), refused);
        assert_eq!(last(more.to_owned(), false), refused);
        assert_ne!(last(more.to_owned(), true), refused);
        assert_eq!(last(most.to_owned(), true), refused);
    }
}

#[test]
fn limit_5_a_value_may_be_as_long_as_the_stanza() {
    let value =
        |bytes: usize| format!("<message id='1'><a b='{}'/></message>", "x".repeat(bytes - 37));
    for bytes in [8192, 8193, 100_000, 262_144] {
        let written = in_pieces_authenticated(&format!("{OPEN}{}", value(bytes)));
        assert_eq!(written[1], value(bytes));
        // The same where it is written anew.
        let prefixed = value(bytes)
            .replace("message", "x:message")
            .replace("id='1'", "xmlns:x='jabber:client'");
        let lines = in_pieces_authenticated(&format!("{OPEN}{prefixed}"));
        match prefixed.len() {
            0..=262_144 => assert_eq!(lines[1], value(bytes).replace(" id='1'", "")),
            _ => assert_eq!(lines[1], "policy-violation (modify) (LIMIT-4) <message/>"),
        }
    }
}

#[test]
fn limit_41_a_header_declares_little() {
    let header = |name: usize| {
        let namespace = "u".repeat(name);
        format!(
            "<s:stream xmlns:s='http://etherx.jabber.org/streams' xmlns:p='{namespace}' version='1.0'>"
        )
    };
    let rest = "shttp://etherx.jabber.org/streamsp".len();
    assert_eq!(outcome(header(1024 - rest)), "header version=1.0");
    assert_eq!(outcome(header(1025 - rest)), "error policy-violation (LIMIT-41)");
}

#[test]
fn sec_3_entities_do_not_expand() {
    let bomb = "<!DOCTYPE l [<!ENTITY a 'aaaa'><!ENTITY b '&a;&a;'>]>";
    assert_eq!(outcome(format!("{bomb}{OPEN}")), "error restricted-xml");
    assert_eq!(within(bomb), "error restricted-xml");
    assert_eq!(within("<message>&b;</message>"), "error restricted-xml");
}

#[test]
fn a_limit_is_told_to_the_host() {
    let mut parser = Parser::new(&Limits::default());
    parser.feed(" ".repeat(70_000).as_bytes());
    let error = parser.next().expect_err("too much");
    assert_eq!(
        (error.condition(), error.limit()),
        (StreamCondition::PolicyViolation, Some(Limit::BytesBeforeAuth))
    );
    assert_eq!(Limit::ElementBytes.id(), "LIMIT-4");
}
