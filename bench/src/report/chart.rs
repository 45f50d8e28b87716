//! Figures as bar charts, with a colour for each system or kind of load.

use charts_rs::{AxisScale, BarChart, ChildChart, MultiChart, Series, YAxisConfig};

use super::table::name;
use super::{Figures, Report};
use crate::summary::Summary;

/// Width of one bar, in pixels.
const BAR_WIDTH: usize = 34;
const HEIGHT: f32 = 360.0;

/// One kind of figure of everything that was measured.
pub(crate) struct Bars {
    /// The name of the figure, with its unit.
    pub(crate) title: &'static str,
    /// The groups of bars.
    pub(crate) places: Vec<String>,
    /// The names of the bars and their lengths in each group; `None` where nothing was measured.
    pub(crate) series: Vec<(String, Vec<Option<f32>>)>,
}

/// Returns charts below each other.
pub(crate) fn svg(pictures: Vec<Bars>) -> Result<String, String> {
    let mut all = MultiChart::new();
    for bars in pictures {
        all.add(ChildChart::Bar(chart(bars), None));
    }
    all.svg().map_err(|error| error.to_string())
}

/// Returns the throughput and the 99th percentile, a bar for each system.
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
    // The layout measures text with the first font; the others are fallbacks.
    chart.font_family = "Roboto, Helvetica, Arial, sans-serif".to_owned();
    // Logarithmic, because figures differ by orders of magnitude.
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
