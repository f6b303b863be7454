//! What the own seeds say about the dead.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Instant;

use libp2p::PeerId;

use super::{Output, freshness};
use crate::config::Config;
use crate::detector::Incarnation;
use crate::event::Event;
use crate::fault::FaultKind;
use crate::statement::Tombstone;

struct Grave {
    incarnation: Incarnation,
    at_ms: u64,
    stands: bool,
    until: Instant,
}

/// By seed and target. A fallen stone is kept too, until its time is over: it outlives an older standing one that comes
/// late.
pub(super) struct Graves {
    config: Config,
    of_seed: BTreeMap<PeerId, BTreeMap<PeerId, Grave>>,
}

impl Graves {
    pub(super) fn new(config: Config) -> Self {
        Self { config, of_seed: BTreeMap::new() }
    }

    pub(super) fn keep_only(&mut self, seeds: &BTreeSet<PeerId>, outputs: &mut VecDeque<Output>) {
        let gone = self.of_seed.keys().filter(|seed| !seeds.contains(seed)).copied().collect::<Vec<_>>();
        for seed in gone {
            for (target, grave) in self.of_seed.remove(&seed).unwrap_or_default() {
                grave.raise(seed, target, outputs);
            }
        }
    }

    pub(super) fn told(
        &mut self,
        seed: PeerId,
        whole: bool,
        statements: &[Vec<u8>],
        now: Instant,
        now_ms: u64,
        outputs: &mut VecDeque<Output>,
    ) {
        let mut stones = Vec::new();
        for bytes in statements {
            match Tombstone::decode(bytes) {
                Err(_) => outputs.push_back(Output::Fault { peer: seed, kind: FaultKind::ForgedStatement }),
                Ok(stone) if stone.seed != seed => {
                    outputs.push_back(Output::Fault { peer: seed, kind: FaultKind::ForeignStatement });
                }
                Ok(stone) => stones.push(stone),
            }
        }
        let graves = self.of_seed.entry(seed).or_default();
        if whole {
            let named = stones.iter().map(|stone| stone.target).collect::<BTreeSet<_>>();
            let gone = graves.keys().filter(|target| !named.contains(target)).copied().collect::<Vec<_>>();
            for target in gone {
                if let Some(grave) = graves.remove(&target) {
                    grave.raise(seed, target, outputs);
                }
            }
        }
        for stone in stones {
            let left = freshness(stone.at_ms, now_ms, self.config.retention, self.config.freshness);
            let Some(until) = left.and_then(|left| now.checked_add(left)) else { continue };
            let Tombstone { target, incarnation, at_ms, stands, .. } = stone;
            let before = graves.get(&target);
            // Of two that contradict each other the later one counts, and of the same moment the one that frees.
            if before.is_some_and(|before| (before.at_ms, !before.stands) >= (at_ms, !stands)) {
                continue;
            }
            let stood = before.is_some_and(|before| before.stands);
            if let Some(before) = graves.insert(target, Grave { incarnation, at_ms, stands, until })
                && !stands
            {
                before.raise(seed, target, outputs);
            }
            if stands && !stood {
                outputs.push_back(Output::Event(Event::Buried { seed, target, incarnation }));
            }
            if graves.len() > self.config.max_tombstones {
                let oldest = graves.iter().min_by_key(|(_, grave)| grave.at_ms).map(|(target, _)| *target);
                if let Some((target, grave)) = oldest.and_then(|target| Some((target, graves.remove(&target)?))) {
                    grave.raise(seed, target, outputs);
                }
            }
        }
    }

    pub(super) fn buried_by(&self, peer: &PeerId, boot: Option<u64>) -> BTreeSet<PeerId> {
        let says = |grave: &Grave| grave.stands && boot.is_none_or(|boot| boot <= grave.incarnation.boot());
        let buried = self.of_seed.iter().filter(|(_, graves)| graves.get(peer).is_some_and(says));
        buried.map(|(seed, _)| *seed).collect()
    }

    pub(super) fn handle_timeout(&mut self, now: Instant, outputs: &mut VecDeque<Output>) {
        for (seed, graves) in &mut self.of_seed {
            let over = graves.iter().filter(|(_, grave)| grave.until <= now).map(|(target, _)| *target);
            for target in over.collect::<Vec<_>>() {
                if let Some(grave) = graves.remove(&target) {
                    grave.raise(*seed, target, outputs);
                }
            }
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.of_seed.values().flat_map(BTreeMap::values).map(|grave| grave.until).min()
    }
}

impl Grave {
    fn raise(&self, seed: PeerId, target: PeerId, outputs: &mut VecDeque<Output>) {
        if self.stands {
            let incarnation = self.incarnation;
            outputs.push_back(Output::Event(Event::Raised { seed, target, incarnation }));
        }
    }
}
