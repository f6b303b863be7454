//! Where a connection comes from, as far as limits see it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;

/// A range of IP addresses: the first of them, and how many leading bits they share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix {
    first: IpAddr,
    bits: u8,
}

impl Prefix {
    /// The range of that size in which the address lies. More bits than the address has are all of them.
    pub fn new(address: IpAddr, bits: u8) -> Self {
        match address {
            IpAddr::V4(address) => {
                let bits = bits.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
                Self { first: Ipv4Addr::from_bits(address.to_bits() & mask).into(), bits }
            }
            IpAddr::V6(address) => {
                let bits = bits.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
                Self { first: Ipv6Addr::from_bits(address.to_bits() & mask).into(), bits }
            }
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.bits)
    }
}

/// The two ranges of a remote, and whether they are private.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// An IPv4 address, or an IPv6 /64.
    pub address: Prefix,
    /// An IPv4 /24, or an IPv6 /48.
    pub network: Prefix,
    /// Loopback, link-local, or for local use (RFC 1918, 6598, 4193, 3927).
    pub private: bool,
}

impl Origin {
    /// Of a remote's address; `None` when it has no IP address, as in memory, or a name in its place, or is reached
    /// through a relay, whose address says nothing about it.
    pub fn of(address: &Multiaddr) -> Option<Self> {
        if address.iter().any(|part| part == Protocol::P2pCircuit) {
            return None;
        }
        match address.iter().next()? {
            Protocol::Ip4(address) => Some(Self::new(address.into())),
            Protocol::Ip6(address) => Some(Self::new(address.into())),
            _ => None,
        }
    }

    /// Of an IP address. An IPv4 address in the clothes of IPv6 is one of IPv4.
    pub fn new(address: IpAddr) -> Self {
        let address = address.to_canonical();
        let (one, many, private) = match address {
            IpAddr::V4(address) => (32, 24, is_private_v4(address)),
            IpAddr::V6(address) => (64, 48, is_private_v6(address)),
        };
        Self { address: Prefix::new(address, one), network: Prefix::new(address, many), private }
    }
}

fn is_private_v4(address: Ipv4Addr) -> bool {
    // 100.64.0.0/10 lies between a provider and its customers, and in overlay networks.
    let [first, second, ..] = address.octets();
    let shared = first == 100 && second & 0b1100_0000 == 64;
    address.is_loopback() || address.is_private() || address.is_link_local() || address.is_unspecified() || shared
}

fn is_private_v6(address: Ipv6Addr) -> bool {
    let unspecified = address.is_unspecified();
    address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local() || unspecified
}
