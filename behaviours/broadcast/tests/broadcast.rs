//! Everything that can be said about broadcasts without a process: the wire format, the log alone, cores against each
//! other in simulated time, and real swarms in memory.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests may panic like tests")]

#[path = "broadcast/common.rs"]
mod common;
/// One core alone: order, gaps, bounds, lies.
#[path = "broadcast/core.rs"]
mod core;
/// Honest nodes on bad links, with one that lies among them.
#[path = "broadcast/simulation.rs"]
mod simulation;
/// Real swarms in memory.
#[path = "broadcast/swarms.rs"]
mod swarms;
/// Test vectors, and hostile bytes.
#[path = "broadcast/wire.rs"]
mod wire;
