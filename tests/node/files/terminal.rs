//! What a person sees of `node send` and `node recv` on a terminal.

use super::{Pair, fill, noise, reaches, verified};
use crate::harness::{TestResult, text};
use crate::prompt::Terminal;

#[tokio::test(flavor = "multi_thread")]
async fn a_bar_shows_bytes_rate_and_time_left_and_where_it_goes_on() -> TestResult {
    let mut pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let path = fill(pair.sources().join("big.bin"), 1, 16 << 20)?.display().to_string();
    let ada = Terminal::start_with(&pair.net.dir("ada"), &["send", &path, "--to", "bob"], &[])?;
    ada.see("big.bin to bob [")?;
    ada.see("/16.00 MiB")?;
    ada.see("MiB/s")?;
    // Bob goes down and comes back: the bar says so.
    let active = pair.bob.wait("transfer", |event| event["bytes"].as_u64() > Some(2 << 20)).await?;
    let id = text(&active, "id").to_owned();
    pair.bob.kill().await?;
    ada.see("paused: not connected")?;
    pair.restart_bob().await?;
    verified(&pair.bob, 0, &id, 1).await?;
    ada.see("resuming at")?;
    assert_eq!(ada.status()?, 0, "{}", ada.contents());
    assert!(ada.contents().contains("big.bin to bob is complete: 16.00 MiB"), "{}", ada.contents());
    // The bar is gone with its transfer.
    assert!(!ada.contents().contains("big.bin to bob ["), "{}", ada.contents());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_cannot_be_reached_is_named_and_the_person_decides() -> TestResult {
    let pair = Pair::new(&[]).await?;
    let path = fill(pair.sources().join("note.txt"), 1, 1_000)?.display().to_string();
    let line = ["send", path.as_str(), "--to", "bob", "nobody"];
    for (answer, status, there) in [("n\r", 3, false), ("y\r", 9, true)] {
        let mut ada = Terminal::start_with(&pair.net.dir("ada"), &line, &[])?;
        ada.see("nobody in the network is known as 'nobody'")?;
        ada.see("1 cannot be reached. Send to the other 1? [y/N]")?;
        ada.type_in(answer)?;
        assert_eq!(ada.status()?, status, "{}", ada.contents());
        assert_eq!(pair.downloads().join("note.txt").exists(), there);
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn recv_shows_every_name_and_asks() -> TestResult {
    let mut pair = Pair::with(&[], &["--accept", "ask"]).await?;
    let folder = pair.sources().join("papers");
    std::fs::create_dir(&folder)?;
    fill(folder.join("a.txt"), 1, 10)?;
    fill(folder.join("\u{1b}[2Jb.txt"), 2, 2_048)?;
    for (answer, state) in [("n\r", "rejected"), ("y\r", "completed")] {
        let mut bob = Terminal::start_with(&pair.net.dir("bob"), &["recv"], &[])?;
        bob.see("Waiting for an offer")?;
        let id = pair.send(&folder).await?;
        bob.see("ada offers 2 files (2.01 KiB):")?;
        bob.see("papers/a.txt  10 B")?;
        bob.see("papers/\\u{1b}[2Jb.txt  2.00 KiB")?;
        bob.see("Take it? [y/N]")?;
        bob.type_in(answer)?;
        reaches(&pair.ada, 0, &id, state).await?;
        if state == "completed" {
            assert_eq!(bob.status()?, 0, "{}", bob.contents());
        } else {
            // It waits for the next one.
            bob.type_in("\x03")?;
            assert_eq!(bob.status()?, 130, "{}", bob.contents());
        }
    }
    assert!(std::fs::read(pair.downloads().join("papers/a.txt"))? == noise(1, 10));
    Ok(())
}
