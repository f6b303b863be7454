//! Files, for people.

use jiff::SignedDuration;

use super::super::safe::safe;
use super::super::table::Table;
use super::{Text, because, colour};
use crate::api::{Direction, Event, FileInfo, SentInfo, Stamped, TransferInfo, TransferState};

/// Files of an offer that are listed one by one.
const LISTED: usize = 20;

/// Things left out that are listed one by one.
const LISTED_SKIPPED: usize = 10;

/// The pause between two lines about one transfer that only say how far it is.
const PROGRESS: SignedDuration = SignedDuration::from_secs(5);

/// Transfers whose last such line is remembered; beyond, one is told of more often.
const MAX_PROGRESS: usize = 1_024;

impl Text {
    pub(super) fn offer(&self, id: &str, from: &str, name: &str, files: &[FileInfo], bytes: u64) -> String {
        let who = self.paint(colour::NAME, &self.names.named(from, name));
        let what = match files {
            [one] => format!("{} ({})", safe(&one.path), size(bytes)),
            all => format!("{} files ({})", all.len(), size(bytes)),
        };
        let mut lines = vec![format!("{who} offers {what}; `accept {id}` or `reject {id}`")];
        if files.len() > 1 {
            let listed = files.iter().take(LISTED);
            lines.extend(listed.map(|file| format!("  {}  {}", safe(&file.path), size(file.size))));
        }
        if files.len() > LISTED {
            lines.push(format!("  … and {} more", files.len() - LISTED));
        }
        lines.join("\n")
    }

    /// How a transfer has come further. Progress in bytes is told every [`PROGRESS`], so that it does not fill the screen.
    pub(super) fn transfer(&mut self, stamped: &Stamped) -> Option<String> {
        let Event::Transfer { id, direction, peer, name, file, bytes, total, rate, state, reason, path, .. } =
            &*stamped.event
        else {
            return None;
        };
        let key = (id.clone(), peer.clone());
        if *state == TransferState::Active {
            let told = self.progress.get(&key).is_some_and(|told| stamped.at.duration_since(*told) < PROGRESS);
            if told {
                return None;
            }
            if self.progress.len() >= MAX_PROGRESS {
                self.progress.pop_first();
            }
            self.progress.insert(key, stamped.at);
        } else {
            self.progress.remove(&key);
        }
        let who = self.names.named(peer, name);
        let (file, why) = (safe(file), because(reason.as_deref()));
        let way = match direction {
            Direction::Out => format!("{file} to {who}"),
            Direction::In => format!("{file} from {who}"),
        };
        let far = format!("{} of {}", size(*bytes), size(*total));
        Some(match state {
            // The offer itself, or the reply to `send`, has said it.
            TransferState::Offered => return None,
            TransferState::Active => self.paint(colour::DIM, &format!("{way}: {far}, {}/s", size(*rate as u64))),
            TransferState::Paused => self.paint(colour::YELLOW, &format!("‖ {way} is paused at {far}{why}")),
            TransferState::Completed => {
                let place = path.as_deref().map(|path| format!(", it is {}", safe(path))).unwrap_or_default();
                self.paint(colour::GREEN, &format!("✓ {way} is complete: {}{place}", size(*total)))
            }
            TransferState::Failed => self.paint(colour::RED, &format!("✗ {way} failed{why}")),
            TransferState::Rejected => self.paint(colour::RED, &format!("✗ {way} was refused{why}")),
            TransferState::Cancelled => self.paint(colour::YELLOW, &format!("✗ {way} was given up{why}")),
        })
    }

    pub(super) fn sending(&self, sent: &SentInfo) -> String {
        let files = if sent.files == 1 { "1 file".to_owned() } else { format!("{} files", sent.files) };
        let mut lines = vec![format!("Offered {files} ({}) as {}", size(sent.bytes), safe(&sent.id))];
        for peer in &sent.unreachable {
            lines
                .push(self.paint(colour::YELLOW, &format!("(waiting for {}: not reachable now)", self.names.of(peer))));
        }
        for skipped in sent.skipped.iter().take(LISTED_SKIPPED) {
            lines.push(format!("  left out: {} {}", safe(&skipped.path), safe(&skipped.reason)));
        }
        if sent.skipped.len() > LISTED_SKIPPED {
            lines.push(format!("  left out: {} more", sent.skipped.len() - LISTED_SKIPPED));
        }
        lines.join("\n")
    }

    pub(super) fn transfers(&self, command: &str, rows: &[TransferInfo]) -> String {
        if rows.is_empty() {
            return "There are no transfers.".to_owned();
        }
        let full = command == "stats";
        let mut header = vec!["ID", "WAY", "PEER", "STATE", "BYTES", "OF", "RATE"];
        if full {
            header.extend(["MODE", "SECONDS", "CHUNKS", "AGAIN", "RTT"]);
        }
        header.push("FILE");
        let mut table = Table::new(&header);
        for row in rows {
            let way = if row.direction == Direction::Out { "out" } else { "in" };
            let mut cells = vec![
                row.id.chars().take(8).collect(),
                way.to_owned(),
                self.names.named(&row.peer, &row.name),
                format!("{}{}", row.state, because(row.reason.as_deref())),
                size(row.bytes),
                size(row.total),
                format!("{}/s", size(row.rate as u64)),
            ];
            if full {
                cells.extend([
                    safe(&row.mode).into_owned(),
                    format!("{:.1}", row.seconds),
                    row.chunks.to_string(),
                    row.retries.to_string(),
                    row.rtt_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms")),
                ]);
            }
            cells.push(safe(&row.file).into_owned());
            table.push(cells);
        }
        self.table(&table)
    }
}

/// A number of bytes in its largest unit.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1_024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1_024.0;
    let mut unit = 0;
    while value >= 1_023.95 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use jiff::Timestamp;
    use jiff::tz::TimeZone;

    use super::*;

    fn told(text: &mut Text, second: i64, state: TransferState, reason: Option<&str>) -> Option<String> {
        let event = Event::Transfer {
            id: "0f".to_owned(),
            direction: Direction::In,
            peer: "12D3KooWAAAAAbobob".to_owned(),
            name: "bob".to_owned(),
            file: "a\u{1b}[2J.txt".to_owned(),
            bytes: 1 << 20,
            total: 4 << 20,
            rate: 2_048.0,
            mode: "normal".to_owned(),
            state,
            reason: reason.map(str::to_owned),
            path: (state == TransferState::Completed).then(|| "/d/a.txt".to_owned()),
            hash: None,
        };
        let at = Timestamp::from_second(second).unwrap();
        text.event(&Stamped { n: 1, at, event: Arc::new(event) })
    }

    #[test]
    fn progress_is_told_now_and_then_and_ends_always() {
        let mut text = Text::in_zone(false, TimeZone::UTC);
        let progress = Some("a\\u{1b}[2J.txt from bob: 1.0 MiB of 4.0 MiB, 2.0 KiB/s".to_owned());
        assert_eq!(told(&mut text, 0, TransferState::Offered, None), None);
        assert_eq!(told(&mut text, 0, TransferState::Active, None), progress);
        assert_eq!(told(&mut text, 4, TransferState::Active, None), None);
        assert_eq!(told(&mut text, 5, TransferState::Active, None), progress);
        let paused = "‖ a\\u{1b}[2J.txt from bob is paused at 1.0 MiB of 4.0 MiB: not connected";
        assert_eq!(told(&mut text, 6, TransferState::Paused, Some("not connected")).as_deref(), Some(paused));
        assert_eq!(told(&mut text, 6, TransferState::Active, None), progress, "it goes on");
        let completed = "✓ a\\u{1b}[2J.txt from bob is complete: 4.0 MiB, it is /d/a.txt";
        assert_eq!(told(&mut text, 7, TransferState::Completed, None).as_deref(), Some(completed));
        assert!(text.progress.is_empty());
    }

    #[test]
    fn an_offer_names_every_file_up_to_a_bound() {
        let mut text = Text::in_zone(false, TimeZone::UTC);
        text.names.learn("12D3KooWAAAAAbobob", "bob");
        let file = |number: usize| FileInfo { path: format!("d/{number}"), size: 1_024 };
        let one = text.offer("0f", "12D3KooWAAAAAbobob", "bob", &[file(1)], 1_024);
        assert_eq!(one, "bob offers d/1 (1.0 KiB); `accept 0f` or `reject 0f`");
        let many: Vec<FileInfo> = (0..25).map(file).collect();
        let many = text.offer("0f", "12D3KooWAAAAAbobob", "bob", &many, 25 * 1_024);
        assert_eq!(many.lines().next(), Some("bob offers 25 files (25.0 KiB); `accept 0f` or `reject 0f`"));
        assert_eq!(many.lines().nth(1), Some("  d/0  1.0 KiB"));
        assert_eq!(many.lines().last(), Some("  … and 5 more"));
    }

    #[test]
    fn sizes_are_in_their_largest_unit() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_536, "1.5 KiB"),
            ((1 << 20) - 1, "1.0 MiB"),
            (1 << 30, "1.0 GiB"),
            (u64::MAX, "16777216.0 TiB"),
        ] {
            assert_eq!(size(bytes), shown);
        }
    }
}
