//! The administrator of a network, who watches it while it runs and gives orders.
//!
//! Each look checks what must hold at any moment: replicas have the same state at the same index,
//! whenever each of them got there; the server never goes back to an older coordinator, and never
//! names two of one term; and no order takes replicas from a shard, except that a removal takes the
//! replica of the removed node.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use dkv_api::{Client, Error, NetworkStatus, NodeStatus, Role, RunChoice};
use dkv_base::id::{GroupId, HolderId, NodeId, Revision};
use dkv_base::sync::lock;
use dkv_wire::incarnation::Verdict;
use dkv_wire::message::GroupRole;

use crate::replication_check::ReplicationCheck;
use crate::trace::Trace;

/// How often it is tried to keep a process of which the server has not heard.
const KEEP_TRIES: u32 = 60;
/// Time between two looks.
const EVERY: Duration = Duration::from_millis(300);

/// An order to the network.
#[derive(Clone, Debug, PartialEq)]
pub enum Order {
    /// Remove the node of that name.
    Remove(String),
    /// Deny the node of that name at once, and remove it.
    Expel(String),
    /// Drain the node of that name, or use it again.
    Drain(String, bool),
    /// Drain the node of that name, and report when it may be switched off for good.
    Empty(String),
    /// Rebalance replicas and primaries.
    Rebalance,
    /// Keep the process of the node of that name that listens at an address.
    Keep(String, SocketAddr),
    /// Forget the history of a shard before a revision.
    Compact(GroupId, Revision),
}

/// What the administrator has seen. Clones share it.
#[derive(Clone, Default)]
pub struct Observations {
    state: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    orders: VecDeque<Order>,
    /// The hash of a group's state at an index, and the node that had it first.
    hashes: BTreeMap<(GroupId, u64), (u64, String)>,
    coordinator: Option<(u64, NodeId)>,
    latest: BTreeMap<String, NodeStatus>,
    replicas: ReplicationCheck,
    /// Nodes that are being emptied for good, and those that may be switched off.
    emptying: BTreeSet<String>,
    empty: BTreeSet<String>,
    /// Nodes that ran twice at the last look.
    twice: BTreeSet<String>,
    looks: u64,
    /// Clients that began after a node was denied, and have yet to find the network.
    newcomers: u32,
    wrong: Vec<String>,
}

impl Observations {
    /// Gives an order to the administrator, who decides first which process of a node goes on: all
    /// else may have to wait for that.
    pub fn order(&self, order: Order) {
        let mut state = self.lock();
        let is_decision = matches!(order, Order::Keep(..));
        state.orders.push_back(order);
        if is_decision {
            state.orders.make_contiguous().sort_by_key(|order| !matches!(order, Order::Keep(..)));
        }
    }

    /// Takes an order off the list: the one that was carried out, and no decision that came since.
    fn finish(&self, order: &Order) {
        let orders = &mut self.lock().orders;
        if let Some(place) = orders.iter().position(|other| other == order) {
            orders.remove(place);
        }
    }

    /// Returns whether clients that began after a node was denied have yet to find the network.
    pub fn awaits_newcomers(&self) -> bool {
        self.lock().newcomers > 0
    }

    /// Returns what was seen and must not be.
    pub fn wrong(&self) -> Vec<String> {
        self.lock().wrong.clone()
    }

    /// Returns the node that led a group at the last look.
    pub fn leader(&self, group: GroupId) -> Option<String> {
        let state = self.lock();
        let leads = |status: &NodeStatus| {
            let mut groups = status.groups.iter();
            groups.any(|seen| seen.group == group && seen.role == GroupRole::Leader)
        };
        state.latest.iter().find(|(_, status)| leads(status)).map(|(name, _)| name.clone())
    }

    /// Returns a node that voted in a group at the last look, and led neither it nor the control
    /// group.
    pub fn follower(&self, group: GroupId) -> Option<String> {
        let state = self.lock();
        let leads = |status: &NodeStatus| {
            let led = |seen: &GroupId| *seen == group || *seen == GroupId::CONTROL;
            status.groups.iter().any(|it| led(&it.group) && it.role == GroupRole::Leader)
        };
        let votes = |status: &NodeStatus| {
            let mut groups = status.groups.iter();
            groups.any(|seen| seen.group == group && seen.voters.contains(&status.id))
        };
        let follows = |status: &NodeStatus| votes(status) && !leads(status);
        state.latest.iter().find(|(_, status)| follows(status)).map(|(name, _)| name.clone())
    }

    /// Returns whether the network survives the loss of any node: every group has had all its
    /// voters, and at the last look no node knew of a group with fewer than three. A new replica
    /// knows of no voters yet, which does not count.
    pub fn bears_a_loss(&self) -> bool {
        let state = self.lock();
        let groups = || state.latest.values().flat_map(|status| &status.groups);
        state.replicas.are_whole()
            && groups().any(|seen| seen.group == GroupId::CONTROL)
            && groups().all(|seen| seen.voters.is_empty() || seen.voters.len() >= 3)
    }

    /// Returns the id of a node, and whether it had a replica of a shard at the last look.
    pub fn holds(&self, name: &str) -> Option<(NodeId, bool)> {
        let state = self.lock();
        let status = state.latest.get(name)?;
        Some((status.id, status.groups.iter().any(|seen| seen.group.is_shard())))
    }

    /// Returns the id of a node, if it voted in a group at the last look.
    pub fn voter(&self, name: &str, group: GroupId) -> Option<NodeId> {
        let state = self.lock();
        let status = state.latest.get(name)?;
        let mut groups = status.groups.iter();
        let votes = groups.any(|seen| seen.group == group && seen.voters.contains(&status.id));
        votes.then_some(status.id)
    }

    /// Sets how many shards there are, and how many replicas each should have.
    pub fn expect(&self, shards: u32, replication: u32) {
        let mut state = self.lock();
        state.replicas.shards = shards as usize;
        state.replicas.replication = replication as usize;
    }

    /// Returns whether the network has said that a node may be switched off for good; only once.
    pub fn may_be_switched_off(&self, name: &str) -> bool {
        self.lock().empty.remove(name)
    }

    /// Returns whether a node ran twice at the last look, as the server, the node or another one
    /// said.
    pub fn runs_twice(&self, name: &str) -> bool {
        self.lock().twice.contains(name)
    }

    /// Returns whether the administrator has yet to decide between two processes of a node, or has
    /// just done so.
    pub fn is_deciding(&self) -> bool {
        let state = self.lock();
        let keeps = |order: &Order| matches!(order, Order::Keep(..));
        !state.twice.is_empty() || state.orders.iter().any(keeps)
    }

    /// Returns how often the administrator has looked.
    pub fn looks(&self) -> u64 {
        self.lock().looks
    }

    /// Returns how many states of groups were seen and compared.
    pub fn states_seen(&self) -> usize {
        self.lock().hashes.len()
    }

    /// Returns why the network is not whole, if it is not. In a whole network each of these nodes
    /// has the control group, each shard has its number of replicas on them and no other, and all
    /// replicas of a group are at the same index.
    pub fn not_whole(&self, names: &[String], groups: u32, replication: u32) -> Option<String> {
        let state = self.lock();
        for name in names {
            let pending = state.latest.get(name).map_or(0, |status| status.pending);
            if pending > 0 {
                return Some(format!("{name} has {pending} eventual writes in its outbox"));
            }
        }
        for name in names {
            let held = state.latest.get(name).map_or(&[][..], |status| &status.groups);
            if let Some(seen) = held.iter().find(|seen| seen.group > GroupId(groups)) {
                return Some(format!("{name} holds shard {} of a dropped keyspace", seen.group));
            }
        }
        for group in (0..=groups).map(GroupId) {
            let mut position = None;
            let (mut leaders, mut holders) = (0, 0);
            for name in names {
                let Some(status) = state.latest.get(name) else {
                    return Some(format!("{name} does not answer"));
                };
                let found = status.groups.iter().find(|seen| seen.group == group);
                let Some(seen) = found else { continue };
                holders += 1;
                leaders += usize::from(seen.role == GroupRole::Leader);
                let here = (seen.applied_index, seen.last_index, seen.state_hash);
                if seen.applied_index != seen.last_index {
                    return Some(format!("{name} lags in group {group}: {here:?}"));
                }
                if *position.get_or_insert(here) != here {
                    return Some(format!(
                        "{name} is at {here:?} in group {group}, not {position:?}"
                    ));
                }
                let voters = seen.voters.len();
                if group.is_shard() && voters != names.len().min(replication as usize) {
                    return Some(format!("group {group} has {voters} voters at {name}"));
                }
            }
            let wanted = match group.is_shard() {
                true => names.len().min(replication as usize),
                false => names.len(),
            };
            if holders != wanted {
                return Some(format!("group {group} is held by {holders}, not {wanted}"));
            }
            if leaders != 1 {
                return Some(format!("group {group} has {leaders} leaders"));
            }
        }
        None
    }

    /// Describes every replica as it was at the last look, a line each.
    pub fn picture(&self) -> Vec<String> {
        let state = self.lock();
        let mut lines = Vec::new();
        for (name, status) in &state.latest {
            let NodeStatus { log_bytes, disk_full, pending, .. } = status;
            let id = status.id;
            lines.push(format!(
                "{name} ({id:?}): log {log_bytes} bytes, disk full: {disk_full}, outbox {pending}"
            ));
            for group in &status.groups {
                lines.push(format!(
                    "{name} group {}: {:?} in term {}, last {}, applied {}, checkpoint {}, purged {}, \
                     voters {:?}, learners {:?}",
                    group.group,
                    group.role,
                    group.term,
                    group.last_index,
                    group.applied_index,
                    group.checkpoint_index,
                    group.purged_index,
                    group.voters,
                    group.learners,
                ));
            }
        }
        lines
    }

    fn take(&self, status: &NetworkStatus) {
        let mut state = self.lock();
        state.looks += 1;
        state.latest.clear();
        if let Ok(server) = &status.server
            && let Some((node, term)) = server.coordinator
        {
            let now = (term.0, node);
            let before = state.coordinator.replace(now);
            if let Some(before) = before
                && (now.0 < before.0 || now.0 == before.0 && now.1 != before.1)
            {
                let wrong = format!("the server went from coordinator {before:?} to {now:?}");
                state.wrong.push(wrong);
            }
        }
        state.twice = running_twice(status);
        let wrong = state.replicas.look(&status.nodes);
        state.wrong.extend(wrong);
        for places in status.placement.iter().flat_map(|placement| &placement.nodes) {
            let node = status.nodes.iter().find(|(node, _)| node.id == places.node);
            if let Some((node, _)) = node.filter(|_| places.draining && places.may_stop)
                && state.emptying.remove(&node.name)
            {
                state.empty.insert(node.name.clone());
            }
        }
        for (node, status) in &status.nodes {
            let Ok(status) = status else { continue };
            for group in &status.groups {
                let place = (group.group, group.applied_index);
                let here = (group.state_hash, node.name.clone());
                let (hash, who) = state.hashes.entry(place).or_insert(here);
                if *hash != group.state_hash {
                    let wrong = format!(
                        "group {} at index {}: {who} has the state {hash:016x}, and {} has {:016x}",
                        place.0, place.1, node.name, group.state_hash
                    );
                    state.wrong.push(wrong);
                }
            }
            state.latest.insert(node.name.clone(), status.clone());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Seen> {
        lock(&self.state)
    }
}

/// Returns the names of the nodes of which two processes run, as somebody says.
fn running_twice(status: &NetworkStatus) -> BTreeSet<String> {
    let runs = status.server.iter().flat_map(|server| &server.runs);
    let runs = runs.filter(|run| matches!(run.verdict, Verdict::Twice { .. }));
    let mut twice: BTreeSet<String> = runs.map(|run| run.name.clone()).collect();
    let notes = || {
        let answers = status.nodes.iter().filter_map(|(_, answer)| answer.as_ref().ok());
        answers.flat_map(|answer| answer.notes.iter().map(move |note| (answer.id, note)))
    };
    for (node, _) in &status.nodes {
        let refused = format!("node {} is refused: two of its processes run", node.id.short());
        let says = |(by, note): (NodeId, &String)| {
            by == node.id && note.contains("two processes of this node run")
                || note.starts_with(&refused)
        };
        if notes().any(says) {
            twice.insert(node.name.clone());
        }
    }
    twice
}

/// Looks again and again, and carries out orders.
pub async fn run(
    server: String,
    token_file: PathBuf,
    home: PathBuf,
    observations: Observations,
    trace: Trace,
) {
    let access = Access { server, token_file, home };
    let client = access.connect().await;
    tokio::spawn(obey(access, client.clone(), observations.clone(), trace));
    loop {
        tokio::time::sleep(EVERY).await;
        observations.take(&client.status().await);
    }
}

/// What the administrator connects with.
#[derive(Clone)]
struct Access {
    server: String,
    token_file: PathBuf,
    home: PathBuf,
}

impl Access {
    async fn connect(&self) -> Client {
        loop {
            let builder = Client::builder().role(Role::Admin).server(&self.server);
            let builder = builder.home(&self.home).token_file(&self.token_file);
            match builder.timeout(Duration::from_secs(5)).connect().await {
                Ok(client) => return client,
                Err(_) => tokio::time::sleep(EVERY).await,
            }
        }
    }

    /// Has another client of the same home find the network.
    fn welcome(&self, observations: &Observations) {
        observations.lock().newcomers += 1;
        let (access, observations) = (self.clone(), observations.clone());
        tokio::spawn(async move {
            let client = access.connect().await;
            while client.refresh().await.is_err() {
                tokio::time::sleep(EVERY).await;
            }
            observations.lock().newcomers -= 1;
        });
    }
}

/// Denies a node, or has it removed in good order if its groups need it.
async fn expel(client: &Client, node: NodeId) -> Result<(), Error> {
    match client.expel_node(node).await {
        Err(Error::NotEverywhere { .. }) => Ok(()),
        Err(Error::Invalid(_)) => client.remove_node(node).await,
        done => done,
    }
}

async fn obey(access: Access, client: Client, observations: Observations, trace: Trace) {
    let mut known = BTreeMap::new();
    let mut tries = 0;
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(order) = observations.lock().orders.front().cloned() else { continue };
        let name = match &order {
            Order::Remove(name)
            | Order::Expel(name)
            | Order::Drain(name, _)
            | Order::Empty(name)
            | Order::Keep(name, _) => name.as_str(),
            Order::Rebalance | Order::Compact(..) => "",
        };
        let Ok(view) = client.refresh().await else { continue };
        known.extend(view.nodes.iter().map(|node| (node.name.clone(), HolderId::from(node.id))));
        let node = view.nodes.iter().find(|node| node.name == name).map(|node| node.id);
        let was_removed = || known.get(name).is_some_and(|holder| view.denied.contains(holder));
        let done = match (&order, node) {
            (Order::Remove(_), Some(node)) => {
                // The order may be heard even if no answer comes.
                observations.lock().replicas.removed.insert(node);
                client.remove_node(node).await
            }
            (Order::Expel(_), Some(node)) => {
                observations.lock().replicas.removed.insert(node);
                expel(&client, node).await
            }
            (Order::Drain(_, on), Some(node)) => client.drain_node(node, *on).await,
            (Order::Empty(name), Some(node)) => {
                let done = client.drain_node(node, true).await;
                if done.is_ok() {
                    observations.lock().emptying.insert(name.clone());
                }
                done
            }
            (Order::Keep(_, address), Some(node)) => {
                let done = client.keep_run(node, RunChoice::Address(*address)).await;
                tries += 1;
                match done {
                    // The server may not have heard from it since it started.
                    Err(Error::Invalid(_)) if tries < KEEP_TRIES => continue,
                    done => {
                        tries = 0;
                        done
                    }
                }
            }
            (Order::Rebalance, _) => client.rebalance().await,
            (Order::Compact(shard, floor), _) => {
                client.compact_shard(*shard, *floor).await.map(drop)
            }
            (_, None) if was_removed() => Ok(()),
            // The node has yet to join, or the view is an older one.
            (_, None) => continue,
        };
        match done {
            Ok(()) => {
                trace.line(format!("{order:?} was obeyed"));
                if matches!(order, Order::Expel(_)) {
                    access.welcome(&observations);
                }
                observations.finish(&order);
            }
            Err(Error::Unavailable(_) | Error::Unknown(_)) => {}
            Err(error) => {
                trace.line(format!("{order:?} was refused: {error}"));
                observations.finish(&order);
            }
        }
    }
}
