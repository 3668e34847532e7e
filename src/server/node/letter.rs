//! What one home tells another about an account, and one node another: the bytes of a frame's body.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use jid::BareJid;

use super::act::{Act, Said};
use crate::cluster::Incarnation;
use crate::packed::{Reader, Writer};
use crate::server::driver::admission::BarNumber;
use crate::stanza::{Frame, Framing, Stanza, canonicalise};
use crate::stream::StreamError;

const VERSION: u8 = 1;

const BROADCAST: u8 = 16;
const DIRECTED: u8 = 17;
const ANSWER: u8 = 18;
const PROBE: u8 = 19;
const ASKED: u8 = 20;
const SILENT: u8 = 21;

const STANZA: u8 = 0;
const ACT: u8 = 1;
const OF_HOST: u8 = 2;
const REPLY: u8 = 3;

const SAID: u8 = 0;
const DOMAINS: u8 = 1;
const FOR_COMPONENT: u8 = 2;
const TOLD_ANSWER: u8 = 3;
const BARRED: u8 = 4;
const VOIDED: u8 = 5;
const WHO_IS_ONLINE: u8 = 6;

/// What comes from another home, for an account.
pub(super) enum Letter {
    /// For the account, or one of its sessions, by its `to`.
    Stanza(Stanza),
    /// An answer of this node to a session of the account, by its `to`: nobody is asked about it.
    Reply(Stanza),
    /// The host's, in the name of the account.
    OfHost(Stanza),
    /// The host of this node wants something of the account, and waits for what is said by this number.
    Act { from: Incarnation, number: u64, act: Box<Act> },
    /// What a session broadcasts, without a `to`: for whoever is available, but not for these resources.
    Broadcast { stanza: Stanza, except: Vec<String> },
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

/// What comes from another node.
pub(super) enum Tale {
    /// What has become of an act.
    Said { number: u64, said: Said },
    /// The domains of its components.
    Domains(Vec<String>),
    /// For a component here.
    ForComponent(Stanza),
    /// An answer to a request of one of our domains, which a node has not made itself.
    Answer(Stanza),
    /// Streams that are authenticated as the account, and have no session, end; where it is for all, none that has begun
    /// before may authenticate as it for so long.
    Barred { account: BareJid, error: StreamError, time: (Duration, BarNumber), is_for_all: bool },
    /// The accounts that are online there are wanted, and waited for by this number.
    WhoIsOnline { number: u64 },
    /// The tokens of these accounts that were issued before this are good for nothing, whatever the store says.
    Voided(Vec<(BareJid, SystemTime)>),
}

pub(super) fn stanza(out: &mut Writer, stanza: &Stanza) {
    let frame = Frame::stanza(stanza).framing(Framing::Message);
    out.bytes_by(frame.len(), |out| frame.write_to(out));
}

pub(super) fn read_stanza(input: &mut Reader<'_>) -> Option<Stanza> {
    canonicalise(input.bytes()?).ok()
}

/// Something of about so many bytes, behind the version.
fn versioned(bytes: usize, write: impl FnOnce(&mut Writer)) -> Arc<[u8]> {
    let mut out = Writer::with_room(VERSION, bytes);
    write(&mut out);
    out.into_bytes().into()
}

/// `None`: it is of another version, or there is more than that.
fn read_versioned<T>(bytes: &[u8], read: impl FnOnce(&mut Reader<'_>) -> Option<T>) -> Option<T> {
    let mut input = Reader::new(bytes);
    if input.byte()? != VERSION {
        return None;
    }
    let value = read(&mut input)?;
    input.is_empty().then_some(value)
}

impl Letter {
    pub(super) fn encode(&self) -> Arc<[u8]> {
        let (kind, name, of) = match self {
            Self::Stanza(of) => (STANZA, None, Some(of)),
            Self::Reply(of) => (REPLY, None, Some(of)),
            Self::OfHost(of) => (OF_HOST, None, Some(of)),
            Self::Act { .. } => (ACT, None, None),
            Self::Broadcast { stanza: of, .. } => (BROADCAST, None, Some(of)),
            Self::Directed(of) => (DIRECTED, None, Some(of)),
            Self::Answer { resource, stanza } => (ANSWER, Some(resource), Some(stanza)),
            Self::Probe { asker } => (PROBE, Some(asker), None),
            Self::Asked { asker, stanza } => (ASKED, Some(asker), Some(stanza)),
            Self::Silent(of) => (SILENT, None, Some(of)),
        };
        versioned(of.map_or(0, Stanza::len), |out| {
            out.byte(kind);
            match self {
                Self::Act { from, number, act } => {
                    out.number(from.0);
                    out.number(*number);
                    act.write(out);
                }
                Self::Broadcast { except, .. } => out.texts(except.iter().map(String::as_str)),
                _ => name.into_iter().for_each(|name| out.text(name)),
            }
            of.into_iter().for_each(|of| stanza(out, of));
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        read_versioned(bytes, |input| {
            Some(match input.byte()? {
                STANZA => Self::Stanza(read_stanza(input)?),
                REPLY => Self::Reply(read_stanza(input)?),
                OF_HOST => Self::OfHost(read_stanza(input)?),
                ACT => {
                    let (from, number) = (Incarnation(input.number()?), input.number()?);
                    Self::Act { from, number, act: Act::read(input)?.into() }
                }
                BROADCAST => {
                    let except = input.texts()?.into_iter().map(str::to_owned).collect();
                    Self::Broadcast { except, stanza: read_stanza(input)? }
                }
                DIRECTED => Self::Directed(read_stanza(input)?),
                ANSWER => {
                    Self::Answer { resource: input.text()?.into(), stanza: read_stanza(input)? }
                }
                PROBE => Self::Probe { asker: input.text()?.into() },
                ASKED => Self::Asked { asker: input.text()?.into(), stanza: read_stanza(input)? },
                SILENT => Self::Silent(read_stanza(input)?),
                _ => return None,
            })
        })
    }
}

impl Tale {
    pub(super) fn encode(&self) -> Arc<[u8]> {
        versioned(0, |out| match self {
            Self::Said { number, said } => {
                out.byte(SAID);
                out.number(*number);
                said.write(out);
            }
            Self::Domains(domains) => {
                out.byte(DOMAINS);
                out.texts(domains.iter().map(String::as_str));
            }
            Self::ForComponent(of) => {
                out.byte(FOR_COMPONENT);
                stanza(out, of);
            }
            Self::Answer(of) => {
                out.byte(TOLD_ANSWER);
                stanza(out, of);
            }
            Self::Barred { account, error, time: (time, number), is_for_all } => {
                out.byte(BARRED);
                out.text(account.as_str());
                error.pack(out);
                out.time(*time);
                out.number(*number);
                out.flag(*is_for_all);
            }
            Self::WhoIsOnline { number } => {
                out.byte(WHO_IS_ONLINE);
                out.number(*number);
            }
            Self::Voided(those) => {
                out.byte(VOIDED);
                out.list(those, |out, (account, since)| {
                    out.text(account.as_str());
                    out.date(*since);
                });
            }
        })
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        read_versioned(bytes, |input| match input.byte()? {
            SAID => Some(Self::Said { number: input.number()?, said: Said::read(input)? }),
            DOMAINS => {
                let domains = input.texts()?.into_iter().map(str::to_owned).collect();
                Some(Self::Domains(domains))
            }
            FOR_COMPONENT => read_stanza(input).map(Self::ForComponent),
            TOLD_ANSWER => read_stanza(input).map(Self::Answer),
            BARRED => Some(Self::Barred {
                account: BareJid::new(input.text()?).ok()?,
                error: StreamError::unpack(input)?,
                time: (input.time()?, input.number()?),
                is_for_all: input.flag()?,
            }),
            WHO_IS_ONLINE => Some(Self::WhoIsOnline { number: input.number()? }),
            VOIDED => {
                let one = |input: &mut Reader<'_>| {
                    Some((BareJid::new(input.text()?).ok()?, input.date()?))
                };
                input.list(one).map(Self::Voided)
            }
            _ => None,
        })
    }
}
