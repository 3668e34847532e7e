//! What the tests of several rooms build on.

use minidom::Element;
use minidom::rxml::{Event, Reader};

/// Builds the tree from what `rxml` reports, with all that it checks about namespaces. (minidom's
/// own parser does not know elements with the prefix `xml`, and that one no carriage return alone.)
pub(super) fn parse(document: &str) -> Element {
    let lines = document.replace("\r\n", "\n").replace('\r', "\n");
    let mut reader = Reader::new(lines.as_bytes());
    let mut open: Vec<Element> = Vec::new();
    let mut root = None;
    while let Some(event) = reader.read().unwrap_or_else(|error| panic!("{error}: {document}")) {
        match event {
            Event::XmlDeclaration(..) => {}
            Event::StartElement(_, (namespace, name), attributes) => {
                let mut element = Element::bare(name.to_string(), namespace.to_string());
                for ((namespace, name), value) in attributes {
                    element.set_attr(namespace, name, value);
                }
                open.push(element);
            }
            Event::Text(_, text) => open.last_mut().expect("text is inside").append_text(text),
            Event::EndElement(_) => {
                let element = open.pop().expect("a start");
                match open.last_mut() {
                    Some(parent) => {
                        parent.append_child(element);
                    }
                    None => root = Some(element),
                }
            }
        }
    }
    root.expect("an element")
}

/// Chooses by bytes, so that a failing case shrinks.
pub(super) struct Dice<'a>(pub(super) std::slice::Iter<'a, u8>);

impl Dice<'_> {
    pub(super) fn roll(&mut self, sides: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % sides
    }

    pub(super) fn pick<'p>(&mut self, choices: &[&'p str]) -> &'p str {
        choices[self.roll(choices.len())]
    }
}
