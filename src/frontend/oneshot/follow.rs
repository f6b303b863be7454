//! What happens to a transfer, from the node's events to an exit status.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::OneShot;
use super::client::{Client, parse, stopped};
use super::progress::{Progress, size};
use crate::api::{ApiError, ErrorCode};
use crate::frontend::complain;
use crate::frontend::render::safe::safe;
use crate::frontend::signals::Signals;

/// A transfer whose other end is away for so long is left to the node; the command ends.
const AWAY: Duration = Duration::from_secs(60);

/// Some receivers have it, others do not.
const PARTLY: u8 = 9;

/// Reasons that are told apart here, by a part of their words.
const NOT_CONNECTED: &str = "not connected";
const BY_YOU: &str = "by you";
const INTEGRITY: [&str; 3] = ["source changed", "damaged too often", "not what the sender sealed"];
const UNWANTED: [&str; 3] = ["takes no more offers", "cannot receive files", "by the other end"];

/// A transfer with one peer, as an event or a row of `transfers` tells it.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct Seen {
    pub(super) id: String,
    pub(super) direction: Direction,
    pub(super) peer: String,
    pub(super) name: String,
    pub(super) file: String,
    pub(super) bytes: u64,
    pub(super) total: u64,
    pub(super) state: State,
    pub(super) reason: Option<String>,
    pub(super) path: Option<String>,
    pub(super) hash: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Direction {
    Out,
    In,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    Offered,
    Active,
    Paused,
    Completed,
    Failed,
    Rejected,
    Cancelled,
}

impl State {
    pub(super) fn is_final(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Rejected | Self::Cancelled)
    }
}

impl Seen {
    /// Rows of a reply: one object, or a list of them.
    pub(super) fn rows(data: Value) -> Vec<Self> {
        let rows = match data {
            Value::Array(rows) => rows,
            one => vec![one],
        };
        rows.into_iter().filter_map(|row| serde_json::from_value(row).ok()).collect()
    }

    /// The other end, for people.
    pub(super) fn who(&self) -> String {
        if self.name.is_empty() { safe(&self.peer).into_owned() } else { safe(&self.name).into_owned() }
    }

    /// The reason in brackets or nothing.
    pub(super) fn why(&self) -> String {
        self.reason.as_deref().map(|reason| format!(": {}", safe(reason))).unwrap_or_default()
    }

    pub(super) fn is_paused_here(&self) -> bool {
        self.state == State::Paused && self.says(&[BY_YOU])
    }

    fn is_away(&self) -> bool {
        self.state == State::Paused && self.says(&[NOT_CONNECTED])
    }

    fn says(&self, words: &[&str]) -> bool {
        self.reason.as_deref().is_some_and(|reason| words.iter().any(|word| reason.contains(word)))
    }

    /// The exit status of how it stands, if nothing more comes.
    fn status(&self) -> u8 {
        let code = match self.state {
            State::Completed => return 0,
            State::Rejected => ErrorCode::Refused,
            State::Failed if self.says(&INTEGRITY) => ErrorCode::Integrity,
            State::Failed | State::Cancelled if self.says(&UNWANTED) => ErrorCode::Refused,
            State::Failed | State::Cancelled => ErrorCode::General,
            State::Offered | State::Active | State::Paused => ErrorCode::OnlyQueued,
        };
        code.exit_status()
    }

    /// The last word about it, for people.
    fn last_word(&self) -> String {
        let (file, who) = (safe(&self.file), self.who());
        let way = match self.direction {
            Direction::Out => format!("{file} to {who}"),
            Direction::In => format!("{file} from {who}"),
        };
        match self.state {
            State::Completed => {
                let place = self.path.as_deref().map(|path| format!(", it is {}", safe(path))).unwrap_or_default();
                let hash = self.hash.as_deref().map(|hash| format!(", BLAKE3 {}", safe(hash))).unwrap_or_default();
                format!("{way} is complete: {}{place}{hash}", size(self.total))
            }
            State::Failed => format!("{way} failed{}", self.why()),
            State::Rejected => format!("{way} was refused{}", self.why()),
            State::Cancelled => format!("{way} was given up{}", self.why()),
            State::Offered | State::Active | State::Paused => format!("{way} waits{}", self.why()),
        }
    }
}

/// Two conversations with a node: one that is asked, one that tells what happens.
pub(super) struct Conversation {
    pub(super) asked: Client,
    events: Client,
    pub(super) signals: Signals,
    shown: OneShot,
    /// The number of the last line printed as JSON.
    printed: u64,
}

/// What comes next.
pub(super) enum Next {
    /// Something happened.
    Event(Value),
    /// The person wants an end; the exit status that belongs to it.
    Interrupted(u8),
    /// The time is over.
    Late,
}

impl Conversation {
    /// Everything that happens from now on will be told.
    pub(super) async fn begin(socket: &Path, shown: OneShot) -> Result<Self, ApiError> {
        let signals = Signals::new()
            .map_err(|error| ApiError::new(ErrorCode::General, format!("signals cannot be caught: {error}")))?;
        let asked = Client::connect(socket).await?;
        let mut events = Client::connect(socket).await?;
        events.send(&json!({ "follow": true })).await?;
        // The node has subscribed for us before it writes the first line.
        events.line().await?.ok_or_else(stopped)?;
        Ok(Self { asked, events, signals, shown, printed: 0 })
    }

    /// Give a command whose reply readers of JSON see too.
    pub(super) async fn give(&mut self, line: &str) -> Result<Value, ApiError> {
        let (raw, mut reply) = tokio::select! {
            answered = self.asked.ask(line, self.shown.json) => answered?,
            status = self.signals.next() => std::process::exit(i32::from(status)),
        };
        if self.shown.json {
            self.print(&raw);
        }
        super::client::result_of(&reply)?;
        Ok(reply["data"].take())
    }

    /// A line of the node as one of ours: the numbers of two conversations become those of one.
    pub(super) fn print(&mut self, raw: &str) {
        use std::io::Write;
        self.printed += 1;
        let line = match (raw.find("\"n\":"), raw.find("\"ts\":")) {
            (Some(start), Some(end)) if start < end => {
                format!("{}\"n\":{},{}", &raw[..start], self.printed, &raw[end..])
            }
            _ => raw.to_owned(),
        };
        // A reader that has gone is no reason to give up the transfer.
        let _ = writeln!(std::io::stdout(), "{line}");
    }

    /// The next event. Readers of JSON see those that `concern` us.
    pub(super) async fn next(
        &mut self,
        deadline: Option<Instant>,
        concern: impl Fn(&Value) -> bool,
    ) -> Result<Next, ApiError> {
        let late = async {
            match deadline {
                Some(deadline) => tokio::time::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        let line = tokio::select! {
            line = self.events.line() => line?.ok_or_else(stopped)?,
            status = self.signals.next() => return Ok(Next::Interrupted(status)),
            () = late => return Ok(Next::Late),
        };
        let event = parse(&line)?;
        if self.shown.json && concern(&event) {
            self.print(&line);
        }
        Ok(Next::Event(event))
    }

    /// How a transfer stands with each peer.
    pub(super) async fn rows(&mut self, id: &str) -> Result<Vec<Seen>, ApiError> {
        Ok(Seen::rows(self.asked.data(&format!("stats {id}")).await?))
    }

    /// Follow a transfer until it is over with every peer; the exit status. `before` are the statuses of receivers that were
    /// left out.
    pub(super) async fn follow(&mut self, id: &str, progress: Progress, before: &[u8]) -> Result<u8, ApiError> {
        let mut following = Following {
            id,
            rows: BTreeMap::new(),
            progress,
            shown: self.shown,
            away_since: None,
            statuses: Vec::new(),
        };
        following.take(self.rows(id).await?, true);
        while !following.is_over() {
            let deadline = following.away_since.map(|since| since + AWAY);
            match self.next(deadline, |event| event["id"] == id).await? {
                Next::Event(event) if event["type"] == "transfer" && event["id"] == id => {
                    following.take(Seen::rows(event), false);
                }
                Next::Event(event) if event["type"] == "lagged" => following.take(self.rows(id).await?, false),
                Next::Event(event) if event["type"] == "bye" => return Err(stopped()),
                Next::Event(_) => {}
                Next::Interrupted(status) => return Ok(self.interrupted(following, status).await),
                Next::Late => break,
            }
        }
        following.progress.end();
        Ok(following.end(before))
    }

    /// The person has had enough: hold it, so that it can go on later.
    async fn interrupted(&mut self, following: Following<'_>, status: u8) -> u8 {
        following.progress.end();
        let id = following.id;
        let pause = format!("pause {id}");
        let held = tokio::select! {
            held = self.asked.data(&pause) => held.is_ok(),
            _ = self.signals.next() => false,
        };
        let begun: u64 = following.rows.values().map(|row| row.bytes).sum();
        if held {
            let first = if self.shown.own_node { "start a node here, then " } else { "" };
            eprintln!(
                "node: paused at {}; {first}`node ctl resume {id}` goes on, `node ctl cancel {id}` gives it up",
                size(begun)
            );
        } else {
            eprintln!("node: interrupted");
        }
        status
    }
}

struct Following<'a> {
    id: &'a str,
    rows: BTreeMap<String, Seen>,
    progress: Progress,
    shown: OneShot,
    /// Since when everybody who does not have it yet is away.
    away_since: Option<Instant>,
    statuses: Vec<u8>,
}

impl Following<'_> {
    fn take(&mut self, rows: Vec<Seen>, first: bool) {
        for row in rows {
            let before = self.rows.get(&row.peer);
            // What was overtaken by a list says nothing new.
            if before.is_some_and(|before| before.state.is_final()) {
                continue;
            }
            self.progress.show(&row, before.map(|before| before.state), first);
            if row.state.is_final() {
                self.statuses.push(row.status());
                if row.state != State::Completed {
                    self.progress.complain(&row.last_word());
                } else if !self.shown.json {
                    self.progress.say(&row.last_word());
                }
            }
            self.rows.insert(row.peer.clone(), row);
        }
        let mut open = self.rows.values().filter(|row| !row.state.is_final()).peekable();
        let away = open.peek().is_some() && open.all(Seen::is_away);
        self.away_since = away.then(|| self.away_since.unwrap_or_else(Instant::now));
    }

    fn is_over(&self) -> bool {
        !self.rows.is_empty() && self.rows.values().all(|row| row.state.is_final())
    }

    fn end(mut self, before: &[u8]) -> u8 {
        for row in self.rows.values().filter(|row| !row.state.is_final()) {
            let when = if self.shown.own_node { "when a node runs here again" } else { "when the other end is back" };
            eprintln!("node: {}; it goes on by itself {when}", row.last_word());
            self.statuses.push(if self.shown.allow_queued { 0 } else { row.status() });
        }
        self.statuses.extend_from_slice(before);
        one_of(&self.statuses)
    }
}

/// The exit status of several receivers.
pub(super) fn one_of(statuses: &[u8]) -> u8 {
    match statuses {
        [] => 0,
        [first, rest @ ..] if rest.iter().all(|status| status == first) => *first,
        all if all.contains(&0) => PARTLY,
        // Nobody has it, for several reasons.
        _ => ErrorCode::General.exit_status(),
    }
}

/// An error as an exit status, told.
pub(super) fn failed(error: &ApiError) -> u8 {
    complain(error);
    error.code.exit_status()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(state: &str, reason: Option<&str>) -> Seen {
        let row = json!({
            "id": "0f", "direction": "out", "peer": "12D3", "name": "bob", "file": "x", "bytes": 0, "total": 1,
            "state": state, "reason": reason,
        });
        Seen::rows(row).remove(0)
    }

    #[test]
    fn every_end_has_the_status_of_the_contract() {
        for (state, reason, status) in [
            ("completed", None, 0),
            ("rejected", None, 7),
            ("failed", Some("the source changed"), 6),
            ("failed", Some("a chunk arrived damaged too often"), 6),
            ("failed", Some("the contents are not what the sender sealed"), 6),
            ("failed", Some("the other end takes no more offers now"), 7),
            ("failed", Some("the disk gave an error"), 1),
            ("cancelled", Some("by the other end"), 7),
            ("cancelled", None, 1),
            ("paused", Some("not connected"), 3),
        ] {
            assert_eq!(seen(state, reason).status(), status, "{state} {reason:?}");
        }
    }

    #[test]
    fn several_receivers_have_one_status() {
        for (statuses, one) in
            [(&[][..], 0), (&[0], 0), (&[7], 7), (&[0, 0], 0), (&[0, 7], 9), (&[3, 3], 3), (&[3, 7], 1)]
        {
            assert_eq!(one_of(statuses), one, "{statuses:?}");
        }
    }
}
