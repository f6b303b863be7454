//! The table of all settings: one row each, in the order of the help.

use std::time::Duration;

use super::{
    Config, Environment, MAX_BROADCAST_AGE, MAX_DIAL_TIMEOUT, MAX_FANOUT, MAX_INACTIVITY, MAX_INTERVAL,
    MAX_KEPT_BROADCASTS, MAX_LISTEN, MAX_LIVENESS_MISSES, MAX_MANDATORY_PEERS, MAX_MESSAGE_EXPIRY, MAX_RETRIES,
    MIN_BROADCAST_AGE,
};
use super::{names, profile, values};
use crate::api::{Accept, Role};

/// One setting.
pub(super) struct Row {
    /// The flag's name without dashes; the key of `config.toml`; with underscores and a prefix the variable.
    pub(super) key: &'static str,
    /// A variable that other programs use for the same.
    pub(super) legacy: Option<&'static str>,
    /// What stands behind it.
    pub(super) kind: Kind,
    /// The value as it would stand behind the flag; empty for none.
    pub(super) default: &'static str,
    /// Whether it can be changed while the node runs.
    pub(super) live: bool,
    /// Whether it may stand in `config.toml`.
    pub(super) file: bool,
    /// Check the values and take them over. [`Kind::Many`] may get any number, the others one, or none for an empty default.
    pub(super) apply: fn(&mut Config, &[String]) -> Result<(), String>,
}

/// What stands behind a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// One value; for a switch `true` or `false`.
    One,
    /// One path; in the file it is relative to the file.
    Path,
    /// Any number: a repeated flag, a list in the file, separated by commas or white space in a variable.
    Many,
}

impl Row {
    /// The values when no source has any.
    pub(super) fn defaults(&self, environment: &Environment) -> Vec<String> {
        match (self.key, self.default) {
            ("name", _) => vec![names::of_user(environment)],
            (_, "") => Vec::new(),
            (_, text) => vec![text.to_owned()],
        }
    }

    const fn new(
        key: &'static str,
        kind: Kind,
        default: &'static str,
        apply: fn(&mut Config, &[String]) -> Result<(), String>,
    ) -> Self {
        Self { key, legacy: None, kind, default, live: false, file: true, apply }
    }

    const fn live(self) -> Self {
        Self { live: true, ..self }
    }

    const fn legacy(self, name: &'static str) -> Self {
        Self { legacy: Some(name), ..self }
    }

    const fn outside_the_file(self) -> Self {
        Self { file: false, ..self }
    }
}

/// Every setting.
pub(super) static TABLE: &[Row] = &[
    Row::new("seed", Kind::Many, "", |config, given| {
        config.parts.seeds = given.iter().map(|text| values::seed(text)).collect::<Result<_, _>>()?;
        Ok(())
    }),
    Row::new("seeds-file", Kind::Path, "", |config, given| {
        config.parts.file_seeds = given.first().map_or(Ok(Vec::new()), |path| values::seeds_file(path))?;
        Ok(())
    }),
    Row::new("bootstrap-host", Kind::One, "", |config, given| {
        config.parts.bootstrap_host = given.first().map(|text| values::remote_host(text)).transpose()?;
        Ok(())
    }),
    Row::new("bootstrap-port", Kind::One, "", |config, given| {
        config.parts.bootstrap_port = given.first().map(|text| values::remote_port(text)).transpose()?;
        Ok(())
    }),
    Row::new("role", Kind::One, "peer", |config, given| {
        config.role = match values::one(given)? {
            "peer" => Role::Peer,
            "seed" => Role::Seed,
            other => return Err(format!("{} is no role: it is peer or seed", values::quoted(other))),
        };
        Ok(())
    }),
    Row::new("listen", Kind::Many, "", |config, given| {
        values::at_most(given.len(), MAX_LISTEN, "addresses to listen on")?;
        config.parts.listen = given.iter().map(|text| values::listen(text)).collect::<Result<_, _>>()?;
        Ok(())
    }),
    Row::new("host", Kind::One, "", |config, given| {
        config.parts.host = given.first().map(|text| values::own_host(text)).transpose()?;
        Ok(())
    }),
    Row::new("port", Kind::One, "0", |config, given| {
        config.parts.port = values::own_port(values::one(given)?)?;
        Ok(())
    }),
    Row::new("peer", Kind::Many, "", |config, given| {
        values::at_most(given.len(), MAX_MANDATORY_PEERS, "mandatory peers")?;
        config.peers = given.iter().map(|text| values::remote(text)).collect::<Result<_, _>>()?;
        Ok(())
    }),
    Row::new("mdns", Kind::One, "on", |config, given| {
        config.mdns = values::switch(given)?;
        Ok(())
    }),
    Row::new("fanout", Kind::One, "4", |config, given| {
        config.fanout = values::count(values::one(given)?, 1, MAX_FANOUT)?;
        Ok(())
    })
    .live(),
    Row::new("profile", Kind::One, "", |config, given| {
        config.profile = given.first().map(|name| profile::Profile::named(name)).transpose()?;
        Ok(())
    }),
    Row::new("timeout", Kind::One, "3.0", |config, given| {
        config.dial_timeout = bounded(given, MAX_DIAL_TIMEOUT, "an hour")?;
        Ok(())
    })
    .legacy("CONNECTION_TIMEOUT"),
    Row::new("max-retries", Kind::One, "3", |config, given| {
        config.max_retries = values::count(values::one(given)?, 0, MAX_RETRIES)? as u32;
        Ok(())
    })
    .legacy("MAX_RETRIES")
    .live(),
    Row::new("health-check-interval", Kind::One, "10", |config, given| {
        config.health_check_interval = bounded(given, MAX_INTERVAL, "an hour")?;
        Ok(())
    })
    .legacy("HEALTH_CHECK_INTERVAL")
    .live(),
    Row::new("liveness-interval", Kind::One, "13", |config, given| {
        config.liveness_interval = bounded(given, MAX_INTERVAL, "an hour")?;
        Ok(())
    })
    .live(),
    Row::new("liveness-misses", Kind::One, "3", |config, given| {
        config.liveness_misses = values::count(values::one(given)?, 1, MAX_LIVENESS_MISSES)? as u32;
        Ok(())
    })
    .live(),
    Row::new("inactivity-timeout", Kind::One, "600", |config, given| {
        config.inactivity_timeout = bounded(given, MAX_INACTIVITY, "365 days")?;
        Ok(())
    })
    .live(),
    Row::new("gossip-interval", Kind::One, "5", |config, given| {
        config.gossip_interval = bounded(given, MAX_INTERVAL, "an hour")?;
        Ok(())
    })
    .legacy("GOSSIP_INTERVAL")
    .live(),
    Row::new("no-gossip", Kind::One, "false", |config, given| {
        config.no_gossip = values::switch(given)?;
        Ok(())
    })
    .legacy("DISABLE_GOSSIP")
    .live(),
    Row::new("name", Kind::One, "", |config, given| {
        let name = values::one(given)?;
        peer_exchange::check_name(name).map_err(|error| error.to_string())?;
        config.name = name.to_owned();
        Ok(())
    })
    .live(),
    Row::new("team", Kind::One, "althing", |config, given| {
        let team = values::one(given)?;
        peer_exchange::check_team(team).map_err(|error| error.to_string())?;
        config.team = team.to_owned();
        Ok(())
    })
    .live(),
    Row::new("message-expiry", Kind::One, "7d", |config, given| {
        config.message_expiry = bounded(given, MAX_MESSAGE_EXPIRY, "365 days")?;
        Ok(())
    })
    .live(),
    Row::new("keep-broadcasts", Kind::One, "10000", |config, given| {
        config.keep_broadcasts = values::count(values::one(given)?, 1, MAX_KEPT_BROADCASTS)?;
        Ok(())
    }),
    Row::new("keep-broadcasts-for", Kind::One, "24h", |config, given| {
        let text = values::one(given)?;
        let time = values::parse_duration(text)?;
        if !(MIN_BROADCAST_AGE..=MAX_BROADCAST_AGE).contains(&time) {
            return Err(format!("{} is out of bounds: from 1 minute to 30 days", values::quoted(text)));
        }
        config.keep_broadcasts_for = time;
        Ok(())
    }),
    Row::new("accept", Kind::One, "trusted", |config, given| {
        config.accept = match values::one(given)? {
            "ask" => Accept::Ask,
            "auto" => Accept::Auto,
            "never" => Accept::Never,
            "trusted" => Accept::Trusted,
            other => return Err(format!("{} is none of ask, auto, never and trusted", values::quoted(other))),
        };
        Ok(())
    })
    .live(),
    Row::new("upload-limit", Kind::One, "none", |config, given| {
        config.upload_limit = values::rate(values::one(given)?)?;
        Ok(())
    })
    .live(),
    Row::new("download-limit", Kind::One, "none", |config, given| {
        config.download_limit = values::rate(values::one(given)?)?;
        Ok(())
    })
    .live(),
    // These two were taken before the table was, because they say where the file is.
    Row::new("data-dir", Kind::Path, "", |_, given| given.first().map_or(Ok(()), |_| values::path(given).map(|_| ()))),
    Row::new("config", Kind::Path, "", |_, _| Ok(())).outside_the_file(),
    Row::new("script", Kind::Path, "", |config, given| {
        config.shell.script = given.first().map(|text| values::script(text)).transpose()?;
        Ok(())
    })
    .outside_the_file(),
    Row::new("keep-going", Kind::One, "false", |config, given| {
        config.shell.keep_going = values::switch(given)?;
        Ok(())
    }),
    Row::new("allow-queued", Kind::One, "false", |config, given| {
        config.shell.allow_queued = values::switch(given)?;
        Ok(())
    }),
    Row::new("json", Kind::One, "false", |config, given| {
        config.shell.json = values::switch(given)?;
        Ok(())
    }),
    Row::new("no-color", Kind::One, "false", |config, given| {
        config.shell.no_color = values::switch(given)?;
        Ok(())
    })
    .legacy("NO_COLOR"),
    Row::new("no-progress", Kind::One, "false", |config, given| {
        config.shell.no_progress = values::switch(given)?;
        Ok(())
    }),
    Row::new("quiet", Kind::One, "false", |config, given| {
        config.shell.quiet = values::switch(given)?;
        Ok(())
    }),
    Row::new("verbose", Kind::One, "0", |config, given| {
        let level = values::count(values::one(given)?, 0, u8::MAX.into())?;
        config.shell.verbose = level.min(2) as u8;
        Ok(())
    }),
    Row::new("debug", Kind::One, "false", |config, given| {
        config.shell.debug = values::switch(given)?;
        Ok(())
    }),
    Row::new("output-dir", Kind::Path, "", |config, given| {
        config.paths.output_dir = given.first().map(|_| values::path(given)).transpose()?;
        Ok(())
    }),
    Row::new("log-file", Kind::Path, "", |config, given| {
        config.paths.log_file = given.first().map(|_| values::path(given)).transpose()?;
        Ok(())
    }),
];

/// The row of exactly that key.
pub(super) fn row(key: &str) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.key == key)
}

/// The row of a key that a person wrote: dashes in front and underscores do no harm.
pub(super) fn find(key: &str) -> Result<&'static Row, String> {
    let wanted = key.trim_start_matches('-').replace('_', "-");
    row(&wanted).ok_or_else(|| {
        format!("there is no setting {}; the nearest one is {}", values::quoted(key), nearest(&wanted).key)
    })
}

/// The row whose key looks most like that.
pub(super) fn nearest(key: &str) -> &'static Row {
    // The table is not empty, so its first row is only named to please the type.
    TABLE.iter().min_by_key(|row| strsim::damerau_levenshtein(row.key, key)).unwrap_or(&TABLE[0])
}

/// A time above zero and not above `most`.
fn bounded(given: &[String], most: Duration, words: &str) -> Result<Duration, String> {
    let text = values::one(given)?;
    let time = values::parse_duration(text)?;
    if time.is_zero() || time > most {
        return Err(format!("{} is out of bounds: more than 0, at most {words}", values::quoted(text)));
    }
    Ok(time)
}
