//! Who may send what, and who decides.

use serde_json::Value;

use super::{Pair, fill, noise, patience, reaches, tree, verified};
use crate::harness::{TestResult, text};

#[tokio::test]
async fn whoever_asks_sees_every_name_and_size_before_the_answer() -> TestResult {
    let mut pair = Pair::with(&[], &["--accept", "ask"]).await?;
    let folder = pair.sources().join("papers");
    std::fs::create_dir(&folder)?;
    fill(folder.join("a.txt"), 1, 10)?;
    fill(folder.join("b.txt"), 2, 20_000)?;
    let id = pair.send(&folder).await?;
    let offer = pair.bob.wait("offer", |event| event["id"] == id.as_str()).await?;
    assert_eq!((text(&offer, "name"), offer["bytes"].as_u64()), ("ada", Some(20_010)));
    let files: Vec<(&str, u64)> = offer["files"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|file| (text(file, "path"), file["size"].as_u64().unwrap_or_default()))
        .collect();
    assert_eq!(files, [("papers/a.txt", 10), ("papers/b.txt", 20_000)]);
    assert_eq!(text(&pair.bob.ask(&format!("stats {id}")).await?, "state"), "offered");
    assert!(tree(&pair.downloads())?.is_empty());
    pair.bob.ask(&format!("accept {id}")).await?;
    reaches(&pair.bob, 0, &id, "completed").await?;
    assert!(tree(&pair.downloads().join("papers"))? == tree(&folder)?);
    // A second one is refused, and its sender knows.
    let id = pair.send(&folder).await?;
    pair.bob.wait("offer", |event| event["id"] == id.as_str()).await?;
    pair.bob.ask(&format!("reject {id}")).await?;
    reaches(&pair.ada, 0, &id, "rejected").await?;
    assert_eq!(tree(&pair.downloads())?.len(), 2);
    assert_eq!(pair.bob.reply_to(&format!("accept {id}")).await?["ok"], false);
    Ok(())
}

#[tokio::test]
async fn never_refuses_and_trusted_asks_about_strangers() -> TestResult {
    let mut pair = Pair::with(&[], &["--accept", "never"]).await?;
    let path = fill(pair.sources().join("note.txt"), 1, 1_000)?;
    let id = pair.send(&path).await?;
    reaches(&pair.ada, 0, &id, "rejected").await?;
    pair.bob.ask("config set accept trusted").await?;
    let waits = pair.send(&path).await?;
    pair.bob.wait("offer", |event| event["id"] == waits.as_str()).await?;
    pair.bob.ask("trust ada").await?;
    let taken = pair.send(&path).await?;
    reaches(&pair.bob, 0, &taken, "completed").await?;
    // Whoever became trusted later has still to be answered.
    assert_eq!(text(&pair.bob.ask(&format!("stats {waits}")).await?, "state"), "offered");
    pair.bob.ask("receive").await?;
    reaches(&pair.bob, 0, &waits, "completed").await?;
    assert_eq!(tree(&pair.downloads())?.into_keys().collect::<Vec<_>>(), ["note (2).txt", "note.txt"]);
    Ok(())
}

#[tokio::test]
async fn receive_takes_the_next_one_and_receive_auto_all() -> TestResult {
    let mut pair = Pair::with(&[], &["--accept", "ask"]).await?;
    pair.bob.ask("receive").await?;
    let path = fill(pair.sources().join("note.txt"), 1, 1_000)?;
    pair.deliver(&path).await?;
    let second = pair.send(&path).await?;
    pair.bob.wait("offer", |event| event["id"] == second.as_str()).await?;
    pair.bob.ask("receive auto on").await?;
    reaches(&pair.bob, 0, &second, "completed").await?;
    pair.deliver(&path).await?;
    pair.bob.ask("receive auto off").await?;
    assert_eq!(text(&pair.bob.ask("config get accept").await?, "value"), "ask");
    Ok(())
}

#[tokio::test]
async fn a_pause_at_either_end_lasts_over_restarts_until_it_is_resumed_there() -> TestResult {
    let mut pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let path = fill(pair.sources().join("big.bin"), 4, 16 << 20)?;
    let id = pair.send(&path).await?;
    verified(&pair.bob, 0, &id, 1 << 20).await?;
    pair.ada.ask(&format!("pause {id}")).await?;
    let paused = reaches(&pair.bob, 0, &id, "paused").await?;
    assert!(text(&paused, "reason").contains("other end"), "{paused}");
    // What was told by an event is on disk.
    reaches(&pair.ada, 0, &id, "paused").await?;
    pair.ada.kill().await?;
    pair.restart_ada().await?;
    pair.ada.ask("wait peer bob").await?;
    let row = pair.ada.ask(&format!("stats {id}")).await?;
    assert_eq!((text(&row, "state"), text(&row, "reason")), ("paused", "by you"));
    let (adas, bobs) = (pair.ada.mark(), pair.bob.mark());
    pair.ada.ask(&format!("resume {id}")).await?;
    reaches(&pair.bob, bobs, &id, "active").await?;
    pair.bob.ask(&format!("pause {id}")).await?;
    reaches(&pair.ada, adas, &id, "paused").await?;
    pair.bob.ask(&format!("resume {id}")).await?;
    reaches(&pair.bob, bobs, &id, "completed").await?;
    assert!(std::fs::read(pair.downloads().join("big.bin"))? == noise(4, 16 << 20));
    Ok(())
}

#[tokio::test]
async fn cancel_at_either_end_ends_it_at_both_and_leaves_nothing() -> TestResult {
    let mut pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let path = fill(pair.sources().join("big.bin"), 5, 16 << 20)?;
    for by_ada in [true, false] {
        let id = pair.send(&path).await?;
        verified(&pair.bob, 0, &id, 1 << 20).await?;
        let node = if by_ada { &mut pair.ada } else { &mut pair.bob };
        node.ask(&format!("cancel {id}")).await?;
        reaches(&pair.ada, 0, &id, "cancelled").await?;
        reaches(&pair.bob, 0, &id, "cancelled").await?;
    }
    pair.ada.ask("config set upload-limit none").await?;
    let next = fill(pair.sources().join("next.bin"), 6, 1_000)?;
    pair.deliver(&next).await?;
    assert_eq!(tree(&pair.downloads())?.into_keys().collect::<Vec<_>>(), ["next.bin"]);
    Ok(())
}

#[tokio::test]
async fn statistics_count_what_moved() -> TestResult {
    let mut pair = Pair::new(&[]).await?;
    let path = fill(pair.sources().join("three.bin"), 7, (2 << 20) + 5)?;
    let there = pair.deliver(&path).await?;
    let id = text(&there, "id").to_owned();
    let rows: [Value; 2] = [pair.ada.ask(&format!("stats {id}")).await?, pair.bob.ask(&format!("stats {id}")).await?];
    for (row, direction) in rows.iter().zip(["out", "in"]) {
        assert_eq!((text(row, "direction"), text(row, "state")), (direction, "completed"), "{row}");
        assert_eq!((row["bytes"].as_u64(), row["chunks"].as_u64()), (Some((2 << 20) + 5), Some(3)), "{row}");
        assert_eq!((text(row, "mode"), text(row, "hash")), ("normal", text(&there, "hash")), "{row}");
        assert!(row["rate"].as_f64() > Some(0.0) && row["seconds"].as_f64() > Some(0.0), "{row}");
    }
    let csv = pair.net.folder.path().join("stats.csv");
    pair.bob.ask(&format!("stats {id} --csv {}", csv.display())).await?;
    let csv = std::fs::read_to_string(csv)?;
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines.len(), 2, "{csv}");
    assert!(lines[0].starts_with(r#""id","direction","peer","#) && lines[1].contains(&id), "{csv}");
    Ok(())
}

#[tokio::test]
async fn what_was_only_offered_survives_both_restarts() -> TestResult {
    let mut pair = Pair::with(&[], &["--accept", "ask"]).await?;
    let path = fill(pair.sources().join("note.txt"), 8, 1_000)?;
    let id = pair.send(&path).await?;
    pair.bob.wait("offer", |event| event["id"] == id.as_str()).await?;
    pair.ada.kill().await?;
    pair.bob.kill().await?;
    pair.restart_ada().await?;
    pair.restart_bob().await?;
    pair.bob.wait_since(0, patience(), "offer", |event| event["id"] == id.as_str()).await?;
    pair.bob.ask(&format!("accept {id}")).await?;
    reaches(&pair.bob, 0, &id, "completed").await?;
    reaches(&pair.ada, 0, &id, "completed").await?;
    Ok(())
}
