//! Lines that drop packets. Each node has a network namespace of its own; all are joined by a router in a further one, whose
//! rules drop what goes from one to another, in one direction or in both, without a word to anybody.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use althing::frontend::child::{Child, ChildError};

use super::{LONG, QUICK, called_dead, rows, until_up};
use crate::harness::{NODE, TestResult, text, wait_registered};

/// So many namespaces around a router; removed when dropped.
struct Hub {
    id: u32,
    nodes: usize,
    folder: tempfile::TempDir,
}

impl Hub {
    /// `None` where this user may not make namespaces or let them forward packets.
    fn new(nodes: usize) -> Option<Self> {
        let hub = Self { id: std::process::id(), nodes, folder: tempfile::tempdir().ok()? };
        let router = hub.router();
        let forward = ["netns", "exec", &router, "sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"];
        let mut done = ip(&["netns", "add", &router]) && ip(&forward);
        for node in 0..nodes {
            let (name, near, far) = (hub.name(node), format!("n{}-{node}", hub.id), format!("r{}-{node}", hub.id));
            let (own, gateway) = (hub.ip(node), format!("10.78.{node}.1"));
            done = done
                && ip(&["netns", "add", &name])
                && ip(&["link", "add", &near, "netns", &name, "type", "veth", "peer", "name", &far, "netns", &router])
                && ip(&["-n", &name, "addr", "add", &format!("{own}/24"), "dev", &near])
                && ip(&["-n", &router, "addr", "add", &format!("{gateway}/24"), "dev", &far])
                && ip(&["-n", &name, "link", "set", &near, "up"])
                && ip(&["-n", &name, "link", "set", "lo", "up"])
                && ip(&["-n", &router, "link", "set", &far, "up"])
                && ip(&["-n", &name, "route", "add", "default", "via", &gateway]);
        }
        done.then_some(hub)
    }

    fn router(&self) -> String {
        format!("althing-r-{}", self.id)
    }

    fn name(&self, node: usize) -> String {
        format!("althing-{node}-{}", self.id)
    }

    fn ip(&self, node: usize) -> String {
        format!("10.78.{node}.2")
    }

    /// Start a node in its namespace, and its address there.
    async fn spawn(&self, node: usize, name: &str, args: &[&str]) -> Result<(Child, String), ChildError> {
        let failed = |error: std::io::Error| ChildError(format!("{name}: {error}"));
        let program: PathBuf = self.folder.path().join(format!("{name}.sh"));
        let script = format!("#!/bin/sh\nexec ip netns exec {} '{NODE}' \"$@\"\n", self.name(node));
        std::fs::write(&program, script).map_err(failed)?;
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
        std::fs::set_permissions(&program, mode).map_err(failed)?;
        let listen = format!("/ip4/{}/tcp/4001", self.ip(node));
        let args = [&["--listen", &listen], args].concat();
        let child = Child::spawn(&program, name, &self.folder.path().join(name), args)?;
        let listening = child.wait("listening", |event| text(event, "address").starts_with(&listen)).await?;
        Ok((child, text(&listening, "address").to_owned()))
    }

    /// Let the packets from one to another be dropped.
    fn cut(&self, from: usize, to: usize) -> TestResult {
        self.rule("add", from, to)
    }

    fn heal(&self, from: usize, to: usize) -> TestResult {
        self.rule("del", from, to)
    }

    fn rule(&self, verb: &str, from: usize, to: usize) -> TestResult {
        let (from, to) = (self.ip(from), self.ip(to));
        let done = ip(&["-n", &self.router(), "rule", verb, "from", &from, "to", &to, "blackhole"]);
        if done { Ok(()) } else { Err(format!("the rule from {from} to {to} cannot be set ({verb})").into()) }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        for node in 0..self.nodes {
            ip(&["netns", "del", &self.name(node)]);
        }
        ip(&["netns", "del", &self.router()]);
    }
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

/// A router, and who lives around it; `None` where there can be none.
fn hub(nodes: usize) -> Option<Hub> {
    let hub = Hub::new(nodes);
    if hub.is_none() {
        eprintln!("skipped 1: no network namespaces with a router between them can be made here");
    }
    hub
}

#[tokio::test]
async fn a_line_that_loses_one_way_makes_nobody_dead() -> TestResult {
    let Some(hub) = hub(5) else { return Ok(()) };
    let (seed, at_seed) = hub.spawn(0, "seed", &[QUICK, &["--role", "seed"]].concat()).await?;
    let args = [QUICK, &["--seed", &at_seed]].concat();
    let mut peers = Vec::new();
    for (node, name) in [(1, "ada"), (2, "bob"), (3, "cleo"), (4, "dan")] {
        peers.push(hub.spawn(node, name, &args).await?.0);
    }
    super::all_met(&peers).await?;
    let mut dan = peers.pop().ok_or("no dan")?;
    let dans = dan.peer_id().await?;
    hub.cut(1, 2)?;
    // Dan dies at the same moment; when he is dead, whoever Ada cannot hear would be as well.
    dan.kill().await?;
    for node in peers.iter().chain([&seed]) {
        node.wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == dans).await?;
    }
    let cleo = peers[2].peer_id().await?;
    for peer in &peers[..2] {
        for _ in 0..3 {
            let mark = peer.mark();
            peer.wait_since(mark, LONG, "probe", |event| text(event, "peer") == cleo).await?;
        }
    }
    // The line is really cut: the link goes, and stays gone.
    let (ada, bob) = (peers[0].peer_id().await?, peers[1].peer_id().await?);
    peers[0].wait_since(0, LONG, "peer_lost", |event| text(event, "peer") == bob).await?;
    for node in peers.iter().chain([&seed]) {
        let called = called_dead(node);
        assert!(called.iter().all(|dead| *dead == dans), "{}: {called:?}", node.name);
    }
    hub.heal(1, 2)?;
    until_up(&mut peers[0], &bob).await?;
    until_up(&mut peers[1], &ada).await?;
    Ok(())
}

#[tokio::test]
async fn half_open_links_are_seen_and_after_a_partition_no_mark_remains() -> TestResult {
    let Some(hub) = hub(6) else { return Ok(()) };
    let (seed0, at_seed0) = hub.spawn(0, "seed0", &[QUICK, &["--role", "seed"]].concat()).await?;
    let (seed1, at_seed1) = hub.spawn(1, "seed1", &[QUICK, &["--role", "seed", "--seed", &at_seed0]].concat()).await?;
    let args = [QUICK, &["--seed", &at_seed0, "--seed", &at_seed1]].concat();
    let mut peers = Vec::new();
    for (node, name) in [(2, "ada"), (3, "bob"), (4, "cleo"), (5, "dan")] {
        peers.push(hub.spawn(node, name, &args).await?.0);
    }
    super::all_met(&peers).await?;
    for peer in &peers {
        wait_registered(peer, 2).await?;
    }
    let mut ids = Vec::new();
    for peer in &peers {
        ids.push(peer.peer_id().await?);
    }
    // Seed 0, Ada and Bob here; seed 1, Cleo and Dan there.
    let lines = || [0, 2, 3].into_iter().flat_map(|near| [1, 4, 5].map(|far| (near, far)));
    for (near, far) in lines() {
        hub.cut(near, far)?;
        hub.cut(far, near)?;
    }
    let began = Instant::now();
    let waiting = peers[0].ask("msg cleo across the gap").await?;
    for (peer, gone) in [(0, 2), (1, 3), (2, 0), (3, 1)] {
        let peer = &peers[peer];
        peer.wait_since(0, LONG, "peer_lost", |event| text(event, "peer") == ids[gone]).await?;
        peer.wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == ids[gone]).await?;
    }
    let seen = began.elapsed();
    // The link goes after the verdict, which stands all the same.
    assert_eq!(super::state(&mut peers[0], &ids[2]).await?, "dead");
    println!("half-open links were seen after {:.1} s", seen.as_secs_f64());
    // 19 s at the most by the timers, and a busy machine on top.
    assert!(seen < Duration::from_secs(25), "{seen:?}");
    // On each side everybody goes on with who is there.
    peers[0].deliver("bob", "we are two").await?;
    peers[2].deliver("dan", "so are we").await?;
    for (near, far) in [(0, 1), (1, 0), (2, 3), (3, 2)] {
        assert!(!called_dead(&peers[near]).contains(&ids[far]), "{} has no reason to", peers[near].name);
    }
    for (near, far) in lines() {
        hub.heal(near, far)?;
        hub.heal(far, near)?;
    }
    let healed = Instant::now();
    for (number, peer) in peers.iter_mut().enumerate() {
        for other in ids.iter().enumerate().filter(|(other, _)| *other != number).map(|(_, id)| id) {
            until_up(peer, other).await?;
        }
    }
    let id = text(&waiting, "id").to_owned();
    let delivered = |event: &serde_json::Value| text(event, "id") == id && event["state"] == "delivered";
    peers[0].wait_since(0, LONG, "delivery", delivered).await?;
    peers.extend([seed0, seed1]);
    for node in &mut peers {
        let dead = |list: &serde_json::Value| rows(list).filter(|row| row["state"] == "dead").count();
        super::until("no dead mark", node, "liveness", dead, |dead| *dead == 0).await?;
        super::until("no dead mark", node, "peers", dead, |dead| *dead == 0).await?;
    }
    println!("no mark was left {:.1} s after the heal", healed.elapsed().as_secs_f64());
    Ok(())
}
