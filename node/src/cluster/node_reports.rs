//! What the coordinator hears of the nodes: each tells it what it holds and how what it leads is.
//!
//! Every node runs this task. Something that concerns members is told at once, the rest every
//! second. A coordinator keeps the last word of each node for a while, and makes of all of them
//! what placement decides by. Nothing of it is kept on disk: the next coordinator hears it anew.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dkv_base::id::{GroupId, NodeId, Revision, Term};
use dkv_wire::message::{LedGroup, Measures, RequestBody};
use tokio::time::Instant;
use tracing::debug;

use crate::net::rpc;
use crate::node::Node;
use dkv_state::placement::{GroupMeasure, Measured, NodeMeasure, NodeReport};

/// How often a node looks whether there is something to tell.
const TICK: Duration = Duration::from_millis(50);
/// How often one that votes in nothing does, and so will not lead anything in a moment.
const TICK_FOLLOWING: Duration = Duration::from_millis(250);
/// How often it tells when nothing has changed that matters at once.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Time that the coordinator has to answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Age at which the word of a node counts no more.
const OLD_AFTER: Duration = Duration::from_secs(5);

/// The last words of all nodes.
#[derive(Default)]
pub(crate) struct Heard {
    by_node: BTreeMap<NodeId, (Instant, Measures)>,
}

impl Heard {
    /// A node has spoken.
    ///
    /// # Errors
    /// If a term in it leaps from the one that was heard of before: it would hide every later
    /// leader.
    pub(crate) fn hear(
        &mut self,
        node: NodeId,
        measures: Measures,
        now: Instant,
    ) -> Result<(), String> {
        self.by_node.retain(|_, (when, _)| now.saturating_duration_since(*when) < OLD_AFTER);
        let known = self.led(now);
        let known = |group| known.get(&group).map(|(_, led)| led.term);
        let leaps = |led: &&LedGroup| !led.term.may_follow(known(led.group));
        if let Some(led) = measures.leads.iter().find(leaps) {
            return Err(format!("the term of group {} leaps to {}", led.group, led.term));
        }
        self.by_node.insert(node, (now, measures));
        Ok(())
    }

    /// Those words that still count.
    fn fresh(&self, now: Instant) -> impl Iterator<Item = (NodeId, &Measures)> {
        let fresh = move |when: Instant| now.saturating_duration_since(when) < OLD_AFTER;
        self.by_node
            .iter()
            .filter(move |(_, (when, _))| fresh(*when))
            .map(|(node, (_, said))| (*node, said))
    }

    /// The leader's word about each group: of two who claim to lead, that of the later term.
    pub(crate) fn led(&self, now: Instant) -> BTreeMap<GroupId, (NodeId, LedGroup)> {
        let mut led: BTreeMap<GroupId, (NodeId, LedGroup)> = BTreeMap::new();
        for (node, said) in self.fresh(now) {
            for group in &said.leads {
                let known = led.get(&group.group).map_or(Term(0), |(_, known)| known.term);
                if group.term > known {
                    led.insert(group.group, (node, group.clone()));
                }
            }
        }
        led
    }

    /// What placement decides by. `silence` says how long each node has not been heard of.
    pub(crate) fn measured(
        &self,
        silence: &BTreeMap<NodeId, u64>,
        live_within_ms: u64,
        now: Instant,
    ) -> Measured {
        let reports: BTreeMap<NodeId, NodeReport> = self
            .fresh(now)
            .map(|(node, said)| {
                let holds = said.holds.iter().copied().collect();
                let Measures { free_bytes, keeps_writes, directory, .. } = *said;
                (node, NodeReport { holds, free_bytes, keeps_writes, directory })
            })
            .collect();
        let nodes = silence.iter().map(|(node, silent_ms)| {
            let report = reports.get(node).cloned();
            let live = *silent_ms <= live_within_ms;
            (*node, NodeMeasure { live, silent_ms: *silent_ms, report })
        });
        let groups = self.led(now).into_iter().map(|(group, (leader, led))| {
            let ready = led.members.iter().filter(|member| member.is_ready);
            let measure = GroupMeasure {
                leader,
                term: led.term,
                ready: ready.map(|member| member.node).chain([leader]).collect(),
                voters: led.voters.into_iter().collect(),
                learners: led.learners.into_iter().collect(),
                is_joint: led.is_joint,
                is_changing: led.is_changing,
                bytes: led.bytes,
            };
            (group, measure)
        });
        Measured { nodes: nodes.collect(), groups: groups.collect() }
    }
}

/// Runs for the life of the node.
pub(crate) async fn run(node: Arc<Node>) {
    let mut told: Option<(Told, Instant)> = None;
    loop {
        let every = if node.only_follows() { TICK_FOLLOWING } else { TICK };
        node.rhythm().pause(every).await;
        let Some(coordinator) = node.control().leader() else { continue };
        // The coordinator looks at itself when it decides.
        if coordinator == node.id() {
            told = None;
            continue;
        }
        let mut measures = what_it_holds(&node);
        let now = Told::of(coordinator, &measures);
        let due = told.as_ref().is_none_or(|(before, when)| {
            *before != now || when.elapsed() >= TELL_EVERY || measures.is_changing()
        });
        if !due {
            continue;
        }
        measures.free_bytes = node.free_bytes();
        let body = RequestBody::Measures(Box::new(measures));
        match rpc::tell(node.peers(), coordinator, body, PATIENCE).await {
            Ok(()) => told = Some((now, Instant::now())),
            Err(error) => debug!(%error, "the coordinator was not told how this node is"),
        }
    }
}

/// How this node and what it leads are.
pub(crate) fn measure(node: &Node) -> Measures {
    Measures { free_bytes: node.free_bytes(), ..what_it_holds(node) }
}

/// The same but for the room on its disk, which it takes a call of the kernel to know.
fn what_it_holds(node: &Node) -> Measures {
    // It comes first: by what is known then, the leaders below have acted or will.
    let directory = node.control().machine().with_directory(|directory| directory.revision());
    let groups = node.groups();
    Measures {
        holds: groups.iter().map(|group| group.id()).collect(),
        leads: groups.iter().filter_map(|group| group.measure()).collect(),
        free_bytes: 0,
        keeps_writes: node.keeps_writes(),
        directory: directory.unwrap_or_default(),
    }
}

/// What is told at once when it changes.
#[derive(PartialEq, Eq)]
struct Told {
    coordinator: NodeId,
    holds: Vec<GroupId>,
    /// Without sizes and positions, which change all the time.
    leads: Vec<LedGroup>,
    keeps_writes: bool,
    directory: Revision,
}

impl Told {
    fn of(coordinator: NodeId, measures: &Measures) -> Self {
        let mut leads = measures.leads.clone();
        for led in &mut leads {
            (led.bytes, led.last_index) = (0, 0);
            led.members.iter_mut().for_each(|member| member.matched_index = 0);
        }
        let Measures { holds, keeps_writes, directory, .. } = measures;
        let (keeps_writes, directory) = (*keeps_writes, *directory);
        Self { coordinator, holds: holds.clone(), leads, keeps_writes, directory }
    }
}

/// Whether something is on its way, of which people want to see the progress.
trait Changing {
    fn is_changing(&self) -> bool;
}

impl Changing for Measures {
    fn is_changing(&self) -> bool {
        self.leads.iter().any(|led| led.group.is_shard() && !led.learners.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn says(term: u64) -> Measures {
        let led = LedGroup {
            group: GroupId(1),
            term: Term(term),
            voters: Vec::new(),
            learners: Vec::new(),
            is_joint: false,
            bytes: 0,
            last_index: 0,
            members: Vec::new(),
            is_changing: false,
        };
        Measures { leads: vec![led], ..Measures::default() }
    }

    #[test]
    fn the_later_term_leads_and_old_words_do_not_count() {
        let (mut heard, start) = (Heard::default(), Instant::now());
        let (one, other) = (NodeId::random(), NodeId::random());
        heard.hear(one, says(3), start).unwrap();
        heard.hear(other, says(2), start + OLD_AFTER / 2).unwrap();
        let leader = |heard: &Heard, now| heard.led(now).get(&GroupId(1)).map(|(node, _)| *node);
        assert_eq!(leader(&heard, start + OLD_AFTER / 2), Some(one));
        assert_eq!(leader(&heard, start + OLD_AFTER), Some(other));
        assert_eq!(leader(&heard, start + 2 * OLD_AFTER), None);
        // One that lies about its term hides nobody.
        for term in [u64::MAX, 1 << 41] {
            assert!(heard.hear(other, says(term), start + OLD_AFTER).is_err());
        }
        assert_eq!(leader(&heard, start + OLD_AFTER), Some(other));
        let silence = BTreeMap::from([(one, 0), (other, 10)]);
        let measured = heard.measured(&silence, 5, start + OLD_AFTER);
        assert_eq!(measured.nodes[&one].report, None);
        assert!(measured.nodes[&other].report.is_some() && !measured.nodes[&other].live);
    }
}
