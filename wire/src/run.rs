//! Runs of a node's process, and how an older copy and a clone of its directory are told apart.
//!
//! A node's identity lives in its data directory, and a directory can be copied. So each start of
//! the process takes a number, one more than the last, and a random [`Boot`], and puts both into
//! the directory before it says anything to anybody. With them it tells how much its log has on
//! disk: its *mark*, which only grows. Whoever hears that ([`RunBook`]) can tell
//!
//! - an **older copy**: it does not know of a run that has been heard of and has written something,
//!   or its log had less when that run ended there than the run had on disk, whatever was written
//!   since; also where a whole machine was put back, and the process with it;
//! - a **clone**: a run that answers a question which was asked after a run was heard of that began
//!   in a copy of its directory; or two runs that each answer what was asked after the other was
//!   first heard of. A process that was killed answers nothing, however late its datagrams arrive;
//!   so a restart is never taken for a clone.
//!
//! Both the registration server and the nodes keep such a book. Deliberately missing: clocks,
//! random numbers, files and any decision what to do about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use dkv_base::mutants::{Mutant, planted};

/// Earlier runs that a run names: as many as are told in a frame of
/// [`crate::limits::JOIN_FRAME_BYTES_MAX`].
pub const PAST_MAX: usize = 128;
/// Runs that are remembered as refused, and runs of a node that are watched at once.
const REFUSED_MAX: usize = 64;
const WATCHED_MAX: usize = 8;

/// A run of a node's process: drawn at random at each start.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Boot(pub u64);

/// An earlier run, as the directory has it in which another one followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Former {
    /// That run.
    pub boot: Boot,
    /// How much it left: what the log had on disk when the next one opened it. Nothing until then.
    pub left: Option<u64>,
}

/// What a run of a node's process says of itself, and what is remembered of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// How often the process was started in this directory.
    pub start: u64,
    /// This run.
    pub boot: Boot,
    /// The runs before it in this directory, the latest first, at most [`PAST_MAX`].
    pub past: Vec<Former>,
    /// Its mark when it began.
    pub opened: u64,
    /// How many entries and votes its log has on disk, all that were ever there counted. It only
    /// grows.
    pub mark: u64,
}

impl Run {
    /// The run that comes after this one in the same directory.
    pub fn next(&self, boot: Boot) -> Self {
        let mut past = Vec::with_capacity(PAST_MAX);
        if self.start > 0 {
            past.push(Former { boot: self.boot, left: None });
        }
        past.extend(self.past.iter().copied().take(PAST_MAX - past.len()));
        let start = self.start.saturating_add(1);
        Self { start, boot, past, opened: self.mark, mark: self.mark }
    }

    /// This run with its log open, which has that much on disk. Before it nobody wrote since the
    /// last run that opened it.
    pub fn open(mut self, mark: u64) -> Self {
        for former in self.past.iter_mut().take_while(|former| former.left.is_none()) {
            former.left = Some(mark);
        }
        Self { opened: mark, mark, ..self }
    }

    /// Whether this run and another one, which has written nothing, began in the same directory as
    /// it was then: what the other knew, this one knows.
    fn takes_the_place_of(&self, other: &Self) -> bool {
        other.mark == other.opened
            && self.opened == other.opened
            && (self.start, &self.past) == (other.start, &other.past)
    }

    /// Whether this run began with more than another one ever had, and all of it is of a run that
    /// both come after: then the other one is of an older copy, and was heard of first.
    fn has_more_of_the_same_past(&self, other: &Self) -> bool {
        self.opened > other.mark && self.past.first().is_some_and(|last| other.names(last.boot))
    }

    fn descends_from(&self, boot: Boot) -> bool {
        self.boot == boot || self.names(boot)
    }

    fn names(&self, boot: Boot) -> bool {
        self.past.iter().any(|former| former.boot == boot)
    }

    /// Whether this run began in the directory of a known one, later, with all that is known of
    /// that.
    ///
    /// What the log has by now does not count: a copy may have written on where nobody heard of it.
    fn comes_after(&self, known: &Self) -> bool {
        if self.start <= known.start || self.mark < known.mark {
            return false;
        }
        let left = |former: &Former| former.left.unwrap_or(0);
        let between = usize::try_from(self.start - known.start - 1).unwrap_or(usize::MAX);
        match self.past.get(between) {
            Some(former) => former.boot == known.boot && left(former) >= known.mark,
            // Of a node that was started more often than it tells, the numbers are all there is.
            None => self.past.len() == PAST_MAX && self.past.last().map_or(0, left) >= known.mark,
        }
    }
}

/// What somebody who keeps a book makes of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Nothing newer is known.
    Sound,
    /// Its directory is an older copy: a run was heard of that it does not know, or that had more.
    Older {
        /// The start of the run that was heard of.
        start: u64,
        /// How far the log of that one was.
        mark: u64,
    },
    /// Two processes of this node run, and nobody has said which is to go on.
    Twice {
        /// The start of the other.
        start: u64,
    },
    /// An administrator has said that another run goes on.
    Dismissed {
        /// The start of that one.
        start: u64,
    },
}

impl Verdict {
    /// Whether the run may take part.
    pub fn is_sound(self) -> bool {
        self == Self::Sound
    }
}

/// An administrator's word: of the runs of a node this one goes on, and its directory is the
/// node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// The later one of a node counts. It is the time at which it was given, in milliseconds, or
    /// one more than the last: so one that a server gives counts also where it has forgotten
    /// earlier ones.
    pub number: u64,
    /// The run that goes on.
    pub kept: Run,
    /// Those that do not.
    pub dismissed: Vec<Boot>,
}

/// What is known of the runs of one node, to be kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The newest run that was found sound, if one was.
    pub run: Option<Run>,
    /// Whether two ran at once, and nobody has said which goes on.
    pub twice: bool,
    /// Runs of directories that were found to be older copies, and runs that were put back
    /// themselves.
    refused: Vec<Boot>,
    /// The last word of an administrator.
    pub ruling: Option<Ruling>,
}

impl RunRecord {
    /// What to make of a run, by what is known without it.
    fn judge(&self, said: &Run) -> Verdict {
        let known_start = self.run.as_ref().map_or(0, |run| run.start);
        let dismissed = self.ruling.iter().flat_map(|ruling| &ruling.dismissed);
        if dismissed.copied().any(|boot| boot == said.boot) {
            return Verdict::Dismissed { start: known_start };
        }
        if self.twice {
            return Verdict::Twice { start: known_start };
        }
        let Some(known) = &self.run else { return Verdict::Sound };
        if planted(Mutant::BelieveCopies) {
            return Verdict::Sound;
        }
        let older = Verdict::Older { start: known.start, mark: known.mark };
        if said.takes_the_place_of(known) {
            return Verdict::Sound;
        }
        if self.refused.iter().any(|boot| said.descends_from(*boot)) {
            return older;
        }
        if said.boot == known.boot {
            return Verdict::Sound;
        }
        if self.has_more(said, known) {
            return Verdict::Sound;
        }
        if said.comes_after(known) { Verdict::Sound } else { older }
    }

    /// Takes what a run says. Returns what to make of it, and whether more than a mark has changed.
    fn take(&mut self, said: &Run) -> (Verdict, bool) {
        let verdict = self.judge(said);
        match verdict {
            Verdict::Sound => {
                let is_new = self.run.as_ref().is_none_or(|known| known.boot != said.boot);
                let known = self.run.clone();
                let older = known.filter(|known| self.has_more(said, known));
                if let Some(older) = older.filter(|older| !said.descends_from(older.boot)) {
                    self.refuse(older.boot);
                }
                let known = self.run.get_or_insert_default();
                let mark = if is_new { said.mark } else { known.mark.max(said.mark) };
                *known = Run { mark, ..said.clone() };
                (verdict, is_new)
            }
            Verdict::Older { .. } => {
                // What an earlier run of the directory itself said before it ended may arrive late.
                let known = self.run.as_ref();
                let is_late = known.is_some_and(|known| known.descends_from(said.boot));
                (verdict, !is_late && self.refuse(said.boot))
            }
            Verdict::Twice { .. } | Verdict::Dismissed { .. } => (verdict, false),
        }
    }

    /// Whether the run that is known has begun with less of the past that both have. What a
    /// dismissed run wrote is none.
    fn has_more(&self, said: &Run, known: &Run) -> bool {
        let dismissed = self.ruling.as_ref().map_or(&[][..], |ruling| &ruling.dismissed);
        let last = said.past.first();
        said.has_more_of_the_same_past(known)
            && !last.is_some_and(|last| dismissed.contains(&last.boot))
    }

    fn refuse(&mut self, boot: Boot) -> bool {
        if self.refused.contains(&boot) {
            return false;
        }
        if self.refused.len() == REFUSED_MAX {
            self.refused.remove(0);
        }
        self.refused.push(boot);
        true
    }

    /// Decides for one run, by an administrator's word, against all the others that were heard of.
    pub fn rule(
        &mut self,
        kept: Run,
        others: impl IntoIterator<Item = Boot>,
        now_ms: u64,
    ) -> Ruling {
        let before = self.ruling.iter().flat_map(|ruling| ruling.dismissed.clone());
        let others = others.into_iter().chain(self.run.as_ref().map(|run| run.boot));
        let mut dismissed = Vec::new();
        for boot in before.chain(others).filter(|boot| *boot != kept.boot) {
            if !dismissed.contains(&boot) {
                dismissed.push(boot);
            }
        }
        dismissed.drain(..dismissed.len().saturating_sub(REFUSED_MAX));
        let after = |ruling: &Ruling| ruling.number.saturating_add(1);
        let number = self.ruling.as_ref().map_or(1, after).max(now_ms);
        let ruling = Ruling { number, kept, dismissed };
        self.obey(&ruling);
        ruling
    }

    /// Takes an administrator's word that somebody else was given. Returns whether it was new.
    pub fn obey(&mut self, ruling: &Ruling) -> bool {
        if self.ruling.as_ref().is_some_and(|known| known.number >= ruling.number) {
            return false;
        }
        let kept = &ruling.kept;
        // Of those that come after the one that is kept, more may have been heard since. What was
        // heard of that one itself may be of before it was put back.
        let is_of_another = |run: &Run| {
            let mut gone = ruling.dismissed.iter().filter(|boot| !kept.descends_from(**boot));
            !run.names(kept.boot) || gone.any(|boot| run.descends_from(*boot))
        };
        if self.run.as_ref().is_none_or(|run| self.twice || is_of_another(run)) {
            self.run = Some(kept.clone());
        }
        self.twice = false;
        self.refused.retain(|boot| !kept.descends_from(*boot));
        for boot in &ruling.dismissed {
            if !kept.descends_from(*boot) {
                self.refuse(*boot);
            }
        }
        self.ruling = Some(ruling.clone());
        true
    }
}

/// A run that is heard of, in memory.
#[derive(Clone, Debug)]
struct Watched {
    boot: Boot,
    start: u64,
    past: Vec<Former>,
    /// The last question that had been asked when it was first heard of.
    since: u64,
    /// The last question that it has answered.
    answered: u64,
    /// The last question that had been asked when its mark was found to be larger than before.
    marked: u64,
}

impl Watched {
    /// Whether this run was alive at a moment after another one was first heard of.
    fn outlived_news_of(&self, other: &Self) -> bool {
        self.answered > other.since
    }

    /// Whether both have run at one time.
    ///
    /// One that began in a copy of the other's directory, as that run left it, has begun after it.
    /// So if the other is alive after this one was heard of, it does not matter what has become of
    /// this one.
    fn ran_beside(&self, other: &Self) -> bool {
        let (own, others) = (self.outlived_news_of(other), other.outlived_news_of(self));
        let follows =
            |one: &Self, another: &Self| one.past.iter().any(|former| former.boot == another.boot);
        own && (others || follows(other, self)) || others && follows(self, other)
    }
}

/// What came of hearing a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// What to make of it.
    pub verdict: Verdict,
    /// Whether more than a mark has changed in the book: that is to be put on disk.
    pub is_news: bool,
    /// Whether it should be asked again soon: another run was heard of, and may be alive.
    pub ask_again: bool,
}

/// All that is known of the runs of nodes, by `K`.
#[derive(Clone, Debug)]
pub struct RunBook<K> {
    records: BTreeMap<K, RunRecord>,
    watched: BTreeMap<K, Vec<Watched>>,
    questions: u64,
}

impl<K: Ord + Copy> Default for RunBook<K> {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl<K: Ord + Copy> RunBook<K> {
    /// A book with what was known when it was put on disk.
    pub fn new(records: BTreeMap<K, RunRecord>) -> Self {
        Self { records, watched: BTreeMap::new(), questions: 0 }
    }

    /// What is to be put on disk.
    pub fn records(&self) -> &BTreeMap<K, RunRecord> {
        &self.records
    }

    /// What is known of one node.
    pub fn record(&self, node: K) -> Option<&RunRecord> {
        self.records.get(&node)
    }

    /// Forgets nodes.
    pub fn retain(&mut self, mut keep: impl FnMut(K) -> bool) {
        self.records.retain(|node, _| keep(*node));
        self.watched.retain(|node, _| keep(*node));
    }

    /// Numbers the question that is asked now. Who answers it is alive after it was asked.
    pub fn question(&mut self) -> u64 {
        self.questions += 1;
        self.questions
    }

    /// A run has said something, in answer to a question if it was asked one.
    pub fn hear(&mut self, node: K, said: &Run, answers: Option<u64>) -> Heard {
        let record = self.records.entry(node).or_default();
        let before = record.run.clone().filter(|known| known.boot == said.boot);
        let (mut verdict, mut is_news) = record.take(said);
        let watched = self.watched.entry(node).or_default();
        if !watched.iter().any(|run| run.boot == said.boot) {
            if watched.len() == WATCHED_MAX {
                watched.remove(0);
            }
            watched.push(Watched {
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
            return Heard { verdict, is_news, ask_again: false };
        };
        own.answered = own.answered.max(answers);
        match before {
            // What was sent before more was heard of it may arrive after that. An answer does not:
            // its machine was put back to an earlier moment, memory and all. What it writes from
            // then on does not make up for it.
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
        let dismissed = |boot: Boot| {
            record.ruling.as_ref().is_some_and(|ruling| ruling.dismissed.contains(&boot))
        };
        let mut others = watched.iter().filter(|run| run.boot != own.boot && !dismissed(run.boot));
        let ask_again = others.clone().any(|other| !own.outlived_news_of(other));
        let beside = others.find(|other| own.ran_beside(other) && !dismissed(own.boot));
        let Some(other) = beside else {
            return Heard { verdict, is_news, ask_again };
        };
        is_news |= !record.twice;
        record.twice = true;
        Heard { verdict: Verdict::Twice { start: other.start }, is_news, ask_again: false }
    }

    /// The log of the run that is known of a node has come further.
    pub fn advance(&mut self, node: K, boot: Boot, mark: u64) {
        let run = self.records.get_mut(&node).and_then(|record| record.run.as_mut());
        let Some(run) = run.filter(|run| run.boot == boot && run.mark < mark) else { return };
        run.mark = mark;
        let mut watched = self.watched.get_mut(&node).into_iter().flatten();
        if let Some(watched) = watched.find(|watched| watched.boot == boot) {
            watched.marked = self.questions;
        }
    }

    /// Decides for one run of a node, by an administrator's word.
    pub fn rule(&mut self, node: K, kept: Run, now_ms: u64) -> Ruling {
        // What it said before must not be held against it.
        let watched = self.watched.remove(&node).unwrap_or_default();
        let others = watched.into_iter().map(|run| run.boot);
        self.records.entry(node).or_default().rule(kept, others, now_ms)
    }

    /// Takes an administrator's word that somebody else was given. Returns whether it was new.
    pub fn obey(&mut self, node: K, ruling: &Ruling) -> bool {
        let is_new = self.records.entry(node).or_default().obey(ruling);
        if is_new {
            self.watched.remove(&node);
        }
        is_new
    }
}

#[cfg(test)]
mod tests;
