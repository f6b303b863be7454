//! What the detector is told, what it wants, and the numbers in both.

use std::time::Duration;

use libp2p::PeerId;

use super::relays::RelayToken;
use crate::event::{Event, Reason};
use crate::fault::FaultKind;
use crate::protocol::Suspicion;
use crate::statement::{Alive, Challenge};

/// The latest time that is accepted from others, in milliseconds since 1970 (UTC): 9999-12-30T22:00:00.999Z.
pub const MAX_TIME_MS: u64 = 253_402_207_200_999;

/// Which life of a node: its boot count, and how often it has refuted its death since. The higher one is newer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// The highest refutation count; from there on a node can only live on by answering.
    pub const MAX_REFUTATIONS: u16 = u16::MAX;

    /// `boot << 16 | refutations`; a boot count past 48 bits counts as the highest.
    pub fn new(boot: u64, refutations: u16) -> Self {
        Self(boot.min((1 << 48) - 1) << 16 | u64::from(refutations))
    }

    /// The boot count in it.
    pub fn boot(self) -> u64 {
        self.0 >> 16
    }

    /// The refutation count in it.
    pub fn refutations(self) -> u16 {
        (self.0 & 0xffff) as u16
    }
}

/// Names one probe of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProbeId(pub u64);

/// When question and answer left and came, by the clocks of both ends, in milliseconds since 1970 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamps {
    /// The question left; own clock.
    pub asked: u64,
    /// The question came; its clock.
    pub received: u64,
    /// The answer left; its clock.
    pub answered: u64,
    /// The answer came; own clock.
    pub heard: u64,
}

impl Stamps {
    /// Its clock minus ours (RFC 5905, section 8).
    pub fn offset_ms(&self) -> i64 {
        let signed = |ms: u64| i64::try_from(ms.min(MAX_TIME_MS)).unwrap_or(i64::MAX);
        ((signed(self.received) - signed(self.asked)) + (signed(self.answered) - signed(self.heard))) / 2
    }
}

/// What the detector is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link to a peer stands and its hello has passed.
    Up {
        /// Who.
        peer: PeerId,
        /// Its boot count.
        boot: u64,
    },
    /// The last link is gone without a goodbye.
    Lost {
        /// Who.
        peer: PeerId,
    },
    /// Watch a peer that has no link.
    Watch {
        /// Who.
        peer: PeerId,
        /// Its boot count as far as it is known.
        boot: u64,
    },
    /// A goodbye came, or nobody is interested in that peer any more.
    Forget {
        /// Who.
        peer: PeerId,
    },
    /// A dial that [`Output::Dial`] asked for has failed.
    DialFailed {
        /// To whom.
        peer: PeerId,
    },
    /// Probe it now, unless a probe is under way. It takes the place of the next regular one.
    Check {
        /// Whom.
        peer: PeerId,
    },
    /// A probe was answered.
    Answered {
        /// By whom.
        peer: PeerId,
        /// Which.
        probe: ProbeId,
        /// Its incarnation.
        incarnation: Incarnation,
        /// For the clock offset.
        stamps: Stamps,
        /// The signed sign of life in it, not looked at; for the one on whose behalf we asked.
        statement: Option<Vec<u8>>,
    },
    /// Any other sign of life over its link.
    Seen {
        /// Of whom.
        peer: PeerId,
    },
    /// A probe's request has failed while its link stands.
    Failed {
        /// By whom.
        peer: PeerId,
        /// Which.
        probe: ProbeId,
    },
    /// A helper has answered.
    Helped {
        /// Who.
        helper: PeerId,
        /// About whom.
        target: PeerId,
        /// Which probe it was to help.
        probe: ProbeId,
        /// The target's sign of life, whose signature was verified; none when it did not answer the helper.
        alive: Option<Alive>,
    },
    /// A helper cannot help: it has no link to the target, or too much to do.
    Unhelpful {
        /// Who.
        helper: PeerId,
        /// About whom it was asked.
        target: PeerId,
        /// Which probe it was to help.
        probe: ProbeId,
    },
    /// A neighbour probes us.
    Probed {
        /// Who.
        from: PeerId,
        /// Repeated by [`Output::Answer`].
        request: u64,
        /// Its incarnation.
        incarnation: Incarnation,
        /// Whether we are suspected.
        suspicion: Option<Suspicion>,
    },
    /// A neighbour asks us to probe another.
    RelayAsked {
        /// Who asks.
        from: PeerId,
        /// Repeated by [`Output::RelayAnswer`]; must not be in use.
        token: RelayToken,
        /// Whom to probe.
        target: PeerId,
        /// What to tell it.
        suspicion: Suspicion,
        /// How long the asker waits.
        patience: Duration,
    },
    /// Another probe interval.
    Interval(Duration),
    /// Another number of misses.
    Misses(u32),
}

/// What the detector wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Probe over the link; then `Answered` or `Failed`.
    Probe {
        /// Whom.
        to: PeerId,
        /// Which.
        probe: ProbeId,
        /// What to tell it.
        suspicion: Option<Suspicion>,
    },
    /// Ask a helper to probe; then at most one `Helped`.
    AskHelper {
        /// Whom to ask.
        helper: PeerId,
        /// Whom it should probe.
        target: PeerId,
        /// Which probe it helps.
        probe: ProbeId,
        /// What to tell the target.
        suspicion: Suspicion,
        /// How long we wait.
        patience: Duration,
    },
    /// Answer a probe.
    Answer {
        /// Which.
        request: u64,
        /// Our incarnation.
        incarnation: Incarnation,
        /// To be repeated under our signature.
        challenge: Option<Challenge>,
    },
    /// Answer who asked us to probe.
    RelayAnswer {
        /// Which question.
        token: RelayToken,
        /// What the target signed, not looked at; none when it was silent.
        statement: Option<Vec<u8>>,
    },
    /// Tell who asked us to probe that we cannot.
    RelayRefuse {
        /// Which question.
        token: RelayToken,
    },
    /// Try to reach that peer.
    Dial(PeerId),
    /// A sign of life, of whatever kind.
    Heard {
        /// Of whom.
        peer: PeerId,
        /// Which life.
        incarnation: Incarnation,
    },
    /// An own probe failed.
    Missed {
        /// To whom.
        peer: PeerId,
        /// Which life.
        incarnation: Incarnation,
        /// How many failed in a row.
        misses: u32,
    },
    /// A neighbour is dead.
    Dead {
        /// Who.
        peer: PeerId,
        /// Which life.
        incarnation: Incarnation,
        /// What was missed last.
        reason: Reason,
    },
    /// Something for the application: `Suspect`, `Alive`, `Offset`, `Refuted`.
    Event(Event),
    /// A peer misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}
