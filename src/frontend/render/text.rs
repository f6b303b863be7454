//! What the node says, for people.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use self::names::{Names, label};
use super::safe::{safe, safe_body};
use crate::api::{
    ApiError, DeliveryState, Event, HistoryRow, MessageKind, PeerInfo, PeerState, Reply, Role, SeedState, Stamped, Via,
};

mod lists;
pub(crate) mod names;
mod standing;
#[cfg(test)]
mod tests;
mod transfers;

/// A message is said to be old when it was written so much earlier than it came.
const OLD: SignedDuration = SignedDuration::from_secs(120);

/// The sixteen colours of a terminal, as SGR parameters.
mod colour {
    pub(super) const BOLD: &str = "1";
    pub(super) const DIM: &str = "2";
    pub(super) const RED: &str = "31";
    pub(super) const GREEN: &str = "32";
    pub(super) const YELLOW: &str = "33";
    pub(super) const NAME: &str = "1;36";
}

/// The reason of a loss that we brought about ourselves.
const DISCONNECTED: &str = "disconnected here";

/// Turns events and replies into lines for a person; remembers who is called what. No text it returns ends with a line
/// break, and none holds a control sequence but its own colours.
#[derive(Debug)]
pub(crate) struct Text {
    color: bool,
    zone: TimeZone,
    names: Names,
    /// When it was last told how far a transfer is, by id and peer.
    progress: BTreeMap<(String, String), Timestamp>,
}

impl Text {
    /// In colour or not, with times of the system's zone (UTC when it has none).
    pub(crate) fn new(color: bool) -> Self {
        Self::in_zone(color, TimeZone::system())
    }

    /// Like [`Text::new`], with times of a given zone.
    pub(crate) fn in_zone(color: bool, zone: TimeZone) -> Self {
        Self { color, zone, names: Names::default(), progress: BTreeMap::new() }
    }

    /// An event as a line; `None` when a person need not see it.
    pub(crate) fn event(&mut self, stamped: &Stamped) -> Option<String> {
        self.learn(&stamped.event);
        match &*stamped.event {
            Event::Ready { peer_id, name, team, role, .. } => {
                let who = self.paint(colour::NAME, &self.names.named(peer_id, name));
                let what = match role {
                    Role::Peer => "",
                    Role::Seed => ", a seed",
                };
                Some(format!("You are {who} (team {}){what}. Your id: {}", label(team), safe(peer_id)))
            }
            Event::Listening { address } => Some(format!("Others reach you at {}", safe(address))),
            Event::Seed { address, state, peers, .. } => Some(self.seed(address, *state, *peers)),
            Event::PeerUp { peer, name, team, address, via } => {
                let who = self.paint(colour::NAME, &self.names.named(peer, name));
                let line = format!("+ {who} (team {}) is here, {} {}", label(team), how(*via), safe(address));
                Some(line.trim_end().to_owned())
            }
            Event::PeerLeft { peer, name } => {
                Some(self.paint(colour::DIM, &format!("- {} left", self.names.named(peer, name))))
            }
            Event::PeerLost { peer, name, reason } if reason == DISCONNECTED => {
                Some(self.paint(colour::DIM, &format!("- the link to {} is closed", self.names.named(peer, name))))
            }
            Event::PeerLost { peer, name, reason } => {
                let line = format!("- lost the link to {}{}", self.names.named(peer, name), because(Some(reason)));
                Some(self.paint(colour::YELLOW, &line))
            }
            Event::PeerSuspect { peer, name, reason } => {
                let line = format!("? {} may be dead{}", self.names.named(peer, name), because(Some(reason)));
                Some(self.paint(colour::YELLOW, &line))
            }
            Event::PeerAlive { peer, name } => {
                Some(self.paint(colour::DIM, &format!("+ {} is alive after all", self.names.named(peer, name))))
            }
            Event::PeerDead { peer, name, reason, .. } => {
                let line = format!("✗ {} is dead{}", self.names.named(peer, name), because(Some(reason)));
                Some(self.paint(colour::RED, &line))
            }
            Event::Probe { .. } => None,
            Event::Message { kind, from, name, team, text, sent_at, .. } => {
                let time = self.time(stamped.at, "%H:%M:%S");
                let age = stamped.at.duration_since(*sent_at);
                let sent = if age > OLD { format!(", sent {} ago", span(age)) } else { String::new() };
                let who = self.paint(colour::NAME, &self.names.named(from, name));
                let to = if *kind == MessageKind::Broadcast { " to all" } else { "" };
                Some(format!("[{time}] {who} (team {}){to}{sent}: {}", label(team), safe_body(text)))
            }
            Event::Gossip { origin, via, count, .. } => {
                let (origin, via) = (self.names.of(origin), self.names.of(via));
                Some(format!("Gossip {count} from {origin}, handed over by {via}"))
            }
            Event::Gap { from, first, last, .. } => {
                let line = format!(
                    "(broadcasts {first} to {last} of {} are lost: nobody has them any more)",
                    self.names.of(from)
                );
                Some(self.paint(colour::YELLOW, &line))
            }
            Event::Delivery { to, state, reason, .. } => self.delivery(to, *state, reason.as_deref()),
            Event::Offer { id, from, name, files, bytes } => Some(self.offer(id, from, name, files, *bytes)),
            Event::Transfer { .. } => self.transfer(stamped),
            Event::Lagged { missed } => Some(self.paint(
                colour::YELLOW,
                &format!("({missed} events went by too fast to show; see `history` and `peers`)"),
            )),
            Event::Error { code, message } => Some(self.error(&ApiError::new(*code, message.as_str()))),
            Event::Bye { reason } => Some(format!("Bye{}", because(Some(reason)))),
        }
    }

    /// The answer to a command; `None` when there is nothing to say, or the events that follow say it. `command` is the
    /// command's name; it decides what is said of a peer or of an empty list.
    pub(crate) fn reply(&mut self, command: &str, reply: &Reply) -> Option<String> {
        self.reply_at(command, reply, Timestamp::now())
    }

    /// Like [`Text::reply`], with ages reckoned from `now`.
    pub(crate) fn reply_at(&mut self, command: &str, reply: &Reply, now: Timestamp) -> Option<String> {
        match reply {
            Reply::Done {} | Reply::Started { .. } => None,
            Reply::Said { neighbours, .. } => Some(self.paint(
                colour::DIM,
                &match neighbours {
                    0 => "(nobody is linked now: it goes out with the first link)".to_owned(),
                    1 => "(on its way through 1 neighbour)".to_owned(),
                    more => format!("(on its way through {more} neighbours)"),
                },
            )),
            Reply::Peers(peers) => {
                peers.iter().for_each(|peer| self.learn_peer(peer));
                Some(self.peers(command, peers, now))
            }
            Reply::Peer(peer) => {
                self.learn_peer(peer);
                Some(self.peer(command, peer, now))
            }
            Reply::History(rows) => {
                let whole = rows.iter().filter(|row| !row.is_damaged());
                whole.for_each(|row| self.names.learn_if_new(&row.from, &row.name));
                Some(self.history(rows, now))
            }
            Reply::Outbox(rows) => {
                rows.iter().for_each(|row| self.names.learn_if_new(&row.to, &row.name));
                Some(self.outbox(rows, now))
            }
            Reply::Delivery { id, state } => Some(format!("{} is {}", safe(id), delivery_word(*state))),
            Reply::Ping(ping) => {
                self.names.learn(&ping.peer, &ping.name);
                Some(self.ping(ping))
            }
            Reply::Liveness(rows) => {
                rows.iter().for_each(|row| self.names.learn_if_new(&row.peer, &row.name));
                Some(self.liveness(rows, now))
            }
            Reply::Why(why) => {
                self.names.learn(&why.peer, &why.name);
                Some(self.why(why, now))
            }
            Reply::Doctor(findings) => Some(self.doctor(findings)),
            Reply::Exchange(exchange) => Some(standing::exchange(exchange)),
            Reply::Sending(sent) => Some(self.sending(sent)),
            Reply::Transfers(rows) => {
                rows.iter().for_each(|row| self.names.learn_if_new(&row.peer, &row.name));
                Some(self.transfers(command, rows))
            }
            Reply::Transfer(row) => {
                self.names.learn_if_new(&row.peer, &row.name);
                Some(self.transfers(command, std::slice::from_ref(row)))
            }
            Reply::Seeds(seeds) => Some(self.seeds(seeds, now)),
            Reply::Status(status) => {
                self.names.learn(&status.peer_id, &status.name);
                Some(self.status(status))
            }
            Reply::Settings(settings) => Some(self.settings(settings)),
            Reply::Setting(setting) => {
                Some(format!("{} is {} ({})", safe(&setting.key), shown_value(&setting.value), safe(&setting.origin)))
            }
        }
    }

    /// An error as a line.
    pub(crate) fn error(&self, error: &ApiError) -> String {
        let word = self.paint(colour::RED, "error:");
        format!("{word} {}", safe(&error.message))
    }

    fn learn(&mut self, event: &Event) {
        match event {
            Event::Ready { peer_id: peer, name, .. } | Event::Message { from: peer, name, .. } => {
                self.names.learn(peer, name);
            }
            Event::PeerUp { peer, name, .. } => {
                self.names.learn(peer, name);
                self.names.set_up(peer, true);
            }
            Event::PeerLeft { peer, name } | Event::PeerLost { peer, name, .. } => {
                self.names.learn(peer, name);
                self.names.set_up(peer, false);
            }
            Event::PeerSuspect { peer, name, .. }
            | Event::PeerAlive { peer, name }
            | Event::Offer { from: peer, name, .. }
            | Event::Transfer { peer, name, .. }
            | Event::PeerDead { peer, name, .. } => self.names.learn(peer, name),
            Event::Listening { .. }
            | Event::Seed { .. }
            | Event::Delivery { .. }
            | Event::Gossip { .. }
            | Event::Gap { .. }
            | Event::Probe { .. }
            | Event::Lagged { .. }
            | Event::Error { .. }
            | Event::Bye { .. } => {}
        }
    }

    /// Learn who is called what from a list of peers.
    pub(crate) fn meet(&mut self, peers: &[PeerInfo]) {
        for peer in peers {
            self.learn_peer(peer);
        }
    }

    fn learn_peer(&mut self, peer: &PeerInfo) {
        self.names.learn(&peer.peer, &peer.name);
        self.names.set_up(&peer.peer, peer.state == PeerState::Up);
    }

    fn seed(&self, address: &str, state: SeedState, peers: usize) -> String {
        let address = safe(address);
        match state {
            SeedState::Registered => {
                let who = match peers {
                    0 => "nobody else yet".to_owned(),
                    1 => "1 peer".to_owned(),
                    more => format!("{more} peers"),
                };
                format!("Seed {address}: registered, it knows {who}")
            }
            SeedState::Unreachable => {
                self.paint(colour::YELLOW, &format!("Seed {address} does not answer; it will be tried again"))
            }
            SeedState::Refused => {
                self.paint(colour::RED, &format!("Seed {address} refuses us, or is not who it was before"))
            }
        }
    }

    fn delivery(&self, to: &str, state: DeliveryState, reason: Option<&str>) -> Option<String> {
        let who = self.names.of(to);
        match state {
            DeliveryState::Queued if reason.is_some() => {
                Some(self.paint(colour::DIM, &format!("(waiting for {who}{})", because(reason))))
            }
            DeliveryState::Queued if !self.names.is_up(to) => {
                Some(self.paint(colour::DIM, &format!("(waiting for {who}: not reachable now)")))
            }
            DeliveryState::Queued | DeliveryState::Sent | DeliveryState::Received => None,
            DeliveryState::Delivered => Some(self.paint(colour::GREEN, &format!("✓ {who} has it"))),
            DeliveryState::Failed => {
                Some(self.paint(colour::RED, &format!("✗ not delivered to {who}{}", because(reason))))
            }
        }
    }

    /// One stored message: others' with `<-`, own ones with `->` and how far they came.
    fn history_line(&self, row: &HistoryRow, now: Timestamp) -> String {
        let incoming = row.state == DeliveryState::Received;
        let at = if incoming { row.received_at } else { row.sent_at };
        let day = self.time(at, "%Y-%m-%d");
        let format = if day == self.time(now, "%Y-%m-%d") { "%H:%M:%S" } else { "%Y-%m-%d %H:%M:%S" };
        let time = self.time(at, format);
        let (text, reason) = match &row.reason {
            Some(reason) if row.is_damaged() => (self.paint(colour::RED, &format!("({})", safe(reason))), None),
            reason => (safe_body(&row.text), reason.as_deref()),
        };
        let team = label(&row.team);
        if incoming {
            let who = self.paint(colour::NAME, &self.names.named(&row.from, &row.name));
            let to = if row.kind == MessageKind::Broadcast { " to all" } else { "" };
            return format!("[{time}] <- {who} (team {team}){to}: {text}");
        }
        if row.kind == MessageKind::Broadcast {
            // It has no receipts, so there is no state to tell.
            return format!("[{time}] -> all: {text}");
        }
        let who = self.paint(colour::NAME, &self.names.of(&row.to));
        let state = format!("{}{}", delivery_word(row.state), because(reason));
        format!("[{time}] -> {who} [{state}]: {text}")
    }

    fn time(&self, at: Timestamp, format: &str) -> String {
        at.to_zoned(self.zone.clone()).strftime(format).to_string()
    }

    /// `text` in a colour, when there is colour.
    fn paint(&self, sgr: &str, text: &str) -> String {
        if self.color { format!("\u{1b}[{sgr}m{text}\u{1b}[0m") } else { text.to_owned() }
    }
}

fn how(via: Via) -> &'static str {
    match via {
        Via::Seed => "found through a seed:",
        Via::Mdns => "found in the local network:",
        Via::Dial => "dialled:",
        Via::Inbound => "came from",
        Via::Gossip => "found through another peer:",
    }
}

fn delivery_word(state: DeliveryState) -> &'static str {
    match state {
        DeliveryState::Queued => "queued",
        DeliveryState::Sent => "sent",
        DeliveryState::Delivered => "delivered",
        DeliveryState::Failed => "failed",
        DeliveryState::Received => "received",
    }
}

/// `: reason`, or nothing.
fn because(reason: Option<&str>) -> String {
    match reason {
        Some(reason) if !reason.is_empty() => format!(": {}", safe(reason)),
        _ => String::new(),
    }
}

/// A value that may be empty.
fn shown_value(value: &str) -> String {
    if value.is_empty() { "(nothing)".to_owned() } else { safe(value).into_owned() }
}

/// A length of time in its largest unit; a negative one counts as none.
fn span(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        86_400..172_800 => "1 day".to_owned(),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// `5 min ago`, or `-` for never.
fn ago(at: Option<Timestamp>, now: Timestamp) -> String {
    at.map_or_else(|| "-".to_owned(), |at| format!("{} ago", span(now.duration_since(at))))
}

/// `in 5 min`, `now`, or `-` for never.
fn ahead(at: Option<Timestamp>, now: Timestamp) -> String {
    match at.map(|at| at.duration_since(now)) {
        None => "-".to_owned(),
        Some(left) if left > SignedDuration::ZERO => format!("in {}", span(left)),
        Some(_) => "now".to_owned(),
    }
}
