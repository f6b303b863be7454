//! The one core: it judges what gossip brings, numbers and signs what is said here, and compares with the neighbours.
//!
//! One neighbour after the other is asked what it has: at once when its link comes up, when it says that it has news,
//! and when something waits behind a gap; else each in its turn. What is missing here is then fetched, one question in
//! flight at a time. What came in that way is told to the other neighbours as news, so that it crosses a long line of
//! nodes at the speed of the links. Nothing here reads a clock: `wall_ms` is the own wall clock in milliseconds since
//! 1970 (UTC), `now` the monotonic one.

mod rate;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::identity::Keypair;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::config::Config;
use crate::envelope::{BroadcastId, Envelope, EnvelopeError, Kind, claimed_id};
use crate::log::{self, Heard, Log, Source, Stats, Verdict};
use crate::protocol::{
    Answer, FaultKind, MAX_ANSWER_ENVELOPE_BYTES, MAX_ANSWER_ENVELOPES, MAX_DIGEST_RANGES, MAX_DIGEST_STREAMS,
    MAX_FETCH_RANGES, Question, Range, StreamDigest, StreamId,
};
use rate::Rates;

/// Least time between two comparisons with one neighbour.
const MIN_PULL: Duration = Duration::from_millis(250);

/// Wait after a neighbour's first failure; each further one doubles it, up to the sync interval.
const RETRY: Duration = Duration::from_secs(1);

/// How often another neighbour is asked while something waits behind a gap.
const HURRY: Duration = Duration::from_millis(500);

/// The name of a question of ours, never used twice in the life of a core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QuestionNumber(pub u64);

/// The name of a neighbour's question, given by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InboundNumber(pub u64);

/// What may happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// A link to that peer stands; it is a neighbour from now on.
    PeerUp {
        /// Who.
        peer: PeerId,
    },
    /// The last link to it is gone.
    PeerDown {
        /// Who.
        peer: PeerId,
    },
    /// A peer asks. It is answered by [`Output::Answer`] or [`Output::Refuse`].
    Asked {
        /// Who.
        peer: PeerId,
        /// The caller's name for it.
        request: InboundNumber,
        /// What.
        question: Question,
    },
    /// A neighbour has answered.
    Answered {
        /// Who.
        peer: PeerId,
        /// Which question.
        number: QuestionNumber,
        /// What.
        answer: Answer,
    },
    /// A question will not be answered.
    Failed {
        /// By whom.
        peer: PeerId,
        /// Which one.
        number: QuestionNumber,
    },
}

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put a question to a neighbour; tell what became of it.
    Ask {
        /// Whom.
        peer: PeerId,
        /// The question's name.
        number: QuestionNumber,
        /// What.
        question: Question,
    },
    /// Answer a question.
    Answer {
        /// Which one.
        request: InboundNumber,
        /// What.
        answer: Answer,
    },
    /// Let a question fail.
    Refuse {
        /// Which one.
        request: InboundNumber,
    },
    /// For the application: one of [`log::Output::Received`], [`log::Output::Gap`], [`log::Output::Fault`].
    Log(log::Output),
}

/// The broadcasts of all authors, and their comparison with the neighbours.
#[derive(Debug)]
pub struct Sync {
    keypair: Keypair,
    own: StreamId,
    config: Config,
    log: Log,
    neighbours: BTreeMap<PeerId, Neighbour>,
    rates: Rates,
    /// Whose turn it was last.
    turn: Option<PeerId>,
    next_turn: Option<Instant>,
    next_number: u64,
    rng: StdRng,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Neighbour {
    in_flight: Option<InFlight>,
    pull: Pull,
    /// When that comparison is due.
    pull_at: Instant,
    /// No comparison begins before.
    spaced_until: Instant,
    /// The page of its digest that is being fetched.
    digest: Vec<StreamDigest>,
    /// The next page begins behind this one.
    after: Option<StreamId>,
    /// Whether this comparison has brought anything new that is not backlog.
    has_brought: bool,
    /// It is to be told that there is news.
    tell: bool,
    failures: u32,
}

/// Whether a comparison is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Pull {
    No,
    /// Only as long as something waits behind a gap.
    IfWaiting,
    Yes,
}

#[derive(Debug)]
struct InFlight {
    number: QuestionNumber,
    asked: Asked,
    deadline: Instant,
}

#[derive(Debug)]
enum Asked {
    Digest,
    Fetch(Vec<Range>),
    News,
}

impl Sync {
    /// The core of the node with that key, in its life number `epoch`. The seed decides the jitter of turns only.
    pub fn new(keypair: Keypair, epoch: u64, config: Config, rng_seed: u64) -> Self {
        let own = StreamId { author: keypair.public().to_peer_id(), epoch };
        Self {
            keypair,
            own,
            log: Log::new(config.clone()),
            rates: Rates::new(&config),
            config,
            neighbours: BTreeMap::new(),
            turn: None,
            next_turn: None,
            next_number: 0,
            rng: StdRng::seed_from_u64(rng_seed),
            outputs: VecDeque::new(),
        }
    }

    /// Take back what is on the own disk, in any order; signatures are not looked at again, since they were before it
    /// was written. A `newcomer` has never heard anything: what neighbours hand over from before now is backlog.
    pub fn restore(&mut self, rows: impl IntoIterator<Item = Vec<u8>>, newcomer: bool, wall_ms: u64) {
        let mut rows: Vec<_> = rows.into_iter().map(|row| (claimed_id(&row).ok(), row)).collect();
        rows.sort_by_key(|(id, _)| *id);
        for (_, row) in rows {
            self.log.restore(row.into(), wall_ms);
        }
        if newcomer {
            self.log.set_newcomer(wall_ms);
        }
    }

    /// Say something: number it, sign it, hold it. Handing it to gossipsub is the caller's.
    ///
    /// # Errors
    /// A text, a name or a team label that is too long; nothing has changed then.
    pub fn publish(
        &mut self,
        kind: Kind,
        text: String,
        name: String,
        team: String,
        wall_ms: u64,
        now: Instant,
    ) -> Result<(BroadcastId, Arc<[u8]>), EnvelopeError> {
        let StreamId { author, epoch } = self.own;
        let sequence = self.next_sequence();
        let envelope = Envelope { author, epoch, sequence, sent_at_ms: wall_ms, name, team, kind, text };
        let bytes: Arc<[u8]> = envelope.sign(&self.keypair)?.into();
        let id = envelope.id();
        self.log.add_own(id, bytes.clone(), wall_ms, now);
        self.follow_log(now);
        Ok((id, bytes))
    }

    /// The number of the next own broadcast. Above all that is known of this epoch, even from others.
    pub fn next_sequence(&self) -> u64 {
        self.log.highest(self.own) + 1
    }

    /// Gossip brought this. What becomes of it is told by outputs; the verdict is for gossipsub.
    pub fn heard(&mut self, peer: PeerId, bytes: &[u8], wall_ms: u64, now: Instant) -> Verdict {
        if !self.rates.admits_gossip(peer, bytes.len(), now) {
            self.log.count_ignored();
            self.flood(peer, now);
            self.want_pull(peer, Pull::Yes, now + RETRY, now);
            return Verdict::Ignore;
        }
        let heard = self.log.hear(peer, bytes, Source::Gossip, wall_ms, now);
        if heard == Heard::TooFar {
            self.want_pull(peer, Pull::Yes, now, now);
        }
        self.follow_log(now);
        match heard {
            Heard::New | Heard::NotYetRelayed => Verdict::Accept,
            Heard::Known | Heard::TooFar => Verdict::Ignore,
            Heard::Lie(_) => Verdict::Reject,
        }
    }

    /// Tell what happened. Ask for outputs afterwards.
    pub fn handle_input(&mut self, input: Input, wall_ms: u64, now: Instant) {
        match input {
            Input::PeerUp { peer } => {
                self.neighbours.entry(peer).or_insert_with(|| Neighbour::new(now));
                self.want_pull(peer, Pull::Yes, now, now);
                if self.next_turn.is_none() {
                    self.set_next_turn(now);
                }
            }
            Input::PeerDown { peer } => {
                self.neighbours.remove(&peer);
                if self.neighbours.is_empty() {
                    self.next_turn = None;
                }
            }
            Input::Asked { peer, request, question } => self.on_question(peer, request, question, now),
            Input::Answered { peer, number, answer } => self.on_answer(peer, number, answer, wall_ms, now),
            Input::Failed { peer, number } => {
                if self.take_in_flight(peer, number).is_some() {
                    self.fail(peer, now);
                }
            }
        }
        self.follow_log(now);
    }

    /// Do what is due.
    pub fn handle_timeout(&mut self, wall_ms: u64, now: Instant) {
        self.log.handle_timeout(wall_ms, now);
        let late = |neighbour: &Neighbour| neighbour.in_flight.as_ref().is_some_and(|asked| asked.deadline <= now);
        let late: Vec<PeerId> = self.neighbours.iter().filter(|(_, it)| late(it)).map(|(&peer, _)| peer).collect();
        for peer in late {
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.in_flight = None;
            }
            self.fail(peer, now);
        }
        if self.next_turn.is_some_and(|at| at <= now) {
            let after = self.turn.and_then(|turn| {
                let behind = (std::ops::Bound::Excluded(turn), std::ops::Bound::Unbounded);
                self.neighbours.range(behind).next().map(|(&peer, _)| peer)
            });
            self.turn = after.or_else(|| self.neighbours.keys().next().copied());
            if let Some(peer) = self.turn {
                self.want_pull(peer, Pull::Yes, now, now);
            }
            self.set_next_turn(now);
        }
        let peers: Vec<PeerId> = self.neighbours.keys().copied().collect();
        for peer in peers {
            self.go_on(peer, now);
        }
        self.follow_log(now);
    }

    /// When to call [`Sync::handle_timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let neighbours = self.neighbours.values().filter_map(|neighbour| match &neighbour.in_flight {
            Some(asked) => Some(asked.deadline),
            None => (neighbour.pull != Pull::No).then_some(neighbour.due_at()),
        });
        neighbours.chain(self.log.poll_timeout()).chain(self.next_turn).min()
    }

    /// The next thing wanted; ask until `None` after every call that takes `&mut self`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Counts since the start.
    pub fn stats(&self) -> Stats {
        self.log.stats()
    }

    fn set_next_turn(&mut self, now: Instant) {
        let wait = if self.log.is_waiting() {
            HURRY
        } else {
            self.config.sync_interval.mul_f64(self.rng.random_range(0.75..1.0))
        };
        self.next_turn = (!self.neighbours.is_empty()).then_some(now + wait);
    }

    /// Take over what the log wants.
    fn follow_log(&mut self, now: Instant) {
        while let Some(output) = self.log.poll_output() {
            match output {
                log::Output::Waiting { via } => {
                    let at = now + self.config.gap_delay;
                    self.want_pull(via, Pull::IfWaiting, at, now);
                    // The others are asked as well, should this one not have it.
                    self.next_turn = self.next_turn.map(|next| next.min(at + HURRY));
                }
                output => self.outputs.push_back(Output::Log(output)),
            }
        }
    }

    /// Compare with that neighbour, at that time or as soon as possible afterwards.
    fn want_pull(&mut self, peer: PeerId, pull: Pull, at: Instant, now: Instant) {
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.pull_at = if neighbour.pull == Pull::No { at } else { neighbour.pull_at.min(at) };
            neighbour.pull = neighbour.pull.max(pull);
            self.go_on(peer, now);
        }
    }

    /// Put the next question to a neighbour, if it is time for one.
    fn go_on(&mut self, peer: PeerId, now: Instant) {
        let waiting = self.log.is_waiting();
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        if neighbour.in_flight.is_some() {
            return;
        }
        let lacks = self.log.lacks(&neighbour.digest);
        let (question, asked) = if !lacks.is_empty() {
            (Question::Fetch { ranges: lacks.clone() }, Asked::Fetch(lacks))
        } else if let Some(after) = neighbour.after.take() {
            neighbour.digest.clear();
            (Question::Digest { after: Some(after) }, Asked::Digest)
        } else {
            neighbour.digest = Vec::new();
            if std::mem::take(&mut neighbour.has_brought) {
                self.tell_others(peer, now);
            }
            let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
            if neighbour.pull == Pull::IfWaiting && !waiting {
                neighbour.pull = Pull::No;
            }
            if std::mem::take(&mut neighbour.tell) {
                (Question::News {}, Asked::News)
            } else if neighbour.pull != Pull::No && neighbour.due_at() <= now {
                neighbour.pull = Pull::No;
                neighbour.spaced_until = now + MIN_PULL;
                (Question::Digest { after: None }, Asked::Digest)
            } else {
                return;
            }
        };
        self.next_number += 1;
        let number = QuestionNumber(self.next_number);
        let deadline = now + self.config.request_timeout;
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.in_flight = Some(InFlight { number, asked, deadline });
        }
        self.outputs.push_back(Output::Ask { peer, number, question });
    }

    fn tell_others(&mut self, source: PeerId, now: Instant) {
        let others: Vec<PeerId> = self.neighbours.keys().copied().filter(|peer| *peer != source).collect();
        for peer in others {
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.tell = true;
            }
            self.go_on(peer, now);
        }
    }

    fn take_in_flight(&mut self, peer: PeerId, number: QuestionNumber) -> Option<Asked> {
        let neighbour = self.neighbours.get_mut(&peer)?;
        neighbour.in_flight.take_if(|asked| asked.number == number).map(|in_flight| in_flight.asked)
    }

    /// Leave this comparison, try again later.
    fn fail(&mut self, peer: PeerId, now: Instant) {
        let Some(neighbour) = self.neighbours.get_mut(&peer) else { return };
        neighbour.digest = Vec::new();
        neighbour.after = None;
        let wait = RETRY.saturating_mul(1 << neighbour.failures.min(10)).min(self.config.sync_interval.max(RETRY));
        neighbour.failures = neighbour.failures.saturating_add(1);
        neighbour.spaced_until = now + wait;
        neighbour.pull = Pull::Yes;
        neighbour.pull_at = now;
        self.go_on(peer, now);
    }

    fn on_question(&mut self, peer: PeerId, request: InboundNumber, question: Question, now: Instant) {
        if !self.rates.admits_question(peer, now) {
            self.flood(peer, now);
            self.outputs.push_back(Output::Refuse { request });
            return;
        }
        let answer = match question {
            Question::Digest { after } => {
                let (streams, more) = self.log.digest(after);
                Answer::Digest { streams, more }
            }
            Question::Fetch { ranges } if ranges.len() > MAX_FETCH_RANGES => {
                self.fault(peer, FaultKind::Malformed);
                self.outputs.push_back(Output::Refuse { request });
                return;
            }
            Question::Fetch { ranges } => {
                let (envelopes, more) = self.log.fetch(&ranges);
                Answer::Fetch { envelopes, more }
            }
            Question::News {} => {
                self.want_pull(peer, Pull::Yes, now, now);
                Answer::News {}
            }
        };
        self.outputs.push_back(Output::Answer { request, answer });
    }

    fn on_answer(&mut self, peer: PeerId, number: QuestionNumber, answer: Answer, wall_ms: u64, now: Instant) {
        let Some(asked) = self.take_in_flight(peer, number) else { return };
        let good = match (asked, answer) {
            (Asked::Digest, Answer::Digest { streams, more }) => self.on_digest(peer, streams, more),
            (Asked::Fetch(ranges), Answer::Fetch { envelopes, .. }) => {
                let bytes: usize = envelopes.iter().map(|envelope| envelope.len()).sum();
                let fits = envelopes.len() <= MAX_ANSWER_ENVELOPES && bytes <= MAX_ANSWER_ENVELOPE_BYTES;
                if !fits {
                    self.fault(peer, FaultKind::BadAnswer);
                }
                fits && envelopes.iter().all(|envelope| self.on_envelope(peer, envelope, &ranges, wall_ms, now))
                    && self.goes_forward(peer, &ranges)
            }
            (Asked::News, Answer::News {}) => true,
            _ => {
                self.fault(peer, FaultKind::BadAnswer);
                false
            }
        };
        if good {
            if let Some(neighbour) = self.neighbours.get_mut(&peer) {
                neighbour.failures = 0;
            }
            self.go_on(peer, now);
        } else {
            self.fail(peer, now);
        }
    }

    fn on_digest(&mut self, peer: PeerId, streams: Vec<StreamDigest>, more: bool) -> bool {
        let fits = streams.len() <= MAX_DIGEST_STREAMS
            && streams.iter().all(|stream| stream.have.len() <= MAX_DIGEST_RANGES)
            && streams.iter().map(stream_of).is_sorted_by(|one, next| one < next);
        if !fits {
            self.fault(peer, FaultKind::BadAnswer);
            return false;
        }
        if let Some(neighbour) = self.neighbours.get_mut(&peer) {
            neighbour.after = streams.last().filter(|_| more).map(stream_of);
            neighbour.digest = streams;
        }
        true
    }

    /// Whether the neighbour may go on answering.
    fn on_envelope(&mut self, peer: PeerId, bytes: &[u8], ranges: &[Range], wall_ms: u64, now: Instant) -> bool {
        let asked = |id: BroadcastId| {
            ranges.iter().any(|range| {
                (range.author, range.epoch) == (id.author, id.epoch) && (range.from..=range.to).contains(&id.sequence)
            })
        };
        if claimed_id(bytes).is_ok_and(|id| !asked(id)) {
            self.fault(peer, FaultKind::BadAnswer);
            return false;
        }
        let heard = self.log.hear(peer, bytes, Source::Sync, wall_ms, now);
        if heard == Heard::New
            && let Some(neighbour) = self.neighbours.get_mut(&peer)
        {
            neighbour.has_brought = true;
        }
        !matches!(heard, Heard::Lie(_))
    }

    /// The neighbour has not all that it claimed, when what was asked is still missing. Its page is left then.
    fn goes_forward(&mut self, peer: PeerId, asked: &[Range]) -> bool {
        if let Some(neighbour) = self.neighbours.get_mut(&peer)
            && self.log.lacks(&neighbour.digest) == asked
        {
            neighbour.digest = Vec::new();
        }
        true
    }

    fn flood(&mut self, peer: PeerId, now: Instant) {
        if self.rates.may_complain(peer, now) {
            self.fault(peer, FaultKind::Flood);
        }
    }

    fn fault(&mut self, peer: PeerId, kind: FaultKind) {
        self.outputs.push_back(Output::Log(log::Output::Fault { peer, kind, evidence: Vec::new() }));
    }
}

impl Neighbour {
    fn new(now: Instant) -> Self {
        Self {
            in_flight: None,
            pull: Pull::No,
            pull_at: now,
            spaced_until: now,
            digest: Vec::new(),
            after: None,
            has_brought: false,
            tell: false,
            failures: 0,
        }
    }

    /// When the comparison that is wanted may begin.
    fn due_at(&self) -> Instant {
        self.pull_at.max(self.spaced_until)
    }
}

fn stream_of(digest: &StreamDigest) -> StreamId {
    StreamId { author: digest.author, epoch: digest.epoch }
}
