//! What the prompt knows while it waits for a line: who is around, who has written, what is being typed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::api::{Command, Event, MessageKind, PeerInfo};
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
    /// What the prompt on the screen counts.
    drawn: Unread,
}

#[derive(Debug, Default)]
struct Person {
    name: String,
    unread: Unread,
}

/// Messages that nobody has looked at. What is addressed to us is worth another look than what everybody was told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Unread {
    direct: usize,
    to_all: usize,
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

    /// Take an event in. Gives what kind of message it is, if it is one that nobody is looking at.
    pub(super) fn see(&self, event: &Event) -> Option<MessageKind> {
        let mut state = self.lock();
        match event {
            Event::PeerUp { peer, name, .. } => state.learn(peer, name),
            Event::Message { kind, from, name, .. } => {
                state.learn(from, name);
                if state.chat.as_deref() != Some(from) {
                    if let Some(Person { unread, .. }) = state.people.get_mut(from) {
                        let count = match kind {
                            MessageKind::Direct => &mut unread.direct,
                            MessageKind::Broadcast => &mut unread.to_all,
                        };
                        *count = count.saturating_add(1);
                    }
                    return Some(*kind);
                }
            }
            _ => {}
        }
        None
    }

    /// What this command of ours shows or answers has been read: the messages of whoever is written to, everything of
    /// whoever's history is shown, what everybody was told once we speak to everybody.
    pub(super) fn read_by(&self, command: &Command) {
        match command {
            Command::SendMessage { to, .. } => self.each(Some(to), |unread| unread.direct = 0),
            Command::Broadcast { .. } => self.each(None, |unread| unread.to_all = 0),
            Command::History(query) => self.each(query.peer.as_deref(), |unread| *unread = Unread::default()),
            _ => {}
        }
    }

    /// That peer, by nickname, PeerId, or the beginning of one; `None` is everybody.
    fn each(&self, peer: Option<&str>, change: impl Fn(&mut Unread)) {
        for (id, person) in &mut self.lock().people {
            if peer.is_none_or(|peer| person.name.eq_ignore_ascii_case(peer) || id.starts_with(peer)) {
                change(&mut person.unread);
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
            person.unread = Unread::default();
        }
    }

    /// The prompt, without and with colours.
    pub(super) fn prompt(&self) -> (String, String) {
        let mut state = self.lock();
        let own = shown(&state.own);
        let unread = state.unread();
        state.drawn = unread;
        let count = match unread {
            Unread { direct: 0, to_all: 0 } => String::new(),
            Unread { direct, to_all: 0 } => format!(" ({direct})"),
            Unread { direct: 0, to_all } => format!(" ({to_all} to all)"),
            Unread { direct, to_all } => format!(" ({direct}, {to_all} to all)"),
        };
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
    fn unread(&self) -> Unread {
        self.people.values().fold(Unread::default(), |sum, person| Unread {
            direct: sum.direct.saturating_add(person.unread.direct),
            to_all: sum.to_all.saturating_add(person.unread.to_all),
        })
    }

    fn learn(&mut self, peer: &str, name: &str) {
        if let Some(person) = self.people.get_mut(peer) {
            if !name.is_empty() {
                name.clone_into(&mut person.name);
            }
        } else if self.people.len() < MAX_PEOPLE {
            self.people.insert(peer.to_owned(), Person { name: name.to_owned(), unread: Unread::default() });
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
    use crate::api::{HistoryQuery, Via};

    fn up(peer: &str, name: &str) -> Event {
        let (peer, name) = (peer.to_owned(), name.to_owned());
        Event::PeerUp { peer, name, team: String::new(), address: String::new(), via: Via::Dial }
    }

    fn message(kind: MessageKind, from: &str, name: &str) -> Event {
        Event::Message {
            id: String::new(),
            kind,
            from: from.to_owned(),
            name: name.to_owned(),
            team: String::new(),
            text: "hi".to_owned(),
            sent_at: Timestamp::UNIX_EPOCH,
            seq: 1,
            via: from.to_owned(),
        }
    }

    fn direct(from: &str, name: &str) -> Event {
        message(MessageKind::Direct, from, name)
    }

    fn history(peer: Option<&str>) -> Command {
        Command::History(HistoryQuery { peer: peer.map(str::to_owned), ..HistoryQuery::default() })
    }

    #[test]
    fn the_prompt_counts_what_nobody_looked_at() {
        let shared = Shared::default();
        shared.set(Some("ada".to_owned()), None, Scene::Command);
        assert_eq!(shared.see(&up("12D3bob", "bob")), None);
        assert_eq!(shared.prompt().0, "ada> ");
        assert_eq!(shared.see(&direct("12D3bob", "bob")), Some(MessageKind::Direct));
        assert_eq!(shared.see(&direct("12D3eve", "eve")), Some(MessageKind::Direct));
        assert_eq!(shared.prompt().0, "ada (2)> ");
        shared.set(None, Some("12D3bob"), Scene::Chat);
        assert_eq!(shared.prompt().0, "ada → bob (1)> ");
        assert_eq!(shared.see(&direct("12D3bob", "bob")), None);
        shared.read_by(&Command::SendMessage { to: "EVE".to_owned(), text: "yes".to_owned() });
        assert_eq!(shared.prompt().0, "ada → bob> ");
        shared.set(None, None, Scene::Answer);
        assert_eq!(shared.see(&direct("12D3bob", "bob")), Some(MessageKind::Direct));
        assert_eq!(shared.prompt().0, "ada menu (1)> ");
        shared.read_by(&history(None));
        assert_eq!(shared.prompt().0, "ada menu> ");
    }

    #[test]
    fn what_everybody_was_told_is_counted_for_itself() {
        let shared = Shared::default();
        shared.set(Some("ada".to_owned()), None, Scene::Command);
        let to_all = |from, name| shared.see(&message(MessageKind::Broadcast, from, name));
        assert_eq!(to_all("12D3bob", "bob"), Some(MessageKind::Broadcast));
        assert_eq!(to_all("12D3eve", "eve"), Some(MessageKind::Broadcast));
        assert_eq!(shared.prompt().0, "ada (2 to all)> ");
        shared.see(&direct("12D3bob", "bob"));
        assert_eq!(shared.prompt().0, "ada (1, 2 to all)> ");
        // An answer to one says nothing of what the others told everybody, and the reverse.
        shared.read_by(&Command::SendMessage { to: "bob".to_owned(), text: "yes".to_owned() });
        assert_eq!(shared.prompt().0, "ada (2 to all)> ");
        shared.read_by(&history(Some("eve")));
        assert_eq!(shared.prompt().0, "ada (1 to all)> ");
        shared.see(&direct("12D3eve", "eve"));
        shared.read_by(&Command::Broadcast { text: "so it is".to_owned() });
        assert_eq!(shared.prompt().0, "ada (1)> ");
        shared.read_by(&Command::Status);
        assert_eq!(shared.prompt().0, "ada (1)> ");
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
        shared.see(&direct("id5", "x\u{1b}[2J"));
        shared.set(Some("\u{1b}[31m".to_owned()), Some("id5"), Scene::Chat);
        assert_eq!(shared.prompt().0, "\\u{1b}[31m → x\\u{1b}[2J> ");
    }
}
