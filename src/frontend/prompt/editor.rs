//! The line editor on a thread of its own, because reading a terminal can be neither awaited nor taken back.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use rustyline::completion::{Completer, FilenameCompleter, Pair};
use rustyline::config::{BellStyle, ColorMode, Config};
use rustyline::error::ReadlineError;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::{
    Cmd, CompletionType, ConditionalEventHandler, Context, Editor, Event, EventContext, EventHandler, ExternalPrinter,
    Helper, Highlighter, KeyEvent, RepeatCount, Validator,
};
use tokio::sync::mpsc;

use super::complete::offer;
use super::people::Shared;
use super::screen;

/// Lines kept for the next start; the oldest go first.
const MAX_HISTORY: usize = 1_000;

/// What came from the terminal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Typed {
    /// What was entered; more than one line when lines were pasted.
    Text(String),
    /// Ctrl-C on an empty line.
    Cancel,
    /// Ctrl-D, or the terminal is gone.
    End,
    /// SIGINT from another process.
    Interrupted,
}

/// The thread's two ends. It reads one line for each demand, and ends when the demands do.
pub(super) struct Lines {
    demand: Option<mpsc::Sender<()>>,
    typed: mpsc::Receiver<Typed>,
}

impl Lines {
    /// Demand a line; [`Lines::next`] gives it.
    pub(super) async fn demand(&self) {
        if let Some(demand) = &self.demand {
            let _ = demand.send(()).await;
        }
    }

    /// The demanded line.
    pub(super) async fn next(&mut self) -> Typed {
        self.typed.recv().await.unwrap_or(Typed::End)
    }

    /// Demand no further line; true when the thread has ended.
    pub(super) async fn ended(&mut self) -> bool {
        self.demand = None;
        self.typed.recv().await.is_none()
    }
}

/// The line editor before its thread runs.
pub(crate) struct Terminal {
    editor: Editor<Typist, FileHistory>,
    history: Option<PathBuf>,
    shared: Arc<Shared>,
}

impl Terminal {
    /// The editor and what prints above its line; `None` when this terminal cannot do it.
    pub(crate) fn open(history: &Path, color: bool) -> Option<(Self, impl ExternalPrinter + Send + 'static)> {
        let shared = Arc::new(Shared::default());
        let config = Config::builder()
            .max_history_size(MAX_HISTORY)
            .and_then(|config| config.history_ignore_dups(true))
            .ok()?
            .history_ignore_space(true)
            .completion_type(CompletionType::List)
            .color_mode(if color { ColorMode::Enabled } else { ColorMode::Disabled })
            .bell_style(BellStyle::None)
            .build();
        let history_of_lines = FileHistory::with_config(&config);
        let mut editor = Editor::with_history(config, history_of_lines).ok()?;
        editor.set_helper(Some(Typist { shared: Arc::clone(&shared), files: FilenameCompleter::new() }));
        let typed = CtrlC(Arc::clone(&shared));
        editor.bind_sequence(KeyEvent::ctrl('C'), EventHandler::Conditional(Box::new(typed)));
        let printer = editor.create_external_printer().ok()?;
        // A history that cannot be kept is no reason not to read lines.
        let private = OpenOptions::new().append(true).create(true).mode(0o600).open(history);
        let history = match private.map_err(ReadlineError::from).and_then(|_| editor.load_history(history)) {
            Ok(()) => Some(history.to_owned()),
            Err(error) => {
                tracing::warn!("the history of lines {} cannot be used: {error}", history.display());
                None
            }
        };
        Some((Self { editor, history, shared }, printer))
    }

    /// What the prompt shows and knows.
    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// Start the thread.
    pub(super) fn start(mut self) -> std::io::Result<Lines> {
        let (demand, mut demands) = mpsc::channel(1);
        let (sender, typed) = mpsc::channel(1);
        std::thread::Builder::new().name("prompt".into()).spawn(move || {
            while demands.blocking_recv().is_some() {
                if sender.blocking_send(self.read()).is_err() {
                    break;
                }
            }
        })?;
        Ok(Lines { demand: Some(demand), typed })
    }

    /// One line, however often its prompt changes while it is empty.
    fn read(&mut self) -> Typed {
        let mut left = String::new();
        loop {
            if self.shared.closing.load(Ordering::SeqCst) {
                return Typed::End;
            }
            self.shared.typed.store(false, Ordering::SeqCst);
            self.shared.begin();
            let read = self.editor.readline_with_initial(&self.shared.prompt(), (&left, ""));
            let half = self.shared.end();
            match read {
                Ok(text) => {
                    self.remember(&text);
                    return Typed::Text(text);
                }
                Err(ReadlineError::Interrupted) if self.shared.typed.load(Ordering::SeqCst) => {
                    if half.is_empty() {
                        return Typed::Cancel;
                    }
                    left.clear();
                }
                Err(ReadlineError::Interrupted) if self.shared.woken() => {
                    if self.shared.closing.load(Ordering::SeqCst) {
                        return Typed::End;
                    }
                    // The prompt stands one row above with nothing behind it; the new one takes its place.
                    let _ = screen::plain(b"\x1b[A\r\x1b[J");
                    left = half;
                }
                Err(ReadlineError::Interrupted) => return Typed::Interrupted,
                Err(ReadlineError::Eof) => return Typed::End,
                Err(error) => {
                    tracing::warn!("the terminal cannot be read: {error}");
                    return Typed::End;
                }
            }
        }
    }

    /// Keep what was entered, each line for itself, on disk too, so that a killed node loses none.
    fn remember(&mut self, text: &str) {
        for line in text.split('\n') {
            if let Err(error) = self.editor.add_history_entry(line) {
                tracing::debug!("a line was not kept: {error}");
            }
        }
        if let Some(path) = &self.history
            && let Err(error) = self.editor.append_history(path)
        {
            tracing::warn!("lines are not kept any more: {error}");
            self.history = None;
        }
    }
}

/// Notes that the interruption to come is the key and no signal.
struct CtrlC(Arc<Shared>);

impl ConditionalEventHandler for CtrlC {
    fn handle(&self, _: &Event, _: RepeatCount, _: bool, _: &EventContext) -> Option<Cmd> {
        self.0.typed.store(true, Ordering::SeqCst);
        Some(Cmd::Interrupt)
    }
}

/// Completes, and keeps an eye on whether something stands in the line.
#[derive(Helper, Highlighter, Validator)]
struct Typist {
    shared: Arc<Shared>,
    files: FilenameCompleter,
}

impl Hinter for Typist {
    type Hint = String;

    /// No hint; this is called at each change of the line.
    fn hint(&self, line: &str, _pos: usize, _ctx: &Context<'_>) -> Option<String> {
        if self.shared.typing(line) {
            super::wake(&self.shared);
        }
        None
    }
}

impl Completer for Typist {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _ctx: &Context<'_>) -> rustyline::Result<(usize, Vec<Pair>)> {
        let line = line.get(..pos).unwrap_or_default();
        let (scene, peers, settings) = self.shared.offers();
        let offer = offer(line, scene, &peers, &settings);
        if offer.file && offer.words.is_empty() {
            return self.files.complete_path(line, pos);
        }
        let pairs = offer.words.into_iter().map(|word| Pair { replacement: format!("{word} "), display: word });
        Ok((offer.start, pairs.collect()))
    }
}
