//! Everything that can be said about direct messages without a process: the wire format, the two cores alone, the
//! cores against each other in simulated time, and real swarms in memory.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic like tests")]

#[path = "direct-message/common.rs"]
mod common;
/// The receiver's core alone.
#[path = "direct-message/inbox.rs"]
mod inbox;
/// The sender's core alone.
#[path = "direct-message/outbox.rs"]
mod outbox;
/// Senders and receivers against each other: loss, doubling, reordering, crashes, full disks.
#[path = "direct-message/simulation.rs"]
mod simulation;
/// Two real swarms in memory.
#[path = "direct-message/swarms.rs"]
mod swarms;
/// Test vectors, and hostile bytes.
#[path = "direct-message/wire.rs"]
mod wire;
