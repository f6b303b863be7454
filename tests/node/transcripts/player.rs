//! Plays a transcript: a seed, the nodes as they are named, commands of a shell.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::compare::{self, Fit, Known};
use super::format::{Block, FILE, Piece, SHELL, Step, Transcript};
use super::process::Process;
use crate::harness::NODE;

/// How long expected lines are waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a command of the shell may take.
const COMMAND: Duration = Duration::from_secs(60);
/// When lines are taken as they come, this long without a new one is their end.
const QUIET: Duration = Duration::from_millis(1_500);
/// The node that every other one is given as its seed.
const SEED: &str = "seed";

/// Play every block in order; the error begins with a line's number.
pub(super) fn play(transcript: &mut Transcript, update: bool) -> Result<(), String> {
    let folder = tempfile::tempdir().map_err(|error| format!("1: no folder: {error}"))?;
    let path = folder.path().canonicalize().map_err(|error| format!("1: no folder: {error}"))?;
    let known = Known { folder: path.display().to_string(), ..Known::default() };
    let mut player = Player { folder: &path, update, known, nodes: BTreeMap::new() };
    let blocks = transcript.iter_mut().filter_map(|piece| match piece {
        Piece::Block(block) => Some(block),
        Piece::Prose(_) => None,
    });
    let blocks: Vec<&mut Block> = blocks.collect();
    let seed = blocks.iter().find(|block| block.word() == SEED).map(|block| block.rest().to_owned());
    player.start(SEED, &seed.unwrap_or_default()).map_err(|why| format!("1: the seed: {why}"))?;
    for block in blocks {
        player.block(block)?;
    }
    Ok(())
}

struct Player<'a> {
    folder: &'a Path,
    update: bool,
    known: Known,
    nodes: BTreeMap<String, Node>,
}

/// A node, or another process that goes on between blocks.
struct Node {
    process: Process,
    /// Lines that are compared already.
    read: usize,
    /// The last expected line was `...`.
    gap: bool,
    /// Its exit status was looked at, so that the name is free for a new start.
    ended: bool,
}

impl Player<'_> {
    fn block(&mut self, block: &mut Block) -> Result<(), String> {
        let (word, rest) = (block.word().to_owned(), block.rest().to_owned());
        match word.as_str() {
            FILE => {
                let lines = block.steps.iter().flat_map(|step| &step.expected);
                let text: String = lines.map(|line| self.known.filled(line) + "\n").collect();
                let file = self.folder.join(&rest);
                let made = file.parent().map_or(Ok(()), std::fs::create_dir_all);
                made.and_then(|()| std::fs::write(file, text)).map_err(|error| format!("{}: {error}", block.line))
            }
            SHELL => block.steps.iter_mut().try_for_each(|step| self.command(step)),
            name => {
                if self.nodes.get(name).is_none_or(|node| node.ended) {
                    self.start(name, &rest).map_err(|why| format!("{}: {name}: {why}", block.line))?;
                } else if !rest.is_empty() && name != SEED {
                    return Err(format!("{}: {name} runs already, so it cannot be started with '{rest}'", block.line));
                }
                block.steps.iter_mut().try_for_each(|step| self.step(name, step))
            }
        }
    }

    /// Start a node with that name, or, when `rest` begins with `$`, that command; wait until it is known who it is.
    fn start(&mut self, name: &str, rest: &str) -> Result<(), String> {
        let mut command;
        let seed = self.known.addresses.get(SEED).cloned().unwrap_or_default();
        let rest = self.known.filled(rest);
        let other = rest.strip_prefix('$');
        if let Some(line) = other {
            command = Command::new("sh");
            // Without a shell in between, so that what is killed is the command itself.
            command.args(["-c", &format!("exec {}", line.trim())]);
        } else {
            command = Command::new(NODE);
            command.args(["--data-dir", name]);
            if !rest.contains("--name") {
                command.args(["--name", name]);
            }
            if name == SEED {
                command.args(["--role", "seed"]);
            } else if !rest.contains("--seed") {
                command.args(["--seed", &seed]);
            }
            command.args(rest.split_whitespace());
        }
        let process = Process::start(&mut command, self.folder, &seed)?;
        self.nodes.insert(name.to_owned(), Node { process, read: 0, gap: false, ended: false });
        if other.is_some() { Ok(()) } else { self.learn(name) }
    }

    /// A new node's PeerId and address, from what it says or from its JSON.
    fn learn(&mut self, name: &str) -> Result<(), String> {
        let Some(node) = self.nodes.get(name) else { return Ok(()) };
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (lines, open) = node.process.lines(0);
            let address = lines
                .iter()
                .flat_map(|line| line.split([' ', '"']))
                .find(|word| word.starts_with("/ip4/") && word.contains("/p2p/12D3KooW"));
            if let Some(address) = address {
                let peer = address.rsplit('/').next().unwrap_or_default();
                self.known.peers.insert(peer.to_owned(), name.to_owned());
                self.known.addresses.insert(name.to_owned(), address.to_owned());
                return Ok(());
            }
            // One that ends at once says why, and its block expects that.
            if !open {
                return Ok(());
            }
            if !node.process.wait_beyond(lines.len(), deadline) {
                return Err("it does not say where it listens".to_owned());
            }
        }
    }

    /// Type a line and wait for what is expected.
    fn step(&mut self, name: &str, step: &mut Step) -> Result<(), String> {
        let (known, update) = (&self.known, self.update);
        let Some(node) = self.nodes.get_mut(name) else { return Ok(()) };
        if let Some(input) = &step.input {
            node.process.type_line(&known.filled(input));
        }
        let mut expected = step.expected.clone();
        if node.gap {
            expected.insert(0, "...".to_owned());
        }
        let deadline = Instant::now() + PATIENCE;
        let taken = loop {
            let (lines, open) = node.process.lines(node.read);
            let lines: Vec<String> = lines.iter().map(|line| known.normal(line)).collect();
            match compare::fit(&expected, &lines) {
                Fit::Whole(taken) => break Some(taken),
                Fit::Begun if open && node.process.wait_beyond(node.read + lines.len(), deadline) => {}
                Fit::Begun | Fit::Never => break None,
            }
        };
        if let Some(taken) = taken {
            node.read += taken;
        } else {
            // What comes a moment later belongs to the picture.
            loop {
                let count = node.read + node.process.lines(node.read).0.len();
                if !node.process.wait_beyond(count, Instant::now() + QUIET) || !node.process.lines(0).1 {
                    break;
                }
            }
            let (lines, open) = node.process.lines(node.read);
            let lines: Vec<String> = lines.iter().map(|line| known.normal(line)).collect();
            if !update {
                let ended = if open { "" } else { " (it has ended)" };
                let said = step.input.as_ref().map(|input| format!(" after `{input}`")).unwrap_or_default();
                return Err(format!(
                    "{}: {name}{said}{ended}: expected -, got +\n{}",
                    step.line,
                    compare::difference(&expected, &lines)
                ));
            }
            node.read += lines.len();
            step.expected = compare::merged(&step.expected, &lines);
        }
        // Without lines of its own a step leaves a gap open that stood before it.
        node.gap = step.expected.last().map_or(node.gap, |last| compare::is_gap(last));
        if let Some(expected) = step.status {
            let status = node
                .process
                .status(Instant::now() + PATIENCE)
                .map_err(|why| format!("{}: {name}: {why}", step.line))?;
            if status != expected && !update {
                return Err(format!("{}: {name}: expected exit status {expected}, got {status}", step.line));
            }
            step.status = Some(status);
            node.ended = true;
        }
        Ok(())
    }

    /// Run a command of the shell to its end.
    fn command(&self, step: &mut Step) -> Result<(), String> {
        let Some(input) = &step.input else {
            return Err(format!("{}: a block of the shell begins with `$ `", step.line));
        };
        let seed = self.known.addresses.get(SEED).cloned().unwrap_or_default();
        let mut command = Command::new("sh");
        command.args(["-c", &self.known.filled(input)]);
        let ended = Process::start(&mut command, self.folder, &seed)
            .and_then(|process| process.finish(Instant::now() + COMMAND))
            .map_err(|why| format!("{}: `{input}`: {why}", step.line))?;
        let lines: Vec<String> = ended.lines.iter().map(|line| self.known.normal(line)).collect();
        // Lines after the last expected one are as wrong as missing ones, unless `...` stands there.
        let fits = match compare::fit(&step.expected, &lines) {
            Fit::Whole(taken) => taken == lines.len() || step.expected.last().is_some_and(|last| compare::is_gap(last)),
            Fit::Begun | Fit::Never => false,
        };
        let status = step.status.unwrap_or(0);
        if self.update {
            if !fits {
                step.expected = compare::merged(&step.expected, &lines);
            }
            step.status = (ended.status != 0).then_some(ended.status);
            return Ok(());
        }
        if fits && status == ended.status {
            return Ok(());
        }
        let mut why = format!("{}: after `{input}`: expected -, got +\n", step.line);
        why.push_str(&compare::difference(&step.expected, &lines));
        if status != ended.status {
            why.push_str(&format!("    - exit status {status}\n    + exit status {}\n", ended.status));
        }
        Err(why)
    }
}
