//! What the behaviour tells the event loop.

use std::fmt;
use std::time::Duration;

use libp2p::PeerId;

use crate::detector::Incarnation;
use crate::fault::FaultKind;

/// Why a neighbour is suspected or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A link stands, and a probe over it was not answered.
    NoAnswer,
    /// No link stands, and none could be made.
    Unreachable,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoAnswer => "it does not answer",
            Self::Unreachable => "it cannot be reached",
        })
    }
}

/// Something that happened, or something to do.
///
/// For one neighbour: `Suspect`, then either `Alive` or `Dead`; after `Dead` nothing but `Alive`. There is no `Dead`
/// without a `Suspect` before it, and no `Alive` but after one of the two. `Forget` and a goodbye end the row without an
/// event. At a seed `Reported` comes before the `Evict` that it leads to, and with own detection `Dead` right before
/// `Evict`. For one seed and target `Buried` and `Raised` take turns, beginning with `Buried`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A neighbour missed a probe.
    Suspect {
        /// Who.
        peer: PeerId,
        /// What was missed.
        reason: Reason,
    },
    /// A suspected or dead neighbour gave a sign of life.
    Alive {
        /// Who.
        peer: PeerId,
    },
    /// A neighbour missed too many probes. It is not probed any more until [`crate::Behaviour::peer_up`]; to dial it
    /// now and then is up to the host. No misdeed: it costs no standing.
    Dead {
        /// Who.
        peer: PeerId,
        /// Which life of it ended.
        incarnation: Incarnation,
        /// Who said so: this node, and at a seed those whose reports are fresh. In order.
        reporters: Vec<PeerId>,
        /// What was missed last.
        reason: Reason,
    },
    /// A probe was answered directly.
    Offset {
        /// By whom.
        peer: PeerId,
        /// Its clock minus ours, in milliseconds, off by at most half of `rtt` when the way there is not as long as
        /// the way back.
        offset_ms: i64,
        /// From the question to the answer, with the time that the two programs took for it.
        rtt: Duration,
    },
    /// Somebody suspected us; we have raised our incarnation.
    Refuted {
        /// Over whose link we heard of it, perhaps a helper's.
        from: PeerId,
        /// Our incarnation from now on.
        incarnation: Incarnation,
    },
    /// A configured seed says that a peer is dead: leave it out of what that seed lists.
    Buried {
        /// Which seed.
        seed: PeerId,
        /// Who is said to be dead. Perhaps we are: then register there again.
        target: PeerId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// The tombstone fell, or its time is over. At a seed also for its own tombstones, with itself as the seed.
    Raised {
        /// Which seed.
        seed: PeerId,
        /// Who.
        target: PeerId,
        /// Which life was said to be over.
        incarnation: Incarnation,
    },
    /// At a seed: a valid and fresh report came. The target is probed; nothing else follows from it alone.
    Reported {
        /// Who is said to be dead.
        target: PeerId,
        /// By whom.
        reporter: PeerId,
    },
    /// At a seed: drop it from the table. The tombstone is signed and on its way to everybody.
    Evict {
        /// Who.
        target: PeerId,
        /// Which life of it.
        incarnation: Incarnation,
        /// On whose word: the reporters, and this seed when it saw all misses itself. In order.
        reporters: Vec<PeerId>,
    },
    /// Try to reach a peer now, unless a dial to it is on its way anyway. No answer is needed:
    /// [`crate::Behaviour::peer_up`] says that it went well, and [`crate::Behaviour::dial_failed`] may say that it did not.
    Dial(PeerId),
    /// A peer broke the protocol. Nothing was done about it.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}
