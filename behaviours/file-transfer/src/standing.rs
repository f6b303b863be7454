//! How a transfer stands with one peer: the part that both ends keep alike.

use std::time::{Duration, Instant};

use libp2p::PeerId;

use crate::hash::Hash;
use crate::manifest::{Offer, TransferId};
use crate::plan::Plan;
use crate::record::{Direction, Reason, Record, Snapshot, State};

/// Half of the rate shown is younger than this.
const HALF_LIFE: Duration = Duration::from_secs(2);

/// State, time and counts of a transfer with one peer.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) id: TransferId,
    pub(crate) direction: Direction,
    pub(crate) peer: PeerId,
    name: String,
    entries: usize,
    total: u64,
    state: State,
    reason: Option<Reason>,
    pub(crate) detail: Option<String>,
    active_for: Duration,
    active_since: Option<Instant>,
    pub(crate) bytes: u64,
    /// Verified when this run began: what came before does not count for the rate.
    first_bytes: Option<u64>,
    pub(crate) chunks: u64,
    pub(crate) retries: u64,
    pub(crate) rtt: Option<Duration>,
    pub(crate) in_flight: u64,
    pub(crate) root: Option<Hash>,
    pub(crate) path: Option<String>,
    pub(crate) plan: Plan,
    meter: Meter,
    run: Duration,
}

impl Standing {
    pub(crate) fn new(offer: &Offer, direction: Direction, peer: PeerId, plan: Plan) -> Self {
        Self {
            id: offer.id(),
            direction,
            peer,
            name: offer.manifest().name().to_owned(),
            entries: offer.manifest().entries().len(),
            total: offer.manifest().bytes(),
            state: State::Offered,
            reason: None,
            detail: None,
            active_for: Duration::ZERO,
            active_since: None,
            bytes: 0,
            first_bytes: None,
            chunks: 0,
            retries: 0,
            rtt: None,
            in_flight: 0,
            root: None,
            path: None,
            plan,
            meter: Meter::default(),
            run: Duration::ZERO,
        }
    }

    pub(crate) fn restore(offer: &Offer, record: Record, plan: Plan) -> Self {
        let mut standing = Self::new(offer, record.direction, record.peer, plan);
        standing.state = match record.state {
            // Whether it is active shows when its peer is there.
            State::Active => State::Paused,
            state => state,
        };
        standing.reason = match record.state {
            State::Active => Some(Reason::NotConnected),
            _ => record.reason,
        };
        standing.active_for = record.active_for;
        standing.bytes = record.bytes.min(standing.total);
        standing.retries = record.retries;
        standing.root = record.root;
        standing.path = record.path;
        if record.state == State::Completed {
            standing.chunks = offer.manifest().chunks();
        }
        standing
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Whether that changed anything.
    pub(crate) fn set(&mut self, state: State, reason: Option<Reason>, now: Instant) -> bool {
        if (self.state, self.reason) == (state, reason) || self.state.is_final() {
            return false;
        }
        if let Some(since) = self.active_since.take() {
            let active = now.saturating_duration_since(since);
            self.active_for += active;
            self.run += active;
        }
        if state == State::Active {
            self.active_since = Some(now);
            self.first_bytes.get_or_insert(self.bytes);
        }
        if state.is_final() {
            self.in_flight = 0;
        }
        (self.state, self.reason) = (state, reason);
        true
    }

    /// So many bytes came or went, verified or not.
    pub(crate) fn moved(&mut self, bytes: u64, now: Instant) {
        self.meter.add(bytes, now);
    }

    /// Bytes a second.
    pub(crate) fn rate(&self, now: Instant) -> f64 {
        if self.state.is_final() {
            let run = self.run.as_secs_f64();
            let bytes = self.bytes.saturating_sub(self.first_bytes.unwrap_or(self.bytes));
            return if run > 0.0 { bytes as f64 / run } else { 0.0 };
        }
        self.meter.rate(now)
    }

    pub(crate) fn snapshot(&self, now: Instant) -> Snapshot {
        Snapshot {
            id: self.id,
            direction: self.direction,
            peer: self.peer,
            name: self.name.clone(),
            entries: self.entries,
            bytes: self.bytes,
            total: self.total,
            state: self.state,
            reason: self.reason,
            detail: self.detail.clone(),
            active_for: self.active_until(now),
            rate: self.rate(now),
            chunks: self.chunks,
            retries: self.retries,
            rtt: self.rtt,
            in_flight: self.in_flight,
            root: self.root,
            path: self.path.clone(),
            plan: self.plan,
        }
    }

    pub(crate) fn record(&self, now: Instant) -> Record {
        let by_somebody = self.state != State::Paused || self.reason == Some(Reason::Here);
        Record {
            id: self.id,
            direction: self.direction,
            peer: self.peer,
            state: if by_somebody { self.state } else { State::Active },
            reason: self.reason.filter(|_| by_somebody),
            active_for: self.active_until(now),
            retries: self.retries,
            bytes: self.bytes,
            root: self.root,
            path: self.path.clone(),
        }
    }

    fn active_until(&self, now: Instant) -> Duration {
        self.active_for + self.active_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Bytes a second, with the past fading away.
#[derive(Clone, Debug, Default)]
struct Meter {
    start: Option<Instant>,
    at: Option<Instant>,
    /// Bytes, each worth half after every half-life.
    weight: f64,
}

impl Meter {
    fn add(&mut self, bytes: u64, now: Instant) {
        self.weight = self.faded(now) + bytes as f64;
        self.at = Some(now);
        self.start.get_or_insert(now);
    }

    fn rate(&self, now: Instant) -> f64 {
        let Some(start) = self.start else { return 0.0 };
        let constant = HALF_LIFE.as_secs_f64() / std::f64::consts::LN_2;
        // What a steady rate would have gathered since the start; the first moments would else look endlessly fast.
        let since = now.saturating_duration_since(start).as_secs_f64().max(0.05);
        self.faded(now) / (constant * (1.0 - (-since / constant).exp()))
    }

    fn faded(&self, now: Instant) -> f64 {
        let Some(at) = self.at else { return 0.0 };
        let halves = now.saturating_duration_since(at).as_secs_f64() / HALF_LIFE.as_secs_f64();
        self.weight * 0.5_f64.powf(halves)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "virtual time starts somewhere")]

    use super::*;

    #[test]
    fn the_rate_follows_what_moves() {
        let start = Instant::now();
        let mut meter = Meter::default();
        assert_eq!(meter.rate(start), 0.0);
        let mut now = start;
        for step in 0..200 {
            now = start + Duration::from_millis(100 * step);
            meter.add(1_000, now);
            let rate = meter.rate(now);
            assert!(step < 20 || (rate / 10_000.0 - 1.0).abs() < 0.1, "{rate} after {step} steps");
        }
        assert!(meter.rate(now + Duration::from_secs(20)) < 100.0);
    }
}
