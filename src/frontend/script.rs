//! `--script FILE` and `-e COMMAND`: run commands, then exit with the first failure's status.

use std::path::PathBuf;

use tokio::sync::broadcast;

use super::lines::{self, RawLine};
use super::output::Output;
use super::session::{Flow, Session};
use super::signals::Signals;
use super::{Options, complain, introduce, stop};
use crate::api::{ApiError, ErrorCode, Stamped};
use crate::handle::Handle;

/// Where the commands come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Script {
    /// A file, one command a line.
    File(PathBuf),
    /// Standard input, one command a line.
    Stdin,
    /// `-e`, in order.
    Commands(Vec<String>),
}

impl Script {
    /// What `-e` and `--script` ask for; with `-e` the file is not read. As a file, `-` is standard input.
    pub fn of(commands: Vec<String>, file: Option<PathBuf>) -> Option<Self> {
        match file {
            _ if !commands.is_empty() => Some(Self::Commands(commands)),
            Some(file) if file.as_os_str() == "-" => Some(Self::Stdin),
            file => file.map(Self::File),
        }
    }
}

/// Run the script and stop the node; the exit status is the first failing command's own.
///
/// The first failing line ends the script, unless `keep_going`. At the end, messages that are on their way are waited for;
/// with `-e` a message that is still only queued then is a failure of its own kind, unless `allow_queued`.
pub async fn run(
    handle: Handle,
    events: broadcast::Receiver<Stamped>,
    script: Script,
    options: Options,
    keep_going: bool,
    allow_queued: bool,
) -> u8 {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&ApiError::new(ErrorCode::General, format!("signals cannot be caught: {error}")));
            return 1;
        }
    };
    let output = Output::start(options.style(true), tokio::io::stdout());
    introduce(&handle, &output).await;
    let follow = tokio::spawn({
        let output = output.clone();
        async move { output.follow(events).await }
    });
    let mut session = Session::new(handle.clone(), output.clone(), keep_going);
    let status = tokio::select! {
        result = play(&mut session, script, keep_going, allow_queued) => match result {
            Ok(()) => 0,
            Err(error) => {
                complain(&error);
                error.code.exit_status()
            }
        },
        status = signals.next() => status,
        () = output.closed() => 0,
    };
    stop(&handle).await;
    let _ = tokio::time::timeout(super::STOP, follow).await;
    output.flush().await;
    status
}

async fn play(session: &mut Session, script: Script, keep_going: bool, allow_queued: bool) -> Result<(), ApiError> {
    let one_shot = matches!(script, Script::Commands(_));
    let mut first_error = None;
    let mut lines = match script {
        Script::Commands(commands) => Lines::Given(commands.into_iter()),
        Script::Stdin => Lines::Read(lines::spawn(std::io::stdin()).map_err(|error| unreadable("stdin", &error))?),
        Script::File(file) => {
            let opened = std::fs::File::open(&file).and_then(lines::spawn);
            Lines::Read(opened.map_err(|error| unreadable(&file.display().to_string(), &error))?)
        }
    };
    let mut number = 0;
    while let Some(line) = lines.next().await {
        number += 1;
        let executed = super::stdin::execute(session, line).await;
        if let Some(error) = executed.error {
            let error = ApiError::new(error.code, format!("line {number}: {}", error.message));
            first_error.get_or_insert(error);
            if !keep_going {
                break;
            }
        }
        if executed.flow == Flow::Quit {
            return first_error.map_or(Ok(()), Err);
        }
    }
    let delivered = session.linger().await;
    if let Some(error) = first_error {
        return Err(error);
    }
    if one_shot && !delivered && !allow_queued {
        let why =
            "a message was stored but nobody has it yet; it waits in the outbox and goes out when this node runs again";
        return Err(ApiError::new(ErrorCode::OnlyQueued, why));
    }
    Ok(())
}

enum Lines {
    Given(std::vec::IntoIter<String>),
    Read(tokio::sync::mpsc::Receiver<RawLine>),
}

impl Lines {
    async fn next(&mut self) -> Option<RawLine> {
        match self {
            Self::Given(commands) => commands.next().map(RawLine::Text),
            Self::Read(lines) => lines.recv().await,
        }
    }
}

fn unreadable(what: &str, error: &std::io::Error) -> ApiError {
    ApiError::new(ErrorCode::Usage, format!("{what} cannot be read: {error}"))
}
