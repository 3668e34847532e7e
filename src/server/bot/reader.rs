//! What the server writes for a bot, read again.

use std::task::{Context, Poll, Waker, ready};

#[cfg(feature = "cluster")]
use jid::FullJid;

use super::BotError;
use crate::outbox::Drain;
use crate::server::driver::negotiate::local::ENABLED;
use crate::stanza::{Stanza, StanzaError};
use crate::stream::{self, Event, Nonza, Parser, STREAM_NAMESPACE, StreamCondition};

/// Something for a bot.
pub(super) enum Element {
    Stanza(Stanza),
    /// From here on stanzas are counted.
    Counted,
}

/// What the server writes for a bot, read again.
pub(super) struct Reader {
    drain: Drain,
    parser: Parser,
    pub(super) condition: Option<StreamCondition>,
    is_over: bool,
}

impl Reader {
    pub(super) fn new(drain: Drain) -> Self {
        // What the server writes was let in already, and a roster may be large.
        let most = 1 << 28;
        let limits = stream::Limits::default().with_element_bytes(most);
        let limits =
            limits.with_elements(64, most).with_depth(8, 1 << 10).with_attributes(16, most);
        let mut parser = Parser::new(&limits);
        parser.authenticated(&limits);
        Self { drain, parser, condition: None, is_over: false }
    }

    pub(super) fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Element>> {
        while !self.is_over {
            match self.parser.next() {
                Ok(Some(Event::Stanza(received))) => {
                    let stanza = received.stamp(received.from(), None);
                    return Poll::Ready(Some(Element::Stanza(stanza)));
                }
                Ok(Some(Event::Nonza(nonza))) if nonza.is("enabled", ENABLED) => {
                    return Poll::Ready(Some(Element::Counted));
                }
                Ok(Some(Event::Nonza(nonza))) => self.note(&nonza),
                Ok(Some(Event::Header(_) | Event::Refused(_))) => {}
                Ok(Some(Event::End)) | Err(_) => self.is_over = true,
                Ok(None) => {
                    let Some(bytes) = ready!(self.drain.poll_fill(cx)) else { break };
                    self.parser.feed(bytes);
                    let taken = bytes.len();
                    self.drain.consume(taken);
                }
            }
        }
        self.is_over = true;
        Poll::Ready(None)
    }

    fn note(&mut self, nonza: &Nonza) {
        if nonza.is("error", STREAM_NAMESPACE) {
            let mut children = nonza.children();
            let known = |name: &str| StreamCondition::ALL.into_iter().find(|c| c.as_str() == name);
            self.condition = children.find_map(|child| known(child.name()));
        }
    }

    /// What the session is called that is bound at another node.
    #[cfg(feature = "cluster")]
    pub(super) fn poll_jid(&mut self, cx: &mut Context<'_>) -> Poll<Result<FullJid, BotError>> {
        while let Some(element) = ready!(self.poll_next(cx)) {
            let Element::Stanza(answer) = element else { continue };
            if let Some(error) = StanzaError::from_stanza(&answer) {
                return Poll::Ready(Err(BotError::Refused(error)));
            }
            let jid =
                answer.children().flat_map(|bind| bind.children()).find(|it| it.name() == "jid");
            if let Some(jid) = jid.and_then(|jid| FullJid::new(&jid.text()).ok()) {
                return Poll::Ready(Ok(jid));
            }
        }
        Poll::Ready(Err(BotError::Ended(self.condition)))
    }

    /// Takes what stands before an answer, which needs its room.
    pub(super) fn skip(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(_)) = self.poll_next(&mut nobody) {}
    }

    /// Why there is no session, where none was bound.
    pub(super) fn refusal(&mut self) -> BotError {
        let mut nobody = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(element)) = self.poll_next(&mut nobody) {
            if let Element::Stanza(answer) = element
                && let Some(error) = StanzaError::from_stanza(&answer)
            {
                return BotError::Refused(error);
            }
        }
        BotError::Ended(self.condition)
    }
}
