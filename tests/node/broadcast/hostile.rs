//! Neighbours that lie and flood. They are swarms of the test itself: a node would not do such things.

#![expect(clippy::expect_used, reason = "helpers of tests may panic like tests")]

use std::io::Result;
use std::time::{Duration, Instant};

use althing::frontend::child::Child;
use broadcast::envelope::{DOMAIN, PAYLOAD_TYPE};
use broadcast::protocol::{MAX_FRAME_BYTES, TOPIC};
use broadcast::{Envelope, Kind};
use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::core::SignedEnvelope;
use libp2p::gossipsub::{self, IdentTopic, MessageAcceptance, MessageAuthenticity, ValidationMode};
use libp2p::identity::Keypair;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, SwarmBuilder, noise, tcp, yamux};
use peer_exchange::{Card, Role, SignedCard};
use tokio::sync::mpsc;

use super::everybody_heard;
use crate::harness::{Net, TestResult, text};

type Outcome<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// A neighbour that says hello like everybody and is on the topic. What it hears it hands on only when it is told to.
#[derive(NetworkBehaviour)]
struct Neighbour {
    peer_exchange: peer_exchange::Behaviour,
    gossip: gossipsub::Behaviour,
    raw: request_response::Behaviour<Raw>,
}

/// Writes what it likes on a stream of gossipsub's, past all that gossipsub would not do.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = ();

    async fn read_request<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, _: &mut T) -> Result<Vec<u8>> {
        Err(std::io::ErrorKind::Unsupported.into())
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(&mut self, _: &StreamProtocol, io: &mut T) -> Result<()> {
        io.read_to_end(&mut Vec::new()).await.map(|_| ())
    }

    async fn write_request<T>(&mut self, _: &StreamProtocol, io: &mut T, bytes: Vec<u8>) -> Result<()>
    where
        T: AsyncWrite + Unpin + Send,
    {
        io.write_all(&bytes).await
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: (),
    ) -> Result<()> {
        Ok(())
    }
}

/// What the test has it do.
enum Order {
    /// Say these bytes to every neighbour.
    Say(Vec<u8>),
    /// Hand on what it has heard.
    HandOn(gossipsub::MessageId, PeerId),
    /// Say a mixture of lies and own messages from now on, as fast as the links take it.
    Flood,
    /// Throw this at that peer, on a stream of gossipsub's.
    Throw(PeerId, Vec<u8>),
}

/// A broadcast that has come in and was not handed on.
struct Withheld {
    id: gossipsub::MessageId,
    from: PeerId,
    bytes: Vec<u8>,
}

/// The ends of the test; the swarm runs until they are dropped.
struct Liar {
    orders: mpsc::Sender<Order>,
    withheld: mpsc::Receiver<Withheld>,
}

impl Liar {
    /// Linked with these addresses.
    fn start(addresses: &[&str]) -> Outcome<Self> {
        let key = key();
        let card = Card {
            peer: key.public().to_peer_id(),
            name: "liar".to_owned(),
            team: "althing".to_owned(),
            role: Role::Peer,
            addresses: Vec::new(),
            boot: 1,
            revision: 1,
            version: "liar/1".to_owned(),
        };
        let card = SignedCard::sign(&key, card)?;
        let config = gossipsub::ConfigBuilder::default()
            .validation_mode(ValidationMode::Anonymous)
            .validate_messages()
            .max_transmit_size(MAX_FRAME_BYTES)
            .message_id_fn(|message| gossipsub::MessageId::new(&broadcast::envelope::hash(&message.data)))
            .build()?;
        let mut gossip = gossipsub::Behaviour::new(MessageAuthenticity::Anonymous, config)?;
        gossip.subscribe(&IdentTopic::new(TOPIC))?;
        let raw = request_response::Behaviour::new(
            [(StreamProtocol::new("/meshsub/1.1.0"), ProtocolSupport::Outbound)],
            request_response::Config::default(),
        );
        let peer_exchange = peer_exchange::Behaviour::new(card, peer_exchange::Config::default(), 1);
        let mut swarm = SwarmBuilder::with_existing_identity(key)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|_| Neighbour { peer_exchange, gossip, raw })?
            .build();
        for address in addresses {
            swarm.dial(address.parse::<Multiaddr>()?)?;
        }
        let (orders, next_order) = mpsc::channel(1_024);
        let (withhold, withheld) = mpsc::channel(1_024);
        tokio::spawn(live(swarm, next_order, withhold));
        Ok(Self { orders, withheld })
    }

    async fn order(&self, order: Order) -> TestResult {
        Ok(self.orders.send(order).await.map_err(|_| "the liar has ended")?)
    }

    async fn withheld(&mut self) -> Outcome<Withheld> {
        let next = tokio::time::timeout(Duration::from_secs(20), self.withheld.recv()).await;
        Ok(next.map_err(|_| "the liar heard nothing")?.ok_or("the liar has ended")?)
    }
}

async fn live(mut swarm: Swarm<Neighbour>, mut orders: mpsc::Receiver<Order>, withhold: mpsc::Sender<Withheld>) {
    let mut flood = None;
    loop {
        // While it floods the links are never idle: it fills their queues and then lets the swarm drain them.
        if let Some(sequence) = &mut flood {
            for _ in 0..64 {
                let bytes = flooding(*sequence);
                if swarm.behaviour_mut().gossip.publish(IdentTopic::new(TOPIC), bytes).is_err() {
                    break;
                }
                *sequence += 1;
            }
        }
        let pause = if flood.is_some() { Duration::from_millis(5) } else { Duration::from_secs(3_600) };
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Flood) => flood = Some(1),
                Some(Order::Throw(at, bytes)) => drop(swarm.behaviour_mut().raw.send_request(&at, bytes)),
                Some(Order::Say(bytes)) => {
                    // A duplicate is none of the test's; anything else would be seen as something that never arrives.
                    let _ = swarm.behaviour_mut().gossip.publish(IdentTopic::new(TOPIC), bytes);
                }
                Some(Order::HandOn(id, from)) => {
                    let gossip = &mut swarm.behaviour_mut().gossip;
                    gossip.report_message_validation_result(&id, &from, MessageAcceptance::Accept);
                }
            },
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(NeighbourEvent::Gossip(gossipsub::Event::Message {
                    propagation_source, message_id, message,
                })) = event {
                    let heard = Withheld { id: message_id, from: propagation_source, bytes: message.data };
                    // Nobody reads them while it floods.
                    let _ = withhold.try_send(heard);
                }
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn key() -> Keypair {
    Keypair::ed25519_from_bytes([0x66; 32]).expect("32 bytes are a key")
}

fn envelope(sequence: u64, words: &str) -> Envelope {
    Envelope {
        author: key().public().to_peer_id(),
        epoch: 1,
        sequence,
        sent_at_ms: 1_767_225_600_000,
        name: "liar".to_owned(),
        team: "althing".to_owned(),
        kind: Kind::Text,
        text: words.to_owned(),
    }
}

/// One part of the flood: an own message, one that is not signed, or no message at all, each a third.
fn flooding(number: u64) -> Vec<u8> {
    let mut bytes = envelope(number / 3 + 1, &format!("flood {number}")).sign(&key()).expect("within bounds");
    match number % 3 {
        0 => {}
        1 => change_last(&mut bytes),
        _ => bytes = format!("no envelope {number}").into_bytes(),
    }
    bytes
}

/// Frames of gossipsub with 400 messages each that are none; it takes 500 in one. To judge one costs so little that even a node that gets
/// little of its processor is given more than 1,000 a second.
fn landslide(frames: u32) -> Vec<u8> {
    let field = |tag: u8, bytes: &[u8]| {
        let length = u8::try_from(bytes.len()).expect("shorter than a varint of one byte");
        [&[tag, length], bytes].concat()
    };
    let mut bytes = Vec::new();
    for frame in 0..frames {
        let message = |number: u32| {
            let data = (frame * 400 + number).to_be_bytes();
            field(0x12, &[field(0x12, &data), field(0x22, TOPIC.as_bytes())].concat())
        };
        let body: Vec<u8> = (0..400).flat_map(message).collect();
        // A varint of two bytes, which must not be longer than its number needs.
        assert!((128..16_384).contains(&body.len()), "{} bytes", body.len());
        bytes.extend([(body.len() & 0x7f) as u8 | 0x80, (body.len() >> 7) as u8]);
        bytes.extend(body);
    }
    bytes
}

/// A bit of the signature, which is the last field.
fn change_last(bytes: &mut [u8]) {
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
}

/// Copies of a true broadcast that are none: three with a signature that does not match, two that are no envelopes.
fn forgeries(truth: &[u8]) -> Outcome<[Vec<u8>; 5]> {
    let mut other_words = truth.to_vec();
    let at = truth.windows(4).position(|window| window == b"true").ok_or("no true words")?;
    other_words[at..at + 4].copy_from_slice(b"fake");
    let mut other_signature = truth.to_vec();
    change_last(&mut other_signature);
    // The liar signs the true payload and puts the author's key where its own stood (behind two bytes of head).
    let envelope = SignedEnvelope::from_protobuf_encoding(truth)?;
    let (payload, author) = envelope.payload_and_signing_key(DOMAIN.to_owned(), PAYLOAD_TYPE)?;
    let (payload, author) = (payload.to_vec(), author.encode_protobuf());
    let mut other_signer =
        SignedEnvelope::new(&key(), DOMAIN.to_owned(), PAYLOAD_TYPE.to_vec(), payload)?.into_protobuf_encoding();
    other_signer[2..2 + author.len()].copy_from_slice(&author);
    // What RFC 0002 would let pass, and what is cut off.
    let longer = [truth, &[0x30, 0x01]].concat();
    let shorter = truth[..truth.len() - 1].to_vec();
    Ok([other_words, other_signature, other_signer, longer, shorter])
}

/// How often a node has counted that fault.
async fn faults(node: &mut Child, kind: &str) -> Outcome<u64> {
    let status = node.ask("status").await?;
    let found = status["faults"].as_array().into_iter().flatten().find(|fault| fault[0] == kind);
    Ok(found.and_then(|fault| fault[1].as_u64()).unwrap_or(0))
}

/// Wait until a node has counted that fault so often.
async fn wait_for_faults(node: &mut Child, kind: &str, count: u64) -> TestResult {
    let mut counted = 0;
    for _ in 0..200 {
        counted = faults(node, kind).await?;
        if counted >= count {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{} counted {counted} x {kind}, not {count}", node.name).into())
}

#[tokio::test]
async fn forged_copies_before_the_true_one_do_not_keep_it_away() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer("bob", &[])?;
    // Whatever Ada and Bob tell each other passes through the liar's hands.
    let mut liar = Liar::start(&[&ada.address().await?, &bob.address().await?])?;
    ada.wait("peer_up", |event| text(event, "name") == "liar").await?;
    bob.wait("peer_up", |event| text(event, "name") == "liar").await?;
    let said = vec!["true words".to_owned()];
    ada.ask("broadcast true words").await?;
    let truth = liar.withheld().await?;
    for forgery in forgeries(&truth.bytes)? {
        liar.order(Order::Say(forgery)).await?;
    }
    // Bob has looked at all of them before the true one sets out.
    wait_for_faults(&mut bob, "bad-signature", 3).await?;
    wait_for_faults(&mut bob, "malformed", 2).await?;
    liar.order(Order::HandOn(truth.id, truth.from)).await?;
    bob.wait("message", |event| text(event, "text") == "true words").await?;
    let heard: Vec<String> = bob.events_since(0).iter().filter(|event| event["type"] == "message").map(words).collect();
    assert_eq!(heard, said, "nothing else, and nothing twice");
    let history = bob.ask("history all -n 100").await?;
    assert_eq!(history.as_array().into_iter().flatten().map(words).collect::<Vec<_>>(), said);
    assert_eq!((faults(&mut bob, "bad-signature").await?, faults(&mut bob, "malformed").await?), (3, 2));

    // Who goes on like that is sent away, by the author too, which was shown the same forgeries of its own words.
    for number in [1, 4, 7, 10, 13] {
        liar.order(Order::Say(flooding(number))).await?;
    }
    for node in [&mut ada, &mut bob] {
        node.wait("error", |event| event["code"] == "refused").await?;
        node.wait("peer_lost", |event| text(event, "name") == "liar").await?;
    }
    let why = bob.ask("why liar").await?;
    assert!(why["faults"].as_f64() > Some(90.0) && why["refused_until"].is_string(), "{why}");
    let history = ada.ask("history all -n 100").await?;
    assert_eq!(history.as_array().into_iter().flatten().map(words).collect::<Vec<_>>(), said);
    Ok(())
}

#[tokio::test]
async fn during_a_neighbours_flood_everything_honest_arrives() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let bob = net.peer("bob", &[])?;
    let to_bob = bob.address().await?;
    let ada = net.peer("ada", &["--peer", &to_bob])?;
    let cleo = net.peer("cleo", &["--peer", &to_bob])?;
    ada.wait("peer_up", |event| text(event, "name") == "bob").await?;
    cleo.wait("peer_up", |event| text(event, "name") == "bob").await?;
    let liar = Liar::start(&[&to_bob])?;
    bob.wait("peer_up", |event| text(event, "name") == "liar").await?;
    let mut nodes = [ada, bob, cleo];

    let began = Instant::now();
    let bobs = nodes[1].peer_id().await?.parse()?;
    liar.order(Order::Throw(bobs, landslide(50))).await?;
    liar.order(Order::Flood).await?;
    let mut said = vec![Vec::new(); nodes.len()];
    for number in 0..50 {
        for (node, said) in nodes.iter_mut().zip(&mut said) {
            let words = format!("{number} by {}", node.name);
            node.tell(&format!("broadcast {words}")).await?;
            said.push(words);
        }
    }
    everybody_heard(&nodes, &said, Duration::from_secs(60)).await?;
    nodes[0].deliver("bob", "a letter during the flood").await?;
    let took = began.elapsed();
    // It was sent away for it.
    nodes[1].wait("error", |event| event["code"] == "refused").await?;
    drop(liar);

    assert!(faults(&mut nodes[1], "malformed").await? > 0);
    // No more is taken than the burst of 2,000 and then 1,000 a second, of which a third at most was signed.
    let from_liar = key().public().to_peer_id().to_base58();
    let taken = nodes[1].events_since(0).iter().filter(|event| text(event, "from") == from_liar).count();
    assert!(taken as u64 <= (2_000 + 1_000 * (took.as_secs() + 2)) / 3, "{taken} taken in {} s", took.as_secs());
    for node in &mut nodes {
        assert_eq!(node.ask("status").await?["panics"], 0, "{}", node.name);
    }
    // The lies stayed with Bob.
    for place in [0, 2] {
        assert_eq!(faults(&mut nodes[place], "bad-signature").await?, 0, "{}", nodes[place].name);
        assert_eq!(faults(&mut nodes[place], "malformed").await?, 0, "{}", nodes[place].name);
    }
    Ok(())
}

fn words(row: &serde_json::Value) -> String {
    text(row, "text").to_owned()
}
