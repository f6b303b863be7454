//! Messages into a new file, for people and for other programs.

mod stats;

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::Path;

use serde::Serialize;

pub(crate) use stats::export_stats;

use super::render::safe::{is_hidden, safe};
use super::render::text::names::label;
use crate::api::{ApiError, ErrorCode, HistoryRow, MessageKind};

/// How messages are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One JSON array of the objects that `history` replies with.
    Json,
    /// RFC 4180 with a header row, every field quoted. Characters that steer a terminal, change the reading direction or
    /// are invisible are escaped, and what a spreadsheet could take for a formula gets a `'` in front; everything else
    /// stands unchanged, line breaks and tabs too.
    Csv,
    /// One line a message, as on the screen: hidden characters escaped, namesakes told apart.
    Txt,
}

impl Format {
    /// `json`, `csv` or `txt`.
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        match name {
            "json" => Some(Self::Json),
            "csv" => Some(Self::Csv),
            "txt" => Some(Self::Txt),
            _ => None,
        }
    }
}

/// The columns of a CSV file, in the names of the outward contract.
const COLUMNS: [&str; 12] =
    ["id", "kind", "from", "name", "team", "to", "text", "sent_at", "received_at", "seq", "state", "reason"];

/// Write `rows` to `file`, which must not exist, and return how many there are once they are on disk. On Unix only its
/// owner can read it. `name` gives what to call a peer in [`Format::Txt`], out of its PeerId and the nickname that stands
/// in the row, or an empty one where none does; it must be harmless to a terminal.
///
/// # Errors
///
/// [`ErrorCode::Usage`] when the file exists already (it is left alone) or cannot be created, [`ErrorCode::Storage`]
/// when writing fails; what was written by then is removed.
pub(crate) fn export(
    rows: &[HistoryRow],
    file: &Path,
    format: Format,
    name: &dyn Fn(&str, &str) -> String,
) -> Result<usize, ApiError> {
    end(create(file)?, file, |out| match format {
        Format::Json => json(rows, out),
        Format::Csv => csv(rows, out),
        Format::Txt => txt(rows, out, name),
    })?;
    Ok(rows.len())
}

/// A new file that only its owner can read.
fn create(file: &Path) -> Result<File, ApiError> {
    let shown = file.display().to_string();
    let shown = safe(&shown);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file).map_err(|error| {
        let message = match error.kind() {
            ErrorKind::AlreadyExists => {
                format!("the file '{shown}' exists already and is not overwritten; give another name")
            }
            _ => format!("the file '{shown}' cannot be created ({error}); give a name in a folder that can be written"),
        };
        ApiError::new(ErrorCode::Usage, message)
    })
}

/// Write a new file to its end and onto the disk, or remove it.
fn end(created: File, file: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), ApiError> {
    let mut out = BufWriter::new(created);
    let written = write(&mut out).and_then(|()| out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all());
    written.map_err(|error| {
        // Half an export looks like a whole one; if it cannot even be removed, the error below says enough.
        let _ = fs::remove_file(file);
        let shown = file.display().to_string();
        let why = format!("the file '{}' could not be written ({error}) and was removed", safe(&shown));
        ApiError::new(ErrorCode::Storage, why)
    })
}

fn json(rows: &[HistoryRow], out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, rows)?;
    out.write_all(b"\n")
}

fn csv(rows: &[HistoryRow], out: &mut impl Write) -> io::Result<()> {
    record(out, COLUMNS)?;
    for row in rows {
        record(
            out,
            [
                &row.id,
                &word(row.kind)?,
                &row.from,
                &row.name,
                &row.team,
                &row.to,
                &row.text,
                &row.sent_at.to_string(),
                &row.received_at.to_string(),
                &row.seq.to_string(),
                &word(row.state)?,
                row.reason.as_deref().unwrap_or_default(),
            ],
        )?;
    }
    Ok(())
}

fn record<const N: usize>(out: &mut impl Write, fields: [&str; N]) -> io::Result<()> {
    for (at, field) in fields.iter().enumerate() {
        let comma = if at == 0 { "" } else { "," };
        write!(out, "{comma}\"{}\"", cell(field).replace('"', "\"\""))?;
    }
    out.write_all(b"\r\n")
}

/// A field that neither steers the terminal that shows the file nor runs as a formula in a spreadsheet (OWASP, "CSV
/// Injection").
fn cell(field: &str) -> String {
    let mut out = String::with_capacity(field.len() + 1);
    if field.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']) {
        out.push('\'');
    }
    let mut characters = field.chars().peekable();
    while let Some(character) = characters.next() {
        let breaks_line = character == '\n' || (character == '\r' && characters.peek() == Some(&'\n'));
        if is_hidden(character) && !breaks_line && character != '\t' {
            out.extend(character.escape_unicode());
        } else {
            out.push(character);
        }
    }
    out
}

/// The word that JSON has for a kind or a state.
fn word(value: impl Serialize) -> io::Result<String> {
    let value = serde_json::to_value(value)?;
    Ok(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

fn txt(rows: &[HistoryRow], out: &mut impl Write, name: &dyn Fn(&str, &str) -> String) -> io::Result<()> {
    for row in rows {
        let (from, team) = (name(&row.from, &row.name), label(&row.team));
        let to = match row.kind {
            MessageKind::Broadcast => "all".to_owned(),
            MessageKind::Direct => name(&row.to, ""),
        };
        let text = match &row.reason {
            Some(reason) if row.is_damaged() => format!("({reason})"),
            _ => safe(&row.text).into_owned(),
        };
        writeln!(out, "{}  {from} ({team}) -> {to}: {text}", row.sent_at)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::api::{DAMAGED, DeliveryState};

    fn row(text: &str, reason: Option<&str>) -> HistoryRow {
        HistoryRow {
            id: "0".repeat(32),
            kind: MessageKind::Direct,
            from: "12D3Anna".to_owned(),
            name: "anna".to_owned(),
            team: "red".to_owned(),
            to: "12D3Bob".to_owned(),
            text: text.to_owned(),
            sent_at: "2026-11-21T09:30:00Z".parse().unwrap(),
            received_at: "2026-11-21T09:30:01Z".parse().unwrap(),
            seq: 7,
            state: DeliveryState::Failed,
            reason: reason.map(str::to_owned),
        }
    }

    fn name(peer: &str, name: &str) -> String {
        format!("<{name}~{}>", &peer[4..])
    }

    fn written(rows: &[HistoryRow], format: Format) -> String {
        let folder = tempdir().unwrap();
        let file = folder.path().join("out");
        assert_eq!(export(rows, &file, format, &name), Ok(rows.len()));
        fs::read_to_string(file).unwrap()
    }

    fn exported(format: Format) -> String {
        written(&[row("say \"hi\",\nbob\u{1b}[2J", Some("expired")), row("ä", None)], format)
    }

    #[test]
    fn json_has_the_objects_of_a_history_reply() {
        let parsed: serde_json::Value = serde_json::from_str(&exported(Format::Json)).unwrap();
        assert_eq!(parsed[0]["text"], "say \"hi\",\nbob\u{1b}[2J");
        assert_eq!(parsed[1], serde_json::to_value(row("ä", None)).unwrap());
    }

    #[test]
    fn csv_quotes_every_field_and_has_the_columns_of_json() {
        let id = "0".repeat(32);
        let fixed = format!("\"{id}\",\"direct\",\"12D3Anna\",\"anna\",\"red\",\"12D3Bob\"");
        let times = "\"2026-11-21T09:30:00Z\",\"2026-11-21T09:30:01Z\",\"7\",\"failed\"";
        let header: Vec<_> = COLUMNS.iter().map(|column| format!("\"{column}\"")).collect();
        assert_eq!(
            exported(Format::Csv),
            format!(
                "{}\r\n{fixed},\"say \"\"hi\"\",\nbob\\u{{1b}}[2J\",{times},\"expired\"\r\n{fixed},\"ä\",{times},\"\"\r\n",
                header.join(",")
            )
        );
        let object = serde_json::to_value(row("x", Some("y"))).unwrap();
        assert_eq!(object.as_object().unwrap().len(), COLUMNS.len());
        assert!(COLUMNS.iter().all(|column| object.get(column).is_some()));
    }

    #[test]
    fn a_csv_cell_is_neither_a_formula_nor_a_control_sequence() {
        for (field, expected) in [
            ("=1+1", "'=1+1"),
            ("+49 30", "'+49 30"),
            ("- one", "'- one"),
            ("@bob", "'@bob"),
            ("\t=1", "'\t=1"),
            ("\r\n=1", "'\r\n=1"),
            ("\r=1", "'\\u{d}=1"),
            ("＝1", "'＝1"),
            ("\u{200b}=1", "\\u{200b}=1"),
            ("a\u{202e}b\u{9b}31m\0", "a\\u{202e}b\\u{9b}31m\\u{0}"),
        ] {
            assert_eq!(cell(field), expected);
        }
        for ordinary in ["", "a = b", "it's\r\ntwo\tlines\n", "Þórr 日本 ❤️", "\\u{1b}", "'quoted'"] {
            assert_eq!(cell(ordinary), ordinary);
        }
        let odd = HistoryRow { name: "=cmd".to_owned(), team: "\u{1b}[2J".to_owned(), ..row("@x", None) };
        assert!(written(&[odd], Format::Csv).contains("\"'=cmd\",\"\\u{1b}[2J\",\"12D3Bob\",\"'@x\""));
    }

    #[test]
    fn txt_is_one_harmless_line_a_message() {
        assert_eq!(
            exported(Format::Txt),
            "2026-11-21T09:30:00Z  <anna~Anna> (red) -> <~Bob>: say \"hi\",\\u{a}bob\\u{1b}[2J\n\
             2026-11-21T09:30:00Z  <anna~Anna> (red) -> <~Bob>: ä\n"
        );
        let odd = HistoryRow { team: "red) -> bob: hi".to_owned(), ..row("", Some(DAMAGED)) };
        assert_eq!(
            written(&[odd], Format::Txt),
            format!("2026-11-21T09:30:00Z  <anna~Anna> (\"red) -> bob: hi\") -> <~Bob>: ({DAMAGED})\n")
        );
        let to_all = HistoryRow { kind: MessageKind::Broadcast, to: "all".to_owned(), ..row("hi", None) };
        assert_eq!(written(&[to_all], Format::Txt), "2026-11-21T09:30:00Z  <anna~Anna> (red) -> all: hi\n");
    }

    #[test]
    fn an_existing_file_is_left_alone() {
        let folder = tempdir().unwrap();
        let file = folder.path().join("out");
        fs::write(&file, "mine").unwrap();
        let error = export(&[row("x", None)], &file, Format::Txt, &name).unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage);
        assert!(error.message.contains("exists already"), "{error}");
        assert_eq!(fs::read_to_string(&file).unwrap(), "mine");
        let error = export(&[], &folder.path().join("no/such/folder"), Format::Json, &name).unwrap_err();
        assert!(error.message.contains("cannot be created"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_can_read_an_export() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempdir().unwrap();
        let file = folder.path().join("out");
        assert_eq!(export(&[], &file, Format::Json, &name), Ok(0));
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o077, 0);
    }
}
