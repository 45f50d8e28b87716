//! Reports of measurements: figures with their spread, as a table, as JSON, as a chart.

mod chart;
mod machine;
mod table;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

pub(crate) use self::chart::Bars;
pub(crate) use self::machine::Machine;
pub(crate) use self::table::{line, table};
use crate::loops::{Cell, Sample};
use crate::spread::Spread;
use crate::systems::{self, Kind, Place};

/// A sample with its system, round and cell.
pub(crate) struct Measured {
    /// The system.
    pub(crate) kind: Kind,
    /// The round, from zero.
    pub(crate) round: usize,
    /// Index of the cell.
    pub(crate) cell: usize,
    /// The answers and their cost.
    pub(crate) sample: Sample,
}

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Where.
    pub(crate) machine: Machine,
    /// What each system says of its version.
    pub(crate) versions: BTreeMap<&'static str, String>,
    /// The cells in the order of their measurement.
    pub(crate) cells: Vec<CellReport>,
    /// What could not be measured.
    pub(crate) errors: Vec<String>,
}

/// The figures of one cell.
#[derive(Serialize)]
pub(crate) struct CellReport {
    /// Which.
    pub(crate) cell: Cell,
    /// Each system's figures, in order.
    pub(crate) systems: Vec<Figures>,
    /// Systems that cannot do this.
    pub(crate) not_offered: Vec<Kind>,
    /// The first system's figures divided by those of each other.
    pub(crate) ratios: Vec<Ratio>,
}

/// Figures of one system over all rounds.
#[derive(Serialize)]
pub(crate) struct Figures {
    /// Whose.
    pub(crate) system: Kind,
    /// Rounds.
    pub(crate) rounds: usize,
    /// Answered requests a second.
    pub(crate) ops: Spread,
    /// Latencies, in milliseconds.
    pub(crate) p50_ms: Spread,
    /// See above.
    pub(crate) p99_ms: Spread,
    /// See above.
    pub(crate) p999_ms: Spread,
    /// See above.
    pub(crate) max_ms: Spread,
    /// 99 of 100 requests began no later than that after their time; open loop only.
    pub(crate) late_p99_ms: Spread,
    /// CPU time of all processes for a request, in microseconds.
    pub(crate) cpu_us: Spread,
    /// CPU time of the generator for a request, in microseconds.
    pub(crate) generator_cpu_us: Spread,
    /// Peak of the memory of all processes, in bytes.
    pub(crate) peak_bytes: Spread,
    /// Sums over all rounds.
    pub(crate) answered: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// Reads of keys that are not there.
    pub(crate) missing: u64,
    /// Read-modify-writes that met another write.
    pub(crate) conflicts: u64,
    /// Why a request failed.
    pub(crate) error: Option<String>,
}

/// One system's figures divided by another's, within each round.
#[derive(Serialize)]
pub(crate) struct Ratio {
    /// The dividend's system.
    pub(crate) of: Kind,
    /// The divisor's.
    pub(crate) to: Kind,
    /// Ratio of answered requests a second: more is better.
    pub(crate) ops: Spread,
    /// Ratio of latencies: less is better.
    pub(crate) p50: Spread,
    /// See above.
    pub(crate) p99: Spread,
    /// Ratio of CPU time for a request: less is better.
    pub(crate) cpu: Spread,
}

impl Report {
    /// Sums samples up.
    pub(crate) fn new(
        place: &Place,
        systems: &[Kind],
        cells: Vec<Cell>,
        measured: &[Measured],
        errors: Vec<String>,
    ) -> Self {
        let versions = systems.iter().map(|kind| (kind.name(), systems::version(*kind, place)));
        let cells = summaries(systems, cells, measured);
        Self { machine: Machine::this(), versions: versions.collect(), cells, errors }
    }
}

fn summaries(systems: &[Kind], cells: Vec<Cell>, measured: &[Measured]) -> Vec<CellReport> {
    let cells = cells.into_iter().enumerate().map(|(index, cell)| {
        let rounds_of = |kind: Kind| -> BTreeMap<usize, &Sample> {
            let own = |measured: &&Measured| measured.cell == index && measured.kind == kind;
            let own = measured.iter().filter(own);
            own.map(|measured| (measured.round, &measured.sample)).collect()
        };
        let figures = systems.iter().map(|kind| Figures::of(*kind, &rounds_of(*kind)));
        let ratios = systems.split_first().into_iter().flat_map(|(base, others)| {
            let ratio = |to: &Kind| Ratio::of(*base, *to, &rounds_of(*base), &rounds_of(*to));
            others.iter().filter_map(ratio).collect::<Vec<_>>()
        });
        CellReport {
            systems: figures.filter(|figures| figures.rounds > 0).collect(),
            not_offered: systems.iter().copied().filter(|kind| !kind.offers(cell.work)).collect(),
            ratios: ratios.collect(),
            cell,
        }
    });
    cells.collect()
}

impl Figures {
    fn of(system: Kind, rounds: &BTreeMap<usize, &Sample>) -> Self {
        let spread = |figure: &dyn Fn(&Sample) -> f64| {
            Spread::of(rounds.values().map(|sample| figure(sample)))
        };
        let sum =
            |count: &dyn Fn(&Sample) -> u64| rounds.values().map(|sample| count(sample)).sum();
        Self {
            system,
            rounds: rounds.len(),
            ops: spread(&Sample::rate),
            p50_ms: spread(&|sample| sample.tally.latency_ms(0.5)),
            p99_ms: spread(&|sample| sample.tally.latency_ms(0.99)),
            p999_ms: spread(&|sample| sample.tally.latency_ms(0.999)),
            max_ms: spread(&|sample| sample.tally.latency_ms(1.0)),
            late_p99_ms: spread(&|sample| sample.tally.lateness_ms(0.99)),
            cpu_us: spread(&Sample::system_cpu_us),
            generator_cpu_us: spread(&Sample::generator_cpu_us),
            peak_bytes: spread(&|sample| sample.peak_memory as f64),
            answered: sum(&|sample| sample.tally.answered()),
            failed: sum(&|sample| sample.tally.failed),
            missing: sum(&|sample| sample.tally.missing),
            conflicts: sum(&|sample| sample.tally.conflicts),
            error: rounds.values().find_map(|sample| sample.tally.error.clone()),
        }
    }
}

impl Ratio {
    /// Over the rounds that both were measured in; `None` if there is none.
    fn of(
        of: Kind,
        to: Kind,
        dividends: &BTreeMap<usize, &Sample>,
        divisors: &BTreeMap<usize, &Sample>,
    ) -> Option<Self> {
        let pairs: Vec<(&Sample, &Sample)> = dividends
            .iter()
            .filter_map(|(round, sample)| Some((*sample, *divisors.get(round)?)))
            .collect();
        let spread = |figure: &dyn Fn(&Sample) -> f64| {
            let each = pairs.iter().map(|(dividend, divisor)| figure(dividend) / figure(divisor));
            // A divisor of zero was too small to be measured.
            Spread::of(each.filter(|ratio| ratio.is_finite()))
        };
        (!pairs.is_empty()).then(|| Self {
            of,
            to,
            ops: spread(&Sample::rate),
            p50: spread(&|sample| sample.tally.latency_ms(0.5)),
            p99: spread(&|sample| sample.tally.latency_ms(0.99)),
            cpu: spread(&Sample::system_cpu_us),
        })
    }
}

/// Writes the files that were asked for.
pub(crate) fn write(
    report: &Report,
    json: Option<&Path>,
    svg: Option<&Path>,
) -> Result<(), String> {
    if let Some(path) = json {
        write_json(path, report)?;
    }
    if let Some(path) = svg {
        write_svg(path, chart::of_report(report))?;
    }
    Ok(())
}

/// Draws figures below each other.
pub(crate) fn write_svg(path: &Path, pictures: Vec<Bars>) -> Result<(), String> {
    let drawn = chart::svg(pictures)?;
    std::fs::write(path, drawn).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes anything as JSON.
pub(crate) fn write_json(path: &Path, what: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(what).map_err(|error| error.to_string())?;
    std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
}
