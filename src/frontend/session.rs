//! One client's conversation with the node: command lines in order, the chat mode, `wait` and `expect`.
//!
//! Standard input, a script and each control connection have a session of their own. A command that blocks (`wait`,
//! `sleep`) delays only its own session.

mod condition;
mod pipeline;
mod transfers;
mod watch;

use std::collections::VecDeque;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use regex::RegexBuilder;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::command_line::{self, Condition, Line, SessionCommand};
use super::menu::{Menu, Next};
use super::output::{Output, ReplyLine};
use super::render::safe::safe;
use super::render::text::names::Names;
use super::{export, help};
use crate::api::{ApiError, Command, DeliveryState, ErrorCode, Event, HistoryRow, PeerState, Reply, Role};
use crate::handle::Handle;
use condition::Ready;
use pipeline::{PendingReply, Pipeline};
use watch::Watch;

/// How long `wait` waits unless told otherwise.
const WAIT: Duration = Duration::from_secs(30);

/// Messages of a session that are watched for their delivery; beyond, the oldest are no longer.
const WATCHED: usize = 4_096;

/// `source` within `source`.
const MAX_DEPTH: usize = 8;

/// Largest compiled pattern of `wait message`, in bytes.
const MAX_PATTERN: usize = 1024 * 1024;

/// How long the end waits for messages on their way, and how long for those that are not even sent.
const LINGER: Duration = Duration::from_secs(10);
const LINGER_QUEUED: Duration = Duration::from_secs(4);

/// A command's answer.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(crate) enum Answered {
    /// From the node.
    Reply(Reply),
    /// From the session itself.
    Value {
        /// For programs.
        #[serde(flatten)]
        data: Value,
        /// For people.
        #[serde(skip)]
        text: String,
    },
}

impl Answered {
    fn nothing() -> Self {
        Self::Value { data: json!({}), text: String::new() }
    }
}

/// What comes after a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    /// The next line.
    Next,
    /// The node was told to quit.
    Quit,
}

/// A line that was executed.
#[derive(Debug)]
pub(crate) struct Executed {
    /// What comes next.
    pub(crate) flow: Flow,
    /// Why it failed.
    pub(crate) error: Option<ApiError>,
}

/// See the module's text.
pub(crate) struct Session {
    handle: Handle,
    output: Output,
    line: u64,
    chat: Option<String>,
    menu: Option<Menu>,
    keep_going: bool,
    watch: Watch,
    begun: VecDeque<String>,
    /// Transfers that this session began, for the end and for `wait`.
    sent: VecDeque<String>,
    last_sent: Option<String>,
    last: Option<Command>,
    pipeline: Option<Pipeline>,
}

impl Session {
    /// A session whose replies go to `output`. With `keep_going` a failing line does not end a `source`d file.
    pub(crate) fn new(handle: Handle, output: Output, keep_going: bool) -> Self {
        let watch = Watch::start(handle.subscribe());
        Self {
            handle,
            output,
            line: 0,
            chat: None,
            menu: None,
            keep_going,
            watch,
            begun: VecDeque::new(),
            sent: VecDeque::new(),
            last_sent: None,
            last: None,
            pipeline: None,
        }
    }

    /// Take the next message before the last one is on disk, so that many share one write to it. Replies keep their order,
    /// and every other command waits for them; only a failing message no longer shows in [`Executed::error`].
    pub(crate) fn pipelined(mut self) -> Self {
        self.pipeline = Some(Pipeline::start(self.handle.clone(), self.output.clone()));
        self
    }

    /// Execute one line and hand over its reply.
    pub(crate) async fn execute(&mut self, input: &str) -> Executed {
        self.execute_at(input, 0).await
    }

    /// Refuse a line that could not even be read.
    pub(crate) async fn refuse(&mut self, error: ApiError) -> Executed {
        self.line += 1;
        let reply = ReplyLine {
            line: self.line,
            id: None,
            after: self.handle.emitted(),
            command: String::new(),
            result: Err(error.clone()),
        };
        self.output.reply(reply).await;
        Executed { flow: Flow::Next, error: Some(error) }
    }

    /// The one chatted with, for a prompt.
    pub(crate) fn chat(&self) -> Option<&str> {
        self.chat.as_deref()
    }

    /// Whether the next line answers a question of the menu.
    pub(crate) fn in_menu(&self) -> bool {
        self.menu.is_some() && self.chat.is_none()
    }

    /// What the node did last for this session, whichever way it was asked; each is given once.
    pub(crate) fn take_last(&mut self) -> Option<Command> {
        self.last.take()
    }

    /// Wait until the messages and transfers of this session are settled, not for ever. True when all have arrived.
    pub(crate) async fn linger(&mut self) -> bool {
        self.settle_pipeline().await;
        let began = Instant::now();
        let mut delivered = true;
        while let Some(id) = self.begun.pop_front() {
            loop {
                self.watch.see();
                let state = self.state_of(&id).await;
                let patience = match state {
                    Ok(DeliveryState::Delivered) => break,
                    Ok(DeliveryState::Sent) => LINGER,
                    Ok(DeliveryState::Queued) => LINGER_QUEUED,
                    Ok(DeliveryState::Failed | DeliveryState::Received) | Err(_) => Duration::ZERO,
                };
                if began.elapsed() >= patience
                    || !self.watch.changed(began + patience).await && began.elapsed() >= patience
                {
                    delivered = false;
                    break;
                }
            }
        }
        self.linger_transfers(began).await && delivered
    }

    fn execute_at<'a>(
        &'a mut self,
        input: &'a str,
        depth: usize,
    ) -> std::pin::Pin<Box<dyn Future<Output = Executed> + Send + 'a>> {
        Box::pin(async move {
            self.line += 1;
            let line = self.line;
            let (id, command) = match json_command(input) {
                Ok(Some((id, command))) => (id, command),
                Ok(None) => (None, input.to_owned()),
                Err((id, error)) => {
                    let reply = ReplyLine {
                        line,
                        id,
                        after: self.handle.emitted(),
                        command: String::new(),
                        result: Err(error.clone()),
                    };
                    self.output.reply(reply).await;
                    return Executed { flow: Flow::Next, error: Some(error) };
                }
            };
            if let Some(message) = self.pipelined_message(&command) {
                let reply =
                    PendingReply { line, id, command: "msg".to_owned(), begun: self.handle.begin(message).await };
                if let Some(pipeline) = &self.pipeline {
                    pipeline.reply(reply).await;
                }
                return Executed { flow: Flow::Next, error: None };
            }
            self.settle_pipeline().await;
            let opened = self.menu.is_some();
            let (name, result) = self.answer(&command, depth).await;
            let Some(result) = result else { return Executed { flow: Flow::Next, error: None } };
            let flow = if name == "quit" && result.is_ok() { Flow::Quit } else { Flow::Next };
            let error = result.as_ref().err().cloned();
            self.output.reply(ReplyLine { line, id, after: self.handle.emitted(), command: name, result }).await;
            // The menu's own reply holds the panel.
            if let Some(menu) = self.menu.as_ref().filter(|_| opened && self.chat.is_none() && flow == Flow::Next) {
                self.output.text(menu.asks()).await;
            }
            Executed { flow, error }
        })
    }

    /// The message that a line sends, if it may be sent before the last one is answered.
    fn pipelined_message(&self, input: &str) -> Option<Command> {
        self.pipeline.as_ref()?;
        if self.menu.is_some() {
            return None;
        }
        match &self.chat {
            Some(peer) if !input.starts_with('/') => {
                let text = !matches!(input.trim(), "" | "exit");
                text.then(|| Command::SendMessage { to: peer.clone(), text: input.to_owned() })
            }
            _ => match command_line::parse(input, Timestamp::now()) {
                Ok(Line::Node(command @ Command::SendMessage { .. })) => Some(command),
                _ => None,
            },
        }
    }

    /// Wait until every message handed over so far is answered.
    async fn settle_pipeline(&mut self) {
        if let Some(pipeline) = &self.pipeline {
            for id in pipeline.settle().await {
                self.remember(id);
            }
        }
    }

    fn remember(&mut self, id: String) {
        if self.begun.len() == WATCHED {
            self.begun.pop_front();
        }
        self.begun.push_back(id);
    }

    /// `None` for an empty line, which needs no reply.
    async fn answer(&mut self, input: &str, depth: usize) -> (String, Option<Result<Answered, ApiError>>) {
        if let Some(peer) = self.chat.clone()
            && !input.starts_with('/')
            && input.trim() != "exit"
        {
            if input.trim().is_empty() {
                return ("msg".to_owned(), None);
            }
            let command = Command::SendMessage { to: peer, text: input.to_owned() };
            return ("msg".to_owned(), Some(self.node(command).await));
        }
        if self.in_menu() && !input.starts_with('/') {
            return self.menu_answer(input).await;
        }
        let parsed = command_line::parse(input, Timestamp::now());
        let mut name = command_line::name(input).to_owned();
        let result = match parsed {
            Ok(Line::Empty) => return (name, None),
            Ok(Line::Node(Command::Quit)) => {
                name = "quit".to_owned();
                self.node(Command::Quit).await
            }
            Ok(Line::Session(SessionCommand::LeaveOrQuit)) if self.chat.take().is_some() => {
                name = "exit".to_owned();
                Ok(Answered::nothing())
            }
            Ok(Line::Session(SessionCommand::LeaveOrQuit)) => {
                name = "quit".to_owned();
                self.node(Command::Quit).await
            }
            Ok(Line::Node(command)) => self.node(command).await,
            Ok(Line::Session(command)) => self.session_command(command, depth).await,
            Err(error) => Err(error),
        };
        (name, Some(result))
    }

    /// A line that answers the menu's question.
    async fn menu_answer(&mut self, input: &str) -> (String, Option<Result<Answered, ApiError>>) {
        let Some(menu) = &mut self.menu else { return ("menu".to_owned(), None) };
        let (name, result) = match menu.answer(input, &self.handle).await {
            Ok(Next::Say { data, text }) => ("menu", Ok(Answered::Value { data, text })),
            Ok(Next::Node(name, command)) => (name, self.node(command).await),
            Ok(Next::Chat(peer)) => ("chat", self.begin_chat(peer).await),
            Ok(Next::Close) => {
                self.menu = None;
                ("menu", Ok(Answered::nothing()))
            }
            Ok(Next::Line(line)) => match command_line::parse(&line, Timestamp::now()) {
                Ok(Line::Node(command)) => ("broadcast", self.node(command).await),
                Ok(_) => ("menu", Ok(Answered::nothing())),
                Err(error) => ("menu", Err(error)),
            },
            Err(error) => ("menu", Err(error)),
        };
        (name.to_owned(), Some(result))
    }

    async fn node(&mut self, command: Command) -> Result<Answered, ApiError> {
        // Only a direct message has a receipt that can be waited for.
        let has_receipt = matches!(command, Command::SendMessage { .. });
        let reply = self.handle.execute(command.clone()).await?;
        self.last = Some(command);
        if let Reply::Started { id } = &reply
            && has_receipt
        {
            self.remember(id.clone());
        }
        if let Reply::Sending(sent) = &reply {
            if self.sent.len() == WATCHED {
                self.sent.pop_front();
            }
            self.sent.push_back(sent.id.clone());
            self.last_sent = Some(sent.id.clone());
        }
        Ok(Answered::Reply(reply))
    }

    async fn session_command(&mut self, command: SessionCommand, depth: usize) -> Result<Answered, ApiError> {
        match command {
            SessionCommand::Chat { peer } => self.begin_chat(peer).await,
            // `answer` has taken it already.
            SessionCommand::LeaveOrQuit => Ok(Answered::nothing()),
            SessionCommand::Help { topic } => {
                let text = match topic {
                    None => help::overview(),
                    Some(word) => help::topic(&word).ok_or_else(|| {
                        ApiError::new(
                            ErrorCode::Usage,
                            format!("there is no help on '{word}'; `help` lists the topics"),
                        )
                    })?,
                };
                Ok(Answered::Value { data: json!({ "text": text }), text })
            }
            SessionCommand::Menu => {
                let menu = Menu::default();
                let text = menu.asks();
                self.menu = Some(menu);
                Ok(Answered::Value { data: json!({ "menu": Menu::data() }), text })
            }
            SessionCommand::Clear => Ok(Answered::Value { data: json!({}), text: "\u{1b}[2J\u{1b}[H".to_owned() }),
            SessionCommand::Wait { condition, timeout } => self.wait(condition, timeout.unwrap_or(WAIT)).await,
            SessionCommand::Expect { condition } => {
                let condition = self.ready(condition)?;
                let said = condition.said();
                self.holds(&condition)
                    .await?
                    .ok_or_else(|| ApiError::new(ErrorCode::ConditionFalse, format!("it does not hold that {said}")))
            }
            SessionCommand::Sleep(span) => {
                tokio::time::sleep(span).await;
                Ok(Answered::nothing())
            }
            SessionCommand::Source(file) => self.source(&file, depth).await,
            SessionCommand::Echo(text) => {
                Ok(Answered::Value { data: json!({ "text": text }), text: safe(&text).into_owned() })
            }
            SessionCommand::Stats { id, file, format } => self.stats(id, file, format).await,
            SessionCommand::Export { query, file, format } => {
                let Reply::History(rows) = self.handle.execute(Command::History(query)).await? else {
                    return Err(ApiError::new(ErrorCode::General, "the node gave no history"));
                };
                let shown = file.display().to_string();
                let names = self.names(&rows).await?;
                let written = tokio::task::spawn_blocking(move || {
                    export::export(&rows, &file, format, &|peer, name| names.named(peer, name))
                })
                .await;
                let rows = written.map_err(|_| ApiError::new(ErrorCode::General, "the export was interrupted"))??;
                Ok(Answered::Value {
                    data: json!({ "file": shown, "rows": rows }),
                    text: format!("{rows} messages written to {shown}"),
                })
            }
        }
    }

    /// Who is called what, this node and the authors of `rows` among them.
    async fn names(&self, rows: &[HistoryRow]) -> Result<Names, ApiError> {
        let mut names = Names::default();
        if let Reply::Status(own) = self.handle.execute(Command::Status).await? {
            names.learn(&own.peer_id, &own.name);
        }
        if let Reply::Peers(peers) = self.handle.execute(Command::Peers).await? {
            peers.iter().for_each(|peer| names.learn(&peer.peer, &peer.name));
        }
        rows.iter().filter(|row| !row.is_damaged()).for_each(|row| names.learn_if_new(&row.from, &row.name));
        Ok(names)
    }

    async fn begin_chat(&mut self, peer: String) -> Result<Answered, ApiError> {
        let Reply::Peer(info) = self.handle.execute(Command::Whois { peer }).await? else {
            return Err(ApiError::new(ErrorCode::General, "the node gave no peer"));
        };
        let name = if info.name.is_empty() { info.peer.clone() } else { info.name.clone() };
        // The id and not the name: a namesake that comes along later must not get the next line.
        self.chat = Some(info.peer.clone());
        let text = format!(
            "Every line goes to {} now; `exit` ends it, and a line that begins with / is a command.",
            safe(&name)
        );
        Ok(Answered::Value { data: json!({ "peer": info.peer, "name": info.name }), text })
    }

    async fn source(&mut self, file: &Path, depth: usize) -> Result<Answered, ApiError> {
        if depth >= MAX_DEPTH {
            return Err(ApiError::new(ErrorCode::Usage, format!("files source each other more than {MAX_DEPTH} deep")));
        }
        let text = tokio::fs::read_to_string(file).await;
        let text = text
            .map_err(|error| ApiError::new(ErrorCode::Usage, format!("{} cannot be read: {error}", file.display())))?;
        let mut first_error = None;
        for (number, line) in text.lines().enumerate() {
            let executed = self.execute_at(line, depth + 1).await;
            if let Some(error) = executed.error {
                let error =
                    ApiError::new(error.code, format!("{} line {}: {}", file.display(), number + 1, error.message));
                first_error.get_or_insert(error);
                if !self.keep_going {
                    break;
                }
            }
        }
        first_error.map_or(Ok(Answered::nothing()), Err)
    }

    async fn wait(&mut self, condition: Condition, timeout: Duration) -> Result<Answered, ApiError> {
        let condition = self.ready(condition)?;
        let deadline = Instant::now() + timeout;
        loop {
            self.watch.see();
            if let Some(answer) = self.holds(&condition).await? {
                return Ok(answer);
            }
            if !self.watch.changed(deadline).await {
                let said = condition.said();
                let why = format!("waited {} s in vain until {said}", timeout.as_secs_f64());
                return Err(ApiError::new(ErrorCode::ConditionFalse, why));
            }
        }
    }

    /// The condition with its pattern compiled and its id filled in.
    fn ready(&self, condition: Condition) -> Result<Ready, ApiError> {
        Ok(match condition {
            Condition::Peers(count) => Ready::Peers(count),
            Condition::Peer(peer) => Ready::Peer(peer),
            Condition::Dead(peer) => Ready::Dead(peer),
            Condition::Message(pattern) => {
                Ready::Message(RegexBuilder::new(&pattern).size_limit(MAX_PATTERN).build().map_err(|error| {
                    let text = error.to_string();
                    let why = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
                    ApiError::new(ErrorCode::Usage, format!("'{pattern}' is no regular expression: {why}"))
                })?)
            }
            Condition::Transfer(id) => Ready::Transfer(id.or_else(|| self.last_sent.clone())),
            Condition::Delivered(Some(id)) => Ready::Delivered(id),
            Condition::Delivered(None) => Ready::Delivered(self.begun.back().cloned().ok_or_else(|| {
                ApiError::new(ErrorCode::Usage, "no message was sent in this session; name one: wait delivered ID")
            })?),
        })
    }

    /// Whether the condition holds now. An error when it never will.
    async fn holds(&mut self, condition: &Ready) -> Result<Option<Answered>, ApiError> {
        match condition {
            Ready::Peers(count) => {
                let Reply::Peers(peers) = self.handle.execute(Command::Peers).await? else { return Ok(None) };
                let up = peers.iter().filter(|peer| peer.state == PeerState::Up && peer.role == Role::Peer).count();
                let answer = || Answered::Value { data: json!({ "peers": up }), text: format!("{up} peers are up") };
                Ok((up >= *count).then(answer))
            }
            Ready::Peer(peer) | Ready::Dead(peer) => {
                match self.handle.execute(Command::Whois { peer: peer.clone() }).await {
                    Ok(Reply::Peer(info)) if info.state == condition.wanted() => {
                        let word = if info.state == PeerState::Dead { "dead" } else { "up" };
                        let text = format!("{} is {word}", safe(&info.name));
                        Ok(Some(Answered::Value { data: to_value(&Reply::Peer(info)), text }))
                    }
                    Ok(_) => Ok(None),
                    Err(error) if matches!(error.code, ErrorCode::NoSuchPeer | ErrorCode::Unreachable) => Ok(None),
                    Err(error) => Err(error),
                }
            }
            Ready::Message(pattern) => Ok(self.watch.take_message(pattern).map(|message| {
                let data = to_value(&*message.event);
                let text = match &*message.event {
                    Event::Message { name, .. } => format!("there is one from {}", safe(name)),
                    _ => String::new(),
                };
                Answered::Value { data, text }
            })),
            Ready::Transfer(id) => self.transfer_holds(id.as_deref()).await,
            Ready::Delivered(id) => match self.state_of(id).await? {
                DeliveryState::Delivered => Ok(Some(Answered::Value {
                    data: json!({ "id": id, "state": "delivered" }),
                    text: format!("{id} is delivered"),
                })),
                DeliveryState::Failed => {
                    Err(ApiError::new(ErrorCode::ConditionFalse, format!("the message {id} was given up")))
                }
                DeliveryState::Queued | DeliveryState::Sent | DeliveryState::Received => Ok(None),
            },
        }
    }

    async fn state_of(&self, id: &str) -> Result<DeliveryState, ApiError> {
        match self.handle.execute(Command::MessageState { id: id.to_owned() }).await? {
            Reply::Delivery { state, .. } => Ok(state),
            _ => Err(ApiError::new(ErrorCode::General, "the node gave no state")),
        }
    }
}

/// Plain data as JSON.
fn to_value(data: &impl serde::Serialize) -> Value {
    // None of our types can fail: no maps with keys that are no strings, no fallible serialisers.
    serde_json::to_value(data).unwrap_or_default()
}

/// A command line that is a JSON object, as its id and its command; an object without a command is an error.
#[expect(clippy::type_complexity, reason = "both sides carry the id, which the reply repeats")]
fn json_command(input: &str) -> Result<Option<(Option<Value>, String)>, (Option<Value>, ApiError)> {
    if !input.trim_start().starts_with('{') {
        return Ok(None);
    }
    let Ok(Value::Object(mut object)) = serde_json::from_str(input) else { return Ok(None) };
    let id = object.remove("id");
    match object.remove("cmd") {
        Some(Value::String(command)) => Ok(Some((id, command))),
        _ => {
            let why = "a command line in JSON needs the command as text, for example {\"id\":1,\"cmd\":\"peers\"}";
            Err((id, ApiError::new(ErrorCode::Usage, why)))
        }
    }
}
