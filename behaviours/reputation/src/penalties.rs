//! What each kind of fault costs: the one table. The README shows it, and a test compares the two.
//!
//! The words are the [`Display`](std::fmt::Display) forms of the siblings' `FaultKind`s and what the event loop itself
//! finds. A word that stands here twice in different crates means the same sort of thing in both.

use std::time::Duration;

/// The score at which a peer is cut.
pub const CUT_AT: f64 = 100.0;

/// How bad a fault is (the idea of classes by "about so many, and you are out" is Lighthouse's `PeerAction`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Written down, costs nothing: a bad line or a mistake of the owner's does this too.
    Noted,
    /// About 100 are tolerated: too much of what is allowed in itself.
    Trifle,
    /// About 20 are tolerated: an old, buggy or confused program does this too.
    Mild,
    /// About 5 are tolerated: a program that works does not do this.
    Severe,
    /// None is tolerated: it is proof of a lie.
    Fatal,
}

impl Class {
    /// About so many in a short time, and the peer is cut; `None` is without end.
    pub fn tolerated(self) -> Option<u32> {
        match self {
            Self::Noted => None,
            Self::Trifle => Some(100),
            Self::Mild => Some(20),
            Self::Severe => Some(5),
            Self::Fatal => Some(1),
        }
    }

    /// What one adds to the score; the peer is cut at [`CUT_AT`].
    pub fn points(self) -> f64 {
        self.tolerated().map_or(0.0, |tolerated| CUT_AT / f64::from(tolerated))
    }

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Noted => "noted",
            Self::Trifle => "trifle",
            Self::Mild => "mild",
            Self::Severe => "severe",
            Self::Fatal => "fatal",
        }
    }
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Penalty {
    /// The kind of fault.
    pub kind: &'static str,
    /// How bad it is.
    pub class: Class,
    /// It counts at most once in so many seconds; 0 is each time. A peer that is only busy makes rows of these faults,
    /// and a minute between two keeps any one kind of trifle below half of the cut for ever.
    pub once_in: u64,
    /// What the peer did.
    pub what: &'static str,
}

impl Penalty {
    /// It counts at most once in this time.
    pub fn gap(&self) -> Duration {
        Duration::from_secs(self.once_in)
    }
}

const fn row(kind: &'static str, class: Class, once_in: u64, what: &'static str) -> Penalty {
    Penalty { kind, class, once_in, what }
}

/// Whatever stands not in the table.
pub const UNKNOWN: Penalty = row("anything else", Class::Mild, 0, "a kind of fault that this table does not know");

/// The table, worst first.
#[rustfmt::skip]
pub const TABLE: &[Penalty] = &[
    row("equivocation", Class::Fatal, 0, "signed two different things where it may sign one"),
    row("double-vote", Class::Fatal, 0, "signed two values in one instance of an agreement"),

    row("oversized-record", Class::Fatal, 0, "registered at this seed with a record that only fills its memory"),

    row("bad-signature", Class::Severe, 0, "handed on what its author has not signed"),
    row("forged-envelope", Class::Severe, 0, "handed on an envelope that its author has not signed"),
    row("forged-statement", Class::Severe, 0, "a sign of life or a report with a signature that does not hold"),
    row("foreign-statement", Class::Severe, 0, "sent a report or tombstone of somebody else"),
    row("absurd-report", Class::Severe, 0, "reported its own death, or the reader's"),
    row("wrong-author", Class::Severe, 0, "a message whose author is not its sender"),
    row("wrong-peer", Class::Severe, 0, "a hello or goodbye that somebody else signed"),
    row("invalid-card", Class::Severe, 0, "a card that does not check out"),
    row("invalid-goodbye", Class::Severe, 0, "a goodbye whose proof does not hold"),
    row("corrupt-chunk", Class::Severe, 0, "bytes that do not have their hash"),
    row("invalid-offer", Class::Severe, 0, "an offer that is not validly signed by its sender"),
    row("invalid-manifest", Class::Severe, 0, "a list of files that is not the one signed, or breaks a bound"),
    row("invalid-seal", Class::Severe, 0, "an end of a transfer that does not fit the chunks"),
    row("rendezvous-bad-record", Class::Severe, 0, "as a seed listed a peer that did not sign for it"),
    row("register-flood", Class::Severe, 0, "registered at this seed without end"),

    row("malformed", Class::Mild, 0, "bytes that cannot be read"),
    row("malformed-frame", Class::Mild, 0, "a frame that cannot be read, or comes before the hello"),
    row("oversized-frame", Class::Mild, 0, "a frame longer than allowed"),
    row("empty-batch", Class::Mild, 0, "a batch without a message"),
    row("oversize-batch", Class::Mild, 0, "a batch above its bounds"),
    row("wrong-receiver", Class::Mild, 0, "a message for somebody else"),
    row("unknown-receipt", Class::Mild, 0, "a receipt for what was not sent"),
    row("duplicate-receipt", Class::Mild, 0, "two receipts for one message"),
    row("missing-receipt", Class::Mild, 0, "an answer without a receipt that it owes"),
    row("bad-answer", Class::Mild, 0, "an answer to what was not asked, or out of bounds"),
    row("wrong-answer", Class::Mild, 0, "an answer of another kind than the question"),
    row("unasked-answer", Class::Mild, 0, "an answer to nothing"),
    row("surplus-cards", Class::Mild, 0, "an answer with too many cards"),
    row("unmatched-card", Class::Mild, 0, "a card that nobody asked for"),
    row("second-stream", Class::Mild, 0, "a second stream where one is allowed"),
    row("conflicting-offer", Class::Mild, 0, "a second, different offer under one name"),
    row("invalid-request", Class::Mild, 0, "asked for what it was not offered"),
    row("invalid-status", Class::Mild, 0, "claimed what cannot be"),
    row("rendezvous-malformed", Class::Mild, 0, "as a seed gave an answer that cannot be read"),
    row("rendezvous-wrong-message", Class::Mild, 0, "as a seed gave an answer of another kind"),
    row("rendezvous-oversize-list", Class::Mild, 0, "as a seed gave more than was asked for"),
    row("rendezvous-foreign-namespace", Class::Mild, 0, "as a seed listed another namespace"),

    row("flood", Class::Trifle, 10, "more of one kind than its bucket holds; the surplus was dropped"),
    row("rate-exceeded", Class::Trifle, 10, "the same, for protocols that have no word of their own"),
    row("too-many-links", Class::Trifle, 60, "more links at once than allowed"),
    row("absurd-time", Class::Trifle, 60, "a message from a far time: most likely a wrong clock"),
    row("conflicting-card", Class::Trifle, 60, "two cards of one number: most likely a copied node"),

    row("daily-quota", Class::Noted, 0, "more for this disk than a day allows; others may have used up what all share"),
    row("no-hello", Class::Noted, 0, "no hello in time: a frozen node or a bad line does this"),
    row("stale-boot", Class::Noted, 0, "an older start than one known: a stale copy, which is told so and refused"),
    row("unwelcome", Class::Noted, 0, "did not want a message"),
];

/// What a kind costs, and its place in the table; the place of every unknown kind is the table's end.
pub fn of(kind: &str) -> (usize, &'static Penalty) {
    let known = TABLE.iter().enumerate().find(|(_, row)| row.kind == kind);
    known.unwrap_or((TABLE.len(), &UNKNOWN))
}
