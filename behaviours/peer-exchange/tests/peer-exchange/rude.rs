use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{AsyncWriteExt as _, FutureExt as _};
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, transport::PortUse};
use libp2p::identity::Keypair;
use libp2p::swarm::handler::{ConnectionEvent, FullyNegotiatedOutbound};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour, Stream,
    SubstreamProtocol, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use libp2p_swarm_test::SwarmExt as _;
use peer_exchange::protocol::{Frame, Refusal};
use peer_exchange::{Config, Event, FaultKind, Goodbye, MAX_FRAME_BYTES, PROTOCOL, Subject};

use crate::swarms::{Node, run, sign, swarm};

/// Writes the same bytes on each of its substreams and reads nothing.
struct Rude {
    streams: usize,
    bytes: Vec<u8>,
}

struct RudeHandler {
    wanted: usize,
    bytes: Vec<u8>,
    writing: VecDeque<BoxFuture<'static, Stream>>,
    kept: Vec<Stream>,
}

impl ConnectionHandler for RudeHandler {
    type FromBehaviour = ();
    type ToBehaviour = ();
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        if self.wanted > 0 {
            self.wanted -= 1;
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        let writing = std::mem::take(&mut self.writing);
        for mut one in writing {
            match one.poll_unpin(cx) {
                Poll::Ready(stream) => self.kept.push(stream),
                Poll::Pending => self.writing.push_back(one),
            }
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, (): ()) {}

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: mut stream, .. }) => {
                let bytes = self.bytes.clone();
                let writing = async move {
                    let _ = stream.write_all(&bytes).await;
                    let _ = stream.flush().await;
                    stream
                };
                self.writing.push_back(writing.boxed());
            }
            ConnectionEvent::FullyNegotiatedInbound(inbound) => self.kept.push(inbound.protocol),
            _ => {}
        }
    }
}

impl NetworkBehaviour for Rude {
    type ConnectionHandler = RudeHandler;
    type ToSwarm = ();

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<RudeHandler, ConnectionDenied> {
        Ok(RudeHandler { wanted: self.streams, bytes: self.bytes.clone(), writing: VecDeque::new(), kept: Vec::new() })
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        address: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<RudeHandler, ConnectionDenied> {
        self.handle_established_inbound_connection(id, peer, address, address)
    }

    fn on_swarm_event(&mut self, _: FromSwarm) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, (): ()) {}

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<(), ()>> {
        Poll::Pending
    }
}

fn framed(frame: Frame) -> Vec<u8> {
    let body = frame.encode();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

fn hello(key: &Keypair) -> Vec<u8> {
    framed(Frame::Hello { card: sign(key, "rude", 1, 0).bytes().to_vec() })
}

/// A node dials one that says these bytes on so many substreams, until it has reported what is awaited.
async fn meet(key: Keypair, streams: usize, bytes: Vec<u8>, until: impl Fn(&Node) -> bool) -> (Node, PeerId) {
    let config = Config { hello_timeout: Duration::from_millis(300), ..Config::default() };
    let mut node = Node::with("alice", config).await;
    let mut rude = swarm(&key, Rude { streams, bytes });
    let (address, _) = rude.listen().with_memory_addr_external().await;
    let peer = *rude.local_peer_id();
    tokio::spawn(rude.loop_on_next());
    node.swarm.dial(address).unwrap();
    run(&mut [&mut node], |nodes| until(nodes[0])).await;
    (node, peer)
}

/// It costs the rude one its connection and a fault of that kind, and it was never up.
async fn costs_the_connection(key: Keypair, bytes: Vec<u8>, kind: FaultKind) {
    let over = |node: &Node| !node.events.is_empty() && node.swarm.behaviour().links() == 0;
    let (node, peer) = meet(key, 1, bytes, over).await;
    assert_eq!(node.events, [Event::Fault { peer, kind }]);
}

fn key() -> Keypair {
    Keypair::generate_ed25519()
}

#[tokio::test]
async fn silence() {
    costs_the_connection(key(), Vec::new(), FaultKind::NoHello).await;
    costs_the_connection(key(), vec![0, 0], FaultKind::NoHello).await;
}

#[tokio::test]
async fn what_is_no_frame() {
    costs_the_connection(key(), b"\0\0\0\x04spam".to_vec(), FaultKind::MalformedFrame).await;
    costs_the_connection(key(), b"\0\0\0\0".to_vec(), FaultKind::MalformedFrame).await;
    // One byte more than allowed, and four gigabytes.
    let length = (MAX_FRAME_BYTES as u32 + 1).to_be_bytes().to_vec();
    costs_the_connection(key(), length, FaultKind::OversizedFrame).await;
    costs_the_connection(key(), vec![255; 4], FaultKind::OversizedFrame).await;
    // A frame with something behind it.
    let key = key();
    let mut body = Frame::Hello { card: sign(&key, "rude", 1, 0).bytes().to_vec() }.encode();
    body.push(0);
    let bytes = [&(body.len() as u32).to_be_bytes()[..], &body].concat();
    costs_the_connection(key, bytes, FaultKind::MalformedFrame).await;
}

#[tokio::test]
async fn the_wrong_thing_first() {
    let ask = Frame::Ask { id: 1, query: [0; 16], subject: Subject::Name("bob".into()), hops: 0 };
    costs_the_connection(key(), framed(ask), FaultKind::MalformedFrame).await;
    let key = key();
    let proof = Goodbye::sign(&key, 1, 0).unwrap().bytes().to_vec();
    costs_the_connection(key, framed(Frame::Goodbye { proof }), FaultKind::MalformedFrame).await;
    let refused = Frame::Refused { reason: Refusal::StaleBoot, boot: 9 };
    costs_the_connection(self::key(), framed(refused), FaultKind::MalformedFrame).await;
}

#[tokio::test]
async fn cards_that_are_not_its_own_or_not_sound() {
    costs_the_connection(key(), hello(&key()), FaultKind::WrongPeer).await;
    let key = key();
    let mut forged = hello(&key);
    *forged.last_mut().unwrap() ^= 1;
    costs_the_connection(key, forged, FaultKind::InvalidCard).await;
}

#[tokio::test]
async fn goodbyes_that_are_not_its_own_or_not_sound() {
    let foreign = Goodbye::sign(&key(), 1, 0).unwrap().bytes().to_vec();
    for (proof, kind) in [(foreign, FaultKind::WrongPeer), (vec![1, 2, 3], FaultKind::InvalidGoodbye)] {
        let key = key();
        let bytes = [hello(&key), framed(Frame::Goodbye { proof })].concat();
        let lost = |node: &Node| node.count(|event| matches!(event, Event::Lost { .. })) == 1;
        let (node, peer) = meet(key, 1, bytes, lost).await;
        assert!(node.events.contains(&Event::Fault { peer, kind }), "{:?}", node.events);
        assert_eq!(node.count(|event| matches!(event, Event::Left { .. })), 0);
    }
}

#[tokio::test]
async fn a_flood_of_questions_costs_no_link() {
    let key = key();
    let asks = (0..30u8)
        .map(|i| framed(Frame::Ask { id: i.into(), query: [i; 16], subject: Subject::Name("bob".into()), hops: 0 }));
    let bytes = std::iter::once(hello(&key)).chain(asks).collect::<Vec<_>>().concat();
    let flood = |event: &Event| matches!(event, Event::Fault { kind: FaultKind::Flood, .. });
    let (node, peer) = meet(key, 1, bytes, move |node| node.count(flood) == 1).await;
    assert!(node.swarm.behaviour().is_up(&peer));
    assert_eq!(node.count(|event| matches!(event, Event::Asked { .. })), Config::default().ask_burst as usize);
}

#[tokio::test]
async fn an_answer_to_nothing() {
    let key = key();
    let bytes = [hello(&key), framed(Frame::Answer { id: 1, cards: Vec::new() })].concat();
    let unasked = |event: &Event| matches!(event, Event::Fault { kind: FaultKind::UnaskedAnswer, .. });
    let (node, peer) = meet(key, 1, bytes, move |node| node.count(unasked) == 1).await;
    assert!(node.swarm.behaviour().is_up(&peer));
}

#[tokio::test]
async fn a_second_substream_is_dropped() {
    let key = key();
    let bytes = hello(&key);
    let second = |event: &Event| matches!(event, Event::Fault { kind: FaultKind::SecondStream, .. });
    let (node, peer) = meet(key, 2, bytes, move |node| node.count(second) == 1 && node.events.len() >= 2).await;
    assert!(node.swarm.behaviour().is_up(&peer));
    assert_eq!(node.count(|event| matches!(event, Event::Up { .. })), 1);
}
