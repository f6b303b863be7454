//! Who is called what, so that two who bear one nickname are told apart.

use std::collections::{BTreeMap, BTreeSet};

use super::super::safe::{safe, width};

/// How many peers are remembered by name. Beyond that nobody new is remembered, and who is not remembered is always
/// shown with the end of his PeerId, so that filling the table gains nothing.
const MAX_NAMES: usize = 10_000;

/// So many columns of a nickname or a team are shown.
const MAX_COLUMNS: usize = 48;

/// So many characters of a PeerId tell namesakes apart.
const SUFFIX: usize = 5;

/// The nicknames met so far, and who has a link now.
#[derive(Debug, Default)]
pub(crate) struct Names {
    names: BTreeMap<String, String>,
    bearers: BTreeMap<String, usize>,
    up: BTreeSet<String>,
}

impl Names {
    /// Remembers what a peer calls itself; an empty name changes nothing.
    pub(crate) fn learn(&mut self, peer: &str, name: &str) {
        if name.is_empty() || (self.names.len() >= MAX_NAMES && !self.names.contains_key(peer)) {
            return;
        }
        let shown = label(name);
        if let Some(before) = self.names.get(peer) {
            if *before == shown {
                return;
            }
            if let Some(count) = self.bearers.get_mut(&fold(before)) {
                *count -= 1;
                if *count == 0 {
                    self.bearers.remove(&fold(before));
                }
            }
        }
        *self.bearers.entry(fold(&shown)).or_default() += 1;
        self.names.insert(peer.to_owned(), shown);
    }

    /// Remembers a nickname that may be an older one, unless a newer one is known.
    pub(crate) fn learn_if_new(&mut self, peer: &str, name: &str) {
        if !self.names.contains_key(peer) {
            self.learn(peer, name);
        }
    }

    /// Remembers whether a peer has a link.
    pub(crate) fn set_up(&mut self, peer: &str, up: bool) {
        if !up {
            self.up.remove(peer);
        } else if self.up.len() < MAX_NAMES {
            self.up.insert(peer.to_owned());
        }
    }

    /// Whether a peer has a link, as far as was seen here.
    pub(crate) fn is_up(&self, peer: &str) -> bool {
        self.up.contains(peer)
    }

    /// What to call a peer: the nickname it is remembered by, and `~` with the end of its PeerId when that nickname
    /// alone does not say who it is.
    pub(crate) fn of(&self, peer: &str) -> String {
        self.names.get(peer).map_or_else(|| suffix(peer), |name| self.unique(peer, name.clone()))
    }

    /// Like [`Names::of`], for a nickname that stands beside the PeerId and may be an older one.
    pub(crate) fn named(&self, peer: &str, name: &str) -> String {
        if name.is_empty() {
            return self.of(peer);
        }
        self.unique(peer, label(name))
    }

    fn unique(&self, peer: &str, shown: String) -> String {
        let folded = fold(&shown);
        let bearers = self.bearers.get(&folded).copied().unwrap_or(0);
        let is_own = self.names.get(peer).is_some_and(|own| fold(own) == folded);
        if is_own && bearers == 1 { shown } else { shown + &suffix(peer) }
    }
}

/// A nickname or a team as it may stand in a line. One that holds anything else than letters, digits and `-_.'` or a
/// single space is put in quotes, because it could otherwise close the frame it stands in and speak as somebody else.
pub(crate) fn label(text: &str) -> String {
    let mut shown = String::new();
    let mut columns = 0;
    let harmless = safe(text);
    for character in harmless.chars() {
        columns += width(character.encode_utf8(&mut [0; 4]));
        if columns > MAX_COLUMNS {
            shown.push('…');
            break;
        }
        shown.push(character);
    }
    let plain = |c: char| c.is_alphanumeric() || width(c.encode_utf8(&mut [0; 4])) == 0 || "-_.' …".contains(c);
    let spaced = shown.starts_with(' ') || shown.ends_with(' ') || shown.contains("  ");
    if !shown.is_empty() && !spaced && shown.chars().all(plain) {
        return shown;
    }
    format!("\"{}\"", shown.replace('"', "\\\""))
}

/// `~` and the last characters of a PeerId.
fn suffix(peer: &str) -> String {
    let from = peer.char_indices().rev().nth(SUFFIX - 1).map_or(0, |(index, _)| index);
    format!("~{}", safe(&peer[from..]))
}

/// Two names that differ only in this are one name to a reader.
fn fold(name: &str) -> String {
    name.to_lowercase()
}
