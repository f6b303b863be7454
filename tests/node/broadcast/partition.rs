//! A network that falls into two halves and grows together again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use althing::frontend::child::Child;
use serde_json::Value;

use super::{everybody_heard, number_of};
use crate::harness::{Net, TestResult, text};
use crate::lan::Lan;

/// Nodes on each side of the cut.
const HALF: usize = 3;

/// What each says before, during and after the cut.
const SAYINGS: usize = 10;

#[tokio::test]
async fn two_halves_hold_the_same_once_they_are_one_again() -> TestResult {
    let Some(lan) = Lan::new() else {
        eprintln!("skipped 1: no network namespace can be made here");
        return Ok(());
    };
    // The links are noticed to be dead after 19 s at most; `scripts/soak` stays apart for the whole 30.
    let apart = Duration::from_secs(number_of("ALTHING_TEST_PARTITION_S", 0)? as u64);
    let net = Net::with_seeds(0).await?;
    let mut nodes = start(&net, &lan).await?;
    let mut said = vec![Vec::new(); 2 * HALF];

    say(&mut nodes, &mut said, "before").await?;
    everybody_heard(&nodes, &said, Duration::from_secs(60)).await?;

    let cut_at = Instant::now();
    assert!(lan.cut(), "the cable can be cut");
    say(&mut nodes, &mut said, "apart").await?;
    for side in [0..HALF, HALF..2 * HALF] {
        everybody_heard(&nodes[side.clone()], &said[side], Duration::from_secs(60)).await?;
    }
    // Each side has a node that was linked with the other side; both give that link up.
    for (node, other) in [(&nodes[0], &nodes[HALF]), (&nodes[HALF], &nodes[0])] {
        node.wait_since(0, Duration::from_secs(40), "peer_lost", |event| text(event, "name") == other.name).await?;
    }
    tokio::time::sleep(apart.saturating_sub(cut_at.elapsed())).await;
    say(&mut nodes, &mut said, "still apart").await?;
    for (place, node) in nodes.iter().enumerate() {
        let across = |event: &Value| {
            let author = nodes.iter().position(|node| text(event, "text").ends_with(&format!("by {}", node.name)));
            text(event, "text").contains("apart") && author.is_some_and(|author| author / HALF != place / HALF)
        };
        let leaked = node.events_since(0).iter().any(|event| event["type"] == "message" && across(event));
        assert!(!leaked, "{} heard the other side through a cut cable", node.name);
    }

    assert!(lan.join(), "the cable can be joined");
    everybody_heard(&nodes, &said, Duration::from_secs(60)).await?;
    say(&mut nodes, &mut said, "after").await?;
    everybody_heard(&nodes, &said, Duration::from_secs(60)).await?;
    let mut held = Vec::new();
    for node in &mut nodes {
        held.push(held_by(node).await?);
    }
    for (node, held_here) in nodes.iter().zip(&held) {
        assert_eq!(held_here.len(), 2 * HALF, "authors in the history of {}", node.name);
        assert_eq!(*held_here, held[0], "{} holds something else than {}", node.name, nodes[0].name);
    }
    Ok(())
}

/// Two sides: on each, all know the first one. The two first ones know each other, and so do the two last ones.
async fn start(net: &Net, lan: &Lan) -> Result<Vec<Child>, Box<dyn std::error::Error>> {
    let mut nodes: Vec<Child> = Vec::new();
    for place in 0..2 * HALF {
        let (side, rank) = (place / HALF, place % HALF);
        let mut known = Vec::new();
        if rank > 0 {
            known.push(side * HALF);
        }
        if side == 1 && (rank == 0 || rank == HALF - 1) {
            known.push(rank);
        }
        let name = format!("{}{rank}", ["a", "b"][side]);
        let mut args = vec!["--fanout".to_owned(), "1".to_owned(), "--listen".to_owned(), lan.listen(side)];
        for &other in &known {
            args.extend(["--peer".to_owned(), lan_address(&nodes[other], lan, other / HALF).await?]);
        }
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let node = Child::spawn(&lan.node(side, net.folder.path())?, &name, &net.dir(&name), args)?;
        for &other in &known {
            node.wait("peer_up", |event| text(event, "name") == nodes[other].name).await?;
        }
        nodes.push(node);
    }
    Ok(nodes)
}

/// The address on the cable; every node listens on its loopback too.
async fn lan_address(node: &Child, lan: &Lan, side: usize) -> Result<String, Box<dyn std::error::Error>> {
    let listening = node.wait("listening", |event| text(event, "address").contains(lan.ip(side))).await?;
    Ok(text(&listening, "address").to_owned())
}

async fn say(nodes: &mut [Child], said: &mut [Vec<String>], when: &str) -> TestResult {
    for number in 0..SAYINGS {
        for (node, said) in nodes.iter_mut().zip(said.iter_mut()) {
            let words = format!("{when} {number} by {}", node.name);
            node.tell(&format!("broadcast {words}")).await?;
            said.push(words);
        }
    }
    Ok(())
}

/// Ids and texts of each author, in the order in which this node holds them.
async fn held_by(node: &mut Child) -> Result<BTreeMap<String, Vec<(String, String)>>, Box<dyn std::error::Error>> {
    let rows = node.ask("history all -n 100000").await?;
    let mut held: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    for row in rows.as_array().into_iter().flatten() {
        let words = (text(row, "id").to_owned(), text(row, "text").to_owned());
        held.entry(text(row, "from").to_owned()).or_default().push(words);
    }
    Ok(held)
}
