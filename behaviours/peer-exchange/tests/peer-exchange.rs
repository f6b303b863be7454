//! The tests of peer-exchange, one binary.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "virtual time starts somewhere, and swarms run in real time")]

/// Keys and cards that are the same in every run.
#[path = "peer-exchange/cast.rs"]
mod cast;
/// Lookups, rule by rule.
#[path = "peer-exchange/exchange.rs"]
mod exchange;
/// Lookups in random networks, in virtual time.
#[path = "peer-exchange/exchange_simulated.rs"]
mod exchange_simulated;
/// The rules of the links, one by one.
#[path = "peer-exchange/links.rs"]
mod links;
/// The links of two and three nodes under breakage, crashes and simultaneous dials, in virtual time.
#[path = "peer-exchange/links_simulated.rs"]
mod links_simulated;
/// What a remote that is not ours may say.
#[path = "peer-exchange/rude.rs"]
mod rude;
/// Real swarms over loopback.
#[path = "peer-exchange/swarms.rs"]
mod swarms;
/// Every wire format, byte for byte.
#[path = "peer-exchange/wire.rs"]
mod wire;
/// Nodes, connections and trouble for `links_simulated`.
#[path = "peer-exchange/world.rs"]
mod world;
