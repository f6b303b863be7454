//! The settings of a node. Each is a row of one table and has five sources: a flag goes before `ALTHING_<FLAG>`,
//! that before a name the seed projects used, that before `config.toml`, that before the default.
//!
//! A value is checked where it is read, and a wrong one is an [`ErrorCode::Usage`] error of one sentence that names its
//! source. The command line only collects what was given ([`cli`](crate::cli)); nothing else reads the environment.

mod names;
mod profile;
mod sources;
mod table;
mod values;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use libp2p::{Multiaddr, PeerId};

pub use self::sources::Environment;
use self::table::{Row, TABLE};
pub use self::values::{parse_duration, parse_size};
use crate::api::{Accept, ApiError, ErrorCode, Role, Setting};
use crate::cli::Given;
use crate::data_dir::Paths;

/// Most configured seeds.
pub const MAX_SEEDS: usize = 64;

/// Most mandatory peers.
pub const MAX_MANDATORY_PEERS: usize = 64;

/// Most addresses to listen on.
pub const MAX_LISTEN: usize = 16;

/// Most peers to dial: `--fanout` is 1 to this.
pub const MAX_FANOUT: usize = 64;

/// Longest time a dial may be given.
pub const MAX_DIAL_TIMEOUT: Duration = Duration::from_secs(3600);

/// Longest pause between two probes, exchanges of cards, or health checks.
pub const MAX_INTERVAL: Duration = Duration::from_secs(3600);

/// Most probes that a peer may miss before it is dead.
pub const MAX_LIVENESS_MISSES: usize = 1_000;

/// Longest silence after which a peer leaves the table.
pub const MAX_INACTIVITY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most retries of a dial that a command waits for.
pub const MAX_RETRIES: usize = 1_000;

/// Longest time a message may wait for its receiver.
pub const MAX_MESSAGE_EXPIRY: Duration = Duration::from_secs(365 * 24 * 3600);

/// Most broadcasts kept for neighbours that were away: `--keep-broadcasts` is 1 to this. Neighbours are served from
/// memory, where there are at most 32 MiB of them, whatever the number.
pub const MAX_KEPT_BROADCASTS: usize = 100_000;

/// Shortest time they may be kept. Below it neighbours, who compare every ten seconds, would hardly have a chance.
pub const MIN_BROADCAST_AGE: Duration = Duration::from_secs(60);

/// Longest time they may be kept.
pub const MAX_BROADCAST_AGE: Duration = Duration::from_secs(30 * 24 * 3600);

/// Everything a node is started with. The addresses are valid and the numbers within their bounds.
#[derive(Clone, Debug)]
pub struct Config {
    /// What it runs as. Default: peer.
    pub role: Role,
    /// Own nickname, 1 to 32 characters. Default: the user's name.
    pub name: String,
    /// Own team label, 1 to 32 characters. Default: `althing`.
    pub team: String,
    /// The seeds of `--seed`, `--seeds-file` and `--bootstrap-host` together, each once, at most [`MAX_SEEDS`].
    pub seeds: Vec<SeedAddress>,
    /// Mandatory peers, with or without `/p2p/…`, at most [`MAX_MANDATORY_PEERS`].
    pub peers: Vec<Multiaddr>,
    /// Where to listen, at most [`MAX_LISTEN`]. Default: all interfaces, a free port.
    pub listen: Vec<Multiaddr>,
    /// Whether peers are looked for on the local network. Default: yes.
    pub mdns: bool,
    /// How many peers to dial, 1 to [`MAX_FANOUT`]. Default: 4.
    pub fanout: usize,
    /// How long a dial may take, at most [`MAX_DIAL_TIMEOUT`]. Default: 3 s.
    pub dial_timeout: Duration,
    /// How long a message waits for its receiver, at most [`MAX_MESSAGE_EXPIRY`]. Default: 7 days.
    pub message_expiry: Duration,
    /// How many broadcasts are kept for neighbours that were away, 1 to [`MAX_KEPT_BROADCASTS`]. Default: 10,000.
    pub keep_broadcasts: usize,
    /// How long they are kept, [`MIN_BROADCAST_AGE`] to [`MAX_BROADCAST_AGE`]. Default: 24 h.
    pub keep_broadcasts_for: Duration,
    /// Dials that may fail in a row before a command that waits for the peer is told so, 0 to [`MAX_RETRIES`] after the
    /// first. Default: 3.
    pub max_retries: u32,
    /// The pause between two tries to reach those that are dead or have trouble, at most [`MAX_INTERVAL`]. Default: 10 s.
    pub health_check_interval: Duration,
    /// The pause between two probes of a neighbour, at most [`MAX_INTERVAL`]. Default: 13 s.
    pub liveness_interval: Duration,
    /// Probes missed in a row that make a neighbour dead, 1 to [`MAX_LIVENESS_MISSES`]. Default: 3.
    pub liveness_misses: u32,
    /// A peer that is silent for so long leaves the table, at most [`MAX_INACTIVITY`]. Default: 600 s.
    pub inactivity_timeout: Duration,
    /// The pause between two exchanges of cards, at most [`MAX_INTERVAL`]. Default: 5 s.
    pub gossip_interval: Duration,
    /// Whether no cards are exchanged. Default: they are.
    pub no_gossip: bool,
    /// What happens to incoming offers of files. Default: those of trusted peers are taken; see [`Config::on_a_terminal`].
    pub accept: Accept,
    /// Bytes a second that leave for all transfers together, at least 1; `None` is as fast as possible, the default.
    pub upload_limit: Option<u64>,
    /// Bytes a second that are taken for all transfers together, at least 1; `None` is as fast as possible, the default.
    pub download_limit: Option<u64>,
    profile: Option<profile::Profile>,
    /// Where everything of this node lies.
    pub paths: Paths,
    /// How the front end behaves.
    pub shell: Shell,
    /// What a person should know about the settings, one sentence each; to be logged once logging runs.
    pub notes: Vec<String>,
    parts: Parts,
    held: BTreeMap<&'static str, Held>,
}

/// The settings of the front end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shell {
    /// A file of commands to run; `-` is stdin.
    pub script: Option<PathBuf>,
    /// Go on after a command that failed.
    pub keep_going: bool,
    /// A one-shot message that was only queued is a success.
    pub allow_queued: bool,
    /// JSON lines on stdout.
    pub json: bool,
    /// No colours.
    pub no_color: bool,
    /// No progress bars.
    pub no_progress: bool,
    /// Log errors only.
    pub quiet: bool,
    /// How much more to log: 0, 1 or 2.
    pub verbose: u8,
    /// Log everything of this program.
    pub debug: bool,
}

/// One configured seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeedAddress {
    /// As configured; a host and a port are written as a multiaddr.
    pub text: String,
    /// What to dial, without `/p2p/…`.
    pub dial: Multiaddr,
    /// Who must answer; `None` to learn it at the first meeting.
    pub peer: Option<PeerId>,
}

/// What several settings together become [`Config::seeds`] and [`Config::listen`].
#[derive(Clone, Debug, Default)]
struct Parts {
    seeds: Vec<SeedAddress>,
    file_seeds: Vec<SeedAddress>,
    bootstrap_host: Option<String>,
    bootstrap_port: Option<u16>,
    listen: Vec<Multiaddr>,
    host: Option<IpAddr>,
    port: u16,
}

/// A value as text, and where it came from.
#[derive(Clone, Debug)]
struct Held {
    text: String,
    origin: Origin,
}

/// Where a value came from, the strongest first.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Origin {
    /// Changed while running.
    Set,
    Flag,
    /// The variable's name. `rank` is 0 for ours and 1 for the seed projects' names.
    Variable {
        rank: u8,
        name: String,
    },
    File,
    /// The preset of `--profile`.
    Profile,
    Default,
}

impl Origin {
    fn rank(&self) -> u8 {
        match self {
            Self::Set => 0,
            Self::Flag => 1,
            Self::Variable { rank, .. } => 2 + rank,
            Self::File => 4,
            Self::Profile => 5,
            Self::Default => 6,
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Set => "set".to_owned(),
            Self::Flag => "flag".to_owned(),
            Self::Variable { name, .. } => name.clone(),
            Self::File => "file".to_owned(),
            Self::Profile => "profile".to_owned(),
            Self::Default => "default".to_owned(),
        }
    }

    /// How an error names the setting `key` that came from here.
    fn place(&self, key: &str, paths: &Paths) -> String {
        match self {
            Self::Flag if key == "quiet" || key == "verbose" => format!("--{key}"),
            Self::Flag | Self::Default | Self::Profile => format!("--{key}"),
            Self::Variable { name, .. } => name.clone(),
            Self::File => format!("{key} in {}", paths.config_file.display()),
            Self::Set => key.to_owned(),
        }
    }
}

impl Config {
    /// Read all sources: the flags that were given, the environment, and `config.toml`.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Usage`] for a wrong value, an unknown key in the file, or a file that cannot be read;
    /// [`ErrorCode::General`] when there is no home folder to put the data into.
    pub fn load(given: &Given, environment: &Environment) -> Result<Self, ApiError> {
        // The first two rows say where the file is, so they are read before it.
        let early = |key| table::row(key).and_then(|row| sources::outer(row, given, environment));
        let mut paths = match early("data-dir") {
            Some((values, _)) => {
                Paths::in_folder(&values::path(&values).map_err(|why| usage(format!("--data-dir: {why}")))?)?
            }
            None => Paths::standard()?,
        };
        let explicit = early("config");
        if let Some((values, _)) = &explicit {
            paths.config_file = values::path(values).map_err(|why| usage(format!("--config: {why}")))?;
        }
        let file = sources::read_file(&paths.config_file, explicit.is_some()).map_err(usage)?;

        let mut config = Self::empty(paths);
        config.notes = environment.unknown();
        for row in TABLE {
            let found = sources::outer(row, given, environment);
            let found = found.or_else(|| file.get(row.key).map(|values| (values.clone(), Origin::File)));
            let preset = || config.profile?.preset(row.key).map(|text| (vec![text.to_owned()], Origin::Profile));
            let found = found.or_else(preset);
            let (values, origin) = found.unwrap_or_else(|| (row.defaults(environment), Origin::Default));
            (row.apply)(&mut config, &values)
                .map_err(|why| usage(format!("{}: {why}", origin.place(row.key, &config.paths))))?;
            config.held.insert(row.key, Held { text: values.join(","), origin });
        }
        config.finish_paths(&explicit.map(|(_, origin)| origin))?;
        config.finish_seeds()?;
        config.finish_listen()?;
        Ok(config)
    }

    /// Somebody sits at a terminal, who can be asked: then that is what happens to offers, unless a source says otherwise.
    pub fn on_a_terminal(mut self) -> Self {
        if let Some(held) = self.held.get_mut("accept").filter(|held| held.origin == Origin::Default) {
            self.accept = Accept::Ask;
            held.text = Accept::Ask.to_string();
        }
        self
    }

    /// Every setting with its origin, in the order of the help.
    pub fn settings(&self) -> Vec<Setting> {
        TABLE.iter().filter_map(|row| self.setting(row)).collect()
    }

    /// One setting; `key` is the flag's name.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Usage`] when there is no such setting.
    pub fn get(&self, key: &str) -> Result<Setting, ApiError> {
        let row = table::find(key).map_err(usage)?;
        self.setting(row).ok_or_else(|| usage(format!("{key} has no value")))
    }

    /// Change a setting of the running node; `value` is what would stand behind the flag. The change lasts until the
    /// node stops.
    ///
    /// # Errors
    ///
    /// [`ErrorCode::Usage`], and nothing has changed, when there is no such setting, when the value is wrong, or when the
    /// setting is read only at the start.
    pub fn set(&mut self, key: &str, value: &str) -> Result<Setting, ApiError> {
        let row = table::find(key).map_err(usage)?;
        if !row.live {
            let (key, file) = (row.key, self.paths.config_file.display());
            return Err(usage(if row.file {
                format!(
                    "{key} is read only when the node starts: write it into {file}, or start with {}",
                    row.flag_and_variable()
                )
            } else {
                format!("{key} is read only when the node starts: start with {}", row.flag_and_variable())
            }));
        }
        (row.apply)(self, &[value.to_owned()]).map_err(|why| usage(format!("{}: {why}", row.key)))?;
        self.held.insert(row.key, Held { text: value.to_owned(), origin: Origin::Set });
        self.get(row.key)
    }

    fn setting(&self, row: &Row) -> Option<Setting> {
        let held = self.held.get(row.key)?;
        Some(Setting { key: row.key.to_owned(), value: held.text.clone(), origin: held.origin.text() })
    }

    /// Before any row of the table was applied.
    fn empty(paths: Paths) -> Self {
        Self {
            role: Role::default(),
            name: String::new(),
            team: String::new(),
            seeds: Vec::new(),
            peers: Vec::new(),
            listen: Vec::new(),
            mdns: false,
            fanout: 0,
            dial_timeout: Duration::ZERO,
            message_expiry: Duration::ZERO,
            keep_broadcasts: 0,
            keep_broadcasts_for: Duration::ZERO,
            max_retries: 0,
            health_check_interval: Duration::ZERO,
            liveness_interval: Duration::ZERO,
            liveness_misses: 0,
            inactivity_timeout: Duration::ZERO,
            gossip_interval: Duration::ZERO,
            no_gossip: false,
            accept: Accept::default(),
            upload_limit: None,
            download_limit: None,
            profile: None,
            paths,
            shell: Shell::default(),
            notes: Vec::new(),
            parts: Parts::default(),
            held: BTreeMap::new(),
        }
    }

    /// A data dir from the file moves everything but the file itself; what was left to the defaults is shown as it is.
    fn finish_paths(&mut self, config_origin: &Option<Origin>) -> Result<(), ApiError> {
        if let Some(held) = self.held.get("data-dir")
            && held.origin == Origin::File
        {
            let moved = Paths::in_folder(&PathBuf::from(&held.text))?;
            let Paths { config_file, log_file, output_dir, .. } = self.paths.clone();
            self.paths = Paths { config_file, log_file, output_dir, ..moved };
        }
        if let Some(held) = self.held.get_mut("data-dir") {
            held.text = self.paths.data_dir.display().to_string();
        }
        let origin = config_origin.clone().unwrap_or(Origin::Default);
        self.held.insert("config", Held { text: self.paths.config_file.display().to_string(), origin });
        Ok(())
    }

    /// The union of all that name seeds.
    fn finish_seeds(&mut self) -> Result<(), ApiError> {
        let bootstrap = match (&self.parts.bootstrap_host, self.parts.bootstrap_port) {
            (None, None) => None,
            (Some(host), Some(port)) => Some(values::seed_of(host, port, None).map_err(usage)?),
            (Some(_), None) => {
                return Err(usage("--bootstrap-host needs --bootstrap-port: the seed's port, 1 to 65535"));
            }
            (None, Some(_)) => return Err(usage("--bootstrap-port needs --bootstrap-host: the seed's host")),
        };
        let all = self.parts.seeds.iter().chain(&self.parts.file_seeds).chain(&bootstrap);
        for seed in all {
            match self.seeds.iter_mut().find(|known| known.dial == seed.dial) {
                None => self.seeds.push(seed.clone()),
                Some(known) if known.peer.is_none() => *known = seed.clone(),
                Some(known) if seed.peer.is_none() || seed.peer == known.peer => {}
                Some(_) => return Err(usage(format!("the seed {} is given with two identities", seed.dial))),
            }
        }
        if self.seeds.len() > MAX_SEEDS {
            return Err(usage(format!("{} seeds are too many: at most {MAX_SEEDS}", self.seeds.len())));
        }
        Ok(())
    }

    /// `--listen` and `--host` with `--port` are two ways to say the same: the stronger source is taken.
    fn finish_listen(&mut self) -> Result<(), ApiError> {
        let origin_of = |key| self.held.get(key).map_or(Origin::Default, |held| held.origin.clone());
        let listen = origin_of("listen");
        let short =
            [origin_of("host"), origin_of("port")].into_iter().min_by_key(Origin::rank).unwrap_or(Origin::Default);
        let origin = match listen.rank().cmp(&short.rank()) {
            Ordering::Less => {
                self.listen = self.parts.listen.clone();
                return Ok(());
            }
            Ordering::Equal if listen != Origin::Default => {
                return Err(usage("give either --listen, or --host and --port: they say the same"));
            }
            Ordering::Equal => Origin::Default,
            Ordering::Greater => short,
        };
        self.listen = values::listen_on(self.parts.host, self.parts.port);
        let text = self.listen.iter().map(Multiaddr::to_string).collect::<Vec<_>>().join(",");
        self.held.insert("listen", Held { text, origin });
        Ok(())
    }
}

fn usage(why: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::Usage, why)
}

#[cfg(test)]
mod tests;
