//! The stream of a client that is served here, as bytes, and back at the new home of its account (NODE-14): what was
//! read of it and what was not, what is put off, what the client has spent.

use std::sync::Arc;
use std::time::Duration;

use super::input::Deferred;
use super::rate::Spent;
use super::terms::Terms;
use super::{Core, Driver, State, Transport};
use crate::connection::SharedConnection;
use crate::environment::Nanos;
use crate::packed::{Reader, Writer};
use crate::server::breaks::broken;
use crate::session::{Bound, Epoch, Session};
use crate::stanza::{Frame, Framing, Stanza, canonicalise};
use crate::stream::{Heard, Limits, Parser};

impl<C: SharedConnection> Driver<C> {
    /// As [`receive_carried`](Self::receive_carried), on a stream that may move.
    pub(in crate::server) fn receive_leg(&mut self, unread: &[u8]) {
        let heard = self.rare.get_or_insert_default().heard.take();
        let mut heard = heard.unwrap_or_else(|| Box::new(Heard::new(&self.parser)));
        heard.add(unread);
        self.receive_carried(unread);
        heard.tidy(&self.parser);
        self.rare.get_or_insert_default().heard = Some(heard);
    }

    /// Takes in what it has waited for, and what the server has closed it with, and reads nothing. `false`: it still
    /// waits.
    pub(in crate::server) fn is_settled(&mut self) -> bool {
        let _its_place = self.poll_place(None);
        while self.pending.is_some() && self.poll_pending(None).is_ready() {}
        self.pending.is_none()
    }

    /// What it takes to go on elsewhere with its session; it stays as it is. `None`: it serves none.
    pub(in crate::server) fn export(&mut self) -> Option<Vec<u8>> {
        let serves = matches!(&self.state, State::Bound(session) if session.is_current());
        if !serves || self.pending.is_some() {
            return None;
        }
        let (mut out, now) = (Writer::default(), self.core.environment.now());
        let mut rare = self.rare.take().unwrap_or_default();
        if broken!(UnreadStays) {
            rare.heard = None;
        }
        let heard = rare.heard.get_or_insert_with(|| Box::new(Heard::new(&self.parser)));
        let is_open = self.parser.export(heard, &mut out).is_some();
        let deferred = rare.deferred.as_deref();
        out.option(deferred.and_then(|it| it.presence.as_ref()), stanza);
        out.option(deferred.and_then(|it| it.next.as_ref()), stanza);
        rare.terms.export(now, &mut out);
        self.rare = Some(rare);
        out.option(self.lang.as_deref(), Writer::text);
        let source = self.peer.is_known().then(|| self.peer.to_string());
        out.option(source.as_deref(), Writer::text);
        out.flag(self.is_local);
        out.flag(self.was_asked);
        out.flag(self.output_grew);
        for at in [self.deadline, self.input_lags_until] {
            out.time(Duration::from(at).saturating_sub(now));
        }
        self.spent.export(now, &mut out);
        is_open.then(|| out.into_bytes())
    }

    /// The stream lives elsewhere from now on: nothing ends with this driver.
    pub(in crate::server) fn let_go(mut self) {
        self.rare = None;
        self.pending = None;
        self.state = State::Over;
    }

    /// It goes on after it has stood for so long.
    pub(in crate::server) fn thaw(&mut self, stood: Duration) {
        for at in [&mut self.deadline, &mut self.input_lags_until] {
            *at = Duration::from(*at).saturating_add(stood).into();
        }
        if let Some(rare) = &mut self.rare {
            rare.terms.thaw(stood);
        }
        // Whether the client takes something is seen anew.
        self.stall = None;
    }

    /// One that goes on where another one was, for a session that has come with it: nothing is counted or told as if
    /// it had begun here.
    pub(in crate::server) fn moved(
        core: Arc<Core<C>>,
        session: Session<Bound, C>,
        moving: Moving,
    ) -> Self {
        let mut transport = Transport::new().secure(true);
        transport.source = moving.source;
        let mut driver = Self::new(core, session.connection().clone(), transport);
        let rare = driver.rare.get_or_insert_default();
        (rare.terms, rare.deferred) = (moving.terms, moving.deferred.map(Box::new));
        (rare.is_leg, rare.heard) = (true, Some(Box::new(Heard::new(&moving.parser))));
        (driver.parser, driver.lang) = (moving.parser, moving.lang);
        driver.is_local = moving.is_local;
        (driver.was_asked, driver.output_grew) = (moving.was_asked, moving.output_grew);
        (driver.deadline, driver.input_lags_until) = (moving.deadline, moving.input_lags_until);
        driver.spend_for(session.account());
        driver.spent = moving.spent;
        let _first = driver.drain_hook.session.set((session.handle(), session.epoch()));
        let (is_resumed, addresses) =
            (session.epoch() != Epoch::default(), driver.core.log_addresses);
        driver.trace.bound(session.id(), session.jid(), is_resumed, addresses);
        driver.negotiating = None;
        driver.place = None;
        driver.state = State::Bound(session);
        driver
    }
}

/// A stream on its way to another node.
pub(in crate::server) struct Moving {
    parser: Parser,
    deferred: Option<Deferred>,
    terms: Terms,
    lang: Option<Box<str>>,
    source: Option<String>,
    is_local: bool,
    was_asked: bool,
    output_grew: bool,
    deadline: Nanos,
    input_lags_until: Nanos,
    spent: Spent,
}

impl Moving {
    pub(in crate::server) fn read(bytes: &[u8], limits: &Limits, now: Duration) -> Option<Self> {
        let mut input = Reader::new(bytes);
        let parser = Parser::import(limits, &mut input)?;
        let (presence, next) = (input.option(read_stanza)?, input.option(read_stanza)?);
        let is_deferred = presence.is_some() || next.is_some();
        let moving = Self {
            parser,
            deferred: is_deferred.then_some(Deferred { presence, next }),
            terms: Terms::import(now, &mut input)?,
            lang: input.option(Reader::text)?.map(Box::from),
            source: input.option(Reader::text)?.map(str::to_owned),
            is_local: input.flag()?,
            was_asked: input.flag()?,
            output_grew: input.flag()?,
            deadline: now.saturating_add(input.time()?).into(),
            input_lags_until: now.saturating_add(input.time()?).into(),
            spent: Spent::import(now, &mut input)?,
        };
        input.is_empty().then_some(moving)
    }
}

fn stanza(out: &mut Writer, stanza: &Stanza) {
    let mut bytes = Vec::new();
    Frame::stanza(stanza).framing(Framing::Message).write_to(&mut bytes);
    out.bytes(&bytes);
}

fn read_stanza(input: &mut Reader<'_>) -> Option<Stanza> {
    canonicalise(input.bytes()?).ok()
}
