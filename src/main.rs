//! The binary `node`: parse, start tracing, pick a front end; nothing else.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::ExitCode;

use althing::Node;
use althing::api::{ApiError, ErrorCode, Role};
use althing::cli::{self, Invocation, Subcommands};
use althing::config::{Config, Environment};
use althing::data_dir::SocketPath;
use althing::frontend::{self, Options, Script};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

fn main() -> ExitCode {
    let invocation = match cli::parse(std::env::args_os()) {
        Ok(invocation) => invocation,
        Err(stop) if stop.status == 0 => {
            // A reader that has seen enough, such as `head`, is no error.
            let _ = std::io::stdout().write_all(stop.text.as_bytes());
            return ExitCode::SUCCESS;
        }
        Err(stop) => {
            eprintln!("node: {}", stop.text);
            return ExitCode::from(stop.status);
        }
    };
    match run(invocation) {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("node: {error}");
            ExitCode::from(error.code.exit_status())
        }
    }
}

fn run(invocation: Invocation) -> Result<u8, ApiError> {
    if invocation.command == Some(Subcommands::Demo) {
        return block_on(frontend::demo::run());
    }
    let config = Config::load(&invocation.given, &Environment::of_process())?;
    start_tracing(&config)?;
    for note in &config.notes {
        tracing::warn!("{note}");
    }
    let socket = || SocketPath::of(&config.paths.socket);
    let shell = config.shell.clone();
    match invocation.command {
        Some(Subcommands::Ctl { words }) => {
            let socket = socket()?;
            block_on(frontend::ctl(socket.path(), &words, shell.json, shell.allow_queued))
        }
        Some(Subcommands::Doctor) => {
            let socket = socket()?;
            let color = std::io::stdout().is_terminal() && !shell.no_color;
            block_on(frontend::doctor(socket.path(), shell.json, color, || althing::examine(&config)))
        }
        Some(Subcommands::Events { follow }) => {
            let socket = socket()?;
            block_on(frontend::follow_events(socket.path(), follow, shell.json))
        }
        Some(Subcommands::Demo) | None => block_on(run_node(config, invocation.commands))?,
    }
}

/// A node with its front ends, until it has ended.
async fn run_node(config: Config, commands: Vec<String>) -> Result<u8, ApiError> {
    althing::panics::count();
    let shell = config.shell.clone();
    let seed = config.role == Role::Seed;
    let socket_file = config.paths.socket.clone();
    let (output_dir, role, interval) = (config.paths.output_dir.clone(), config.role, config.liveness_interval);
    let history = config.paths.state_dir.join("prompt_history");
    let Node { handle, events, notes, mut running } = Node::start(config)?;
    for note in notes {
        eprintln!("node: {note}");
    }
    if let Some(folder) = output_dir {
        let first = events.resubscribe();
        tokio::spawn(frontend::keep_output_dir(handle.clone(), first, folder, role, interval));
    }
    let socket = SocketPath::of(&socket_file)?;
    let control = frontend::serve_control(handle.clone(), socket.path());
    if let Err(error) = &control {
        tracing::warn!("`node ctl` will not work, the control socket cannot be made: {error}");
    }
    let terminal = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let options = Options { json: shell.json, color: terminal && !shell.no_color };
    let front_end = async {
        match Script::of(commands, shell.script) {
            Some(script) => {
                frontend::run_script(handle, events, script, options, shell.keep_going, shell.allow_queued).await
            }
            None => frontend::run_stdin(handle, events, options, seed, &history).await,
        }
    };
    tokio::pin!(front_end);
    // A node whose loop has panicked must not go on as a shell that answers nothing: its manager is to start it again.
    let status = tokio::select! {
        status = &mut front_end => {
            running.ended().await?;
            status
        }
        ended = running.ended() => {
            ended?;
            front_end.await
        }
    };
    if let Ok(control) = control {
        control.end().await;
    }
    Ok(status)
}

/// Run to the end on a runtime of its own. Its blocking threads are not waited for: one of them may sit in a read of stdin
/// that never returns.
fn block_on<T>(future: impl Future<Output = T>) -> Result<T, ApiError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| ApiError::new(ErrorCode::General, format!("the program cannot start its threads: {error}")))?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(result)
}

/// Log to stderr and, when asked for, to a file too.
fn start_tracing(config: &Config) -> Result<(), ApiError> {
    let shell = &config.shell;
    let filter = || EnvFilter::new(directives(shell.quiet, shell.verbose, shell.debug));
    let stderr = tracing_subscriber::fmt::layer().with_ansi(false).with_target(false).without_time();
    let file = match &config.paths.log_file {
        None => None,
        Some(path) => {
            let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| {
                ApiError::new(ErrorCode::Usage, format!("cannot write the log file {}: {error}", path.display()))
            })?;
            // A log that is kept says at least what -v says.
            let filter = EnvFilter::new(directives(false, shell.verbose.max(1), shell.debug));
            Some(tracing_subscriber::fmt::layer().with_ansi(false).with_writer(file).with_filter(filter))
        }
    };
    let stderr = stderr.with_writer(|| frontend::Log).with_filter(filter());
    tracing_subscriber::registry().with(stderr).with(file).init();
    Ok(())
}

/// What is logged of this program, and of the libraries, which say at most what is wrong unless everything is wanted.
fn directives(quiet: bool, verbose: u8, debug: bool) -> String {
    let (ours, theirs) = match (debug, quiet, verbose) {
        (true, ..) => ("trace", "info"),
        (false, true, _) => ("error", "off"),
        (false, false, 0) => ("warn", "off"),
        (false, false, 1) => ("info", "error"),
        (false, false, _) => ("debug", "warn"),
    };
    format!("{theirs},althing={ours},node={ours},direct_message={ours},peer_exchange={ours}")
}
