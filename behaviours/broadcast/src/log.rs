//! What is held of each author, and in which order it goes to the user.
//!
//! A broadcast passes these gates, in this order: its form; whether its place is taken or was passed (no signature is
//! looked at for that, so each distinct broadcast is verified at most once); how far it lies ahead; its signature. Then
//! it is held for the neighbours, and given to the user as soon as everything before it was given to him, or was given up.

mod stream;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use libp2p::PeerId;
use serde_bytes::ByteBuf;

use crate::config::Config;
use crate::envelope::{BroadcastId, Envelope, EnvelopeError, MAX_NUMBER, same_payload, verify};
use crate::protocol::{
    FaultKind, MAX_ANSWER_ENVELOPE_BYTES, MAX_ANSWER_ENVELOPES, MAX_DIGEST_STREAMS, MAX_FETCH_RANGES, Range,
    StreamDigest, StreamId,
};
use stream::{Held, Stream};

/// What gossipsub is to do with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Hand it on.
    Accept,
    /// Neither hand it on nor blame anybody: known already, too far ahead, or above the rate.
    Ignore,
    /// A provable lie of whoever handed it on.
    Reject,
}

/// How a broadcast came here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Through gossipsub.
    Gossip,
    /// As the answer to a question of ours.
    Sync,
}

/// What became of a broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is verified, new and held.
    New,
    /// It was held already, by sync, and was never handed on.
    NotYetRelayed,
    /// Known: held, or passed.
    Known,
    /// Ignored, because it lies too far ahead.
    TooFar,
    /// A provable lie of whoever handed it on.
    Lie(FaultKind),
}

/// Counts since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Signatures looked at.
    pub verified: u64,
    /// Copies of what was known.
    pub duplicates: u64,
    /// Broadcasts given to the user.
    pub delivered: u64,
    /// Lies.
    pub rejected: u64,
    /// Not looked at, because above the rate or too far ahead.
    pub ignored: u64,
    /// Broadcasts held now.
    pub held: usize,
    /// Bytes of envelopes held now.
    pub held_bytes: usize,
}

/// What a log wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Give it to the user and put it on disk. In each author's order, but for one that fills an [`Output::Gap`].
    Received {
        /// The broadcast.
        envelope: Envelope,
        /// Its bytes.
        bytes: Arc<[u8]>,
        /// The neighbour that handed it over.
        via: PeerId,
        /// Sent before this node ran for the first time.
        backlog: bool,
    },
    /// These were not to be had in time; what follows is shown without them. Told once. Should one turn up later, it is
    /// given to the user all the same.
    Gap {
        /// Which author and epoch.
        stream: StreamId,
        /// The first missing sequence number.
        from: u64,
        /// The last one.
        to: u64,
    },
    /// Something waits behind a gap from now on.
    Waiting {
        /// Who handed it over.
        via: PeerId,
    },
    /// A peer broke the protocol.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
        /// The envelopes that prove it.
        evidence: Vec<Arc<[u8]>>,
    },
}

/// The broadcasts of all authors.
#[derive(Debug)]
pub struct Log {
    config: Config,
    streams: BTreeMap<StreamId, Stream>,
    /// Everything held, oldest first: the author's time or the arrival, whichever is earlier, in ms since 1970 (UTC).
    by_age: BTreeSet<(u64, StreamId, u64)>,
    /// All streams, longest silent first.
    by_use: BTreeSet<(u64, StreamId)>,
    uses: u64,
    /// Until when streams wait for what is missing.
    deadlines: BTreeSet<(Instant, StreamId)>,
    /// Set in the first life of a node: what neighbours hand over from before then is backlog.
    newcomer_since_ms: Option<u64>,
    digests: usize,
    outputs: VecDeque<Output>,
    stats: Stats,
}

impl Log {
    /// An empty log.
    pub fn new(config: Config) -> Self {
        Self {
            config,
            streams: BTreeMap::new(),
            by_age: BTreeSet::new(),
            by_use: BTreeSet::new(),
            uses: 0,
            deadlines: BTreeSet::new(),
            newcomer_since_ms: None,
            digests: 0,
            outputs: VecDeque::new(),
            stats: Stats::default(),
        }
    }

    /// From now on, what neighbours hand over from before `wall_ms` (milliseconds since 1970, UTC) is backlog.
    pub fn set_newcomer(&mut self, wall_ms: u64) {
        self.newcomer_since_ms = Some(wall_ms);
    }

    /// Take back what is on the own disk, which was verified and shown before, each author's lowest number first. What
    /// cannot be read is left out.
    pub fn restore(&mut self, bytes: Arc<[u8]>, wall_ms: u64) {
        let Ok(envelope) = Envelope::decode_trusted(&bytes) else {
            tracing::warn!("a broadcast on disk cannot be read");
            return;
        };
        let id = StreamId { author: envelope.author, epoch: envelope.epoch };
        self.open(id, 0);
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if stream.held.contains_key(&envelope.sequence) {
            return;
        }
        stream.restore(envelope.sequence);
        self.hold(id, envelope.sequence, envelope.sent_at_ms.min(wall_ms), Held::settled(bytes));
        self.prune(wall_ms);
    }

    /// Hold an own broadcast; it is shown to nobody here.
    pub fn add_own(&mut self, id: BroadcastId, bytes: Arc<[u8]>, sent_at_ms: u64, now: Instant) {
        let stream_id = StreamId { author: id.author, epoch: id.epoch };
        self.open(stream_id, id.sequence - 1);
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        if stream.is_passed(id.sequence) || stream.held.contains_key(&id.sequence) {
            return;
        }
        stream.fill(id.sequence);
        self.hold(stream_id, id.sequence, sent_at_ms, Held::settled(bytes));
        self.advance(stream_id, now);
        self.prune(sent_at_ms);
    }

    /// The highest sequence number known of a stream, 0 for none.
    pub fn highest(&self, id: StreamId) -> u64 {
        let Some(stream) = self.streams.get(&id) else { return 0 };
        let held = stream.held.last_key_value().map_or(0, |(&sequence, _)| sequence);
        held.max(stream.frontier)
    }

    /// A neighbour handed over a broadcast. `wall_ms` is the own clock, in milliseconds since 1970 (UTC).
    pub fn hear(&mut self, via: PeerId, bytes: &[u8], source: Source, wall_ms: u64, now: Instant) -> Heard {
        let heard = self.judge(via, bytes, source, wall_ms, now);
        match heard {
            Heard::New => {}
            Heard::NotYetRelayed | Heard::Known => self.stats.duplicates += 1,
            Heard::TooFar => self.stats.ignored += 1,
            Heard::Lie(kind) => {
                self.stats.rejected += 1;
                self.outputs.push_back(Output::Fault { peer: via, kind, evidence: vec![bytes.into()] });
            }
        }
        heard
    }

    fn judge(&mut self, via: PeerId, bytes: &[u8], source: Source, wall_ms: u64, now: Instant) -> Heard {
        let envelope = match Envelope::decode_trusted(bytes) {
            Ok(envelope) => envelope,
            Err(error) => return Heard::Lie(lie(&error)),
        };
        let id = StreamId { author: envelope.author, epoch: envelope.epoch };
        let sequence = envelope.sequence;
        if let Some(stream) = self.streams.get_mut(&id) {
            if let Some(held) = stream.held.get_mut(&sequence) {
                if *held.bytes == *bytes {
                    if source == Source::Gossip && !std::mem::replace(&mut held.relayed, true) {
                        return Heard::NotYetRelayed;
                    }
                    return Heard::Known;
                }
                return self.judge_rival(id, sequence, bytes);
            }
            if stream.is_passed(sequence) {
                return Heard::Known;
            }
            if source == Source::Gossip && sequence > stream.frontier.saturating_add(self.config.max_jump) {
                return Heard::TooFar;
            }
        }
        self.stats.verified += 1;
        if let Err(error) = verify(bytes) {
            return Heard::Lie(lie(&error));
        }
        self.take(envelope, bytes.into(), via, source, wall_ms, now);
        Heard::New
    }

    /// Other bytes for a place that is taken. The first ones stay. One proof a stream is enough, so after it no further
    /// signature is looked at.
    fn judge_rival(&mut self, id: StreamId, sequence: u64, bytes: &[u8]) -> Heard {
        let Some(stream) = self.streams.get_mut(&id).filter(|stream| !stream.has_rivals) else { return Heard::Known };
        let Some(held) = stream.held.get(&sequence) else { return Heard::Known };
        self.stats.verified += 1;
        if let Err(error) = verify(bytes) {
            return Heard::Lie(lie(&error));
        }
        stream.has_rivals = true;
        // Who hands a rival on does not know of the other. To sign the same words twice is odd, but no lie.
        if !same_payload(&held.bytes, bytes) {
            let evidence = vec![held.bytes.clone(), bytes.into()];
            let (peer, kind) = (id.author, FaultKind::Equivocation);
            self.outputs.push_back(Output::Fault { peer, kind, evidence });
        }
        Heard::Known
    }

    fn take(&mut self, envelope: Envelope, bytes: Arc<[u8]>, via: PeerId, source: Source, wall_ms: u64, now: Instant) {
        let id = StreamId { author: envelope.author, epoch: envelope.epoch };
        let sequence = envelope.sequence;
        let retention_ms = millis(self.config.retention);
        // Neighbours' clocks differ a little; far older ones would go round for ever.
        let oldest = wall_ms.saturating_sub(retention_ms.saturating_add(retention_ms / 24));
        let too_old = source == Source::Sync && envelope.sent_at_ms < oldest;
        let backlog = source == Source::Sync && self.newcomer_since_ms.is_some_and(|since| envelope.sent_at_ms < since);
        self.open(id, 0);
        // A neighbour has it, and with it nothing nearer: what lies before the jump is not to be had any more.
        let reach = sequence.saturating_sub(1).saturating_sub(self.config.max_jump);
        if self.streams.get(&id).is_some_and(|stream| stream.frontier < reach) {
            self.give_up(id, reach, now);
        }
        let basis = envelope.sent_at_ms.min(wall_ms);
        let pending = stream::Pending { envelope, via, backlog, quiet: too_old, since: now };
        let relayed = source == Source::Gossip;
        self.hold(id, sequence, basis, Held { bytes, relayed, basis, pending: Some(Box::new(pending)) });
        let late = self.streams.get_mut(&id).is_some_and(|stream| {
            let late = sequence <= stream.frontier;
            if late {
                stream.fill(sequence);
            }
            late
        });
        if late {
            self.show(id, sequence);
        }
        self.advance(id, now);
        self.prune(wall_ms);
    }

    /// Give up what waits for too long, and forget what is too old.
    pub fn handle_timeout(&mut self, wall_ms: u64, now: Instant) {
        while let Some(&(at, id)) = self.deadlines.first() {
            if at > now {
                break;
            }
            let patience = self.config.gap_patience;
            let Some(stream) = self.streams.get(&id) else {
                self.deadlines.remove(&(at, id));
                continue;
            };
            // Everything that has waited long enough; at least the first, or the deadline would stand.
            let waiting = stream.held.range(stream.frontier.saturating_add(1)..);
            let first = waiting.clone().next().map(|(&sequence, _)| sequence);
            let overdue = waiting
                .filter(|(_, held)| held.pending.as_ref().is_some_and(|pending| pending.since + patience <= now))
                .map(|(&sequence, _)| sequence)
                .next_back();
            match overdue.or(first) {
                Some(sequence) => self.give_up(id, sequence - 1, now),
                None => self.set_deadline(id, None),
            }
        }
        self.prune(wall_ms);
    }

    /// When to call [`Log::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// The next thing wanted; ask until `None` after every call that takes `&mut self`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Whether something waits behind a gap.
    pub fn is_waiting(&self) -> bool {
        !self.deadlines.is_empty()
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    pub(crate) fn count_ignored(&mut self) {
        self.stats.ignored += 1;
    }

    /// What is held, of the streams behind `after`; and whether there is more behind these.
    pub fn digest(&mut self, after: Option<StreamId>) -> (Vec<StreamDigest>, bool) {
        self.digests = self.digests.wrapping_add(1);
        let behind = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let mut streams = Vec::new();
        let rows = self.streams.range((behind, std::ops::Bound::Unbounded));
        for (id, stream) in rows.filter(|(_, stream)| !stream.held.is_empty()) {
            if streams.len() == MAX_DIGEST_STREAMS {
                return (streams, true);
            }
            streams.push(StreamDigest { author: id.author, epoch: id.epoch, have: stream.ranges(self.digests) });
        }
        (streams, false)
    }

    /// What of a neighbour's digest is missing here, at most [`MAX_FETCH_RANGES`] ranges.
    pub fn lacks(&self, streams: &[StreamDigest]) -> Vec<Range> {
        let mut lacks = Vec::new();
        for digest in streams {
            let id = StreamId { author: digest.author, epoch: digest.epoch };
            for &(from, to) in &digest.have {
                if from == 0 || from > to || to > MAX_NUMBER || id.epoch > MAX_NUMBER {
                    continue;
                }
                match self.streams.get(&id) {
                    Some(stream) => stream.missing(from, to, MAX_FETCH_RANGES, |from, to| {
                        lacks.push(Range { author: id.author, epoch: id.epoch, from, to });
                    }),
                    None => lacks.push(Range { author: id.author, epoch: id.epoch, from, to }),
                }
                if lacks.len() >= MAX_FETCH_RANGES {
                    lacks.truncate(MAX_FETCH_RANGES);
                    return lacks;
                }
            }
        }
        lacks
    }

    /// The envelopes of these ranges, as many as one answer takes; and whether there were more.
    pub fn fetch(&self, ranges: &[Range]) -> (Vec<ByteBuf>, bool) {
        let mut envelopes = Vec::new();
        let mut bytes = 0;
        for range in ranges.iter().filter(|range| range.from <= range.to) {
            let id = StreamId { author: range.author, epoch: range.epoch };
            let Some(stream) = self.streams.get(&id) else { continue };
            for held in stream.held.range(range.from..=range.to).map(|(_, held)| held) {
                bytes += held.bytes.len();
                if envelopes.len() == MAX_ANSWER_ENVELOPES || bytes > MAX_ANSWER_ENVELOPE_BYTES {
                    return (envelopes, true);
                }
                envelopes.push(ByteBuf::from(held.bytes.to_vec()));
            }
        }
        (envelopes, false)
    }

    /// Make sure that the stream exists and is the latest used. A new one begins behind `frontier`.
    fn open(&mut self, id: StreamId, frontier: u64) {
        if !self.streams.contains_key(&id) && self.streams.len() >= self.config.max_streams {
            self.forget_a_stream();
        }
        self.uses += 1;
        let stream = self.streams.entry(id).or_insert_with(|| Stream::new(frontier));
        self.by_use.remove(&(stream.used, id));
        stream.used = self.uses;
        self.by_use.insert((stream.used, id));
    }

    fn forget_a_stream(&mut self) {
        let empty = |id: &StreamId| self.streams.get(id).is_none_or(|stream| stream.held.is_empty());
        let victim = self.by_use.iter().find(|(_, id)| empty(id)).or(self.by_use.first()).copied();
        let Some((used, id)) = victim else { return };
        // What still waits in it is shown first; nothing that was verified is lost silently.
        self.flush(id);
        self.set_deadline(id, None);
        self.by_use.remove(&(used, id));
        for (sequence, held) in self.streams.remove(&id).map(|stream| stream.held).unwrap_or_default() {
            self.by_age.remove(&(held.basis, id, sequence));
            self.stats.held -= 1;
            self.stats.held_bytes -= held.bytes.len();
        }
    }

    fn hold(&mut self, id: StreamId, sequence: u64, basis: u64, mut held: Held) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        held.basis = basis;
        self.stats.held += 1;
        self.stats.held_bytes += held.bytes.len();
        self.by_age.insert((basis, id, sequence));
        stream.held.insert(sequence, held);
    }

    /// Forget the oldest until all bounds hold.
    fn prune(&mut self, wall_ms: u64) {
        let oldest = wall_ms.saturating_sub(millis(self.config.retention));
        while let Some(&(basis, id, sequence)) = self.by_age.first() {
            let full =
                self.stats.held > self.config.retained_messages || self.stats.held_bytes > self.config.retained_bytes;
            let waits = self.streams.get(&id).and_then(|stream| stream.held.get(&sequence));
            let waits = waits.is_some_and(|held| held.pending.is_some());
            if !full && (basis >= oldest || waits) {
                return;
            }
            if waits {
                self.flush_to(id, sequence);
            }
            self.by_age.pop_first();
            if let Some(held) = self.streams.get_mut(&id).and_then(|stream| stream.held.remove(&sequence)) {
                self.stats.held -= 1;
                self.stats.held_bytes -= held.bytes.len();
            }
        }
    }

    fn flush(&mut self, id: StreamId) {
        let last = self.streams.get(&id).and_then(|stream| stream.held.last_key_value()).map(|(&last, _)| last);
        if let Some(last) = last {
            self.flush_to(id, last);
        }
    }

    /// Show everything up to `sequence`, whatever is missing before it.
    fn flush_to(&mut self, id: StreamId, sequence: u64) {
        self.pass(id, sequence - 1);
        self.drain(id);
        let waits = self.streams.get(&id).is_some_and(Stream::waits);
        if !waits {
            self.set_deadline(id, None);
        }
    }

    /// Do not wait for anything up to `upto` any more.
    fn give_up(&mut self, id: StreamId, upto: u64, now: Instant) {
        self.pass(id, upto);
        self.drain(id);
        let patience = self.config.gap_patience;
        let stream = self.streams.get(&id).filter(|stream| stream.waits());
        let since = stream.map(|stream| stream.waits_since().unwrap_or(now));
        self.set_deadline(id, since.map(|since| (since + patience).max(now)));
    }

    /// Move the frontier to `upto`: show what is held, tell what is missing.
    fn pass(&mut self, id: StreamId, upto: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let silent = !stream.begun && self.newcomer_since_ms.is_some();
        let mut waiting = Vec::new();
        let mut gaps = Vec::new();
        let mut next = stream.frontier.saturating_add(1);
        for &sequence in stream.held.range(next..=upto.max(next)).map(|(sequence, _)| sequence) {
            if sequence > upto {
                break;
            }
            if sequence > next {
                gaps.push((next, sequence - 1));
            }
            waiting.push(sequence);
            next = sequence + 1;
        }
        if next <= upto {
            gaps.push((next, upto));
        }
        stream.frontier = stream.frontier.max(upto);
        for &(from, to) in &gaps {
            stream.lose(from, to);
        }
        // Each gap is told before what follows it is shown.
        let mut gaps = gaps.into_iter().peekable();
        let mut begun = !silent;
        for sequence in waiting {
            while let Some((from, to)) = gaps.next_if(|&(from, _)| from < sequence) {
                if begun {
                    self.outputs.push_back(Output::Gap { stream: id, from, to });
                }
            }
            begun = true;
            self.show(id, sequence);
        }
        for (from, to) in gaps {
            if begun {
                self.outputs.push_back(Output::Gap { stream: id, from, to });
            }
        }
    }

    /// Show what follows the frontier without a hole.
    fn drain(&mut self, id: StreamId) -> bool {
        let mut progress = false;
        while let Some(stream) = self.streams.get_mut(&id) {
            let Some(next) = stream.frontier.checked_add(1).filter(|next| stream.held.contains_key(next)) else {
                break;
            };
            stream.frontier = next;
            progress = true;
            self.show(id, next);
        }
        progress
    }

    /// After something was added: show what can be shown, wait for the rest.
    fn advance(&mut self, id: StreamId, now: Instant) {
        let progress = self.drain(id);
        let Some(stream) = self.streams.get(&id) else { return };
        let via = stream.held.last_key_value().and_then(|(_, held)| held.pending.as_ref()).map(|pending| pending.via);
        match (stream.waits(), stream.deadline) {
            (false, _) => self.set_deadline(id, None),
            (true, Some(_)) if !progress => {}
            (true, waited) => {
                self.set_deadline(id, Some(now + self.config.gap_patience));
                if let (None, Some(via)) = (waited, via) {
                    self.outputs.push_back(Output::Waiting { via });
                }
            }
        }
    }

    fn set_deadline(&mut self, id: StreamId, at: Option<Instant>) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        if let Some(old) = std::mem::replace(&mut stream.deadline, at) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(at) = at {
            self.deadlines.insert((at, id));
        }
    }

    fn show(&mut self, id: StreamId, sequence: u64) {
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some(held) = stream.held.get_mut(&sequence) else { return };
        let Some(pending) = held.pending.take() else { return };
        stream.begun = true;
        if !pending.quiet {
            self.stats.delivered += 1;
            let stream::Pending { envelope, via, backlog, .. } = *pending;
            self.outputs.push_back(Output::Received { envelope, bytes: held.bytes.clone(), via, backlog });
        }
    }
}

fn lie(error: &EnvelopeError) -> FaultKind {
    match error {
        EnvelopeError::Signature => FaultKind::Signature,
        _ => FaultKind::Malformed,
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
