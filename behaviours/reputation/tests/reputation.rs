//! The two numbers under every sequence of inputs, the limits, what is stored, and real swarms.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic like tests")]

/// Limits without a network.
#[path = "reputation/admission.rs"]
mod admission;
#[path = "reputation/common.rs"]
mod common;
/// Scores, cuts and pardons.
#[path = "reputation/faults.rs"]
mod faults;
/// The table and its copy in the README.
#[path = "reputation/penalties.rs"]
mod penalties;
/// How the number moves.
#[path = "reputation/reliability.rs"]
mod reliability;
/// What survives a restart.
#[path = "reputation/stored.rs"]
mod stored;
/// Real swarms.
#[path = "reputation/swarms.rs"]
mod swarms;
/// Refusals counted.
#[path = "reputation/tally.rs"]
mod tally;
