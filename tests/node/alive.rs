//! Who is alive and who can be trusted, between real processes.
//!
//! - here: deaths, and what is none
//! - `commands`: what people ask about it
//! - `hostile`: forged reports, malformed frames, a lying seed, spoken by libp2p swarms of the test itself
//! - `netns`: lines that drop packets, between network namespaces

mod commands;
mod hostile;
mod netns;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use althing::frontend::child::{Child, ChildError};
use serde_json::Value;

use crate::harness::{Net, TestResult, registered, signal, text, wait_registered};

/// Dead after six seconds of silence.
const QUICK: &[&str] = &["--liveness-interval", "2", "--liveness-misses", "3", "--health-check-interval", "1"];

/// Patience for what takes a deadline and then a round of news.
const LONG: Duration = Duration::from_secs(40);

/// The rows of a list.
fn rows(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// What a node's `peers` says of somebody.
async fn state(at: &mut Child, peer: &str) -> Result<String, ChildError> {
    let peers = at.ask("peers").await?;
    let found = rows(&peers).find(|row| text(row, "peer") == peer).map(|row| text(row, "state").to_owned());
    Ok(found.unwrap_or_default())
}

/// Ask until it holds; what was seen last stands in the error.
async fn until<T: std::fmt::Debug>(
    what: &str,
    at: &mut Child,
    command: &str,
    seen: impl Fn(&Value) -> T,
    holds: impl Fn(&T) -> bool,
) -> Result<T, ChildError> {
    let deadline = Instant::now() + LONG;
    loop {
        let now = seen(&at.ask(command).await?);
        if holds(&now) {
            return Ok(now);
        }
        if Instant::now() > deadline {
            return Err(ChildError(format!("{}: {what}: not in {} s; last: {now:?}", at.name, LONG.as_secs())));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Ask for `peers` until that peer is up.
async fn until_up(at: &mut Child, peer: &str) -> Result<(), ChildError> {
    let seen = |list: &Value| rows(list).find(|row| text(row, "peer") == peer).map(|row| text(row, "state").to_owned());
    until(&format!("{peer} is up"), at, "peers", seen, |state| state.as_deref() == Some("up")).await.map(drop)
}

/// Who was called dead there.
fn called_dead(at: &Child) -> BTreeSet<String> {
    let events = at.events_since(0).into_iter().filter(|event| event["type"] == "peer_dead");
    events.map(|event| text(&event, "peer").to_owned()).collect()
}

/// The registrations of all seeds together.
async fn registrations(seeds: &mut [Child]) -> Result<u64, ChildError> {
    let mut sum = 0;
    for seed in seeds {
        sum += seed.ask("status").await?["registrations"].as_u64().unwrap_or(0);
    }
    Ok(sum)
}

async fn until_registrations(seeds: &mut [Child], wanted: u64) -> Result<(), ChildError> {
    let deadline = Instant::now() + LONG;
    loop {
        let sum = registrations(seeds).await?;
        if sum == wanted {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(ChildError(format!("the seeds hold {sum} registrations and not {wanted}")));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Wait until everybody has a link to everybody.
async fn all_met(peers: &[Child]) -> Result<(), ChildError> {
    for peer in peers {
        for other in peers.iter().filter(|other| other.name != peer.name) {
            peer.wait("peer_up", |event| text(event, "name") == other.name).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_is_killed_is_suspect_then_dead_leaves_the_seeds_and_comes_back_without_a_mark() -> TestResult {
    let mut net = Net::with_seeds_and(3, QUICK).await?;
    let mut peers = Vec::new();
    for number in 0..4 {
        peers.push(net.peer(&format!("p{number}"), QUICK)?);
    }
    all_met(&peers).await?;
    for peer in &peers {
        wait_registered(peer, 2).await?;
    }
    until_registrations(&mut net.seeds, 8).await?;
    let mut victim = peers.pop().ok_or("no victim")?;
    let id = victim.peer_id().await?;
    let its_seeds = registered(&victim);
    victim.kill().await?;

    for peer in &mut peers {
        let dead = peer.wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == id).await?;
        assert_eq!(text(&dead, "name"), "p3");
        let own = peer.peer_id().await?;
        assert_eq!(dead["reporters"], serde_json::json!([own]), "a peer judges by itself");
        let events = peer.events_since(0);
        let place = |kind: &str| events.iter().position(|event| event["type"] == kind && text(event, "peer") == id);
        assert!(place("peer_suspect").is_some_and(|suspect| Some(suspect) < place("peer_dead")), "suspect comes first");
        peer.ask("wait dead p3 --timeout 5").await?;
        let why = peer.ask("why p3").await?;
        assert_eq!(why["faults"], 0.0, "death is no fault: {why}");
    }
    // The health check goes on dialling it, and that it is not there costs it nothing.
    let failed = |why: &Value| -> u64 {
        let facts = rows(&why["facts"]).filter(|fact| fact["what"] == "dial-failed");
        facts.filter_map(|fact| fact["count"].as_u64()).sum()
    };
    let before = failed(&peers[0].ask("why p3").await?);
    let failures = |whois: &Value| whois["failures"].as_u64().unwrap_or(0);
    let dialled = failures(&peers[0].ask("whois p3").await?);
    until("it is dialled again", &mut peers[0], "whois p3", failures, |failures| *failures >= dialled + 2).await?;
    assert_eq!(failed(&peers[0].ask("why p3").await?), before, "death costs no standing");
    for (seed, address) in net.seeds.iter().zip(&net.addresses).filter(|(_, address)| its_seeds.contains(*address)) {
        let dead = seed.wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == id).await?;
        let own = seed.peer_id().await?;
        let reporters: Vec<&str> = rows(&dead["reporters"]).filter_map(Value::as_str).collect();
        let enough = reporters.contains(&own.as_str()) || reporters.len() >= 2;
        assert!(enough, "{address} went by {reporters:?}");
    }
    until_registrations(&mut net.seeds, 6).await?;
    assert!(called_dead(&victim).is_empty());

    // It comes back and dials one only; the others find it through the seeds, whose tombstones must have fallen.
    let back = net.peer("p3", &[QUICK, &["--fanout", "1"]].concat())?;
    assert_eq!(back.peer_id().await?, id);
    wait_registered(&back, 2).await?;
    for peer in peers.iter_mut() {
        until_up(peer, &id).await?;
    }
    for (seed, address) in net.seeds.iter_mut().zip(&net.addresses) {
        if registered(&back).contains(address) {
            until_up(seed, &id).await?;
        }
        assert_ne!(state(seed, &id).await?, "suspect");
    }
    let mut late = net.peer("late", &[QUICK, &["--fanout", "16"]].concat())?;
    late.wait("peer_up", |event| text(event, "peer") == id).await?;
    late.deliver("p3", "you are listed again").await?;
    peers.push(late);
    peers.push(back);
    for node in peers.iter_mut().chain(&mut net.seeds) {
        assert!(called_dead(node).is_subset(&BTreeSet::from([id.clone()])), "{}: nobody else died", node.name);
        let liveness = node.ask("liveness").await?;
        // A seed at which it is not registered any more may only know that it died.
        let marks = rows(&liveness).filter(|row| row["state"] == "dead").count();
        assert!(marks == 0 || node.name.starts_with("seed"), "{}: {liveness}", node.name);
    }
    Ok(())
}

/// Passes one TCP address on to another until it is dropped; then every connection through it breaks.
struct Proxy {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Proxy {
    async fn to(target: &str) -> std::io::Result<Self> {
        let target = target.to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let task = tokio::spawn(async move {
            let mut lines = tokio::task::JoinSet::new();
            while let Ok((mut near, _)) = listener.accept().await {
                if let Ok(mut far) = tokio::net::TcpStream::connect(&target).await {
                    lines.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
                }
            }
        });
        Ok(Self { address, task })
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `host:port` of a multiaddr such as `/ip4/127.0.0.1/tcp/4001/p2p/…`.
fn host_port(address: &str) -> String {
    let parts: Vec<&str> = address.split('/').collect();
    format!("{}:{}", parts.get(2).unwrap_or(&""), parts.get(4).unwrap_or(&""))
}

#[tokio::test]
async fn a_goodbye_a_disconnect_a_block_and_a_lost_link_are_no_death() -> TestResult {
    let net = Net::with_seeds_and(1, QUICK).await?;
    let mut ada = net.peer("ada", QUICK)?;
    let mut others = Vec::new();
    for name in ["bob", "cleo", "dan", "eve"] {
        others.push(net.peer(name, QUICK)?);
    }
    for other in &others {
        ada.wait("peer_up", |event| text(event, "name") == other.name).await?;
    }
    // Fay knows nobody, and the link to her goes through a line that breaks.
    let fay = Child::spawn(crate::harness::NODE.as_ref(), "fay", &net.dir("fay"), QUICK.iter().copied())?;
    let line = Proxy::to(&host_port(&fay.address().await?)).await?;
    ada.ask(&format!("connect {}", line.address)).await?;
    let mark = ada.mark();
    drop(line);
    ada.wait_since(mark, LONG, "peer_lost", |event| text(event, "name") == "fay").await?;
    others[0].quit().await?;
    ada.ask("disconnect cleo").await?;
    ada.ask("block dan").await?;
    let eve = others[3].peer_id().await?;
    others[3].kill().await?;
    // Eve died last, so by the time she is dead the others would be as well.
    for node in net.seeds.iter().chain([&ada]) {
        node.wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == eve).await?;
    }
    let id = fay.peer_id().await?;
    until_up(&mut ada, &id).await?;
    for node in net.seeds.iter().chain([&ada, &fay]).chain(&others) {
        assert!(called_dead(node).is_subset(&BTreeSet::from([eve.clone()])), "{}: {:?}", node.name, called_dead(node));
    }
    assert_eq!(text(&ada.ask("whois bob").await?, "state"), "left");
    let liveness = ada.ask("liveness").await?;
    let dead: Vec<&str> = rows(&liveness).filter(|row| row["state"] == "dead").map(|row| text(row, "name")).collect();
    assert_eq!(dead, ["eve"], "{liveness}");
    Ok(())
}

#[tokio::test]
async fn a_short_freeze_is_no_death_and_a_long_one_ends_without_a_mark() -> TestResult {
    let mut net = Net::with_seeds_and(1, QUICK).await?;
    let mut peers = Vec::new();
    for name in ["ada", "bob", "cleo"] {
        peers.push(net.peer(name, QUICK)?);
    }
    all_met(&peers).await?;
    for peer in &peers {
        wait_registered(peer, 1).await?;
    }
    let mut cleo = peers.pop().ok_or("no cleo")?;
    let id = cleo.peer_id().await?;
    let marks: Vec<usize> = peers.iter().map(Child::mark).collect();
    signal(&cleo, "STOP")?;
    // Half of the deadline.
    tokio::time::sleep(Duration::from_secs(3)).await;
    signal(&cleo, "CONT")?;
    for (peer, mark) in peers.iter().zip(&marks) {
        // Two probes answered since, so that a verdict about the freeze would have come.
        for _ in 0..2 {
            peer.wait_since(*mark, LONG, "probe", |event| text(event, "peer") == id).await?;
        }
        assert!(called_dead(peer).is_empty(), "{}: a freeze of 3 s is no death", peer.name);
    }
    assert!(called_dead(&net.seeds[0]).is_empty());

    signal(&cleo, "STOP")?;
    for node in peers.iter().chain(&net.seeds) {
        node.wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == id).await?;
    }
    until_registrations(&mut net.seeds, 2).await?;
    signal(&cleo, "CONT")?;
    for node in peers.iter_mut().chain(&mut net.seeds) {
        until_up(node, &id).await?;
    }
    for other in &peers {
        let other = other.peer_id().await?;
        until_up(&mut cleo, &other).await?;
    }
    until_registrations(&mut net.seeds, 3).await?;
    peers.push(cleo);
    for node in peers.iter_mut().chain(&mut net.seeds) {
        let liveness = node.ask("liveness").await?;
        assert!(rows(&liveness).all(|row| row["state"] != "dead"), "{}: {liveness}", node.name);
        assert!(called_dead(node).is_subset(&BTreeSet::from([id.clone()])), "{}: nobody else died", node.name);
    }
    Ok(())
}

/// So many of so many are killed at once: they leave all seeds, and nobody else is called dead.
async fn kill_some(peers: usize, killed: usize) -> TestResult {
    let mut net = Net::with_seeds_and(3, QUICK).await?;
    let mut living = Vec::new();
    for number in 0..peers {
        living.push(net.peer(&format!("p{number}"), QUICK)?);
    }
    for peer in &living {
        wait_registered(peer, 2).await?;
    }
    for peer in &mut living {
        peer.ask("wait peer 2").await?;
    }
    until_registrations(&mut net.seeds, 2 * peers as u64).await?;
    let mut dead = living.split_off(peers - killed);
    let mut ids = BTreeSet::new();
    for victim in &mut dead {
        ids.insert(victim.peer_id().await?);
        victim.kill().await?;
    }
    let began = Instant::now();
    until_registrations(&mut net.seeds, 2 * (peers - killed) as u64).await?;
    println!("{killed} of {peers} killed: gone from all seeds after {:.1} s", began.elapsed().as_secs_f64());
    for node in living.iter().chain(&net.seeds) {
        let called = called_dead(node);
        assert!(called.is_subset(&ids), "{}: somebody else was called dead: {called:?}", node.name);
    }
    // Everybody who lives still says so, and is still listed.
    for peer in &mut living {
        let status = peer.ask("status").await?;
        assert_eq!(status["seeds_registered"], 2, "{}", peer.name);
    }
    Ok(())
}

#[tokio::test]
async fn of_many_the_killed_leave_all_seeds_and_nobody_else_does() -> TestResult {
    // `scripts/soak` asks for more: `30,5`.
    let asked = std::env::var("ALTHING_TEST_DEATHS").unwrap_or_default();
    let asked = asked.split_once(',').and_then(|(peers, killed)| Some((peers.parse().ok()?, killed.parse().ok()?)));
    let (peers, killed) = asked.unwrap_or((8, 2));
    kill_some(peers, killed).await
}
