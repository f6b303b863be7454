//! What may be tuned, with defaults, units and bounds.

use std::time::Duration;

/// The settings of the whole behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a broadcast is kept for neighbours that lack it, counted from its author's time or its arrival, whichever
    /// is earlier. Neighbours' older ones are not taken any more. Default 24 h; longer than an hour in a real network.
    pub retention: Duration,
    /// Most broadcasts kept, over all authors; the oldest goes first. Default 10,000; at least 1.
    pub retained_messages: usize,
    /// Most bytes of envelopes kept in memory; the oldest goes first. Default 32 MiB; not less than
    /// [`MAX_ENVELOPE_BYTES`](crate::MAX_ENVELOPE_BYTES).
    pub retained_bytes: usize,
    /// Most streams (author and epoch) of which anything is remembered, some 200 bytes each. Those that hold nothing any
    /// more are forgotten first, the longest silent one first. Default 4,096; at least 1.
    pub max_streams: usize,
    /// How far ahead of what is known a sequence number may be to be taken from gossip; what is further ahead is ignored
    /// until a neighbour has filled the gap. Default 10,000; not less than `retained_messages`.
    pub max_jump: u64,
    /// How long a broadcast behind a gap is held back for the missing ones. Default 5 s.
    pub gap_patience: Duration,
    /// How long a gap must last before a neighbour is asked: gossip overtakes itself all the time. Default 200 ms; below
    /// `gap_patience`.
    pub gap_delay: Duration,
    /// How often one neighbour, each in its turn, is asked what it has. The actual wait is a uniform pick between three
    /// quarters of it and all of it. Default 10 s.
    pub sync_interval: Duration,
    /// Longest time for a neighbour's answer. Default 10 s.
    pub request_timeout: Duration,
    /// Sustained broadcasts a second taken from one neighbour's gossip; the rest is ignored and comes by sync. Default
    /// 1,000; at least 1.
    pub messages_per_second: u32,
    /// Broadcasts taken from one neighbour's gossip at once after a pause. Default 2,000; at least 1.
    pub message_burst: u32,
    /// Sustained bytes a second taken from one neighbour's gossip. Default 8 MiB; at least 1.
    pub bytes_per_second: u32,
    /// Bytes taken from one neighbour's gossip at once after a pause. Default 16 MiB; not less than
    /// [`MAX_ENVELOPE_BYTES`](crate::MAX_ENVELOPE_BYTES).
    pub byte_burst: u32,
    /// Sustained questions a second that one neighbour is answered; the rest fails. Default 50; at least 1.
    pub questions_per_second: u32,
    /// Questions that one neighbour is answered at once after a pause. Default 200; at least 1.
    pub question_burst: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            retention: Duration::from_secs(24 * 60 * 60),
            retained_messages: 10_000,
            retained_bytes: 32 * 1024 * 1024,
            max_streams: 4_096,
            max_jump: 10_000,
            gap_patience: Duration::from_secs(5),
            gap_delay: Duration::from_millis(200),
            sync_interval: Duration::from_secs(10),
            request_timeout: Duration::from_secs(10),
            messages_per_second: 1_000,
            message_burst: 2_000,
            bytes_per_second: 8 * 1024 * 1024,
            byte_burst: 16 * 1024 * 1024,
            questions_per_second: 50,
            question_burst: 200,
        }
    }
}
