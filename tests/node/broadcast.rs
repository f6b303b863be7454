//! Broadcasts: once each to everybody, through peers without a direct link, and gaps filled after an absence.

mod hostile;
mod line;
mod partition;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use althing::frontend::child::Child;

use crate::harness::{NODE, Net, TestResult, text};

/// Nodes in a line: each is linked with the one before it only.
async fn line(net: &Net, count: usize) -> Result<Vec<Child>, Box<dyn std::error::Error>> {
    let mut nodes: Vec<Child> = Vec::new();
    for number in 0..count {
        let name = format!("n{number}");
        let node = match nodes.last() {
            None => net.peer(&name, &["--fanout", "1"])?,
            Some(before) => net.peer(&name, &["--fanout", "1", "--peer", &before.address().await?])?,
        };
        if let Some(before) = nodes.last() {
            node.wait("peer_up", |event| text(event, "name") == before.name).await?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// A number from the environment: `scripts/soak` runs the same tests with larger ones.
fn number_of(variable: &str, default: usize) -> Result<usize, Box<dyn std::error::Error>> {
    std::env::var(variable).map_or(Ok(default), |number| Ok(number.parse()?))
}

/// Wait until each of these nodes has heard what the others said, and see that nothing of it came twice, nor out of its
/// author's order but for what the node has given up first (event `gap`), as on a machine that stands still for seconds.
/// `said` has all that each node said, in order; no two sayings are the same.
async fn everybody_heard(nodes: &[Child], said: &[Vec<String>], patience: Duration) -> TestResult {
    let mut authors: BTreeMap<&str, usize> = BTreeMap::new();
    for (author, texts) in said.iter().enumerate() {
        authors.extend(texts.iter().map(|words| (words.as_str(), author)));
    }
    for (place, node) in nodes.iter().enumerate() {
        let others = authors.iter().filter(|(_, author)| **author != place);
        let missing: RefCell<BTreeSet<&str>> = RefCell::new(others.map(|(words, _)| *words).collect());
        if missing.borrow().is_empty() {
            continue;
        }
        let all = node.wait_since(0, patience, "message", |event| {
            missing.borrow_mut().remove(text(event, "text"));
            missing.borrow().is_empty()
        });
        all.await.map_err(|error| format!("{error}; missing are {:?}", missing.borrow()))?;
    }
    for (place, node) in nodes.iter().enumerate() {
        // What comes next of each author, and what was given up with a word about it: it may still come, once.
        let (mut next, mut given_up) = (BTreeMap::new(), BTreeSet::new());
        for event in node.events_since(0) {
            let from = text(&event, "from").to_owned();
            let next = next.entry(from.clone()).or_insert(1);
            if event["type"] == "gap" {
                let last = event["last"].as_u64().ok_or("a gap has an end")?;
                given_up.extend((*next..=last).map(|seq| (from.clone(), seq)));
                *next = last + 1;
            }
            let Some(&author) = authors.get(text(&event, "text")) else { continue };
            let seq = event["seq"].as_u64().ok_or("a message has a number")?;
            assert_ne!(author, place, "{} hears itself: {event}", node.name);
            if seq == *next {
                *next += 1;
            } else {
                assert!(given_up.remove(&(from, seq)), "{}, waiting for {next}, heard {event}", node.name);
            }
        }
    }
    Ok(())
}

#[tokio::test]
async fn whoever_was_away_has_everything_when_it_is_back_in_each_authors_order() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("broadcast before").await?;
    bob.wait("message", |event| text(event, "text") == "before").await?;
    bob.kill().await?;
    for number in 0..30 {
        ada.ask(&format!("broadcast missed {number}")).await?;
    }
    let mut bob = net.peer("bob", &[])?;
    bob.wait("message", |event| text(event, "text") == "missed 29").await?;
    let heard: Vec<String> = bob
        .events_since(0)
        .iter()
        .filter(|event| event["type"] == "message")
        .map(|event| text(event, "text").to_owned())
        .collect();
    assert_eq!(heard, (0..30).map(|number| format!("missed {number}")).collect::<Vec<_>>());
    let rows = bob.ask("history all -n 100").await?;
    let kept = rows.as_array().into_iter().flatten().filter(|row| row["kind"] == "broadcast").count();
    assert_eq!(kept, 31);
    // A newcomer gets what was said before its time into its history, not onto its screen.
    let mut cleo = net.peer_that_met("cleo", &["ada"]).await?;
    ada.ask("broadcast now").await?;
    cleo.wait("message", |event| text(event, "text") == "now").await?;
    let shown = cleo.events_since(0).iter().filter(|event| event["type"] == "message").count();
    let rows = cleo.ask("history all -n 100").await?;
    let kept = rows.as_array().map_or(0, Vec::len);
    assert!(kept == 32 && shown < 10, "{kept} kept, {shown} shown");
    Ok(())
}

#[tokio::test]
async fn numbered_gossip_arrives_and_the_output_files_are_written() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let folder = net.folder.path().join("out");
    let out = folder.display().to_string();
    let ada = net.peer("ada", &["--output-dir", &out, "--liveness-interval", "1"])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    let id = ada.peer_id().await?;
    // It begins with ada's first link, so what was said before bob was there is backlog, which is not shown.
    let first = bob.wait("gossip", |event| text(event, "origin") == id).await?;
    let first = first["count"].as_u64().ok_or("a gossip without a number")?;
    for count in first..first + 2 {
        let heard = bob.wait("gossip", |event| event["count"] == count && text(event, "origin") == id).await?;
        // Handed over by its author, or by the seed that both are linked with.
        assert!([&id, &net.seeds[0].peer_id().await?].contains(&&text(&heard, "via").to_owned()));
    }
    bob.ask("gossip start --count 2 --every 0.1").await?;
    let bobs = bob.peer_id().await?;
    ada.wait("gossip", |event| event["count"] == 2 && text(event, "origin") == bobs).await?;
    bob.deliver("ada", "for the file").await?;
    let port = ada.address().await?.split('/').nth(4).unwrap_or_default().to_owned();
    let file = folder.join(format!("output_{port}.txt"));
    let mut written = String::new();
    // The file is written behind the events; look again until it has caught up.
    for _ in 0..100 {
        written = std::fs::read_to_string(&file)?;
        if ["<1133>", "<1155>", "for the file", "peers 1: bob"].iter().all(|part| written.contains(part)) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Err(format!("{}: {written}", file.display()).into())
}

#[tokio::test]
async fn a_seed_relays_and_shows_nothing() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let seed = net.addresses[0].clone();
    // Both know the seed alone, and a fanout of one that nobody fills.
    let mut ada = Child::spawn(NODE.as_ref(), "ada", &net.dir("ada"), ["--peer", seed.as_str()])?;
    let bob = Child::spawn(NODE.as_ref(), "bob", &net.dir("bob"), ["--peer", seed.as_str()])?;
    ada.wait("peer_up", |event| text(event, "name") == "seed0").await?;
    bob.wait("peer_up", |event| text(event, "name") == "seed0").await?;
    ada.ask("broadcast through the seed").await?;
    let heard = bob.wait("message", |event| text(event, "text") == "through the seed").await?;
    assert_eq!(text(&heard, "via"), net.seeds[0].peer_id().await?);
    assert!(!net.seeds[0].events_since(0).iter().any(|event| event["type"] == "message"));
    Ok(())
}

#[tokio::test]
async fn a_broadcast_by_e_reaches_the_others_and_succeeds() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let ada = net.peer("ada", &[])?;
    ada.wait("seed", |event| event["state"] == "registered").await?;
    let data = net.dir("bob").display().to_string();
    let base = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", "bob", "--data-dir", &data];
    let commands = [
        "--seed",
        &net.addresses[0],
        "-e",
        "wait peer ada",
        "-e",
        "broadcast by a script",
        "-e",
        "gossip start --count 1",
    ];
    let output = crate::harness::run(&[&base[..], &commands[..]].concat()).await?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    ada.wait("message", |event| text(event, "text") == "by a script").await?;
    Ok(())
}
