//! How many broadcasts a node keeps for others is a setting.

use crate::harness::{Net, TestResult, text};

#[tokio::test]
async fn a_node_keeps_as_many_broadcasts_for_others_as_it_is_told() -> TestResult {
    // No seed, so that nobody else keeps them either.
    let net = Net::with_seeds(0).await?;
    let mut ada = net.peer("ada", &["--keep-broadcasts", "3", "--keep-broadcasts-for", "2h"])?;
    for (key, value) in [("keep-broadcasts", "3"), ("keep-broadcasts-for", "2h")] {
        let setting = ada.ask(&format!("config get {key}")).await?;
        assert_eq!((text(&setting, "value"), text(&setting, "origin")), (value, "flag"));
    }
    // What was never handed to anybody would wait for the first neighbour, whatever is kept.
    let mut cleo = net.peer("cleo", &["--peer", &ada.address().await?])?;
    ada.wait("peer_up", |event| text(event, "name") == "cleo").await?;
    for number in 1..=10 {
        ada.ask(&format!("broadcast number {number}")).await?;
    }
    cleo.wait("message", |event| text(event, "text") == "number 10").await?;
    cleo.quit().await?;
    ada.wait("peer_left", |event| text(event, "name") == "cleo").await?;
    let mut bob = net.peer("bob", &["--peer", &ada.address().await?])?;
    ada.wait("peer_up", |event| text(event, "name") == "bob").await?;
    // Each author's broadcasts come in order, so with this one everything before it has come or is lost.
    ada.ask("broadcast number 11").await?;
    bob.wait("message", |event| text(event, "text") == "number 11").await?;
    let rows = bob.ask("history all -n 100").await?;
    let texts: Vec<&str> = rows.as_array().into_iter().flatten().map(|row| text(row, "text")).collect();
    // Number 8 goes when 11 comes, and may have been handed over before.
    let kept = ["number 8", "number 9", "number 10", "number 11"];
    assert!(texts == kept || texts == kept[1..], "{texts:?}");
    // Ada's own history has all of them.
    assert_eq!(ada.ask("history all -n 100").await?.as_array().map(Vec::len), Some(10 + 1));
    Ok(())
}
