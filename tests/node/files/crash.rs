//! SIGKILL of either end at random offsets: nothing verified moves again, and the end is whole.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

use super::{Pair, fill, number, patience, reaches, tree, verified};
use crate::harness::TestResult;

const MIB: u64 = 1 << 20;

/// Kills of one test; `scripts/soak` asks for more.
fn kills() -> u64 {
    number("ALTHING_TEST_FILE_KILLS").unwrap_or(5)
}

#[tokio::test]
async fn a_receiver_that_is_killed_goes_on_where_it_was() -> TestResult {
    kill(7, |_| Victim::Bob).await
}

#[tokio::test]
async fn a_sender_that_is_killed_goes_on_where_it_was() -> TestResult {
    kill(11, |rng| if rng.random_bool(0.2) { Victim::Both } else { Victim::Ada }).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Ada,
    Bob,
    Both,
}

/// One transfer, with a kill in each stretch of it.
async fn kill(seed: u64, pick: impl Fn(&mut StdRng) -> Victim) -> TestResult {
    let mut rng = StdRng::seed_from_u64(seed);
    let kills = kills();
    // Two files of about so many bytes a stretch, at such a rate that each takes a while and can be hit.
    let stretch = 3 * MIB;
    let total = (kills + 1) * stretch;
    let mut pair = Pair::new(&["--upload-limit", "6M"]).await?;
    let source = pair.sources().join("big");
    std::fs::create_dir(&source)?;
    let first = usize::try_from(total / 3 + 12_345)?;
    fill(source.join("one.bin"), seed, first)?;
    fill(source.join("two.bin"), seed + 1, usize::try_from(total)? - first)?;
    let id = pair.send(&source).await?;
    let mut told = 0;
    for round in 0..kills {
        let offset = round * stretch + rng.random_range(stretch / 4..stretch * 3 / 4);
        verified(&pair.bob, 0, &id, offset).await?;
        let victim = pick(&mut rng);
        // Bob's word is the measure: what he has told to be verified is on his disk.
        if matches!(victim, Victim::Ada | Victim::Both) {
            pair.ada.kill().await?;
        }
        if matches!(victim, Victim::Bob | Victim::Both) {
            pair.bob.kill().await?;
            // The reader sees the end of the stream after the last word.
            let _ = pair.bob.wait("never", |_| false).await;
        }
        let last = bytes(&pair.bob.events_since(0), &id).into_iter().max().unwrap_or_default();
        told = last.max(told);
        assert!(tree(&pair.downloads())?.keys().all(|name| !name.starts_with("big/")), "a final file too early");
        let mark = if victim == Victim::Ada { pair.bob.mark() } else { 0 };
        if matches!(victim, Victim::Ada | Victim::Both) {
            pair.restart_ada().await?;
        }
        if matches!(victim, Victim::Bob | Victim::Both) {
            pair.restart_bob().await?;
        }
        let active = |event: &Value| event["id"] == id.as_str() && event["state"] == "active";
        let again = pair.bob.wait_since(mark, patience(), "transfer", active).await?;
        let from = again["bytes"].as_u64().unwrap_or_default();
        assert!(from >= told, "{victim:?} was killed when {told} bytes were verified, and it went on at {from}");
    }
    reaches(&pair.bob, 0, &id, "completed").await?;
    reaches(&pair.ada, 0, &id, "completed").await?;
    let arrived = tree(&pair.downloads())?;
    // Nothing but the two files: no part, no journal.
    assert_eq!(arrived.keys().collect::<Vec<_>>(), ["big/one.bin", "big/two.bin"]);
    let expected = tree(&source)?;
    assert!(arrived["big/one.bin"] == expected["one.bin"] && arrived["big/two.bin"] == expected["two.bin"]);
    Ok(())
}

/// What was told of a transfer, in order.
fn bytes(events: &[Value], id: &str) -> Vec<u64> {
    let of_it = events.iter().filter(|event| event["type"] == "transfer" && event["id"] == id);
    of_it.filter_map(|event| event["bytes"].as_u64()).collect()
}
