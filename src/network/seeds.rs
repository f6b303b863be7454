//! Which seeds hold a registration of ours, and what they have listed. A sans-IO core.
//!
//! Of n configured seeds a peer keeps floor(n/2)+1 live registrations at seeds picked at random, so that any two peers
//! have at least one seed in common. Another seed is picked only in place of one that cannot be reached. Registrations
//! are renewed at half their life and after every reconnect; each registered seed is asked for its whole list, page by
//! page, sooner while the dialler is short of peers.

use std::collections::{BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use rand::rngs::StdRng;
use rand::seq::IteratorRandom;
use rand::{Rng, SeedableRng};

use super::backoff::Backoff;

/// Life of a registration that we ask for. Equal to the shortest that our seeds grant.
pub(crate) const REGISTRATION_TTL: Duration = Duration::from_secs(120);

/// What a seed may grant; another time is taken for the nearest of these.
const SHORTEST_TTL: Duration = Duration::from_secs(30);
const LONGEST_TTL: Duration = Duration::from_secs(86_400);

/// Peers asked for in one page of a seed's list.
pub(crate) const PAGE: usize = 500;

/// Pages read of one seed's list; what a seed lists beyond is not looked at.
const MAX_PAGES: usize = 20;

/// Wait before a seed that failed is tried again. The cap keeps the promise that a seed which comes back is used
/// within 30 s.
const RETRY: Backoff = Backoff { first: Duration::from_secs(1), cap: Duration::from_secs(15) };

/// How often a seed is asked for its list while all is well.
const LIST_INTERVAL: Duration = Duration::from_secs(30);

/// How often at most while the dialler is short of peers, growing from the first to the second.
const HUNGRY: Backoff = Backoff { first: Duration::from_millis(500), cap: Duration::from_secs(10) };

/// How long a picked seed may take from the dial to the registration.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(12);

/// The number of a configured seed, in the order of the configuration.
pub(crate) type SeedId = usize;

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    /// Own addresses are known, so registering makes sense. Before this nothing is done.
    Ready,
    /// A link to that seed stands and its hello has passed.
    Linked {
        /// The seed that was dialled or recognised.
        seed: SeedId,
        /// Its identity.
        peer: PeerId,
    },
    /// The last link to that peer is gone.
    Unlinked {
        /// Its identity.
        peer: PeerId,
    },
    /// The dial that [`Output::Dial`] asked for failed.
    DialFailed {
        /// The seed.
        seed: SeedId,
        /// Somebody else answers there.
        wrong_identity: bool,
    },
    /// The seed has taken our registration.
    Registered {
        /// The seed.
        peer: PeerId,
        /// For how long.
        ttl: Duration,
    },
    /// The seed has refused our registration, or has not answered.
    RegisterFailed {
        /// The seed.
        peer: PeerId,
        /// It answered with a refusal.
        refused: bool,
    },
    /// A page of the seed's list.
    Listed {
        /// The seed.
        peer: PeerId,
        /// Who is on it, this node left out.
        peers: Vec<PeerId>,
        /// The page was full, so that another one may follow.
        full: bool,
    },
    /// The seed did not hand out its list.
    ListFailed {
        /// The seed.
        peer: PeerId,
    },
    /// The dialler has too few peers, or enough again.
    Hungry(bool),
    /// Somebody is looked for: ask now, unless just asked.
    LookNow,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Output {
    /// Dial this seed; answered by [`Input::Linked`] or [`Input::DialFailed`].
    Dial(SeedId),
    /// Register there.
    Register(PeerId),
    /// Ask for the first page (`first`) or the next one.
    List {
        /// The seed.
        peer: PeerId,
        /// Begin anew.
        first: bool,
    },
    /// The seed's state changed. Said once for each change.
    State {
        /// The seed.
        seed: SeedId,
        /// The new state.
        state: State,
        /// How many peers it has listed.
        peers: usize,
    },
}

/// How a seed stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It holds our registration.
    Registered,
    /// It cannot be reached.
    Unreachable,
    /// It refuses us, or is somebody else.
    Refused,
}

/// What one seed looks like from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub(crate) peer: Option<PeerId>,
    pub(crate) picked: bool,
    pub(crate) state: Option<State>,
    pub(crate) peers: usize,
    pub(crate) expires: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Not picked; may be picked from that time on.
    Resting { until: Option<Instant> },
    /// Dialled, or linked and asked to register; given up at the deadline.
    Trying { deadline: Instant },
    /// Registered; renewed at `renew`.
    Held { renew: Instant, expires: Instant },
}

#[derive(Debug)]
struct Seed {
    peer: Option<PeerId>,
    phase: Phase,
    linked: bool,
    failures: u32,
    said: Option<State>,
    /// The registration whose state is told once the first list has come.
    announce: bool,
    listed: BTreeSet<PeerId>,
    gathering: BTreeSet<PeerId>,
    pages: usize,
    asking: bool,
    next_list: Instant,
    last_list: Option<Instant>,
}

/// The core. Feed it with [`Seeds::handle_input`] and [`Seeds::handle_timeout`], then drain [`Seeds::poll_output`].
#[derive(Debug)]
pub(crate) struct Seeds {
    seeds: Vec<Seed>,
    rng: StdRng,
    ready: bool,
    hungry: bool,
    hungry_rounds: u32,
    outputs: VecDeque<Output>,
}

impl Seeds {
    /// A core for so many seeds, of some of which the identity is known.
    pub(crate) fn new(identities: Vec<Option<PeerId>>, rng_seed: u64, now: Instant) -> Self {
        let seeds = identities
            .into_iter()
            .map(|peer| Seed {
                peer,
                phase: Phase::Resting { until: None },
                linked: false,
                failures: 0,
                said: None,
                announce: false,
                listed: BTreeSet::new(),
                gathering: BTreeSet::new(),
                pages: 0,
                asking: false,
                next_list: now,
                last_list: None,
            })
            .collect();
        let rng = StdRng::seed_from_u64(rng_seed);
        Self { seeds, rng, ready: false, hungry: true, hungry_rounds: 0, outputs: VecDeque::new() }
    }

    /// Registrations wanted: floor(n/2)+1, none without seeds.
    pub(crate) fn wanted(&self) -> usize {
        if self.seeds.is_empty() { 0 } else { self.seeds.len() / 2 + 1 }
    }

    /// Live registrations.
    pub(crate) fn registered(&self) -> usize {
        self.seeds.iter().filter(|seed| matches!(seed.phase, Phase::Held { .. })).count()
    }

    /// The seed with that identity.
    pub(crate) fn of(&self, peer: &PeerId) -> Option<SeedId> {
        self.seeds.iter().position(|seed| seed.peer.as_ref() == Some(peer))
    }

    /// The seeds as configured, for `seeds` and `status`.
    pub(crate) fn view(&self) -> impl Iterator<Item = View> + '_ {
        self.seeds.iter().map(|seed| View {
            peer: seed.peer,
            picked: !matches!(seed.phase, Phase::Resting { .. }),
            state: match seed.phase {
                Phase::Held { .. } => Some(State::Registered),
                Phase::Resting { .. } | Phase::Trying { .. } => seed.said.filter(|state| *state != State::Registered),
            },
            peers: seed.listed.len(),
            expires: match seed.phase {
                Phase::Held { expires, .. } => Some(expires),
                Phase::Resting { .. } | Phase::Trying { .. } => None,
            },
        })
    }

    /// Take in what happened.
    pub(crate) fn handle_input(&mut self, input: Input, now: Instant) {
        match input {
            Input::Ready => self.ready = true,
            Input::Linked { seed, peer } => self.linked(seed, peer, now),
            Input::Unlinked { peer } => self.unlinked(&peer, now),
            Input::DialFailed { seed, wrong_identity } => {
                let state = if wrong_identity { State::Refused } else { State::Unreachable };
                if self.seeds.get(seed).is_some_and(|seed| matches!(seed.phase, Phase::Trying { .. })) {
                    self.give_up(seed, state, now);
                }
            }
            Input::Registered { peer, ttl } => self.registered_at(&peer, ttl, now),
            Input::RegisterFailed { peer, refused } => {
                if let Some(seed) = self.of(&peer)
                    && !matches!(self.seeds[seed].phase, Phase::Resting { .. })
                {
                    self.give_up(seed, if refused { State::Refused } else { State::Unreachable }, now);
                }
            }
            Input::Listed { peer, peers, full } => self.list_page(&peer, peers, full, now),
            Input::ListFailed { peer } => {
                if let Some(seed) = self.of(&peer) {
                    self.seeds[seed].asking = false;
                    self.schedule_list(seed, now);
                    self.announce(seed);
                }
            }
            Input::Hungry(hungry) => {
                if hungry != self.hungry {
                    self.hungry_rounds = 0;
                    self.hungry = hungry;
                    if hungry {
                        self.look_now(now);
                    }
                }
            }
            Input::LookNow => self.look_now(now),
        }
        self.advance(now);
    }

    /// Do what the time asks for. Call it when [`Seeds::poll_timeout`] has come; early or late calls do no harm.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
    }

    /// When [`Seeds::handle_timeout`] is to be called next.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        if !self.ready {
            return None;
        }
        let short = self.active() < self.wanted();
        self.seeds
            .iter()
            .flat_map(|seed| match seed.phase {
                Phase::Resting { until } => [until.filter(|_| short), None],
                Phase::Trying { deadline } => [Some(deadline), None],
                Phase::Held { renew, .. } => {
                    [Some(renew), Some(seed.next_list).filter(|_| !seed.asking && seed.linked)]
                }
            })
            .flatten()
            .min()
    }

    /// The next thing to do.
    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    fn active(&self) -> usize {
        self.seeds.iter().filter(|seed| !matches!(seed.phase, Phase::Resting { .. })).count()
    }

    fn advance(&mut self, now: Instant) {
        if !self.ready {
            return;
        }
        for id in 0..self.seeds.len() {
            match self.seeds[id].phase {
                Phase::Trying { deadline } if deadline <= now => self.give_up(id, State::Unreachable, now),
                Phase::Held { renew, .. } if renew <= now => self.start(id, now),
                Phase::Held { .. } => self.list(id, now),
                Phase::Trying { .. } | Phase::Resting { .. } => {}
            }
        }
        while self.active() < self.wanted() {
            let rested =
                |seed: &Seed| matches!(seed.phase, Phase::Resting { until } if until.is_none_or(|until| until <= now));
            let Some(pick) = (0..self.seeds.len()).filter(|&id| rested(&self.seeds[id])).choose(&mut self.rng) else {
                break;
            };
            self.start(pick, now);
        }
    }

    /// Dial the seed if need be, then register there.
    fn start(&mut self, id: SeedId, now: Instant) {
        let seed = &mut self.seeds[id];
        // A renewal keeps the registration it has until it is answered, so that it does not count as lost meanwhile.
        match &mut seed.phase {
            Phase::Held { renew, .. } if seed.linked => *renew = now + ATTEMPT_TIMEOUT,
            phase => *phase = Phase::Trying { deadline: now + ATTEMPT_TIMEOUT },
        }
        match (seed.linked, seed.peer) {
            (true, Some(peer)) => self.outputs.push_back(Output::Register(peer)),
            _ => self.outputs.push_back(Output::Dial(id)),
        }
    }

    fn linked(&mut self, id: SeedId, peer: PeerId, now: Instant) {
        if self.of(&peer).is_some_and(|other| other != id) {
            // Two configured addresses lead to one seed, which counts once.
            self.give_up(id, State::Refused, now);
            return;
        }
        let Some(seed) = self.seeds.get_mut(id) else { return };
        seed.peer = Some(peer);
        seed.linked = true;
        if matches!(seed.phase, Phase::Trying { .. } | Phase::Held { .. }) {
            self.start(id, now);
        }
    }

    fn unlinked(&mut self, peer: &PeerId, now: Instant) {
        let Some(id) = self.of(peer) else { return };
        let seed = &mut self.seeds[id];
        seed.linked = false;
        seed.asking = false;
        if matches!(seed.phase, Phase::Held { .. } | Phase::Trying { .. }) {
            // One dial at once tells a broken link from a dead seed.
            seed.phase = Phase::Resting { until: None };
            self.start(id, now);
        }
    }

    fn registered_at(&mut self, peer: &PeerId, ttl: Duration, now: Instant) {
        let Some(id) = self.of(peer) else { return };
        // A day is far more than we ask for, and renewing every few seconds is nobody's need: beyond is not believed.
        let ttl = ttl.clamp(SHORTEST_TTL, LONGEST_TTL);
        let jitter = self.rng.random_range(0.9..1.0);
        let seed = &mut self.seeds[id];
        if matches!(seed.phase, Phase::Resting { .. }) {
            return;
        }
        let fresh = !matches!(seed.phase, Phase::Held { .. });
        seed.phase = Phase::Held { renew: now + (ttl / 2).mul_f64(jitter), expires: now + ttl };
        seed.failures = 0;
        if fresh {
            seed.next_list = now;
            seed.announce = seed.said != Some(State::Registered);
            self.hungry_rounds = 0;
        }
    }

    fn give_up(&mut self, id: SeedId, state: State, now: Instant) {
        let seed = &mut self.seeds[id];
        seed.failures = seed.failures.saturating_add(1);
        seed.phase = Phase::Resting { until: Some(now + RETRY.delay(seed.failures, &mut self.rng)) };
        seed.announce = false;
        seed.asking = false;
        if seed.said != Some(state) {
            seed.said = Some(state);
            self.outputs.push_back(Output::State { seed: id, state, peers: seed.listed.len() });
        }
    }

    fn list(&mut self, id: SeedId, now: Instant) {
        let seed = &mut self.seeds[id];
        let Some(peer) = seed.peer.filter(|_| seed.linked && !seed.asking && seed.next_list <= now) else { return };
        seed.asking = true;
        seed.pages = 0;
        seed.gathering.clear();
        seed.last_list = Some(now);
        self.outputs.push_back(Output::List { peer, first: true });
    }

    fn list_page(&mut self, peer: &PeerId, peers: Vec<PeerId>, full: bool, now: Instant) {
        let Some(id) = self.of(peer) else { return };
        let seed = &mut self.seeds[id];
        if !seed.asking {
            return;
        }
        seed.gathering.extend(peers.into_iter().take(PAGE));
        seed.pages += 1;
        if full && seed.pages < MAX_PAGES {
            self.outputs.push_back(Output::List { peer: *peer, first: false });
            return;
        }
        seed.asking = false;
        seed.listed = std::mem::take(&mut seed.gathering);
        self.schedule_list(id, now);
        self.announce(id);
    }

    fn schedule_list(&mut self, id: SeedId, now: Instant) {
        let wait = if self.hungry {
            self.hungry_rounds = self.hungry_rounds.saturating_add(1);
            HUNGRY.delay(self.hungry_rounds, &mut self.rng)
        } else {
            LIST_INTERVAL.mul_f64(self.rng.random_range(0.8..1.0))
        };
        self.seeds[id].next_list = now + wait;
    }

    fn announce(&mut self, id: SeedId) {
        let seed = &mut self.seeds[id];
        if std::mem::take(&mut seed.announce) {
            seed.said = Some(State::Registered);
            self.outputs.push_back(Output::State { seed: id, state: State::Registered, peers: seed.listed.len() });
        }
    }

    fn look_now(&mut self, now: Instant) {
        for seed in &mut self.seeds {
            let earliest = seed.last_list.map_or(now, |last| last + HUNGRY.first);
            seed.next_list = seed.next_list.min(earliest.max(now));
        }
    }
}

#[cfg(test)]
mod tests;
