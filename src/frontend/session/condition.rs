//! A condition that can be checked.

use regex::Regex;

use super::super::render::safe::safe;
use crate::api::PeerState;

/// A condition that can be checked.
pub(super) enum Ready {
    Peers(usize),
    Peer(String),
    Dead(String),
    Message(Regex),
    Delivered(String),
    /// `None` is the next one that comes to its end.
    Transfer(Option<String>),
}

impl Ready {
    /// The state in which a peer must be.
    pub(super) fn wanted(&self) -> PeerState {
        if matches!(self, Self::Dead(_)) { PeerState::Dead } else { PeerState::Up }
    }

    pub(super) fn said(&self) -> String {
        match self {
            Self::Peers(count) => format!("{count} peers are up"),
            Self::Peer(peer) => format!("'{}' is up", safe(peer)),
            Self::Dead(peer) => format!("'{}' is dead", safe(peer)),
            Self::Message(pattern) => format!("a message matches '{}'", safe(pattern.as_str())),
            Self::Delivered(id) => format!("the message {} is delivered", safe(id)),
            Self::Transfer(Some(id)) => format!("the transfer {} is complete", safe(id)),
            Self::Transfer(None) => "a transfer is complete".to_owned(),
        }
    }
}
