//! `node ctl` and `node events`: the client's side of the control socket.

use std::path::Path;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

use super::command_line;
use super::complain;
use crate::api::{ApiError, ErrorCode};

/// How long a message may take to be delivered before it counts as only queued.
const DELIVERY: &str = "10s";

/// Give one command to the running node and print its reply; the exit status.
pub async fn ctl(socket: &Path, words: &[String], json: bool, allow_queued: bool) -> u8 {
    status(give(socket, words, json, allow_queued).await)
}

/// Print the running node's events: what stands now, and with `follow` everything that happens from now on.
pub async fn follow_events(socket: &Path, follow: bool, json: bool) -> u8 {
    status(watch(socket, follow, json).await)
}

fn status(result: Result<(), ApiError>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(error) => {
            complain(&error);
            error.code.exit_status()
        }
    }
}

async fn give(socket: &Path, words: &[String], json: bool, allow_queued: bool) -> Result<(), ApiError> {
    let line = command_of(words);
    if command_line::name(&line) == "chat" {
        return Err(ApiError::new(
            ErrorCode::Usage,
            "`chat` needs a prompt; write `node ctl msg PEER TEXT` for each message",
        ));
    }
    let mut client = Client::connect(socket).await?;
    let (raw, reply) = client.ask(&line, json).await?;
    print(&raw, &reply, json);
    result_of(&reply)?;
    let Some(id) = reply["data"]["id"].as_str().filter(|_| reply["command"] == "msg" && !allow_queued) else {
        return Ok(());
    };
    let (_, delivered) = client.ask(&format!("wait delivered {id} --timeout {DELIVERY}"), json).await?;
    if result_of(&delivered).is_ok() {
        if !json {
            println!("delivered");
        }
    } else {
        let why = "the message is stored but nobody has it yet; it waits in the outbox (`node ctl outbox`)";
        return Err(ApiError::new(ErrorCode::OnlyQueued, why));
    }
    Ok(())
}

async fn watch(socket: &Path, follow: bool, json: bool) -> Result<(), ApiError> {
    let mut client = Client::connect(socket).await?;
    let what = if follow { "follow" } else { "snapshot" };
    client.send(&json!({ what: true, "text": !json })).await?;
    while let Some(line) = client.line().await? {
        use std::io::Write;
        let line = if json { line } else { parse(&line)?["text"].as_str().unwrap_or_default().to_owned() };
        // A reader that has gone, as in `node events --follow | head`, ends it quietly.
        if writeln!(std::io::stdout(), "{line}").is_err() {
            return Ok(());
        }
    }
    Ok(())
}

/// The words of a shell as one line. A single word is a whole line; TEXT is joined as it stands; other words are quoted
/// again where they need it.
fn command_of(words: &[String]) -> String {
    match words {
        [line] => line.clone(),
        [command, peer, text @ ..] if command_line::name(command) == "msg" && !command.starts_with('@') => {
            format!("{command} {} {}", quoted(peer), text_of(text))
        }
        [at_peer, text @ ..] if at_peer.starts_with('@') => format!("{at_peer} {}", text_of(text)),
        words => words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "),
    }
}

/// Leading and trailing blanks would be taken for separators, so such a text goes as a JSON string.
fn text_of(words: &[String]) -> String {
    let text = words.join(" ");
    if text.trim() == text { text } else { Value::from(text).to_string() }
}

fn quoted(word: &str) -> String {
    let plain = |c: char| !c.is_whitespace() && !matches!(c, '\'' | '"' | '\\');
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

fn print(raw: &str, reply: &Value, json: bool) {
    if json {
        println!("{raw}");
    } else if reply["ok"] == true
        && let Some(text) = reply["text"].as_str()
    {
        println!("{text}");
    }
}

/// The error in a reply, with the code it has at the node.
fn result_of(reply: &Value) -> Result<(), ApiError> {
    if reply["ok"] == true {
        return Ok(());
    }
    let code = serde_json::from_value(reply["error"]["code"].clone()).unwrap_or(ErrorCode::General);
    Err(ApiError::new(code, reply["error"]["message"].as_str().unwrap_or("the node gave no reason")))
}

fn parse(line: &str) -> Result<Value, ApiError> {
    serde_json::from_str(line)
        .map_err(|_| ApiError::new(ErrorCode::General, "the running node answered with something else than JSON"))
}

pub(super) struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    writer: OwnedWriteHalf,
}

impl Client {
    pub(super) async fn connect(socket: &Path) -> Result<Self, ApiError> {
        let stream: UnixStream = super::control::connect(socket).await?;
        let (reader, writer) = stream.into_split();
        Ok(Self { lines: BufReader::new(reader).lines(), writer })
    }

    /// The reply as it came and as data.
    pub(super) async fn ask(&mut self, line: &str, json: bool) -> Result<(String, Value), ApiError> {
        self.send(&json!({ "cmd": line, "text": !json })).await?;
        let gone = || ApiError::new(ErrorCode::NotRunning, "the node has stopped");
        let raw = self.line().await?.ok_or_else(gone)?;
        let reply = parse(&raw)?;
        Ok((raw, reply))
    }

    async fn send(&mut self, request: &Value) -> Result<(), ApiError> {
        let line = format!("{request}\n");
        self.writer
            .write_all(line.as_bytes())
            .await
            .map_err(|error| ApiError::new(ErrorCode::NotRunning, format!("the node has stopped: {error}")))
    }

    async fn line(&mut self) -> Result<Option<String>, ApiError> {
        self.lines
            .next_line()
            .await
            .map_err(|error| ApiError::new(ErrorCode::General, format!("the running node cannot be read: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_shell_become_one_line() {
        for (words, line) in [
            (&["peers"][..], "peers"),
            (&["msg bob hi  there"], "msg bob hi  there"),
            (&["msg", "bob", "hello  world"], "msg bob hello  world"),
            (&["msg", "bob", "don't", "\"quote\"", "$HOME"], "msg bob don't \"quote\" $HOME"),
            (&["msg", "bob", "  indented"], "msg bob \"  indented\""),
            (&["@bob", "hi", "there"], "@bob hi there"),
            (&["history", "all", "--search", "two words"], "history all --search 'two words'"),
            (&["nick", "it's"], r"nick 'it'\''s'"),
        ] {
            let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
            assert_eq!(command_of(&words), line);
        }
    }
}
