//! Lines about files.

use std::path::PathBuf;

use super::super::export::Format;
use super::{Args, Line, SessionCommand, shown, values};
use crate::api::{Absent, ApiError, Command, SendFiles};

impl Args<'_> {
    /// `send PATH PEER…`, or `send PATH… --to PEER…`.
    pub(super) fn send(&self) -> Result<Line, ApiError> {
        let (mut plain, mut to) = (Vec::new(), None);
        let mut absent = Absent::Queue;
        let mut words = self.words()?.into_iter();
        while let Some(word) = words.next() {
            match word.as_str() {
                "--" => plain.extend(words.by_ref()),
                "--allow-queued" => absent = Absent::Ignore,
                "--to" => drop(to.get_or_insert_with(Vec::new)),
                _ if word.starts_with("--to=") => {
                    to.get_or_insert_with(Vec::new).push(word["--to=".len()..].to_owned())
                }
                "-" => return Err(self.wrong("`-` is standard input, which belongs to `node send -` at a shell")),
                _ if word.starts_with('-') => {
                    return Err(self.wrong(format_args!("`send` has no option '{}'", shown(&word))));
                }
                // What stands behind `--to` is a receiver; paths stand before it.
                _ => to.as_mut().unwrap_or(&mut plain).push(word),
            }
        }
        let (paths, to) = match to {
            Some(to) => (plain, to),
            None if plain.is_empty() => (plain, Vec::new()),
            None => {
                let to = plain.split_off(1);
                (plain, to)
            }
        };
        if paths.is_empty() || paths.iter().any(String::is_empty) {
            return Err(self.missing("PATH"));
        }
        if to.is_empty() || to.iter().any(String::is_empty) {
            return Err(self.missing("PEER"));
        }
        let paths = paths.into_iter().map(PathBuf::from).collect();
        let to = with_ports(to);
        Ok(Line::Node(Command::SendFiles(SendFiles { paths, to, absent, settled: 0 })))
    }

    /// `accept ID [--out DIR]`.
    pub(super) fn accept(&self) -> Result<Line, ApiError> {
        let (words, [folder]) = self.sorted(self.words()?, ["--out"])?;
        match words.as_slice() {
            [] => Err(self.missing("ID")),
            [id] if id.is_empty() => Err(self.missing("ID")),
            [id] if folder.as_deref() != Some("") => {
                Ok(Line::Node(Command::Accept { id: id.clone(), folder: folder.map(PathBuf::from) }))
            }
            [_] => Err(self.missing("DIR")),
            [_, word, ..] => Err(self.surplus(word)),
        }
    }

    pub(super) fn receive(&self) -> Result<Line, ApiError> {
        let words = self.words()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        Ok(Line::Node(match words.as_slice() {
            [] => Command::Receive,
            ["auto", "on"] => Command::ReceiveAuto { on: true },
            ["auto", "off"] => Command::ReceiveAuto { on: false },
            ["auto"] => return Err(self.missing("on or off")),
            ["auto", "on" | "off", word, ..] | ["auto", word, ..] | [word, ..] => return Err(self.surplus(word)),
        }))
    }

    pub(super) fn stats(&self) -> Result<Line, ApiError> {
        let (words, [json, csv]) = self.sorted(self.words()?, ["--json", "--csv"])?;
        if let Some(word) = words.get(1) {
            return Err(self.surplus(word));
        }
        let id = match words.into_iter().next() {
            Some(id) if id.is_empty() => return Err(self.missing("ID")),
            id => id,
        };
        let (file, format) = match (json, csv) {
            (None, None) => return Ok(Line::Node(Command::Transfers { id })),
            (Some(file), None) => (file, Format::Json),
            (None, Some(file)) => (file, Format::Csv),
            (Some(_), Some(_)) => return Err(self.wrong("one of --json and --csv is enough")),
        };
        if file.is_empty() {
            return Err(self.missing("FILE"));
        }
        Ok(Line::Session(SessionCommand::Stats { id, file: file.into(), format }))
    }
}

/// Two words `host port` are one receiver. Where there are more words, the host must look like one: a nickname could be
/// a number.
fn with_ports(words: Vec<String>) -> Vec<String> {
    let alone = words.len() == 2;
    let mut out: Vec<String> = Vec::new();
    // Whether the last one may still be a host.
    let mut open = false;
    for word in words {
        let host = out.last().filter(|host| open && (alone || host.contains(['.', ':']) || *host == "localhost"));
        let digits = word.bytes().all(|byte| byte.is_ascii_digit());
        match host.and_then(|host| values::host_port(host, &word).ok()).filter(|_| digits) {
            Some(address) => {
                out.pop();
                out.push(address);
                open = false;
            }
            None => {
                out.push(word);
                open = true;
            }
        }
    }
    out
}
