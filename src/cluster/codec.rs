//! The bytes of posts. Numbers are LEB128; what has a length is preceded by it. A first byte names the version: nodes
//! of another one are not understood, and their posts are dropped.

use std::sync::Arc;

use super::frame::{Body, Frame, Numbered, Post, Recipient, Refused, Word};
use super::leg::{Down, Ending, LegId, Up};
use super::slots::Export;
use super::view::{Incarnation, Slot, View};

const VERSION: u8 = 1;

const STANZA: u8 = 0;
const EXPORT: u8 = 1;
const UP: u8 = 2;
const DOWN: u8 = 3;
const PRESENCE: u8 = 4;
const TOLD: u8 = 5;

impl Post {
    pub(crate) fn encode(&self) -> Arc<[u8]> {
        let mut out = Writer(vec![VERSION]);
        out.number(self.from.0);
        out.view(self.view);
        out.number(self.base);
        out.number(self.handled);
        out.number(self.again.into());
        out.list(&self.refused, |out, refused| {
            out.number(refused.seq);
            out.list(&refused.slots, |out, slot| out.number(slot.0.into()));
        });
        out.list(&self.frames, |out, numbered| {
            out.number(numbered.seq);
            out.view(numbered.view);
            out.frame(&numbered.frame);
        });
        out.0.into()
    }

    /// `None` where it is no post of this version. What comes out takes no more memory than a small multiple of the bytes.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Reader(bytes);
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
        input.0.is_empty().then_some(post)
    }
}

struct Writer(Vec<u8>);

impl Writer {
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn view(&mut self, view: View) {
        self.number(view.term);
        self.number(view.number);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn list<T>(&mut self, items: &[T], each: impl Fn(&mut Self, &T)) {
        self.number(items.len() as u64);
        items.iter().for_each(|item| each(self, item));
    }

    fn recipients(&mut self, to: &[Recipient]) {
        self.list(to, |out, recipient| {
            out.number(recipient.slot.0.into());
            out.bytes(recipient.account.as_bytes());
        });
    }

    fn frame(&mut self, frame: &Frame) {
        // Nought is nobody.
        self.number(frame.source.map_or(0, |slot| u64::from(slot.0) + 1));
        match &frame.body {
            Body::Stanza { to, bytes } => {
                self.0.push(STANZA);
                self.recipients(to);
                self.bytes(bytes);
            }
            Body::Presence { to, word, bytes } => {
                self.0.push(PRESENCE);
                self.recipients(to);
                self.bytes(word.from.as_bytes());
                self.number(word.is_available.into());
                self.number(word.is_for_all.into());
                self.bytes(bytes);
            }
            Body::Told(bytes) => {
                self.0.push(TOLD);
                self.bytes(bytes);
            }
            Body::Export(export) => {
                self.0.push(EXPORT);
                self.number(export.slot.0.into());
                self.view(export.began);
                self.view(export.lost);
                self.view(export.seen);
                self.bytes(&export.content);
                self.list(&export.outgoing, |out, frame| out.frame(frame));
            }
            Body::Up { slot, leg, number, said } => {
                self.0.push(UP);
                self.number(slot.0.into());
                self.leg(*leg, *number);
                self.up(said);
            }
            Body::Down { leg, number, said } => {
                self.0.push(DOWN);
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
                self.0.push(0);
                self.bytes(known);
            }
            Up::Input(bytes) => {
                self.0.push(1);
                self.bytes(bytes);
            }
            Up::Alive(bytes) => {
                self.0.push(2);
                self.number((*bytes).into());
            }
            Up::Taken(bytes) => {
                self.0.push(3);
                self.number(*bytes);
            }
            Up::EndOfInput => self.0.push(4),
            Up::Gone => self.0.push(5),
        }
    }

    fn down(&mut self, said: &Down) {
        match said {
            Down::Output { bytes, ending } => {
                self.0.push(0);
                self.bytes(bytes);
                self.number(ending.map_or(0, Ending::number).into());
            }
            Down::Read(bytes) => {
                self.0.push(1);
                self.number(*bytes);
            }
            Down::Bound => self.0.push(2),
            Down::Refused => self.0.push(3),
            Down::Closed { is_flushed } => self.0.push(if *is_flushed { 5 } else { 4 }),
        }
    }
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    /// Each number in its shortest form.
    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return (byte != 0 || shift == 0).then_some(number);
            }
        }
        None
    }

    fn flag(&mut self) -> Option<bool> {
        match self.number()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn view(&mut self) -> Option<View> {
        Some(View { term: self.number()?, number: self.number()? })
    }

    fn slot(&mut self) -> Option<Slot> {
        self.number()?.try_into().ok().map(Slot)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    fn list<T>(&mut self, mut each: impl FnMut(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        // No room is taken for what only a number says is there.
        let length = self.number()?;
        (0..length).map(|_| each(self)).collect()
    }

    fn text(&mut self) -> Option<&'a str> {
        str::from_utf8(self.bytes()?).ok()
    }

    fn recipients(&mut self) -> Option<Vec<Recipient>> {
        self.list(|input| {
            let (slot, account) = (input.slot()?, input.text()?.into());
            Some(Recipient { slot, account })
        })
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
                Body::Stanza { to, bytes: self.bytes()?.into() }
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
