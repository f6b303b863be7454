use std::time::Duration;

use futures::StreamExt as _;
use libp2p::core::transport::MemoryTransport;
use libp2p::core::upgrade::Version;
use libp2p::identity::Keypair;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, NetworkBehaviour, Swarm, SwarmEvent, dummy};
use libp2p::{Multiaddr, PeerId, Transport as _, noise, tcp, yamux};
use libp2p_swarm_test::SwarmExt as _;
use peer_exchange::{Behaviour, Card, Config, Event, FaultKind, Goodbye, Role, SignedCard, Subject};

/// A swarm with its key, what it has reported, and where it listens.
pub(crate) struct Node {
    key: Keypair,
    pub(crate) swarm: Swarm<Behaviour>,
    pub(crate) address: Multiaddr,
    boot: u64,
    pub(crate) events: Vec<Event>,
    answers: Vec<SignedCard>,
}

pub(crate) fn sign(key: &Keypair, name: &str, boot: u64, revision: u64) -> SignedCard {
    let card = Card {
        peer: key.public().to_peer_id(),
        name: name.into(),
        team: "test".into(),
        role: Role::Peer,
        addresses: Vec::new(),
        boot,
        revision,
        version: String::new(),
    };
    SignedCard::sign(key, card).unwrap()
}

/// Like `Swarm::new_ephemeral_tokio`, but with a key of choice, Noise, and a shorter idle timeout.
pub(crate) fn swarm<B: NetworkBehaviour>(key: &Keypair, behaviour: B) -> Swarm<B> {
    swarm_with(key, behaviour, Duration::from_millis(200))
}

fn swarm_with<B: NetworkBehaviour>(key: &Keypair, behaviour: B, idle: Duration) -> Swarm<B> {
    let noise = noise::Config::new(key).unwrap();
    let memory = MemoryTransport::default().or_transport(tcp::tokio::Transport::default());
    let transport = memory.upgrade(Version::V1).authenticate(noise).multiplex(yamux::Config::default()).boxed();
    let config = swarm::Config::with_tokio_executor().with_idle_connection_timeout(idle);
    Swarm::new(transport, behaviour, key.public().to_peer_id(), config)
}

impl Node {
    async fn new(name: &str) -> Self {
        Self::with(name, Config::default()).await
    }

    pub(crate) async fn with(name: &str, config: Config) -> Self {
        Self::born(Keypair::generate_ed25519(), name, 1, config).await
    }

    async fn born(key: Keypair, name: &str, boot: u64, config: Config) -> Self {
        let mut swarm = swarm(&key, Behaviour::new(sign(&key, name, boot, 0), config, boot));
        let address = swarm.listen().with_memory_addr_external();
        // Real TCP, whose closing can overtake what was not read yet.
        let address = address.await.1;
        Self { key, swarm, address, boot, events: Vec::new(), answers: Vec::new() }
    }

    pub(crate) fn id(&self) -> PeerId {
        *self.swarm.local_peer_id()
    }

    pub(crate) fn goodbye(&self) -> Goodbye {
        Goodbye::sign(&self.key, self.boot, 0).unwrap()
    }

    fn dial(&mut self, other: &Self) {
        let options = DialOpts::peer_id(other.id()).addresses(vec![other.address.clone()]);
        self.swarm.dial(options.condition(PeerCondition::Always).build()).unwrap();
    }

    async fn step(&mut self) {
        if let SwarmEvent::Behaviour(event) = self.swarm.select_next_some().await {
            if let Event::Asked { token, .. } = &event {
                self.swarm.behaviour_mut().answer(*token, self.answers.clone());
            }
            self.events.push(event);
        }
    }

    fn is_up(&self, other: &Self) -> bool {
        self.swarm.behaviour().is_up(&other.id())
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Event) -> bool) -> usize {
        self.events.iter().filter(|event| wanted(event)).count()
    }
}

/// Let all swarms run until the condition holds.
pub(crate) async fn run(nodes: &mut [&mut Node], until: impl Fn(&[&mut Node]) -> bool) {
    let running = async {
        while !until(nodes) {
            let steps = nodes.iter_mut().map(|node| Box::pin(node.step()));
            futures::future::select_all(steps).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), running).await.expect("what is waited for comes within 20 s");
}

#[tokio::test]
async fn two_nodes_greet_each_other_and_one_leaves() {
    let (mut a, mut b) = (Node::new("alice").await, Node::new("bob").await);
    a.dial(&b);
    run(&mut [&mut a, &mut b], |n| n[0].is_up(n[1]) && n[1].is_up(n[0]) && !n[0].events.is_empty()).await;
    let Event::Up { peer, card, dialled, .. } = &a.events[0] else { panic!("{:?}", a.events) };
    assert_eq!((*peer, card.card().name.as_str(), *dialled), (b.id(), "bob", true));
    assert_eq!(a.swarm.behaviour().up().map(|(id, _)| id).collect::<Vec<_>>(), [b.id()]);

    let newer = sign(&b.key, "bobby", 1, 1);
    b.swarm.behaviour_mut().set_card(newer.clone());
    run(&mut [&mut a, &mut b], |n| n[0].count(|e| matches!(e, Event::Updated { .. })) == 1).await;
    assert_eq!(a.swarm.behaviour().card_of(&b.id()), Some(&newer));

    let goodbye = b.goodbye();
    b.swarm.behaviour_mut().shutdown(goodbye);
    let id = b.id();
    run(&mut [&mut a, &mut b], |n| {
        n[0].events.contains(&Event::Left { peer: id }) && n[1].events.contains(&Event::Quiet)
    })
    .await;
    assert_eq!(a.count(|e| matches!(e, Event::Lost { .. } | Event::Fault { .. })), 0, "{:?}", a.events);
    assert_eq!((a.swarm.behaviour().links(), b.swarm.behaviour().links()), (0, 0));
}

#[tokio::test]
async fn disconnecting_is_a_goodbye_to_one() {
    let (mut a, mut b) = (Node::new("alice").await, Node::new("bob").await);
    a.dial(&b);
    run(&mut [&mut a, &mut b], |n| n[0].is_up(n[1]) && n[1].is_up(n[0])).await;
    let (id, goodbye) = (b.id(), a.goodbye());
    a.swarm.behaviour_mut().disconnect(id, goodbye);
    run(&mut [&mut a, &mut b], |n| !n[0].is_up(n[1]) && !n[1].is_up(n[0])).await;
    run(&mut [&mut a, &mut b], |n| {
        n.iter().all(|n| n.count(|e| matches!(e, Event::Left { .. } | Event::Lost { .. })) == 1)
    })
    .await;
    assert_eq!(b.events.last(), Some(&Event::Left { peer: a.id() }));
    let lost = Event::Lost { peer: b.id(), reason: "disconnected here".into(), reset: false };
    assert_eq!(a.events.last(), Some(&lost));
    a.dial(&b);
    run(&mut [&mut a, &mut b], |n| n[0].is_up(n[1]) && n[1].is_up(n[0])).await;
}

#[tokio::test]
async fn links_stay_open_beyond_the_idle_timeout_and_simultaneous_dials_end_in_one() {
    let config = Config { prune_after: Duration::from_millis(200), ..Config::default() };
    let (mut a, mut b) = (Node::with("alice", config.clone()).await, Node::with("bob", config).await);
    a.dial(&b);
    b.dial(&a);
    run(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.swarm.behaviour().links() == 2)).await;
    run(&mut [&mut a, &mut b], |n| n.iter().all(|n| n.swarm.behaviour().links() == 1)).await;
    // Longer than the idle timeout.
    let _ = tokio::time::timeout(Duration::from_millis(500), run(&mut [&mut a, &mut b], |_| false)).await;
    assert!(a.is_up(&b) && b.is_up(&a));
    for node in [&a, &b] {
        assert_eq!(node.count(|e| matches!(e, Event::Up { .. })), 1, "{:?}", node.events);
        assert_eq!(node.events.len(), 1, "{:?}", node.events);
    }
}

#[tokio::test]
async fn a_dropped_swarm_is_lost() {
    let (mut a, mut b) = (Node::new("alice").await, Node::new("bob").await);
    a.dial(&b);
    run(&mut [&mut a, &mut b], |n| n[0].is_up(n[1]) && n[1].is_up(n[0])).await;
    let id = b.id();
    drop(b);
    run(&mut [&mut a], |n| n[0].count(|e| matches!(e, Event::Lost { peer, reset: false, .. } if *peer == id)) == 1)
        .await;
}

#[tokio::test]
async fn a_restarted_node_is_heard_while_its_dead_link_still_stands() {
    let (mut a, mut b) = (Node::new("alice").await, Node::new("bob").await);
    a.dial(&b);
    run(&mut [&mut a, &mut b], |n| n[0].is_up(n[1]) && n[1].is_up(n[0])).await;
    // The same key again, while the swarm of its earlier life is frozen but not gone: its links stay.
    let mut reborn = Node::born(b.key.clone(), "bob", 2, Config::default()).await;
    reborn.dial(&a);
    let id = reborn.id();
    let reset =
        |n: &[&mut Node]| n[0].count(|e| matches!(e, Event::Lost { peer, reset: true, .. } if *peer == id)) == 1;
    run(&mut [&mut a, &mut reborn], reset).await;
    reborn.dial(&a);
    let up = |e: &Event| matches!(e, Event::Up { card, .. } if card.card().boot == 2);
    run(&mut [&mut a, &mut reborn], |n| n[0].count(up) == 1 && n[1].is_up(n[0])).await;
}

#[tokio::test]
async fn a_name_is_found_two_hops_away() {
    let (mut a, mut b, mut c) = (Node::new("alice").await, Node::new("bob").await, Node::new("carol").await);
    a.dial(&b);
    b.dial(&c);
    let up = |n: &[&mut Node]| n[0].is_up(n[1]) && n[1].is_up(n[0]) && n[1].is_up(n[2]) && n[2].is_up(n[1]);
    run(&mut [&mut a, &mut b, &mut c], up).await;
    let dave = sign(&Keypair::generate_ed25519(), "dave", 1, 0);
    c.answers = vec![dave.clone()];
    let id = a.swarm.behaviour_mut().lookup(Subject::Name("dave".into()));
    let found = |e: &Event| matches!(e, Event::Found { .. });
    run(&mut [&mut a, &mut b, &mut c], |n| n[0].count(found) == 1).await;
    assert_eq!(a.events.last(), Some(&Event::Found { id, cards: vec![dave] }));

    // Who is asked for itself answers for itself.
    let subject = Subject::Peer(c.id());
    let id = a.swarm.behaviour_mut().lookup(subject);
    run(&mut [&mut a, &mut b, &mut c], |n| n[0].count(found) == 2).await;
    let card = c.swarm.behaviour().card().clone();
    assert_eq!(a.events.last(), Some(&Event::Found { id, cards: vec![card] }));

    let id = a.swarm.behaviour_mut().lookup(Subject::Name("nobody".into()));
    run(&mut [&mut a, &mut b, &mut c], |n| n[0].count(found) == 3).await;
    assert_eq!(a.events.last(), Some(&Event::Found { id, cards: Vec::new() }));
    for node in [&a, &b, &c] {
        assert_eq!(node.count(|e| matches!(e, Event::Fault { .. })), 0);
    }
}

#[tokio::test]
async fn a_neighbour_says_whom_it_knows_and_asks_nobody_else() {
    let (mut a, mut b, mut c) = (Node::new("alice").await, Node::new("bob").await, Node::new("carol").await);
    assert_eq!(a.swarm.behaviour_mut().sample(), None);
    a.dial(&b);
    b.dial(&c);
    let up = |n: &[&mut Node]| n[0].is_up(n[1]) && n[1].is_up(n[0]) && n[1].is_up(n[2]) && n[2].is_up(n[1]);
    run(&mut [&mut a, &mut b, &mut c], up).await;
    let dave = sign(&Keypair::generate_ed25519(), "dave", 1, 0);
    b.answers = vec![dave.clone()];
    let id = a.swarm.behaviour_mut().sample();
    let found = |e: &Event| matches!(e, Event::Found { .. });
    run(&mut [&mut a, &mut b, &mut c], |n| n[0].count(found) == 1).await;
    let Some(Event::Found { id: of, cards }) = a.events.last() else { panic!("nothing found") };
    assert_eq!(Some(*of), id);
    assert!(cards.contains(&dave));
    assert_eq!(c.count(|e| matches!(e, Event::Asked { .. })), 0);
}

#[tokio::test]
async fn a_foreign_node_is_left_alone_and_its_link_goes_idle() {
    let mut a = Node::new("alice").await;
    // The closing must be ours: the foreign node would keep the link for long.
    let mut foreign = swarm_with(&Keypair::generate_ed25519(), dummy::Behaviour, Duration::from_secs(60));
    let (address, _) = foreign.listen().with_memory_addr_external().await;
    a.swarm.dial(address).unwrap();
    let id = *foreign.local_peer_id();
    tokio::spawn(foreign.loop_on_next());
    run(&mut [&mut a], |n| n[0].events == [Event::Foreign { peer: id }]).await;
    run(&mut [&mut a], |n| n[0].swarm.behaviour().links() == 0).await;
    assert_eq!(a.events.len(), 1, "not lost, for it was never up");
}

/// Over real TCP, whose closing can overtake what was not read yet.
#[tokio::test]
async fn a_stale_copy_is_told_before_its_link_is_closed() {
    for round in 0..10 {
        let key = Keypair::generate_ed25519();
        let mut bob = Node::new("bob").await;
        let mut ada = Node::born(key.clone(), "ada", 7, Config::default()).await;
        ada.dial(&bob);
        run(&mut [&mut ada, &mut bob], |n| n[0].is_up(n[1]) && n[1].is_up(n[0])).await;
        let mut copy = Node::born(key, "ada", 5, Config::default()).await;
        let (from, to) = if round % 2 == 0 { (&mut copy, &bob) } else { (&mut bob, &copy) };
        from.dial(to);
        let lost = |node: &Node| node.count(|event| matches!(event, Event::Lost { .. })) == 1;
        run(&mut [&mut ada, &mut bob, &mut copy], |n| lost(n[2]) && n[1].swarm.behaviour().links() == 1).await;
        let (id, me) = (bob.id(), ada.id());
        let reason = "it remembers a later start of this node".to_owned();
        assert_eq!(
            copy.events[1..],
            [Event::Refused { peer: id, boot: 7 }, Event::Lost { peer: id, reason, reset: false }]
        );
        assert_eq!(bob.count(|event| *event == Event::Fault { peer: me, kind: FaultKind::StaleBoot }), 1);
        assert!(bob.is_up(&ada), "the link of the later start stays");
        assert_eq!(bob.count(|event| matches!(event, Event::Lost { .. })), 0);
    }
}
