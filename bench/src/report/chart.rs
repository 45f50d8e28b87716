//! Figures as a picture: operations a second and the 99th percentile, a bar for each system.

use charts_rs::{AxisScale, BarChart, ChildChart, MultiChart, Series, YAxisConfig};

use super::table::name;
use super::{Figures, Report};
use crate::spread::Spread;

/// Room for one bar, in pixels.
const BAR_WIDTH: usize = 34;
const HEIGHT: f32 = 360.0;

/// The chart.
pub(super) fn svg(report: &Report) -> Result<String, String> {
    let mut both = MultiChart::new();
    both.add(chart(report, "operations a second", |figures| figures.ops));
    both.add(chart(report, "p99 latency, ms", |figures| figures.p99_ms));
    both.svg().map_err(|error| error.to_string())
}

fn chart(report: &Report, title: &str, figure: fn(&Figures) -> Spread) -> ChildChart {
    let mut systems = Vec::new();
    for figures in report.cells.iter().flat_map(|cell| &cell.systems) {
        if !systems.contains(&figures.system) {
            systems.push(figures.system);
        }
    }
    let series = systems.iter().map(|system| {
        let of_cell = |cell: &super::CellReport| {
            let own = cell.systems.iter().find(|figures| figures.system == *system)?;
            Some(figure(own).median as f32)
        };
        let data: Vec<Option<f32>> = report.cells.iter().map(of_cell).collect();
        Series { label_show: true, ..(system.name(), data).into() }
    });
    let cells = report.cells.iter().map(|cell| name(&cell.cell)).collect();
    let mut chart = BarChart::new(series.collect(), cells);
    chart.title.text = title.to_owned();
    chart.width = (240 + report.cells.len() * systems.len() * BAR_WIDTH).max(640) as f32;
    chart.height = HEIGHT;
    // The first is what the layout measures with; the others stand in where it is not installed.
    chart.font_family = "Roboto, Helvetica, Arial, sans-serif".to_owned();
    // Systems differ by orders of magnitude.
    for axis in &mut chart.y_axis_configs {
        axis.scale = AxisScale::Log(10.0);
    }
    if chart.y_axis_configs.is_empty() {
        chart
            .y_axis_configs
            .push(YAxisConfig { scale: AxisScale::Log(10.0), ..Default::default() });
    }
    ChildChart::Bar(chart, None)
}
