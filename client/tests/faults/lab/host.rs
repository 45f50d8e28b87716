//! Network namespaces: one for each process of a network, all on one bridge.
//!
//! The bridge is in a namespace of its own, which is also where the test itself, with its clients,
//! goes: nothing of this machine's own network is touched. Namespaces are removed by name when they
//! are dropped, also in a panic; what a test left that was killed is removed by the next one.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::sched::{CloneFlags, setns};

use super::tools::{attempt, run};

/// Where the test and its clients are.
pub(crate) const CLIENT: usize = 0;
/// Where the registration server is.
pub(crate) const SERVER: usize = 1;

/// All namespaces of a network.
pub(crate) struct Hosts {
    prefix: String,
    count: usize,
}

impl Hosts {
    /// The bridge, and nothing on it.
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        sweep();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { prefix: format!("dkv{}x{number}", std::process::id()), count: 1 };
        let name = hosts.name(CLIENT);
        run("ip", &["netns", "add", &name]);
        run("ip", &["-n", &name, "link", "set", "lo", "up"]);
        run("ip", &["-n", &name, "link", "add", "br0", "type", "bridge"]);
        run(
            "ip",
            &["-n", &name, "address", "add", &format!("{}/24", address(CLIENT)), "dev", "br0"],
        );
        run("ip", &["-n", &name, "link", "set", "br0", "up"]);
        hosts
    }

    /// Another host on the bridge.
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

    /// Name of a host's namespace.
    pub(crate) fn name(&self, host: usize) -> String {
        format!("{}-{host}", self.prefix)
    }

    /// Lets nothing from one host reach another; the other way stays open.
    pub(crate) fn block(&self, from: usize, to: usize) {
        self.filter(to, &["-A", "INPUT", "-s", &address(from).to_string(), "-j", "DROP"]);
    }

    /// Lets nothing pass between two hosts.
    pub(crate) fn cut(&self, one: usize, other: usize) {
        self.block(one, other);
        self.block(other, one);
    }

    /// Loses a part of all that reaches a host.
    pub(crate) fn lose(&self, host: usize, probability: f64) {
        let probability = probability.to_string();
        let statistic = ["-m", "statistic", "--mode", "random", "--probability", &probability];
        let rule = [&["-A", "INPUT", "-i", "eth0"][..], &statistic, &["-j", "DROP"]].concat();
        self.filter(host, &rule);
    }

    /// Ends whatever was done to the traffic of all hosts.
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
            // It may be that it was never made.
            let _ = attempt("ip", &["netns", "del", &self.name(host)]);
        }
    }
}

/// Address of a host. Each network has a bridge of its own, so all can have the same.
pub(crate) fn address(host: usize) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, 0, host as u8 + 1)
}

/// Takes this thread into a namespace; it is back where it was when this is dropped.
pub(crate) struct Visit(File);

impl Visit {
    /// Enters.
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

/// Takes this thread into a namespace.
pub(crate) fn enter(name: &str) {
    let namespace = File::open(Path::new("/run/netns").join(name)).unwrap();
    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
}

/// Removes namespaces and mounts of test processes that are no more.
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
