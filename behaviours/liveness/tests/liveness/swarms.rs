use std::collections::BTreeMap;
use std::time::Duration;

use futures::StreamExt;
use libp2p::PeerId;
use libp2p::request_response::{self, ProtocolSupport};
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p_swarm_test::SwarmExt;
use liveness::protocol::{Codec, Request, Response};
use liveness::{Behaviour, Config, Event, FaultKind, PROTOCOL, Role, State};

use crate::cast::key;

/// A host: it tells links, and dials whom it is asked to.
struct Node {
    swarm: Swarm<Behaviour>,
    events: Vec<Event>,
    is_seed: BTreeMap<PeerId, bool>,
}

fn config() -> Config {
    Config { interval: Duration::from_millis(300), ..Config::default() }
}

impl Node {
    async fn new(number: usize, role: Role) -> Self {
        let mut swarm =
            Swarm::new_ephemeral_tokio(|key| Behaviour::new(key, role, 1, config(), number as u64).unwrap());
        swarm.listen().with_memory_addr_external().await;
        Self { swarm, events: Vec::new(), is_seed: BTreeMap::new() }
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn state(&self, of: PeerId) -> Option<State> {
        self.swarm.behaviour().status(&of).map(|status| status.state)
    }

    fn has(&self, wanted: impl Fn(&Event) -> bool) -> bool {
        self.events.iter().any(wanted)
    }

    fn on_event(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Dial(peer)) => {
                // Nobody knows an address for it.
                self.swarm.behaviour_mut().dial_failed(peer);
            }
            SwarmEvent::Behaviour(event) => self.events.push(event),
            SwarmEvent::ConnectionEstablished { peer_id, .. } => {
                let is_seed = self.is_seed.get(&peer_id).copied().unwrap_or(false);
                self.swarm.behaviour_mut().peer_up(peer_id, 1, is_seed);
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.swarm.behaviour_mut().peer_lost(peer_id);
            }
            _ => {}
        }
    }
}

/// Run all of them until the condition holds. Who is not among them is frozen.
async fn until(nodes: &mut [&mut Node], condition: impl Fn(&[&mut Node]) -> bool) {
    let run = async {
        while !condition(nodes) {
            let next = futures::future::select_all(nodes.iter_mut().map(|node| node.swarm.next()));
            let (event, index, _) = next.await;
            nodes[index].on_event(event.unwrap());
        }
    };
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("it holds within half a minute");
}

/// Link two of them; the hosts learn of it when they run.
fn dial(a: &mut Node, b: &Node) {
    a.swarm.dial(b.swarm.external_addresses().next().unwrap().clone()).unwrap();
}

#[tokio::test]
async fn neighbours_answer_each_other() {
    let (mut a, mut b) = (Node::new(1, Role::Peer).await, Node::new(2, Role::Peer).await);
    let (id_a, id_b) = (a.id(), b.id());
    dial(&mut a, &b);
    let measured = |node: &Node, of| node.has(|event| matches!(event, Event::Offset { peer, .. } if *peer == of));
    until(&mut [&mut a, &mut b], |nodes| measured(nodes[0], id_b) && measured(nodes[1], id_a)).await;
    let status = a.swarm.behaviour().status(&id_b).unwrap();
    assert!(status.linked && status.rtt.is_some() && status.state == State::Alive);
    assert!(status.offset_ms.unwrap().abs() < 10_000, "one clock");
}

#[tokio::test]
async fn a_silent_one_is_found_dead_and_lives_again() {
    let (mut a, mut b) = (Node::new(1, Role::Peer).await, Node::new(2, Role::Peer).await);
    let id_b = b.id();
    dial(&mut a, &b);
    until(&mut [&mut a, &mut b], |nodes| nodes[0].has(|event| matches!(event, Event::Offset { .. }))).await;
    // b does not run, but its link stands.
    until(&mut [&mut a], |nodes| nodes[0].state(id_b) == Some(State::Dead)).await;
    let position = |wanted: fn(&Event) -> bool| a.events.iter().position(wanted).unwrap();
    assert!(position(|event| matches!(event, Event::Suspect { .. })) < position(|e| matches!(e, Event::Dead { .. })));
    // What it finds unread when it runs again it answers, and then it asks by itself.
    until(&mut [&mut a, &mut b], |nodes| nodes[0].state(id_b) == Some(State::Alive)).await;
}

#[tokio::test]
async fn a_helper_keeps_alive_who_is_out_of_reach() {
    let (mut a, mut b, mut c) =
        (Node::new(1, Role::Peer).await, Node::new(2, Role::Peer).await, Node::new(3, Role::Peer).await);
    let id_b = b.id();
    for (from, to) in [(&mut a, &c), (&mut b, &c)] {
        dial(from, to);
    }
    // No link between a and b, and none can be made.
    a.swarm.behaviour_mut().watch(id_b, 1);
    let refuted = |node: &Node| node.has(|event| matches!(event, Event::Refuted { .. }));
    until(&mut [&mut a, &mut b, &mut c], |nodes| {
        nodes[0].has(|event| matches!(event, Event::Alive { peer } if *peer == id_b)) && refuted(nodes[1])
    })
    .await;
    let status = a.swarm.behaviour().status(&id_b).unwrap();
    assert!(status.state == State::Alive && status.incarnation > liveness::Incarnation::new(1, 0));
    assert_eq!(status.incarnation, b.swarm.behaviour().incarnation());
}

#[tokio::test]
async fn a_seed_buries_and_raises() {
    let mut seed = Node::new(1, Role::Seed).await;
    let mut a = Node::new(2, Role::Peer).await;
    let mut b = Node::new(3, Role::Peer).await;
    let (id_seed, id_b) = (seed.id(), b.id());
    for node in [&mut a, &mut b] {
        node.is_seed.insert(id_seed, true);
        dial(node, &seed);
    }
    until(&mut [&mut seed, &mut a, &mut b], |nodes| {
        nodes[0].state(id_b) == Some(State::Alive) && nodes[0].has(|event| matches!(event, Event::Offset { .. }))
    })
    .await;
    let buried = |node: &Node| node.swarm.behaviour().is_buried_by(&id_seed, &id_b, Some(1));
    until(&mut [&mut seed, &mut a], |nodes| buried(nodes[1])).await;
    assert!(seed.has(|event| matches!(event, Event::Evict { target, .. } if *target == id_b)));
    assert!(a.swarm.behaviour().is_buried(&id_b, None) && !a.swarm.behaviour().is_buried(&id_b, Some(2)));
    // A newcomer is told as well.
    let mut newcomer = Node::new(4, Role::Peer).await;
    newcomer.is_seed.insert(id_seed, true);
    dial(&mut newcomer, &seed);
    until(&mut [&mut seed, &mut a, &mut newcomer], |nodes| buried(nodes[2])).await;
    until(&mut [&mut seed, &mut a, &mut newcomer, &mut b], |nodes| !buried(nodes[1]) && !buried(nodes[2])).await;
    assert!(a.has(|event| matches!(event, Event::Raised { target, .. } if *target == id_b)));
    assert_eq!(seed.swarm.behaviour().tombstones(), []);
}

#[tokio::test]
async fn a_stranger_is_blamed_for_what_it_sends() {
    let mut seed = Node::new(1, Role::Seed).await;
    type Raw = request_response::Behaviour<Codec>;
    let mut stranger = Swarm::new_ephemeral_tokio(|_| {
        Raw::new([(PROTOCOL, ProtocolSupport::Full)], request_response::Config::default())
    });
    stranger.connect(&mut seed.swarm).await;
    let (id_seed, id) = (seed.id(), *stranger.local_peer_id());
    seed.swarm.behaviour_mut().peer_up(id, 1, false);
    let report = liveness::Report {
        reporter: key(7).public().to_peer_id(),
        target: key(8).public().to_peer_id(),
        incarnation: liveness::Incarnation::new(1, 0),
        at_ms: 0,
    };
    let replayed = Request::Report { statement: report.sign(&key(7)).unwrap() };
    stranger.behaviour_mut().send_request(&id_seed, Request::Report { statement: vec![1, 2, 3] });
    stranger.behaviour_mut().send_request(&id_seed, replayed);
    // An empty frame cannot be sent: nonsense is one byte long.
    stranger.behaviour_mut().send_request(&id_seed, Request::Report { statement: vec![0; 70_000] });
    let kinds = [FaultKind::ForgedStatement, FaultKind::ForeignStatement, FaultKind::OversizedFrame];
    let run = async {
        let mut answers = 0;
        while answers < 3
            || !kinds.iter().all(|kind| seed.has(|event| *event == Event::Fault { peer: id, kind: *kind }))
        {
            tokio::select! {
                event = stranger.select_next_some() => {
                    if let SwarmEvent::Behaviour(request_response::Event::Message {
                        message: request_response::Message::Response { response, .. }, ..
                    }) = event {
                        assert!(matches!(response, Response::Taken | Response::Refused));
                        answers += 1;
                    }
                }
                event = seed.swarm.select_next_some() => seed.on_event(event),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("an answer to each");
}
