//! Which boots were heard of.

use std::collections::BTreeMap;

use libp2p::PeerId;

use super::MAX_BOOTS;

/// The highest boot count heard of each peer, for the [`MAX_BOOTS`] peers heard last.
#[derive(Default)]
pub(super) struct Boots {
    boots: BTreeMap<PeerId, (u64, u64)>,
    by_age: BTreeMap<u64, PeerId>,
    clock: u64,
}

impl Boots {
    pub(super) fn highest(&self, peer: &PeerId) -> Option<u64> {
        self.boots.get(peer).map(|(boot, _)| *boot)
    }

    pub(super) fn heard(&mut self, peer: PeerId, boot: u64) {
        self.clock += 1;
        let highest = self.highest(&peer).unwrap_or(0).max(boot);
        if let Some((_, age)) = self.boots.insert(peer, (highest, self.clock)) {
            self.by_age.remove(&age);
        }
        self.by_age.insert(self.clock, peer);
        if self.boots.len() > MAX_BOOTS
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.boots.remove(&oldest);
        }
    }
}
