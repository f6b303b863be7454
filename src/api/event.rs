//! What the node tells without being asked. Field names are the outward contract.

use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;

use super::{DeliveryState, Direction, ErrorCode, FileInfo, MessageKind, Role, SeedState, TransferState, Via, millis};

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
    /// A peer said goodbye. A message of its that was on its way to the disk may still come after it.
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
    /// A neighbour missed a probe. It may refute that, or answer the next one, before it is dead.
    PeerSuspect {
        /// PeerId.
        peer: String,
        /// Nickname.
        name: String,
        /// What was missed.
        reason: String,
    },
    /// A suspected or dead peer without a new link gave a sign of life; a link is told as `peer_up`.
    PeerAlive {
        /// PeerId.
        peer: String,
        /// Nickname.
        name: String,
    },
    /// A neighbour missed so many probes that it counts as dead. Comes after a `peer_suspect`, or at a seed after reports.
    PeerDead {
        /// PeerId.
        peer: String,
        /// Nickname.
        name: String,
        /// What was missed.
        reason: String,
        /// On whose word: this node, or at a seed those who reported it.
        reporters: Vec<String>,
    },
    /// A neighbour answered a probe.
    Probe {
        /// PeerId.
        peer: String,
        /// Round trip, in milliseconds.
        rtt_ms: f64,
        /// Its clock minus ours, in milliseconds.
        offset_ms: i64,
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
        #[serde(serialize_with = "millis")]
        sent_at: Timestamp,
        /// The author's number for it.
        seq: u64,
        /// The neighbour that handed it over.
        via: String,
    },
    /// A numbered sign of life arrived.
    Gossip {
        /// Its author's PeerId.
        origin: String,
        /// The neighbour that handed it over.
        via: String,
        /// Its number, as its author counts them.
        count: u32,
        /// The author's clock.
        #[serde(serialize_with = "millis")]
        sent_at: Timestamp,
    },
    /// Broadcasts of one author that nobody has any more.
    Gap {
        /// The author's PeerId.
        from: String,
        /// The author's boot count when it wrote them.
        epoch: u64,
        /// The first missing number.
        first: u64,
        /// The last missing number.
        last: u64,
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
    /// Somebody offers files. What follows from it is told as `transfer`.
    Offer {
        /// The transfer.
        id: String,
        /// The sender's PeerId.
        from: String,
        /// The sender's nickname.
        name: String,
        /// Everything that is offered.
        files: Vec<FileInfo>,
        /// Bytes of all files.
        bytes: u64,
    },
    /// A transfer with one peer changed its state, or bytes moved: then two to ten times a second. `completed` comes when
    /// that is on disk.
    Transfer {
        /// The transfer; the same for all receivers of an offer.
        id: String,
        /// Which way.
        direction: Direction,
        /// The other end's PeerId.
        peer: String,
        /// The other end's nickname.
        name: String,
        /// The file's or folder's name as its sender gave it.
        file: String,
        /// Bytes verified so far, resumed ones included.
        bytes: u64,
        /// Bytes of all files.
        total: u64,
        /// Bytes a second.
        rate: f64,
        /// How it is carried out.
        mode: String,
        /// Where it stands.
        state: TransferState,
        /// Why it is paused, or how it came to an end that is not whole.
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
        /// Where it lies, once completed (at the receiver).
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<String>,
        /// BLAKE3, once the sender has sealed it.
        #[serde(skip_serializing_if = "Option::is_none")]
        hash: Option<String>,
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
    /// Rises by one from event to event of a node; 0 for what a front end says by itself.
    pub n: u64,
    /// When.
    pub at: Timestamp,
    /// What.
    pub event: Arc<Event>,
}
