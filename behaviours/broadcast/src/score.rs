//! gossipsub's peer scores (P1 to P7 of the GossipSub v1.1 specification): whom to keep in the mesh, and whom not to listen to.
//!
//! A negative score means out of the mesh; what somebody outside of it sends is still taken, down to the graylist. So
//! everything that a busy machine or a bad line does too is given room before it counts.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use libp2p::gossipsub::{PeerScoreParams, PeerScoreThresholds, TopicHash, TopicScoreParams};

/// P5: the host gives 0 for no fault, down to -100 for the last one before a peer is sent away.
const APPLICATION_WEIGHT: f64 = 1.0;

/// P6: so many peers of one address count for nothing; a loopback address never does, because whole networks are tried there.
const PEERS_OF_ONE_ADDRESS: f64 = 64.0;

/// P7: broken promises and early re-grafts that are free, and slow readings likewise.
const FREE_MISBEHAVIOURS: f64 = 6.0;
const FREE_SLOWNESS: f64 = 50.0;

/// Below these a peer is told no gossip, sent no own message, and not listened to.
pub(crate) fn thresholds() -> PeerScoreThresholds {
    PeerScoreThresholds {
        gossip_threshold: -40.0,
        publish_threshold: -60.0,
        // Below what a peer can have before the host sends it away: who is not listened to cannot be proven wrong.
        graylist_threshold: -150.0,
        ..PeerScoreThresholds::default()
    }
}

/// The weights. P3 is off: a network in which nobody has spoken for a day must not drop its mesh for being silent.
pub(crate) fn params(topic: TopicHash) -> PeerScoreParams {
    let of_topic = TopicScoreParams {
        topic_weight: 1.0,
        time_in_mesh_weight: 0.01,
        time_in_mesh_quantum: Duration::from_secs(1),
        time_in_mesh_cap: 300.0,
        first_message_deliveries_weight: 0.1,
        first_message_deliveries_decay: 0.9,
        first_message_deliveries_cap: 50.0,
        mesh_message_deliveries_weight: 0.0,
        mesh_failure_penalty_weight: 0.0,
        // P4: a rejected message is a proven lie, and the square of their number counts. P5 knows of it too.
        invalid_message_deliveries_weight: -0.1,
        invalid_message_deliveries_decay: 0.9,
        ..TopicScoreParams::default()
    };
    PeerScoreParams {
        topics: HashMap::from([(topic, of_topic)]),
        topic_score_cap: 10.0,
        app_specific_weight: APPLICATION_WEIGHT,
        ip_colocation_factor_weight: -1.0,
        ip_colocation_factor_threshold: PEERS_OF_ONE_ADDRESS,
        ip_colocation_factor_whitelist: [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].into(),
        behaviour_penalty_weight: -5.0,
        behaviour_penalty_threshold: FREE_MISBEHAVIOURS,
        behaviour_penalty_decay: 0.9,
        slow_peer_weight: -0.2,
        slow_peer_threshold: FREE_SLOWNESS,
        slow_peer_decay: 0.9,
        ..PeerScoreParams::default()
    }
}
