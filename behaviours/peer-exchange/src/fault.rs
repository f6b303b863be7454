//! What a remote can do wrong, as data: the event loop decides what it costs.

use std::fmt;

/// One kind of misbehaviour of a remote. [`fmt::Display`] gives the stable kebab-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A frame that is not CBOR of a known shape, or that comes before the hello. Its link is closed.
    MalformedFrame,
    /// A frame longer than [`crate::MAX_FRAME_BYTES`]. Its link is closed.
    OversizedFrame,
    /// A hello with a card that does not check out (its link is closed), or such a card in an answer.
    InvalidCard,
    /// A goodbye whose proof does not check out. Its link is closed.
    InvalidGoodbye,
    /// A hello or goodbye that is signed by somebody else than the remote. Its link is closed.
    WrongPeer,
    /// A hello with a lower boot count than one seen before: a stale or copied node. It is told so, and its link is
    /// closed.
    StaleBoot,
    /// Two different cards with the same boot count and revision: a copied node. The newer link is closed.
    ConflictingCard,
    /// No hello within [`crate::Config::hello_timeout`]. Its link is closed.
    NoHello,
    /// More links at once than [`crate::links::MAX_LINKS_PER_PEER`]. The newest link is closed.
    TooManyLinks,
    /// A second inbound substream on one connection; it was dropped.
    SecondStream,
    /// More questions than [`crate::Config::ask_rate`] allows, or more changes of the card than
    /// [`crate::links::UPDATE_RATE`] does; the surplus was dropped.
    Flood,
    /// An answer to nothing that was asked; it was dropped.
    UnaskedAnswer,
    /// An answer with more than [`crate::MAX_CARDS`] cards; it counts as empty.
    SurplusCards,
    /// An answer with a card that nobody asked for; that card was dropped.
    UnmatchedCard,
}

impl FaultKind {
    /// Every kind, in order.
    pub const ALL: [Self; 14] = [
        Self::MalformedFrame,
        Self::OversizedFrame,
        Self::InvalidCard,
        Self::InvalidGoodbye,
        Self::WrongPeer,
        Self::StaleBoot,
        Self::ConflictingCard,
        Self::NoHello,
        Self::TooManyLinks,
        Self::SecondStream,
        Self::Flood,
        Self::UnaskedAnswer,
        Self::SurplusCards,
        Self::UnmatchedCard,
    ];
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedFrame => "malformed-frame",
            Self::OversizedFrame => "oversized-frame",
            Self::InvalidCard => "invalid-card",
            Self::InvalidGoodbye => "invalid-goodbye",
            Self::WrongPeer => "wrong-peer",
            Self::StaleBoot => "stale-boot",
            Self::ConflictingCard => "conflicting-card",
            Self::NoHello => "no-hello",
            Self::TooManyLinks => "too-many-links",
            Self::SecondStream => "second-stream",
            Self::Flood => "flood",
            Self::UnaskedAnswer => "unasked-answer",
            Self::SurplusCards => "surplus-cards",
            Self::UnmatchedCard => "unmatched-card",
        })
    }
}
