//! The one table of the prompt's commands: the parser finds its words here and `help` is printed from it, so that what
//! is understood and what is explained cannot drift apart.

use std::fmt::Write as _;

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
    Nick,
    Team,
    Seeds,
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

/// Every command, in the order of the overview.
pub(crate) const TOPICS: &[Topic] = &[
    Topic {
        verb: Verb::Msg,
        name: "msg",
        aliases: &["@"],
        group: "chat",
        form: "msg PEER TEXT",
        summary: "send a message (also: @PEER TEXT)",
        example: "msg bob don't worry",
        text: "TEXT is the raw rest of the line: quotes and backslashes are part of it, and spaces at the end are kept.\n\
               The spaces between PEER and TEXT only separate the two. A text that begins with spaces, has line breaks or\n\
               is a quoted string itself is given as one JSON string: msg bob \"  two\\nlines\".\n\
               At most 64 KiB. A peer that is not reachable now gets it later; `outbox` lists what waits.",
    },
    Topic {
        verb: Verb::Broadcast,
        name: "broadcast",
        aliases: &["all"],
        group: "chat",
        form: "broadcast TEXT",
        summary: "send a message to everybody",
        example: "broadcast the pump is running again",
        text: "It goes from neighbour to neighbour, so it also reaches those without a direct link. Whoever is away gets it from a\n\
               neighbour when it is back, for a day or until 10,000 newer ones. TEXT is the raw rest of the line, as with `msg`.",
    },
    Topic {
        verb: Verb::Chat,
        name: "chat",
        aliases: &[],
        group: "chat",
        form: "chat PEER",
        summary: "talk to one peer: each line is a message until `exit`",
        example: "chat bob",
        text: "Inside a chat a line that begins with / is a command all the same: /history bob.",
    },
    Topic {
        verb: Verb::History,
        name: "history",
        aliases: &[],
        group: "chat",
        form: "history [PEER|all] [-n N] [--search W] [--since T] [--export FILE --format json|csv|txt]",
        summary: "stored messages, oldest first; the last 20 unless -n says otherwise",
        example: "history bob -n 50 --since 7d",
        text: "T is a time as 2026-11-21T09:30:00Z, a date as 2026-11-21 (its midnight in UTC), or how long ago: 30m, 7d.\n\
               --export writes a new file and never overwrites one; without -n it takes the last 100,000 messages.\n\
               Without --format the ending of FILE decides. json has every text exactly; csv and txt show hidden characters\n\
               as \\u{1b}, and csv puts ' before a cell that a spreadsheet could take for a formula (one that begins with = + - @).",
    },
    Topic {
        verb: Verb::Outbox,
        name: "outbox",
        aliases: &[],
        group: "chat",
        form: "outbox",
        summary: "messages that were not delivered yet",
        example: "outbox",
        text: "",
    },
    Topic {
        verb: Verb::Peers,
        name: "peers",
        aliases: &["list-peers", "members"],
        group: "people",
        form: "peers",
        summary: "everybody known and how they stand",
        example: "peers",
        text: "",
    },
    Topic {
        verb: Verb::Whois,
        name: "whois",
        aliases: &[],
        group: "people",
        form: "whois PEER",
        summary: "one peer in full",
        example: "whois bob",
        text: "",
    },
    Topic {
        verb: Verb::Connect,
        name: "connect",
        aliases: &["join"],
        group: "people",
        form: "connect ADDR",
        summary: "dial a peer and wait for its hello",
        example: "connect 192.0.2.7:4001",
        text: "ADDR is a multiaddr, host:port, two words host port, or any other PEER.",
    },
    Topic {
        verb: Verb::Disconnect,
        name: "disconnect",
        aliases: &["remove"],
        group: "people",
        form: "disconnect PEER",
        summary: "say goodbye to a peer and close the link",
        example: "disconnect bob",
        text: "",
    },
    Topic {
        verb: Verb::Block,
        name: "block",
        aliases: &[],
        group: "people",
        form: "block [PEER]",
        summary: "refuse a peer from now on; alone: who is blocked",
        example: "block mallory",
        text: "Kept over restarts; `unblock PEER` undoes it.",
    },
    Topic {
        verb: Verb::Unblock,
        name: "unblock",
        aliases: &[],
        group: "people",
        form: "unblock PEER",
        summary: "let a blocked peer in again",
        example: "unblock mallory",
        text: "",
    },
    Topic {
        verb: Verb::Trust,
        name: "trust",
        aliases: &[],
        group: "people",
        form: "trust PEER",
        summary: "mark a peer as trusted",
        example: "trust bob",
        text: "Kept over restarts.",
    },
    Topic {
        verb: Verb::Nick,
        name: "nick",
        aliases: &[],
        group: "people",
        form: "nick NAME",
        summary: "change your own nickname",
        example: "nick anna",
        text: "A name has no spaces, at most 32 characters, and none of / @ : \" ' \\ and the comma. Others see the new one at once. It lasts until the node stops; `--name`, or `name` in config.toml, keeps it.",
    },
    Topic {
        verb: Verb::Team,
        name: "team",
        aliases: &[],
        group: "people",
        form: "team NAME",
        summary: "change your own team label",
        example: "team red",
        text: "",
    },
    Topic {
        verb: Verb::Seeds,
        name: "seeds",
        aliases: &[],
        group: "network",
        form: "seeds",
        summary: "the configured seeds and how they stand",
        example: "seeds",
        text: "",
    },
    Topic {
        verb: Verb::Gossip,
        name: "gossip",
        aliases: &[],
        group: "network",
        form: "gossip start [--count N] [--every S]",
        summary: "send numbered signs of life to everybody",
        example: "gossip start --count 10 --every 5",
        text: "Ten of them, five seconds apart, unless told otherwise. Others see who began it and which neighbour handed it over.",
    },
    Topic {
        verb: Verb::Status,
        name: "status",
        aliases: &[],
        group: "node",
        form: "status",
        summary: "this node at a glance",
        example: "status",
        text: "",
    },
    Topic {
        verb: Verb::Config,
        name: "config",
        aliases: &[],
        group: "node",
        form: "config [get K|set K V]",
        summary: "settings, where each comes from, and changing one",
        example: "config get fanout",
        text: "K is the name of the flag. What is set here holds until the node stops.",
    },
    Topic {
        verb: Verb::Menu,
        name: "menu",
        aliases: &[],
        group: "node",
        form: "menu",
        summary: "a numbered menu for the usual things",
        example: "menu",
        text: "Each question is answered by the next line; an empty line goes back, and a line that begins with / is a\n\
               command all the same.",
    },
    Topic {
        verb: Verb::Clear,
        name: "clear",
        aliases: &[],
        group: "node",
        form: "clear",
        summary: "empty the screen",
        example: "clear",
        text: "",
    },
    Topic {
        verb: Verb::Help,
        name: "help",
        aliases: &[],
        group: "node",
        form: "help [TOPIC]",
        summary: "this list, or one command in full; `help compat`: other names",
        example: "help history",
        text: "",
    },
    Topic {
        verb: Verb::Quit,
        name: "quit",
        aliases: &["exit"],
        group: "node",
        form: "quit",
        summary: "say goodbye to everybody and stop (also: exit, Ctrl-D)",
        example: "quit",
        text: "Inside a chat `exit` only leaves the chat.",
    },
    Topic {
        verb: Verb::Wait,
        name: "wait",
        aliases: &[],
        group: "scripts",
        form: "wait peer N|peer PEER|message REGEX|delivered [ID] [--timeout S]",
        summary: "go on when something has happened",
        example: "wait message hello --timeout 30",
        text: "peer N: so many peers have a link. delivered without ID: the last message this script sent.\n\
               REGEX is one quoted argument, or the raw rest of the line up to --timeout.",
    },
    Topic {
        verb: Verb::Expect,
        name: "expect",
        aliases: &[],
        group: "scripts",
        form: "expect peer N|peer PEER|message REGEX|delivered [ID]",
        summary: "fail unless it is so now",
        example: "expect peer 3",
        text: "The conditions are those of `wait`.",
    },
    Topic {
        verb: Verb::Sleep,
        name: "sleep",
        aliases: &[],
        group: "scripts",
        form: "sleep S",
        summary: "do nothing for a while",
        example: "sleep 1.5",
        text: "",
    },
    Topic {
        verb: Verb::Source,
        name: "source",
        aliases: &[],
        group: "scripts",
        form: "source FILE",
        summary: "run the commands of a file",
        example: "source 'my commands.txt'",
        text: "",
    },
    Topic {
        verb: Verb::Echo,
        name: "echo",
        aliases: &[],
        group: "scripts",
        form: "echo TEXT",
        summary: "print TEXT",
        example: "echo half way",
        text: "",
    },
];

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
