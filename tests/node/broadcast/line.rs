//! Many nodes in a line: what one says passes through all the others, and everybody hears it once.

use std::time::Duration;

use super::{everybody_heard, line, number_of};
use crate::harness::{Net, TestResult, text};

/// Nodes in the line.
const NODES: usize = 20;

/// What they say together; `scripts/soak` has more.
const BROADCASTS: usize = 1_000;

#[tokio::test]
async fn in_a_line_of_twenty_every_broadcast_reaches_everybody_exactly_once() -> TestResult {
    let count = number_of("ALTHING_TEST_BROADCASTS", BROADCASTS)?;
    let net = Net::with_seeds(0).await?;
    let mut nodes = line(&net, NODES).await?;
    let mut said = vec![Vec::new(); NODES];
    // Nobody waits for a reply, so that all talk at once.
    for number in 0..count {
        let author = number % NODES;
        let words = format!("number {number} by {author}");
        nodes[author].tell(&format!("broadcast {words}")).await?;
        said[author].push(words);
    }
    let patience = Duration::from_secs(60 + count as u64 / 5);
    everybody_heard(&nodes, &said, patience).await?;
    // What came twice would be seen behind one more round through the whole line, and in the histories.
    for (author, node) in nodes.iter_mut().enumerate() {
        node.ask(&format!("broadcast the last words of {author}")).await?;
        said[author].push(format!("the last words of {author}"));
    }
    everybody_heard(&nodes, &said, patience).await?;
    for node in &mut nodes {
        let rows = node.ask("history all -n 100000").await?;
        assert_eq!(rows.as_array().map(Vec::len), Some(count + NODES), "in the history of {}", node.name);
        let status = node.ask("status").await?;
        assert_eq!(status["faults"].as_array().map(Vec::len), Some(0), "{} saw {}", node.name, status["faults"]);
    }
    // The last one is linked with its neighbour alone, so what the first one said came through all the others.
    let (first, before) = (nodes[0].peer_id().await?, nodes[NODES - 2].peer_id().await?);
    let heard = nodes[NODES - 1].wait("message", |event| text(event, "from") == first).await?;
    assert_eq!(text(&heard, "via"), before);
    Ok(())
}
