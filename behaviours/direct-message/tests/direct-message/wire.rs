use direct_message::message::{DOMAIN, MAX_SEQ, MAX_TIME_MS, PAYLOAD_TYPE};
use direct_message::protocol::{
    Batch, MAX_BATCH_MESSAGES, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, Outcome, Receipt, Receipts, Refusal,
};
use direct_message::{MAX_ENVELOPE_BYTES, MAX_NAME_BYTES, MAX_TEXT_BYTES, Message, MessageError, MessageId};
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use proptest::prelude::*;
use serde_bytes::ByteBuf;

use crate::common::{WALL_MS, key, message, peer};

/// The envelope of the message "hello" from the key of 32 bytes 0x01 to that of 0x02. Also in README.md.
const ENVELOPE: &str = concat!(
    "0a24080112208a88e3dd7409f195fd52db2d3cba5d72ca6709bf1d94121bf3748801b40f6f5c12192f616c7468696e672f64",
    "69726563742d6d6573736167652f311a9101a8626964503031323334353637383961626364656662746f5826002408011220",
    "8139770ea87d175f56a35466c34c7ecccb8d8a91b4ee37a25df60f5b8fc9b39463736571016a73656e745f61745f6d731b00",
    "00019b76daa8006d657870697265735f61745f6d731b0000019b9ae72c00646e616d6563616461647465616d67616c746869",
    "6e6764746578746568656c6c6f2a4084f7913f249719cd21040883d598e458c44198c36a59eaaa34bfc4db136e9a16202e3b",
    "056f3729669898bd355ed781e9f712488086ce16a445d3791a75638d0f",
);

/// What is signed in [`ENVELOPE`]. Also in README.md.
const PAYLOAD: &str = concat!(
    "a8626964503031323334353637383961626364656662746f58260024080112208139770ea87d175f56a35466c34c7ecccb8d",
    "8a91b4ee37a25df60f5b8fc9b39463736571016a73656e745f61745f6d731b0000019b76daa8006d657870697265735f6174",
    "5f6d731b0000019b9ae72c00646e616d6563616461647465616d67616c7468696e6764746578746568656c6c6f",
);

/// A receipt of each kind. Also in README.md.
const RECEIPTS: &str = concat!(
    "a168726563656970747384a26269645030313233343536373839616263646566676f7574636f6d656673746f726564a26269",
    "645030313233343536373839616263646566676f7574636f6d656765787069726564a3626964503031323334353637383961",
    "6263646566676f7574636f6d65677265667573656466726561736f6e04a26269645030313233343536373839616263646566",
    "676f7574636f6d656462757379",
);

/// What the CBOR reader reserves at most on the word of a length, plus an error's text.
const READER_RESERVES: u64 = 16 * 1_024 + 512;

fn vector() -> Message {
    Message {
        id: MessageId(*b"0123456789abcdef"),
        from: peer(1),
        to: peer(2),
        seq: 1,
        sent_at_ms: WALL_MS,
        expires_at_ms: WALL_MS + 604_800_000,
        name: "ada".to_owned(),
        team: "althing".to_owned(),
        text: "hello".to_owned(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn cbor(value: &impl serde::Serialize) -> Vec<u8> {
    cbor4ii::serde::to_vec(Vec::new(), value).unwrap()
}

/// Sign any payload as a message.
fn seal(payload: Vec<u8>, keypair: &Keypair, domain: &str) -> Vec<u8> {
    SignedEnvelope::new(keypair, domain.to_owned(), PAYLOAD_TYPE.to_vec(), payload).unwrap().into_protobuf_encoding()
}

fn payload(envelope: &[u8]) -> Vec<u8> {
    let envelope = SignedEnvelope::from_protobuf_encoding(envelope).unwrap();
    envelope.payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE).unwrap().0.to_vec()
}

#[test]
fn a_message_is_these_bytes() {
    let envelope = vector().sign(&key(1)).unwrap();
    assert_eq!(hex(&payload(&envelope)), PAYLOAD);
    assert_eq!(hex(&envelope), ENVELOPE);
    assert_eq!(Message::decode(&envelope).unwrap(), vector());
}

#[test]
fn a_batch_is_a_map_around_the_envelopes() {
    let envelope = vector().sign(&key(1)).unwrap();
    let batch = Batch { messages: vec![ByteBuf::from(envelope.clone())] };
    // {"messages": [h'…']}, of 279 bytes.
    assert_eq!(hex(&cbor(&batch)), format!("a1686d6573736167657381590117{ENVELOPE}"));
    assert_eq!(cbor4ii::serde::from_slice::<Batch>(&cbor(&batch)).unwrap(), batch);
}

#[test]
fn receipts_are_these_bytes() {
    let id = vector().id;
    let outcomes = [Outcome::Stored, Outcome::Expired, Outcome::Refused(Refusal::Receiver), Outcome::Busy];
    let receipts = Receipts { receipts: outcomes.map(|outcome| Receipt { id, outcome }).to_vec() };
    assert_eq!(hex(&cbor(&receipts)), RECEIPTS);
    assert_eq!(cbor4ii::serde::from_slice::<Receipts>(&cbor(&receipts)).unwrap(), receipts);
}

#[test]
fn the_vectors_stand_in_the_documentation() {
    let readme: String = include_str!("../../README.md").split_whitespace().collect();
    for vector in [ENVELOPE, PAYLOAD, RECEIPTS] {
        assert!(readme.contains(vector));
    }
}

#[test]
fn every_refusal_keeps_its_number() {
    for code in 0..300 {
        assert_eq!(Refusal::from_code(code).code(), code);
    }
}

#[test]
fn the_largest_of_everything_fits_its_frame() {
    let text = "x".repeat(MAX_TEXT_BYTES);
    let label = "n".repeat(MAX_NAME_BYTES);
    let largest = Message {
        seq: MAX_SEQ,
        sent_at_ms: MAX_TIME_MS,
        expires_at_ms: MAX_TIME_MS,
        name: label.clone(),
        team: label,
        ..message(1, 2, 1, &text)
    };
    let envelope = largest.sign(&key(1)).unwrap();
    assert!(envelope.len() <= MAX_ENVELOPE_BYTES);
    assert_eq!(Message::decode(&envelope).unwrap(), largest);

    let batch = Batch { messages: vec![ByteBuf::from(vec![7; 2_048]); MAX_BATCH_MESSAGES] };
    assert!(cbor(&batch).len() <= MAX_REQUEST_BYTES);
    let receipt = Receipt { id: MessageId([255; 16]), outcome: Outcome::Refused(Refusal::Other(u16::MAX)) };
    assert!(cbor(&Receipts { receipts: vec![receipt; MAX_BATCH_MESSAGES] }).len() <= MAX_RESPONSE_BYTES);
}

#[test]
fn ids_are_32_hexadecimal_digits() {
    let id = MessageId(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff");
    assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0eff");
    assert_eq!("000102030405060708090A0b0c0d0eFF".parse(), Ok(id));
    for bad in [
        "",
        "00",
        "+00102030405060708090a0b0c0d0eff",
        "000102030405060708090a0b0c0d0efff",
        "é0102030405060708090a0b0c0d0efé",
    ] {
        assert!(bad.parse::<MessageId>().is_err(), "{bad}");
    }
}

#[test]
fn what_is_out_of_bounds_is_neither_signed_nor_read() {
    let too_long = "x".repeat(MAX_TEXT_BYTES + 1);
    let name = "n".repeat(MAX_NAME_BYTES + 1);
    let good = vector();
    for (bad, desc) in [
        (Message { text: too_long, ..good.clone() }, "text"),
        (Message { name: name.clone(), ..good.clone() }, "name"),
        (Message { team: name, ..good.clone() }, "team"),
        (Message { seq: 0, ..good.clone() }, "seq 0"),
        (Message { seq: MAX_SEQ + 1, ..good.clone() }, "seq"),
        (Message { sent_at_ms: MAX_TIME_MS + 1, ..good.clone() }, "sent at"),
        (Message { expires_at_ms: u64::MAX, ..good.clone() }, "expires at"),
        (Message { from: peer(3), ..good.clone() }, "author"),
    ] {
        assert!(bad.sign(&key(1)).is_err(), "{desc}");
    }

    // The same, signed by somebody who does not check: numbers in place of those of a good payload.
    let good = payload(&good.sign(&key(1)).unwrap());
    let key_at =
        |name: &str| good.windows(name.len()).position(|window| window == name.as_bytes()).unwrap() + name.len();
    let mut seq_zero = good.clone();
    seq_zero[key_at("seq")] = 0;
    assert_eq!(Message::decode(&seal(seq_zero, &key(1), DOMAIN)), Err(MessageError::Seq));
    for field in ["sent_at_ms", "expires_at_ms"] {
        let mut late = good.clone();
        late[key_at(field) + 1..key_at(field) + 9].copy_from_slice(&u64::MAX.to_be_bytes());
        assert_eq!(Message::decode(&seal(late, &key(1), DOMAIN)), Err(MessageError::Time), "{field}");
    }
    let mut trailing = good.clone();
    trailing.push(0);
    assert!(matches!(Message::decode(&seal(trailing, &key(1), DOMAIN)), Err(MessageError::Malformed(_))));
    assert_eq!(Message::decode(&seal(good, &key(1), "another/domain")), Err(MessageError::Signature));
    assert!(matches!(Message::decode(&vec![0; MAX_ENVELOPE_BYTES + 1]), Err(MessageError::TooLong { .. })));
}

#[test]
fn unknown_fields_are_read_over() {
    let mut payload = payload(&vector().sign(&key(1)).unwrap());
    payload[0] += 1;
    // "new": [1, {}]
    payload.extend_from_slice(b"\x63new\x82\x01\xa0");
    assert_eq!(Message::decode(&seal(payload, &key(1), DOMAIN)).unwrap(), vector());
}

#[test]
fn a_list_is_kept_no_further_than_one_beyond_its_bound() {
    let batch = Batch { messages: vec![ByteBuf::new(); 500_000] };
    let read: Batch = cbor4ii::serde::from_slice(&cbor(&batch)).unwrap();
    assert_eq!(read.messages.len(), MAX_BATCH_MESSAGES + 1);
}

#[test]
fn lengths_that_lie_cost_nothing() {
    let claims: [&[u8]; 5] = [
        &[0x80],
        &[0x9a, 0x80, 0, 0, 0],
        &[0x9b, 0x80, 0, 0, 0, 0, 0, 0, 0],
        &[0x9f],
        &[0x81, 0x5b, 0x7f, 255, 255, 255, 255, 255, 255, 255],
    ];
    for claim in claims {
        for name in ["messages", "receipts"] {
            let bytes = [&[0xa1, 0x68], name.as_bytes(), claim].concat();
            let info = allocation_counter::measure(|| {
                let _ = cbor4ii::serde::from_slice::<Batch>(&bytes);
                let _ = cbor4ii::serde::from_slice::<Receipts>(&bytes);
            });
            assert!(info.bytes_max <= READER_RESERVES, "{claim:x?}: {} bytes", info.bytes_max);
        }
        let bytes = seal([&vector_head()[..], claim].concat(), &key(1), DOMAIN);
        let info = allocation_counter::measure(|| assert!(Message::decode(&bytes).is_err()));
        assert!(info.bytes_max <= 2 * READER_RESERVES, "{claim:x?}: {} bytes", info.bytes_max);
    }
    // A text that claims to be 2^31 and 2^63 - 1 bytes long, and 100,000 lists in each other.
    for text in [&[0x7a, 0x80, 0, 0, 0][..], &[0x7b, 0x7f, 255, 255, 255, 255, 255, 255, 255], &[0x81; 60_000]] {
        let bytes = seal([b"\xa1\x64text".as_slice(), text].concat(), &key(1), DOMAIN);
        let info = allocation_counter::measure(|| assert!(Message::decode(&bytes).is_err()));
        assert!(info.bytes_max < 4 * MAX_ENVELOPE_BYTES as u64);
        let bytes = seal([b"\xa1\x63new".as_slice(), text].concat(), &key(1), DOMAIN);
        assert!(Message::decode(&bytes).is_err());
    }
}

/// The beginning of a payload, up to where the receiver's id would stand.
fn vector_head() -> Vec<u8> {
    [b"\xa8\x62id\x50".as_slice(), &[0; 16], b"\x62to"].concat()
}

/// Decode anything, with what the brief allows: no panic, and at most four times the cap in memory.
fn decode_within_bounds(bytes: &[u8]) -> Result<Message, MessageError> {
    let mut result = None;
    let info = allocation_counter::measure(|| result = Some(Message::decode(bytes)));
    assert!(info.bytes_max <= 4 * MAX_ENVELOPE_BYTES as u64, "{} bytes", info.bytes_max);
    result.unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_no_message(bytes in proptest::collection::vec(any::<u8>(), 0..2_048)) {
        prop_assert!(decode_within_bounds(&bytes).is_err());
        let _ = cbor4ii::serde::from_slice::<Batch>(&bytes);
        let _ = cbor4ii::serde::from_slice::<Receipts>(&bytes);
    }

    #[test]
    fn a_changed_envelope_is_no_other_message(at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = vector().sign(&key(1)).unwrap();
        let at = at.index(bytes.len());
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        // The framing of an envelope has bytes that mean nothing; no change may mean something else.
        if let Ok(read) = decode_within_bounds(&bytes) {
            prop_assert_eq!(read, vector());
        }
    }

    #[test]
    fn a_changed_payload_is_read_within_bounds(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut payload = payload(&vector().sign(&key(1)).unwrap());
        for (at, to) in changes {
            let at = at.index(payload.len());
            payload[at] = to;
        }
        payload.truncate(payload.len() - cut.index(payload.len()) / 8);
        if let Ok(read) = decode_within_bounds(&seal(payload, &key(1), DOMAIN)) {
            prop_assert!(read.sign(&key(1)).is_ok(), "what is read is within bounds");
        }
    }

    #[test]
    fn what_was_signed_is_read(text in ".{0,200}", name in "[a-zé]{0,20}", seq in 1..=MAX_SEQ, sent in 0..=MAX_TIME_MS) {
        let message = Message { text, name, seq, sent_at_ms: sent, ..vector() };
        prop_assert_eq!(decode_within_bounds(&message.sign(&key(1)).unwrap()), Ok(message));
    }

    #[test]
    fn long_texts_stay_within_bounds(length in 0..=MAX_TEXT_BYTES) {
        let message = Message { text: "x".repeat(length), ..vector() };
        prop_assert_eq!(decode_within_bounds(&message.sign(&key(1)).unwrap()), Ok(message));
    }
}
