//! The bytes of posts, and of what an engine keeps, by [`packed`](crate::packed). A first
//! byte names the version: nodes of another one are not understood, and their posts are dropped.

use std::sync::Arc;

use super::frame::{Body, Frame, Numbered, Post, Receipt, Recipient, Recipients, Refused, Word};
use super::leg::{Down, Ending, LegId, Up};
use super::record::{Lease, Member, Move, Place, Record};
use super::slots::Export;
use super::view::{Incarnation, Slot, View};
use crate::packed::{Reader, Writer};

const VERSION: u8 = 1;
/// Of leases and records, which outlive the nodes that wrote them.
const KEPT_VERSION: u8 = 1;

const STANZA: u8 = 0;
const EXPORT: u8 = 1;
const UP: u8 = 2;
const DOWN: u8 = 3;
const PRESENCE: u8 = 4;
const TOLD: u8 = 5;

impl Post {
    pub(crate) fn encode(&self) -> Arc<[u8]> {
        let frames = self.frames.iter().map(|numbered| numbered.frame.cost());
        let mut out = Writer::with_room(VERSION, frames.sum());
        out.number(self.from.0);
        out.view(self.view);
        out.number(self.base);
        out.number(self.handled);
        out.flag(self.again);
        out.list(&self.refused, |out, refused| {
            out.number(refused.seq);
            out.list(&refused.slots, |out, slot| out.number(slot.0));
        });
        out.list(&self.frames, |out, numbered| {
            out.number(numbered.seq);
            out.view(numbered.view);
            out.frame(&numbered.frame);
        });
        out.into_bytes().into()
    }

    /// `None` where it is no post of this version. What comes out takes no more memory than a small multiple of the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        if input.byte()? != VERSION {
            return None;
        }
        let post = Self {
            from: Incarnation(input.number()?),
            view: input.view()?,
            base: input.number()?,
            handled: input.number()?,
            again: input.flag()?,
            refused: input.list(|input| {
                let (seq, slots) = (input.number()?, input.list(Reader::slot)?);
                Some(Refused { seq, slots })
            })?,
            frames: input.list(|input| {
                let (seq, view) = (input.number()?, input.view()?);
                Some(Numbered { seq, view, frame: Arc::new(input.frame(true)?) })
            })?,
        };
        input.is_empty().then_some(post)
    }
}

/// The post, with what it has of slots that move as somebody else has written it.
#[cfg(all(test, feature = "server"))]
pub(crate) fn garbled(post: &[u8], garble: impl Fn(&[u8]) -> Vec<u8>) -> Option<Arc<[u8]>> {
    let mut post = Post::decode(post)?;
    for numbered in &mut post.frames {
        let mut frame = Frame::clone(&numbered.frame);
        if let Body::Export(export) = &mut frame.body {
            export.content = garble(&export.content).into();
            numbered.frame = Arc::new(frame);
        }
    }
    Some(post.encode())
}

impl Lease {
    /// For an engine to keep.
    #[must_use]
    pub fn encode(&self) -> Arc<[u8]> {
        let mut out = Writer::versioned(KEPT_VERSION);
        out.number(self.incarnation.0);
        out.text(&self.name);
        out.view(self.seen);
        out.view(self.settled);
        out.flag(self.leaving);
        out.time(self.ttl);
        out.text(&self.store);
        out.into_bytes().into()
    }

    /// `None` where it is no lease of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        if input.byte()? != KEPT_VERSION {
            return None;
        }
        let lease = Self {
            incarnation: Incarnation(input.number()?),
            name: input.text()?.into(),
            seen: input.view()?,
            settled: input.view()?,
            leaving: input.flag()?,
            ttl: input.time()?,
            store: input.text()?.into(),
        };
        input.is_empty().then_some(lease)
    }
}

impl Record {
    /// For an engine to keep: about 8 bytes for each slot.
    #[must_use]
    pub fn encode(&self) -> Arc<[u8]> {
        let mut out = Writer::versioned(KEPT_VERSION);
        out.view(self.view);
        out.text(&self.instance);
        out.list(&self.members, |out, member| {
            out.number(member.incarnation.0);
            out.text(&member.name);
        });
        // Places name nodes by their number in this list.
        let owners = self.places.iter().flat_map(|place| [place.owner, place.going_to()]);
        let mut nodes: Vec<_> = owners.flatten().map(|node| node.0).collect();
        nodes.sort_unstable();
        nodes.dedup();
        out.list(&nodes, |out, node| out.number(*node));
        let number = |node: Option<Incarnation>| {
            let found = node.and_then(|node| nodes.binary_search(&node.0).ok());
            found.map_or(0, |index| index as u64 + 1)
        };
        out.list(&self.places, |out, place| {
            out.number(number(place.owner));
            out.view(place.since);
            out.view(place.lost);
            out.number(number(place.going_to()) << 1 | u64::from(place.refused));
            if let Some(moving) = place.moving {
                out.view(moving.began);
            }
        });
        out.into_bytes().into()
    }

    /// `None` where it is no record of this version.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader::new(bytes);
        if input.byte()? != KEPT_VERSION {
            return None;
        }
        let (view, instance) = (input.view()?, input.text()?.into());
        let members = input.list(|input| {
            let incarnation = Incarnation(input.number()?);
            Some(Member { name: input.text()?.into(), incarnation })
        })?;
        let nodes = input.list(|input| input.number().map(Incarnation))?;
        let places = input.list(|input| {
            let owner = node(input.number()?, &nodes)?;
            let (since, lost) = (input.view()?, input.view()?);
            let number = input.number()?;
            let moving = match node(number >> 1, &nodes)? {
                Some(to) => Some(Move { to, began: input.view()? }),
                None => None,
            };
            Some(Place { owner, since, lost, moving, refused: number & 1 == 1 })
        })?;
        input.is_empty().then_some(Self { view, instance, members, places })
    }
}

impl Place {
    fn going_to(&self) -> Option<Incarnation> {
        self.moving.map(|one| one.to)
    }
}

/// Nought is nobody.
fn node(number: u64, nodes: &[Incarnation]) -> Option<Option<Incarnation>> {
    match usize::try_from(number).ok()?.checked_sub(1) {
        None => Some(None),
        Some(index) => nodes.get(index).copied().map(Some),
    }
}

impl Writer {
    fn view(&mut self, view: View) {
        self.number(view.term);
        self.number(view.number);
    }

    fn recipients(&mut self, to: &[Recipient]) {
        self.list(to, |out, recipient| {
            out.number(recipient.slot.0);
            out.text(&recipient.account);
        });
    }

    fn frame(&mut self, frame: &Frame) {
        // Nought is nobody.
        self.number(frame.source.map_or(0, |slot| u64::from(slot.0) + 1));
        match &frame.body {
            Body::Stanza { to, bytes, .. } => {
                self.byte(STANZA);
                self.recipients(to);
                self.bytes(bytes);
            }
            Body::Presence { to, word, bytes } => {
                self.byte(PRESENCE);
                self.recipients(to);
                self.text(&word.from);
                self.flag(word.is_available);
                self.flag(word.is_for_all);
                self.bytes(bytes);
            }
            Body::Told(bytes) => {
                self.byte(TOLD);
                self.bytes(bytes);
            }
            Body::Export(export) => {
                self.byte(EXPORT);
                self.number(export.slot.0);
                self.view(export.began);
                self.view(export.lost);
                self.view(export.seen);
                self.bytes(&export.content);
                self.list(&export.outgoing, |out, frame| out.frame(frame));
            }
            Body::Up { slot, leg, number, said } => {
                self.byte(UP);
                self.number(slot.0);
                self.leg(*leg, *number);
                self.up(said);
            }
            Body::Down { leg, number, said } => {
                self.byte(DOWN);
                self.leg(*leg, *number);
                self.down(said);
            }
        }
    }

    fn leg(&mut self, leg: LegId, number: u64) {
        self.number(leg.edge.0);
        self.number(leg.number);
        self.number(number);
    }

    fn up(&mut self, said: &Up) {
        match said {
            Up::Open(known) => {
                self.byte(0);
                self.bytes(known);
            }
            Up::Input(bytes) => {
                self.byte(1);
                self.bytes(bytes);
            }
            Up::Alive(bytes) => {
                self.byte(2);
                self.number(*bytes);
            }
            Up::Taken(bytes) => {
                self.byte(3);
                self.number(*bytes);
            }
            Up::EndOfInput => self.byte(4),
            Up::Gone => self.byte(5),
            Up::Handled(stanzas) => {
                self.byte(6);
                self.number(*stanzas);
            }
        }
    }

    fn down(&mut self, said: &Down) {
        match said {
            Down::Output { bytes, ending } => {
                self.byte(0);
                self.bytes(bytes);
                self.number(ending.map_or(0, Ending::number));
            }
            Down::Read(bytes) => {
                self.byte(1);
                self.number(*bytes);
            }
            Down::Bound => self.byte(2),
            Down::Refused => self.byte(3),
            Down::Closed { is_flushed } => self.byte(if *is_flushed { 5 } else { 4 }),
        }
    }
}

impl Reader<'_> {
    fn view(&mut self) -> Option<View> {
        Some(View { term: self.number()?, number: self.number()? })
    }

    fn slot(&mut self) -> Option<Slot> {
        self.number()?.try_into().ok().map(Slot)
    }

    fn recipients(&mut self) -> Option<Recipients> {
        let recipient = |input: &mut Self| {
            let (slot, account) = (input.slot()?, input.text()?.into());
            Some(Recipient { slot, account })
        };
        (0..self.number()?).map(|_| recipient(self)).collect()
    }

    /// `whole`: not one that goes along with a slot, which is no slot itself.
    fn frame(&mut self, whole: bool) -> Option<Frame> {
        let source = match self.number()? {
            0 => None,
            number => Some(Slot(u16::try_from(number - 1).ok()?)),
        };
        let body = match self.byte()? {
            STANZA => {
                let to = self.recipients()?;
                Body::Stanza { to, bytes: self.bytes()?.into(), receipt: Receipt::default() }
            }
            PRESENCE => {
                let to = self.recipients()?;
                let from = self.text()?.into();
                let (is_available, is_for_all) = (self.flag()?, self.flag()?);
                let word = Word { from, is_available, is_for_all };
                Body::Presence { to, word, bytes: self.bytes()?.into() }
            }
            TOLD if whole => Body::Told(self.bytes()?.into()),
            EXPORT if whole => Body::Export(Export {
                slot: self.slot()?,
                began: self.view()?,
                lost: self.view()?,
                seen: self.view()?,
                content: self.bytes()?.into(),
                outgoing: self.list(|input| input.frame(false).map(Arc::new))?,
            }),
            UP => {
                let slot = self.slot()?;
                let (leg, number) = self.leg()?;
                Body::Up { slot, leg, number, said: self.up()? }
            }
            DOWN => {
                let (leg, number) = self.leg()?;
                Body::Down { leg, number, said: self.down()? }
            }
            _ => return None,
        };
        Some(Frame { source, body })
    }

    fn leg(&mut self) -> Option<(LegId, u64)> {
        let leg = LegId { edge: Incarnation(self.number()?), number: self.number()? };
        Some((leg, self.number()?))
    }

    fn up(&mut self) -> Option<Up> {
        Some(match self.byte()? {
            0 => Up::Open(self.bytes()?.into()),
            1 => Up::Input(self.bytes()?.into()),
            2 => Up::Alive(self.number()?.try_into().ok()?),
            3 => Up::Taken(self.number()?),
            4 => Up::EndOfInput,
            5 => Up::Gone,
            6 => Up::Handled(self.number()?.try_into().ok()?),
            _ => return None,
        })
    }

    fn down(&mut self) -> Option<Down> {
        Some(match self.byte()? {
            0 => Down::Output { bytes: self.bytes()?.into(), ending: self.ending()? },
            1 => Down::Read(self.number()?),
            2 => Down::Bound,
            3 => Down::Refused,
            is_flushed @ (4 | 5) => Down::Closed { is_flushed: is_flushed == 5 },
            _ => return None,
        })
    }

    fn ending(&mut self) -> Option<Option<Ending>> {
        match u16::try_from(self.number()?).ok()? {
            0 => Some(None),
            number => Ending::of(number).map(Some),
        }
    }
}
