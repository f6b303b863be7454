//! What front ends and the event loop say to each other: plain data, no libp2p, no SQLite, no JSON.
//!
//! A front end sends a [`Command`] and gets one [`Reply`] or one [`ApiError`]; what happens afterwards it learns from
//! [`Event`]s, which repeat the id the reply gave. Field names are the outward contract: they are serialised as they stand.
//! Peer ids are base58 strings, times are UTC, a message id is 32 hexadecimal digits.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Longest text of a message, in bytes of UTF-8.
pub const MAX_TEXT_BYTES: usize = 64 * 1024;

/// What a person or a script asks of the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Command {
    /// Send a direct message. Replies [`Reply::Started`] once it is in the durable outbox.
    SendMessage {
        /// Nickname, PeerId or unique prefix of one, multiaddr, or `host:port`.
        to: String,
        /// At most [`MAX_TEXT_BYTES`].
        text: String,
    },
    /// Stored messages in order. Replies [`Reply::History`].
    History(HistoryQuery),
    /// Messages that were not yet delivered. Replies [`Reply::Outbox`].
    Outbox,
    /// The delivery state of one sent message. Replies [`Reply::Delivery`].
    MessageState {
        /// The id that [`Reply::Started`] gave.
        id: String,
    },
    /// Everybody known. Replies [`Reply::Peers`].
    Peers,
    /// One peer in full. Replies [`Reply::Peer`]. Looked up in the network when it is not known here.
    Whois {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Dial and wait for the hello. Replies [`Reply::Peer`].
    Connect {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Say goodbye to one peer and close its links. Replies [`Reply::Peer`].
    Disconnect {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Refuse every link and message of a peer; kept over restarts. Replies [`Reply::Peer`].
    Block {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Undo [`Command::Block`]. Replies [`Reply::Peer`].
    Unblock {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Those who are blocked. Replies [`Reply::Peers`].
    Blocked,
    /// Mark a peer as trusted; kept over restarts. Replies [`Reply::Peer`].
    Trust {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Change the own nickname. Replies [`Reply::Setting`].
    Nick {
        /// The new nickname.
        name: String,
    },
    /// Change the own team label. Replies [`Reply::Setting`].
    Team {
        /// The new label.
        team: String,
    },
    /// The configured seeds and how they stand. Replies [`Reply::Seeds`].
    Seeds,
    /// The node at a glance. Replies [`Reply::Status`].
    Status,
    /// Every setting with its origin. Replies [`Reply::Settings`].
    Config,
    /// One setting. Replies [`Reply::Setting`].
    ConfigGet {
        /// The flag's name without dashes, for example `fanout`.
        key: String,
    },
    /// Change a setting of the running node. Replies [`Reply::Setting`].
    ConfigSet {
        /// The flag's name without dashes.
        key: String,
        /// The new value as it would stand behind the flag.
        value: String,
    },
    /// Say goodbye to everybody and stop. Replies [`Reply::Done`].
    Quit,
}

/// Which part of the history is wanted. The default is the last 20 messages with everybody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HistoryQuery {
    /// Only messages to or from this peer; `None` is everybody.
    pub peer: Option<String>,
    /// At most so many, the latest ones.
    pub limit: usize,
    /// Only messages that hold these words.
    pub search: Option<String>,
    /// Only messages received or sent at or after this time.
    pub since: Option<Timestamp>,
}

impl Default for HistoryQuery {
    fn default() -> Self {
        Self { peer: None, limit: 20, search: None, since: None }
    }
}

/// The answer to a [`Command`] that succeeded.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Reply {
    /// Nothing more to say.
    Done {},
    /// Something began; its events repeat the id.
    Started {
        /// The id of what began.
        id: String,
    },
    /// A list of peers.
    Peers(Vec<PeerInfo>),
    /// One peer.
    Peer(Box<PeerInfo>),
    /// Stored messages, oldest first.
    History(Vec<HistoryRow>),
    /// Messages that wait.
    Outbox(Vec<OutboxRow>),
    /// How far one message has come.
    Delivery {
        /// The message.
        id: String,
        /// Where it stands.
        state: DeliveryState,
    },
    /// The seeds.
    Seeds(Vec<SeedInfo>),
    /// The node at a glance.
    Status(Box<StatusInfo>),
    /// Every setting.
    Settings(Vec<Setting>),
    /// One setting.
    Setting(Setting),
}

/// One peer as `peers` and `whois` show it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PeerInfo {
    /// PeerId.
    pub peer: String,
    /// Nickname; empty when no card was seen yet.
    pub name: String,
    /// Team label; empty when no card was seen yet.
    pub team: String,
    /// What it runs as.
    pub role: Role,
    /// The address of the present link, else the one to dial first.
    pub address: Option<String>,
    /// Every address known.
    pub addresses: Vec<String>,
    /// Whether a link stands.
    pub state: PeerState,
    /// How the present link came about.
    pub via: Option<Via>,
    /// Last measured round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Dials that failed since the last link.
    pub failures: u32,
    /// Since when the state is what it is.
    pub since: Option<Timestamp>,
    /// When something was last heard of it directly.
    pub last_seen: Option<Timestamp>,
    /// Named by `--peer`.
    pub mandatory: bool,
    /// On the block list.
    pub blocked: bool,
    /// On the trust list.
    pub trusted: bool,
    /// How often that node has started.
    pub boot: u64,
    /// The program and version it runs; empty when no card was seen yet.
    pub version: String,
}

/// What a node runs as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A peer: finds others through seeds and talks.
    #[default]
    Peer,
    /// A seed: keeps the list of peers for newcomers.
    Seed,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Peer => "peer",
            Self::Seed => "seed",
        })
    }
}

/// Whether a link to a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A link stands.
    Up,
    /// It said goodbye.
    Left,
    /// No link now, and nothing else is proven.
    Known,
}

/// How a link came about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// A seed named the peer and we dialled.
    Seed,
    /// The LAN discovery named the peer and we dialled.
    Mdns,
    /// We dialled because we were asked to, or because we remembered it.
    Dial,
    /// The peer dialled us.
    Inbound,
    /// Another peer named it and we dialled.
    Gossip,
}

/// One row of the history.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct HistoryRow {
    /// Message id.
    pub id: String,
    /// Direct or broadcast.
    pub kind: MessageKind,
    /// Author's PeerId.
    pub from: String,
    /// Author's nickname when the message was written.
    pub name: String,
    /// Author's team label when the message was written.
    pub team: String,
    /// Receiver's PeerId.
    pub to: String,
    /// The text, unchanged.
    pub text: String,
    /// The author's clock.
    pub sent_at: Timestamp,
    /// This node's clock when it was stored here.
    pub received_at: Timestamp,
    /// The author's number for it: rises by one per receiver.
    pub seq: u64,
    /// For own messages how far they came, for others' `received`.
    pub state: DeliveryState,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// One message that waits.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct OutboxRow {
    /// Message id.
    pub id: String,
    /// Receiver's PeerId.
    pub to: String,
    /// Receiver's nickname.
    pub name: String,
    /// The text.
    pub text: String,
    /// When it was written.
    pub sent_at: Timestamp,
    /// When it will be given up.
    pub expires_at: Timestamp,
    /// `queued` or `sent` (handed to the network, no receipt yet).
    pub state: DeliveryState,
}

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// From one peer to one other.
    Direct,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DeliveryState {
    /// On this node's disk, waiting for its receiver.
    Queued,
    /// Handed to a link; no receipt yet.
    Sent,
    /// On the receiver's disk.
    Delivered,
    /// Given up: expired or refused.
    Failed,
    /// Somebody else's message, stored here.
    Received,
}

/// One configured seed.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SeedInfo {
    /// As configured.
    pub address: String,
    /// Its identity, configured or learnt.
    pub peer_id: Option<String>,
    /// How it stands; `None` when it was not picked.
    pub state: Option<SeedState>,
    /// How many peers it named last.
    pub peers: usize,
    /// When the registration runs out.
    pub expires_at: Option<Timestamp>,
}

/// How a seed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SeedState {
    /// A live registration is held there.
    Registered,
    /// It does not answer.
    Unreachable,
    /// It answers, but refuses, or it is not who it was.
    Refused,
}

/// The node at a glance.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StatusInfo {
    /// Own PeerId.
    pub peer_id: String,
    /// Own nickname.
    pub name: String,
    /// Own team label.
    pub team: String,
    /// What it runs as.
    pub role: Role,
    /// Program version.
    pub version: String,
    /// How often this node has started.
    pub boot: u64,
    /// Everything of this node.
    pub data_dir: String,
    /// Seconds since start.
    pub uptime_s: u64,
    /// Own addresses, whole.
    pub addresses: Vec<String>,
    /// Peers with a link.
    pub peers_up: usize,
    /// Peers known.
    pub peers_known: usize,
    /// Links that stand (a peer may have more than one for a moment).
    pub links: usize,
    /// Seeds with a live registration, and how many are wanted.
    pub seeds_registered: usize,
    /// Registrations wanted: floor(n/2)+1 of n seeds.
    pub seeds_wanted: usize,
    /// Registrations that this seed holds for others (seeds only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registrations: Option<usize>,
    /// Messages that wait for a receipt.
    pub outbox: u64,
    /// Messages stored.
    pub history: u64,
    /// Invalid input that peers have sent, counted by kind.
    pub faults: Vec<(String, u64)>,
    /// Tasks that panicked and were survived.
    pub panics: u64,
}

/// One setting with its origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    /// The flag's name.
    pub key: String,
    /// Its value as it would stand behind the flag; several are joined by a comma.
    pub value: String,
    /// `flag`, the variable's name, `file`, `default`, or `set` when it was changed while running.
    pub origin: String,
}

/// Something that happened. Cheap to clone through [`Stamped`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Event {
    /// The first event of a node.
    Ready {
        /// Own PeerId.
        peer_id: String,
        /// Own nickname.
        name: String,
        /// Own team label.
        team: String,
        /// What it runs as.
        role: Role,
        /// Everything of this node.
        data_dir: String,
        /// Program version.
        version: String,
    },
    /// A new own address.
    Listening {
        /// Whole, with `/p2p/…`.
        address: String,
    },
    /// A configured seed changed its state.
    Seed {
        /// As configured.
        address: String,
        /// Its identity once known.
        #[serde(skip_serializing_if = "Option::is_none")]
        peer_id: Option<String>,
        /// The new state.
        state: SeedState,
        /// How many peers it named.
        peers: usize,
    },
    /// A link to a peer stands and its card was checked. Comes before any of its messages.
    PeerUp {
        /// PeerId.
        peer: String,
        /// Nickname.
        name: String,
        /// Team label.
        team: String,
        /// Address of the link.
        address: String,
        /// How it came about.
        via: Via,
    },
    /// A peer said goodbye. Comes after the last of its messages.
    PeerLeft {
        /// PeerId.
        peer: String,
        /// Nickname.
        name: String,
    },
    /// The last link to a peer is gone without a goodbye. This is no death.
    PeerLost {
        /// PeerId.
        peer: String,
        /// Nickname.
        name: String,
        /// What ended the link.
        reason: String,
    },
    /// A message arrived and is on disk.
    Message {
        /// Message id.
        id: String,
        /// What kind.
        kind: MessageKind,
        /// Author's PeerId.
        from: String,
        /// Author's nickname.
        name: String,
        /// Author's team label.
        team: String,
        /// The text, unchanged.
        text: String,
        /// The author's clock.
        sent_at: Timestamp,
        /// The author's number for it.
        seq: u64,
        /// The neighbour that handed it over.
        via: String,
    },
    /// An own message has come further. In order for one message: queued, sent, then delivered or failed; back to
    /// queued when a link broke.
    Delivery {
        /// Message id.
        id: String,
        /// Receiver's PeerId.
        to: String,
        /// Where it stands.
        state: DeliveryState,
        /// Why it failed or went back.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// This reader was too slow; history and lists have what it missed.
    Lagged {
        /// How many events it missed.
        missed: u64,
    },
    /// Something went wrong that no command asked for.
    Error {
        /// What kind.
        code: ErrorCode,
        /// One sentence.
        message: String,
    },
    /// The last event of a node.
    Bye {
        /// Why it stops.
        reason: String,
    },
}

/// An [`Event`] with the time it happened.
#[derive(Clone, Debug, PartialEq)]
pub struct Stamped {
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Arc<Event>,
}

/// Why a command failed. Nothing has changed when a command fails, unless the code's text says otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiError {
    /// What kind.
    pub code: ErrorCode,
    /// One sentence that says what is wrong and what would be right.
    pub message: String,
}

impl ApiError {
    /// An error of that kind with that sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// The kinds of error, each with the exit status of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// Anything without a code of its own.
    General,
    /// The command line, an argument or a value is wrong.
    Usage,
    /// No such command. Same status as [`ErrorCode::Usage`].
    UnknownCommand,
    /// Nobody of that name is known.
    NoSuchPeer,
    /// Several peers go by that name; the message lists them.
    AmbiguousPeer,
    /// The peer is known but cannot be reached.
    Unreachable,
    /// No node runs on this data dir.
    NotRunning,
    /// The message was stored and waits; nobody has it yet.
    OnlyQueued,
    /// No answer in time.
    Timeout,
    /// `wait` ran out, or `expect` is false.
    ConditionFalse,
    /// A file, certificate or key does not check out.
    Integrity,
    /// The peer refused.
    Refused,
    /// Another node runs on this data dir.
    DataDirInUse,
    /// The node has too much to do or no room on disk; nothing was stored.
    Storage,
    /// The node is stopping.
    Stopping,
}

impl ErrorCode {
    /// The exit status of the contract, section 1.
    pub fn exit_status(self) -> u8 {
        match self {
            Self::General | Self::Storage | Self::Stopping => 1,
            Self::Usage | Self::UnknownCommand => 2,
            Self::NoSuchPeer | Self::AmbiguousPeer | Self::Unreachable | Self::NotRunning | Self::OnlyQueued => 3,
            Self::Timeout => 4,
            Self::ConditionFalse => 5,
            Self::Integrity => 6,
            Self::Refused => 7,
            Self::DataDirInUse => 10,
        }
    }
}
