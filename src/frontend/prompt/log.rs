//! Log lines while somebody types: above the line that is being edited, as everything else.

use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};

use crate::frontend::output::Output;
use crate::frontend::render::safe::safe;

/// The prompt's output while there is a prompt.
static OUTPUT: Mutex<Option<Output>> = Mutex::new(None);

/// Where log lines go: stderr, or above the edited line when stderr is the terminal on which one is edited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Log;

/// Let log lines go there from now on; `None` is stderr.
pub(super) fn redirect(output: Option<Output>) {
    let output = output.filter(|_| io::stderr().is_terminal());
    *OUTPUT.lock().unwrap_or_else(PoisonError::into_inner) = output;
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A clone, because sending may log itself.
        let output = OUTPUT.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(output) = output {
            let text = String::from_utf8_lossy(bytes);
            let lines: Vec<_> = text.trim_end().lines().map(safe).collect();
            if output.try_text(lines.join("\n")) {
                return Ok(bytes.len());
            }
        }
        io::stderr().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}
