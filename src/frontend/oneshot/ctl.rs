//! `node ctl` and `node events`.

use std::path::Path;

use serde_json::{Value, json};

use super::client::{Client, parse, quoted, result_of};
use super::status;
use crate::api::{ApiError, ErrorCode};
use crate::frontend::command_line;

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

async fn give(socket: &Path, words: &[String], json: bool, allow_queued: bool) -> Result<(), ApiError> {
    let line = command_of(&with_whole_paths(words));
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
            say("delivered");
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

/// Paths of `send` as they mean the same to a node with another working folder. A single word is a whole line, and taken as
/// it stands.
fn with_whole_paths(words: &[String]) -> Vec<String> {
    let mut words = words.to_vec();
    if let [command, arguments @ ..] = words.as_mut_slice()
        && command_line::name(command) == "send"
    {
        let receivers = arguments.iter().position(|word| word == "--to");
        // Without `--to` only the first is a path.
        let paths = receivers.unwrap_or_else(|| arguments.len().min(1));
        for path in arguments.iter_mut().take(paths).filter(|word| !word.starts_with('-')) {
            if let Ok(whole) = std::path::absolute(&*path) {
                *path = whole.to_string_lossy().into_owned();
            }
        }
    }
    words
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

fn print(raw: &str, reply: &Value, json: bool) {
    if json {
        say(raw);
    } else if reply["ok"] == true
        && let Some(text) = reply["text"].as_str()
    {
        say(text);
    }
}

/// A reader that has gone, as in `node ctl peers | head`, is no trouble.
fn say(line: &str) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stdout(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_send_are_made_whole() {
        let here = std::env::current_dir().unwrap();
        let whole = |name: &str| here.join(name).display().to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        for (given, expected) in [
            (words(&["send", "a.txt", "bob"]), words(&["send", &whole("a.txt"), "bob"])),
            (words(&["send", "a", "/b", "--to", "c"]), words(&["send", &whole("a"), "/b", "--to", "c"])),
            (words(&["/send", "a", "bob"]), words(&["/send", &whole("a"), "bob"])),
            (words(&["send", "--to", "bob", "a"]), words(&["send", "--to", "bob", "a"])),
            (words(&["msg", "bob", "a"]), words(&["msg", "bob", "a"])),
            (words(&["send a bob"]), words(&["send a bob"])),
        ] {
            assert_eq!(with_whole_paths(&given), expected);
        }
    }

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
