use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use direct_message::protocol::{Batch, MAX_BATCH_MESSAGES, Outcome, Receipt, Receipts};
use direct_message::{
    Behaviour, Config, Event, FaultKind, MAX_TEXT_BYTES, Message, MessageId, NotStored, Outgoing, PROTOCOL, Refusal,
    Requeue, Settled, Stored, Token,
};
use futures::StreamExt;
use libp2p::PeerId;
use libp2p::identity::Keypair;
use libp2p::request_response::{self, OutboundFailure, ProtocolSupport};
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p_swarm_test::SwarmExt;
use serde_bytes::ByteBuf;

use crate::common::{self, key, peer};

/// A stranger who sends what he likes.
type Raw = request_response::cbor::Behaviour<Batch, Receipts>;

/// What a stranger learns: receipts, or why there are none.
type Answer = Result<Vec<Receipt>, OutboundFailure>;

/// A message of the present, since the behaviour reads the real clock.
#[expect(clippy::disallowed_methods, reason = "the behaviour under test reads the same clock")]
fn message(from: u8, to: u8, seq: u64, text: &str) -> Message {
    let sent_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    Message { sent_at_ms, expires_at_ms: sent_at_ms + 3_600_000, ..common::message(from, to, seq, text) }
}

/// An application with a disk in memory.
struct Node {
    swarm: Swarm<Behaviour>,
    keypair: Keypair,
    outbox: BTreeMap<u64, Outgoing>,
    history: Vec<Message>,
    settled: Vec<(MessageId, Settled)>,
    requeued: Vec<Requeue>,
    faults: Vec<FaultKind>,
    dials: usize,
    /// While set, what arrives stays in hand.
    holds: bool,
    in_hand: Vec<(Token, Vec<Message>)>,
    disk_full: bool,
}

impl Node {
    async fn new(config: Config) -> Self {
        let mut keypair = None;
        let mut swarm = Swarm::new_ephemeral_tokio(|key| {
            let behaviour = Behaviour::new(key.public().to_peer_id(), config, 1);
            keypair = Some(key);
            behaviour
        });
        swarm.listen().with_memory_addr_external().await;
        Self {
            swarm,
            keypair: keypair.unwrap(),
            outbox: BTreeMap::new(),
            history: Vec::new(),
            settled: Vec::new(),
            requeued: Vec::new(),
            faults: Vec::new(),
            dials: 0,
            holds: false,
            in_hand: Vec::new(),
            disk_full: false,
        }
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn direct(&mut self) -> &mut Behaviour {
        self.swarm.behaviour_mut()
    }

    fn commit(&mut self, to: PeerId, seq: u64, text: &str) -> Outgoing {
        let message = Message { from: self.id(), to, ..message(1, 2, seq, text) };
        let outgoing = Outgoing { id: message.id, seq, envelope: message.sign(&self.keypair).unwrap() };
        self.outbox.insert(seq, outgoing.clone());
        outgoing
    }

    fn write(&mut self, to: PeerId, seq: u64, text: &str) {
        let outgoing = self.commit(to, seq, text);
        self.direct().queued(to, outgoing);
    }

    fn texts(&self) -> Vec<&str> {
        self.history.iter().map(|message| message.text.as_str()).collect()
    }

    fn store(&mut self, token: Token, messages: Vec<Message>) {
        let mut outcomes = Vec::new();
        for message in messages {
            if self.disk_full {
                outcomes.push((message.id, Stored::No(NotStored::TryLater)));
                continue;
            }
            outcomes.push((message.id, Stored::Yes));
            if self.history.last().is_none_or(|last| last.seq < message.seq) {
                self.history.push(message);
            }
        }
        self.direct().stored(token, outcomes).unwrap();
    }

    fn on_event(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Received { token, messages, .. }) => {
                if self.holds {
                    self.in_hand.push((token, messages));
                } else {
                    self.store(token, messages);
                }
            }
            SwarmEvent::Behaviour(Event::Refill { peer, after_seq, limit, max_bytes }) => {
                let waiting = self.outbox.range(after_seq + 1..).map(|(_, message)| message.clone());
                let messages: Vec<_> = waiting.take(limit).collect();
                assert!(messages.iter().map(|message| message.envelope.len()).sum::<usize>() <= max_bytes);
                let last = messages.last().map_or(after_seq, |message| message.seq);
                let more = self.outbox.range(last + 1..).next().is_some();
                self.direct().refilled(peer, messages, more);
            }
            SwarmEvent::Behaviour(Event::Settled { receipts, .. }) => {
                for &(id, _) in &receipts {
                    self.outbox.retain(|_, message| message.id != id);
                }
                self.settled.extend(receipts);
            }
            SwarmEvent::Behaviour(Event::Requeued { reason, .. }) => self.requeued.push(reason),
            SwarmEvent::Behaviour(Event::Fault { kind, .. }) => self.faults.push(kind),
            SwarmEvent::Behaviour(Event::Sent { .. }) => {}
            SwarmEvent::Dialing { .. } => self.dials += 1,
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => self.direct().peer_down(peer_id),
            _ => {}
        }
    }
}

/// Run both until the condition holds.
async fn until(a: &mut Node, b: &mut Node, condition: impl Fn(&Node, &Node) -> bool) {
    let run = async {
        while !condition(a, b) {
            tokio::select! {
                event = a.swarm.select_next_some() => a.on_event(event),
                event = b.swarm.select_next_some() => b.on_event(event),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), run).await.expect("it holds within a minute");
}

async fn link(a: &mut Node, b: &mut Node) {
    a.swarm.connect(&mut b.swarm).await;
    let (id_a, id_b) = (a.id(), b.id());
    a.direct().peer_up(id_b);
    b.direct().peer_up(id_a);
}

async fn pair() -> (Node, Node) {
    let (mut a, mut b) = (Node::new(Config::default()).await, Node::new(Config::default()).await);
    link(&mut a, &mut b).await;
    (a, b)
}

/// The receiver's view and the stranger's answer.
async fn answer_to(stranger: &mut Swarm<Raw>, node: &mut Node, batch: Batch) -> Answer {
    stranger.behaviour_mut().send_request(&node.id(), batch);
    let run = async {
        loop {
            tokio::select! {
                event = stranger.select_next_some() => match event {
                    SwarmEvent::Behaviour(request_response::Event::Message {
                        message: request_response::Message::Response { response, .. }, ..
                    }) => return Ok(response.receipts),
                    SwarmEvent::Behaviour(request_response::Event::OutboundFailure { error, .. }) => return Err(error),
                    _ => {}
                },
                event = node.swarm.select_next_some() => node.on_event(event),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("an answer or a failure")
}

/// A node, and a stranger with a link to it.
async fn stranger() -> (Swarm<Raw>, Keypair, Node) {
    let mut keypair = None;
    let mut stranger = Swarm::new_ephemeral_tokio(|key| {
        keypair = Some(key);
        Raw::new([(PROTOCOL, ProtocolSupport::Full)], request_response::Config::default())
    });
    let mut node = Node::new(Config::default()).await;
    stranger.connect(&mut node.swarm).await;
    (stranger, keypair.unwrap(), node)
}

fn batch(envelopes: impl IntoIterator<Item = Vec<u8>>) -> Batch {
    Batch { messages: envelopes.into_iter().map(ByteBuf::from).collect() }
}

#[tokio::test]
async fn messages_both_ways_are_settled_when_they_are_on_disk() {
    let (mut a, mut b) = pair().await;
    let (id_a, id_b) = (a.id(), b.id());
    let long = "x".repeat(MAX_TEXT_BYTES);
    a.write(id_b, 1, "hello");
    a.write(id_b, 2, &long);
    b.write(id_a, 1, "hi\u{1b}[2J");
    until(&mut a, &mut b, |a, b| a.settled.len() == 2 && b.settled.len() == 1).await;
    assert!(b.texts() == ["hello", &long]);
    assert_eq!(a.texts(), ["hi\u{1b}[2J"], "texts arrive unchanged");
    assert!(a.settled.iter().chain(&b.settled).all(|(_, end)| *end == Settled::Delivered));
    assert!(a.faults.is_empty() && b.faults.is_empty() && a.requeued.is_empty());
}

#[tokio::test]
async fn a_full_disk_gives_no_receipt_and_the_message_comes_again() {
    let (mut a, mut b) = pair().await;
    b.disk_full = true;
    let id_b = b.id();
    a.write(id_b, 1, "hello");
    until(&mut a, &mut b, |a, _| a.requeued.len() == 2).await;
    assert_eq!(a.requeued, [Requeue::Busy, Requeue::Busy]);
    assert!(a.settled.is_empty());
    b.disk_full = false;
    until(&mut a, &mut b, |a, _| a.settled.len() == 1).await;
    assert_eq!(b.texts(), ["hello"]);
}

#[tokio::test]
async fn a_peer_that_goes_in_the_middle_of_a_batch_gets_it_again_and_shows_it_once() {
    let (mut a, mut b) = pair().await;
    let (id_a, id_b) = (a.id(), b.id());
    b.holds = true;
    for seq in 1..=5 {
        a.write(id_b, seq, &format!("line {seq}"));
    }
    until(&mut a, &mut b, |_, b| !b.in_hand.is_empty()).await;
    b.swarm.disconnect_peer_id(id_a).unwrap();
    until(&mut a, &mut b, |a, b| !a.requeued.is_empty() && !b.swarm.is_connected(&id_a)).await;
    assert!(a.settled.is_empty());
    // What was in hand is stored after the link is gone; its receipt reaches nobody.
    b.holds = false;
    for (token, messages) in std::mem::take(&mut b.in_hand) {
        b.store(token, messages);
    }
    a.write(id_b, 6, "line 6");
    link(&mut a, &mut b).await;
    until(&mut a, &mut b, |a, _| a.settled.len() == 6).await;
    assert_eq!(b.texts(), ["line 1", "line 2", "line 3", "line 4", "line 5", "line 6"]);
    assert!(b.faults.is_empty());
}

#[tokio::test]
async fn ten_thousand_messages_drain_in_order() {
    let (mut a, mut b) = pair().await;
    let id_b = b.id();
    for seq in 1..=10_000 {
        a.commit(id_b, seq, "one of many");
    }
    a.direct().pending(id_b);
    until(&mut a, &mut b, |a, _| a.settled.len() == 10_000).await;
    assert!(b.history.iter().map(|message| message.seq).eq(1..=10_000));
    assert!(a.outbox.is_empty() && a.faults.is_empty() && b.faults.is_empty());
    assert!(a.requeued.iter().all(|reason| *reason == Requeue::Busy), "only the rate slows them down");
}

#[tokio::test]
async fn it_never_dials() {
    let (mut a, mut b) = (Node::new(Config::default()).await, Node::new(Config::default()).await);
    let id_b = b.id();
    // The swarm could dial, had it been asked to.
    let address = b.swarm.external_addresses().next().cloned().unwrap();
    a.swarm.add_peer_address(id_b, address);
    a.direct().peer_up(id_b);
    a.write(id_b, 1, "hello");
    until(&mut a, &mut b, |a, _| a.requeued.len() == 2).await;
    assert_eq!(a.requeued[0].to_string(), "not-connected");
    assert_eq!(a.dials, 0);
    link(&mut a, &mut b).await;
    until(&mut a, &mut b, |a, _| a.settled.len() == 1).await;
}

#[tokio::test]
async fn a_peer_that_does_not_speak_the_protocol_is_tried_again_later() {
    let mut other = Swarm::new_ephemeral_tokio(|_| libp2p::swarm::dummy::Behaviour);
    other.listen().with_memory_addr_external().await;
    let mut a = Node::new(Config::default()).await;
    let id = *other.local_peer_id();
    a.swarm.connect(&mut other).await;
    a.direct().peer_up(id);
    a.write(id, 1, "hello");
    let run = async {
        while a.requeued.len() < 2 {
            tokio::select! {
                event = a.swarm.select_next_some() => a.on_event(event),
                _ = other.select_next_some() => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), run).await.unwrap();
    assert_eq!(a.requeued[0].to_string(), "unsupported");
}

#[tokio::test]
async fn a_silent_receiver_is_given_up_after_the_timeout() {
    let config = Config { request_timeout: Duration::from_millis(200), ..Config::default() };
    let (mut a, mut b) = (Node::new(config.clone()).await, Node::new(config).await);
    link(&mut a, &mut b).await;
    b.holds = true;
    let id_b = b.id();
    a.write(id_b, 1, "hello");
    until(&mut a, &mut b, |a, _| !a.requeued.is_empty()).await;
    assert_eq!(a.requeued[0].to_string(), "timeout");
    b.holds = false;
    for (token, messages) in std::mem::take(&mut b.in_hand) {
        b.store(token, messages);
    }
    until(&mut a, &mut b, |a, _| a.settled.len() == 1).await;
    assert_eq!(b.texts(), ["hello"]);
}

#[tokio::test]
async fn oversize_and_unreadable_requests_get_no_answer_and_leave_the_node_as_it_was() {
    let (mut stranger, keypair, mut node) = stranger().await;
    let many = batch(vec![vec![0; 16]; MAX_BATCH_MESSAGES + 1]);
    assert!(answer_to(&mut stranger, &mut node, many).await.is_err());
    assert_eq!(node.faults, [FaultKind::OversizeBatch]);
    // Above the frame: the codec cuts it off before anybody sees it.
    assert!(answer_to(&mut stranger, &mut node, batch(vec![vec![0; 600_000]])).await.is_err());
    assert!(answer_to(&mut stranger, &mut node, batch([])).await.is_err());
    assert_eq!(node.faults[1..], [FaultKind::EmptyBatch]);
    assert!(answer_to(&mut stranger, &mut node, batch([b"junk".to_vec()])).await.is_err());
    assert_eq!(node.faults[2..], [FaultKind::BadMessage(Refusal::Malformed)]);

    let good = Message { from: keypair.public().to_peer_id(), to: node.id(), ..message(1, 2, 1, "hello") };
    let receipts = answer_to(&mut stranger, &mut node, batch([good.sign(&keypair).unwrap()])).await.unwrap();
    assert_eq!(receipts, [Receipt { id: good.id, outcome: Outcome::Stored }]);
    assert_eq!(node.texts(), ["hello"]);
}

#[tokio::test]
async fn a_forged_author_and_a_wrong_address_are_refused() {
    let (mut stranger, keypair, mut node) = stranger().await;
    let me = keypair.public().to_peer_id();
    // Somebody else's message, handed on as it was signed.
    let stolen = Message { to: node.id(), ..message(1, 2, 1, "stolen") };
    // Another's name with the own signature cannot even be made; the key in the envelope says who signed.
    assert!(Message { from: peer(1), ..stolen.clone() }.sign(&keypair).is_err());
    let astray = Message { from: me, to: peer(3), ..message(1, 2, 2, "astray") };
    let good = Message { from: me, to: node.id(), ..message(1, 2, 3, "good") };
    let envelopes = [stolen.sign(&key(1)).unwrap(), astray.sign(&keypair).unwrap(), good.sign(&keypair).unwrap()];
    let receipts = answer_to(&mut stranger, &mut node, batch(envelopes)).await.unwrap();
    let outcomes: Vec<_> = receipts.iter().map(|receipt| (receipt.id, receipt.outcome)).collect();
    let expected = [
        (stolen.id, Outcome::Refused(Refusal::Author)),
        (astray.id, Outcome::Refused(Refusal::Receiver)),
        (good.id, Outcome::Stored),
    ];
    assert_eq!(outcomes, expected);
    assert_eq!(node.texts(), ["good"]);
    let faults = [Refusal::Author, Refusal::Receiver].map(FaultKind::BadMessage);
    assert_eq!(node.faults, faults);
}
