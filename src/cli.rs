//! The command line: what may stand on it and the help that explains it. What the values mean is checked in
//! [`config`](crate::config), which reads every flag through [`Given`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::{ContextKind, ErrorKind};
use clap::parser::ValueSource;
use clap::{ArgAction, ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

/// The flags that were given: a flag's name without dashes, and its values in order. A switch has the value `true`,
/// a counted one (`-vv`) its count.
pub type Given = BTreeMap<String, Vec<String>>;

/// The parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// What to do; `None` is to run a node.
    pub command: Option<Subcommands>,
    /// Commands of `-e`, in order.
    pub commands: Vec<String>,
    /// Every flag that was given, those of [`Invocation::commands`] left out.
    pub given: Given,
}

/// The process should end now with this text and status: `--help`, `--version`, or a wrong command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// One sentence for an error, else the help.
    pub text: String,
    /// 0 for help and version, which go to stdout; 2 for an error, which goes to stderr.
    pub status: u8,
}

/// Read a command line, the program's name first.
///
/// # Errors
///
/// [`Stop`] when there is nothing to run: help or the version were asked for, or the line is wrong.
pub fn parse<I, T>(words: I) -> Result<Invocation, Stop>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let matches = Cli::command().try_get_matches_from(words).map_err(|error| stop(&error))?;
    let cli = Cli::from_arg_matches(&matches).map_err(|error| stop(&error))?;
    Ok(Invocation { command: cli.command, commands: cli.options.shell.execute, given: given(&matches) })
}

/// The flags that stand on the command line, whatever their types. Options are global, so clap has copied those behind
/// a subcommand's name up to the root.
fn given(matches: &ArgMatches) -> Given {
    let command = Cli::command();
    let flags = command.get_arguments().map(|flag| flag.get_id().as_str());
    flags
        .filter(|id| !NO_SETTINGS.contains(id) && matches.value_source(id) == Some(ValueSource::CommandLine))
        .filter_map(|id| {
            let values = matches.get_raw(id)?.map(|value| value.to_string_lossy().into_owned()).collect();
            Some((id.replace('_', "-"), values))
        })
        .collect()
}

/// Clap's error as one sentence: its first paragraph and its tips, without the usage.
fn stop(error: &clap::Error) -> Stop {
    if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
        return Stop { text: error.to_string(), status: 0 };
    }
    if error.kind() == ErrorKind::InvalidSubcommand
        && let Some(word) = error.get(ContextKind::InvalidSubcommand)
    {
        let text = format!(
            "there is no subcommand '{word}': a command for the running node is given with `node ctl {word} …`"
        );
        return Stop { text, status: 2 };
    }
    let text = error.to_string();
    let mut paragraphs = text.split("\n\n");
    let first = paragraphs.next().unwrap_or_default().trim_start_matches("error:");
    let mut sentence = first.split_whitespace().collect::<Vec<_>>().join(" ");
    for tip in paragraphs.flat_map(str::lines).filter_map(|line| line.trim().strip_prefix("tip: ")) {
        sentence.push_str("; ");
        sentence.push_str(tip);
    }
    sentence.push_str(" (`node --help` lists everything)");
    Stop { text: sentence, status: 2 }
}

/// Flags that no other source can give.
const NO_SETTINGS: [&str; 3] = ["help", "version", "execute"];

const EXAMPLES: &str = "\
Examples:
  node demo                                     see it work on this machine
  node --role seed --port 4001                  a seed that others name
  node --name ann --seed /ip4/192.0.2.7/tcp/4001
                                                a peer, with a prompt
  node --data-dir /srv/node ctl peers           ask the running node
  node --data-dir /srv/node --json ctl msg bob hello
                                                the same for a script
  node --script greet.txt                       run commands, then quit
  node -e 'connect 192.0.2.8:4001' -e 'msg bob hi'
                                                the same without a file
  node events --follow                          watch the running node
  node send photos --to bob                     send a folder, and see it arrive
  node recv --from ada                          take what somebody sends

Every option is also a variable, for example ALTHING_DATA_DIR, and a key of
config.toml, for example `seed = [\"/ip4/192.0.2.7/tcp/4001\"]`. A flag goes
before a variable, a variable before the file, the file before the default.

Exit status: 0 ok, 1 general, 2 usage, 3 no such peer or no running node,
4 timeout, 5 `wait` ran out or `expect` is false, 6 integrity, 7 refused,
9 some receivers failed, 10 data dir in use, 130 and 143 by signal.";

/// Talk to machines you own, without a server.
///
/// Without a subcommand it runs a node: with a prompt on a terminal, else with one command per line of stdin.
#[derive(Clone, Debug, Parser)]
#[command(name = "node", version, after_long_help = EXAMPLES, max_term_width = 100)]
#[command(
    disable_help_subcommand = true,
    subcommand_value_name = "SUBCOMMAND",
    subcommand_help_heading = "Subcommands"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Subcommands>,
    #[command(flatten)]
    options: Options,
}

/// What `node` can be asked besides running a node.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Subcommands {
    /// Three seeds and five peers on this machine, narrated.
    ///
    /// They find each other, chat with receipts, leave and come back. It ends with status 0, or with 1 and the step
    /// that failed. On a terminal it leaves you at the prompt of one more peer.
    Demo,
    /// Send files and folders, and stay until they have arrived.
    ///
    /// Through the running node of this data dir if there is one, else with an own short-lived one. `-` is stdin. Links in
    /// folders are left out and named. Who cannot be reached is named first; on a terminal you are asked what to do.
    #[command(
        after_long_help = "Examples:\n  node send report.pdf --to bob\n  node send photos notes.txt --to bob cleo\n  \
        tar c src | node send - --to 192.0.2.7:4001\n\n\
        Exit status: 0 everybody has it, 3 nobody could be reached, 6 it changed or arrived damaged,\n\
        7 refused, 9 some have it and others do not, 130 Ctrl-C, which pauses it."
    )]
    Send {
        /// Files and folders; `-` is stdin.
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// Who gets them: nickname, PeerId or the beginning of one, multiaddr, host:port, or host and port.
        #[arg(long, required = true, num_args = 1.., value_name = "PEER")]
        to: Vec<String>,
    },
    /// Wait for one transfer, take it, and stay until it is there.
    ///
    /// Through the running node of this data dir if there is one, else with an own short-lived one. All names and sizes are
    /// shown first; on a terminal you are asked, unless --from says who may send.
    #[command(after_long_help = "Examples:\n  node recv\n  node recv --from ada --out ~/inbox")]
    Recv {
        /// Take only what this peer sends: nickname, PeerId or the beginning of one, or a multiaddr with /p2p/…
        #[arg(long, value_name = "PEER")]
        from: Option<String>,
        /// Where to put it [default: the download folder]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Give one command to the running node of this data dir and print its reply.
    ///
    /// Options of `ctl` stand before the command; what follows the command's first word belongs to the command.
    #[command(
        after_long_help = "Examples:\n  node ctl peers\n  node ctl msg bob hello\n  node ctl --json history bob -n 5"
    )]
    Ctl {
        /// The command, as at the prompt.
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
        words: Vec<String>,
    },
    /// What works, what does not, and what to do about it.
    ///
    /// Asks the running node of this data dir; without one it looks at the folder, the key and the disk. Status 0 also with
    /// warnings, 1 when something does not work.
    Doctor,
    /// The running node's events.
    Events {
        /// Go on until the node or this program is ended, instead of printing only what is known now.
        #[arg(long)]
        follow: bool,
    },
}

/// Read through [`Given`], as the others.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Files")]
struct Files {
    /// What happens to files that others offer [default: ask on a terminal, else trusted]
    ///
    /// `ask` waits for `accept ID` or `reject ID`, `auto` takes them, `never` refuses them; `trusted` takes those of
    /// trusted peers and waits with others.
    #[arg(long, global = true, value_name = "ask|auto|never|trusted")]
    accept: Option<String>,
    /// Bytes a second that leave for all files together, for example 2M; 0 or none for no limit [default: none]
    #[arg(long, global = true, value_name = "BYTES", allow_negative_numbers = true)]
    upload_limit: Option<String>,
    /// Bytes a second that are taken for all files together; 0 or none for no limit [default: none]
    #[arg(long, global = true, value_name = "BYTES", allow_negative_numbers = true)]
    download_limit: Option<String>,
}

#[derive(Clone, Debug, Args)]
struct Options {
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    liveness: Liveness,
    #[command(flatten)]
    chat: Chat,
    #[command(flatten)]
    files: Files,
    #[command(flatten)]
    shell: Shell,
}

/// Most fields are read through [`Given`], by name: they stand here for the help and for clap's checks.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Network")]
struct Network {
    /// A seed, for example /ip4/192.0.2.7/tcp/4001; may be repeated.
    ///
    /// Without /p2p/… at its end the seed's identity is learnt at the first meeting and kept.
    #[arg(long, global = true, value_name = "MULTIADDR")]
    seed: Vec<String>,
    /// Seeds from a JSON file.
    ///
    /// {"seeds":[{"host":"192.0.2.7","port":4001},"/dns/seed.example/tcp/4001"]}; an object may have a "peer_id".
    #[arg(long, global = true, value_name = "FILE")]
    seeds_file: Option<String>,
    /// One more seed: its host. Needs --bootstrap-port.
    #[arg(long, global = true, value_name = "HOST")]
    bootstrap_host: Option<String>,
    /// One more seed: its port. Needs --bootstrap-host.
    #[arg(long, global = true, value_name = "PORT", allow_negative_numbers = true)]
    bootstrap_port: Option<String>,
    /// `peer`, or `seed`: a meeting point for peers [default: peer]
    #[arg(long, global = true, value_name = "ROLE")]
    role: Option<String>,
    /// Where to listen, for example /ip4/0.0.0.0/tcp/4001; may be repeated [default: all interfaces, a free port]
    ///
    /// A port is 0 (a free one) or 1024 to 65535. A taken port falls over to a free one.
    #[arg(long, global = true, value_name = "MULTIADDR")]
    listen: Vec<String>,
    /// Where to listen: an IP address or `localhost` [default: all interfaces]
    #[arg(long, global = true, value_name = "HOST")]
    host: Option<String>,
    /// Where to listen: 0 (a free port) or 1024 to 65535 [default: 0]
    #[arg(long, global = true, value_name = "PORT", allow_negative_numbers = true)]
    port: Option<String>,
    /// A mandatory peer: always dialled, never dropped; may be repeated.
    #[arg(long, global = true, value_name = "MULTIADDR")]
    peer: Vec<String>,
    /// Find peers on the local network, `on` or `off` [default: on]
    #[arg(long, global = true, value_name = "on|off")]
    mdns: Option<String>,
    /// How many peers to dial, picked at random, 1 to 64 [default: 4]
    ///
    /// Inbound links do not count, and none is closed for being surplus.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    fanout: Option<String>,
    /// How long a dial may take, in seconds [default: 3.0]
    #[arg(long, global = true, value_name = "S", allow_negative_numbers = true)]
    timeout: Option<String>,
    /// How often a dial that a command waits for is tried again [default: 3]
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    max_retries: Option<String>,
    /// Presets of --max-retries, --timeout and --health-check-interval: 2/2.0/30, 5/5.0/15, 3/4.0/8
    #[arg(long, global = true, value_name = "stable|unstable|mobile")]
    profile: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Who is alive")]
struct Liveness {
    /// Seconds between two probes of a neighbour, and between two peer lists in --output-dir [default: 13]
    #[arg(long, global = true, value_name = "S", allow_negative_numbers = true)]
    liveness_interval: Option<String>,
    /// Probes missed in a row that make a neighbour dead [default: 3]
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    liveness_misses: Option<String>,
    /// Seconds between two tries to reach those that are dead or have trouble [default: 10]
    #[arg(long, global = true, value_name = "S", allow_negative_numbers = true)]
    health_check_interval: Option<String>,
    /// A peer that is silent for so many seconds leaves the table [default: 600]
    #[arg(long, global = true, value_name = "S", allow_negative_numbers = true)]
    inactivity_timeout: Option<String>,
    /// Seconds between two exchanges of cards with a neighbour [default: 5]
    #[arg(long, global = true, value_name = "S", allow_negative_numbers = true)]
    gossip_interval: Option<String>,
    /// Exchange no cards.
    #[arg(long, global = true)]
    no_gossip: bool,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "You")]
struct Chat {
    /// Your nickname, signed with every link [default: user name]
    #[arg(long, global = true, value_name = "NAME")]
    name: Option<String>,
    /// Your team: a label, not a proof [default: althing]
    #[arg(long, global = true, value_name = "TEAM")]
    team: Option<String>,
    /// How long a message waits for its receiver before it fails, for example 12h or 7d [default: 7d]
    #[arg(long, global = true, value_name = "DURATION", allow_negative_numbers = true)]
    message_expiry: Option<String>,
    /// How many broadcasts are kept for neighbours that were away, 1 to 100000 [default: 10000]
    ///
    /// The oldest go first, as they do beyond 32 MiB. What was heard stays in the history all the same.
    #[arg(long, global = true, value_name = "N", allow_negative_numbers = true)]
    keep_broadcasts: Option<String>,
    /// How long they are kept, for example 30m or 2d [default: 24h]
    ///
    /// Broadcasts from before that are not taken over from neighbours either.
    #[arg(long, global = true, value_name = "DURATION", allow_negative_numbers = true)]
    keep_broadcasts_for: Option<String>,
    /// Write output_<port>.txt or output_seed.txt into this folder, and begin to gossip with the first link
    #[arg(long, global = true, value_name = "DIR")]
    output_dir: Option<String>,
    /// Everything of this node in one folder [default: XDG folders]
    #[arg(long, global = true, value_name = "DIR")]
    data_dir: Option<String>,
    /// The configuration file [default: config.toml beside the data, or in the XDG folder]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<String>,
}

#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Scripts and output")]
struct Shell {
    /// Run the commands of a file, then quit; `-` is stdin.
    #[arg(long, global = true, value_name = "FILE")]
    script: Option<String>,
    /// Run a command, then quit; may be repeated.
    #[arg(short = 'e', global = true, value_name = "COMMAND", allow_hyphen_values = true)]
    execute: Vec<String>,
    /// Go on after a command that failed; the status is that of the first one.
    #[arg(long, global = true)]
    keep_going: bool,
    /// A one-shot message that was only queued is a success.
    #[arg(long, global = true)]
    allow_queued: bool,
    /// One JSON object per line on stdout; text for people moves to stderr.
    #[arg(long, global = true)]
    json: bool,
    /// No colours; the variable NO_COLOR does the same.
    #[arg(long, global = true)]
    no_color: bool,
    /// No progress bars.
    #[arg(long, global = true)]
    no_progress: bool,
    /// Log errors only.
    #[arg(short, long, global = true)]
    quiet: bool,
    /// Log more; -vv still more.
    #[arg(short, long, global = true, action = ArgAction::Count)]
    verbose: u8,
    /// Log everything of this program.
    #[arg(long, global = true)]
    debug: bool,
    /// Write the log to a file too.
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<String>,
}

/// The names of all flags that take part in the precedence of settings.
#[cfg(test)]
pub(crate) fn flags() -> Vec<String> {
    let command = Cli::command();
    let ids = command.get_arguments().map(|flag| flag.get_id().as_str());
    ids.filter(|id| !NO_SETTINGS.contains(id)).map(|id| id.replace('_', "-")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Result<Invocation, Stop> {
        parse(text.split(' '))
    }

    #[test]
    fn definitions_are_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn options_stand_before_and_after_a_subcommand() {
        let before = line("node --data-dir D --json ctl peers").unwrap();
        let after = line("node ctl --data-dir D --json peers").unwrap();
        assert_eq!(before, after);
        assert_eq!(before.given["data-dir"], ["D"]);
        assert_eq!(before.given["json"], ["true"]);
        assert_eq!(before.command, Some(Subcommands::Ctl { words: vec!["peers".into()] }));
        let events = line("node events --follow --data-dir D").unwrap();
        assert_eq!(events.command, Some(Subcommands::Events { follow: true }));
        assert_eq!(events.given["data-dir"], ["D"]);
        assert!(!events.given.contains_key("follow"));
    }

    #[test]
    fn what_follows_the_first_word_of_ctl_belongs_to_the_command() {
        let parsed = line("node ctl history bob -n 5 --search x --json").unwrap();
        let words = ["history", "bob", "-n", "5", "--search", "x", "--json"].map(String::from).to_vec();
        assert_eq!(parsed.command, Some(Subcommands::Ctl { words }));
        assert!(parsed.given.is_empty());
    }

    #[test]
    fn repeated_values_keep_their_order() {
        let parsed = line("node --seed A --seed B -vv -e one -e -two --port -5").unwrap();
        assert_eq!(parsed.given["seed"], ["A", "B"]);
        assert_eq!(parsed.given["verbose"], ["2"]);
        assert_eq!(parsed.given["port"], ["-5"]);
        assert_eq!(parsed.commands, ["one", "-two"]);
    }

    #[test]
    fn a_wrong_line_is_one_sentence() {
        for (text, part) in [
            ("node --prot 5", "--port"),
            ("node --port", "value is required"),
            ("node ctl", "required arguments"),
            ("node peers", "node ctl peers"),
            ("node --port 1 --port 2", "multiple"),
        ] {
            let stop = line(text).unwrap_err();
            assert_eq!(stop.status, 2, "{text}");
            assert!(stop.text.contains(part), "{text}: {}", stop.text);
            assert_eq!(stop.text.lines().count(), 1, "{text}: {}", stop.text);
        }
    }

    #[test]
    fn help_and_version_are_no_errors() {
        for text in ["node --help", "node -h", "node --version", "node ctl --help"] {
            assert_eq!(line(text).unwrap_err().status, 0, "{text}");
        }
    }
}
