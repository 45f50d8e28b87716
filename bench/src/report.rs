//! Reports of measurements: figures with their spread, as a table, as JSON, and as a chart.

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
use crate::generator::{Cell, Sample};
use crate::summary::Summary;
use crate::systems::{self, Kind, Setup};

/// One sample, and what it was taken of.
pub(crate) struct Measured {
    /// The system.
    pub(crate) kind: Kind,
    /// The round, from zero.
    pub(crate) round: usize,
    /// The index of the cell.
    pub(crate) cell: usize,
    /// The figures.
    pub(crate) sample: Sample,
}

/// Everything that was measured.
#[derive(Serialize)]
pub(crate) struct Report {
    /// The machine.
    pub(crate) machine: Machine,
    /// The version that each system reports.
    pub(crate) versions: BTreeMap<&'static str, String>,
    /// The cells, in the order measured.
    pub(crate) cells: Vec<CellReport>,
    /// Measurements that failed.
    pub(crate) errors: Vec<String>,
}

/// The figures of one cell.
#[derive(Serialize)]
pub(crate) struct CellReport {
    /// The cell.
    pub(crate) cell: Cell,
    /// The figures of each system, in order.
    pub(crate) systems: Vec<Figures>,
    /// Systems that do not offer this operation.
    pub(crate) not_offered: Vec<Kind>,
    /// The figures of the first system divided by those of each other system.
    pub(crate) ratios: Vec<Ratio>,
}

/// The figures of one system over all rounds.
#[derive(Serialize)]
pub(crate) struct Figures {
    /// The system.
    pub(crate) system: Kind,
    /// Number of rounds.
    pub(crate) rounds: usize,
    /// Answered requests per second.
    pub(crate) ops: Summary,
    /// Median latency, in milliseconds.
    pub(crate) p50_ms: Summary,
    /// 99th percentile of the latency, in milliseconds.
    pub(crate) p99_ms: Summary,
    /// 99.9th percentile of the latency, in milliseconds.
    pub(crate) p999_ms: Summary,
    /// Longest latency, in milliseconds.
    pub(crate) max_ms: Summary,
    /// 99th percentile of how late requests started, in milliseconds; open loop only.
    pub(crate) late_p99_ms: Summary,
    /// CPU time of all processes per request, in microseconds.
    pub(crate) cpu_us: Summary,
    /// CPU time of the generator per request, in microseconds.
    pub(crate) generator_cpu_us: Summary,
    /// Peak memory of all processes, in bytes.
    pub(crate) peak_bytes: Summary,
    /// Answered requests, in all rounds, as the following counts.
    pub(crate) answered: u64,
    /// Requests that failed.
    pub(crate) failed: u64,
    /// Reads of keys that do not exist.
    pub(crate) missing: u64,
    /// Read-modify-writes that conflicted with another write.
    pub(crate) conflicts: u64,
    /// Why the first request failed.
    pub(crate) error: Option<String>,
}

/// The figures of one system divided by those of another, within each round.
#[derive(Serialize)]
pub(crate) struct Ratio {
    /// The system of the dividend.
    pub(crate) of: Kind,
    /// The system of the divisor.
    pub(crate) to: Kind,
    /// Answered requests per second: higher is better.
    pub(crate) ops: Summary,
    /// Median latencies: lower is better.
    pub(crate) p50: Summary,
    /// 99th percentiles of the latency: lower is better.
    pub(crate) p99: Summary,
    /// CPU time per request: lower is better.
    pub(crate) cpu: Summary,
}

impl Report {
    /// Summarizes samples.
    pub(crate) fn new(
        setup: &Setup,
        systems: &[Kind],
        cells: Vec<Cell>,
        measured: &[Measured],
        errors: Vec<String>,
    ) -> Self {
        let versions = systems.iter().map(|kind| (kind.name(), systems::version(*kind, setup)));
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
            Summary::of(rounds.values().map(|sample| figure(sample)))
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
    /// Returns the ratio over the rounds in which both were measured; `None` if there is none.
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
            // A zero divisor was too small to be measured.
            Summary::of(each.filter(|ratio| ratio.is_finite()))
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

/// Writes the requested files.
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

/// Draws charts below each other.
pub(crate) fn write_svg(path: &Path, pictures: Vec<Bars>) -> Result<(), String> {
    let drawn = chart::svg(pictures)?;
    std::fs::write(path, drawn).map_err(|error| format!("{}: {error}", path.display()))
}

/// Writes a value as JSON.
pub(crate) fn write_json(path: &Path, what: &impl Serialize) -> Result<(), String> {
    let text = serde_json::to_string_pretty(what).map_err(|error| error.to_string())?;
    std::fs::write(path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))
}
