#![doc = include_str!("../README.md")]

mod behaviour;
pub mod config;
mod protobuf;
pub mod protocol;

pub use behaviour::{Behaviour, Event, RegisterError};
pub use config::Config;
pub use protocol::{Cookie, FaultKind, PROTOCOL};
