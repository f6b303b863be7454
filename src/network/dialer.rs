//! Whom to dial, and when. A sans-IO core.
//!
//! Four reasons to dial, strongest first: the peer has restarted and its old links were just closed (`Reset`); it is
//! mandatory (`--peer`); somebody wants it (a command, or a message that waits); or fewer than `fanout` dialled links
//! stand, and it was picked at random out of everybody the seeds and the LAN have named. Inbound links do not count
//! towards the fanout and nothing is closed for being surplus. Peers remembered from an earlier start are used only
//! when nobody fresh can be had.
//!
//! Whoever names others may lie. A seed fills no more than its share of the table, and the pick is first among those
//! who named and then among whom they named, so that a thousand false names of one do not drown ten true ones of another.
//! Of two that are picked at random the one with which things went better is dialled ("the power of two choices").

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::{Multiaddr, PeerId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom as _, IteratorRandom as _};

use super::backoff::Backoff;
use crate::api::Via;

mod types;

pub(crate) use types::{Down, Input, Output, Source, Target};

/// Wait before a peer that could not be reached is dialled again for the fanout; the cap, when a seed has called it dead.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(60) };

/// The same for a mandatory peer and for one that is wanted. The cap keeps the promise that a waiting message is tried
/// at most 15 s apart.
const RETRY_SOON: Backoff = Backoff { first: Duration::from_millis(500), cap: Duration::from_secs(15) };

/// Dials for the fanout: so many at once, then one in each such span. A list of thousands of dead addresses is worked off
/// slowly and costs next to nothing.
const BURST: u32 = 8;
const PACE: Duration = Duration::from_millis(500);

/// How long peers remembered from an earlier start stand back for what seeds and the LAN name.
const REMEMBERED_AFTER: Duration = Duration::from_secs(3);

/// How long a node that does not speak our protocols is left alone.
const FOREIGN_REST: Duration = Duration::from_secs(3600);

/// How long a peer that remembers a later start of this node is left alone. It may have forgotten it by then.
const REFUSED_REST: Duration = Duration::from_secs(60);

/// A dial that nobody answered for so long is forgotten; the transport's own limit is much shorter.
const DIAL_FORGOTTEN: Duration = Duration::from_secs(60);

/// A goodbye takes back the registrations; a peer that is listed so long after it has come back.
const LEFT_REST: Duration = Duration::from_secs(5);

/// Most candidates kept, over all shares; one beyond its share takes the place of one that never answered, or is not
/// taken.
const MAX_CANDIDATES: usize = 10_000;

/// What is thought of a peer that nothing is known of.
const PRIOR: f64 = 0.5;

/// Most addresses kept for one candidate.
const MAX_ADDRESSES: usize = 16;

/// Most peers that are wanted at once; the oldest wish goes first.
const MAX_WANTED: usize = 1_024;

#[derive(Debug)]
struct Candidate {
    addresses: Vec<Multiaddr>,
    source: Source,
    failures: u32,
    not_before: Instant,
    gone: Gone,
    /// The seed that named it first; `None` for the LAN, cards, the user and the database, which share one share.
    by: Option<PeerId>,
    reliability: f64,
}

/// Why a candidate is not picked for the fanout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gone {
    No,
    /// It said goodbye then; a seed that names it later has heard of it anew.
    Left(Instant),
    /// We were told to let go of it, or it is a seed, which the fanout does not count.
    Dismissed,
}

#[derive(Debug)]
struct Mandatory {
    address: Multiaddr,
    peer: Option<PeerId>,
    failures: u32,
    next: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Link {
    dialled: bool,
    seed: bool,
}

/// The core. Feed it with [`Dialer::handle_input`] and [`Dialer::handle_timeout`], then drain [`Dialer::poll_output`].
#[derive(Debug)]
pub(crate) struct Dialer {
    rng: StdRng,
    fanout: usize,
    started: Instant,
    candidates: BTreeMap<PeerId, Candidate>,
    /// How many candidates each namer may put into the table, and has.
    share: usize,
    named_by: BTreeMap<Option<PeerId>, usize>,
    mandatory: Vec<Mandatory>,
    links: BTreeMap<PeerId, Link>,
    dialling: BTreeMap<Target, Dialling>,
    wanted: VecDeque<PeerId>,
    blocked: BTreeSet<PeerId>,
    hungry: bool,
    /// Dials for the fanout that may go out now, and since when that is so.
    tokens: u32,
    refilled: Instant,
    /// What [`Dialer::poll_timeout`] says; found once after each change.
    timeout: Option<Instant>,
    outputs: VecDeque<Output>,
}

#[derive(Clone, Copy, Debug)]
struct Dialling {
    since: Instant,
    for_fanout: bool,
}

impl Dialer {
    /// A dialler that keeps `fanout` dialled links and always redials the `mandatory` addresses. Each of the `seeds`
    /// gets an equal share of the table, all other sources together one more.
    pub(crate) fn new(
        fanout: usize,
        seeds: usize,
        mandatory: Vec<(Multiaddr, Option<PeerId>)>,
        rng_seed: u64,
        now: Instant,
    ) -> Self {
        let mandatory =
            mandatory.into_iter().map(|(address, peer)| Mandatory { address, peer, failures: 0, next: now }).collect();
        Self {
            rng: StdRng::seed_from_u64(rng_seed),
            fanout,
            started: now,
            candidates: BTreeMap::new(),
            share: MAX_CANDIDATES / (seeds + 1),
            named_by: BTreeMap::new(),
            mandatory,
            links: BTreeMap::new(),
            dialling: BTreeMap::new(),
            wanted: VecDeque::new(),
            blocked: BTreeSet::new(),
            hungry: false,
            tokens: BURST,
            refilled: now,
            timeout: Some(now),
            outputs: VecDeque::new(),
        }
    }

    /// Is it one of the mandatory peers?
    pub(crate) fn is_mandatory(&self, peer: &PeerId) -> bool {
        self.mandatory.iter().any(|mandatory| mandatory.peer.as_ref() == Some(peer))
    }

    /// Is it being dialled, or linked already?
    pub(crate) fn is_on_the_way(&self, peer: &PeerId) -> bool {
        self.links.contains_key(peer) || self.dialling.contains_key(&Target::Peer(*peer))
    }

    /// Dials that failed in a row.
    pub(crate) fn failures(&self, peer: &PeerId) -> u32 {
        let of_mandatory = |mandatory: &&Mandatory| mandatory.peer.as_ref() == Some(peer);
        let mandatory = self.mandatory.iter().find(of_mandatory).map_or(0, |mandatory| mandatory.failures);
        self.candidates.get(peer).map_or(0, |candidate| candidate.failures).max(mandatory)
    }

    /// The addresses known here.
    pub(crate) fn addresses(&self, peer: &PeerId) -> &[Multiaddr] {
        self.candidates.get(peer).map_or(&[], |candidate| &candidate.addresses)
    }

    /// Take in what happened.
    pub(crate) fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Named { peer, addresses, source } => {
                if !self.candidates.contains_key(&peer) {
                    self.make_room(None, 1);
                }
                self.named(peer, addresses, source, None, now);
            }
            Input::Listed { by, named } => {
                // Looked for once and not for each name: a list of thousands must not cost thousands of looks at everybody.
                let new = named.iter().filter(|(peer, _)| !self.candidates.contains_key(peer)).count();
                self.make_room(Some(by), new);
                for (peer, addresses) in named {
                    self.named(peer, addresses, Source::Seed, Some(by), now);
                }
            }
            Input::Try(peer) => {
                let via = self.via(&peer);
                self.dial_peer(peer, via, false, now);
            }
            Input::Reliability { peer, value } => {
                if let Some(candidate) = self.candidates.get_mut(&peer) {
                    candidate.reliability = value;
                }
                // It comes with every delivered message and makes nothing due.
                return;
            }
            Input::Seed(peer) => {
                if let Some(candidate) = self.candidates.get_mut(&peer) {
                    candidate.gone = Gone::Dismissed;
                }
            }
            Input::Unnamed { peer, by } => {
                if let Some(candidate) = self.candidates.get_mut(&peer).filter(|found| found.by == Some(by)) {
                    candidate.not_before = candidate.not_before.max(now + RETRY.cap);
                }
            }
            Input::Forget(peers) => {
                for peer in peers {
                    if self.candidates.get(&peer).is_some_and(|found| found.gone == Gone::No) {
                        self.forget(&peer);
                    }
                }
            }
            Input::Up { peer, dialled, seed } => self.up(peer, dialled, seed),
            Input::Identified { mandatory, peer } => {
                // The dial goes on under the peer's name until its hello has passed.
                if let Some(dialling) = self.dialling.remove(&Target::Mandatory(mandatory)) {
                    self.dialling.insert(Target::Peer(peer), dialling);
                }
                if let Some(mandatory) = self.mandatory.get_mut(mandatory) {
                    mandatory.peer = Some(peer);
                    let address = mandatory.address.clone();
                    self.named(peer, vec![address], Source::Gossip, None, now);
                }
            }
            Input::Down { peer, how } => self.down(peer, how, now),
            Input::DialFailed(target) => self.dial_failed(target, now),
            Input::Foreign(peer) => {
                self.dialling.remove(&Target::Peer(peer));
                if let Some(candidate) = self.candidates.get_mut(&peer) {
                    candidate.failures = 0;
                    candidate.not_before = now + FOREIGN_REST;
                }
                self.wanted.retain(|wanted| *wanted != peer);
            }
            Input::Wanted(peer) => self.want(peer, now),
            Input::Unwanted(peer) => self.wanted.retain(|wanted| *wanted != peer),
            Input::Blocked(peer) => {
                self.blocked.insert(peer);
                self.wanted.retain(|wanted| *wanted != peer);
            }
            Input::Unblocked(peer) => {
                self.blocked.remove(&peer);
            }
            Input::Fanout(fanout) => self.fanout = fanout,
        }
        self.advance(now);
    }

    /// Do what the time asks for. Call it when [`Dialer::poll_timeout`] has come; early or late calls do no harm.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// When [`Dialer::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn named(&mut self, peer: PeerId, addresses: Vec<Multiaddr>, source: Source, by: Option<PeerId>, now: Instant) {
        if let Some(candidate) = self.candidates.get_mut(&peer) {
            let fresh = source != Source::Remembered;
            candidate.source = candidate.source.min(source);
            let news = addresses.iter().any(|address| !candidate.addresses.contains(address));
            if let Gone::Left(at) = candidate.gone
                && fresh
                && (news || now > at + LEFT_REST)
            {
                candidate.gone = Gone::No;
            }
            if news && fresh && candidate.failures > 0 {
                candidate.failures = 0;
                candidate.not_before = candidate.not_before.min(now);
            }
            let mut merged = addresses;
            merged.truncate(MAX_ADDRESSES);
            for address in &candidate.addresses {
                if merged.len() < MAX_ADDRESSES && !merged.contains(address) {
                    merged.push(address.clone());
                }
            }
            candidate.addresses = merged;
        } else if self.room(by) > 0 {
            let mut addresses = addresses;
            addresses.truncate(MAX_ADDRESSES);
            let (failures, not_before, gone, reliability) = (0, now, Gone::No, PRIOR);
            let candidate = Candidate { addresses, source, failures, not_before, gone, by, reliability };
            self.candidates.insert(peer, candidate);
            *self.named_by.entry(by).or_default() += 1;
        }
    }

    /// How many more that namer may name.
    fn room(&self, by: Option<PeerId>) -> usize {
        self.share.saturating_sub(self.named_by.get(&by).copied().unwrap_or(0))
    }

    /// Of those whom that namer has named, forget as many that never answered as `new` ones need, the worst first.
    fn make_room(&mut self, by: Option<PeerId>, new: usize) {
        let lacking = new.saturating_sub(self.room(by));
        if lacking == 0 {
            return;
        }
        let failing = self
            .candidates
            .iter()
            .filter(|(peer, candidate)| candidate.by == by && candidate.failures > 0 && self.is_idle(peer));
        let mut failing: Vec<(u32, PeerId)> = failing.map(|(peer, candidate)| (candidate.failures, *peer)).collect();
        failing.sort_unstable();
        for (_, peer) in failing.iter().rev().take(lacking) {
            self.forget(peer);
        }
    }

    fn forget(&mut self, peer: &PeerId) {
        if self.is_idle(peer)
            && let Some(candidate) = self.candidates.remove(peer)
            && let Some(named) = self.named_by.get_mut(&candidate.by)
        {
            *named = named.saturating_sub(1);
        }
    }

    /// Nobody has a use for it now.
    fn is_idle(&self, peer: &PeerId) -> bool {
        self.is_free(peer) && !self.wanted.contains(peer) && !self.is_mandatory(peer)
    }

    fn up(&mut self, peer: PeerId, dialled: bool, seed: bool) {
        self.dialling.remove(&Target::Peer(peer));
        self.links.insert(peer, Link { dialled, seed });
        if let Some(candidate) = self.candidates.get_mut(&peer) {
            candidate.failures = 0;
            candidate.gone = if seed { Gone::Dismissed } else { Gone::No };
        }
        for mandatory in self.mandatory.iter_mut().filter(|mandatory| mandatory.peer == Some(peer)) {
            mandatory.failures = 0;
        }
    }

    fn down(&mut self, peer: PeerId, how: Down, now: Instant) {
        let link = self.links.remove(&peer);
        let delay = if how == Down::Refused { REFUSED_REST } else { RETRY_SOON.delay(1, &mut self.rng) };
        if let Some(candidate) = self.candidates.get_mut(&peer) {
            match how {
                Down::Left if !link.is_some_and(|link| link.seed) => candidate.gone = Gone::Left(now),
                Down::Left | Down::Dismissed => candidate.gone = Gone::Dismissed,
                Down::Lost | Down::Refused => candidate.not_before = now + delay,
                Down::Reset => candidate.not_before = now,
            }
        }
        for mandatory in self.mandatory.iter_mut().filter(|mandatory| mandatory.peer == Some(peer)) {
            mandatory.next = if how == Down::Reset { now } else { now + delay };
        }
        if how == Down::Reset {
            self.dial_peer(peer, Via::Dial, false, now);
        }
    }

    fn dial_failed(&mut self, target: Target, now: Instant) {
        if self.dialling.remove(&target).is_none() {
            return;
        }
        match target {
            Target::Mandatory(number) => {
                if let Some(mandatory) = self.mandatory.get_mut(number) {
                    mandatory.failures = mandatory.failures.saturating_add(1);
                    mandatory.next = now + RETRY_SOON.delay(mandatory.failures, &mut self.rng);
                }
            }
            Target::Peer(peer) => {
                for mandatory in self.mandatory.iter_mut().filter(|mandatory| mandatory.peer == Some(peer)) {
                    mandatory.failures = mandatory.failures.saturating_add(1);
                    mandatory.next = now + RETRY_SOON.delay(mandatory.failures, &mut self.rng);
                }
                let backoff = if self.wanted.contains(&peer) { RETRY_SOON } else { RETRY };
                if let Some(candidate) = self.candidates.get_mut(&peer) {
                    candidate.failures = candidate.failures.saturating_add(1);
                    candidate.not_before = now + backoff.delay(candidate.failures, &mut self.rng);
                }
            }
        }
    }

    fn want(&mut self, peer: PeerId, now: Instant) {
        if !self.wanted.contains(&peer) {
            if self.wanted.len() == MAX_WANTED {
                self.wanted.pop_front();
            }
            self.wanted.push_back(peer);
        }
        // A wish made just now is tried just now, unless the peer is known to be somebody else's node.
        if let Some(candidate) = self.candidates.get_mut(&peer)
            && candidate.not_before < now + RETRY.cap
        {
            candidate.not_before = now;
        }
    }

    fn advance(&mut self, now: Instant) {
        self.dialling.retain(|_, dialling| dialling.since + DIAL_FORGOTTEN > now);
        for number in 0..self.mandatory.len() {
            if self.mandatory_absent(number) && self.mandatory[number].next <= now {
                self.dial_mandatory(number, now);
            }
        }
        let due = |candidate: &Candidate| candidate.not_before <= now && !candidate.addresses.is_empty();
        let wanted: Vec<PeerId> = self
            .wanted
            .iter()
            .filter(|peer| self.is_free(peer) && self.candidates.get(peer).is_some_and(due))
            .copied()
            .collect();
        for peer in wanted {
            let via = self.via(&peer);
            self.dial_peer(peer, via, false, now);
        }
        self.refill(now);
        while self.fanout_count() < self.fanout && self.tokens > 0 {
            let Some(peer) = self.pick(now) else { break };
            let via = self.via(&peer);
            self.tokens -= 1;
            self.dial_peer(peer, via, true, now);
        }
        let hungry = self.fanout_count() < self.fanout;
        if hungry != self.hungry {
            self.hungry = hungry;
            self.outputs.push_back(Output::Hungry(hungry));
        }
        self.timeout = self.next_timeout();
    }

    fn refill(&mut self, now: Instant) {
        if self.tokens == BURST {
            self.refilled = now;
            return;
        }
        let spans = now.saturating_duration_since(self.refilled).as_nanos() / PACE.as_nanos();
        let more = u32::try_from(spans).unwrap_or(BURST).min(BURST);
        self.tokens = (self.tokens + more).min(BURST);
        self.refilled = if self.tokens == BURST { now } else { self.refilled + PACE * more };
    }

    fn next_timeout(&self) -> Option<Instant> {
        let mandatory = (0..self.mandatory.len()).filter(|&i| self.mandatory_absent(i)).map(|i| self.mandatory[i].next);
        let wanted = self.wanted.iter().filter(|peer| self.is_free(peer)).filter_map(|peer| {
            self.candidates
                .get(peer)
                .filter(|candidate| !candidate.addresses.is_empty())
                .map(|candidate| candidate.not_before)
        });
        let short = self.fanout_count() < self.fanout;
        let fanout = self.candidates.iter().filter(|(peer, candidate)| {
            short && candidate.gone == Gone::No && !candidate.addresses.is_empty() && self.is_free(peer)
        });
        let token = if self.tokens > 0 { self.refilled } else { self.refilled + PACE };
        let fanout = fanout.map(|(_, candidate)| match candidate.source {
            Source::Remembered => candidate.not_before.max(self.started + REMEMBERED_AFTER).max(token),
            Source::Seed | Source::Mdns | Source::Gossip => candidate.not_before.max(token),
        });
        let forgotten = self.dialling.values().map(|dialling| dialling.since + DIAL_FORGOTTEN);
        mandatory.chain(wanted).chain(fanout).chain(forgotten).min()
    }

    /// A random free candidate, a fresh one if there is any.
    fn pick(&mut self, now: Instant) -> Option<PeerId> {
        let free = |fresh: bool| {
            self.candidates
                .iter()
                .filter(move |(_, candidate)| (candidate.source != Source::Remembered) == fresh)
                .filter(|(peer, candidate)| {
                    candidate.not_before <= now
                        && candidate.gone == Gone::No
                        && !candidate.addresses.is_empty()
                        && self.is_free(peer)
                })
        };
        let mut rng = self.rng.clone();
        let namers: BTreeSet<Option<PeerId>> = free(true).map(|(_, candidate)| candidate.by).collect();
        let namer = namers.into_iter().choose(&mut rng);
        let fresh = namer.and_then(|by| better_of_two(free(true).filter(|(_, found)| found.by == by), &mut rng));
        let pick = fresh.or_else(|| {
            let remembered_now = now >= self.started + REMEMBERED_AFTER;
            better_of_two(free(false).filter(|_| remembered_now), &mut rng)
        });
        self.rng = rng;
        pick
    }

    fn via(&self, peer: &PeerId) -> Via {
        match self.candidates.get(peer).map(|candidate| candidate.source) {
            Some(Source::Seed) => Via::Seed,
            Some(Source::Mdns) => Via::Mdns,
            Some(Source::Gossip) => Via::Gossip,
            Some(Source::Remembered) | None => Via::Dial,
        }
    }

    fn dial_peer(&mut self, peer: PeerId, via: Via, for_fanout: bool, now: Instant) {
        let addresses = self.addresses(&peer).to_vec();
        if addresses.is_empty() || !self.is_free(&peer) {
            return;
        }
        self.dialling.insert(Target::Peer(peer), Dialling { since: now, for_fanout });
        self.outputs.push_back(Output::Dial { target: Target::Peer(peer), addresses, via });
    }

    fn dial_mandatory(&mut self, number: usize, now: Instant) {
        let Mandatory { address, peer, .. } = &self.mandatory[number];
        let target = peer.map_or(Target::Mandatory(number), Target::Peer);
        let mut addresses = vec![address.clone()];
        if let Some(peer) = peer {
            addresses.extend(self.addresses(peer).iter().filter(|known| *known != address).cloned());
        }
        self.mandatory[number].next = now + DIAL_FORGOTTEN;
        self.dialling.insert(target, Dialling { since: now, for_fanout: false });
        self.outputs.push_back(Output::Dial { target, addresses, via: Via::Dial });
    }

    fn mandatory_absent(&self, number: usize) -> bool {
        match self.mandatory[number].peer {
            Some(peer) => self.is_free(&peer),
            None => !self.dialling.contains_key(&Target::Mandatory(number)),
        }
    }

    /// Neither linked, nor being dialled, nor blocked.
    fn is_free(&self, peer: &PeerId) -> bool {
        !self.links.contains_key(peer)
            && !self.dialling.contains_key(&Target::Peer(*peer))
            && !self.blocked.contains(peer)
    }

    /// Dialled links that stand or are on the way for the fanout.
    fn fanout_count(&self) -> usize {
        self.links.values().filter(|link| link.dialled && !link.seed).count()
            + self.dialling.values().filter(|dialling| dialling.for_fanout).count()
    }
}

/// Two at random, and of these the one with which things went better.
fn better_of_two<'a>(free: impl Iterator<Item = (&'a PeerId, &'a Candidate)>, rng: &mut StdRng) -> Option<PeerId> {
    let free: Vec<(&PeerId, f64)> = free.map(|(peer, candidate)| (peer, candidate.reliability)).collect();
    let (first, second) = (free.choose(rng)?, free.choose(rng)?);
    Some(if second.1 > first.1 { *second.0 } else { *first.0 })
}

#[cfg(test)]
mod tests;
