//! One neighbour as the detector sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use libp2p::PeerId;

use super::{Incarnation, ProbeId};
use crate::event::Reason;
use crate::statement::Challenge;

/// What is thought of a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answers, or has not been asked yet.
    Alive,
    /// It missed at least one probe.
    Suspect,
    /// It missed too many.
    Dead,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::Suspect => "suspect",
            Self::Dead => "dead",
        })
    }
}

/// A neighbour as the `liveness` command shows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Status {
    /// Who.
    pub peer: PeerId,
    /// What is thought of it.
    pub state: State,
    /// Whether a link stands.
    pub linked: bool,
    /// Its newest incarnation known.
    pub incarnation: Incarnation,
    /// Misses in a row.
    pub failures: u32,
    /// Since its last sign of life.
    pub last_answer: Duration,
    /// From question to answer, the latest.
    pub rtt: Option<Duration>,
    /// Its clock minus ours in milliseconds, the latest.
    pub offset_ms: Option<i64>,
    /// Until the next probe; none while one is under way, and for the dead.
    pub next_probe: Option<Duration>,
}

pub(super) struct Neighbour {
    pub(super) state: State,
    pub(super) linked: bool,
    pub(super) incarnation: Incarnation,
    pub(super) misses: u32,
    pub(super) last_answer: Instant,
    /// From when on silence counts: the last answer, or the end of a freeze of our own.
    pub(super) silent_since: Instant,
    pub(super) next_probe: Instant,
    pub(super) open: Option<Open>,
    /// Its latest sign of life came through a helper only. Then helpers are asked at once, and it is no suspect for
    /// being out of our own reach.
    pub(super) roundabout: bool,
    pub(super) reason: Reason,
    pub(super) rtt: Option<Duration>,
    pub(super) offset_ms: Option<i64>,
    /// The moment under which it stands in the schedule.
    pub(super) scheduled: Option<Instant>,
}

impl Neighbour {
    pub(super) fn new(incarnation: Incarnation, linked: bool, now: Instant, next_probe: Instant) -> Self {
        Self {
            state: State::Alive,
            linked,
            incarnation,
            misses: 0,
            last_answer: now,
            silent_since: now,
            next_probe,
            open: None,
            roundabout: false,
            reason: if linked { Reason::NoAnswer } else { Reason::Unreachable },
            rtt: None,
            offset_ms: None,
            scheduled: None,
        }
    }

    /// Whether it could be probed now.
    pub(super) fn is_idle(&self) -> bool {
        self.open.is_none() && self.state != State::Dead
    }

    /// Whether no direct question is under way.
    pub(super) fn may_be_checked(&self) -> bool {
        self.state != State::Dead && self.open.as_ref().is_none_or(|open| open.missed)
    }

    pub(super) fn status(&self, peer: PeerId, now: Instant) -> Status {
        Status {
            peer,
            state: self.state,
            linked: self.linked,
            incarnation: self.incarnation,
            failures: self.misses,
            last_answer: now.saturating_duration_since(self.last_answer),
            rtt: self.rtt,
            offset_ms: self.offset_ms,
            next_probe: self.is_idle().then(|| self.next_probe.saturating_duration_since(now)),
        }
    }
}

/// A probe under way.
pub(super) struct Open {
    pub(super) probe: ProbeId,
    pub(super) sent: Instant,
    pub(super) deadline: Instant,
    pub(super) challenge: Challenge,
    /// The direct question has failed before its time.
    pub(super) failed: bool,
    /// The miss was counted; only helpers are still waited for.
    pub(super) missed: bool,
    pub(super) helpers: BTreeMap<PeerId, Helper>,
}

impl Open {
    /// Whether nothing can come any more.
    pub(super) fn is_hopeless(&self) -> bool {
        self.failed && self.helpers.values().all(|helper| *helper == Helper::Silent)
    }
}

/// A helper of a probe.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Helper {
    /// It has not answered.
    Waiting,
    /// It has answered that the target did not.
    Silent,
}
