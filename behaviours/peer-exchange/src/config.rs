//! What can be tuned.

use std::time::Duration;

/// The settings of one node. The defaults are meant for everybody; tests shorten the times.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// A link on which no hello came for so long is closed. Default 10 s.
    pub hello_timeout: Duration,
    /// How long two links to one peer stand side by side before the older is closed, so that what is in flight on it
    /// finishes. Default 2 s. The peer that does not decide waits three times as long before it takes the older link
    /// for a dead one.
    pub prune_after: Duration,
    /// How long a goodbye may take until its link is closed regardless; also how long a shutdown takes at most.
    /// Default 1 s.
    pub goodbye_timeout: Duration,
    /// How long a link that was told to close may take until it counts as closed. Default 2 s. A dead TCP connection
    /// with a full buffer can take a quarter of an hour.
    pub close_timeout: Duration,
    /// The longest a lookup takes. Default 3 s. Who hands a question on waits only its share of it, so that answers
    /// come back in time: with `h` of `max_hops` hops left, `lookup_timeout * h / (max_hops + 1)`.
    pub lookup_timeout: Duration,
    /// How many neighbours in a row may hand a question on. Default 3, at most 255.
    pub max_hops: u8,
    /// Questions a second that one neighbour may ask, on average. Default 5. What we ask stays a fifth below it.
    pub ask_rate: f64,
    /// Questions that one neighbour may ask at once. Default 20. What we ask stays a fifth below it.
    pub ask_burst: f64,
    /// Questions at work at the same time, own and handed on; beyond it a question is answered with nothing, and an
    /// own lookup finds nothing. Default 256.
    pub max_pending: usize,
    /// Of these, how many may come from one neighbour. Default 16.
    pub max_pending_per_peer: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            hello_timeout: Duration::from_secs(10),
            prune_after: Duration::from_secs(2),
            goodbye_timeout: Duration::from_secs(1),
            close_timeout: Duration::from_secs(2),
            lookup_timeout: Duration::from_secs(3),
            max_hops: 3,
            ask_rate: 5.0,
            ask_burst: 20.0,
            max_pending: 256,
            max_pending_per_peer: 16,
        }
    }
}
