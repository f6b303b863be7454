//! A transcript as Markdown: prose is kept as it stands, fenced blocks with a word behind the fence are played.

/// Pieces of a file in order.
pub(super) type Transcript = Vec<Piece>;

/// A part of the file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A line that is only read by people.
    Prose(String),
    /// A block that is played.
    Block(Block),
}

/// A fenced block.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The line of its fence, from 1.
    pub(super) line: usize,
    /// All that stands behind the fence.
    pub(super) info: String,
    /// What is done and what comes of it.
    pub(super) steps: Vec<Step>,
}

/// One input and what is expected after it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// The line where it begins, from 1.
    pub(super) line: usize,
    /// What is typed (`> `) or run (`$ `), without that mark; nothing before the first.
    pub(super) input: Option<String>,
    /// Lines that follow.
    pub(super) expected: Vec<String>,
    /// `? N`: the exit status.
    pub(super) status: Option<i32>,
}

/// The word behind a fence whose block is no node.
pub(super) const SHELL: &str = "sh";
/// The word behind a fence whose block is written to a file.
pub(super) const FILE: &str = "file";

impl Block {
    /// The first word behind the fence: a node's name, [`SHELL`], or [`FILE`].
    pub(super) fn word(&self) -> &str {
        self.info.split_whitespace().next().unwrap_or_default()
    }

    /// What stands behind that word.
    pub(super) fn rest(&self) -> &str {
        self.info.trim_start().strip_prefix(self.word()).unwrap_or_default().trim()
    }

    fn mark(&self) -> Option<&'static str> {
        match self.word() {
            FILE => None,
            SHELL => Some("$ "),
            _ => Some("> "),
        }
    }
}

/// Read a file; an error begins with the number of its line.
pub(super) fn parse(text: &str) -> Result<Transcript, String> {
    let mut pieces = Vec::new();
    let mut open: Option<Block> = None;
    let mut unnamed = false;
    for (number, line) in text.lines().enumerate() {
        let number = number + 1;
        if let Some(info) = line.strip_prefix("```") {
            match open.take() {
                Some(block) if info.is_empty() => pieces.push(Piece::Block(block)),
                Some(block) => return Err(format!("{number}: the block of line {} is still open", block.line)),
                None if unnamed || info.is_empty() => {
                    unnamed = !unnamed;
                    pieces.push(Piece::Prose(line.to_owned()));
                }
                None => open = Some(Block { line: number, info: info.to_owned(), steps: Vec::new() }),
            }
            continue;
        }
        match &mut open {
            None => pieces.push(Piece::Prose(line.to_owned())),
            Some(block) => take(block, number, line)?,
        }
    }
    match open {
        None => Ok(pieces),
        Some(block) => Err(format!("{}: the block has no end", block.line)),
    }
}

/// Take a line into a block.
fn take(block: &mut Block, number: usize, line: &str) -> Result<(), String> {
    if let Some(input) = block.mark().and_then(|mark| line.strip_prefix(mark)) {
        block.steps.push(Step { line: number, input: Some(input.to_owned()), ..Step::default() });
        return Ok(());
    }
    if block.steps.is_empty() {
        block.steps.push(Step { line: number, ..Step::default() });
    }
    let played = block.mark().is_some();
    let Some(step) = block.steps.last_mut() else { return Ok(()) };
    match line.strip_prefix("? ") {
        Some(status) if played => {
            step.status = Some(status.parse().map_err(|_| format!("{number}: '{status}' is no exit status"))?);
        }
        _ => step.expected.push(line.to_owned()),
    }
    Ok(())
}

/// Write a file.
pub(super) fn render(transcript: &Transcript) -> String {
    let mut lines = Vec::new();
    for piece in transcript {
        let block = match piece {
            Piece::Prose(line) => {
                lines.push(line.clone());
                continue;
            }
            Piece::Block(block) => block,
        };
        lines.push(format!("```{}", block.info));
        for step in &block.steps {
            lines.extend(step.input.iter().map(|input| format!("{}{input}", block.mark().unwrap_or_default())));
            lines.extend(step.expected.iter().cloned());
            lines.extend(step.status.map(|status| format!("? {status}")));
        }
        lines.push("```".to_owned());
    }
    lines.join("\n") + "\n"
}

#[test]
fn a_file_is_read_and_written_as_it_stands() {
    let text = "# Title\n\n```\nno block\n```\n```ada --team red\n...\n> peers\nnobody\n> quit\n? 0\n```\n```sh\n$ ls\n! no\n? 2\n```\n";
    let transcript = parse(text).unwrap();
    assert_eq!(render(&transcript), text);
    let blocks: Vec<&Block> = transcript
        .iter()
        .filter_map(|piece| match piece {
            Piece::Block(block) => Some(block),
            Piece::Prose(_) => None,
        })
        .collect();
    assert_eq!((blocks.len(), blocks[0].word(), blocks[0].rest()), (2, "ada", "--team red"));
    assert_eq!((blocks[0].steps.len(), blocks[0].steps[2].status), (3, Some(0)));
    assert_eq!(blocks[1].steps[0].expected, ["! no"]);
    assert!(parse("```ada\n> peers\n").is_err());
}
