//! Registrations, dead seeds, discovery, remembered peers.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::harness::{Net, TestResult, registered, text, wait_registered};

#[tokio::test]
async fn each_of_eight_peers_registers_with_exactly_two_of_three_seeds() -> TestResult {
    let mut net = Net::with_seeds(3).await?;
    let mut peers = Vec::new();
    for number in 0..8 {
        peers.push(net.peer(&format!("p{number}"), &[])?);
    }
    for peer in &peers {
        wait_registered(peer, 2).await?;
    }
    // A seed has stored a registration before it answers, so what the peers have heard is all there.
    let mut held = 0;
    for seed in &mut net.seeds {
        held += seed.ask("status").await?["registrations"].as_u64().unwrap_or(0);
    }
    assert_eq!(held, 16, "counted at the seeds");
    for peer in &mut peers {
        let rows = peer.ask("seeds").await?;
        let states: Vec<&str> = rows.as_array().into_iter().flatten().map(|row| text(row, "state")).collect();
        assert_eq!(states.iter().filter(|state| **state == "registered").count(), 2, "{states:?}");
        assert_eq!(registered(peer).len(), 2);
    }
    let all: BTreeSet<String> = (0..8).map(|number| format!("p{number}")).collect();
    for (number, peer) in peers.iter_mut().enumerate() {
        peer.ask("wait peer 4").await?;
        let rows = peer.ask("peers").await?;
        let known: BTreeSet<String> =
            rows.as_array().into_iter().flatten().map(|row| text(row, "name").to_owned()).collect();
        assert!(known.iter().filter(|name| all.contains(*name)).count() >= 4, "p{number} knows {known:?}");
    }
    Ok(())
}

#[tokio::test]
async fn for_every_subset_of_dead_seeds_a_newcomer_joins() -> TestResult {
    for dead in [0b001_u32, 0b010, 0b100, 0b011, 0b101, 0b110] {
        let mut net = Net::with_seeds(3).await?;
        let ada = net.peer("ada", &[])?;
        let bob = net.peer("bob", &[])?;
        wait_registered(&ada, 2).await?;
        wait_registered(&bob, 2).await?;
        for seed in (0..3).filter(|seed| dead & (1 << seed) != 0) {
            net.seeds[seed].kill().await?;
        }
        let mut late = net.peer("late", &[])?;
        late.wait("peer_up", |event| ["ada", "bob"].contains(&text(event, "name"))).await?;
        late.deliver("ada", "I came when seeds were dead").await?;
        late.deliver("bob", "to you as well").await?;
        let alive: Vec<&String> =
            (0..3).filter(|seed| dead & (1 << seed) == 0).map(|seed| &net.addresses[seed]).collect();
        wait_registered(&late, alive.len().min(2)).await?;
        assert!(registered(&late).iter().all(|seed| alive.contains(&seed)), "{dead:b}");
    }
    Ok(())
}

#[tokio::test]
async fn with_all_seeds_dead_remembered_peers_are_used_and_seeds_that_return_are_registered_with() -> TestResult {
    let mut net = Net::with_seeds(2).await?;
    let port = net.addresses[0].split('/').nth(4).unwrap_or_default().to_owned();
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    bob.deliver("ada", "before").await?;
    for seed in &mut net.seeds {
        seed.kill().await?;
    }
    bob.quit().await?;
    let mut bob = net.peer("bob", &[])?;
    bob.wait("seed", |event| event["state"] == "unreachable").await?;
    bob.wait("peer_up", |event| text(event, "name") == "ada").await?;
    bob.deliver("ada", "no seed lives").await?;
    ada.deliver("bob", "I know you").await?;
    let unreachable = |address: &str| {
        let said =
            bob.events_since(0).into_iter().filter(|event| event["type"] == "seed" && event["state"] == "unreachable");
        said.filter(|event| text(event, "address") == address).count()
    };
    assert!(unreachable(&net.addresses[0]) <= 1, "a dead seed is said once");
    let seed = net.seeds.remove(0);
    drop(seed);
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let mark = bob.mark();
    let back = net.peer("seed0", &["--role", "seed", "--listen", &listen])?;
    back.wait("listening", |event| text(event, "address").contains(&port)).await?;
    bob.wait_since(mark, Duration::from_secs(30), "seed", |event| event["state"] == "registered").await?;
    Ok(())
}

#[tokio::test]
async fn a_seed_without_an_identity_is_learnt_and_pinned() -> TestResult {
    let mut net = Net::with_seeds(1).await?;
    let whole = net.addresses[0].clone();
    let bare = whole.split("/p2p/").next().unwrap_or_default().to_owned();
    let identity = net.seeds[0].peer_id().await?;
    net.addresses = vec![bare.clone()];
    let mut ada = net.peer("ada", &[])?;
    let event = ada.wait("seed", |event| event["state"] == "registered").await?;
    assert_eq!(text(&event, "peer_id"), identity);
    ada.quit().await?;
    // Somebody else takes the address: the pin is remembered over the restart and the stranger is not used.
    net.seeds[0].kill().await?;
    let port = bare.rsplit('/').next().unwrap_or_default().to_owned();
    let stranger = net.peer("stranger", &["--role", "seed", "--listen", &format!("/ip4/127.0.0.1/tcp/{port}")])?;
    stranger.wait("listening", |event| text(event, "address").contains(&port)).await?;
    let ada = net.peer("ada", &[])?;
    ada.wait("seed", |event| event["state"] == "refused").await?;
    assert!(registered(&ada).is_empty());
    Ok(())
}

#[tokio::test]
async fn seeds_come_from_a_file_and_from_the_bootstrap_options() -> TestResult {
    let net = Net::with_seeds(2).await?;
    let port = |address: &str| address.split('/').nth(4).unwrap_or_default().to_owned();
    let file = net.folder.path().join("seeds.json");
    let json = format!(r#"{{"seeds":[{{"host":"127.0.0.1","port":{}}}]}}"#, port(&net.addresses[0]));
    std::fs::write(&file, json)?;
    let file = file.display().to_string();
    let other = port(&net.addresses[1]);
    let args = ["--seeds-file", file.as_str(), "--bootstrap-host", "127.0.0.1", "--bootstrap-port", other.as_str()];
    let ada = althing::frontend::child::Child::spawn(crate::harness::NODE.as_ref(), "ada", &net.dir("ada"), args)?;
    wait_registered(&ada, 2).await?;
    Ok(())
}

#[tokio::test]
async fn a_goodbye_takes_the_registration_back() -> TestResult {
    let mut net = Net::with_seeds(1).await?;
    let ada = net.peer("ada", &[])?;
    let mut bob = net.peer("bob", &[])?;
    wait_registered(&ada, 1).await?;
    wait_registered(&bob, 1).await?;
    assert_eq!(net.seeds[0].ask("status").await?["registrations"], 2);
    bob.quit().await?;
    net.seeds[0].wait("peer_left", |event| text(event, "name") == "bob").await?;
    assert_eq!(net.seeds[0].ask("status").await?["registrations"], 1, "taken back before the goodbye");
    Ok(())
}
