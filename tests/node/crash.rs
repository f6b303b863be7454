//! SIGKILL at any moment: what was acknowledged is on disk, once, and is shown at most once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rusqlite::{Connection, OpenFlags};

use crate::harness::{Net, TestResult, text};

/// The texts of received or sent messages in a data dir, straight from the database.
fn texts(folder: &std::path::Path, direction: &str) -> rusqlite::Result<Vec<String>> {
    let database = Connection::open_with_flags(folder.join("history.db"), OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    let sound: String = database.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
    assert_eq!(sound, "ok");
    let mut statement = database.prepare("SELECT text FROM messages WHERE direction = ?1 ORDER BY rowid")?;
    let rows = statement.query_map([direction], |row| row.get(0))?;
    rows.collect()
}

#[tokio::test]
async fn a_receipt_means_that_the_receivers_disk_has_it() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    let mut receipted = Vec::new();
    for number in 0..20 {
        let line = format!("number {number}");
        ada.deliver("bob", &line).await?;
        receipted.push(line);
    }
    bob.kill().await?;
    assert_eq!(texts(&net.dir("bob"), "in")?, receipted);
    Ok(())
}

#[tokio::test]
async fn a_damaged_envelope_is_given_up_and_holds_nobody_up() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.deliver("bob", "hello").await?;
    bob.kill().await?;
    let (first, second) = (ada.ask("msg bob first").await?, ada.ask("msg bob second").await?);
    ada.kill().await?;
    let database = Connection::open(net.dir("ada").join("history.db"))?;
    let sql = "UPDATE outbox SET envelope = zeroblob(length(envelope)) WHERE message = 2";
    assert_eq!(database.execute(sql, [])?, 1);
    drop(database);
    let mut ada = net.peer("ada", &[])?;
    let _bob = net.peer("bob", &[])?;
    for (reply, state) in [(&first, "failed"), (&second, "delivered")] {
        let id = text(reply, "id").to_owned();
        ada.wait("delivery", |event| text(event, "id") == id && text(event, "state") == state).await?;
    }
    let rows = ada.ask("history bob").await?;
    assert_eq!((text(&rows[1], "text"), text(&rows[1], "reason")), ("first", "damaged on disk"));
    assert_eq!(ada.ask("outbox").await?.as_array().map(Vec::len), Some(0));
    Ok(())
}

#[tokio::test]
async fn fifty_kills_at_random_moments_of_a_chat_lose_and_double_nothing() -> TestResult {
    // `scripts/soak` asks for more.
    let count = std::env::var("ALTHING_TEST_KILLS").ok().and_then(|count| count.parse().ok()).unwrap_or(50);
    kills(count, 7).await
}

/// Ada writes to Bob without a pause while one of them, picked at random, is killed at a random moment and started again.
async fn kills(kills: usize, seed: u64) -> TestResult {
    let mut rng = StdRng::seed_from_u64(seed);
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    let mut accepted = BTreeMap::new();
    let mut delivered = BTreeSet::new();
    let mut shown: BTreeMap<String, usize> = BTreeMap::new();
    let mut number = 0;
    for _ in 0..kills {
        let burst = rng.random_range(1..40);
        let mut asked = BTreeMap::new();
        for _ in 0..burst {
            number += 1;
            let line = format!("number {number}");
            let (_, id) = ada.tell(&format!("msg bob {line}")).await?;
            asked.insert(id, line);
        }
        // The pause is the random moment itself, not a wait for anything.
        tokio::time::sleep(Duration::from_micros(rng.random_range(0..60_000))).await;
        let ada_dies = rng.random_bool(0.5);
        if ada_dies {
            ada.kill().await?;
        } else {
            bob.kill().await?;
        }
        // What reached the pipe counts as told; the reader sees the end of the stream after the last of it.
        let dead = if ada_dies { &ada } else { &bob };
        let _ = dead.wait("never", |_| false).await;
        if !ada_dies {
            // The survivor answers what it was asked, so that nothing of this round is told later.
            for id in asked.keys() {
                ada.wait("reply", |event| text(event, "id") == id).await?;
            }
            collect_shown(&bob, &mut shown);
            bob = net.peer("bob", &[])?;
            bob.wait("ready", |_| true).await?;
        }
        collect(&ada, &asked, &mut accepted, &mut delivered);
        if ada_dies {
            ada = net.peer("ada", &[])?;
            ada.wait("ready", |_| true).await?;
        }
    }
    // Everything accepted is delivered in the end. What Ada was told before a kill may have reached her disk without a
    // reply, so the outbox is the measure.
    let id = ada.deliver("bob", "the last one").await?;
    bob.wait("message", |event| text(event, "id") == id).await?;
    collect(&ada, &BTreeMap::new(), &mut accepted, &mut delivered);
    assert_eq!(ada.ask("outbox").await?.as_array().map(Vec::len), Some(0));
    collect_shown(&bob, &mut shown);
    ada.quit().await?;
    bob.quit().await?;
    let on_bobs_disk = texts(&net.dir("bob"), "in")?;
    let on_adas_disk = texts(&net.dir("ada"), "out")?;
    let distinct: BTreeSet<&String> = on_bobs_disk.iter().collect();
    assert_eq!(distinct.len(), on_bobs_disk.len(), "stored twice");
    for line in accepted.values() {
        assert!(on_adas_disk.contains(line), "{line} was accepted and is not in the sender's history");
        assert!(distinct.contains(line), "{line} was accepted and never arrived");
    }
    assert!(delivered.len() > kills, "{} receipts were seen", delivered.len());
    let doubled: Vec<_> = shown.iter().filter(|(_, times)| **times > 1).collect();
    assert!(doubled.is_empty(), "shown twice: {doubled:?}");
    let numbers: Vec<u32> = on_bobs_disk.iter().filter_map(|line| line.strip_prefix("number ")?.parse().ok()).collect();
    assert!(numbers.is_sorted(), "out of order");
    Ok(())
}

fn collect(
    ada: &althing::frontend::child::Child,
    asked: &BTreeMap<String, String>,
    accepted: &mut BTreeMap<String, String>,
    delivered: &mut BTreeSet<String>,
) {
    for event in ada.events_since(0) {
        if event["type"] == "reply" && event["ok"] == true {
            if let Some(line) = asked.get(text(&event, "id")) {
                accepted.insert(text(&event["data"], "id").to_owned(), line.clone());
            }
        } else if event["type"] == "delivery" && event["state"] == "delivered" {
            delivered.insert(text(&event, "id").to_owned());
        }
    }
}

fn collect_shown(bob: &althing::frontend::child::Child, shown: &mut BTreeMap<String, usize>) {
    for event in bob.events_since(0).iter().filter(|event| event["type"] == "message") {
        *shown.entry(text(event, "text").to_owned()).or_default() += 1;
    }
}
