//! The life of the links to each peer: a core without socket, clock or randomness.
//!
//! A *link* is one connection. A peer may have several at once: both sides dialled at the same moment, or one side
//! still holds a connection that is dead for the other. The core decides which links live, when a peer counts as up,
//! and how its being up ends. The rules, by number where the code follows them:
//!
//! 1. `Up` comes when the first link has a valid hello; then come `Left` or `Lost`, exactly once each period.
//! 2. A *session* is the time in which a peer has at least one link, in whatever state; protocols such as gossipsub
//!    greet a peer when its session begins and never again (rust-libp2p issue 5097). A hello with a higher boot count
//!    than the one the session began with means that the peer has restarted within it. Every link is closed, the new
//!    one too, and `Lost { reset: true }` asks for a fresh dial. A session whose first link went without a hello
//!    counts as begun by an older boot. While a link is stuck in closing no reset could end the session; it is made up
//!    for when that link is gone. A hello with a lower boot count than any seen before comes from a stale or copied
//!    node: only its link ends. The node is told, and as in rule 5 it is left to it to close, because what is written
//!    right before a close may be lost. What it is told in turn is taken once a link and passed on to people, no more.
//! 3. Of several links with one boot the older ones are closed after a while, by the side with the smaller PeerId
//!    alone, so that the two sides never close different links. The newest hello stays, because it is the best proof
//!    of life: the older link may be one that the other side has lost, and keeping that would end in a circle of
//!    dialling and closing. While the node wants a second link (it is for bulk), none is closed: both sides see the
//!    transfer that it is for, so both want it. If the other side did not decide in thrice the time, it does not see the older link.
//! 4. After a goodbye all links that stood then are closed and the peer has left. A link opened later is a return.
//! 5. Disconnecting here says goodbye on every link and leaves it to the remote to close; after a while we close.
//! 6. A link to somebody who does not speak this protocol is not a peer's.
//! 7. While one link with a hello stands, nothing is lost.

mod boots;
mod io;
mod peer;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use libp2p::{Multiaddr, PeerId};

use self::boots::Boots;
use self::peer::{Ending, Greeted, Link, Peer, State};
use crate::card::SignedCard;
use crate::config::Config;
use crate::event::Event;
use crate::fault::FaultKind;

/// Most links to one peer at once; further ones are closed.
pub const MAX_LINKS_PER_PEER: usize = 8;
/// For how many peers the highest boot count is remembered; the one heard of longest ago is forgotten first.
pub const MAX_BOOTS: usize = 4096;

/// How many changes of its card a peer may announce at once; further ones are dropped.
pub const UPDATE_BURST: f64 = 32.0;
/// How many it may announce a second, on average.
pub const UPDATE_RATE: f64 = 1.0;

pub use io::{Input, LinkId, Output};

/// The links to all peers.
pub struct Links {
    config: Config,
    me: PeerId,
    peers: BTreeMap<PeerId, Peer>,
    boots: Boots,
    hellos: u64,
    stopping: Option<Instant>,
    quiet: bool,
    next: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Links {
    /// No links yet. `me` is the own PeerId. There is nothing random in this core.
    pub fn new(me: PeerId, config: Config) -> Self {
        Self {
            config,
            me,
            peers: BTreeMap::new(),
            boots: Boots::default(),
            hellos: 0,
            stopping: None,
            quiet: false,
            next: None,
            outputs: VecDeque::new(),
        }
    }

    /// Take in what happened; drain [`Links::poll_output`] and read [`Links::poll_timeout`] afterwards.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Opened { peer, link, dialled, address } => self.opened(peer, link, dialled, address, now),
            Input::Hello { peer, link, card } => self.hello(peer, link, card, now),
            Input::Goodbye { peer, link, boot } => self.goodbye(peer, link, boot, now),
            Input::Refused { peer, link, boot } => self.refused(peer, link, boot, now),
            Input::Foreign { peer, link } => self.foreign(peer, link),
            Input::Failed { peer, link, reason } => self.failed(peer, link, reason, now),
            Input::Closed { peer, link, cause } => self.closed(peer, link, cause, now),
            Input::Disconnect { peer } => self.disconnect(peer, now),
            Input::KeepSecond { peer, until } => self.keep_second(peer, until),
            Input::DisconnectAll => self.disconnect_all(now),
        }
        self.check_quiet(now);
        self.next = self.next_deadline();
    }

    /// Do what is due. Call it at or after [`Links::poll_timeout`]; calling it early does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in peers {
            self.expire(id, now);
            self.prune(id, now);
            self.settle(id);
        }
        self.check_quiet(now);
        self.next = self.next_deadline();
    }

    /// When [`Links::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.next
    }

    /// What is to be done next; `None` until something happens again.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether a peer is between its `Up` and its `Left` or `Lost`.
    pub fn is_up(&self, peer: &PeerId) -> bool {
        self.card(peer).is_some()
    }

    /// The newest card of a peer that is up.
    pub fn card(&self, peer: &PeerId) -> Option<&SignedCard> {
        self.peers.get(peer)?.up.as_ref()
    }

    /// Everybody who is up.
    pub fn up(&self) -> impl Iterator<Item = (PeerId, &SignedCard)> {
        self.peers.iter().filter_map(|(id, peer)| Some((*id, peer.up.as_ref()?)))
    }

    /// The link to use for a peer: the live one with the newest hello.
    pub fn best(&self, peer: &PeerId) -> Option<LinkId> {
        let live = self.peers.get(peer)?.live();
        live.max_by_key(|(_, greeted)| greeted.order).map(|(link, _)| link)
    }

    /// Every link on which a changed own card is to be announced.
    pub fn open(&self) -> impl Iterator<Item = (PeerId, LinkId)> {
        self.peers.iter().flat_map(|(id, peer)| {
            let open = peer.links.iter().filter(|(_, link)| matches!(link.state, State::Waiting { .. } | State::Live));
            open.map(|(link, _)| (*id, *link))
        })
    }

    /// How many links there are, in whatever state.
    pub fn len(&self) -> usize {
        self.peers.values().map(|peer| peer.links.len()).sum()
    }

    /// Whether there is no link at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn opened(&mut self, id: PeerId, link: LinkId, dialled: bool, address: Multiaddr, now: Instant) {
        let peer = self.peers.entry(id).or_insert_with(|| Peer::new(link, now));
        let crowded = peer.links.values().filter(|link| link.state != State::Stuck).count() >= MAX_LINKS_PER_PEER;
        // Rule 2: during a reset the peer must be without any link for a moment.
        let refused = crowded || peer.ending == Some(Ending::Reset) || self.stopping.is_some();
        let state = State::Waiting { until: now + self.config.hello_timeout };
        peer.links.insert(link, Link { dialled, address, state, greeted: None, ended: None });
        if crowded {
            self.outputs.push_back(Output::Fault { peer: id, kind: FaultKind::TooManyLinks });
        }
        if refused {
            self.close(id, link, now);
        }
    }

    fn hello(&mut self, id: PeerId, link: LinkId, card: SignedCard, now: Instant) {
        let highest = self.boots.highest(&id);
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(this) = peer.links.get(&link) else { return };
        let boot = card.card().boot;
        let conflicts = peer.up.as_ref().is_some_and(|held| {
            (held.card().boot, held.card().revision) == (boot, card.card().revision) && *held != card
        });
        match this.state {
            State::Waiting { .. } => {}
            // A process does not restart within one connection.
            State::Live if conflicts || this.greeted.is_none_or(|greeted| greeted.boot != boot) => {
                return self.refuse(id, link, FaultKind::ConflictingCard, now);
            }
            State::Live => return self.update(id, card, now),
            _ => return,
        }
        let live = peer.live().map(|(_, greeted)| greeted.boot).max();
        if this.ended == Some(boot) {
            // Rule 4: it left before we read its hello here.
            return self.close(id, link, now);
        }
        if peer.first == link {
            peer.met = Some(boot);
        }
        if let Some(highest) = highest.max(live).filter(|highest| boot < *highest) {
            self.refuse_stale(id, link, highest, now);
            // Its being the first link may tell that the others are of a later boot.
            return self.reset_if_restarted(id, now);
        }
        if conflicts {
            return self.refuse(id, link, FaultKind::ConflictingCard, now);
        }
        self.boots.heard(id, boot);
        if matches!(peer.ending, Some(Ending::Goodbye | Ending::Here)) {
            // Rule 4: it is back before its old links are gone.
            self.finish(id);
        }
        self.greet(id, link, boot);
        self.come_up(id, link, card, now);
        if let Some(peer) = self.peers.get_mut(&id)
            && peer.live().count() > 1
        {
            peer.several_since = Some(now);
        }
        self.reset_if_restarted(id, now);
    }

    /// Mark the link as usable.
    fn greet(&mut self, id: PeerId, link: LinkId, boot: u64) {
        self.hellos += 1;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(entry) = peer.links.get_mut(&link) {
            entry.state = State::Live;
            entry.greeted = Some(Greeted { boot, order: self.hellos });
        }
    }

    /// Rule 1.
    fn come_up(&mut self, id: PeerId, link: LinkId, card: SignedCard, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.up.is_some() {
            return self.update(id, card, now);
        }
        let Some(link) = peer.links.get(&link) else { return };
        peer.up = Some(card.clone());
        let up = Event::Up { peer: id, card, dialled: link.dialled, address: link.address.clone() };
        self.outputs.push_back(Output::Event(up));
    }

    /// A card that is not newer changes nothing: on another link it may have been overtaken.
    fn update(&mut self, id: PeerId, card: SignedCard, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(held) = peer.up.as_mut().filter(|held| card.is_newer_than(held)) else { return };
        // A restart is always heard of: it has the new addresses.
        if held.card().boot == card.card().boot && !peer.updates.take(1.0, now) {
            self.outputs.push_back(Output::Fault { peer: id, kind: FaultKind::Flood });
            return;
        }
        *held = card.clone();
        self.outputs.push_back(Output::Event(Event::Updated { peer: id, card }));
    }

    /// Rule 2.
    fn reset_if_restarted(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(boot) = peer.up.as_ref().map(|card| card.card().boot) else { return };
        let dead = peer.standing().any(|greeted| greeted.boot < boot);
        let stuck = peer.links.values().any(|link| link.state == State::Stuck);
        let restarted = dead || (peer.met.is_some_and(|met| met < boot) && !stuck);
        if !restarted || peer.ending.is_some() {
            return;
        }
        peer.ending = Some(Ending::Reset);
        peer.several_since = None;
        let links: Vec<LinkId> = peer.links.keys().copied().collect();
        for link in links {
            self.close(id, link, now);
        }
    }

    /// Rule 4.
    fn goodbye(&mut self, id: PeerId, link: LinkId, boot: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(greeted) = peer.links.get(&link).and_then(|link| link.greeted) else { return };
        if greeted.boot != boot {
            if greeted.boot < boot {
                self.outputs.push_back(Output::Fault { peer: id, kind: FaultKind::InvalidGoodbye });
            }
            return;
        }
        if peer.ending.is_none() && peer.up.as_ref().is_some_and(|card| card.card().boot == boot) {
            peer.ending = Some(Ending::Goodbye);
        }
        let mut covered = Vec::new();
        for (link, entry) in &mut peer.links {
            match entry.greeted {
                Some(greeted) if greeted.boot == boot => covered.push(*link),
                Some(_) => {}
                None => entry.ended = Some(boot),
            }
        }
        for link in covered {
            self.close(id, link, now);
        }
        self.settle(id);
    }

    /// Rule 2, at the stale node.
    fn refused(&mut self, id: PeerId, link: LinkId, boot: u64, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(State::Live | State::Leaving { .. }) = peer.links.get(&link).map(|link| link.state) {
            peer.reason = "it remembers a later start of this node".into();
            self.outputs.push_back(Output::Event(Event::Refused { peer: id, boot }));
            self.close(id, link, now);
        }
    }

    /// Rule 6.
    fn foreign(&mut self, id: PeerId, link: LinkId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(entry) = peer.links.get_mut(&link) else { return };
        if !matches!(entry.state, State::Waiting { .. }) {
            return;
        }
        entry.state = State::Foreign;
        if peer.first == link {
            peer.met = Some(0);
        }
        if !peer.foreign && peer.up.is_none() {
            peer.foreign = true;
            self.outputs.push_back(Output::Event(Event::Foreign { peer: id }));
        }
    }

    fn failed(&mut self, id: PeerId, link: LinkId, reason: String, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if let Some(State::Waiting { .. } | State::Live) = peer.links.get(&link).map(|link| link.state) {
            peer.reason = reason;
            self.close(id, link, now);
        }
    }

    fn closed(&mut self, id: PeerId, link: LinkId, cause: String, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(gone) = peer.links.remove(&link) else { return };
        if gone.state == State::Live {
            peer.reason = cause;
        }
        if peer.first == link && peer.met.is_none() {
            peer.met = Some(0);
        }
        self.settle(id);
        self.reset_if_restarted(id, now);
    }

    /// Rule 5.
    fn disconnect(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.up.is_some() && peer.ending.is_none() {
            peer.ending = Some(Ending::Here);
        }
        let until = now + self.config.goodbye_timeout;
        let mut foreign = Vec::new();
        for (link, entry) in &mut peer.links {
            match entry.state {
                // Without its hello too: it may have read ours.
                State::Waiting { .. } | State::Live => {
                    entry.state = State::Leaving { until };
                    self.outputs.push_back(Output::SayGoodbye { peer: id, link: *link });
                }
                State::Foreign => foreign.push(*link),
                State::Leaving { .. } | State::Closing { .. } | State::Stuck => {}
            }
        }
        for link in foreign {
            self.close(id, link, now);
        }
        self.settle(id);
    }

    fn disconnect_all(&mut self, now: Instant) {
        if self.stopping.is_some() {
            return;
        }
        self.stopping = Some(now + self.config.goodbye_timeout);
        let peers: Vec<PeerId> = self.peers.keys().copied().collect();
        for id in peers {
            self.disconnect(id, now);
        }
    }

    fn refuse(&mut self, id: PeerId, link: LinkId, kind: FaultKind, now: Instant) {
        self.outputs.push_back(Output::Fault { peer: id, kind });
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.reason = kind.to_string();
        }
        self.close(id, link, now);
    }

    /// Rule 2.
    fn refuse_stale(&mut self, id: PeerId, link: LinkId, highest: u64, now: Instant) {
        self.outputs.push_back(Output::Fault { peer: id, kind: FaultKind::StaleBoot });
        let Some(peer) = self.peers.get_mut(&id) else { return };
        peer.reason = FaultKind::StaleBoot.to_string();
        if let Some(entry) = peer.links.get_mut(&link) {
            entry.state = State::Leaving { until: now + self.config.goodbye_timeout };
            self.outputs.push_back(Output::Refuse { peer: id, link, boot: highest });
        }
    }

    fn close(&mut self, id: PeerId, link: LinkId, now: Instant) {
        let until = now + self.config.close_timeout;
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let Some(entry) = peer.links.get_mut(&link) else { return };
        if !matches!(entry.state, State::Closing { .. } | State::Stuck) {
            entry.state = State::Closing { until };
            self.outputs.push_back(Output::Close { peer: id, link });
        }
    }

    fn expire(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        let mut late = Vec::new();
        for (link, entry) in &mut peer.links {
            match entry.state {
                State::Closing { until } if until <= now => entry.state = State::Stuck,
                State::Waiting { until } | State::Leaving { until } if until <= now => late.push((*link, entry.state)),
                _ => {}
            }
        }
        for (link, state) in late {
            if matches!(state, State::Waiting { .. }) {
                self.refuse(id, link, FaultKind::NoHello, now);
            } else {
                self.close(id, link, now);
            }
        }
    }

    /// Rule 3.
    fn prune(&mut self, id: PeerId, now: Instant) {
        let due = self.prune_at(&id).is_some_and(|due| due <= now);
        let Some(peer) = self.peers.get_mut(&id).filter(|_| due) else { return };
        peer.several_since = None;
        let newest = peer.live().map(|(_, greeted)| greeted.order).max();
        let older: Vec<LinkId> =
            peer.live().filter(|(_, greeted)| Some(greeted.order) != newest).map(|(link, _)| link).collect();
        for link in older {
            self.close(id, link, now);
        }
    }

    fn prune_at(&self, id: &PeerId) -> Option<Instant> {
        let peer = self.peers.get(id)?;
        let since = peer.several_since?;
        let patience = if self.me < *id { self.config.prune_after } else { 3 * self.config.prune_after };
        Some((since + patience).max(peer.several_until.unwrap_or(since)))
    }

    /// Rule 3, suspended.
    fn keep_second(&mut self, id: PeerId, until: Instant) {
        if let Some(peer) = self.peers.get_mut(&id) {
            peer.several_until = peer.several_until.max(Some(until));
        }
    }

    /// End the period of being up when nothing is left of it, and forget a peer without links.
    fn settle(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.live().count() < 2 {
            peer.several_since = None;
        }
        if peer.up.is_some() && peer.is_over() {
            self.finish(id);
        }
        if self.peers.get(&id).is_some_and(|peer| peer.links.is_empty()) {
            self.peers.remove(&id);
        }
    }

    fn finish(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(&id) else { return };
        if peer.up.take().is_none() {
            return;
        }
        let reason = std::mem::take(&mut peer.reason);
        let event = match peer.ending.take() {
            Some(Ending::Goodbye) => Event::Left { peer: id },
            Some(Ending::Here) => Event::Lost { peer: id, reason: "disconnected here".into(), reset: false },
            Some(Ending::Reset) => Event::Lost { peer: id, reason: "it has restarted".into(), reset: true },
            None => Event::Lost { peer: id, reason, reset: false },
        };
        self.outputs.push_back(Output::Event(event));
    }

    fn check_quiet(&mut self, now: Instant) {
        let Some(until) = self.stopping.filter(|_| !self.quiet) else { return };
        let idle = self.peers.values().all(|peer| peer.links.values().all(|link| link.state == State::Stuck));
        if idle || until <= now {
            self.quiet = true;
            self.outputs.push_back(Output::Event(Event::Quiet));
        }
    }

    fn next_deadline(&self) -> Option<Instant> {
        let links = self.peers.values().flat_map(|peer| peer.links.values()).filter_map(|link| match link.state {
            State::Waiting { until } | State::Leaving { until } | State::Closing { until } => Some(until),
            State::Live | State::Stuck | State::Foreign => None,
        });
        let prunes = self.peers.keys().filter_map(|id| self.prune_at(id));
        links.chain(prunes).chain(self.stopping.filter(|_| !self.quiet)).min()
    }
}
