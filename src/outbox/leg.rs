//! The buffer of a client whose transport is at another node (NODE-12): what waits is taken away in pieces, several at
//! a time, and counts as waiting until the client has it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use super::{Drain, Edges, Marks, Outbox, message};
use crate::cluster::leg::Ending;
use crate::packed::{Reader, Writer};
use crate::stanza::{Frame, FrameParts, Framing, Limit, StreamCondition};

impl Outbox {
    /// The two halves of such a buffer.
    pub(crate) fn of_leg(marks: Marks, framing: Framing) -> (Arc<Self>, Drain) {
        let edges = match framing {
            Framing::Stream => Edges::Leg,
            Framing::Message => Edges::LegLength,
        };
        Self::with_edges(marks, edges)
    }

    /// Such a buffer as it was elsewhere.
    pub(crate) fn import_leg(marks: Marks, input: &mut Reader<'_>) -> Option<(Arc<Self>, Drain)> {
        let framing = if input.flag()? { Framing::Message } else { Framing::Stream };
        let (outbox, drain) = Self::of_leg(marks, framing);
        {
            let mut state = outbox.state.lock();
            state.buffer = input.bytes()?.to_vec();
            state.handed_out = input.count()?;
            state.written = input.number()?;
        }
        outbox.ending.store(input.small()?.try_into().ok()?, Ordering::Relaxed);
        Some((outbox, drain))
    }

    pub(super) fn append_to_leg(&self, buffer: &mut Vec<u8>, frame: Frame<'_>) {
        let ending = match frame.parts() {
            FrameParts::Error(error) => {
                let is_too_long = matches!(
                    error.limit(),
                    Some(Limit::ElementBytes | Limit::ElementBytesBeforeAuth)
                );
                Some(Ending { condition: Some(error.condition()), is_too_long })
            }
            FrameParts::Moved(_) => {
                let condition = Some(StreamCondition::SeeOtherHost);
                Some(Ending { condition, is_too_long: false })
            }
            // That of an error is known already.
            FrameParts::Close if self.ending.load(Ordering::Relaxed) == 0 => {
                Some(Ending { condition: None, is_too_long: false })
            }
            _ => None,
        };
        if let Some(ending) = ending {
            self.ending.store(ending.number(), Ordering::Relaxed);
        }
        match self.edges {
            Edges::LegLength => message::append(buffer, frame),
            _ => frame.write_to(buffer),
        }
    }
}

impl Drain {
    /// Takes what waits, with the error in it that the stream is closed with; `None` at the end. It counts as waiting
    /// until it [was taken](Self::taken), which need not be before more is taken away.
    pub(crate) fn poll_take(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<(Vec<u8>, Option<Ending>)>> {
        self.poll_fill(cx).map(|more| more.is_some()).map(|more| {
            more.then(|| {
                let piece = std::mem::take(&mut self.piece);
                let ending = Ending::of(self.outbox.ending.swap(0, Ordering::Relaxed));
                (piece, ending)
            })
        })
    }

    /// What it takes to go on with it elsewhere.
    pub(crate) fn export(&self, out: &mut Writer) {
        let state = self.outbox.state.lock();
        out.flag(self.outbox.edges == Edges::LegLength);
        out.bytes(&state.buffer);
        out.count(state.handed_out);
        out.number(state.written);
        out.number(self.outbox.ending.load(Ordering::Relaxed));
    }

    /// The client has taken so many bytes more.
    pub(crate) fn taken(&self, bytes: usize) {
        let mut state = self.outbox.state.lock();
        state.written = state.written.saturating_add(bytes as u64);
        state.handed_out = state.handed_out.saturating_sub(bytes);
        if state.handed_out == 0 && state.buffer.is_empty() {
            let hook = state.hook.clone();
            drop(state);
            if let Some(hook) = hook {
                hook.drained();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;
    use crate::connection::{Close, Connection as _};
    use crate::stanza::StreamError;

    fn take(drain: &mut Drain) -> Poll<Option<(Vec<u8>, Option<Ending>)>> {
        drain.poll_take(&mut Context::from_waker(Waker::noop()))
    }

    fn piece(drain: &mut Drain) -> Vec<u8> {
        let Poll::Ready(Some((piece, None))) = take(drain) else { panic!("a piece") };
        piece
    }

    #[test]
    fn node_12_what_is_under_way_counts_as_waiting_until_the_client_has_it() {
        let (outbox, mut drain) = Outbox::of_leg(Marks::new(30, 60), Framing::Stream);
        outbox.send(Frame::element(b"<first/>")).unwrap();
        assert_eq!(piece(&mut drain), b"<first/>");
        outbox.send(Frame::element(b"<second/>")).unwrap();
        assert_eq!(piece(&mut drain), b"<second/>", "nobody waits for the first");
        assert_eq!((outbox.waiting(), outbox.written()), (17, 0));
        assert!(take(&mut drain).is_pending());
        let much = [b' '; 50];
        outbox.send(Frame::element(&much)).unwrap_err();
        drain.taken(10);
        assert_eq!((outbox.waiting(), outbox.written()), (7, 10));
        drain.taken(7);
        outbox.send(Frame::element(&much)).unwrap();
        assert_eq!(piece(&mut drain).len(), 50);
    }

    #[test]
    fn node_12_the_last_words_are_known_by_their_error() {
        let error = StreamError::exceeded(Limit::ElementBytes);
        for framing in [Framing::Stream, Framing::Message] {
            let (outbox, mut drain) = Outbox::of_leg(Marks::default(), framing);
            outbox.send(Frame::element(b"<a/>")).unwrap();
            piece(&mut drain);
            outbox.send_all(&[Frame::error(&error).framing(framing), Frame::close()]).unwrap();
            outbox.close(Close::Flush);
            let Poll::Ready(Some((bytes, Some(ending)))) = take(&mut drain) else {
                panic!("words")
            };
            assert_eq!(ending.condition, Some(StreamCondition::PolicyViolation));
            assert!(ending.is_too_long);
            let mut rest = &bytes[..];
            let messages = std::iter::from_fn(|| message::take(&mut rest));
            assert_eq!(messages.count(), if framing == Framing::Message { 2 } else { 0 });
            assert_eq!(take(&mut drain), Poll::Ready(None));
        }
    }
}
