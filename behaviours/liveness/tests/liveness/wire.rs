use std::time::Duration;

use libp2p::identity::Keypair;
use liveness::detector::MAX_TIME_MS;
use liveness::protocol::{Request, Response, Suspicion};
use liveness::{
    Alive, Challenge, FaultKind, Incarnation, MAX_FRAME_BYTES, MAX_STATEMENT_BYTES, MAX_STATEMENTS, Report,
    StatementError, Tombstone,
};
use proptest::prelude::*;

/// 2026-01-01T00:00:00Z.
const AT_MS: u64 = 1_767_225_600_000;
const CHALLENGE: Challenge = [7; 16];

fn key(number: u8) -> Keypair {
    Keypair::ed25519_from_bytes([number; 32]).unwrap()
}

fn peer(number: u8) -> libp2p::PeerId {
    key(number).public().to_peer_id()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn alive() -> Alive {
    Alive { peer: peer(1), incarnation: Incarnation::new(3, 1), challenge: CHALLENGE }
}

fn report() -> Report {
    Report { reporter: peer(1), target: peer(2), incarnation: Incarnation::new(3, 0), at_ms: AT_MS }
}

fn stone() -> Tombstone {
    Tombstone { seed: peer(1), target: peer(2), incarnation: Incarnation::new(3, 0), at_ms: AT_MS, stands: true }
}

fn requests() -> Vec<Request> {
    let suspicion = Suspicion { incarnation: Incarnation::new(3, 0), challenge: CHALLENGE };
    let incarnation = Incarnation::new(2, 0);
    vec![
        Request::Probe { sent_ms: AT_MS, incarnation, suspicion: None },
        Request::Probe { sent_ms: AT_MS, incarnation, suspicion: Some(suspicion) },
        Request::Relay { target: peer(2), suspicion, patience: Duration::from_secs(4) },
        Request::Report { statement: b"report".to_vec() },
        Request::Tombstones { whole: true, statements: vec![b"stone".to_vec()] },
    ]
}

fn responses() -> Vec<Response> {
    let (incarnation, statement) = (Incarnation::new(3, 1), Some(b"alive".to_vec()));
    vec![
        Response::Alive { received_ms: AT_MS, sent_ms: AT_MS + 1, incarnation, statement: None },
        Response::Alive { received_ms: AT_MS, sent_ms: AT_MS + 1, incarnation, statement: statement.clone() },
        Response::Relayed { statement: None },
        Response::Relayed { statement },
        Response::Taken,
        Response::Refused,
    ]
}

#[test]
fn the_vectors_of_the_readme() {
    let readme = include_str!("../../README.md").split_whitespace().collect::<String>();
    let mut vectors = requests().iter().map(Request::encode).collect::<Vec<_>>();
    vectors.extend(responses().iter().map(Response::encode));
    vectors.push(alive().sign(&key(1)).unwrap());
    vectors.push(report().sign(&key(1)).unwrap());
    vectors.push(stone().sign(&key(1)).unwrap());
    for vector in vectors {
        assert!(readme.contains(&hex(&vector)), "missing: {}", hex(&vector));
    }
}

#[test]
fn everything_comes_back() {
    for request in requests() {
        assert_eq!(Request::decode(&request.encode()), request);
    }
    for response in responses() {
        assert_eq!(Response::decode(&response.encode()), response);
    }
    assert_eq!(Alive::decode(&alive().sign(&key(1)).unwrap()), Ok(alive()));
    assert_eq!(Report::decode(&report().sign(&key(1)).unwrap()), Ok(report()));
    assert_eq!(Tombstone::decode(&stone().sign(&key(1)).unwrap()), Ok(stone()));
}

#[test]
fn a_statement_speaks_for_its_signer_and_for_one_purpose() {
    assert_eq!(alive().sign(&key(2)), Err(StatementError::WrongPeer));
    let bytes = report().sign(&key(1)).unwrap();
    assert!(bytes.len() + 100 < MAX_STATEMENT_BYTES, "room for keys that a later version adds");
    assert_eq!(Alive::decode(&bytes), Err(StatementError::Signature));
    assert_eq!(Tombstone::decode(&bytes), Err(StatementError::Signature));
    for at in 0..bytes.len() {
        let mut broken = bytes.clone();
        broken[at] ^= 1;
        assert!(Report::decode(&broken).is_err(), "byte {at}");
        assert!(Report::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(Report::decode(&vec![0; MAX_STATEMENT_BYTES + 1]), Err(StatementError::Malformed));
}

#[test]
fn a_whole_frame_of_statements_fits() {
    let statements = vec![vec![0; MAX_STATEMENT_BYTES]; MAX_STATEMENTS];
    let full = Request::Tombstones { whole: false, statements };
    assert!(full.encode().len() <= MAX_FRAME_BYTES);
    assert_eq!(Request::decode(&full.encode()), full);
    let surplus = Request::Tombstones { whole: false, statements: vec![Vec::new(); MAX_STATEMENTS + 1] };
    assert_eq!(Request::decode(&surplus.encode()), Request::Nonsense(FaultKind::MalformedFrame));
}

#[test]
fn hostile_frames_are_faults() {
    let oversized = vec![0; MAX_FRAME_BYTES + 1];
    assert_eq!(Request::decode(&oversized), Request::Nonsense(FaultKind::OversizedFrame));
    let malformed = Request::Nonsense(FaultKind::MalformedFrame);
    assert_eq!(Request::decode(b""), malformed);
    assert_eq!(Request::decode(&vec![0x81; 60_000]), malformed, "nested deeply");
    assert_eq!(Request::decode(&[requests()[0].encode(), vec![0]].concat()), malformed, "bytes behind");
    let late = Request::Probe { sent_ms: MAX_TIME_MS + 1, incarnation: Incarnation(0), suspicion: None };
    assert_eq!(Request::decode(&late.encode()), malformed);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..60_usize, bit in 0..8_u32) {
        let _ = (Request::decode(&bytes), Response::decode(&bytes), Report::decode(&bytes));
        for request in requests() {
            let mut bytes = request.encode();
            let at = at % bytes.len();
            bytes[at] ^= 1_u8 << bit;
            let _ = Request::decode(&bytes);
        }
    }
}
