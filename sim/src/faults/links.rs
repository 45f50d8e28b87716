//! Cut links and bad weather.

use std::net::IpAddr;

use super::kinds::Fault;
use crate::cluster::Cluster;
use crate::network::Weather;
use crate::random::Random;

/// Cuts a machine off from all nodes.
pub(super) fn cut_from_nodes(machine: IpAddr, cluster: &Cluster) {
    let others = cluster.nodes.iter().map(|node| node.machine.address());
    cut_from(machine, others, cluster);
}

/// Leaves a client alone with a node: it reaches neither another node nor the server.
pub(super) fn leave_alone(client: IpAddr, with: usize, cluster: &Cluster) {
    let with = cluster.nodes[with].machine.address();
    let nodes = cluster.nodes.iter().map(|node| node.machine.address());
    let others = nodes.filter(|node| *node != with);
    cut_from(client, others.chain([cluster.server.address()]), cluster);
}

fn cut_from(machine: IpAddr, others: impl Iterator<Item = IpAddr>, cluster: &Cluster) {
    for other in others.filter(|other| *other != machine) {
        cluster.network.cut(machine, other);
        cluster.network.cut(other, machine);
    }
}

/// Cuts links between nodes, around the victim or at random, as the fault requires.
pub(super) fn cut(random: &mut Random, fault: Fault, victim: usize, cluster: &Cluster) {
    let network = &cluster.network;
    let address = |index: usize| cluster.nodes[index].machine.address();
    let mut nodes: Vec<IpAddr> = (0..cluster.nodes.len()).map(address).collect();
    let both = |one: IpAddr, other: IpAddr| {
        network.cut(one, other);
        network.cut(other, one);
    };
    let struck = address(victim);
    // Clients and server are on either side of the cut.
    let mut outside: Vec<IpAddr> = cluster.clients.iter().map(|c| c.address()).collect();
    outside.push(cluster.server.address());
    match fault {
        Fault::Isolate => {
            nodes.iter().filter(|it| **it != struck).for_each(|it| both(struck, *it));
            for machine in outside {
                if random.per_mille(500) {
                    both(struck, machine);
                }
            }
        }
        Fault::OneWay => {
            let deaf = random.per_mille(500);
            for it in nodes.into_iter().filter(|it| *it != struck) {
                if deaf { network.cut(it, struck) } else { network.cut(struck, it) }
            }
        }
        Fault::Split | Fault::Bridge => {
            random.shuffle(&mut nodes);
            if fault == Fault::Bridge {
                nodes.pop();
            }
            let (one, other) = nodes.split_at(nodes.len() / 2);
            one.iter().for_each(|a| other.iter().for_each(|b| both(*a, *b)));
            for machine in outside {
                let side = if random.per_mille(500) { one } else { other };
                if random.per_mille(500) {
                    side.iter().for_each(|it| both(*it, machine));
                }
            }
        }
        _ => {
            random.shuffle(&mut nodes);
            let count = nodes.len();
            for (a, one) in nodes.iter().enumerate() {
                for (b, other) in nodes.iter().enumerate().skip(a + 1) {
                    if b - a != 1 && b - a != count - 1 {
                        both(*one, *other);
                    }
                }
            }
        }
    }
}

/// Draws bad weather.
pub(super) fn weather(random: &mut Random) -> Weather {
    let delay_min = random.between(1, 5);
    Weather {
        delay_min,
        delay_max: delay_min + random.below(20),
        held_up: (random.below(50), random.between(50, 500)),
        lost: random.below(200),
        doubled: random.below(100),
        mtu: *random.pick(&[1300, 1500, 9000]).unwrap_or(&1500),
    }
}
