//! A seed's side: reports in, evictions and tombstones out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::identity::Keypair;

use super::{Output, freshness};
use crate::config::Config;
use crate::detector::Incarnation;
use crate::event::Event;
use crate::protocol::MAX_STATEMENTS;
use crate::statement::{Report, Tombstone};

/// How long news are gathered before they are told.
const GATHER: Duration = Duration::from_millis(100);

/// What others say about one target.
struct Case {
    /// Reporter, and until when its word counts.
    reporters: BTreeMap<PeerId, Instant>,
    misses: u32,
    since: Instant,
}

struct Stone {
    incarnation: Incarnation,
    at_ms: u64,
    /// Signed, so that a newcomer costs no signature.
    bytes: Vec<u8>,
    until: Instant,
}

pub(super) struct Seed {
    key: Keypair,
    local: PeerId,
    config: Config,
    /// Everybody whose death would matter here, and the newest life of it. Bounded by what the detector watches.
    known: BTreeMap<PeerId, Incarnation>,
    up: BTreeSet<PeerId>,
    cases: BTreeMap<PeerId, Case>,
    stones: BTreeMap<PeerId, Stone>,
    /// What everybody is told at `tell_at`, in order. Bounded by what can happen to the known in that moment.
    news: Vec<Vec<u8>>,
    tell_at: Option<Instant>,
    /// Who missed something and gets the whole list again.
    owed: BTreeMap<PeerId, Instant>,
    /// Grows with each stone, so that their order is never in doubt, whatever the clock does.
    latest_ms: u64,
}

impl Seed {
    pub(super) fn new(key: Keypair, config: Config) -> Self {
        Self {
            local: key.public().to_peer_id(),
            key,
            config,
            known: BTreeMap::new(),
            up: BTreeSet::new(),
            cases: BTreeMap::new(),
            stones: BTreeMap::new(),
            news: Vec::new(),
            tell_at: None,
            owed: BTreeMap::new(),
            latest_ms: 0,
        }
    }

    pub(super) fn known(&mut self, peer: PeerId, incarnation: Incarnation) {
        if self.known.len() >= self.config.max_neighbours && !self.known.contains_key(&peer) {
            let away = self.known.keys().find(|known| !self.up.contains(known)).copied();
            let Some(away) = away else { return };
            self.forget(&away);
        }
        let known = self.known.entry(peer).or_default();
        *known = (*known).max(incarnation);
    }

    pub(super) fn up(
        &mut self,
        peer: PeerId,
        incarnation: Incarnation,
        new: bool,
        now: Instant,
        now_ms: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        let restarted = self.known.get(&peer).is_none_or(|known| known.boot() <= incarnation.boot());
        self.known(peer, incarnation);
        self.up.insert(peer);
        if restarted {
            self.heard(peer, incarnation, now, now_ms, outputs);
        }
        if new {
            self.tell_whole(peer, outputs);
        }
    }

    pub(super) fn down(&mut self, peer: &PeerId) {
        self.up.remove(peer);
        self.owed.remove(peer);
    }

    pub(super) fn forget(&mut self, peer: &PeerId) {
        self.down(peer);
        self.known.remove(peer);
        self.cases.remove(peer);
    }

    /// It lives: nothing that was said counts any more, and its tombstone falls.
    pub(super) fn heard(
        &mut self,
        peer: PeerId,
        incarnation: Incarnation,
        now: Instant,
        now_ms: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        if let Some(known) = self.known.get_mut(&peer) {
            *known = (*known).max(incarnation);
        }
        self.cases.remove(&peer);
        let Some(stone) = self.stones.remove(&peer) else { return };
        let event = Event::Raised { seed: self.local, target: peer, incarnation: stone.incarnation };
        outputs.push_back(Output::Event(event));
        self.proclaim(peer, stone.incarnation, false, now, now_ms);
    }

    pub(super) fn missed(
        &mut self,
        peer: PeerId,
        incarnation: Incarnation,
        misses: u32,
        now: Instant,
        now_ms: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        if let Some(case) = self.cases.get_mut(&peer) {
            case.misses = misses;
            self.decide(peer, incarnation, now, now_ms, outputs);
        }
    }

    pub(super) fn reported(&mut self, report: &Report, now: Instant, now_ms: u64, outputs: &mut VecDeque<Output>) {
        let fresh = freshness(report.at_ms, now_ms, self.config.freshness, self.config.freshness);
        let Some(until) = fresh.and_then(|left| now.checked_add(left)) else { return };
        let target = report.target;
        // Nobody is registered here under that name, or it has refuted, or its stone stands already.
        let current = self.known.get(&target).is_some_and(|known| *known <= report.incarnation);
        if !current || self.stones.contains_key(&target) {
            return;
        }
        if !self.cases.contains_key(&target) && self.cases.len() >= self.config.max_targets {
            let oldest = self.cases.iter().min_by_key(|(_, case)| case.since).map(|(target, _)| *target);
            oldest.and_then(|oldest| self.cases.remove(&oldest));
        }
        let case =
            self.cases.entry(target).or_insert_with(|| Case { reporters: BTreeMap::new(), misses: 0, since: now });
        let known = case.reporters.contains_key(&report.reporter);
        if !known && case.reporters.len() >= self.config.max_reporters {
            return;
        }
        case.reporters.insert(report.reporter, until);
        if !known {
            outputs.push_back(Output::Event(Event::Reported { target, reporter: report.reporter }));
            outputs.push_back(Output::Check(target));
            self.decide(target, report.incarnation, now, now_ms, outputs);
        }
    }

    /// Whose word about that target counts now.
    pub(super) fn reporters(&mut self, target: &PeerId, now: Instant) -> Vec<PeerId> {
        let Some(case) = self.cases.get_mut(target) else { return Vec::new() };
        case.reporters.retain(|_, until| *until > now);
        case.reporters.keys().copied().collect()
    }

    /// Own failed probes and distinct reporters together.
    fn decide(
        &mut self,
        target: PeerId,
        incarnation: Incarnation,
        now: Instant,
        now_ms: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        let reporters = self.reporters(&target, now);
        let Some(case) = self.cases.get(&target) else { return };
        if case.misses > 0 && case.misses < self.config.evict_misses && !reporters.is_empty() {
            // The next own probe need not wait for its turn.
            outputs.push_back(Output::Check(target));
        }
        if case.misses >= self.config.evict_misses && reporters.len() >= self.config.evict_reporters {
            self.evict(target, incarnation, reporters, now, now_ms, outputs);
        }
    }

    /// Own word or own probes with that of others: the stone is set.
    pub(super) fn evict(
        &mut self,
        target: PeerId,
        incarnation: Incarnation,
        reporters: Vec<PeerId>,
        now: Instant,
        now_ms: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        self.cases.remove(&target);
        if self.stones.contains_key(&target) || !self.known.contains_key(&target) {
            return;
        }
        outputs.push_back(Output::Event(Event::Evict { target, incarnation, reporters }));
        self.proclaim(target, incarnation, true, now, now_ms);
    }

    /// Sign it, and tell everybody in a moment, so that many that die together make few frames.
    fn proclaim(&mut self, target: PeerId, incarnation: Incarnation, stands: bool, now: Instant, now_ms: u64) {
        self.latest_ms = now_ms.max(self.latest_ms.saturating_add(1));
        let at_ms = self.latest_ms;
        let stone = Tombstone { seed: self.local, target, incarnation, at_ms, stands };
        // The key was checked at the start.
        let Ok(bytes) = stone.sign(&self.key) else { return };
        self.news.push(bytes.clone());
        self.tell_at.get_or_insert(now + GATHER);
        if !stands {
            return;
        }
        if self.stones.len() >= self.config.max_tombstones {
            let oldest = self.stones.iter().min_by_key(|(_, stone)| stone.at_ms).map(|(target, _)| *target);
            oldest.and_then(|oldest| self.stones.remove(&oldest));
        }
        self.stones.insert(target, Stone { incarnation, at_ms, bytes, until: now + self.config.retention });
    }

    pub(super) fn tell_failed(&mut self, peer: PeerId, now: Instant) {
        if self.up.contains(&peer) {
            self.owed.entry(peer).or_insert(now + self.config.resend);
        }
    }

    /// Everything, oldest first; also when there is nothing, for the peer may remember what this seed said in an earlier
    /// life.
    fn tell_whole(&self, to: PeerId, outputs: &mut VecDeque<Output>) {
        let mut stones = self.stones.values().collect::<Vec<_>>();
        stones.sort_by_key(|stone| stone.at_ms);
        let stones = stones.into_iter().map(|stone| stone.bytes.clone()).collect::<Vec<_>>();
        let mut parts = stones.chunks(MAX_STATEMENTS);
        let first = parts.next().unwrap_or_default().to_vec();
        outputs.push_back(Output::Tell { to, whole: true, statements: first });
        outputs.extend(parts.map(|part| Output::Tell { to, whole: false, statements: part.to_vec() }));
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        if self.tell_at.take_if(|at| *at <= now).is_some() {
            let news = std::mem::take(&mut self.news);
            for part in news.chunks(MAX_STATEMENTS) {
                let tell = |to: &PeerId| Output::Tell { to: *to, whole: false, statements: part.to_vec() };
                outputs.extend(self.up.iter().map(tell));
            }
        }
        let due = self.owed.iter().filter(|(_, at)| **at <= now).map(|(peer, _)| *peer).collect::<Vec<_>>();
        for peer in due {
            self.owed.remove(&peer);
            self.tell_whole(peer, outputs);
        }
        let over = self.stones.iter().filter(|(_, stone)| stone.until <= now).map(|(target, _)| *target);
        for target in over.collect::<Vec<_>>() {
            // The others count the same time by themselves.
            if let Some(stone) = self.stones.remove(&target) {
                let event = Event::Raised { seed: self.local, target, incarnation: stone.incarnation };
                outputs.push_back(Output::Event(event));
            }
        }
        self.cases.retain(|_, case| {
            case.reporters.retain(|_, until| *until > now);
            !case.reporters.is_empty()
        });
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let cases = self.cases.values().filter_map(|case| case.reporters.values().max().copied());
        let stones = self.stones.values().map(|stone| stone.until);
        self.owed.values().copied().chain(self.tell_at).chain(stones).chain(cases).min()
    }

    pub(super) fn tombstones(&self) -> Vec<Tombstone> {
        let stone = |(target, stone): (&PeerId, &Stone)| Tombstone {
            seed: self.local,
            target: *target,
            incarnation: stone.incarnation,
            at_ms: stone.at_ms,
            stands: true,
        };
        self.stones.iter().map(stone).collect()
    }
}
