//! What one line of the prompt, of a script or of `node ctl` asks for. Pure: no clock, no disk, no network.
//!
//! A leading `/` is optional. Whether a line is text of a chat is not decided here.
//!
//! **TEXT** (of `msg` and `echo`) is the raw rest of the line, byte for byte, blanks at its end included; the run of
//! blanks before it only separates. If it begins with `"` and all of it (blanks at the end aside) is one JSON string,
//! it is that string: so a text can begin with blanks, hold line breaks, or be a quoted string itself. The reader of
//! lines takes the line's end off. Every other argument is a shell-like word, see [`words`].

use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::export::Format;
use super::help::{self, Topic, Verb};
use crate::api::{ApiError, Command, ErrorCode, HistoryQuery, MAX_TEXT_BYTES};

mod files;
mod values;
mod words;

#[cfg(test)]
mod tests;

use values::shown;

/// Most messages that one `history` lists or exports.
pub(crate) const MAX_HISTORY_ROWS: usize = 100_000;

/// What a line asks for.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Line {
    /// Nothing stands there.
    Empty,
    /// The node does it.
    Node(Command),
    /// The front end that read the line does it.
    Session(SessionCommand),
}

/// What the front end does itself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum SessionCommand {
    /// From here on lines are messages to this peer.
    Chat {
        /// As [`Command::SendMessage::to`].
        peer: String,
    },
    /// The word `exit`: leave the chat, or quit outside of one.
    LeaveOrQuit,
    /// Print help.
    Help {
        /// `None` is the overview.
        topic: Option<String>,
    },
    /// Open the menu.
    Menu,
    /// Empty the screen.
    Clear,
    /// Go on when the condition holds.
    Wait {
        /// What is waited for.
        condition: Condition,
        /// At most so long; `None` is the session's own bound.
        timeout: Option<Duration>,
    },
    /// Fail unless the condition holds now.
    Expect {
        /// What must hold.
        condition: Condition,
    },
    /// Do nothing for so long.
    Sleep(Duration),
    /// Run the lines of a file.
    Source(PathBuf),
    /// Print this.
    Echo(String),
    /// Write how transfers went to a new file.
    Stats {
        /// Which; `None` is all.
        id: Option<String>,
        /// Where; must not exist.
        file: PathBuf,
        /// How.
        format: Format,
    },
    /// Write messages to a new file.
    Export {
        /// Which messages.
        query: HistoryQuery,
        /// Where; must not exist.
        file: PathBuf,
        /// How.
        format: Format,
    },
}

/// What `wait` and `expect` look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// At least so many peers have a link.
    Peers(usize),
    /// This peer has a link.
    Peer(String),
    /// A message came whose text matches. The source of a regular expression, not compiled yet.
    Message(String),
    /// The message of this id was delivered; `None` is the last one this session sent.
    Delivered(Option<String>),
    /// This peer counts as dead.
    Dead(String),
    /// The transfer of this id is complete; `None` is the last one this session began, else the next one that ends.
    Transfer(Option<String>),
}

/// What `line` asks for. `now` is what `--since 7d` counts back from.
///
/// # Errors
///
/// [`ErrorCode::UnknownCommand`], or [`ErrorCode::Usage`] with one sentence that gives the right form and an example.
pub(crate) fn parse(line: &str, now: Timestamp) -> Result<Line, ApiError> {
    if words::skip_blanks(line).is_empty() {
        return Ok(Line::Empty);
    }
    let (word, rest) = command_word(line);
    let Some(topic) = help::resolve(word) else { return Err(unknown(word)) };
    let args = Args { topic, rest };
    let node = |command| Ok(Line::Node(command));
    let session = |command| Ok(Line::Session(command));
    match topic.verb {
        Verb::Msg => args.message(),
        Verb::Broadcast => args.broadcast(),
        Verb::Gossip => args.gossip(),
        Verb::Chat => session(SessionCommand::Chat { peer: args.peer()? }),
        Verb::History => args.history(now),
        Verb::Outbox => args.none().and(node(Command::Outbox)),
        Verb::Peers => args.none().and(node(Command::Peers)),
        Verb::Whois => node(Command::Whois { peer: args.peer()? }),
        Verb::Connect => node(Command::Connect { peer: args.address()? }),
        Verb::Disconnect => node(Command::Disconnect { peer: args.peer()? }),
        Verb::Block => match args.at_most_one()? {
            Some(_) => node(Command::Block { peer: args.peer()? }),
            None => node(Command::Blocked),
        },
        Verb::Unblock => node(Command::Unblock { peer: args.peer()? }),
        Verb::Trust => node(Command::Trust { peer: args.peer()? }),
        Verb::Reconnect => node(Command::Reconnect { peer: args.address()? }),
        Verb::Health => node(Command::Health { peer: args.address()? }),
        Verb::Ping => node(Command::Ping { peer: args.peer()? }),
        Verb::Why => node(Command::Why { peer: args.peer()? }),
        Verb::Send => args.send(),
        Verb::Receive => args.receive(),
        Verb::Accept => args.accept(),
        Verb::Reject => node(Command::Reject { id: args.one("ID")? }),
        Verb::Transfers => args.none().and(node(Command::Transfers { id: None })),
        Verb::Pause => node(Command::Pause { id: args.one("ID")? }),
        Verb::Resume => node(Command::Resume { id: args.one("ID")? }),
        Verb::Cancel => node(Command::Cancel { id: args.one("ID")? }),
        Verb::Stats => args.stats(),
        Verb::Nick => node(Command::Nick { name: args.one("NAME")? }),
        Verb::Team => node(Command::Team { team: args.one("NAME")? }),
        Verb::Seeds => args.none().and(node(Command::Seeds)),
        Verb::Liveness => args.none().and(node(Command::Liveness)),
        Verb::Doctor => args.none().and(node(Command::Doctor)),
        Verb::Status => args.none().and(node(Command::Status)),
        Verb::Config => args.config(),
        Verb::Menu => args.none().and(session(SessionCommand::Menu)),
        Verb::Clear => args.none().and(session(SessionCommand::Clear)),
        Verb::Help => session(SessionCommand::Help { topic: args.at_most_one()? }),
        Verb::Quit if word == "exit" => args.none().and(session(SessionCommand::LeaveOrQuit)),
        Verb::Quit => args.none().and(node(Command::Quit)),
        Verb::Wait => {
            let (condition, timeout) = args.condition(true)?;
            session(SessionCommand::Wait { condition, timeout })
        }
        Verb::Expect => session(SessionCommand::Expect { condition: args.condition(false)?.0 }),
        Verb::Sleep => {
            let span = args.one("S")?;
            session(SessionCommand::Sleep(values::duration(&span).map_err(|why| args.wrong(why))?))
        }
        Verb::Source => session(SessionCommand::Source(args.one("FILE")?.into())),
        Verb::Echo => session(SessionCommand::Echo(text_of(rest))),
    }
}

/// Most numbered gossip messages of one run.
const MAX_GOSSIP: usize = 100_000;

/// The canonical word of the command on `line`, for the `command` field of its reply: `msg` for `@bob hi`. An unknown
/// word is returned as it stands, an empty line gives the empty string.
pub(crate) fn name(line: &str) -> &str {
    let (word, _) = command_word(line);
    help::resolve(word).map_or(word, |topic| topic.name)
}

/// The command's word as it stands, and the rest of the line from right behind it.
fn command_word(line: &str) -> (&str, &str) {
    let line = words::skip_blanks(line);
    let line = line.strip_prefix('/').unwrap_or(line);
    let end = if line.starts_with('@') { 1 } else { line.find(words::is_blank).unwrap_or(line.len()) };
    line.split_at(end)
}

fn unknown(word: &str) -> ApiError {
    let said = if word.is_empty() {
        "no command stands behind the /".to_owned()
    } else {
        format!("there is no command '{}'", shown(word))
    };
    let hint = help::nearest(word).map(|name| format!("did you mean `{name}`? ")).unwrap_or_default();
    ApiError::new(ErrorCode::UnknownCommand, format!("{said}; {hint}`help` lists all"))
}

/// TEXT out of everything behind the word before it.
fn text_of(rest: &str) -> String {
    let raw = words::skip_blanks(rest);
    if raw.starts_with('"')
        && let Ok(text) = serde_json::from_str(raw.trim_end_matches(words::is_blank))
    {
        return text;
    }
    raw.to_owned()
}

/// The arguments of one command.
struct Args<'a> {
    topic: &'static Topic,
    /// Everything behind the command's word.
    rest: &'a str,
}

/// Words without a dash, and the values of options in the order of the names that were asked for.
type Sorted<const N: usize> = (Vec<String>, [Option<String>; N]);

impl Args<'_> {
    /// A usage error: what is wrong, and what would be right.
    fn wrong(&self, why: impl std::fmt::Display) -> ApiError {
        let Topic { form, example, .. } = self.topic;
        ApiError::new(ErrorCode::Usage, format!("{why}; write `{form}`, for example `{example}`"))
    }

    fn words(&self) -> Result<Vec<String>, ApiError> {
        words::split(self.rest).map_err(|why| self.wrong(why))
    }

    fn surplus(&self, word: &str) -> ApiError {
        self.wrong(format_args!(
            "'{}' is too much for `{}` (an argument with spaces is quoted)",
            shown(word),
            self.topic.name
        ))
    }

    fn missing(&self, what: &str) -> ApiError {
        self.wrong(format_args!("{what} is missing"))
    }

    fn none(&self) -> Result<(), ApiError> {
        match self.words()?.first() {
            None => Ok(()),
            Some(word) => Err(self.surplus(word)),
        }
    }

    fn at_most_one(&self) -> Result<Option<String>, ApiError> {
        let mut words = self.words()?.into_iter();
        match (words.next(), words.next()) {
            (_, Some(word)) => Err(self.surplus(&word)),
            (word, None) => Ok(word),
        }
    }

    /// Exactly one word that is not empty.
    fn one(&self, what: &str) -> Result<String, ApiError> {
        self.at_most_one()?.filter(|word| !word.is_empty()).ok_or_else(|| self.missing(what))
    }

    fn peer(&self) -> Result<String, ApiError> {
        let (words, []) = self.sorted(self.words()?, [])?;
        match words.as_slice() {
            [] => Err(self.missing("PEER")),
            [peer] if peer.is_empty() => Err(self.missing("PEER")),
            [peer] => Ok(peer.clone()),
            [_, word, ..] => Err(self.surplus(word)),
        }
    }

    /// One word, or two words `host port`.
    fn address(&self) -> Result<String, ApiError> {
        let (words, []) = self.sorted(self.words()?, [])?;
        match words.as_slice() {
            [] => Err(self.missing("ADDR")),
            [address] if address.is_empty() => Err(self.missing("ADDR")),
            [address] => Ok(address.clone()),
            [host, port] => values::host_port(host, port).map_err(|why| self.wrong(why)),
            [_, _, word, ..] => Err(self.surplus(word)),
        }
    }

    fn gossip(&self) -> Result<Line, ApiError> {
        let (words, [count, every]) = self.sorted(self.words()?, ["--count", "--every"])?;
        if words.first().is_none_or(|word| word != "start") {
            if count.is_some() || every.is_some() {
                return Err(self.wrong("--count and --every belong to `gossip start`"));
            }
            return self.exchange(&words);
        }
        if let Some(word) = words.get(1) {
            return Err(self.surplus(word));
        }
        let count = count.map(|n| values::count(&n, MAX_GOSSIP).map_err(|why| self.wrong(why))).transpose()?;
        let every = every.map(|span| values::duration(&span).map_err(|why| self.wrong(why))).transpose()?;
        let count = u32::try_from(count.unwrap_or(10)).unwrap_or(u32::MAX);
        Ok(Line::Node(Command::GossipStart { count, every: every.unwrap_or(Duration::from_secs(5)) }))
    }

    /// The exchange of cards: `on`, `off`, `status`, a pause, or `interval` and a pause.
    fn exchange(&self, words: &[String]) -> Result<Line, ApiError> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let (on, every) = match words.as_slice() {
            ["status"] => (None, None),
            ["on"] => (Some(true), None),
            ["off"] => (Some(false), None),
            ["interval"] => return Err(self.missing("the pause in seconds")),
            ["interval", span] | [span] => match values::duration(span) {
                Ok(every) if !every.is_zero() => (None, Some(every)),
                Ok(_) => return Err(self.wrong("the pause is 0; `gossip off` stops the exchange")),
                Err(_) => return Err(self.wrong(format_args!("'{}' is nothing that gossip does", shown(span)))),
            },
            [] => return Err(self.missing("start, on, off, a pause or status")),
            ["interval", _, word, ..] | [_, word, ..] => return Err(self.surplus(word)),
        };
        Ok(Line::Node(Command::Exchange { on, every }))
    }

    fn broadcast(&self) -> Result<Line, ApiError> {
        Ok(Line::Node(Command::Broadcast { text: self.text(self.rest)? }))
    }

    fn message(&self) -> Result<Line, ApiError> {
        let (to, rest) = match words::first(self.rest).map_err(|why| self.wrong(why))? {
            Some((to, rest)) if !to.is_empty() => (to, rest),
            _ => return Err(self.missing("PEER")),
        };
        Ok(Line::Node(Command::SendMessage { to, text: self.text(rest)? }))
    }

    fn text(&self, rest: &str) -> Result<String, ApiError> {
        let text = text_of(rest);
        if text.is_empty() {
            return Err(self.missing("TEXT"));
        }
        if text.len() > MAX_TEXT_BYTES {
            return Err(self.wrong(format_args!(
                "the text has {} bytes and a message holds at most {MAX_TEXT_BYTES} (64 KiB)",
                text.len()
            )));
        }
        Ok(text)
    }

    fn history(&self, now: Timestamp) -> Result<Line, ApiError> {
        let (words, [limit, search, since, file, format]) =
            self.sorted(self.words()?, ["-n", "--search", "--since", "--export", "--format"])?;
        if let Some(word) = words.get(1) {
            return Err(self.surplus(word));
        }
        let peer = match words.into_iter().next() {
            Some(peer) if peer.is_empty() => return Err(self.missing("PEER")),
            Some(peer) if peer == "all" => None,
            peer => peer,
        };
        let limit = limit.map(|n| values::count(&n, MAX_HISTORY_ROWS).map_err(|why| self.wrong(why))).transpose()?;
        let since = since.map(|t| values::since(&t, now).map_err(|why| self.wrong(why))).transpose()?;
        let search = match search {
            Some(search) if search.is_empty() => return Err(self.missing("what --search looks for")),
            search => search,
        };
        let usual = if file.is_some() { MAX_HISTORY_ROWS } else { HistoryQuery::default().limit };
        let query = HistoryQuery { peer, limit: limit.unwrap_or(usual), search, since };
        match file {
            None if format.is_some() => Err(self.wrong("--format needs --export FILE")),
            None => Ok(Line::Node(Command::History(query))),
            Some(file) if file.is_empty() => Err(self.missing("the FILE of --export")),
            Some(file) => {
                let file = PathBuf::from(file);
                let format = self.format(format.as_deref(), &file)?;
                Ok(Line::Session(SessionCommand::Export { query, file, format }))
            }
        }
    }

    /// The format that was named, else the one that the file's ending names.
    fn format(&self, named: Option<&str>, file: &Path) -> Result<Format, ApiError> {
        if let Some(named) = named {
            return Format::from_name(named)
                .ok_or_else(|| self.wrong(format_args!("'{}' is no format (json, csv or txt)", shown(named))));
        }
        file.extension()
            .and_then(|ending| Format::from_name(ending.to_str()?))
            .ok_or_else(|| self.missing("--format json|csv|txt"))
    }

    fn config(&self) -> Result<Line, ApiError> {
        let words = self.words()?;
        let key = |word: &str| match word.trim_start_matches('-') {
            "" => Err(self.missing("K")),
            key => Ok(key.to_owned()),
        };
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(Line::Node(match words.as_slice() {
            [] => Command::Config,
            ["get", k] => Command::ConfigGet { key: key(k)? },
            ["set", k, v] => Command::ConfigSet { key: key(k)?, value: (*v).to_owned() },
            ["get" | "set"] => return Err(self.missing("K")),
            ["set", _] => return Err(self.missing("V")),
            ["get", _, word, ..] | ["set", _, _, word, ..] => return Err(self.surplus(word)),
            [word, ..] => return Err(self.wrong(format_args!("`config` has `get` and `set`, not '{}'", shown(word)))),
        }))
    }

    /// The condition of `wait` and `expect`; `timed` allows `--timeout`.
    fn condition(&self, timed: bool) -> Result<(Condition, Option<Duration>), ApiError> {
        let split = |text| words::split(text).map_err(|why| self.wrong(why));
        let Some((kind, rest)) = words::first(self.rest).map_err(|why| self.wrong(why))? else {
            return Err(self.missing("the condition"));
        };
        // A regular expression is full of what quoting would change, so it may stand raw.
        let (mut arguments, options) = if kind == "message" {
            let (regex, behind) = self.regex(rest)?;
            (vec![regex], split(behind)?)
        } else {
            (Vec::new(), split(rest)?)
        };
        let (more, timeout) = if timed {
            let (more, [timeout]) = self.sorted(options, ["--timeout"])?;
            (more, timeout)
        } else {
            (self.sorted(options, [])?.0, None)
        };
        if kind == "message"
            && let Some(word) = more.first()
        {
            return Err(self.wrong(format_args!("'{}' stands behind the quoted REGEX", shown(word))));
        }
        arguments.extend(more);
        let timeout = timeout.map(|s| values::duration(&s).map_err(|why| self.wrong(why))).transpose()?;
        if let Some(word) = arguments.get(1) {
            return Err(self.surplus(word));
        }
        let argument = arguments.into_iter().next();
        if argument.as_ref().is_some_and(String::is_empty) {
            return Err(self.wrong(format_args!("what stands behind `{}` is empty", shown(&kind))));
        }
        let condition = match (kind.as_str(), argument) {
            ("peer", Some(n)) if n.bytes().all(|b| b.is_ascii_digit()) => Condition::Peers(
                n.parse().map_err(|_| self.wrong(format_args!("'{}' is too large a number", shown(&n))))?,
            ),
            ("peer", Some(peer)) => Condition::Peer(peer),
            ("peer", None) => return Err(self.missing("N or PEER")),
            ("message", Some(regex)) => Condition::Message(regex),
            ("message", None) => return Err(self.missing("REGEX")),
            ("delivered", id) => Condition::Delivered(id),
            ("transfer", id) => Condition::Transfer(id),
            ("dead", Some(peer)) => Condition::Dead(peer),
            ("dead", None) => return Err(self.missing("PEER")),
            (kind, _) => {
                let conditions = "peer, message, transfer, delivered or dead";
                return Err(self.wrong(format_args!("'{}' is no condition ({conditions})", shown(kind))));
            }
        };
        Ok((condition, timeout))
    }

    /// The regular expression, and what stands behind it: one word if it is quoted, else everything up to the last
    /// ` --timeout`, blanks at its end aside.
    fn regex<'t>(&self, rest: &'t str) -> Result<(String, &'t str), ApiError> {
        let raw = words::skip_blanks(rest);
        if raw.starts_with(['\'', '"']) {
            let word = words::first(raw).map_err(|why| self.wrong(why))?;
            return word.ok_or_else(|| self.missing("REGEX"));
        }
        let end = raw
            .rmatch_indices("--timeout")
            .map(|(at, option)| (at, &raw[at + option.len()..]))
            .find(|(at, behind)| {
                let apart = raw[..*at].chars().next_back().is_none_or(words::is_blank);
                apart && (behind.is_empty() || behind.starts_with(|c| c == '=' || words::is_blank(c)))
            })
            .map_or(raw.len(), |(at, _)| at);
        let (regex, behind) = raw.split_at(end);
        let regex = regex.trim_end_matches(words::is_blank);
        if regex.is_empty() {
            return Err(self.missing("REGEX"));
        }
        Ok((regex.to_owned(), behind))
    }

    /// Options (`--name VALUE` or `--name=VALUE`) apart from the other words. Behind `--` nothing is an option.
    fn sorted<const N: usize>(&self, words: Vec<String>, names: [&str; N]) -> Result<Sorted<N>, ApiError> {
        let mut plain = Vec::new();
        let mut found = [const { None }; N];
        let mut words = words.into_iter();
        while let Some(word) = words.next() {
            if word == "--" {
                plain.extend(words);
                break;
            }
            if !word.starts_with('-') || word == "-" {
                plain.push(word);
                continue;
            }
            let (name, value) = match word.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (word.as_str(), None),
            };
            let Some(at) = names.iter().position(|known| *known == name) else {
                return Err(self.wrong(format_args!("`{}` has no option '{}'", self.topic.name, shown(name))));
            };
            let Some(value) = value.or_else(|| words.next()) else {
                return Err(self.missing(&format!("the value of {name}")));
            };
            if found[at].replace(value).is_some() {
                return Err(self.wrong(format_args!("{name} stands twice")));
            }
        }
        Ok((plain, found))
    }
}
