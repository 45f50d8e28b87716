//! Detects leaders whose process is gone, so that another node takes over at once.
//!
//! Raft detects a dead leader by its silence, and must wait long enough not to mistake a slow one
//! for it. But when a process dies and its machine lives on, the kernel of that machine refuses
//! packets to the process's port with an ICMP port unreachable message, which a connected UDP
//! socket reports as an error. So when a leader is silent for longer than usual, the failure
//! detector sends it one byte from such a socket. A live process drops the byte in QUIC; if there
//! is no process, the refusal arrives within a round trip.
//!
//! A refusal is a hint, never a proof: it may be forged, or come from a firewall. Its only effect
//! is that this node takes back its promise to the leader not to vote for another node for a while,
//! and asks the other voters whether they would vote (pre-vote). They agree only if their own
//! promise has ended or was taken back too, so a leader that a quorum hears is never disturbed; and
//! reads do not rest on that promise. Safety is still Raft's: one vote a term, and only for a log
//! that is long enough.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Term};
use dkv_base::supervise::caught;
use dkv_wire::message::ChangeReason;
use dkv_wire::net_platform;
use tokio::net::UdpSocket;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{debug, error, info};

use crate::node::{Node, Replicas};
use crate::raft::QUIESCENT_SLOWDOWN;
use crate::replica::Replica;

/// Shortest time between two probes of a silent leader.
const TRY_EVERY: Duration = Duration::from_millis(10);
/// Longest time between two checks of the leaders, and between two probes.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// The same interval while all groups are quiescent, and for a node that votes in no group.
const LOOK_EVERY_WHILE_QUIESCENT: Duration = Duration::from_millis(500);
/// Time within which the kernel of a nearby machine reports that a port has no process.
const REFUSAL_WAIT: Duration = Duration::from_millis(5);
/// Time that each voter leaves to those before it, so that two do not split the votes. If voters
/// are far apart, it is two round trips, as the others must hear the first candidate before the
/// next one stands.
const TURN: Duration = Duration::from_millis(12);
/// Pause after the first attempt to be elected, as the others may not have noticed yet; each
/// further pause is longer by the same amount. It is never shorter than a handshake and the two
/// rounds of votes: a candidate that stands again earlier undoes what it has begun.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(8);
/// Attempts after which the failure detector leaves the election to Raft's own timers: within
/// 1.7 s, for a machine that is very busy.
const ASKS_MAX: u32 = 20;

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut probes: BTreeMap<NodeId, Arc<Probe>> = BTreeMap::new();
    let mut asking: BTreeSet<NodeId> = BTreeSet::new();
    // Until the time given here, the task does not probe that leader again.
    let mut resting: BTreeMap<NodeId, Instant> = BTreeMap::new();
    let mut results: JoinSet<TaskResult> = JoinSet::new();
    let mut handled: BTreeMap<(GroupId, Term), Takeover> = BTreeMap::new();
    let ticks = node.ticks();
    loop {
        let heartbeat = Duration::from_millis(node.settings().heartbeat_ms);
        let led = led_by_others(node.replicas(), node.id());
        handled.retain(|(id, term), _| node.group(*id).is_some_and(|group| group.term() <= *term));
        let is_quiescent =
            |groups: &[Arc<Replica>]| groups.iter().all(|group| group.time_scale().is_quiescent());
        let all_quiescent = is_quiescent(&node.groups());
        let look_every = if all_quiescent || node.replicas().only_follows() {
            LOOK_EVERY_WHILE_QUIESCENT
        } else {
            LOOK_EVERY
        };
        let mut next = Instant::now() + look_every;
        for (leader, groups) in &led {
            let leader = *leader;
            let heartbeat =
                if is_quiescent(groups) { heartbeat * QUIESCENT_SLOWDOWN } else { heartbeat };
            if asking.contains(&leader) {
                continue;
            }
            // The next heartbeat is sent only after the answer to the last one.
            let round_trip = node.peers().round_trip(leader).unwrap_or_default();
            let silent_at = node.peers().liveness(leader).silent_at(heartbeat.max(round_trip));
            let (Some(silent_at), Some(address)) = (silent_at, node.peers().address(leader)) else {
                continue;
            };
            let due = resting.get(&leader).map_or(silent_at, |until| silent_at.max(*until));
            if due > Instant::now() {
                next = next.min(due);
                continue;
            }
            // Each probe doubles the silence required before the next one.
            let silence = silent_at.elapsed().clamp(TRY_EVERY, LOOK_EVERY);
            resting.insert(leader, Instant::now() + silence);
            let Some(probe) = probe_of(&mut probes, leader, address).await else { continue };
            let patience = REFUSAL_WAIT.max(round_trip * 3 / 2);
            // A rehearsal delays what QUIC sends; the probe must take as long.
            let delay = node.connections().endpoint().added_round_trip(address);
            asking.insert(leader);
            results.spawn(async move {
                let probing = caught(async {
                    let refused = probe.refuses(patience).await;
                    if refused && !delay.is_zero() {
                        tokio::time::sleep(delay).await;
                    }
                    refused
                });
                // Without a result the leader would never be probed again.
                let refused = probing.await.unwrap_or_else(|panicked| {
                    error!("probing {leader} {panicked}; this is a bug in dkv");
                    false
                });
                TaskResult::Probed { leader, refused }
            });
        }
        // A distant leader answers late, and must not delay the others.
        let answered = tokio::select! {
            biased;
            answered = next_answer(&mut results) => answered,
            () = ticks.until(next) => continue,
        };
        let (leader, refused) = match answered {
            Some(Ok(TaskResult::Probed { leader, refused })) => (leader, refused),
            Some(Ok(TaskResult::TakeoverEnded(group, term))) => {
                if let Some(takeover) = handled.get_mut(&(group, term)) {
                    *takeover = Takeover::Over(Instant::now());
                }
                continue;
            }
            _ => continue,
        };
        asking.remove(&leader);
        let heard = node.peers().liveness(leader).last_heard();
        // The groups that the leader led at the time of the probe, and still leads.
        let groups = led_by_others(node.replicas(), node.id()).remove(&leader).filter(|_| refused);
        for group in groups.into_iter().flatten() {
            let term = group.term();
            let takeover = handled.get(&(group.id(), term));
            if takeover.is_none_or(|takeover| takeover.begins_again(heard)) {
                info!(group = %group.id(), %leader, %term, "the leader's process is gone");
                group.turnovers().expect(ChangeReason::ProcessGone, Instant::now());
                handled.insert((group.id(), term), Takeover::UnderWay);
                let node = Arc::clone(&node);
                results.spawn(async move {
                    let id = group.id();
                    if let Err(panicked) = caught(succeed(node, group, leader, term)).await {
                        error!("taking over from {leader} {panicked}; this is a bug in dkv");
                    }
                    TaskResult::TakeoverEnded(id, term)
                });
            }
        }
    }
}

/// Result of one of the failure detector's tasks.
enum TaskResult {
    /// The task probed a leader: the kernel at its address refused, or did not.
    Probed { leader: NodeId, refused: bool },
    /// The takeover from the leader of that term has ended.
    TakeoverEnded(GroupId, Term),
}

/// State of the takeover from a leader whose process is gone.
#[derive(Clone, Copy)]
enum Takeover {
    /// The task is trying to have another node lead.
    UnderWay,
    /// Since then the election has been left to Raft's own timers.
    Over(Instant),
}

impl Takeover {
    /// Whether to begin again when the leader is found to be gone once more: it was alive in
    /// between.
    fn begins_again(self, heard: Option<Instant>) -> bool {
        match self {
            Self::UnderWay => false,
            Self::Over(since) => heard.is_some_and(|heard| heard > since),
        }
    }
}

async fn next_answer<T: 'static>(answers: &mut JoinSet<T>) -> Option<Result<T, JoinError>> {
    if answers.is_empty() {
        return std::future::pending().await;
    }
    answers.join_next().await
}

/// Groups in which this node's vote may count and another node leads, by leader.
fn led_by_others(replicas: &Replicas, me: NodeId) -> BTreeMap<NodeId, Vec<Arc<Replica>>> {
    let mut led: BTreeMap<NodeId, Vec<Arc<Replica>>> = BTreeMap::new();
    for group in replicas.all() {
        if let Some(leader) = group.leader().filter(|leader| *leader != me)
            && !group.only_follows()
        {
            led.entry(leader).or_default().push(group);
        }
    }
    led
}

/// Stands for election, after the voters whose turn comes first, until another node leads: a vote
/// may still be split, and Raft's own next attempt may be far away.
async fn succeed(node: Arc<Node>, group: Arc<Replica>, leader: NodeId, term: Term) {
    group.forget_leader(leader).await;
    // Voters of both the old and the new configuration: while a configuration is not committed, a
    // departing voter may be the only one that can be elected.
    let voters = group.electorate().await;
    let turn = turn(&voters, node.id(), leader);
    let farthest = || farthest(&node, &group, &voters, leader);
    tokio::time::sleep(TURN.max(farthest() * 2) * turn).await;
    for ask in 1..=ASKS_MAX {
        let is_led = match group.leader() {
            Some(now) => now != leader || group.term() != term,
            None => false,
        };
        if is_led {
            return;
        }
        // A message that the leader sent before it died may be processed only now, and renews the
        // promise.
        group.forget_leader(leader).await;
        group.stand().await;
        let asked = Instant::now();
        let pause = ASK_AGAIN_AFTER * ask + TURN * turn;
        // The distance to a voter without a connection is known only once there is one.
        while let until = asked + pause.max(farthest() * 7 / 2)
            && until > Instant::now()
        {
            tokio::time::sleep_until(until).await;
        }
    }
}

/// Round trip to the farthest of the remaining voters.
fn farthest(node: &Node, group: &Replica, voters: &BTreeSet<NodeId>, gone: NodeId) -> Duration {
    let others = voters.iter().filter(|voter| **voter != node.id() && **voter != gone);
    let measured = others.filter_map(|voter| node.peers().round_trip(*voter)).max();
    measured.unwrap_or_default().max(group.time_scale().round_trip())
}

/// Number of remaining voters that come before this one.
fn turn(voters: &BTreeSet<NodeId>, me: NodeId, gone: NodeId) -> u32 {
    let before = voters.iter().filter(|voter| **voter != gone && **voter < me).count();
    u32::try_from(before).unwrap_or(u32::MAX)
}

/// Socket connected to the address of a node.
struct Probe {
    address: SocketAddr,
    socket: Option<UdpSocket>,
}

/// Returns the socket for a node, made if need be, or `None` if there can be none.
async fn probe_of(
    probes: &mut BTreeMap<NodeId, Arc<Probe>>,
    node: NodeId,
    address: SocketAddr,
) -> Option<Arc<Probe>> {
    if let Some(known) = probes.get(&node).filter(|probe| probe.address == address) {
        return Some(Arc::clone(known));
    }
    // A simulated machine has no sockets but QUIC's.
    let socket = match net_platform::refuses(address) {
        Some(_) => None,
        None => match connect(address).await {
            Ok(socket) => Some(socket),
            Err(error) => {
                debug!(%address, %error, "cannot probe the leader");
                return None;
            }
        },
    };
    let probe = Arc::new(Probe { address, socket });
    probes.insert(node, Arc::clone(&probe));
    Some(probe)
}

impl Probe {
    /// Whether the kernel at that address reports that the port has no process.
    async fn refuses(&self, patience: Duration) -> bool {
        let Some(socket) = &self.socket else {
            return net_platform::refuses(self.address).unwrap_or(false);
        };
        let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
        // A late answer to the last probe says nothing about this one.
        let _ = socket.take_error();
        if let Err(error) = socket.send(&[0]).await {
            return refused(error);
        }
        match tokio::time::timeout(patience, socket.recv(&mut [0; 1])).await {
            Ok(Err(error)) => refused(error),
            // No answer, or an unsolicited packet.
            _ => false,
        }
    }
}

async fn connect(address: SocketAddr) -> std::io::Result<UdpSocket> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leader_is_looked_for_again_once_it_was_heard_again() {
        let over = Instant::now();
        let later = over + Duration::from_millis(1);
        for (takeover, heard, again) in [
            (Takeover::UnderWay, Some(later), false),
            (Takeover::Over(over), None, false),
            (Takeover::Over(over), Some(over), false),
            (Takeover::Over(over), Some(later), true),
        ] {
            assert_eq!(takeover.begins_again(heard), again, "{heard:?}");
        }
    }

    #[tokio::test]
    async fn a_port_with_nobody_behind_it_refuses_and_one_that_is_silent_does_not() {
        let there = UdpSocket::bind("127.0.0.1:0").await.expect("a free port");
        let address = there.local_addr().expect("it is bound");
        let (mut probes, node) = (BTreeMap::new(), NodeId::random());
        let probe = probe_of(&mut probes, node, address).await.expect("a socket");
        assert!(!probe.refuses(REFUSAL_WAIT).await);
        drop(there);
        assert!(probe.refuses(REFUSAL_WAIT).await);
        // The error of one probe is not the answer to the next.
        let _back = UdpSocket::bind(address).await.expect("the port is free again");
        assert!(!probe.refuses(REFUSAL_WAIT).await);
    }
}
