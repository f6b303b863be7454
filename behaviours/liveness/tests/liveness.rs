//! The tests of liveness, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere, and swarms run in real time")]

/// Keys that are the same in every run.
#[path = "liveness/cast.rs"]
mod cast;
/// The detector, rule by rule.
#[path = "liveness/detector.rs"]
mod detector;
/// Reports and tombstones, rule by rule, and slander.
#[path = "liveness/reports.rs"]
mod reports;
/// Many nodes in virtual time, with trouble.
#[path = "liveness/simulation.rs"]
mod simulation;
/// Real swarms in memory.
#[path = "liveness/swarms.rs"]
mod swarms;
/// Every wire format, byte for byte, and hostile bytes.
#[path = "liveness/wire.rs"]
mod wire;
/// Nodes, links and trouble for `simulation` and for the example `figures`.
#[path = "liveness/world.rs"]
mod world;
