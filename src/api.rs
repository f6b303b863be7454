//! What front ends and the event loop say to each other: plain data, no libp2p, no SQLite, no JSON.
//!
//! A front end sends a [`Command`] and gets one [`Reply`] or one [`ApiError`]; what happens afterwards it learns from
//! [`Event`]s, which repeat the id the reply gave. Field names are the outward contract: they are serialised as they stand.
//! Peer ids are base58 strings, times are UTC, a message id is 32 hexadecimal digits.

mod error;
mod event;
mod standing;
mod transfers;
mod views;

use std::path::PathBuf;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

pub use error::{ApiError, ErrorCode};
pub use event::{Event, Stamped};
pub use standing::{ExchangeInfo, FactInfo, Finding, LivenessRow, PingInfo, Severity, WhyInfo};
pub use transfers::{
    Absent, Accept, Direction, FileInfo, SendFiles, SentInfo, SkippedInfo, TransferInfo, TransferState,
};
pub use views::{
    DAMAGED, DeliveryState, HistoryRow, MessageKind, OutboxRow, PeerInfo, PeerState, Role, SeedInfo, SeedState,
    Setting, StatusInfo, Via,
};

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
    /// Send a message to everybody in the network. Replies [`Reply::Said`] once it is on disk.
    Broadcast {
        /// At most [`MAX_TEXT_BYTES`].
        text: String,
    },
    /// Send numbered signs of life to everybody, one after the other. Replies [`Reply::Started`].
    GossipStart {
        /// How many.
        count: u32,
        /// The pause between two.
        every: Duration,
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
    /// Measure the way to a peer with a link now. Replies [`Reply::Ping`].
    Ping {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Dial a peer if it has no link, and measure the way to it. Replies [`Reply::Ping`].
    Health {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// Close every link to a peer and dial it anew. Replies [`Reply::Peer`].
    Reconnect {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// What this node has seen of a peer, and what it makes of it. Replies [`Reply::Why`].
    Why {
        /// See [`Command::SendMessage::to`].
        peer: String,
    },
    /// How alive the neighbours are. Replies [`Reply::Liveness`].
    Liveness,
    /// What works, what does not, and what to do about it. Replies [`Reply::Doctor`].
    Doctor,
    /// How cards are exchanged with the neighbours, after a change if there is one. Replies [`Reply::Exchange`].
    Exchange {
        /// Begin or stop.
        on: Option<bool>,
        /// The pause between two of them.
        every: Option<Duration>,
    },
    /// Offer files and folders to peers. Replies [`Reply::Sending`] once the offer is on disk.
    SendFiles(SendFiles),
    /// Take an incoming offer. Replies [`Reply::Transfer`] once there is room for it.
    Accept {
        /// The transfer, or a beginning of its id that fits no other one.
        id: String,
        /// Where to put it; `None` is the node's download folder.
        folder: Option<PathBuf>,
    },
    /// Refuse an incoming offer. Replies [`Reply::Transfer`].
    Reject {
        /// See [`Command::Accept::id`].
        id: String,
    },
    /// Take the oldest offer that waits for a decision, else the next one that comes. Replies [`Reply::Transfer`] at
    /// once in the first case, else [`Reply::Done`].
    Receive,
    /// Take every offer from now on, or go back to what was before. Replies [`Reply::Setting`].
    ReceiveAuto {
        /// Whether every offer is taken.
        on: bool,
    },
    /// All transfers, or those of one id. Replies [`Reply::Transfers`]; [`Reply::Transfer`] when an id was given and there
    /// is one receiver.
    Transfers {
        /// See [`Command::Accept::id`].
        id: Option<String>,
    },
    /// Hold a transfer until it is resumed here, over restarts. Replies as [`Command::Transfers`] with its id.
    Pause {
        /// See [`Command::Accept::id`].
        id: String,
    },
    /// Go on with a transfer; also tries again at once what waits for its next attempt. Replies as [`Command::Pause`].
    Resume {
        /// See [`Command::Accept::id`].
        id: String,
    },
    /// Give a transfer up. Replies as [`Command::Pause`].
    Cancel {
        /// See [`Command::Accept::id`].
        id: String,
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

impl Command {
    /// The word for a peer, in a command that has one; of several receivers the first that is not looked up yet.
    pub fn peer(&self) -> Option<&str> {
        match self {
            Self::SendMessage { to: peer, .. }
            | Self::Whois { peer }
            | Self::Connect { peer }
            | Self::Disconnect { peer }
            | Self::Block { peer }
            | Self::Unblock { peer }
            | Self::Trust { peer }
            | Self::Ping { peer }
            | Self::Health { peer }
            | Self::Reconnect { peer }
            | Self::Why { peer } => Some(peer),
            Self::History(query) => query.peer.as_deref(),
            Self::SendFiles(send) => send.to.get(send.settled).map(String::as_str),
            Self::Accept { .. }
            | Self::Reject { .. }
            | Self::Receive
            | Self::ReceiveAuto { .. }
            | Self::Transfers { .. }
            | Self::Pause { .. }
            | Self::Resume { .. }
            | Self::Cancel { .. }
            | Self::Liveness
            | Self::Doctor
            | Self::Exchange { .. }
            | Self::Broadcast { .. }
            | Self::GossipStart { .. }
            | Self::Outbox
            | Self::MessageState { .. }
            | Self::Peers
            | Self::Blocked
            | Self::Nick { .. }
            | Self::Team { .. }
            | Self::Seeds
            | Self::Status
            | Self::Config
            | Self::ConfigGet { .. }
            | Self::ConfigSet { .. }
            | Self::Quit => None,
        }
    }

    /// The same command about the peer of that id; one without a peer stays as it is.
    pub fn about(mut self, id: String) -> Self {
        match &mut self {
            Self::SendMessage { to: peer, .. }
            | Self::Whois { peer }
            | Self::Connect { peer }
            | Self::Disconnect { peer }
            | Self::Block { peer }
            | Self::Unblock { peer }
            | Self::Trust { peer }
            | Self::Ping { peer }
            | Self::Health { peer }
            | Self::Reconnect { peer }
            | Self::Why { peer } => *peer = id,
            Self::History(query) if query.peer.is_some() => query.peer = Some(id),
            Self::SendFiles(send) => send.to.get_mut(send.settled).into_iter().for_each(|peer| peer.clone_from(&id)),
            _ => {}
        }
        self
    }
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
    /// A message to everybody is on disk and on its way.
    Said {
        /// Its id.
        id: String,
        /// Neighbours that it was handed to; with none it goes out with the first link.
        neighbours: usize,
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
    /// The way to a peer, just measured.
    Ping(PingInfo),
    /// How alive the neighbours are.
    Liveness(Vec<LivenessRow>),
    /// What is thought of a peer, and why.
    Why(Box<WhyInfo>),
    /// What was found, the worst first.
    Doctor(Vec<Finding>),
    /// The exchange of cards.
    Exchange(ExchangeInfo),
    /// An offer is on its way.
    Sending(SentInfo),
    /// Transfers.
    Transfers(Vec<TransferInfo>),
    /// One transfer.
    Transfer(Box<TransferInfo>),
    /// The seeds.
    Seeds(Vec<SeedInfo>),
    /// The node at a glance.
    Status(Box<StatusInfo>),
    /// Every setting.
    Settings(Vec<Setting>),
    /// One setting.
    Setting(Setting),
}

/// A time as the outward contract has it: RFC 3339, UTC, exactly three digits of a second.
fn millis<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{time:.3}"))
}

/// Like [`millis`]; nothing is `null`.
fn optional_millis<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => millis(time, serializer),
        None => serializer.serialize_none(),
    }
}
