//! What one home tells another about an account: the bytes of a frame's body.

use std::sync::Arc;

use crate::packed::{Reader, Writer};
use crate::stanza::{Frame, Framing, Stanza, canonicalise};

const VERSION: u8 = 1;
const STANZA: u8 = 0;

/// What comes from another home.
pub(super) enum Letter {
    /// For the account, or one of its sessions, by its `to`.
    Stanza(Stanza),
}

impl Letter {
    pub(super) fn encode(&self) -> Arc<[u8]> {
        let mut out = Writer::default();
        out.byte(VERSION);
        match self {
            Self::Stanza(stanza) => {
                out.byte(STANZA);
                let mut bytes = Vec::new();
                Frame::stanza(stanza).framing(Framing::Message).write_to(&mut bytes);
                out.bytes(&bytes);
            }
        }
        out.into_bytes().into()
    }

    /// `None`: it is of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        match input.byte()? {
            STANZA => Some(Self::Stanza(canonicalise(input.bytes()?).ok()?)),
            _ => None,
        }
    }
}
