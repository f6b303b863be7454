//! One offer that goes out, its receivers, and what is common to the end of all.

use std::collections::BTreeMap;
use std::time::Instant;

use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::{Output, Sender};
use crate::chunks::Chunks;
use crate::config::Config;
use crate::hash::{self, Hash};
use crate::manifest::{Chunk, Offer, Seal, TransferId};
use crate::protocol::{Frame, Stand};
use crate::record::{Reason, State};
use crate::standing::Standing;

/// Spans that are sent to one peer at the same time; a further request is told to come again.
pub(super) const MAX_SERVED_PER_PEER: usize = 64;
/// A receiver that has not decided is reminded this many times more seldom.
const PATIENCE: u32 = 12;

/// One offer.
pub(super) struct Outgoing {
    pub(super) number: u64,
    pub(super) targets: BTreeMap<PeerId, Target>,
    /// Gone when it is over with every receiver.
    pub(super) contents: Option<Contents>,
    /// Made when every chunk is known, and kept for a receiver that lost its record after it had finished.
    pub(super) seal: Option<Seal>,
}

/// What is offered, and what is known of its bytes.
pub(super) struct Contents {
    pub(super) offer: Offer,
    known: Chunks,
    hashes: Vec<Hash>,
    /// The chunk that is read again for its hash.
    pub(super) hashing: Option<u64>,
}

/// One receiver.
pub(super) struct Target {
    pub(super) standing: Standing,
    pub(super) accepted: bool,
    pub(super) linked: bool,
    /// It has answered the offer on this link.
    pub(super) told: bool,
    pub(super) paused_here: bool,
    pub(super) paused_there: Option<Reason>,
    /// It has everything and wants the seal.
    pub(super) verified: bool,
    /// The highest serial heard on this link.
    pub(super) heard: u64,
    pub(super) heard_at: Option<Instant>,
    pub(super) moved: u64,
    pub(super) moved_at: Option<Instant>,
    pub(super) remind_at: Option<Instant>,
    pub(super) report_at: Option<Instant>,
}

impl Outgoing {
    pub(super) fn new(number: u64, offer: Offer) -> Self {
        let chunks = offer.manifest().chunks();
        let contents = Contents { known: Chunks::new(chunks), offer, hashes: Vec::new(), hashing: None };
        Self { number, targets: BTreeMap::new(), contents: Some(contents), seal: None }
    }

    pub(super) fn is_over(&self) -> bool {
        self.targets.values().all(|target| target.standing.state().is_final())
    }
}

impl Contents {
    /// `false` when that chunk had another hash before.
    pub(super) fn learn(&mut self, index: u64, hash: Hash) -> bool {
        if self.hashes.is_empty() {
            self.hashes = vec![Hash([0; 32]); self.known.total() as usize];
        }
        if self.known.verify(index) {
            self.hashes[index as usize] = hash;
        }
        self.hashes.get(index as usize).is_none_or(|known| *known == hash)
    }

    pub(super) fn is_known(&self) -> bool {
        self.known.is_whole()
    }

    pub(super) fn next_missing(&mut self) -> Option<Chunk> {
        let range = self.known.next_span(1, 0, |_| 1)?;
        self.offer.manifest().chunk(range.start)
    }

    /// The seal over all hashes.
    pub(super) fn sign(&self, key: &Keypair) -> Option<Seal> {
        Seal::sign(key, &self.offer, hash::root(self.offer.manifest(), &self.hashes)).ok()
    }
}

impl Target {
    pub(super) fn new(standing: Standing) -> Self {
        Self {
            accepted: standing.state() != State::Offered,
            standing,
            linked: false,
            told: false,
            paused_here: false,
            paused_there: None,
            verified: false,
            heard: 0,
            heard_at: None,
            moved: 0,
            moved_at: None,
            remind_at: None,
            report_at: None,
        }
    }

    /// When it counts as stalled, if nothing moves until then.
    pub(super) fn stall_at(&self, config: &Config) -> Option<Instant> {
        let active = self.standing.state() == State::Active && !self.verified;
        self.moved_at.filter(|_| active).map(|at| at + config.stall_timeout)
    }

    pub(super) fn timer(&self, config: &Config) -> Option<Instant> {
        if self.standing.state().is_final() {
            return None;
        }
        let remind_at = self.remind_at.filter(|_| self.linked);
        [self.report_at, remind_at, self.stall_at(config)].into_iter().flatten().min()
    }
}

impl Sender {
    pub(super) fn target(&self, id: TransferId, peer: PeerId) -> Option<&Target> {
        self.transfers.get(&id)?.targets.get(&peer)
    }

    pub(super) fn with(&mut self, id: TransferId, peer: PeerId, change: impl FnOnce(&mut Target)) {
        if let Some(target) = self.transfers.get_mut(&id).and_then(|outgoing| outgoing.targets.get_mut(&peer)) {
            change(target);
        }
    }

    /// The receivers that a command is for: those that are not over.
    pub(super) fn targets(&self, id: TransferId, peer: Option<PeerId>) -> Result<Vec<PeerId>, Option<State>> {
        let outgoing = self.transfers.get(&id).ok_or(None)?;
        let meant = outgoing.targets.iter().filter(|(to, _)| peer.is_none_or(|peer| peer == **to));
        let (over, live): (Vec<_>, Vec<_>) = meant.partition(|(_, target)| target.standing.state().is_final());
        match (live.is_empty(), over.first()) {
            (true, over) => Err(over.map(|(_, target)| target.standing.state())),
            (false, _) => Ok(live.into_iter().map(|(peer, _)| *peer).collect()),
        }
    }

    /// Transfers with that peer that are not over.
    pub(super) fn of_peer(&self, peer: &PeerId) -> Vec<TransferId> {
        let is_live = |target: &Target| !target.standing.state().is_final();
        let all = self.transfers.iter().filter(|(_, outgoing)| outgoing.targets.get(peer).is_some_and(is_live));
        all.map(|(id, _)| *id).collect()
    }

    /// Find out how it stands.
    pub(super) fn settle(&mut self, id: TransferId, peer: PeerId, now: Instant) {
        let linked = self.up.contains(&peer);
        let stalled = self.target(id, peer).and_then(|target| {
            let quiet = now.checked_duration_since(target.moved_at?)?;
            (quiet >= self.config.stall_timeout && !target.verified).then_some(Reason::Stalled)
        });
        let mut changed = false;
        self.with(id, peer, |target| {
            target.linked = linked;
            let paused = if target.paused_here {
                Some(Reason::Here)
            } else if !linked {
                Some(Reason::NotConnected)
            } else {
                target.paused_there.or(stalled)
            };
            let state = match (target.accepted, paused) {
                (true, None) => State::Active,
                (true, Some(_)) => State::Paused,
                (false, _) => State::Offered,
            };
            changed = target.standing.set(state, paused.filter(|_| target.accepted), now);
            if changed && state == State::Active {
                target.moved_at = Some(now);
            }
        });
        if changed {
            self.update(id, peer, now);
        }
    }

    /// The end with one receiver, whatever it is.
    pub(super) fn end(&mut self, id: TransferId, peer: PeerId, state: State, reason: Option<Reason>, now: Instant) {
        if self.target(id, peer).is_none_or(|target| target.standing.state().is_final()) {
            return;
        }
        self.with(id, peer, |target| {
            target.standing.set(state, reason, now);
        });
        self.stop_serving(id, Some(peer));
        self.save(id, peer, now);
        self.update(id, peer, now);
        // What came from the other end is known there.
        if reason.is_some_and(|reason| reason != Reason::Peer) {
            self.say(id, peer);
        }
        if let Some(outgoing) = self.transfers.get_mut(&id)
            && outgoing.is_over()
        {
            outgoing.contents = None;
            self.outputs.push_back(Output::Discard { id });
            self.forget_surplus();
        }
    }

    fn forget_surplus(&mut self) {
        let over = self.transfers.iter().filter(|(_, outgoing)| outgoing.contents.is_none());
        let mut over: Vec<_> = over.map(|(id, outgoing)| (outgoing.number, *id)).collect();
        over.sort_unstable();
        let surplus = over.len().saturating_sub(self.config.max_finished);
        for (_, id) in over.into_iter().take(surplus) {
            let Some(outgoing) = self.transfers.remove(&id) else { continue };
            let peers = outgoing.targets.into_keys();
            self.outputs.extend(peers.map(|peer| Output::Forgotten { id, peer }));
        }
    }

    pub(super) fn stop_serving(&mut self, id: TransferId, peer: Option<PeerId>) {
        let meant = |(of, to): &(TransferId, PeerId)| *of == id && peer.is_none_or(|peer| peer == *to);
        let stopped = self.serving.iter().filter(|(_, key)| meant(key)).map(|(serve, _)| *serve).collect::<Vec<_>>();
        for serve in stopped {
            self.serving.remove(&serve);
            self.outputs.push_back(Output::Stop { serve });
        }
    }

    pub(super) fn save(&mut self, id: TransferId, peer: PeerId, now: Instant) {
        let record = self.target(id, peer).map(|target| target.standing.record(now));
        self.outputs.extend(record.map(Output::Save));
    }

    pub(super) fn update(&mut self, id: TransferId, peer: PeerId, now: Instant) {
        let snapshot = self.target(id, peer).map(|target| target.standing.snapshot(now));
        self.outputs.extend(snapshot.map(Output::Update));
    }

    pub(super) fn pause_before_reminder(&self, id: TransferId, peer: PeerId) -> std::time::Duration {
        let undecided = self.target(id, peer).is_some_and(|target| target.told && !target.accepted);
        self.config.answer_timeout * if undecided { PATIENCE } else { 1 }
    }

    /// Say again what the receiver has to know.
    pub(super) fn remind(&mut self, id: TransferId, peer: PeerId, now: Instant) {
        let pause = self.pause_before_reminder(id, peer);
        let Some(outgoing) = self.transfers.get_mut(&id) else { return };
        let (Some(contents), Some(target)) = (&outgoing.contents, outgoing.targets.get_mut(&peer)) else { return };
        if !self.up.contains(&peer) || target.standing.state().is_final() {
            target.remind_at = None;
            return;
        }
        target.remind_at = Some(now + pause);
        if target.told {
            return self.say(id, peer);
        }
        let (offer, page) = (contents.offer.signed().to_vec(), contents.offer.pages().first().cloned());
        let frame = Frame::Offer { transfer: id, offer, page: page.unwrap_or_default() };
        self.outputs.push_back(Output::Send { to: peer, frame });
    }

    /// Tell a receiver how it stands.
    pub(super) fn say(&mut self, id: TransferId, peer: PeerId) {
        if !self.up.contains(&peer) {
            return;
        }
        self.next_serial += 1;
        let outgoing = self.transfers.get(&id);
        let (stand, reason, seal) = match outgoing.and_then(|outgoing| Some((outgoing, outgoing.targets.get(&peer)?))) {
            None => (Stand::Unknown, None, None),
            Some((outgoing, target)) => match target.standing.state() {
                State::Cancelled => (Stand::Cancelled, None, None),
                State::Failed => (Stand::Failed, target.standing.reason(), None),
                _ if target.paused_here => (Stand::Paused, None, None),
                state => match (outgoing.seal.as_ref().filter(|_| target.verified), state) {
                    (Some(seal), _) => (Stand::Sealed, None, Some(seal.signed().to_vec())),
                    // The receiver ended it so; that it asks again means that it has forgotten.
                    (None, State::Rejected | State::Completed) => (Stand::Unknown, None, None),
                    (None, _) => (Stand::Open, None, None),
                },
            },
        };
        let frame = Frame::State { transfer: id, serial: self.next_serial, stand, reason, seal };
        self.outputs.push_back(Output::Send { to: peer, frame });
    }
}
