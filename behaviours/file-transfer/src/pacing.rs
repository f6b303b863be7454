//! When bytes may leave: a gate inside the data path, asked before each step. One file for each kind.

mod token_bucket;
mod unlimited;

use std::time::Instant;

pub use token_bucket::TokenBucket;
pub use unlimited::Unlimited;

/// One kind of gate.
pub trait Pace: Send {
    /// From when on so many bytes may pass; they count as passed then. Not before `now`.
    fn ready_at(&mut self, bytes: usize, now: Instant) -> Instant;

    /// The largest step that should be asked for at once, so that bytes flow evenly and not in bursts: at least 1.
    fn step(&self) -> usize;
}

/// The gate for a limit in bytes a second.
pub fn for_limit(limit: Option<u64>, now: Instant) -> Box<dyn Pace> {
    match limit {
        None => Box::new(Unlimited),
        // A tenth of a second at once: small enough to look even, large enough to cost nothing.
        Some(rate) => Box::new(TokenBucket::new(rate, (rate / 10).max(1), now)),
    }
}
