//! Tables and lists for people. An empty list is a sentence that says what to do.

use jiff::{SignedDuration, Timestamp};

use super::super::safe::safe;
use super::super::table::{Table, pairs};
use super::names::label;
use super::{Text, ago, ahead, colour, delivery_word, how, shown_value, span};
use crate::api::{HistoryRow, OutboxRow, PeerInfo, PeerState, SeedInfo, SeedState, Setting, StatusInfo};

/// So many characters of a waiting text are shown in the table of the outbox; the history has the whole.
const PREVIEW: usize = 40;

impl Text {
    pub(super) fn peers(&self, command: &str, peers: &[PeerInfo], now: Timestamp) -> String {
        if peers.is_empty() {
            return match command {
                "block" => "Nobody is blocked. `block PEER` refuses somebody for good.".to_owned(),
                _ => "Nobody is known yet. Name a seed with --seed, or `connect ADDRESS` to somebody.".to_owned(),
            };
        }
        let mut table = Table::new(&["NAME", "TEAM", "STATE", "SEEN", "RTT", "RELIABLE", "MARKS", "PEER", "ADDRESS"]);
        let mut by_name: Vec<&PeerInfo> = peers.iter().collect();
        by_name.sort_by_key(|peer| (&peer.name, &peer.peer));
        for peer in by_name {
            table.push(vec![
                self.names.named(&peer.peer, &peer.name),
                team(&peer.team),
                state_word(peer.state).to_owned(),
                ago(peer.last_seen, now),
                rtt(peer.rtt_ms),
                format!("{:.2}", peer.reliability),
                marks(peer),
                safe(&peer.peer).into_owned(),
                peer.address.as_deref().map_or_else(|| "-".to_owned(), |address| safe(address).into_owned()),
            ]);
        }
        self.table(&table)
    }

    /// A sentence for commands that change something about a peer, else everything about it.
    pub(super) fn peer(&self, command: &str, peer: &PeerInfo, now: Timestamp) -> String {
        let who = self.paint(colour::NAME, &self.names.named(&peer.peer, &peer.name));
        match command {
            "connect" | "join" | "reconnect" => {
                let address = peer.address.as_deref().map(|address| format!(" at {}", safe(address)));
                format!("Connected to {who} (team {}){}", team(&peer.team), address.unwrap_or_default())
            }
            "disconnect" | "remove" => format!("Said goodbye to {who}"),
            "block" => format!("{who} is blocked; `unblock` undoes it"),
            "unblock" => format!("{who} is no longer blocked"),
            "trust" => format!("{who} is trusted"),
            _ => self.whois(peer, now),
        }
    }

    fn whois(&self, peer: &PeerInfo, now: Timestamp) -> String {
        let mut list = vec![
            ("name", self.names.named(&peer.peer, &peer.name)),
            ("team", team(&peer.team)),
            ("peer", safe(&peer.peer).into_owned()),
            ("role", peer.role.to_string()),
            ("state", format!("{}, since {}", state_word(peer.state), ago(peer.since, now))),
            ("last seen", ago(peer.last_seen, now)),
            ("round trip", rtt(peer.rtt_ms)),
            ("reliability", format!("{:.2} of 1; `why` says more", peer.reliability)),
            ("failed dials", peer.failures.to_string()),
            ("marks", marks(peer)),
            ("version", shown_value(&peer.version)),
            ("starts", peer.boot.to_string()),
        ];
        if peer.since.is_none() {
            list[4].1 = state_word(peer.state).to_owned();
        }
        if let Some(address) = &peer.address {
            let via = peer.via.map(|via| format!("{} ", how(via))).unwrap_or_default();
            list.push(("link", format!("{via}{}", safe(address))));
        }
        for address in &peer.addresses {
            list.push(("address", safe(address).into_owned()));
        }
        pairs(&list)
    }

    pub(super) fn history(&self, rows: &[HistoryRow], now: Timestamp) -> String {
        if rows.is_empty() {
            return "No messages here. `msg PEER TEXT` writes one.".to_owned();
        }
        let lines: Vec<String> = rows.iter().map(|row| self.history_line(row, now)).collect();
        lines.join("\n")
    }

    pub(super) fn outbox(&self, rows: &[OutboxRow], now: Timestamp) -> String {
        if rows.is_empty() {
            return "Nothing waits: every message was delivered or given up. `history` has them.".to_owned();
        }
        let mut table = Table::new(&["TO", "STATE", "WRITTEN", "GIVEN UP", "ID", "TEXT"]);
        for row in rows {
            let mut preview: String = row.text.chars().take(PREVIEW).collect();
            if preview.len() < row.text.len() {
                preview.push('…');
            }
            // Said in whole, because half of it would be no more than a riddle.
            let text = row.reason.as_deref().map_or_else(|| safe(&preview), safe);
            table.push(vec![
                self.names.named(&row.to, &row.name),
                delivery_word(row.state).to_owned(),
                ago(Some(row.sent_at), now),
                ahead(Some(row.expires_at), now),
                safe(&row.id).into_owned(),
                text.into_owned(),
            ]);
        }
        self.table(&table)
    }

    pub(super) fn seeds(&self, seeds: &[SeedInfo], now: Timestamp) -> String {
        if seeds.is_empty() {
            return "No seed is configured. Start with --seed ADDRESS or --seeds-file FILE.".to_owned();
        }
        let mut table = Table::new(&["STATE", "PEERS", "RUNS OUT", "PEER", "ADDRESS"]);
        for seed in seeds {
            let state = match seed.state {
                None => "spare",
                Some(SeedState::Registered) => "registered",
                Some(SeedState::Unreachable) => "unreachable",
                Some(SeedState::Refused) => "refused",
            };
            table.push(vec![
                state.to_owned(),
                seed.peers.to_string(),
                ahead(seed.expires_at, now),
                seed.peer_id.as_deref().map_or_else(|| "-".to_owned(), |peer| safe(peer).into_owned()),
                safe(&seed.address).into_owned(),
            ]);
        }
        self.table(&table)
    }

    pub(super) fn status(&self, status: &StatusInfo) -> String {
        let uptime = SignedDuration::from_secs(i64::try_from(status.uptime_s).unwrap_or(i64::MAX));
        let mut list = vec![
            ("name", self.names.named(&status.peer_id, &status.name)),
            ("team", team(&status.team)),
            ("id", safe(&status.peer_id).into_owned()),
            ("role", status.role.to_string()),
            ("version", safe(&status.version).into_owned()),
            ("up for", format!("{}, start number {}", span(uptime), status.boot)),
            ("data", safe(&status.data_dir).into_owned()),
            ("peers", format!("{} up, {} known, {} links", status.peers_up, status.peers_known, status.links)),
            ("seeds", format!("{} of {} registrations", status.seeds_registered, status.seeds_wanted)),
            ("messages", format!("{} stored, {} waiting", status.history, status.outbox)),
        ];
        if let Some(registrations) = status.registrations {
            list.push(("registered", format!("{registrations} peers are registered here")));
        }
        for (kind, count) in &status.faults {
            list.push(("fault", format!("{} x {count}", safe(kind))));
        }
        if status.panics > 0 {
            list.push(("panics", format!("{} survived; please report them", status.panics)));
        }
        for address in &status.addresses {
            list.push(("address", safe(address).into_owned()));
        }
        pairs(&list)
    }

    pub(super) fn settings(&self, settings: &[Setting]) -> String {
        if settings.is_empty() {
            return "There are no settings.".to_owned();
        }
        let mut table = Table::new(&["SETTING", "VALUE", "FROM"]);
        for setting in settings {
            table.push(vec![
                safe(&setting.key).into_owned(),
                shown_value(&setting.value),
                safe(&setting.origin).into_owned(),
            ]);
        }
        self.table(&table)
    }

    pub(super) fn table(&self, table: &Table) -> String {
        let mut lines = table.lines();
        if let Some(header) = lines.first_mut() {
            *header = self.paint(colour::BOLD, header);
        }
        lines.join("\n")
    }
}

fn team(team: &str) -> String {
    if team.is_empty() { "-".to_owned() } else { label(team) }
}

pub(super) fn state_word(state: PeerState) -> &'static str {
    match state {
        PeerState::Up => "up",
        PeerState::Suspect => "suspect",
        PeerState::Dead => "dead",
        PeerState::Left => "left",
        PeerState::Known => "known",
    }
}

pub(super) fn rtt(rtt_ms: Option<f64>) -> String {
    rtt_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"))
}

fn marks(peer: &PeerInfo) -> String {
    let marks: Vec<&str> = [
        (peer.role == crate::api::Role::Seed, "seed"),
        (peer.mandatory, "mandatory"),
        (peer.trusted, "trusted"),
        (peer.blocked, "blocked"),
    ]
    .into_iter()
    .filter_map(|(set, mark)| set.then_some(mark))
    .collect();
    if marks.is_empty() { "-".to_owned() } else { marks.join(",") }
}
