//! Sources that change, receivers that freeze, disks that are full.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::time::Duration;

use althing::frontend::child::Child;
use serde_json::Value;

use super::{Pair, fill, net, noise, patience, quoted, reaches, tree, verified};
use crate::harness::{NODE, TestResult, signal, text};

/// Longer than the twenty seconds without a byte after which a transfer counts as stalled, and than the nineteen after which
/// a silent link is closed.
const SILENCE: Duration = Duration::from_secs(40);

#[tokio::test]
async fn a_source_that_changes_midway_fails_with_the_reason_and_leaves_nothing() -> TestResult {
    let mut pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let source = fill(pair.sources().join("log.bin"), 1, 12 << 20)?;
    let id = pair.send(&source).await?;
    verified(&pair.bob, 0, &id, 1 << 20).await?;
    std::fs::File::options().write(true).open(&source)?.write_all_at(b"changed", 11 << 20)?;
    for node in [&pair.ada, &pair.bob] {
        let failed = reaches(node, 0, &id, "failed").await?;
        assert!(text(&failed, "reason").contains("the source changed"), "{failed}");
    }
    // The next transfer shows that both go on, and that nothing of the first stayed.
    let next = fill(pair.sources().join("next.bin"), 2, 1_000)?;
    pair.deliver(&next).await?;
    assert_eq!(tree(&pair.downloads())?.into_keys().collect::<Vec<_>>(), ["next.bin"]);
    Ok(())
}

#[tokio::test]
async fn a_receiver_that_freezes_holds_the_transfer_up_and_it_goes_on_afterwards() -> TestResult {
    let mut pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let source = fill(pair.sources().join("big.bin"), 3, 12 << 20)?;
    let id = pair.send(&source).await?;
    verified(&pair.ada, 0, &id, 2 << 20).await?;
    signal(&pair.bob, "STOP")?;
    let mark = pair.ada.mark();
    let paused = |event: &Value| event["id"] == id.as_str() && event["state"] == "paused";
    let paused = pair.ada.wait_since(mark, SILENCE, "transfer", paused).await;
    signal(&pair.bob, "CONT")?;
    let paused = paused?;
    let reason = text(&paused, "reason");
    assert!(reason.contains("not connected") || reason.contains("no bytes arrive"), "{paused}");
    reaches(&pair.bob, 0, &id, "completed").await?;
    assert!(std::fs::read(pair.downloads().join("big.bin"))? == noise(3, 12 << 20));
    Ok(())
}

/// A receiver whose download folder is a small file system of its own; `None` where this user may not mount one.
fn bob_on_a_small_disk(net: &crate::harness::Net, mebibytes: u32) -> std::io::Result<Option<Child>> {
    let downloads = net.dir("bob").join("downloads");
    std::fs::create_dir_all(&downloads)?;
    // As root a mount namespace is enough, anybody else needs a user namespace too.
    let unshare = ["-m", "-Urm"].into_iter().find(|flags| {
        let mut tried = std::process::Command::new("unshare");
        tried.args([flags, "mount", "-t", "tmpfs", "none"]).arg(&downloads);
        tried.output().is_ok_and(|output| output.status.success())
    });
    let Some(flags) = unshare else { return Ok(None) };
    let script = net.folder.path().join("bob.sh");
    let mount = format!("mount -t tmpfs -o size={mebibytes}m none {}", quoted(&downloads));
    let inner = format!("{mount} && exec {} \"$@\"", quoted(Path::new(NODE)));
    std::fs::write(
        &script,
        format!("#!/bin/sh\nexec unshare {flags} sh -c {} sh \"$@\"\n", quoted(Path::new(&inner))),
    )?;
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755))?;
    let seeds = net.addresses.iter().flat_map(|address| ["--seed", address.as_str()]);
    let args = seeds.chain(["--accept", "auto"]);
    Child::spawn(&script, "bob", &net.dir("bob"), args).map(Some).map_err(std::io::Error::other)
}

#[tokio::test]
async fn a_full_disk_is_told_and_the_transfer_goes_on_when_there_is_room() -> TestResult {
    let net = net().await?;
    let Some(mut bob) = bob_on_a_small_disk(&net, 16)? else {
        eprintln!("skipped 1: no mount namespace can be made here");
        return Ok(());
    };
    let mut ada = net.peer("ada", &["--upload-limit", "4M"])?;
    ada.ask("wait peer bob").await?;
    bob.ask("wait peer ada").await?;
    let sources = net.folder.path().join("sources");
    // What cannot fit is refused before anything moves, and both know why.
    let huge = fill(sources.join("huge.bin"), 1, 20 << 20)?;
    let id = text(&ada.ask(&format!("send {} bob", huge.display())).await?, "id").to_owned();
    reaches(&ada, 0, &id, "rejected").await?;
    let refused = reaches(&bob, 0, &id, "rejected").await?;
    assert!(text(&refused, "reason").contains("no room"), "{refused}");
    // Somebody else fills the disk while files arrive.
    // Room is taken file by file: four requests go on at once, so that most of these have none yet when it happens.
    let folder = sources.join("twelve");
    std::fs::create_dir(&folder)?;
    for number in 0..12 {
        fill(folder.join(format!("{number}.bin")), number, 1 << 20)?;
    }
    let id = text(&ada.ask(&format!("send {} bob", folder.display())).await?, "id").to_owned();
    verified(&bob, 0, &id, 1 << 20).await?;
    let inside = format!("/proc/{}/root{}", bob.pid().unwrap_or_default(), net.dir("bob").join("downloads").display());
    let filler = Path::new(&inside).join("filler");
    // It fills what there is, and then it fails.
    assert!(std::fs::write(&filler, vec![0; 16 << 20]).is_err());
    let full = |event: &Value| event["id"] == id.as_str() && event["state"] == "paused";
    let paused = bob.wait_since(0, patience(), "transfer", full).await?;
    assert!(text(&paused, "reason").contains("disk is full"), "{paused}");
    // It lives: it takes commands meanwhile.
    assert_eq!(bob.ask("transfers").await?.as_array().map(Vec::len), Some(2));
    std::fs::remove_file(&filler)?;
    reaches(&bob, 0, &id, "completed").await?;
    reaches(&ada, 0, &id, "completed").await?;
    assert!(tree(&Path::new(&inside).join("twelve"))? == tree(&folder)?, "what arrived is something else");
    Ok(())
}
