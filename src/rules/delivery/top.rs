//! Which available sessions get a message to the bare JID (RFC 6121 §8.5.2.1.1).

/// The sessions that get such a message, as a test to put to each available session.
///
/// They are all that share the highest priority of 0 or more (rule MSG-2). If all of these are
/// hibernating, the live ones of highest priority get the message too, so that it does not wait for
/// a device that may be gone (rule MSG-3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Top {
    highest: i8,
    /// -1 if there is no live one.
    highest_live: i8,
}

impl Top {
    /// Chooses among the available sessions, each given as its priority and whether it has a
    /// transport; `None` if all are negative.
    #[must_use]
    pub(crate) fn choose(available: impl IntoIterator<Item = (i8, bool)>) -> Option<Self> {
        let (mut highest, mut highest_live) = (-1, -1);
        for (priority, live) in available {
            highest = highest.max(priority);
            if live {
                highest_live = highest_live.max(priority);
            }
        }
        (highest >= 0).then_some(Self { highest, highest_live })
    }

    /// Whether an available session with this priority, live or hibernating, gets the message.
    #[must_use]
    pub(crate) fn takes(&self, priority: i8, live: bool) -> bool {
        priority == self.highest || live && priority >= 0 && priority == self.highest_live
    }
}
