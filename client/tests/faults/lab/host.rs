//! Network namespaces: one for each process of a network, all on one bridge.
//!
//! The bridge has its own namespace, in which the test and its clients run, too, so that the
//! network of this machine is not touched. Namespaces are deleted when they are dropped, even after
//! a panic. If a test was killed, the next one deletes what it left.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::tools::{attempt, run};

/// Host of the test and its clients.
pub(crate) const CLIENT: usize = 0;
/// Host of the registration server.
pub(crate) const SERVER: usize = 1;

/// All namespaces of a network.
pub(crate) struct Hosts {
    prefix: String,
    count: usize,
}

impl Hosts {
    /// Creates the bridge, without hosts.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { prefix: format!("dkv{}x{number}", std::process::id()), count: 1 };
        let name = hosts.name(CLIENT);
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        // By default a bridge has the lowest hardware address of its ports. Each host that is added
        // may change it, and what the others send then is lost until they ask for it again.
        let fixed = ["address", "02:00:00:00:00:01"];
        run(
            "ip",
            &[&["-n", &name, "link", "add", "br0"], &fixed[..], &["type", "bridge"]].concat(),
        );
        run(
            "ip",
            &["-n", &name, "address", "add", &format!("{}/24", address(CLIENT)), "dev", "br0"],
        );
        run("ip", &["-n", &name, "link", "set", "br0", "up"]);
        hosts
    }

    /// Adds a host to the bridge.
    pub(crate) fn add(&mut self) -> usize {
        let host = self.count;
        let (bridge, name, port) = (self.name(CLIENT), self.name(host), format!("port{host}"));
        run("ip", &["netns", "add", &name]);
        self.count += 1;
        let pair = ["type", "veth", "peer", "name", "eth0", "netns", &name];
        run("ip", &[&["-n", &bridge, "link", "add", &port][..], &pair[..]].concat());
        run("ip", &["-n", &bridge, "link", "set", &port, "master", "br0", "up"]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        run(
            "ip",
            &["-n", &name, "address", "add", &format!("{}/24", address(host)), "dev", "eth0"],
        );
        run("ip", &["-n", &name, "link", "set", "eth0", "up"]);
        host
    }

    /// Returns the name of the namespace of a host.
    pub(crate) fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Blocks traffic from one host to another, in this direction only.
    pub(crate) fn block(&self, from: usize, to: usize) {
        self.filter(to, &["-A", "INPUT", "-s", &address(from).to_string(), "-j", "DROP"]);
    }

    /// Blocks all traffic between two hosts.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.block(one, other);
        self.block(other, one);
    }

    /// Drops a share of the packets to a host.
    pub(crate) fn lose(&self, host: usize, probability: f64) {
        let probability = probability.to_string();
        let statistic = ["-m", "statistic", "--mode", "random", "--probability", &probability];
        let rule = [&["-A", "INPUT", "-i", "eth0"][..], &statistic, &["-j", "DROP"]].concat();
        self.filter(host, &rule);
    }

    /// Ends all faults of the network.
    pub(crate) fn heal(&self) {
        (0..self.count).for_each(|host| self.filter(host, &["-F"]));
    }

    fn filter(&self, host: usize, rule: &[&str]) {
        let name = self.name(host);
        run("ip", &[&["netns", "exec", &name, "iptables", "-w"], rule].concat());
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in (0..self.count).rev() {
            // Its creation may have failed.
            let _ = attempt("ip", &["netns", "del", &self.name(host)]);
        }
    }
}

/// Returns the address of a host. Each network has its own bridge, so all use the same addresses.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, host as u8 + 1)
}

/// Moves this thread into a namespace until this is dropped.
pub(crate) struct Visit(File);

impl Visit {
    /// Enters a namespace.
    pub(crate) fn begin(name: &str) -> Self {
        let home = File::open("/proc/thread-self/ns/net").unwrap();
        enter(name);
        Self(home)
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        let _ = setns(&self.0, CloneFlags::CLONE_NEWNET);
    }
}

/// Moves this thread into a namespace.
pub(crate) fn enter(name: &str) {
    let namespace = File::open(Path::new("/run/netns").join(name)).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Deletes namespaces and mounts that dead test processes left.
fn sweep() {
    let is_dead = |name: &str| {
        let id: String = name.chars().take_while(char::is_ascii_digit).collect();
        !id.is_empty() && !Path::new("/proc").join(id).exists()
    };
    for line in attempt("ip", &["netns", "list"]).unwrap_or_default().lines() {
        let name = line.split(' ').next().unwrap_or_default();
        if name.strip_prefix("dkv").is_some_and(is_dead) {
            let _ = attempt("ip", &["netns", "del", name]);
        }
    }
    for line in std::fs::read_to_string("/proc/mounts").unwrap_or_default().lines() {
        let path = line.split(' ').nth(1).unwrap_or_default();
        if path.split_once("/dkv-faults-").is_some_and(|(_, rest)| is_dead(rest)) {
            let _ = attempt("umount", &["-l", path]);
        }
    }
}
