//! Scripts, one-shot commands, the control socket, the end of stdin, the demo.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::harness::{NODE, Net, TestResult, run, run_with_input, text};

#[tokio::test]
async fn ctl_gives_one_command_to_the_running_node() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let ada = net.peer("ada", &[])?;
    let bob = net.peer_that_met("bob", &["ada"]).await?;
    let data = net.dir("bob").display().to_string();
    let output = run(&["--data-dir", &data, "--json", "ctl", "peers"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let reply: Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(reply["ok"], true);
    let names: Vec<&str> = reply["data"].as_array().into_iter().flatten().map(|peer| text(peer, "name")).collect();
    assert!(names.contains(&"ada"), "{names:?}");
    let output = run(&["ctl", "--data-dir", &data, "msg", "ada", "hello  from ctl"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    ada.wait("message", |event| text(event, "text") == "hello  from ctl").await?;
    let output = run(&["--data-dir", &data, "ctl", "msg", "nobody", "hi"]).await?;
    assert_eq!(output.status.code(), Some(3));
    let output = run(&["--data-dir", &data, "ctl", "status"]).await?;
    let shown = String::from_utf8(output.stdout)?;
    assert!(shown.contains(&bob.peer_id().await?), "{shown}");
    Ok(())
}

#[tokio::test]
async fn the_doctor_answers_with_and_without_a_node() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let ada = net.peer("ada", &[])?;
    ada.wait("seed", |event| event["state"] == "registered").await?;
    let data = net.dir("ada").display().to_string();
    let output = run(&["--data-dir", &data, "--json", "doctor"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let findings: Value = serde_json::from_slice(&output.stdout)?;
    let severity = |subject: &str| {
        let mut found = findings.as_array().into_iter().flatten().filter(|found| text(found, "subject") == subject);
        found.next().map(|found| text(found, "severity").to_owned())
    };
    assert_eq!(severity("seeds").as_deref(), Some("ok"), "{findings}");
    assert_eq!(severity("addresses").as_deref(), Some("warning"), "only loopback: {findings}");

    // Without a node it looks at the folder, and leaves none behind where there is none.
    let empty = net.folder.path().join("never used");
    let output = run(&["--data-dir", &empty.display().to_string(), "doctor"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8(output.stdout)?.contains("no node runs on"));
    assert!(!empty.exists());
    std::fs::create_dir(&empty)?;
    std::fs::write(empty.join("identity.key"), b"no key")?;
    let output = run(&["--data-dir", &empty.display().to_string(), "doctor"]).await?;
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    Ok(())
}

#[tokio::test]
async fn a_one_shot_message_that_is_only_queued_exits_with_status_3() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let _bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.kill().await?;
    let data = net.dir("bob").display().to_string();
    let output = run(&["--data-dir", &data, "ctl", "msg", "ada", "are you there"]).await?;
    assert_eq!(output.status.code(), Some(3), "{}", String::from_utf8_lossy(&output.stderr));
    let output = run(&["--data-dir", &data, "--allow-queued", "ctl", "msg", "ada", "later is fine"]).await?;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

#[tokio::test]
async fn without_a_running_node_one_shot_commands_say_so() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    for args in [&["ctl", "peers"][..], &["events"]] {
        let mut all = vec!["--data-dir", data.as_str()];
        all.extend_from_slice(args);
        let output = run(&all).await?;
        assert_eq!(output.status.code(), Some(3));
        assert_eq!(String::from_utf8_lossy(&output.stderr).lines().count(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn several_clients_follow_and_a_slow_one_gets_lagged() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let _bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    let socket = net.dir("ada").join("control.sock");
    let follow = async || -> Result<tokio::net::UnixStream, std::io::Error> {
        let mut stream = tokio::net::UnixStream::connect(&socket).await?;
        stream.write_all(b"{\"follow\":true}\n").await?;
        Ok(stream)
    };
    let slow = follow().await?;
    let mut quick = BufReader::new(follow().await?).lines();
    let first = quick.next_line().await?.unwrap_or_default();
    assert!(first.contains("\"ready\""), "{first}");
    let drained = tokio::spawn(async move {
        let mut deliveries = 0;
        while let Ok(Some(line)) = quick.next_line().await {
            deliveries += usize::from(line.contains("\"delivered\""));
            assert!(!line.contains("\"lagged\""), "{line}");
            if deliveries == 2_000 {
                break;
            }
        }
        deliveries
    });
    // The slow client reads nothing until more has happened than the socket and the queue hold.
    for round in 0..40 {
        for number in 0..50 {
            ada.tell(&format!("msg bob round {round} number {number} {}", "x".repeat(200))).await?;
        }
        ada.ask("wait delivered").await?;
    }
    assert_eq!(tokio::time::timeout(Duration::from_secs(60), drained).await??, 2_000);
    let mut slow = BufReader::new(slow).lines();
    let lagged = loop {
        let line = slow.next_line().await?.ok_or("the slow client saw no `lagged`")?;
        let event: Value = serde_json::from_str(&line)?;
        if event["type"] == "lagged" {
            break event;
        }
    };
    assert!(lagged["missed"].as_u64() > Some(0));
    assert_eq!(ada.ask("status").await?["outbox"], 0);
    Ok(())
}

#[tokio::test]
async fn the_end_of_stdin_means_what_the_contract_says() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let base = ["--json", "--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir", data.as_str()];
    // After at least one line the node finishes and quits.
    let output = run_with_input(&base, b"status\n").await?;
    assert_eq!(output.status.code(), Some(0));
    let stdout = String::from_utf8(output.stdout)?;
    assert!(stdout.contains("\"bye\"") && stdout.contains("uptime_s"), "{stdout}");
    for line in stdout.lines() {
        let event: Value = serde_json::from_str(line)?;
        assert_eq!(event["v"], 1);
    }
    let numbers: Vec<u64> =
        stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()?["n"].as_u64()).collect();
    assert!(numbers.is_sorted() && numbers.len() == stdout.lines().count());
    // An empty stdin is a service manager's: the node goes on until a signal.
    let mut child = tokio::process::Command::new(NODE)
        .args(base)
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut lines = BufReader::new(child.stdout.take().ok_or("no stdout")?).lines();
    while !lines.next_line().await?.ok_or("it ended")?.contains("listening") {}
    let output = run(&["--data-dir", &data, "ctl", "status"]).await?;
    assert_eq!(output.status.code(), Some(0));
    let pid = child.id().ok_or("it ended")?.to_string();
    assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status()?.success());
    assert_eq!(child.wait().await?.code(), Some(143));
    Ok(())
}

#[tokio::test]
async fn waits_consume_what_they_matched() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.deliver("bob", "ping 1").await?;
    ada.deliver("bob", "ping 2").await?;
    assert_eq!(text(&bob.ask("wait message ping").await?, "text"), "ping 1");
    assert_eq!(text(&bob.ask("wait message ping").await?, "text"), "ping 2");
    let reply = bob.reply_to("wait message ping --timeout 0.1").await?;
    assert_eq!(text(&reply["error"], "code"), "condition_false");
    assert_eq!(bob.reply_to("expect message ping").await?["ok"], false);
    bob.ask("msg ada pong").await?;
    bob.ask("wait delivered").await?;
    ada.ask("expect message ^pong$").await?;
    Ok(())
}

#[tokio::test]
async fn settings_show_where_they_come_from() -> TestResult {
    let net = Net::with_seeds(0).await?;
    std::fs::create_dir_all(net.dir("ada"))?;
    std::fs::write(net.dir("ada").join("config.toml"), "team = \"from the file\"\n")?;
    let mut ada = net.peer("ada", &["--fanout", "3"])?;
    for (key, value, origin) in [
        ("fanout", "3", "flag"),
        ("team", "from the file", "file"),
        ("role", "peer", "default"),
        ("name", "ada", "flag"),
    ] {
        let setting = ada.ask(&format!("config get {key}")).await?;
        assert_eq!((text(&setting, "value"), text(&setting, "origin")), (value, origin), "{setting}");
    }
    ada.ask("config set fanout 5").await?;
    assert_eq!(text(&ada.ask("config get fanout").await?, "value"), "5");
    assert_eq!(ada.reply_to("config set fanout many").await?["ok"], false);
    assert_eq!(ada.reply_to("config get nonsense").await?["ok"], false);
    assert!(ada.ask("config").await?.as_array().is_some_and(|settings| settings.len() > 15));
    Ok(())
}

#[tokio::test]
async fn the_demo_plays_to_its_end_without_a_terminal() -> TestResult {
    let output = run(&["demo"]).await?;
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{shown}");
    for step in ["Three seeds", "receipt after", "back, with the same identity", "eve left", "the link to cleo is lost"]
    {
        assert!(shown.contains(step), "{step} is missing in {shown}");
    }
    // Five peers that dial one other each cannot all be linked, so somebody heard a broadcast through somebody else.
    let relayed =
        regex::Regex::new(r"(?m)^   (\w+) +has no link to (\w+): (\w+)'s words reached (\w+) through (\w+)$")?;
    let words = relayed.captures(&shown).ok_or_else(|| format!("nobody heard through somebody else: {shown}"))?;
    let [listener, speaker, again, reached, via] = words.extract().1;
    assert_eq!((listener, speaker), (reached, again));
    assert!(via != speaker && via != listener, "{shown}");
    for said in ["the pump stands still", "I have a spare part", "it runs again"] {
        assert!(shown.contains(&format!("said \"{said}\"")), "{said} is missing in {shown}");
    }
    let resumed = regex::Regex::new(
        r"map\.bin, (\d+) of 12 MiB verified, then kill -9\n   bob is back and goes on at (\d+) MiB, by himself\n   bob has all of it, byte for byte; BLAKE3 [0-9a-f]{64}\n",
    )?;
    let [before, after] = resumed.captures(&shown).ok_or_else(|| format!("no file: {shown}"))?.extract().1;
    let (before, after): (u64, u64) = (before.parse()?, after.parse()?);
    assert!(4 <= before && before <= after && after <= 12, "{shown}");
    let equal = regex::Regex::new(r"dan's history has the same (\d+) broadcasts as ada's, in each author's order")?;
    let count: usize = equal.captures(&shown).ok_or_else(|| format!("no comparison: {shown}"))?[1].parse()?;
    assert!((4..=6).contains(&count), "{shown}");
    Ok(())
}
