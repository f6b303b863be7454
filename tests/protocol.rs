//! The documents against the code: the test vectors of `docs/protocol.md` are the bytes that the code makes, an
//! independent reader in another language reads one of them, and every test that the documents name exists.

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use broadcast::Envelope;
use broadcast::protocol::{Answer, Question, Range, StreamDigest, StreamId};
use direct_message::protocol::{self, Batch, Outcome, Receipt, Receipts};
use direct_message::{Message, MessageId};
use file_transfer::{CHUNK, Entry, Hash, Manifest, Offer, Reason, Seal, TransferId};
use libp2p::PeerId;
use libp2p::core::SignedEnvelope;
use libp2p::identity::Keypair;
use peer_exchange::protocol::{Frame, Refusal};
use peer_exchange::{Card, Goodbye, Role, SignedCard, Subject};
use serde_bytes::ByteBuf;

type TestResult = Result<(), Box<dyn Error>>;

const PROTOCOL: &str = include_str!("../docs/protocol.md");
const ACCEPTANCE: &str = include_str!("../docs/acceptance.md");
const DECISIONS: &str = include_str!("../docs/decisions.md");

/// 2026-01-01T00:00:00Z in milliseconds since 1970.
const NEW_YEAR_MS: u64 = 1_767_225_600_000;

/// Seven days in milliseconds.
const WEEK_MS: u64 = 604_800_000;

/// The key whose 32 secret bytes are all `number`.
fn key(number: u8) -> Result<Keypair, Box<dyn Error>> {
    Ok(Keypair::ed25519_from_bytes([number; 32])?)
}

fn peer(number: u8) -> Result<PeerId, Box<dyn Error>> {
    Ok(key(number)?.public().to_peer_id())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The fenced blocks of a Markdown text that begin with this language, by the word behind it.
fn blocks(text: &str, language: &str) -> BTreeMap<String, String> {
    let mut blocks = BTreeMap::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(label) = line.strip_prefix("```").and_then(|rest| rest.strip_prefix(language)) else { continue };
        let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
        blocks.insert(label.trim().to_owned(), body.join("\n"));
    }
    blocks
}

fn card() -> Result<SignedCard, Box<dyn Error>> {
    let card = Card {
        peer: peer(1)?,
        name: "ada".to_owned(),
        team: "althing".to_owned(),
        role: Role::Peer,
        addresses: vec!["/ip4/192.0.2.7/tcp/4001".parse()?],
        boot: 3,
        revision: 1,
        version: "althing/0.1.0".to_owned(),
    };
    Ok(SignedCard::sign(&key(1)?, card)?)
}

fn message() -> Result<Message, Box<dyn Error>> {
    Ok(Message {
        id: MessageId(*b"0123456789abcdef"),
        from: peer(1)?,
        to: peer(2)?,
        seq: 1,
        sent_at_ms: NEW_YEAR_MS,
        expires_at_ms: NEW_YEAR_MS + WEEK_MS,
        name: "ada".to_owned(),
        team: "althing".to_owned(),
        text: "hello".to_owned(),
    })
}

fn broadcast() -> Result<Envelope, Box<dyn Error>> {
    Ok(Envelope {
        author: peer(1)?,
        epoch: 3,
        sequence: 1,
        sent_at_ms: NEW_YEAR_MS,
        name: "ada".to_owned(),
        team: "althing".to_owned(),
        kind: broadcast::Kind::Text,
        text: "hello".to_owned(),
    })
}

/// The vectors of section 6.
fn broadcast_vectors() -> Result<BTreeMap<&'static str, Vec<u8>>, Box<dyn Error>> {
    fn cbor(value: &impl serde::Serialize) -> Result<Vec<u8>, Box<dyn Error>> {
        Ok(cbor4ii::serde::to_vec(Vec::new(), value)?)
    }
    let words = broadcast()?.sign(&key(1)?)?;
    let gossip = Envelope {
        sequence: 2,
        kind: broadcast::Kind::Gossip { count: 7 },
        text: "gossip 7".to_owned(),
        ..broadcast()?
    };
    let (author, epoch) = (peer(1)?, 3);
    let streams = vec![StreamDigest { author, epoch, have: vec![(1, 300), (302, 302)] }];
    let envelopes = vec![ByteBuf::from(*b"envelope")];
    Ok(BTreeMap::from([
        ("broadcast-payload", payload(&words, "althing/broadcast/1")?),
        ("broadcast-id", broadcast::envelope::hash(&words).to_vec()),
        ("broadcast", words),
        ("broadcast-gossip-payload", payload(&gossip.sign(&key(1)?)?, "althing/broadcast/1")?),
        ("sync-digest", cbor(&Question::Digest { after: None })?),
        ("sync-digest-after", cbor(&Question::Digest { after: Some(StreamId { author, epoch }) })?),
        ("sync-fetch", cbor(&Question::Fetch { ranges: vec![Range { author, epoch, from: 1, to: 300 }] })?),
        ("sync-news", cbor(&Question::News {})?),
        ("sync-digest-answer", cbor(&Answer::Digest { streams, more: false })?),
        ("sync-fetch-answer", cbor(&Answer::Fetch { envelopes, more: true })?),
        ("sync-news-answer", cbor(&Answer::News {})?),
    ]))
}

/// What is inside an envelope, after its signature was checked for that purpose.
fn payload(envelope: &[u8], purpose: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let envelope = SignedEnvelope::from_protobuf_encoding(envelope)?;
    let (payload, _) = envelope.payload_and_signing_key(purpose.to_owned(), format!("/{purpose}").as_bytes())?;
    Ok(payload.to_vec())
}

/// The bytes that an envelope's signature is over, made by the rule of the document and not by the library.
fn signed_bytes(purpose: &str, payload: &[u8]) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut bytes = Vec::new();
    for part in [purpose.as_bytes(), format!("/{purpose}").as_bytes(), payload] {
        let mut length = part.len();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f)? | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length)?);
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// A frame as it travels: four bytes of length, then CBOR.
fn framed(frame: Frame) -> Result<Vec<u8>, Box<dyn Error>> {
    let body = frame.encode();
    let mut bytes = u32::try_from(body.len())?.to_be_bytes().to_vec();
    bytes.extend(body);
    Ok(bytes)
}

/// The vectors of `/althing/liveness/1`.
fn liveness_vectors() -> Result<BTreeMap<&'static str, Vec<u8>>, Box<dyn Error>> {
    use liveness::protocol::{Request, Response, Suspicion};
    use liveness::{Alive, Incarnation, Report, Tombstone};
    let (local, target, at_ms, challenge) = (peer(1)?, peer(2)?, NEW_YEAR_MS, [7; 16]);
    let life = Incarnation::new(3, 0);
    let suspicion = Suspicion { incarnation: life, challenge };
    let probe = |suspicion| Request::Probe { sent_ms: at_ms, incarnation: Incarnation::new(2, 0), suspicion }.encode();
    let refuted = Incarnation::new(3, 1);
    let alive = |statement| {
        Response::Alive { received_ms: at_ms, sent_ms: at_ms + 1, incarnation: refuted, statement }.encode()
    };
    let some = || Some(b"alive".to_vec());
    let tombstones = Request::Tombstones { whole: true, statements: vec![b"stone".to_vec()] };
    let stone = Tombstone { seed: local, target, incarnation: life, at_ms, stands: true };
    Ok(BTreeMap::from([
        ("liveness-probe", probe(None)),
        ("liveness-probe-suspicion", probe(Some(suspicion))),
        ("liveness-relay", Request::Relay { target, suspicion, patience: Duration::from_secs(4) }.encode()),
        ("liveness-report", Request::Report { statement: b"report".to_vec() }.encode()),
        ("liveness-tombstones", tombstones.encode()),
        ("liveness-alive", alive(None)),
        ("liveness-alive-signed", alive(some())),
        ("liveness-relayed-none", Response::Relayed { statement: None }.encode()),
        ("liveness-relayed", Response::Relayed { statement: some() }.encode()),
        ("liveness-taken", Response::Taken.encode()),
        ("liveness-refused", Response::Refused.encode()),
        ("liveness-statement-alive", Alive { peer: local, incarnation: refuted, challenge }.sign(&key(1)?)?),
        ("liveness-statement-report", Report { reporter: local, target, incarnation: life, at_ms }.sign(&key(1)?)?),
        ("liveness-statement-tombstone", stone.sign(&key(1)?)?),
    ]))
}

/// What the vectors of section 6 offer.
fn file_offer() -> Result<Offer, Box<dyn Error>> {
    let mut run = Entry::file(&["tools", "run"], CHUNK + 5);
    run.executable = true;
    run.mtime_ns = 1_700_000_000_000_000_000;
    let mut empty = Entry::file(&["tools", "empty"], 0);
    empty.kind = file_transfer::Kind::Folder;
    let manifest = Manifest::new("tools".to_owned(), vec![run, empty])?;
    Ok(Offer::sign(&key(1)?, TransferId([0xab; 16]), manifest, 1_700_000_000_000)?)
}

/// Every vector of the document, made anew.
fn vectors() -> Result<BTreeMap<&'static str, Vec<u8>>, Box<dyn Error>> {
    let card = card()?;
    let goodbye = Goodbye::sign(&key(1)?, 3, NEW_YEAR_MS)?;
    let goodbye_payload = payload(goodbye.bytes(), "althing/goodbye/1")?;
    let hello = framed(Frame::Hello { card: card.bytes().to_vec() })?;
    let hello_head = hello.strip_suffix(card.bytes()).ok_or("a hello ends with its card")?;
    let ask = |subject| framed(Frame::Ask { id: 7, query: *b"fedcba9876543210", subject, hops: 3 });
    let envelope = message()?.sign(&key(1)?)?;
    let batch = cbor4ii::serde::to_vec(Vec::new(), &Batch { messages: vec![ByteBuf::from(envelope.clone())] })?;
    let batch_head = batch.strip_suffix(envelope.as_slice()).ok_or("a batch of one ends with its message")?;
    let outcomes = [Outcome::Stored, Outcome::Expired, Outcome::Refused(protocol::Refusal::Receiver), Outcome::Busy];
    let (offer, transfer) = (file_offer()?, TransferId([0xab; 16]));
    let status = file_transfer::protocol::Frame::Status {
        transfer,
        serial: 9,
        status: file_transfer::protocol::Status::Paused,
        reason: Some(Reason::DiskFull),
        chunks: 1,
        bytes: CHUNK,
        moved: 2_000_000,
    };
    let receipts = outcomes.map(|outcome| Receipt { id: MessageId(*b"0123456789abcdef"), outcome }).to_vec();
    let mut vectors = BTreeMap::from([
        ("public-key", key(1)?.public().encode_protobuf()),
        ("peer-id", peer(1)?.to_bytes()),
        ("card-payload", payload(card.bytes(), "althing/card/1")?),
        ("card", card.bytes().to_vec()),
        ("goodbye-signed", signed_bytes("althing/goodbye/1", &goodbye_payload)?),
        ("goodbye-payload", goodbye_payload),
        ("goodbye", goodbye.bytes().to_vec()),
        ("frame-hello-head", hello_head.to_vec()),
        ("frame-goodbye", framed(Frame::Goodbye { proof: goodbye.bytes().to_vec() })?),
        ("frame-refused", framed(Frame::Refused { reason: Refusal::StaleBoot, boot: 7 })?),
        ("frame-ask-name", ask(Subject::Name("bob".to_owned()))?),
        ("frame-ask-peer", ask(Subject::Peer(peer(2)?))?),
        ("frame-answer-empty", framed(Frame::Answer { id: 7, cards: Vec::new() })?),
        ("file-offer", offer.signed().to_vec()),
        ("file-page", offer.pages()[0].clone()),
        ("file-seal", Seal::sign(&key(1)?, &offer, Hash([0xcd; 32]))?.signed().to_vec()),
        ("file-request", file_transfer::protocol::Request { transfer, first: 3, count: 256 }.encode().to_vec()),
        ("file-status", status.encode()),
        ("message-payload", payload(&envelope, "althing/direct-message/1")?),
        ("message", envelope.clone()),
        ("request-head", batch_head.to_vec()),
        ("response", cbor4ii::serde::to_vec(Vec::new(), &Receipts { receipts })?),
    ]);
    vectors.extend(broadcast_vectors()?);
    vectors.extend(liveness_vectors()?);
    Ok(vectors)
}

#[test]
fn the_vectors_of_the_document_are_what_the_code_makes() -> TestResult {
    let written = blocks(PROTOCOL, "hex");
    let vectors = vectors()?;
    for (name, bytes) in &vectors {
        let block = written.get(*name).map(|block| block.split_whitespace().collect::<String>());
        assert_eq!(block.as_deref(), Some(hex(bytes).as_str()), "vector {name} of docs/protocol.md");
    }
    let known: BTreeSet<&str> = vectors.keys().copied().collect();
    let unknown: Vec<&String> = written.keys().filter(|name| !known.contains(name.as_str())).collect();
    assert!(unknown.is_empty(), "vectors that nothing checks: {unknown:?}");
    assert!(PROTOCOL.contains(&peer(1)?.to_base58()), "the PeerId as people see it");
    Ok(())
}

#[test]
fn the_vectors_are_read_back() -> TestResult {
    let vectors = vectors()?;
    assert_eq!(SignedCard::decode(&vectors["card"])?, card()?);
    assert_eq!(Goodbye::decode(&vectors["goodbye"])?.boot(), 3);
    assert_eq!(Message::decode(&vectors["message"])?, message()?);
    assert_eq!(Envelope::decode(&vectors["broadcast"])?, broadcast()?);
    let offer = Offer::decode(&vectors["file-offer"], vec![vectors["file-page"].clone()])?;
    assert_eq!(offer, file_offer()?);
    assert_eq!(Seal::decode(&vectors["file-seal"], &offer)?.root(), Hash([0xcd; 32]));
    for name in ["frame-goodbye", "frame-refused", "frame-ask-name", "frame-ask-peer", "frame-answer-empty"] {
        let frame = Frame::decode(&vectors[name][4..]).map_err(|fault| fault.to_string())?;
        assert_eq!(framed(frame)?, vectors[name], "{name}");
    }
    // The signature is the last field of an envelope: a key, a length, 64 bytes.
    let goodbye = &vectors["goodbye"];
    let signature = &goodbye[goodbye.len() - 64..];
    assert!(key(1)?.public().verify(&vectors["goodbye-signed"], signature));
    Ok(())
}

#[test]
fn a_reader_in_another_language_reads_the_card() -> TestResult {
    let scripts = blocks(PROTOCOL, "python");
    let script = scripts.values().next().ok_or("docs/protocol.md has no Python block")?;
    let spawned = Command::new("python3").args(["-c", script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut reader = match spawned {
        Ok(reader) => reader,
        Err(error) => {
            eprintln!("skipped 1: python3 cannot be started here ({error})");
            return Ok(());
        }
    };
    let vectors = vectors()?;
    reader.stdin.take().ok_or("no stdin")?.write_all(hex(&vectors["card"]).as_bytes())?;
    let output = reader.wait_with_output()?;
    assert!(output.status.success(), "the reader failed");
    let read: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let expected = serde_json::json!({
        "peer": hex(&vectors["peer-id"]), "name": "ada", "team": "althing", "role": "peer",
        "addresses": ["04c0000207060fa1"], "boot": 3, "revision": 1, "version": "althing/0.1.0",
    });
    assert_eq!(read["payload"], expected);
    assert_eq!(read["type"], hex(b"/althing/card/1"));
    assert_eq!(read["public_key"], hex(&vectors["public-key"]));
    assert_eq!(read["signed"], hex(&signed_bytes("althing/card/1", &vectors["card-payload"])?));
    Ok(())
}

/// The paths of all Rust files below a folder.
fn sources(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(sources(&path)?);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
    Ok(files)
}

/// Every test of the project, as `file stem::name`.
fn tests() -> std::io::Result<BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut tests = BTreeSet::new();
    for folder in ["src", "behaviours", "tests"] {
        for file in sources(&root.join(folder))? {
            let text = fs::read_to_string(&file)?;
            let module = module_of(&file);
            let mut is_test = false;
            for line in text.lines().map(str::trim) {
                is_test |= line == "#[test]" || line.starts_with("#[tokio::test");
                if let (true, Some((_, rest))) = (is_test, line.split_once("fn ")) {
                    let name: String = rest.chars().take_while(|char| char.is_alphanumeric() || *char == '_').collect();
                    tests.insert(format!("{module}::{name}"));
                    is_test = false;
                }
            }
        }
    }
    Ok(tests)
}

/// What a file's tests go by: the file's name, for `x/tests.rs` and `x/main.rs` the folder's.
fn module_of(file: &Path) -> String {
    let stem = |path: &Path| path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    match (stem(file), file.parent()) {
        (name, Some(folder)) if name == "tests" || name == "main" => stem(folder),
        (name, _) => name,
    }
}

/// The words in backticks that name a test: `a::b`, both in lower case. What stands before a space says where it lies.
fn named_tests(text: &str) -> Vec<&str> {
    let words = text.split('`').skip(1).step_by(2);
    let names = words.map(|word| word.rsplit(' ').next().unwrap_or(word));
    let is_test = |name: &&str| {
        let lower = |part: &str| part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        name.split_once("::").is_some_and(|(module, test)| lower(module) && !test.is_empty() && lower(test))
    };
    names.filter(is_test).collect()
}

#[test]
fn every_test_that_the_documents_name_exists() -> TestResult {
    let tests = tests()?;
    for (document, least, text) in [("acceptance", 50, ACCEPTANCE), ("decisions", 10, DECISIONS)] {
        let named = named_tests(text);
        assert!(named.len() > least, "only {} names were seen in docs/{document}.md", named.len());
        let missing: Vec<&&str> = named.iter().filter(|name| !tests.contains(**name)).collect();
        assert!(missing.is_empty(), "docs/{document}.md names tests that do not exist: {missing:#?}");
    }
    Ok(())
}

#[test]
fn what_the_source_projects_leave_behind_is_not_committed() {
    let ignored: Vec<&str> = include_str!("../.gitignore").lines().collect();
    for name in ["*_test.txt", "received_test.txt", "test.txt", "myfile.txt", "*_stats.json", "*_stats.csv"] {
        assert!(ignored.contains(&name), "{name}");
    }
    assert!(ignored.contains(&"aimd_congestion_stats.json"));
}

#[test]
fn what_is_done_names_a_test() {
    // A bar inside a cell is written `\\|`.
    let table = ACCEPTANCE.replace("\\|", "/");
    for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id ")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [_, id, state, _, shown, _] = cells[..] else { panic!("not four cells: {row}") };
        if state.starts_with("later") {
            continue;
        }
        assert!(["done", "in part", "superseded"].iter().any(|word| state.starts_with(word)), "{id} is {state}");
        assert!(!named_tests(shown).is_empty(), "{id} is {state}, and no test shows it");
    }
}
