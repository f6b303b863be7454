//! Names that want to be something else than names. What our own program cannot send (`../x`, absolute paths, NUL) is tried
//! in the tests of `src/files/names.rs` and of the protocol's crate.

use std::collections::BTreeSet;

use super::{Pair, quoted, reaches, tree};
use crate::harness::{TestResult, text};

/// Every name is at the same time its content.
const NAMES: &[&str] = &[
    "-rf",
    "--json",
    ".bashrc",
    ".partial",
    "CON",
    "con.txt",
    "C:x",
    "..\\..\\x",
    "\\etc\\passwd",
    "two  words",
    " leading",
    "trailing ",
    "trailing.",
    "it's \"q\" \\ $HOME `id`.txt",
    "a\u{202e}txt.exe",
    "zero\u{200b}width",
    "x\u{1b}[2J.txt",
    "bell\u{7}",
    "line\nbreak",
    "twin",
    "TWIN",
    "caf\u{e9}",
    "cafe\u{301}",
    "żółć 漢字",
    "name (2)",
    "~",
    "*",
    "%2e%2e%2f",
];

#[tokio::test]
async fn hostile_names_arrive_made_safe_and_stay_in_the_download_folder() -> TestResult {
    let mut pair = Pair::new(&[]).await?;
    let long = "n".repeat(250);
    let longest = "\u{1b}".repeat(255);
    let names: Vec<&str> = NAMES.iter().copied().chain([long.as_str(), longest.as_str()]).collect();
    let folder = pair.sources().join("odd \u{1b}]0;title\u{7}");
    std::fs::create_dir(&folder)?;
    for name in &names {
        std::fs::write(folder.join(name), name)?;
    }
    let before = everything(&pair)?;
    // Alone, each of them, by the line that a person would write.
    let mut ids = Vec::new();
    for name in &names {
        let line = if name.contains('\n') {
            continue;
        } else {
            format!("send --to bob -- {}", quoted(&folder.join(name)))
        };
        let sent = pair.ada.ask(&line).await?;
        ids.push(text(&sent, "id").to_owned());
    }
    // And all of them as a folder.
    ids.push(text(&pair.ada.ask(&format!("send {} bob", quoted(&folder))).await?, "id").to_owned());
    for id in &ids {
        reaches(&pair.bob, 0, id, "completed").await?;
        reaches(&pair.ada, 0, id, "completed").await?;
    }
    let downloads = tree(&pair.downloads())?;
    let mut arrived: Vec<&[u8]> = downloads.values().flatten().map(Vec::as_slice).collect();
    arrived.sort_unstable();
    let mut expected: Vec<&[u8]> =
        names.iter().flat_map(|name| vec![name.as_bytes(); if name.contains('\n') { 1 } else { 2 }]).collect();
    expected.sort_unstable();
    assert_eq!(arrived, expected);
    for path in downloads.keys() {
        assert!(!path.chars().any(|c| c.is_control() || matches!(c, '\u{202e}' | '\u{200b}')), "{path:?}");
        assert!(path.split('/').all(|part| part != "." && part != ".." && part.len() <= 255), "{path:?}");
    }
    // What is only unusual keeps its name.
    for name in ["two  words", "it's \"q\" \\ $HOME `id`.txt", "żółć 漢字"] {
        assert!(downloads.contains_key(name), "{name}: {:?}", downloads.keys());
    }
    // Nothing else has changed anywhere near.
    assert_eq!(everything(&pair)?, before);
    Ok(())
}

/// The paths of all files of the test but the nodes' own and what is in the download folder.
fn everything(pair: &Pair) -> std::io::Result<BTreeSet<String>> {
    let paths = tree(pair.net.folder.path())?.into_keys();
    let own = ["history.db", "transfers", "lock", "identity.key", "stderr.txt", "control.sock", "downloads"];
    Ok(paths.filter(|path| !own.iter().any(|own| path.contains(own))).collect())
}
