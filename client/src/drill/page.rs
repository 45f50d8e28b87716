//! The report as one page that needs nothing else.

use super::outcome::{Outcome, story};
use super::picture::{escaped, svg};
use dkv_console::units::{number, time};

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

/// The page; `skipped` are drills that could not be held, and why.
pub(super) fn html(outcomes: &[Outcome], skipped: &[(String, String)], when: &str) -> String {
    let holds = !outcomes.is_empty() && outcomes.iter().all(Outcome::holds);
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
    for outcome in outcomes {
        let (name, report) = (outcome.name(), &outcome.report);
        let stale = report.count(dkv_check::Kind::Stale) + report.count(dkv_check::Kind::WentBack);
        html += &format!(
            "<tr><td><a href=\"#{name}\">{name}</a></td><td data-of=\"promises\">{}</td>\
             <td class=\"r\" data-of=\"time without service\">{}</td>\
             <td class=\"r\" data-of=\"failed\">{}</td><td class=\"r\" data-of=\"unknown\">{}</td>\
             <td class=\"r\" data-of=\"acknowledged\">{}</td><td class=\"r\" data-of=\"lost\">{}</td>\
             <td class=\"r\" data-of=\"stale reads\">{stale}</td></tr>",
            verdict(outcome.holds()),
            time(std::time::Duration::from_nanos(outcome.wait_ns.0)),
            report.failed,
            report.unknown,
            number(outcome.acknowledged as u64),
            report.count(dkv_check::Kind::Lost),
        );
    }
    for (name, why) in skipped {
        html +=
            &format!("<tr><td>{name}</td><td colspan=\"7\">not held: {}</td></tr>", escaped(why));
    }
    html += "</table></div>";
    outcomes.iter().for_each(|outcome| section(&mut html, outcome));
    html + "</body></html>\n"
}

fn section(html: &mut String, outcome: &Outcome) {
    let name = outcome.name();
    *html += &format!(
        "<h2 id=\"{name}\">{name}: {}</h2><p>{}.</p><figure>{}</figure><div class=\"both\"><ol>",
        verdict(outcome.holds()),
        escaped(&story(outcome.fault)),
        svg(outcome)
    );
    for event in &outcome.events {
        let at = event.at_ns as f64 / 1e9;
        *html += &format!("<li>{} <span>{at:.2} s</span></li>", escaped(&event.text));
    }
    *html += "</ol><table>";
    for (heading, fact) in outcome.facts() {
        *html += &format!("<tr><th>{heading}</th><td>{}</td></tr>", escaped(&fact));
    }
    *html += "</table></div>";
    if !outcome.report.holds() {
        *html += &format!("<pre>{}</pre>", escaped(&outcome.report.to_string()));
    }
}

fn verdict(holds: bool) -> &'static str {
    if holds {
        "<span class=\"good\">all promises held</span>"
    } else {
        "<span class=\"bad\">NOT all promises held</span>"
    }
}
