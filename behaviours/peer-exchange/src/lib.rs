#![doc = include_str!("../README.md")]

mod behaviour;
mod bucket;
mod card;
mod cbor;
mod config;
mod event;
pub mod exchange;
mod fault;
mod handler;
pub mod links;
pub mod protocol;

pub use behaviour::Behaviour;
pub use card::{
    Card, CardError, Goodbye, MAX_ADDRESS_BYTES, MAX_ADDRESSES, MAX_CARD_BYTES, MAX_GOODBYE_BYTES, MAX_NAME_BYTES,
    MAX_NAME_CHARS, MAX_VERSION_BYTES, NameError, Role, SignedCard, What, check_name, check_team,
};
pub use config::Config;
pub use event::Event;
pub use exchange::{AskToken, LookupId};
pub use fault::FaultKind;
pub use handler::{Handler, Message};
pub use protocol::{MAX_CARDS, MAX_FRAME_BYTES, PROTOCOL, Subject};
