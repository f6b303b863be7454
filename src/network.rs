//! The Swarm and the sans-IO cores that decide whom it dials.
//!
//! # Layout
//! - [`behaviour`]: everything the node speaks
//! - [`seeds`]: which seeds hold a registration of ours
//! - [`dialer`]: whom to dial, and when
//! - [`backoff`]: how long to wait after a failure

pub(crate) mod backoff;
pub(crate) mod behaviour;
pub(crate) mod dialer;
pub(crate) mod seeds;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use file_transfer::ChunkStore;
use libp2p::identity::Keypair;
use libp2p::multiaddr::Protocol;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, dns, noise, tcp, yamux};
use peer_exchange::SignedCard;

pub(crate) use behaviour::{Behaviour, BehaviourEvent};

use crate::api::{ApiError, ErrorCode};
use crate::config::Config;

/// What the node calls itself to others.
pub(crate) const AGENT: &str = concat!("althing/", env!("CARGO_PKG_VERSION"));

/// A link on which nobody keeps alive is closed after this.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// Streams of one connection that may be negotiating at the same time.
const NEGOTIATING_STREAMS: usize = 64;

/// The node's Swarm, not listening yet. `disk` is where transfers read and write.
pub(crate) fn build(
    key: &Keypair,
    config: &Config,
    card: SignedCard,
    disk: Arc<dyn ChunkStore>,
    rng_seed: u64,
) -> Result<Swarm<Behaviour>, ApiError> {
    let failed =
        |what: &str, error: &dyn std::fmt::Display| ApiError::new(ErrorCode::General, format!("{what}: {error}"));
    // The two resolvers have different types, so the rest of the chain is written once as a macro.
    macro_rules! finish {
        ($builder:expr) => {
            $builder
                .with_behaviour(|key| Behaviour::new(key, config, card, disk, rng_seed))
                .map_err(|error| failed("the network behaviour cannot be set up", &error))?
                .with_swarm_config(|swarm| {
                    swarm
                        .with_idle_connection_timeout(IDLE_TIMEOUT)
                        .with_max_negotiating_inbound_streams(NEGOTIATING_STREAMS)
                })
                .with_connection_timeout(config.dial_timeout)
                .build()
        };
    }
    let builder = SwarmBuilder::with_existing_identity(key.clone())
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)
        .map_err(|error| failed("the encryption cannot be set up", &error))?;
    // An air-gapped machine may have no resolver configuration at all; addresses in numbers work there all the same.
    if dns::tokio::Transport::system(()).is_ok() {
        Ok(finish!(builder.with_dns().map_err(|error| failed("the resolver cannot be set up", &error))?))
    } else {
        Ok(finish!(builder.with_dns_config(dns::ResolverConfig::default(), dns::ResolverOpts::default())))
    }
}

/// Listen on each address. A port that is taken falls over to a free one; the second part of the answer says so in a
/// sentence each. Fails when nothing can be listened on.
pub(crate) fn listen(swarm: &mut Swarm<Behaviour>, addresses: &[Multiaddr]) -> Result<Vec<String>, ApiError> {
    let mut notes = Vec::new();
    let mut listening = 0;
    for address in addresses {
        let mut address = address.clone();
        if let Some(socket) = socket_address(&address)
            && socket.port() != 0
            && is_taken(socket)
        {
            notes.push(format!("port {} is taken, a free one is used instead", socket.port()));
            address = with_free_port(&address);
        }
        match swarm.listen_on(address.clone()) {
            Ok(_) => listening += 1,
            Err(error) => notes.push(format!("cannot listen on {address}: {error}")),
        }
    }
    if listening == 0 {
        let why = if notes.is_empty() { "no address was given".to_owned() } else { notes.join("; ") };
        return Err(ApiError::new(ErrorCode::General, format!("the node cannot listen anywhere: {why}")));
    }
    Ok(notes)
}

/// May this address be told to others? Loopback is (the caller weighs it), unspecified and link-local ones are not.
pub(crate) fn can_be_told(address: &Multiaddr) -> bool {
    address.iter().all(|part| match part {
        Protocol::Ip4(ip) => !ip.is_unspecified() && !ip.is_link_local(),
        Protocol::Ip6(ip) => !ip.is_unspecified() && !ip.is_unicast_link_local(),
        _ => true,
    })
}

/// Is it an address of this machine only?
pub(crate) fn is_loopback(address: &Multiaddr) -> bool {
    address.iter().any(|part| match part {
        Protocol::Ip4(ip) => ip.is_loopback(),
        Protocol::Ip6(ip) => ip.is_loopback(),
        _ => false,
    })
}

fn socket_address(address: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = address.iter();
    let ip: IpAddr = match parts.next()? {
        Protocol::Ip4(ip) => ip.into(),
        Protocol::Ip6(ip) => ip.into(),
        _ => return None,
    };
    match parts.next()? {
        Protocol::Tcp(port) => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

/// libp2p sets SO_REUSEPORT on its listeners, so that two nodes of one user could silently share a port and steal each
/// other's links; a plain bind tells whether somebody has it.
fn is_taken(socket: SocketAddr) -> bool {
    TcpListener::bind(socket).is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
}

fn with_free_port(address: &Multiaddr) -> Multiaddr {
    address.iter().map(|part| if matches!(part, Protocol::Tcp(_)) { Protocol::Tcp(0) } else { part }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Multiaddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_taken_port_is_seen_and_replaced() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = listener.local_addr().unwrap();
        assert!(is_taken(taken));
        drop(listener);
        assert!(!is_taken(taken));
        assert_eq!(with_free_port(&address("/ip4/127.0.0.1/tcp/4001")), address("/ip4/127.0.0.1/tcp/0"));
    }

    #[test]
    fn only_addresses_that_others_can_use_are_told() {
        assert!(can_be_told(&address("/ip4/192.168.1.2/tcp/1")));
        assert!(can_be_told(&address("/ip4/127.0.0.1/tcp/1")) && is_loopback(&address("/ip4/127.0.0.1/tcp/1")));
        assert!(!can_be_told(&address("/ip6/fe80::1/tcp/1")));
        assert!(!can_be_told(&address("/ip4/0.0.0.0/tcp/1")));
        assert_eq!(socket_address(&address("/ip6/::1/tcp/80")), Some("[::1]:80".parse().unwrap()));
        assert_eq!(socket_address(&address("/dns/host/tcp/80")), None);
    }
}
