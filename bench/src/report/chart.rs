//! Figures as a picture: bars, a colour for each system or kind of load.

use charts_rs::{AxisScale, BarChart, ChildChart, MultiChart, Series, YAxisConfig};

use super::table::name;
use super::{Figures, Report};
use crate::summary::Summary;

/// Room for one bar, in pixels.
const BAR_WIDTH: usize = 34;
const HEIGHT: f32 = 360.0;

/// One figure of everything that was measured.
pub(crate) struct Bars {
    /// What figure it is, and of what unit.
    pub(crate) title: &'static str,
    /// What stands beside each other.
    pub(crate) places: Vec<String>,
    /// What has a bar in each place, and how long that is; nothing where it was not measured.
    pub(crate) series: Vec<(String, Vec<Option<f32>>)>,
}

/// Pictures below each other.
pub(crate) fn svg(pictures: Vec<Bars>) -> Result<String, String> {
    let mut all = MultiChart::new();
    for bars in pictures {
        all.add(ChildChart::Bar(chart(bars), None));
    }
    all.svg().map_err(|error| error.to_string())
}

/// Operations a second and the 99th percentile, a bar for each system.
pub(super) fn of_report(report: &Report) -> Vec<Bars> {
    let mut systems = Vec::new();
    for figures in report.cells.iter().flat_map(|cell| &cell.systems) {
        if !systems.contains(&figures.system) {
            systems.push(figures.system);
        }
    }
    let bars = |title, figure: fn(&Figures) -> Summary| {
        let series = systems.iter().map(|system| {
            let of_cell = |cell: &super::CellReport| {
                let own = cell.systems.iter().find(|figures| figures.system == *system)?;
                Some(figure(own).median as f32)
            };
            (system.name().to_owned(), report.cells.iter().map(of_cell).collect())
        });
        let places = report.cells.iter().map(|cell| name(&cell.cell)).collect();
        Bars { title, places, series: series.collect() }
    };
    vec![
        bars("operations a second", |figures| figures.ops),
        bars("p99 latency, ms", |figures| figures.p99_ms),
    ]
}

fn chart(bars: Bars) -> BarChart {
    let Bars { title, places, series } = bars;
    let count = places.len() * series.len();
    let series = series
        .into_iter()
        .map(|(name, data)| Series { label_show: true, ..(name.as_str(), data).into() });
    let mut chart = BarChart::new(series.collect(), places);
    chart.title.text = title.to_owned();
    chart.width = (240 + count * BAR_WIDTH).max(640) as f32;
    chart.height = HEIGHT;
    // The first is what the layout measures with; the others stand in where it is not installed.
    chart.font_family = "Roboto, Helvetica, Arial, sans-serif".to_owned();
    // Figures differ by orders of magnitude.
    for axis in &mut chart.y_axis_configs {
        axis.scale = AxisScale::Log(10.0);
    }
    if chart.y_axis_configs.is_empty() {
        chart
            .y_axis_configs
            .push(YAxisConfig { scale: AxisScale::Log(10.0), ..Default::default() });
    }
    chart
}
