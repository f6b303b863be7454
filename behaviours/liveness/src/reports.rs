//! Core: what is said about the dead. Reports to the seeds; at a seed evictions and tombstones; at everybody the
//! tombstones of the own seeds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use libp2p::PeerId;
use libp2p::identity::Keypair;

use crate::config::{Config, Role};
use crate::detector::Incarnation;
use crate::event::{Event, Reason};
use crate::fault::FaultKind;
use crate::statement::{Report, StatementError, Tombstone};
use graves::Graves;
use seed::Seed;

mod graves;
mod seed;

/// What this core is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A link to a peer stands.
    Up {
        /// Who.
        peer: PeerId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// The last link to a peer is gone, however.
    Down {
        /// Who.
        peer: PeerId,
    },
    /// A peer is watched that has no link.
    Watch {
        /// Who.
        peer: PeerId,
        /// Which life of it.
        incarnation: Incarnation,
    },
    /// A peer has left, or nobody is interested in it any more.
    Forget {
        /// Who.
        peer: PeerId,
    },
    /// Which peers are the configured seeds.
    Seeds(BTreeSet<PeerId>),
    /// The detector had a sign of life.
    Heard {
        /// Of whom.
        peer: PeerId,
        /// Which life.
        incarnation: Incarnation,
    },
    /// An own probe failed.
    Missed {
        /// To whom.
        peer: PeerId,
        /// Which life.
        incarnation: Incarnation,
        /// How many in a row.
        misses: u32,
    },
    /// The detector says that a neighbour is dead.
    Dead {
        /// Who.
        peer: PeerId,
        /// Which life.
        incarnation: Incarnation,
        /// What was missed last.
        reason: Reason,
    },
    /// A neighbour reports a death.
    Reported {
        /// Who sent it.
        from: PeerId,
        /// A signed [`Report`], not looked at.
        statement: Vec<u8>,
    },
    /// A neighbour tells tombstones.
    Told {
        /// Who sent them.
        from: PeerId,
        /// Forget first what it told before.
        whole: bool,
        /// Signed [`Tombstone`]s, not looked at.
        statements: Vec<Vec<u8>>,
    },
    /// A report did not arrive.
    ReportFailed {
        /// At which seed.
        seed: PeerId,
        /// Of whose death.
        target: PeerId,
    },
    /// Tombstones did not arrive.
    TellFailed {
        /// At whom.
        peer: PeerId,
    },
}

/// What this core wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send a report to a seed.
    Report {
        /// Which.
        to: PeerId,
        /// Of whose death.
        target: PeerId,
        /// A signed [`Report`].
        statement: Vec<u8>,
    },
    /// Send tombstones to a peer.
    Tell {
        /// Whom.
        to: PeerId,
        /// It forgets first what it was told before.
        whole: bool,
        /// Signed [`Tombstone`]s, at most [`crate::MAX_STATEMENTS`].
        statements: Vec<Vec<u8>>,
    },
    /// Probe that peer now.
    Check(PeerId),
    /// Something for the application: `Dead`, `Buried`, `Raised`, `Reported`, `Evict`.
    Event(Event),
    /// A peer misbehaved.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}

/// A death that this node saw itself, and which seeds know it from us.
struct Own {
    incarnation: Incarnation,
    until: Instant,
    told: BTreeSet<PeerId>,
}

/// The talk about the dead, of one node.
pub struct Reports {
    config: Config,
    key: Keypair,
    local: PeerId,
    /// Everybody with a link.
    up: BTreeSet<PeerId>,
    seeds: BTreeSet<PeerId>,
    own: BTreeMap<PeerId, Own>,
    /// Reports that did not arrive, by seed and target: when to try again.
    owed: BTreeMap<(PeerId, PeerId), Instant>,
    graves: Graves,
    /// Only at a seed.
    seed: Option<Seed>,
    /// Kept, for it is asked for after every frame and its parts are many. May be too early, never too late.
    timeout: Option<Instant>,
    outputs: VecDeque<Output>,
}

impl Reports {
    /// The core of a node with that Ed25519 key.
    ///
    /// # Errors
    /// Another kind of key.
    pub fn new(key: Keypair, role: Role, config: Config) -> Result<Self, StatementError> {
        if key.key_type() != libp2p::identity::KeyType::Ed25519 {
            return Err(StatementError::KeyType);
        }
        let local = key.public().to_peer_id();
        let seed = (role == Role::Seed).then(|| Seed::new(key.clone(), config.clone()));
        Ok(Self {
            graves: Graves::new(config.clone()),
            config,
            key,
            local,
            up: BTreeSet::new(),
            seeds: BTreeSet::new(),
            own: BTreeMap::new(),
            owed: BTreeMap::new(),
            seed,
            timeout: None,
            outputs: VecDeque::new(),
        })
    }

    /// Tell it something. `now_ms` is the own clock in milliseconds since 1970 UTC.
    pub fn handle_input(&mut self, input: Input, now: Instant, now_ms: u64) {
        let before = self.outputs.len();
        let routine = matches!(input, Input::Heard { .. } | Input::Missed { .. });
        self.take_in(input, now, now_ms);
        if !routine || self.outputs.len() > before {
            self.timeout = self.next_timeout();
        }
    }

    fn take_in(&mut self, input: Input, now: Instant, now_ms: u64) {
        match input {
            Input::Up { peer, incarnation } => self.up(peer, incarnation, now, now_ms),
            Input::Down { peer } => {
                self.up.remove(&peer);
                if let Some(seed) = &mut self.seed {
                    seed.down(&peer);
                }
            }
            Input::Watch { peer, incarnation } => {
                if let Some(seed) = &mut self.seed {
                    seed.known(peer, incarnation);
                }
            }
            Input::Forget { peer } => {
                self.up.remove(&peer);
                self.own.remove(&peer);
                if let Some(seed) = &mut self.seed {
                    seed.forget(&peer);
                }
            }
            Input::Seeds(seeds) => {
                self.seeds = seeds;
                self.graves.keep_only(&self.seeds, &mut self.outputs);
            }
            Input::Heard { peer, incarnation } => {
                self.own.remove(&peer);
                if let Some(seed) = &mut self.seed {
                    seed.heard(peer, incarnation, now, now_ms, &mut self.outputs);
                }
            }
            Input::Missed { peer, incarnation, misses } => {
                if let Some(seed) = &mut self.seed {
                    seed.missed(peer, incarnation, misses, now, now_ms, &mut self.outputs);
                }
            }
            Input::Dead { peer, incarnation, reason } => self.dead(peer, incarnation, reason, now, now_ms),
            Input::Reported { from, statement } => self.reported(from, &statement, now, now_ms),
            Input::Told { from, whole, statements } => {
                // Anybody may run a seed; only the own ones are believed.
                if self.seeds.contains(&from) {
                    self.graves.told(from, whole, &statements, now, now_ms, &mut self.outputs);
                }
            }
            Input::ReportFailed { seed, target } => {
                if let Some(own) = self.own.get_mut(&target) {
                    own.told.remove(&seed);
                    self.owed.insert((seed, target), now + self.config.resend);
                }
            }
            Input::TellFailed { peer } => {
                if let Some(seed) = &mut self.seed {
                    seed.tell_failed(peer, now);
                }
            }
        }
    }

    /// Do what the time asks for. Call it when [`Reports::poll_timeout`] has come; early or late calls do no harm.
    pub fn handle_timeout(&mut self, now: Instant, now_ms: u64) {
        if self.timeout.is_none_or(|at| at > now) {
            return;
        }
        let due = self.owed.iter().filter(|(_, at)| **at <= now).map(|(owed, _)| *owed).collect::<Vec<_>>();
        for (seed, target) in due {
            self.owed.remove(&(seed, target));
            self.report(seed, target, now, now_ms);
        }
        self.own.retain(|_, own| own.until > now);
        self.graves.handle_timeout(now, &mut self.outputs);
        if let Some(seed) = &mut self.seed {
            seed.handle_timeout(now, &mut self.outputs);
        }
        self.timeout = self.next_timeout();
    }

    /// When [`Reports::handle_timeout`] is to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.timeout
    }

    fn next_timeout(&self) -> Option<Instant> {
        let own = self.own.values().map(|own| own.until);
        let owed = self.owed.values().copied();
        let seed = self.seed.as_ref().and_then(Seed::poll_timeout);
        own.chain(owed).chain(self.graves.poll_timeout()).chain(seed).min()
    }

    /// The next thing to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Which configured seeds say that this peer is dead. With a boot count: that life of it, or a later one.
    pub fn buried_by(&self, peer: &PeerId, boot: Option<u64>) -> BTreeSet<PeerId> {
        self.graves.buried_by(peer, boot)
    }

    /// The configured seeds as they were told.
    pub fn seeds(&self) -> &BTreeSet<PeerId> {
        &self.seeds
    }

    /// At a seed: its standing tombstones.
    pub fn tombstones(&self) -> Vec<Tombstone> {
        self.seed.as_ref().map(Seed::tombstones).unwrap_or_default()
    }

    fn up(&mut self, peer: PeerId, incarnation: Incarnation, now: Instant, now_ms: u64) {
        let new = self.up.insert(peer);
        if let Some(seed) = &mut self.seed {
            seed.up(peer, incarnation, new, now, now_ms, &mut self.outputs);
        }
        if self.seeds.contains(&peer) {
            let news = self.own.iter().filter(|(_, own)| !own.told.contains(&peer)).map(|(target, _)| *target);
            for target in news.collect::<Vec<_>>() {
                self.report(peer, target, now, now_ms);
            }
        }
    }

    fn dead(&mut self, peer: PeerId, incarnation: Incarnation, reason: Reason, now: Instant, now_ms: u64) {
        let mut reporters = BTreeSet::from([self.local]);
        if let Some(seed) = &mut self.seed {
            reporters.extend(seed.reporters(&peer, now));
        }
        let reporters = reporters.into_iter().collect::<Vec<_>>();
        self.outputs.push_back(Output::Event(Event::Dead { peer, incarnation, reporters: reporters.clone(), reason }));
        if let Some(seed) = &mut self.seed {
            seed.evict(peer, incarnation, reporters, now, now_ms, &mut self.outputs);
        }
        if self.own.len() < self.config.max_targets {
            let until = now + self.config.freshness;
            self.own.insert(peer, Own { incarnation, until, told: BTreeSet::new() });
            for seed in self.seeds.clone() {
                self.report(seed, peer, now, now_ms);
            }
        }
    }

    /// Tell one seed of one death, if it can be told. The time in it is that of the telling.
    fn report(&mut self, seed: PeerId, target: PeerId, now: Instant, now_ms: u64) {
        let Some(own) = self.own.get_mut(&target).filter(|own| own.until > now) else { return };
        if seed == target || !self.up.contains(&seed) || !self.seeds.contains(&seed) || !own.told.insert(seed) {
            return;
        }
        let report = Report { reporter: self.local, target, incarnation: own.incarnation, at_ms: now_ms };
        // The key was checked at the start.
        if let Ok(statement) = report.sign(&self.key) {
            self.outputs.push_back(Output::Report { to: seed, target, statement });
        }
    }

    fn reported(&mut self, from: PeerId, statement: &[u8], now: Instant, now_ms: u64) {
        // Who is no seed has no use for reports; the sender may merely have other settings.
        let Some(seed) = &mut self.seed else { return };
        let kind = match Report::decode(statement) {
            Err(_) => FaultKind::ForgedStatement,
            Ok(report) if report.reporter != from => FaultKind::ForeignStatement,
            Ok(report) if report.target == from || report.target == self.local => FaultKind::AbsurdReport,
            Ok(report) => {
                seed.reported(&report, now, now_ms, &mut self.outputs);
                return;
            }
        };
        self.outputs.push_back(Output::Fault { peer: from, kind });
    }
}

/// How long a statement of that time is still fresh: none when it is older than that, or too far ahead.
fn freshness(at_ms: u64, now_ms: u64, lasts: Duration, ahead: Duration) -> Option<Duration> {
    let age = Duration::from_millis(now_ms.saturating_sub(at_ms));
    let early = Duration::from_millis(at_ms.saturating_sub(now_ms));
    (early <= ahead).then(|| lasts.checked_sub(age)).flatten().filter(|left| !left.is_zero())
}
