use std::fs;

use super::*;

/// Flags as they would be typed, each `--key value`; everything lies in a folder that does not exist.
fn load(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, ApiError> {
    load_in("/nonexistent/althing", flags, variables)
}

fn load_in(folder: &str, flags: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<Config, ApiError> {
    let mut given = Given::new();
    for (key, value) in flags.iter().chain(&[("data-dir", folder)]) {
        given.entry((*key).to_owned()).or_default().push((*value).to_owned());
    }
    Config::load(&given, &variables.iter().copied().collect())
}

fn refused(flags: &[(&str, &str)], variables: &[(&str, &str)]) -> String {
    let error = load(flags, variables).expect_err(&format!("{flags:?} {variables:?} was taken"));
    assert_eq!(error.code, ErrorCode::Usage, "{error}");
    assert_eq!(error.message.lines().count(), 1, "{error}");
    error.message
}

fn strings(addresses: &[Multiaddr]) -> Vec<String> {
    addresses.iter().map(Multiaddr::to_string).collect()
}

#[test]
fn every_flag_is_a_setting_and_the_reverse() {
    let mut flags = crate::cli::flags();
    let mut keys = TABLE.iter().map(|row| row.key.to_owned()).collect::<Vec<_>>();
    flags.sort();
    keys.sort();
    assert_eq!(flags, keys);
}

#[test]
fn defaults() {
    let config = load(&[], &[("USER", "ann")]).unwrap();
    assert_eq!((config.role, config.name.as_str(), config.team.as_str()), (Role::Peer, "ann", "althing"));
    assert_eq!(strings(&config.listen), ["/ip4/0.0.0.0/tcp/0", "/ip6/::/tcp/0"]);
    assert!(config.seeds.is_empty() && config.peers.is_empty() && config.mdns);
    assert_eq!((config.fanout, config.dial_timeout), (4, Duration::from_secs(3)));
    assert_eq!(config.message_expiry, Duration::from_secs(7 * 86_400));
    let stock = broadcast::Config::default();
    assert_eq!((config.keep_broadcasts, config.keep_broadcasts_for), (stock.retained_messages, stock.retention));
    assert_eq!(config.shell, Shell::default());
    let listen = config.get("listen").unwrap();
    assert_eq!((listen.value.as_str(), listen.origin.as_str()), ("/ip4/0.0.0.0/tcp/0,/ip6/::/tcp/0", "default"));
    assert_eq!(config.get("data-dir").unwrap().value, "/nonexistent/althing");
    assert_eq!(config.settings().len(), TABLE.len());
}

#[test]
fn a_stronger_source_goes_first() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().to_str().unwrap();
    fs::write(folder.path().join("config.toml"), "timeout = 9\nfanout = 9\nteam = \"file\"\n").unwrap();
    let origin = |config: &Config| {
        let timeout = config.get("timeout").unwrap();
        (timeout.value, timeout.origin)
    };
    let all = [("ALTHING_TIMEOUT", "7s"), ("CONNECTION_TIMEOUT", "8")];
    let config = load_in(dir, &[("timeout", "6")], &all).unwrap();
    assert_eq!(origin(&config), ("6".into(), "flag".into()));
    assert_eq!(config.dial_timeout, Duration::from_secs(6));
    assert_eq!(config.team, "file");
    let config = load_in(dir, &[], &all).unwrap();
    assert_eq!(origin(&config), ("7s".into(), "ALTHING_TIMEOUT".into()));
    let config = load_in(dir, &[], &all[1..]).unwrap();
    assert_eq!(origin(&config), ("8".into(), "CONNECTION_TIMEOUT".into()));
    let config = load_in(dir, &[], &[]).unwrap();
    assert_eq!(origin(&config), ("9".into(), "file".into()));
    let config = load(&[], &[]).unwrap();
    assert_eq!(origin(&config), ("3.0".into(), "default".into()));
    // An empty variable is how container tools pass one that was not set.
    let config = load(&[], &[("ALTHING_TIMEOUT", " ")]).unwrap();
    assert_eq!(origin(&config).1, "default");
}

#[test]
fn the_file_holds_lists_numbers_and_switches() {
    let folder = tempfile::tempdir().unwrap();
    let text = "seed = [\"/ip4/192.0.2.7/tcp/1\", \"/dns/seed.example/tcp/2\"]\nmdns = false\nmessage_expiry = \"2m\"\n\
                keep-broadcasts = 500\nkeep-broadcasts-for = \"2h\"\n\
                timeout = 2.5\njson = true\nseeds-file = \"seeds.json\"\nlog-file = \"n.log\"\n";
    fs::write(folder.path().join("config.toml"), text).unwrap();
    fs::write(folder.path().join("seeds.json"), r#"{"seeds":["/ip4/192.0.2.8/tcp/3"]}"#).unwrap();
    let config = load_in(folder.path().to_str().unwrap(), &[], &[]).unwrap();
    let seeds = config.seeds.iter().map(|seed| seed.text.as_str()).collect::<Vec<_>>();
    assert_eq!(seeds, ["/ip4/192.0.2.7/tcp/1", "/dns/seed.example/tcp/2", "/ip4/192.0.2.8/tcp/3"]);
    assert!(!config.mdns && config.shell.json);
    assert_eq!(config.message_expiry, Duration::from_secs(120));
    assert_eq!((config.keep_broadcasts, config.keep_broadcasts_for), (500, Duration::from_secs(2 * 3_600)));
    assert_eq!(config.dial_timeout, Duration::from_millis(2500));
    assert_eq!(config.paths.log_file, Some(folder.path().join("n.log")));
}

#[test]
fn a_wrong_file_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.toml");
    for (text, part) in [
        ("fanuot = 3", "nearest one is fanout"),
        ("a = 1\nb = = 2", "line 2"),
        ("port = 80", "port in"),
        ("seed = \"/ip4/192.0.2.7/tcp/1\"", "list"),
        ("name = [\"a\"]", "text"),
        ("[network]\nport = 0", "no setting"),
        ("script = \"x\"", "cannot stand in a file"),
    ] {
        fs::write(&file, text).unwrap();
        let error = load_in(folder.path().to_str().unwrap(), &[], &[]).expect_err(text);
        assert_eq!(error.code, ErrorCode::Usage);
        assert!(error.message.contains(part) && error.message.contains("config.toml"), "{text}: {error}");
        assert_eq!(error.message.lines().count(), 1, "{error}");
    }
    assert!(refused(&[("config", "/nonexistent/x.toml")], &[]).contains("/nonexistent/x.toml"));
    fs::write(&file, [0xff, 0xfe]).unwrap();
    assert!(load_in(folder.path().to_str().unwrap(), &[], &[]).is_err());
}

#[test]
fn a_data_dir_of_the_file_moves_everything_but_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("node.toml");
    fs::write(&file, "data-dir = \"data\"\nlog-file = \"n.log\"").unwrap();
    let given = Given::from([("config".to_owned(), vec![file.to_str().unwrap().to_owned()])]);
    let config = Config::load(&given, &Environment::default()).unwrap();
    assert_eq!(config.paths.config_file, file);
    assert_eq!(config.paths.database, folder.path().join("data/history.db"));
    assert_eq!(config.paths.log_file, Some(folder.path().join("n.log")));
    let setting = config.get("data-dir").unwrap();
    assert_eq!((setting.value, setting.origin), (folder.path().join("data").display().to_string(), "file".into()));
}

#[test]
fn host_and_port_make_the_addresses() {
    let listen = |flags: &[(&str, &str)]| strings(&load(flags, &[]).unwrap().listen);
    assert_eq!(listen(&[("port", "4001")]), ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]);
    assert_eq!(listen(&[("host", "localhost")]), ["/ip4/127.0.0.1/tcp/0"]);
    assert_eq!(listen(&[("host", "::1"), ("port", "65535")]), ["/ip6/::1/tcp/65535"]);
    assert_eq!(listen(&[("listen", "/ip4/127.0.0.1/tcp/1024")]), ["/ip4/127.0.0.1/tcp/1024"]);
    // The stronger source is taken, two of the same strength contradict each other.
    let config = load(&[("listen", "/ip4/127.0.0.1/tcp/0")], &[("ALTHING_PORT", "4001")]).unwrap();
    assert_eq!(strings(&config.listen), ["/ip4/127.0.0.1/tcp/0"]);
    let config = load(&[("port", "4001")], &[("ALTHING_LISTEN", "/ip4/127.0.0.1/tcp/0")]).unwrap();
    assert_eq!(strings(&config.listen), ["/ip4/0.0.0.0/tcp/4001", "/ip6/::/tcp/4001"]);
    assert_eq!(config.get("listen").unwrap().origin, "flag");
    assert!(refused(&[("listen", "/ip4/127.0.0.1/tcp/0"), ("port", "4001")], &[]).contains("either"));
}

#[test]
fn wrong_values_are_one_sentence_that_names_the_source() {
    for (key, value) in [
        ("port", "80"),
        ("port", "70000"),
        ("port", "-5"),
        ("port", ""),
        ("port", "1023"),
        ("port", "a"),
        ("listen", "nonsense"),
        ("listen", "/ip4/127.0.0.1/tcp/80"),
        ("listen", "/ip4/127.0.0.1"),
        ("listen", "/dns/a/tcp/0"),
        ("listen", "/ip4/127.0.0.1/udp/4001"),
        ("host", "300.1.1.1"),
        ("host", "example.org"),
        ("host", ""),
        ("seed", "not-an-address"),
        ("seed", "/ip4/1.2.3.4"),
        ("seed", "/ip4/1.2.3.4/tcp/0"),
        ("seed", "/ip4/0.0.0.0/tcp/1"),
        ("seed", "/ip4/1.2.3.4/tcp/1/p2p/zzz"),
        ("seed", "/ip4/1.2.3.4/udp/1"),
        ("seed", "/ip4/1.2.3.4/tcp/70000"),
        ("seed", ""),
        ("seed", "/dns/-x/tcp/1"),
        ("peer", "/memory/1"),
        ("peer", "bob"),
        ("role", "king"),
        ("mdns", "maybe"),
        ("fanout", "0"),
        ("fanout", "65"),
        ("fanout", "-1"),
        ("fanout", "4.5"),
        ("timeout", "0"),
        ("timeout", "-1"),
        ("timeout", "inf"),
        ("timeout", "nan"),
        ("timeout", "1e300"),
        ("timeout", "99999999999d"),
        ("timeout", "3x"),
        ("timeout", "s"),
        ("timeout", ""),
        ("timeout", "2h"),
        ("message-expiry", "366d"),
        ("message-expiry", "0s"),
        ("keep-broadcasts", "0"),
        ("keep-broadcasts", "100001"),
        ("keep-broadcasts", "all"),
        ("keep-broadcasts-for", "59s"),
        ("keep-broadcasts-for", "31d"),
        ("keep-broadcasts-for", "long"),
        ("name", ""),
        ("name", "a b"),
        ("name", "a/b"),
        ("name", "\u{1b}[2J"),
        ("team", ""),
        ("team", " x"),
        ("seeds-file", "/nonexistent.json"),
        ("seeds-file", "/"),
        ("data-dir", ""),
        ("log-file", ""),
        ("bootstrap-host", "a b"),
        ("bootstrap-port", "0"),
        ("verbose", "x"),
        ("script", "/nonexistent"),
        ("script", "/"),
        ("script", ""),
    ] {
        if key != "data-dir" {
            let why = refused(&[(key, value)], &[]);
            assert!(why.starts_with(&format!("--{key}: ")), "{why}");
            assert!(!why.contains('\u{1b}'));
        }
        if !value.is_empty() && !value.starts_with(' ') {
            let variable = format!("ALTHING_{}", key.to_uppercase().replace('-', "_"));
            let why = refused(&[], &[(&variable, value)]);
            assert!(why.starts_with(&format!("{variable}: ")), "{why}");
        }
    }
    assert!(refused(&[("seed", "192.0.2.7:4001")], &[]).contains("write /ip4/192.0.2.7/tcp/4001"));
    assert!(refused(&[("seed", "[::1]:4001")], &[]).contains("write /ip6/::1/tcp/4001"));
}

#[test]
fn seeds_are_the_union_of_all_that_name_one() {
    let peer = PeerId::random();
    let whole = format!("/ip4/192.0.2.7/tcp/1/p2p/{peer}");
    let flags = [
        ("seed", "/ip4/192.0.2.7/tcp/1"),
        ("seed", &whole),
        ("bootstrap-host", "seed.example"),
        ("bootstrap-port", "9"),
    ];
    let config = load(&flags, &[]).unwrap();
    assert_eq!(config.seeds.len(), 2);
    assert_eq!((config.seeds[0].peer, config.seeds[0].dial.to_string().as_str()), (Some(peer), "/ip4/192.0.2.7/tcp/1"));
    assert_eq!(config.seeds[1].text, "/dns/seed.example/tcp/9");
    let other = format!("/ip4/192.0.2.7/tcp/1/p2p/{}", PeerId::random());
    assert!(refused(&[("seed", &whole), ("seed", &other)], &[]).contains("two identities"));
    assert!(refused(&[("bootstrap-host", "a")], &[]).contains("--bootstrap-port"));
    assert!(refused(&[("bootstrap-port", "9")], &[]).contains("--bootstrap-host"));
    let config =
        load(&[], &[("ALTHING_SEED", "/ip4/192.0.2.7/tcp/1, /ip4/192.0.2.7/tcp/2\n/ip4/192.0.2.7/tcp/3")]).unwrap();
    assert_eq!(config.seeds.len(), 3);
}

#[test]
fn a_seeds_file_may_hold_every_form() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("seeds.json");
    let file = path.to_str().unwrap();
    let peer = PeerId::random();
    let text = format!(
        r#"{{"seeds":[{{"host":"localhost","port":4001}},{{"host":"::1","port":"4002","peer_id":"{peer}"}},
            {{"host":"seed.example","port":4003,"peer_id":null}},{{"multiaddr":"/dns4/a.example/tcp/1"}},"/ip4/192.0.2.1/tcp/2/p2p/{peer}"]}}"#
    );
    fs::write(&path, text).unwrap();
    let config = load(&[("seeds-file", file)], &[]).unwrap();
    let dials = config.seeds.iter().map(|seed| seed.dial.to_string()).collect::<Vec<_>>();
    assert_eq!(
        dials,
        [
            "/ip4/127.0.0.1/tcp/4001",
            "/ip6/::1/tcp/4002",
            "/dns/seed.example/tcp/4003",
            "/dns4/a.example/tcp/1",
            "/ip4/192.0.2.1/tcp/2"
        ]
    );
    assert_eq!(
        config.seeds.iter().map(|seed| seed.peer).collect::<Vec<_>>(),
        [None, Some(peer), None, None, Some(peer)]
    );
    for (text, part) in [
        ("", "no JSON"),
        ("{", "line 1"),
        ("[]", "no list"),
        (r#"{"seeds":[]}"#, "names no seed"),
        (r#"{"seeds":{}}"#, "no list"),
        (r#"{"seeds":[{"host":"a"}]}"#, "seed 1"),
        (r#"{"seeds":["/ip4/1.2.3.4/tcp/1",{"host":"a","port":70000}]}"#, "seed 2"),
        (r#"{"seeds":[{"port":1}]}"#, "host"),
        (r#"{"seeds":[{"host":"a","port":1,"peer_id":"x"}]}"#, "PeerId"),
        (r#"{"seeds":[7]}"#, "seed 1"),
    ] {
        fs::write(&path, text).unwrap();
        let why = refused(&[("seeds-file", file)], &[]);
        assert!(why.contains(part) && why.contains(file), "{text}: {why}");
    }
    let many = (0..65).map(|n| format!("\"/ip4/192.0.2.{n}/tcp/1\"")).collect::<Vec<_>>().join(",");
    fs::write(&path, format!("{{\"seeds\":[{many}]}}")).unwrap();
    assert!(refused(&[("seeds-file", file)], &[]).contains("at most 64"));
    fs::write(&path, vec![b' '; 1024 * 1024 + 1]).unwrap();
    assert!(refused(&[("seeds-file", file)], &[]).contains("larger"));
}

#[test]
fn a_running_node_takes_some_settings() {
    let mut config = load(&[], &[]).unwrap();
    for (key, value) in [("name", "bob"), ("team", "red team"), ("fanout", "7"), ("message-expiry", "1h")] {
        let setting = config.set(key, value).unwrap();
        assert_eq!((setting.key.as_str(), setting.value.as_str(), setting.origin.as_str()), (key, value, "set"));
        assert_eq!(config.get(key).unwrap(), setting);
    }
    assert_eq!((config.name.as_str(), config.fanout), ("bob", 7));
    assert_eq!(config.message_expiry, Duration::from_secs(3600));
    // A wrong value changes nothing.
    assert!(config.set("name", "a b").is_err() && config.set("fanout", "0").is_err());
    assert_eq!((config.name.as_str(), config.get("fanout").unwrap().value.as_str()), ("bob", "7"));
    let why = config.set("listen", "/ip4/127.0.0.1/tcp/0").unwrap_err().message;
    assert!(
        why.contains("when the node starts") && why.contains("--listen") && why.contains("ALTHING_LISTEN"),
        "{why}"
    );
    assert!(config.set("fan-out", "3").unwrap_err().message.contains("nearest one is fanout"));
    assert!(config.set("--message_expiry", "2h").is_ok());
    assert!(config.get("nonsense").is_err());
}

#[test]
fn switches_and_notes() {
    let config = load(
        &[("json", "true"), ("verbose", "3")],
        &[("NO_COLOR", "x"), ("ALTHING_DEBUG", "off"), ("ALTHING_FANUOT", "3")],
    )
    .unwrap();
    assert!(config.shell.json && config.shell.no_color && !config.shell.debug);
    assert_eq!((config.shell.verbose, config.get("no-color").unwrap().origin.as_str()), (2, "NO_COLOR"));
    assert_eq!(config.notes.len(), 1);
    assert!(config.notes[0].contains("ALTHING_FANOUT"), "{:?}", config.notes);
}

#[test]
fn times() {
    for (text, millis) in
        [("5", 5000), ("3.0", 3000), ("10s", 10_000), ("2m", 120_000), ("500ms", 500), (".5", 500), ("1.5h", 5_400_000)]
    {
        assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
    }
    for text in ["", "s", "1w", "1 s", "+1", "-1", "1e3", "inf", "nan", "1.2.3", ".", "1S", "٣"] {
        assert!(parse_duration(text).is_err(), "{text}");
    }
    assert!(parse_duration(&"9".repeat(400)).is_err());
}

#[test]
fn sizes_and_limits() {
    for (text, bytes) in [("0", 0), ("512", 512), ("64K", 65_536), ("2m", 2 << 20), ("1G", 1 << 30)] {
        assert_eq!(parse_size(text), Ok(bytes), "{text}");
    }
    for text in ["", "K", "-1", "1.5M", "2T", "1e9", "99999999999G", "\u{663}"] {
        assert!(parse_size(text).is_err(), "{text}");
    }
    for (text, limit) in [("none", None), ("0", None), ("2M", Some(2 << 20))] {
        assert_eq!(values::rate(text), Ok(limit), "{text}");
    }
}
