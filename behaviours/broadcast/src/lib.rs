#![doc = include_str!("../README.md")]

mod behaviour;
pub mod config;
pub mod envelope;
pub mod log;
pub mod protocol;
mod score;
pub mod sync;

pub use behaviour::{Behaviour, Event, SetupError};
pub use config::Config;
pub use envelope::{BroadcastId, Envelope, EnvelopeError, Kind, MAX_ENVELOPE_BYTES, MAX_TEXT_BYTES, MessageId};
pub use log::{Stats, Verdict};
pub use protocol::{FaultKind, PROTOCOL, StreamId};
