//! A page that draws requests end to end, for a browser and nothing else: no network, no files beside it.
//!
//! Everything that the machine says goes into one JSON element, whose `<` are escaped, and from there into text nodes; the
//! drawing is `draw.js`.

mod drawing;

use super::Report;
use drawing::Drawing;
use serde::Serialize;
use std::fmt::Write;

const PAGE: &str = include_str!("page.html");
const STYLE: &str = include_str!("style.css");
const SCRIPT: &str = include_str!("draw.js");
/// Requests from the slow end.
const SLOWEST_MAX: usize = 10;

/// What the page is made of.
#[derive(Serialize)]
struct Data {
    machine: String,
    image: String,
    tsc_khz: u64,
    remarks: Vec<String>,
    /// By number.
    layers: Vec<Named>,
    /// End to end and layers that had any time, in the order in which requests reach them.
    table: Vec<Row>,
    requests: Vec<Drawing>,
}

#[derive(Serialize)]
struct Named {
    name: String,
    kind: super::layers::Kind,
}

#[derive(Serialize)]
struct Row {
    /// Number; `None`: end to end.
    layer: Option<u16>,
    requests: u64,
    share: f64,
    /// p50, p90, p99, p99.9, max in cycles.
    cycles: [u64; 5],
}

/// The page of a report.
pub(super) fn page(report: &Report) -> String {
    let values = |percentiles: super::distribution::Percentiles| {
        [percentiles.p50, percentiles.p90, percentiles.p99, percentiles.p99_9, percentiles.max]
    };
    let all = Row {
        layer: None,
        requests: report.summary.complete,
        share: 1.0,
        cycles: values(report.summary.end_to_end.percentiles(0)),
    };
    let rows = report.layers().into_iter().map(|(id, figures)| Row {
        layer: Some(id.0),
        requests: figures.requests,
        share: figures.share,
        cycles: values(figures.spread.cycles),
    });
    let layers = report.summary.layers.all().iter();
    let data = Data {
        machine: report.header.machine.clone(),
        image: report.header.image.clone(),
        tsc_khz: report.header.tsc_khz,
        remarks: report.remarks(),
        layers: layers.map(|layer| Named { name: layer.name.clone(), kind: layer.kind }).collect(),
        table: std::iter::once(all).chain(rows).collect(),
        requests: requests(report),
    };
    // Strings, numbers and lists: there is nothing that JSON could not say.
    let json = serde_json::to_string(&data).unwrap_or_else(|_| "{}".to_owned());
    fill(
        PAGE,
        &[
            ("TITLE", &escaped(&report.header.machine)),
            ("STYLE", STYLE),
            ("SCRIPT", SCRIPT),
            ("DATA", &inert(&json)),
        ],
    )
}

/// The requests that can be chosen: at the percentiles, then the slowest.
fn requests(report: &Report) -> Vec<Drawing> {
    let percentiles = report.summary.end_to_end.percentiles(0);
    let wanted = [("median", percentiles.p50), ("p90", percentiles.p90), ("p99", percentiles.p99)];
    let near = |cycles: u64| report.typical.iter().min_by_key(|kept| kept.request.cycles().abs_diff(cycles));
    let typical = wanted
        .into_iter()
        .filter_map(|(title, cycles)| Some(Drawing::of(report, title.to_owned(), near(cycles)?)));
    let title =
        |place: usize| if place == 0 { "slowest".to_owned() } else { format!("slowest #{}", place + 1) };
    let slowest = report.slowest.iter().take(SLOWEST_MAX).enumerate();
    typical.chain(slowest.map(|(place, kept)| Drawing::of(report, title(place), kept))).collect()
}

/// Fills in a template's `{{NAME}}`s, once: what is filled in is not looked through.
fn fill(template: &str, values: &[(&str, &str)]) -> String {
    let mut page = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let Some((name, after)) = behind.split_once("}}") else { break };
        page.push_str(before);
        page.push_str(values.iter().find(|(own, _)| *own == name).map_or("", |(_, value)| value));
        rest = after;
    }
    page.push_str(rest);
    page
}

/// JSON that is no markup: inside of a `script` element only `<` begins anything.
fn inert(json: &str) -> String {
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut out, letter| {
        match letter {
            '<' | '>' | '&' | '"' | '\'' => {
                // A string takes everything.
                let _ = write!(out, "&#{};", u32::from(letter));
            }
            _ => out.push(letter),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fill_puts_each_value_in_once_and_looks_into_none() {
        assert_eq!(fill("a{{X}}b{{Y}}c", &[("X", "{{Y}}"), ("Y", "2")]), "a{{Y}}b2c");
        assert_eq!(fill("a{{X", &[]), "a{{X");
    }

    #[test]
    fn what_a_guest_says_is_no_markup() {
        let hostile = "</script><script>alert(1)</script>\u{2028}\"'&";
        let json = inert(&serde_json::to_string(hostile).unwrap());
        assert!(!json.contains('<') && !json.contains('\u{2028}'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), hostile);
        assert_eq!(escaped("<a b='c'>&\""), "&#60;a b=&#39;c&#39;&#62;&#38;&#34;");
    }

    #[test]
    fn page_needs_nothing_from_elsewhere() {
        for text in [PAGE, STYLE, SCRIPT] {
            for word in
                ["http:", "https:", "//cdn", "@import", "url(", "src=", "fetch(", "innerHTML", "eval("]
            {
                // SVG's namespace is a name, not an address, and what begins with # is on the page.
                let text = text.replace("http://www.w3.org/2000/svg", "").replace("url(#", "");
                assert!(!text.contains(word), "{word}");
            }
        }
    }
}
