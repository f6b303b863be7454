use broadcast::envelope::{DOMAIN, MAX_NAME_BYTES, MAX_NUMBER, MAX_TIME_MS, PAYLOAD_TYPE, hash};
use broadcast::protocol::{Answer, MAX_FETCH_RANGES, Question, Range, StreamDigest, StreamId};
use broadcast::{Envelope, EnvelopeError, Kind, MAX_ENVELOPE_BYTES, MAX_TEXT_BYTES, MessageId};
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use crate::common::{envelope, forged, key, peer, signed};

const README: &str = include_str!("../../README.md");

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether README.md shows these bytes, whatever lines they are broken into.
fn is_documented(bytes: &[u8]) -> bool {
    let readme: String = README.chars().filter(|c| !c.is_whitespace()).collect();
    readme.contains(&hex(bytes))
}

fn cbor(value: &impl serde::Serialize) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::new(), value).unwrap()
}

fn payload(bytes: &[u8]) -> Vec<u8> {
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).unwrap();
    envelope.payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE).unwrap().0.to_vec()
}

fn seal(payload: Vec<u8>, keypair: &Keypair, domain: &str) -> Vec<u8> {
    SignedEnvelope::new(keypair, domain.to_owned(), PAYLOAD_TYPE.to_vec(), payload).unwrap().into_protobuf_encoding()
}

fn questions() -> Vec<Question> {
    let range = Range { author: peer(1), epoch: 3, from: 1, to: 300 };
    vec![
        Question::Digest { after: None },
        Question::Digest { after: Some(StreamId { author: peer(1), epoch: 3 }) },
        Question::Fetch { ranges: vec![range] },
        Question::News {},
    ]
}

fn answers() -> Vec<Answer> {
    let streams = vec![StreamDigest { author: peer(1), epoch: 3, have: vec![(1, 300), (302, 302)] }];
    vec![
        Answer::Digest { streams, more: false },
        Answer::Fetch { envelopes: vec![ByteBuf::from(*b"envelope")], more: true },
        Answer::News {},
    ]
}

#[test]
fn the_bytes_are_those_of_the_readme() {
    let bytes = signed(1, 3, 1, "hello");
    let gossip = Envelope { kind: Kind::Gossip { count: 7 }, ..envelope(1, 3, 2, "gossip 7") };
    let mut missing = Vec::new();
    let mut check = |name: &str, bytes: &[u8]| {
        if !is_documented(bytes) {
            missing.push(format!("{name}: {}", hex(bytes)));
        }
    };
    check("payload", &payload(&bytes));
    check("envelope", &bytes);
    check("sha-256", &hash(&bytes));
    check("gossip payload", &payload(&gossip.sign(&key(1)).unwrap()));
    for question in questions() {
        check("question", &cbor(&question));
    }
    for answer in answers() {
        check("answer", &cbor(&answer));
    }
    assert!(missing.is_empty(), "not in README.md:\n{}", missing.join("\n"));
    assert_eq!(MessageId::of(&bytes).to_string(), hex(&hash(&bytes)[..16]));
    assert_eq!(envelope(1, 3, 1, "").id().to_string(), format!("{}/3/1", peer(1)));
}

#[test]
fn questions_and_answers_survive_the_way() {
    for question in questions() {
        assert_eq!(cbor4ii::serde::from_slice::<Question>(&cbor(&question)).unwrap(), question);
    }
    for answer in answers() {
        assert_eq!(cbor4ii::serde::from_slice::<Answer>(&cbor(&answer)).unwrap(), answer);
    }
    // A list that is too long is read over, and one item too many is kept as the proof.
    let range = Range { author: peer(1), epoch: 3, from: 1, to: 300 };
    let long = cbor(&Question::Fetch { ranges: vec![range; 1_000] });
    let Ok(Question::Fetch { ranges }) = cbor4ii::serde::from_slice(&long) else { panic!("unreadable") };
    assert_eq!(ranges.len(), MAX_FETCH_RANGES + 1);
}

#[test]
fn the_longest_broadcast_passes_and_every_bound_holds() {
    let longest = Envelope {
        epoch: MAX_NUMBER,
        sequence: MAX_NUMBER,
        sent_at_ms: MAX_TIME_MS,
        name: "n".repeat(MAX_NAME_BYTES),
        team: "t".repeat(MAX_NAME_BYTES),
        kind: Kind::Gossip { count: u32::MAX },
        ..envelope(1, 1, 1, &"x".repeat(MAX_TEXT_BYTES))
    };
    let bytes = longest.sign(&key(1)).unwrap();
    assert!(bytes.len() <= MAX_ENVELOPE_BYTES);
    assert_eq!(Envelope::decode(&bytes).unwrap(), longest);

    let long = |what, limit| EnvelopeError::TooLong { what, limit };
    let base = envelope(1, 1, 1, "hello");
    for (wrong, error) in [
        (Envelope { text: "x".repeat(MAX_TEXT_BYTES + 1), ..base.clone() }, long("text", MAX_TEXT_BYTES)),
        (Envelope { name: "x".repeat(MAX_NAME_BYTES + 1), ..base.clone() }, long("name", MAX_NAME_BYTES)),
        (Envelope { team: "x".repeat(MAX_NAME_BYTES + 1), ..base.clone() }, long("team", MAX_NAME_BYTES)),
        (Envelope { sequence: 0, ..base.clone() }, EnvelopeError::Number),
        (Envelope { sequence: MAX_NUMBER + 1, ..base.clone() }, EnvelopeError::Number),
        (Envelope { epoch: MAX_NUMBER + 1, ..base.clone() }, EnvelopeError::Number),
        (Envelope { sent_at_ms: MAX_TIME_MS + 1, ..base.clone() }, EnvelopeError::Time),
        (Envelope { author: peer(2), ..base.clone() }, EnvelopeError::WrongKey),
    ] {
        assert_eq!(wrong.sign(&key(1)), Err(error));
    }
}

#[test]
fn what_is_not_signed_for_this_purpose_is_refused() {
    assert_eq!(Envelope::decode(&forged(1, 1, 1)), Err(EnvelopeError::Signature));
    let good = signed(1, 1, 1, "hello");
    let elsewhere = seal(payload(&good), &key(1), "althing/direct-message/1");
    assert_eq!(Envelope::decode(&elsewhere), Err(EnvelopeError::Signature));
    let mut behind = payload(&good);
    behind.push(0);
    let behind = seal(behind, &key(1), DOMAIN);
    assert!(matches!(Envelope::decode(&behind), Err(EnvelopeError::Malformed(_))));
}

#[test]
fn a_relay_cannot_make_other_bytes_of_a_true_broadcast() {
    let good = signed(1, 1, 1, "hello");
    // An unknown field, a field given twice, a length in a longer form: each is the same envelope to a lenient reader.
    let mut unknown = good.clone();
    unknown.extend([0x32, 0x00]);
    let mut twice = good.clone();
    twice.extend_from_slice(&good[..2 + usize::from(good[1])]);
    let mut long = vec![0x0a, good[1] | 0x80, 0x00];
    long.extend_from_slice(&good[2..]);
    for bytes in [unknown, twice, long] {
        assert!(SignedEnvelope::from_protobuf_encoding(&bytes).is_ok());
        assert!(matches!(Envelope::decode(&bytes), Err(EnvelopeError::Malformed(_))), "{}", hex(&bytes));
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Envelope::decode(&bytes);
        let _ = Envelope::decode_trusted(&bytes);
        let _ = cbor4ii::serde::from_slice::<Question>(&bytes);
        let _ = cbor4ii::serde::from_slice::<Answer>(&bytes);
    }

    #[test]
    fn one_changed_byte_is_never_accepted(at in any::<prop::sample::Index>(), bit in 0..8) {
        let mut bytes = signed(1, 1, 1, "hello");
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(Envelope::decode(&bytes).is_err());
    }

    #[test]
    fn what_is_signed_is_read(
        epoch in 0..=MAX_NUMBER, sequence in 1..=MAX_NUMBER, sent_at_ms in 0..=MAX_TIME_MS,
        name in ".{0,16}", team in ".{0,16}", text in ".{0,200}", count in any::<Option<u32>>(),
    ) {
        let kind = count.map_or(Kind::Text, |count| Kind::Gossip { count });
        let envelope = Envelope { author: peer(1), epoch, sequence, sent_at_ms, name, team, kind, text };
        let bytes = envelope.sign(&key(1)).unwrap();
        prop_assert_eq!(Envelope::decode(&bytes).unwrap(), envelope.clone());
        prop_assert_eq!(Envelope::decode_trusted(&bytes).unwrap(), envelope);
    }

    #[test]
    fn any_signed_payload_is_read_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = seal(payload, &key(1), DOMAIN);
        prop_assert!(Envelope::decode(&bytes).is_err());
    }
}
