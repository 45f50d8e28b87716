//! A drill as its clients saw it: latency and success over time, as SVG.
//!
//! The upper half shows latencies on a logarithmic scale: for each interval the median as a line,
//! and above it a bar up to the worst. The lower half shows how many requests ended: those that
//! were answered, and on top of them those that failed or whose outcome is unknown. The time of the
//! fault is shaded, and numbers mark the events. Colours follow the reader's preference for light
//! or dark.

use std::fmt::Write;

use dkv_check::{Action, Level, Outcome};

use crate::result::DrillResult;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 944.0;
/// Top and bottom of the latencies.
const UPPER: (f64, f64) = (52.0, 232.0);
/// Top and bottom of the requests.
const LOWER: (f64, f64) = (272.0, 372.0);
const HEIGHT: f64 = 410.0;
/// Number of intervals across the chart.
const INTERVALS: usize = 220;
/// Bounds of the latency axis, in milliseconds.
const LATENCY_MS: (f64, f64) = (0.1, 10_000.0);

const STYLE: &str = "\
.d{--ink:#1d2733;--soft:#5d6b7a;--grid:#e1e6ec;--paper:#ffffff;--line:#1f6feb;--worst:#9cc3ff;\
--good:#7fb28a;--bad:#d1242f;--fault:#f2b84b}\
@media (prefers-color-scheme:dark){.d{--ink:#e3e9f0;--soft:#9aa7b5;--grid:#2b333d;--paper:#14191f;\
--line:#6cb0ff;--worst:#2f568a;--good:#4d8a5c;--bad:#ff6b6b;--fault:#a9761a}}\
.d text{font:12px system-ui,sans-serif;fill:var(--soft)}.d .t{font-weight:600;font-size:14px;fill:var(--ink)}\
.d .n{font-weight:600;fill:var(--ink)}";

/// Requests that ended within one interval.
#[derive(Default)]
struct Interval {
    latencies_ms: Vec<f64>,
    failed: usize,
}

/// Draws the chart of a drill.
pub(crate) fn svg(result: &DrillResult) -> String {
    let total_ns = result.end_ns.max(1);
    let intervals = intervals(result, total_ns);
    let x = |at_ns: u64| LEFT + (RIGHT - LEFT) * at_ns.min(total_ns) as f64 / total_ns as f64;
    let mut svg = format!(
        "<svg class=\"d\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         role=\"img\" aria-label=\"{name}: latency and success over time\"><style>{STYLE}</style>\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"var(--paper)\"/>\
         <text class=\"t\" x=\"{LEFT}\" y=\"22\">{name}</text>",
        name = result.name(),
    );
    if let (Some(first), Some(last)) = (result.events.first(), result.events.last()) {
        let (from, to) = (x(first.at_ns), x(last.at_ns).max(x(first.at_ns) + 2.0));
        push(
            &mut svg,
            format_args!(
                "<rect x=\"{from:.1}\" y=\"{}\" width=\"{:.1}\" height=\"{}\" fill=\"var(--fault)\" opacity=\".22\"/>",
                UPPER.0,
                to - from,
                LOWER.1 - UPPER.0
            ),
        );
    }
    axes(&mut svg, total_ns);
    latencies(&mut svg, &intervals);
    requests(&mut svg, &intervals, total_ns);
    let mut last_x = f64::MIN;
    for (number, event) in result.events.iter().enumerate() {
        let at = x(event.at_ns);
        // Labels that would overlap are moved apart; their lines stay.
        let mark = at.max(last_x + 14.0).min(RIGHT);
        last_x = mark;
        push(
            &mut svg,
            format_args!(
                "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{}\" y2=\"{}\" stroke=\"var(--fault)\" stroke-width=\"1.5\"/>\
             <text class=\"n\" x=\"{mark:.1}\" y=\"{}\" text-anchor=\"middle\">{}<title>{:.2} s: {}</title></text>",
                UPPER.0,
                LOWER.1,
                UPPER.0 - 6.0,
                number + 1,
                event.at_ns as f64 / 1e9,
                escaped(&event.text)
            ),
        );
    }
    svg + "</svg>\n"
}

fn intervals(result: &DrillResult, total_ns: u64) -> Vec<Interval> {
    let mut intervals: Vec<Interval> = (0..INTERVALS).map(|_| Interval::default()).collect();
    for operation in &result.history.operations {
        // Reads after the end, which check the result, are not part of the chart.
        if operation.end_ns > total_ns
            || matches!(operation.action, Action::Get(Level::Eventual | Level::Session))
        {
            continue;
        }
        let place =
            (u128::from(operation.end_ns) * INTERVALS as u128 / u128::from(total_ns)) as usize;
        let interval = &mut intervals[place.min(INTERVALS - 1)];
        match operation.outcome {
            Outcome::Failed | Outcome::Unknown => interval.failed += 1,
            _ => interval.latencies_ms.push((operation.end_ns - operation.start_ns) as f64 / 1e6),
        }
    }
    intervals.iter_mut().for_each(|interval| interval.latencies_ms.sort_by(f64::total_cmp));
    intervals
}

fn axes(svg: &mut String, total_ns: u64) {
    for ms in [0.1, 1.0, 10.0, 100.0, 1000.0, 10_000.0] {
        let label = if ms < 1000.0 { format!("{ms} ms") } else { format!("{} s", ms / 1000.0) };
        grid(svg, level(ms), &label);
    }
    push(
        svg,
        format_args!(
            "<text x=\"{RIGHT}\" y=\"22\" text-anchor=\"end\">latency of requests: median (line) and worst (bar)</text>"
        ),
    );
    let (y, from) = (LOWER.1, LOWER.0 - 8.0);
    push(
        svg,
        format_args!(
            "<text x=\"{RIGHT}\" y=\"{from}\" text-anchor=\"end\">requests a second: answered (green), failed or unknown (red)</text>"
        ),
    );
    let seconds = total_ns as f64 / 1e9;
    let step = [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 3600.0];
    let step = step.into_iter().find(|step| seconds / step <= 14.0).unwrap_or(3600.0);
    for tick in 0..=(seconds / step) as usize {
        let at = tick as f64 * step;
        let x = LEFT + (RIGHT - LEFT) * at / seconds;
        let label = if step < 1.0 { format!("{at:.1} s") } else { format!("{at:.0} s") };
        push(
            svg,
            format_args!(
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y}\" y2=\"{}\" stroke=\"var(--soft)\"/>\
             <text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
                y + 4.0,
                y + 20.0
            ),
        );
    }
}

fn grid(svg: &mut String, y: f64, label: &str) {
    push(
        svg,
        format_args!(
            "<line x1=\"{LEFT}\" x2=\"{RIGHT}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"var(--grid)\"/>\
         <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 8.0,
            y + 4.0
        ),
    );
}

/// Returns the vertical position of a latency.
fn level(ms: f64) -> f64 {
    let (least, most) = (LATENCY_MS.0.log10(), LATENCY_MS.1.log10());
    let share = (ms.clamp(LATENCY_MS.0, LATENCY_MS.1).log10() - least) / (most - least);
    UPPER.1 - share * (UPPER.1 - UPPER.0)
}

fn latencies(svg: &mut String, intervals: &[Interval]) {
    let width = (RIGHT - LEFT) / INTERVALS as f64;
    let (mut bars, mut path, mut is_open) = (String::new(), String::new(), false);
    for (place, interval) in intervals.iter().enumerate() {
        let x = LEFT + width * place as f64;
        let Some(worst) = interval.latencies_ms.last() else {
            is_open = false;
            continue;
        };
        let median = interval.latencies_ms[interval.latencies_ms.len() / 2];
        let (top, bottom) = (level(*worst), level(median));
        push(
            &mut bars,
            format_args!("M{x:.1} {bottom:.1}V{top:.1}h{:.1}V{bottom:.1}z", width * 0.8),
        );
        let verb = if is_open { 'L' } else { 'M' };
        push(&mut path, format_args!("{verb}{:.1} {bottom:.1}", x + width * 0.4));
        is_open = true;
    }
    push(
        svg,
        format_args!(
            "<path d=\"{bars}\" fill=\"var(--worst)\"/>\
         <path d=\"{path}\" fill=\"none\" stroke=\"var(--line)\" stroke-width=\"1.8\" stroke-linejoin=\"round\" stroke-linecap=\"round\"/>"
        ),
    );
}

fn requests(svg: &mut String, intervals: &[Interval], total_ns: u64) {
    let most =
        intervals.iter().map(|it| it.latencies_ms.len() + it.failed).max().unwrap_or(0).max(1);
    let width = (RIGHT - LEFT) / INTERVALS as f64;
    let height = |count: usize| (LOWER.1 - LOWER.0) * count as f64 / most as f64;
    let a_second = most as f64 * INTERVALS as f64 / (total_ns as f64 / 1e9);
    grid(svg, LOWER.0, &format!("{a_second:.0}"));
    grid(svg, LOWER.1, "0");
    let (mut good, mut bad) = (String::new(), String::new());
    for (place, interval) in intervals.iter().enumerate() {
        let x = LEFT + width * place as f64;
        let answered = height(interval.latencies_ms.len());
        let top = LOWER.1 - answered;
        push(
            &mut good,
            format_args!("M{x:.1} {}V{top:.1}h{:.1}V{}z", LOWER.1, width * 0.8, LOWER.1),
        );
        if interval.failed > 0 {
            // At least three units high, so that a single failure is visible.
            let above = top - height(interval.failed).max(3.0);
            push(
                &mut bad,
                format_args!("M{x:.1} {top:.1}V{above:.1}h{:.1}V{top:.1}z", width * 0.8),
            );
        }
    }
    push(
        svg,
        format_args!(
            "<path d=\"{good}\" fill=\"var(--good)\"/><path d=\"{bad}\" fill=\"var(--bad)\"/>"
        ),
    );
}

/// Escapes a text for SVG and HTML.
pub(crate) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn push(text: &mut String, more: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = text.write_fmt(more);
}
