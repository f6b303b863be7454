//! What goes into the core of links and what comes out of it.

use std::time::Instant;

use libp2p::{Multiaddr, PeerId};

use crate::card::SignedCard;
use crate::event::Event;
use crate::fault::FaultKind;

/// A link, numbered in the order of opening. Numbers are not used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What happens to a link, or is wanted here. Inputs for a link that is not known are ignored.
#[derive(Clone, Debug)]
pub enum Input {
    /// A connection stands.
    Opened {
        /// To whom; authenticated by the transport.
        peer: PeerId,
        /// Its number.
        link: LinkId,
        /// Whether we dialled.
        dialled: bool,
        /// The remote's address.
        address: Multiaddr,
    },
    /// A hello came; its card is checked and is the remote's own.
    Hello {
        /// From whom.
        peer: PeerId,
        /// On which link.
        link: LinkId,
        /// The card.
        card: SignedCard,
    },
    /// A goodbye came; it is checked and is the remote's own.
    Goodbye {
        /// From whom.
        peer: PeerId,
        /// On which link.
        link: LinkId,
        /// The boot that ends.
        boot: u64,
    },
    /// The remote does not take our hello because it remembers a later boot of us. It has said hello itself.
    Refused {
        /// Who.
        peer: PeerId,
        /// On which link.
        link: LinkId,
        /// The boot it remembers.
        boot: u64,
    },
    /// The remote does not speak the protocol.
    Foreign {
        /// Who.
        peer: PeerId,
        /// On which link.
        link: LinkId,
    },
    /// The link is of no use any more and is to be closed.
    Failed {
        /// To whom.
        peer: PeerId,
        /// Which link.
        link: LinkId,
        /// Why, for people.
        reason: String,
    },
    /// Several links to that peer are wanted, so that none is closed as a duplicate. A later time replaces an earlier one.
    KeepSecond {
        /// Whose.
        peer: PeerId,
        /// How long.
        until: Instant,
    },
    /// The connection is gone.
    Closed {
        /// To whom.
        peer: PeerId,
        /// Which link.
        link: LinkId,
        /// Why, for people.
        cause: String,
    },
    /// Rule 5 for one peer.
    Disconnect {
        /// Who.
        peer: PeerId,
    },
    /// Rule 5 for every peer, for good: links opened later are closed at once.
    DisconnectAll,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Tell the event loop. Of the events, only those about links come from here, and `Fault` does not.
    Event(Event),
    /// Close that connection now.
    Close {
        /// To whom.
        peer: PeerId,
        /// Which link.
        link: LinkId,
    },
    /// Say goodbye on that link. `Close` follows unless the remote closes first.
    SayGoodbye {
        /// To whom.
        peer: PeerId,
        /// Which link.
        link: LinkId,
    },
    /// Say on that link that its hello is not taken. `Close` follows unless the remote closes first. Once a link.
    Refuse {
        /// To whom.
        peer: PeerId,
        /// Which link.
        link: LinkId,
        /// The highest boot that is remembered.
        boot: u64,
    },
    /// The remote misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}
