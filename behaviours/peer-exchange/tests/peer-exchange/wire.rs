use peer_exchange::protocol::{Frame, QueryId, Refusal};
use peer_exchange::{
    Card, CardError, FaultKind, Goodbye, MAX_FRAME_BYTES, NameError, Role, SignedCard, Subject, check_name, check_team,
};

use crate::cast::{key, peer};

const README: &str = include_str!("../../README.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The vector stands in the README, broken into lines.
fn assert_documented(name: &str, bytes: &[u8]) {
    let section = README.split(&format!("`{name}`:\n\n```text\n")).nth(1);
    let section = section.unwrap_or_else(|| panic!("the README lacks {name}: {}", hex(bytes)));
    let documented: String = section.lines().take_while(|line| *line != "```").collect();
    assert_eq!(documented, hex(bytes), "{name}");
}

fn vector_card() -> Card {
    Card {
        peer: peer(1),
        name: "alice".into(),
        team: "althing".into(),
        role: Role::Seed,
        addresses: vec!["/ip4/192.0.2.1/tcp/4001".parse().unwrap()],
        boot: 7,
        revision: 2,
        version: "althing 0.1.0".into(),
    }
}

const QUERY: QueryId = [0xaa; 16];

#[test]
fn the_test_vectors_stand_in_the_readme() {
    let card = SignedCard::sign(&key(1), vector_card()).unwrap();
    assert_documented("card", card.bytes());
    let goodbye = Goodbye::sign(&key(1), 7, 1_700_000_000_000).unwrap();
    assert_documented("goodbye", goodbye.bytes());
    // The frames carry three bytes in place of a card or goodbye.
    let frames = [
        ("Hello", Frame::Hello { card: vec![1, 2, 3] }),
        ("Goodbye", Frame::Goodbye { proof: vec![1, 2, 3] }),
        ("Refused", Frame::Refused { reason: Refusal::StaleBoot, boot: 7 }),
        ("Ask by name", Frame::Ask { id: 1, query: QUERY, subject: Subject::Name("bob".into()), hops: 3 }),
        ("Ask by PeerId", Frame::Ask { id: 500, query: QUERY, subject: Subject::Peer(peer(1)), hops: 0 }),
        ("Ask for anybody", Frame::Ask { id: 1, query: QUERY, subject: Subject::Anybody, hops: 0 }),
        ("Answer", Frame::Answer { id: 1, cards: vec![vec![1, 2, 3], Vec::new()] }),
    ];
    for (name, frame) in frames {
        let bytes = frame.clone().encode();
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        assert_documented(name, &bytes);
    }
}

#[test]
fn what_was_signed_is_read_back() {
    let card = SignedCard::sign(&key(1), vector_card()).unwrap();
    let read = SignedCard::decode(card.bytes()).unwrap();
    assert_eq!(read.card(), &vector_card());
    assert_eq!(read, card);
    let goodbye = Goodbye::sign(&key(1), 7, 9).unwrap();
    assert_eq!(Goodbye::decode(goodbye.bytes()).unwrap(), goodbye);
    assert_eq!((goodbye.peer(), goodbye.boot(), goodbye.at_ms()), (peer(1), 7, 9));
}

#[test]
fn any_changed_byte_is_noticed() {
    let card = SignedCard::sign(&key(1), vector_card()).unwrap();
    for at in 0..card.bytes().len() {
        let mut bytes = card.bytes().to_vec();
        bytes[at] ^= 1;
        assert!(SignedCard::decode(&bytes).is_err(), "byte {at}");
    }
    for length in 0..card.bytes().len() {
        assert!(SignedCard::decode(&card.bytes()[..length]).is_err());
    }
}

#[test]
fn a_goodbye_is_no_card_and_a_card_no_goodbye() {
    let card = SignedCard::sign(&key(1), vector_card()).unwrap();
    assert!(matches!(Goodbye::decode(card.bytes()), Err(CardError::Signature)));
    let goodbye = Goodbye::sign(&key(1), 7, 9).unwrap();
    assert!(matches!(SignedCard::decode(goodbye.bytes()), Err(CardError::Signature)));
}

#[test]
fn a_card_of_somebody_else_is_not_signed_and_not_taken() {
    let other = Card { peer: peer(2), ..vector_card() };
    assert!(matches!(SignedCard::sign(&key(1), other), Err(CardError::WrongPeer)));
}

#[test]
fn a_card_that_breaks_a_bound_is_not_signed() {
    let address = "/ip4/192.0.2.1/tcp/4001".parse::<libp2p::Multiaddr>().unwrap();
    let long = format!("/dns4/{}/tcp/1", "a".repeat(300)).parse().unwrap();
    let cards = [
        Card { name: "al ice".into(), ..vector_card() },
        Card { team: String::new(), ..vector_card() },
        Card { version: "v".repeat(65), ..vector_card() },
        Card { version: "\u{1b}[31m".into(), ..vector_card() },
        Card { addresses: vec![address; 17], ..vector_card() },
        Card { addresses: vec![long], ..vector_card() },
    ];
    for card in cards {
        assert!(SignedCard::sign(&key(1), card.clone()).is_err(), "{card:?}");
    }
}

/// What `sign` refuses `decode` must refuse too: an attacker signs what it likes.
#[test]
fn a_properly_signed_card_with_bad_contents_is_not_taken() {
    use cbor4ii::core::Value;
    let bytes = |bytes: Vec<u8>| Value::Bytes(bytes);
    let signed = |signer: u8, change: &dyn Fn(&str) -> Option<Value>, extra: usize| {
        let fields: [(&str, Value); 8] = [
            ("peer", bytes(peer(1).to_bytes())),
            ("name", Value::Text("alice".into())),
            ("team", Value::Text("althing".into())),
            ("role", Value::Text("peer".into())),
            ("addresses", Value::Array(Vec::new())),
            ("boot", Value::Integer(7)),
            ("revision", Value::Integer(2)),
            ("version", Value::Text(String::new())),
        ];
        let fields = fields.into_iter().map(|(k, v)| (Value::Text(k.into()), change(k).unwrap_or(v)));
        let mut payload = cbor4ii::serde::to_vec(Vec::new(), &Value::Map(fields.collect())).unwrap();
        payload.resize(payload.len() + extra, 0);
        let domain = "althing/card/1".to_owned();
        let envelope =
            libp2p::core::SignedEnvelope::new(&key(signer), domain, b"/althing/card/1".to_vec(), payload).unwrap();
        SignedCard::decode(&envelope.into_protobuf_encoding())
    };
    let field = |name: &'static str, value: Value| move |key: &str| (key == name).then(|| value.clone());
    assert!(signed(1, &|_| None, 0).is_ok(), "the test makes good cards");
    assert!(matches!(signed(2, &|_| None, 0), Err(CardError::WrongPeer)));
    assert!(matches!(signed(1, &|_| None, 1), Err(CardError::Malformed)), "something behind the payload");
    assert!(matches!(signed(1, &|_| None, 9000), Err(CardError::TooLong)));
    assert!(matches!(signed(1, &field("name", Value::Text("a\u{202e}b".into())), 0), Err(CardError::Name(_))));
    assert!(matches!(signed(1, &field("team", Value::Text(" ".into())), 0), Err(CardError::Name(_))));
    assert!(matches!(signed(1, &field("version", Value::Text("\u{7}".into())), 0), Err(CardError::Version)));
    assert!(matches!(signed(1, &field("role", Value::Text("king".into())), 0), Err(CardError::Malformed)));
    assert!(matches!(signed(1, &field("boot", Value::Integer(-1)), 0), Err(CardError::Malformed)));
    let address = bytes(vec![4, 192, 0, 2, 1]);
    let addresses = |count| field("addresses", Value::Array(vec![address.clone(); count]));
    assert!(signed(1, &addresses(16), 0).is_ok());
    assert!(matches!(signed(1, &addresses(17), 0), Err(CardError::Addresses)));
    let nonsense = Value::Array(vec![bytes(vec![255; 4])]);
    assert!(matches!(signed(1, &field("addresses", nonsense), 0), Err(CardError::Malformed)));
}

#[test]
fn cards_are_ordered_by_boot_then_revision() {
    let card = |boot, revision| crate::cast::card(1, boot, revision);
    assert!(card(2, 0).is_newer_than(&card(1, 9)));
    assert!(card(1, 2).is_newer_than(&card(1, 1)));
    assert!(!card(1, 1).is_newer_than(&card(1, 1)));
    assert!(!card(1, 9).is_newer_than(&card(2, 0)));
}

#[test]
fn names() {
    for good in ["a", "alice", "Þór", "node-1_b.c", "名前", "x".repeat(32).as_str(), "#1", "🙂"] {
        assert_eq!(check_name(good), Ok(()), "{good}");
    }
    for bad in [
        "",
        "a b",
        "a\tb",
        "a\n",
        "\u{a0}",
        "a\u{3000}",
        "a/b",
        "@a",
        "a:1",
        "\"a",
        "it's",
        "a\\",
        "a,b",
        "a\u{200b}",
        "a\u{202e}b",
        "\u{2066}a",
        "a\u{feff}",
        "a\u{ad}b",
        "\u{1b}[1m",
        "a\u{7f}",
        "a\u{85}",
        "\u{3164}",
        "a\u{fe0f}",
        "\u{e0041}",
        "a\u{2028}b",
        "12D3KooWabc",
    ] {
        assert!(check_name(bad).is_err(), "{bad:?}");
    }
    assert!(check_name(&"x".repeat(33)).is_err());
    assert!(check_name(&"🙂".repeat(17)).is_err(), "68 bytes");
    assert!(check_name(&peer(1).to_string()).is_err());
    let error = check_name("al ice").unwrap_err();
    assert_eq!(error, NameError::Space);
    assert_eq!(error.to_string(), "a name must not contain spaces; write it as one word, for example with `-` or `_`");
}

#[test]
fn teams() {
    for good in ["a", "the blue team", "a/b: c", "Þing"] {
        assert_eq!(check_team(good), Ok(()), "{good}");
    }
    for bad in ["", " a", "a ", " ", "a\tb", "a\u{200d}b", "a\u{a0}b", "a\u{202e}", "\0"] {
        assert!(check_team(bad).is_err(), "{bad:?}");
    }
    assert!(check_team(&"x".repeat(33)).is_err());
    assert!(check_team("a\u{200b}").unwrap_err().to_string().contains("U+200B"));
}

#[test]
fn frames_that_are_not_taken() {
    let good = Frame::Ask { id: 1, query: QUERY, subject: Subject::Name("bob".into()), hops: 3 }.encode();
    for length in 0..good.len() {
        assert_eq!(Frame::decode(&good[..length]), Err(FaultKind::MalformedFrame));
    }
    let bad_name = Frame::Ask { id: 1, query: QUERY, subject: Subject::Name("b ob".into()), hops: 3 }.encode();
    assert_eq!(Frame::decode(&bad_name), Err(FaultKind::MalformedFrame));
    assert_eq!(Frame::decode(&vec![0; MAX_FRAME_BYTES + 1]), Err(FaultKind::OversizedFrame));
    let unknown = b"\xa1\x65shout\xa0";
    assert_eq!(Frame::decode(unknown), Err(FaultKind::MalformedFrame));
    let unknown = b"\xa1\x67refused\xa2\x66reason\x64mood\x64boot\x07";
    assert_eq!(Frame::decode(unknown), Err(FaultKind::MalformedFrame));
    // A field that a later minor version adds is passed over.
    let newer = b"\xa1\x65hello\xa2\x64card\x41\x01\x64mood\x64good";
    assert_eq!(Frame::decode(newer), Ok(Frame::Hello { card: vec![1] }));
}

#[test]
fn no_bytes_panic() {
    use rand::{Rng as _, SeedableRng as _};
    let mut rng = rand::rngs::StdRng::seed_from_u64(1);
    let seeds = [
        Frame::Ask { id: 1, query: QUERY, subject: Subject::Peer(peer(1)), hops: 3 }.encode(),
        Frame::Answer { id: 1, cards: vec![vec![7; 40]; 3] }.encode(),
        SignedCard::sign(&key(1), vector_card()).unwrap().bytes().to_vec(),
    ];
    for round in 0..30_000 {
        let mut bytes = seeds[round % 3].clone();
        for _ in 0..rng.random_range(1..6) {
            let at = rng.random_range(0..bytes.len());
            bytes[at] = rng.random();
        }
        bytes.truncate(rng.random_range(1..=bytes.len()));
        let _ = Frame::decode(&bytes);
        let _ = SignedCard::decode(&bytes);
        let _ = Goodbye::decode(&bytes);
    }
}

#[test]
fn every_fault_has_a_name_of_its_own() {
    let names: std::collections::BTreeSet<_> = FaultKind::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(names.len(), FaultKind::ALL.len());
    assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_lowercase() || c == '-')));
    let table = FaultKind::ALL.iter().all(|kind| README.contains(&format!("`{kind}`")));
    assert!(table, "the README lists every fault");
}
