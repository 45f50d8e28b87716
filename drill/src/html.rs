//! The report as one self-contained page.

use dkv_console::units::{duration, number};

use crate::chart::{escaped, svg};
use crate::result::{DrillResult, Unheld, succeeds};

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1d2733;--soft:#5d6b7a;--line:#d8dee6;--paper:#fff;--card:#f6f8fa;\
--good:#1a7f37;--bad:#cf222e}\
@media (prefers-color-scheme:dark){:root{--ink:#e3e9f0;--soft:#9aa7b5;--line:#2b333d;--paper:#0e1217;\
--card:#14191f;--good:#56d364;--bad:#ff7b72}}\
body{margin:0 auto;max-width:1000px;padding:24px 16px 64px;background:var(--paper);color:var(--ink);\
font:15px/1.5 system-ui,sans-serif}\
h1{font-size:24px;margin:0 0 4px}h2{font-size:19px;margin:40px 0 2px}p{margin:0 0 12px;color:var(--soft)}\
.good{color:var(--good)}.bad{color:var(--bad)}.wide{overflow-x:auto}\
table{border-collapse:collapse;width:100%;margin:12px 0;font-variant-numeric:tabular-nums}\
th,td{text-align:left;padding:6px 10px;border-bottom:1px solid var(--line);vertical-align:top}\
th{font-weight:600;color:var(--soft);white-space:nowrap}td.r,th.r{text-align:right}\
a{color:inherit}.both{display:grid;grid-template-columns:repeat(auto-fit,minmax(300px,1fr));gap:0 32px}\
figure{margin:0;border:1px solid var(--line);border-radius:8px;overflow:hidden}svg{display:block;width:100%;height:auto}\
@media (max-width:640px){body{padding:16px 12px 48px}figure svg.d text{font-size:16px}\
td,th{padding:6px 4px;overflow-wrap:break-word}.both th{white-space:normal;width:45%}.both{grid-template-columns:1fr}\
.wide tr:first-child{display:none}.wide tr{display:block;border:1px solid var(--line);border-radius:8px;\
margin:0 0 12px;padding:6px 12px}.wide td,.wide td.r{display:flex;justify-content:space-between;gap:12px;\
border:0;text-align:right}.wide td[data-of]::before{content:attr(data-of);color:var(--soft)}}\
ol{margin:12px 0;padding-left:24px}ol span{color:var(--soft)}\
pre{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:12px;overflow-x:auto}";

/// Renders results as one page, with the drills that could not be held.
pub fn html(results: &[DrillResult], unheld: &[Unheld], when: &str) -> String {
    let holds = succeeds(results, unheld);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>dkv drill</title><style>{STYLE}</style></head><body><h1>dkv drill: {}</h1><p>{when}, \
         version {}</p>",
        verdict(holds),
        env!("CARGO_PKG_VERSION")
    );
    html += "<div class=\"wide\"><table><tr><th>drill</th><th>promises</th>\
             <th class=\"r\">time without service</th><th class=\"r\">failed</th>\
             <th class=\"r\">unknown</th><th class=\"r\">acknowledged</th><th class=\"r\">lost</th>\
             <th class=\"r\">stale reads</th></tr>";
    for result in results {
        let (name, report) = (result.name(), &result.report);
        let stale = report.count(dkv_check::Kind::Stale) + report.count(dkv_check::Kind::WentBack);
        html += &format!(
            "<tr><td><a href=\"#{name}\">{name}</a></td><td data-of=\"promises\">{}</td>\
             <td class=\"r\" data-of=\"time without service\">{}</td>\
             <td class=\"r\" data-of=\"failed\">{}</td><td class=\"r\" data-of=\"unknown\">{}</td>\
             <td class=\"r\" data-of=\"acknowledged\">{}</td><td class=\"r\" data-of=\"lost\">{}</td>\
             <td class=\"r\" data-of=\"stale reads\">{stale}</td></tr>",
            verdict(result.holds()),
            duration(std::time::Duration::from_nanos(result.wait_ns.0)),
            report.failed,
            report.unknown,
            number(result.acknowledged as u64),
            report.count(dkv_check::Kind::Lost),
        );
    }
    for Unheld { fault, problem, is_excused } in unheld {
        let tone = if *is_excused { "" } else { " class=\"bad\"" };
        html += &format!(
            "<tr><td>{}</td><td colspan=\"7\"{tone}>not held: {}</td></tr>",
            fault.name(),
            escaped(problem)
        );
    }
    html += "</table></div>";
    results.iter().for_each(|result| section(&mut html, result));
    html + "</body></html>\n"
}

fn section(html: &mut String, result: &DrillResult) {
    let name = result.name();
    *html += &format!(
        "<h2 id=\"{name}\">{name}: {}</h2><p>{}.</p><figure>{}</figure><div class=\"both\"><ol>",
        verdict(result.holds()),
        escaped(&result.fault.description()),
        svg(result)
    );
    for event in &result.events {
        let at = event.at_ns as f64 / 1e9;
        *html += &format!("<li>{} <span>{at:.2} s</span></li>", escaped(&event.text));
    }
    *html += "</ol><table>";
    for (heading, fact) in result.facts() {
        *html += &format!("<tr><th>{heading}</th><td>{}</td></tr>", escaped(&fact));
    }
    *html += "</table></div>";
    if !result.report.holds() {
        *html += &format!("<pre>{}</pre>", escaped(&result.report.to_string()));
    }
}

fn verdict(holds: bool) -> &'static str {
    if holds {
        "<span class=\"good\">all promises held</span>"
    } else {
        "<span class=\"bad\">NOT all promises held</span>"
    }
}
