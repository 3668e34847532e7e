//! How a stream ends: with the client's close tag, with our error, or because its session was ended
//! elsewhere (RFC 6120 §4.4, §4.9).

use std::time::Duration;

use super::negotiate::OurHeader;
use super::{Driver, State, Want};
use crate::connection::{Close, SharedConnection};
use crate::server::FaultKind;
use crate::session::{Bound, HostCode, LastWords, Reason, Session};
use crate::stanza::Frame;
use crate::stream::{StreamCondition, StreamError};

/// A stream that we have closed.
pub(super) struct Closing<C: SharedConnection> {
    /// The session, as long as others may still be writing for it.
    pub(super) session: Option<Session<Bound, C>>,
    /// The client has closed as well: only the session's last words are still to come.
    pub(super) answered: bool,
}

impl<C: SharedConnection> Driver<C> {
    /// Ends the stream as the client's close tag does, whatever the driver waits for.
    pub(in crate::server) fn hang_up(&mut self) {
        #[cfg(feature = "cluster")]
        if self.hang_up_away() {
            return;
        }
        self.carry_out_last_presence(false);
        self.close_after_client(Reason::Closed);
    }

    /// The client sends no more, and has not closed its stream: its half of the transport has
    /// ended. To be called where the read found that, instead of [`receive`](Self::receive).
    ///
    /// The transport is lost as far as the session goes, which hibernates if it is resumable. But
    /// the client may read: what was accepted for it is written, and the close tag behind it where
    /// the session ends ([STREAM-36](crate::rules#stream-36)). Then the driver wants [`Want::Close`].
    pub fn end_of_input(&mut self) {
        if self.want == Want::StartTls {
            return self.finish(Close::Abort);
        }
        #[cfg(feature = "cluster")]
        if self.forward_end() {
            return;
        }
        self.carry_out_last_presence(true);
        match std::mem::replace(&mut self.state, State::Over) {
            State::Bound(session) => {
                session.lose_input();
                self.wait_for_close(Some(session), self.core.limits.close);
            }
            state @ (State::Closing(_) | State::Over) => self.state = state,
            // Without a header from this side there is no stream to close.
            _ if self.negotiating.as_ref().is_some_and(|it| it.header_sent) => {
                self.send(Frame::close());
            }
            State::Unauthed(_) | State::Authed(_) | State::Binding => {}
        }
        self.closed_by_client();
    }

    /// Ends the stream; the client says nothing more.
    pub(super) fn close_after_client(&mut self, reason: Reason) {
        self.close_behind(&[], reason);
    }

    /// The same, behind what only a stream without a session says.
    pub(super) fn close_behind(&mut self, words: &[Frame<'_>], reason: Reason) {
        self.end(words, reason, LastWords::Close);
        self.closed_by_client();
    }

    /// The client's close tag: if others write for the session, our own may still have to come.
    pub(super) fn closed_by_client(&mut self) {
        match &mut self.state {
            State::Closing(Closing { session: Some(_), answered }) => *answered = true,
            _ => self.finish(Close::Flush),
        }
    }

    /// Closes with a stream error: written once, with the header before it if that was not sent
    /// yet, and nothing after it (STREAM-24, STREAM-25).
    pub(super) fn fail(&mut self, error: StreamError) {
        self.fail_as(error, Reason::StreamError);
    }

    /// The same; the session ends for this reason.
    pub(super) fn fail_as(&mut self, error: StreamError, reason: Reason) {
        let header = self.header_if_due();
        self.fail_for(header.as_ref(), &error, reason);
    }

    /// The same, behind this header.
    pub(super) fn fail_behind(&mut self, header: Option<&OurHeader>, error: &StreamError) {
        self.fail_for(header, error, Reason::StreamError);
    }

    fn fail_for(&mut self, header: Option<&OurHeader>, error: &StreamError, reason: Reason) {
        if matches!(self.state, State::Closing(_) | State::Over) {
            return self.closed_by_client();
        }
        self.core.metrics.stream_error(error.condition());
        self.trace.failed(error);
        match (error.limit(), error.condition()) {
            (Some(limit), _) => self.limit(limit),
            // The server's own decision.
            (
                None,
                StreamCondition::SystemShutdown
                | StreamCondition::SeeOtherHost
                | StreamCondition::Reset,
            ) => {}
            (None, condition) => self.tell(FaultKind::Stream(condition)),
        }
        #[cfg(feature = "cluster")]
        if self.fail_away(header, error) {
            return;
        }
        let header = header.map(OurHeader::parts);
        let words: Option<[Frame<'_>; 1]> = header.as_ref().map(|header| [Frame::open(header)]);
        let words = words.as_ref().map_or(&[][..], |words| &words[..]);
        self.end(words, reason, LastWords::Error(error));
    }

    /// Ends the session of this transport with these last words, whatever state it is in, and closes the
    /// stream. A bound one is kept as long as they are not written; where there is none, `words` come first.
    fn end(&mut self, words: &[Frame<'_>], reason: Reason, last_words: LastWords<'_>) {
        let session = match std::mem::replace(&mut self.state, State::Over) {
            State::Bound(session) => {
                session.end_now(reason, Some(last_words));
                Some(session)
            }
            State::Closing(_) | State::Over => None,
            State::Unauthed(_) | State::Authed(_) | State::Binding => {
                let error = match last_words {
                    LastWords::Error(error) => Some(error),
                    LastWords::Close => None,
                };
                let mut frames = words.to_vec();
                frames.extend(Frame::ending(error, self.connection.framing()));
                let _broken = self.send_all(&mut frames);
                None
            }
        };
        self.wait_for_close(session, self.core.limits.close);
    }

    pub(super) fn wait_for_close(&mut self, session: Option<Session<Bound, C>>, time: Duration) {
        self.state = State::Closing(Closing { session, answered: false });
        self.pending = None;
        self.negotiating = None;
        self.congested = None;
        self.place().close();
        self.set_deadline(time);
    }

    pub(super) fn finish(&mut self, how: Close) {
        self.state = State::Over;
        self.pending = None;
        self.negotiating = None;
        self.want = Want::Close;
        self.place().close();
        self.connection_shielded(|connection| connection.close(how));
    }

    /// Calls the connection, whose panic is told: `None`, and it counts as broken.
    pub(super) fn connection_shielded<T>(&self, call: impl FnOnce(&C) -> T) -> Option<T> {
        self.shielded_as(HostCode::Connection, || call(&self.connection))
    }

    /// The session was ended by somebody else, or has a newer transport.
    pub(super) fn detached(&mut self) {
        match std::mem::replace(&mut self.state, State::Over) {
            State::Bound(session) if session.handle().is_ended() => {
                let limits = &self.core.limits;
                let is_clean = session.handle().is_closed();
                let time = if is_clean { limits.close_clean } else { limits.close };
                self.wait_for_close(None, time);
            }
            State::Closing(Closing { answered: false, .. }) => {
                self.state = State::Closing(Closing { session: None, answered: false });
            }
            _ => self.finish(Close::Flush),
        }
    }
}
