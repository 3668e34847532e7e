//! Ways to break a node on purpose, in tests alone: the simulator is to notice each (docs/simulator.md).

/// Whether a test breaks this now.
macro_rules! broken {
    ($what:ident) => {{
        #[cfg(test)]
        let broken = crate::server::breaks::Break::$what.is_made();
        #[cfg(not(test))]
        let broken = false;
        broken
    }};
}
pub(in crate::server) use broken;

#[cfg(test)]
pub(in crate::server) use made::Break;

#[cfg(test)]
mod made {
    use std::cell::Cell;

    thread_local! {
        /// A world has one thread.
        static MADE: Cell<Option<Break>> = const { Cell::new(None) };
    }

    macro_rules! breaks {
        ($($(#[$doc:meta])* $name:ident,)*) => {
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub(in crate::server) enum Break { $($(#[$doc])* $name,)* }

            impl Break {
                pub(in crate::server) const ALL: &[Self] = &[$(Self::$name,)*];
            }
        };
    }

    breaks! {
        /// A slot is handed over while something of it waits in the inbox (NODE-9).
        InboxUnheard,
        /// A slot is handed over while jobs of its accounts are under way (NODE-9).
        BusyExported,
        /// What was read to the middle of an element stays behind (NODE-14).
        UnreadStays,
        /// Streams do not go along with their sessions (NODE-14).
        LegsStay,
        /// What extensions keep of a session stays behind (NODE-9).
        KeptStays,
        /// The ledger stays behind (NODE-17).
        LedgerStays,
        /// What accounts of one node know of each other is not put down when they part (NODE-17).
        PartedUnnoted,
        /// Nobody is told what is lost (NODE-17).
        LostUntold,
        /// An account that nobody is there of any more knows what it knew (NODE-17).
        GoneUnheard,
        /// Who becomes available is not told who is there at other nodes (PRES-13).
        ProbeUnheard,
        /// The answer to a probe goes the long way to an account that has come meanwhile (NODE-6).
        AnsweredFromAfar,
        /// Clients of a home that is lost stay connected (NODE-13).
        LegsOutliveHome,
        /// Clients of an edge that is lost stay connected (NODE-13).
        LegsOutliveEdge,
        /// A client is told that a stanza is handled before its home has it (SM-5).
        HandledAtOnce,
        /// A slot that stands still takes what its own node has for it (NODE-9).
        ServedWhileFrozen,
        /// What has moved away is here still (NODE-9).
        KeptAfterMove,
        /// The store is told the token of an earlier stay (NODE-3).
        TokenStays,
        /// Clients are sent away before their accounts have moved (NODE-19).
        LeavesAtOnce,
        /// A deadline has no end (NODE-1).
        NoDeadline,
    }

    impl Break {
        pub(in crate::server) fn is_made(self) -> bool {
            MADE.get() == Some(self)
        }

        /// From now on, on this thread.
        pub(in crate::server) fn make(broken: Option<Self>) {
            MADE.set(broken);
        }
    }
}
