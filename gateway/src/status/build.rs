//! Builds a report from the answers of all processes.

use dkv_api::{GroupId, NetworkStatus, NodeId, NodeInfo, NodeStatus, StatusError};
use dkv_wire::message::{GroupRole, GroupStatus};

use super::answers::Answers;
use super::report::{Coordinator, Group, ListedServer, Move, Node, Replica, Report, Role, Server};
use super::warnings::warnings;

/// Computes the report of a status. `address` is the address at which the server was asked.
pub fn report(status: &NetworkStatus, address: &str) -> Report {
    let answers = Answers { status };
    let groups: Vec<Group> =
        answers.groups().into_iter().map(|group| answers.group(group)).collect();
    let coordinator = answers.coordinator();
    let mut nodes: Vec<Node> = status
        .nodes
        .iter()
        .map(|(info, answer)| {
            let leads = coordinator.as_ref().is_some_and(|it| it.id == info.id);
            answers.node(info, answer, leads, &groups)
        })
        .collect();
    nodes.sort_by_cached_key(|node| by_name(&node.name));
    let spare = groups.iter().filter_map(|group| group.spare).min();
    // A group without a leader serves nothing, so no node may fail.
    let all_led = groups.iter().all(|group| group.primary.is_some());
    let mut report = Report {
        network: answers.network(),
        server: answers.server(address),
        servers: answers.servers(),
        coordinator,
        may_fail: spare.map(|spare| if all_led { u32::try_from(spare).unwrap_or(0) } else { 0 }),
        available: all_led && spare.is_some(),
        warnings: Vec::new(),
        nodes,
        groups,
        moves: answers.moves(),
    };
    report.warnings = warnings(&report, &answers);
    report
}

/// Returns a sort key that puts n10 after n9.
fn by_name(name: &str) -> (usize, String) {
    (name.len(), name.to_owned())
}

impl Answers<'_> {
    fn network(&self) -> Option<String> {
        let of_server = || self.status.server.as_ref().ok().map(|server| server.network);
        self.status
            .view
            .as_ref()
            .map(|view| view.network)
            .or_else(of_server)
            .map(|id| id.to_string())
    }

    fn servers(&self) -> Vec<ListedServer> {
        let listed = self.status.servers.iter().map(|(server, answer)| {
            let status = answer.as_ref().ok();
            ListedServer {
                id: server.id.to_string(),
                address: server.address.to_string(),
                reachable: status.is_some(),
                error: answer.as_ref().err().map(ToString::to_string),
                version: status.map(|status| status.version.clone()),
                uptime_ms: status.map(|status| status.uptime_ms),
                report_age_ms: status.and_then(|status| status.report_age_ms),
            }
        });
        listed.collect()
    }

    fn server(&self, address: &str) -> Server {
        let answer = self.status.server.as_ref();
        let records = answer.ok();
        let confirmed = records.and_then(|records| records.coordinator);
        Server {
            address: address.to_owned(),
            reachable: records.is_some(),
            error: answer.err().map(ToString::to_string),
            version: records.map(|records| records.version.clone()),
            uptime_ms: records.map(|records| records.uptime_ms),
            confirmed_coordinator: confirmed.map(|(node, _)| self.name(node)),
            confirmed_term: confirmed.map(|(_, term)| term.0),
            confirmed_at_ms: records.and_then(|records| records.confirmed_at_ms),
            report_age_ms: records.and_then(|records| records.report_age_ms),
        }
    }

    /// Returns the leader of the control group or, if it does not answer, the node that the others
    /// follow.
    fn coordinator(&self) -> Option<Coordinator> {
        let followed = || {
            let replicas = self.replicas(GroupId::CONTROL);
            // One that leads by its own word only leads nobody.
            let following = replicas.filter(|(_, it)| it.role != GroupRole::Leader);
            // One may hear the leader of a term while another does not.
            let leaders = following.filter_map(|(_, it)| Some((it.leader?, it.term)));
            leaders.max_by_key(|(_, term)| *term)
        };
        let in_view = || {
            let view = self.status.view.as_ref()?;
            Some((view.coordinator?, view.term))
        };
        let nobody_answers = self.nodes().next().is_none();
        let (id, term) = match self.leader(GroupId::CONTROL) {
            Some((node, replica)) => (node, replica.term),
            None if nobody_answers => in_view()?,
            None => followed()?,
        };
        let records = self.status.server.as_ref().ok();
        let reachable = self.answer(id).is_some();
        let confirmed = records.is_some_and(|records| records.coordinator == Some((id, term)));
        Some(Coordinator {
            id,
            name: self.name(id),
            term: term.0,
            reachable,
            confirmed,
            confirmed_at_ms: records
                .filter(|_| confirmed)
                .and_then(|records| records.confirmed_at_ms),
        })
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
        // The leader's state or, without one, that of the most advanced replica.
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
        // A node that answers but has no replica (yet) is not a vote to count on, and neither is
        // one that the leader does not hear.
        let is_live = |voter| {
            let is_heard = leader.is_none_or(|(_, leader)| leader.hears(voter));
            self.replica(voter, group).is_some() && is_heard
        };
        let nobody_is_live = || (!voters.is_empty()).then(|| -(voters.len() as i64 / 2 + 1));
        let spare = newest.map_or_else(nobody_is_live, |(_, newest)| newest.spare(is_live));
        // The leader hears a majority, also if this client does not.
        let spare = spare.map(|spare| if leader.is_some() { spare.max(0) } else { spare });
        Group {
            group: group.0,
            primary: leader.map(|(node, _)| self.name(node)),
            term: newest.map(|(_, it)| it.term.0),
            revision: furthest.map(|it| it.revision.0),
            keys: furthest.map(|it| it.keys),
            data_bytes: furthest.map(|it| it.bytes),
            spare,
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
        // Without a leader, the longest log that answers stands in for its log.
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
        answer: &Result<NodeStatus, StatusError>,
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
            error: answer.as_ref().err().map(ToString::to_string),
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
}
