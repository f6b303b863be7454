//! Which connection carries what. The stock protocol spreads requests over all connections to a peer; but a second one may
//! be full of files. So requests go over the first connection to a peer and no other, while there is one; answers go where
//! the request came from.
//!
//! Two instances of the stock protocol share the connections: one has the first connection to each peer, the other one
//! the rest, on which it serves the remote and asks only when a peer has nothing else.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::request_response::{self, OutboundRequestId, ProtocolSupport, ResponseChannel};
use libp2p::swarm::behaviour::ConnectionClosed;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId};

use crate::protocol::{Batch, MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES, PROTOCOL, Receipts};

type Stock = request_response::cbor::Behaviour<Batch, Receipts>;

/// One of the two instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    First,
    Rest,
}

/// Names a request of ours: the two instances count for themselves.
pub(crate) type Asked = (Lane, OutboundRequestId);

/// The stock protocol, over the first connection to each peer.
pub(crate) struct Lanes {
    first: Stock,
    rest: Stock,
    /// Whose a connection is, and who has it, from its handler to its end.
    connections: BTreeMap<ConnectionId, (PeerId, Lane)>,
}

impl Lanes {
    pub(crate) fn new(config: request_response::Config) -> Self {
        let stock = || {
            let codec = request_response::cbor::codec::Codec::default()
                .set_request_size_maximum(MAX_REQUEST_BYTES as u64)
                .set_response_size_maximum(MAX_RESPONSE_BYTES as u64);
            Stock::with_codec(codec, [(PROTOCOL, ProtocolSupport::Full)], config.clone())
        };
        Self { first: stock(), rest: stock(), connections: BTreeMap::new() }
    }

    /// Ask, if there is a connection.
    pub(crate) fn send_request(&mut self, peer: &PeerId, batch: Batch) -> Option<Asked> {
        if self.first.is_connected(peer) {
            Some((Lane::First, self.first.send_request(peer, batch)))
        } else if self.rest.is_connected(peer) {
            Some((Lane::Rest, self.rest.send_request(peer, batch)))
        } else {
            // The stock protocol would dial.
            None
        }
    }

    /// Answer; nothing happens when the connection is gone.
    pub(crate) fn send_response(&mut self, channel: ResponseChannel<Receipts>, receipts: Receipts) {
        // A channel leads to its connection, whichever instance it is handed to.
        let _ = self.first.send_response(channel, receipts);
    }

    /// Whose a new connection is.
    fn assign(&mut self, connection: ConnectionId, peer: PeerId) -> &mut Stock {
        let lane = match self.count(peer, Lane::First) {
            0 => Lane::First,
            _ => Lane::Rest,
        };
        self.connections.insert(connection, (peer, lane));
        self.stock(lane)
    }

    fn count(&self, peer: PeerId, lane: Lane) -> usize {
        self.connections.values().filter(|has| **has == (peer, lane)).count()
    }

    fn stock(&mut self, lane: Lane) -> &mut Stock {
        match lane {
            Lane::First => &mut self.first,
            Lane::Rest => &mut self.rest,
        }
    }
}

impl NetworkBehaviour for Lanes {
    type ConnectionHandler = <Stock as NetworkBehaviour>::ConnectionHandler;
    type ToSwarm = (Lane, request_response::Event<Batch, Receipts>);

    fn handle_established_inbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        local_addr: &Multiaddr,
        remote_addr: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let stock = self.assign(connection_id, peer);
        stock.handle_established_inbound_connection(connection_id, peer, local_addr, remote_addr)
    }

    fn handle_established_outbound_connection(
        &mut self,
        connection_id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role_override: Endpoint,
        port_use: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        let stock = self.assign(connection_id, peer);
        stock.handle_established_outbound_connection(connection_id, peer, addr, role_override, port_use)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        let of_connection = match &event {
            FromSwarm::ConnectionEstablished(event) => Some(event.connection_id),
            FromSwarm::ConnectionClosed(event) => Some(event.connection_id),
            FromSwarm::AddressChange(event) => Some(event.connection_id),
            _ => None,
        };
        let Some(connection) = of_connection else {
            // Of a connection that was refused after its handler had been made nothing else is heard.
            let refused = match &event {
                FromSwarm::DialFailure(event) => Some(event.connection_id),
                FromSwarm::ListenFailure(event) => Some(event.connection_id),
                _ => None,
            };
            refused.and_then(|connection| self.connections.remove(&connection));
            self.first.on_swarm_event(event);
            self.rest.on_swarm_event(event);
            return;
        };
        let Some(&(peer, lane)) = self.connections.get(&connection) else { return };
        match event {
            FromSwarm::ConnectionClosed(closed) => {
                self.connections.remove(&connection);
                // Each instance knows only of its own connections.
                let remaining_established = self.count(peer, lane);
                let closed = ConnectionClosed { remaining_established, ..closed };
                self.stock(lane).on_swarm_event(FromSwarm::ConnectionClosed(closed));
            }
            event => self.stock(lane).on_swarm_event(event),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer_id: PeerId,
        connection_id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        if let Some(&(_, lane)) = self.connections.get(&connection_id) {
            self.stock(lane).on_connection_handler_event(peer_id, connection_id, event);
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        for lane in [Lane::First, Lane::Rest] {
            if let Poll::Ready(action) = self.stock(lane).poll(cx) {
                return Poll::Ready(action.map_out(|event| (lane, event)));
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
    use libp2p::swarm::{Swarm, SwarmEvent};
    use libp2p_swarm_test::SwarmExt as _;

    use super::*;

    fn node() -> Swarm<Lanes> {
        Swarm::new_ephemeral_tokio(|_| Lanes::new(request_response::Config::default()))
    }

    /// Runs both until `b` has so many connections to `a`, and returns them in the order of opening.
    async fn connect(a: &mut Swarm<Lanes>, b: &mut Swarm<Lanes>, wanted: usize) -> Vec<ConnectionId> {
        let address = a.external_addresses().next().unwrap().clone();
        let mut opened = Vec::new();
        for _ in 0..wanted {
            let dial = DialOpts::peer_id(*a.local_peer_id()).condition(PeerCondition::Always);
            b.dial(dial.addresses(vec![address.clone()]).build()).unwrap();
            loop {
                tokio::select! {
                    _ = a.select_next_some() => {}
                    event = b.select_next_some() => {
                        if let SwarmEvent::ConnectionEstablished { connection_id, .. } = event {
                            opened.push(connection_id);
                            break;
                        }
                    }
                }
            }
        }
        opened
    }

    /// Has `asker` ask once, and returns the connection on which the answer came.
    async fn asked(asker: &mut Swarm<Lanes>, other: &mut Swarm<Lanes>) -> ConnectionId {
        let peer = *other.local_peer_id();
        let asked = asker.behaviour_mut().send_request(&peer, Batch { messages: Vec::new() }).unwrap();
        loop {
            tokio::select! {
                event = other.select_next_some() => {
                    if let SwarmEvent::Behaviour((_, request_response::Event::Message { message, .. })) = event
                        && let request_response::Message::Request { channel, .. } = message
                    {
                        other.behaviour_mut().send_response(channel, Receipts { receipts: Vec::new() });
                    }
                }
                event = asker.select_next_some() => {
                    if let SwarmEvent::Behaviour((lane, event)) = event
                        && let request_response::Event::Message { connection_id, message, .. } = event
                        && let request_response::Message::Response { request_id, .. } = message
                    {
                        assert_eq!((lane, request_id), asked);
                        return connection_id;
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn requests_keep_to_the_first_connection_while_there_is_one() {
        let (mut a, mut b) = (node(), node());
        a.listen().with_memory_addr_external().await;
        let opened = connect(&mut a, &mut b, 2).await;
        let mut used = Vec::new();
        for _ in 0..4 {
            used.push(asked(&mut b, &mut a).await);
            asked(&mut a, &mut b).await;
        }
        assert_eq!(used, vec![opened[0]; 4]);
        b.close_connection(opened[0]);
        while !matches!(b.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {}
        while !matches!(a.select_next_some().await, SwarmEvent::ConnectionClosed { .. }) {}
        assert_eq!(asked(&mut b, &mut a).await, opened[1]);
        let third = connect(&mut a, &mut b, 1).await;
        assert_eq!(asked(&mut b, &mut a).await, third[0], "the one that was second is still the second");
        asked(&mut a, &mut b).await;
    }
}
