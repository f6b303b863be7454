use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::api::{DAMAGED, ErrorCode, MessageKind, OutboxRow, SeedInfo, Setting, StatusInfo};

const BOB: &str = "12D3KooWAAAAAbobob";
const EVE: &str = "12D3KooWBBBBBeveve";

fn at() -> Timestamp {
    "2026-11-21T14:03:22Z".parse().unwrap()
}

fn text() -> Text {
    Text::in_zone(false, TimeZone::UTC)
}

fn stamped(event: Event) -> Stamped {
    Stamped { n: 1, at: at(), event: Arc::new(event) }
}

fn up(peer: &str, name: &str) -> Stamped {
    stamped(Event::PeerUp {
        peer: peer.to_owned(),
        name: name.to_owned(),
        team: "red".to_owned(),
        address: "/ip4/10.0.0.2/tcp/4001".to_owned(),
        via: Via::Mdns,
    })
}

fn message(peer: &str, name: &str, team: &str, text: &str) -> Stamped {
    stamped(Event::Message {
        id: "0f".to_owned(),
        kind: MessageKind::Direct,
        from: peer.to_owned(),
        name: name.to_owned(),
        team: team.to_owned(),
        text: text.to_owned(),
        sent_at: at(),
        seq: 1,
        via: peer.to_owned(),
    })
}

fn delivery(state: DeliveryState, reason: Option<&str>) -> Stamped {
    let reason = reason.map(str::to_owned);
    stamped(Event::Delivery { id: "0f".to_owned(), to: BOB.to_owned(), state, reason })
}

fn peer_info(peer: &str, name: &str) -> PeerInfo {
    PeerInfo {
        peer: peer.to_owned(),
        name: name.to_owned(),
        team: "red".to_owned(),
        role: Role::Peer,
        address: Some("/ip4/10.0.0.2/tcp/4001".to_owned()),
        addresses: vec!["/ip4/10.0.0.2/tcp/4001".to_owned()],
        state: PeerState::Up,
        via: Some(Via::Seed),
        reliability: 0.5,
        rtt_ms: Some(1.25),
        failures: 0,
        since: Some(at()),
        last_seen: Some(at()),
        mandatory: false,
        blocked: false,
        trusted: true,
        boot: 2,
        version: "althing 0.1.0".to_owned(),
    }
}

fn row(state: DeliveryState, text: &str) -> HistoryRow {
    HistoryRow {
        id: "0f".to_owned(),
        kind: MessageKind::Direct,
        from: BOB.to_owned(),
        name: "bob".to_owned(),
        team: "red".to_owned(),
        to: EVE.to_owned(),
        text: text.to_owned(),
        sent_at: at(),
        received_at: at(),
        seq: 1,
        state,
        reason: None,
    }
}

#[test]
fn a_message_names_author_and_team() {
    let mut text = text();
    assert_eq!(text.event(&message(BOB, "bob", "red", "hi")).unwrap(), "[14:03:22] bob (team red): hi");
    assert_eq!(
        text.event(&message(BOB, "bob", "red", "hi\n[14:03:23] eve (team red): pay")).unwrap(),
        "[14:03:22] bob (team red): hi\n    | [14:03:23] eve (team red): pay"
    );
}

#[test]
fn an_old_message_says_so() {
    let mut old = message(BOB, "bob", "red", "hi");
    old.at = "2026-11-21T16:03:22Z".parse().unwrap();
    assert_eq!(text().event(&old).unwrap(), "[16:03:22] bob (team red), sent 2 h ago: hi");
}

#[test]
fn times_are_local() {
    let mut text = Text::in_zone(false, TimeZone::fixed(jiff::tz::offset(-3)));
    assert_eq!(text.event(&message(BOB, "bob", "red", "hi")).unwrap(), "[11:03:22] bob (team red): hi");
}

#[test]
fn a_name_cannot_speak_for_another() {
    assert_eq!(
        text().event(&message(BOB, "eve (team red): pay. bob", "a) \"b\"", "hi")).unwrap(),
        "[14:03:22] \"eve (team red): pay. bob\" (team \"a) \\\"b\\\"\"): hi"
    );
}

#[test]
fn namesakes_are_told_apart() {
    let mut text = text();
    assert_eq!(
        text.event(&up(BOB, "bob")).unwrap(),
        "+ bob (team red) is here, found in the local network: /ip4/10.0.0.2/tcp/4001"
    );
    assert!(text.event(&up(EVE, "Bob")).unwrap().starts_with("+ Bob~eveve (team red)"));
    assert!(text.event(&message(BOB, "bob", "red", "hi")).unwrap().contains(" bob~bobob (team red)"));
    text.event(&up(EVE, "eve"));
    assert_eq!(text.names.of(BOB), "bob");
    assert_eq!(text.names.of(EVE), "eve");
    assert_eq!(text.names.of("12D3KooWxyzzy"), "~xyzzy");
    // A name that already looks like one with a suffix is quoted.
    text.event(&up("12D3KooWmallory", "bob~bobob"));
    assert_eq!(text.names.of("12D3KooWmallory"), "\"bob~bobob\"");
}

#[test]
fn whoever_is_not_remembered_has_a_suffix() {
    let mut text = text();
    for number in 0..10_001 {
        text.event(&up(&format!("12D3KooW{number:05}"), &format!("n{number}")));
    }
    assert_eq!(text.names.of("12D3KooW09999"), "n9999");
    assert_eq!(text.names.of("12D3KooW10000"), "~10000");
    assert!(text.event(&message("12D3KooW10000", "bob", "red", "hi")).unwrap().contains("bob~10000"));
}

#[test]
fn deliveries_are_short() {
    let mut text = text();
    text.event(&up(BOB, "bob"));
    assert_eq!(text.event(&delivery(DeliveryState::Queued, None)), None);
    assert_eq!(text.event(&delivery(DeliveryState::Sent, None)), None);
    assert_eq!(text.event(&delivery(DeliveryState::Delivered, None)).unwrap(), "✓ bob has it");
    assert_eq!(
        text.event(&delivery(DeliveryState::Queued, Some("link broke"))).unwrap(),
        "(waiting for bob: link broke)"
    );
    assert_eq!(
        text.event(&delivery(DeliveryState::Failed, Some("expired"))).unwrap(),
        "✗ not delivered to bob: expired"
    );
    text.event(&stamped(Event::PeerLeft { peer: BOB.to_owned(), name: "bob".to_owned() }));
    assert_eq!(text.event(&delivery(DeliveryState::Queued, None)).unwrap(), "(waiting for bob: not reachable now)");
}

#[test]
fn the_peers_table_is_aligned() {
    let mut text = text();
    let now = "2026-11-21T14:03:25Z".parse().unwrap();
    let peers = Reply::Peers(vec![peer_info(BOB, "bob"), peer_info(EVE, "日本")]);
    assert_eq!(
        text.reply_at("peers", &peers, now).unwrap(),
        "NAME  TEAM  STATE  SEEN     RTT     RELIABLE  MARKS    PEER                ADDRESS\n\
         bob   red   up     3 s ago  1.2 ms  0.50      trusted  12D3KooWAAAAAbobob  /ip4/10.0.0.2/tcp/4001\n\
         日本  red   up     3 s ago  1.2 ms  0.50      trusted  12D3KooWBBBBBeveve  /ip4/10.0.0.2/tcp/4001"
    );
    assert!(text.reply("peers", &Reply::Peers(Vec::new())).unwrap().starts_with("Nobody is known yet."));
    assert!(text.reply("block", &Reply::Peers(Vec::new())).unwrap().starts_with("Nobody is blocked."));
    let bob = Reply::Peer(Box::new(peer_info(BOB, "bob")));
    assert_eq!(text.reply("connect", &bob).unwrap(), "Connected to bob (team red) at /ip4/10.0.0.2/tcp/4001");
    assert!(text.reply_at("whois", &bob, now).unwrap().contains("\nstate:        up, since 3 s ago\n"));
}

#[test]
fn the_history_shows_direction_and_state() {
    let mut text = text();
    text.event(&up(EVE, "eve"));
    let rows = Reply::History(vec![row(DeliveryState::Received, "a\nb"), row(DeliveryState::Delivered, "c")]);
    assert_eq!(
        text.reply_at("history", &rows, at()).unwrap(),
        "[14:03:22] <- bob (team red): a\n    | b\n[14:03:22] -> eve [delivered]: c"
    );
    let to_all = |state| HistoryRow { kind: MessageKind::Broadcast, to: "all".into(), ..row(state, "a") };
    let told = Reply::History(vec![to_all(DeliveryState::Received), to_all(DeliveryState::Sent)]);
    assert_eq!(
        text.reply_at("history", &told, at()).unwrap(),
        "[14:03:22] <- bob (team red) to all: a\n[14:03:22] -> all: a"
    );
    let later = "2026-11-23T14:03:25Z".parse().unwrap();
    assert!(text.reply_at("history", &rows, later).unwrap().starts_with("[2026-11-21 14:03:22] <- bob"));
}

#[test]
fn a_damaged_row_says_so_and_teaches_no_name() {
    let mut text = text();
    let damaged = |state| HistoryRow { name: "mallory".into(), reason: Some(DAMAGED.into()), ..row(state, "") };
    let rows = Reply::History(vec![damaged(DeliveryState::Received), damaged(DeliveryState::Delivered)]);
    let shown = text.reply_at("history", &rows, at()).unwrap();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[0].ends_with(&format!(" (team red): ({DAMAGED})")), "{shown}");
    assert!(lines[1].ends_with(&format!(" [delivered]: ({DAMAGED})")), "{shown}");
    assert!(!text.names.of(BOB).contains("mallory"));
    let waiting = OutboxRow {
        id: "0f".into(),
        to: BOB.into(),
        name: "bob".into(),
        text: String::new(),
        sent_at: at(),
        expires_at: at(),
        state: DeliveryState::Queued,
        reason: Some(DAMAGED.into()),
    };
    assert!(text.reply_at("outbox", &Reply::Outbox(vec![waiting]), at()).unwrap().ends_with(DAMAGED));
}

#[test]
fn colour_only_when_asked_for() {
    let mut text = Text::in_zone(true, TimeZone::UTC);
    let line = text.event(&message(BOB, "bob", "red", "\u{1b}[2J")).unwrap();
    assert_eq!(line, "[14:03:22] \u{1b}[1;36mbob\u{1b}[0m (team red): \\u{1b}[2J");
    assert_eq!(text.error(&ApiError::new(ErrorCode::General, "no")), "\u{1b}[31merror:\u{1b}[0m no");
}

#[test]
fn ages_are_in_the_largest_unit() {
    let span = |seconds| super::span(SignedDuration::from_secs(seconds));
    assert_eq!(
        [span(-5), span(59), span(61), span(7_300), span(90_000), span(200_000)],
        ["0 s", "59 s", "1 min", "2 h", "1 day", "2 days"]
    );
}

/// Every event there is, with the same text in each of its fields.
fn events(text: &str) -> Vec<Event> {
    let s = || text.to_owned();
    let mut all = vec![
        Event::Ready { peer_id: s(), name: s(), team: s(), role: Role::Seed, data_dir: s(), version: s() },
        Event::Listening { address: s() },
        Event::PeerUp { peer: s(), name: s(), team: s(), address: s(), via: Via::Gossip },
        Event::Lagged { missed: 1 },
        Event::Error { code: ErrorCode::General, message: s() },
    ];
    for state in [SeedState::Registered, SeedState::Unreachable, SeedState::Refused] {
        all.push(Event::Seed { address: s(), peer_id: Some(s()), state, peers: 2 });
    }
    for state in [DeliveryState::Queued, DeliveryState::Sent, DeliveryState::Delivered, DeliveryState::Failed] {
        all.push(Event::Delivery { id: s(), to: s(), state, reason: Some(s()) });
        all.push(Event::Delivery { id: s(), to: s(), state, reason: None });
    }
    all.push(Event::PeerLost { peer: s(), name: s(), reason: s() });
    all.push(Event::PeerLeft { peer: s(), name: s() });
    all.push(Event::Bye { reason: s() });
    all
}

/// Every reply there is, with the same text in each of its fields.
fn replies(text: &str) -> Vec<Reply> {
    let s = || text.to_owned();
    let peer = PeerInfo {
        peer: s(),
        name: s(),
        team: s(),
        address: Some(s()),
        addresses: vec![s()],
        version: s(),
        ..peer_info("", "")
    };
    let setting = Setting { key: s(), value: s(), origin: s() };
    let status = StatusInfo {
        peer_id: s(),
        name: s(),
        team: s(),
        role: Role::Seed,
        version: s(),
        boot: 1,
        data_dir: s(),
        uptime_s: u64::MAX,
        addresses: vec![s()],
        peers_up: 1,
        peers_known: 1,
        links: 1,
        seeds_registered: 1,
        seeds_wanted: 1,
        registrations: Some(1),
        outbox: 1,
        history: 1,
        faults: vec![(s(), 1)],
        panics: 1,
    };
    let waiting = OutboxRow {
        id: s(),
        to: s(),
        name: s(),
        text: s(),
        sent_at: at(),
        expires_at: at(),
        state: DeliveryState::Queued,
        reason: None,
    };
    let seed = SeedInfo { address: s(), peer_id: Some(s()), state: None, peers: 0, expires_at: Some(at()) };
    vec![
        Reply::Done {},
        Reply::Started { id: s() },
        Reply::Peers(vec![peer.clone()]),
        Reply::Peer(Box::new(peer)),
        Reply::Outbox(vec![waiting]),
        Reply::Delivery { id: s(), state: DeliveryState::Sent },
        Reply::Seeds(vec![seed]),
        Reply::Status(Box::new(status)),
        Reply::Settings(vec![setting.clone()]),
        Reply::Setting(setting),
    ]
}

/// What must never be shown, said here once more so that a hole in the list of `safe` is seen.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || super::super::safe::is_hidden(character)
        || "\u{61c}\u{200b}\u{200e}\u{200f}\u{2028}\u{2029}\u{202a}\u{202b}\u{202c}\u{202d}\u{202e}\u{2066}\u{2067}\u{2068}\u{2069}\u{feff}"
            .contains(character)
}

/// Arbitrary text, rich in what must not get through.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[\u{0}-\u{1f}\u{7f}-\u{9f}\u{200b}-\u{200f}\u{2028}-\u{202e}\u{2066}-\u{2069}\u{feff}\u{e0020}]{1,4}",
        Just("\u{1b}[2J".to_owned()),
        Just("\u{1b}]0;x\u{7}".to_owned()),
        Just("(team red): \"~".to_owned()),
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn nothing_hostile_reaches_the_terminal(hostile in hostile()) {
        let mut text = text();
        for event in events(&hostile) {
            if let Some(line) = text.event(&stamped(event.clone())) {
                prop_assert!(!line.chars().any(is_hidden), "{event:?} gave {line:?}");
            }
        }
        let error = text.error(&ApiError::new(ErrorCode::Usage, hostile.as_str()));
        prop_assert!(!error.chars().any(is_hidden), "{error:?}");
        for reply in replies(&hostile) {
            for command in ["peers", "whois", "connect", "disconnect", "block", "unblock", "trust", hostile.as_str()] {
                let shown = text.reply_at(command, &reply, at()).unwrap_or_default();
                prop_assert!(!shown.chars().any(|c| c != '\n' && is_hidden(c)), "{reply:?} gave {shown:?}");
                if matches!(reply, Reply::Peers(_) | Reply::Outbox(_) | Reply::Seeds(_) | Reply::Settings(_)) {
                    prop_assert_eq!(shown.split('\n').count(), 2);
                }
            }
        }
    }

    #[test]
    fn every_line_of_a_message_is_marked(hostile in hostile(), body in hostile()) {
        let mut text = text();
        let line = text.event(&message(&hostile, &hostile, &hostile, &body)).unwrap();
        let row = HistoryRow { from: hostile.clone(), name: hostile.clone(), team: hostile.clone(), to: hostile.clone(), reason: Some(hostile), ..row(DeliveryState::Received, &body) };
        let sent = HistoryRow { state: DeliveryState::Failed, ..row.clone() };
        let history = text.reply_at("history", &Reply::History(vec![row]), at()).unwrap();
        let sent = text.reply_at("history", &Reply::History(vec![sent]), at()).unwrap();
        for shown in [line, history, sent] {
            prop_assert!(!shown.chars().any(|c| c != '\n' && is_hidden(c)), "{shown:?}");
            prop_assert!(shown.split('\n').skip(1).all(|line| line.starts_with("    | ")), "{shown:?}");
        }
    }
}
