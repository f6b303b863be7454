//! Refusals counted: the first of a kind is told at once, the rest as a number, so that a flood of connections becomes
//! no flood of events.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use crate::admission::{Refusal, Refused};

/// Refusals of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Output {
    /// The newest of them.
    pub refused: Refused,
    /// How many since the kind was told last.
    pub count: u64,
}

/// The core. It holds one row for each kind.
#[derive(Debug)]
pub struct Tally {
    interval: Duration,
    kinds: BTreeMap<Refusal, Kind>,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Kind {
    told_at: Instant,
    untold: Option<Output>,
}

impl Tally {
    /// Each kind is told at most once in this time.
    pub fn new(interval: Duration) -> Self {
        Self { interval, kinds: BTreeMap::new(), outputs: VecDeque::new() }
    }

    /// A connection was refused.
    pub fn handle_input(&mut self, refused: Refused, now: Instant) {
        let Some(kind) = self.kinds.get_mut(&refused.refusal) else {
            self.kinds.insert(refused.refusal, Kind { told_at: now, untold: None });
            self.outputs.push_back(Output { refused, count: 1 });
            return;
        };
        let count = kind.untold.map_or(0, |untold| untold.count).saturating_add(1);
        kind.untold = Some(Output { refused, count });
        self.handle_timeout(now);
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for kind in self.kinds.values_mut() {
            if now.saturating_duration_since(kind.told_at) < self.interval {
                continue;
            }
            if let Some(output) = kind.untold.take() {
                kind.told_at = now;
                self.outputs.push_back(output);
            }
        }
    }

    /// When [`Tally::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let open = self.kinds.values().filter(|kind| kind.untold.is_some());
        open.filter_map(|kind| kind.told_at.checked_add(self.interval)).min()
    }

    /// What is to be told next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }
}
