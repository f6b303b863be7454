use std::time::{Duration, Instant};

use file_transfer::manifest::{MAX_BYTES, MAX_COMPONENT_BYTES, MAX_PATH_BYTES};
use file_transfer::protocol::{Frame, MAX_FRAME_BYTES, Refusal, Request, Stand, Status};
use file_transfer::receiver::{self, Receiver};
use file_transfer::sender::{self, Sender, ServeId};
use file_transfer::{
    CHUNK, Config, Direction, Entry, FaultKind, Hash, Kind, MAX_ENTRIES, Manifest, ManifestError, Offer, Plan, Reason,
    Record, Seal, State, TransferId,
};

use crate::world::{key, peer};

const README: &str = include_str!("../../README.md");
const ID: TransferId = TransferId([0xab; 16]);

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

fn manifest() -> Manifest {
    let mut script = Entry::file(&["tools", "run"], CHUNK + 5);
    script.executable = true;
    script.mtime_ns = 1_700_000_000_000_000_000;
    let mut empty = Entry::file(&["tools", "empty"], 0);
    empty.kind = Kind::Folder;
    Manifest::new("tools".into(), vec![script, empty]).unwrap()
}

fn offer() -> Offer {
    Offer::sign(&key(1), ID, manifest(), 1_700_000_000_000).unwrap()
}

#[test]
fn the_test_vectors_stand_in_the_readme() {
    let offer = offer();
    assert_documented("signed offer", offer.signed());
    assert_documented("page", &offer.pages()[0]);
    assert_documented("seal", Seal::sign(&key(1), &offer, Hash([0xcd; 32])).unwrap().signed());
    assert_documented("request", &Request { transfer: ID, first: 3, count: 256 }.encode());
    // The frames carry three bytes in place of an offer, page or seal.
    let (moved, serial, bytes) = (2_000_000, 9, vec![1, 2, 3]);
    let (status, reason) = (Status::Paused, Some(Reason::DiskFull));
    let frames = [
        ("Offer", Frame::Offer { transfer: ID, offer: bytes.clone(), page: vec![4] }),
        ("Ask", Frame::Ask { transfer: ID, page: 1 }),
        ("Page", Frame::Page { transfer: ID, page: 1, entries: bytes.clone() }),
        ("Status", Frame::Status { transfer: ID, serial, status, reason, chunks: 1, bytes: CHUNK, moved }),
        ("State", Frame::State { transfer: ID, serial, stand: Stand::Sealed, reason: None, seal: Some(bytes) }),
    ];
    for (name, frame) in frames {
        let bytes = frame.clone().encode();
        assert_eq!(Frame::decode(&bytes), Ok(frame));
        assert_documented(name, &bytes);
    }
}

#[test]
fn an_offer_is_read_back_and_any_changed_byte_is_noticed() {
    let offer = offer();
    let read = Offer::decode(offer.signed(), offer.pages().to_vec()).unwrap();
    assert_eq!(read, offer);
    assert_eq!((read.id(), read.sender(), read.sent_at_ms()), (ID, peer(1), 1_700_000_000_000));
    assert_eq!(read.manifest(), &manifest());
    for at in 0..offer.signed().len() {
        let mut signed = offer.signed().to_vec();
        signed[at] ^= 1;
        assert!(Offer::decode(&signed, offer.pages().to_vec()).is_err(), "byte {at}");
    }
    for at in 0..offer.pages()[0].len() {
        let mut page = offer.pages()[0].clone();
        page[at] ^= 1;
        assert!(Offer::decode(offer.signed(), vec![page]).is_err(), "byte {at}");
    }
    assert!(Offer::decode(offer.signed(), Vec::new()).is_err());
    let twice = vec![offer.pages()[0].clone(), offer.pages()[0].clone()];
    assert!(Offer::decode(offer.signed(), twice).is_err());

    let seal = Seal::sign(&key(1), &offer, Hash([1; 32])).unwrap();
    assert_eq!(Seal::decode(seal.signed(), &offer).unwrap().root(), Hash([1; 32]));
    for at in 0..seal.signed().len() {
        let mut signed = seal.signed().to_vec();
        signed[at] ^= 1;
        assert!(Seal::decode(&signed, &offer).is_err(), "byte {at}");
    }
    let other = Offer::sign(&key(1), ID, manifest(), 5).unwrap();
    assert!(Seal::decode(seal.signed(), &other).is_err(), "a seal is for one offer");
    let stranger = Seal::sign(&key(2), &offer, Hash([1; 32])).unwrap();
    assert!(Seal::decode(stranger.signed(), &offer).is_err(), "only the sender seals");
}

#[test]
fn hostile_lists_are_refused() {
    let files = |paths: &[&[&str]]| paths.iter().map(|path| Entry::file(path, 1)).collect::<Vec<_>>();
    let long = "n".repeat(MAX_COMPONENT_BYTES + 1);
    let deep = vec!["d"; 65];
    let wide = vec![&long[..MAX_COMPONENT_BYTES]; MAX_PATH_BYTES / MAX_COMPONENT_BYTES + 1];
    let paths: [&[&str]; 12] =
        [&[], &[""], &["."], &[".."], &["a", "..", "b"], &["/"], &["/etc"], &["a/b"], &["a\0"], &[&long], &deep, &wide];
    for path in paths {
        let result = Manifest::new("x".into(), files(&[path]));
        assert!(matches!(result, Err(ManifestError::Path(_))), "{path:?}");
    }
    // What is special elsewhere is the receiver's to rename.
    for path in [&["CON"][..], &["a\\b"], &["C:"], &["-rf"], &[".hidden"], &["x."], &["\u{1b}[31m"]] {
        assert!(Manifest::new("x".into(), files(&[path])).is_ok(), "{path:?}");
    }
    for twice in [&[&["a"][..], &["a"]][..], &[&["a", "b"], &["a"]], &[&["a"], &["a", "b", "c"]]] {
        assert!(matches!(Manifest::new("x".into(), files(twice)), Err(ManifestError::Twice(_))), "{twice:?}");
    }
    let sized = |sizes: &[u64]| {
        let entries = sizes.iter().enumerate().map(|(at, size)| Entry::file(&[&at.to_string()], *size));
        Manifest::new("x".into(), entries.collect()).map(|manifest| manifest.chunks())
    };
    assert_eq!(sized(&[MAX_BYTES]), Ok(1 << 20));
    for sizes in [&[MAX_BYTES + 1][..], &[1 << 40], &[u64::MAX], &[u64::MAX, 2], &[MAX_BYTES, 1]] {
        assert_eq!(sized(sizes), Err(ManifestError::Bytes));
    }
    let mut folder = Entry::file(&["a"], 1);
    folder.kind = Kind::Folder;
    assert_eq!(Manifest::new("x".into(), vec![folder]), Err(ManifestError::Bytes));
    assert_eq!(Manifest::new("x".into(), vec![]), Err(ManifestError::Empty));
    assert_eq!(Manifest::new(String::new(), files(&[&["a"]])), Err(ManifestError::Name));
    let many = (0..=MAX_ENTRIES).map(|at| Entry::file(&[&at.to_string()], 0)).collect();
    assert_eq!(Manifest::new("x".into(), many), Err(ManifestError::Entries));
}

#[test]
fn rubbish_is_no_frame() {
    assert_eq!(Frame::decode(&[]), Err(FaultKind::MalformedFrame));
    assert_eq!(Frame::decode(&vec![0; MAX_FRAME_BYTES + 1]), Err(FaultKind::OversizedFrame));
    let good = Frame::Ask { transfer: ID, page: 1 }.encode();
    for end in 0..good.len() {
        assert_eq!(Frame::decode(&good[..end]), Err(FaultKind::MalformedFrame));
    }
    let mut longer = good.clone();
    longer.push(0);
    assert_eq!(Frame::decode(&longer), Err(FaultKind::MalformedFrame));
    // Nested without end.
    assert_eq!(Frame::decode(&vec![0x81; 100_000]), Err(FaultKind::MalformedFrame));
    // Announces more than there is.
    assert_eq!(Frame::decode(&[0x9b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(FaultKind::MalformedFrame));
}

fn faults(receiver: &mut Receiver) -> Vec<FaultKind> {
    let outputs = std::iter::from_fn(|| receiver.poll_output());
    let fault = |output| if let receiver::Output::Fault { kind, .. } = output { Some(kind) } else { None };
    outputs.filter_map(fault).collect()
}

fn frame_of(offer: &Offer) -> Frame {
    Frame::Offer { transfer: offer.id(), offer: offer.signed().to_vec(), page: offer.pages()[0].clone() }
}

#[test]
fn a_hostile_sender_is_blamed_and_takes_no_room() {
    let now = Instant::now();
    let config = Config { max_offers_per_peer: 3, ..Config::default() };
    let mut receiver = Receiver::new(config, 1);
    receiver.handle_input(receiver::Input::PeerUp { peer: peer(1) }, now);
    let mut say = |frame: Frame| {
        receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame }, now);
        faults(&mut receiver)
    };
    let offer = offer();
    let (signed, page) = (offer.signed().to_vec(), offer.pages()[0].clone());
    let foreign = Offer::sign(&key(2), ID, manifest(), 1).unwrap();
    assert_eq!(say(frame_of(&foreign)), [FaultKind::InvalidOffer], "signed by another");
    let renamed = Frame::Offer { transfer: TransferId([1; 16]), offer: signed.clone(), page: page.clone() };
    assert_eq!(say(renamed), [FaultKind::InvalidOffer]);
    let rubbish = Frame::Offer { transfer: ID, offer: vec![1; 100], page: page.clone() };
    assert_eq!(say(rubbish), [FaultKind::InvalidOffer]);
    assert_eq!(say(Frame::Offer { transfer: ID, offer: signed, page: vec![9] }), [FaultKind::InvalidManifest]);
    assert_eq!(say(Frame::Page { transfer: ID, page: 0, entries: page }), [FaultKind::InvalidStatus]);
    assert_eq!(say(Frame::Ask { transfer: ID, page: 1 }), [FaultKind::InvalidStatus]);
    assert_eq!(say(frame_of(&offer)), []);
    assert_eq!(say(frame_of(&offer)), [], "again is no fault");
    let other = Offer::sign(&key(1), ID, manifest(), 2).unwrap();
    assert_eq!(say(frame_of(&other)), [FaultKind::ConflictingOffer]);
    for number in 0..10 {
        let more = Offer::sign(&key(1), TransferId([number; 16]), manifest(), 2).unwrap();
        assert_eq!(say(frame_of(&more)), [], "too many is no fault");
    }
    assert_eq!(receiver.live(), 3);
}

#[test]
fn a_seal_that_does_not_fit_fails_the_transfer() {
    let now = Instant::now();
    let mut receiver = Receiver::new(Config::default(), 1);
    receiver.handle_input(receiver::Input::PeerUp { peer: peer(1) }, now);
    let offer = offer();
    receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame: frame_of(&offer) }, now);
    receiver.accept(ID, now).unwrap();
    let mut seal = |signed: Vec<u8>, serial: u64| {
        let frame = Frame::State { transfer: ID, serial, stand: Stand::Sealed, reason: None, seal: Some(signed) };
        receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame }, now);
    };
    let wrong = Seal::sign(&key(1), &offer, Hash([1; 32])).unwrap().signed().to_vec();
    // Before it is whole a seal says nothing.
    seal(wrong.clone(), 1);
    let get = |output| if let receiver::Output::Get { get, first, .. } = output { Some((get, first)) } else { None };
    let gets: Vec<_> = std::iter::from_fn(|| receiver.poll_output()).filter_map(get).collect();
    assert_eq!(gets.iter().map(|(_, first)| *first).collect::<Vec<_>>(), [0, 1]);
    for (get, first) in gets {
        receiver.handle_input(receiver::Input::Verified { get, first, hashes: vec![Hash([7; 32])] }, now);
    }
    let mut seal = |signed: Vec<u8>, serial: u64| {
        let frame = Frame::State { transfer: ID, serial, stand: Stand::Sealed, reason: None, seal: Some(signed) };
        receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame }, now);
        faults(&mut receiver)
    };
    assert_eq!(seal(vec![1, 2], 2), [FaultKind::InvalidSeal]);
    assert_eq!(seal(wrong, 3), [FaultKind::InvalidSeal]);
    let snapshot = &receiver.transfers(now)[0];
    assert_eq!((snapshot.state, snapshot.reason), (State::Failed, Some(Reason::WrongSeal)));
}

#[test]
fn an_older_message_does_not_undo_a_newer_one() {
    let now = Instant::now();
    let mut receiver = Receiver::new(Config::default(), 1);
    receiver.handle_input(receiver::Input::PeerUp { peer: peer(1) }, now);
    receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame: frame_of(&offer()) }, now);
    receiver.accept(ID, now).unwrap();
    for (serial, stand, state) in [
        (5, Stand::Paused, State::Paused),
        (4, Stand::Open, State::Paused),
        (6, Stand::Open, State::Active),
        (3, Stand::Cancelled, State::Active),
    ] {
        let frame = Frame::State { transfer: ID, serial, stand, reason: None, seal: None };
        receiver.handle_input(receiver::Input::Frame { peer: peer(1), frame }, now);
        assert_eq!(receiver.transfers(now)[0].state, state, "after {serial}");
    }

    let mut sender = Sender::new(Config::default(), key(1));
    sender.handle_input(sender::Input::PeerUp { peer: peer(2) }, now);
    assert!(sender.offer(offer(), &[peer(2)], Plan::NORMAL, now));
    for (serial, status, state) in [
        (5, Status::Paused, State::Paused),
        (4, Status::Accepted, State::Paused),
        (6, Status::Accepted, State::Active),
        (3, Status::Cancelled, State::Active),
    ] {
        let frame = Frame::Status { transfer: ID, serial, status, reason: None, chunks: 0, bytes: 0, moved: 0 };
        sender.handle_input(sender::Input::Frame { peer: peer(2), frame }, now);
        assert_eq!(sender.transfers(now)[0].state, state, "after {serial}");
    }
}

#[test]
fn a_hostile_receiver_gets_nothing_and_is_blamed() {
    let now = Instant::now();
    let mut sender = Sender::new(Config::default(), key(1));
    for number in [2, 3] {
        sender.handle_input(sender::Input::PeerUp { peer: peer(number) }, now);
    }
    assert!(sender.offer(offer(), &[peer(2)], Plan::NORMAL, now));
    let mut number = 0;
    let mut ask = |from: u8, transfer: TransferId, first: u64, count: u32| {
        number += 1;
        let request = Request { transfer, first, count };
        let input = sender::Input::Requested { peer: peer(from), serve: ServeId(number), request };
        sender.handle_input(input, now);
        let outputs: Vec<_> = std::iter::from_fn(|| sender.poll_output()).collect();
        let blamed = outputs.iter().any(|output| matches!(output, sender::Output::Fault { .. }));
        let answer = outputs.iter().find_map(|output| match output {
            sender::Output::Serve { chunks, .. } => Some(Ok(chunks.len())),
            sender::Output::Refuse { refusal, .. } => Some(Err(*refusal)),
            _ => None,
        });
        (answer.unwrap(), blamed)
    };
    for (from, id, first, count) in [
        (3, ID, 0, 1),
        (2, TransferId([1; 16]), 0, 1),
        (2, ID, 0, 0),
        (2, ID, 0, 3),
        (2, ID, 2, 1),
        (2, ID, u64::MAX, 1),
        (2, ID, u64::MAX, u32::MAX),
        (2, ID, 0, 257),
    ] {
        assert_eq!(ask(from, id, first, count), (Err(Refusal::Unknown), true), "{from} {first} {count}");
    }
    assert_eq!(ask(2, ID, 0, 2), (Ok(2), false));
    for _ in 1..64 {
        assert_eq!(ask(2, ID, 0, 1), (Ok(1), false));
    }
    assert_eq!(ask(2, ID, 0, 1), (Err(Refusal::Busy), false));

    let status = Status::Accepted;
    let frame = Frame::Status { transfer: ID, serial: 1, status, reason: None, chunks: 1, bytes: u64::MAX, moved: 0 };
    sender.handle_input(sender::Input::Frame { peer: peer(2), frame }, now);
    let blamed = |output| matches!(output, sender::Output::Fault { kind: FaultKind::InvalidStatus, .. });
    assert!(std::iter::from_fn(|| sender.poll_output()).any(blamed));
    // Whoever was offered nothing learns nothing, not even that it exists.
    for (from, transfer) in [(3, ID), (2, TransferId([1; 16]))] {
        sender.handle_input(sender::Input::Frame { peer: peer(from), frame: Frame::Ask { transfer, page: 0 } }, now);
        let outputs: Vec<_> = std::iter::from_fn(|| sender.poll_output()).collect();
        let [sender::Output::Send { frame: Frame::State { stand, .. }, .. }] = &outputs[..] else {
            panic!("{outputs:?}")
        };
        assert_eq!(*stand, Stand::Unknown);
    }
}

#[test]
fn a_record_is_read_back() {
    let record = Record {
        id: ID,
        direction: Direction::In,
        peer: peer(4),
        state: State::Failed,
        reason: Some(Reason::Changed),
        active_for: Duration::from_millis(1234),
        retries: 3,
        bytes: 77,
        root: Some(Hash([4; 32])),
        path: Some("downloads/x".into()),
    };
    assert_eq!(Record::decode(&record.encode()), Some(record));
    assert_eq!(Record::decode(b"rubbish"), None);
}
