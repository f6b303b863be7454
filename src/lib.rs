//! Althing: a serverless node that lets machines you own talk, share files and reach agreement.
//!
//! # Layout
//! - [`api`]: what front ends and the event loop say to each other
//! - [`Node`], [`Handle`]: start a node; send commands, watch events
//! - [`config`], [`cli`]: settings from flags, environment, file and defaults
//! - [`frontend`]: prompt, script, control socket, one-shot commands, demo
//! - `event_loop`: the one task that owns the Swarm
//! - `network`: the Swarm, and the cores that decide whom it dials
//! - `files`: what transfers read, write and remember on disk
//! - `storage`: one SQLite thread; `identity` and [`data_dir`]: the key and the folder
//! - [`panics`]: counts what tokio survives
//!
//! The protocols themselves are crates of their own under `behaviours/`.

pub mod api;
pub mod cli;
pub mod config;
pub mod data_dir;
mod event_loop;
mod files;
pub mod frontend;
mod handle;
mod identity;
mod network;
mod node;
pub mod panics;
mod storage;

pub use api::{Command, Event};
pub use config::Config;
pub use handle::Handle;
pub use node::{Node, Running, examine};
