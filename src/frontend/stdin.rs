//! The front end of a node that runs: one command a line on stdin, events on stdout.

use std::io::IsTerminal;
use std::path::Path;

use tokio::sync::{broadcast, mpsc};

use super::lines::{self, MAX_LINE_BYTES, RawLine};
use super::output::Output;
use super::session::{Executed, Flow, Session};
use super::signals::Signals;
use super::{Options, complain, introduce, prompt, stop};
use crate::api::{ApiError, ErrorCode, Event, Stamped};
use crate::handle::Handle;

/// Run until `quit`, the end of stdin, a signal, or the end of stdout; the exit status.
///
/// The end of stdin ends the node only after at least one line was read, and never a seed: a service manager gives a node
/// an empty stdin and means it to stay.
///
/// At a terminal that can do it, lines are edited; those entered before are kept in the file `history`.
pub async fn run(
    handle: Handle,
    events: broadcast::Receiver<Stamped>,
    options: Options,
    seed: bool,
    history: &Path,
) -> u8 {
    let terminal = std::io::stdin().is_terminal() && !options.json;
    if terminal
        && std::io::stdout().is_terminal()
        && let Some((terminal, printer)) = prompt::Terminal::open(history, options.color)
    {
        return prompt::run(handle, events, options, terminal, printer).await;
    }
    let input = match lines::spawn(std::io::stdin()) {
        Ok(input) => input,
        Err(error) => {
            complain(&ApiError::new(ErrorCode::General, format!("stdin cannot be read: {error}")));
            return 1;
        }
    };
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(error) => {
            complain(&ApiError::new(ErrorCode::General, format!("signals cannot be caught: {error}")));
            return 1;
        }
    };
    let output = Output::start(options.style(false), tokio::io::stdout());
    introduce(&handle, &output).await;
    let follow = tokio::spawn({
        let output = output.clone();
        async move { output.follow(events).await }
    });
    if terminal {
        output.text("Type `help` for the commands, `quit` to leave.".to_owned()).await;
    }
    let mut session = Session::new(handle.clone(), output.clone(), true).pipelined();
    let mut ended = handle.subscribe();
    let status = tokio::select! {
        () = converse(&mut session, input, seed, terminal) => { stop(&handle).await; 0 }
        status = signals.next() => {
            // The second signal ends the process at once.
            tokio::select! {
                () = stop(&handle) => {}
                _ = signals.next() => std::process::exit(i32::from(status)),
            }
            status
        }
        // A reader that is gone, as in `node | head`, ends the node quietly.
        () = output.closed() => { stop(&handle).await; 0 }
        () = bye(&mut ended) => 0,
    };
    // `bye` is the last line; it is on its way when the node has stopped.
    let _ = tokio::time::timeout(super::STOP, follow).await;
    output.flush().await;
    status
}

/// Execute lines until the node is told to quit or the lines end.
async fn converse(session: &mut Session, mut input: mpsc::Receiver<RawLine>, seed: bool, terminal: bool) {
    let mut any = false;
    loop {
        if terminal {
            mark(session);
        }
        let Some(line) = input.recv().await else { break };
        any = true;
        if execute(session, line).await.flow == Flow::Quit {
            return;
        }
    }
    if seed || !(any || terminal) {
        std::future::pending::<()>().await;
    }
    session.linger().await;
}

/// Execute a line as it came in.
pub(super) async fn execute(session: &mut Session, line: RawLine) -> Executed {
    match line {
        RawLine::Text(line) => session.execute(&line).await,
        RawLine::TooLong => {
            let why = format!("the line has more than {MAX_LINE_BYTES} bytes and was not read");
            session.refuse(ApiError::new(ErrorCode::Usage, why)).await
        }
        RawLine::NotUtf8 => session.refuse(ApiError::new(ErrorCode::Usage, "the line is not valid UTF-8")).await,
    }
}

/// Wait for the node's last event.
pub(super) async fn bye(events: &mut broadcast::Receiver<Stamped>) {
    loop {
        match events.recv().await {
            Ok(stamped) if matches!(*stamped.event, Event::Bye { .. }) => return,
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => return,
        }
    }
}

/// A mark that the node waits for a line. Without a line end, so it stays out of the queue of whole lines.
fn mark(session: &Session) {
    use std::io::Write;
    let mut stdout = std::io::stdout();
    let mark = match (session.chat(), session.in_menu()) {
        (Some(_), _) => "chat> ",
        (None, true) => "menu> ",
        (None, false) => "> ",
    };
    let _ = stdout.write_all(mark.as_bytes());
    let _ = stdout.flush();
}
