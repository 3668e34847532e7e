use minidom::Element;

use super::*;

const ERROR_NAMESPACE: &str = "urn:ietf:params:xml:ns:xmpp-streams";

fn open(header: &ResponseHeader<'_>) -> String {
    Frame::open(header).to_string()
}

/// What the peer reads of what we write behind a header.
fn read_back(xml: &str) -> Nonza {
    let mut parser = Parser::new(&Limits::default());
    parser.authenticated(&Limits::default());
    parser.feed(format!("{OPEN}{xml}").as_bytes());
    assert!(matches!(parser.next(), Ok(Some(Event::Header(_)))));
    let Ok(Some(Event::Nonza(nonza))) = parser.next() else { panic!("no element: {xml}") };
    nonza
}

#[test]
fn stream_9_the_response_header_has_to_only_for_clients_that_say_who_they_are() {
    let mut header = ResponseHeader::new("example.org", "i'd");
    assert_eq!(
        open(&header),
        "<?xml version='1.0'?><stream:stream from='example.org' id='i&apos;d' version='1.0' xml:lang='en' \
         xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>"
    );
    header.to = Some("a&b@example.org");
    header.lang = "de";
    assert_eq!(
        read(open(&header)),
        ["header to=a&b@example.org from=example.org lang=de version=1.0"]
    );
}

#[test]
fn stream_2_the_response_to_no_version_has_none() {
    let header = ResponseHeader { version: None, ..ResponseHeader::new("example.org", "id") };
    assert!(!open(&header).contains(" version='1.0' xml"));
    assert_eq!(read(open(&header)), ["header from=example.org lang=en"]);
}

#[test]
fn stream_24_an_error_and_the_end() {
    let error = StreamError::new(StreamCondition::Conflict);
    assert_eq!(
        Frame::error(&error).to_string() + &Frame::close().to_string(),
        "<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error></stream:stream>"
    );
}

#[test]
fn stream_30_another_host_may_be_an_address() {
    for (host, port, expected) in [
        ("example.org", None, "example.org"),
        ("example.org", Some(5222), "example.org:5222"),
        ("192.0.2.1", Some(1), "192.0.2.1:1"),
        ("2001:db8::1", None, "[2001:db8::1]"),
        ("2001:db8::1", Some(5222), "[2001:db8::1]:5222"),
    ] {
        let error = StreamError::see_other_host(host, port);
        let xml = Frame::error(&error).to_string();
        assert!(
            xml.contains(&format!(
                "<see-other-host xmlns='urn:ietf:params:xml:ns:xmpp-streams'>{expected}</"
            )),
            "{xml}"
        );
    }
}

#[test]
fn serr_1_all_conditions_are_written_and_read() {
    let application: Element =
        "<too-many xmlns='urn:x' y='1'><z/>&lt;</too-many>".parse().expect("an element");
    let names: std::collections::BTreeSet<_> =
        StreamCondition::ALL.iter().map(|condition| condition.as_str()).collect();
    assert_eq!(names.len(), 25);
    for condition in StreamCondition::ALL {
        let plain = StreamError::new(condition);
        let text = plain.clone().with_text("de", "<&'>");
        let both = text.clone().with_application(&application);
        for error in [plain, text, both] {
            let xml = Frame::error(&error).to_string();
            let read = read_back(&xml);
            assert!(read.is("error", STREAM_NAMESPACE));
            let children: Vec<_> = read.children().collect();
            let [first, more @ ..] = &children[..] else { panic!("no condition: {xml}") };
            assert!(first.is(condition.as_str(), ERROR_NAMESPACE), "{xml}");
            let texts = more.iter().filter(|child| child.is("text", ERROR_NAMESPACE));
            let texts: Vec<_> = texts.map(|child| child.text().into_owned()).collect();
            assert_eq!(texts.first().map(String::as_str), error.text());
            let others = more.iter().filter(|child| child.namespace() != ERROR_NAMESPACE);
            let others: Vec<_> = others.map(|child| child.xml()).collect();
            assert_eq!(others.first().copied(), error.application());
            assert_eq!(texts.len() + others.len(), more.len());
        }
    }
}

#[test]
fn debug_and_display_show_no_text() {
    let error = StreamError::new(StreamCondition::Reset).with_text("en", "secret");
    assert!(!format!("{error:?} {error}").contains("secret"));
    let header = ResponseHeader::new("secret", "secret");
    assert!(!format!("{header:?}").contains("secret"));
}

fn features(features: &Features) -> String {
    let xml = features.frame().to_string();
    assert!(read_back(&xml).is("features", STREAM_NAMESPACE));
    xml
}

fn with_everything(features: Features) -> Features {
    features
        .roster_versioning()
        .pre_approval()
        .limits(10_000, 1800)
        .extension(b"<x xmlns='urn:x'/>")
}

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const MECHANISMS: [&str; 3] = ["SCRAM-SHA-1-PLUS", "SCRAM-SHA-1", "PLAIN"];
const LIMITS: &str = "<limits xmlns='urn:xmpp:stream-limits:0'><max-bytes>10000</max-bytes><idle-seconds>1800</idle-seconds></limits><x xmlns='urn:x'/>";

fn mechanisms(names: &[&str]) -> String {
    let names: String = names.iter().map(|name| format!("<mechanism>{name}</mechanism>")).collect();
    format!("<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'>{names}</mechanisms>")
}

#[test]
fn stream_f1_tls_is_required_and_nothing_else_is_there() {
    assert_eq!(
        features(&with_everything(Features::tls_required())),
        "<stream:features><starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls></stream:features>"
    );
}

#[test]
fn stream_f2_tls_is_optional() {
    let expected = format!(
        "<stream:features>{STARTTLS}{}{LIMITS}</stream:features>",
        mechanisms(&["SCRAM-SHA-1"])
    );
    assert_eq!(features(&with_everything(Features::tls_optional(MECHANISMS))), expected);
}

#[test]
fn stream_f3_under_tls() {
    let bindings = "<sasl-channel-binding xmlns='urn:xmpp:sasl-cb:0'><channel-binding type='tls-server-end-point'/>\
                    <channel-binding type='tls-exporter'/></sasl-channel-binding>";
    let expected =
        format!("<stream:features>{}{bindings}{LIMITS}</stream:features>", mechanisms(&MECHANISMS));
    for offered in [&["tls-exporter"][..], &["tls-exporter", "tls-server-end-point"]] {
        assert_eq!(
            features(&with_everything(Features::secure(MECHANISMS, offered.iter().copied()))),
            expected
        );
    }
    let unbound = features(&Features::secure(["PLAIN"], ["tls-exporter"]));
    assert_eq!(unbound, format!("<stream:features>{}</stream:features>", mechanisms(&["PLAIN"])));
}

#[test]
fn stream_f4_authenticated() {
    assert_eq!(
        features(&with_everything(Features::authenticated())),
        format!(
            "<stream:features><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'/>\
             <session xmlns='urn:ietf:params:xml:ns:xmpp-session'><optional/></session><ver xmlns='urn:xmpp:features:rosterver'/>\
             <sub xmlns='urn:xmpp:features:pre-approval'/>{LIMITS}</stream:features>"
        )
    );
}

#[test]
fn stream_f7_an_empty_list_is_seen() {
    assert!(Features::secure([], ["tls-exporter"]).is_empty());
    assert!(Features::declared_secure(["SCRAM-SHA-1-PLUS"], false).is_empty());
    assert!(!Features::tls_required().is_empty());
    assert!(!Features::secure(["PLAIN"], []).is_empty());
}

#[test]
fn stream_f8_declared_secure() {
    let offered = mechanisms(&["SCRAM-SHA-1", "PLAIN"]);
    let all = with_everything(Features::declared_secure(MECHANISMS, true));
    assert_eq!(
        features(&all),
        format!("<stream:features>{STARTTLS}{offered}{LIMITS}</stream:features>")
    );
    let websocket = Features::declared_secure(MECHANISMS, false);
    assert_eq!(features(&websocket), format!("<stream:features>{offered}</stream:features>"));
}
