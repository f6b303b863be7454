use libp2p::PeerId;
use libp2p::identity::Keypair;

/// A key made of that number, the same in every run.
pub(crate) fn key(number: usize) -> Keypair {
    let mut secret = [number as u8; 32];
    secret[..2].copy_from_slice(&(number as u16).to_be_bytes());
    Keypair::ed25519_from_bytes(secret).unwrap()
}

pub(crate) fn peer(number: usize) -> PeerId {
    key(number).public().to_peer_id()
}
