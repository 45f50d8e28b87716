//! How the figures of dkv change with the number of keys, shards and nodes.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use dkv_base::number::{decimal, whole_number};
use serde::Serialize;

use crate::generator::{self, Cell, Load, Times};
use crate::process_stats;
use crate::report::{self, Bars, Machine};
use crate::systems::dkv::SHARDS_MAX;
use crate::systems::{self, Kind, Setup};
use crate::workload::{KEYS_MAX, VALUE_BYTES_MAX, Work};

/// The parameters to combine. Each combination is measured on a new network.
#[derive(Args, Clone, Debug)]
pub(crate) struct ScaleArgs {
    /// Keys
    #[arg(long, value_delimiter = ',', default_value = "10000",
        value_parser = whole_number(1..=KEYS_MAX))]
    key_counts: Vec<u64>,
    /// Shards
    #[arg(long, value_delimiter = ',', default_value = "1",
        value_parser = whole_number(1..=SHARDS_MAX))]
    shard_counts: Vec<u32>,
    /// Nodes
    #[arg(long, value_delimiter = ',', default_value = "3",
        value_parser = whole_number(1..=256_usize))]
    node_counts: Vec<usize>,
    /// Length of the values, in bytes
    #[arg(long, default_value_t = 100, value_parser = whole_number(0..=VALUE_BYTES_MAX))]
    value_bytes: usize,
    /// What the clients do
    #[arg(long, value_enum, value_delimiter = ',', default_value = "put,get")]
    work: Vec<Work>,
    /// Clients
    #[arg(long, value_delimiter = ',', default_value = "1,64,256",
        value_parser = whole_number(1..=100_000_usize))]
    clients: Vec<usize>,
    /// Time that each is measured, in seconds
    #[arg(long, default_value_t = 5.0, value_parser = decimal(0.01..=86_400.0))]
    seconds: f64,
    /// A file to write the figures to, as JSON
    #[arg(long)]
    json: Option<PathBuf>,
    /// A file to write charts to, as SVG
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[derive(Serialize)]
struct Row {
    nodes: usize,
    shards: u32,
    cell: Cell,
    ops: f64,
    p50_ms: f64,
    p99_ms: f64,
    cpu_us: f64,
    /// The largest resident memory of a node.
    node_bytes: u64,
}

#[derive(Serialize)]
struct Rows {
    machine: Machine,
    rows: Vec<Row>,
}

/// Measures all combinations.
pub(crate) async fn run(setup: &Setup, plan: &ScaleArgs) -> Result<(), String> {
    let mut rows = Vec::new();
    dkv_base::say!(
        "nodes shards      keys  work          clients       ops/s   p50 ms   p99 ms  cpu us/op  node MiB"
    );
    for nodes in &plan.node_counts {
        for shards in &plan.shard_counts {
            for keys in &plan.key_counts {
                let mut setup = setup.clone();
                setup.dkv_options.nodes = *nodes;
                setup.dkv_options.shards = Some(*shards);
                measure_network(&setup, plan, (*nodes, *shards), *keys, &mut rows).await?;
            }
        }
    }
    let rows = Rows { machine: Machine::this(), rows };
    if let Some(path) = &plan.svg {
        report::write_svg(path, pictures(&rows.rows))?;
    }
    plan.json.as_deref().map_or(Ok(()), |path| report::write_json(path, &rows))
}

async fn measure_network(
    setup: &Setup,
    plan: &ScaleArgs,
    (nodes, shards): (usize, u32),
    records: u64,
    rows: &mut Vec<Row>,
) -> Result<(), String> {
    let measured = Duration::try_from_secs_f64(plan.seconds).map_err(|error| error.to_string())?;
    let times = Times { warm_up: Duration::from_secs(1), measured };
    let system = systems::start(Kind::Dkv, setup).await?;
    let begun = Instant::now();
    generator::load(&*system, records, plan.value_bytes).await?;
    dkv_base::complain!("loaded {records} keys in {:.1} s", begun.elapsed().as_secs_f64());
    for work in &plan.work {
        for clients in &plan.clients {
            let load = Load::Closed { clients: *clients };
            let cell = Cell { work: *work, value_bytes: plan.value_bytes, records, load };
            let sample = generator::measure(&*system, &cell, times, 1).await?;
            let each = system.processes().ids().into_iter();
            let row = Row {
                nodes,
                shards,
                cell,
                ops: sample.rate(),
                p50_ms: sample.tally.latency_ms(0.5),
                p99_ms: sample.tally.latency_ms(0.99),
                cpu_us: sample.system_cpu_us(),
                node_bytes: each
                    .map(|id| process_stats::memory(id).resident)
                    .max()
                    .unwrap_or_default(),
            };
            dkv_base::say!("{}", text(&row, *clients));
            if let Some(error) = &sample.tally.error {
                dkv_base::say!("  {} failed, the first: {error}", sample.tally.failed);
            }
            rows.push(row);
        }
    }
    Ok(())
}

/// Returns charts of all figures: a colour for each work and number of clients, over the
/// configurations.
fn pictures(rows: &[Row]) -> Vec<Bars> {
    let configuration = |row: &Row| {
        let Row { nodes, shards, cell, .. } = row;
        format!("nodes {nodes}, shards {shards}, keys {}", cell.records)
    };
    let of = |row: &Row| format!("{}, {}", row.cell.work.name(), row.cell.load);
    let distinct = |name: &dyn Fn(&Row) -> String| {
        let mut names: Vec<String> = Vec::new();
        for name in rows.iter().map(name) {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    };
    let places = distinct(&configuration);
    let bars = |title, figure: fn(&Row) -> f64| {
        let series = distinct(&of).into_iter().map(|name| {
            let at = |there: &String| {
                let row =
                    rows.iter().find(|row| configuration(row) == *there && of(row) == name)?;
                Some(figure(row) as f32)
            };
            let lengths = places.iter().map(at).collect();
            (name, lengths)
        });
        Bars { title, places: places.clone(), series: series.collect() }
    };
    vec![
        bars("operations a second", |row| row.ops),
        bars("p99 latency, ms", |row| row.p99_ms),
        bars("processor time of one, us", |row| row.cpu_us),
        bars("memory of the largest node, MiB", |row| (row.node_bytes >> 20) as f64),
    ]
}

fn text(row: &Row, clients: usize) -> String {
    format!(
        "{:>5} {:>6} {:>9}  {:<13} {clients:>7} {:>11.0} {:>8.3} {:>8.3} {:>10.1} {:>9}",
        row.nodes,
        row.shards,
        row.cell.records,
        row.cell.work.name(),
        row.ops,
        row.p50_ms,
        row.p99_ms,
        row.cpu_us,
        row.node_bytes / (1024 * 1024),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_picture_has_every_figure_of_every_size() {
        let row = |shards, work| Row {
            nodes: 3,
            shards,
            cell: Cell { work, value_bytes: 100, records: 10, load: Load::Closed { clients: 64 } },
            ops: 1000.0,
            p50_ms: 1.0,
            p99_ms: 2.0,
            cpu_us: 10.0,
            node_bytes: 70 << 20,
        };
        // In the larger configuration only one kind of work was measured.
        let rows = [row(1, Work::Put), row(1, Work::Get), row(4, Work::Put)];
        let pictures = pictures(&rows);
        for bars in &pictures {
            assert_eq!(bars.places, ["nodes 3, shards 1, keys 10", "nodes 3, shards 4, keys 10"]);
            let [(_, put), (_, get)] = &bars.series[..] else { panic!("two kinds of work") };
            assert_eq!((put[0], put[1], get[1]), (get[0], put[0], None), "{}", bars.title);
        }
        assert_eq!(pictures[3].series[0].1[0], Some(70.0));
    }
}
