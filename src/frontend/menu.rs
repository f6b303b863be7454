//! The seed projects' control panel: a numbered list of the usual things, each asking for what it needs.
//!
//! A question is answered by the next line, whoever reads lines, so that the menu works at a prompt, in a script and
//! through a pipe alike. The menu itself does nothing: an answer becomes a command, which the session executes.

use std::fmt::Write as _;

use futures::future::join_all;
use serde_json::{Value, json};

use super::help;
use super::render::safe::{safe, width};
use crate::api::{ApiError, Command, ErrorCode, HistoryQuery, MAX_TEXT_BYTES, PeerInfo, PeerState, Reply, Role};
use crate::handle::Handle;

/// One choice.
struct Item {
    key: &'static str,
    label: &'static str,
    /// The command that does it; the choice is only there when the command is.
    command: &'static str,
    choice: Choice,
}

/// What a choice begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Chat,
    Peers,
    Connect,
    Broadcast,
    Send,
    Remove,
    History,
    Quit,
    Back,
}

/// The choices, in the order of the panel. The numbers are the seed projects' own.
const ITEMS: &[Item] = &[
    Item { key: "1", label: "Start messaging session", command: "chat", choice: Choice::Chat },
    Item { key: "2", label: "View active peers", command: "peers", choice: Choice::Peers },
    Item { key: "3", label: "Connect to peers", command: "connect", choice: Choice::Connect },
    Item { key: "4", label: "Broadcast message", command: "broadcast", choice: Choice::Broadcast },
    Item { key: "5", label: "Send message to friend", command: "msg", choice: Choice::Send },
    Item { key: "6", label: "Remove connected peer", command: "disconnect", choice: Choice::Remove },
    Item { key: "7", label: "View history", command: "history", choice: Choice::History },
    Item { key: "b", label: "Back to the command line", command: "menu", choice: Choice::Back },
    Item { key: "0", label: "Quit application", command: "quit", choice: Choice::Quit },
];

/// Columns between the panel's borders.
const WIDTH: usize = 46;

/// Most peers that are dialled at once by "Connect to peers".
const MAX_DIALS: usize = 32;

/// What an answer comes to.
#[derive(Debug)]
pub(crate) enum Next {
    /// The menu says this.
    Say {
        /// For programs.
        data: Value,
        /// For people.
        text: String,
    },
    /// The node does this; the word is the command's name.
    Node(&'static str, Command),
    /// A chat with this peer begins.
    Chat(String),
    /// This command line is executed.
    Line(String),
    /// The menu closes.
    Close,
}

/// An open menu.
#[derive(Debug, Default)]
pub(crate) struct Menu {
    step: Step,
}

/// What is asked.
#[derive(Debug, Default)]
enum Step {
    #[default]
    Choice,
    ChatWith,
    /// The peer of this name or host is not known.
    ChatAddress(String),
    ConnectTo,
    Text,
    Friend(Vec<PeerInfo>),
    FriendText(Box<PeerInfo>),
    Leaver(Vec<PeerInfo>),
    HistoryOf,
}

impl Menu {
    /// What is asked now: the panel, or a question of one line below the numbered list it may need.
    pub(crate) fn asks(&self) -> String {
        match &self.step {
            Step::Choice => panel(),
            Step::ChatWith => "Whom do you want to talk to? A nickname, a PeerId or an IP address:".to_owned(),
            Step::ChatAddress(peer) => {
                format!("{} is not known yet. The port, or the whole address (host:port or a multiaddr):", safe(peer))
            }
            Step::ConnectTo => {
                "Which address (host:port or a multiaddr)? `all` connects to everybody known:".to_owned()
            }
            Step::Text => "What do you want to say to everybody?".to_owned(),
            Step::Friend(peers) => format!("{}Which friend? A number or a nickname:", numbered(peers)),
            Step::FriendText(peer) => format!("What do you want to say to {}?", safe(label(peer))),
            Step::Leaver(peers) => format!("{}Which peer shall go? A number or a nickname:", numbered(peers)),
            Step::HistoryOf => "Whose messages? A nickname, or `all`:".to_owned(),
        }
    }

    /// The choices for programs.
    pub(crate) fn data() -> Value {
        items().map(|item| json!({ "key": item.key, "label": item.label })).collect()
    }

    /// Take a line. After an error the same question, or the panel, is asked again; an empty line goes back to the panel.
    ///
    /// # Errors
    ///
    /// One sentence that says what would be right.
    pub(crate) async fn answer(&mut self, line: &str, handle: &Handle) -> Result<Next, ApiError> {
        let word = line.trim();
        let step = std::mem::take(&mut self.step);
        if word.is_empty() {
            return Ok(said(String::new()));
        }
        match step {
            Step::Choice => self.choose(word, handle).await,
            Step::ChatWith => match handle.execute(Command::Whois { peer: word.to_owned() }).await {
                Ok(Reply::Peer(peer)) => Ok(Next::Chat(peer.peer)),
                Err(error) if matches!(error.code, ErrorCode::AmbiguousPeer | ErrorCode::Stopping) => Err(error),
                Ok(_) | Err(_) => {
                    self.step = Step::ChatAddress(word.to_owned());
                    Ok(said(String::new()))
                }
            },
            Step::ChatAddress(peer) => {
                let port = word.parse::<u16>().ok().filter(|port| *port != 0);
                let address = match port {
                    Some(port) if peer.contains(':') && !peer.starts_with('[') => format!("[{peer}]:{port}"),
                    Some(port) => format!("{peer}:{port}"),
                    None => word.to_owned(),
                };
                match handle.execute(Command::Connect { peer: address }).await? {
                    Reply::Peer(peer) => Ok(Next::Chat(peer.peer)),
                    _ => Err(ApiError::new(ErrorCode::General, "the node gave no peer")),
                }
            }
            Step::ConnectTo if word == "all" => connect_all(handle).await,
            Step::ConnectTo => {
                // As with the command, host and port may be two words.
                let address = word.split_whitespace().collect::<Vec<_>>().join(":");
                Ok(Next::Node("connect", Command::Connect { peer: address }))
            }
            // As one JSON string, so that any text arrives as it stands.
            Step::Text => Ok(Next::Line(format!("broadcast {}", Value::from(line)))),
            Step::Friend(peers) => {
                self.step = Step::FriendText(Box::new(pick(word, peers, handle).await?));
                Ok(said(String::new()))
            }
            Step::FriendText(_) if line.len() > MAX_TEXT_BYTES => {
                Err(ApiError::new(ErrorCode::Usage, format!("a message holds at most {MAX_TEXT_BYTES} bytes")))
            }
            Step::FriendText(peer) => {
                Ok(Next::Node("msg", Command::SendMessage { to: peer.peer, text: line.to_owned() }))
            }
            Step::Leaver(peers) => {
                let peer = pick(word, peers, handle).await?.peer;
                Ok(Next::Node("disconnect", Command::Disconnect { peer }))
            }
            Step::HistoryOf => {
                let peer = (word != "all").then(|| word.to_owned());
                Ok(Next::Node("history", Command::History(HistoryQuery { peer, ..HistoryQuery::default() })))
            }
        }
    }

    async fn choose(&mut self, word: &str, handle: &Handle) -> Result<Next, ApiError> {
        if word == "exit" {
            return Ok(Next::Close);
        }
        let Some(item) = items().find(|item| item.key.eq_ignore_ascii_case(word)) else {
            let keys: Vec<&str> = items().map(|item| item.key).collect();
            let shown: String = safe(word).chars().take(40).collect();
            let why = format!("there is no choice '{shown}' in the menu; choose one of {}", keys.join(", "));
            return Err(ApiError::new(ErrorCode::Usage, why));
        };
        self.step = match item.choice {
            Choice::Chat => Step::ChatWith,
            Choice::Peers => return Ok(Next::Node("peers", Command::Peers)),
            Choice::Connect => Step::ConnectTo,
            Choice::Broadcast => Step::Text,
            Choice::Send => match known(handle, |_| true).await? {
                peers if peers.is_empty() => {
                    return Ok(said("Nobody is known yet; 3 connects to somebody.".to_owned()));
                }
                peers => Step::Friend(peers),
            },
            Choice::Remove => match known(handle, |peer| peer.state == PeerState::Up).await? {
                peers if peers.is_empty() => return Ok(said("No peer is connected.".to_owned())),
                peers => Step::Leaver(peers),
            },
            Choice::History => Step::HistoryOf,
            Choice::Quit => return Ok(Next::Node("quit", Command::Quit)),
            Choice::Back => return Ok(Next::Close),
        };
        Ok(said(String::new()))
    }
}

fn said(text: String) -> Next {
    let data = if text.is_empty() { json!({}) } else { json!({ "text": text }) };
    Next::Say { data, text }
}

/// The choices whose commands exist.
fn items() -> impl Iterator<Item = &'static Item> {
    ITEMS.iter().filter(|item| help::resolve(item.command).is_some())
}

/// The panel.
fn panel() -> String {
    let border = "=".repeat(WIDTH);
    let row = |text: &str| format!("|{text}{}|\n", " ".repeat(WIDTH.saturating_sub(width(text))));
    let title = "Network Control Panel";
    let mut out = format!("+{border}+\n");
    out.push_str(&row(&format!("{}{title}", " ".repeat((WIDTH - title.len()) / 2))));
    let _ = writeln!(out, "+{border}+");
    for item in items() {
        out.push_str(&row(&format!("  {}  {}", item.key, item.label)));
    }
    let _ = write!(out, "+{border}+\nYour choice:");
    out
}

/// Peers that a person can mean: no seeds, nobody blocked; those with a link first.
async fn known(handle: &Handle, wanted: impl Fn(&PeerInfo) -> bool) -> Result<Vec<PeerInfo>, ApiError> {
    let Reply::Peers(mut peers) = handle.execute(Command::Peers).await? else {
        return Err(ApiError::new(ErrorCode::General, "the node gave no peers"));
    };
    peers.retain(|peer| peer.role == Role::Peer && !peer.blocked && wanted(peer));
    peers.sort_by_key(|peer| peer.state != PeerState::Up);
    Ok(peers)
}

/// The peer of that number, else of that name.
async fn pick(word: &str, mut peers: Vec<PeerInfo>, handle: &Handle) -> Result<PeerInfo, ApiError> {
    if let Ok(number) = word.parse::<usize>() {
        if (1..=peers.len()).contains(&number) {
            return Ok(peers.swap_remove(number - 1));
        }
        let why = format!("there is no peer number {number}; the list has 1 to {}", peers.len());
        return Err(ApiError::new(ErrorCode::Usage, why));
    }
    match handle.execute(Command::Whois { peer: word.to_owned() }).await? {
        Reply::Peer(peer) => Ok(*peer),
        _ => Err(ApiError::new(ErrorCode::General, "the node gave no peer")),
    }
}

/// Dial everybody known who has no link.
async fn connect_all(handle: &Handle) -> Result<Next, ApiError> {
    let mut peers = known(handle, |peer| peer.state != PeerState::Up).await?;
    let left = peers.len().saturating_sub(MAX_DIALS);
    peers.truncate(MAX_DIALS);
    if peers.is_empty() {
        return Ok(said("Everybody known is connected already.".to_owned()));
    }
    let dials = peers.iter().map(|peer| handle.execute(Command::Connect { peer: peer.peer.clone() }));
    let dialled = join_all(dials).await;
    let mut text = String::new();
    for (peer, result) in peers.iter().zip(&dialled) {
        let _ = match result {
            Ok(_) => writeln!(text, "{}: connected", safe(label(peer))),
            Err(error) => writeln!(text, "{}: {}", safe(label(peer)), safe(&error.message)),
        };
    }
    if left > 0 {
        let _ = writeln!(text, "({left} more were not tried; choose this again)");
    }
    let connected = dialled.iter().filter(|result| result.is_ok()).count();
    let data = json!({ "connected": connected, "failed": dialled.len() - connected, "left": left });
    Ok(Next::Say { data, text: text.trim_end().to_owned() })
}

fn label(peer: &PeerInfo) -> &str {
    if peer.name.is_empty() { &peer.peer } else { &peer.name }
}

/// The peers with numbers from 1, one a line, each line ended.
fn numbered(peers: &[PeerInfo]) -> String {
    let mut out = String::new();
    for (number, peer) in peers.iter().enumerate() {
        let state = if peer.state == PeerState::Up { "connected" } else { "not connected" };
        let address = peer.address.as_deref().unwrap_or("no address");
        let _ = writeln!(out, "  {}  {} ({state}, {})", number + 1, safe(label(peer)), safe(address));
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_panel_is_a_box_of_the_choices_that_exist() {
        let panel = panel();
        let widths: BTreeSet<usize> = panel.lines().filter(|line| line.starts_with(['+', '|'])).map(width).collect();
        assert_eq!(widths.len(), 1, "{panel}");
        for item in ITEMS {
            let there = help::resolve(item.command).is_some();
            assert_eq!(panel.contains(item.label), there, "{}", item.label);
        }
        assert!(panel.contains("Network Control Panel"));
        assert_eq!(ITEMS.iter().map(|item| item.key).collect::<BTreeSet<_>>().len(), ITEMS.len());
    }
}
