//! Both numbers of a peer as plain data, for whoever keeps them over a restart.

use libp2p::PeerId;
use serde::{Deserialize, Serialize};

use crate::fact::Fact;

/// What is kept of a peer. All times are on the wall clock, in milliseconds since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    /// Who.
    pub peer: PeerId,
    /// When this was so: the time since then counts as passed.
    pub at_ms: u64,
    /// The values behind reliability in the order of [`Subject::ALL`](crate::evidence::Subject::ALL), 0 to 1 each; empty
    /// when nothing is known. A missing one is the prior.
    pub reliability: Vec<f64>,
    /// The fault score.
    pub faults: f64,
    /// How often it was cut, less what was forgiven.
    pub cuts: u32,
    /// For how many milliseconds it has been without a cut since.
    pub calm_ms: u64,
    /// Until when it is refused.
    pub cut_until_ms: Option<u64>,
    /// The facts behind both numbers.
    pub facts: Vec<Fact>,
}

/// The bytes are not what [`Stored::encode`] makes. Nothing was restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("these bytes are no stored standing")]
pub struct DecodeError;

/// Everything but the peer, which is the key under which it is stored.
#[derive(Serialize, Deserialize)]
struct Row {
    at_ms: u64,
    reliability: Vec<f64>,
    faults: f64,
    cuts: u32,
    calm_ms: u64,
    cut_until_ms: Option<u64>,
    facts: Vec<Fact>,
}

impl Stored {
    /// As bytes (CBOR), without the peer: it is the key. Some 4 KiB at most.
    pub fn encode(&self) -> Vec<u8> {
        let Self { peer: _, at_ms, reliability, faults, cuts, calm_ms, cut_until_ms, facts } = self.clone();
        let row = Row { at_ms, reliability, faults, cuts, calm_ms, cut_until_ms, facts };
        #[expect(clippy::expect_used, reason = "our types always serialise, and only allocation could fail")]
        cbor4ii::serde::to_vec(Vec::new(), &row).expect("our types have a CBOR form")
    }

    /// From the bytes of [`Stored::encode`]. Numbers out of their bounds are mended when they are restored.
    ///
    /// # Errors
    ///
    /// When the bytes are something else.
    pub fn decode(peer: PeerId, bytes: &[u8]) -> Result<Self, DecodeError> {
        let row: Row = cbor4ii::serde::from_slice(bytes).map_err(|_| DecodeError)?;
        let Row { at_ms, reliability, faults, cuts, calm_ms, cut_until_ms, facts } = row;
        Ok(Self { peer, at_ms, reliability, faults, cuts, calm_ms, cut_until_ms, facts })
    }
}
