//! What one home tells another about an account: the bytes of a frame's body.

use std::sync::Arc;

use crate::packed::{Reader, Writer};
use crate::stanza::{Frame, Framing, Stanza, canonicalise};

const VERSION: u8 = 1;
const STANZA: u8 = 0;
const BROADCAST: u8 = 16;
const DIRECTED: u8 = 17;
const ANSWER: u8 = 18;
const PROBE: u8 = 19;
const ASKED: u8 = 20;
const SILENT: u8 = 21;

/// What comes from another home.
pub(super) enum Letter {
    /// For the account, or one of its sessions, by its `to`.
    Stanza(Stanza),
    /// What a session broadcasts, without a `to`: for whoever is available.
    Broadcast(Stanza),
    /// The end of directed presence, or what stands for it, by its `to`.
    Directed(Stanza),
    /// For one session of the account, by its resource, which has asked.
    Answer { resource: Box<str>, stanza: Stanza },
    /// This session, a full JID, has become available and wants to know who is there (PRES-13).
    Probe { asker: Box<str> },
    /// The probe that a client sent: this session, a full JID, is to be answered (PRES-19).
    Asked { asker: Box<str>, stanza: Stanza },
    /// A subscription stanza that changes what it changes without a word: its sender hides (BLOCK-9).
    Silent(Stanza),
}

impl Letter {
    pub(super) fn encode(&self) -> Arc<[u8]> {
        let mut out = Writer::default();
        out.byte(VERSION);
        let (kind, name, stanza) = match self {
            Self::Stanza(stanza) => (STANZA, None, Some(stanza)),
            Self::Broadcast(stanza) => (BROADCAST, None, Some(stanza)),
            Self::Directed(stanza) => (DIRECTED, None, Some(stanza)),
            Self::Answer { resource, stanza } => (ANSWER, Some(resource), Some(stanza)),
            Self::Probe { asker } => (PROBE, Some(asker), None),
            Self::Asked { asker, stanza } => (ASKED, Some(asker), Some(stanza)),
            Self::Silent(stanza) => (SILENT, None, Some(stanza)),
        };
        out.byte(kind);
        name.into_iter().for_each(|name| out.text(name));
        if let Some(stanza) = stanza {
            let mut bytes = Vec::new();
            Frame::stanza(stanza).framing(Framing::Message).write_to(&mut bytes);
            out.bytes(&bytes);
        }
        out.into_bytes().into()
    }

    /// `None`: it is of another version.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        let kind = input.byte()?;
        let stanza = |input: &mut Reader<'_>| canonicalise(input.bytes()?).ok();
        Some(match kind {
            STANZA => Self::Stanza(stanza(&mut input)?),
            BROADCAST => Self::Broadcast(stanza(&mut input)?),
            DIRECTED => Self::Directed(stanza(&mut input)?),
            ANSWER => Self::Answer { resource: input.text()?.into(), stanza: stanza(&mut input)? },
            PROBE => Self::Probe { asker: input.text()?.into() },
            ASKED => Self::Asked { asker: input.text()?.into(), stanza: stanza(&mut input)? },
            SILENT => Self::Silent(stanza(&mut input)?),
            _ => return None,
        })
    }
}
