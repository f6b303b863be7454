//! How transfers went, into a new file.

use std::io::{self, Write};
use std::path::Path;

use super::{Format, create, end, record, word};
use crate::api::{ApiError, TransferInfo};

/// The columns of a CSV file, in the names of the outward contract. `window` is separated by spaces.
const COLUMNS: [&str; 19] = [
    "id",
    "direction",
    "peer",
    "name",
    "file",
    "files",
    "bytes",
    "total",
    "seconds",
    "rate",
    "mode",
    "chunks",
    "retries",
    "rtt_ms",
    "window",
    "hash",
    "state",
    "reason",
    "path",
];

/// Write transfers to `file`, as [`export`](super::export) does with messages; what is not [`Format::Json`] becomes CSV.
///
/// # Errors
///
/// As [`export`](super::export).
pub(crate) fn export_stats(rows: &[TransferInfo], file: &Path, format: Format) -> Result<usize, ApiError> {
    end(create(file)?, file, |out| match format {
        Format::Json => {
            serde_json::to_writer_pretty(&mut *out, rows)?;
            out.write_all(b"\n")
        }
        Format::Csv | Format::Txt => csv(rows, out),
    })?;
    Ok(rows.len())
}

fn csv(rows: &[TransferInfo], out: &mut impl Write) -> io::Result<()> {
    record(out, COLUMNS)?;
    for row in rows {
        let window: Vec<String> = row.window.iter().map(u64::to_string).collect();
        record(
            out,
            [
                &row.id,
                &word(row.direction)?,
                &row.peer,
                &row.name,
                &row.file,
                &row.files.to_string(),
                &row.bytes.to_string(),
                &row.total.to_string(),
                &row.seconds.to_string(),
                &row.rate.to_string(),
                &row.mode,
                &row.chunks.to_string(),
                &row.retries.to_string(),
                &row.rtt_ms.map(|ms| ms.to_string()).unwrap_or_default(),
                &window.join(" "),
                row.hash.as_deref().unwrap_or_default(),
                &word(row.state)?,
                row.reason.as_deref().unwrap_or_default(),
                row.path.as_deref().unwrap_or_default(),
            ],
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tempfile::tempdir;

    use super::*;
    use crate::api::{Direction, TransferState};

    #[test]
    fn json_and_csv_hold_the_same_fields() {
        let row = TransferInfo {
            id: "0".repeat(32),
            direction: Direction::In,
            peer: "12D3Anna".to_owned(),
            name: "anna".to_owned(),
            file: "=a, \"b\"".to_owned(),
            files: 1,
            bytes: 5,
            total: 10,
            seconds: 1.5,
            rate: 3.0,
            mode: "normal".to_owned(),
            chunks: 1,
            retries: 2,
            rtt_ms: None,
            window: vec![1, 2],
            hash: None,
            state: TransferState::Failed,
            reason: Some("why".to_owned()),
            path: Some("/a".to_owned()),
        };
        let folder = tempdir().unwrap();
        let (json, csv) = (folder.path().join("a.json"), folder.path().join("a.csv"));
        assert_eq!(export_stats(std::slice::from_ref(&row), &json, Format::Json).unwrap(), 1);
        assert_eq!(export_stats(std::slice::from_ref(&row), &csv, Format::Csv).unwrap(), 1);
        assert!(export_stats(&[row], &csv, Format::Csv).is_err(), "a file is not overwritten");
        let object: serde_json::Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
        let object = object[0].as_object().unwrap();
        assert_eq!(object.len(), COLUMNS.len());
        assert!(COLUMNS.iter().all(|column| object.contains_key(*column)));
        let csv = std::fs::read_to_string(csv).unwrap();
        let line = csv.lines().nth(1).unwrap();
        assert!(line.contains("\"in\",\"12D3Anna\",\"anna\",\"'=a, \"\"b\"\"\",\"1\",\"5\",\"10\""), "{line}");
        assert!(line.ends_with("\"1 2\",\"\",\"failed\",\"why\",\"/a\""), "{line}");
    }
}
