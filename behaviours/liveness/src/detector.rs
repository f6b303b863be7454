//! Core: who of the neighbours is alive.
//!
//! SWIM's probes with Lifeguard's local health (arXiv 1707.00788), over links that already stand: nothing is gossiped,
//! each node judges its own neighbours only.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use crate::config::{Config, MIN_INTERVAL};
use crate::event::{Event, Reason};
use crate::protocol::Suspicion;
use crate::statement::Alive;

pub use io::{Incarnation, Input, MAX_TIME_MS, Output, ProbeId, Stamps};
use neighbour::{Helper, Neighbour, Open};
pub use neighbour::{State, Status};
pub use relays::RelayToken;
use relays::Relays;

mod io;
mod neighbour;
mod relays;

/// Most who are asked for help with one probe, those who cannot help among them.
const MAX_ASKED: usize = 16;

/// After an answer a check waits for this part of the interval.
const CHECK_SHARE: u32 = 10;
/// But no longer than this: somebody may wait for it.
const LONGEST_REST: Duration = Duration::from_secs(1);

/// The detector of one node.
pub struct Detector {
    config: Config,
    own: Incarnation,
    rng: StdRng,
    table: BTreeMap<PeerId, Neighbour>,
    /// When each neighbour is to be looked at next.
    schedule: BTreeSet<(Instant, PeerId)>,
    relays: Relays,
    next_probe: u64,
    /// Lifeguard's local health: 0 is good.
    health: u32,
    /// When a refutation last counted against the own health.
    refuted_at: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Detector {
    /// A detector of a node in that boot. The seed decides phases, helpers and challenges.
    pub fn new(boot: u64, config: Config, rng_seed: u64) -> Self {
        let mut detector = Self {
            own: Incarnation::new(boot, 0),
            rng: StdRng::seed_from_u64(rng_seed),
            table: BTreeMap::new(),
            schedule: BTreeSet::new(),
            relays: Relays::default(),
            next_probe: 0,
            health: 0,
            refuted_at: None,
            outputs: VecDeque::new(),
            config,
        };
        detector.config.interval = detector.config.interval.max(MIN_INTERVAL);
        detector.config.misses = detector.config.misses.max(1);
        detector
    }

    /// Tell it something.
    pub fn handle_input(&mut self, input: Input, now: Instant) {
        self.observe(now);
        match input {
            Input::Up { peer, boot } => self.up(peer, boot, now),
            Input::Lost { peer } => self.lost(peer),
            Input::Watch { peer, boot } => self.watch(peer, boot, false, now),
            Input::Forget { peer } => self.forget(&peer),
            Input::DialFailed { peer } => {
                if self.table.get(&peer).is_some_and(|neighbour| !neighbour.linked) {
                    self.failed(peer, None, now);
                }
            }
            Input::Check { peer } => {
                // However many ask for it, nobody is flooded with probes.
                let rest = (self.config.interval / CHECK_SHARE).min(LONGEST_REST);
                if let Some(neighbour) = self.table.get_mut(&peer).filter(|neighbour| neighbour.may_be_checked()) {
                    neighbour.next_probe = neighbour.next_probe.min(now.max(neighbour.last_answer + rest));
                    self.wake(peer, now);
                }
            }
            Input::Answered { peer, probe, incarnation, stamps, statement } => {
                self.answered(peer, probe, incarnation, stamps, statement, now);
            }
            Input::Seen { peer } => self.heard(peer, None, false, now),
            Input::Failed { peer, probe } => match self.relays.end(probe, peer) {
                Some(token) => self.outputs.push_back(Output::RelayAnswer { token, statement: None }),
                None => self.failed(peer, Some(probe), now),
            },
            Input::Helped { helper, target, probe, alive } => self.helped(helper, target, probe, alive, now),
            Input::Unhelpful { helper, target, probe } => self.unhelpful(helper, target, probe, now),
            Input::Probed { from, request, incarnation, suspicion } => {
                self.probed(from, request, incarnation, suspicion, now);
            }
            Input::RelayAsked { from, token, target, suspicion, patience } => {
                self.relay(from, token, target, suspicion, patience, now);
            }
            Input::Interval(interval) => self.set_interval(interval.max(MIN_INTERVAL), now),
            Input::Misses(misses) => {
                self.config.misses = misses.max(1);
                self.wake_all(now);
            }
        }
    }

    /// Do what the time asks for. Call it when [`Detector::poll_timeout`] has come; early calls do no harm, and from late
    /// ones it learns that this process is starved.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        while let Some(&(_, peer)) = self.schedule.first().filter(|(at, _)| *at <= now) {
            self.wake(peer, now);
        }
        for token in self.relays.expire(now) {
            self.outputs.push_back(Output::RelayAnswer { token, statement: None });
        }
    }

    /// When [`Detector::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.schedule.first().map(|(at, _)| *at).into_iter().chain(self.relays.next()).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// The own incarnation.
    pub fn incarnation(&self) -> Incarnation {
        self.own
    }

    /// Lifeguard's local health, from 0 (good) to [`Config::max_health`].
    pub fn health(&self) -> u32 {
        self.health
    }

    /// What is thought of a neighbour.
    pub fn status(&self, peer: &PeerId, now: Instant) -> Option<Status> {
        self.table.get(peer).map(|neighbour| neighbour.status(*peer, now))
    }

    /// What is thought of everybody who is watched, in the order of their PeerIds.
    pub fn statuses(&self, now: Instant) -> impl Iterator<Item = Status> {
        self.table.iter().map(move |(peer, neighbour)| neighbour.status(*peer, now))
    }

    /// The own clock was not looked at for a while: what seemed to be the silence of others may be ours.
    fn observe(&mut self, now: Instant) {
        let Some(late) = self.poll_timeout().map(|due| now.saturating_duration_since(due)) else { return };
        if late < self.config.late {
            return;
        }
        let frozen = late >= self.config.patience();
        self.ail(if frozen { 2 } else { 1 });
        self.relays.postpone(now);
        let patience = self.patience();
        for peer in self.peers() {
            let phase = self.phase();
            let Some(neighbour) = self.table.get_mut(&peer) else { continue };
            if frozen {
                neighbour.open = None;
                neighbour.misses = 0;
                neighbour.silent_since = now;
                neighbour.next_probe = now + phase;
            } else {
                // The answer may lie unread.
                if let Some(open) = &mut neighbour.open {
                    open.deadline = open.deadline.max(now + patience);
                }
                neighbour.next_probe = neighbour.next_probe.max(now);
            }
            self.reschedule(peer);
        }
    }

    fn up(&mut self, peer: PeerId, boot: u64, now: Instant) {
        let incarnation = Incarnation::new(boot, 0);
        let known = self.table.get(&peer).map(|neighbour| neighbour.incarnation);
        self.watch(peer, boot, true, now);
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        if !neighbour.linked {
            neighbour.linked = true;
            // The link is the answer to the dial.
            neighbour.open = None;
        }
        if known.is_none_or(|known| known.boot() <= boot) {
            self.heard(peer, Some(incarnation), false, now);
        }
        self.reschedule(peer);
    }

    fn lost(&mut self, peer: PeerId) {
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        if std::mem::replace(&mut neighbour.linked, false) && neighbour.open.as_ref().is_some_and(|open| !open.missed) {
            // The probe goes on as a dial, for the rest of its time.
            self.outputs.push_back(Output::Dial(peer));
        }
    }

    fn watch(&mut self, peer: PeerId, boot: u64, linked: bool, now: Instant) {
        let incarnation = Incarnation::new(boot, 0);
        if let Some(neighbour) = self.table.get_mut(&peer) {
            neighbour.incarnation = neighbour.incarnation.max(incarnation);
            return;
        }
        if self.table.len() >= self.config.max_neighbours && !self.make_room() {
            return;
        }
        let next_probe = now + self.phase();
        self.table.insert(peer, Neighbour::new(incarnation, linked, now, next_probe));
        self.reschedule(peer);
    }

    /// Forget the dead one, or else the one without a link, that was silent for longest.
    fn make_room(&mut self) -> bool {
        let unlinked = self.table.iter().filter(|(_, neighbour)| !neighbour.linked);
        let least =
            unlinked.max_by_key(|(_, neighbour)| (neighbour.state == State::Dead, Reverse(neighbour.last_answer)));
        let Some(peer) = least.map(|(peer, _)| *peer) else { return false };
        self.forget(&peer);
        true
    }

    fn forget(&mut self, peer: &PeerId) {
        if let Some(at) = self.table.remove(peer).and_then(|neighbour| neighbour.scheduled) {
            self.schedule.remove(&(at, *peer));
        }
    }

    fn answered(
        &mut self,
        peer: PeerId,
        probe: ProbeId,
        incarnation: Incarnation,
        stamps: Stamps,
        statement: Option<Vec<u8>>,
        now: Instant,
    ) {
        if let Some(token) = self.relays.end(probe, peer) {
            self.outputs.push_back(Output::RelayAnswer { token, statement });
        }
        if let Some(neighbour) = self.table.get_mut(&peer)
            && let Some(open) = neighbour.open.take_if(|open| open.probe == probe)
        {
            let rtt = now.saturating_duration_since(open.sent);
            let offset_ms = stamps.offset_ms();
            neighbour.rtt = Some(rtt);
            neighbour.offset_ms = Some(offset_ms);
            self.health = self.health.saturating_sub(1);
            self.outputs.push_back(Output::Event(Event::Offset { peer, offset_ms, rtt }));
        }
        self.heard(peer, Some(incarnation), false, now);
    }

    /// A sign of life.
    fn heard(&mut self, peer: PeerId, incarnation: Option<Incarnation>, roundabout: bool, now: Instant) {
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        neighbour.incarnation = neighbour.incarnation.max(incarnation.unwrap_or_default());
        neighbour.last_answer = now;
        neighbour.silent_since = now;
        neighbour.misses = 0;
        neighbour.roundabout = roundabout;
        let incarnation = neighbour.incarnation;
        if std::mem::replace(&mut neighbour.state, State::Alive) != State::Alive {
            if neighbour.next_probe <= now {
                neighbour.next_probe = now + self.config.interval;
            }
            self.outputs.push_back(Output::Event(Event::Alive { peer }));
        }
        self.outputs.push_back(Output::Heard { peer, incarnation });
        self.reschedule(peer);
    }

    fn failed(&mut self, peer: PeerId, probe: Option<ProbeId>, now: Instant) {
        let Some(open) = self.table.get_mut(&peer).and_then(|neighbour| neighbour.open.as_mut()) else { return };
        if probe.is_none_or(|probe| probe == open.probe) {
            open.failed = true;
            if open.is_hopeless() {
                open.deadline = now;
                self.wake(peer, now);
            }
        }
    }

    fn helped(&mut self, helper: PeerId, target: PeerId, probe: ProbeId, alive: Option<Alive>, now: Instant) {
        let Some(open) = self.table.get_mut(&target).and_then(|neighbour| neighbour.open.as_mut()) else { return };
        if open.probe != probe || !open.helpers.contains_key(&helper) {
            return;
        }
        open.helpers.insert(helper, Helper::Silent);
        match alive {
            Some(alive) if alive.peer == target && alive.challenge == open.challenge => {
                self.heard(target, Some(alive.incarnation), true, now);
            }
            // A sign of life that is none is no fault of the helper's, which hands on what the target gave it: or else a
            // target could slander whoever is asked about it.
            _ if open.is_hopeless() => {
                open.deadline = now;
                self.wake(target, now);
            }
            _ => {}
        }
    }

    fn probed(
        &mut self,
        from: PeerId,
        request: u64,
        incarnation: Incarnation,
        suspicion: Option<Suspicion>,
        now: Instant,
    ) {
        // Nobody else can know a higher one of ours than we do, and an older one is refuted by the answer itself.
        if suspicion.is_some_and(|suspicion| suspicion.incarnation == self.own)
            && self.own.refutations() < Incarnation::MAX_REFUTATIONS
        {
            self.own = Incarnation::new(self.own.boot(), self.own.refutations() + 1);
            self.outputs.push_back(Output::Event(Event::Refuted { from, incarnation: self.own }));
            // Lies about us must not make us blind, so they count once in an interval.
            if self.refuted_at.is_none_or(|at| now.saturating_duration_since(at) >= self.config.interval) {
                self.refuted_at = Some(now);
                self.ail(1);
            }
        }
        let challenge = suspicion.map(|suspicion| suspicion.challenge);
        self.outputs.push_back(Output::Answer { request, incarnation: self.own, challenge });
        self.heard(from, Some(incarnation), false, now);
    }

    fn relay(
        &mut self,
        from: PeerId,
        token: RelayToken,
        target: PeerId,
        suspicion: Suspicion,
        patience: Duration,
        now: Instant,
    ) {
        let linked = |peer: &PeerId| self.table.get(peer).is_some_and(|neighbour| neighbour.linked);
        let known = from != target && linked(&from) && linked(&target);
        if !known || !self.relays.admits(from, target, &self.config, now) {
            self.outputs.push_back(Output::RelayRefuse { token });
            return;
        }
        let probe = self.number();
        // In time for the asker to see that it is the target that is silent, and not we.
        let deadline = now + patience.min(self.config.request_timeout) * 4 / 5;
        self.relays.begin(probe, token, from, target, deadline);
        self.outputs.push_back(Output::Probe { to: target, probe, suspicion: Some(suspicion) });
    }

    fn set_interval(&mut self, interval: Duration, now: Instant) {
        self.config.interval = interval;
        for peer in self.peers() {
            let phase = now + self.phase();
            if let Some(neighbour) = self.table.get_mut(&peer) {
                neighbour.next_probe = neighbour.next_probe.min(phase);
            }
        }
        self.wake_all(now);
    }

    fn wake_all(&mut self, now: Instant) {
        for peer in self.peers() {
            self.wake(peer, now);
        }
    }

    /// Look at one neighbour: the end of its probe, the next probe, the verdict.
    fn wake(&mut self, peer: PeerId, now: Instant) {
        let overdue = |neighbour: &Neighbour| neighbour.open.as_ref().is_some_and(|open| open.deadline <= now);
        if self.table.get(&peer).is_some_and(overdue) {
            self.end_probe(peer, now);
        }
        self.judge(peer, now);
        if let Some(neighbour) = self.table.get_mut(&peer)
            && neighbour.state != State::Dead
            && neighbour.next_probe <= now
        {
            // What is still open now waits for helpers only; they are asked again.
            neighbour.next_probe = (neighbour.next_probe + self.config.interval).max(now + self.config.interval / 2);
            self.begin_probe(peer, now);
        }
        self.reschedule(peer);
    }

    fn begin_probe(&mut self, peer: PeerId, now: Instant) {
        let probe = self.number();
        let deadline = now + self.patience();
        let challenge = self.rng.random();
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        let open =
            Open { probe, sent: now, deadline, challenge, failed: false, missed: false, helpers: BTreeMap::new() };
        neighbour.open = Some(open);
        let suspected = neighbour.state == State::Suspect;
        if neighbour.linked {
            let suspicion = suspected.then_some(Suspicion { incarnation: neighbour.incarnation, challenge });
            self.outputs.push_back(Output::Probe { to: peer, probe, suspicion });
        } else {
            self.outputs.push_back(Output::Dial(peer));
        }
        if suspected || neighbour.roundabout {
            self.ask_helpers(peer, self.config.helpers);
        }
    }

    fn end_probe(&mut self, peer: PeerId, now: Instant) {
        let patience = self.patience();
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        let Some(open) = &mut neighbour.open else { return };
        let silent_helpers = open.helpers.values().filter(|helper| **helper == Helper::Waiting).count();
        let over = open.missed || neighbour.last_answer >= open.sent || !open.helpers.is_empty();
        let missed = !open.missed && neighbour.last_answer < open.sent;
        if over {
            neighbour.open = None;
        } else {
            open.missed = true;
            open.deadline = now + patience;
        }
        if missed {
            neighbour.misses = neighbour.misses.saturating_add(1);
            neighbour.reason = if neighbour.linked { Reason::NoAnswer } else { Reason::Unreachable };
            let (reason, misses, incarnation) = (neighbour.reason, neighbour.misses, neighbour.incarnation);
            if neighbour.state == State::Alive {
                neighbour.state = State::Suspect;
                self.outputs.push_back(Output::Event(Event::Suspect { peer, reason }));
            }
            self.outputs.push_back(Output::Missed { peer, incarnation, misses });
        }
        // A helper answers in any case. If it does not, it is we who hear badly.
        self.ail(u32::try_from(silent_helpers).unwrap_or(u32::MAX));
        if !over
            && !self.ask_helpers(peer, self.config.helpers)
            && let Some(neighbour) = self.table.get_mut(&peer)
        {
            neighbour.open = None;
        }
    }

    /// Another is asked in its place, for a helper must be a neighbour of both.
    fn unhelpful(&mut self, helper: PeerId, target: PeerId, probe: ProbeId, now: Instant) {
        let Some(open) = self.table.get_mut(&target).and_then(|neighbour| neighbour.open.as_mut()) else { return };
        if open.probe != probe || open.helpers.get(&helper) != Some(&Helper::Waiting) {
            return;
        }
        open.helpers.insert(helper, Helper::Silent);
        let more = open.helpers.len() < MAX_ASKED && open.deadline > now;
        if !(more && self.ask_helpers(target, 1)) {
            self.helped(helper, target, probe, None, now);
        }
    }

    /// Ask so many who were not asked yet; whether there was anybody.
    fn ask_helpers(&mut self, target: PeerId, count: usize) -> bool {
        let patience = self.patience();
        let asked = self.table.get(&target).and_then(|neighbour| neighbour.open.as_ref()).map(|open| &open.helpers);
        let able = self.table.iter().filter(|(peer, neighbour)| {
            **peer != target
                && !asked.is_some_and(|asked| asked.contains_key(peer))
                && neighbour.linked
                && neighbour.state == State::Alive
                && !neighbour.roundabout
        });
        let helpers = able.map(|(peer, _)| *peer).choose_multiple(&mut self.rng, count);
        let Some(neighbour) = self.table.get_mut(&target) else { return false };
        let Some(open) = &mut neighbour.open else { return false };
        let suspicion = Suspicion { incarnation: neighbour.incarnation, challenge: open.challenge };
        for helper in &helpers {
            open.helpers.insert(*helper, Helper::Waiting);
            let (helper, probe) = (*helper, open.probe);
            self.outputs.push_back(Output::AskHelper { helper, target, probe, suspicion, patience });
        }
        !helpers.is_empty()
    }

    /// Dead, when it has missed enough and was silent for long enough, and nobody is asked any more.
    fn judge(&mut self, peer: PeerId, now: Instant) {
        let verdict = self.verdict_at(&peer);
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        if verdict.is_some_and(|at| at <= now) {
            neighbour.state = State::Dead;
            let (incarnation, reason) = (neighbour.incarnation, neighbour.reason);
            self.outputs.push_back(Output::Dead { peer, incarnation, reason });
        }
    }

    fn verdict_at(&self, peer: &PeerId) -> Option<Instant> {
        let neighbour = self.table.get(peer)?;
        let enough = neighbour.misses >= self.config.misses.saturating_add(self.health);
        let ripe = neighbour.state == State::Suspect && neighbour.open.is_none() && enough;
        ripe.then(|| neighbour.silent_since.checked_add(self.config.interval * self.config.misses)).flatten()
    }

    fn reschedule(&mut self, peer: PeerId) {
        let verdict = self.verdict_at(&peer);
        let Some(neighbour) = self.table.get_mut(&peer) else { return };
        let deadline = neighbour.open.as_ref().map(|open| open.deadline);
        let next = (neighbour.state != State::Dead).then_some(neighbour.next_probe);
        let next = deadline.into_iter().chain(next).chain(verdict).min();
        let before = std::mem::replace(&mut neighbour.scheduled, next);
        if before != next {
            before.map(|at| self.schedule.remove(&(at, peer)));
            next.map(|at| self.schedule.insert((at, peer)));
        }
    }

    fn peers(&self) -> Vec<PeerId> {
        self.table.keys().copied().collect()
    }

    fn number(&mut self) -> ProbeId {
        self.next_probe += 1;
        ProbeId(self.next_probe)
    }

    /// A random part of the interval, so that probes are spread over it.
    fn phase(&mut self) -> Duration {
        self.config.interval.mul_f64(self.rng.random_range(0.0..1.0))
    }

    /// How long a probe waits now: longer in bad health, within what the wire and the interval allow.
    fn patience(&self) -> Duration {
        let longest = self.config.request_timeout.min(self.config.interval * 9 / 10).max(self.config.patience());
        (self.config.patience() * (1 + self.health)).min(longest)
    }

    fn ail(&mut self, by: u32) {
        self.health = self.health.saturating_add(by).min(self.config.max_health);
    }
}
