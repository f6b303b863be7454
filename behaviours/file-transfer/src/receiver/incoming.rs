//! One transfer that comes in, and what is common to the end of all.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Instant;

use libp2p::PeerId;

use super::{GetId, Output, Receiver};
use crate::chunks::Chunks;
use crate::fault::FaultKind;
use crate::hash::Hash;
use crate::manifest::{CHUNK, Offer, TransferId};
use crate::protocol::{Frame, MAX_SPAN, MAX_SPAN_CHUNKS, Status};
use crate::record::{Reason, State};
use crate::standing::Standing;

/// Failed spans in a row after which people should know.
pub(super) const MANY_FAILURES: u32 = 5;

/// A transfer that is not over.
pub(super) struct Incoming {
    pub(super) number: u64,
    pub(super) offer: Offer,
    pub(super) standing: Standing,
    pub(super) chunks: Chunks,
    pub(super) hashes: Vec<Hash>,
    pub(super) spans: BTreeMap<GetId, Span>,
    /// How often each chunk came with a wrong hash. At most one entry for each failure allowed and chunk in flight.
    pub(super) bad: BTreeMap<u64, u32>,
    pub(super) paused_here: bool,
    pub(super) peer_paused: bool,
    /// Stalled, or no room: it is tried again with one span.
    pub(super) trouble: Option<Reason>,
    pub(super) failures: u32,
    pub(super) retry_at: Option<Instant>,
    /// The seal was right.
    pub(super) sealed: bool,
    /// The disk was asked to finish.
    pub(super) finishing: bool,
    pub(super) seal_at: Option<Instant>,
    /// Bytes that came in this run.
    pub(super) moved: u64,
    pub(super) report_at: Option<Instant>,
    /// The highest serial heard on this link.
    pub(super) heard: u64,
}

/// What one request asks for.
pub(super) struct Span {
    pub(super) range: Range<u64>,
    pub(super) bytes: u64,
}

impl Incoming {
    pub(super) fn new(number: u64, offer: Offer, standing: Standing) -> Self {
        let chunks = Chunks::new(offer.manifest().chunks());
        Self {
            number,
            standing,
            hashes: Vec::new(),
            chunks,
            offer,
            spans: BTreeMap::new(),
            bad: BTreeMap::new(),
            paused_here: false,
            peer_paused: false,
            trouble: None,
            failures: 0,
            retry_at: None,
            sealed: false,
            finishing: false,
            seal_at: None,
            moved: 0,
            report_at: None,
            heard: 0,
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.chunks.is_whole()
    }

    pub(super) fn verify(&mut self, index: u64, hash: Hash) {
        let Some(chunk) = self.offer.manifest().chunk(index) else { return };
        if self.hashes.is_empty() {
            // Only for what was accepted: an offer alone costs nothing.
            self.hashes = vec![Hash([0; 32]); self.chunks.total() as usize];
        }
        if self.chunks.verify(index) {
            self.hashes[index as usize] = hash;
            self.standing.bytes += u64::from(chunk.length);
            self.standing.chunks = self.chunks.count();
        }
        self.bad.remove(&index);
    }

    pub(super) fn end_span(&mut self, get: GetId) -> Option<Span> {
        let span = self.spans.remove(&get)?;
        self.chunks.release(span.range.clone());
        self.standing.in_flight = self.standing.in_flight.saturating_sub(span.bytes);
        Some(span)
    }

    /// The next range to ask for: half a second's worth, so that little is lost when the link is slow.
    pub(super) fn next_span(&mut self, most: u64, now: Instant) -> Option<Range<u64>> {
        let half_second = (self.standing.rate(now) / 2.0) as u64;
        let bytes = half_second.clamp(CHUNK, most.clamp(CHUNK, MAX_SPAN));
        let manifest = self.offer.manifest();
        let length = |index| manifest.chunk(index).map_or(0, |chunk| u64::from(chunk.length));
        let range = self.chunks.next_span(MAX_SPAN_CHUNKS, bytes, length)?;
        self.chunks.take(range.clone());
        Some(range)
    }

    /// How it stands by what is known.
    pub(super) fn due_state(&self, linked: bool) -> (State, Option<Reason>) {
        let paused = if self.paused_here {
            Some(Reason::Here)
        } else if !linked {
            Some(Reason::NotConnected)
        } else if self.peer_paused {
            Some(Reason::Peer)
        } else {
            self.trouble
        };
        (if paused.is_some() { State::Paused } else { State::Active }, paused)
    }

    /// Forget all waiting.
    pub(super) fn try_now(&mut self) {
        self.failures = 0;
        self.retry_at = None;
        self.seal_at = None;
        self.trouble = None;
    }

    /// Something moved: it is told at that time, if not before.
    pub(super) fn touch(&mut self, at: Instant) {
        self.report_at.get_or_insert(at);
    }

    /// The earliest time at which something is to be done.
    pub(super) fn timer(&self) -> Option<Instant> {
        let seal_at = self.seal_at.filter(|_| self.is_whole() && !self.sealed);
        [self.retry_at, self.report_at, seal_at].into_iter().flatten().min()
    }

    pub(super) fn status(&self) -> Status {
        match self.standing.state() {
            State::Offered => Status::Offered,
            State::Completed => Status::Completed,
            State::Failed => Status::Failed,
            State::Rejected => Status::Rejected,
            State::Cancelled => Status::Cancelled,
            State::Active | State::Paused if self.is_whole() => Status::Verified,
            State::Active => Status::Accepted,
            State::Paused => Status::Paused,
        }
    }
}

impl Receiver {
    pub(super) fn offered(&mut self, id: &TransferId) -> Result<&mut Incoming, Option<State>> {
        match self.live.get(id).map(|incoming| incoming.standing.state()) {
            Some(State::Offered) => self.live.get_mut(id).ok_or(None),
            Some(state) => Err(Some(state)),
            None => Err(self.state_of(id)),
        }
    }

    pub(super) fn accepted(&mut self, id: &TransferId) -> Result<&mut Incoming, Option<State>> {
        match self.live.get(id).map(|incoming| incoming.standing.state()) {
            Some(State::Offered) => Err(Some(State::Offered)),
            Some(_) => self.live.get_mut(id).ok_or(None),
            None => Err(self.state_of(id)),
        }
    }

    pub(super) fn state_of(&self, id: &TransferId) -> Option<State> {
        self.finished.get(id).map(|(_, standing)| standing.state())
    }

    pub(super) fn of_peer(&self, peer: &PeerId) -> Vec<TransferId> {
        let live = self.live.iter().filter(|(_, incoming)| incoming.standing.peer == *peer);
        live.map(|(id, _)| *id).collect()
    }

    pub(super) fn number(&mut self) -> u64 {
        self.next_number += 1;
        self.next_number
    }

    /// The end of a transfer, whatever it is.
    pub(super) fn end(
        &mut self,
        id: TransferId,
        state: State,
        reason: Option<Reason>,
        detail: Option<String>,
        now: Instant,
    ) {
        self.drop_spans(id, true);
        let Some(mut incoming) = self.live.remove(&id) else { return };
        self.scheduler.remove(incoming.number);
        incoming.standing.detail = detail;
        incoming.standing.set(state, reason, now);
        let (number, peer) = (incoming.number, incoming.standing.peer);
        self.finished.insert(id, (number, incoming.standing));
        if state != State::Completed {
            self.outputs.push_back(Output::Discard { id });
        }
        self.save(&id, now);
        self.update(&id, now);
        if self.up.contains(&peer) {
            self.say(id);
        }
        while self.finished.len() > self.config.max_finished {
            let oldest = self.finished.iter().min_by_key(|(_, (number, _))| *number).map(|(id, _)| *id);
            let Some((_, standing)) = oldest.and_then(|id| self.finished.remove(&id)) else { break };
            self.outputs.push_back(Output::Forgotten { id: standing.id, peer: standing.peer });
        }
    }

    /// What is in flight will not come.
    pub(super) fn drop_spans(&mut self, id: TransferId, abort: bool) {
        let Some(incoming) = self.live.get_mut(&id) else { return };
        let number = incoming.number;
        for get in incoming.spans.keys().copied().collect::<Vec<_>>() {
            incoming.end_span(get);
            self.gets.remove(&get);
            self.scheduler.ended(number);
            if abort {
                self.outputs.push_back(Output::Abort { get });
            }
        }
    }

    fn standing(&self, id: &TransferId) -> Option<&Standing> {
        let live = self.live.get(id).map(|incoming| &incoming.standing);
        live.or_else(|| self.finished.get(id).map(|(_, standing)| standing))
    }

    pub(super) fn save(&mut self, id: &TransferId, now: Instant) {
        let record = self.standing(id).map(|standing| standing.record(now));
        self.outputs.extend(record.map(Output::Save));
    }

    pub(super) fn update(&mut self, id: &TransferId, now: Instant) {
        let snapshot = self.standing(id).map(|standing| standing.snapshot(now));
        self.outputs.extend(snapshot.map(Output::Update));
    }

    /// Tell people and the sender what has moved, when it is time.
    pub(super) fn report(&mut self, id: TransferId, now: Instant) {
        let Some(incoming) = self.live.get_mut(&id) else { return };
        if incoming.report_at.is_some_and(|at| at <= now) {
            incoming.report_at = None;
            self.update(&id, now);
            self.say(id);
        }
    }

    /// Tell the sender how it stands.
    pub(super) fn say(&mut self, id: TransferId) {
        let (status, moved) = match (self.live.get(&id), self.finished.get(&id)) {
            (Some(incoming), _) => (incoming.status(), incoming.moved),
            (None, Some((_, standing))) => match standing.state() {
                State::Completed => (Status::Completed, 0),
                State::Rejected => (Status::Rejected, 0),
                State::Cancelled => (Status::Cancelled, 0),
                _ => (Status::Failed, 0),
            },
            (None, None) => return,
        };
        let Some(standing) = self.standing(&id) else { return };
        let (to, chunks, bytes) = (standing.peer, standing.chunks, standing.bytes);
        // What is particular to this end is not told as it is: "here" is the other end there.
        let reason = standing.reason().filter(|reason| !matches!(reason, Reason::Here | Reason::Peer));
        if !self.up.contains(&to) {
            return;
        }
        self.next_serial += 1;
        let serial = self.next_serial;
        let frame = Frame::Status { transfer: id, serial, status, reason, chunks, bytes, moved };
        self.outputs.push_back(Output::Send { to, frame });
    }

    pub(super) fn say_unknown(&mut self, to: PeerId, id: TransferId) {
        self.refuse(to, id, Status::Unknown, None);
    }

    pub(super) fn refuse(&mut self, to: PeerId, id: TransferId, status: Status, reason: Option<Reason>) {
        self.next_serial += 1;
        let serial = self.next_serial;
        let frame = Frame::Status { transfer: id, serial, status, reason, chunks: 0, bytes: 0, moved: 0 };
        self.outputs.push_back(Output::Send { to, frame });
    }

    pub(super) fn fault(&mut self, peer: PeerId, kind: FaultKind) {
        self.outputs.push_back(Output::Fault { peer, kind });
    }
}
