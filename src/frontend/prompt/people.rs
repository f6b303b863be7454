//! What the prompt knows while it waits for a line: who is around, who has written, what is being typed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::{Event, MessageKind, PeerInfo};
use crate::frontend::render::safe::safe;

/// How many peers are remembered for completion and the unread count; later ones are not.
const MAX_PEOPLE: usize = 10_000;

/// So many characters of a nickname stand in the prompt.
const MAX_PROMPT_NAME: usize = 24;

/// What the next line is, which decides what Tab offers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Scene {
    /// A command.
    #[default]
    Command,
    /// Text of a chat, unless it begins with `/`.
    Chat,
    /// An answer to a question of the menu.
    Answer,
}

/// Shared by the thread that reads, the task that watches events, and the task that executes.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// The line is to be read again with another prompt, or not at all any more: SIGINT comes from this process itself.
    pub(super) wake: AtomicBool,
    /// No further line is to be read.
    pub(super) closing: AtomicBool,
    /// SIGINT comes from the Ctrl-C key.
    pub(super) typed: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    own: String,
    chat: Option<String>,
    scene: Scene,
    people: BTreeMap<String, Person>,
    settings: Vec<String>,
    reading: bool,
    /// The reading of the demanded line has begun.
    begun: bool,
    line: String,
    /// The unread messages that the prompt on the screen counts.
    drawn: usize,
}

#[derive(Debug, Default)]
struct Person {
    name: String,
    unread: usize,
}

impl Shared {
    /// A copy of what Tab needs.
    pub(super) fn offers(&self) -> (Scene, Vec<String>, Vec<String>) {
        let state = self.lock();
        (state.scene, state.words(), state.settings.clone())
    }

    /// The names of all settings.
    pub(super) fn know_settings(&self, settings: Vec<String>) {
        self.lock().settings = settings;
    }

    /// What `peers` lists.
    pub(super) fn know_peers(&self, peers: &[PeerInfo]) {
        let mut state = self.lock();
        for peer in peers {
            state.learn(&peer.peer, &peer.name);
        }
    }

    /// Take an event in. True when it is a direct message that nobody is looking at.
    pub(super) fn see(&self, event: &Event) -> bool {
        let mut state = self.lock();
        match event {
            Event::PeerUp { peer, name, .. } => state.learn(peer, name),
            Event::Message { kind: MessageKind::Direct, from, name, .. } => {
                state.learn(from, name);
                if state.chat.as_deref() != Some(from) {
                    if let Some(person) = state.people.get_mut(from) {
                        person.unread = person.unread.saturating_add(1);
                    }
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// Messages of that peer are read: a nickname, a PeerId, or the beginning of one; `None` is everybody.
    pub(super) fn read(&self, peer: Option<&str>) {
        for (id, person) in &mut self.lock().people {
            let meant = peer.is_none_or(|peer| person.name.eq_ignore_ascii_case(peer) || id.starts_with(peer));
            if meant {
                person.unread = 0;
            }
        }
    }

    /// What the next prompt shows.
    pub(super) fn set(&self, own: Option<String>, chat: Option<&str>, scene: Scene) {
        let mut state = self.lock();
        if let Some(own) = own {
            state.own = own;
        }
        state.chat = chat.map(str::to_owned);
        state.scene = scene;
        if let Some(person) = chat.and_then(|chat| state.people.get_mut(chat)) {
            person.unread = 0;
        }
    }

    /// The prompt, without and with colours.
    pub(super) fn prompt(&self) -> (String, String) {
        let mut state = self.lock();
        let own = shown(&state.own);
        let unread = state.unread();
        state.drawn = unread;
        let count = if unread > 0 { format!(" ({unread})") } else { String::new() };
        let whom = match (&state.chat, state.scene) {
            (Some(chat), _) => {
                let name = state.people.get(chat).map_or("", |person| &person.name);
                format!(" → {}", shown(if name.is_empty() { chat } else { name }))
            }
            (None, Scene::Answer) => " menu".to_owned(),
            (None, _) => String::new(),
        };
        (format!("{own}{whom}{count}> "), format!("\u{1b}[1;36m{own}\u{1b}[0m{whom}\u{1b}[1;33m{count}\u{1b}[0m> "))
    }

    /// A line is about to be demanded.
    pub(super) fn demand(&self) {
        self.lock().begun = false;
    }

    /// Whether the reading of the demanded line has begun. What happens then, and is not for the editor, is about that
    /// line, which is on its way.
    pub(super) fn has_begun(&self) -> bool {
        self.lock().begun
    }

    /// A line is being read from here on.
    pub(super) fn begin(&self) {
        let mut state = self.lock();
        state.reading = true;
        state.begun = true;
        state.line.clear();
    }

    /// No line is being read any more; what stood there last.
    pub(super) fn end(&self) -> String {
        let mut state = self.lock();
        state.reading = false;
        std::mem::take(&mut state.line)
    }

    /// What stands in the line now. True when it was emptied and its prompt is out of date.
    pub(super) fn typing(&self, line: &str) -> bool {
        let mut state = self.lock();
        if state.line == line {
            return false;
        }
        state.line = line.to_owned();
        line.is_empty() && state.reading && state.drawn != state.unread()
    }

    /// Whether a line is being read.
    pub(super) fn is_reading(&self) -> bool {
        self.lock().reading
    }

    /// Whether a line is being read and nothing stands in it, so that its prompt can be drawn anew.
    pub(super) fn idle(&self) -> bool {
        let state = self.lock();
        state.reading && state.line.is_empty()
    }

    /// Take back [`Shared::wake`]; true when it was set.
    pub(super) fn woken(&self) -> bool {
        self.wake.swap(false, Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn unread(&self) -> usize {
        self.people.values().fold(0, |sum, person| sum.saturating_add(person.unread))
    }

    fn learn(&mut self, peer: &str, name: &str) {
        if let Some(person) = self.people.get_mut(peer) {
            if !name.is_empty() {
                name.clone_into(&mut person.name);
            }
        } else if self.people.len() < MAX_PEOPLE {
            self.people.insert(peer.to_owned(), Person { name: name.to_owned(), unread: 0 });
        }
    }

    /// A word for each peer that means exactly this one: its nickname, or its PeerId when it shares the nickname or the
    /// nickname is no plain word. Peers choose their names, and none may put more than its name into the line.
    fn words(&self) -> Vec<String> {
        let mut bearers: BTreeMap<String, usize> = BTreeMap::new();
        for person in self.people.values() {
            *bearers.entry(person.name.to_lowercase()).or_default() += 1;
        }
        let plain = |name: &str| {
            let odd = |c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '\\' | '/' | '@' | '-');
            !name.is_empty()
                && safe(name) == name
                && !name.starts_with(odd)
                && !name.chars().any(|c| c != '-' && odd(c))
        };
        let words: BTreeSet<String> = self
            .people
            .iter()
            .map(|(id, person)| {
                let unique = bearers.get(&person.name.to_lowercase()) == Some(&1);
                if unique && plain(&person.name) { person.name.clone() } else { id.clone() }
            })
            .collect();
        words.into_iter().collect()
    }
}

/// A name as it stands in the prompt: short and harmless.
fn shown(name: &str) -> String {
    let harmless = safe(name);
    if harmless.chars().count() <= MAX_PROMPT_NAME {
        return harmless.into_owned();
    }
    harmless.chars().take(MAX_PROMPT_NAME).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::api::Via;

    fn up(peer: &str, name: &str) -> Event {
        let (peer, name) = (peer.to_owned(), name.to_owned());
        Event::PeerUp { peer, name, team: String::new(), address: String::new(), via: Via::Dial }
    }

    fn message(from: &str, name: &str) -> Event {
        Event::Message {
            id: String::new(),
            kind: MessageKind::Direct,
            from: from.to_owned(),
            name: name.to_owned(),
            team: String::new(),
            text: "hi".to_owned(),
            sent_at: Timestamp::UNIX_EPOCH,
            seq: 1,
            via: from.to_owned(),
        }
    }

    #[test]
    fn the_prompt_counts_what_nobody_looked_at() {
        let shared = Shared::default();
        shared.set(Some("ada".to_owned()), None, Scene::Command);
        assert!(!shared.see(&up("12D3bob", "bob")));
        assert_eq!(shared.prompt().0, "ada> ");
        assert!(shared.see(&message("12D3bob", "bob")));
        assert!(shared.see(&message("12D3eve", "eve")));
        assert_eq!(shared.prompt().0, "ada (2)> ");
        shared.set(None, Some("12D3bob"), Scene::Chat);
        assert_eq!(shared.prompt().0, "ada → bob (1)> ");
        assert!(!shared.see(&message("12D3bob", "bob")));
        shared.read(Some("EVE"));
        assert_eq!(shared.prompt().0, "ada → bob> ");
        shared.set(None, None, Scene::Answer);
        assert!(shared.see(&message("12D3bob", "bob")));
        assert_eq!(shared.prompt().0, "ada menu (1)> ");
        shared.read(None);
        assert_eq!(shared.prompt().0, "ada menu> ");
    }

    #[test]
    fn names_that_are_shared_or_odd_are_not_offered() {
        let shared = Shared::default();
        for (peer, name) in
            [("id1", "bob"), ("id2", "Eve"), ("id3", "eve"), ("id4", "a b"), ("id5", "x\u{1b}[2J"), ("id6", "")]
        {
            shared.see(&up(peer, name));
        }
        assert_eq!(shared.offers().1, ["bob", "id2", "id3", "id4", "id5", "id6"]);
        shared.see(&message("id5", "x\u{1b}[2J"));
        shared.set(Some("\u{1b}[31m".to_owned()), Some("id5"), Scene::Chat);
        assert_eq!(shared.prompt().0, "\\u{1b}[31m → x\\u{1b}[2J> ");
    }
}
