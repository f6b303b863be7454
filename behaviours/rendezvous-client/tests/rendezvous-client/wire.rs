use proptest::prelude::*;
use rendezvous_client::FaultKind;
use rendezvous_client::protocol::{Expected, Request, Response};

use super::*;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What the documentation gives for a name.
fn vector(name: &str) -> &'static str {
    let line = include_str!("../../README.md").lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_else(|| panic!("no vector {name}")).trim()
}

fn list(limit: u64) -> Expected {
    Expected::Discovered { namespace: NAMESPACE.to_owned(), limit }
}

#[test]
fn the_vectors_of_the_documentation_hold() {
    let namespace = NAMESPACE.to_owned();
    let discover = Request::Discover { namespace: namespace.clone(), cookie: None, limit: 500 };
    assert_eq!(hex(&discover.encode()), vector("discover \"althing\", at most 500, no cookie"));
    assert_eq!(hex(&Request::Unregister { namespace }.encode()), vector("unregister \"althing\""));
    assert_eq!(hex(&registered(120)), vector("registered for 120 s"));
    let refused = [number(1, 1), bytes(3, &number(1, 102))].concat();
    assert_eq!(hex(&refused), vector("refused, E_INVALID_TTL"));
    let empty = [number(1, 4), bytes(6, &[bytes(2, &[1, 2, 3, 4, 5, 6, 7, 8]), number(3, 0)].concat())].concat();
    assert_eq!(hex(&empty), vector("empty page, cookie 01 to 08"));

    assert!(matches!(Response::decode(&registered(120), &Expected::Registered), Response::Registered { ttl: 120 }));
    assert!(matches!(Response::decode(&refused, &Expected::Registered), Response::Failed { refused: true }));
    assert!(matches!(Response::decode(&empty, &list(500)), Response::Discovered { .. }));
}

#[test]
fn not_now_is_no_refusal() {
    let answer = [number(1, 1), bytes(3, &number(1, 400))].concat();
    assert!(matches!(Response::decode(&answer, &Expected::Registered), Response::Failed { refused: false }));
    let answer = [number(1, 4), bytes(6, &number(3, 300))].concat();
    assert!(matches!(Response::decode(&answer, &list(500)), Response::Failed { refused: true }));
}

#[test]
fn unknown_fields_are_passed_over() {
    let fixed = [&[9 << 3 | 1][..], &[0; 8], &[9 << 3 | 5], &[0; 4]].concat();
    let answer = [fixed, number(15, 3), bytes(14, b"later"), registered(120)].concat();
    assert!(matches!(Response::decode(&answer, &Expected::Registered), Response::Registered { ttl: 120 }));
    // A group, the field number zero, a varint without an end.
    for broken in [vec![9 << 3 | 3], vec![0, 1], vec![0xff; 11]] {
        let answer = [broken, registered(120)].concat();
        let read = Response::decode(&answer, &Expected::Registered);
        assert!(matches!(read, Response::Nonsense(FaultKind::Malformed)), "{read:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        for expected in [Expected::Registered, list(3), Expected::Nothing] {
            let _ = Response::decode(&bytes, &expected);
        }
    }

    #[test]
    fn no_damage_makes_it_panic_or_believe_a_forgery(at in 0..400_usize, value in any::<u8>(), cut in 0..400_usize) {
        let entry = registration(NAMESPACE, &record(&key(1), vec![address()]), 120);
        let mut answer = page(&[entry.clone(), entry]);
        let length = answer.len();
        answer[at % length] = value;
        answer.truncate(length - cut.saturating_sub(350));
        if let Response::Discovered { registrations, .. } = Response::decode(&answer, &list(3)) {
            prop_assert!(registrations.iter().all(|(who, _)| *who == peer(1)));
        }
    }
}
