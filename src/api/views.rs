//! What replies hold: peers, messages, seeds, settings, the node itself. Field names are the outward contract.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{millis, optional_millis};

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
    /// 0.0 to 1.0: how well things went with it so far.
    pub reliability: f64,
    /// Last measured round trip, in milliseconds.
    pub rtt_ms: Option<f64>,
    /// Dials that failed since the last link.
    pub failures: u32,
    /// Since when the state is what it is.
    #[serde(serialize_with = "optional_millis")]
    pub since: Option<Timestamp>,
    /// When something was last heard of it directly.
    #[serde(serialize_with = "optional_millis")]
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

/// How a peer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PeerState {
    /// A link stands, and it answers.
    Up,
    /// It missed a probe and has not answered since.
    Suspect,
    /// It missed so many probes that it counts as dead.
    Dead,
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
    /// Receiver's PeerId; `all` for a broadcast.
    pub to: String,
    /// The text, unchanged.
    pub text: String,
    /// The author's clock.
    #[serde(serialize_with = "millis")]
    pub sent_at: Timestamp,
    /// This node's clock when it was stored here.
    #[serde(serialize_with = "millis")]
    pub received_at: Timestamp,
    /// The author's number for it: rises by one per receiver.
    pub seq: u64,
    /// For own messages how far they came, for others' `received`.
    pub state: DeliveryState,
    /// Why it failed, or [`DAMAGED`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl HistoryRow {
    /// Whether this is not what was once stored, so that nothing it says is to be relied upon.
    pub fn is_damaged(&self) -> bool {
        self.reason.as_deref() == Some(DAMAGED)
    }
}

/// The reason of a row that is no longer what was once stored. Its text is empty then.
pub const DAMAGED: &str = "damaged on disk: the text cannot be shown";

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
    #[serde(serialize_with = "millis")]
    pub sent_at: Timestamp,
    /// When it will be given up.
    #[serde(serialize_with = "millis")]
    pub expires_at: Timestamp,
    /// `queued` or `sent` (handed to the network, no receipt yet).
    pub state: DeliveryState,
    /// [`DAMAGED`] or nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageKind {
    /// From one peer to one other.
    Direct,
    /// From one peer to everybody.
    Broadcast,
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
    #[serde(serialize_with = "optional_millis")]
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
