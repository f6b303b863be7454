//! The binary `node`: parse, start tracing, pick a front end; nothing else.

use std::fs::OpenOptions;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;
use std::process::ExitCode;

use althing::Node;
use althing::api::{Accept, ApiError, Command, ErrorCode, Role};
use althing::cli::{self, Invocation, Subcommands};
use althing::config::{Config, Environment, Shell};
use althing::data_dir::SocketPath;
use althing::frontend::{self, OneShot, Options, Script};
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
    let mut config = Config::load(&invocation.given, &Environment::of_process())?;
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
        Some(Subcommands::Send { paths, to }) => {
            let folders = config.paths.clone();
            let spool = move |pipe: &mut dyn std::io::Read| Node::spool(&folders, pipe);
            block_on(through_a_node(config, async |socket, own_node| {
                frontend::send(&socket, frontend::Send { paths, to }, one_shot(&shell, own_node), spool).await
            }))?
        }
        Some(Subcommands::Recv { from, out }) => {
            // A node that runs for this alone takes this alone.
            config.accept = Accept::Ask;
            block_on(through_a_node(config, async |socket, own_node| {
                frontend::recv(&socket, frontend::Recv { from, out }, one_shot(&shell, own_node)).await
            }))?
        }
        Some(Subcommands::Demo) | None => block_on(run_node(config, invocation.commands))?,
    }
}

/// A node with its front ends, until it has ended.
async fn run_node(config: Config, commands: Vec<String>) -> Result<u8, ApiError> {
    althing::panics::count();
    // Somebody can be asked only where lines are typed.
    let scripted = !commands.is_empty() || config.shell.script.is_some();
    let config = if !scripted && frontend::is_attended() { config.on_a_terminal() } else { config };
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

fn one_shot(shell: &Shell, own_node: bool) -> OneShot {
    let Shell { json, no_progress, allow_queued, .. } = *shell;
    OneShot { json, no_progress, allow_queued, own_node }
}

/// Do something through the running node of the data dir, else through one that lives as long as that takes. `act` gets the
/// control socket, and whether the node is its own.
async fn through_a_node(config: Config, act: impl AsyncFnOnce(PathBuf, bool) -> u8) -> Result<u8, ApiError> {
    let socket_file = config.paths.socket.clone();
    let Node { handle, notes, mut running, .. } = match Node::start(config) {
        Ok(node) => node,
        Err(error) if error.code == ErrorCode::DataDirInUse => {
            return Ok(act(SocketPath::of(&socket_file)?.path().to_owned(), false).await);
        }
        Err(error) => return Err(error),
    };
    althing::panics::count();
    for note in notes {
        eprintln!("node: {note}");
    }
    let socket = SocketPath::of(&socket_file)?;
    let control = frontend::serve_control(handle.clone(), socket.path())
        .map_err(|error| ApiError::new(ErrorCode::General, format!("the control socket cannot be made: {error}")))?;
    let status = tokio::select! {
        status = act(socket.path().to_owned(), true) => status,
        ended = running.ended() => {
            ended?;
            return Err(ApiError::new(ErrorCode::General, "the node has stopped"));
        }
    };
    // A node that has stopped already has nothing to say against it.
    let _ = handle.execute(Command::Quit).await;
    running.ended().await?;
    control.end().await;
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
    format!("{theirs},althing={ours},node={ours},direct_message={ours},peer_exchange={ours},file_transfer={ours}")
}
