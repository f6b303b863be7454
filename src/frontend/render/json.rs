//! The lines of `--json`: one object a line (outward contract, section 3).

use std::fmt::Write as _;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::safe::is_hidden;
use crate::api::{ApiError, Stamped};

/// The version of this format, `v` of every line. It rises when a field changes its meaning or goes away.
const VERSION: u64 = 1;

/// One event as a line without its line break; `n` rises by one from line to line of one output.
pub(crate) fn event_line(n: u64, stamped: &Stamped) -> String {
    // The tag `type` is the first field that serde writes.
    let event = to_json(&*stamped.event);
    let mut line = head(n, stamped.at);
    line.push_str(event.strip_prefix('{').unwrap_or("\"type\":\"error\"}"));
    line
}

/// The reply to one command as a line without its line break. `line` counts the command lines from 1; `id` is what the
/// command line, when it was a JSON object, called itself.
pub(crate) fn reply_line<T: Serialize>(
    n: u64,
    at: Timestamp,
    line: u64,
    id: Option<&Value>,
    command: &str,
    result: &Result<T, ApiError>,
) -> String {
    let mut out = head(n, at);
    // Writing to a string cannot fail.
    let _ = write!(out, "\"type\":\"reply\",\"line\":{line}");
    if let Some(id) = id {
        let _ = write!(out, ",\"id\":{}", to_json(id));
    }
    let _ = write!(out, ",\"command\":{}", to_json(command));
    let _ = match result {
        Ok(data) => write!(out, ",\"ok\":true,\"data\":{}}}", to_json(data)),
        Err(error) => write!(
            out,
            ",\"ok\":false,\"error\":{{\"code\":{},\"message\":{}}}}}",
            to_json(&error.code),
            to_json(&error.message)
        ),
    };
    out
}

/// Plain data by itself, for a command that prints nothing else.
pub(crate) fn data<T: Serialize>(data: &T) -> String {
    to_json(data)
}

/// `{"v":1,"n":7,"ts":"2026-11-21T02:53:54.123Z",`
fn head(n: u64, at: Timestamp) -> String {
    format!("{{\"v\":{VERSION},\"n\":{n},\"ts\":\"{at:.3}\",")
}

/// JSON in which nothing that steers a terminal stands bare. JSON itself only demands that of C0; the rest is escaped
/// too, because such lines are read on terminals, and by readers that break lines at U+0085 or U+2028. Such characters
/// can only stand within strings, where `\u` means the same, so whoever parses the line gets the text unchanged.
fn to_json<T: Serialize + ?Sized>(value: &T) -> String {
    // Plain data with text keys always serialises; `null` keeps the line well-formed all the same.
    let json = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    if !json.chars().any(is_hidden) {
        return json;
    }
    let mut out = String::with_capacity(json.len() + 16);
    for character in json.chars() {
        if is_hidden(character) {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        } else {
            out.push(character);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::api::Reply;
    use crate::api::{ErrorCode, Event, MessageKind};

    fn at() -> Timestamp {
        "2026-11-21T02:53:54.123456789Z".parse().unwrap()
    }

    fn message(text: &str) -> Stamped {
        let event = Event::Message {
            id: "0f".to_owned(),
            kind: MessageKind::Direct,
            from: "12D3KooWbob".to_owned(),
            name: text.to_owned(),
            team: "red".to_owned(),
            text: text.to_owned(),
            sent_at: "2026-11-21T02:53:54Z".parse().unwrap(),
            seq: 3,
            via: "12D3KooWbob".to_owned(),
        };
        Stamped { n: 1, at: at(), event: Arc::new(event) }
    }

    #[test]
    fn an_event_has_its_head_first_and_milliseconds() {
        assert_eq!(
            event_line(7, &message("hi")),
            "{\"v\":1,\"n\":7,\"ts\":\"2026-11-21T02:53:54.123Z\",\"type\":\"message\",\"id\":\"0f\",\"kind\":\"direct\",\
             \"from\":\"12D3KooWbob\",\"name\":\"hi\",\"team\":\"red\",\"text\":\"hi\",\"sent_at\":\"2026-11-21T02:53:54.000Z\",\
             \"seq\":3,\"via\":\"12D3KooWbob\"}"
        );
    }

    #[test]
    fn a_reply_says_what_it_answers() {
        let started = Ok(Reply::Started { id: "0f".to_owned() });
        assert_eq!(
            reply_line(1, at(), 3, Some(&Value::from("x")), "msg", &started),
            "{\"v\":1,\"n\":1,\"ts\":\"2026-11-21T02:53:54.123Z\",\"type\":\"reply\",\"line\":3,\"id\":\"x\",\"command\":\"msg\",\
             \"ok\":true,\"data\":{\"id\":\"0f\"}}"
        );
        let failed: Result<Reply, _> = Err(ApiError::new(ErrorCode::NoSuchPeer, "nobody is called \"bob\""));
        assert_eq!(
            reply_line(2, at(), 4, None, "msg", &failed),
            "{\"v\":1,\"n\":2,\"ts\":\"2026-11-21T02:53:54.123Z\",\"type\":\"reply\",\"line\":4,\"command\":\"msg\",\"ok\":false,\
             \"error\":{\"code\":\"no_such_peer\",\"message\":\"nobody is called \\\"bob\\\"\"}}"
        );
        assert!(reply_line(2, at(), 4, None, "echo", &Ok(Value::from("hi"))).ends_with("\"ok\":true,\"data\":\"hi\"}"));
        assert!(reply_line(2, at(), 4, None, "quit", &Ok(Reply::Done {})).ends_with("\"ok\":true,\"data\":{}}"));
    }

    proptest! {
        #[test]
        fn a_line_is_one_line_and_the_text_arrives_unchanged(text in any::<String>()) {
            let line = event_line(1, &message(&text));
            prop_assert!(!line.chars().any(is_hidden));
            let parsed: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(parsed["text"].as_str(), Some(text.as_str()));
            let id = Value::from(text.as_str());
            let line = reply_line(1, at(), 1, Some(&id), &text, &Ok(Value::from(text.as_str())));
            prop_assert!(!line.chars().any(is_hidden));
            let parsed: Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(parsed["data"].as_str(), Some(text.as_str()));
        }
    }
}
