//! The sending end of every transfer: it offers, says how things stand, lets receivers have the spans they ask for, and
//! seals the contents once every chunk has been read.
//!
//! One offer may have several receivers. The hashes of its chunks belong to the offer: they are found while chunks are
//! sent for the first time, and a chunk that later has another hash shows that the source has changed.
//!
//! *Nothing hangs.* A receiver from which nothing is heard is reminded: with the offer until it answers, then with how
//! things stand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use libp2p::PeerId;
use libp2p::identity::Keypair;

use crate::config::Config;
use crate::fault::FaultKind;
use crate::hash::Hash;
use crate::manifest::{Chunk, Offer, Seal, TransferId};
use crate::plan::Plan;
use crate::protocol::{Frame, MAX_SPAN, MAX_SPAN_CHUNKS, Refusal, Request, Status};
use crate::record::{Direction, Reason, Record, Snapshot, State};
use crate::standing::Standing;
use crate::store::StoreError;

mod outgoing;

use outgoing::{Outgoing, Target};

/// Names one request that is served, never used twice in the life of a sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServeId(pub u64);

/// What may happen to a sender.
#[derive(Clone, Debug)]
pub enum Input {
    /// The hello of that peer has passed.
    PeerUp {
        /// Who.
        peer: PeerId,
    },
    /// The last link to that peer is gone; what was served to it has ended.
    PeerDown {
        /// Who.
        peer: PeerId,
    },
    /// The peer does not speak the protocol.
    Unsupported {
        /// Who.
        peer: PeerId,
    },
    /// A question for a page or a status came.
    Frame {
        /// From whom.
        peer: PeerId,
        /// What.
        frame: Frame,
    },
    /// A span is asked for; answered by [`Output::Serve`] or [`Output::Refuse`].
    Requested {
        /// By whom.
        peer: PeerId,
        /// The name of the request.
        serve: ServeId,
        /// What is asked for.
        request: Request,
    },
    /// Chunks were read for a receiver: their hashes, and that the disk remembers them.
    Hashed {
        /// For which request, or for none after an [`Output::Hash`].
        id: TransferId,
        /// The number of the first.
        first: u64,
        /// Their hashes.
        hashes: Vec<Hash>,
    },
    /// A request came to its end.
    Served {
        /// Which.
        serve: ServeId,
        /// An error of the own disk; a broken stream is none.
        error: Option<StoreError>,
    },
    /// An [`Output::Hash`] came to nothing.
    HashFailed {
        /// Which transfer.
        id: TransferId,
        /// Why.
        error: StoreError,
    },
}

/// What a sender wants.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send that message.
    Send {
        /// To whom.
        to: PeerId,
        /// What.
        frame: Frame,
    },
    /// Answer a request with these chunks.
    Serve {
        /// Which request.
        serve: ServeId,
        /// Of which transfer.
        id: TransferId,
        /// In order.
        chunks: Vec<Chunk>,
    },
    /// Answer a request with nothing.
    Refuse {
        /// Which request.
        serve: ServeId,
        /// Why.
        refusal: Refusal,
    },
    /// Break off the answer to a request; nothing more is said about it.
    Stop {
        /// Which.
        serve: ServeId,
    },
    /// Read a chunk again for its hash; answered by [`Input::Hashed`] or [`Input::HashFailed`].
    Hash {
        /// Of which transfer.
        id: TransferId,
        /// Which.
        chunk: Chunk,
    },
    /// The sources are not needed any more.
    Discard {
        /// Which.
        id: TransferId,
    },
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
        /// The receiver.
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

/// All outgoing transfers.
pub struct Sender {
    config: Config,
    key: Keypair,
    up: BTreeSet<PeerId>,
    transfers: BTreeMap<TransferId, Outgoing>,
    serving: BTreeMap<ServeId, (TransferId, PeerId)>,
    outputs: VecDeque<Output>,
    next_number: u64,
    next_serial: u64,
}

impl Sender {
    /// A sender that knows of nothing; the key seals.
    pub fn new(config: Config, key: Keypair) -> Self {
        Self {
            config,
            key,
            up: BTreeSet::new(),
            transfers: BTreeMap::new(),
            serving: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_number: 0,
            next_serial: 0,
        }
    }

    /// Offer files to these peers; `false` when that transfer is there already, or there is nobody.
    pub fn offer(&mut self, offer: Offer, peers: &[PeerId], plan: Plan, now: Instant) -> bool {
        let id = offer.id();
        if self.transfers.contains_key(&id) || peers.is_empty() {
            return false;
        }
        self.next_number += 1;
        let mut outgoing = Outgoing::new(self.next_number, offer.clone());
        for &peer in peers {
            outgoing.targets.insert(peer, Target::new(Standing::new(&offer, Direction::Out, peer, plan)));
        }
        let targets = outgoing.targets.keys().copied().collect::<Vec<_>>();
        self.transfers.insert(id, outgoing);
        self.outputs.push_back(Output::Keep(offer));
        for peer in targets {
            self.save(id, peer, now);
            self.update(id, peer, now);
            self.remind(id, peer, now);
        }
        true
    }

    /// Bring back a transfer of an earlier run with the hashes that the disk remembers; `false` when it is there already.
    pub fn restore(&mut self, offer: Offer, records: Vec<Record>, verified: &[(u64, Hash)]) -> bool {
        let id = offer.id();
        if self.transfers.contains_key(&id) {
            return false;
        }
        self.next_number += 1;
        let mut outgoing = Outgoing::new(self.next_number, offer.clone());
        for record in records.into_iter().filter(|record| record.direction == Direction::Out) {
            let paused = (record.state, record.reason) == (State::Paused, Some(Reason::Here));
            if let (State::Completed, Some(root)) = (record.state, record.root) {
                outgoing.seal = Seal::sign(&self.key, &offer, root).ok();
            }
            let mut target = Target::new(Standing::restore(&offer, record, Plan::NORMAL));
            target.paused_here = paused;
            outgoing.targets.insert(target.standing.peer, target);
        }
        if outgoing.is_over() {
            outgoing.contents = None;
        } else if let Some(contents) = &mut outgoing.contents {
            for &(index, hash) in verified {
                contents.learn(index, hash);
            }
        }
        self.transfers.insert(id, outgoing);
        true
    }

    /// Whether such a transfer goes out, or did.
    pub fn knows(&self, id: &TransferId) -> bool {
        self.transfers.contains_key(id)
    }

    /// Transfers that are not over.
    pub fn live(&self) -> usize {
        self.transfers.values().filter(|outgoing| !outgoing.is_over()).count()
    }

    /// How all stand with each receiver, with the oldest first.
    pub fn transfers(&self, now: Instant) -> Vec<Snapshot> {
        let mut all: Vec<_> = self.transfers.values().collect();
        all.sort_by_key(|outgoing| outgoing.number);
        let targets = all.into_iter().flat_map(|outgoing| outgoing.targets.values());
        targets.map(|target| target.standing.snapshot(now)).collect()
    }

    /// Hold on, with that receiver or with all.
    ///
    /// # Errors
    /// `None` when it is unknown, or the state in which it cannot be held.
    pub fn pause(&mut self, id: TransferId, peer: Option<PeerId>, now: Instant) -> Result<(), Option<State>> {
        for peer in self.targets(id, peer)? {
            self.with(id, peer, |target| target.paused_here = true);
            self.stop_serving(id, Some(peer));
            self.settle(id, peer, now);
            self.say(id, peer);
            self.save(id, peer, now);
        }
        Ok(())
    }

    /// Go on, with that receiver or with all.
    ///
    /// # Errors
    /// As [`Sender::pause`].
    pub fn resume(&mut self, id: TransferId, peer: Option<PeerId>, now: Instant) -> Result<(), Option<State>> {
        for peer in self.targets(id, peer)? {
            self.with(id, peer, |target| {
                target.paused_here = false;
                target.heard_at = Some(now);
            });
            self.settle(id, peer, now);
            self.say(id, peer);
            self.save(id, peer, now);
        }
        Ok(())
    }

    /// Take the offer back, from that receiver or from all.
    ///
    /// # Errors
    /// As [`Sender::pause`].
    pub fn cancel(&mut self, id: TransferId, peer: Option<PeerId>, now: Instant) -> Result<(), Option<State>> {
        for peer in self.targets(id, peer)? {
            self.end(id, peer, State::Cancelled, Some(Reason::Here), now);
        }
        Ok(())
    }

    /// Tell what happened. Ask for outputs and the next timeout afterwards.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::PeerUp { peer } => self.on_peer_up(peer, now),
            Input::PeerDown { peer } => self.on_peer_down(peer, now),
            Input::Unsupported { peer } => {
                for id in self.of_peer(&peer) {
                    self.end(id, peer, State::Failed, Some(Reason::Unsupported), now);
                }
            }
            Input::Frame { peer, frame } => self.on_frame(peer, frame, now),
            Input::Requested { peer, serve, request } => self.on_requested(peer, serve, request, now),
            Input::Hashed { id, first, hashes } => self.on_hashed(id, first, &hashes, now),
            Input::Served { serve, error } => {
                if let Some((id, _)) = self.serving.remove(&serve)
                    && let Some(error) = error
                {
                    self.on_disk_error(id, &error, now);
                }
            }
            Input::HashFailed { id, error } => self.on_disk_error(id, &error, now),
        }
    }

    /// Call at [`Sender::poll_timeout`]; calling it earlier does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let all = self.transfers.iter().flat_map(|(id, outgoing)| outgoing.targets.keys().map(|peer| (*id, *peer)));
        for (id, peer) in all.collect::<Vec<_>>() {
            let Some(target) = self.target(id, peer) else { continue };
            let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
            if due(target.report_at) {
                self.with(id, peer, |target| target.report_at = None);
                self.update(id, peer, now);
            }
            if self.target(id, peer).is_some_and(|target| due(target.stall_at(&self.config))) {
                self.settle(id, peer, now);
            }
            if self.target(id, peer).is_some_and(|target| due(target.remind_at)) {
                self.remind(id, peer, now);
            }
        }
    }

    /// When to call [`Sender::handle_timeout`]. Changes with every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let live = self.transfers.values().filter(|outgoing| outgoing.contents.is_some());
        let targets = live.flat_map(|outgoing| outgoing.targets.values());
        targets.filter_map(|target| target.timer(&self.config)).min()
    }

    /// The next thing wanted; ask until `None` after every input, command and timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn on_peer_up(&mut self, peer: PeerId, now: Instant) {
        self.up.insert(peer);
        for id in self.of_peer(&peer) {
            self.with(id, peer, |target| {
                target.heard = 0;
                target.moved = 0;
                target.told = false;
                target.heard_at = Some(now);
                target.linked = true;
            });
            self.settle(id, peer, now);
            self.remind(id, peer, now);
            if self.target(id, peer).is_some_and(|target| target.paused_here) {
                self.say(id, peer);
            }
        }
    }

    fn on_peer_down(&mut self, peer: PeerId, now: Instant) {
        self.up.remove(&peer);
        self.serving.retain(|_, (_, to)| *to != peer);
        for id in self.of_peer(&peer) {
            self.with(id, peer, |target| {
                target.linked = false;
                target.remind_at = None;
            });
            self.settle(id, peer, now);
        }
    }

    fn on_frame(&mut self, peer: PeerId, frame: Frame, now: Instant) {
        match frame {
            Frame::Ask { transfer, page } => self.on_ask(peer, transfer, page, now),
            Frame::Status { transfer, serial, status, reason, chunks, bytes, moved } => {
                let counts = (chunks, bytes, moved);
                self.on_status(peer, transfer, serial, (status, reason), counts, now);
            }
            Frame::Offer { .. } | Frame::Page { .. } | Frame::State { .. } => {
                self.outputs.push_back(Output::Fault { peer, kind: FaultKind::InvalidStatus });
            }
        }
    }

    fn on_ask(&mut self, peer: PeerId, id: TransferId, page: u32, now: Instant) {
        let known = self.transfers.get_mut(&id).filter(|outgoing| outgoing.targets.contains_key(&peer));
        let Some(outgoing) = known else { return self.say(id, peer) };
        let Some(contents) = &outgoing.contents else { return self.say(id, peer) };
        let Some(entries) = contents.offer.pages().get(page as usize).cloned() else {
            return self.outputs.push_back(Output::Fault { peer, kind: FaultKind::InvalidRequest });
        };
        self.with(id, peer, |target| target.heard_at = Some(now));
        self.outputs.push_back(Output::Send { to: peer, frame: Frame::Page { transfer: id, page, entries } });
    }

    fn on_status(
        &mut self,
        peer: PeerId,
        id: TransferId,
        serial: u64,
        (status, reason): (Status, Option<Reason>),
        (chunks, bytes, moved): (u64, u64, u64),
        now: Instant,
    ) {
        let is_end = matches!(
            status,
            Status::Completed | Status::Failed | Status::Rejected | Status::Cancelled | Status::Unknown
        );
        let interval = self.config.progress_interval;
        let Some(target) = self.transfers.get_mut(&id).and_then(|outgoing| outgoing.targets.get_mut(&peer)) else {
            // Whoever asks about what is not theirs learns no more than that.
            if !is_end {
                self.say(id, peer);
            }
            return;
        };
        if target.standing.state().is_final() {
            // It may have finished, and lost its record of that.
            target.verified = status == Status::Verified;
            if !is_end {
                self.say(id, peer);
            }
            return;
        }
        if serial <= target.heard {
            return;
        }
        target.heard = serial;
        target.told = status != Status::Unknown;
        target.heard_at = Some(now);
        let total = target.standing.total();
        if bytes > total {
            return self.outputs.push_back(Output::Fault { peer, kind: FaultKind::InvalidStatus });
        }
        if (target.standing.bytes, target.standing.chunks) != (bytes, chunks) || moved > target.moved {
            target.moved_at = Some(now);
            target.report_at.get_or_insert(now + interval);
        }
        target.standing.moved(moved.saturating_sub(target.moved).min(total), now);
        target.moved = moved;
        (target.standing.bytes, target.standing.chunks) = (bytes, chunks);
        match status {
            Status::Offered => {}
            Status::Accepted | Status::Paused | Status::Verified => {
                let fresh = target.standing.state() == State::Offered;
                target.accepted = true;
                if fresh {
                    target.moved_at = Some(now);
                }
                target.paused_there = (status == Status::Paused).then_some(reason.unwrap_or(Reason::Peer));
                // Links and pauses of ours are known here.
                target.paused_there = target.paused_there.filter(|reason| *reason != Reason::NotConnected);
                target.verified = status == Status::Verified;
                self.settle(id, peer, now);
                if fresh {
                    self.save(id, peer, now);
                }
                if status == Status::Verified {
                    self.seal(id, peer);
                }
            }
            Status::Completed => {
                // Nothing but the receiver's word says so; it is the receiver's disk.
                self.with(id, peer, |target| target.standing.bytes = total);
                self.end(id, peer, State::Completed, None, now);
            }
            Status::Failed => self.end(id, peer, State::Failed, Some(reason.unwrap_or(Reason::Peer)), now),
            Status::Rejected => self.end(id, peer, State::Rejected, Some(Reason::Peer), now),
            Status::Cancelled => self.end(id, peer, State::Cancelled, Some(Reason::Peer), now),
            // It was forgotten there before it was decided, or with the disk.
            Status::Unknown => self.with(id, peer, |target| target.remind_at = Some(now + interval)),
        }
        if self.target(id, peer).is_some_and(|target| target.remind_at.is_none_or(|at| at > now + interval)) {
            let pause = self.pause_before_reminder(id, peer);
            self.with(id, peer, |target| target.remind_at = Some(now + pause));
        }
    }

    fn on_requested(&mut self, peer: PeerId, serve: ServeId, request: Request, now: Instant) {
        let id = request.transfer;
        match self.may_have(peer, &request) {
            Ok(chunks) => {
                let fresh = self.target(id, peer).is_some_and(|target| target.standing.state() == State::Offered);
                self.with(id, peer, |target| {
                    target.heard_at = Some(now);
                    target.moved_at = Some(now);
                    target.told = true;
                    target.accepted = true;
                });
                self.settle(id, peer, now);
                if fresh {
                    self.save(id, peer, now);
                }
                self.serving.insert(serve, (id, peer));
                self.outputs.push_back(Output::Serve { serve, id, chunks });
            }
            Err((refusal, kind)) => {
                self.outputs.push_back(Output::Refuse { serve, refusal });
                self.outputs.extend(kind.map(|kind| Output::Fault { peer, kind }));
            }
        }
    }

    fn may_have(&self, peer: PeerId, request: &Request) -> Result<Vec<Chunk>, (Refusal, Option<FaultKind>)> {
        let outgoing = self.transfers.get(&request.transfer);
        let Some((outgoing, target)) = outgoing.and_then(|all| Some((all, all.targets.get(&peer)?))) else {
            return Err((Refusal::Unknown, Some(FaultKind::InvalidRequest)));
        };
        let contents = match &outgoing.contents {
            Some(contents) if !target.standing.state().is_final() => contents,
            _ => return Err((Refusal::Over, None)),
        };
        let manifest = contents.offer.manifest();
        let end = request.first.checked_add(request.count.into()).filter(|&end| end <= manifest.chunks());
        let small = (1..=MAX_SPAN_CHUNKS).contains(&request.count.into());
        let range = end.filter(|_| small).map(|end| request.first..end);
        let Some(range) = range.filter(|range| manifest.length_of(range.clone()) <= MAX_SPAN) else {
            return Err((Refusal::Unknown, Some(FaultKind::InvalidRequest)));
        };
        if target.paused_here {
            return Err((Refusal::Paused, None));
        }
        let serving = self.serving.values().filter(|(_, to)| *to == peer).count();
        if serving >= outgoing::MAX_SERVED_PER_PEER {
            return Err((Refusal::Busy, None));
        }
        Ok(range.filter_map(|index| manifest.chunk(index)).collect())
    }

    fn on_hashed(&mut self, id: TransferId, first: u64, hashes: &[Hash], now: Instant) {
        let Some(outgoing) = self.transfers.get_mut(&id) else { return };
        let Some(contents) = &mut outgoing.contents else { return };
        contents.hashing = None;
        let same = (first..).zip(hashes).fold(true, |same, (index, hash)| contents.learn(index, *hash) && same);
        if !same {
            return self.on_disk_error(id, &StoreError::Changed, now);
        }
        let waiting: Vec<_> = outgoing.targets.iter().filter(|(_, t)| t.verified).map(|(peer, _)| *peer).collect();
        for peer in waiting {
            self.seal(id, peer);
        }
    }

    /// The source is not what it was, or cannot be read: that is the end for every receiver.
    fn on_disk_error(&mut self, id: TransferId, error: &StoreError, now: Instant) {
        let reason = if *error == StoreError::Changed { Reason::Changed } else { Reason::Disk };
        let peers = self.transfers.get(&id).map(|outgoing| outgoing.targets.keys().copied().collect::<Vec<_>>());
        for peer in peers.unwrap_or_default() {
            self.with(id, peer, |target| target.standing.detail = Some(error.to_string()));
            self.end(id, peer, State::Failed, Some(reason), now);
        }
    }

    /// Send the seal, or find the hashes that are missing first.
    fn seal(&mut self, id: TransferId, peer: PeerId) {
        let Some(outgoing) = self.transfers.get_mut(&id) else { return };
        let Some(contents) = &mut outgoing.contents else { return };
        if !contents.is_known() {
            if contents.hashing.is_none()
                && let Some(chunk) = contents.next_missing()
            {
                contents.hashing = Some(chunk.index);
                self.outputs.push_back(Output::Hash { id, chunk });
            }
            return;
        }
        let Some(seal) = outgoing.seal.take().or_else(|| contents.sign(&self.key)) else { return };
        let root = seal.root();
        outgoing.seal = Some(seal);
        if let Some(target) = outgoing.targets.get_mut(&peer) {
            target.standing.root = Some(root);
        }
        self.say(id, peer);
    }
}
