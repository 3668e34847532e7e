//! Stanzas of a client that other nodes have not handled yet: it is told that they are handled when they are (SM-5).

use std::collections::VecDeque;

use super::Outbound;
use crate::connection::SharedConnection;

/// What is under way, and what the client has asked meanwhile; numbers of received stanzas, in order.
#[derive(Default)]
pub(crate) struct Underway {
    stanzas: VecDeque<u32>,
    /// The last stanza before each `<r/>` that waits for an answer.
    asks: VecDeque<u32>,
}

impl Underway {
    /// Requests that were made of another node before this session came here.
    pub(super) fn asked(asks: impl IntoIterator<Item = u32>) -> Option<Box<Self>> {
        let asks: VecDeque<_> = asks.into_iter().collect();
        (!asks.is_empty()).then(|| Box::new(Self { stanzas: VecDeque::new(), asks }))
    }

    pub(super) fn asks(&self) -> Vec<u32> {
        self.asks.iter().copied().collect()
    }

    /// The next request before which nothing is under way.
    fn next(&mut self) -> Option<u32> {
        let waits = |asked: &u32| {
            let oldest = self.stanzas.front();
            // Numbers wrap.
            oldest.is_some_and(|oldest| asked.wrapping_sub(*oldest) < u32::MAX / 2)
        };
        if self.asks.front().is_none_or(waits) { None } else { self.asks.pop_front() }
    }
}

impl<C: SharedConnection> Outbound<C> {
    /// The stanza that is in work goes to another node: its number, where acknowledgements are wanted.
    pub(crate) fn sets_out(&mut self) -> Option<u32> {
        let number = self.received;
        let retained = self.retained.as_mut()?;
        retained.underway.get_or_insert_default().stanzas.push_back(number);
        Some(number)
    }

    /// That stanza is handled. Returned is what the client is to be told, which has asked.
    pub(crate) fn has_arrived(&mut self, number: u32) -> Vec<u32> {
        if let Some(underway) = self.retained.as_mut().and_then(|it| it.underway.as_mut())
            && let Some(place) = underway.stanzas.iter().position(|one| *one == number)
        {
            underway.stanzas.remove(place);
        }
        self.owed()
    }

    /// What the client has asked and can be told now.
    pub(crate) fn owed(&mut self) -> Vec<u32> {
        let mut owed = Vec::new();
        let Some(retained) = &mut self.retained else { return owed };
        let Some(underway) = &mut retained.underway else { return owed };
        // Whoever comes back hears all of it.
        if self.link.is_none() || self.ended {
            underway.asks.clear();
        }
        while let Some(asked) = underway.next() {
            owed.push(asked.wrapping_sub(retained.from));
        }
        if underway.stanzas.is_empty() && underway.asks.is_empty() {
            retained.underway = None;
        }
        owed
    }

    /// The client asks what is handled: `Some(None)` where it is told later.
    pub(crate) fn handled_when_asked(&mut self) -> Option<Option<u32>> {
        let (handled, received) = (self.handled()?, self.received);
        let underway = self.retained.as_mut().and_then(|retained| retained.underway.as_mut());
        let Some(underway) = underway.filter(|underway| !underway.stanzas.is_empty()) else {
            return Some(Some(handled));
        };
        underway.asks.push_back(received);
        Some(None)
    }

    /// A new transport tells all that was received.
    pub(crate) fn forget_asks(&mut self) {
        if let Some(underway) = self.retained.as_mut().and_then(|it| it.underway.as_mut()) {
            underway.asks.clear();
        }
    }
}
