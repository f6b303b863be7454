//! The walls of the house (ARCHITECTURE.md, "Who may import whom") as a test that reads the sources.
//!
//! It reads text, not syntax: comments, strings and test modules are cut out, then words are looked for. Each rule carries
//! an example that must break it, so that a rule which has stopped to see anything fails too.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;

/// Every file of the project that a rule may want to see: path from the root, and content.
type Tree = BTreeMap<String, String>;

/// Longest source file, in lines.
const MAX_LINES: usize = 600;

/// One rule of the house.
struct Rule {
    /// What is forbidden, and why.
    why: &'static str,
    check: Check,
    /// Files that break it.
    bad: &'static [(&'static str, &'static str)],
}

enum Check {
    /// None of the words stands in these files.
    Ban { within: &'static [&'static str], except: &'static [&'static str], view: View, words: &'static [&'static str] },
    /// These files name no other module of the crate than these.
    Imports { within: &'static [&'static str], allowed: &'static [&'static str] },
    /// Anything else: gives a sentence for each break.
    Shape(fn(&Tree) -> Vec<String>),
}

/// What of a file counts.
#[derive(Clone, Copy, PartialEq, Eq)]
enum View {
    /// No comments, no strings, no test modules.
    Code,
    /// No comments, no test modules.
    CodeAndStrings,
    /// No comments, no strings; tests count.
    CodeAndTests,
}

/// A behaviour's files besides its shell: the sans-IO core and plain data.
const SHELL_OF_A_BEHAVIOUR: &[&str] = &[
    "behaviours/*/src/lib.rs",
    "behaviours/*/src/behaviour.rs",
    "behaviours/*/src/behaviour/**",
    "behaviours/*/src/protocol.rs",
    "behaviours/*/src/protocol/**",
    "behaviours/*/src/handler.rs",
];

#[rustfmt::skip]
const RULES: &[Rule] = &[
    Rule {
        why: "only the event loop and the network name the swarm: everybody else sends it a command",
        check: Check::Ban {
            within: &["src/**", "behaviours/*/src/**"],
            except: &["src/event_loop.rs", "src/event_loop/**", "src/network.rs", "src/network/**"],
            view: View::Code,
            words: &["Swarm", "SwarmBuilder", "SwarmEvent"],
        },
        bad: &[("src/node.rs", "use libp2p::Swarm;")],
    },
    Rule {
        why: "only storage names rusqlite: SQL has one room",
        check: Check::Ban {
            within: &["src/**", "behaviours/*/src/**"],
            except: &["src/storage.rs", "src/storage/**"],
            view: View::Code,
            words: &["rusqlite", "rusqlite_migration"],
        },
        bad: &[("src/event_loop/chat.rs", "fn f(db: &rusqlite::Connection) {}")],
    },
    Rule {
        // The seeds file is JSON by contract, and settings are read in `config`.
        why: "only front ends name JSON and stdin; `config` reads the seeds file",
        check: Check::Ban {
            within: &["src/**", "behaviours/*/src/**"],
            except: &["src/frontend.rs", "src/frontend/**", "src/config/values.rs"],
            view: View::Code,
            words: &["serde_json", "stdin", "Stdin"],
        },
        bad: &[("src/event_loop.rs", "let text = serde_json::to_string(&x);")],
    },
    Rule {
        why: "only front ends write terminal sequences",
        check: Check::Ban {
            within: &["src/**", "behaviours/*/src/**"],
            except: &["src/frontend.rs", "src/frontend/**"],
            view: View::CodeAndStrings,
            words: &["\\x1b", "\\x1B", "\\u{1b}", "\\u{1B}"],
        },
        bad: &[("src/node.rs", r#"println!("\x1b[1m{name}");"#)],
    },
    Rule {
        why: "front ends and the contract know nothing of libp2p",
        check: Check::Ban {
            within: &["src/frontend.rs", "src/frontend/**", "src/api.rs", "src/handle.rs"],
            except: &[],
            view: View::Code,
            words: &["libp2p"],
        },
        bad: &[("src/frontend/prompt.rs", "use libp2p::PeerId;")],
    },
    Rule {
        why: "a core never reads clock, randomness, disk or swarm: these are its inputs, so that it can be simulated",
        check: Check::Ban {
            within: &["behaviours/*/src/**"],
            except: SHELL_OF_A_BEHAVIOUR,
            view: View::Code,
            words: &[
                "swarm", "libp2p_swarm", "Instant::now", "SystemTime", "rand::rng", "rand::random", "thread_rng", "OsRng",
                "std::fs", "TcpStream", "tokio", "futures_timer", "async", "await",
            ],
        },
        bad: &[
            ("behaviours/direct-message/src/outbox.rs", "let now = Instant::now();"),
            ("behaviours/direct-message/src/inbox.rs", "use libp2p::{PeerId, swarm::ConnectionId};"),
            ("behaviours/peer-exchange/src/links/close.rs", "let x = rand::rng();"),
            ("behaviours/peer-exchange/src/card.rs", "let at = std::time::SystemTime::now();"),
            ("behaviours/peer-exchange/src/exchange.rs", "std::fs::read(path)"),
        ],
    },
    Rule {
        why: "handlers of the event loop never wait: work that waits goes to a worker and returns as a message",
        check: Check::Ban { within: &["src/event_loop/**"], except: &[], view: View::Code, words: &[".await", "block_on"] },
        bad: &[("src/event_loop/peers.rs", "async fn f() { g().await; }")],
    },
    Rule {
        why: "every queue is bounded",
        check: Check::Ban {
            within: &["src/**", "behaviours/*/src/**"],
            except: &[],
            view: View::Code,
            words: &["unbounded_channel", "unbounded", "std::sync::mpsc::channel", "UnboundedSender", "UnboundedReceiver"],
        },
        bad: &[("src/storage.rs", "let (tx, rx) = tokio::sync::mpsc::unbounded_channel();")],
    },
    Rule {
        why: "a test that never runs proves nothing",
        check: Check::Ban {
            within: &["src/**", "behaviours/**", "tests/**"],
            except: &[],
            view: View::CodeAndTests,
            words: &["#[ignore"],
        },
        bad: &[("tests/node/chat.rs", "#[test]\n#[ignore]\nfn f() {}")],
    },
    Rule {
        why: "a front end sees the handle and the contract, nothing behind them",
        check: Check::Imports { within: &["src/frontend.rs", "src/frontend/**"], allowed: &["api", "handle", "frontend"] },
        bad: &[
            ("src/frontend/prompt.rs", "use crate::storage::Storage;"),
            ("src/frontend.rs", "use super::{api::Event, event_loop};"),
            ("src/frontend.rs", "use crate::{\n    api::{Event, Reply},\n    config::Config,\n};"),
        ],
    },
    Rule {
        why: "the handle speaks the contract",
        check: Check::Imports { within: &["src/handle.rs"], allowed: &["api"] },
        bad: &[("src/handle.rs", "use crate::event_loop::EventLoop;")],
    },
    Rule {
        why: "the contract stands alone",
        check: Check::Imports { within: &["src/api.rs"], allowed: &[] },
        bad: &[("src/api.rs", "use crate::config::Config;")],
    },
    Rule {
        why: "the command line only defines itself; `config` gives it meaning",
        check: Check::Imports { within: &["src/cli.rs"], allowed: &[] },
        bad: &[("src/cli.rs", "use crate::config::Config;")],
    },
    Rule {
        why: "the key and the folders are rooms without doors to the network",
        check: Check::Imports { within: &["src/identity.rs", "src/data_dir.rs"], allowed: &["api"] },
        bad: &[("src/identity.rs", "use crate::network;")],
    },
    Rule {
        why: "the settings know what they set, not who reads them",
        check: Check::Imports { within: &["src/config.rs", "src/config/**"], allowed: &["api", "cli", "config", "data_dir"] },
        bad: &[("src/config/table.rs", "use crate::node::Node;")],
    },
    Rule {
        why: "workers know the contract and nobody who asks them",
        check: Check::Imports { within: &["src/storage.rs", "src/storage/**"], allowed: &["api", "storage"] },
        bad: &[("src/storage/peers.rs", "use crate::network::Behaviour;")],
    },
    Rule {
        why: "files know the protocol whose disk they are, and nobody who asks them",
        check: Check::Imports { within: &["src/files.rs", "src/files/**"], allowed: &["api", "files"] },
        bad: &[("src/files/sink.rs", "use crate::event_loop::EventLoop;")],
    },
    Rule {
        why: "the network knows its protocols and settings, not who drives it",
        check: Check::Imports { within: &["src/network.rs", "src/network/**"], allowed: &["api", "config", "network"] },
        bad: &[("src/network/behaviour.rs", "use crate::storage::Storage;")],
    },
    Rule {
        why: "the event loop is driven by front ends and never knows one",
        check: Check::Imports {
            within: &["src/event_loop.rs", "src/event_loop/**"],
            allowed: &["api", "config", "event_loop", "files", "handle", "network", "panics", "storage"],
        },
        bad: &[("src/event_loop/chat.rs", "crate::frontend::render(&event)")],
    },
    Rule {
        why: "the node puts the rooms together and shows itself to nobody but main",
        check: Check::Imports {
            within: &["src/node.rs", "src/node/**"],
            allowed: &["api", "config", "data_dir", "event_loop", "files", "handle", "identity", "network", "node", "storage"],
        },
        bad: &[("src/node.rs", "use crate::frontend;")],
    },
    Rule {
        why: "a behaviour imports no other behaviour and not the node: what crosses protocols crosses in the event loop",
        check: Check::Shape(behaviours_stand_alone),
        bad: &[
            ("behaviours/one/Cargo.toml", "[dependencies]\nother.workspace = true"), ("behaviours/other/Cargo.toml", ""),
            ("behaviours/one/src/a.rs", "use althing::api;"), ("behaviours/other/src/b.rs", "one::Event"),
        ],
    },
    Rule {
        why: "every behaviour has the same shape",
        check: Check::Shape(behaviours_have_one_shape),
        bad: &[("behaviours/one/Cargo.toml", ""), ("behaviours/one/src/lib.rs", "")],
    },
    Rule {
        why: "a lib.rs holds docs, modules and re-exports only",
        check: Check::Shape(lib_is_a_table_of_contents),
        bad: &[("behaviours/one/src/lib.rs", "mod a;\npub use a::{B,\n C};\nfn f() {}")],
    },
    Rule {
        why: "modules are foo.rs and foo/, never mod.rs",
        check: Check::Shape(|tree| tree.keys().filter(|path| path.ends_with("/mod.rs")).cloned().collect()),
        bad: &[("src/frontend/mod.rs", "")],
    },
    Rule {
        why: "a file that is too long to read is split by subject",
        check: Check::Shape(|tree| {
            let sources = tree.iter().filter(|(path, _)| path.ends_with(".rs"));
            let long = sources.map(|(path, text)| (path, text.lines().count())).filter(|(_, lines)| *lines > MAX_LINES);
            long.map(|(path, lines)| format!("{path} has {lines} lines, at most {MAX_LINES}")).collect()
        }),
        bad: &[("src/a.rs", include_str!("../Cargo.lock"))],
    },
];

/// The breaks of one rule, a sentence each.
fn breaks(rule: &Rule, tree: &Tree) -> Vec<String> {
    let files = |within: &'static [&'static str], except: &'static [&'static str]| {
        tree.iter().filter(move |(path, _)| {
            let any = |patterns: &[&str]| patterns.iter().any(|pattern| glob(pattern.as_bytes(), path.as_bytes()));
            path.ends_with(".rs") && any(within) && !any(except)
        })
    };
    match &rule.check {
        Check::Ban { within, except, view, words } => files(within, except)
            .flat_map(|(path, text)| {
                let lines = see(path, text, *view);
                let found = move |line: &str| words.iter().find(|word| holds(line, word)).copied();
                let hits = lines.into_iter().enumerate().filter_map(move |(at, line)| Some((at + 1, found(&line)?)));
                hits.map(move |(line, word)| format!("{path}:{line} names `{word}`"))
            })
            .collect(),
        Check::Imports { within, allowed } => files(within, &[])
            .flat_map(|(path, text)| {
                let rooms = rooms(path, &see(path, text, View::Code).join("\n"));
                let foreign = rooms.into_iter().filter(|room| !allowed.contains(&room.as_str()));
                foreign.map(move |room| format!("{path} reaches into `{room}`"))
            })
            .collect(),
        Check::Shape(check) => check(tree),
    }
}

/// `*` stands for anything within a path's part, `**` for anything.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| glob(rest, &path[at..])),
        [b'*', rest @ ..] => {
            let part = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
            (0..=part).any(|at| glob(rest, &path[at..]))
        }
        [byte, rest @ ..] => path.first() == Some(byte) && glob(rest, &path[1..]),
    }
}

/// Whether a word stands in a line, and not as a part of a longer one.
fn holds(line: &str, word: &str) -> bool {
    let part = |char: Option<char>| char.is_some_and(|char| char.is_alphanumeric() || char == '_');
    let (starts, ends) = (part(word.chars().next()), part(word.chars().next_back()));
    line.match_indices(word).any(|(at, _)| {
        let (before, after) = (line[..at].chars().next_back(), line[at + word.len()..].chars().next());
        !(starts && part(before) || ends && part(after))
    })
}

/// The lines of a file that count, blank where nothing does.
fn see(path: &str, text: &str, view: View) -> Vec<String> {
    let is_test_file = path.ends_with("/tests.rs") || path.contains("/tests/");
    if is_test_file && view != View::CodeAndTests {
        return Vec::new();
    }
    let lines = strip(text, view == View::CodeAndStrings).lines().map(str::to_owned).collect::<Vec<_>>();
    // Test modules come last in a file.
    let tests =
        lines.windows(2).position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim().starts_with("mod "));
    match tests {
        Some(at) if view != View::CodeAndTests => lines[..at].to_vec(),
        _ => lines,
    }
}

/// The text without its comments and, unless they are wanted, what its strings hold. Line breaks stay.
fn strip(text: &str, keep_strings: bool) -> String {
    let chars = text.chars().collect::<Vec<_>>();
    let at = |index: usize| chars.get(index).copied().unwrap_or(' ');
    let mut out = String::new();
    let mut i = 0;
    while i < chars.len() {
        let raw = (at(i) == 'r' && matches!(at(i + 1), '"' | '#') && !at(i.wrapping_sub(1)).is_alphanumeric())
            .then(|| chars[i + 1..].iter().take_while(|&&char| char == '#').count())
            .filter(|hashes| at(i + 1 + hashes) == '"');
        let end = if at(i) == '/' && at(i + 1) == '/' {
            let end = (i..chars.len()).find(|&at| chars[at] == '\n').unwrap_or(chars.len());
            i = end;
            continue;
        } else if at(i) == '/' && at(i + 1) == '*' {
            let end = (i + 2..chars.len())
                .find(|&end| at(end) == '*' && at(end + 1) == '/')
                .map_or(chars.len(), |end| end + 2);
            out.extend(chars[i..end].iter().filter(|&&char| char == '\n'));
            i = end;
            continue;
        } else if let Some(hashes) = raw {
            let closes = |&end: &usize| at(end) == '"' && (1..=hashes).all(|hash| at(end + hash) == '#');
            (i + 2 + hashes..chars.len()).find(closes).map_or(chars.len(), |end| end + 1 + hashes)
        } else if at(i) == '"' {
            let mut end = i + 1;
            while end < chars.len() && chars[end] != '"' {
                end += if chars[end] == '\\' { 2 } else { 1 };
            }
            end + 1
        } else if at(i) == '\'' && (at(i + 2) == '\'' || at(i + 1) == '\\') {
            // A character, and not a lifetime.
            (i + 2..chars.len())
                .find(|&end| chars[end] == '\'' && end > i + 1 + usize::from(at(i + 1) == '\\'))
                .map_or(i + 1, |end| end + 1)
        } else {
            out.push(chars[i]);
            i += 1;
            continue;
        };
        let literal = &chars[i..end.min(chars.len())];
        out.extend(literal.iter().filter(|&&char| keep_strings || char == '\n'));
        i = end;
    }
    out
}

/// The modules of the crate that a file names, through `crate::`, or `super::` in a file that lies at the root.
fn rooms(path: &str, code: &str) -> Vec<String> {
    let roots: &[&str] = if path.matches('/').count() == 1 { &["crate::", "super::"] } else { &["crate::"] };
    let mut rooms = Vec::new();
    for root in roots {
        for (at, _) in code.match_indices(root) {
            let rest = &code[at + root.len()..];
            match rest.strip_prefix('{') {
                Some(list) => rooms.extend(heads(list)),
                None => rooms.push(head(rest)),
            }
        }
    }
    // Macros and items of lib.rs begin with a capital or are none of the rooms.
    rooms.retain(|room| room.chars().next().is_some_and(char::is_lowercase));
    rooms
}

fn head(text: &str) -> String {
    text.trim_start().chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect()
}

/// The first parts of a braced list of imports, up to its closing brace.
fn heads(list: &str) -> Vec<String> {
    let (mut depth, mut heads, mut start) = (0_usize, Vec::new(), 0);
    for (at, char) in list.char_indices() {
        match char {
            '{' => depth += 1,
            '}' if depth == 0 => {
                heads.push(head(&list[start..at]));
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                heads.push(head(&list[start..at]));
                start = at + 1;
            }
            _ => {}
        }
    }
    heads
}

/// The folders below `behaviours/`.
fn behaviours(tree: &Tree) -> Vec<&str> {
    let names = tree.keys().filter_map(|path| path.strip_prefix("behaviours/")?.split_once('/'));
    let mut names = names.map(|(name, _)| name).collect::<Vec<_>>();
    names.dedup();
    names
}

fn behaviours_stand_alone(tree: &Tree) -> Vec<String> {
    let all = behaviours(tree);
    let mut found = Vec::new();
    for name in &all {
        let foreign = all.iter().copied().filter(|other| other != name).chain(["althing"]);
        for other in foreign {
            let word = other.replace('-', "_");
            for (path, text) in tree.iter().filter(|(path, _)| path.starts_with(&format!("behaviours/{name}/"))) {
                let named = match path.rsplit('.').next() {
                    // A local name such as `card` may equal a crate's: only a path or an import counts.
                    Some("rs") => see(path, text, View::CodeAndTests)
                        .iter()
                        .any(|line| holds(line, &format!("{word}::")) && !line.contains(&format!("::{word}::"))),
                    Some("toml") => text.lines().any(|line| {
                        line.strip_prefix(other).is_some_and(|rest| rest.trim_start().starts_with(['=', '.']))
                    }),
                    _ => false,
                };
                if named {
                    found.push(format!("{path} names {other}"));
                }
            }
        }
    }
    found
}

fn behaviours_have_one_shape(tree: &Tree) -> Vec<String> {
    let wanted = |name: &str| {
        let files = ["Cargo.toml", "README.md", "src/lib.rs", "src/behaviour.rs", "src/protocol.rs", "src/config.rs"];
        // What speaks no protocol of its own has nothing to say about one.
        let silent = name == "reputation";
        let files = files.into_iter().filter(|file| !(silent && *file == "src/protocol.rs"));
        let files = files.map(|file| format!("behaviours/{name}/{file}"));
        files.into_iter().chain([format!("behaviours/{name}/tests/{name}.rs")]).collect::<Vec<_>>()
    };
    let files = behaviours(tree).into_iter().flat_map(wanted);
    files.filter(|file| !tree.contains_key(file)).map(|file| format!("{file} is missing")).collect()
}

fn lib_is_a_table_of_contents(tree: &Tree) -> Vec<String> {
    let libs =
        tree.iter().filter(|(path, _)| glob(b"behaviours/*/src/lib.rs", path.as_bytes()) || *path == "src/lib.rs");
    libs.flat_map(|(path, text)| {
        let code = see(path, text, View::Code).join("\n");
        let items = code.split(';').map(without_attributes).filter(|item| !item.is_empty()).collect::<Vec<_>>();
        let allowed = |item: &str| {
            ["mod ", "pub mod ", "pub(crate) mod ", "pub use "].iter().any(|start| item.starts_with(start))
        };
        let foreign = items.into_iter().filter(move |item| !allowed(item));
        foreign
            .map(move |item| format!("{path} holds `{}`", item.lines().next().unwrap_or_default()))
            .collect::<Vec<_>>()
    })
    .collect()
}

/// An item without the attributes in front of it.
fn without_attributes(item: &str) -> String {
    let mut item = item.trim();
    while item.starts_with("#[") || item.starts_with("#![") {
        let Some(end) = item.find(']') else { break };
        // An attribute may hold lists of its own: what is left of it ends with `)]`.
        let end = item.find(")]").map_or(end, |close| if item[..end].contains('(') { close + 1 } else { end });
        item = item[end + 1..].trim_start();
    }
    item.to_owned()
}

/// The project's own files.
fn project() -> io::Result<Tree> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tree = Tree::new();
    let mut folders = vec!["src".to_owned(), "behaviours".to_owned(), "tests".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if [".rs", ".toml", ".md"].iter().any(|end| path.ends_with(end)) {
                let text = fs::read_to_string(root.join(&path))?;
                tree.insert(path, text);
            }
        }
    }
    Ok(tree)
}

fn tree_of(files: &[(&str, &str)]) -> Tree {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn the_house_keeps_its_rules() {
    let tree = project().unwrap();
    let mut found = Vec::new();
    for rule in RULES {
        found.extend(breaks(rule, &tree).into_iter().map(|line| format!("{line}\n    {}", rule.why)));
    }
    assert!(found.is_empty(), "{} walls are broken:\n{}", found.len(), found.join("\n"));
}

#[test]
fn the_whole_project_is_read() {
    let tree = project().unwrap();
    for path in ["src/main.rs", "src/api.rs", "tests/architecture.rs", "behaviours/direct-message/Cargo.toml"] {
        assert!(tree.contains_key(path), "{path}");
    }
    assert!(behaviours(&tree).len() >= 2);
}

#[test]
fn each_rule_fails_on_its_examples() {
    for rule in RULES {
        match rule.check {
            Check::Shape(_) => assert!(!breaks(rule, &tree_of(rule.bad)).is_empty(), "nothing breaks: {}", rule.why),
            _ => {
                for example in rule.bad {
                    assert!(!breaks(rule, &tree_of(&[*example])).is_empty(), "{example:?} keeps: {}", rule.why);
                }
            }
        }
    }
}

#[test]
fn each_banned_word_is_seen() {
    for rule in RULES {
        let Check::Ban { within, words, view, .. } = &rule.check else { continue };
        for word in *words {
            let path = within[0].replace("**", "x.rs").replace('*', "x");
            let text = if *view == View::CodeAndStrings { format!("f(\"{word}\")") } else { format!("f({word})") };
            let found = breaks(rule, &tree_of(&[(path.as_str(), text.as_str())]));
            assert_eq!(found.len(), 1, "{word} in {path}: {}", rule.why);
        }
    }
}

#[test]
fn what_does_not_count_is_not_seen() {
    let quiet = [
        (
            "src/a.rs",
            "// rusqlite\n/* rusqlite\n Swarm */ fn f() { g(\"rusqlite \\\" serde_json\", r#\"Swarm \" stdin\"#, '\"'); }",
        ),
        ("src/b.rs", "fn f() {}\n\n#[cfg(test)]\nmod tests {\n    use rusqlite::Connection;\n}\n"),
        ("src/config/tests.rs", "use serde_json::json;"),
        ("src/c.rs", "struct SwarmLike; // unbounded\nfn f<'a>(x: &'a str) -> &'a str { x }"),
        ("src/storage/x.rs", "use rusqlite::Connection;"),
    ];
    for rule in RULES.iter().filter(|rule| matches!(rule.check, Check::Ban { .. })) {
        assert_eq!(breaks(rule, &tree_of(&quiet)), Vec::<String>::new(), "{}", rule.why);
    }
    // After what looks like a string or a comment the code still counts.
    let loud = [("src/a.rs", "let a = '\"'; rusqlite::f(); // x"), ("src/b.rs", "let a = \"//\"; rusqlite::f();")];
    assert_eq!(breaks(&RULES[1], &tree_of(&loud)), ["src/a.rs:1 names `rusqlite`", "src/b.rs:1 names `rusqlite`"]);
}

#[test]
fn a_table_of_contents_is_recognised() {
    let good = "//! Docs.\n#![doc = include_str!(\"../README.md\")]\n#![warn(a)]\nmod a;\npub mod b;\n#[cfg(test)]\nmod tests;\npub use a::{B,\n    C};\n";
    assert_eq!(lib_is_a_table_of_contents(&tree_of(&[("src/lib.rs", good)])), Vec::<String>::new());
}
