//! Delivery, receipts, order, hostile texts, names, the access list.

use std::time::Duration;

use serde_json::Value;

use crate::harness::{Net, TestResult, text};

#[tokio::test]
async fn any_text_arrives_unchanged_once_and_in_order() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let bob = net.peer_that_met("bob", &["ada"]).await?;
    let texts = [
        "hello".to_owned(),
        "żółć 漢字 🜁".to_owned(),
        "a".repeat(65_536),
        "<end> ' OR 1=1 -- \\x00".to_owned(),
        "\u{1b}[2J\u{1b}]52;c;aGk=\u{7}".to_owned(),
        "\u{202e}gnp.exe".to_owned(),
        r#"{"type":"bye"}"#.to_owned(),
        "  spaces  inside  ".to_owned(),
        "e\u{301}".repeat(2_000),
        "\0nul".to_owned(),
        "line one\nline two\r\n".to_owned(),
    ];
    let mut ids = Vec::new();
    for line in &texts {
        ids.push(ada.deliver("bob", line).await?);
    }
    let heard: Vec<Value> = bob.events_since(0).into_iter().filter(|event| event["type"] == "message").collect();
    assert_eq!(heard.iter().map(|event| text(event, "text")).collect::<Vec<_>>(), texts);
    assert_eq!(heard.iter().map(|event| text(event, "id")).collect::<Vec<_>>(), ids);
    let numbers: Vec<u64> = heard.iter().filter_map(|event| event["seq"].as_u64()).collect();
    assert_eq!(numbers, (1..=11).collect::<Vec<u64>>());
    assert_eq!(text(&heard[0], "name"), "ada");
    assert_eq!(text(&heard[0], "team"), "althing");
    assert_eq!(text(&heard[0], "from"), ada.peer_id().await?);
    Ok(())
}

#[tokio::test]
async fn text_is_the_raw_rest_of_the_line() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.write(b"msg bob don't \"quote\" me \\ or $HOME # here\n").await?;
    bob.wait("message", |event| text(event, "text") == "don't \"quote\" me \\ or $HOME # here").await?;
    ada.write(b"@bob short form\n").await?;
    bob.wait("message", |event| text(event, "text") == "short form").await?;
    ada.write(b"chat bob\nmsg is just a word here\n/status\nexit\n").await?;
    bob.wait("message", |event| text(event, "text") == "msg is just a word here").await?;
    ada.ask("status").await?;
    Ok(())
}

#[tokio::test]
async fn too_long_a_text_and_an_unknown_peer_are_refused() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let _bob = net.peer_that_met("bob", &["ada"]).await?;
    for (command, code) in [
        (format!("msg bob {}", "x".repeat(65_537)), "usage"),
        ("msg nobody hi".to_owned(), "no_such_peer"),
        ("msg bob".to_owned(), "usage"),
        ("msg ada to myself".to_owned(), "no_such_peer"),
        ("brodcast hi".to_owned(), "unknown_command"),
        ("whois 127.0.0.1:99999".to_owned(), "no_such_peer"),
        ("connect /ip4/127.0.0.1/tcp/1".to_owned(), "unreachable"),
    ] {
        let reply = ada.reply_to(&command).await?;
        assert_eq!(reply["ok"], false, "{command:.40}");
        assert_eq!(text(&reply["error"], "code"), code, "{command:.40}: {reply}");
    }
    Ok(())
}

#[tokio::test]
async fn a_message_to_somebody_away_waits_survives_our_restart_and_arrives() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    bob.kill().await?;
    let mark = ada.mark();
    let id = text(&ada.ask("msg bob kept for later").await?, "id").to_owned();
    ada.wait_since(mark, Duration::from_secs(20), "delivery", |event| event["state"] == "queued").await?;
    let rows = ada.ask("outbox").await?;
    assert_eq!(text(&rows[0], "id"), id);
    ada.kill().await?;
    let ada = net.peer("ada", &[])?;
    let bob = net.peer("bob", &[])?;
    let heard = bob.wait("message", |_| true).await?;
    assert_eq!(text(&heard, "id"), id);
    assert_eq!(text(&heard, "text"), "kept for later");
    ada.wait("delivery", |event| text(event, "id") == id && event["state"] == "delivered").await?;
    Ok(())
}

#[tokio::test]
async fn a_message_that_nobody_fetched_in_time_fails() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &["--message-expiry", "1s"])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    ada.ask("wait peer bob").await?;
    bob.kill().await?;
    ada.wait("peer_lost", |event| text(event, "name") == "bob").await?;
    let id = text(&ada.ask("msg bob in vain").await?, "id").to_owned();
    // The outbox is searched once a minute, and at every start.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    ada.kill().await?;
    let ada = net.peer("ada", &[])?;
    let failed = ada.wait("delivery", |event| text(event, "id") == id && event["state"] == "failed").await?;
    assert_eq!(text(&failed, "reason"), "expired");
    Ok(())
}

#[tokio::test]
async fn a_name_that_two_peers_bear_is_an_error_that_lists_them() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let first = net.peer_that_met("twin", &["ada"]).await?;
    ada.deliver("twin", "while there is one").await?;
    let seeds = net.addresses.iter().flat_map(|address| ["--seed", address.as_str()]);
    let second =
        althing::frontend::child::Child::spawn(crate::harness::NODE.as_ref(), "twin", &net.dir("other-twin"), seeds)?;
    let impostor = second.peer_id().await?;
    ada.wait("peer_up", |event| text(event, "peer") == impostor).await?;
    let reply = ada.reply_to("msg twin whom do I mean").await?;
    assert_eq!(text(&reply["error"], "code"), "ambiguous_peer");
    let message = text(&reply["error"], "message");
    assert!(message.contains(&impostor) && message.contains(&first.peer_id().await?), "{message}");
    ada.deliver(&first.peer_id().await?, "you").await?;
    first.wait("message", |event| text(event, "text") == "you").await?;
    assert!(!second.events_since(0).iter().any(|event| event["type"] == "message"));
    Ok(())
}

#[tokio::test]
async fn the_access_list_is_kept() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    let id = bob.peer_id().await?;
    assert_eq!(ada.ask("trust bob").await?["trusted"], true);
    assert_eq!(ada.ask("block bob").await?["blocked"], true);
    bob.wait("peer_lost", |event| text(event, "name") == "ada").await?;
    let mark = bob.mark();
    bob.ask("msg ada let me in").await?;
    bob.wait_since(mark, Duration::from_secs(20), "delivery", |event| event["state"] == "queued").await?;
    ada.kill().await?;
    let mut ada = net.peer("ada", &[])?;
    assert_eq!(text(&ada.ask("block").await?[0], "peer"), id);
    assert!(!ada.events_since(0).iter().any(|event| event["type"] == "message"));
    ada.ask(&format!("unblock {id}")).await?;
    ada.wait("message", |event| text(event, "text") == "let me in").await?;
    Ok(())
}

#[tokio::test]
async fn a_new_nick_reaches_the_others() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    bob.ask("nick robert").await?;
    bob.ask("team \"night shift\"").await?;
    let mark = ada.mark();
    bob.deliver("ada", "new name").await?;
    let heard = ada.wait_since(mark, Duration::from_secs(20), "message", |_| true).await?;
    assert_eq!((text(&heard, "name"), text(&heard, "team")), ("robert", "night shift"));
    ada.deliver("robert", "by the new name").await?;
    ada.deliver("bob", "and by the one it was met with").await?;
    Ok(())
}

#[tokio::test]
async fn history_has_every_option_and_exports() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let mut ada = net.peer("ada", &[])?;
    let mut bob = net.peer_that_met("bob", &["ada"]).await?;
    for number in 0..5 {
        ada.deliver("bob", &format!("number {number}")).await?;
    }
    bob.deliver("ada", "a \"quoted\", answer").await?;
    let texts = |rows: &Value| {
        rows.as_array().into_iter().flatten().map(|row| text(row, "text").to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&ada.ask("history bob -n 2").await?), ["number 4", "a \"quoted\", answer"]);
    assert_eq!(texts(&ada.ask("history all --search answer").await?), ["a \"quoted\", answer"]);
    assert_eq!(texts(&ada.ask("history all --since 2100-01-01").await?), Vec::<String>::new());
    assert_eq!(texts(&ada.ask("history all --since 1h -n 100").await?).len(), 6);
    let rows = ada.ask("history bob -n 1").await?;
    assert_eq!(text(&rows[0], "state"), "received");
    for format in ["json", "csv", "txt"] {
        let file = net.folder.path().join(format!("export.{format}"));
        ada.ask(&format!("history all --export {} --format {format}", file.display())).await?;
        let exported = std::fs::read_to_string(&file)?;
        assert!(exported.contains("number 3"), "{format}: {exported}");
        if format == "txt" {
            assert!(exported.contains("  ada (") && exported.contains(") -> bob: number 3\n"), "{exported}");
            assert!(exported.contains("  bob (") && exported.contains(") -> ada: a \"quoted\""), "{exported}");
        }
        let again = ada.reply_to(&format!("history all --export {} --format {format}", file.display())).await?;
        assert_eq!(again["ok"], false, "an existing file is not overwritten");
    }
    Ok(())
}
