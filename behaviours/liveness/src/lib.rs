#![doc = include_str!("../README.md")]

mod behaviour;
mod bucket;
mod cbor;
mod config;
pub mod detector;
mod event;
mod fault;
mod limits;
pub mod protocol;
pub mod reports;
mod statement;

pub use behaviour::Behaviour;
pub use config::{Config, MIN_INTERVAL, Role};
pub use detector::{Incarnation, State, Status};
pub use event::{Event, Reason};
pub use fault::FaultKind;
pub use protocol::{MAX_FRAME_BYTES, MAX_STATEMENTS, PROTOCOL};
pub use statement::{Alive, Challenge, MAX_STATEMENT_BYTES, Report, StatementError, Tombstone};
