//! What a value may be. Every error is the second half of a sentence: what is wrong, and what would be right.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, PeerId};
use serde_json::Value;

use super::SeedAddress;
use super::sources::{absolute, read_text};

/// Own ports that need no rights, besides 0 for a free one.
const FIRST_OWN_PORT: u16 = 1024;

/// How much of a wrong value an error repeats, in characters.
const MAX_QUOTED: usize = 80;

const ADDRESS_HELP: &str =
    "an address is like /ip4/192.0.2.7/tcp/4001 or /dns/host.example/tcp/4001, with or without /p2p/…";

/// A time: `5 3.0 10s 2m 500ms 12h 7d`. Without a unit it is in seconds.
///
/// # Errors
///
/// What is wrong with it. Never panics, however large the number: it must fit into a [`Duration`].
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong =
        || format!("{} is no time: write a number with s, m, h or d, for example 3.0, 10s, 2m, 7d", quoted(text));
    let number = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let seconds = match &text[number.len()..] {
        "" | "s" => 1.0,
        "ms" => 0.001,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 86_400.0,
        _ => return Err(wrong()),
    };
    // `inf`, `nan` and `1e9` are numbers to Rust and none to a person.
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return Err(wrong());
    }
    let number = number.parse::<f64>().map_err(|_| wrong())?;
    Duration::try_from_secs_f64(number * seconds).map_err(|_| wrong())
}

/// A number of bytes: `512 64K 2M 1G`, where K is 1024.
///
/// # Errors
///
/// What is wrong with it: no such number, or one beyond what can be counted.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong =
        || format!("{} is no size: write a whole number of bytes, or with K, M or G, as in 64K or 2M", quoted(text));
    let number = text.trim_end_matches(|char: char| char.is_ascii_alphabetic());
    let shift = match &text[number.len()..] {
        "" => 0,
        "K" | "k" => 10,
        "M" | "m" => 20,
        "G" | "g" => 30,
        _ => return Err(wrong()),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << shift)).ok_or_else(wrong)
}

/// Bytes a second; `none` and 0 are without limit.
pub(super) fn rate(text: &str) -> Result<Option<u64>, String> {
    match text {
        "none" => Ok(None),
        text => parse_size(text).map(|rate| (rate > 0).then_some(rate)),
    }
}

/// A wrong value as it may stand in a sentence: short, on one line, nothing in it moves the cursor.
pub(super) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(MAX_QUOTED)
        .flat_map(|char| {
            let plain = (!char.is_control()).then_some(char);
            plain.into_iter().chain(char.is_control().then(|| char.escape_default()).into_iter().flatten())
        })
        .collect();
    if text.chars().count() > MAX_QUOTED {
        shown.push('…');
    }
    format!("`{shown}`")
}

/// The only value. An empty list stands for a setting that has no default and was not given.
pub(super) fn one(given: &[String]) -> Result<&str, String> {
    given.last().map(String::as_str).ok_or_else(|| "it needs a value".to_owned())
}

pub(super) fn at_most(count: usize, most: usize, what: &str) -> Result<(), String> {
    if count > most { Err(format!("{count} {what} are too many: at most {most}")) } else { Ok(()) }
}

pub(super) fn switch(given: &[String]) -> Result<bool, String> {
    let text = one(given)?;
    match text.to_ascii_lowercase().as_str() {
        "on" | "true" | "yes" | "1" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(format!("{} is neither on nor off", quoted(text))),
    }
}

pub(super) fn count(text: &str, least: usize, most: usize) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (least..=most).contains(number));
    number.ok_or_else(|| format!("{} is out of bounds: a whole number from {least} to {most}", quoted(text)))
}

pub(super) fn path(given: &[String]) -> Result<PathBuf, String> {
    match one(given)? {
        "" => Err("a path is not empty".to_owned()),
        text => absolute(text),
    }
}

/// A file to read commands from, or `-` for stdin. It is not opened here: a pipe gives what it holds only once.
pub(super) fn script(text: &str) -> Result<PathBuf, String> {
    match (text, std::fs::metadata(text)) {
        ("-", _) => Ok(PathBuf::from(text)),
        (_, Ok(file)) if !file.is_dir() => absolute(text),
        (_, Ok(_)) => Err(format!("{} is a folder, no file of commands", quoted(text))),
        (_, Err(error)) => Err(format!("cannot read the script {}: {error}", quoted(text))),
    }
}

/// A port to listen on.
pub(super) fn own_port(text: &str) -> Result<u16, String> {
    text.parse().ok().filter(|&port| is_own_port(port)).ok_or_else(|| wrong_own_port(text))
}

fn is_own_port(port: u16) -> bool {
    port == 0 || port >= FIRST_OWN_PORT
}

fn wrong_own_port(text: &str) -> String {
    format!("{} is no port to listen on: it is 0 (a free one) or {FIRST_OWN_PORT} to 65535", quoted(text))
}

/// A port to dial.
pub(super) fn remote_port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port: &u16| port != 0);
    port.ok_or_else(|| format!("{} is no port to dial: it is 1 to 65535", quoted(text)))
}

/// An interface to listen on.
pub(super) fn own_host(text: &str) -> Result<IpAddr, String> {
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Ipv4Addr::LOCALHOST.into());
    }
    text.parse().map_err(|_| format!("{} is no host to listen on: it is an IP address or localhost", quoted(text)))
}

/// A host to dial: an IP address or a DNS name.
pub(super) fn remote_host(text: &str) -> Result<String, String> {
    host_protocol(text).map(|_| text.to_owned())
}

fn host_protocol(text: &str) -> Result<Protocol<'static>, String> {
    let wrong = || format!("{} is no host: it is an IP address or a DNS name", quoted(text));
    // A resolver may not know this one name, and everybody means the same by it.
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Protocol::Ip4(Ipv4Addr::LOCALHOST));
    }
    match text.parse::<IpAddr>() {
        Ok(ip) if ip.is_unspecified() => Err(format!("{text} is no host that can be dialled, only one to listen on")),
        Ok(IpAddr::V4(ip)) => Ok(Protocol::Ip4(ip)),
        Ok(IpAddr::V6(ip)) => Ok(Protocol::Ip6(ip)),
        Err(_) if is_dns_name(text) => Ok(Protocol::Dns(text.to_owned().into())),
        Err(_) => Err(wrong()),
    }
}

/// Letters, digits, hyphens and underscores between dots (RFC 1123, with the underscore that many networks use). A name
/// whose last part is a number would be a mistyped IPv4 address.
fn is_dns_name(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        let legal = label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
        legal && (1..=63).contains(&label.len()) && !label.starts_with('-') && !label.ends_with('-')
    };
    let numeric = name.rsplit('.').next().is_some_and(|last| last.bytes().all(|byte| byte.is_ascii_digit()));
    name.len() <= 253 && name.split('.').all(label) && !numeric
}

/// Where `--host` and `--port` listen; without a host on all interfaces of both families.
pub(super) fn listen_on(host: Option<IpAddr>, port: u16) -> Vec<Multiaddr> {
    let hosts =
        host.map_or_else(|| vec![Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()], |host| vec![host]);
    hosts.into_iter().map(|host| Multiaddr::from(host).with(Protocol::Tcp(port))).collect()
}

/// An address to listen on.
pub(super) fn listen(text: &str) -> Result<Multiaddr, String> {
    let help = "an address to listen on is like /ip4/0.0.0.0/tcp/0 or /ip6/::/tcp/4001";
    let address = text.parse::<Multiaddr>().map_err(|_| format!("{} is no multiaddr: {help}", quoted(text)))?;
    match address.iter().collect::<Vec<_>>().as_slice() {
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port)] if is_own_port(*port) => Ok(address),
        [Protocol::Ip4(_) | Protocol::Ip6(_), Protocol::Tcp(port)] => {
            Err(format!("{}: {}", quoted(text), wrong_own_port(&port.to_string())))
        }
        _ => Err(format!("{} cannot be listened on: {help}", quoted(text))),
    }
}

/// An address to dial, with or without `/p2p/…`.
pub(super) fn remote(text: &str) -> Result<Multiaddr, String> {
    let Ok(address) = text.parse::<Multiaddr>() else {
        return Err(match host_and_port(text) {
            Some(address) => format!("{} is no multiaddr: write {address}", quoted(text)),
            None => format!("{} is no multiaddr: {ADDRESS_HELP}", quoted(text)),
        });
    };
    let parts = address.iter().collect::<Vec<_>>();
    let (host, port) = match parts.as_slice() {
        [host, Protocol::Tcp(port)] | [host, Protocol::Tcp(port), Protocol::P2p(_)] => (host, *port),
        _ => return Err(format!("{} cannot be dialled: {ADDRESS_HELP}", quoted(text))),
    };
    let dialled = match host {
        Protocol::Ip4(ip) => !ip.is_unspecified(),
        Protocol::Ip6(ip) => !ip.is_unspecified(),
        Protocol::Dns(name) | Protocol::Dns4(name) | Protocol::Dns6(name) => is_dns_name(name),
        _ => return Err(format!("{} cannot be dialled: {ADDRESS_HELP}", quoted(text))),
    };
    if !dialled {
        return Err(format!("{} cannot be dialled: its host is one to listen on, or no name", quoted(text)));
    }
    if port == 0 {
        return Err(format!("{} cannot be dialled: its port is 1 to 65535", quoted(text)));
    }
    Ok(address)
}

/// What somebody who wrote `host:port` meant.
fn host_and_port(text: &str) -> Option<Multiaddr> {
    let (host, port) = text.rsplit_once(':')?;
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Some(Multiaddr::from(host_protocol(host).ok()?).with(Protocol::Tcp(remote_port(port).ok()?)))
}

/// A seed as a multiaddr.
pub(super) fn seed(text: &str) -> Result<SeedAddress, String> {
    let mut dial = remote(text)?;
    let peer = match dial.iter().last() {
        Some(Protocol::P2p(peer)) => {
            dial.pop();
            Some(peer)
        }
        _ => None,
    };
    Ok(SeedAddress { text: text.to_owned(), dial, peer })
}

/// A seed as a host and a port.
pub(super) fn seed_of(host: &str, port: u16, peer: Option<PeerId>) -> Result<SeedAddress, String> {
    let dial = Multiaddr::from(host_protocol(host)?).with(Protocol::Tcp(port));
    let text = peer.map_or_else(|| dial.to_string(), |peer| dial.clone().with(Protocol::P2p(peer)).to_string());
    Ok(SeedAddress { text, dial, peer })
}

/// The seeds of a JSON file, `{"seeds":[…]}`, each `{"host","port","peer_id"?}`, `{"multiaddr"}` or a multiaddr.
pub(super) fn seeds_file(path: &str) -> Result<Vec<SeedAddress>, String> {
    let path = Path::new(path);
    let place = path.display();
    let text = read_text(path).map_err(|error| format!("cannot read the seeds file {place}: {error}"))?;
    let json: Value =
        serde_json::from_str(&text).map_err(|error| format!("the seeds file {place} is no JSON: {error}"))?;
    let help = r#"write {"seeds":[{"host":"192.0.2.7","port":4001}]}"#;
    let entries = json.get("seeds").and_then(Value::as_array);
    let entries = entries.ok_or_else(|| format!("the seeds file {place} has no list `seeds`: {help}"))?;
    if entries.is_empty() {
        return Err(format!("the seeds file {place} names no seed: {help}"));
    }
    let seed = |(index, entry)| seed_entry(entry).map_err(|why| format!("seed {} of {place}: {why}", index + 1));
    entries.iter().enumerate().map(seed).collect()
}

fn seed_entry(entry: &Value) -> Result<SeedAddress, String> {
    if let Some(text) = entry.as_str().or_else(|| entry.get("multiaddr")?.as_str()) {
        return seed(text);
    }
    let host = entry.get("host").and_then(Value::as_str).ok_or("it has neither a `host` nor a `multiaddr`")?;
    let port = match entry.get("port") {
        Some(Value::String(text)) => remote_port(text)?,
        Some(port) => remote_port(&port.to_string())?,
        None => return Err("it has no `port`".to_owned()),
    };
    let peer = match entry.get("peer_id") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|_| format!("{} is no PeerId", quoted(text)))?),
        Some(other) => return Err(format!("{} is no PeerId", quoted(&other.to_string()))),
    };
    seed_of(host, port, peer)
}
