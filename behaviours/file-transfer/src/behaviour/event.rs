//! What the application hears.

use libp2p::PeerId;
use libp2p::swarm::ConnectionId;

use crate::fault::FaultKind;
use crate::manifest::{Offer, TransferId};
use crate::record::{Record, Snapshot};

/// What the application hears.
///
/// Of one transfer in this order: `Keep`, then for each receiver `Save` whenever its record changed, directly before the
/// `Update` that shows the change. `Offered` comes once, after the `Keep`; not again for a restored transfer.
#[derive(Clone, Debug)]
pub enum Event {
    /// Somebody offers files. All names and sizes are there and were checked as far as [`Entry::path`] says. Answer with
    /// [`Behaviour::accept`] or [`Behaviour::reject`], whenever.
    ///
    /// [`Entry::path`]: crate::Entry::path
    /// [`Behaviour::accept`]: crate::Behaviour::accept
    /// [`Behaviour::reject`]: crate::Behaviour::reject
    Offered(Offer),
    /// The state of a transfer changed, or bytes moved: then at most one each [`crate::Config::progress_interval`].
    Update(Snapshot),
    /// Keep this on disk with the transfer, and hand it to [`crate::Behaviour::restore`] at the next start. Once.
    Keep(Offer),
    /// Keep this record on disk in place of an earlier one of the same transfer, direction and peer.
    Save(Record),
    /// The transfer was forgotten here, and may be on disk: nobody will get an answer about it any more.
    Forgotten {
        /// Which.
        id: TransferId,
        /// The other end.
        peer: PeerId,
    },
    /// A transfer would gain from a second connection to that peer: dial it, with `PeerCondition::Always`. At most once
    /// in 30 s for a peer; nothing need be answered.
    WantBulk {
        /// To whom.
        peer: PeerId,
    },
    /// That connection is not the first one to its peer, we had wanted it, and no transfer uses it: it may be closed.
    BulkIdle {
        /// To whom.
        peer: PeerId,
        /// Which.
        connection: ConnectionId,
    },
    /// A peer misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}
