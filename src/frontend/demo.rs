//! `node demo`: three seeds and five peers on this machine, narrated.
//!
//! Real processes of this very program on loopback, in a temporary folder that is removed at the end. Each step says
//! what is about to be seen and what was seen; the first step that fails ends the demo with its name and status 1. On a
//! terminal one more peer, whose prompt is yours, joins the network afterwards.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use futures::future::select_all;
use serde_json::Value;

use super::child::{Child, ChildError, PATIENCE};

const PEERS: [&str; 5] = ["ada", "bob", "cleo", "dan", "eve"];

/// So often somebody speaks to everybody, until one listener has it from another one than the speaker.
const SPEECHES: usize = 3;

/// Run the demo. The status is that of the process. `color` and the terminal rules are the caller's.
pub async fn run() -> u8 {
    let binary = match std::env::current_exe() {
        Ok(binary) => binary,
        Err(error) => {
            eprintln!("node: the demo cannot find its own program: {error}");
            return 1;
        }
    };
    let folder = std::env::temp_dir().join(format!("althing-demo-{}", std::process::id()));
    let mut demo = Demo {
        binary,
        folder: folder.clone(),
        seeds: Vec::new(),
        addresses: Vec::new(),
        peers: Vec::new(),
        names: BTreeMap::new(),
        step: 0,
        at: String::new(),
    };
    let interrupted = tokio::signal::ctrl_c();
    let status = tokio::select! {
        result = demo.play() => match result {
            Ok(()) => demo.stay().await,
            Err(error) => {
                println!("\nThe demo failed at step {}, \"{}\": {error}", demo.step, demo.at);
                1
            }
        },
        _ = interrupted => 130,
    };
    demo.end().await;
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        eprintln!("node: {} could not be removed: {error}", folder.display());
    }
    status
}

struct Demo {
    binary: PathBuf,
    folder: PathBuf,
    seeds: Vec<Child>,
    addresses: Vec<String>,
    peers: Vec<Child>,
    /// What everybody is called, by PeerId.
    names: BTreeMap<String, String>,
    step: u32,
    at: String,
}

impl Demo {
    async fn play(&mut self) -> Result<(), ChildError> {
        let began = Instant::now();
        println!(
            "Althing demo: eight real nodes on this machine, over TCP on loopback, encrypted. No server, no internet."
        );
        self.start_seeds().await?;
        self.start_peers().await?;
        self.discover().await?;
        self.everybody().await?;
        self.talk().await?;
        self.absent().await?;
        self.file().await?;
        self.goodbye().await?;
        self.killed().await?;
        println!("\nThat was it: {:.0} s. Your own network is two commands away:", began.elapsed().as_secs_f64());
        println!("  on one machine:      node --role seed --port 4001");
        println!("  on all the others:   node --seed /ip4/<its address>/tcp/4001 --name <you>");
        Ok(())
    }

    fn say(&mut self, what: &str) {
        self.step += 1;
        self.at = what.to_owned();
        println!("\n{}. {what}", self.step);
    }

    async fn start_seeds(&mut self) -> Result<(), ChildError> {
        self.say("Three seeds start: meeting points that keep the list of who is there");
        for name in ["seed1", "seed2", "seed3"] {
            let seed = Child::spawn(&self.binary, name, &self.folder.join(name), ["--role", "seed"])?;
            let address = seed.address().await?;
            println!("   {name} listens on {}", without_id(&address));
            self.names.insert(seed.peer_id().await?, name.to_owned());
            self.addresses.push(address);
            self.seeds.push(seed);
        }
        Ok(())
    }

    async fn start_peers(&mut self) -> Result<(), ChildError> {
        self.say("Five people start a node each; every node registers with two of the three seeds, picked at random");
        for name in PEERS {
            let peer = self.spawn_peer(name, &["--fanout", "1"])?;
            self.peers.push(peer);
        }
        for peer in &self.peers {
            self.names.insert(peer.peer_id().await?, peer.name.clone());
            let mut seeds = Vec::new();
            while seeds.len() < 2 {
                let fresh = |event: &Value| {
                    event["state"] == "registered"
                        && !seeds.contains(&event["address"].as_str().unwrap_or_default().to_owned())
                };
                let event = peer.wait("seed", fresh).await?;
                seeds.push(event["address"].as_str().unwrap_or_default().to_owned());
            }
            let names: Vec<String> = seeds.iter().map(|seed| self.seed_name(seed)).collect();
            println!("   {:<5} is registered with {}", peer.name, names.join(" and "));
        }
        Ok(())
    }

    async fn discover(&mut self) -> Result<(), ChildError> {
        self.say("They find each other through the seeds; each links up with one other, picked at random");
        for peer in &self.peers {
            let up = peer.wait("peer_up", |event| PEERS.contains(&event["name"].as_str().unwrap_or_default())).await?;
            println!("   {:<5} sees {} ({})", peer.name, text(&up, "name"), text(&up, "via"));
        }
        Ok(())
    }

    async fn everybody(&mut self) -> Result<(), ChildError> {
        self.say("One speaks to everybody; who has no link to the speaker hears it through somebody else");
        for attempt in 0..SPEECHES {
            let Some((speaker, strangers)) = self.strangers(attempt).await? else { break };
            let from = PEERS[speaker];
            let line = "Water at 18:00, tell your neighbours";
            let began = Instant::now();
            let id = self.peers[speaker].ask(&format!("broadcast {line}")).await?["id"].clone();
            println!("   {from} to everybody: {line}");
            let mut relayed = false;
            for (place, peer) in self.peers.iter().enumerate().filter(|(place, _)| *place != speaker) {
                let heard = peer.wait("message", |event| event["id"] == id).await?;
                if text(&heard, "text") != line {
                    return Err(ChildError(format!("{} read something else than was said", peer.name)));
                }
                let (name, via) = (&peer.name, self.name_of(&heard["via"]));
                match (strangers.contains(&place), via == from) {
                    (true, false) => {
                        relayed = true;
                        println!("   {name:<5} has no link to {from}: {from}'s words reached {name} through {via}");
                    }
                    (true, true) => println!("   {name:<5} had no link to {from} a moment before; now it heard {from}"),
                    (false, true) => println!("   {name:<5} heard {from}"),
                    (false, false) => println!("   {name:<5} has a link to {from}, but {via} was faster"),
                }
            }
            println!("   {:.0} ms for all of it", began.elapsed().as_secs_f64() * 1_000.0);
            if relayed {
                return Ok(());
            }
        }
        println!("   This time everybody had a link to everybody, so that nobody needed a neighbour for it.");
        Ok(())
    }

    /// Somebody to speak, with the places of those who have no link to it as far as both know; the one with the most such
    /// strangers first, the next one at each turn. `None` when everybody has a link to everybody.
    async fn strangers(&mut self, turn: usize) -> Result<Option<(usize, Vec<usize>)>, ChildError> {
        let mut linked = Vec::new();
        for peer in &mut self.peers {
            let rows = peer.ask("peers").await?;
            let up = rows.as_array().into_iter().flatten().filter(|row| row["state"] == "up");
            linked.push(up.map(|row| text(row, "name").to_owned()).collect::<Vec<_>>());
        }
        let knows = |one: usize, other: usize| linked[one].iter().any(|name| name == PEERS[other]);
        let mut found: Vec<(usize, Vec<usize>)> = Vec::new();
        for one in 0..PEERS.len() {
            let strangers = (0..PEERS.len()).filter(|&other| other != one && !knows(one, other) && !knows(other, one));
            let strangers: Vec<usize> = strangers.collect();
            if !strangers.is_empty() {
                found.push((one, strangers));
            }
        }
        found.sort_by_key(|(_, strangers)| std::cmp::Reverse(strangers.len()));
        let turn = turn % found.len().max(1);
        Ok(found.into_iter().nth(turn))
    }

    async fn talk(&mut self) -> Result<(), ChildError> {
        self.say("Direct messages; the receipt means that the text is on the receiver's disk");
        for (from, to, line) in [
            (0, 1, "Bob, is the water pump running?"),
            (1, 0, "It is. Pressure 2.1 bar, don't touch the \"red\" one."),
            (2, 3, "żółć, 漢字, 🜁: any text arrives as it was written"),
        ] {
            let began = Instant::now();
            let id = self.peers[from].deliver(PEERS[to], line).await?;
            let heard = self.peers[to].wait("message", |event| event["id"] == id.as_str()).await?;
            if text(&heard, "text") != line {
                return Err(ChildError(format!("{} read something else than was written", PEERS[to])));
            }
            println!("   {} -> {}: {line}", PEERS[from], PEERS[to]);
            println!("   {:>5} receipt after {:.0} ms", "", began.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(())
    }

    async fn absent(&mut self) -> Result<(), ChildError> {
        self.say("Dan's machine goes down hard; what the others say meanwhile is there for him when he is back");
        self.peers[3].kill().await?;
        let mark = self.peers[0].mark();
        let id = self.peers[0].ask("msg dan \"Dan, call me when you are back\"").await?["id"].clone();
        self.peers[0]
            .wait_since(mark, PATIENCE, "delivery", |event| event["id"] == id && event["state"] == "queued")
            .await?;
        println!("   ada -> dan: queued, Dan is away");
        let mut said = Vec::new();
        for (speaker, line) in [(1, "the pump stands still"), (2, "I have a spare part"), (1, "it runs again")] {
            said.push(self.peers[speaker].ask(&format!("broadcast {line}")).await?["id"].clone());
            println!("   {} to everybody: {line}", PEERS[speaker]);
        }
        let began = Instant::now();
        // Ada's look-up finds his new address within some fifteen seconds, which is longer than anybody wants to watch.
        // Her address is given to him, and he dials her.
        let ada = self.peers[0].address().await?;
        let back = self.spawn_peer("dan", &["--peer", &ada])?;
        self.peers[3] = back;
        let heard = self.peers[3].wait("message", |event| event["id"] == id).await?;
        println!("   dan is back, with the same identity, and reads: {}", text(&heard, "text"));
        self.peers[0]
            .wait_since(mark, PATIENCE, "delivery", |event| event["id"] == id && event["state"] == "delivered")
            .await?;
        println!("   ada has the receipt");
        for id in &said {
            let heard = self.peers[3].wait("message", |event| event["id"] == *id).await?;
            let via = if heard["via"] == heard["from"] { String::new() } else { self.name_of(&heard["via"]) };
            let via = if via.is_empty() { via } else { format!(" (through {via})") };
            println!("   dan catches up: {} said \"{}\"{via}", self.name_of(&heard["from"]), text(&heard, "text"));
        }
        let (adas, dans) = (said_to_all(&mut self.peers[0]).await?, said_to_all(&mut self.peers[3]).await?);
        if adas != dans {
            return Err(ChildError(format!("ada's history has {adas:?}, dan's has {dans:?}")));
        }
        println!(
            "   {:.1} s after his start dan's history has the same {} broadcasts as ada's, in each author's order",
            began.elapsed().as_secs_f64(),
            adas.values().map(Vec::len).sum::<usize>()
        );
        Ok(())
    }

    async fn file(&mut self) -> Result<(), ChildError> {
        const MIB: u64 = 1 << 20;
        self.say("Ada sends Bob a file; his process is killed in the middle, and it goes on where it was");
        let failed = |what: &str, error: std::io::Error| ChildError(format!("{what}: {error}"));
        // Not the same bytes over and over, so that a piece in the wrong place would be seen.
        let contents: Vec<u8> = (0..12 * MIB).map(|at| (at.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect();
        let source = self.folder.join("map.bin");
        std::fs::write(&source, &contents).map_err(|error| failed("the file cannot be written", error))?;
        self.peers[1].ask("trust ada").await?;
        println!("   bob trusts ada, so what she sends is taken without a question");
        // Slow enough to be watched, and to be hit in the middle.
        self.peers[0].ask("config set upload-limit 6M").await?;
        let sent = self.peers[0].ask(&format!("send {} bob", quoted(&source.display().to_string()))).await?;
        let id = text(&sent, "id").to_owned();
        let of_it = |event: &Value| event["id"] == id.as_str();
        let far = |event: &Value| of_it(event) && event["bytes"].as_u64() >= Some(4 * MIB);
        let before = self.peers[1].wait("transfer", far).await?["bytes"].as_u64().unwrap_or_default();
        self.peers[1].kill().await?;
        println!("   ada -> bob: map.bin, {} of {} MiB verified, then kill -9", before / MIB, 12);
        let ada = self.peers[0].address().await?;
        self.peers[1] = self.spawn_peer("bob", &["--peer", &ada])?;
        let active = |event: &Value| of_it(event) && event["state"] == "active";
        let after = self.peers[1].wait("transfer", active).await?["bytes"].as_u64().unwrap_or_default();
        if after < before {
            return Err(ChildError(format!("bob had {before} bytes and went on at {after}")));
        }
        println!("   bob is back and goes on at {} MiB, by himself", after / MIB);
        let whole = |event: &Value| of_it(event) && event["state"] == "completed";
        let there = self.peers[1].wait("transfer", whole).await?;
        let arrived =
            std::fs::read(text(&there, "path")).map_err(|error| failed("what arrived cannot be read", error))?;
        if arrived != contents {
            return Err(ChildError("what arrived is not what was sent".to_owned()));
        }
        println!("   bob has all of it, byte for byte; BLAKE3 {}", text(&there, "hash"));
        self.peers[0].wait("transfer", whole).await?;
        self.peers[0].ask("config set upload-limit none").await?;
        Ok(())
    }

    async fn goodbye(&mut self) -> Result<(), ChildError> {
        self.say("Eve says goodbye; those linked with her see that she left");
        let witness = self.link("ada", "eve").await?;
        self.peers[4].quit().await?;
        self.peers[witness].wait("peer_left", |event| event["name"] == "eve").await?;
        println!("   ada sees: eve left");
        Ok(())
    }

    async fn killed(&mut self) -> Result<(), ChildError> {
        self.say("Cleo's process is killed; her links are lost, which is no goodbye, and nobody calls it a death");
        let witness = self.link("ada", "cleo").await?;
        let mark = self.peers[witness].mark();
        self.peers[2].kill().await?;
        self.peers[witness].wait_since(mark, PATIENCE, "peer_lost", |event| event["name"] == "cleo").await?;
        println!("   ada sees: the link to cleo is lost");
        let info = self.peers[0].ask("whois cleo").await?;
        println!("   ada's list says: cleo is {}", text(&info, "state"));
        Ok(())
    }

    /// Make sure that the first has a link to the second; the first one's place.
    async fn link(&mut self, from: &str, to: &str) -> Result<usize, ChildError> {
        let place = PEERS.iter().position(|name| *name == from).unwrap_or_default();
        self.peers[place].ask(&format!("connect {to}")).await?;
        Ok(place)
    }

    /// On a terminal: one more peer, whose prompt is the user's, while the others answer what they are told.
    async fn stay(&mut self) -> u8 {
        if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
            return 0;
        }
        println!(
            "\nThe network stays up. You are one more peer in it, \"guest\": try `peers`, `msg ada hello`, `broadcast hello`, `help`; `quit` ends it.\n"
        );
        let guest = self.folder.join("guest");
        let mut command = tokio::process::Command::new(&self.binary);
        command
            .args(["--name", "guest", "--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir"])
            .arg(&guest);
        for address in &self.addresses {
            command.args(["--seed", address]);
        }
        for variable in super::child::foreign_settings() {
            command.env_remove(variable);
        }
        let mut marks: Vec<usize> = self.peers.iter().map(Child::mark).collect();
        let spawned = command.kill_on_drop(true).spawn();
        let mut guest = match spawned {
            Ok(guest) => guest,
            Err(error) => {
                eprintln!("node: your own peer cannot be started: {error}");
                return 1;
            }
        };
        loop {
            let news = self.peers.iter().zip(&marks).map(|(peer, mark)| Box::pin(peer.more_than(*mark)));
            tokio::select! {
                status = guest.wait() => return if status.is_ok_and(|status| status.success()) { 0 } else { 1 },
                _ = select_all(news) => {}
            }
            self.answer(&mut marks).await;
        }
    }

    async fn answer(&mut self, marks: &mut [usize]) {
        let names = &self.names;
        for (peer, mark) in self.peers.iter_mut().zip(marks) {
            let news = peer.events_since(*mark);
            *mark += news.len();
            for event in news.iter().filter(|event| event["type"] == "message" && event["name"] == "guest") {
                let words = text(event, "text").chars().count();
                let via = names.get(text(event, "via")).filter(|_| event["kind"] == "broadcast");
                let via = via.map(|via| format!(", which came through {via}")).unwrap_or_default();
                let reply = format!("Hello guest, {} here. I have your {words} characters on disk{via}.", peer.name);
                // A peer that the user has just made unreachable cannot answer; that is part of the play.
                let _ = peer.tell(&format!("msg {} {}", text(event, "from"), Value::from(reply))).await;
            }
        }
    }

    async fn end(&mut self) {
        for child in self.peers.iter_mut().chain(&mut self.seeds) {
            // The dead ones of the play are dead already.
            let _ = child.kill().await;
        }
    }

    fn spawn_peer(&self, name: &str, more: &[&str]) -> Result<Child, ChildError> {
        let seeds = self.addresses.iter().flat_map(|address| ["--seed", address.as_str()]);
        Child::spawn(&self.binary, name, &self.folder.join(name), seeds.chain(more.iter().copied()))
    }

    /// What the node of that PeerId is called.
    fn name_of(&self, peer: &Value) -> String {
        let peer = peer.as_str().unwrap_or_default();
        self.names.get(peer).cloned().unwrap_or_else(|| peer.to_owned())
    }

    fn seed_name(&self, address: &str) -> String {
        self.addresses
            .iter()
            .position(|known| known == address)
            .map_or_else(|| address.to_owned(), |at| format!("seed{}", at + 1))
    }
}

/// The broadcasts in somebody's history, in order, for each author.
async fn said_to_all(peer: &mut Child) -> Result<BTreeMap<String, Vec<String>>, ChildError> {
    let rows = peer.ask("history all -n 1000").await?;
    let mut said: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for row in rows.as_array().into_iter().flatten().filter(|row| row["kind"] == "broadcast") {
        said.entry(text(row, "from").to_owned()).or_default().push(text(row, "id").to_owned());
    }
    Ok(said)
}

fn text<'a>(event: &'a Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', r"'\''"))
}

fn without_id(address: &str) -> &str {
    address.split("/p2p/").next().unwrap_or(address)
}
