//! Lines that came against lines that are expected.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::{Captures, Regex};

/// Any lines between.
const GAP: &str = "...";
/// Anything within a line.
const HOLE: &str = "[..]";

/// What is known of the nodes, so that a line can be written without it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// PeerIds with the names of their nodes.
    pub(super) peers: BTreeMap<String, String>,
    /// Where the nodes were last seen to listen, whole.
    pub(super) addresses: BTreeMap<String, String>,
    /// The folder in which everything happens.
    pub(super) folder: String,
}

/// What differs from run to run, and what stands for it.
static VARIES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    let rules = [
        // Without a fraction of a second it is an example in a help text.
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", "<time>"),
        (r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\]", "[<time>]"),
        (r"\[\d\d:\d\d:\d\d\]", "[<time>]"),
        (r"\b\d+ s ago", "<n> s ago"),
        (r"\bup for:   \d+ s,", "up for:   <n> s,"),
        (r"\b\d+\.\d ms\b", "<n> ms"),
        (r#""n":\d+"#, r#""n":<n>"#),
        (r"\(process \d+\)", "(process <n>)"),
        (r"\b(127\.0\.0\.1)(:|/tcp/)\d{4,5}\b", "$1$2<port>"),
        (r"\b[0-9a-f]{32}\b", "<id>"),
    ];
    rules.into_iter().filter_map(|(pattern, with)| Some((Regex::new(pattern).ok()?, with))).collect()
});

static PEER: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new("12D3KooW[1-9A-HJ-NP-Za-km-z]{44}").ok());

impl Known {
    /// A line as it is compared: what varies is replaced by its name.
    pub(super) fn normal(&self, line: &str) -> String {
        let mut line = line.trim_end().to_owned();
        if !self.folder.is_empty() {
            line = line.replace(&self.folder, "<folder>");
        }
        for (pattern, with) in VARIES.iter() {
            line = pattern.replace_all(&line, *with).into_owned();
        }
        if let Some(pattern) = PEER.as_ref() {
            let named = |found: &Captures<'_>| match self.peers.get(&found[0]) {
                Some(name) => format!("<peer {name}>"),
                None => "<peer>".to_owned(),
            };
            line = pattern.replace_all(&line, named).into_owned();
        }
        for (peer, name) in &self.peers {
            line = line.replace(&format!("~{}", end(peer)), &format!("~<end {name}>"));
        }
        line
    }

    /// What is typed: `<peer ada>`, `<end ada>` (what stands behind `~`) and `<address ada>` are replaced by what they
    /// stand for.
    pub(super) fn filled(&self, input: &str) -> String {
        let mut input = input.to_owned();
        for (peer, name) in &self.peers {
            input = input.replace(&format!("<peer {name}>"), peer).replace(&format!("<end {name}>"), end(peer));
        }
        for (name, address) in &self.addresses {
            input = input.replace(&format!("<address {name}>"), address);
        }
        input
    }
}

/// The end of a PeerId that tells namesakes apart.
fn end(peer: &str) -> &str {
    &peer[peer.len().saturating_sub(5)..]
}

/// How far expected lines fit to those that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// So many lines were taken.
    Whole(usize),
    /// What came fits so far; more has to come.
    Begun,
    /// Whatever comes, it does not fit.
    Never,
}

/// Compare the beginning of `came` with everything in `expected`.
pub(super) fn fit(expected: &[String], came: &[String]) -> Fit {
    let Some((first, rest)) = expected.split_first() else { return Fit::Whole(0) };
    if is_gap(first) {
        if rest.is_empty() {
            return Fit::Whole(0);
        }
        for skipped in 0..came.len() {
            if let Fit::Whole(taken) = fit(rest, &came[skipped..]) {
                return Fit::Whole(skipped + taken);
            }
        }
        return Fit::Begun;
    }
    match came.split_first() {
        None => Fit::Begun,
        Some((line, later)) if line_fits(first, line) => match fit(rest, later) {
            Fit::Whole(taken) => Fit::Whole(taken + 1),
            other => other,
        },
        Some(_) => Fit::Never,
    }
}

/// Whether a line stands for any lines.
pub(super) fn is_gap(line: &str) -> bool {
    line.trim() == GAP
}

/// Whether one line is what is expected; how many blanks stand between the columns of a table does not count.
pub(super) fn line_fits(expected: &str, came: &str) -> bool {
    let (expected, came) = (narrow(expected), narrow(came));
    if !expected.contains(HOLE) {
        return expected == came;
    }
    let parts: Vec<String> = expected.split(HOLE).map(regex::escape).collect();
    Regex::new(&format!("^{}$", parts.join(".*"))).is_ok_and(|pattern| pattern.is_match(&came))
}

/// Without blanks at the end, and with two at most between words.
fn narrow(line: &str) -> String {
    let mut out = String::new();
    let mut blanks = 0;
    for letter in line.trim_end().chars() {
        blanks = if letter == ' ' { blanks + 1 } else { 0 };
        if blanks <= 2 {
            out.push(letter);
        }
    }
    out
}

/// What came, with the wildcards of what was expected kept where they still fit.
pub(super) fn merged(expected: &[String], came: &[String]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    let mut at = 0;
    let mut gap = false;
    for line in came {
        if let Some(found) = expected[at..].iter().position(|pattern| !is_gap(pattern) && line_fits(pattern, line)) {
            if expected[at..at + found].iter().any(|pattern| is_gap(pattern))
                && !out.last().is_some_and(|last| is_gap(last))
            {
                out.push(GAP.to_owned());
            }
            out.push(expected[at + found].clone());
            at += found + 1;
            gap = expected.get(at).is_some_and(|pattern| is_gap(pattern));
        } else if gap || expected.get(at).is_some_and(|pattern| is_gap(pattern)) {
            if !out.last().is_some_and(|last| is_gap(last)) {
                out.push(GAP.to_owned());
            }
        } else {
            out.push(line.clone());
        }
    }
    if expected.last().is_some_and(|last| is_gap(last)) && !out.last().is_some_and(|last| is_gap(last)) {
        out.push(GAP.to_owned());
    }
    aligned(&out)
}

/// Neighbouring lines with the same number of columns, with the columns under each other.
fn aligned(lines: &[String]) -> Vec<String> {
    let cells = |line: &String| -> Vec<String> {
        let split = line.trim_start().split("  ").map(str::trim).filter(|cell| !cell.is_empty());
        split.map(str::to_owned).collect()
    };
    let mut out = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        let columns = cells(&lines[at]).len();
        let end =
            at + lines[at..].iter().take_while(|line| cells(line).len() == columns && !line.starts_with(' ')).count();
        if columns < 3 || end - at < 2 {
            out.push(lines[at].clone());
            at += 1;
            continue;
        }
        let rows: Vec<Vec<String>> = lines[at..end].iter().map(cells).collect();
        for row in &rows {
            let mut line = String::new();
            for (column, cell) in row.iter().enumerate() {
                let width = rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
                line.push_str(cell);
                if column + 1 < row.len() {
                    line.extend(std::iter::repeat_n(' ', width + 2 - cell.chars().count()));
                }
            }
            out.push(line);
        }
        at = end;
    }
    out
}

/// Both sides for a person: what fits, what is missing (`-`), what came instead (`+`).
pub(super) fn difference(expected: &[String], came: &[String]) -> String {
    // Rows of a longest common subsequence; transcripts are short enough for the plain table.
    let (rows, columns) = (expected.len(), came.len());
    let mut longest = vec![vec![0_usize; columns + 1]; rows + 1];
    for row in (0..rows).rev() {
        for column in (0..columns).rev() {
            longest[row][column] = if line_fits(&expected[row], &came[column]) {
                longest[row + 1][column + 1] + 1
            } else {
                longest[row + 1][column].max(longest[row][column + 1])
            };
        }
    }
    let (mut row, mut column) = (0, 0);
    let mut out = String::new();
    while row < rows || column < columns {
        let (mark, line) = if row < rows && column < columns && line_fits(&expected[row], &came[column]) {
            row += 1;
            column += 1;
            (' ', &came[column - 1])
        } else if row < rows && (column == columns || longest[row + 1][column] >= longest[row][column + 1]) {
            row += 1;
            (if is_gap(&expected[row - 1]) { ' ' } else { '-' }, &expected[row - 1])
        } else {
            column += 1;
            ('+', &came[column - 1])
        };
        out.push_str(&format!("    {mark} {line}\n"));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split('|').filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    #[test]
    fn lines_fit_in_order() {
        for (expected, came, fits) in [
            ("a|b", "a|b|c", Fit::Whole(2)),
            ("a|b", "a", Fit::Begun),
            ("a|b", "a|c", Fit::Never),
            ("...|b", "a|c", Fit::Begun),
            ("...|b|c", "a|b|x|b|c|d", Fit::Whole(5)),
            ("a|...", "a|b", Fit::Whole(1)),
            ("x [..] z", "x y z", Fit::Whole(1)),
            ("x [..] z", "x y", Fit::Never),
            ("a    b", "a  b", Fit::Whole(1)),
            ("a b", "a  b", Fit::Never),
            ("", "a", Fit::Whole(0)),
        ] {
            assert_eq!(fit(&lines(expected), &lines(came)), fits, "{expected} {came}");
        }
    }

    #[test]
    fn what_varies_is_named() {
        let peer = format!("12D3KooW{}", "x".repeat(44));
        let known = Known {
            peers: BTreeMap::from([(peer.clone(), "ada".to_owned())]),
            addresses: BTreeMap::new(),
            folder: "/tmp/x".to_owned(),
        };
        let line = format!("[09:30:00] {peer} 127.0.0.1:4001 /ip4/127.0.0.1/tcp/40001 a~xxxxx 12 s ago /tmp/x/ada");
        assert_eq!(
            known.normal(&line),
            "[<time>] <peer ada> 127.0.0.1:<port> /ip4/127.0.0.1/tcp/<port> a~<end ada> <n> s ago <folder>/ada"
        );
        assert_eq!(known.filled("whois a~<end ada> <peer ada>"), format!("whois a~xxxxx {peer}"));
        assert_eq!(
            known.normal("/ip4/127.0.0.1/tcp/80 /ip4/192.0.2.7/tcp/4001"),
            "/ip4/127.0.0.1/tcp/80 /ip4/192.0.2.7/tcp/4001"
        );
    }

    #[test]
    fn an_update_keeps_the_wildcards_that_fit() {
        assert_eq!(merged(&lines("x [..]|b"), &lines("x y|c")), lines("x [..]|c"));
        assert_eq!(merged(&lines("...|b|..."), &lines("a|b|c|d")), lines("...|b|..."));
    }
}
