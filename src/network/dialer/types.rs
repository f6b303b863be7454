//! What goes into the dialler and what comes out.

use libp2p::{Multiaddr, PeerId};

use crate::api::Via;

/// Names one dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// A known peer.
    Peer(PeerId),
    /// The mandatory address of that number, whose identity is not known yet.
    Mandatory(usize),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Input {
    /// Somebody was named. A peer that is already known from a better source keeps it.
    Named {
        /// Who.
        peer: PeerId,
        /// Where; at most 16 are kept.
        addresses: Vec<Multiaddr>,
        /// By what kind of source.
        source: Source,
    },
    /// A seed named several at once, which costs one look at everybody and not one each. It fills no more than its share of
    /// the table.
    Listed {
        /// Which seed.
        by: PeerId,
        /// Who and where.
        named: Vec<(PeerId, Vec<Multiaddr>)>,
    },
    /// Dial that peer now if there is no link, once, whatever the fanout says.
    Try(PeerId),
    /// How well things went with a peer, 0 to 1.
    Reliability {
        /// Who.
        peer: PeerId,
        /// The number.
        value: f64,
    },
    /// That peer is a seed, which the fanout does not count: it is dialled only when it is wanted.
    Seed(PeerId),
    /// A seed takes back that it named this peer: unless it is wanted it rests for a while, for others may know better.
    Unnamed {
        /// Who.
        peer: PeerId,
        /// Which seed.
        by: PeerId,
    },
    /// Nobody needs to remember these any more. Who must not be dialled is remembered all the same.
    Forget(Vec<PeerId>),
    /// A link stands and the hello has passed.
    Up {
        /// With whom.
        peer: PeerId,
        /// We dialled it.
        dialled: bool,
        /// A seed: does not count towards the fanout.
        seed: bool,
    },
    /// The dial for a mandatory address led to this peer.
    Identified {
        /// The number of the mandatory address.
        mandatory: usize,
        /// Who answers there.
        peer: PeerId,
    },
    /// The last link is gone.
    Down {
        /// With whom.
        peer: PeerId,
        /// Why.
        how: Down,
    },
    /// A dial failed, or its connection ended before the hello. Ignored for a target that is not being dialled.
    DialFailed(Target),
    /// The node there does not speak our protocols.
    Foreign(PeerId),
    /// Somebody has something for that peer: dial it now and go on until it is up or `Unwanted`.
    Wanted(PeerId),
    /// Nobody has anything for that peer any more.
    Unwanted(PeerId),
    /// Never dial it.
    Blocked(PeerId),
    /// Undo `Blocked`.
    Unblocked(PeerId),
    /// Change how many dialled links are wanted.
    Fanout(usize),
}

/// How the last link to a peer ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Down {
    /// It said goodbye: not dialled again unless it is wanted, mandatory, or named anew.
    Left,
    /// The link broke.
    Lost,
    /// It has restarted, and its dead links were closed: dial at once.
    Reset,
    /// We were told to let go of it: dialled again only when asked.
    Dismissed,
    /// It does not take our hello, nor will it soon: dialled again after a minute or when asked.
    Refused,
}

/// Who named a peer, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// A seed's list.
    Seed,
    /// The LAN.
    Mdns,
    /// Another peer's answer, or an address given by the user.
    Gossip,
    /// The database of an earlier start.
    Remembered,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Dial; answered by [`Input::Up`], [`Input::Foreign`] or [`Input::DialFailed`].
    Dial {
        /// Whom.
        target: Target,
        /// Where.
        addresses: Vec<Multiaddr>,
        /// What `peer_up` will say.
        via: Via,
    },
    /// Too few dialled links and nobody to dial, or enough again. Said at each change.
    Hungry(bool),
}
