//! Commands that end: the client's side of the control socket.
//!
//! - `ctl`: one command, and the running node's events; `doctor`: what works, with or without a node
//! - `send`, `recv`: one transfer, followed to its end
//! - `client`: the conversation itself; `follow`: what happens to a transfer; `progress`: how that is shown

mod client;
mod ctl;
mod doctor;
mod follow;
mod progress;
mod recv;
mod send;

pub use ctl::{ctl, follow_events};
pub use doctor::doctor;
pub use recv::{Recv, recv};
pub use send::{Send, send};

use super::complain;
use crate::api::ApiError;

/// How a one-shot transfer is shown and what it may end with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OneShot {
    /// One JSON object a line on stdout: the replies, and the transfer's events.
    pub json: bool,
    /// No bar on a terminal.
    pub no_progress: bool,
    /// A transfer that only waits for its receiver is a success.
    pub allow_queued: bool,
    /// The node was started for this one transfer, so that it first has to find others.
    pub own_node: bool,
}

/// The exit status, after the error was told.
fn status(result: Result<(), ApiError>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            complain(&error);
            error.code.exit_status()
        }
    }
}
