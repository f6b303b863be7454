//! One author in one epoch.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use libp2p::PeerId;

use crate::envelope::Envelope;
use crate::protocol::MAX_DIGEST_RANGES;

/// Most given-up ranges that are remembered of one stream, in case one turns up after all; the lowest is forgotten first
/// and then counts as passed.
const MAX_LOST: usize = 64;

#[derive(Debug)]
pub(super) struct Stream {
    /// Everything up to here was shown, was not worth showing, or was given up.
    pub(super) frontier: u64,
    /// What neighbours can have. Behind the frontier nothing waits, but for what is being shown right now.
    pub(super) held: BTreeMap<u64, Held>,
    /// What was given up: first and last sequence number, all up to the frontier.
    lost: BTreeMap<u64, u64>,
    /// Until when what waits is held back for what is missing.
    pub(super) deadline: Option<Instant>,
    /// Whether anything was ever shown.
    pub(super) begun: bool,
    /// Whether two signed envelopes with one number were seen.
    pub(super) has_rivals: bool,
    /// When it was last used, as the log counts.
    pub(super) used: u64,
}

#[derive(Debug)]
pub(super) struct Held {
    pub(super) bytes: Arc<[u8]>,
    /// Whether gossipsub has handed it on.
    pub(super) relayed: bool,
    /// Its age begins here, in ms since 1970 (UTC).
    pub(super) basis: u64,
    /// `None` once it was shown.
    pub(super) pending: Option<Box<Pending>>,
}

#[derive(Debug)]
pub(super) struct Pending {
    pub(super) envelope: Envelope,
    pub(super) via: PeerId,
    pub(super) backlog: bool,
    /// Passed over instead of shown.
    pub(super) quiet: bool,
    pub(super) since: Instant,
}

impl Held {
    /// One that need not be shown and was handed on before.
    pub(super) fn settled(bytes: Arc<[u8]>) -> Self {
        Self { bytes, relayed: true, basis: 0, pending: None }
    }
}

impl Stream {
    pub(super) fn new(frontier: u64) -> Self {
        Self {
            frontier,
            held: BTreeMap::new(),
            lost: BTreeMap::new(),
            deadline: None,
            begun: false,
            has_rivals: false,
            used: 0,
        }
    }

    /// Whether that number was shown or may be forgotten.
    pub(super) fn is_passed(&self, sequence: u64) -> bool {
        let lost = self.lost.range(..=sequence).next_back().is_some_and(|(_, &to)| to >= sequence);
        sequence <= self.frontier && !lost
    }

    /// That number was given up.
    pub(super) fn lose(&mut self, from: u64, to: u64) {
        self.lost.insert(from, to);
        if self.lost.len() > MAX_LOST {
            self.lost.pop_first();
        }
    }

    /// That number has turned up: it is not lost any more.
    pub(super) fn fill(&mut self, sequence: u64) {
        let Some((&from, &to)) = self.lost.range(..=sequence).next_back() else { return };
        if to < sequence {
            return;
        }
        self.lost.remove(&from);
        if from < sequence {
            self.lose(from, sequence - 1);
        }
        if sequence < to {
            self.lose(sequence + 1, to);
        }
    }

    /// That number is on the own disk. What is not, before and between those that are, may still turn up.
    pub(super) fn restore(&mut self, sequence: u64) {
        self.begun = true;
        if sequence > self.frontier {
            if sequence > self.frontier + 1 {
                self.lose(self.frontier + 1, sequence - 1);
            }
            self.frontier = sequence;
        } else {
            self.fill(sequence);
        }
    }

    pub(super) fn waits(&self) -> bool {
        self.held.last_key_value().is_some_and(|(&last, _)| last > self.frontier)
    }

    /// Since when the longest waiting one waits.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        let waiting = self.held.range(self.frontier.saturating_add(1)..);
        waiting.filter_map(|(_, held)| held.pending.as_ref()).map(|pending| pending.since).min()
    }

    /// The ranges held, rising; when there are too many, which of them depends on `turn`.
    pub(super) fn ranges(&self, turn: usize) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for &sequence in self.held.keys() {
            match ranges.last_mut() {
                Some((_, to)) if *to + 1 == sequence => *to = sequence,
                _ => ranges.push((sequence, sequence)),
            }
        }
        if ranges.len() > MAX_DIGEST_RANGES {
            let pages = ranges.len().div_ceil(MAX_DIGEST_RANGES);
            let from = (turn % pages) * MAX_DIGEST_RANGES;
            ranges.drain(..from);
            ranges.truncate(MAX_DIGEST_RANGES);
        }
        ranges
    }

    /// Call back for each range within `from..=to` that is neither held nor passed, at most so often.
    pub(super) fn missing(&self, from: u64, to: u64, most: usize, mut found: impl FnMut(u64, u64)) {
        let mut count = 0;
        for (&lost_from, &lost_to) in &self.lost {
            let (from, to) = (from.max(lost_from), to.min(lost_to));
            if from <= to && count < most {
                count += 1;
                found(from, to);
            }
        }
        let mut next = from.max(self.frontier.saturating_add(1));
        if next > to {
            return;
        }
        for &sequence in self.held.range(next..=to).map(|(sequence, _)| sequence) {
            if next < sequence && count < most {
                count += 1;
                found(next, sequence - 1);
            }
            next = sequence + 1;
        }
        if next <= to && count < most {
            found(next, to);
        }
    }
}
