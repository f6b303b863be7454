//! Bytes -> lines, with an upper bound: a line that is too long or no text is refused as such, and the next one is read.

use std::io::Read;

use tokio::sync::mpsc;

/// Longest line that is read, in bytes; the rest of a longer one is thrown away as it comes.
pub(crate) const MAX_LINE_BYTES: usize = 1 << 20;

/// How many lines are read ahead of the one that is executed; then the reader waits.
const READ_AHEAD: usize = 64;

/// One line as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RawLine {
    /// Without its line end (`\n` or `\r\n`).
    Text(String),
    /// Longer than [`MAX_LINE_BYTES`].
    TooLong,
    /// Not valid UTF-8.
    NotUtf8,
}

/// Cuts a stream of bytes into lines.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
    too_long: bool,
}

impl Splitter {
    /// Take the next bytes and append the lines that they complete.
    pub(crate) fn push(&mut self, bytes: &[u8], lines: &mut Vec<RawLine>) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (body, ends) = part.strip_suffix(b"\n").map_or((part, false), |body| (body, true));
            if self.line.len() + body.len() > MAX_LINE_BYTES {
                self.too_long = true;
                self.line = Vec::new();
            }
            if !self.too_long {
                self.line.extend_from_slice(body);
            }
            if ends {
                lines.push(self.take());
            }
        }
    }

    /// The stream has ended: what stands without a line end is a line too.
    pub(crate) fn finish(&mut self) -> Option<RawLine> {
        (self.too_long || !self.line.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> RawLine {
        let mut line = std::mem::take(&mut self.line);
        if std::mem::take(&mut self.too_long) {
            return RawLine::TooLong;
        }
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        String::from_utf8(line).map_or(RawLine::NotUtf8, RawLine::Text)
    }
}

/// Read lines on a thread of its own, since a blocking read can be neither awaited nor taken back. The thread ends with
/// the input, or with the first line that nobody wants any more.
pub(crate) fn spawn(mut input: impl Read + Send + 'static) -> std::io::Result<mpsc::Receiver<RawLine>> {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    std::thread::Builder::new().name("input".into()).spawn(move || {
        let mut splitter = Splitter::default();
        let mut buffer = vec![0; 64 * 1024];
        let mut lines = Vec::new();
        loop {
            match input.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => splitter.push(buffer.get(..n).unwrap_or_default(), &mut lines),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
            for line in lines.drain(..) {
                if sender.blocking_send(line).is_err() {
                    return;
                }
            }
        }
        if let Some(line) = splitter.finish() {
            let _ = sender.blocking_send(line);
        }
    })?;
    Ok(receiver)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: &[&[u8]]) -> Vec<RawLine> {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for chunk in chunks {
            splitter.push(chunk, &mut lines);
        }
        lines.extend(splitter.finish());
        lines
    }

    fn text(line: &str) -> RawLine {
        RawLine::Text(line.into())
    }

    #[test]
    fn lines_end_in_either_way_and_the_last_one_needs_no_end() {
        assert_eq!(split(&[b"a\nb\r\n", b"\nc", b"d"]), [text("a"), text("b"), text(""), text("cd")]);
        assert_eq!(split(&[b""]), []);
        assert_eq!(split(&[b"\xff\xfe\nok\n"]), [RawLine::NotUtf8, text("ok")]);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_kept() {
        let mut splitter = Splitter::default();
        let mut lines = Vec::new();
        for _ in 0..100 {
            splitter.push(&[b'x'; 64 * 1024], &mut lines);
            assert!(splitter.line.len() <= MAX_LINE_BYTES);
        }
        splitter.push(b"\nnext\n", &mut lines);
        assert_eq!(lines, [RawLine::TooLong, text("next")]);
        assert_eq!(split(&[&[b'x'; MAX_LINE_BYTES], b"\n"]).len(), 1);
        assert_ne!(split(&[&[b'x'; MAX_LINE_BYTES], b"\n"]), [RawLine::TooLong]);
        assert_eq!(split(&[&[b'x'; MAX_LINE_BYTES + 1]]), [RawLine::TooLong]);
    }

    proptest! {
        #[test]
        fn the_chunks_do_not_matter(bytes in proptest::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), any::<u8>()], 0..200), size in 1_usize..20) {
            let chunks: Vec<&[u8]> = bytes.chunks(size).collect();
            prop_assert_eq!(split(&chunks), split(&[&bytes]));
        }
    }
}
