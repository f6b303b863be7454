//! What may be tuned, with defaults, units and bounds.

use std::time::Duration;

/// Longest wait for one answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// Requests that wait for their answers at the same time, all seeds together.
pub const MAX_OUTSTANDING: usize = 64;

/// Registrations taken from one answer, however many were asked for.
pub const MAX_REGISTRATIONS: u64 = 500;

/// The settings of the behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a request may take, from opening its stream to reading the answer. Default [`REQUEST_TIMEOUT`]; longer
    /// than zero.
    pub request_timeout: Duration,
    /// Requests that wait for their answers; a further one fails at once. Default [`MAX_OUTSTANDING`]; at least 1. Each
    /// may hold [`MAX_MESSAGE_BYTES`](crate::protocol::MAX_MESSAGE_BYTES).
    pub max_outstanding: usize,
    /// Registrations that are asked for and taken at most in one answer. Default [`MAX_REGISTRATIONS`]; at least 1.
    pub max_registrations: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            request_timeout: REQUEST_TIMEOUT,
            max_outstanding: MAX_OUTSTANDING,
            max_registrations: MAX_REGISTRATIONS,
        }
    }
}
