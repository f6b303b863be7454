#![doc = include_str!("../README.md")]

mod behaviour;
pub mod config;
pub mod inbox;
pub mod message;
pub mod outbox;
pub mod protocol;

pub use behaviour::{Behaviour, Event};
pub use config::Config;
pub use inbox::{Error, NotStored, Stored, Token};
pub use message::{MAX_ENVELOPE_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES, Message, MessageError, MessageId};
pub use outbox::{Outgoing, Reason, Requeue, Settled};
pub use protocol::{FaultKind, PROTOCOL, Refusal};
