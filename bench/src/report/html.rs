//! A report → one page that needs nothing else: goals, figures, plots, machine and command.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::goals::{self, Outcome, Verdict};
use super::plot::{self, class, escape};
use super::summary::{Case, cases};
use super::{Report, number, text};

const STYLE: &str = include_str!("page.css");

/// Figures that are drawn where several peers have them.
const DRAWN: [&str; 10] = [
    "capacity_per_s",
    "clients",
    "deliveries_per_s",
    "server_cpu_cores",
    "deliveries_per_cpu_s",
    "server_rss_mib",
    "rss_kib_per_connection",
    "last_image_ms",
    "old_updates",
    "silence_added_ms",
];

/// The percentiles that stand below a plot.
const SHOWN: [(f64, &str); 4] = [(0.5, "p50"), (0.99, "p99"), (0.999, "p99.9"), (0.9999, "p99.99")];

/// Writes the page.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write(report: &Report, path: &Path) -> Result<()> {
    fs::write(path, page(report)).with_context(|| format!("cannot write {}", path.display()))
}

/// The page.
fn page(report: &Report) -> String {
    let cases = cases(&report.runs);
    let mut scenarios: Vec<&str> = Vec::new();
    for case in &cases {
        if !scenarios.contains(&case.scenario) {
            scenarios.push(case.scenario);
        }
    }
    let (goals, others) = goals::of_report(&report.runs);
    let mut html = String::from(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n",
    );
    let named = if scenarios.len() == 1 { scenarios[0] } else { "report" };
    let _ = write!(
        html,
        "<title>Tickfan bench: {0}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>Tickfan bench: {0}</h1>\n<p>{1}</p>\n",
        escape(named),
        escape(&report.started)
    );
    if scenarios.len() > 1 {
        html += "<nav aria-label=\"Scenarios\">\n";
        for scenario in &scenarios {
            let _ = writeln!(html, "<a href=\"#{0}\">{0}</a>", escape(scenario));
        }
        html += "</nav>\n";
    }
    html += "</header>\n<main>\n";
    goal_section(&mut html, &goals, others);
    let warnings = text::warnings(report, &goals);
    if !warnings.is_empty() {
        html += "<section class=\"warnings\">\n<h2>Warnings</h2>\n<ul>\n";
        for warning in warnings {
            let _ = writeln!(html, "<li>{}</li>", escape(&warning));
        }
        html += "</ul>\n</section>\n";
    }
    for scenario in scenarios {
        let _ = writeln!(html, "<section id=\"{0}\">\n<h2>{0}</h2>", escape(scenario));
        for case in cases.iter().filter(|case| case.scenario == scenario) {
            case_article(&mut html, case);
        }
        html += "</section>\n";
    }
    machine_section(&mut html, report);
    html + "</main>\n</body>\n</html>\n"
}

fn goal_section(html: &mut String, goals: &[Outcome], others: usize) {
    if goals.is_empty() {
        return;
    }
    html.push_str("<section>\n<h2>Goals</h2>\n<p>");
    let verdicts = [
        (Verdict::Aim, "reach the aim"),
        (Verdict::AtLeast, "reach the least"),
        (Verdict::Missed, "missed"),
        (Verdict::NotMeasured, "not measured"),
        (Verdict::Ambiguous, "ambiguous"),
    ];
    let mut counts = Vec::new();
    for (verdict, words) in verdicts {
        let count = goals.iter().filter(|goal| goal.verdict == verdict).count();
        if count > 0 {
            counts.push(format!("<b>{count}</b> {words}"));
        }
    }
    html.push_str(&counts.join(" · "));
    if others > 0 {
        let _ = write!(html, " · {others} of scenarios that are not in this report");
    }
    // The roles say what the narrow layout takes from the elements.
    html.push_str(
        "</p>\n<table class=\"goals\" role=\"table\">\n\
         <caption>Medians over the rounds; the ratio is figure over anchor</caption>\n\
         <thead role=\"rowgroup\"><tr role=\"row\">",
    );
    for head in ["goal", "verdict", "ratio", "at least", "aim", "figure", "anchor"] {
        let _ = write!(html, "<th scope=\"col\" role=\"columnheader\">{head}</th>");
    }
    html.push_str("</tr></thead>\n<tbody role=\"rowgroup\">\n");
    let show = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number::text);
    for goal in goals {
        let (verdict, mark) = match goal.verdict {
            Verdict::Aim => ("aim", "★"),
            Verdict::AtLeast => ("at-least", "✓"),
            Verdict::Missed => ("missed", "✗"),
            Verdict::NotMeasured | Verdict::Ambiguous => ("none", "–"),
        };
        let _ = write!(
            html,
            "<tr role=\"row\"><th scope=\"row\" role=\"rowheader\">{}</th>\
             <td role=\"cell\" data-label=\"verdict\"><span class=\"verdict {verdict}\">\
             <span aria-hidden=\"true\">{mark}</span> {}</span></td>",
            escape(goal.what),
            goal.verdict.name()
        );
        let cells = [
            ("ratio", show(goal.ratio)),
            ("at least", goal.bound(goal.at_least)),
            ("aim", goal.bound(goal.aim)),
            ("figure", show(goal.figure)),
            ("anchor", show(goal.anchor)),
        ];
        for (label, value) in cells {
            let _ = write!(html, "<td role=\"cell\" data-label=\"{label}\">{value}</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</section>\n");
}

fn case_article(html: &mut String, case: &Case<'_>) {
    html.push_str("<article>\n");
    if !case.parameters.is_empty() {
        let parameters = case
            .parameters
            .iter()
            .map(|(name, value)| format!("{name} {value}"))
            .collect::<Vec<_>>();
        let _ = writeln!(html, "<h3>{}</h3>", escape(&parameters.join(" · ")));
    }
    let peers = case.peers();
    html.push_str("<div class=\"plots\">\n");
    for name in case.histograms() {
        let lines: Vec<_> = peers
            .iter()
            .filter_map(|peer| Some((peer.as_str(), case.merged(peer, name)?)))
            .collect();
        if lines.is_empty() {
            continue;
        }
        let title = format!("{name}: latency by percentile, all rounds");
        let _ = writeln!(
            html,
            "<figure>\n<figcaption>{}</figcaption>\n{}",
            escape(&title),
            plot::percentiles(&title, &lines)
        );
        percentile_table(html, name, &lines);
        html.push_str("</figure>\n");
    }
    for name in case.figures().into_iter().filter(|name| DRAWN.contains(name)) {
        let spreads: Vec<_> = peers
            .iter()
            .filter_map(|peer| Some((peer.as_str(), case.spread(peer, name)?)))
            .collect();
        if spreads.len() < 2 {
            continue;
        }
        let title = format!("{name}: median and range");
        let _ = writeln!(
            html,
            "<figure>\n<figcaption>{}</figcaption>\n{}\n</figure>",
            escape(&title),
            plot::bars(&title, &spreads)
        );
    }
    html.push_str("</div>\n");
    figure_table(html, case);
    html.push_str("</article>\n");
}

fn percentile_table(html: &mut String, name: &str, lines: &[(&str, hdrhistogram::Histogram<u64>)]) {
    open_table(html, &format!("Percentiles of {name}"));
    html.push_str("<thead><tr><td></td>");
    for head in SHOWN.iter().map(|(_, head)| *head).chain(["max"]) {
        let _ = write!(html, "<th scope=\"col\">{head}</th>");
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for (peer, histogram) in lines {
        let _ = write!(html, "<tr>{}", peer_header("row", peer));
        for (quantile, _) in SHOWN {
            // Of fewer samples it would be the maximum under another name.
            let is_known = histogram.len() as f64 * (1.0 - quantile) >= 1.0;
            let value = number::time(histogram.value_at_quantile(quantile) as f64);
            let _ = write!(html, "<td>{}</td>", if is_known { &value } else { "–" });
        }
        let _ = writeln!(html, "<td>{}</td></tr>", number::time(histogram.max() as f64));
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}

fn figure_table(html: &mut String, case: &Case<'_>) {
    open_table(html, &format!("Figures of {}", case.title()));
    html.push_str("<thead><tr><td></td>");
    let peers = case.peers();
    for peer in &peers {
        html.push_str(&peer_header("col", peer));
    }
    html.push_str("</tr></thead>\n<tbody>\n");
    for figure in case.figures() {
        // A name may break where its words end.
        let name = escape(figure).replace('_', "_<wbr>");
        let _ = write!(html, "<tr><th scope=\"row\"><code>{name}</code></th>");
        for peer in &peers {
            let Some(spread) = case.spread(peer, figure) else {
                html.push_str("<td>–</td>");
                continue;
            };
            let _ = write!(html, "<td>{}", number::text(spread.median));
            if spread.min < spread.max {
                let (min, max) = (number::text(spread.min), number::text(spread.max));
                let _ = write!(html, " <small>{min}–{max}</small>");
            }
            html.push_str("</td>");
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</tbody>\n</table>\n</div>\n");
}

/// A table that scrolls by itself, also with the keyboard, where the page is narrower than it.
fn open_table(html: &mut String, caption: &str) {
    let _ = writeln!(
        html,
        "<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"{0}\">\n<table>\n\
         <caption>{0}</caption>",
        escape(caption)
    );
}

fn peer_header(scope: &str, peer: &str) -> String {
    format!(
        "<th scope=\"{scope}\"><span class=\"{} key\" aria-hidden=\"true\"></span>{}</th>",
        class(peer),
        escape(peer)
    )
}

fn machine_section(html: &mut String, report: &Report) {
    let machine = &report.machine;
    let rows = [
        ("command", format!("<code>{}</code>", escape(&report.command))),
        ("started", escape(&report.started)),
        ("processor", format!("{}, {} cores", escape(&machine.cpu), machine.cores)),
        ("memory", format!("{:.1} GiB", machine.memory_mib as f64 / 1_024.0)),
        ("kernel", format!("Linux {}", escape(&machine.kernel))),
        ("load before", number::text(machine.load_before)),
        ("compiler", escape(&machine.rustc)),
        ("commit", format!("<code>{}</code>", escape(&machine.commit))),
    ];
    html.push_str("<section>\n<h2>Machine and command</h2>\n<dl>\n");
    for (name, value) in rows {
        let _ = writeln!(html, "<dt>{name}</dt><dd>{value}</dd>");
    }
    html.push_str("</dl>\n</section>\n");
}

#[cfg(test)]
mod tests {
    use super::super::tests::{report, run};
    use super::*;

    #[test]
    fn nothing_from_outside_becomes_markup_and_nothing_is_fetched() {
        let mut hostile = run("<script>alert(1)</script>", 1, &[("a\"<b>", 1.0)]);
        hostile.scenario = "\"><img src=x>".to_owned();
        hostile.remarks.push("a < b & c".to_owned());
        hostile.histograms.insert("'<i>".to_owned(), {
            let mut histogram = hdrhistogram::Histogram::new(3).unwrap();
            histogram.record(1).unwrap();
            histogram
        });
        let page = page(&report(vec![hostile]));
        for markup in ["<script", "<img", "<b>\"", "<i>", "http://", "https://", "url("] {
            assert!(!page.contains(markup), "{markup}");
        }
        assert!(page.contains("a &lt; b &amp; c"));
    }
}
