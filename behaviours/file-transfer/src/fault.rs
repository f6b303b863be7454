//! What a remote can do wrong, as data: the event loop decides what it costs.

use std::fmt;

/// One kind of misbehaviour of a remote. [`fmt::Display`] gives the stable kebab-case name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FaultKind {
    /// A control message or request that cannot be read. Its stream is closed.
    MalformedFrame,
    /// One that is longer than allowed. Its stream is closed.
    OversizedFrame,
    /// An offer whose signature or bounds do not check out, or that is signed by another than the remote.
    InvalidOffer,
    /// The list of files is not the one that was signed, or breaks a bound or a rule for names. The transfer fails.
    InvalidManifest,
    /// A second, different offer under a name that is in use.
    ConflictingOffer,
    /// A chunk whose bytes do not have the hash that came with them.
    CorruptChunk,
    /// The seal is not signed by the sender of the offer, is for another one, or does not fit the verified chunks.
    InvalidSeal,
    /// A request for a transfer that the remote was not offered, or beyond its end.
    InvalidRequest,
    /// A claim that cannot be: more verified than there is, a page that nobody asked for.
    InvalidStatus,
    /// More messages or streams than allowed; the surplus was dropped.
    Flood,
}

impl FaultKind {
    /// Every kind, in order.
    pub const ALL: [Self; 10] = [
        Self::MalformedFrame,
        Self::OversizedFrame,
        Self::InvalidOffer,
        Self::InvalidManifest,
        Self::ConflictingOffer,
        Self::CorruptChunk,
        Self::InvalidSeal,
        Self::InvalidRequest,
        Self::InvalidStatus,
        Self::Flood,
    ];
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MalformedFrame => "malformed-frame",
            Self::OversizedFrame => "oversized-frame",
            Self::InvalidOffer => "invalid-offer",
            Self::InvalidManifest => "invalid-manifest",
            Self::ConflictingOffer => "conflicting-offer",
            Self::CorruptChunk => "corrupt-chunk",
            Self::InvalidSeal => "invalid-seal",
            Self::InvalidRequest => "invalid-request",
            Self::InvalidStatus => "invalid-status",
            Self::Flood => "flood",
        })
    }
}
