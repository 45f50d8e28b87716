//! The durable record of one node's incarnations, and how it judges another one.

use dkv_base::mutants::{Mutant, planted};
use serde::{Deserialize, Serialize};

use super::{BootId, Incarnation, PAST_MAX, PastIncarnation, Verdict};

/// Incarnations that a record remembers as refused.
const REFUSED_MAX: usize = 64;

/// An administrator's decision: this incarnation of a node goes on, and its directory is the
/// node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruling {
    /// Orders the rulings on a node; the highest counts. It is the time of the ruling, in
    /// milliseconds since 1970, or one more than the last number. So a ruling by a server that has
    /// forgotten earlier ones counts too.
    pub number: u64,
    /// The incarnation that goes on.
    pub kept: Incarnation,
    /// The incarnations that must stop.
    pub dismissed: Vec<BootId>,
}

impl Ruling {
    /// Whether an incarnation with this past must stop: it was named, or it neither continues the
    /// one that goes on nor came before it. So a process of which nobody knew when the
    /// administrator decided needs no second decision.
    pub(super) fn is_against(&self, boot: BootId, start: u64, past: &[PastIncarnation]) -> bool {
        if self.dismissed.contains(&boot) {
            return true;
        }
        let continues = boot == self.kept.boot || past.iter().any(|it| it.boot == self.kept.boot);
        // Later ones need not name it any more.
        let names_it = start <= self.kept.start.saturating_add(PAST_MAX as u64);
        names_it && !continues && !self.kept.descends_from(boot)
    }
}

/// The durable knowledge about the incarnations of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncarnationRecord {
    /// The newest incarnation that was found sound.
    pub run: Option<Incarnation>,
    /// Whether two ran at once and no administrator has decided between them.
    pub twice: bool,
    /// Incarnations in stale copies of the directory, and those whose machine was restored to an
    /// earlier moment.
    refused: Vec<BootId>,
    /// The last ruling of an administrator.
    pub ruling: Option<Ruling>,
}

impl IncarnationRecord {
    /// Judges an incarnation by what is known without it.
    fn judge(&self, said: &Incarnation) -> Verdict {
        let known_start = self.run.as_ref().map_or(0, |run| run.start);
        if self.ruling.as_ref().is_some_and(|ruling| ruling.dismissed.contains(&said.boot)) {
            return Verdict::Dismissed { start: known_start };
        }
        let is_against = |ruling: &Ruling| ruling.is_against(said.boot, said.start, &said.past);
        if self.ruling.as_ref().is_some_and(is_against) {
            let mark = self.run.as_ref().map_or(0, |run| run.mark);
            return Verdict::Older { start: known_start, mark };
        }
        if self.twice {
            return Verdict::Twice { start: known_start };
        }
        let Some(known) = &self.run else { return Verdict::Sound };
        if planted(Mutant::BelieveCopies) {
            return Verdict::Sound;
        }
        if planted(Mutant::JudgeByStarts) && said.start > known.start && said.names(known.boot) {
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

    /// Takes in what an incarnation reports. Returns the verdict, and whether more than a mark has
    /// changed.
    pub(super) fn take(&mut self, said: &Incarnation) -> (Verdict, bool) {
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
                *known = Incarnation { mark, ..said.clone() };
                (verdict, is_new)
            }
            Verdict::Older { .. } => {
                // A report of an earlier incarnation of this very directory may arrive late.
                let known = self.run.as_ref();
                let is_late = known.is_some_and(|known| known.descends_from(said.boot));
                (verdict, !is_late && self.refuse(said.boot))
            }
            Verdict::Twice { .. } | Verdict::Dismissed { .. } => (verdict, false),
        }
    }

    /// Whether the reporting incarnation began with more of the common past than the known one.
    /// What a dismissed incarnation wrote does not count as common past.
    fn has_more(&self, said: &Incarnation, known: &Incarnation) -> bool {
        let dismissed = self.ruling.as_ref().map_or(&[][..], |ruling| &ruling.dismissed);
        let last = said.past.first();
        said.has_more_of_the_same_past(known)
            && !last.is_some_and(|last| dismissed.contains(&last.boot))
    }

    pub(super) fn refuse(&mut self, boot: BootId) -> bool {
        if self.refused.contains(&boot) {
            return false;
        }
        if self.refused.len() == REFUSED_MAX {
            self.refused.remove(0);
        }
        self.refused.push(boot);
        true
    }

    /// Rules for one incarnation and against all others that were heard.
    pub fn rule(
        &mut self,
        kept: Incarnation,
        others: impl IntoIterator<Item = BootId>,
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

    /// Takes over a ruling that was given elsewhere. Returns whether it was new.
    pub fn obey(&mut self, ruling: &Ruling) -> bool {
        if self.ruling.as_ref().is_some_and(|known| known.number >= ruling.number) {
            return false;
        }
        let kept = &ruling.kept;
        // Later incarnations that descend from the kept one may have been heard since the ruling.
        // Reports of the kept one itself may date from before its machine was restored.
        let is_of_another = |run: &Incarnation| {
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
