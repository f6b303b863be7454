//! Who is alive and who can be trusted, for people.

use jiff::Timestamp;

use super::super::safe::safe;
use super::super::table::{Table, pairs};
use super::lists::{rtt, state_word};
use super::{Text, ago, ahead, colour};
use crate::api::{ExchangeInfo, Finding, LivenessRow, PingInfo, Severity, WhyInfo};

impl Text {
    pub(super) fn ping(&self, ping: &PingInfo) -> String {
        let who = self.paint(colour::NAME, &self.names.named(&ping.peer, &ping.name));
        format!("{who} answers after {:.1} ms; its clock {}", ping.rtt_ms, clock(ping.offset_ms, ping.rtt_ms))
    }

    pub(super) fn liveness(&self, rows: &[LivenessRow], now: Timestamp) -> String {
        if rows.is_empty() {
            return "No neighbour is watched. Whoever had a link since the start is, until it says goodbye.".to_owned();
        }
        let mut table = Table::new(&["NAME", "STATE", "MISSED", "SEEN", "RTT", "CLOCK", "NEXT PROBE", "PEER"]);
        let mut by_name: Vec<&LivenessRow> = rows.iter().collect();
        by_name.sort_by_key(|row| (&row.name, &row.peer));
        for row in by_name {
            table.push(vec![
                self.names.named(&row.peer, &row.name),
                state_word(row.state).to_owned(),
                row.failures.to_string(),
                ago(row.last_seen, now),
                rtt(row.rtt_ms),
                row.offset_ms.map_or_else(|| "-".to_owned(), |offset| format!("{offset:+} ms")),
                ahead(row.next_probe, now),
                safe(&row.peer).into_owned(),
            ]);
        }
        self.table(&table)
    }

    pub(super) fn why(&self, why: &WhyInfo, now: Timestamp) -> String {
        let mut list = vec![
            ("peer", self.names.named(&why.peer, &why.name)),
            ("reliability", format!("{:.2} of 1", why.reliability)),
            ("faults", format!("{:.1}, at {:.0} it is sent away", why.faults, why.limit)),
        ];
        if why.refused_until.is_some() {
            list.push(("refused for", ahead(why.refused_until, now)));
        }
        let mut lines = vec![pairs(&list)];
        if why.facts.is_empty() {
            lines.push("Nothing was seen of it yet that would move either.".to_owned());
        }
        let mut table = Table::new(&["WHEN", "WHAT", "TIMES", "MOVED"]);
        for fact in &why.facts {
            table.push(vec![
                ago(Some(fact.at), now),
                safe(&fact.what).into_owned(),
                fact.count.to_string(),
                format!("{} {:+.2}", safe(&fact.moved), fact.by),
            ]);
        }
        if !why.facts.is_empty() {
            lines.push(self.table(&table));
        }
        lines.join("\n")
    }

    pub(super) fn doctor(&self, findings: &[Finding]) -> String {
        let lines: Vec<String> = findings
            .iter()
            .map(|found| {
                let mark = match found.severity {
                    Severity::Error => self.paint(colour::RED, "error"),
                    Severity::Warning => self.paint(colour::YELLOW, "warning"),
                    Severity::Ok => self.paint(colour::GREEN, "ok"),
                };
                let advice = if found.advice.is_empty() {
                    String::new()
                } else {
                    format!("\n         -> {}", safe(&found.advice))
                };
                // Painted words are wider than they look, so the column is filled by hand.
                let gap = " ".repeat(8usize.saturating_sub(word(found.severity).len()));
                format!("{mark}{gap} {}: {}{advice}", safe(&found.subject), safe(&found.finding))
            })
            .collect();
        lines.join("\n")
    }
}

/// The exchange of cards in a sentence.
pub(super) fn exchange(exchange: &ExchangeInfo) -> String {
    if !exchange.on {
        return "The exchange of cards is off; `gossip on` begins it.".to_owned();
    }
    format!(
        "A neighbour is asked for cards every {} s: {} asked so far, {} cards learnt",
        exchange.interval_s, exchange.asked, exchange.learnt
    )
}

fn word(severity: Severity) -> &'static str {
    match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Ok => "ok",
    }
}

/// A difference below half of the way cannot be told from none.
fn clock(offset_ms: i64, rtt_ms: f64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a clock that is wrong by more than 2^52 ms needs no exact figure")]
    let offset = offset_ms as f64;
    if offset.abs() <= (rtt_ms / 2.0).max(1.0) {
        "agrees with ours".to_owned()
    } else if offset > 0.0 {
        format!("is {:.1} s ahead of ours", offset / 1_000.0)
    } else {
        format!("is {:.1} s behind ours", -offset / 1_000.0)
    }
}
