//! A libp2p swarm in a task of its own: greets with a signed card, answers probes, and beyond that says what it is told.

use std::error::Error;
use std::io;
use std::time::Duration;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, StreamExt};
use libp2p::core::PeerRecord;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::request_response::{self, Message, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, noise, ping, tcp, yamux};
use liveness::protocol::{Request, Response};
use peer_exchange::{Card, Role, SignedCard};
use tokio::sync::{mpsc, oneshot};

const RENDEZVOUS: StreamProtocol = StreamProtocol::new("/rendezvous/1.0.0");

/// Registrations on one page of a list.
const PAGE: usize = 500;

/// What stands in a cookie before the number of the next page.
const COOKIE: &[u8] = b"page-";

type Failure = Box<dyn Error>;

/// What came of what was said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// These bytes.
    Answer(Vec<u8>),
    /// There is no link any more.
    Cut,
}

/// The handle to the task, which ends when it is dropped.
pub(super) struct Foe {
    pub(super) name: String,
    pub(super) peer: PeerId,
    pub(super) key: Keypair,
    orders: mpsc::Sender<Order>,
}

enum Order {
    Greet(Multiaddr, oneshot::Sender<Result<(), String>>),
    Say(PeerId, Vec<u8>, oneshot::Sender<Said>),
    Listen(oneshot::Sender<Multiaddr>),
}

impl Foe {
    /// Somebody with that nickname, whose key has 32 times that secret byte. With `names` it plays a seed, which names so
    /// many at whose address nobody is.
    pub(super) fn new(name: &str, secret: u8, names: Option<usize>) -> Result<Self, Failure> {
        let key = Keypair::ed25519_from_bytes([secret; 32])?;
        let card = Card {
            peer: key.public().to_peer_id(),
            name: name.to_owned(),
            team: "foes".to_owned(),
            role: if names.is_some() { Role::Seed } else { Role::Peer },
            addresses: Vec::new(),
            boot: 1,
            revision: 1,
            version: "foe/1".to_owned(),
        };
        let all = All {
            hello: peer_exchange::Behaviour::new(SignedCard::sign(&key, card)?, peer_exchange::Config::default(), 1),
            ping: ping::Behaviour::default(),
            talk: request_response::Behaviour::new(
                [(liveness::PROTOCOL, ProtocolSupport::Full)],
                request_response::Config::default(),
            ),
            lists: request_response::Behaviour::new(
                [(RENDEZVOUS, ProtocolSupport::Inbound)],
                request_response::Config::default(),
            ),
        };
        let swarm = libp2p::SwarmBuilder::with_existing_identity(key.clone())
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|_| all)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(60)))
            .build();
        let pages = names.map(pages).transpose()?.unwrap_or_default();
        let (orders, todo) = mpsc::channel(8);
        tokio::spawn(Task { swarm, pages, greeting: None, saying: None, listening: None }.run(todo));
        Ok(Self { name: name.to_owned(), peer: key.public().to_peer_id(), key, orders })
    }

    /// Dial and exchange hellos. An error when the other side does not want it.
    pub(super) async fn greet(&self, address: &str) -> Result<(), Failure> {
        let address: Multiaddr = address.parse()?;
        let (done, told) = oneshot::channel();
        self.order(Order::Greet(address, done)).await?;
        Ok(tokio::time::timeout(Duration::from_secs(10), told).await???)
    }

    /// Send bytes as a question of `/althing/liveness/1` and wait for what comes back.
    pub(super) async fn say(&self, address: &str, bytes: Vec<u8>) -> Result<Said, Failure> {
        let address: Multiaddr = address.parse()?;
        let Some(Protocol::P2p(peer)) = address.iter().last() else { return Err("an address without a PeerId".into()) };
        let (done, told) = oneshot::channel();
        self.order(Order::Say(peer, bytes, done)).await?;
        Ok(tokio::time::timeout(Duration::from_secs(20), told).await??)
    }

    /// Listen on a free port; the whole address.
    pub(super) async fn listen(&self) -> Result<String, Failure> {
        let (done, told) = oneshot::channel();
        self.order(Order::Listen(done)).await?;
        Ok(told.await?.with(Protocol::P2p(self.peer)).to_string())
    }

    async fn order(&self, order: Order) -> Result<(), Failure> {
        self.orders.send(order).await.map_err(|_| "the foe's task has ended".into())
    }
}

/// Everything it speaks.
#[derive(NetworkBehaviour)]
struct All {
    hello: peer_exchange::Behaviour,
    ping: ping::Behaviour,
    talk: request_response::Behaviour<Raw>,
    lists: request_response::Behaviour<Raw>,
}

struct Task {
    swarm: Swarm<All>,
    pages: Vec<Vec<u8>>,
    greeting: Option<oneshot::Sender<Result<(), String>>>,
    saying: Option<(OutboundRequestId, oneshot::Sender<Said>)>,
    listening: Option<oneshot::Sender<Multiaddr>>,
}

impl Task {
    async fn run(mut self, mut orders: mpsc::Receiver<Order>) {
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => return,
                },
                event = self.swarm.select_next_some() => self.on_event(event),
            }
        }
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Greet(address, done) => match self.swarm.dial(address) {
                Ok(()) => self.greeting = Some(done),
                Err(error) => drop(done.send(Err(error.to_string()))),
            },
            Order::Say(peer, bytes, done) if self.swarm.is_connected(&peer) => {
                let id = self.swarm.behaviour_mut().talk.send_request(&peer, bytes);
                self.saying = Some((id, done));
            }
            Order::Say(_, _, done) => drop(done.send(Said::Cut)),
            Order::Listen(done) => {
                let free = Multiaddr::empty().with(Protocol::Ip4([127, 0, 0, 1].into())).with(Protocol::Tcp(0));
                if self.swarm.listen_on(free).is_ok() {
                    self.listening = Some(done);
                }
            }
        }
    }

    fn greeted(&mut self, how: Result<(), String>) {
        if let Some(done) = self.greeting.take() {
            let _ = done.send(how);
        }
    }

    fn on_event(&mut self, event: SwarmEvent<AllEvent>) {
        match event {
            SwarmEvent::NewListenAddr { address, .. } => {
                if let Some(done) = self.listening.take() {
                    let _ = done.send(address);
                }
            }
            SwarmEvent::OutgoingConnectionError { error, .. } => self.greeted(Err(error.to_string())),
            SwarmEvent::ConnectionClosed { .. } => self.greeted(Err("closed before the hello".into())),
            SwarmEvent::Behaviour(AllEvent::Hello(event)) => match event {
                peer_exchange::Event::Up { .. } => self.greeted(Ok(())),
                peer_exchange::Event::Asked { token, .. } => self.swarm.behaviour_mut().hello.answer(token, Vec::new()),
                _ => {}
            },
            SwarmEvent::Behaviour(AllEvent::Talk(event)) => self.on_talk(event),
            SwarmEvent::Behaviour(AllEvent::Lists(request_response::Event::Message {
                message: Message::Request { request, channel, .. },
                ..
            })) => self.on_lists(&request, channel),
            _ => {}
        }
    }

    fn on_talk(&mut self, event: request_response::Event<Vec<u8>, Vec<u8>>) {
        use request_response::Event;
        let (id, said) = match event {
            Event::Message { message: Message::Request { request, channel, .. }, .. } => {
                if let Request::Probe { sent_ms, incarnation, .. } = Request::decode(&request) {
                    let answer =
                        Response::Alive { received_ms: sent_ms, sent_ms, incarnation, statement: None }.encode();
                    let _ = self.swarm.behaviour_mut().talk.send_response(channel, answer);
                }
                return;
            }
            Event::Message { message: Message::Response { request_id, response }, .. } => {
                (request_id, Said::Answer(response))
            }
            Event::OutboundFailure { request_id, .. } => (request_id, Said::Cut),
            _ => return,
        };
        if let Some((_, done)) = self.saying.take_if(|(asked, _)| *asked == id) {
            let _ = done.send(said);
        }
    }

    /// As a seed: everybody may register, and everybody is given the list.
    fn on_lists(&mut self, request: &[u8], channel: ResponseChannel<Vec<u8>>) {
        // Behind the length stands the type, which is field 1.
        let begin = request.iter().position(|byte| *byte < 0x80).map_or(0, |last| last + 1);
        let answer = match request.get(begin..begin + 2) {
            Some([8, 0]) => [number(1, 1), bytes(3, &[number(1, 0), number(3, 120)].concat())].concat(),
            Some([8, 3]) => {
                let behind = request.windows(COOKIE.len()).position(|window| window == COOKIE);
                let page = behind.and_then(|at| request.get(at + COOKIE.len())).map_or(0, |page| usize::from(*page));
                let next = u8::try_from(page + 1).unwrap_or(u8::MAX);
                let cookie = bytes(2, &[COOKIE, &[next]].concat());
                let list = self.pages.get(page).cloned().unwrap_or_default();
                [number(1, 4), bytes(6, &[list, cookie, number(3, 0)].concat())].concat()
            }
            _ => return,
        };
        let framed = [varint(answer.len() as u64), answer].concat();
        let _ = self.swarm.behaviour_mut().lists.send_response(channel, framed);
    }
}

/// Pages of a list of so many, each of whom has signed for an address where nobody is.
fn pages(names: usize) -> Result<Vec<Vec<u8>>, Failure> {
    let nowhere: Multiaddr = "/ip4/127.0.0.1/tcp/9".parse()?;
    let mut pages = vec![Vec::new(); names.div_ceil(PAGE)];
    for number_of_name in 0..names {
        let mut secret = [0x5a; 32];
        secret[..8].copy_from_slice(&(number_of_name as u64).to_be_bytes());
        let key = Keypair::ed25519_from_bytes(secret)?;
        let record = PeerRecord::new(&key, vec![nowhere.clone()])?.into_signed_envelope().into_protobuf_encoding();
        let registration = [bytes(1, b"althing"), bytes(2, &record), number(3, 120)].concat();
        pages[number_of_name / PAGE].extend(bytes(1, &registration));
    }
    Ok(pages)
}

/// One field of a protobuf message, which holds bytes.
fn bytes(field: u8, bytes: &[u8]) -> Vec<u8> {
    [&[field << 3 | 2][..], &varint(bytes.len() as u64), bytes].concat()
}

/// One field of a protobuf message, which holds a number.
fn number(field: u8, number: u64) -> Vec<u8> {
    [&[field << 3][..], &varint(number)].concat()
}

fn varint(mut number: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while number >= 128 {
        out.push((number % 128) as u8 | 128);
        number /= 128;
    }
    out.push(number as u8);
    out
}

/// Bytes as they are, each side ended by closing its direction.
#[derive(Clone, Default)]
struct Raw;

impl request_response::Codec for Raw {
    type Protocol = StreamProtocol;
    type Request = Vec<u8>;
    type Response = Vec<u8>;

    async fn read_request<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn read_response<T: AsyncRead + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
    ) -> io::Result<Vec<u8>> {
        read(io).await
    }

    async fn write_request<T: AsyncWrite + Unpin + Send>(
        &mut self,
        _: &StreamProtocol,
        io: &mut T,
        bytes: Vec<u8>,
    ) -> io::Result<()> {
        io.write_all(&bytes).await
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

async fn read<T: AsyncRead + Unpin + Send>(io: &mut T) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io.read_to_end(&mut bytes).await?;
    Ok(bytes)
}
