//! The law of the recogniser, as a check that any bytes can be put to.

use std::sync::Arc;

use super::{Recognised, Recogniser};
use crate::stanza::bounds::Bounds;
use crate::stanza::canonical::{Declarations, ElementReader, Parsed};
use crate::stanza::head::Attribute;
use crate::stanza::{CONTENT_NAMESPACE, Frame};

/// Reads `bytes`, cut where `cuts` say, and panics if the recogniser says yes to what the parser, in
/// a stream with these declarations, does not accept or understands differently. Tells whether it
/// said yes.
pub(crate) fn check(
    bytes: &[u8],
    cuts: &[usize],
    bounds: Bounds,
    outer: &Arc<Declarations>,
) -> bool {
    let in_content = outer.get(None).is_some_and(|namespace| **namespace == *CONTENT_NAMESPACE);
    let mut recogniser = Recogniser::new(in_content);
    let ends = cuts.iter().filter_map(|&cut| bytes.get(..cut)).chain([bytes]);
    let mut seen = 0;
    for arrived in ends {
        if arrived.len() < seen {
            continue;
        }
        seen = arrived.len();
        match recogniser.advance(arrived, &bounds) {
            Recognised::More => {}
            Recognised::Unknown => return false,
            Recognised::Canonical(outline, text) => {
                let mut rest = arrived;
                let parsed = ElementReader::new(bounds, Arc::clone(outer)).feed(&mut rest);
                let is_stanza = matches!(parsed, Ok(Some(Parsed::Stanza(_))));
                assert!(is_stanza, "recognised what the parser refuses");
                let Ok(Some(Parsed::Stanza(received))) = parsed else { return false };
                assert_eq!(text.len(), arrived.len() - rest.len(), "length");
                assert_eq!(outline.kind, received.kind(), "kind");
                use Attribute::{From, Id, Lang, To, Type};
                for attribute in [From, To, Id, Type, Lang] {
                    let value = outline.value(attribute, text);
                    assert_eq!(value, received.value(attribute), "{attribute:?}");
                }
                assert_eq!(outline.payload(text), received.payload(), "payload");
                let (mine, parsed) = (outline.stamp(text, None, None), received.stamp(None, None));
                #[cfg(feature = "server")]
                {
                    use crate::stanza::claims::Claim;
                    let claims = parsed.children().any(|child| Claim::of(&child).is_some());
                    assert!(outline.claims || !claims, "claims");
                    assert!(received.may_claim() || !claims, "claims");
                }
                assert_eq!(Frame::stanza(&mine).to_string(), Frame::stanza(&parsed).to_string());
                return true;
            }
        }
    }
    false
}
