//! One writer for one reader: events and replies as whole lines, in the order they were handed over.
//!
//! The queue is bounded. When the reader is slow the queue fills, whoever hands over an event waits, and the event
//! stream behind it drops its oldest ones and says `lagged`; the node itself never waits for a reader. When the reader
//! is gone, [`Output::closed`] tells.

use jiff::Timestamp;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::render::json;
use super::render::text::Text;
use super::session::Answered;
use crate::api::{ApiError, Event, PeerInfo, Stamped, TransferState};

/// Lines that wait for the reader.
const QUEUE: usize = 256;

/// Bytes gathered into one write while more lines wait.
const GATHER: usize = 64 * 1024;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// One JSON object a line.
    Json,
    /// Text for people.
    Text {
        /// With ANSI colours.
        color: bool,
        /// A script's: without the news of the node itself, and errors are told elsewhere.
        script: bool,
    },
    /// JSON replies that hold the people's text beside the data, for a client that has no renderer of its own.
    JsonWithText,
}

/// A reply on its way out.
#[derive(Debug)]
pub(crate) struct ReplyLine {
    /// Number of the command line, from 1.
    pub(crate) line: u64,
    /// The id that a JSON command line bore.
    pub(crate) id: Option<Value>,
    /// The number of the node's last event when this reply came; the events up to it are written first.
    pub(crate) after: u64,
    /// The command's canonical name.
    pub(crate) command: String,
    /// What came of it.
    pub(crate) result: Result<Answered, ApiError>,
}

enum Item {
    Event(Stamped),
    Reply(Box<ReplyLine>),
    Text(String),
    /// Who is called what, for readers that come in the middle.
    Names(Vec<PeerInfo>),
    /// Write the events of this stream too, from now on.
    Follow(broadcast::Receiver<Stamped>),
    Flush(oneshot::Sender<()>),
}

/// How far the writing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Open,
    /// The node's last event is written.
    Bye,
    /// The reader has gone.
    Closed,
}

/// A cheap clone for whoever has something to say.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    items: mpsc::Sender<Item>,
    stage: watch::Receiver<Stage>,
}

impl Output {
    /// Start the task that writes to `writer`.
    pub(crate) fn start(style: Style, writer: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        let (items, queue) = mpsc::channel(QUEUE);
        let (stage_sender, stage) = watch::channel(Stage::Open);
        tokio::spawn(async move {
            // An error is a reader that has gone; there is nobody to tell.
            let _ = write(style, writer, queue, &stage_sender).await;
            let _ = stage_sender.send(Stage::Closed);
        });
        Self { items, stage }
    }

    /// Hand over an event.
    pub(crate) async fn event(&self, event: Stamped) {
        let _ = self.items.send(Item::Event(event)).await;
    }

    /// Hand over a reply. It is written after every event that came before it at the node.
    pub(crate) async fn reply(&self, reply: ReplyLine) {
        let _ = self.items.send(Item::Reply(Box::new(reply))).await;
    }

    /// Hand over text for people. Not for JSON readers.
    pub(crate) async fn text(&self, text: String) {
        let _ = self.items.send(Item::Text(text)).await;
    }

    /// Tell who is called what, so that people read names from the first line on.
    pub(crate) async fn names(&self, peers: Vec<PeerInfo>) {
        let _ = self.items.send(Item::Names(peers)).await;
    }

    /// Hand over text for people without waiting; false when the queue is full or the reader gone.
    pub(crate) fn try_text(&self, text: String) -> bool {
        self.items.try_send(Item::Text(text)).is_ok()
    }

    /// Wait until everything handed over so far is written.
    pub(crate) async fn flush(&self) {
        let (done, written) = oneshot::channel();
        if self.items.send(Item::Flush(done)).await.is_ok() {
            let _ = written.await;
        }
    }

    /// Wait until the reader is gone.
    pub(crate) async fn closed(&self) {
        let _ = self.stage.clone().wait_for(|stage| *stage == Stage::Closed).await;
    }

    /// Write every event of a stream, `lagged` where some were lost. Ends after `bye`, or when the node or the reader is
    /// gone.
    pub(crate) async fn follow(&self, events: broadcast::Receiver<Stamped>) {
        let _ = self.items.send(Item::Follow(events)).await;
        let _ = self.stage.clone().wait_for(|stage| *stage >= Stage::Bye).await;
    }
}

/// The writer's state between two lines.
struct Lines {
    style: Style,
    text: Text,
    number: u64,
    buffer: String,
    events: Option<broadcast::Receiver<Stamped>>,
    /// The number of the last event taken from there.
    seen: u64,
    ended: bool,
}

async fn write(
    style: Style,
    mut writer: impl AsyncWrite + Unpin,
    mut queue: mpsc::Receiver<Item>,
    stage: &watch::Sender<Stage>,
) -> std::io::Result<()> {
    let text = Text::new(matches!(style, Style::Text { color: true, .. }));
    let mut lines = Lines { style, text, number: 0, buffer: String::new(), events: None, seen: 0, ended: false };
    let mut flushed = Vec::new();
    loop {
        tokio::select! {
            // A reply that waits here is older than the next event, or names the events that are older than itself.
            biased;
            item = queue.recv() => match item {
                Some(item) => lines.item(item, &mut flushed),
                None => return Ok(()),
            },
            event = next_event(&mut lines.events) => lines.stream(event),
        }
        // Whatever else is there already goes out in the same write.
        while lines.buffer.len() < GATHER {
            if let Ok(item) = queue.try_recv() {
                lines.item(item, &mut flushed);
            } else if !lines.next_waiting_event() {
                break;
            }
        }
        writer.write_all(lines.buffer.as_bytes()).await?;
        writer.flush().await?;
        lines.buffer.clear();
        for done in flushed.drain(..) {
            // Whoever waited may have given up.
            let _ = done.send(());
        }
        if std::mem::take(&mut lines.ended) {
            let _ = stage.send(Stage::Bye);
        }
    }
}

async fn next_event(events: &mut Option<broadcast::Receiver<Stamped>>) -> Result<Stamped, RecvError> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

impl Lines {
    fn item(&mut self, item: Item, flushed: &mut Vec<oneshot::Sender<()>>) {
        match item {
            Item::Flush(done) => flushed.push(done),
            Item::Follow(events) => self.events = Some(events),
            Item::Names(peers) => self.text.meet(&peers),
            Item::Reply(ref reply) => {
                while self.seen < reply.after && self.next_waiting_event() {}
                self.line(item);
            }
            Item::Event(_) | Item::Text(_) => self.line(item),
        }
    }

    /// Take one event that is there already; false when there is none.
    fn next_waiting_event(&mut self) -> bool {
        let Some(events) = &mut self.events else { return false };
        let event = match events.try_recv() {
            Ok(event) => Ok(event),
            Err(TryRecvError::Lagged(missed)) => Err(RecvError::Lagged(missed)),
            Err(TryRecvError::Empty | TryRecvError::Closed) => return false,
        };
        self.stream(event);
        true
    }

    fn stream(&mut self, event: Result<Stamped, RecvError>) {
        match event {
            Ok(stamped) => {
                self.seen = stamped.n;
                self.ended |= matches!(*stamped.event, Event::Bye { .. });
                self.line(Item::Event(stamped));
            }
            Err(RecvError::Lagged(missed)) => {
                let event = Event::Lagged { missed }.into();
                self.line(Item::Event(Stamped { n: 0, at: Timestamp::now(), event }));
            }
            Err(RecvError::Closed) => {
                self.events = None;
                self.ended = true;
            }
        }
    }

    fn line(&mut self, item: Item) {
        render(self.style, &mut self.text, &mut self.number, item, &mut self.buffer);
    }
}

fn render(style: Style, text: &mut Text, number: &mut u64, item: Item, buffer: &mut String) {
    let line = match (style, item) {
        (Style::Json, Item::Event(stamped)) => {
            *number += 1;
            Some(json::event_line(*number, &stamped))
        }
        (Style::JsonWithText, Item::Event(stamped)) => {
            text.event(&stamped).map(|text| serde_json::json!({ "text": text }).to_string())
        }
        (Style::Text { script, .. }, Item::Event(stamped)) => {
            text.event(&stamped).filter(|_| !script || is_for_scripts(&stamped.event))
        }
        (Style::Json | Style::JsonWithText, Item::Reply(reply)) => {
            *number += 1;
            let ReplyLine { line, id, command, result, .. } = *reply;
            let people = (style == Style::JsonWithText).then(|| spoken(text, &command, &result)).flatten();
            let mut reply = json::reply_line(*number, Timestamp::now(), line, id.as_ref(), &command, &result);
            if let Some(people) = people {
                // A field more at the end of the object.
                reply.truncate(reply.len() - 1);
                reply.push_str(&format!(",\"text\":{}}}", serde_json::Value::from(people)));
            }
            Some(reply)
        }
        (Style::Text { script: true, .. }, Item::Reply(reply)) if reply.result.is_err() => None,
        (Style::Text { .. }, Item::Reply(reply)) => spoken(text, &reply.command, &reply.result),
        (Style::Text { .. }, Item::Text(text)) => Some(text),
        (Style::Json | Style::JsonWithText, Item::Text(_)) | (_, Item::Flush(_) | Item::Follow(_) | Item::Names(_)) => {
            None
        }
    };
    if let Some(line) = line {
        buffer.push_str(&line);
        buffer.push('\n');
    }
}

/// A reply as people read it; an error is told on stderr by whoever gave the command.
fn spoken(text: &mut Text, command: &str, result: &Result<Answered, ApiError>) -> Option<String> {
    match result {
        Ok(Answered::Reply(reply)) => text.reply(command, reply),
        Ok(Answered::Value { text, .. }) => Some(text.clone()).filter(|text| !text.is_empty()),
        Err(error) => Some(text.error(error)),
    }
}

/// What a person who runs a script in text wants to see beside the replies.
fn is_for_scripts(event: &Event) -> bool {
    match event {
        // A script has no use for how far a transfer is, unless it reads JSON.
        Event::Transfer { state, .. } => *state != TransferState::Active,
        Event::Message { .. }
        | Event::Delivery { .. }
        | Event::Offer { .. }
        | Event::Error { .. }
        | Event::Lagged { .. } => true,
        _ => false,
    }
}
