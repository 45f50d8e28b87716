//! What an offline recovery changes in the directory, as one entry: nodes that are lost go for
//! good, and each group goes on with the replicas that are left.
//!
//! An administrator's removal goes step by step, because each group has to agree. After the loss of
//! a majority there is nobody to agree, so this entry does everything at once, whatever the plan
//! was. It does not wait for groups to release a node: their logs were given new members before.

use std::collections::BTreeSet;

use dkv_base::id::{HolderId, NodeId};
use dkv_wire::limits;

use super::{Contents, Recovery};

/// Returns from a change with the reason why it is rejected.
macro_rules! reject {
    ($($text:tt)*) => {
        return Err(format!($($text)*))
    };
}

impl Contents {
    pub(super) fn recover(&mut self, recovery: &Recovery) -> Result<(), String> {
        for node in &recovery.gone {
            self.deny(HolderId::from(*node))?;
            self.nodes.remove(node);
        }
        for group in recovery.groups.keys() {
            if !self.groups.contains_key(group) {
                reject!("there is no group {group}");
            }
        }
        let known: BTreeSet<NodeId> = self.nodes.keys().copied().collect();
        for (group, plan) in &mut self.groups {
            plan.learners.retain(|node| known.contains(node));
            plan.displaced.retain(|node, _| known.contains(node));
            plan.voters.retain(|node| known.contains(node));
            if let Some((voters, begins_anew)) = recovery.groups.get(group) {
                plan.voters.clone_from(voters);
                plan.learners.retain(|node| !voters.contains(node));
                plan.displaced.retain(|node, _| !voters.contains(node));
                if *begins_anew {
                    plan.started = false;
                }
            }
            if !(1..=limits::REPLICATION_MAX as usize).contains(&plan.voters.len()) {
                reject!("group {group} would have {} voters", plan.voters.len());
            }
            if let Some(node) = plan.voters.iter().find(|node| !known.contains(node)) {
                reject!("there is no node {}", node.short());
            }
        }
        self.recover_books(recovery.id);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use dkv_base::id::{GroupId, NetworkId};
    use dkv_wire::network::Settings;
    use uuid::Uuid;

    use super::super::{
        Announcement, Directory, DirectoryCommand, DirectoryEntry, DirectoryResult,
    };
    use super::*;

    fn announcement(id: NodeId) -> Announcement {
        let address = ([127, 0, 0, 1], 4401).into();
        Announcement { id, name: format!("n-{}", id.short()), address, region: None }
    }

    fn execute(directory: &mut Directory, command: DirectoryCommand) -> DirectoryResult {
        directory.execute(&DirectoryEntry { time_ms: 1, command })
    }

    /// A network of three nodes, all of which vote in both groups.
    fn network(nodes: &[NodeId; 3]) -> Directory {
        let mut directory = Directory::new();
        let founder = announcement(nodes[0]);
        let (network, settings) = (NetworkId::random(), Settings::default());
        let create = DirectoryCommand::Create { network, settings, founder };
        assert_eq!(execute(&mut directory, create), DirectoryResult::Done);
        for node in nodes {
            let announce = DirectoryCommand::Announce(announcement(*node));
            assert_eq!(execute(&mut directory, announce), DirectoryResult::Done);
        }
        let started = DirectoryCommand::ShardStarted(GroupId(1));
        assert_eq!(execute(&mut directory, started), DirectoryResult::Done);
        for group in [GroupId::CONTROL, GroupId(1)] {
            let (voters, learners) = (nodes.iter().copied().collect(), BTreeSet::new());
            let members = DirectoryCommand::SetMembers { group, voters, learners };
            assert_eq!(execute(&mut directory, members), DirectoryResult::Done);
        }
        directory
    }

    #[test]
    fn lost_nodes_are_gone_for_good_and_each_group_goes_on_with_what_is_left() {
        let nodes = [NodeId::random(), NodeId::random(), NodeId::random()];
        let mut directory = network(&nodes);
        let left = BTreeSet::from([nodes[2]]);
        let recovery = Recovery {
            id: Uuid::from_u128(1),
            gone: BTreeSet::from([nodes[0], nodes[1]]),
            groups: BTreeMap::from([
                (GroupId::CONTROL, (left.clone(), false)),
                (GroupId(1), (left.clone(), false)),
            ]),
        };
        let before = directory.revision();
        let recover = DirectoryCommand::Recover(recovery);
        assert_eq!(execute(&mut directory, recover.clone()), DirectoryResult::Done);
        assert!(directory.revision() > before);
        assert!(directory.nodes().keys().eq([&nodes[2]]));
        for node in &nodes[..2] {
            assert!(directory.is_denied((*node).into()));
            let back = DirectoryCommand::Announce(announcement(*node));
            assert!(matches!(execute(&mut directory, back), DirectoryResult::Rejected(_)));
        }
        for plan in directory.groups().values() {
            assert!(plan.started && plan.voters == left && plan.displaced.is_empty(), "{plan:?}");
        }
        let hash = directory.hash();
        assert_eq!(execute(&mut directory, recover), DirectoryResult::Done);
        assert_eq!(directory.hash(), hash, "a repetition changes nothing");
    }

    #[test]
    fn a_group_without_a_replica_begins_anew_only_if_that_is_said() {
        let nodes = [NodeId::random(), NodeId::random(), NodeId::random()];
        let mut directory = network(&nodes);
        let gone: BTreeSet<NodeId> = nodes.into();
        let all = DirectoryCommand::Recover(Recovery { gone, ..Recovery::default() });
        let hash = directory.hash();
        assert!(matches!(execute(&mut directory, all), DirectoryResult::Rejected(_)));
        assert_eq!(directory.hash(), hash);
        let groups = BTreeMap::from([(GroupId(1), (BTreeSet::from([nodes[0]]), true))]);
        let recovery = Recovery { gone: BTreeSet::from([nodes[1]]), groups, ..Recovery::default() };
        let anew = DirectoryCommand::Recover(recovery);
        assert_eq!(execute(&mut directory, anew), DirectoryResult::Done);
        let plan = &directory.groups()[&GroupId(1)];
        assert!(!plan.started && plan.voters.iter().eq([&nodes[0]]), "{plan:?}");
        let control = &directory.groups()[&GroupId::CONTROL];
        assert!(control.voters.iter().eq(&BTreeSet::from([nodes[0], nodes[2]])), "{control:?}");
    }
}
