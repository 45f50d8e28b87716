//! From what everybody said to one report.

use std::collections::{BTreeMap, BTreeSet};

use dkv_api::{GroupId, NetworkStatus, NodeId, NodeInfo, NodeState, NodeStatus};
use dkv_wire::incarnation::Verdict;
use dkv_wire::message::{GroupRole, GroupStatus, RunReport};

use super::report::{Coordinator, Group, Move, Node, Replica, Report, Role, Server};

/// Computes the report of a status. `address` is where the server was asked.
pub fn report(status: &NetworkStatus, address: &str) -> Report {
    let said = Said { status };
    let groups: Vec<Group> = said.groups().into_iter().map(|group| said.group(group)).collect();
    let coordinator = said.coordinator();
    let mut nodes: Vec<Node> = status
        .nodes
        .iter()
        .map(|(info, answer)| {
            let leads = coordinator.as_ref().is_some_and(|it| it.id == info.id);
            said.node(info, answer, leads, &groups)
        })
        .collect();
    nodes.sort_by_cached_key(|node| by_name(&node.name));
    let spare = groups.iter().filter_map(|group| group.spare).min();
    // Where nobody leads, nobody is known to serve, and nothing is to spare.
    let all_led = groups.iter().all(|group| group.primary.is_some());
    let mut report = Report {
        network: said.network(),
        server: said.server(address),
        coordinator,
        may_fail: spare.map(|spare| if all_led { u32::try_from(spare).unwrap_or(0) } else { 0 }),
        available: spare.is_some_and(|spare| spare >= 0),
        warnings: Vec::new(),
        nodes,
        groups,
        moves: said.moves(),
    };
    report.warnings = warnings(&report, &said);
    report
}

/// Sorts n10 after n9.
fn by_name(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

/// What was said, and how to find things in it.
struct Said<'a> {
    status: &'a NetworkStatus,
}

impl<'a> Said<'a> {
    /// Every node that answered, with its answer.
    fn answers(&self) -> impl Iterator<Item = &'a NodeStatus> {
        self.status.nodes.iter().filter_map(|(_, answer)| answer.as_ref().ok())
    }

    fn answer(&self, node: NodeId) -> Option<&'a NodeStatus> {
        let mut nodes = self.status.nodes.iter();
        nodes.find(|(info, _)| info.id == node).and_then(|(_, answer)| answer.as_ref().ok())
    }

    fn replica(&self, node: NodeId, group: GroupId) -> Option<&'a GroupStatus> {
        self.answer(node)?.groups.iter().find(|replica| replica.group == group)
    }

    fn replicas(&self, group: GroupId) -> impl Iterator<Item = (NodeId, &'a GroupStatus)> {
        self.answers().filter_map(move |answer| {
            let replica = answer.groups.iter().find(|replica| replica.group == group)?;
            Some((answer.id, replica))
        })
    }

    /// The leader of a group, if it answered: of two that claim to be, the one of the later term.
    fn leader(&self, group: GroupId) -> Option<(NodeId, &'a GroupStatus)> {
        let claims = self.replicas(group).filter(|(_, it)| it.role == GroupRole::Leader);
        let latest = self.replicas(group).map(|(_, it)| it.term).max();
        // Whoever leads an earlier term has been replaced and does not know it yet.
        claims.max_by_key(|(_, it)| it.term).filter(|(_, it)| Some(it.term) == latest)
    }

    fn name(&self, node: NodeId) -> String {
        let known = self.status.nodes.iter().find(|(info, _)| info.id == node);
        let listed = || self.status.server.as_ref().ok()?.nodes.iter().find(|it| it.id == node);
        match known {
            Some((info, _)) => info.name.clone(),
            None => listed().map_or_else(|| node.short(), |it| it.name.clone()),
        }
    }

    fn network(&self) -> Option<String> {
        let of_server = || self.status.server.as_ref().ok().map(|server| server.network);
        self.status
            .view
            .as_ref()
            .map(|view| view.network)
            .or_else(of_server)
            .map(|id| id.to_string())
    }

    fn server(&self, address: &str) -> Server {
        let answer = self.status.server.as_ref();
        let books = answer.ok();
        let confirmed = books.and_then(|books| books.coordinator);
        Server {
            address: address.to_owned(),
            reachable: books.is_some(),
            error: answer.err().cloned(),
            version: books.map(|books| books.version.clone()),
            uptime_ms: books.map(|books| books.uptime_ms),
            confirmed_coordinator: confirmed.map(|(node, _)| self.name(node)),
            confirmed_term: confirmed.map(|(_, term)| term.0),
            confirmed_at_ms: books.and_then(|books| books.confirmed_at_ms),
            report_age_ms: books.and_then(|books| books.report_age_ms),
        }
    }

    /// The leader of the control group; if it does not answer, whom the others take for it.
    fn coordinator(&self) -> Option<Coordinator> {
        let latest = |_: &()| {
            let followed = self.replicas(GroupId::CONTROL);
            followed.max_by_key(|(_, it)| it.term).and_then(|(_, it)| Some((it.leader?, it.term)))
        };
        let in_view = || {
            let view = self.status.view.as_ref()?;
            Some((view.coordinator?, view.term))
        };
        let nobody_answers = self.answers().next().is_none();
        let (id, term) = match self.leader(GroupId::CONTROL) {
            Some((node, replica)) => (node, replica.term),
            None if nobody_answers => in_view()?,
            None => latest(&())?,
        };
        let books = self.status.server.as_ref().ok();
        let reachable = self.answer(id).is_some();
        let confirmed = books.is_some_and(|books| books.coordinator == Some((id, term)));
        Some(Coordinator {
            id,
            name: self.name(id),
            term: term.0,
            reachable,
            confirmed,
            confirmed_at_ms: books.filter(|_| confirmed).and_then(|books| books.confirmed_at_ms),
        })
    }

    /// All groups that anybody knows of, the control group first.
    fn groups(&self) -> BTreeSet<GroupId> {
        let held = self.answers().flat_map(|answer| answer.groups.iter().map(|it| it.group));
        let in_view =
            self.status.view.iter().flat_map(|view| view.shards.iter().map(|it| it.group));
        held.chain(in_view).collect()
    }

    fn group(&self, group: GroupId) -> Group {
        let leader = self.leader(group);
        let newest = leader.or_else(|| self.replicas(group).max_by_key(|(_, it)| it.term));
        let in_view = self
            .status
            .view
            .as_ref()
            .and_then(|view| view.shards.iter().find(|shard| shard.group == group));
        let (voters, learners) = match (newest, in_view) {
            (Some((_, replica)), _) => (&replica.voters[..], &replica.learners[..]),
            (None, Some(shard)) => (&shard.voters[..], &shard.learners[..]),
            (None, None) => (&[][..], &[][..]),
        };
        // The best that is known of what it holds: the leader's, or that of the furthest replica.
        let holder = leader.map(|(_, it)| it);
        let furthest = holder
            .or_else(|| self.replicas(group).map(|(_, it)| it).max_by_key(|it| it.applied_index));
        let listed = |nodes: &[NodeId]| -> Vec<Replica> {
            let mut members: Vec<Replica> =
                nodes.iter().map(|node| self.member(group, *node, leader)).collect();
            members.sort_by_cached_key(|member| by_name(&member.name));
            members
        };
        let voters = listed(voters);
        // One that answers and has no replica, or not yet, is no vote that can be counted on.
        let live = voters.iter().filter(|voter| self.replica(voter.id, group).is_some());
        let live = live.count() as i64;
        let majority = voters.len() as i64 / 2 + 1;
        Group {
            group: group.0,
            primary: leader.map(|(node, _)| self.name(node)),
            term: newest.map(|(_, it)| it.term.0),
            revision: furthest.map(|it| it.revision.0),
            keys: furthest.map(|it| it.keys),
            data_bytes: furthest.map(|it| it.bytes),
            spare: (!voters.is_empty()).then_some(live - majority),
            voters,
            learners: listed(learners),
        }
    }

    fn member(
        &self,
        group: GroupId,
        node: NodeId,
        leader: Option<(NodeId, &GroupStatus)>,
    ) -> Replica {
        let own = self.replica(node, group);
        let leads = leader.is_some_and(|(id, _)| id == node);
        // Without a leader the furthest log that answers stands in for its log.
        let furthest = match leader {
            Some((_, it)) => Some(it.last_index),
            None => self.replicas(group).map(|(_, it)| it.last_index).max(),
        };
        let tracked = leader.and_then(|(_, it)| it.replicas.iter().find(|it| it.node == node));
        let matched = match tracked {
            Some(tracked) if !leads => Some(tracked.matched_index),
            _ => own.map(|own| own.last_index),
        };
        let behind = |index: Option<u64>| Some(furthest?.saturating_sub(index?));
        Replica {
            id: node,
            name: self.name(node),
            reachable: self.answer(node).is_some(),
            leader: leads,
            log_lag: behind(matched),
            applied_lag: behind(own.map(|own| own.applied_index)),
            silent_ms: tracked.filter(|_| !leads).and_then(|tracked| tracked.silent_ms),
        }
    }

    fn node(
        &self,
        info: &NodeInfo,
        answer: &Result<NodeStatus, String>,
        leads: bool,
        groups: &[Group],
    ) -> Node {
        let own = answer.as_ref().ok();
        let mut placed = self.status.placement.iter().flat_map(|placement| &placement.nodes);
        let places = placed.find(|places| places.node == info.id);
        let members = || {
            let all = groups.iter().flat_map(|group| group.voters.iter().chain(&group.learners));
            all.filter(|member| member.id == info.id)
        };
        let shards =
            || own.into_iter().flat_map(|own| &own.groups).filter(|it| it.group.is_shard());
        let leads_group =
            |group: &Group| group.voters.iter().any(|it| it.leader && it.id == info.id);
        Node {
            id: info.id,
            name: info.name.clone(),
            role: if leads { Role::Coordinator } else { Role::Replicant },
            state: info.state,
            reachable: own.is_some(),
            error: answer.as_ref().err().cloned(),
            address: info.address,
            region: info.region.clone(),
            version: own.map(|own| own.version.clone()),
            uptime_ms: own.map(|own| own.uptime_ms),
            primaries: groups
                .iter()
                .filter(|group| group.group != GroupId::CONTROL.0 && leads_group(group))
                .map(|group| group.group)
                .collect(),
            replicas: shards().count() as u32,
            log_lag: members().filter_map(|member| member.log_lag).max(),
            applied_lag: members().filter_map(|member| member.applied_lag).max(),
            keys: own.map(|_| shards().map(|it| it.keys).sum()),
            data_bytes: own.map(|_| shards().map(|it| it.bytes).sum()),
            log_bytes: own.map(|own| own.log_bytes),
            fsync_us: own.map(|own| own.fsync_us),
            disk_full: own.is_some_and(|own| own.disk_full),
            pending: own.map(|own| own.pending),
            server_seen_ms: own.and_then(|own| own.server_seen_ms),
            draining: places.is_some_and(|places| places.draining),
            retiring: places.is_some_and(|places| places.retiring),
            may_stop: places.map(|places| places.may_stop),
        }
    }

    fn moves(&self) -> Vec<Move> {
        let moves = self.status.placement.iter().flat_map(|placement| &placement.moves);
        let moves = moves.map(|it| Move {
            group: it.group.0,
            from: it.from.map(|node| self.name(node)),
            to: it.to.map(|node| self.name(node)),
            step: it.step,
            matched_index: it.matched_index,
            last_index: it.last_index,
            data_bytes: it.bytes,
        });
        moves.collect()
    }

    /// Groups with two replicas that have applied the same entries and differ, which must not be.
    fn divergences(&self) -> Vec<String> {
        let mut found = Vec::new();
        for group in self.groups() {
            let mut hashes: BTreeMap<u64, (NodeId, u64)> = BTreeMap::new();
            for (node, replica) in self.replicas(group) {
                let (first, hash) =
                    *hashes.entry(replica.applied_index).or_insert((node, replica.state_hash));
                if hash != replica.state_hash {
                    found.push(format!(
                        "{}: {} and {} differ after the same entries (index {}); stop writing to \
                         it and keep both data directories",
                        group_name(group.0),
                        self.name(first),
                        self.name(node),
                        replica.applied_index
                    ));
                }
            }
        }
        found
    }
}

/// What people call a group.
pub fn group_name(group: u32) -> String {
    if group == GroupId::CONTROL.0 { "control group".into() } else { format!("shard {group}") }
}

/// Nodes whose data directory is an older copy, or of which two processes run.
fn runs(said: &Said<'_>) -> Vec<String> {
    let mut warnings = Vec::new();
    let runs = said.status.server.as_ref().map(|server| server.runs.as_slice());
    for run in runs.unwrap_or_default() {
        let RunReport { name, address, start, mark, .. } = run;
        warnings.push(match run.verdict {
            Verdict::Older { start: known, mark: had } => format!(
                "{name} at {address} is held back: its data directory (start {start}, {mark} entries and \
                 votes) is an older copy of one that was heard before (start {known}, {had} entries \
                 and votes); put the newer one back; only if that is lost, keep {name} \
                 {address} lets this one go on without what it lacks"
            ),
            Verdict::Dismissed { .. } => {
                format!("{name} at {address} (start {start}) was dismissed, and ends")
            }
            Verdict::Twice { .. } | Verdict::Sound => format!(
                "{name} runs twice, and takes no part: one of its processes is at {address} (start \
                 {start}, {mark} entries and votes); keep {name} {address} lets this one go on, and \
                 ends the other"
            ),
        });
    }
    for answer in said.answers() {
        let name = said.name(answer.id);
        warnings.extend(answer.notes.iter().map(|note| format!("{name}: {note}")));
    }
    warnings
}

fn warnings(report: &Report, said: &Said<'_>) -> Vec<String> {
    let mut warnings = said.divergences();
    if let Some(error) = &report.server.error {
        warnings.push(format!(
            "the server does not answer ({error}); reads and writes go on without it, joining waits"
        ));
    }
    warnings.extend(runs(said));
    for group in &report.groups {
        let name = group_name(group.group);
        if let Some(spare) = group.spare.filter(|spare| *spare < 0) {
            let live = group.voters.iter().filter(|voter| voter.reachable).count();
            warnings.push(format!(
                "{name}: {live} of {} voters answer, {} more {} needed",
                group.voters.len(),
                -spare,
                if spare == -1 { "is" } else { "are" },
            ));
        } else if group.primary.is_none() {
            warnings.push(format!("{name}: no leader answers; an election may be under way"));
        }
    }
    let placed = said.status.placement.iter().flat_map(|placement| &placement.nodes);
    let obstacles: Vec<(NodeId, &String)> =
        placed.filter_map(|places| Some((places.node, places.obstacle.as_ref()?))).collect();
    for node in &report.nodes {
        if let Some(error) = node.error.as_ref().filter(|_| node.state != NodeState::Left) {
            warnings.push(format!("{} does not answer: {error}", node.name));
        }
        if let Some(pending @ 1..) = node.pending {
            let writes = if pending == 1 { "write that is" } else { "writes that are" };
            warnings
                .push(format!("{} has {pending} eventual {writes} not delivered yet", node.name));
        }
        if let Some(why) = obstacles.iter().find(|(id, _)| *id == node.id).map(|(_, why)| why) {
            warnings.push(format!("{} cannot be emptied: {why}", node.name));
        }
        if node.disk_full {
            warnings.push(format!("{} refuses writes: its disk is full", node.name));
        }
    }
    if let Some(coordinator) = &report.coordinator
        && report.server.reachable
        && !coordinator.confirmed
    {
        warnings.push(format!(
            "the server has not confirmed {} in term {} yet",
            coordinator.name, coordinator.term
        ));
    }
    warnings
}
