//! The receiving end of every transfer: it drives. It asks for what it lacks, and counts only what is verified and
//! remembered by the disk.
//!
//! ```text
//! offer ─> reading pages ─> offered ─accept─> active <─> paused        all chunks ─> seal ─> finish ─> completed
//!              │               └─reject─> rejected   └── cancelled, failed ──┘
//! ```
//!
//! *Nothing unverified counts.* A chunk is marked only by [`Input::Verified`], which the data path sends after its hash
//! was right and the disk has remembered it. *The whole is bound.* Nothing is finished before the hashes of all chunks
//! make up what the sender signed. *Nothing hangs.* What wants an answer is asked again; what is in flight ends with its
//! stream, which has a timeout; a failed span is tried again after a pause that grows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

use crate::config::Config;
use crate::fault::FaultKind;
use crate::hash::{self, Hash};
use crate::manifest::{Offer, Seal, TransferId};
use crate::plan::Plan;
use crate::protocol::{Frame, Refusal, Stand};
use crate::record::{Direction, Reason, Record, Snapshot, State};
use crate::scheduler::Scheduler;
use crate::standing::Standing;
use crate::store::StoreError;

mod incoming;
mod messages;
mod offers;

use incoming::{Incoming, Span};
pub use messages::{Ending, GetId, Input, Output};
use offers::Reading;

/// All incoming transfers.
pub struct Receiver {
    config: Config,
    rng: StdRng,
    up: BTreeSet<PeerId>,
    /// Offers whose list of files is not whole yet.
    reading: BTreeMap<TransferId, Reading>,
    live: BTreeMap<TransferId, Incoming>,
    finished: BTreeMap<TransferId, (u64, Standing)>,
    gets: BTreeMap<GetId, TransferId>,
    scheduler: Scheduler,
    outputs: VecDeque<Output>,
    next_number: u64,
    next_get: u64,
    next_serial: u64,
}

impl Receiver {
    /// A receiver that knows of nothing. The seed decides the jitter of retries.
    pub fn new(config: Config, rng_seed: u64) -> Self {
        Self {
            scheduler: Scheduler::new(config.in_flight_total),
            config,
            rng: StdRng::seed_from_u64(rng_seed),
            up: BTreeSet::new(),
            reading: BTreeMap::new(),
            live: BTreeMap::new(),
            finished: BTreeMap::new(),
            gets: BTreeMap::new(),
            outputs: VecDeque::new(),
            next_number: 0,
            next_get: 0,
            next_serial: 0,
        }
    }

    /// Bring back a transfer of an earlier run with the chunks that the disk remembers; `false` when it is there already.
    pub fn restore(&mut self, offer: Offer, record: Record, verified: &[(u64, Hash)], now: Instant) -> bool {
        let id = offer.id();
        if self.knows(&id) || record.direction != Direction::In {
            return false;
        }
        let number = self.number();
        let paused_here = (record.state, record.reason) == (State::Paused, Some(Reason::Here));
        let standing = Standing::restore(&offer, record, Plan::NORMAL);
        if standing.state().is_final() {
            self.finished.insert(id, (number, standing));
            return true;
        }
        let mut incoming = Incoming::new(number, offer, standing);
        // The chunks are counted, not believed.
        incoming.standing.bytes = 0;
        incoming.paused_here = paused_here;
        for &(index, hash) in verified {
            incoming.verify(index, hash);
        }
        let accepted = incoming.standing.state() != State::Offered;
        self.live.insert(id, incoming);
        if accepted {
            self.scheduler.add(number, id);
            self.advance(id, now);
            // Nothing of it is news.
            self.outputs.clear();
        }
        true
    }

    /// Whether such a transfer is coming in, was, or is offered.
    pub fn knows(&self, id: &TransferId) -> bool {
        self.live.contains_key(id) || self.finished.contains_key(id) || self.reading.contains_key(id)
    }

    /// Transfers that are not over.
    pub fn live(&self) -> usize {
        self.live.len()
    }

    /// Bytes that are still to come from that peer, of transfers that go on now.
    pub fn wanted_from(&self, peer: &PeerId) -> u64 {
        let all = self.live.values().map(|incoming| &incoming.standing);
        let active = all.filter(|standing| standing.peer == *peer && standing.state() == State::Active);
        active.map(|standing| standing.total().saturating_sub(standing.bytes)).sum()
    }

    /// How all stand, with the number of their order.
    pub fn transfers(&self, now: Instant) -> Vec<Snapshot> {
        let live = self.live.values().map(|incoming| (incoming.number, &incoming.standing));
        let finished = self.finished.values().map(|(number, standing)| (*number, standing));
        let mut all: Vec<_> = live.chain(finished).collect();
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, standing)| standing.snapshot(now)).collect()
    }

    /// Somebody decided to take it.
    ///
    /// # Errors
    /// `None` when it is unknown, or the state in which it cannot be taken.
    pub fn accept(&mut self, id: TransferId, now: Instant) -> Result<(), Option<State>> {
        let incoming = self.offered(&id)?;
        let number = incoming.number;
        incoming.standing.set(State::Paused, Some(Reason::NotConnected), now);
        self.scheduler.add(number, id);
        self.save(&id, now);
        self.advance(id, now);
        self.ask(now);
        Ok(())
    }

    /// Somebody decided not to.
    ///
    /// # Errors
    /// As [`Receiver::accept`].
    pub fn reject(&mut self, id: TransferId, now: Instant) -> Result<(), Option<State>> {
        self.offered(&id)?;
        self.end(id, State::Rejected, Some(Reason::Here), None, now);
        Ok(())
    }

    /// Hold on.
    ///
    /// # Errors
    /// `None` when it is unknown, or the state in which it cannot be held.
    pub fn pause(&mut self, id: TransferId, now: Instant) -> Result<(), Option<State>> {
        let incoming = self.accepted(&id)?;
        incoming.paused_here = true;
        self.advance(id, now);
        self.save(&id, now);
        // Its place is free for another.
        self.ask(now);
        Ok(())
    }

    /// Go on, at once.
    ///
    /// # Errors
    /// As [`Receiver::pause`].
    pub fn resume(&mut self, id: TransferId, now: Instant) -> Result<(), Option<State>> {
        let incoming = self.accepted(&id)?;
        incoming.paused_here = false;
        incoming.try_now();
        self.advance(id, now);
        self.save(&id, now);
        self.ask(now);
        Ok(())
    }

    /// Give up.
    ///
    /// # Errors
    /// `None` when it is unknown, or the state in which it cannot be given up.
    pub fn cancel(&mut self, id: TransferId, now: Instant) -> Result<(), Option<State>> {
        match self.live.get(&id) {
            Some(incoming) if incoming.finishing => Err(Some(incoming.standing.state())),
            Some(_) => {
                self.end(id, State::Cancelled, Some(Reason::Here), None, now);
                self.ask(now);
                Ok(())
            }
            None => Err(self.state_of(&id)),
        }
    }

    /// Tell what happened. Ask for outputs and the next timeout afterwards.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::PeerUp { peer } => self.on_peer_up(peer, now),
            Input::PeerDown { peer } => self.on_peer_down(peer, now),
            Input::Frame { peer, frame } => self.on_frame(peer, frame, now),
            Input::Verified { get, first, hashes } => self.on_verified(get, first, hashes, now),
            Input::Moved { get, bytes, waited } => self.on_moved(get, bytes, waited, now),
            Input::Ended { get, ending } => self.on_ended(get, ending, now),
            Input::Finished { id, result } => self.on_finished(id, result, now),
        }
        self.ask(now);
    }

    /// Call at [`Receiver::poll_timeout`]; calling it earlier does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let pages: Vec<_> = self.reading.iter().filter(|(_, r)| due(Some(r.ask_at))).map(|(id, _)| *id).collect();
        for id in pages {
            self.ask_page(id, now);
        }
        let live: Vec<_> = self.live.iter().filter(|(_, i)| due(i.timer())).map(|(id, _)| *id).collect();
        for id in live {
            self.report(id, now);
            self.advance(id, now);
        }
        self.ask(now);
    }

    /// When to call [`Receiver::handle_timeout`]. Changes with every input.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let pages = self.reading.values().filter(|reading| self.up.contains(&reading.peer));
        let live = self.live.values().filter_map(Incoming::timer);
        pages.map(|reading| reading.ask_at).chain(live).min()
    }

    /// The next thing wanted; ask until `None` after every input, command and timeout.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn on_peer_up(&mut self, peer: PeerId, now: Instant) {
        self.up.insert(peer);
        for id in self.of_peer(&peer) {
            if let Some(incoming) = self.live.get_mut(&id) {
                incoming.heard = 0;
                incoming.peer_paused = false;
                incoming.try_now();
            }
            self.advance(id, now);
            self.say(id);
        }
        for id in self.reading.iter().filter(|(_, r)| r.peer == peer).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.ask_page(id, now);
        }
    }

    fn on_peer_down(&mut self, peer: PeerId, now: Instant) {
        self.up.remove(&peer);
        for id in self.of_peer(&peer) {
            self.drop_spans(id, false);
            self.advance(id, now);
        }
    }

    fn on_frame(&mut self, peer: PeerId, frame: Frame, now: Instant) {
        match frame {
            Frame::Offer { transfer, offer, page } => self.on_offer(peer, transfer, offer, page, now),
            Frame::Page { transfer, page, entries } => self.on_page(peer, transfer, page, entries, now),
            Frame::State { transfer, serial, stand, reason, seal } => {
                self.on_state(peer, transfer, serial, (stand, reason), seal, now);
            }
            Frame::Ask { .. } | Frame::Status { .. } => self.fault(peer, FaultKind::InvalidStatus),
        }
    }

    fn on_state(
        &mut self,
        peer: PeerId,
        id: TransferId,
        serial: u64,
        (stand, reason): (Stand, Option<Reason>),
        seal: Option<Vec<u8>>,
        now: Instant,
    ) {
        if matches!(stand, Stand::Failed | Stand::Cancelled | Stand::Unknown)
            && self.reading.get(&id).is_some_and(|reading| reading.peer == peer)
        {
            self.reading.remove(&id);
            return;
        }
        let Some(incoming) = self.live.get_mut(&id).filter(|incoming| incoming.standing.peer == peer) else {
            // Its end here is what the sender has not heard.
            let ended_here = self.finished.get(&id).is_some_and(|(_, standing)| standing.peer == peer);
            if ended_here && matches!(stand, Stand::Open | Stand::Paused | Stand::Sealed) {
                self.say(id);
            } else if stand == Stand::Open && !self.knows(&id) {
                self.say_unknown(peer, id);
            }
            return;
        };
        if serial <= incoming.heard {
            return;
        }
        incoming.heard = serial;
        match stand {
            Stand::Open | Stand::Paused => {
                incoming.peer_paused = stand == Stand::Paused;
                self.advance(id, now);
                self.say(id);
            }
            Stand::Sealed => self.on_seal(id, seal.unwrap_or_default(), now),
            Stand::Failed => self.end(id, State::Failed, Some(reason.unwrap_or(Reason::Peer)), None, now),
            Stand::Cancelled => self.end(id, State::Cancelled, Some(Reason::Peer), None, now),
            Stand::Unknown => self.end(id, State::Failed, Some(Reason::Unknown), None, now),
        }
    }

    fn on_seal(&mut self, id: TransferId, seal: Vec<u8>, now: Instant) {
        let Some(incoming) = self.live.get_mut(&id) else { return };
        if !incoming.is_whole() || incoming.sealed || incoming.standing.state() == State::Offered {
            return;
        }
        let peer = incoming.standing.peer;
        let root = hash::root(incoming.offer.manifest(), &incoming.hashes);
        match Seal::decode(&seal, &incoming.offer) {
            Ok(seal) if seal.root() == root => {
                incoming.standing.root = Some(root);
                incoming.sealed = true;
                self.advance(id, now);
            }
            Ok(_) => {
                self.fault(peer, FaultKind::InvalidSeal);
                self.end(id, State::Failed, Some(Reason::WrongSeal), None, now);
            }
            Err(_) => self.fault(peer, FaultKind::InvalidSeal),
        }
    }

    fn on_verified(&mut self, get: GetId, first: u64, hashes: Vec<Hash>, now: Instant) {
        let Some(&id) = self.gets.get(&get) else { return };
        let Some(incoming) = self.live.get_mut(&id) else { return };
        let Some(range) = incoming.spans.get(&get).map(|span| span.range.clone()) else { return };
        for (index, hash) in (first..).zip(hashes) {
            if range.contains(&index) {
                incoming.verify(index, hash);
            }
        }
        incoming.trouble = None;
        incoming.failures = 0;
        incoming.retry_at = None;
        incoming.touch(now + self.config.progress_interval);
        self.advance(id, now);
    }

    fn on_moved(&mut self, get: GetId, bytes: u64, waited: Option<Duration>, now: Instant) {
        let Some(incoming) = self.gets.get(&get).and_then(|id| self.live.get_mut(id)) else { return };
        let id = incoming.standing.id;
        incoming.standing.moved(bytes, now);
        incoming.moved += bytes;
        if let Some(waited) = waited {
            let smoothed = incoming.standing.rtt.map_or(waited, |rtt| (rtt * 7 + waited) / 8);
            incoming.standing.rtt = Some(smoothed);
        }
        incoming.touch(now + self.config.progress_interval);
        if incoming.trouble == Some(Reason::Stalled) {
            incoming.trouble = None;
            self.advance(id, now);
        }
    }

    fn on_ended(&mut self, get: GetId, ending: Ending, now: Instant) {
        let Some(id) = self.gets.remove(&get) else { return };
        let Some(incoming) = self.live.get_mut(&id) else { return };
        let Some(span) = incoming.end_span(get) else { return };
        self.scheduler.ended(incoming.number);
        let peer = incoming.standing.peer;
        if ending == Ending::Complete && span.range.clone().all(|index| incoming.chunks.is_verified(index)) {
            return self.advance(id, now);
        }
        incoming.standing.retries += 1;
        match ending {
            Ending::Refused(Refusal::Paused) => incoming.peer_paused = true,
            // The sender says why, on the other stream. Should that be lost, it is asked.
            Ending::Refused(Refusal::Over | Refusal::Unknown) => {
                self.back_off(id, None, now);
                self.say(id);
            }
            Ending::Corrupt(index) => {
                let times = incoming.bad.entry(index).or_default();
                *times += 1;
                let enough = *times >= self.config.max_bad_chunks;
                self.fault(peer, FaultKind::CorruptChunk);
                if enough {
                    return self.end(id, State::Failed, Some(Reason::Corrupt), None, now);
                }
            }
            Ending::Stalled => self.back_off(id, Some(Reason::Stalled), now),
            Ending::Disk(StoreError::Full) => self.back_off(id, Some(Reason::DiskFull), now),
            Ending::Disk(error) => {
                return self.end(id, State::Failed, Some(Reason::Disk), Some(error.to_string()), now);
            }
            Ending::Complete | Ending::Broken | Ending::Refused(Refusal::Busy) => self.back_off(id, None, now),
        }
        self.advance(id, now);
    }

    fn on_finished(&mut self, id: TransferId, result: Result<String, StoreError>, now: Instant) {
        let Some(incoming) = self.live.get_mut(&id) else { return };
        incoming.finishing = false;
        match result {
            Ok(path) => {
                incoming.standing.path = Some(path);
                self.end(id, State::Completed, None, None, now);
            }
            Err(StoreError::Full) => {
                self.back_off(id, Some(Reason::DiskFull), now);
                self.advance(id, now);
            }
            Err(error) => self.end(id, State::Failed, Some(Reason::Disk), Some(error.to_string()), now),
        }
    }

    /// Wait before the next attempt, longer each time.
    fn back_off(&mut self, id: TransferId, trouble: Option<Reason>, now: Instant) {
        let Some(incoming) = self.live.get_mut(&id) else { return };
        incoming.failures = incoming.failures.saturating_add(1);
        // What broke so often without one chunk between is as good as stalled.
        let broken = (incoming.failures >= incoming::MANY_FAILURES).then_some(Reason::Stalled);
        incoming.trouble = trouble.or(incoming.trouble).or(broken);
        let doubled = 2_u32.saturating_pow(incoming.failures.min(16) - 1);
        let pause = self.config.retry_initial.saturating_mul(doubled).min(self.config.retry_max);
        incoming.retry_at = Some(now + pause.mul_f64(self.rng.random_range(0.5..=1.0)));
    }

    /// Find out how it stands, and go on.
    fn advance(&mut self, id: TransferId, now: Instant) {
        let Some(incoming) = self.live.get_mut(&id) else { return };
        if incoming.standing.state() == State::Offered {
            return;
        }
        let linked = self.up.contains(&incoming.standing.peer);
        let (state, reason) = incoming.due_state(linked);
        let changed = incoming.standing.set(state, reason, now);
        if incoming.retry_at.is_some_and(|at| at <= now) {
            incoming.retry_at = None;
        }
        let held = incoming.paused_here || incoming.peer_paused || !linked;
        let finish = (incoming.sealed && !incoming.finishing && incoming.retry_at.is_none())
            .then_some(incoming.standing.root)
            .flatten();
        incoming.finishing |= finish.is_some();
        let wants_seal =
            incoming.is_whole() && !incoming.sealed && !held && incoming.seal_at.is_none_or(|at| at <= now);
        if wants_seal {
            incoming.seal_at = Some(now + self.config.answer_timeout);
        }
        if held && incoming.spans.is_empty() {
            incoming.seal_at = None;
        }
        let lanes = match (incoming.trouble, incoming.standing.plan.lanes) {
            (Some(_), _) => 1,
            (None, 0) => self.config.in_flight,
            (None, lanes) => lanes,
        };
        let wants = !held && incoming.retry_at.is_none() && !incoming.is_whole();
        self.scheduler.set(incoming.number, wants, lanes);
        if held && linked {
            self.drop_spans(id, true);
        }
        if let Some(root) = finish {
            self.outputs.push_back(Output::Finish { id, root });
        }
        if changed || wants_seal {
            self.say(id);
        }
        if changed {
            self.update(&id, now);
        }
    }

    /// Ask for spans, as long as somebody may.
    fn ask(&mut self, now: Instant) {
        while let Some((number, id)) = self.scheduler.next() {
            let Some(incoming) = self.live.get_mut(&id) else { return self.scheduler.remove(number) };
            let Some(range) = incoming.next_span(self.config.span, now) else {
                self.scheduler.set(number, false, 1);
                continue;
            };
            self.next_get += 1;
            let get = GetId(self.next_get);
            let bytes = incoming.offer.manifest().length_of(range.clone());
            incoming.standing.in_flight += bytes;
            incoming.spans.insert(get, Span { range: range.clone(), bytes });
            self.scheduler.begun(number);
            self.gets.insert(get, id);
            let (peer, offer) = (incoming.standing.peer, incoming.offer.clone());
            let count = (range.end - range.start) as u32;
            self.outputs.push_back(Output::Get { get, peer, offer, first: range.start, count });
        }
    }
}
