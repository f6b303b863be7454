//! The front end of a node at a terminal: a line editor with history and completion; what happens is printed above the
//! line that is being typed.
//!
//! The editor has a thread of its own and reads one line at a time: while a command is executed nothing is edited, and
//! what is typed meanwhile waits in the terminal. The thread sits in a blocking read; what must reach it (another prompt,
//! the end) is a SIGINT that this process sends itself, see [`Shared::wake`].
//!
//! - `editor`: the thread, its keys and its history file
//! - `complete`: what Tab offers
//! - `people`: who is around and what is unread
//! - `screen`: printing above the edited line; `log`: so do log lines

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::sys::signal::{self, Signal};
use rustyline::ExternalPrinter;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::lines::{MAX_LINE_BYTES, RawLine};
use super::output::Output;
use super::session::{Flow, Session};
use super::signals::Signals;
use super::stdin::{bye, execute};
use super::{Options, complain, introduce, stop};
use crate::api::{ApiError, Command, ErrorCode, Event, MessageKind, Reply, Stamped};
use crate::handle::Handle;

mod complete;
mod editor;
mod log;
mod people;
mod screen;

pub(super) use editor::Terminal;
use editor::{Lines, Typed};
pub use log::Log;
use people::{Scene, Shared};
use screen::Screen;

/// Shortest time between two bells, so that a flood of messages is no siren.
const BELL: Duration = Duration::from_secs(1);

/// Shortest time between two redraws of the prompt because the unread count has changed.
const REDRAW: Duration = Duration::from_millis(200);

/// How long the editor may take to give the terminal back.
const CLOSE: Duration = Duration::from_secs(1);

/// How long one try of that may take.
const TRY: Duration = Duration::from_millis(20);

/// How long the last lines may take onto the screen.
const LAST_LINES: Duration = Duration::from_secs(1);

/// How long a line that was entered may take from the editor's thread to its execution.
const ON_ITS_WAY: Duration = Duration::from_millis(500);

/// The exit status that stands for SIGINT.
const INTERRUPTED: u8 = 130;

/// Run until `quit`, Ctrl-D, a signal, or the node's own end; the exit status.
pub(super) async fn run(
    handle: Handle,
    events: broadcast::Receiver<Stamped>,
    options: Options,
    terminal: Terminal,
    printer: impl ExternalPrinter + Send + 'static,
) -> u8 {
    let cannot = |what: &str, error: std::io::Error| {
        complain(&ApiError::new(ErrorCode::General, format!("{what}: {error}")));
        1
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => return cannot("signals cannot be caught", error),
    };
    let shared = terminal.shared();
    let lines = match terminal.start() {
        Ok(lines) => lines,
        Err(error) => return cannot("the terminal cannot be read", error),
    };
    let output = Output::start(options.style(false), Screen::new(printer));
    introduce(&handle, &output).await;
    log::redirect(Some(output.clone()));
    let follow = tokio::spawn({
        let output = output.clone();
        async move { output.follow(events).await }
    });
    output.text("Type `help` for the commands, `menu` for a menu, `quit` to leave.".to_owned()).await;
    let watch = tokio::spawn(watch(Arc::clone(&shared), handle.subscribe()));
    let mut ended = handle.subscribe();
    let mut prompt = Prompt {
        session: Session::new(handle.clone(), output.clone(), true),
        handle: handle.clone(),
        output,
        shared,
        lines,
    };
    let status = tokio::select! {
        status = prompt.converse(&mut signals) => status,
        () = bye(&mut ended) => 0,
    };
    watch.abort();
    prompt.close().await;
    // Our own SIGINT may still be on its way to the old receivers.
    drop(signals);
    match Signals::new() {
        Ok(mut signals) => {
            tokio::select! {
                () = stop(&handle) => {}
                // One more signal ends the process at once.
                status = signals.next() => std::process::exit(i32::from(status)),
            }
        }
        Err(_) => stop(&handle).await,
    }
    // `bye` is the last line; it is on its way when the node has stopped.
    let _ = tokio::time::timeout(super::STOP, follow).await;
    log::redirect(None);
    let _ = tokio::time::timeout(LAST_LINES, prompt.output.flush()).await;
    status
}

struct Prompt {
    session: Session,
    handle: Handle,
    output: Output,
    shared: Arc<Shared>,
    lines: Lines,
}

impl Prompt {
    /// Execute lines until the end; the exit status.
    async fn converse(&mut self, signals: &mut Signals) -> u8 {
        if let Ok(Reply::Settings(settings)) = self.handle.execute(Command::Config).await {
            self.shared.know_settings(settings.into_iter().map(|setting| setting.key).collect());
        }
        let (mut cancelled, mut first) = (false, true);
        loop {
            self.refresh().await;
            self.shared.demand();
            self.lines.demand().await;
            let mut interrupted: Option<Instant> = None;
            let typed = loop {
                tokio::select! {
                    typed = self.lines.next() => break typed,
                    // While a line is read SIGINT goes to the editor. Before that it is a Ctrl-C that came just too late
                    // for a command, which must not end the node; after that it is about the line that was entered.
                    status = outside(signals, &self.shared) => match self.shared.has_begun() {
                        begun if status != INTERRUPTED || (first && !begun) => return status,
                        begun => interrupted = begun.then(Instant::now),
                    },
                }
            };
            first = false;
            match typed {
                Typed::Text(_) if interrupted.is_some_and(|at| at.elapsed() < ON_ITS_WAY) => {
                    self.output.text("(interrupted)".to_owned()).await;
                }
                Typed::Text(text) => {
                    cancelled = false;
                    match self.execute(&text, signals).await {
                        Ok(Flow::Next) => {}
                        Ok(Flow::Quit) => return 0,
                        Err(status) => return status,
                    }
                }
                Typed::Cancel if cancelled => return 0,
                Typed::Cancel => {
                    cancelled = true;
                    self.output.text("(Ctrl-C once more leaves; so does Ctrl-D)".to_owned()).await;
                }
                Typed::End => {
                    tokio::select! {
                        _ = self.session.linger() => {}
                        status = outside(signals, &self.shared) => return status,
                    }
                    return 0;
                }
                Typed::Interrupted => return INTERRUPTED,
            }
        }
    }

    /// Execute what was entered, line by line. Ctrl-C ends a command that takes its time, and what was to follow it.
    /// The error is the exit status of a signal that ends the node.
    async fn execute(&mut self, text: &str, signals: &mut Signals) -> Result<Flow, u8> {
        for line in text.split('\n') {
            let raw = if line.len() > MAX_LINE_BYTES { RawLine::TooLong } else { RawLine::Text(line.to_owned()) };
            let executed = tokio::select! {
                executed = execute(&mut self.session, raw) => executed,
                status = outside(signals, &self.shared) => {
                    if status != INTERRUPTED {
                        return Err(status);
                    }
                    self.output.text("(interrupted)".to_owned()).await;
                    return Ok(Flow::Next);
                }
            };
            if executed.flow == Flow::Quit {
                return Ok(Flow::Quit);
            }
            if let Some(command) = self.session.take_last() {
                self.shared.read_by(&command);
            }
        }
        Ok(Flow::Next)
    }

    /// What the next prompt shows and Tab offers.
    async fn refresh(&self) {
        let own = match self.handle.execute(Command::ConfigGet { key: "name".to_owned() }).await {
            Ok(Reply::Setting(setting)) => Some(setting.value),
            _ => None,
        };
        if let Ok(Reply::Peers(peers)) = self.handle.execute(Command::Peers).await {
            self.shared.know_peers(&peers);
        }
        self.shared.set(own, self.session.chat(), self.scene());
    }

    fn scene(&self) -> Scene {
        match (self.session.chat(), self.session.in_menu()) {
            (Some(_), _) => Scene::Chat,
            (None, true) => Scene::Answer,
            (None, false) => Scene::Command,
        }
    }

    /// Have the editor give the terminal back as it was.
    async fn close(&mut self) {
        self.shared.closing.store(true, Ordering::SeqCst);
        let deadline = Instant::now() + CLOSE;
        // The thread may be at any point between two reads; one of the signals meets it in one.
        while Instant::now() < deadline {
            if self.shared.is_reading() {
                wake(&self.shared);
            }
            if matches!(tokio::time::timeout(TRY, self.lines.ended()).await, Ok(true)) {
                return;
            }
        }
    }
}

/// The next signal that this process has not sent itself, as an exit status.
async fn outside(signals: &mut Signals, shared: &Shared) -> u8 {
    loop {
        let status = signals.next().await;
        if status != INTERRUPTED || !shared.woken() {
            return status;
        }
    }
}

/// Interrupt the read of the terminal.
fn wake(shared: &Shared) {
    shared.wake.store(true, Ordering::SeqCst);
    if signal::raise(Signal::SIGINT).is_err() {
        shared.woken();
    }
}

/// Keep the list of peers and the unread counts; ring for a direct message that nobody is looking at.
async fn watch(shared: Arc<Shared>, mut events: broadcast::Receiver<Stamped>) {
    let mut rung: Option<Instant> = None;
    let mut redraw: Option<Instant> = None;
    let mut redrawn: Option<Instant> = None;
    loop {
        let stamped = tokio::select! {
            stamped = events.recv() => stamped,
            () = tokio::time::sleep_until(redraw.unwrap_or_else(Instant::now)), if redraw.is_some() => {
                redraw = None;
                redrawn = Some(Instant::now());
                if shared.idle() {
                    wake(&shared);
                }
                continue;
            }
        };
        let stamped = match stamped {
            Ok(stamped) => stamped,
            Err(RecvError::Lagged(_)) => continue,
            Err(RecvError::Closed) => return,
        };
        if matches!(*stamped.event, Event::Bye { .. }) {
            return;
        }
        let Some(kind) = shared.see(&stamped.event) else { continue };
        // A broadcast is addressed to nobody in particular, so it rings for nobody.
        if kind == MessageKind::Direct && rung.is_none_or(|rung| rung.elapsed() >= BELL) {
            rung = Some(Instant::now());
            // The one control character that is written for a message, and it is ours.
            let _ = tokio::task::spawn_blocking(|| screen::plain(b"\x07")).await;
        }
        redraw = redraw.or_else(|| Some(redrawn.map_or_else(Instant::now, |redrawn| redrawn + REDRAW)));
    }
}
