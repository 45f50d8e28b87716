//! Judges the incarnations of all nodes by what they report, and finds two that run at once.

use std::collections::BTreeMap;

use dkv_base::mutants::{Mutant, planted};

use super::{BootId, Incarnation, IncarnationRecord, PastIncarnation, Ruling, Verdict};

/// Incarnations of one node that are watched at once.
const WATCHED_MAX: usize = 8;

/// An incarnation that was heard since this process started. It is kept in memory only.
#[derive(Clone, Debug)]
struct Sighting {
    boot: BootId,
    start: u64,
    past: Vec<PastIncarnation>,
    /// The number of the last question asked before it was first heard.
    since: u64,
    /// The last question that it answered.
    answered: u64,
    /// The number of the last question asked before its mark was last seen to grow.
    marked: u64,
}

impl Sighting {
    /// Whether this incarnation was alive after another one was first heard.
    fn outlived_news_of(&self, other: &Self) -> bool {
        self.answered > other.since
    }

    /// Whether both ran at the same time.
    ///
    /// An incarnation that began in a copy of the other's directory began after the other. So if
    /// the other is alive after this one was heard, both overlap, whatever has become of this one
    /// since.
    fn ran_beside(&self, other: &Self) -> bool {
        let (own, others) = (self.outlived_news_of(other), other.outlived_news_of(self));
        let follows =
            |one: &Self, another: &Self| one.past.iter().any(|former| former.boot == another.boot);
        own && (others || follows(other, self)) || others && follows(self, other)
    }
}

/// The outcome of a report by an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The judgement on it.
    pub verdict: Verdict,
    /// Whether more than a mark has changed, so that the records must be written to disk.
    pub is_news: bool,
    /// Whether to ask it again soon: another incarnation was heard and may be alive.
    pub ask_again: bool,
}

/// Tracks the incarnations of all nodes, which are named by `K`.
#[derive(Clone, Debug)]
pub struct IncarnationTracker<K> {
    records: BTreeMap<K, IncarnationRecord>,
    watched: BTreeMap<K, Vec<Sighting>>,
    questions: u64,
}

impl<K: Ord + Copy> Default for IncarnationTracker<K> {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl<K: Ord + Copy> IncarnationTracker<K> {
    /// A tracker that begins with the records that were on disk.
    pub fn new(records: BTreeMap<K, IncarnationRecord>) -> Self {
        Self { records, watched: BTreeMap::new(), questions: 0 }
    }

    /// The records, to be written to disk.
    pub fn records(&self) -> &BTreeMap<K, IncarnationRecord> {
        &self.records
    }

    /// The record of one node.
    pub fn record(&self, node: K) -> Option<&IncarnationRecord> {
        self.records.get(&node)
    }

    /// Forgets the nodes for which `keep` is false.
    pub fn retain(&mut self, mut keep: impl FnMut(K) -> bool) {
        self.records.retain(|node, _| keep(*node));
        self.watched.retain(|node, _| keep(*node));
    }

    /// The number of a new question. An incarnation that answers it was alive after this call.
    pub fn question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }

    /// Takes in a report by an incarnation, which may answer a question.
    pub fn observe(&mut self, node: K, said: &Incarnation, answers: Option<u64>) -> Observation {
        let record = self.records.entry(node).or_default();
        let before = record.run.clone().filter(|known| known.boot == said.boot);
        let (mut verdict, mut is_news) = record.take(said);
        let watched = self.watched.entry(node).or_default();
        if !watched.iter().any(|run| run.boot == said.boot) {
            if watched.len() == WATCHED_MAX {
                watched.remove(0);
            }
            watched.push(Sighting {
                boot: said.boot,
                start: said.start,
                past: said.past.clone(),
                since: self.questions,
                answered: 0,
                marked: self.questions,
            });
        }
        let answers = answers.filter(|number| *number <= self.questions).unwrap_or(0);
        let Some(own) = watched.iter_mut().find(|run| run.boot == said.boot) else {
            return Observation { verdict, is_news, ask_again: false };
        };
        own.answered = own.answered.max(answers);
        match before {
            // A report sent before a larger mark was heard may arrive late. An answer to a later
            // question cannot: the machine was restored to an earlier moment, memory included. What
            // it writes from then on does not make up for the loss.
            Some(known) if said.mark < known.mark => {
                if answers > own.marked && verdict.is_sound() {
                    verdict = Verdict::Older { start: known.start, mark: known.mark };
                    is_news |= record.refuse(said.boot);
                }
            }
            Some(known) if said.mark == known.mark => {}
            _ => own.marked = self.questions,
        }
        let own = own.clone();
        let dismissed = |run: &Sighting| {
            let is_against = |ruling: &Ruling| ruling.is_against(run.boot, run.start, &run.past);
            record.ruling.as_ref().is_some_and(is_against)
        };
        let mut others = watched.iter().filter(|run| run.boot != own.boot && !dismissed(run));
        let ask_again = others.clone().any(|other| !own.outlived_news_of(other));
        let beside = others.find(|other| own.ran_beside(other) && !dismissed(&own));
        let Some(other) = beside.filter(|_| !planted(Mutant::BelieveClones)) else {
            return Observation { verdict, is_news, ask_again };
        };
        is_news |= !record.twice;
        record.twice = true;
        Observation { verdict: Verdict::Twice { start: other.start }, is_news, ask_again: false }
    }

    /// Notes that the log of a node's known incarnation has grown.
    pub fn advance(&mut self, node: K, boot: BootId, mark: u64) {
        let run = self.records.get_mut(&node).and_then(|record| record.run.as_mut());
        let Some(run) = run.filter(|run| run.boot == boot && run.mark < mark) else { return };
        run.mark = mark;
        let mut watched = self.watched.get_mut(&node).into_iter().flatten();
        if let Some(watched) = watched.find(|watched| watched.boot == boot) {
            watched.marked = self.questions;
        }
    }

    /// Rules for one incarnation of a node, by order of an administrator.
    pub fn rule(&mut self, node: K, kept: Incarnation, now_ms: u64) -> Ruling {
        // What the kept incarnation reported before must not count against it.
        let watched = self.watched.remove(&node).unwrap_or_default();
        let others = watched.into_iter().map(|run| run.boot);
        self.records.entry(node).or_default().rule(kept, others, now_ms)
    }

    /// Takes over a ruling that was given elsewhere. Returns whether it was new.
    pub fn obey(&mut self, node: K, ruling: &Ruling) -> bool {
        let is_new = self.records.entry(node).or_default().obey(ruling);
        if is_new {
            self.watched.remove(&node);
        }
        is_new
    }
}
