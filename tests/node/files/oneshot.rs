//! `node send` and `node recv`: through the running node or an own one, with every exit status.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Output, Stdio};

use althing::frontend::child::ChildError;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, BufReader};

use super::{Pair, fill, net, noise, reaches, tree, verified};
use crate::harness::{NODE, Net, TestResult, run, run_with_input, text};

fn folder(net: &Net, name: &str) -> String {
    net.dir(name).display().to_string()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn status(output: &Output) -> Option<i32> {
    output.status.code()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn send_through_the_running_node_ends_when_all_is_there() -> TestResult {
    let pair = Pair::new(&[]).await?;
    let data = folder(&pair.net, "ada");
    let path = fill(pair.sources().join("one.bin"), 1, 3 << 20)?;
    let output = run(&["--data-dir", &data, "send", &shown(&path), "--to", "bob"]).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(pair.downloads().join("one.bin"))? == noise(1, 3 << 20));
    let hash = blake3::hash(&noise(1, 3 << 20)).to_hex().to_string();
    assert!(said(&output).contains(&hash) && said(&output).contains("3.00 MiB"), "{}", said(&output));
    // As JSON: whole lines with rising numbers, the last of which says that it is there.
    let output = run(&["--data-dir", &data, "--json", "send", &shown(&path), "--to", "bob"]).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    let lines = String::from_utf8(output.stdout)?;
    let events = lines.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>()?;
    assert_eq!(
        events.iter().map(|event| event["n"].as_u64().unwrap_or_default()).collect::<Vec<_>>(),
        (1..=events.len() as u64).collect::<Vec<_>>()
    );
    assert_eq!((text(&events[0], "type"), text(&events[0], "command")), ("reply", "send"));
    let last = &events[events.len() - 1];
    assert_eq!((text(last, "type"), text(last, "state"), text(last, "file")), ("transfer", "completed", "one.bin"));
    assert!(events.iter().all(|event| event["type"] != "peer_up"), "{lines}");
    // Standard input, under a name of its own; and several paths, one of them relative.
    let piped = noise(9, 200_000);
    let output = run_with_input(&["--data-dir", &data, "send", "-", "--to", "bob"], &piped).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(pair.downloads().join("stdin"))? == piped);
    let mut relative = tokio::process::Command::new(NODE);
    relative.args(["--data-dir", &data, "send", "one.bin", "../sources/two.bin", "--to", "bob"]);
    fill(pair.sources().join("two.bin"), 2, 10)?;
    let output = relative.current_dir(pair.sources()).stdin(Stdio::null()).output().await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(pair.downloads().join("two.bin").exists());
    let mut ctl = tokio::process::Command::new(NODE);
    ctl.args(["--data-dir", &data, "--json", "ctl", "send", "two.bin", "bob"]);
    let output = ctl.current_dir(pair.sources()).stdin(Stdio::null()).output().await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    let reply: Value = serde_json::from_slice(&output.stdout)?;
    reaches(&pair.bob, 0, text(&reply["data"], "id"), "completed").await?;
    Ok(())
}

#[tokio::test]
async fn every_failure_of_send_has_its_own_exit_status() -> TestResult {
    let pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let mut cleo = pair.net.peer("cleo", &["--accept", "never"])?;
    cleo.ask("wait peer ada").await?;
    let data = folder(&pair.net, "ada");
    let path = shown(&fill(pair.sources().join("one.bin"), 1, 1_000)?);
    let send = async |to: &[&str]| -> Result<Output, ChildError> {
        run(&[&["--data-dir", data.as_str(), "send", path.as_str(), "--to"], to].concat()).await
    };
    // Nothing to send, nobody to send it to, nobody of that name; refused; and refused by one of two.
    for (to, expected) in [(&["nobody"][..], 3), (&["cleo"], 7), (&["bob", "cleo"], 9), (&["bob", "nobody"], 9)] {
        let output = send(to).await?;
        assert_eq!(status(&output), Some(expected), "{to:?}: {}", said(&output));
        assert!(String::from_utf8_lossy(&output.stderr).starts_with("node: "), "{to:?}: {}", said(&output));
    }
    assert!(["one.bin", "one (2).bin"].iter().all(|name| pair.downloads().join(name).exists()));
    for args in [&["send", "/no/such/file", "--to", "bob"][..], &["send", path.as_str()], &["send"]] {
        let output = run(&[&["--data-dir", data.as_str()], args].concat()).await?;
        assert_eq!(status(&output), Some(2), "{args:?}: {}", said(&output));
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1, "{}", said(&output));
    }
    // Changed on the way.
    let big = fill(pair.sources().join("big.bin"), 2, 12 << 20)?;
    let mut sending = tokio::process::Command::new(NODE);
    sending.args(["--data-dir", &data, "send", &shown(&big), "--to", "bob"]).stdin(Stdio::null());
    let running = sending.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let active =
        pair.bob.wait("transfer", |event| event["file"] == "big.bin" && event["bytes"].as_u64() > Some(0)).await?;
    std::fs::File::options().write(true).open(&big)?.write_all_at(b"changed", 11 << 20)?;
    let output = running.wait_with_output().await?;
    assert_eq!(status(&output), Some(6), "{} {}", active, said(&output));
    assert!(said(&output).contains("the source changed"), "{}", said(&output));
    Ok(())
}

#[tokio::test]
async fn whoever_is_away_is_named_and_nothing_is_sent_unless_it_may_wait() -> TestResult {
    let mut pair = Pair::new(&[]).await?;
    pair.bob.kill().await?;
    let data = folder(&pair.net, "ada");
    let path = shown(&fill(pair.sources().join("one.bin"), 1, 1_000)?);
    pair.ada.wait("peer_lost", |event| event["name"] == "bob").await?;
    let output = run(&["--data-dir", &data, "--max-retries", "1", "send", &path, "--to", "bob"]).await?;
    assert_eq!(status(&output), Some(3), "{}", said(&output));
    assert!(said(&output).contains("bob"), "{}", said(&output));
    assert_eq!(pair.ada.ask("transfers").await?.as_array().map(Vec::len), Some(0));
    let mut sending = tokio::process::Command::new(NODE);
    sending.args(["--data-dir", &data, "--allow-queued", "send", &path, "--to", "bob"]).stdin(Stdio::null());
    let running = sending.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    pair.ada.wait("transfer", |event| event["state"] == "offered").await?;
    pair.restart_bob().await?;
    let output = running.wait_with_output().await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(pair.downloads().join("one.bin"))? == noise(1, 1_000));
    Ok(())
}

#[tokio::test]
async fn ctrl_c_pauses_a_transfer_that_a_later_resume_ends() -> TestResult {
    let mut pair = Pair::new(&["--upload-limit", "4M"]).await?;
    let big = fill(pair.sources().join("big.bin"), 3, 12 << 20)?;
    let mut sending = tokio::process::Command::new(NODE);
    sending.args(["--data-dir", &folder(&pair.net, "ada"), "send", &shown(&big), "--to", "bob"]).stdin(Stdio::null());
    let running = sending.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).spawn()?;
    let begun = pair.bob.wait("transfer", |event| event["bytes"].as_u64() > Some(0)).await?;
    let id = text(&begun, "id").to_owned();
    let pid = running.id().unwrap_or_default().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status()?.success());
    let output = running.wait_with_output().await?;
    assert_eq!(status(&output), Some(130), "{}", said(&output));
    assert!(said(&output).contains(&format!("resume {id}")), "{}", said(&output));
    reaches(&pair.bob, 0, &id, "paused").await?;
    pair.ada.ask(&format!("resume {id}")).await?;
    reaches(&pair.bob, 0, &id, "completed").await?;
    assert!(std::fs::read(pair.downloads().join("big.bin"))? == noise(3, 12 << 20));
    Ok(())
}

/// `node recv` that is waiting, with the lines of its stderr to come and its address if its node is its own.
struct Receiving {
    process: tokio::process::Child,
    address: String,
}

async fn recv(args: &[&str]) -> Result<Receiving, Box<dyn std::error::Error>> {
    let mut command = tokio::process::Command::new(NODE);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut process = command.spawn()?;
    let mut lines = BufReader::new(process.stderr.take().ok_or("no stderr")?).lines();
    let mut address = String::new();
    let waiting = async {
        while let Some(line) = lines.next_line().await? {
            if line.starts_with("Waiting for") {
                return Ok(());
            }
            if let Some(found) = line.strip_prefix("  /ip4/") {
                address = format!("/ip4/{found}");
                return Ok(());
            }
        }
        Err::<(), std::io::Error>(std::io::Error::other("recv said nothing"))
    };
    tokio::time::timeout(super::patience(), waiting).await??;
    // What it says afterwards is read, so that it can be said.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    Ok(Receiving { process, address })
}

#[tokio::test]
async fn recv_through_the_running_node_takes_one_from_whom_it_was_told() -> TestResult {
    let mut pair = Pair::with(&[], &["--accept", "ask"]).await?;
    let mut cleo = pair.net.peer("cleo", &[])?;
    cleo.ask("wait peer bob").await?;
    let out = pair.net.folder.path().join("inbox");
    let data = folder(&pair.net, "bob");
    let receiving = recv(&["--data-dir", &data, "recv", "--from", "ada", "--out", &shown(&out)]).await?;
    let path = fill(pair.sources().join("one.bin"), 1, 5_000)?;
    let stranger = cleo.ask(&format!("send {} bob", path.display())).await?;
    pair.bob.wait("offer", |event| event["id"] == stranger["id"]).await?;
    pair.send(&path).await?;
    let output = receiving.process.wait_with_output().await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(out.join("one.bin"))? == noise(1, 5_000));
    assert_eq!(tree(&out)?.len(), 1);
    assert!(tree(&pair.downloads())?.is_empty());
    let row = pair.bob.ask(&format!("stats {}", text(&stranger, "id"))).await?;
    assert_eq!(text(&row, "state"), "offered");
    // What waits already is taken at once.
    let output = run(&["--data-dir", &data, "recv"]).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(pair.downloads().join("one.bin"))? == noise(1, 5_000));
    Ok(())
}

#[tokio::test]
async fn without_a_running_node_both_ends_are_nodes_of_their_own() -> TestResult {
    let net = net().await?;
    let local = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0"];
    let (ada, bob, out) = (folder(&net, "ada"), folder(&net, "bob"), net.folder.path().join("inbox"));
    let path = fill(net.folder.path().join("sources").join("one.bin"), 1, 3 << 20)?;
    // By address, without any seed.
    let receiving =
        recv(&[&local[..], &["--name", "bob", "--data-dir", &bob, "recv", "--out", &shown(&out)]].concat()).await?;
    let to = receiving.address.clone();
    let base = [&local[..], &["--name", "ada", "--data-dir", &ada]].concat();
    let output = run(&[&base[..], &["send", &shown(&path), "--to", &to]].concat()).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    let received = receiving.process.wait_with_output().await?;
    assert_eq!(status(&received), Some(0), "{}", said(&received));
    assert!(std::fs::read(out.join("one.bin"))? == noise(1, 3 << 20));
    // By name, through a seed.
    let seed = net.addresses[0].clone();
    let mut cleo = net.peer("cleo", &["--accept", "auto"])?;
    let output = run(&[&base[..], &["--seed", &seed, "send", &shown(&path), "--to", "cleo"]].concat()).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(net.dir("cleo").join("downloads/one.bin"))? == noise(1, 3 << 20));
    // It said goodbye, and what it leaves is free for the next one.
    cleo.wait("peer_left", |event| event["name"] == "ada").await?;
    let piped = noise(2, 3_000);
    let more = [&base[..], &["--seed", &seed, "send", "-", "--to", "cleo"]].concat();
    let output = run_with_input(&more, &piped).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(std::fs::read(net.dir("cleo").join("downloads/stdin"))? == piped);
    cleo.ask("config set accept never").await?;
    let output = run(&[&base[..], &["--seed", &seed, "send", &shown(&path), "--to", "cleo"]].concat()).await?;
    assert_eq!(status(&output), Some(7), "{}", said(&output));
    Ok(())
}

#[tokio::test]
async fn a_recv_that_is_killed_goes_on_at_the_next_one() -> TestResult {
    let net = net().await?;
    let mut ada = net.peer("ada", &["--upload-limit", "4M"])?;
    let local = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--name", "bob", "--seed", &net.addresses[0]];
    let bob = folder(&net, "bob");
    let line = [&local[..], &["--data-dir", &bob, "recv", "--from", "ada"]].concat();
    let mut receiving = recv(&line).await?;
    let path = fill(net.folder.path().join("sources").join("big.bin"), 4, 12 << 20)?;
    ada.ask("wait peer bob").await?;
    let id = text(&ada.ask(&format!("send {} bob", path.display())).await?, "id").to_owned();
    verified(&ada, 0, &id, 3 << 20).await?;
    receiving.process.kill().await?;
    let output = run(&line).await?;
    assert_eq!(status(&output), Some(0), "{}", said(&output));
    assert!(said(&output).contains("resuming at"), "{}", said(&output));
    assert!(std::fs::read(net.dir("bob").join("downloads/big.bin"))? == noise(4, 12 << 20));
    // The sender has heard of it too.
    reaches(&ada, 0, &id, "completed").await?;
    Ok(())
}
