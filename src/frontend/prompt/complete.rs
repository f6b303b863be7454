//! What Tab offers. It is read off the forms in the table of commands, so that a new command is completed without a word
//! here: `PEER` and `ADDR` are peers, `FILE` and `PATH` files, `K` settings, `TOPIC` commands, small letters themselves.

use super::people::Scene;
use crate::frontend::help::{self, TOPICS};

/// What may stand at the end of a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Offer {
    /// Where the word begins that is completed, in bytes.
    pub(super) start: usize,
    /// What may stand there, in order.
    pub(super) words: Vec<String>,
    /// Whether the name of a file may stand there.
    pub(super) file: bool,
}

/// What can be offered behind `line`, which ends at the cursor.
pub(super) fn offer(line: &str, scene: Scene, peers: &[String], settings: &[String]) -> Offer {
    let body = line.trim_start();
    let at = line.len() - body.len();
    let (slash, command) = body.strip_prefix('/').map_or((0, body), |rest| (1, rest));
    match scene {
        Scene::Chat if slash == 0 => return Offer { start: at, words: begins(["exit"], body), file: false },
        Scene::Answer if slash == 0 => {
            return Offer { start: at, words: begins(peers.iter().map(String::as_str), body), file: false };
        }
        _ => {}
    }
    if let Some(peer) = command.strip_prefix('@') {
        let words = if peer.contains(char::is_whitespace) {
            Vec::new()
        } else {
            begins(peers.iter().map(String::as_str), peer)
        };
        return Offer { start: at + slash + 1, words, file: false };
    }
    let mut words: Vec<&str> = command.split_whitespace().collect();
    let start = line.rfind(char::is_whitespace).map_or(0, |space| space + last_width(line, space)).max(at + slash);
    let current = line.get(start..).unwrap_or_default();
    if !current.is_empty() {
        words.pop();
    }
    let Some((name, before)) = words.split_first() else {
        let names = TOPICS.iter().flat_map(|topic| std::iter::once(topic.name).chain(topic.aliases.iter().copied()));
        return Offer { start, words: begins(names.filter(|name| *name != "@"), current), file: false };
    };
    let Some(topic) = help::resolve(name) else { return Offer { start, ..Offer::default() } };
    let mut offer = Offer { start, ..Offer::default() };
    for token in expected(topic.form, before, current) {
        match token.trim_end_matches('…') {
            "PEER" | "ADDR" => offer.words.extend(begins(peers.iter().map(String::as_str), current)),
            "FILE" | "PATH" => offer.file = true,
            "K" => offer.words.extend(begins(settings.iter().map(String::as_str), current)),
            "TOPIC" => {
                let topics = TOPICS.iter().map(|topic| topic.name).chain(["compat"]);
                offer.words.extend(begins(topics, current));
            }
            literal if literal.starts_with(|c: char| c.is_ascii_lowercase() || c == '-') => {
                offer.words.extend(begins([literal], current));
            }
            _ => {}
        }
    }
    offer.words.sort_unstable();
    offer.words.dedup();
    offer
}

fn last_width(line: &str, at: usize) -> usize {
    line.get(at..).and_then(|rest| rest.chars().next()).map_or(0, char::len_utf8)
}

fn begins<'a>(words: impl IntoIterator<Item = &'a str>, with: &str) -> Vec<String> {
    let mut words: Vec<String> = words.into_iter().filter(|word| word.starts_with(with)).map(str::to_owned).collect();
    words.sort_unstable();
    words.dedup();
    words
}

/// The tokens of the form that may stand next, when these words stand already.
fn expected(form: &'static str, before: &[&str], current: &str) -> Vec<&'static str> {
    // A form is its name, alternatives of positional tokens, and options with at most one value.
    let tokens: Vec<&str> = form.split_whitespace().skip(1).map(|token| token.trim_matches(['[', ']'])).collect();
    let option_of = |word: &str| tokens.iter().position(|token| *token == word);
    if let Some(last) = before.last().filter(|word| word.starts_with('-')) {
        let value = option_of(last).and_then(|at| tokens.get(at + 1)).copied();
        if let Some(value) = value.filter(|value| !value.starts_with('-')) {
            return value.split('|').collect();
        }
    }
    if current.starts_with('-') {
        return tokens.into_iter().filter(|token| token.starts_with('-') && !before.contains(token)).collect();
    }
    let mut positional: Vec<Vec<&str>> = vec![Vec::new()];
    let mut skip = false;
    for token in &tokens {
        if std::mem::take(&mut skip) && !token.starts_with('-') {
            continue;
        }
        if token.starts_with('-') {
            skip = true;
            continue;
        }
        for (number, part) in token.split('|').enumerate() {
            let part = part.trim_matches(['[', ']']);
            if number > 0 {
                positional.push(Vec::new());
            }
            if let Some(last) = positional.last_mut() {
                last.push(part);
            }
        }
    }
    let mut given = Vec::new();
    let mut words = before.iter();
    while let Some(word) = words.next() {
        if word.starts_with('-') {
            let has_value =
                option_of(word).and_then(|at| tokens.get(at + 1)).is_some_and(|value| !value.starts_with('-'));
            if has_value {
                words.next();
            }
        } else {
            given.push(*word);
        }
    }
    let fits = |alternative: &[&str]| {
        given.iter().enumerate().all(|(at, word)| {
            let token = alternative.get(at).or(alternative.last().filter(|token| token.ends_with('…')));
            token.is_some_and(|token| !token.starts_with(|c: char| c.is_ascii_lowercase()) || token == word)
        })
    };
    positional
        .iter()
        .filter(|alternative| fits(alternative))
        .filter_map(|alternative| {
            alternative.get(given.len()).or(alternative.last().filter(|token| token.ends_with('…'))).copied()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        said(line, Scene::Command).words
    }

    fn said(line: &str, scene: Scene) -> Offer {
        let [peers, settings] =
            [["bea", "bob", "eve"], ["fanout", "name", "team"]].map(|words| words.map(str::to_owned).to_vec());
        offer(line, scene, &peers, &settings)
    }

    #[test]
    fn commands_peers_settings_and_options() {
        for (line, expected) in [
            ("hist", &["history"][..]),
            ("/hist", &["history"]),
            ("msg b", &["bea", "bob"]),
            ("  msg bo", &["bob"]),
            ("msg bob b", &[]),
            ("@e", &["eve"]),
            ("@eve h", &[]),
            ("whois ", &["bea", "bob", "eve"]),
            ("connect bo", &["bob"]),
            ("join bo", &["bob"]),
            ("history ", &["all", "bea", "bob", "eve"]),
            ("history bob --s", &["--search", "--since"]),
            ("history --format j", &["json"]),
            ("history -n 5 b", &["bea", "bob"]),
            ("config ", &["get", "set"]),
            ("config get fa", &["fanout"]),
            ("config set t", &["team"]),
            ("help conf", &["config"]),
            ("help comp", &["compat"]),
            ("wait ", &["dead", "delivered", "message", "peer", "transfer"]),
            ("send a b", &["bea", "bob"]),
            ("send a bob e", &["eve"]),
            ("send a --to b", &["bea", "bob"]),
            ("receive auto o", &["off", "on"]),
            ("wait peer e", &["eve"]),
            ("nonsense ", &[]),
            ("status ", &[]),
        ] {
            assert_eq!(words(line), expected, "{line}");
        }
        assert_eq!(said("  msg bo", Scene::Command).start, 6);
        assert_eq!(said("/msg", Scene::Command).start, 1);
        assert_eq!(said("@bo", Scene::Command).start, 1);
    }

    #[test]
    fn files_where_a_path_stands() {
        assert!(said("source my", Scene::Command).file);
        assert!(said("history --export x", Scene::Command).file);
        assert!(said("send ./", Scene::Command).file);
        assert!(!said("msg bob ./", Scene::Command).file);
        assert!(!said("history ", Scene::Command).file);
    }

    #[test]
    fn a_chat_offers_commands_behind_a_slash_only() {
        assert_eq!(said("hist", Scene::Chat).words, [""; 0]);
        assert_eq!(said("/hist", Scene::Chat).words, ["history"]);
        assert_eq!(said("ex", Scene::Chat).words, ["exit"]);
        assert_eq!(said("bo", Scene::Answer).words, ["bob"]);
    }
}
