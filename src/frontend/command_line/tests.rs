use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::api::SendFiles;
use crate::frontend::help::TOPICS;

fn now() -> Timestamp {
    "2026-11-21T12:00:00Z".parse().unwrap()
}

fn parsed(line: &str) -> Result<Line, ApiError> {
    parse(line, now())
}

fn text(line: &str) -> String {
    match parsed(line) {
        Ok(Line::Node(Command::SendMessage { text, .. })) => text,
        other => panic!("{line}: {other:?}"),
    }
}

fn msg(to: &str, text: &str) -> Line {
    Line::Node(Command::SendMessage { to: to.to_owned(), text: text.to_owned() })
}

fn send(paths: &[&str], to: &[&str]) -> Line {
    let (paths, to) = (paths.iter().map(PathBuf::from).collect(), to.iter().map(|word| (*word).to_owned()).collect());
    Line::Node(Command::SendFiles(SendFiles { paths, to, ..SendFiles::default() }))
}

fn history(change: impl FnOnce(&mut HistoryQuery)) -> HistoryQuery {
    let mut query = HistoryQuery::default();
    change(&mut query);
    query
}

/// Lines that are right, with what they mean. Every command and alias of the table occurs.
fn right() -> Vec<(&'static str, Line)> {
    let node = Line::Node;
    let session = Line::Session;
    let bob = || "bob".to_owned();
    let wait = |condition, timeout| session(SessionCommand::Wait { condition, timeout });
    let seconds = |s| Some(Duration::from_secs(s));
    vec![
        ("", Line::Empty),
        (" \t", Line::Empty),
        ("broadcast don't  stop ", node(Command::Broadcast { text: "don't  stop ".to_owned() })),
        ("all hi", node(Command::Broadcast { text: "hi".to_owned() })),
        ("gossip start", node(Command::GossipStart { count: 10, every: Duration::from_secs(5) })),
        (
            "gossip start --every 0.2 --count 3",
            node(Command::GossipStart { count: 3, every: Duration::from_millis(200) }),
        ),
        ("msg bob hi", msg("bob", "hi")),
        ("/msg bob hi", msg("bob", "hi")),
        ("  msg\tbob \t hi  there  ", msg("bob", "hi  there  ")),
        (r"msg bob don't \ worry", msg("bob", r"don't \ worry")),
        ("msg bob # --not -an 'option", msg("bob", "# --not -an 'option")),
        (r#"msg bob "  two\nlines" "#, msg("bob", "  two\nlines")),
        (r#"msg bob "a" and "b""#, msg("bob", r#""a" and "b""#)),
        (r#"msg bob "open"#, msg("bob", r#""open"#)),
        (r#"msg bob "\ud800""#, msg("bob", r#""\ud800""#)),
        ("msg bob \u{3000}hi", msg("bob", "\u{3000}hi")),
        ("msg 'Anna B' hi", msg("Anna B", "hi")),
        ("@bob hi", msg("bob", "hi")),
        ("/@bob hi", msg("bob", "hi")),
        ("@'Anna B' hi", msg("Anna B", "hi")),
        ("chat bob", session(SessionCommand::Chat { peer: bob() })),
        ("history", node(Command::History(HistoryQuery::default()))),
        ("history all", node(Command::History(HistoryQuery::default()))),
        (
            "history bob -n 50 --search 'a b' --since 7d",
            node(Command::History(HistoryQuery {
                peer: Some(bob()),
                limit: 50,
                search: Some("a b".to_owned()),
                since: Some("2026-11-14T12:00:00Z".parse().unwrap()),
            })),
        ),
        (
            "history --search=-x bob",
            node(Command::History(history(|q| (q.peer, q.search) = (Some(bob()), Some("-x".into()))))),
        ),
        ("history -- -x", node(Command::History(history(|q| q.peer = Some("-x".into()))))),
        (
            "history --export 'my file' --format csv",
            session(SessionCommand::Export {
                query: history(|q| q.limit = MAX_HISTORY_ROWS),
                file: "my file".into(),
                format: Format::Csv,
            }),
        ),
        (
            "history -n 3 --export a.txt",
            session(SessionCommand::Export {
                query: history(|q| q.limit = 3),
                file: "a.txt".into(),
                format: Format::Txt,
            }),
        ),
        ("outbox", node(Command::Outbox)),
        ("peers", node(Command::Peers)),
        ("list-peers", node(Command::Peers)),
        ("members", node(Command::Peers)),
        ("whois bob", node(Command::Whois { peer: bob() })),
        ("connect bob", node(Command::Connect { peer: bob() })),
        ("connect localhost 4001", node(Command::Connect { peer: "localhost:4001".into() })),
        ("join ::1 4001", node(Command::Connect { peer: "[::1]:4001".into() })),
        ("join /ip4/192.0.2.7/tcp/4001", node(Command::Connect { peer: "/ip4/192.0.2.7/tcp/4001".into() })),
        ("disconnect bob", node(Command::Disconnect { peer: bob() })),
        ("remove bob", node(Command::Disconnect { peer: bob() })),
        ("block", node(Command::Blocked)),
        ("block bob", node(Command::Block { peer: bob() })),
        ("unblock bob", node(Command::Unblock { peer: bob() })),
        ("trust bob", node(Command::Trust { peer: bob() })),
        ("reconnect bob", node(Command::Reconnect { peer: bob() })),
        ("health bob", node(Command::Health { peer: bob() })),
        ("health-check 192.0.2.7 4001", node(Command::Health { peer: "192.0.2.7:4001".into() })),
        ("ping bob", node(Command::Ping { peer: bob() })),
        ("why bob", node(Command::Why { peer: bob() })),
        ("liveness", node(Command::Liveness)),
        ("doctor", node(Command::Doctor)),
        ("gossip on", node(Command::Exchange { on: Some(true), every: None })),
        ("gossip off", node(Command::Exchange { on: Some(false), every: None })),
        ("gossip 10", node(Command::Exchange { on: None, every: Some(Duration::from_secs(10)) })),
        ("gossip interval 0.5", node(Command::Exchange { on: None, every: Some(Duration::from_millis(500)) })),
        ("gossip status", node(Command::Exchange { on: None, every: None })),
        ("wait dead bob", wait(Condition::Dead(bob()), None)),
        ("nick 'Anna B'", node(Command::Nick { name: "Anna B".into() })),
        ("team red", node(Command::Team { team: "red".into() })),
        ("seeds", node(Command::Seeds)),
        ("status", node(Command::Status)),
        ("config", node(Command::Config)),
        ("config get --fanout", node(Command::ConfigGet { key: "fanout".into() })),
        ("config set fanout -1", node(Command::ConfigSet { key: "fanout".into(), value: "-1".into() })),
        ("config set name ''", node(Command::ConfigSet { key: "name".into(), value: String::new() })),
        ("menu", session(SessionCommand::Menu)),
        ("clear", session(SessionCommand::Clear)),
        ("help", session(SessionCommand::Help { topic: None })),
        ("help compat", session(SessionCommand::Help { topic: Some("compat".into()) })),
        ("quit", node(Command::Quit)),
        ("exit", session(SessionCommand::LeaveOrQuit)),
        ("wait peer 3", wait(Condition::Peers(3), None)),
        ("wait peer bob --timeout 2m", wait(Condition::Peer(bob()), seconds(120))),
        (r"wait message ^a \d+ 'b$  --timeout 5", wait(Condition::Message(r"^a \d+ 'b$".into()), seconds(5))),
        (r"wait message 'a --timeout b' --timeout=5", wait(Condition::Message("a --timeout b".into()), seconds(5))),
        ("wait message a --timeout b --timeout 5", wait(Condition::Message("a --timeout b".into()), seconds(5))),
        ("wait message a --timeouts", wait(Condition::Message("a --timeouts".into()), None)),
        ("wait message \" a \"", wait(Condition::Message(" a ".into()), None)),
        ("send a.txt bob", send(&["a.txt"], &["bob"])),
        ("send 'my file' bob eve", send(&["my file"], &["bob", "eve"])),
        ("send a b --to bob eve", send(&["a", "b"], &["bob", "eve"])),
        ("send --to=bob --to eve -- -rf", send(&["-rf"], &["bob", "eve"])),
        ("send a 192.0.2.7 4001 bob 7", send(&["a"], &["192.0.2.7:4001", "bob", "7"])),
        ("send a host 4001", send(&["a"], &["host:4001"])),
        ("receive", node(Command::Receive)),
        ("receive auto on", node(Command::ReceiveAuto { on: true })),
        ("receive auto off", node(Command::ReceiveAuto { on: false })),
        ("accept 0a", node(Command::Accept { id: "0a".into(), folder: None })),
        ("reject 0a", node(Command::Reject { id: "0a".into() })),
        ("transfers", node(Command::Transfers { id: None })),
        ("pause 0a", node(Command::Pause { id: "0a".into() })),
        ("resume 0a", node(Command::Resume { id: "0a".into() })),
        ("cancel 0a", node(Command::Cancel { id: "0a".into() })),
        ("stats", node(Command::Transfers { id: None })),
        ("stats 0a", node(Command::Transfers { id: Some("0a".into()) })),
        (
            "stats 0a --csv x",
            session(SessionCommand::Stats { id: Some("0a".into()), file: "x".into(), format: Format::Csv }),
        ),
        ("stats --json x", session(SessionCommand::Stats { id: None, file: "x".into(), format: Format::Json })),
        ("wait transfer", wait(Condition::Transfer(None), None)),
        ("wait transfer 0a --timeout 5", wait(Condition::Transfer(Some("0a".into())), seconds(5))),
        ("wait delivered", wait(Condition::Delivered(None), None)),
        ("wait delivered 0a --timeout 5", wait(Condition::Delivered(Some("0a".into())), seconds(5))),
        ("expect peer 3", session(SessionCommand::Expect { condition: Condition::Peers(3) })),
        ("expect message hi", session(SessionCommand::Expect { condition: Condition::Message("hi".into()) })),
        ("sleep 1.5", session(SessionCommand::Sleep(Duration::from_millis(1500)))),
        (r"source 'C:\my file'", session(SessionCommand::Source(r"C:\my file".into()))),
        ("echo  it's  half way ", session(SessionCommand::Echo("it's  half way ".into()))),
        ("echo", session(SessionCommand::Echo(String::new()))),
    ]
}

#[test]
fn lines_that_are_right() {
    for (line, expected) in right() {
        assert_eq!(parsed(line).as_ref(), Ok(&expected), "{line}");
    }
}

#[test]
fn every_word_of_the_table_is_tried_and_named() {
    let tried: BTreeSet<_> =
        right().iter().map(|(line, _)| command_word(line).0.to_owned()).filter(|word| !word.is_empty()).collect();
    let table: BTreeSet<_> = TOPICS
        .iter()
        .flat_map(|topic| std::iter::once(topic.name).chain(topic.aliases.iter().copied()))
        .map(str::to_owned)
        .collect();
    assert_eq!(tried, table);
    for topic in TOPICS {
        assert!(parsed(topic.example).is_ok(), "{}", topic.example);
        assert_eq!(name(topic.example), topic.name);
        assert_eq!(topic.form.split(' ').next(), Some(topic.name));
        for alias in topic.aliases {
            assert_eq!(name(&format!(" /{alias} x")), topic.name);
        }
    }
    assert_eq!(name("@bob hi"), "msg");
    assert_eq!(name("frobnicate now"), "frobnicate");
    assert_eq!(name("  "), "");
}

#[test]
fn lines_that_are_wrong_say_what_would_be_right() {
    for (line, why) in [
        ("msg", "PEER is missing"),
        ("msg ''", "PEER is missing"),
        ("msg bob", "TEXT is missing"),
        ("msg bob  ", "TEXT is missing"),
        ("msg bob \"\"", "TEXT is missing"),
        ("msg 'bob hi", "a ' is not closed"),
        ("@", "PEER is missing"),
        ("@bob", "TEXT is missing"),
        ("gossip", "start, on, off, a pause or status is missing"),
        ("gossip now", "'now' is nothing that gossip does"),
        ("gossip 0", "the pause is 0"),
        ("gossip interval", "the pause in seconds is missing"),
        ("gossip on now", "'now' is too much"),
        ("gossip on --count 3", "--count and --every belong to `gossip start`"),
        ("send", "PATH is missing"),
        ("send a", "PEER is missing"),
        ("send a --to", "PEER is missing"),
        ("send --to bob", "PATH is missing"),
        ("send '' bob", "PATH is missing"),
        ("send a bob --fast", "no option '--fast'"),
        ("send - bob", "standard input"),
        ("receive auto", "on or off is missing"),
        ("receive now", "'now' is too much"),
        ("receive auto on now", "'now' is too much"),
        ("accept", "ID is missing"),
        ("stats --json a --csv b", "one of --json and --csv"),
        ("stats a b", "'b' is too much"),
        ("wait dead", "PEER is missing"),
        ("chat", "PEER is missing"),
        ("chat a b", "'b' is too much"),
        ("history a b", "'b' is too much"),
        ("history ''", "PEER is missing"),
        ("history -n", "the value of -n is missing"),
        ("history -n 0", "'0' is no number from 1 to 100000"),
        ("history -n 99999999999999999999", "is no number"),
        ("history -n 1 -n 2", "-n stands twice"),
        ("history --limit 3", "no option '--limit'"),
        ("history --since never", "'never' is no time"),
        ("history --search ''", "what --search looks for is missing"),
        ("history --format csv", "--format needs --export"),
        ("history --export x", "--format json|csv|txt is missing"),
        ("history --export x --format xml", "'xml' is no format"),
        ("outbox now", "'now' is too much"),
        ("peers --json", "'--json' is too much"),
        ("whois", "PEER is missing"),
        ("whois --all", "no option '--all'"),
        ("connect", "ADDR is missing"),
        ("connect a 0", "'0' is no port"),
        ("connect a 70000", "'70000' is no port"),
        ("connect /ip4/192.0.2.7 1", "is no host"),
        ("connect a 1 b", "'b' is too much"),
        ("disconnect", "PEER is missing"),
        ("block a b", "'b' is too much"),
        ("block ''", "PEER is missing"),
        ("unblock", "PEER is missing"),
        ("trust", "PEER is missing"),
        ("nick", "NAME is missing"),
        ("nick Anna B", "'B' is too much"),
        ("team ''", "NAME is missing"),
        ("seeds x", "'x' is too much"),
        ("status x", "'x' is too much"),
        ("config got", "not 'got'"),
        ("config get", "K is missing"),
        ("config get a b", "'b' is too much"),
        ("config set", "K is missing"),
        ("config set --", "V is missing"),
        ("config set a", "V is missing"),
        ("config set a b c", "'c' is too much"),
        ("clear x", "'x' is too much"),
        ("help a b", "'b' is too much"),
        ("quit now", "'now' is too much"),
        ("exit now", "'now' is too much"),
        ("wait", "the condition is missing"),
        ("wait rain", "'rain' is no condition"),
        ("wait peer", "N or PEER is missing"),
        ("wait peer 99999999999999999999", "too large"),
        ("wait peer a b", "'b' is too much"),
        ("wait message", "REGEX is missing"),
        ("wait message --timeout 5", "REGEX is missing"),
        ("wait message ''", "is empty"),
        ("wait message 'a' b", "'b' stands behind the quoted REGEX"),
        ("wait message a --timeout", "the value of --timeout is missing"),
        ("wait message a --timeout soon", "'soon' is no time span"),
        ("wait delivered --timeout -1", "'-1' is no time span"),
        ("wait delivered ''", "is empty"),
        ("expect delivered --timeout 1", "no option '--timeout'"),
        ("expect message a --timeout 1", "no option '--timeout'"),
        ("sleep", "S is missing"),
        ("sleep NaN", "'NaN' is no time span"),
        ("sleep 1e400", "is no time span"),
        ("source", "FILE is missing"),
        ("source a b", "'b' is too much"),
    ] {
        let error = parsed(line).expect_err(line);
        assert_eq!(error.code, ErrorCode::Usage, "{line}: {error}");
        assert!(error.message.contains(why), "{line}: {error}");
        let topic = help::resolve(name(line)).unwrap();
        assert!(error.message.contains(topic.form) && error.message.contains(topic.example), "{line}: {error}");
        assert!(!error.message.contains('\n'), "{line}: {error}");
    }
}

#[test]
fn an_unknown_command_names_the_nearest() {
    for (line, message) in [
        ("histroy bob", "there is no command 'histroy'; did you mean `history`? `help` lists all"),
        ("/PEERS", "there is no command 'PEERS'; did you mean `peers`? `help` lists all"),
        ("brodcast hi", "there is no command 'brodcast'; did you mean `broadcast`? `help` lists all"),
        ("/", "no command stands behind the /; `help` lists all"),
        ("\u{1b}[2J", "there is no command '\\u{1b}[2J'; `help` lists all"),
    ] {
        assert_eq!(parsed(line), Err(ApiError::new(ErrorCode::UnknownCommand, message)), "{line}");
    }
}

#[test]
fn a_text_may_have_64_kib_and_no_byte_more() {
    let most = "ä".repeat(MAX_TEXT_BYTES / 2);
    assert_eq!(text(&format!("msg bob {most}")), most);
    for line in [format!("msg bob {most}x"), format!("@bob \"{most}x\"")] {
        let error = parsed(&line).unwrap_err();
        assert_eq!(error.code, ErrorCode::Usage);
        assert!(error.message.contains("65537 bytes") && error.message.contains("65536"), "{error}");
    }
}

/// Lines that begin like a command, so that the arguments are reached too.
fn commandlike() -> impl Strategy<Value = String> {
    let word = proptest::sample::select(TOPICS).prop_map(|topic| topic.name);
    let piece = prop_oneof![
        Just(" --timeout".to_owned()),
        Just(" message ".to_owned()),
        Just(" peer ".to_owned()),
        Just(" --since ".to_owned()),
        Just(" -n".to_owned()),
        Just(" set".to_owned()),
        "[ '\"\\\\a0-9.=:T-]{0,8}",
        any::<String>(),
    ];
    (word, proptest::collection::vec(piece, 0..6)).prop_map(|(word, pieces)| format!("{word} {}", pieces.concat()))
}

proptest! {
    #[test]
    fn nothing_that_is_typed_ends_the_parser(line in any::<String>(), like in commandlike()) {
        for line in [line, like] {
            let _ = name(&line);
            if let Err(error) = parsed(&line) {
                prop_assert!(!error.message.chars().any(char::is_control), "{error:?}");
                prop_assert!(error.message.len() < 2048);
            }
        }
    }

    #[test]
    fn any_text_can_be_given_as_a_json_string(sent in any::<String>().prop_filter("a text", |text| !text.is_empty())) {
        let line = format!("msg bob {} ", serde_json::to_string(&sent).unwrap());
        prop_assert_eq!(text(&line), sent);
    }

    #[test]
    fn a_raw_text_arrives_byte_for_byte(sent in "[^\" \t\r\n\u{c}](?s:.){0,200}") {
        prop_assert_eq!(text(&format!("msg bob {sent}")), sent.clone());
        prop_assert_eq!(text(&format!("@bob  {sent}")), sent);
    }
}
