//! What goes into a receiver and what comes out.

use std::time::Duration;

use libp2p::PeerId;

use crate::fault::FaultKind;
use crate::hash::Hash;
use crate::manifest::{Offer, TransferId};
use crate::protocol::{Frame, Refusal};
use crate::record::{Record, Snapshot};
use crate::store::StoreError;

/// Names one request for a span, never used twice in the life of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GetId(pub u64);

/// How a request for a span ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Everything came and was verified.
    Complete,
    /// The sender did not answer with data.
    Refused(Refusal),
    /// That chunk came with another hash than its own.
    Corrupt(u64),
    /// The stream or its connection broke, or none could be had.
    Broken,
    /// No byte came for too long.
    Stalled,
    /// The own disk did not take it.
    Disk(StoreError),
}

/// What may happen to a receiver.
#[derive(Clone, Debug)]
pub enum Input {
    /// The hello of that peer has passed.
    PeerUp {
        /// Who.
        peer: PeerId,
    },
    /// The last link to that peer is gone. Requests to it end by themselves, with or without an [`Input::Ended`].
    PeerDown {
        /// Who.
        peer: PeerId,
    },
    /// An offer, a page or a state came.
    Frame {
        /// From whom.
        peer: PeerId,
        /// What.
        frame: Frame,
    },
    /// Chunks of a span are verified, and remembered by the disk.
    Verified {
        /// Of which request.
        get: GetId,
        /// The number of the first.
        first: u64,
        /// Their hashes.
        hashes: Vec<Hash>,
    },
    /// Bytes of a span came, verified or not.
    Moved {
        /// Of which request.
        get: GetId,
        /// How many since the last time.
        bytes: u64,
        /// The time from the request to its first byte, once.
        waited: Option<Duration>,
    },
    /// A request came to its end. The last thing said about it.
    Ended {
        /// Which.
        get: GetId,
        /// How.
        ending: Ending,
    },
    /// The answer to [`Output::Finish`].
    Finished {
        /// Which.
        id: TransferId,
        /// Where it was put.
        result: Result<String, StoreError>,
    },
}

/// What a receiver wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send that message.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        frame: Frame,
    },
    /// Ask for a span; it lies within [`crate::protocol::MAX_SPAN`].
    Get {
        /// Its name.
        get: GetId,
        /// Whom to ask.
        peer: PeerId,
        /// The list of files, for the lengths of the chunks.
        offer: Offer,
        /// The number of the first chunk.
        first: u64,
        /// How many.
        count: u32,
    },
    /// Give up a request; nothing more is said about it.
    Abort {
        /// Which.
        get: GetId,
    },
    /// Make the final files appear; answered by [`Input::Finished`].
    Finish {
        /// Which.
        id: TransferId,
        /// What was sealed.
        root: Hash,
    },
    /// Remove what there is of it.
    Discard {
        /// Which.
        id: TransferId,
    },
    /// Somebody has to decide.
    Offered(Offer),
    /// Keep the offer.
    Keep(Offer),
    /// Keep the record.
    Save(Record),
    /// Tell people.
    Update(Snapshot),
    /// Nobody remembers it any more.
    Forgotten {
        /// Which.
        id: TransferId,
        /// The sender.
        peer: PeerId,
    },
    /// A peer misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}
