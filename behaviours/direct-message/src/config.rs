//! What may be tuned, with defaults, units and bounds.

use std::time::Duration;

/// Longest wait for the receipts of one batch, and longest time a batch may be held here for the disk.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// First wait after a batch failed.
pub const RETRY_INITIAL: Duration = Duration::from_millis(250);

/// Longest wait after a batch failed.
pub const RETRY_MAX: Duration = Duration::from_secs(30);

/// Messages a second that one peer may hand us in the long run.
pub const MESSAGES_PER_SECOND: u32 = 4_000;

/// Messages that one peer may hand us at once after a pause.
pub const MESSAGE_BURST: u32 = 8_000;

/// Bytes of envelopes a second that one peer may hand us in the long run.
pub const BYTES_PER_SECOND: u32 = 8 * 1024 * 1024;

/// Bytes of envelopes that one peer may hand us at once after a pause.
pub const BYTE_BURST: u32 = 16 * 1024 * 1024;

/// The settings of the whole behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a request may take, from sending the batch to reading its receipts. It includes the receiver's disk.
    /// Default [`REQUEST_TIMEOUT`]; longer than zero.
    pub request_timeout: Duration,
    /// The wait after the first failure; each further failure doubles it. The actual wait is a uniform pick between
    /// half of it and all of it. Default [`RETRY_INITIAL`]; longer than zero and at most `retry_max`.
    pub retry_initial: Duration,
    /// No wait is longer than this. Default [`RETRY_MAX`].
    pub retry_max: Duration,
    /// Sustained messages a second accepted from one peer; the rest is answered `busy`. Default
    /// [`MESSAGES_PER_SECOND`]; at least 1.
    pub messages_per_second: u32,
    /// Messages accepted from one peer at once after a pause. Default [`MESSAGE_BURST`]; at least 1.
    pub message_burst: u32,
    /// Sustained bytes of envelopes a second accepted from one peer. Default [`BYTES_PER_SECOND`]; at least 1.
    pub bytes_per_second: u32,
    /// Bytes of envelopes accepted from one peer at once after a pause. Default [`BYTE_BURST`]; not less than
    /// [`MAX_ENVELOPE_BYTES`](crate::MAX_ENVELOPE_BYTES), or long messages would never pass.
    pub byte_burst: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_timeout: REQUEST_TIMEOUT,
            retry_initial: RETRY_INITIAL,
            retry_max: RETRY_MAX,
            messages_per_second: MESSAGES_PER_SECOND,
            message_burst: MESSAGE_BURST,
            bytes_per_second: BYTES_PER_SECOND,
            byte_burst: BYTE_BURST,
        }
    }
}
