//! Front ends: they turn lines into commands and events into lines, and know nothing of libp2p or SQLite.
//!
//! # Layout
//! - [`stdin`](run_stdin) and [`script`](run_script): a node's own conversation
//! - [`control`](serve_control) and `oneshot` ([`ctl`], [`send`], [`recv`]): the same through the control socket
//! - `prompt`: line editing when there is a terminal; `menu`: the numbered panel
//! - `session`: executes lines in order; `wait` and `expect`
//! - `command_line`, `help`: what a line means; `export`: history to a file
//! - `output`, `render`: events and replies to lines, for people and for programs
//! - [`output_dir`](keep_output_dir): the seed projects' files
//! - `lines`, `signals`: bytes to lines; what ends the process
//! - [`demo`], [`child`]: real nodes as child processes, driven through `--json`

pub mod child;
mod command_line;
mod control;
pub mod demo;
mod export;
mod help;
mod lines;
mod menu;
mod oneshot;
mod output;
mod output_dir;
mod prompt;
mod render;
mod script;
mod session;
mod signals;
mod stdin;

pub use control::{Control, serve as serve_control};
pub use oneshot::{OneShot, Recv, Send, ctl, doctor, follow_events, recv, send};
pub use output_dir::keep_output_dir;
pub use prompt::Log;
pub use script::{Script, run as run_script};
pub use stdin::run as run_stdin;

use std::time::Duration;

use crate::api::{ApiError, Command, Reply};
use crate::handle::Handle;
use output::Style;

/// How a front end looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// One JSON object a line on stdout; people's text goes to stderr.
    pub json: bool,
    /// ANSI colours in people's text.
    pub color: bool,
}

impl Options {
    fn style(self, script: bool) -> Style {
        if self.json { Style::Json } else { Style::Text { color: self.color, script } }
    }
}

/// Whether somebody types the lines, who can be asked.
pub fn is_attended() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

/// How long a node that was told to stop may take.
const STOP: Duration = Duration::from_secs(5);

/// Tell the node to stop and wait until it has, but not for ever.
async fn stop(handle: &Handle) {
    let _ = tokio::time::timeout(STOP, handle.execute(Command::Quit)).await;
}

/// Tell a reader who is known from earlier.
async fn introduce(handle: &Handle, output: &output::Output) {
    if let Ok(Reply::Peers(peers)) = handle.execute(Command::Peers).await {
        output.names(peers).await;
    }
}

/// An error on stderr, as one sentence.
fn complain(error: &ApiError) {
    eprintln!("node: {}", render::safe::safe(&error.message));
}
