//! What a peer can be blamed for.

use std::fmt;

/// How a peer broke the protocol. To be silent or slow is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// Bytes that are no frame of this protocol.
    MalformedFrame,
    /// A frame longer than [`crate::MAX_FRAME_BYTES`].
    OversizedFrame,
    /// An answer of another kind than the question asked for.
    WrongAnswer,
    /// A statement that is not validly signed for its purpose, or a sign of life that answers another challenge.
    ForgedStatement,
    /// A report or tombstone that somebody else signed than the one who sent it. Nobody hands these on.
    ForeignStatement,
    /// A report of the reporter's own death, or of the death of the seed that reads it.
    AbsurdReport,
    /// More of one kind than a neighbour may send; the surplus was dropped.
    Flood,
}

impl FaultKind {
    /// Every kind, in order.
    pub const ALL: [Self; 7] = [
        Self::MalformedFrame,
        Self::OversizedFrame,
        Self::WrongAnswer,
        Self::ForgedStatement,
        Self::ForeignStatement,
        Self::AbsurdReport,
        Self::Flood,
    ];
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedFrame => "malformed-frame",
            Self::OversizedFrame => "oversized-frame",
            Self::WrongAnswer => "wrong-answer",
            Self::ForgedStatement => "forged-statement",
            Self::ForeignStatement => "foreign-statement",
            Self::AbsurdReport => "absurd-report",
            Self::Flood => "flood",
        })
    }
}
