//! Tests of the room as a whole: header, tree, writer and scanner against each other.

use std::borrow::Cow;

use minidom::rxml::{Namespace, NcName};
use minidom::{Element, Node};
use proptest::prelude::*;

use super::testing::parse;
use super::write::XML_NAMESPACE;
use super::*;

/// A stanza as it stands alone: one document.
fn document(stanza: &Stanza) -> String {
    Frame::stanza(stanza).framing(Framing::Message).to_string()
}

fn nc(name: &str) -> NcName {
    NcName::try_from(name).expect("a name")
}

#[test]
fn a_stanza_is_small() {
    assert!(size_of::<Stanza>() <= 56, "{}", size_of::<Stanza>());
}

#[test]
fn header_attributes_are_read_back() {
    let values = [None, Some(""), Some("plain"), Some("a'b\"c<d>&e\t\n\rf"), Some("é\u{1F600}")];
    for (index, value) in values.into_iter().enumerate() {
        let next = |by: usize| values[(index + by) % values.len()];
        let head = Head {
            kind: Kind::Iq,
            from: value,
            to: next(1),
            id: next(2),
            type_: next(3),
            lang: next(4),
            other: b" x='y'",
        };
        let stanza = Stanza::assemble(&head, b"<a/>");
        assert_eq!(stanza.from().as_deref(), value);
        assert_eq!(stanza.to().as_deref(), next(1));
        assert_eq!(stanza.id().as_deref(), next(2));
        assert_eq!(stanza.type_().as_deref(), next(3));
        assert_eq!(stanza.lang().as_deref(), next(4));
        assert_eq!(stanza.payload(), b"<a/>");
        assert_eq!(stanza.other_attributes(), b" x='y'");
        assert_eq!(parse(&document(&stanza)), stanza.to_element());
    }
}

#[test]
fn header_attributes_without_escapes_are_borrowed() {
    let stanza = Stanza::message().from("a@example.com/x").to("b&c").build();
    assert!(matches!(stanza.from(), Some(Cow::Borrowed("a@example.com/x"))));
    assert!(matches!(stanza.to(), Some(Cow::Owned(to)) if to == "b&c"));
    assert_eq!(stanza.raw_to(), Some("b&amp;c"));
}

#[test]
fn debug_prints_kind_and_size_only() {
    let stanza = Stanza::message().from("secret").payload(b"<body>hidden</body>").build();
    assert_eq!(format!("{stanza:?}"), "Stanza { kind: Message, bytes: 33, .. }");
}

#[test]
fn an_element_that_is_no_stanza_is_refused() {
    let refused =
        |name: &str, namespace: &str| Stanza::from_element(&Element::bare(name, namespace)).err();
    assert_eq!(refused("message", "jabber:server"), Some(NotAStanza::Namespace));
    assert_eq!(refused("query", "jabber:client"), Some(NotAStanza::Name));
    assert_eq!(refused("iq", "jabber:client"), None);
}

#[test]
fn stream_14_both_styles_of_declaration_come_out_alike() {
    let expected = "<message xmlns='jabber:client' to='b'><body>x</body></message>";
    for style in [
        "<message xmlns='jabber:client' to='b'><body>x</body></message>",
        "<c:message xmlns:c='jabber:client' to='b'><c:body>x</c:body></c:message>",
        "<c:message xmlns:c='jabber:client' to='b'><body xmlns='jabber:client'>x</body></c:message>",
    ] {
        assert_eq!(document(&Stanza::from_element(&parse(style)).unwrap()), expected);
    }
}

#[test]
fn stream_11_a_language_that_is_there_stays() {
    let element = parse(
        "<message xmlns='jabber:client' xml:lang='de'><body xml:lang='fr'>x</body></message>",
    );
    let stanza = Stanza::from_element(&element).unwrap();
    assert_eq!(stanza.lang().as_deref(), Some("de"));
    assert_eq!(stanza.readdressed(Some("a"), None).lang().as_deref(), Some("de"));
    assert_eq!(stanza.child().unwrap().attribute("xml:lang").as_deref(), Some("fr"));
}

#[test]
fn stream_15_foreign_namespaces_are_declared_where_they_begin() {
    let element = parse(
        "<x:message xmlns:x='jabber:client' xmlns:y='one' y:a='1'><y:b y:c='2' xml:d='3'><x:e/><y:f/></y:b>\
         <g xmlns=''><![CDATA[<&]]></g></x:message>",
    );
    let stanza = Stanza::from_element(&element).unwrap();
    assert_eq!(
        document(&stanza),
        "<message xmlns='jabber:client' xmlns:ns0='one' ns0:a='1'>\
         <b xmlns='one' xml:d='3' xmlns:ns0='one' ns0:c='2'><e xmlns='jabber:client'/><f/></b>\
         <g xmlns=''>&lt;&amp;</g></message>"
    );
    assert_eq!(stanza.to_element(), element);
}

#[test]
fn stream_15_what_minidom_cannot_write_is_written() {
    for trap in [
        "<message xmlns='jabber:client' xmlns:x='a'><y xmlns:x='a' x:b='1'/></message>",
        "<message xmlns='jabber:client' xmlns:xml='http://www.w3.org/XML/1998/namespace' xml:a='1'/>",
        "<message xmlns='jabber:client' xmlns:tns0='a' tns0:b='1'><c xmlns:d='e' d:f='2'/></message>",
        "<message xmlns='jabber:client'><a xmlns=''/></message>",
        "<message xmlns='jabber:client' xmlns:ns0='a' xmlns:b='c' ns0:d='1' b:d='2'><xml:e xml:f='3'/></message>",
    ] {
        let element = parse(trap);
        let stanza = Stanza::from_element(&element).unwrap();
        assert_eq!(parse(&document(&stanza)), element);
        let tree = stanza.to_element();
        assert_eq!(tree, element);
        // A tree of ours holds none of the prefixes that minidom's writer fails on.
        assert_eq!(parse(&String::from(&tree)), element);
    }
}

#[test]
fn stream_15_what_xml_cannot_hold_is_replaced() {
    let mut odd = Element::bare("a b<:>é", "urn:\u{1}");
    odd.append_child(Element::bare("", "http://www.w3.org/2000/xmlns/"));
    odd.append_child(Element::bare("xmlns", XML_NAMESPACE));
    odd.append_text_node("");
    odd.append_text_node("\0]]>\u{FFFF}");
    odd.set_attr(Namespace::NONE, nc("xmlns"), "other");
    odd.set_attr(Namespace::from("http://www.w3.org/2000/xmlns/".to_owned()), nc("p"), "other");
    odd.set_attr(Namespace::from("\u{1}".to_owned()), nc("q"), "1");
    odd.set_attr(Namespace::from("\u{2}".to_owned()), nc("q"), "2");
    odd.set_attr(Namespace::from("<'&".to_owned()), nc("r"), "3");
    odd.set_attr(Namespace::from("'&".to_owned()), nc("r"), "\u{B}");
    odd.set_attr(Namespace::NONE, nc("é"), "4");
    let stanza = Stanza::message().child(&odd).build();
    let written = document(&stanza);
    assert_eq!(
        written,
        "<message xmlns='jabber:client'><_a_b_____ xmlns='urn:_' xmlns:ns0='&apos;&amp;' ns0:r='\u{FFFD}'>\
         <_ xmlns=''/><xml:xmlns/>\u{FFFD}]]&gt;\u{FFFD}</_a_b_____></message>"
    );
    assert_eq!(parse(&written), stanza.to_element());
}

#[test]
fn deep_trees_are_written_and_read_without_recursion() {
    // The tree itself is dropped and compared recursively by minidom, so its thread has room.
    let run = || {
        let depth = 4_000;
        let mut element = Element::bare("a", "urn:0");
        for level in 1..depth {
            let mut outer = Element::bare("a", format!("urn:{}", level / 2));
            outer.append_child(element);
            element = outer;
        }
        let stanza = Stanza::message().child(&element).build();
        let tree = stanza.to_element();
        assert_eq!(tree.children().next(), Some(&element));
    };
    std::thread::Builder::new().stack_size(64 << 20).spawn(run).unwrap().join().unwrap();
}

#[test]
fn a_deep_tree_is_written_on_a_small_stack() {
    let mut element = Element::bare("a", "urn:0");
    for _ in 1..4_000 {
        let mut outer = Element::bare("a", "urn:0");
        outer.append_child(element);
        element = outer;
    }
    let write = move || {
        let stanza = Stanza::message().child(&element).build();
        (stanza, element)
    };
    let writer = std::thread::Builder::new().stack_size(128 << 10).spawn(write).unwrap();
    let (stanza, element) = writer.join().unwrap();
    assert_eq!(stanza.payload().len(), 7 * 4_000 + " xmlns='urn:0'".len() - 3);
    let dropped =
        std::thread::Builder::new().stack_size(64 << 20).spawn(move || drop(element)).unwrap();
    dropped.join().unwrap();
}

/// Texts with all that escaping must care about, in a form that survives XML.
fn hostile() -> impl Strategy<Value = String> {
    let pieces = prop_oneof![
        Just("&"),
        Just("<"),
        Just(">"),
        Just("'"),
        Just("\""),
        Just("\r"),
        Just("\n"),
        Just("\t"),
        Just("]]>"),
        Just("&amp;"),
        Just("<![CDATA["),
        Just("<!--"),
        Just("é"),
        Just("\u{FFFD}"),
        Just("\u{1F600}"),
        Just("a b"),
    ];
    prop::collection::vec(pieces, 0..6).prop_map(|pieces| pieces.concat())
}

fn name() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("a"), Just("body"), Just("_x-1.y"), Just("xml"), Just("ns0"), Just("Z")]
}

fn namespace() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("jabber:client"),
        Just("jabber:client"),
        Just(""),
        Just("urn:a"),
        Just("urn:b'&;"),
        Just("tns0"),
        Just(XML_NAMESPACE),
    ]
}

fn attributes() -> impl Strategy<Value = Vec<(&'static str, &'static str, String)>> {
    prop::collection::vec((namespace(), name(), hostile()), 0..4)
}

fn with_attributes(mut element: Element, attributes: Vec<(&str, &str, String)>) -> Element {
    for (namespace, name, value) in attributes {
        element.set_attr(Namespace::from(namespace.to_owned()), nc(name), value);
    }
    element
}

fn tree() -> impl Strategy<Value = Element> {
    let leaf = (name(), namespace(), attributes()).prop_map(|(name, namespace, attributes)| {
        with_attributes(Element::bare(name, namespace), attributes)
    });
    leaf.prop_recursive(8, 40, 4, |inner| {
        let node = prop_oneof![inner.prop_map(Node::Element), hostile().prop_map(Node::Text)];
        (name(), namespace(), attributes(), prop::collection::vec(node, 0..4)).prop_map(
            |(name, namespace, attributes, nodes)| {
                let mut element = with_attributes(Element::bare(name, namespace), attributes);
                for node in nodes {
                    match node {
                        // Parsers join neighbouring texts, and do not see empty ones.
                        Node::Text(text) if !text.is_empty() => element.append_text(text),
                        Node::Text(_) => {}
                        Node::Element(child) => {
                            element.append_child(child);
                        }
                    }
                }
                element
            },
        )
    })
}

/// Content as a client may write it and we keep it: prefixes, double quotes, white space in tags.
fn kept() -> impl Strategy<Value = String> {
    let prefix = prop_oneof![Just(""), Just("p:"), Just("q:")];
    let declarations = prop_oneof![
        Just(""),
        Just(" xmlns=\"urn:;\""),
        Just(" xmlns:p='urn:p1'"),
        Just("\n xmlns:q = 'urn:q1' xmlns:p=\"urn:'\" "),
        Just(" xmlns='' p:b='1' b=\"'/>\" xml:lang='&lt;'"),
    ];
    let leaf =
        prop_oneof![Just("text&amp;".to_owned()), Just(" > ".to_owned()), Just("<a/>".to_owned())];
    leaf.prop_recursive(6, 40, 4, move |inner| {
        (prefix.clone(), declarations.clone(), prop::collection::vec(inner, 0..4)).prop_map(
            |(prefix, declarations, inner)| match inner.concat() {
                inner if inner.is_empty() => format!("<{prefix}e{declarations}/>"),
                inner => format!("<{prefix}e{declarations}>{inner}</{prefix}e >"),
            },
        )
    })
}

fn assert_same(child: &Child<'_>, element: &Element) {
    assert_eq!(&child.to_element(), element);
    assert!(child.is(element.name(), &element.ns()));
    assert_eq!(child.text(), element.text());
    for ((namespace, name), value) in element.attrs() {
        if namespace.is_none() {
            assert_eq!(child.attribute(name.as_str()).as_deref(), Some(value.as_str()));
        }
    }
    assert_eq!(child.children().count(), element.children().count());
    child
        .children()
        .zip(element.children())
        .for_each(|(child, element)| assert_same(&child, element));
}

proptest! {
    #[test]
    fn stream_15_what_is_kept_reads_as_the_parser_reads_it(content in kept()) {
        let payload = format!("<top xmlns:p='urn:p0' xmlns:q='urn:q0'>{content}</top><p:next xmlns:p='urn:p2'/>");
        let stanza = Stanza::message().payload(payload.as_bytes()).build();
        let element = parse(&document(&stanza));
        prop_assert_eq!(stanza.to_element(), element.clone());
        prop_assert_eq!(stanza.children().count(), 2);
        for (child, element) in stanza.children().zip(element.children()) {
            assert_same(&child, element);
        }
    }

    #[test]
    fn stream_15_what_is_written_reads_as_the_same_tree(tree in tree(), head in attributes()) {
        let mut element = with_attributes(Element::bare("message", "jabber:client"), head);
        element.append_child(tree.clone());
        let stanza = Stanza::from_element(&element).unwrap();
        let written = document(&stanza);
        prop_assert_eq!(parse(&written), element.clone());
        prop_assert_eq!(stanza.to_element(), element);
        assert_same(&stanza.child().unwrap(), &tree);
        // The form is a fixed point: writing again what was read changes no byte.
        let again = Stanza::from_element(&stanza.to_element()).unwrap();
        prop_assert_eq!(document(&again), written);
    }
}
