//! Ways to break the protocol on purpose, each with a seed that shows it.

macro_rules! breaks {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Break { $($(#[$doc])* $name,)* }

        impl Break {
            pub(super) const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

breaks! {
    /// A node acts past its deadline (NODE-1).
    NoDeadline,
    /// The margin is nought, with clocks that drift (NODE-1).
    NoMargin,
    /// An answer of the engine that comes after the deadline revives (NODE-1).
    AnswerRevives,
    /// A lease belongs to the name, not to the incarnation.
    LeaseByName,
    /// The store takes whatever comes (NODE-3).
    NoStoreFence,
    /// Only writes raise the fence, not the new owner's first look (NODE-3).
    OnlyWritesFence,
    /// Frames of those who are not members are handled (NODE-4).
    StrangersHeard,
    /// What a slot sent before it was lost is handled (NODE-4).
    VoidHeard,
    /// Frames of a newer view are handled before that view is known (NODE-4).
    NewerViewHeard,
    /// What is sent again bears the view of now (NODE-4).
    StampedAnew,
    /// Answered when received (NODE-5).
    AckOnReceipt,
    /// Frames go to a new owner while the old one has not answered (NODE-6).
    NewOwnerAtOnce,
    /// A slot that has come is open while something is under way to where it was (NODE-6).
    OpensAtOnce,
    /// What came back goes behind what is new (NODE-6).
    ReturnedBehind,
    /// Members are judged by leases that were read before the record (NODE-8).
    StaleCensus,
    /// A slot that moves goes on taking input (NODE-9).
    NoFreeze,
    /// Exported before what it sent is answered (NODE-9).
    NoDrain,
    /// A move that is cancelled does not raise `since` (NODE-9).
    CancelUnstamped,
    /// Forgotten when exported, not when the new owner has it (NODE-9).
    ForgottenAtExport,
    /// A lower view is taken (NODE-11).
    ViewRegress,
    /// No wait after the engine has forgotten (NODE-11).
    NoWait,
    /// The leases are read before that wait is over (NODE-11).
    CensusBeforeWait,
    /// Whoever leads makes the new record, not who has seen most (NODE-11).
    OwnRecord,
    /// The new term is above what members have seen, not one that the store counts (NODE-11).
    TermUnasked,
    /// A term that was counted for an earlier instance is used for a later one (NODE-11).
    TermKept,
    /// What the presence of a session was is said again, not only what it is (NODE-10).
    PresenceSentAgain,
    /// An end is told to whoever is there, known to him or not (NODE-17).
    EndToAll,
    /// Nobody keeps who is known from elsewhere (NODE-17).
    NoLedger,
    /// The ledger does not move with its slot (NODE-17).
    LedgerStays,
    /// Told are ends of those whose owner is gone, not of those whose slot was lost (NODE-17).
    SweepByOwner,
    /// A node is gone as soon as it owns nothing (NODE-19).
    LeavesAtOnce,
}

impl Break {
    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|one| format!("{one:?}") == name)
    }
}

/// A seed in which the world shows it.
pub(super) const SEEDS: &[(Break, u64)] = &[
    (Break::NoDeadline, 21),
    (Break::NoMargin, 111),
    (Break::AckOnReceipt, 44),
    (Break::NewOwnerAtOnce, 125),
    (Break::ReturnedBehind, 4),
    (Break::NewerViewHeard, 20),
    (Break::NoDrain, 4),
    (Break::NoFreeze, 1),
    (Break::ForgottenAtExport, 4),
    (Break::NoStoreFence, 11),
    (Break::LeaseByName, 4),
    (Break::ViewRegress, 1),
    (Break::NoWait, 2),
    (Break::TermUnasked, 2),
    (Break::OnlyWritesFence, 21),
    (Break::StaleCensus, 1),
    (Break::EndToAll, 0),
    (Break::NoLedger, 25),
    (Break::LedgerStays, 116),
];

/// What a test tries by hand, since others cover for it in the world, or it takes very many seeds.
pub(super) const BY_HAND: &[Break] = &[
    Break::OpensAtOnce,
    Break::AnswerRevives,
    Break::PresenceSentAgain,
    Break::SweepByOwner,
    Break::StrangersHeard,
    Break::VoidHeard,
    Break::StampedAnew,
    Break::CancelUnstamped,
    Break::OwnRecord,
    Break::CensusBeforeWait,
    Break::TermKept,
    Break::LeavesAtOnce,
];
