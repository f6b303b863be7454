//! One connection: a long-lived substream each way, frames out of a bounded queue, one frame in at a time.

use std::collections::VecDeque;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::swarm::handler::{ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound};
use libp2p::swarm::{ConnectionHandler, ConnectionHandlerEvent, Stream, StreamUpgradeError, SubstreamProtocol};
use libp2p::{PeerId, StreamProtocol};

use crate::card::{Goodbye, SignedCard};
use crate::fault::FaultKind;
use crate::protocol::{self, Frame, PROTOCOL, ReadError};

/// Most frames that wait to be written. When it is full the oldest question or answer is thrown away; there is at most
/// one hello, one goodbye and one refusal in it.
pub(crate) const MAX_QUEUED: usize = 64;

/// What a connection tells the behaviour.
#[derive(Debug)]
pub enum Message {
    /// A checked card of the remote itself.
    Hello(SignedCard),
    /// A checked goodbye of the remote itself.
    Goodbye(Goodbye),
    /// A question, an answer or a refusal, after the hello.
    Frame(Frame),
    /// The remote does not speak the protocol.
    Foreign,
    /// The remote misbehaved, and the connection goes on.
    Fault(FaultKind),
    /// The connection is of no use any more.
    Failed {
        /// When it is the remote's fault.
        fault: Option<FaultKind>,
        /// For people.
        reason: String,
    },
}

/// The handler of one connection. Its type is public because the swarm asks for it.
pub struct Handler {
    remote: PeerId,
    /// The latest card of the remote that was checked; the same bytes are not checked again.
    held: Option<SignedCard>,
    greeted: bool,
    /// Nothing is expected of this connection any more.
    over: bool,
    foreign: bool,
    timeout: Duration,
    queue: VecDeque<Frame>,
    outbound: Outbound,
    inbound: Option<Reading>,
    messages: VecDeque<Message>,
}

type Reading = BoxFuture<'static, (Stream, Result<Option<Frame>, ReadError>)>;

enum Outbound {
    Wanted,
    Requested,
    Idle(Stream),
    Writing(BoxFuture<'static, std::io::Result<Stream>>),
    Gone,
}

impl Handler {
    pub(crate) fn new(remote: PeerId, hello: Frame, held: Option<SignedCard>, timeout: Duration) -> Self {
        Self {
            remote,
            held,
            greeted: false,
            over: false,
            foreign: false,
            timeout,
            queue: VecDeque::from([hello]),
            outbound: Outbound::Wanted,
            inbound: None,
            messages: VecDeque::new(),
        }
    }

    fn enqueue(&mut self, frame: Frame) {
        if let Frame::Hello { .. } = frame
            && let Some(waiting) = self.queue.iter_mut().find(|waiting| matches!(waiting, Frame::Hello { .. }))
        {
            // Only the latest card matters.
            *waiting = frame;
            return;
        }
        let surplus = self.queue.len() >= MAX_QUEUED;
        let oldest = || self.queue.iter().position(|f| matches!(f, Frame::Ask { .. } | Frame::Answer { .. }));
        if let Some(oldest) = surplus.then(oldest).flatten() {
            self.queue.remove(oldest);
        }
        self.queue.push_back(frame);
    }

    fn fail(&mut self, fault: Option<FaultKind>, reason: String) {
        if !self.over {
            self.over = true;
            self.inbound = None;
            self.messages.push_back(Message::Failed { fault, reason });
        }
    }

    fn fault(&mut self, kind: FaultKind) {
        self.fail(Some(kind), kind.to_string());
    }

    fn read_on(&mut self, mut stream: Stream) {
        let reading = async move {
            let result = protocol::read(&mut stream).await;
            (stream, result)
        };
        self.inbound = Some(reading.boxed());
    }

    fn received(&mut self, frame: Frame) {
        match frame {
            Frame::Hello { card } => self.received_hello(&card),
            _ if !self.greeted => self.fault(FaultKind::MalformedFrame),
            Frame::Goodbye { proof } => match Goodbye::decode(&proof) {
                Ok(goodbye) if goodbye.peer() == self.remote => self.messages.push_back(Message::Goodbye(goodbye)),
                Ok(_) => self.fault(FaultKind::WrongPeer),
                Err(_) => self.fault(FaultKind::InvalidGoodbye),
            },
            Frame::Refused { .. } | Frame::Ask { .. } | Frame::Answer { .. } => {
                self.messages.push_back(Message::Frame(frame))
            }
        }
    }

    fn received_hello(&mut self, bytes: &[u8]) {
        let card = match &self.held {
            Some(held) if held.bytes() == bytes => held.clone(),
            _ => match SignedCard::decode(bytes) {
                Ok(card) if card.peer() == self.remote => card,
                Ok(_) => return self.fault(FaultKind::WrongPeer),
                Err(_) => return self.fault(FaultKind::InvalidCard),
            },
        };
        self.greeted = true;
        self.held = Some(card.clone());
        self.messages.push_back(Message::Hello(card));
    }

    /// Write what waits. `Ready` when there was progress.
    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match std::mem::replace(&mut self.outbound, Outbound::Gone) {
            Outbound::Idle(mut stream) => {
                let Some(frame) = self.queue.pop_front() else {
                    self.outbound = Outbound::Idle(stream);
                    return Poll::Pending;
                };
                let writing = async move { protocol::write(&mut stream, frame).await.map(|()| stream) };
                self.outbound = Outbound::Writing(writing.boxed());
                Poll::Ready(())
            }
            Outbound::Writing(mut writing) => match writing.poll_unpin(cx) {
                Poll::Ready(Ok(stream)) => {
                    self.outbound = Outbound::Idle(stream);
                    Poll::Ready(())
                }
                Poll::Ready(Err(error)) => {
                    self.fail(None, error.to_string());
                    Poll::Ready(())
                }
                Poll::Pending => {
                    self.outbound = Outbound::Writing(writing);
                    Poll::Pending
                }
            },
            other => {
                self.outbound = other;
                Poll::Pending
            }
        }
    }

    /// Read the next frame. `Ready` when there was progress.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(reading) = &mut self.inbound else { return Poll::Pending };
        let Poll::Ready((stream, result)) = reading.poll_unpin(cx) else { return Poll::Pending };
        self.inbound = None;
        match result {
            Ok(Some(frame)) => {
                self.read_on(stream);
                self.received(frame);
            }
            Ok(None) => self.fail(None, "the remote closed its stream".into()),
            Err(ReadError::Io(error)) => self.fail(None, error.to_string()),
            Err(ReadError::Fault(kind)) => self.fault(kind),
        }
        Poll::Ready(())
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Frame;
    type ToBehaviour = Message;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn connection_keep_alive(&self) -> bool {
        !self.foreign
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, (), Self::ToBehaviour>> {
        loop {
            // One frame at a time: nothing more is read while the behaviour has not taken this.
            if let Some(message) = self.messages.pop_front() {
                return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(message));
            }
            if matches!(self.outbound, Outbound::Wanted) {
                self.outbound = Outbound::Requested;
                let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ()).with_timeout(self.timeout);
                return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
            }
            if self.poll_outbound(cx).is_ready() || self.poll_inbound(cx).is_ready() {
                continue;
            }
            return Poll::Pending;
        }
    }

    fn on_behaviour_event(&mut self, frame: Frame) {
        if !self.over {
            self.enqueue(frame);
        }
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Self::InboundProtocol, Self::OutboundProtocol>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol: stream, .. }) => {
                if self.inbound.is_none() && !self.over {
                    self.read_on(stream);
                } else if !self.over && self.messages.len() < MAX_QUEUED {
                    self.messages.push_back(Message::Fault(FaultKind::SecondStream));
                }
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol: stream, .. }) => {
                self.outbound = Outbound::Idle(stream);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { error, .. }) => {
                self.outbound = Outbound::Gone;
                match error {
                    StreamUpgradeError::NegotiationFailed => {
                        self.over = true;
                        self.foreign = true;
                        self.inbound = None;
                        self.queue.clear();
                        self.messages.push_back(Message::Foreign);
                    }
                    StreamUpgradeError::Timeout => self.fail(None, "the remote does not negotiate".into()),
                    StreamUpgradeError::Io(error) => self.fail(None, error.to_string()),
                    StreamUpgradeError::Apply(never) => match never {},
                }
            }
            _ => {}
        }
    }
}
