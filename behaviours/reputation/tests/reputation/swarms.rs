use std::net::SocketAddr;
use std::time::Duration;

use futures::StreamExt;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{self, ConnectionDenied, DialError, ListenError, Swarm, SwarmEvent};
use libp2p::{Multiaddr, PeerId, SwarmBuilder, noise, tcp, yamux};
use libp2p_swarm_test::SwarmExt;
use reputation::{Behaviour, Config, Event, Limits, Refusal, Refused};
use tokio::net::{TcpSocket, TcpStream};

use crate::common::WALL_MS;

/// A node that listens. Its links do not end because nothing is said on them, however busy the machine is.
async fn node(config: Config) -> (Swarm<Behaviour>, Multiaddr) {
    let builder = SwarmBuilder::with_new_identity().with_tokio();
    let builder = builder.with_tcp(tcp::Config::default(), noise::Config::new, yamux::Config::default).unwrap();
    let builder = builder.with_behaviour(|_| Behaviour::new(config, 7)).unwrap();
    let patient = |config: swarm::Config| config.with_idle_connection_timeout(Duration::from_secs(3_600));
    let mut swarm = builder.with_swarm_config(patient).build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
    let address = until(&mut swarm, &mut [], |event| match event {
        SwarmEvent::NewListenAddr { address, .. } => Some(address.clone()),
        _ => None,
    })
    .await;
    swarm.add_external_address(address.clone());
    (swarm, address)
}

fn limits(limits: Limits) -> Config {
    Config { limits, ..Config::default() }
}

/// Drive all nodes until the first one shows what is looked for. The others' events are of no interest.
async fn until<T>(
    node: &mut Swarm<Behaviour>,
    others: &mut [&mut Swarm<Behaviour>],
    mut found: impl FnMut(&SwarmEvent<Event>) -> Option<T>,
) -> T {
    let search = async {
        loop {
            let rest = futures::stream::select_all(others.iter_mut()).for_each(|_| std::future::ready(()));
            tokio::select! {
                event = node.select_next_some() => {
                    if let Some(found) = found(&event) {
                        return found;
                    }
                }
                // Without others it is over at once and must not win again and again.
                () = async { rest.await; std::future::pending().await } => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), search).await.expect("what is looked for")
}

fn why(denied: &ConnectionDenied) -> Option<Refusal> {
    use std::error::Error as _;
    let cause = denied.source()?;
    cause.downcast_ref::<Refused>().map(|refused| refused.refusal)
}

/// Why an inbound connection was refused.
fn refused_in(event: &SwarmEvent<Event>) -> Option<Refusal> {
    match event {
        SwarmEvent::IncomingConnectionError { error: ListenError::Denied { cause }, .. } => why(cause),
        _ => None,
    }
}

/// Why an outbound one was.
fn refused_out(event: &SwarmEvent<Event>) -> Option<Refusal> {
    match event {
        SwarmEvent::OutgoingConnectionError { error: DialError::Denied { cause }, .. } => why(cause),
        _ => None,
    }
}

fn closed(event: &SwarmEvent<Event>) -> Option<PeerId> {
    match event {
        SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => Some(*peer_id),
        _ => None,
    }
}

fn established(event: &SwarmEvent<Event>) -> Option<PeerId> {
    match event {
        SwarmEvent::ConnectionEstablished { peer_id, .. } => Some(*peer_id),
        _ => None,
    }
}

fn dial(from: &mut Swarm<Behaviour>, to: PeerId, address: &Multiaddr) {
    // The last link may still be standing in its eyes.
    let options = DialOpts::peer_id(to).condition(PeerCondition::Always).addresses(vec![address.clone()]);
    from.dial(options.build()).unwrap();
}

#[tokio::test]
async fn a_cut_peer_is_disconnected_and_refused_and_later_let_in_again() {
    let (mut node, address) = node(Config::default()).await;
    let (mut bad, _) = self::node(Config::default()).await;
    let (local, bad_peer) = (*node.local_peer_id(), *bad.local_peer_id());
    let bad_address = bad.external_addresses().next().unwrap().clone();
    bad.connect(&mut node).await;

    node.behaviour_mut().fault(bad_peer, "bad-signature", WALL_MS);
    assert!(!node.behaviour().is_cut(&bad_peer), "one is tolerated");
    node.behaviour_mut().fault(bad_peer, "equivocation", WALL_MS);
    let mut cut_told = false;
    let gone = until(&mut node, &mut [&mut bad], |event| {
        if let SwarmEvent::Behaviour(Event::Cut { peer, until_ms, kind }) = event {
            assert_eq!((*peer, kind.as_str()), (bad_peer, "equivocation"));
            assert!(*until_ms > WALL_MS);
            cut_told = true;
        }
        closed(event)
    })
    .await;
    assert_eq!((gone, cut_told), (bad_peer, true));
    until(&mut bad, &mut [&mut node], closed).await;

    // Neither side gets through.
    dial(&mut bad, local, &address);
    assert_eq!(until(&mut node, &mut [&mut bad], refused_in).await, Refusal::Cut);
    let refused = node.dial(DialOpts::peer_id(bad_peer).addresses(vec![bad_address.clone()]).build());
    assert!(matches!(refused, Err(DialError::Denied { cause }) if why(&cause) == Some(Refusal::Cut)));
    node.dial(bad_address).unwrap();
    assert_eq!(until(&mut node, &mut [&mut bad], refused_out).await, Refusal::Cut);

    node.behaviour_mut().pardon(bad_peer, WALL_MS);
    let readmitted = |event: &SwarmEvent<Event>| match event {
        SwarmEvent::Behaviour(Event::Readmitted { peer }) => Some(*peer),
        _ => None,
    };
    assert_eq!(until(&mut node, &mut [&mut bad], readmitted).await, bad_peer);
    dial(&mut bad, local, &address);
    assert_eq!(until(&mut node, &mut [&mut bad], established).await, bad_peer);
}

#[tokio::test]
async fn a_cut_ends_by_itself() {
    let (mut node, address) = node(Config { first_cut: Duration::from_millis(50), ..Config::default() }).await;
    let (mut bad, _) = self::node(Config::default()).await;
    let bad_peer = *bad.local_peer_id();
    node.behaviour_mut().fault(bad_peer, "equivocation", WALL_MS);
    let mut cut = false;
    let back = until(&mut node, &mut [&mut bad], |event| match event {
        SwarmEvent::Behaviour(Event::Cut { .. }) => {
            cut = true;
            None
        }
        SwarmEvent::Behaviour(Event::Readmitted { peer }) => Some(*peer),
        _ => None,
    })
    .await;
    assert_eq!((back, cut), (bad_peer, true));
    dial(&mut bad, *node.local_peer_id(), &address);
    assert_eq!(until(&mut node, &mut [&mut bad], established).await, bad_peer);
}

#[tokio::test]
async fn a_restored_cut_holds() {
    let (mut node, address) = node(Config::default()).await;
    let (mut bad, _) = self::node(Config::default()).await;
    let bad_peer = *bad.local_peer_id();
    let mut before = Behaviour::new(Config::default(), 1);
    before.fault(bad_peer, "equivocation", WALL_MS);
    let stored = before.snapshot(&bad_peer, WALL_MS).unwrap();
    // Should it be connected already, it is disconnected.
    bad.connect(&mut node).await;
    node.behaviour_mut().restore(vec![stored], WALL_MS + 1_000);
    assert_eq!(until(&mut node, &mut [&mut bad], closed).await, bad_peer);
    dial(&mut bad, *node.local_peer_id(), &address);
    assert_eq!(until(&mut node, &mut [&mut bad], refused_in).await, Refusal::Cut);
}

#[tokio::test]
async fn an_address_gets_its_share_and_one_that_leaves_makes_room() {
    let (mut node, address) = node(limits(Limits { per_private_address: 2, ..Limits::default() })).await;
    let local = *node.local_peer_id();
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(self::node(Config::default()).await.0);
    }
    let [one, two, three] = others.as_mut_slice() else { unreachable!("there are three") };
    one.connect(&mut node).await;
    two.connect(&mut node).await;
    dial(three, local, &address);
    let mut denied = None;
    let refusal = until(&mut node, &mut [one, two, three], refused_in).await;
    assert_eq!(refusal, Refusal::Address);
    until(&mut node, &mut [one, two, three], |event| {
        if let SwarmEvent::Behaviour(Event::Denied { refusal, count, limit, prefix }) = event {
            denied = Some((*refusal, *count, *limit, prefix.map(|prefix| prefix.to_string())));
        }
        denied.clone()
    })
    .await;
    assert_eq!(denied, Some((Refusal::Address, 1, 2, Some("127.0.0.1/32".to_owned()))));

    // Who is exempt is let in all the same.
    node.behaviour_mut().exempt(*three.local_peer_id());
    dial(three, local, &address);
    assert_eq!(until(&mut node, &mut [one, two, three], established).await, *three.local_peer_id());
    node.disconnect_peer_id(*three.local_peer_id()).unwrap();
    until(&mut node, &mut [one, two, three], closed).await;
    node.behaviour_mut().unexempt(three.local_peer_id());

    one.disconnect_peer_id(local).unwrap();
    until(&mut node, &mut [one, two, three], closed).await;
    dial(three, local, &address);
    assert_eq!(until(&mut node, &mut [one, two, three], established).await, *three.local_peer_id());
}

#[tokio::test]
async fn places_for_those_that_we_dial_stay_free() {
    // Two of four are for inbound connections.
    let (mut node, address) = node(limits(Limits::with_places(4))).await;
    let local = *node.local_peer_id();
    let mut others = Vec::new();
    for _ in 0..4 {
        others.push(self::node(Config::default()).await.0);
    }
    let [one, two, three, four] = others.as_mut_slice() else { unreachable!("there are four") };
    one.connect(&mut node).await;
    two.connect(&mut node).await;
    dial(three, local, &address);
    assert_eq!(until(&mut node, &mut [one, two, three, four], refused_in).await, Refusal::InboundPlaces);
    for other in [three, four] {
        let at = other.external_addresses().next().unwrap().clone();
        dial(&mut node, *other.local_peer_id(), &at);
        assert_eq!(until(&mut node, &mut [one, two, other], established).await, *other.local_peer_id());
    }
    let places = node.behaviour().usage().into_iter().find(|usage| usage.limit == Refusal::Places).unwrap();
    assert_eq!((places.used, places.allowed), (4, 4));
}

/// A connection that never says a word.
async fn stall(from: &str, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    socket.connect(to).await.unwrap()
}

#[tokio::test]
async fn stalled_handshakes_of_one_address_do_not_lock_others_out() {
    let few =
        Limits { pending: 8, pending_per_private_address: 3, pending_per_private_network: 6, ..Limits::default() };
    let (mut node, address) = node(limits(few)).await;
    let local = *node.local_peer_id();
    let port = address.iter().find_map(|part| match part {
        Protocol::Tcp(port) => Some(port),
        _ => None,
    });
    let to = SocketAddr::new([127, 0, 0, 1].into(), port.unwrap());
    let mut silent = Vec::new();
    for _ in 0..3 {
        silent.push(stall("127.0.0.2", to).await);
        let knocked = |event: &SwarmEvent<Event>| matches!(event, SwarmEvent::IncomingConnection { .. }).then_some(());
        until(&mut node, &mut [], knocked).await;
    }
    silent.push(stall("127.0.0.2", to).await);
    assert_eq!(until(&mut node, &mut [], refused_in).await, Refusal::PendingAddress);

    let (mut honest, _) = self::node(Config::default()).await;
    dial(&mut honest, local, &address);
    assert_eq!(until(&mut node, &mut [&mut honest], established).await, *honest.local_peer_id());

    // A stalled one that goes gives its place back.
    let pending = |node: &Swarm<Behaviour>| {
        node.behaviour().usage().into_iter().find(|usage| usage.limit == Refusal::Pending).unwrap().used
    };
    assert_eq!(pending(&node), 3);
    silent.clear();
    let mut over = 0;
    until(&mut node, &mut [&mut honest], |event| {
        over += usize::from(matches!(event, SwarmEvent::IncomingConnectionError { .. }));
        (over == 3).then_some(())
    })
    .await;
    assert_eq!(pending(&node), 0);
}
