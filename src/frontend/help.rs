//! The one table of the prompt's commands: the parser finds its words here and `help` is printed from it, so that what
//! is understood and what is explained cannot drift apart.

use std::fmt::Write as _;

mod topics;

pub(crate) use topics::TOPICS;

/// What a command word means to the parser. One variant for each row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verb {
    Msg,
    Broadcast,
    Gossip,
    Chat,
    History,
    Outbox,
    Peers,
    Whois,
    Connect,
    Disconnect,
    Block,
    Unblock,
    Trust,
    Reconnect,
    Health,
    Ping,
    Why,
    Send,
    Receive,
    Accept,
    Reject,
    Transfers,
    Pause,
    Resume,
    Cancel,
    Stats,
    Nick,
    Team,
    Seeds,
    Liveness,
    Doctor,
    Status,
    Config,
    Menu,
    Clear,
    Help,
    Quit,
    Wait,
    Expect,
    Sleep,
    Source,
    Echo,
}

/// One command with everything that is said about it.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    /// What the parser makes of it.
    pub(crate) verb: Verb,
    /// The canonical word; it stands in the `command` field of replies.
    pub(crate) name: &'static str,
    /// Other words for the same command.
    pub(crate) aliases: &'static [&'static str],
    /// Heading under which the overview lists it; rows of one group stand together.
    pub(crate) group: &'static str,
    /// How it is written, without backquotes.
    pub(crate) form: &'static str,
    /// At most one line.
    pub(crate) summary: &'static str,
    /// One line that parses.
    pub(crate) example: &'static str,
    /// What else is to be said; may be empty.
    pub(crate) text: &'static str,
}

/// The topic that is not a command.
const COMPAT: &str = "compat";

/// The command of that name or alias, exactly as written, without a leading `/`.
pub(crate) fn resolve(word: &str) -> Option<&'static Topic> {
    TOPICS.iter().find(|topic| topic.name == word || topic.aliases.contains(&word))
}

/// Every command in one line each, by group, and how arguments are written.
pub(crate) fn overview() -> String {
    // A form longer than this gets a line of its own instead of pushing every summary to the right.
    const WIDTH: usize = 24;
    let mut out = String::new();
    let mut group = "";
    for topic in TOPICS {
        if topic.group != group {
            group = topic.group;
            let _ = writeln!(out, "{group}");
        }
        if topic.form.len() <= WIDTH {
            let _ = writeln!(out, "  {:WIDTH$}  {}", topic.form, topic.summary);
        } else {
            let _ = writeln!(out, "  {}\n  {:WIDTH$}  {}", topic.form, "", topic.summary);
        }
    }
    out.push_str(
        "\nPEER is a nickname, a PeerId or the beginning of one, a multiaddr, or host:port.\n\
         Times: 5, 3.0, 10s, 2m, 1h, 7d. Arguments are quoted as in a shell; TEXT is the raw rest of the line.\n\
         `help TOPIC` says more about one command, `help compat` lists other names.",
    );
    out
}

/// What is to be said about one command (by any of its names, with or without `/`) or about `compat`.
pub(crate) fn topic(word: &str) -> Option<String> {
    let word = word.strip_prefix('/').unwrap_or(word);
    if word == COMPAT {
        return Some(compat());
    }
    let topic = resolve(word)?;
    let mut out = format!("{}\n  {}\n", topic.form, topic.summary);
    for line in topic.text.lines() {
        let _ = writeln!(out, "  {line}");
    }
    let _ = writeln!(out, "  for example: {}", topic.example);
    if !topic.aliases.is_empty() {
        let _ = writeln!(out, "  also: {}", topic.aliases.join(", "));
    }
    Some(out.trim_end().to_owned())
}

/// The other names that work, each with the name it stands for.
pub(crate) fn compat() -> String {
    let mut out = String::from("other names that work\n");
    for topic in TOPICS {
        for alias in topic.aliases {
            let _ = writeln!(out, "  {alias:12}  {}", topic.name);
        }
    }
    out.trim_end().to_owned()
}

/// The command name or alias that somebody who wrote `word` most likely meant: at most three slips away (a letter
/// missing, surplus, wrong, or two swapped), and fewer slips than half of the word's letters.
pub(crate) fn nearest(word: &str) -> Option<&'static str> {
    // No name is nearly as long; the bound keeps the table of distances small whatever somebody pastes.
    const LONGEST: usize = 32;
    let letters: Vec<char> = word.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
    if letters.len() > LONGEST {
        return None;
    }
    TOPICS
        .iter()
        .flat_map(|topic| std::iter::once(&topic.name).chain(topic.aliases))
        .map(|name| (distance(&letters, &name.chars().collect::<Vec<_>>()), *name))
        .filter(|(slips, _)| *slips <= 3 && 2 * slips < letters.len())
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, name)| name)
}

/// Optimal string alignment distance: Levenshtein's, with a swap of two neighbours as one slip.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (last[j] + usize::from(x != y)).min(last[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_word_stands_for_two_commands() {
        let mut words = BTreeSet::new();
        for topic in TOPICS {
            for word in std::iter::once(&topic.name).chain(topic.aliases) {
                assert!(words.insert(*word), "{word} stands twice");
                assert_eq!(resolve(word).map(|found| found.verb), Some(topic.verb));
            }
            assert_eq!(TOPICS.iter().filter(|other| other.verb == topic.verb).count(), 1, "{:?}", topic.verb);
        }
    }

    #[test]
    fn the_overview_has_every_form_under_its_group_once() {
        let overview = overview();
        for topic in TOPICS {
            assert!(overview.contains(&format!("  {}", topic.form)), "{}", topic.name);
            assert_eq!(overview.lines().filter(|line| *line == topic.group).count(), 1, "{}", topic.group);
        }
    }

    #[test]
    fn every_word_has_a_topic_and_every_alias_is_in_compat() {
        let compat = compat();
        for topic in TOPICS {
            assert!(super::topic(topic.name).is_some_and(|text| text.contains(topic.example)));
            for alias in topic.aliases {
                assert_eq!(super::topic(alias), super::topic(topic.name));
                assert!(compat.contains(alias));
            }
        }
        assert!(compat.lines().any(|line| line.split_whitespace().eq(["all", "broadcast"])), "{compat}");
        assert_eq!(super::topic("/msg"), super::topic("msg"));
        assert_eq!(super::topic("compat"), Some(compat));
        assert_eq!(super::topic("nothing"), None);
    }

    #[test]
    fn the_nearest_command_is_found_within_three_slips() {
        for (word, expected) in [
            ("mgs", Some("msg")),
            ("PEERS", Some("peers")),
            ("pers", Some("peers")),
            ("histroy", Some("history")),
            ("disconect", Some("disconnect")),
            ("brodcast", Some("broadcast")),
            ("x", None),
            ("", None),
        ] {
            assert_eq!(nearest(word), expected, "{word}");
        }
        assert_eq!(nearest(&"p".repeat(1 << 20)), None);
    }
}
