//! What is known of one peer and its links.

use std::collections::BTreeMap;
use std::time::Instant;

use libp2p::Multiaddr;

use super::{LinkId, UPDATE_BURST, UPDATE_RATE};
use crate::bucket::Bucket;
use crate::card::SignedCard;

/// One peer in one session.
pub(super) struct Peer {
    /// Never empty between two inputs.
    pub(super) links: BTreeMap<LinkId, Link>,
    /// The link that began the session.
    pub(super) first: LinkId,
    /// The boot that the session began with, once known; 0 when it will never be known.
    pub(super) met: Option<u64>,
    /// The newest card of the present period of being up.
    pub(super) up: Option<SignedCard>,
    /// How that period is about to end, once the links that were told to close are gone.
    pub(super) ending: Option<Ending>,
    /// What ended the latest link.
    pub(super) reason: String,
    /// Since when several links live.
    pub(super) several_since: Option<Instant>,
    /// Until then several links are wanted.
    pub(super) several_until: Option<Instant>,
    /// Bounds how often its card changes.
    pub(super) updates: Bucket,
    /// Whether it was reported as foreign.
    pub(super) foreign: bool,
}

/// How a period of being up is about to end.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Goodbye,
    Here,
    Reset,
}

/// One link.
pub(super) struct Link {
    pub(super) dialled: bool,
    pub(super) address: Multiaddr,
    pub(super) state: State,
    pub(super) greeted: Option<Greeted>,
    /// A goodbye for this boot came on another link before the hello came on this one.
    pub(super) ended: Option<u64>,
}

/// What the hello on a link said, and when.
#[derive(Clone, Copy)]
pub(super) struct Greeted {
    pub(super) boot: u64,
    /// Counts hellos: the highest is the newest.
    pub(super) order: u64,
}

/// Where in its life a link is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// No hello yet.
    Waiting { until: Instant },
    /// Usable.
    Live,
    /// We said goodbye, or that we refuse it; the remote should close.
    Leaving { until: Instant },
    /// We closed it and wait for that to be done.
    Closing { until: Instant },
    /// Closing did not come to an end. Nothing is expected of this link any more.
    Stuck,
    /// The remote does not speak the protocol.
    Foreign,
}

impl Peer {
    pub(super) fn new(first: LinkId, now: Instant) -> Self {
        Self {
            links: BTreeMap::new(),
            first,
            met: None,
            up: None,
            ending: None,
            reason: String::new(),
            several_since: None,
            several_until: None,
            updates: Bucket::new(UPDATE_RATE, UPDATE_BURST, now),
            foreign: false,
        }
    }

    pub(super) fn live(&self) -> impl Iterator<Item = (LinkId, Greeted)> {
        let live = self.links.iter().filter(|(_, link)| link.state == State::Live);
        live.filter_map(|(id, link)| Some((*id, link.greeted?)))
    }

    /// Links that said hello and that closing can still end.
    pub(super) fn standing(&self) -> impl Iterator<Item = Greeted> {
        self.links.values().filter(|link| link.state != State::Stuck).filter_map(|link| link.greeted)
    }

    /// Nothing is live and nothing is on its way out. Links that wait for a hello do not prolong the period.
    pub(super) fn is_over(&self) -> bool {
        let rest = |link: &Link| matches!(link.state, State::Waiting { .. } | State::Stuck | State::Foreign);
        self.links.values().all(rest)
    }
}
