#![doc = include_str!("../README.md")]

pub mod admission;
mod behaviour;
pub mod config;
pub mod evidence;
pub mod fact;
pub mod faults;
pub mod penalties;
pub mod prefix;
pub mod reliability;
pub mod stored;
pub mod tally;

pub use admission::{Refusal, Refused, Usage};
pub use behaviour::{Behaviour, Event};
pub use config::{Config, Limits};
pub use evidence::Evidence;
pub use fact::{Fact, Number};
pub use prefix::{Origin, Prefix};
pub use stored::{DecodeError, Stored};
