use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use broadcast::protocol::TOPIC;
use broadcast::{Behaviour, BroadcastId, Config, Event, FaultKind, Kind, MAX_TEXT_BYTES};
use futures::StreamExt;
use libp2p::PeerId;
use libp2p::gossipsub::{self, IdentTopic, MessageAuthenticity, ValidationMode};
use libp2p::swarm::{Swarm, SwarmEvent};
use libp2p_swarm_test::SwarmExt;

use crate::common::{forged, signed};

#[expect(clippy::disallowed_methods, reason = "the behaviour under test reads the same clock")]
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

/// One broadcast as a node saw it.
#[derive(Clone, Debug)]
struct Heard {
    id: BroadcastId,
    via: PeerId,
    text: String,
    backlog: bool,
}

/// An application with a disk in memory.
struct Node {
    swarm: Swarm<Behaviour>,
    heard: Vec<Heard>,
    disk: Vec<Vec<u8>>,
    faults: Vec<FaultKind>,
    gaps: usize,
}

impl Node {
    async fn new(newcomer: bool) -> Self {
        let config = Config { sync_interval: Duration::from_secs(1), ..Config::default() };
        let mut swarm = Swarm::new_ephemeral_tokio(|key| {
            let mut behaviour = Behaviour::new(key, 1, config, 1).unwrap();
            behaviour.restore([], newcomer);
            behaviour
        });
        swarm.listen().with_memory_addr_external().await;
        Self { swarm, heard: Vec::new(), disk: Vec::new(), faults: Vec::new(), gaps: 0 }
    }

    fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    fn say(&mut self, text: &str) -> BroadcastId {
        let (text, name, team) = (text.to_owned(), "ada".to_owned(), "althing".to_owned());
        let (id, bytes) = self.swarm.behaviour_mut().publish(Kind::Text, text, name, team, wall_ms()).unwrap();
        self.disk.push(bytes.to_vec());
        id
    }

    fn on_event(&mut self, event: SwarmEvent<Event>) {
        match event {
            SwarmEvent::Behaviour(Event::Received { envelope, bytes, via, backlog }) => {
                self.disk.push(bytes.to_vec());
                self.heard.push(Heard { id: envelope.id(), via, text: envelope.text, backlog });
            }
            SwarmEvent::Behaviour(Event::Gap { .. }) => self.gaps += 1,
            SwarmEvent::Behaviour(Event::Fault { kind, .. }) => self.faults.push(kind),
            SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                self.swarm.behaviour_mut().peer_down(peer_id);
            }
            _ => {}
        }
    }

    fn texts(&self) -> Vec<&str> {
        self.heard.iter().map(|heard| heard.text.as_str()).collect()
    }

    fn subscribers(&self) -> usize {
        self.swarm.behaviour().subscribers()
    }
}

/// Run all until the condition holds.
async fn until(nodes: &mut [Node], condition: impl Fn(&[Node]) -> bool) {
    let run = async {
        while !condition(nodes) {
            let next = nodes
                .iter_mut()
                .enumerate()
                .map(|(index, node)| Box::pin(async move { (index, node.swarm.select_next_some().await) }));
            // A subscription is no event of the behaviour: look again every so often.
            let looked = tokio::time::timeout(Duration::from_millis(20), futures::future::select_all(next)).await;
            if let Ok(((index, event), ..)) = looked {
                nodes[index].on_event(event);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), run).await.expect("it holds within a minute");
}

/// Let everything that is on its way arrive.
async fn settle(nodes: &mut [Node]) {
    let _ = tokio::time::timeout(Duration::from_millis(1_500), until(nodes, |_| false)).await;
}

async fn link(nodes: &mut [Node], a: usize, b: usize) {
    let (left, right) = nodes.split_at_mut(b);
    let (a, b) = (&mut left[a], &mut right[0]);
    let (id_a, id_b) = (a.id(), b.id());
    // Events of other nodes are not lost meanwhile: each swarm keeps its own.
    let address = b.swarm.external_addresses().next().cloned().unwrap();
    a.swarm.dial(address).unwrap();
    let run = async {
        while !(a.swarm.is_connected(&id_b) && b.swarm.is_connected(&id_a)) {
            tokio::select! {
                event = a.swarm.select_next_some() => a.on_event(event),
                event = b.swarm.select_next_some() => b.on_event(event),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), run).await.expect("connected");
    a.swarm.behaviour_mut().peer_up(id_b);
    b.swarm.behaviour_mut().peer_up(id_a);
}

async fn unlink(nodes: &mut [Node], a: usize, b: usize) {
    let (id_a, id_b) = (nodes[a].id(), nodes[b].id());
    nodes[a].swarm.disconnect_peer_id(id_b).unwrap();
    until(nodes, |nodes| !nodes[a].swarm.is_connected(&id_b) && !nodes[b].swarm.is_connected(&id_a)).await;
}

/// So many nodes in a line, each subscribed to its neighbours.
async fn line(count: usize) -> Vec<Node> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(Node::new(false).await);
    }
    for next in 1..count {
        link(&mut nodes, next - 1, next).await;
    }
    let neighbours = move |index: usize| if index == 0 || index == count - 1 { 1 } else { 2 };
    until(&mut nodes, move |nodes| {
        nodes.iter().enumerate().all(|(index, node)| node.subscribers() == neighbours(index))
    })
    .await;
    nodes
}

#[tokio::test]
async fn two_hear_each_other_once_and_in_order() {
    let mut nodes = line(2).await;
    let long = "x".repeat(MAX_TEXT_BYTES);
    nodes[0].say("hello");
    nodes[0].say(&long);
    nodes[1].say("hi\u{1b}[2J");
    until(&mut nodes, |nodes| nodes[0].heard.len() == 1 && nodes[1].heard.len() == 2).await;
    settle(&mut nodes).await;
    assert!(nodes[1].texts() == ["hello", &long]);
    assert_eq!(nodes[0].texts(), ["hi\u{1b}[2J"], "texts arrive unchanged");
    assert!(nodes.iter().all(|node| node.faults.is_empty() && node.gaps == 0));
    let stats = nodes[1].swarm.behaviour().stats();
    assert_eq!((stats.verified, stats.delivered, stats.rejected), (2, 2, 0));
}

#[tokio::test]
async fn what_is_said_to_nobody_arrives_when_somebody_comes() {
    let mut nodes = vec![Node::new(false).await, Node::new(false).await];
    nodes[0].say("is anybody there?");
    assert_eq!(nodes[0].swarm.behaviour().waiting(), 1);
    link(&mut nodes, 0, 1).await;
    until(&mut nodes, |nodes| nodes[1].heard.len() == 1 && nodes[0].swarm.behaviour().waiting() == 0).await;
    settle(&mut nodes).await;
    assert_eq!(nodes[1].texts(), ["is anybody there?"]);
    assert_eq!(nodes[1].swarm.behaviour().stats().verified, 1, "by gossip and by sync, and verified once");
}

#[tokio::test]
async fn five_in_a_line_hear_everything_once_through_their_neighbours() {
    let mut nodes = line(5).await;
    for round in 0..20 {
        for (index, node) in nodes.iter_mut().enumerate() {
            node.say(&format!("{round} of {index}"));
        }
    }
    until(&mut nodes, |nodes| nodes.iter().all(|node| node.heard.len() >= 80)).await;
    settle(&mut nodes).await;
    let ids: Vec<PeerId> = nodes.iter().map(Node::id).collect();
    for (index, node) in nodes.iter().enumerate() {
        assert_eq!(node.heard.len(), 80);
        assert_eq!(node.gaps, 0);
        let mut last = BTreeMap::new();
        for heard in &node.heard {
            let before = last.insert(heard.id.author, heard.id.sequence).unwrap_or(0);
            assert_eq!(heard.id.sequence, before + 1, "in each author's order");
            let author = ids.iter().position(|id| *id == heard.id.author).unwrap();
            let neighbour = if author < index { index - 1 } else { index + 1 };
            assert_eq!(heard.via, ids[neighbour], "handed over by the neighbour on that side");
        }
        let stats = node.swarm.behaviour().stats();
        assert_eq!((stats.verified, stats.delivered, stats.rejected), (80, 80, 0));
    }
}

#[tokio::test]
async fn who_was_away_gets_all_it_missed_in_order() {
    let mut nodes = line(3).await;
    nodes[0].say("before");
    until(&mut nodes, |nodes| nodes[2].heard.len() == 1).await;
    unlink(&mut nodes, 1, 2).await;
    for n in 0..30 {
        nodes[n % 2].say(&format!("missed {n}"));
    }
    until(&mut nodes, |nodes| nodes[0].heard.len() == 15 && nodes[1].heard.len() == 16).await;
    nodes[2].say("said alone");
    link(&mut nodes, 1, 2).await;
    nodes[0].say("after");
    until(&mut nodes, |nodes| nodes[2].heard.len() >= 32 && nodes[0].texts().contains(&"said alone")).await;
    settle(&mut nodes).await;
    let (first, second) = (nodes[0].id(), nodes[1].id());
    for (author, count) in [(first, 17), (second, 15)] {
        let heard = nodes[2].heard.iter().filter(|heard| heard.id.author == author);
        assert!(heard.map(|heard| heard.id.sequence).eq(1..=count), "all, once and in order");
    }
    assert!(nodes.iter().all(|node| node.gaps == 0 && node.faults.is_empty()));
}

#[tokio::test]
async fn who_joins_for_the_first_time_gets_the_backlog_marked_as_such() {
    let mut nodes = line(2).await;
    for n in 0..300 {
        nodes[0].say(&format!("old {n}"));
    }
    until(&mut nodes, |nodes| nodes[1].heard.len() == 300).await;
    nodes.push(Node::new(true).await);
    link(&mut nodes, 1, 2).await;
    until(&mut nodes, |nodes| nodes[2].heard.len() == 300).await;
    assert!(nodes[2].heard.iter().map(|heard| heard.id.sequence).eq(1..=300));
    // What gossipsub had fresh in its cache may come as live.
    let live = nodes[2].heard.iter().filter(|heard| !heard.backlog).count();
    assert!(live < 300, "{live} came as live");
    until(&mut nodes, |nodes| nodes[2].subscribers() == 1 && nodes[1].subscribers() == 2).await;
    nodes[0].say("new");
    until(&mut nodes, |nodes| nodes[2].heard.len() == 301).await;
    assert!(!nodes[2].heard[300].backlog);
}

#[tokio::test]
async fn who_starts_again_hears_only_what_it_missed() {
    let mut nodes = line(2).await;
    for n in 0..10 {
        nodes[0].say(&format!("{n}"));
    }
    until(&mut nodes, |nodes| nodes[1].heard.len() == 10).await;
    let disk = std::mem::take(&mut nodes[1].disk);
    nodes.truncate(1);
    until(&mut nodes, |nodes| nodes[0].subscribers() == 0).await;
    nodes[0].say("missed");
    let mut again = Node::new(false).await;
    again.swarm.behaviour_mut().restore(disk, false);
    nodes.push(again);
    link(&mut nodes, 0, 1).await;
    until(&mut nodes, |nodes| !nodes[1].heard.is_empty()).await;
    settle(&mut nodes).await;
    assert_eq!(nodes[1].texts(), ["missed"]);
    assert_eq!(nodes[1].swarm.behaviour().stats().verified, 1, "what is on the own disk is not verified again");
}

#[tokio::test]
async fn a_forged_copy_sent_before_the_true_one_does_not_shadow_it() {
    let mut nodes = line(3).await;
    let config = gossipsub::ConfigBuilder::default()
        .validation_mode(ValidationMode::Anonymous)
        .message_id_fn(|message| gossipsub::MessageId::new(&broadcast::envelope::hash(&message.data)))
        .build()
        .unwrap();
    let mut liar = Swarm::new_ephemeral_tokio(|_| {
        gossipsub::Behaviour::<gossipsub::IdentityTransform>::new(MessageAuthenticity::Anonymous, config).unwrap()
    });
    let topic = IdentTopic::new(TOPIC);
    liar.behaviour_mut().subscribe(&topic).unwrap();
    let address = nodes[0].swarm.external_addresses().next().cloned().unwrap();
    liar.dial(address).unwrap();
    let subscribed = async {
        loop {
            tokio::select! {
                event = liar.select_next_some() => {
                    if matches!(event, SwarmEvent::Behaviour(gossipsub::Event::Subscribed { .. })) {
                        break;
                    }
                }
                event = nodes[0].swarm.select_next_some() => nodes[0].on_event(event),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), subscribed).await.expect("subscribed");
    for bytes in [forged(2, 1, 1), signed(2, 1, 1, "true words")] {
        liar.behaviour_mut().publish(topic.clone(), bytes).unwrap();
    }
    tokio::select! {
        event = async { loop { liar.select_next_some().await; } } => event,
        () = until(&mut nodes, |nodes| nodes.iter().all(|node| node.heard.len() == 1)) => {}
    }
    assert!(nodes.iter().all(|node| node.texts() == ["true words"]));
    assert_eq!(nodes[0].faults, [FaultKind::Signature]);
    assert!(nodes[1].faults.is_empty() && nodes[2].faults.is_empty(), "a lie is not handed on");
    assert_eq!(nodes[1].swarm.behaviour().stats().verified, 1);
}
