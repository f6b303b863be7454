#![doc = include_str!("../README.md")]

mod behaviour;
mod cbor;
pub mod chunks;
mod config;
mod fault;
mod handler;
pub mod hash;
pub mod manifest;
pub mod pacing;
pub mod plan;
pub mod protocol;
pub mod receiver;
mod record;
pub mod scheduler;
pub mod sender;
mod standing;
pub mod store;

pub use behaviour::{Behaviour, Error, Event};
pub use config::Config;
pub use fault::FaultKind;
pub use handler::{Command, Handler, Message, Purpose};
pub use hash::{ChunkHasher, Hash};
pub use manifest::{CHUNK, Chunk, Entry, Kind, MAX_ENTRIES, Manifest, ManifestError, Offer, PIECE, Seal, TransferId};
pub use plan::Plan;
pub use protocol::{CONTROL_PROTOCOL, MAX_SPAN, PROTOCOL};
pub use record::{Direction, Reason, Record, Snapshot, State};
pub use store::{ChunkStore, Place, StoreError};
