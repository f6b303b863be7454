use std::collections::BTreeSet;

use libp2p::rendezvous::server;

use super::*;

async fn stock() -> Swarm<server::Behaviour> {
    let config = server::Config::default().with_min_ttl(60).with_max_ttl(3_600);
    let mut swarm = Swarm::new_ephemeral_tokio(|_| server::Behaviour::new(config));
    swarm.listen().with_memory_addr_external().await;
    swarm
}

/// A client that holds a registration at the server.
async fn registered(server: &mut Swarm<server::Behaviour>) -> Swarm<Behaviour> {
    let mut client = client().await;
    client.connect(server).await;
    let seed = *server.local_peer_id();
    client.behaviour_mut().register(NAMESPACE, seed, Some(120)).unwrap();
    assert_eq!(next(&mut client, server).await, Event::Registered { peer: seed, ttl: 120 });
    client
}

/// One page: who, and the cookie.
async fn discover(
    client: &mut Swarm<Behaviour>,
    server: &mut Swarm<server::Behaviour>,
    cookie: Option<rendezvous_client::Cookie>,
    limit: u64,
) -> (Vec<(PeerId, Vec<Multiaddr>)>, rendezvous_client::Cookie) {
    let seed = *server.local_peer_id();
    client.behaviour_mut().discover(NAMESPACE, cookie, limit, seed);
    match next(client, server).await {
        Event::Discovered { peer, registrations, cookie } if peer == seed => (registrations, cookie),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_registration_is_listed_with_its_addresses_and_may_be_renewed() {
    let mut server = stock().await;
    let mut client = registered(&mut server).await;
    let seed = *server.local_peer_id();
    let own = vec![(*client.local_peer_id(), client.external_addresses().cloned().collect::<Vec<_>>())];
    assert_eq!(discover(&mut client, &mut server, None, 10).await.0, own);

    client.add_external_address(address());
    client.behaviour_mut().register(NAMESPACE, seed, Some(600)).unwrap();
    assert_eq!(next(&mut client, &mut server).await, Event::Registered { peer: seed, ttl: 600 });
    let (listed, _) = discover(&mut client, &mut server, None, 10).await;
    assert_eq!(listed.len(), 1);
    assert!(listed[0].1.contains(&address()), "{listed:?}");
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let mut server = stock().await;
    let mut clients = Vec::new();
    for _ in 0..5 {
        clients.push(registered(&mut server).await);
    }
    let everybody: BTreeSet<PeerId> = clients.iter().map(|client| *client.local_peer_id()).collect();
    let mut reader = clients.pop().unwrap();
    let (mut seen, mut cookie, mut sizes) = (BTreeSet::new(), None, Vec::new());
    for _ in 0..4 {
        let (registrations, next) = discover(&mut reader, &mut server, cookie, 2).await;
        sizes.push(registrations.len());
        seen.extend(registrations.into_iter().map(|(peer, _)| peer));
        cookie = Some(next);
    }
    assert_eq!(sizes, [2, 2, 1, 0]);
    assert_eq!(seen, everybody);
}

#[tokio::test]
async fn whoever_unregisters_is_listed_no_more_and_hears_nothing_of_it() {
    let mut server = stock().await;
    let mut client = registered(&mut server).await;
    let mut reader = registered(&mut server).await;
    let seed = *server.local_peer_id();
    client.behaviour_mut().unregister(NAMESPACE, seed);
    // The answer to a later question is the client's next event.
    let gone = async {
        loop {
            tokio::select! {
                event = server.select_next_some() => {
                    if let SwarmEvent::Behaviour(server::Event::PeerUnregistered { peer, .. }) = event { return peer }
                }
                event = client.next_behaviour_event() => panic!("{event:?}"),
            }
        }
    };
    let gone = tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
    assert_eq!(gone, *client.local_peer_id());
    let (listed, _) = discover(&mut reader, &mut server, None, 10).await;
    assert_eq!(listed.into_iter().map(|(peer, _)| peer).collect::<Vec<_>>(), [*reader.local_peer_id()]);
    assert_eq!(discover(&mut client, &mut server, None, 10).await.0.len(), 1);
}

#[tokio::test]
async fn a_refusal_is_told_as_one() {
    let mut server = stock().await;
    let mut client = client().await;
    client.connect(&mut server).await;
    let seed = *server.local_peer_id();
    for ttl in [59, 3_601, u64::MAX] {
        client.behaviour_mut().register(NAMESPACE, seed, Some(ttl)).unwrap();
        assert_eq!(next(&mut client, &mut server).await, Event::RegisterFailed { peer: seed, refused: true });
    }
    // Its cookie is of another namespace.
    let (_, cookie) = discover(&mut client, &mut server, None, 10).await;
    client.behaviour_mut().discover("other", Some(cookie), 10, seed);
    assert_eq!(next(&mut client, &mut server).await, Event::DiscoverFailed { peer: seed });
}

#[tokio::test]
async fn nothing_is_registered_without_an_address() {
    let mut client = Swarm::new_ephemeral_tokio(Behaviour::new);
    assert!(client.behaviour_mut().register(NAMESPACE, peer(1), None).is_err());
}

#[tokio::test]
async fn without_a_connection_a_question_fails_and_nobody_is_dialled() {
    let mut client = client().await;
    client.behaviour_mut().register(NAMESPACE, peer(1), None).unwrap();
    client.behaviour_mut().unregister(NAMESPACE, peer(1));
    client.behaviour_mut().discover(NAMESPACE, None, 10, peer(1));
    let mut events = Vec::new();
    while events.len() < 2 {
        match client.select_next_some().await {
            SwarmEvent::Behaviour(event) => events.push(event),
            SwarmEvent::Dialing { .. } => panic!("it dialled"),
            _ => {}
        }
    }
    let failed = [Event::RegisterFailed { peer: peer(1), refused: false }, Event::DiscoverFailed { peer: peer(1) }];
    assert_eq!(events, failed);
}
