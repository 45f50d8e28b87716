//! Figures as text, for a terminal.

use std::fmt::Write;

use super::{CellReport, Figures, Ratio, Report};
use crate::generator::{Cell, Load, Sample};
use crate::summary::Summary;

const HEADER: &str = "system              ops/s  (min..max)             p50 ms   p99 ms p99.9 ms   \
                      max ms  cpu us/op  own us/op  peak MiB";

/// Formats one sample as one line, while measuring.
pub(crate) fn line(cell: &Cell, sample: &Sample) -> String {
    let tally = &sample.tally;
    let failed = match &tally.error {
        Some(error) => format!("  {} failed: {error}", tally.failed),
        None => String::new(),
    };
    format!(
        "{:<42} {:>9.0}/s  p50 {:.3} ms  p99 {:.3} ms{failed}",
        name(cell),
        sample.rate(),
        tally.latency_ms(0.5),
        tally.latency_ms(0.99),
    )
}

/// Formats the whole report.
pub(crate) fn table(report: &Report) -> String {
    let mut text = format!("{}\n", report.machine);
    for (system, version) in &report.versions {
        let _ = writeln!(text, "{system}: {version}");
    }
    for cell in &report.cells {
        add_cell(&mut text, cell);
    }
    text
}

fn add_cell(text: &mut String, cell: &CellReport) {
    let _ = writeln!(text, "\n{}, {} keys", name(&cell.cell), cell.cell.records);
    let _ = writeln!(text, "{HEADER}");
    for figures in &cell.systems {
        let _ = writeln!(text, "{}", row(figures));
        add_notes(text, cell, figures);
    }
    for kind in &cell.not_offered {
        let _ = writeln!(text, "{:<13} not offered", kind.name());
    }
    for ratio in &cell.ratios {
        let _ = writeln!(text, "{}", ratio_row(ratio));
    }
}

fn row(figures: &Figures) -> String {
    let Summary { min, median, max } = figures.ops;
    format!(
        "{:<13} {:>11.0}  {:<19} {:>8.3} {:>8.3} {:>8.3} {:>8.1} {:>10.1} {:>10.1} {:>9.0}",
        figures.system.name(),
        median,
        format!("({min:.0}..{max:.0})"),
        figures.p50_ms.median,
        figures.p99_ms.median,
        figures.p999_ms.median,
        figures.max_ms.max,
        figures.cpu_us.median,
        figures.generator_cpu_us.median,
        figures.peak_bytes.median / f64::from(1 << 20),
    )
}

/// Adds what a reader must not overlook.
fn add_notes(text: &mut String, cell: &CellReport, figures: &Figures) {
    if let Some(error) = &figures.error {
        let _ = writeln!(text, "  {} failed, the first: {error}", figures.failed);
    }
    if figures.missing > 0 {
        let _ = writeln!(text, "  {} read a key that is not there", figures.missing);
    }
    if figures.conflicts > 0 {
        let share = figures.conflicts as f64 / figures.answered.max(1) as f64 * 100.0;
        let _ = writeln!(text, "  {share:.1}% met another write of their key and did not write");
    }
    if let Load::Open { .. } = cell.cell.load {
        let _ = writeln!(text, "  99% were sent within {:.3} ms", figures.late_p99_ms.median);
    }
}

fn ratio_row(ratio: &Ratio) -> String {
    let figure = |Summary { min, median, max }| format!("{median:.2} ({min:.2}..{max:.2})");
    format!(
        "{} : {}   ops/s {}   p50 {}   p99 {}   cpu {}",
        ratio.of.name(),
        ratio.to.name(),
        figure(ratio.ops),
        figure(ratio.p50),
        figure(ratio.p99),
        figure(ratio.cpu),
    )
}

/// Returns the name of a cell.
pub(super) fn name(cell: &Cell) -> String {
    format!("{}, {}, {}", cell.work.name(), bytes(cell.value_bytes), cell.load)
}

fn bytes(bytes: usize) -> String {
    match bytes {
        0..1024 => format!("{bytes} B"),
        1024..1_048_576 if bytes.is_multiple_of(1024) => format!("{} KiB", bytes / 1024),
        _ if bytes.is_multiple_of(1_048_576) => format!("{} MiB", bytes / 1_048_576),
        _ => format!("{bytes} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Work;

    #[test]
    fn cells_have_names() {
        let cell = |value_bytes, load| Cell { work: Work::YcsbA, value_bytes, records: 1, load };
        assert_eq!(name(&cell(100, Load::Closed { clients: 1 })), "ycsb-a, 100 B, 1 client");
        assert_eq!(
            name(&cell(102_400, Load::Open { rate: 500.0, clients: 8 })),
            "ycsb-a, 100 KiB, 500/s over 8 clients"
        );
        assert_eq!(bytes(1 << 20), "1 MiB");
        assert_eq!(bytes(1025), "1025 B");
    }
}
