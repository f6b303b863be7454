//! The life of links between real processes: restarts, simultaneous dials, goodbyes, mandatory peers.

use std::time::Duration;

use crate::harness::{Net, TestResult, signal, text};

#[tokio::test]
async fn after_a_restart_with_the_same_key_the_first_message_arrives() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.deliver("bob", "first life").await?;
    let id = bob.peer_id().await?;
    for life in 0..3 {
        bob.kill().await?;
        bob = net.peer("bob", &[])?;
        assert_eq!(bob.peer_id().await?, id);
        ada.deliver("bob", &format!("life {life}")).await?;
        bob.deliver("ada", &format!("heard in life {life}")).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_restart_is_heard_while_the_other_side_still_holds_the_dead_link() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    bob.deliver("ada", "hello").await?;
    // A frozen process keeps its sockets open, so that Ada cannot notice; its successor runs on a copy of the data dir.
    signal(&bob, "STOP")?;
    let copy = net.dir("bob-copy");
    std::fs::create_dir_all(&copy)?;
    for file in ["identity.key", "history.db", "history.db-wal", "boot"] {
        if net.dir("bob").join(file).exists() {
            std::fs::copy(net.dir("bob").join(file), copy.join(file))?;
        }
    }
    let mark = ada.mark();
    let seeds = net.addresses.iter().flat_map(|address| ["--seed", address.as_str()]);
    let mut again = althing::frontend::child::Child::spawn(crate::harness::NODE.as_ref(), "bob", &copy, seeds)?;
    again.deliver("ada", "I am back").await?;
    ada.wait_since(mark, Duration::from_secs(20), "message", |event| text(event, "text") == "I am back").await?;
    ada.deliver("bob", "I hear you").await?;
    bob.kill().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_on_an_older_data_dir_is_told_and_catches_up_when_it_may() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut bob = net.peer("bob", &[])?;
    let to_bob = bob.address().await?;
    let (ada_dir, copy_dir) = (net.dir("ada"), net.dir("ada-copy"));
    for start in 1..=3 {
        let mut ada = net.peer("ada", &["--peer", &to_bob])?;
        ada.ask("wait peer bob").await?;
        crate::harness::wait_registered(&ada, 1).await?;
        ada.quit().await?;
        if start == 1 {
            std::fs::create_dir_all(&copy_dir)?;
            for file in ["identity.key", "history.db", "boot"] {
                std::fs::copy(ada_dir.join(file), copy_dir.join(file))?;
            }
        }
    }
    let spawn = || {
        let args = ["--peer", to_bob.as_str(), "--seed", net.addresses[0].as_str()];
        althing::frontend::child::Child::spawn(crate::harness::NODE.as_ref(), "ada", &copy_dir, args)
    };
    let mut copy = spawn()?;
    let told = copy.wait("error", |event| text(event, "code") == "integrity").await?;
    let message = text(&told, "message");
    assert!(message.contains("(start 3, this is start 2)"), "{message}");
    assert!(message.contains(&format!("{}", copy_dir.join("boot").display())), "{message}");
    // A waiting message makes it look for Bob all the time; this is long enough for several dials.
    copy.write(b"msg bob from an older life\n").await?;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let count = |kind: &str| copy.events_since(0).iter().filter(|event| event["type"] == kind).count();
    assert_eq!(count("error"), 1, "the user is told once");
    assert!(count("peer_lost") <= 15, "{} links came and went", count("peer_lost"));
    let faults = bob.ask("status").await?["faults"].clone();
    let stale = faults.as_array().into_iter().flatten().find(|fault| fault[0] == "stale-boot");
    assert!(stale.and_then(|fault| fault[1].as_u64()).is_some_and(|stale| (1..=12).contains(&stale)), "{faults}");
    copy.quit().await?;

    std::fs::write(copy_dir.join("boot"), "restored\n")?;
    let mut ada = spawn()?;
    ada.deliver("bob", "caught up").await?;
    bob.wait("message", |event| text(event, "text") == "caught up").await?;
    assert!(!ada.events_since(0).iter().any(|event| event["type"] == "error"));
    Ok(())
}

#[tokio::test]
async fn simultaneous_dials_end_in_one_link() -> TestResult {
    for _ in 0..5 {
        let net = Net::with_seeds(0).await?;
        let mut ada = net.peer("ada", &[])?;
        let mut bob = net.peer("bob", &[])?;
        let (to_bob, to_ada) = (bob.address().await?, ada.address().await?);
        let (ada_asked, bob_asked) =
            (ada.tell(&format!("connect {to_bob}")).await?, bob.tell(&format!("connect {to_ada}")).await?);
        for (peer, (mark, id)) in [(&ada, ada_asked), (&bob, bob_asked)] {
            let reply =
                peer.wait_since(mark, Duration::from_secs(20), "reply", |event| text(event, "id") == id).await?;
            assert_eq!(reply["ok"], true, "{reply}");
        }
        ada.deliver("bob", "one").await?;
        bob.deliver("ada", "two").await?;
        // Surplus links are pruned after two seconds; ask until it has happened.
        for _ in 0..100 {
            if ada.ask("status").await?["links"] == 1 && bob.ask("status").await?["links"] == 1 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(ada.ask("status").await?["links"], 1);
        assert_eq!(bob.ask("status").await?["links"], 1);
        ada.deliver("bob", "three").await?;
        bob.deliver("ada", "four").await?;
        let ups = |events: Vec<serde_json::Value>| events.iter().filter(|event| event["type"] == "peer_up").count();
        assert_eq!(ups(ada.events_since(0)), 1, "up is told once");
    }
    Ok(())
}

#[tokio::test]
async fn a_goodbye_is_seen_and_is_no_loss() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    let status = bob.quit().await?;
    assert_eq!(status.code(), Some(0));
    ada.wait("peer_left", |event| text(event, "name") == "bob").await?;
    assert!(!ada.events_since(0).iter().any(|event| event["type"] == "peer_lost" && text(event, "name") == "bob"));
    assert_eq!(text(&ada.ask("whois bob").await?, "state"), "left");
    let mark = ada.mark();
    let _bob = net.peer("bob", &[])?;
    ada.wait_since(mark, Duration::from_secs(20), "peer_up", |event| text(event, "name") == "bob").await?;
    Ok(())
}

#[tokio::test]
async fn a_signal_is_a_goodbye_too() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    signal(&bob, "TERM")?;
    assert_eq!(bob.ended().await?.code(), Some(143));
    ada.wait("peer_left", |event| text(event, "name") == "bob").await?;
    signal(&ada, "INT")?;
    assert_eq!(ada.ended().await?.code(), Some(130));
    Ok(())
}

#[tokio::test]
async fn a_mandatory_peer_is_redialled_until_it_is_there() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut bob = net.peer("bob", &[])?;
    let address = bob.address().await?;
    let bare = address.split("/p2p/").next().unwrap_or_default().to_owned();
    bob.kill().await?;
    let ada = net.peer("ada", &["--peer", &bare])?;
    ada.wait("listening", |_| true).await?;
    let mut bob = net.peer("bob", &["--listen", &bare])?;
    ada.wait("peer_up", |event| text(event, "name") == "bob").await?;
    let mark = ada.mark();
    bob.quit().await?;
    ada.wait_since(mark, Duration::from_secs(20), "peer_left", |event| text(event, "name") == "bob").await?;
    let mark = ada.mark();
    let _bob = net.peer("bob", &["--listen", &bare])?;
    ada.wait_since(mark, Duration::from_secs(30), "peer_up", |event| text(event, "name") == "bob").await?;
    Ok(())
}

#[tokio::test]
async fn a_name_that_only_somebody_else_knows_is_resolved_and_dialled() -> TestResult {
    // A line without seeds: ada - bob - cleo - dan. Ada has heard of nobody but Bob.
    let net = Net::with_seeds(0).await?;
    let dan = net.peer("dan", &["--fanout", "1"])?;
    let to_dan = dan.address().await?;
    let cleo = net.peer("cleo", &["--fanout", "1", "--peer", &to_dan])?;
    let to_cleo = cleo.address().await?;
    cleo.wait("peer_up", |event| text(event, "name") == "dan").await?;
    let bob = net.peer("bob", &["--fanout", "1", "--peer", &to_cleo])?;
    let to_bob = bob.address().await?;
    bob.wait("peer_up", |event| text(event, "name") == "cleo").await?;
    let mut ada = net.peer("ada", &["--fanout", "1", "--peer", &to_bob])?;
    ada.wait("peer_up", |event| text(event, "name") == "bob").await?;
    ada.deliver("dan", "three hops away").await?;
    dan.wait("message", |event| text(event, "text") == "three hops away").await?;
    Ok(())
}

#[tokio::test]
async fn ipv6_works_and_own_addresses_are_printed() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let bob = net.peer("bob", &["--listen", "/ip6/::1/tcp/0"])?;
    let listening = bob.wait("listening", |event| text(event, "address").starts_with("/ip6/::1/")).await;
    let Ok(listening) = listening else {
        eprintln!("skipped: this machine has no IPv6 loopback");
        return Ok(());
    };
    let mut ada = net.peer("ada", &["--listen", "/ip6/::1/tcp/0"])?;
    ada.ask(&format!("connect {}", text(&listening, "address"))).await?;
    ada.deliver("bob", "over IPv6").await?;
    Ok(())
}

#[tokio::test]
async fn a_silent_link_is_noticed() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    let mark = ada.mark();
    signal(&bob, "STOP")?;
    let lost = ada.wait_since(mark, Duration::from_secs(40), "peer_lost", |event| text(event, "name") == "bob").await?;
    assert_eq!(text(&lost, "reason"), "it does not answer");
    signal(&bob, "CONT")?;
    ada.wait_since(mark, Duration::from_secs(40), "peer_up", |event| text(event, "name") == "bob").await?;
    Ok(())
}

#[tokio::test]
async fn fanout_links_are_dialled_and_no_more() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut others = Vec::new();
    for number in 0..4 {
        // These dial nobody but each other's first, so that the last comer alone chooses.
        others.push(net.peer(&format!("p{number}"), &["--fanout", "1"])?);
    }
    for other in &others {
        other.wait("peer_up", |event| text(event, "name").starts_with('p')).await?;
    }
    let mut last = net.peer("last", &["--fanout", "2"])?;
    last.ask("wait peer 2").await?;
    // Another list comes within seconds while it is short; give it the chance to dial too many.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let rows = last.ask("peers").await?;
    let dialled = rows
        .as_array()
        .into_iter()
        .flatten()
        .filter(|row| row["role"] == "peer" && row["via"] == "seed" && row["state"] == "up");
    assert_eq!(dialled.count(), 2, "{rows}");
    Ok(())
}

#[tokio::test]
async fn a_peer_we_disconnected_from_is_not_dialled_again_until_it_is_wanted() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer("bob", &["--fanout", "1"])?;
    bob.ask("wait peer ada").await?;
    ada.ask("wait peer bob").await?;
    let mark = ada.mark();
    ada.ask("disconnect bob").await?;
    ada.wait_since(mark, Duration::from_secs(20), "peer_lost", |event| text(event, "name") == "bob").await?;
    bob.wait("peer_left", |event| text(event, "name") == "ada").await?;
    let mark = ada.mark();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert!(!ada.events_since(mark).iter().any(|event| event["type"] == "peer_up" && text(event, "via") != "inbound"));
    ada.deliver("bob", "wanted again").await?;
    Ok(())
}

#[tokio::test]
async fn an_address_leads_to_somebody_who_was_known_at_another_one() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let (mut ada, mut bob) = (net.peer("ada", &[])?, net.peer("bob", &[])?);
    ada.ask(&format!("connect {}", bob.address().await?)).await?;
    ada.kill().await?;
    bob.kill().await?;
    // Each comes back at a new port, and knows the other at the old one.
    let (mut ada, bob) = (net.peer("ada", &[])?, net.peer("bob", &[])?);
    ada.ask(&format!("connect {}", bob.address().await?)).await?;
    Ok(())
}
