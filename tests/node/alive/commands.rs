//! What people ask about who is alive and who can be trusted.

use serde_json::{Value, json};

use super::{LONG, QUICK, host_port, rows, until, until_up};
use crate::harness::{NODE, Net, TestResult, run, text, wait_registered};

/// The error code of a reply.
fn code(reply: &Value) -> &str {
    text(&reply["error"], "code")
}

#[tokio::test]
async fn ping_health_reconnect_liveness_and_why_answer() -> TestResult {
    let net = Net::with_seeds_and(1, QUICK).await?;
    let mut ada = net.peer("ada", QUICK)?;
    let bob = net.peer("bob", QUICK)?;
    ada.ask("wait peer bob").await?;
    let id = bob.peer_id().await?;

    let ping = ada.ask("ping bob").await?;
    assert_eq!((text(&ping, "peer"), text(&ping, "name")), (id.as_str(), "bob"));
    assert!(ping["rtt_ms"].as_f64().is_some_and(|rtt| rtt > 0.0), "{ping}");
    // Both clocks are the same one.
    assert!(ping["offset_ms"].as_i64().is_some_and(|offset| offset.abs() < 5_000), "{ping}");
    ada.wait("probe", |event| text(event, "peer") == id).await?;

    let liveness = ada.ask("liveness").await?;
    let row = rows(&liveness).find(|row| text(row, "peer") == id).ok_or("no row for bob")?;
    assert_eq!((text(row, "name"), text(row, "state"), &row["failures"]), ("bob", "up", &json!(0)), "{row}");
    assert!(row["rtt_ms"].is_number() && row["last_seen"].is_string() && row["next_probe"].is_string(), "{row}");

    let why = ada.ask("why bob").await?;
    assert_eq!((text(&why, "peer"), &why["faults"]), (id.as_str(), &json!(0.0)), "{why}");
    assert!(why["reliability"].as_f64().is_some_and(|value| value > 0.5 && value <= 1.0), "{why}");
    let answered = rows(&why["facts"]).find(|fact| fact["what"] == "probe-answered").ok_or("no probe in the facts")?;
    assert!(text(answered, "moved") == "reliability" && answered["count"].as_u64() >= Some(1), "{answered}");
    let value = |of: &Value| of["reliability"].as_f64().unwrap_or(f64::NAN);
    let whois = ada.ask("whois bob").await?;
    assert!((value(&whois) - value(&why)).abs() < 0.05, "one number everywhere: {whois} {why}");

    let mark = ada.mark();
    let peer = ada.ask("reconnect bob").await?;
    assert_eq!(text(&peer, "state"), "up");
    ada.wait_since(mark, LONG, "peer_lost", |event| text(event, "name") == "bob").await?;
    ada.wait_since(mark, LONG, "peer_up", |event| text(event, "name") == "bob").await?;
    bob.wait("peer_left", |event| text(event, "name") == "ada").await?;

    // Two words, for somebody nobody has heard of; then without a link.
    let fay = althing::frontend::child::Child::spawn(NODE.as_ref(), "fay", &net.dir("fay"), [] as [&str; 0])?;
    let address = host_port(&fay.address().await?);
    let health = ada.ask(&format!("health-check {}", address.replace(':', " "))).await?;
    assert_eq!(text(&health, "name"), "fay");
    ada.ask("disconnect fay").await?;
    ada.wait("peer_lost", |event| text(event, "name") == "fay").await?;
    assert_eq!(code(&ada.reply_to("ping fay").await?), "unreachable", "ping dials nobody");
    assert_eq!(text(&ada.ask("health fay").await?, "name"), "fay");
    assert_eq!(code(&ada.reply_to("ping nobody").await?), "no_such_peer");
    assert_eq!(code(&ada.reply_to("why nobody").await?), "no_such_peer");
    Ok(())
}

#[tokio::test]
async fn the_doctor_says_what_to_do_and_ends_with_0() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let _bob = net.peer("bob", &[])?;
    ada.ask("wait peer bob").await?;
    wait_registered(&ada, 1).await?;
    let findings = ada.ask("doctor").await?;
    let subjects: Vec<&str> = rows(&findings).map(|row| text(row, "subject")).collect();
    for subject in ["addresses", "seeds", "peers", "clocks", "limits", "disk", "versions", "node"] {
        assert!(subjects.contains(&subject), "{subject} is not in {subjects:?}");
    }
    let rank = |row: &Value| ["error", "warning", "ok"].iter().position(|word| *word == text(row, "severity"));
    let ranks: Vec<Option<usize>> = rows(&findings).map(rank).collect();
    assert!(ranks.is_sorted() && ranks.iter().all(Option::is_some), "the worst first: {findings}");
    for row in rows(&findings) {
        assert_eq!(text(row, "severity") == "ok", text(row, "advice").is_empty(), "a trouble has an advice: {row}");
    }
    assert!(rows(&findings).all(|row| row["severity"] != "error"), "{findings}");
    let seeds = rows(&findings).find(|row| row["subject"] == "seeds").map(|row| text(row, "finding").to_owned());
    assert_eq!(seeds.as_deref(), Some("1 of 1 registrations stand"));

    let folder = net.dir("ada");
    let folder = folder.display().to_string();
    let output = run(&["--data-dir", &folder, "ctl", "doctor"]).await?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", String::from_utf8_lossy(&output.stderr));
    // Tests listen on loopback only, which is worth a warning.
    assert!(said.starts_with("warning  addresses: only this machine can reach "), "{said}");
    assert!(said.contains("\n         -> "), "{said}");
    assert!(said.contains("ok       peers: 2 have a link"), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_exchange_of_cards_is_set_by_every_form_and_brings_strangers_together() -> TestResult {
    // A line: ada - bob - cleo, without seeds. Nobody is told of anybody but by the exchange.
    let net = Net::with_seeds(0).await?;
    let cleo = net.peer("cleo", &["--fanout", "1", "--no-gossip"])?;
    let to_cleo = cleo.address().await?;
    let bob = net.peer("bob", &["--fanout", "1", "--no-gossip", "--peer", &to_cleo])?;
    let to_bob = bob.address().await?;
    bob.wait("peer_up", |event| text(event, "name") == "cleo").await?;
    let mut ada = net.peer("ada", &["--fanout", "1", "--no-gossip", "--gossip-interval", "0.2", "--peer", &to_bob])?;
    ada.ask("wait peer bob").await?;
    let off = ada.ask("gossip status").await?;
    assert_eq!((&off["on"], &off["asked"], &off["learnt"]), (&json!(false), &json!(0), &json!(0)), "{off}");
    let known = ada.ask("peers").await?;
    assert!(!rows(&known).any(|row| row["name"] == "cleo"), "{known}");

    assert_eq!(ada.ask("gossip on").await?["on"], true);
    let learnt = |status: &Value| status["learnt"].as_u64().unwrap_or(0);
    until("a card is learnt", &mut ada, "gossip status", learnt, |learnt| *learnt > 0).await?;
    let known = ada.ask("peers").await?;
    assert!(rows(&known).any(|row| row["name"] == "cleo"), "{known}");
    ada.deliver("cleo", "I have your card").await?;
    cleo.wait("message", |event| text(event, "text") == "I have your card").await?;

    for (command, on, interval) in [
        ("gossip 10", true, 10.0),
        ("gossip off", false, 10.0),
        ("gossip interval 5", false, 5.0),
        ("gossip on", true, 5.0),
    ] {
        let status = ada.ask(command).await?;
        // A number alone begins it as well, as in the seed projects.
        assert_eq!((&status["on"], &status["interval_s"]), (&json!(on), &json!(interval)), "`{command}`: {status}");
    }
    assert_eq!(text(&ada.ask("config get gossip-interval").await?, "value"), "5");
    assert_eq!(code(&ada.reply_to("gossip 0").await?), "usage");
    Ok(())
}

#[tokio::test]
async fn a_profile_sets_three_settings_and_what_is_given_goes_first() -> TestResult {
    for (profile, retries, timeout, health) in
        [("stable", "2", "2.0", "30"), ("unstable", "5", "5.0", "15"), ("mobile", "3", "4.0", "8")]
    {
        let folder = tempfile::tempdir()?;
        let folder = folder.path().display().to_string();
        let common = ["--json", "--mdns", "off", "--host", "127.0.0.1", "--data-dir", &folder, "--profile", profile];
        let output = run(&[&common[..], &["--max-retries", "7", "-e", "config"]].concat()).await?;
        let lines = String::from_utf8_lossy(&output.stdout).into_owned();
        let events = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let reply = events.into_iter().find(|event| event["type"] == "reply").ok_or("no reply")?;
        let value = |key: &str| {
            let row = rows(&reply["data"]).find(|row| text(row, "key") == key);
            row.map(|row| text(row, "value").to_owned()).unwrap_or_default()
        };
        let number = |key: &str| value(key).parse::<f64>().unwrap_or(f64::NAN);
        assert_eq!(value("max-retries"), "7", "{profile} has {retries}, and the flag goes first");
        assert_eq!(Some(number("timeout")), timeout.parse().ok(), "{profile}: {}", value("timeout"));
        assert_eq!(Some(number("health-check-interval")), health.parse().ok(), "{profile}");
    }
    let output = run(&["--profile", "lunar"]).await?;
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("lunar") && said.contains("stable, unstable or mobile"), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_silent_leave_the_list_but_keep_their_name_and_mandatory_ones_stay() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut bob = net.peer("bob", &[])?;
    let mut cleo = net.peer("cleo", &[])?;
    let (to_bob, to_cleo) = (bob.address().await?, cleo.address().await?);
    let id = cleo.peer_id().await?;
    let mut ada = net.peer("ada", &["--inactivity-timeout", "2", "--peer", &to_bob])?;
    ada.ask(&format!("connect {to_cleo}")).await?;
    ada.ask("wait peer bob").await?;
    bob.quit().await?;
    cleo.quit().await?;
    ada.wait("peer_left", |event| text(event, "name") == "cleo").await?;
    let names = |list: &Value| rows(list).map(|row| text(row, "name").to_owned()).collect::<Vec<_>>();
    until("cleo is gone and bob stays", &mut ada, "peers", names, |names| *names == ["bob"]).await?;
    // The name is still hers.
    assert_eq!(text(&ada.ask("whois cleo").await?, "peer"), id);
    let port = to_cleo.split('/').nth(4).unwrap_or_default().to_owned();
    let listen = format!("/ip4/127.0.0.1/tcp/{port}");
    let cleo = net.peer("cleo", &["--listen", &listen])?;
    assert_eq!(cleo.peer_id().await?, id);
    let address = cleo.address().await?;
    ada.ask(&format!("connect {address}")).await?;
    until_up(&mut ada, &id).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_thought_of_a_peer_is_kept_over_a_restart() -> TestResult {
    let net = Net::with_seeds_and(1, QUICK).await?;
    let mut ada = net.peer("ada", QUICK)?;
    let mut bob = net.peer("bob", QUICK)?;
    ada.ask("wait peer bob").await?;
    for number in 0..3 {
        ada.deliver("bob", &format!("number {number}")).await?;
    }
    ada.ask("ping bob").await?;
    bob.quit().await?;
    ada.wait("peer_left", |event| text(event, "name") == "bob").await?;
    let before = ada.ask("why bob").await?;
    ada.quit().await?;
    let mut ada = net.peer("ada", QUICK)?;
    let after = ada.ask("why bob").await?;
    let value = |why: &Value| why["reliability"].as_f64().unwrap_or(0.0);
    assert!(value(&before) > 0.5, "{before}");
    // It drifts by half in a day, and a dial in vain may have come since.
    let dialled = rows(&after["facts"]).any(|fact| fact["what"] == "dial-failed");
    assert!(dialled || (value(&before) - value(&after)).abs() < 0.01, "{before} and then {after}");
    let facts = |why: &Value| -> Vec<(String, u64)> {
        let facts = rows(&why["facts"]).filter(|fact| fact["what"] != "dial-failed");
        facts.map(|fact| (text(fact, "what").to_owned(), fact["count"].as_u64().unwrap_or(0))).collect()
    };
    assert_eq!(facts(&before), facts(&after));
    assert!(!facts(&after).is_empty());
    Ok(())
}
