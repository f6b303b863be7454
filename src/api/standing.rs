//! What replies hold about who is alive and who can be trusted. Field names are the outward contract.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{PeerState, millis, optional_millis};

/// The way to a peer, just measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PingInfo {
    /// PeerId.
    pub peer: String,
    /// Nickname.
    pub name: String,
    /// Round trip of the probe, in milliseconds, the time within both programs included.
    pub rtt_ms: f64,
    /// Its clock minus ours, in milliseconds; off by at most half of the round trip.
    pub offset_ms: i64,
}

/// One neighbour as `liveness` shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LivenessRow {
    /// PeerId.
    pub peer: String,
    /// Nickname.
    pub name: String,
    /// `up`, `known` (its link broke), `suspect` or `dead`.
    pub state: PeerState,
    /// Probes missed in a row.
    pub failures: u32,
    /// Round trip of the last probe, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Its clock minus ours, in milliseconds.
    pub offset_ms: Option<i64>,
    /// When it last gave a sign of life.
    #[serde(serialize_with = "optional_millis")]
    pub last_seen: Option<Timestamp>,
    /// When it is probed next.
    #[serde(serialize_with = "optional_millis")]
    pub next_probe: Option<Timestamp>,
}

/// What is thought of a peer, and why.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct WhyInfo {
    /// PeerId.
    pub peer: String,
    /// Nickname.
    pub name: String,
    /// 0.0 to 1.0: how well things went with it; orders choices and never bans.
    pub reliability: f64,
    /// Proven misbehaviour, decaying; 0 is none.
    pub faults: f64,
    /// At so much it is sent away for a while.
    pub limit: f64,
    /// Until when it is refused.
    #[serde(serialize_with = "optional_millis")]
    pub refused_until: Option<Timestamp>,
    /// What was seen, the newest first.
    pub facts: Vec<FactInfo>,
}

/// One thing that was seen of a peer.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct FactInfo {
    /// When it was seen last, on this node's clock.
    #[serde(serialize_with = "millis")]
    pub at: Timestamp,
    /// When it was seen first in this row.
    #[serde(serialize_with = "millis")]
    pub since: Timestamp,
    /// How often in a row.
    pub count: u64,
    /// What: a word such as `dial-failed` or `forged-statement`.
    pub what: String,
    /// Which number it moved: `reliability` or `faults`.
    pub moved: String,
    /// By how much in all.
    pub by: f64,
}

/// How bad a [`Finding`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It does not work.
    Error,
    /// It works, but not as it should.
    Warning,
    /// It works.
    Ok,
}

/// One line of `doctor`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What was looked at.
    pub subject: String,
    /// What was found.
    pub finding: String,
    /// What to do about it; empty when nothing is to be done.
    pub advice: String,
}

/// The exchange of cards with the neighbours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ExchangeInfo {
    /// Whether it goes on.
    pub on: bool,
    /// The pause between two of them, in seconds.
    pub interval_s: f64,
    /// Neighbours asked so far.
    pub asked: u64,
    /// Cards learnt from their answers that were news.
    pub learnt: u64,
}
