//! LAN discovery. mDNS never works on loopback, so two network namespaces with a veth pair between them play the LAN.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{NODE, TestResult, text};

/// Two namespaces joined by a cable; removed when dropped.
pub(crate) struct Lan {
    names: [String; 2],
    /// The end of the cable in the first one.
    device: String,
}

impl Lan {
    /// `None` where this user may not make namespaces.
    pub(crate) fn new() -> Option<Self> {
        let id = std::process::id();
        let (veth_a, veth_b) = (format!("va{id}"), format!("vb{id}"));
        let names = [format!("althing-a-{id}"), format!("althing-b-{id}")];
        let lan = Self { names, device: veth_a.clone() };
        let [a, b] = &lan.names;
        let done = ip(&["netns", "add", a])
            && ip(&["netns", "add", b])
            && ip(&["link", "add", &veth_a, "netns", a, "type", "veth", "peer", "name", &veth_b, "netns", b])
            && [(a, &veth_a, "10.77.0.1/24"), (b, &veth_b, "10.77.0.2/24")].iter().all(|(ns, device, address)| {
                ip(&["-n", ns, "addr", "add", address, "dev", device])
                    && ip(&["-n", ns, "link", "set", device, "up"])
                    && ip(&["-n", ns, "link", "set", "lo", "up"])
                    && ip(&["-n", ns, "route", "add", "224.0.0.0/4", "dev", device])
            });
        done.then_some(lan)
    }

    /// The address of that side, 0 or 1.
    pub(crate) fn ip(&self, side: usize) -> &'static str {
        ["10.77.0.1", "10.77.0.2"][side]
    }

    /// What a node on that side listens on.
    pub(crate) fn listen(&self, side: usize) -> String {
        format!("/ip4/{}/tcp/0", self.ip(side))
    }

    /// A program that is the node, inside the namespace of that side; it is written into this folder.
    pub(crate) fn node(&self, side: usize, folder: &Path) -> std::io::Result<PathBuf> {
        let program = folder.join(format!("node-{}", self.names[side]));
        if !program.exists() {
            std::fs::write(&program, format!("#!/bin/sh\nexec ip netns exec {} {NODE} \"$@\"\n", self.names[side]))?;
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
        }
        Ok(program)
    }

    /// Cut the cable: nothing passes any more, and nobody is told.
    pub(crate) fn cut(&self) -> bool {
        ip(&["-n", &self.names[0], "link", "set", &self.device, "down"])
    }

    /// Join it again.
    pub(crate) fn join(&self) -> bool {
        ip(&["-n", &self.names[0], "link", "set", &self.device, "up"])
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for name in &self.names {
            ip(&["netns", "del", name]);
        }
    }
}

fn ip(args: &[&str]) -> bool {
    Command::new("ip").args(args).output().is_ok_and(|output| output.status.success())
}

/// A node inside a namespace, with its prompt on pipes.
fn node(namespace: &str, folder: &Path, name: &str, commands: &[&str]) -> std::io::Result<std::process::Child> {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, NODE, "--json", "--name", name, "--data-dir"]).arg(folder.join(name));
    for line in commands {
        command.args(["-e", line]);
    }
    command
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
}

#[test]
fn two_nodes_on_a_lan_find_each_other_without_any_seed() -> TestResult {
    let Some(lan) = Lan::new() else {
        eprintln!("skipped 1: no network namespace can be made here");
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    let [a, b] = &lan.names;
    let bob = node(b, folder.path(), "bob", &["wait message hello --timeout 40"])?;
    let ada = node(
        a,
        folder.path(),
        "ada",
        &["wait peer bob --timeout 40", "msg bob hello over the LAN", "wait delivered --timeout 20"],
    )?;
    let (ada, bob) = (ada.wait_with_output()?, bob.wait_with_output()?);
    let lines = String::from_utf8_lossy(&ada.stdout).into_owned();
    assert_eq!(ada.status.code(), Some(0), "{lines}");
    assert_eq!(bob.status.code(), Some(0), "{}", String::from_utf8_lossy(&bob.stdout));
    let up = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find(|event| event["type"] == "peer_up");
    let via = up.as_ref().map(|event| text(event, "via").to_owned());
    assert!(matches!(via.as_deref(), Some("mdns" | "inbound")), "{via:?}");
    Ok(())
}
