use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::StreamProtocol;
use libp2p::request_response::{self, Message, ProtocolSupport};
use rendezvous_client::{FaultKind, PROTOCOL};

use super::*;

/// Reads to the end and writes the bytes that it is given.
#[derive(Clone, Default)]
struct Raw;

type Hostile = Swarm<request_response::Behaviour<Raw>>;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        io.read_to_end(&mut bytes).await?;
        Ok(bytes)
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
    ) -> io::Result<Vec<u8>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        _: &mut T,
        _: Vec<u8>,
    ) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn write_response<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
    }
}

/// With its length in front.
fn framed(message: Vec<u8>) -> Vec<u8> {
    [varint(message.len() as u64), message].concat()
}

async fn pair(config: Config) -> (Swarm<Behaviour>, Hostile, PeerId) {
    let mut server = Swarm::new_ephemeral_tokio(|_| {
        request_response::Behaviour::new([(PROTOCOL, ProtocolSupport::Inbound)], request_response::Config::default())
    });
    server.listen().with_memory_addr_external().await;
    let mut client = client_with(config).await;
    client.connect(&mut server).await;
    let seed = *server.local_peer_id();
    (client, server, seed)
}

/// What a client says about one answer, up to the event that ends the question.
async fn answered(client: &mut Swarm<Behaviour>, server: &mut Hostile, answer: &[u8]) -> Vec<Event> {
    let mut events: Vec<Event> = Vec::new();
    let ended = async {
        while events.last().is_none_or(|event| matches!(event, Event::Fault { .. })) {
            tokio::select! {
                event = client.next_behaviour_event() => events.push(event),
                event = server.next_behaviour_event() => {
                    if let request_response::Event::Message { message: Message::Request { channel, .. }, .. } = event {
                        let _ = server.behaviour_mut().send_response(channel, answer.to_vec());
                    }
                }
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), ended).await.expect("an end of the question");
    events
}

async fn to_register(answer: Vec<u8>) -> (PeerId, Vec<Event>) {
    let (mut client, mut server, seed) = pair(Config::default()).await;
    client.behaviour_mut().register(NAMESPACE, seed, Some(120)).unwrap();
    (seed, answered(&mut client, &mut server, &answer).await)
}

async fn to_discover(limit: u64, answer: Vec<u8>) -> (PeerId, Vec<Event>) {
    let (mut client, mut server, seed) = pair(Config::default()).await;
    client.behaviour_mut().discover(NAMESPACE, None, limit, seed);
    (seed, answered(&mut client, &mut server, &answer).await)
}

fn listed(events: &[Event]) -> &[(PeerId, Vec<Multiaddr>)] {
    match events.last() {
        Some(Event::Discovered { registrations, .. }) => registrations,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_eternal_registration_lasts_a_day() {
    let (peer, events) = to_register(framed(registered(u64::MAX))).await;
    assert_eq!(events, [Event::Registered { peer, ttl: 86_400 }]);
}

#[tokio::test]
async fn an_eternal_entry_is_an_entry() {
    let entry = registration(NAMESPACE, &record(&key(1), vec![address()]), u64::MAX);
    let (_, events) = to_discover(500, framed(page(&[entry]))).await;
    assert_eq!(events.len(), 1);
    assert_eq!(listed(&events), [(peer(1), vec![address()])]);
}

#[tokio::test]
async fn an_answer_of_another_type_is_a_fault() {
    let requests = [
        [number(1, 0), bytes(2, &registration(NAMESPACE, &record(&key(1), vec![address()]), 120))].concat(),
        [number(1, 2), bytes(4, &bytes(1, NAMESPACE.as_bytes()))].concat(),
        [number(1, 3), bytes(5, &bytes(1, NAMESPACE.as_bytes()))].concat(),
        number(1, 77),
    ];
    for request in requests.iter().cloned().chain([page(&[])]) {
        let (peer, events) = to_register(framed(request)).await;
        let kind = FaultKind::WrongMessage;
        assert_eq!(events, [Event::Fault { peer, kind }, Event::RegisterFailed { peer, refused: false }]);
    }
    for request in requests.into_iter().chain([registered(120)]) {
        let (peer, events) = to_discover(500, framed(request)).await;
        assert_eq!(events, [Event::Fault { peer, kind: FaultKind::WrongMessage }, Event::DiscoverFailed { peer }]);
    }
}

#[tokio::test]
async fn garbage_is_a_fault() {
    let long_cookie = [number(1, 4), bytes(6, &[bytes(2, &[7; 513]), number(3, 0)].concat())].concat();
    let garbage = [framed(vec![]), framed(vec![0xff; 100]), framed(number(1, 4)), framed(long_cookie)];
    for answer in garbage {
        let (peer, events) = to_discover(500, answer).await;
        assert_eq!(events, [Event::Fault { peer, kind: FaultKind::Malformed }, Event::DiscoverFailed { peer }]);
    }
    let (peer, events) = to_register(framed([number(1, 1), bytes(3, &number(1, 0))].concat())).await;
    let kind = FaultKind::Malformed;
    assert_eq!(events, [Event::Fault { peer, kind }, Event::RegisterFailed { peer, refused: false }]);
}

#[tokio::test]
async fn an_answer_that_ends_early_is_a_failure() {
    for answer in [vec![], vec![0x80], varint(1024 * 1024), varint(50)] {
        let (peer, events) = to_discover(500, answer).await;
        assert_eq!(events, [Event::DiscoverFailed { peer }]);
    }
}

#[tokio::test]
async fn of_too_many_registrations_the_first_ones_count() {
    let short: Multiaddr = "/memory/1".parse().unwrap();
    let mut entry = registration("x", &[], 1);
    entry.truncate(3);
    let good = registration(NAMESPACE, &record(&key(1), vec![short]), 120);
    // As many of ours as fit beside the rest, so that the frame keeps its bound.
    let list: Vec<Vec<u8>> = std::iter::repeat_n(good, 600).chain(std::iter::repeat_n(entry, 9_400)).collect();
    let answer = framed(page(&list));
    for (asked, taken) in [(500, 500), (u64::MAX, 500), (10, 10)] {
        let (peer, events) = to_discover(asked, answer.clone()).await;
        assert_eq!(events[0], Event::Fault { peer, kind: FaultKind::OversizeList });
        assert_eq!(events.len(), 2);
        assert_eq!(listed(&events).len(), taken);
    }
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_nobodys_fault() {
    // One byte more than a message may have, though only announced; so long that the length itself has no end.
    for answer in [varint(1024 * 1024 + 1), varint(u64::MAX), vec![0xff; 100]] {
        let (peer, events) = to_discover(500, answer).await;
        assert_eq!(events, [Event::DiscoverFailed { peer }]);
    }
}

#[tokio::test]
async fn a_record_that_is_too_long_is_left_out_without_blame() {
    let (huge, whole) = (record(&key(3), vec![address(); 2_000]), record(&key(1), vec![address()]));
    let list = [registration(NAMESPACE, &huge, 120), registration(NAMESPACE, &whole, 120)];
    let (_, events) = to_discover(500, framed(page(&list))).await;
    assert!(!events.iter().any(|event| matches!(event, Event::Fault { .. })), "{events:?}");
    assert_eq!(listed(&events), [(peer(1), vec![address()])]);
}

#[tokio::test]
async fn whom_nobody_signed_for_is_dropped() {
    let whole = record(&key(1), vec![address()]);
    let mut changed = whole.clone();
    let last = changed.len() - 1;
    changed[last] ^= 1;
    // A record that names the peer 1, in an envelope of the peer 2.
    let stolen = {
        let payload = [bytes(1, &peer(1).to_bytes()), number(2, 1)].concat();
        let domain = "libp2p-routing-state".to_owned();
        let kind = b"/libp2p/routing-state-record".to_vec();
        libp2p::core::SignedEnvelope::new(&key(2), domain, kind, payload).unwrap().into_protobuf_encoding()
    };
    for bad in [changed, stolen, vec![], vec![0xff; 50]] {
        let list = [registration(NAMESPACE, &bad, 120), registration(NAMESPACE, &whole, 120)];
        let (seed, events) = to_discover(500, framed(page(&list))).await;
        assert_eq!(events[0], Event::Fault { peer: seed, kind: FaultKind::BadRecord });
        assert_eq!(listed(&events), [(peer(1), vec![address()])]);
    }
}

#[tokio::test]
async fn another_namespace_is_dropped() {
    let list = [registration("other", &record(&key(1), vec![address()]), 120)];
    let (peer, events) = to_discover(500, framed(page(&list))).await;
    assert_eq!(events[0], Event::Fault { peer, kind: FaultKind::ForeignNamespace });
    assert_eq!(listed(&events), []);
}

#[tokio::test]
async fn addresses_are_few_and_short() {
    let long: Multiaddr = format!("/dns4/{}/tcp/1", "x".repeat(260)).parse().unwrap();
    let many = std::iter::once(long).chain(std::iter::repeat_n(address(), 30)).collect();
    let list = [registration(NAMESPACE, &record(&key(1), many), 120)];
    let (_, events) = to_discover(500, framed(page(&list))).await;
    assert_eq!(listed(&events), [(peer(1), vec![address(); 16])]);
}

#[tokio::test]
async fn a_seed_that_never_answers_costs_a_bounded_number_of_questions() {
    let config = Config { max_outstanding: 4, request_timeout: Duration::from_millis(300), ..Config::default() };
    let (mut client, mut server, seed) = pair(config).await;
    for _ in 0..10 {
        client.behaviour_mut().discover(NAMESPACE, None, 10, seed);
    }
    let mut held = Vec::new();
    let mut failed = 0;
    while failed < 10 {
        tokio::select! {
            event = client.next_behaviour_event() => {
                assert_eq!(event, Event::DiscoverFailed { peer: seed });
                failed += 1;
            }
            event = server.next_behaviour_event() => {
                if let request_response::Event::Message { message: Message::Request { channel, .. }, .. } = event {
                    assert!(failed >= 6, "those without a place fail at once");
                    held.push(channel);
                }
            }
        }
    }
    assert!(held.len() <= 4);
    // The places are free again.
    client.behaviour_mut().discover(NAMESPACE, None, 10, seed);
    let events = answered(&mut client, &mut server, &framed(page(&[]))).await;
    assert_eq!(listed(&events), []);
}

#[tokio::test]
async fn an_answer_to_unregister_is_not_read() {
    let (mut client, mut server, seed) = pair(Config::default()).await;
    client.behaviour_mut().unregister(NAMESPACE, seed);
    client.behaviour_mut().discover(NAMESPACE, None, 10, seed);
    let events = answered(&mut client, &mut server, &framed(page(&[]))).await;
    assert_eq!(events.len(), 1);
    assert_eq!(listed(&events), []);
}
