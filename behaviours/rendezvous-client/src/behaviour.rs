//! The shell: request-response underneath, and which question an answer belongs to.

use std::collections::{HashMap, VecDeque};
use std::iter;
use std::task::{Context, Poll};

use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, PeerRecord};
use libp2p::identity::{Keypair, SigningError};
use libp2p::request_response::{self, OutboundRequestId, ProtocolSupport};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, ExternalAddresses, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::config::Config;
use crate::protocol::codec::Codec;
use crate::protocol::{Cookie, FaultKind, PROTOCOL, Request, Response};

type Inner = request_response::Behaviour<Codec>;

/// Why a registration cannot even be asked for.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// The Swarm has no external address that others could be told.
    #[error("this node has no address that others could be told")]
    NoExternalAddresses,
    /// The own key does not sign.
    #[error("the own addresses cannot be signed")]
    Signing(#[from] SigningError),
}

/// What came of a question. Each [`Behaviour::register`] that returned `Ok` and each [`Behaviour::discover`] has exactly
/// one of the first four.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The seed holds the registration.
    Registered {
        /// The seed.
        peer: PeerId,
        /// For so many seconds from now; 0 to [`MAX_TTL`](crate::protocol::MAX_TTL), so the caller wants a lower bound of its own.
        ttl: u64,
    },
    /// The seed does not hold the registration.
    RegisterFailed {
        /// The seed.
        peer: PeerId,
        /// It said no. Otherwise it said nothing, or nonsense, or that it cannot at the moment.
        refused: bool,
    },
    /// A page of the seed's list.
    Discovered {
        /// The seed.
        peer: PeerId,
        /// Who is registered, and where: signed by themselves, of the namespace asked for, at most `limit`, and at most
        /// [`MAX_ADDRESSES`](crate::protocol::MAX_ADDRESSES) each, perhaps none.
        registrations: Vec<(PeerId, Vec<Multiaddr>)>,
        /// Where the next page begins.
        cookie: Cookie,
    },
    /// The seed gave no page.
    DiscoverFailed {
        /// The seed.
        peer: PeerId,
    },
    /// A seed broke the protocol. What came of the question is told besides.
    Fault {
        /// Who.
        peer: PeerId,
        /// How.
        kind: FaultKind,
    },
}

/// What a pending request was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    Register,
    Unregister,
    Discover,
}

/// The asking side of rendezvous. It never dials, keeps nothing of an answer, and asks nothing by itself: to renew a
/// registration, or to tell new addresses, is the caller's decision.
pub struct Behaviour {
    inner: Inner,
    keypair: Keypair,
    config: Config,
    external_addresses: ExternalAddresses,
    /// At most [`Config::max_outstanding`].
    pending: HashMap<OutboundRequestId, (PeerId, Purpose)>,
    /// Drained by each poll before anything is added to it there.
    events: VecDeque<Event>,
}

impl Behaviour {
    /// With default settings, for the node that has this key.
    pub fn new(keypair: Keypair) -> Self {
        Self::with_config(keypair, Config::default())
    }

    /// With these settings, for the node that has this key.
    pub fn with_config(keypair: Keypair, config: Config) -> Self {
        let settings = request_response::Config::default().with_request_timeout(config.request_timeout);
        Self {
            inner: Inner::with_codec(Codec::default(), iter::once((PROTOCOL, ProtocolSupport::Outbound)), settings),
            keypair,
            config,
            external_addresses: ExternalAddresses::default(),
            pending: HashMap::new(),
            events: VecDeque::new(),
        }
    }

    /// Ask a connected seed to list our external addresses for so many seconds, or for as long as it likes. The
    /// namespace has at most 255 bytes, or it is refused.
    ///
    /// # Errors
    ///
    /// When there is nothing to register; then no event follows.
    pub fn register(&mut self, namespace: &str, peer: PeerId, ttl: Option<u64>) -> Result<(), RegisterError> {
        let addresses: Vec<Multiaddr> = self.external_addresses.iter().cloned().collect();
        if addresses.is_empty() {
            return Err(RegisterError::NoExternalAddresses);
        }
        let record = PeerRecord::new(&self.keypair, addresses)?.into_signed_envelope().into_protobuf_encoding();
        self.send(peer, Purpose::Register, Request::Register { namespace: namespace.to_owned(), record, ttl });
        Ok(())
    }

    /// Ask a connected seed to list us no more. There is no answer, and no event whatever becomes of it.
    pub fn unregister(&mut self, namespace: &str, peer: PeerId) {
        self.send(peer, Purpose::Unregister, Request::Unregister { namespace: namespace.to_owned() });
    }

    /// Ask a connected seed for at most `limit` registrations, and not for more than [`Config::max_registrations`]: the
    /// first ones, or with a cookie those that were not in the pages before it.
    pub fn discover(&mut self, namespace: &str, cookie: Option<Cookie>, limit: u64, peer: PeerId) {
        let limit = limit.min(self.config.max_registrations);
        self.send(peer, Purpose::Discover, Request::Discover { namespace: namespace.to_owned(), cookie, limit });
    }

    fn send(&mut self, peer: PeerId, purpose: Purpose, request: Request) {
        // Without a connection the inner protocol would dial, from a port and to addresses of its own choice.
        if self.pending.len() >= self.config.max_outstanding || !self.inner.is_connected(&peer) {
            self.failed(peer, purpose, false);
            return;
        }
        let id = self.inner.send_request(&peer, request);
        self.pending.insert(id, (peer, purpose));
    }

    fn failed(&mut self, peer: PeerId, purpose: Purpose, refused: bool) {
        match purpose {
            Purpose::Register => self.events.push_back(Event::RegisterFailed { peer, refused }),
            Purpose::Discover => self.events.push_back(Event::DiscoverFailed { peer }),
            Purpose::Unregister => {}
        }
    }

    fn on_inner(&mut self, event: request_response::Event<Request, Response>) {
        let (id, response) = match event {
            request_response::Event::Message {
                message: request_response::Message::Response { request_id, response },
                ..
            } => (request_id, Some(response)),
            request_response::Event::OutboundFailure { request_id, .. } => (request_id, None),
            // Nothing is served, so nothing of this comes; if it does, it is not worth a node.
            request_response::Event::Message { message: request_response::Message::Request { .. }, .. }
            | request_response::Event::InboundFailure { .. }
            | request_response::Event::ResponseSent { .. } => return,
        };
        let Some((peer, purpose)) = self.pending.remove(&id) else { return };
        match (purpose, response) {
            (Purpose::Register, Some(Response::Registered { ttl })) => {
                self.events.push_back(Event::Registered { peer, ttl });
            }
            (Purpose::Discover, Some(Response::Discovered { registrations, cookie, faults })) => {
                self.events.extend(faults.into_iter().map(|kind| Event::Fault { peer, kind }));
                self.events.push_back(Event::Discovered { peer, registrations, cookie });
            }
            (_, Some(Response::Failed { refused })) => self.failed(peer, purpose, refused),
            (_, Some(Response::Nonsense(kind))) => {
                self.events.push_back(Event::Fault { peer, kind });
                self.failed(peer, purpose, false);
            }
            _ => self.failed(peer, purpose, false),
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = <Inner as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_inbound_connection(connection_id, peer, local_addr, remote_addr)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.inner.handle_established_outbound_connection(connection_id, peer, addr, role_override, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        self.external_addresses.on_swarm_event(&event);
        self.inner.on_swarm_event(event);
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        self.inner.on_connection_handler_event(peer_id, connection_id, event);
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Poll::Ready(ToSwarm::GenerateEvent(event));
            }
            match self.inner.poll(cx) {
                Poll::Ready(ToSwarm::GenerateEvent(event)) => self.on_inner(event),
                Poll::Ready(other) => {
                    return Poll::Ready(other.map_out(|_| unreachable!("events were taken above")));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
