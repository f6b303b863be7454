//! What the behaviour tells the event loop.

use libp2p::{Multiaddr, PeerId};

use crate::card::SignedCard;
use crate::exchange::{AskToken, LookupId};
use crate::fault::FaultKind;
use crate::protocol::Subject;

/// Something that happened. For one peer the order is always `Up`, any number of `Updated`, then one `Left` or one
/// `Lost`, and from the beginning again.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// A link to a peer stands and its card was checked.
    Up {
        /// Who.
        peer: PeerId,
        /// Its card.
        card: SignedCard,
        /// Whether we dialled the link.
        dialled: bool,
        /// The remote's address on that link.
        address: Multiaddr,
    },
    /// A peer that is up has a newer card. Also comes right before a `Lost` with `reset`, with the new addresses.
    Updated {
        /// Who.
        peer: PeerId,
        /// Its newer card.
        card: SignedCard,
    },
    /// A peer said goodbye and its links are closed.
    Left {
        /// Who.
        peer: PeerId,
    },
    /// The last link to a peer is gone without a goodbye of its own. This is no death.
    Lost {
        /// Who.
        peer: PeerId,
        /// What ended the link, for people. After a local [`crate::Behaviour::disconnect`]: `disconnected here`.
        reason: String,
        /// All links were closed on purpose because the peer had restarted while an old link still stood, which other
        /// protocols do not survive. Dial it again at once.
        reset: bool,
    },
    /// A peer says that it does not take our hello, because it remembers a later boot of this identity. It may lie: tell
    /// the user, and leave that peer alone for a while, no more. At most once a link; `Lost` follows when it was up.
    Refused {
        /// Who.
        peer: PeerId,
        /// The highest boot of this identity that it remembers.
        boot: u64,
    },
    /// A peer does not speak this protocol. Its link is no longer kept open. Once for a peer while it has links.
    Foreign {
        /// Who.
        peer: PeerId,
    },
    /// A neighbour asks for cards. Answer at once with [`crate::Behaviour::answer`], also when none is known.
    Asked {
        /// Which question is answered.
        token: AskToken,
        /// Who asks; perhaps on behalf of another.
        from: PeerId,
        /// Whose card is wanted.
        subject: Subject,
    },
    /// The end of a lookup. Comes exactly once for each.
    Found {
        /// Which lookup.
        id: LookupId,
        /// The newest card of each peer that fits, in the order of their PeerIds.
        cards: Vec<SignedCard>,
    },
    /// A remote misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
    /// After [`crate::Behaviour::shutdown`]: every goodbye is said and every link is closed, or the time for it is
    /// over. Comes once.
    Quiet,
}
