//! What can be tuned.

use std::time::Duration;

/// What the node runs as. Only a seed takes death reports, evicts, and tells tombstones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// A peer.
    #[default]
    Peer,
    /// A seed.
    Seed,
}

/// Shortest [`Config::interval`] that is obeyed; a shorter one counts as this.
pub const MIN_INTERVAL: Duration = Duration::from_millis(100);

/// The settings of one node. The defaults are meant for everybody; tests shorten the times.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Each neighbour is probed once in this time. Default 13 s, at least [`MIN_INTERVAL`]. Changed by
    /// [`crate::Behaviour::set_interval`].
    pub interval: Duration,
    /// So many misses in a row make a neighbour dead, `misses x interval` after its last answer at the earliest.
    /// Default 3, at least 1. Changed by [`crate::Behaviour::set_misses`].
    pub misses: u32,
    /// How long one probe waits for its answer, or a dial for its link. Default 4 s. Never longer than four fifths of
    /// the interval. Relation: above the 3 s that a dial may take, below [`Config::request_timeout`].
    pub probe_timeout: Duration,
    /// When the wire gives up a request. Default 5 s. The longest to which bad local health stretches
    /// [`Config::probe_timeout`].
    pub request_timeout: Duration,
    /// Through how many other neighbours a suspect is probed. Default 3, the `k` of the SWIM paper. Who
    /// has no link to the suspect says so at once, and another is asked in its place. 0 asks nobody.
    pub helpers: usize,
    /// The worst local health, Lifeguard's `S`. Default 8. So many more misses are asked for before this node accuses
    /// anybody. 0 takes Lifeguard away.
    pub max_health: u32,
    /// A timer that fires so much too late is a sign of a starved process. Default 500 ms. Relation: far above what a
    /// busy loop takes for one round, below [`Config::probe_timeout`]: from there on it is a freeze.
    pub late: Duration,
    /// Most neighbours that are watched. Default 4,096. When it is full the longest silent one without a link makes
    /// room; when all are linked, the new one is not watched.
    pub max_neighbours: usize,
    /// Most probes at work for others. Default 256. What comes beyond is refused, which is an answer.
    pub max_relays: usize,
    /// Of these, most for one neighbour. Default 16.
    pub max_relays_per_peer: usize,
    /// A report is fresh for so long after the time that it names, or before it (clocks differ). Default 60 s.
    pub freshness: Duration,
    /// How many distinct reporters a seed wants besides its own failed probes. Default 2.
    pub evict_reporters: usize,
    /// How many own probes in a row must have failed at a seed besides the reports. Default 2.
    pub evict_misses: u32,
    /// Most reporters remembered for one target. Default 16; further ones change nothing.
    pub max_reporters: usize,
    /// Most targets for which reports are remembered. Default 1,024; the oldest is forgotten.
    pub max_targets: usize,
    /// Most tombstones that a seed tells, and that are kept of one seed. Default 1,024; the oldest is forgotten.
    pub max_tombstones: usize,
    /// How long a tombstone stands. Default 600 s. Relation: above the 120 s that a registration lasts, or the dead one
    /// would be listed again; at least [`Config::freshness`].
    pub retention: Duration,
    /// After how long a report or a list of tombstones that did not arrive is sent again. Default 5 s.
    pub resend: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(13),
            misses: 3,
            probe_timeout: Duration::from_secs(4),
            request_timeout: Duration::from_secs(5),
            helpers: 3,
            max_health: 8,
            late: Duration::from_millis(500),
            max_neighbours: 4_096,
            max_relays: 256,
            max_relays_per_peer: 16,
            freshness: Duration::from_secs(60),
            evict_reporters: 2,
            evict_misses: 2,
            max_reporters: 16,
            max_targets: 1_024,
            max_tombstones: 1_024,
            retention: Duration::from_secs(600),
            resend: Duration::from_secs(5),
        }
    }
}

impl Config {
    /// The plain time for an answer, before bad health stretches it.
    pub(crate) fn patience(&self) -> Duration {
        self.probe_timeout.min(self.interval * 4 / 5)
    }
}
