//! Compares systems.
//!
//! In every round each system is started, loaded, measured and stopped before the next one starts.
//! So no system disturbs another, and a drift of the machine affects all of them. Each round begins
//! with another system. A ratio is taken within a round; the report has the median of the ratios,
//! with the smallest and the largest.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use dkv_base::number::{decimal, whole_number};

use crate::generator::{self, Cell, Load, Sample, Times};
use crate::report::{self, Measured, Report};
use crate::systems::{self, Kind, Setup};
use crate::workload::{KEYS_MAX, VALUE_BYTES_MAX, Work};

/// Most bytes of values that are loaded: with large values there are fewer keys.
const LOADED_BYTES_MAX: u64 = 256 << 20;

/// What to measure.
#[derive(Args, Clone, Debug)]
pub(crate) struct CompareArgs {
    /// What the clients do; several are measured in turn
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put")]
    work: Vec<Work>,
    /// Clients; several numbers are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "1,64,256",
        value_parser = whole_number(1..=100_000_usize))]
    clients: Vec<usize>,
    /// Requests per second, started whether earlier ones are answered or not [default: each client
    /// sends its next request when the last one is answered]
    #[arg(long, value_delimiter = ',', value_parser = decimal(0.001..=1e9))]
    rate: Vec<f64>,
    /// Time that each is measured, in seconds
    #[arg(long, default_value_t = 5.0, value_parser = decimal(0.01..=86_400.0))]
    seconds: f64,
    /// Time to warm up before that, in seconds
    #[arg(long, default_value_t = 1.0, value_parser = decimal(0.0..=86_400.0))]
    warm_up: f64,
    /// Bytes of a value; several are measured in turn
    #[arg(long, value_delimiter = ',', default_value = "100",
        value_parser = whole_number(0..=VALUE_BYTES_MAX))]
    value_bytes: Vec<usize>,
    /// Keys that are loaded and that the clients choose from; fewer if their values exceed 256 MiB
    #[arg(long, default_value_t = 10_000, value_parser = whole_number(1..=KEYS_MAX))]
    keys: u64,
    /// Seed of the choice of operations and keys
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Systems [default: dkv for `load`, all for `compare`]
    #[arg(long, value_enum, value_delimiter = ',')]
    systems: Vec<Kind>,
    /// How often each is measured [default: once for `load`, three times for `compare`]
    #[arg(long, value_parser = whole_number(1..=1000_usize))]
    rounds: Option<usize>,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// A file to write a chart to, as SVG
    #[arg(long)]
    svg: Option<PathBuf>,
}

/// Measures dkv once, or what the plan says.
pub(crate) async fn load(setup: &Setup, mut plan: CompareArgs) -> Result<(), String> {
    if plan.systems.is_empty() {
        plan.systems = vec![Kind::Dkv];
    }
    run(setup, &plan, plan.rounds.unwrap_or(1)).await
}

/// Measures all systems in three rounds, or what the plan says.
pub(crate) async fn compare(setup: &Setup, mut plan: CompareArgs) -> Result<(), String> {
    if plan.systems.is_empty() {
        plan.systems = Kind::ALL.to_vec();
    }
    run(setup, &plan, plan.rounds.unwrap_or(3)).await
}

async fn run(setup: &Setup, plan: &CompareArgs, rounds: usize) -> Result<(), String> {
    let times = plan.times();
    let groups = plan.groups();
    let cells: Vec<Cell> = groups.iter().flatten().copied().collect();
    let (mut measured, mut errors) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        let mut first_cell = 0;
        for group in &groups {
            for turn in 0..plan.systems.len() {
                let kind = plan.systems[(turn + round) % plan.systems.len()];
                dkv_base::complain!("round {} of {rounds}: {}", round + 1, kind.name());
                let mut seen = |cell: usize, sample| {
                    let cell = first_cell + cell;
                    measured.push(Measured { kind, round, cell, sample });
                };
                let seed = plan.seed + round as u64;
                // If one system fails, the figures of the others are still reported.
                if let Err(error) = measure_system(setup, kind, group, times, seed, &mut seen).await
                {
                    dkv_base::complain!("error: {}: {error}", kind.name());
                    errors.push(format!("{}: {error}", kind.name()));
                }
            }
            first_cell += group.len();
        }
    }
    let report = Report::new(setup, &plan.systems, cells, &measured, errors);
    dkv_base::say!("{}", report::table(&report).trim_end());
    report::write(&report, plan.json.as_deref(), plan.svg.as_deref())?;
    if report.errors.is_empty() { Ok(()) } else { Err("not everything was measured".into()) }
}

/// Starts a system and measures cells that share their records.
async fn measure_system(
    setup: &Setup,
    kind: Kind,
    cells: &[Cell],
    times: Times,
    seed: u64,
    seen: &mut impl FnMut(usize, Sample),
) -> Result<(), String> {
    let offered = || cells.iter().enumerate().filter(|(_, cell)| kind.offers(cell.work));
    let Some((_, first)) = offered().next() else { return Ok(()) };
    let system = systems::start(kind, setup).await?;
    generator::load(&*system, first.records, first.value_bytes).await?;
    for (index, cell) in offered() {
        let sample = generator::measure(&*system, cell, times, seed).await?;
        dkv_base::complain!("  {}", report::line(cell, &sample));
        seen(index, sample);
    }
    Ok(())
}

impl CompareArgs {
    fn times(&self) -> Times {
        let seconds = |number: f64| Duration::try_from_secs_f64(number).unwrap_or_default();
        Times { warm_up: seconds(self.warm_up), measured: seconds(self.seconds) }
    }

    /// Returns all cells, grouped by the records that they share.
    fn groups(&self) -> Vec<Vec<Cell>> {
        let group = |value_bytes: &usize| {
            let most = LOADED_BYTES_MAX / (*value_bytes).max(1) as u64;
            let records = self.keys.min(most).max(1);
            let mut cells = Vec::new();
            for work in &self.work {
                for clients in &self.clients {
                    let mut add = |load| {
                        let (work, value_bytes) = (*work, *value_bytes);
                        cells.push(Cell { work, value_bytes, records, load });
                    };
                    if self.rate.is_empty() {
                        add(Load::Closed { clients: *clients });
                    }
                    for rate in &self.rate {
                        add(Load::Open { rate: *rate, clients: *clients });
                    }
                }
            }
            cells
        };
        self.value_bytes.iter().map(group).collect()
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        plan: CompareArgs,
    }

    fn groups(args: &[&str]) -> Vec<Vec<Cell>> {
        Cli::parse_from([&["bench"], args].concat()).plan.groups()
    }

    #[test]
    fn every_work_is_measured_with_every_number_of_clients_and_sizes_apart() {
        let groups = groups(&["--work", "put,get", "--clients", "1,2", "--value-bytes", "10,20"]);
        let sizes: Vec<Vec<usize>> = groups
            .iter()
            .map(|group| group.iter().map(|cell| cell.value_bytes).collect())
            .collect();
        assert_eq!(sizes, [[10; 4], [20; 4]]);
        let loads: Vec<(Work, usize)> =
            groups[0].iter().map(|cell| (cell.work, cell.load.clients())).collect();
        assert_eq!(loads, [(Work::Put, 1), (Work::Put, 2), (Work::Get, 1), (Work::Get, 2)]);
    }

    #[test]
    fn large_values_have_fewer_keys() {
        let groups = groups(&["--value-bytes", "100,1048576,1073741824", "--keys", "5000"]);
        let records: Vec<u64> = groups.iter().map(|group| group[0].records).collect();
        assert_eq!(records, [5000, 256, 1]);
    }

    #[test]
    fn a_rate_makes_an_open_loop() {
        let groups = groups(&["--rate", "100,200", "--clients", "8"]);
        let loads: Vec<Load> = groups[0].iter().map(|cell| cell.load).collect();
        let open = |rate| Load::Open { rate, clients: 8 };
        assert_eq!(loads, [open(100.0), open(200.0)]);
    }
}
