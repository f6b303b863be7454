//! File transfer from outside: cores in simulated time, swarms in one process, and what travels between them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere, and swarms run in real time")]

#[path = "file-transfer/simulated.rs"]
mod simulated;
#[path = "file-transfer/store.rs"]
mod store;
#[path = "file-transfer/swarms.rs"]
mod swarms;
#[path = "file-transfer/wire.rs"]
mod wire;
#[path = "file-transfer/world.rs"]
mod world;
