//! The Markdown files in `tests/transcripts`: played on real nodes, their output compared line by line.
//!
//! The format is described in `tests/transcripts/README.md`.
//! - `format`: Markdown to blocks and back
//! - `compare`: what a line matches, what varies, what a person sees of a difference
//! - `process`: a node or a command, and the lines it has printed
//! - `player`: plays the blocks in order

mod compare;
mod format;
mod player;
mod process;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::TestResult;

/// One test for each transcript, by its name; `every_file_is_a_test` sees to it that none is forgotten.
macro_rules! transcripts {
    ($($name:ident: $file:literal),+ $(,)?) => {
        $(
            #[test]
            fn $name() -> TestResult {
                play($file)
            }
        )+
        const FILES: &[&str] = &[$($file),+];
    };
}

transcripts! {
    first_chat: "first-chat.md",
    names: "names.md",
    away: "away.md",
    scripts: "scripts.md",
    control: "control.md",
    bad_input: "bad-input.md",
    access: "access.md",
    settings: "settings.md",
    json: "json.md",
    help: "help.md",
    broadcast: "broadcast.md",
    gossip: "gossip.md",
    alive: "alive.md",
    files: "files.md",
}

#[test]
fn every_file_is_a_test() -> TestResult {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(folder())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".md") && name != "README.md" {
            found.insert(name);
        }
    }
    let listed: BTreeSet<String> = FILES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(found, listed, "tests/node/transcripts.rs lists the files of tests/transcripts");
    Ok(())
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts")
}

/// Play one file. With `UPDATE_TRANSCRIPTS=1` what came is written into it instead of being compared.
fn play(name: &str) -> TestResult {
    let file = folder().join(name);
    let text = std::fs::read_to_string(&file)?;
    let mut transcript = format::parse(&text).map_err(|why| format!("tests/transcripts/{name}:{why}"))?;
    let update = std::env::var_os("UPDATE_TRANSCRIPTS").is_some_and(|value| !value.is_empty());
    player::play(&mut transcript, update).map_err(|why| {
        // Printed as it stands: an error that is returned would be shown with every line end escaped.
        eprintln!("\ntests/transcripts/{name}:{why}");
        format!("{name} does not say what happens; UPDATE_TRANSCRIPTS=1 rewrites it")
    })?;
    let written = format::render(&transcript);
    if update && written != text {
        std::fs::write(&file, written)?;
    }
    Ok(())
}
