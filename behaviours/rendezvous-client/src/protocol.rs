//! The wire format: what is asked, and what is believed of an answer. It implements the asking side of libp2p's
//! [rendezvous specification](https://github.com/libp2p/specs/blob/master/rendezvous/README.md).

use std::collections::BTreeSet;
use std::fmt;

use libp2p::core::{PeerRecord, SignedEnvelope};
use libp2p::{Multiaddr, PeerId, StreamProtocol};

use crate::protobuf::{Fields, Malformed, Writer};

pub mod codec;

/// The protocol's name.
pub const PROTOCOL: StreamProtocol = StreamProtocol::new("/rendezvous/1.0.0");

/// Longest message without its length in front, as the stock server has it.
pub const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// Longest time of life that is believed, in seconds: a day.
pub const MAX_TTL: u64 = 24 * 60 * 60;

/// Addresses of one registration; the rest of them is left out.
pub const MAX_ADDRESSES: usize = 16;

/// Longest address; a longer one is left out.
pub const MAX_ADDRESS_BYTES: usize = 256;

/// Longest signed record; a longer one is dropped unread. Relation: three times what [`MAX_ADDRESSES`] of
/// [`MAX_ADDRESS_BYTES`] need.
pub const MAX_RECORD_BYTES: usize = 16 * 1024;

/// Longest cookie. That of the stock server has 8 bytes and the namespace.
pub const MAX_COOKIE_BYTES: usize = 512;

// Message types, and the fields of `Message` that hold them.
const REGISTER: u64 = 0;
const REGISTER_RESPONSE: u64 = 1;
const UNREGISTER: u64 = 2;
const DISCOVER: u64 = 3;
const DISCOVER_RESPONSE: u64 = 4;

// Of `ResponseStatus`, those that make a difference here.
const OK: u64 = 0;
const E_UNAVAILABLE: u64 = 400;

/// Where the next page of a list begins. Only the seed that made it can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookie(Vec<u8>);

/// How a seed broke the protocol. It is reported once an answer and kind, never acted upon here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultKind {
    /// The answer is no rendezvous message, lacks what it must have, or is out of bounds.
    Malformed,
    /// The answer is of another type than the question calls for.
    WrongMessage,
    /// More registrations than were asked for; the first ones count.
    OversizeList,
    /// A registration whose record is not signed by the peer that it names; it was dropped.
    BadRecord,
    /// A registration of a namespace that was not asked for; it was dropped.
    ForeignNamespace,
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "rendezvous-malformed",
            Self::WrongMessage => "rendezvous-wrong-message",
            Self::OversizeList => "rendezvous-oversize-list",
            Self::BadRecord => "rendezvous-bad-record",
            Self::ForeignNamespace => "rendezvous-foreign-namespace",
        })
    }
}

/// What is asked.
#[derive(Clone, Debug)]
pub enum Request {
    /// List me.
    Register {
        /// Where; at most 255 bytes.
        namespace: String,
        /// A signed `PeerRecord` in its protobuf encoding.
        record: Vec<u8>,
        /// For so many seconds.
        ttl: Option<u64>,
    },
    /// List me no more.
    Unregister {
        /// Where.
        namespace: String,
    },
    /// Whom do you list?
    Discover {
        /// Where.
        namespace: String,
        /// From where on.
        cookie: Option<Cookie>,
        /// At most so many.
        limit: u64,
    },
}

/// What is believed of the answer.
#[derive(Debug)]
pub enum Response {
    /// The server lists us.
    Registered {
        /// For so many seconds, at most [`MAX_TTL`].
        ttl: u64,
    },
    /// The server said no.
    Failed {
        /// It does not want to; otherwise it cannot at the moment.
        refused: bool,
    },
    /// A page of the list.
    Discovered {
        /// Those that stand every check, at most as many as were asked for.
        registrations: Vec<(PeerId, Vec<Multiaddr>)>,
        /// Where the next page begins.
        cookie: Cookie,
        /// What was wrong with the others.
        faults: BTreeSet<FaultKind>,
    },
    /// Nothing of it is believed.
    Nonsense(FaultKind),
    /// None is due.
    Nothing,
}

/// What is read of a request to know which answers fit it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// A registration or a refusal.
    Registered,
    /// No answer.
    Nothing,
    /// A page or a refusal.
    Discovered {
        /// Of this namespace.
        namespace: String,
        /// With at most so many registrations.
        limit: u64,
    },
}

impl Request {
    /// The message without its length in front.
    pub fn encode(&self) -> Vec<u8> {
        let (kind, field, body) = match self {
            Self::Register { namespace, record, ttl } => {
                let body = Writer::default().bytes(1, namespace.as_bytes()).bytes(2, record);
                (REGISTER, 2, if let Some(ttl) = ttl { body.number(3, *ttl) } else { body })
            }
            Self::Unregister { namespace } => (UNREGISTER, 4, Writer::default().bytes(1, namespace.as_bytes())),
            Self::Discover { namespace, cookie, limit } => {
                let body = Writer::default().bytes(1, namespace.as_bytes()).number(2, *limit);
                (DISCOVER, 5, if let Some(Cookie(cookie)) = cookie { body.bytes(3, cookie) } else { body })
            }
        };
        Writer::default().number(1, kind).bytes(field, &body.finish()).finish()
    }

    /// What fits it as an answer.
    pub fn expects(&self) -> Expected {
        match self {
            Self::Register { .. } => Expected::Registered,
            Self::Unregister { .. } => Expected::Nothing,
            Self::Discover { namespace, limit, .. } => {
                Expected::Discovered { namespace: namespace.clone(), limit: *limit }
            }
        }
    }
}

impl Response {
    /// Read an answer to a question; whatever the bytes are, the cost is bounded by their number.
    pub fn decode(bytes: &[u8], expected: &Expected) -> Self {
        Self::try_decode(bytes, expected).unwrap_or(Self::Nonsense(FaultKind::Malformed))
    }

    fn try_decode(bytes: &[u8], expected: &Expected) -> Result<Self, Malformed> {
        let (mut kind, mut registered, mut discovered) = (None, None, None);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => kind = Some(value.number()?),
                (3, value) => registered = Some(value.bytes()?),
                (6, value) => discovered = Some(value.bytes()?),
                _ => {}
            }
        }
        match (kind.ok_or(Malformed)?, expected) {
            (REGISTER_RESPONSE, Expected::Registered) => decode_registered(registered.ok_or(Malformed)?),
            (DISCOVER_RESPONSE, Expected::Discovered { namespace, limit }) => {
                decode_discovered(discovered.ok_or(Malformed)?, namespace, *limit)
            }
            _ => Ok(Self::Nonsense(FaultKind::WrongMessage)),
        }
    }
}

fn decode_registered(bytes: &[u8]) -> Result<Response, Malformed> {
    let (mut status, mut ttl) = (None, None);
    for field in Fields::of(bytes) {
        match field? {
            (1, value) => status = Some(value.number()?),
            (3, value) => ttl = Some(value.number()?),
            _ => {}
        }
    }
    match status.ok_or(Malformed)? {
        OK => Ok(Response::Registered { ttl: ttl.ok_or(Malformed)?.min(MAX_TTL) }),
        status => Ok(Response::Failed { refused: status != E_UNAVAILABLE }),
    }
}

fn decode_discovered(bytes: &[u8], namespace: &str, limit: u64) -> Result<Response, Malformed> {
    let (mut status, mut cookie) = (None, None);
    // The whole answer is read over before a signature in it is worth the time.
    for field in Fields::of(bytes) {
        match field? {
            (2, value) => cookie = Some(value.bytes()?),
            (3, value) => status = Some(value.number()?),
            _ => {}
        }
    }
    let status = status.ok_or(Malformed)?;
    if status != OK {
        return Ok(Response::Failed { refused: status != E_UNAVAILABLE });
    }
    let cookie = cookie.filter(|cookie| cookie.len() <= MAX_COOKIE_BYTES).ok_or(Malformed)?;
    let (mut registrations, mut faults, mut seen) = (Vec::new(), BTreeSet::new(), 0);
    for field in Fields::of(bytes) {
        let (1, registration) = field? else { continue };
        seen += 1;
        if seen > limit {
            faults.insert(FaultKind::OversizeList);
            break;
        }
        match decode_registration(registration.bytes()?, namespace) {
            Ok(registration) => registrations.extend(registration),
            Err(fault) => {
                faults.insert(fault);
            }
        }
    }
    Ok(Response::Discovered { registrations, cookie: Cookie(cookie.to_vec()), faults })
}

/// Who registered, and where they say that they are. How long it lasts is the seed's business. A record that is too long
/// is left out without blame: the seed only hands on what somebody has signed.
fn decode_registration(bytes: &[u8], wanted: &str) -> Result<Option<(PeerId, Vec<Multiaddr>)>, FaultKind> {
    let read = || {
        let (mut namespace, mut record) = (None, None);
        for field in Fields::of(bytes) {
            match field? {
                (1, value) => namespace = Some(value.bytes()?),
                (2, value) => record = Some(value.bytes()?),
                _ => {}
            }
        }
        Ok((namespace, record))
    };
    let (namespace, record) = read().map_err(|Malformed| FaultKind::BadRecord)?;
    if namespace != Some(wanted.as_bytes()) {
        return Err(FaultKind::ForeignNamespace);
    }
    let record = record.ok_or(FaultKind::BadRecord)?;
    if record.len() > MAX_RECORD_BYTES {
        return Ok(None);
    }
    let envelope = SignedEnvelope::from_protobuf_encoding(record).map_err(|_| FaultKind::BadRecord)?;
    let record = PeerRecord::from_signed_envelope(envelope).map_err(|_| FaultKind::BadRecord)?;
    let short = record.addresses().iter().filter(|address| address.len() <= MAX_ADDRESS_BYTES);
    Ok(Some((record.peer_id(), short.take(MAX_ADDRESSES).cloned().collect())))
}
