//! Wrong flags, files and lines: one clear sentence, the right exit status, and the node goes on.

use std::os::unix::fs::PermissionsExt;

use crate::harness::{Net, TestResult, run, run_with_input, text};

/// What a person sees of a failed start: one line on stderr that begins with the program's name.
fn one_sentence(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr).into_owned();
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("node: "), "{text}");
    text
}

#[tokio::test]
async fn wrong_flags_exit_with_status_2_and_one_sentence() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().join("data").display().to_string();
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{\"seeds\": [")?;
    let broken = broken.display().to_string();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "fanuot = 3\n")?;
    let config = config.display().to_string();
    for args in [
        &["--port", "80"][..],
        &["--port", "70000"],
        &["--port", "many"],
        &["--listen", "/ip4/127.0.0.1/tcp/80"],
        &["--listen", "nonsense"],
        &["--host", "300.1.1.1"],
        &["--seed", "not-an-address"],
        &["--peer", "/ip4/1.2.3.4"],
        &["--seeds-file", "/nonexistent.json"],
        &["--seeds-file", &broken],
        &["--config", &config],
        &["--config", "/nonexistent.toml"],
        &["--fanout", "0"],
        &["--timeout", "-1"],
        &["--mdns", "perhaps"],
        &["--role", "king"],
        &["--name", "two words"],
        &["--name", "\u{202e}evil"],
        &["--script", "/nonexistent.txt"],
        &["--no-such-flag"],
        &["nosuchcommand"],
    ] {
        let mut all = vec!["--json", "--mdns", "off", "--data-dir", &data];
        // A flag that is given twice would be another mistake than the one that is meant.
        if args[0] == "--mdns" {
            all.retain(|arg| !["--mdns", "off"].contains(arg));
        }
        all.extend_from_slice(args);
        let output = run(&all).await?;
        assert_eq!(output.status.code(), Some(2), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        one_sentence(&output.stderr);
        assert!(output.stdout.is_empty(), "{args:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_data_dir_in_use_exits_with_status_10() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let ada = net.peer("ada", &[])?;
    ada.wait("ready", |_| true).await?;
    let data = net.dir("ada").display().to_string();
    let output = run(&["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir", &data]).await?;
    assert_eq!(output.status.code(), Some(10));
    one_sentence(&output.stderr);
    Ok(())
}

#[tokio::test]
async fn a_corrupt_key_is_refused_with_status_6_and_never_replaced() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let args = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir", &data, "-e", "status"];
    let key = folder.path().join("identity.key");
    for garbage in [&b"garbage"[..], b"", &[8, 1, 18, 64]] {
        std::fs::write(&key, garbage)?;
        let output = run(&args).await?;
        assert_eq!(output.status.code(), Some(6), "{}", String::from_utf8_lossy(&output.stderr));
        one_sentence(&output.stderr);
        assert_eq!(std::fs::read(&key)?, garbage);
    }
    std::fs::remove_file(&key)?;
    assert_eq!(run(&args).await?.status.code(), Some(0));
    assert_eq!(std::fs::metadata(&key)?.permissions().mode() & 0o777, 0o600);
    let mut flipped = std::fs::read(&key)?;
    flipped[40] ^= 1;
    std::fs::write(&key, &flipped)?;
    assert_eq!(run(&args).await?.status.code(), Some(6));
    assert_eq!(std::fs::read(&key)?, flipped);
    Ok(())
}

#[tokio::test]
async fn a_damaged_database_is_set_aside_and_said() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let args = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir", &data, "-e", "status"];
    assert_eq!(run(&args).await?.status.code(), Some(0));
    std::fs::write(folder.path().join("history.db"), vec![0xa5; 64 * 1024])?;
    let output = run(&args).await?;
    assert_eq!(output.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&output.stderr).contains("damaged"), "{}", String::from_utf8_lossy(&output.stderr));
    let aside = std::fs::read_dir(folder.path())?
        .flatten()
        .any(|entry| entry.file_name().to_string_lossy().contains("damaged"));
    assert!(aside);
    Ok(())
}

#[tokio::test]
async fn a_taken_port_falls_over_to_a_free_one_and_says_so() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let port = taken.local_addr()?.port().to_string();
    let args = ["--json", "--mdns", "off", "--host", "127.0.0.1", "--port", &port, "--data-dir", &data, "-e", "status"];
    let output = run(&args).await?;
    assert_eq!(output.status.code(), Some(0));
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.contains(&format!("port {port} is taken")), "{stderr}");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(stdout.contains("\"listening\"") && !stdout.contains(&format!("/tcp/{port}/")), "{stdout}");
    Ok(())
}

#[tokio::test]
async fn lines_that_are_no_lines_are_refused_and_the_node_goes_on() -> TestResult {
    let net = Net::with_seeds(0).await?;
    let mut ada = net.peer("ada", &[])?;
    let mark = ada.mark();
    ada.write(b"\xff\xfe not text\n").await?;
    ada.write(&vec![b'x'; 3 * 1024 * 1024]).await?;
    ada.write(b"\n{\"cmd\": 7}\n{\"id\":1,\"cmd\":\"nonsense\"}\n\n/\n@\nmsg\nwait\n").await?;
    ada.ask("status").await?;
    let refused =
        ada.events_since(mark).iter().filter(|event| event["type"] == "reply" && event["ok"] == false).count();
    assert!(refused >= 7, "{refused}");
    Ok(())
}

#[tokio::test]
async fn scripts_end_with_the_first_failing_commands_own_status() -> TestResult {
    let folder = tempfile::tempdir()?;
    let data = folder.path().display().to_string();
    let base = ["--mdns", "off", "--listen", "/ip4/127.0.0.1/tcp/0", "--data-dir", data.as_str()];
    for (command, status) in [
        ("status", 0),
        ("brodcast hi", 2),
        ("msg nobody hi", 3),
        ("connect 127.0.0.1:1", 3),
        ("wait peer 1 --timeout 0.1", 5),
        ("expect peer 1", 5),
        ("wait delivered 00", 2),
    ] {
        let mut args = base.to_vec();
        args.extend(["-e", command]);
        let output = run(&args).await?;
        assert_eq!(output.status.code(), Some(status), "{command}: {}", String::from_utf8_lossy(&output.stderr));
        let mut args = base.to_vec();
        args.extend(["--script", "-"]);
        let output = run_with_input(&args, format!("{command}\n").as_bytes()).await?;
        assert_eq!(output.status.code(), Some(status), "{command} by script");
    }
    let mut args = base.to_vec();
    args.extend(["--json", "-e", "msg nobody hi", "-e", "status"]);
    let stdout = String::from_utf8_lossy(&run(&args).await?.stdout).into_owned();
    assert!(!stdout.contains("uptime_s"), "the first failing line ends a script");
    args.push("--keep-going");
    let output = run(&args).await?;
    assert_eq!(output.status.code(), Some(3));
    assert!(String::from_utf8_lossy(&output.stdout).contains("uptime_s"));
    Ok(())
}

#[tokio::test]
async fn a_peer_cannot_write_to_the_terminal() -> TestResult {
    let net = Net::with_seeds(1).await?;
    let seed = net.addresses[0].clone();
    let data = net.dir("reader").display().to_string();
    let mut bob = net.peer("bob", &[])?;
    let reader = tokio::spawn(async move {
        let args = [
            "--mdns",
            "off",
            "--listen",
            "/ip4/127.0.0.1/tcp/0",
            "--name",
            "reader",
            "--data-dir",
            &data,
            "--seed",
            &seed,
            "-e",
            "wait message end",
        ];
        run(&args).await
    });
    bob.ask("wait peer reader").await?;
    bob.deliver("reader", "\u{1b}[2J\u{1b}]52;c;aGk=\u{7}\u{202e}\u{200b}\u{9b}31m\r\nfake: line").await?;
    bob.deliver("reader", "the end").await?;
    let stdout = String::from_utf8(reader.await??.stdout)?;
    assert!(stdout.contains("the end"), "{stdout}");
    let bad = stdout.chars().find(|c| (c.is_control() && *c != '\n') || matches!(*c, '\u{202e}' | '\u{200b}'));
    assert_eq!(bad, None, "{stdout:?}");
    assert!(!stdout.lines().any(|line| line.starts_with("fake:")), "{stdout}");
    assert_eq!(text(&bob.ask("status").await?, "name"), "bob");
    Ok(())
}
