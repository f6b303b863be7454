//! What can be tuned.

use std::time::Duration;

/// The settings of one node. The defaults are meant for everybody; tests shorten the times.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Bytes a second that leave for all transfers together; `None` is as fast as possible. Default none, at least 1.
    pub upload_limit: Option<u64>,
    /// Bytes a second that are taken for all transfers together; `None` is as fast as possible. Default none, at least 1.
    pub download_limit: Option<u64>,
    /// What one request asks for at most, in bytes, rounded down to whole chunks, at least one. Default 4 MiB, at most
    /// [`MAX_SPAN`](crate::MAX_SPAN).
    pub span: u64,
    /// Requests in flight for one transfer. Default 4, at least 1. Memory is about this x 512 KiB at either end.
    pub in_flight: usize,
    /// Requests in flight for all transfers together. Default 16, at least [`Config::in_flight`].
    pub in_flight_total: usize,
    /// A span of which no byte came for so long is given up and its transfer counts as stalled. Default 20 s.
    pub stall_timeout: Duration,
    /// A control message that wants an answer is sent again after so long. Default 5 s.
    pub answer_timeout: Duration,
    /// First pause after a failed span; doubles up to [`Config::retry_max`]. Default 250 ms.
    pub retry_initial: Duration,
    /// Longest pause after failed spans. Default 10 s.
    pub retry_max: Duration,
    /// So often a chunk may come with the wrong hash until the transfer fails. Default 3, at least 1.
    pub max_bad_chunks: u32,
    /// While bytes move, progress is told so often, to people and to the sender. Default 250 ms.
    pub progress_interval: Duration,
    /// Offers of one peer that wait for a decision; a further one is refused. Default 16.
    pub max_offers_per_peer: usize,
    /// Transfers that are not over, both directions. A further one is refused. Default 256.
    pub max_transfers: usize,
    /// Bytes of manifests held for offers that wait for a decision, of all peers together. Default 32 MiB.
    pub max_offered_bytes: usize,
    /// Transfers that are over and still remembered, so that somebody who asks late gets an answer. The oldest is
    /// forgotten. Default 1,024.
    pub max_finished: usize,
    /// Control messages a second that one peer may send, on average; bursts of ten times as many. What is above is
    /// dropped. Default 100.
    pub message_rate: f64,
    /// A second connection is wanted for a transfer that lacks at least so many bytes. Default 8 MiB.
    pub bulk_threshold: u64,
    /// A bulk connection on which nothing moved for so long may be closed. Default 5 s.
    pub bulk_idle: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            upload_limit: None,
            download_limit: None,
            span: 4 << 20,
            in_flight: 4,
            in_flight_total: 16,
            stall_timeout: Duration::from_secs(20),
            answer_timeout: Duration::from_secs(5),
            retry_initial: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
            max_bad_chunks: 3,
            progress_interval: Duration::from_millis(250),
            max_offers_per_peer: 16,
            max_transfers: 256,
            max_offered_bytes: 32 << 20,
            max_finished: 1024,
            message_rate: 100.0,
            bulk_threshold: 8 << 20,
            bulk_idle: Duration::from_secs(5),
        }
    }
}
