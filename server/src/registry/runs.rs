//! Runs of nodes' processes: detects older copies of a data directory, and nodes that run twice.
//!
//! The rules are those of [`dkv_wire::incarnation`], which nodes apply too. A node asks the server before
//! it serves, and an administrator's decision between two runs is recorded here.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use dkv_base::id::NodeId;
use dkv_wire::incarnation::{Incarnation, IncarnationTracker, Observation, Verdict};
use dkv_wire::limits;
use dkv_wire::message::{Question, RunChoice, RunReport, ServerRefusal, Stand, Standing};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Effects, Registry};
use crate::limits::{MARK_FLUSH_MS, OLDER_COPY_SHOWN_MS, RUN_HEARD_MS, RUN_SILENT_MS, RUNS_MAX};

/// The latest sighting of a run.
#[derive(Clone, Debug)]
struct Sighting {
    run: Incarnation,
    address: SocketAddr,
    verdict: Verdict,
    /// Whether the run must answer once more before the verdict counts.
    is_asked: bool,
    /// Whether another run was known when this one was first heard.
    follows: bool,
    at_ms: u64,
}

/// All runs that the server knows.
#[derive(Clone, Debug, Default)]
pub(super) struct Runs {
    book: IncarnationTracker<NodeId>,
    heard: BTreeMap<NodeId, Vec<Sighting>>,
    /// Whether marks have changed since the last write.
    has_unsaved_marks: bool,
    /// When the last write was requested, in milliseconds since 1970.
    saved_ms: u64,
}

impl Serialize for Runs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.book.records().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Runs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let book = IncarnationTracker::new(Deserialize::deserialize(deserializer)?);
        Ok(Self { book, ..Self::default() })
    }
}

impl Registry {
    /// Judges a run of a node by what it says of itself. `server` identifies this run of the
    /// server; answers to questions of another one do not count.
    ///
    /// # Errors
    /// `Denied` for a removed node, `Invalid` if too many nodes are on record. An error changes
    /// nothing but the records of removed nodes.
    pub fn handle_run_check(
        &mut self,
        node: NodeId,
        stand: &Stand,
        server: u64,
        now_ms: u64,
    ) -> (Result<Standing, ServerRefusal>, Effects) {
        if let Err(refusal) = self.check_not_removed(node) {
            return (Err(refusal), Effects::NONE);
        }
        let denied = &self.denied;
        self.runs.book.retain(|id| !denied.contains(&id.into()));
        self.runs.heard.retain(|id, _| !denied.contains(&(*id).into()));
        let record = self.runs.book.record(node);
        if record.is_none() && self.runs.book.records().len() >= 2 * limits::NODES_MAX {
            let why = "too many nodes are on record that were never removed".to_owned();
            return (Err(ServerRefusal::Invalid(why)), Effects::NONE);
        }
        let known = record.and_then(|record| record.run.as_ref());
        let mark = known.map(|run| run.mark);
        let is_another = known.is_some_and(|run| run.boot != stand.run.boot);
        let answers = stand.answers.filter(|asked| asked.server == server);
        let answers = answers.map(|asked| asked.number);
        let heard = if mark.is_none() && self.has_lost_its_log(node, &stand.run) {
            let verdict = Verdict::Older { start: 0, mark: 0 };
            Observation { verdict, is_news: false, ask_again: false }
        } else {
            self.runs.book.observe(node, &stand.run, answers)
        };
        let Observation { verdict, is_news, ask_again } = heard;
        let sighting = Sighting {
            run: stand.run.clone(),
            address: stand.address,
            verdict,
            is_asked: ask_again,
            follows: is_another,
            at_ms: now_ms,
        };
        let follows = self.runs.record(node, sighting, stand.ends);
        let wait = verdict.is_sound() && self.may_live_elsewhere(node, stand, follows, now_ms);
        self.runs.has_unsaved_marks |= verdict.is_sound() && mark != Some(stand.run.mark);
        let due = now_ms.abs_diff(self.runs.saved_ms) >= MARK_FLUSH_MS || stand.ends;
        let mut effects = Effects::NONE;
        if is_news || self.runs.has_unsaved_marks && due {
            effects.save = true;
            self.runs.has_unsaved_marks = false;
            self.runs.saved_ms = now_ms;
        }
        let question = Question { server, number: self.runs.book.question() };
        let records = self.runs.book.records().iter();
        let rulings = records.filter_map(|(id, record)| Some((*id, record.ruling.clone()?)));
        let rulings = rulings.collect();
        (Ok(Standing { verdict, question, ask_again, wait, rulings }), effects)
    }

    /// Whether log marks have changed since the last write.
    pub fn has_unsaved_marks(&self) -> bool {
        self.runs.has_unsaved_marks
    }

    /// Saves log marks that have changed since the last write.
    pub fn flush_marks(&mut self, now_ms: u64) -> Effects {
        if !std::mem::take(&mut self.runs.has_unsaved_marks) {
            return Effects::NONE;
        }
        self.runs.saved_ms = now_ms;
        Effects::SAVE
    }

    /// Whether a node that the coordinator has named before comes without a log.
    fn has_lost_its_log(&self, node: NodeId, run: &Incarnation) -> bool {
        run.mark == 0 && self.nodes.get(&node).is_some_and(|record| record.reported)
    }

    /// Whether another run of the node may still be alive at another address: it was heard a moment
    /// ago, or this server has just started. At one address only one run can be alive.
    fn may_live_elsewhere(&self, node: NodeId, stand: &Stand, follows: bool, now_ms: u64) -> bool {
        let mut heard = self.runs.heard.get(&node).into_iter().flatten();
        let was_heard = heard.any(|run| {
            run.run.boot != stand.run.boot
                && run.address != stand.address
                && (run.verdict.is_sound() || run.is_asked)
                && now_ms.abs_diff(run.at_ms) < RUN_SILENT_MS
        });
        let moved = || self.nodes.get(&node).is_some_and(|record| record.address != stand.address);
        let has_just_begun = now_ms.abs_diff(self.started_ms) < RUN_SILENT_MS;
        was_heard || follows && has_just_begun && moved()
    }

    /// Keeps one run of a node and dismisses the others, as an administrator decided.
    ///
    /// # Errors
    /// `Invalid` if the choice names no run that was heard, or several. An error changes nothing.
    pub fn handle_keep_run(
        &mut self,
        node: NodeId,
        choice: RunChoice,
        now_ms: u64,
    ) -> (Result<(), ServerRefusal>, Effects) {
        let invalid = |why: String| (Err(ServerRefusal::Invalid(why)), Effects::NONE);
        let heard = self.runs.heard.get(&node).map(Vec::as_slice).unwrap_or_default();
        let chosen: Vec<&Sighting> = match choice {
            // The latest, if the process was restarted there.
            RunChoice::Address(address) => {
                heard.iter().rev().find(|run| run.address == address).into_iter().collect()
            }
            RunChoice::Start(start) => heard.iter().filter(|run| run.run.start == start).collect(),
        };
        let all: Vec<String> =
            heard.iter().map(|run| format!("start {} at {}", run.run.start, run.address)).collect();
        let name = self.node_called(node);
        let kept = match chosen[..] {
            [one] => one.run.clone(),
            [] if all.is_empty() => {
                return invalid(format!(
                    "no process of {name} has contacted the server since the server started; start \
                     the one to keep"
                ));
            }
            [] => {
                return invalid(format!("the runs of {name} are {}; name one", all.join(" and ")));
            }
            _ => return invalid(format!("that names more than one of {}", all.join(" and "))),
        };
        let boot = kept.boot;
        self.runs.book.rule(node, kept, now_ms);
        if let Some(heard) = self.runs.heard.get_mut(&node) {
            heard.retain(|run| run.run.boot == boot);
            heard.iter_mut().for_each(|run| run.verdict = Verdict::Sound);
        }
        (Ok(()), Effects::SAVE)
    }

    /// Whether two processes of a node are running and no administrator has chosen one.
    pub(super) fn runs_twice(&self, node: NodeId) -> bool {
        self.runs.book.record(node).is_some_and(|record| record.twice)
    }

    /// Returns the runs that an administrator should know of.
    pub(super) fn run_reports(&self, now_ms: u64) -> Vec<RunReport> {
        let mut reports = Vec::new();
        for (node, runs) in &self.runs.heard {
            let twice = self.runs_twice(*node);
            let is_recent = |run: &&Sighting| {
                let older = matches!(run.verdict, Verdict::Older { .. });
                // A run on an older copy ends by itself; show it for longer, so that people see
                // why.
                let shown_ms = if older { OLDER_COPY_SHOWN_MS } else { RUN_HEARD_MS };
                now_ms.abs_diff(run.at_ms) <= shown_ms
            };
            let recent = runs.iter().filter(is_recent);
            for heard in recent.filter(|run| twice || !run.verdict.is_sound()) {
                reports.push(RunReport {
                    node: *node,
                    name: self.node_called(*node),
                    address: heard.address,
                    start: heard.run.start,
                    mark: heard.run.mark,
                    verdict: heard.verdict,
                    heard_ms: heard.at_ms,
                });
            }
        }
        reports
    }

    fn node_called(&self, node: NodeId) -> String {
        self.nodes.get(&node).map_or_else(|| node.short(), |record| record.name.clone())
    }
}

impl Runs {
    /// Records a sighting of a run, or forgets the run if it `ends`. Returns whether another run
    /// was known when this one was first heard.
    fn record(&mut self, node: NodeId, mut sighting: Sighting, ends: bool) -> bool {
        let runs = self.heard.entry(node).or_default();
        let before = runs.iter().find(|heard| heard.run.boot == sighting.run.boot);
        sighting.follows = before.map_or(sighting.follows, |before| before.follows);
        runs.retain(|heard| heard.run.boot != sighting.run.boot);
        let follows = sighting.follows;
        if ends {
            return follows;
        }
        if runs.len() == RUNS_MAX {
            runs.remove(0);
        }
        runs.push(sighting);
        follows
    }
}
