//! A transfer on its way: a bar for each peer on a terminal, else a line for each change.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write as _};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::OneShot;
use super::follow::{Direction, Seen, State};
use crate::frontend::render::safe::safe;

/// Bytes, rate and time left beside the bar.
const MOVING: &str = "{prefix} [{bar:24}] {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec} {eta} {msg}";

/// So often a bar is drawn that nothing moves, so that its time goes on.
const TICK: Duration = Duration::from_millis(250);

/// Bars on stderr, so that stdout stays what a script reads.
pub(super) struct Progress {
    bars: Option<MultiProgress>,
    rows: BTreeMap<String, ProgressBar>,
    json: bool,
}

impl Progress {
    pub(super) fn new(shown: OneShot) -> Self {
        let bars = !shown.json && !shown.no_progress && std::io::stderr().is_terminal();
        let bars = bars.then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(8)));
        Self { bars, rows: BTreeMap::new(), json: shown.json }
    }

    /// How a transfer with one peer stands now. `before` is its last state; `first` when it was under way already.
    pub(super) fn show(&mut self, row: &Seen, before: Option<State>, first: bool) {
        let resumed = row.state == State::Active && row.bytes > 0 && (first || before == Some(State::Paused));
        let bar = self.bars.as_ref().map(|bars| {
            self.rows.entry(row.peer.clone()).or_insert_with(|| {
                let bar = bars.add(ProgressBar::new(row.total));
                let way = if row.direction == Direction::Out { "to" } else { "from" };
                bar.set_style(ProgressStyle::with_template(MOVING).unwrap_or_else(|_| ProgressStyle::default_bar()));
                bar.set_prefix(format!("{} {way} {}", short(&row.file), row.who()));
                bar.enable_steady_tick(TICK);
                bar
            })
        });
        if let Some(bar) = bar {
            bar.set_length(row.total);
            bar.set_position(row.bytes);
            if resumed {
                // What was there before is nothing that moved now.
                bar.reset_eta();
            }
            match row.state {
                State::Offered => bar.set_message("waiting for an answer"),
                State::Paused => bar.set_message(format!("paused{}", row.why())),
                State::Active if resumed => bar.set_message(format!("resuming at {}", size(row.bytes))),
                State::Active if before == Some(State::Active) => {}
                State::Active => bar.set_message(""),
                State::Completed | State::Failed | State::Rejected | State::Cancelled => bar.finish_and_clear(),
            }
            return;
        }
        if self.json || before == Some(row.state) {
            return;
        }
        let file = safe(&row.file);
        match row.state {
            State::Offered if row.direction == Direction::Out => {
                self.say(&format!("waiting for {}'s answer", row.who()))
            }
            State::Paused => self.say(&format!("{file} is paused at {}{}", size(row.bytes), row.why())),
            State::Active if resumed => self.say(&format!("{file}: resuming at {}", size(row.bytes))),
            _ => {}
        }
    }

    /// A line for people, above the bars.
    pub(super) fn say(&self, text: &str) {
        self.above(|| {
            // A reader that has gone is no reason to give up the transfer.
            let _ = writeln!(std::io::stdout(), "{text}");
        });
    }

    /// The same on stderr.
    pub(super) fn complain(&self, text: &str) {
        self.above(|| eprintln!("node: {text}"));
    }

    /// Take the bars away.
    pub(super) fn end(&self) {
        for bar in self.rows.values() {
            bar.finish_and_clear();
        }
    }

    fn above(&self, print: impl FnOnce()) {
        match &self.bars {
            Some(bars) => bars.suspend(print),
            None => print(),
        }
    }
}

/// A name that leaves room for the bar.
fn short(name: &str) -> String {
    const LONGEST: usize = 32;
    let name = safe(name);
    if name.chars().count() <= LONGEST {
        return name.into_owned();
    }
    let mut short: String = name.chars().take(LONGEST - 1).collect();
    short.push('…');
    short
}

/// A number of bytes in its largest unit.
pub(super) fn size(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}
