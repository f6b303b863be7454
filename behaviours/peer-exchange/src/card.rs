//! The card of a node: who it is and where it can be reached, signed by its own key; and its signed goodbye.
//!
//! Both travel as the exact bytes of a libp2p signed envelope (RFC 0002), whose payload is CBOR. Nothing that was
//! read here is kept without its signature having been checked, and only Ed25519 keys are taken.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use libp2p::core::SignedEnvelope;
use libp2p::identity::{KeyType, Keypair, SigningError};
use libp2p::{Multiaddr, PeerId};
use serde::{Deserialize, Serialize};

use crate::cbor::{self, Bytes};

/// Longest name and team label, in characters.
pub const MAX_NAME_CHARS: usize = 32;
/// Longest name and team label, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;
/// Longest version, in bytes of UTF-8.
pub const MAX_VERSION_BYTES: usize = 64;
/// Most addresses on a card.
pub const MAX_ADDRESSES: usize = 16;
/// Longest address, in bytes of its binary form.
pub const MAX_ADDRESS_BYTES: usize = 256;
/// Longest signed card, in bytes.
pub const MAX_CARD_BYTES: usize = 8 * 1024;
/// Longest signed goodbye, in bytes.
pub const MAX_GOODBYE_BYTES: usize = 512;

const CARD_DOMAIN: &str = "althing/card/1";
const CARD_TYPE: &[u8] = b"/althing/card/1";
const GOODBYE_DOMAIN: &str = "althing/goodbye/1";
const GOODBYE_TYPE: &[u8] = b"/althing/goodbye/1";

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// Who it is: the PeerId of the key that signs the card.
    pub peer: PeerId,
    /// Nickname, see [`check_name`].
    pub name: String,
    /// Team label, see [`check_team`].
    pub team: String,
    /// What it runs as.
    pub role: Role,
    /// Where it listens, best first; at most [`MAX_ADDRESSES`] of at most [`MAX_ADDRESS_BYTES`].
    pub addresses: Vec<Multiaddr>,
    /// How often the node has started with this key. Rises with every start, and is kept on disk.
    pub boot: u64,
    /// How often the card has changed since the start.
    pub revision: u64,
    /// The program and its version; at most [`MAX_VERSION_BYTES`], no invisible characters.
    pub version: String,
}

/// What a node runs as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A peer.
    #[default]
    Peer,
    /// A seed: keeps the list of peers for newcomers.
    Seed,
}

/// A card whose signature and contents were checked, with the bytes that were signed. Cheap to clone.
#[derive(Clone)]
pub struct SignedCard(Arc<Inner>);

struct Inner {
    card: Card,
    bytes: Vec<u8>,
}

impl SignedCard {
    /// Sign an own card.
    ///
    /// # Errors
    /// When the card breaks one of the rules that [`SignedCard::decode`] checks; nothing was signed then.
    pub fn sign(key: &Keypair, card: Card) -> Result<Self, CardError> {
        check(&card)?;
        if key.key_type() != KeyType::Ed25519 {
            return Err(CardError::KeyType);
        }
        if card.peer != key.public().to_peer_id() {
            return Err(CardError::WrongPeer);
        }
        let payload = cbor::encode(&CardPayload {
            peer: Bytes::from(card.peer.to_bytes()),
            name: card.name.clone(),
            team: card.team.clone(),
            role: card.role,
            addresses: card.addresses.iter().map(|address| Bytes::from(address.to_vec())).collect(),
            boot: card.boot,
            revision: card.revision,
            version: card.version.clone(),
        });
        let envelope = SignedEnvelope::new(key, CARD_DOMAIN.into(), CARD_TYPE.to_vec(), payload)?;
        let bytes = envelope.into_protobuf_encoding();
        if bytes.len() > MAX_CARD_BYTES {
            return Err(CardError::TooLong);
        }
        Ok(Self(Arc::new(Inner { card, bytes })))
    }

    /// Read and check what somebody else signed.
    ///
    /// # Errors
    /// When it is longer than [`MAX_CARD_BYTES`], is not signed by an Ed25519 key, is signed by another key than that
    /// of the peer it speaks of, or breaks a bound or a rule for names.
    pub fn decode(bytes: &[u8]) -> Result<Self, CardError> {
        if bytes.len() > MAX_CARD_BYTES {
            return Err(CardError::TooLong);
        }
        let (payload, signer) = open::<CardPayload>(bytes, CARD_DOMAIN, CARD_TYPE)?;
        let peer = PeerId::from_bytes(&payload.peer).map_err(|_| CardError::Malformed)?;
        if peer != signer {
            return Err(CardError::WrongPeer);
        }
        if payload.addresses.len() > MAX_ADDRESSES {
            return Err(CardError::Addresses);
        }
        let addresses = payload.addresses.into_iter().map(|bytes| Multiaddr::try_from(bytes.into_vec()));
        let card = Card {
            peer,
            name: payload.name,
            team: payload.team,
            role: payload.role,
            addresses: addresses.collect::<Result<_, _>>().map_err(|_| CardError::Malformed)?,
            boot: payload.boot,
            revision: payload.revision,
            version: payload.version,
        };
        check(&card)?;
        Ok(Self(Arc::new(Inner { card, bytes: bytes.to_vec() })))
    }

    /// What the card says.
    pub fn card(&self) -> &Card {
        &self.0.card
    }

    /// The exact signed bytes, to store or to hand on.
    pub fn bytes(&self) -> &[u8] {
        &self.0.bytes
    }

    /// Whose card it is.
    pub fn peer(&self) -> PeerId {
        self.0.card.peer
    }

    /// Whether it was made after the other one: by boot count, then by revision. Only for cards of the same peer.
    pub fn is_newer_than(&self, other: &Self) -> bool {
        (self.card().boot, self.card().revision) > (other.card().boot, other.card().revision)
    }
}

impl PartialEq for SignedCard {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for SignedCard {}

impl fmt::Debug for SignedCard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("SignedCard").field(self.card()).finish()
    }
}

/// The signed end of a node's boot: whoever holds it knows that the peer has left and has not merely gone silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goodbye {
    peer: PeerId,
    boot: u64,
    at_ms: u64,
    bytes: Vec<u8>,
}

impl Goodbye {
    /// Sign an own goodbye: the own boot count, and the own clock in milliseconds since 1970 UTC.
    ///
    /// # Errors
    /// When the key is not an Ed25519 key.
    pub fn sign(key: &Keypair, boot: u64, at_ms: u64) -> Result<Self, CardError> {
        if key.key_type() != KeyType::Ed25519 {
            return Err(CardError::KeyType);
        }
        let peer = key.public().to_peer_id();
        let payload = cbor::encode(&GoodbyePayload { peer: Bytes::from(peer.to_bytes()), boot, at_ms });
        let envelope = SignedEnvelope::new(key, GOODBYE_DOMAIN.into(), GOODBYE_TYPE.to_vec(), payload)?;
        Ok(Self { peer, boot, at_ms, bytes: envelope.into_protobuf_encoding() })
    }

    /// Read and check what somebody else signed.
    ///
    /// # Errors
    /// When it is longer than [`MAX_GOODBYE_BYTES`], or is not signed by the Ed25519 key of the peer it speaks of.
    pub fn decode(bytes: &[u8]) -> Result<Self, CardError> {
        if bytes.len() > MAX_GOODBYE_BYTES {
            return Err(CardError::TooLong);
        }
        let (payload, signer) = open::<GoodbyePayload>(bytes, GOODBYE_DOMAIN, GOODBYE_TYPE)?;
        let peer = PeerId::from_bytes(&payload.peer).map_err(|_| CardError::Malformed)?;
        if peer != signer {
            return Err(CardError::WrongPeer);
        }
        Ok(Self { peer, boot: payload.boot, at_ms: payload.at_ms, bytes: bytes.to_vec() })
    }

    /// Who leaves.
    pub fn peer(&self) -> PeerId {
        self.peer
    }

    /// Which boot ends.
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// When, by the clock of the one who leaves: milliseconds since 1970 UTC.
    pub fn at_ms(&self) -> u64 {
        self.at_ms
    }

    /// The exact signed bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

/// Why a card or a goodbye was not taken.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// More bytes than allowed.
    #[error("it is longer than {MAX_CARD_BYTES} bytes (a goodbye: {MAX_GOODBYE_BYTES})")]
    TooLong,
    /// Not an envelope with such a payload.
    #[error("it is not a signed envelope with the expected contents")]
    Malformed,
    /// The signature does not fit, or is for something else.
    #[error("its signature is wrong")]
    Signature,
    /// Not an Ed25519 key.
    #[error("it must be signed by an Ed25519 key")]
    KeyType,
    /// Signed by somebody else.
    #[error("it is signed by another key than that of the peer it speaks of")]
    WrongPeer,
    /// The name breaks a rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The version breaks a rule.
    #[error("the version must have at most {MAX_VERSION_BYTES} bytes and no invisible characters")]
    Version,
    /// Too many addresses, or one that is too long.
    #[error("a card has at most {MAX_ADDRESSES} addresses of at most {MAX_ADDRESS_BYTES} bytes")]
    Addresses,
    /// The key could not sign.
    #[error("the key could not sign: {0}")]
    Signing(#[from] SigningError),
}

/// Why a name or team label is not taken. The text is one sentence for the person who chose it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Empty.
    #[error("{0} must not be empty; give it 1 to {MAX_NAME_CHARS} characters")]
    Empty(What),
    /// Too long.
    #[error("{0} is too long; give it at most {MAX_NAME_CHARS} characters and at most {MAX_NAME_BYTES} bytes of UTF-8")]
    TooLong(What),
    /// White space in a name, or at the edge of a team label.
    #[error("a name must not contain spaces; write it as one word, for example with `-` or `_`")]
    Space,
    /// White space at the edge of a team label.
    #[error("a team must not begin or end with a space; leave the space out")]
    Edge,
    /// Invisible or control characters.
    #[error("{what} must not contain the invisible character U+{code:04X}; use only characters that can be seen")]
    Invisible {
        /// A name or a team.
        what: What,
        /// The character.
        code: u32,
    },
    /// A character that means something on the command line.
    #[error("a name must not contain `{0}`; use letters, digits, `-`, `_` or `.`")]
    Reserved(char),
    /// Looks like a PeerId.
    #[error("a name must not look like a PeerId; choose a word that people can tell from one")]
    PeerId,
}

/// Which of the two a [`NameError`] speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A nickname.
    Name,
    /// A team label.
    Team,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "a name",
            Self::Team => "a team",
        })
    }
}

/// Whether a nickname may stand on a card: 1 to 32 characters of at most 64 bytes; no white space, nothing invisible,
/// none of `/ @ : " ' \ ,` (a name must be told from an address and survive a command line), and no PeerId.
///
/// # Errors
/// The first rule that is broken.
pub fn check_name(name: &str) -> Result<(), NameError> {
    check_length(name, What::Name)?;
    for char in name.chars() {
        if char.is_whitespace() {
            return Err(NameError::Space);
        }
        if is_invisible(char) {
            return Err(NameError::Invisible { what: What::Name, code: char.into() });
        }
        if matches!(char, '/' | '@' | ':' | '"' | '\'' | '\\' | ',') {
            return Err(NameError::Reserved(char));
        }
    }
    // Every Ed25519 PeerId begins so, and a prefix of a PeerId names its peer.
    if name.starts_with("12D3KooW") || PeerId::from_str(name).is_ok() {
        return Err(NameError::PeerId);
    }
    Ok(())
}

/// Whether a team label may stand on a card: 1 to 32 characters of at most 64 bytes, nothing invisible; plain spaces
/// are allowed inside.
///
/// # Errors
/// The first rule that is broken.
pub fn check_team(team: &str) -> Result<(), NameError> {
    check_length(team, What::Team)?;
    if team.starts_with(' ') || team.ends_with(' ') {
        return Err(NameError::Edge);
    }
    match team.chars().find(|&char| is_invisible(char) || (char.is_whitespace() && char != ' ')) {
        Some(char) => Err(NameError::Invisible { what: What::Team, code: char.into() }),
        None => Ok(()),
    }
}

fn check_length(text: &str, what: What) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty(what));
    }
    if text.len() > MAX_NAME_BYTES || text.chars().count() > MAX_NAME_CHARS {
        return Err(NameError::TooLong(what));
    }
    Ok(())
}

fn check(card: &Card) -> Result<(), CardError> {
    check_name(&card.name)?;
    check_team(&card.team)?;
    if card.version.len() > MAX_VERSION_BYTES || card.version.chars().any(is_invisible) {
        return Err(CardError::Version);
    }
    if card.addresses.len() > MAX_ADDRESSES || card.addresses.iter().any(|a| a.as_ref().len() > MAX_ADDRESS_BYTES) {
        return Err(CardError::Addresses);
    }
    Ok(())
}

/// Characters that print nothing or turn the text around them: two names that differ only in these look the same, and
/// a terminal may obey them. Unicode 16: category Cc and Cf, variation selectors, and the fillers that show a blank.
fn is_invisible(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}'
            | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Open an envelope: its payload, and whose Ed25519 key signed it.
fn open<T: serde::de::DeserializeOwned>(bytes: &[u8], domain: &str, kind: &[u8]) -> Result<(T, PeerId), CardError> {
    let envelope = SignedEnvelope::from_protobuf_encoding(bytes).map_err(|_| CardError::Malformed)?;
    let (payload, key) = envelope.payload_and_signing_key(domain.into(), kind).map_err(|_| CardError::Signature)?;
    if key.key_type() != KeyType::Ed25519 {
        return Err(CardError::KeyType);
    }
    let payload = cbor::decode(payload).map_err(|cbor::Malformed| CardError::Malformed)?;
    Ok((payload, key.to_peer_id()))
}

#[derive(Serialize, Deserialize)]
struct CardPayload {
    peer: Bytes,
    name: String,
    team: String,
    role: Role,
    addresses: Vec<Bytes>,
    boot: u64,
    revision: u64,
    version: String,
}

#[derive(Serialize, Deserialize)]
struct GoodbyePayload {
    peer: Bytes,
    boot: u64,
    at_ms: u64,
}
