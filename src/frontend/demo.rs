//! `node demo`: three seeds and five peers on this machine, narrated.
//!
//! Real processes of this very program on loopback, in a temporary folder that is removed at the end. Each step says
//! what is about to be seen and what was seen; the first step that fails ends the demo with its name and status 1. On a
//! terminal one more peer, whose prompt is yours, joins the network afterwards.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::child::{Child, ChildError};

const PEERS: [&str; 5] = ["ada", "bob", "cleo", "dan", "eve"];

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
        self.talk().await?;
        self.absent().await?;
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
            self.addresses.push(address);
            self.seeds.push(seed);
        }
        Ok(())
    }

    async fn start_peers(&mut self) -> Result<(), ChildError> {
        self.say("Five people start a node each; every node registers with two of the three seeds, picked at random");
        for name in PEERS {
            let peer = self.spawn_peer(name)?;
            self.peers.push(peer);
        }
        for peer in &self.peers {
            let mut seeds = Vec::new();
            while seeds.len() < 2 {
                let fresh = |event: &serde_json::Value| {
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
        self.say("They find each other through the seeds and link up, peer to peer");
        for peer in &self.peers {
            let up = peer.wait("peer_up", |event| PEERS.contains(&event["name"].as_str().unwrap_or_default())).await?;
            println!("   {:<5} sees {} ({})", peer.name, text(&up, "name"), text(&up, "via"));
        }
        Ok(())
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
        self.say("Dan's machine goes down hard; a message to him waits on Ada's disk and arrives when he is back");
        self.peers[3].kill().await?;
        let mark = self.peers[0].mark();
        let id = self.peers[0].ask("msg dan \"Dan, call me when you are back\"").await?["id"].clone();
        self.peers[0]
            .wait_since(mark, super::child::PATIENCE, "delivery", |event| {
                event["id"] == id && event["state"] == "queued"
            })
            .await?;
        println!("   ada -> dan: queued, Dan is away");
        let back = self.spawn_peer("dan")?;
        self.peers[3] = back;
        let heard = self.peers[3].wait("message", |event| event["id"] == id).await?;
        println!("   dan is back, with the same identity, and reads: {}", text(&heard, "text"));
        self.peers[0]
            .wait_since(mark, super::child::PATIENCE, "delivery", |event| {
                event["id"] == id && event["state"] == "delivered"
            })
            .await?;
        println!("   ada has the receipt");
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
        self.peers[witness]
            .wait_since(mark, super::child::PATIENCE, "peer_lost", |event| event["name"] == "cleo")
            .await?;
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
            "\nThe network stays up. You are one more peer in it, \"guest\": try `peers`, `msg ada hello`, `help`; `quit` ends it.\n"
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
        let mut tick = tokio::time::interval(Duration::from_millis(300));
        loop {
            tokio::select! {
                status = guest.wait() => return if status.is_ok_and(|status| status.success()) { 0 } else { 1 },
                _ = tick.tick() => self.answer(&mut marks).await,
            }
        }
    }

    async fn answer(&mut self, marks: &mut [usize]) {
        for (peer, mark) in self.peers.iter_mut().zip(marks) {
            let news = peer.events_since(*mark);
            *mark += news.len();
            for event in news.iter().filter(|event| event["type"] == "message" && event["name"] == "guest") {
                let words = text(event, "text").chars().count();
                let reply = format!("Hello guest, {} here. I have your {words} characters on disk.", peer.name);
                // A peer that the user has just made unreachable cannot answer; that is part of the play.
                let _ = peer.tell(&format!("msg {} {}", text(event, "from"), serde_json::Value::from(reply))).await;
            }
        }
    }

    async fn end(&mut self) {
        for child in self.peers.iter_mut().chain(&mut self.seeds) {
            // The dead ones of the play are dead already.
            let _ = child.kill().await;
        }
    }

    fn spawn_peer(&self, name: &str) -> Result<Child, ChildError> {
        let seeds = self.addresses.iter().flat_map(|address| ["--seed", address.as_str()]);
        Child::spawn(&self.binary, name, &self.folder.join(name), seeds)
    }

    fn seed_name(&self, address: &str) -> String {
        self.addresses
            .iter()
            .position(|known| known == address)
            .map_or_else(|| address.to_owned(), |at| format!("seed{}", at + 1))
    }
}

fn text<'a>(event: &'a serde_json::Value, field: &str) -> &'a str {
    event[field].as_str().unwrap_or_default()
}

fn without_id(address: &str) -> &str {
    address.split("/p2p/").next().unwrap_or(address)
}
