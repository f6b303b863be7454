//! Who is alive: what the probes say, death reports and tombstones, health checks, the exchange of cards, and who leaves
//! the table for being silent.
//!
//! Whom the detector watches it alone has dialled; the health check takes those that it has given up or never watched.
//! So nobody is probed twice (the table of timers is in `ARCHITECTURE.md`).

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use jiff::{SignedDuration, Timestamp};
use libp2p::PeerId;
use liveness::{Reason, State};
use peer_exchange::LookupId;
use reputation::Evidence;

use super::{Answer, Awaited, EventLoop, Purpose};
use crate::api::{ApiError, Command, ErrorCode, Event, ExchangeInfo, LivenessRow, PeerState, PingInfo, Reply, Role};
use crate::network::behaviour::NAMESPACE;
use crate::network::dialer;
use crate::network::seeds::{self, REGISTRATION_TTL};

/// Peers that one health check tries to reach; the next one goes on behind them.
const CHECKED_AT_ONCE: usize = 4;

/// How often it is looked who was silent for too long.
const SWEEP: Duration = Duration::from_secs(10);

/// How long a seed is visited to hear of a death.
const VISIT: Duration = Duration::from_secs(10);

/// Exchanges of cards that are remembered until they are answered.
const MAX_SAMPLES: usize = 16;

/// The timers and counts of this subject.
pub(super) struct Rounds {
    next_check: Instant,
    last_checked: Option<PeerId>,
    next_exchange: Instant,
    next_sweep: Instant,
    samples: Vec<LookupId>,
    asked: u64,
    learnt: u64,
    /// Seeds that were dialled only to hear of a death, and until when. As many as are configured at most.
    visits: BTreeMap<PeerId, Instant>,
}

impl Rounds {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            next_check: now,
            last_checked: None,
            next_exchange: now,
            next_sweep: now + SWEEP,
            samples: Vec::new(),
            asked: 0,
            learnt: 0,
            visits: BTreeMap::new(),
        }
    }

    /// When something is due next.
    pub(super) fn next(&self) -> Instant {
        self.next_check.min(self.next_exchange).min(self.next_sweep)
    }
}

impl EventLoop {
    pub(super) fn on_liveness(&mut self, event: liveness::Event, now: Instant) {
        use liveness::Event;
        match event {
            Event::Suspect { peer, reason } => self.on_suspect(peer, reason, now),
            Event::Alive { peer } => self.on_alive(peer),
            Event::Dead { peer, reporters, reason, .. } => {
                self.on_dead(peer, &reporters, &reason.to_string());
                self.reach_every_seed(now);
            }
            Event::Evict { target, reporters, .. } => {
                self.on_dead(target, &reporters, "it was reported, and does not answer");
            }
            Event::Offset { peer, offset_ms, rtt } => self.on_probed(peer, offset_ms, rtt, now),
            Event::Dial(peer) => self.try_to_reach(peer, now),
            Event::Buried { seed, target, .. } if target == self.local => self.register_anew(seed),
            Event::Buried { seed, target, .. } => {
                // Whose card is known did not come from the seed alone: its addresses are kept, so that it is found again when
                // it is back.
                if self.directory.get(&target).is_none_or(|entry| entry.card.is_none()) {
                    self.dialer.handle_input(dialer::Input::Unnamed { peer: target, by: seed }, now);
                }
            }
            Event::Reported { target, reporter } => tracing::info!(%target, %reporter, "a peer is reported dead"),
            Event::Raised { seed, target, .. } => tracing::debug!(%seed, %target, "a tombstone fell"),
            Event::Refuted { from, incarnation } => {
                tracing::info!(%from, incarnation = incarnation.0, "this node was suspected, and has refuted it");
            }
            Event::Fault { peer, kind } => self.fault(peer, &kind),
        }
    }

    fn on_suspect(&mut self, peer: PeerId, reason: Reason, now: Instant) {
        // That it cannot be reached was counted as a dial.
        if reason == Reason::NoAnswer {
            self.saw(peer, Evidence::ProbeMissed, now);
        }
        let Some(entry) = self.directory.get_mut(&peer) else { return };
        entry.state = PeerState::Suspect;
        entry.since = Some(Timestamp::now());
        let name = entry.name().to_owned();
        self.emit(Event::PeerSuspect { peer: peer.to_base58(), name, reason: reason.to_string() });
    }

    fn on_alive(&mut self, peer: PeerId) {
        let linked = self.swarm.behaviour().peer_exchange.is_up(&peer);
        let Some(entry) = self.directory.get_mut(&peer) else { return };
        // A new link has said so already.
        if entry.state == PeerState::Up {
            return;
        }
        entry.state = if linked { PeerState::Up } else { PeerState::Known };
        entry.since = Some(Timestamp::now());
        let name = entry.name().to_owned();
        self.emit(Event::PeerAlive { peer: peer.to_base58(), name });
    }

    fn on_dead(&mut self, peer: PeerId, reporters: &[PeerId], reason: &str) {
        let entry = self.directory.entry(peer);
        if entry.state == PeerState::Dead {
            return;
        }
        entry.state = PeerState::Dead;
        entry.since = Some(Timestamp::now());
        let name = entry.name().to_owned();
        let reporters = reporters.iter().map(|reporter| reporter.to_base58()).collect();
        self.emit(Event::PeerDead { peer: peer.to_base58(), name, reason: reason.to_owned(), reporters });
    }

    /// All configured seeds are to hear of a death, also those that hold no registration of ours: they are dialled for it, and
    /// let go of at the next sweep.
    fn reach_every_seed(&mut self, now: Instant) {
        if self.config.role == Role::Seed {
            return;
        }
        let views = self.seeds.view().map(|view| view.peer);
        let known: Vec<Option<PeerId>> =
            self.config.seeds.iter().zip(views).map(|(configured, peer)| peer.or(configured.peer)).collect();
        self.swarm.behaviour_mut().liveness.set_seeds(known.iter().flatten().copied().collect());
        for (seed, peer) in known.into_iter().enumerate() {
            let Some(peer) = peer.filter(|peer| !self.swarm.behaviour().peer_exchange.is_up(peer)) else { continue };
            if let Entry::Vacant(visit) = self.rounds.visits.entry(peer) {
                visit.insert(now + VISIT);
                let address = self.config.seeds[seed].dial.clone();
                self.dial(Some(peer), vec![address], Purpose::Seed(seed), now);
            }
        }
    }

    /// Take leave of seeds that were only to hear of a death.
    fn end_visits(&mut self, now: Instant) {
        let over = self.rounds.visits.iter().filter(|(_, until)| **until <= now).map(|(peer, _)| *peer);
        for peer in over.collect::<Vec<_>>() {
            self.rounds.visits.remove(&peer);
            let in_use = self.seeds.view().any(|view| view.peer == Some(peer) && view.picked);
            if !in_use && !self.dialer.is_mandatory(&peer) && self.swarm.behaviour().peer_exchange.is_up(&peer) {
                self.dismiss(peer, now);
            }
        }
    }

    fn on_probed(&mut self, peer: PeerId, offset_ms: i64, rtt: Duration, now: Instant) {
        self.saw(peer, Evidence::ProbeAnswered, now);
        let rtt_ms = rtt.as_secs_f64() * 1_000.0;
        let Some(entry) = self.directory.get_mut(&peer) else { return };
        entry.last_seen = Some(Timestamp::now());
        let name = entry.name().to_owned();
        self.emit(Event::Probe { peer: peer.to_base58(), rtt_ms, offset_ms });
        let (waiting, parked) =
            std::mem::take(&mut self.parked).into_iter().partition(|parked| parked.awaited == Awaited::Probe(peer));
        self.parked = parked;
        let waiting: Vec<super::Parked> = waiting;
        for parked in waiting {
            let info = PingInfo { peer: peer.to_base58(), name: name.clone(), rtt_ms, offset_ms };
            let _ = parked.answer.send(Ok(Reply::Ping(info)));
        }
    }

    /// How many this seed lists. The stock server keeps a registration until its time is over; a tombstone hides it, and
    /// when it falls the registration counts again.
    pub(super) fn listed(&self) -> usize {
        let stones: BTreeSet<PeerId> =
            self.swarm.behaviour().liveness.tombstones().into_iter().map(|stone| stone.target).collect();
        self.registrations.keys().filter(|peer| !stones.contains(peer)).count()
    }

    /// Dial once. That it failed is known at once when there is no way to try.
    fn try_to_reach(&mut self, peer: PeerId, now: Instant) {
        self.dialer.handle_input(dialer::Input::Try(peer), now);
        if !self.dialer.is_on_the_way(&peer) {
            self.swarm.behaviour_mut().liveness.dial_failed(peer);
        }
    }

    /// A seed takes this node for dead. A registration that it has already is made anew; one that is on its way does as well.
    fn register_anew(&mut self, seed: PeerId) {
        let held = |view: seeds::View| view.peer == Some(seed) && view.state == Some(seeds::State::Registered);
        let linked = self.swarm.behaviour().peer_exchange.is_up(&seed);
        if linked && self.ending.is_none() && self.seeds.view().any(held) {
            let ttl = Some(REGISTRATION_TTL.as_secs());
            if let Err(error) = self.swarm.behaviour_mut().rendezvous.register(NAMESPACE, seed, ttl) {
                tracing::debug!(%seed, "cannot register anew: {error}");
            }
        }
    }

    /// A peer is up: the detector watches it.
    pub(super) fn watch_alive(&mut self, peer: PeerId, boot: u64) {
        let is_seed = self.seeds.of(&peer).is_some() || self.seed_dials.contains_key(&peer);
        self.swarm.behaviour_mut().liveness.peer_up(peer, boot, is_seed);
    }

    /// A peer is down. Only a link that broke says nothing about whether it lives.
    pub(super) fn watch_down(&mut self, peer: PeerId, how: dialer::Down) {
        // Whom we refuse has no way to show that it lives.
        let refused = self.is_cut(&peer) || self.directory.get(&peer).is_some_and(|entry| entry.blocked);
        let liveness = &mut self.swarm.behaviour_mut().liveness;
        match how {
            _ if refused => liveness.forget(peer),
            dialer::Down::Lost | dialer::Down::Reset => liveness.peer_lost(peer),
            dialer::Down::Left => liveness.peer_left(peer),
            dialer::Down::Dismissed | dialer::Down::Refused => liveness.forget(peer),
        }
        // With short intervals the verdict comes before the link is closed, and stands.
        let mark = match self.swarm.behaviour().liveness.status(&peer).map(|status| status.state) {
            Some(State::Suspect) => PeerState::Suspect,
            Some(State::Dead) => PeerState::Dead,
            Some(State::Alive) | None => return,
        };
        if let Some(entry) = self.directory.get_mut(&peer) {
            entry.state = mark;
        }
    }

    pub(super) fn alive_timeout(&mut self, now: Instant) {
        if self.rounds.next_check <= now {
            self.rounds.next_check = now + self.config.health_check_interval;
            self.check_health(now);
        }
        if self.rounds.next_exchange <= now {
            self.rounds.next_exchange = now + self.config.gossip_interval;
            self.exchange_cards();
        }
        if self.rounds.next_sweep <= now {
            self.rounds.next_sweep = now + SWEEP;
            self.drop_the_silent(now);
            self.end_visits(now);
            self.tell_scores();
        }
    }

    /// The pauses may have been changed: none is longer from here than what is configured now.
    pub(super) fn hurry_rounds(&mut self, now: Instant) {
        self.rounds.next_check = self.rounds.next_check.min(now + self.config.health_check_interval);
        self.rounds.next_exchange = self.rounds.next_exchange.min(now + self.config.gossip_interval);
    }

    /// Try to reach some of those who are dead or could not be dialled, unless the detector still probes them.
    fn check_health(&mut self, now: Instant) {
        let liveness = &self.swarm.behaviour().liveness;
        let probed = |peer: &PeerId| liveness.status(peer).is_some_and(|status| status.state != State::Dead);
        let ill: Vec<PeerId> = self
            .directory
            .iter()
            .filter(|(peer, entry)| {
                let trouble = entry.state == PeerState::Dead || self.dialer.failures(peer) > 0;
                trouble && !entry.blocked && !self.is_silent(entry) && !probed(peer)
            })
            .filter(|(peer, entry)| !matches!(entry.state, PeerState::Up | PeerState::Left) && !self.is_cut(peer))
            .map(|(peer, _)| *peer)
            .collect();
        let begin = ill.partition_point(|peer| self.rounds.last_checked.is_some_and(|last| *peer <= last));
        let round: Vec<PeerId> = ill[begin..].iter().chain(&ill[..begin]).take(CHECKED_AT_ONCE).copied().collect();
        for peer in round {
            self.rounds.last_checked = Some(peer);
            self.dialer.handle_input(dialer::Input::Try(peer), now);
        }
    }

    fn exchange_cards(&mut self) {
        if self.config.no_gossip || self.ending.is_some() {
            return;
        }
        if let Some(id) = self.swarm.behaviour_mut().peer_exchange.sample() {
            self.rounds.asked += 1;
            if self.rounds.samples.len() >= MAX_SAMPLES {
                self.rounds.samples.remove(0);
            }
            self.rounds.samples.push(id);
        }
    }

    /// Cards came for a question; those of an exchange are counted.
    pub(super) fn count_learnt(&mut self, id: LookupId, news: usize) {
        if let Some(at) = self.rounds.samples.iter().position(|sample| *sample == id) {
            self.rounds.samples.remove(at);
            self.rounds.learnt += news as u64;
        }
    }

    /// Was a peer without a link silent for so long that it no longer counts?
    pub(super) fn is_silent(&self, entry: &super::directory::Entry) -> bool {
        let limit = SignedDuration::try_from(self.config.inactivity_timeout).unwrap_or(SignedDuration::MAX);
        let heard = entry.last_seen.max(entry.since);
        entry.state != PeerState::Up && heard.is_some_and(|heard| Timestamp::now().duration_since(heard) > limit)
    }

    /// Who is silent is neither probed nor dialled any more, and `peers` leaves it out. Its name, and what else the
    /// database has of it, stay: a nickname must not become free for somebody else by waiting.
    fn drop_the_silent(&mut self, now: Instant) {
        let silent: Vec<PeerId> = self
            .directory
            .iter()
            .filter(|(peer, entry)| self.is_silent(entry) && !self.dialer.is_mandatory(peer))
            .map(|(peer, _)| *peer)
            .collect();
        for peer in &silent {
            self.swarm.behaviour_mut().liveness.forget(*peer);
        }
        let unwanted = silent.into_iter().filter(|peer| !self.waiting.contains_key(peer)).collect();
        self.dialer.handle_input(dialer::Input::Forget(unwanted), now);
    }

    /// What was suspected of a peer is not pursued any more.
    pub(super) fn no_verdict(&mut self, peer: &PeerId) {
        if let Some(entry) = self.directory.get_mut(peer)
            && matches!(entry.state, PeerState::Suspect | PeerState::Dead)
        {
            entry.state = PeerState::Known;
        }
    }

    pub(super) fn alive_command(&mut self, command: Command, answer: Answer) {
        let now = Instant::now();
        match command {
            Command::Liveness => drop(answer.send(Ok(Reply::Liveness(self.liveness_rows())))),
            Command::Exchange { on, every } => {
                let reply = self.change_exchange(on, every, now);
                let _ = answer.send(reply);
            }
            Command::Ping { .. } | Command::Health { .. } => self.measure(command, answer, now),
            Command::Reconnect { .. } => self.reconnect(command, answer, now),
            _ => super::peers::fail(answer, ErrorCode::General, "not a command about who is alive".to_owned()),
        }
    }

    fn change_exchange(&mut self, on: Option<bool>, every: Option<Duration>, now: Instant) -> Result<Reply, ApiError> {
        if let Some(on) = on {
            self.set("no-gossip", if on { "false" } else { "true" })?;
        }
        if let Some(every) = every {
            self.set("gossip-interval", &every.as_secs_f64().to_string())?;
        }
        self.hurry_rounds(now);
        Ok(Reply::Exchange(ExchangeInfo {
            on: !self.config.no_gossip,
            interval_s: self.config.gossip_interval.as_secs_f64(),
            asked: self.rounds.asked,
            learnt: self.rounds.learnt,
        }))
    }

    fn liveness_rows(&self) -> Vec<LivenessRow> {
        let wall = Timestamp::now();
        let span = |span: Duration| SignedDuration::try_from(span).unwrap_or(SignedDuration::MAX);
        let rows = self.swarm.behaviour().liveness.statuses().into_iter().map(|status| LivenessRow {
            peer: status.peer.to_base58(),
            name: self.directory.get(&status.peer).map(|entry| entry.name().to_owned()).unwrap_or_default(),
            state: match (status.state, status.linked) {
                (State::Alive, true) => PeerState::Up,
                (State::Alive, false) => PeerState::Known,
                (State::Suspect, _) => PeerState::Suspect,
                (State::Dead, _) => PeerState::Dead,
            },
            failures: status.failures,
            rtt_ms: status.rtt.map(|rtt| rtt.as_secs_f64() * 1_000.0),
            offset_ms: status.offset_ms,
            last_seen: wall.checked_sub(span(status.last_answer)).ok(),
            next_probe: status.next_probe.and_then(|left| wall.checked_add(span(left)).ok()),
        });
        rows.collect()
    }

    /// `ping` needs a link, `health` makes one.
    fn measure(&mut self, command: Command, answer: Answer, now: Instant) {
        let dials = matches!(command, Command::Health { .. });
        let Some((peer, command, answer)) = self.resolve(command, answer, !dials) else { return };
        if self.swarm.behaviour().peer_exchange.is_up(&peer) {
            self.park(Awaited::Probe(peer), command, answer);
            self.swarm.behaviour_mut().liveness.check(peer);
        } else if let Some(error) = self.refuses(&peer) {
            let _ = answer.send(Err(error));
        } else if dials {
            self.seek(peer, command, answer, now);
        } else {
            let name = self.directory.shown(&peer);
            let why = format!("there is no link to {name}; `health {name}` dials it first");
            super::peers::fail(answer, ErrorCode::Unreachable, why);
        }
    }

    fn reconnect(&mut self, command: Command, answer: Answer, now: Instant) {
        let Some((peer, command, answer)) = self.resolve(command, answer, false) else { return };
        if let Some(error) = self.refuses(&peer) {
            let _ = answer.send(Err(error));
        } else if self.swarm.behaviour().peer_exchange.is_up(&peer) {
            // The goodbye comes first; once the links are closed the command is tried once more.
            self.park(Awaited::Gone(peer), command, answer);
            self.dismiss(peer, now);
        } else {
            self.seek(peer, Command::Connect { peer: peer.to_base58() }, answer, now);
        }
    }
}
