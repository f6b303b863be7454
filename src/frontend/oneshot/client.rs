//! One conversation over the control socket, and what can be read from its lines.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use crate::api::{ApiError, ErrorCode};
use crate::frontend::control;

/// A client of a running node.
pub(super) struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Client {
    pub(super) async fn connect(socket: &Path) -> Result<Self, ApiError> {
        let stream: UnixStream = control::connect(socket).await?;
        let (reader, writer) = stream.into_split();
        Ok(Self { lines: BufReader::new(reader).lines(), writer })
    }

    /// The reply as it came and as data. With `json` without the text for people.
    pub(super) async fn ask(&mut self, line: &str, json: bool) -> Result<(String, Value), ApiError> {
        self.send(&json!({ "cmd": line, "text": !json })).await?;
        let raw = self.line().await?.ok_or_else(stopped)?;
        let reply = parse(&raw)?;
        Ok((raw, reply))
    }

    /// The data of the reply to a command that the program gives by itself.
    pub(super) async fn data(&mut self, line: &str) -> Result<Value, ApiError> {
        let (_, mut reply) = self.ask(line, true).await?;
        result_of(&reply)?;
        Ok(reply["data"].take())
    }

    pub(super) async fn send(&mut self, request: &Value) -> Result<(), ApiError> {
        let line = format!("{request}\n");
        self.writer
            .write_all(line.as_bytes())
            .await
            .map_err(|error| ApiError::new(ErrorCode::NotRunning, format!("the node has stopped: {error}")))
    }

    /// The next line; `None` when the node has closed the conversation. Cancelling it loses nothing.
    pub(super) async fn line(&mut self) -> Result<Option<String>, ApiError> {
        self.lines
            .next_line()
            .await
            .map_err(|error| ApiError::new(ErrorCode::General, format!("the running node cannot be read: {error}")))
    }
}

/// The node went away in the middle.
pub(super) fn stopped() -> ApiError {
    ApiError::new(ErrorCode::NotRunning, "the node has stopped")
}

/// The error in a reply, with the code it has at the node.
pub(super) fn result_of(reply: &Value) -> Result<(), ApiError> {
    if reply["ok"] == true {
        return Ok(());
    }
    let code = serde_json::from_value(reply["error"]["code"].clone()).unwrap_or(ErrorCode::General);
    Err(ApiError::new(code, reply["error"]["message"].as_str().unwrap_or("the node gave no reason")))
}

pub(super) fn parse(line: &str) -> Result<Value, ApiError> {
    serde_json::from_str(line)
        .map_err(|_| ApiError::new(ErrorCode::General, "the running node answered with something else than JSON"))
}

/// One word of a command line, quoted where it needs it.
pub(super) fn quoted(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | '\\');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}
