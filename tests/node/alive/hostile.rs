//! Peers that break the rules: libp2p swarms of the test itself, which greet as a node does and then say what they like.

mod foe;

use std::time::{SystemTime, UNIX_EPOCH};

use liveness::protocol::{Request, Response};
use liveness::{Incarnation, Report};
use serde_json::Value;

use super::{LONG, QUICK, called_dead, registrations, rows, until};
use crate::harness::{Net, TestResult, signal, text, wait_registered};
use foe::{Foe, Said};

/// How many facts of that kind `why` counts.
fn count(why: &Value, what: &str) -> u64 {
    rows(&why["facts"]).filter(|fact| fact["what"] == what).filter_map(|fact| fact["count"].as_u64()).sum()
}

fn wall_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[tokio::test]
async fn who_sends_nonsense_is_cut_off_after_about_twenty_and_stays_out() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = net.peer("ada", &[])?;
    let address = ada.address().await?;
    let foe = Foe::new("foe", 7, None)?;
    foe.greet(&address).await?;
    ada.wait("peer_up", |event| text(event, "name") == "foe").await?;
    let mut answered = 0;
    while foe.say(&address, b"\xff\xff nonsense".to_vec()).await? == Said::Answer(Response::Refused.encode()) {
        answered += 1;
        assert!(answered < 40, "nobody is stopped");
    }
    assert!((19..=21).contains(&answered), "{answered} were tolerated");
    ada.wait("peer_lost", |event| text(event, "name") == "foe").await?;
    let error = ada.wait("error", |event| event["code"] == "refused").await?;
    assert!(text(&error, "message").contains("foe misbehaved too often (last: malformed-frame)"), "{error}");
    let why = ada.ask("why foe").await?;
    assert!(count(&why, "malformed-frame") >= answered, "{why}");
    assert!(why["faults"].as_f64() >= Some(95.0) && why["refused_until"].is_string(), "{why}");
    assert!(rows(&why["facts"]).any(|fact| fact["moved"] == "faults"), "{why}");
    let refused = ada.reply_to("connect foe").await?;
    assert_eq!(text(&refused["error"], "code"), "refused");
    let doctor = ada.ask("doctor").await?;
    let node = rows(&doctor).find(|row| row["subject"] == "node").ok_or("no line about the node")?;
    assert_eq!(text(node, "severity"), "warning", "{node}");

    // It is refused when it comes again, also by the next start of the node.
    assert!(foe.greet(&address).await.is_err());
    ada.quit().await?;
    let mut ada = net.peer("ada", &[])?;
    let address = ada.address().await?;
    assert!(ada.ask("why foe").await?["refused_until"].is_string());
    assert!(foe.greet(&address).await.is_err());
    // Whoever else comes is welcome.
    let friend = Foe::new("friend", 8, None)?;
    friend.greet(&address).await?;
    ada.wait("peer_up", |event| text(event, "name") == "friend").await?;
    Ok(())
}

#[tokio::test]
async fn who_cannot_be_reached_time_and_again_is_not_cut_off() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    bob.kill().await?;
    // As long as the link seems to stand there is nothing to connect.
    ada.wait("peer_lost", |event| text(event, "name") == "bob").await?;
    // A command gives up after `--max-retries` (3) more dials than one.
    let refused = ada.reply_to("connect bob").await?;
    assert_eq!(text(&refused["error"], "code"), "unreachable");
    let why = "bob could not be reached; is it running, and is the address right?";
    assert_eq!(text(&refused["error"], "message"), why);
    assert!(ada.ask("whois bob").await?["failures"].as_u64() >= Some(4));
    // What waits is dialled for again and again.
    let waiting = ada.ask("msg bob are you there?").await?;
    let failures = |whois: &Value| whois["failures"].as_u64().unwrap_or(0);
    until("five dials have failed", &mut ada, "whois bob", failures, |failures| *failures >= 5).await?;
    let why = ada.ask("why bob").await?;
    assert_eq!((why["faults"].as_f64(), why["refused_until"].is_null()), (Some(0.0), true), "{why}");
    assert!(count(&why, "dial-failed") >= 3 && why["reliability"].as_f64() < Some(0.5), "{why}");
    let _bob = net.peer("bob", &[])?;
    let id = text(&waiting, "id").to_owned();
    ada.wait_since(0, LONG, "delivery", |event| text(event, "id") == id && event["state"] == "delivered").await?;
    Ok(())
}

#[tokio::test]
async fn forged_replayed_stale_and_single_reports_evict_nobody_and_two_true_ones_do() -> TestResult {
    let mut net = Net::with_seeds_and(1, QUICK).await?;
    let at_seed = net.addresses[0].clone();
    let bob = net.peer("bob", QUICK)?;
    wait_registered(&bob, 1).await?;
    let id = bob.peer_id().await?;
    let target = id.parse()?;
    let boot = net.seeds[0].ask("whois bob").await?["boot"].as_u64().ok_or("no boot count")?;
    let incarnation = Incarnation::new(boot, 0);
    let (one, two) = (Foe::new("one", 11, None)?, Foe::new("two", 12, None)?);
    for foe in [&one, &two] {
        foe.greet(&at_seed).await?;
        net.seeds[0].wait("peer_up", |event| text(event, "name") == foe.name).await?;
    }
    let report = |by: &Foe, at_ms: u64| Report { reporter: by.peer, target, incarnation, at_ms }.sign(&by.key);
    let taken = Said::Answer(Response::Taken.encode());
    let send = async |by: &Foe, statement: Vec<u8>| by.say(&at_seed, Request::Report { statement }.encode()).await;

    let now = wall_ms();
    let honest = report(&one, now)?;
    let mut forged = honest.clone();
    *forged.last_mut().ok_or("an empty report")? ^= 1;
    for (what, statement) in [
        ("forged", forged),
        ("somebody else's", report(&two, now)?),
        ("stale", report(&one, now - 120_000)?),
        ("early", report(&one, now + 120_000)?),
        ("single", honest.clone()),
        ("replayed", honest.clone()),
        ("replayed", honest),
    ] {
        assert_eq!(send(&one, statement).await?, taken, "{what}");
    }
    // And two distinct reporters: the seed asks Bob himself.
    assert_eq!(send(&two, report(&two, wall_ms())?).await?, taken);
    let mark = net.seeds[0].mark();
    for _ in 0..3 {
        let mark = net.seeds[0].mark();
        net.seeds[0].wait_since(mark, LONG, "probe", |event| text(event, "peer") == id).await?;
    }
    assert!(called_dead(&net.seeds[0]).is_empty(), "reports alone evict nobody");
    let suspected = net.seeds[0].events_since(mark).iter().any(|event| event["type"] == "peer_suspect");
    assert!(!suspected, "nor do they make anybody suspect");
    assert_eq!(registrations(&mut net.seeds).await?, 1);
    let why = net.seeds[0].ask("why one").await?;
    assert_eq!((count(&why, "forged-statement"), count(&why, "foreign-statement")), (1, 1), "{why}");
    assert!(why["refused_until"].is_null(), "{why}");
    assert_eq!(net.seeds[0].ask("why two").await?["faults"], 0.0);
    assert_eq!(net.seeds[0].ask("why bob").await?["faults"], 0.0, "nothing sticks to whom they slander");

    // The same words are enough once Bob does not answer: this shows that they were read above.
    signal(&bob, "STOP")?;
    net.seeds[0].wait_since(0, LONG, "peer_suspect", |event| text(event, "peer") == id).await?;
    for foe in [&one, &two] {
        assert_eq!(send(foe, report(foe, wall_ms())?).await?, taken);
    }
    let dead = net.seeds[0].wait_since(0, LONG, "peer_dead", |event| text(event, "peer") == id).await?;
    let reporters: Vec<&str> = rows(&dead["reporters"]).filter_map(Value::as_str).collect();
    for foe in [&one, &two] {
        assert!(reporters.contains(&foe.peer.to_base58().as_str()), "{dead}");
    }
    assert_eq!(registrations(&mut net.seeds).await?, 0);
    signal(&bob, "CONT")?;
    Ok(())
}

#[tokio::test]
async fn a_seed_that_names_thousands_of_dead_drowns_nobody() -> TestResult {
    // More than the third of the table that one of two seeds may fill.
    let liar = Foe::new("liar", 21, Some(4_000))?;
    let mut net = Net::with_seeds(1).await?;
    net.addresses.push(liar.listen().await?);
    let mut honest = Vec::new();
    for number in 0..4 {
        honest.push(net.peer(&format!("p{number}"), &[])?);
    }
    for peer in &honest {
        peer.wait("seed", |event| event["state"] == "registered" && text(event, "address") == net.addresses[0]).await?;
    }
    let mut late = net.peer("late", &["--fanout", "3"])?;
    wait_registered(&late, 2).await?;
    let liars = |seeds: &Value| rows(seeds).find(|row| row["address"] == net.addresses[1].as_str()).cloned();
    let named = |seeds: &Value| liars(seeds).and_then(|row| row["peers"].as_u64()).unwrap_or(0);
    let named = until("the liar is heard", &mut late, "seeds", named, |named| *named > 0).await?;
    late.ask("wait peer 3 --timeout 15").await?;
    println!("the liar named {named}");
    late.deliver("p0", "the liar did not keep us apart").await?;
    let known = late.ask("status").await?["peers_known"].as_u64();
    assert!(known < Some(100), "who was only named is nobody known: {known:?}");
    Ok(())
}
