//! The frame: machines above, the table of the selected one below, keys at the bottom; help over all of it.

use super::state::{Column, State};
use super::watched::{Health, Row, Watched};
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Row as Line3, Sparkline, Table};

/// Most machines that are listed at once.
const MACHINES: usize = 6;
/// Width of a row's history.
const HISTORY: usize = 16;
/// Bars of a history, from nothing to the most.
const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

const HEADING: Style = Style::new().add_modifier(Modifier::BOLD);
const FAINT: Style = Style::new().add_modifier(Modifier::DIM);
const CHOSEN: Style = Style::new().add_modifier(Modifier::REVERSED);

/// Draws everything.
pub(super) fn frame(frame: &mut Frame<'_>, machines: &[Watched], state: &State, every: &str) {
    let listed = machines.len().clamp(1, MACHINES) as u16;
    let [title, list, head, table, keys] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1 + listed),
        Constraint::Length(2),
        Constraint::Min(0),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let count = machines.len();
    let paused = if state.paused { ", paused" } else { "" };
    let title_text =
        format!("exovm top: {count} machine{}, every {every}{paused}", if count == 1 { "" } else { "s" });
    frame.render_widget(Line::styled(title_text, HEADING), title);
    draw_machines(frame, list, machines, state);
    match state.machine(machines) {
        None => {
            let text = "no machine is running; start one with `exovm run`";
            frame.render_widget(Line::raw(text), head);
        }
        Some(machine) => draw_machine(frame, head, table, machine, state),
    }
    draw_keys(frame, keys, state);
    if state.help {
        draw_help(frame);
    }
}

fn draw_machines(frame: &mut Frame<'_>, area: Rect, machines: &[Watched], state: &State) {
    // The selected one is always among those that are seen.
    let first = (state.selected + 1).saturating_sub(usize::from(area.height.saturating_sub(1)));
    let rows = machines.iter().enumerate().skip(first).map(|(place, machine)| {
        let number = |of: fn(&super::watched::Tick) -> f64, unit| {
            right(
                machine.tick.as_ref().map_or("-".to_owned(), |tick| format!("{}{unit}", short(of(tick)))),
                9,
            )
        };
        let style = match (place == state.selected, &machine.health) {
            (true, _) => CHOSEN,
            (false, Health::Alive(_)) => Style::new(),
            (false, _) => FAINT,
        };
        Line3::new([
            machine.name.clone(),
            machine.image.clone(),
            machine.health.word().to_owned(),
            number(|tick| tick.requests, ""),
            number(|tick| tick.cpu, "%"),
            number(|tick| tick.received_bytes, "B"),
            number(|tick| tick.sent_bytes, "B"),
        ])
        .style(style)
    });
    let heading = ["MACHINE", "IMAGE", "STATE", "  REQ/S", "    CPU", "   IN/S", "  OUT/S"];
    let widths = [
        Constraint::Min(12),
        Constraint::Length(10),
        Constraint::Length(8),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
    ];
    let heading =
        Line3::new(heading.map(|word| {
            if word.starts_with(' ') { right(word.trim().to_owned(), 9) } else { word.to_owned() }
        }));
    frame.render_widget(Table::new(rows, widths).header(heading.style(HEADING)), area);
}

fn draw_machine(frame: &mut Frame<'_>, head: Rect, table: Rect, machine: &Watched, state: &State) {
    let [text, history] = Layout::horizontal([Constraint::Min(40), Constraint::Length(40)]).areas(head);
    let title = match &machine.health {
        Health::Ended => format!("machine {} ended", machine.name),
        Health::Silent(why) => why.clone(),
        Health::Alive(_) => {
            let order = if state.reversed { ", reversed" } else { "" };
            format!("{}: cycles by {}{order}", machine.name, state.sort.word())
        }
    };
    let filter = if state.typing || !state.filter.is_empty() {
        format!("only names with: {}{}", state.filter, if state.typing { "_" } else { "" })
    } else {
        String::new()
    };
    frame.render_widget(Paragraph::new(vec![Line::styled(title, HEADING), Line::raw(filter)]), text);
    let requests: Vec<u64> = machine.requests.iter().copied().collect();
    let skip = requests.len().saturating_sub(usize::from(history.width));
    let title = Line::styled("requests a second", FAINT).alignment(Alignment::Right);
    let line =
        Sparkline::default().data(requests.into_iter().skip(skip)).style(Style::new().fg(Color::Green));
    let [above, below] = Layout::vertical([Constraint::Length(1), Constraint::Length(1)]).areas(history);
    frame.render_widget(title, above);
    frame.render_widget(line, below);
    let all = machine.tick.as_ref().map_or(&[][..], |tick| &tick.rows);
    let rows = state.rows(all);
    let height = usize::from(table.height.saturating_sub(1));
    let first = state.scroll.min(rows.len().saturating_sub(height));
    let mark =
        |column: Column, word: &str| if column == state.sort { format!("{word}*") } else { word.to_owned() };
    let heading = Line3::new([
        mark(Column::Name, "BUCKET OR SPAN"),
        right(mark(Column::Share, "SHARE"), 8),
        right(mark(Column::Entries, "ENTRIES/S"), 10),
        right(mark(Column::PerRequest, "CYCLES/REQ"), 11),
        "HISTORY".to_owned(),
    ]);
    let widths = [
        Constraint::Min(28),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(11),
        Constraint::Length(HISTORY as u16),
    ];
    let lines = rows.into_iter().skip(first).take(height).map(line_of);
    frame.render_widget(Table::new(lines, widths).header(heading.style(HEADING)), table);
}

fn line_of(row: &Row) -> Line3<'_> {
    let waits = row.name.ends_with("wait") || row.name.ends_with("asleep");
    let style = if waits { FAINT } else { Style::new() };
    Line3::new([
        row.name.clone(),
        right(format!("{:.2}%", row.share), 8),
        right(short(row.entries), 10),
        right(row.per_request.map_or("-".to_owned(), short), 11),
        bars(&row.history),
    ])
    .style(style)
}

/// The last shares as bars, against the greatest of them.
fn bars(history: &[u64]) -> String {
    let shown = &history[history.len().saturating_sub(HISTORY)..];
    let most = shown.iter().copied().max().unwrap_or(0).max(1);
    shown.iter().map(|&share| BARS[((share * 8).div_ceil(most) as usize).min(8)]).collect()
}

fn right(text: String, width: usize) -> String {
    format!("{text:>width$}")
}

/// Four digits at most, with a unit of thousands.
pub(super) fn short(number: f64) -> String {
    let (scaled, unit) = match number {
        _ if number >= 1e10 => (number / 1e9, "G"),
        _ if number >= 1e7 => (number / 1e6, "M"),
        _ if number >= 1e4 => (number / 1e3, "k"),
        _ => (number, ""),
    };
    if scaled >= 100.0 || scaled == scaled.trunc() {
        format!("{scaled:.0}{unit}")
    } else {
        format!("{scaled:.1}{unit}")
    }
}

fn draw_keys(frame: &mut Frame<'_>, area: Rect, state: &State) {
    let keys: &[(&str, &str)] = if state.typing {
        &[("Enter", "keep"), ("Esc", "clear")]
    } else {
        &[
            ("q", "quit"),
            ("j k", "machine"),
            ("s", "sort"),
            ("r", "reverse"),
            ("/", "filter"),
            ("space", "pause"),
            ("?", "help"),
        ]
    };
    let spans = keys
        .iter()
        .flat_map(|(key, what)| [Span::styled(format!(" {key} "), CHOSEN), Span::raw(format!(" {what} "))]);
    frame.render_widget(Line::from(spans.collect::<Vec<_>>()), area);
}

/// What the columns mean, and all keys.
const HELP: [&str; 17] = [
    "Each line is where cycles go: a bucket of a thread of the VMM, or",
    "a span of the guest's own code (ring 3). A span runs inside the",
    "vCPU's bucket `guest`. While somebody looks, spans are accounted.",
    "",
    "SHARE       of the time of one CPU",
    "ENTRIES/S   how often a second it began",
    "CYCLES/REQ  cycles a request that the guest has counted",
    "HISTORY     shares of the last ticks, against their greatest",
    "CPU         what the VMM's process takes of the host",
    "",
    "j k, arrows   another machine      J K, page keys  scroll",
    "s             sort by the next column",
    "r             the other way round",
    "/             only names that hold what is typed; Esc clears it",
    "space         stand still, and go on",
    "q, Esc, ^C    end",
    "any key       close this help",
];

fn draw_help(frame: &mut Frame<'_>) {
    let area = frame.area();
    let (width, height) = (area.width.min(70), area.height.min(HELP.len() as u16 + 2));
    let place =
        Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let text: Vec<Line<'_>> = HELP.iter().map(|line| Line::raw(*line)).collect();
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title("exovm top")), place);
}

#[cfg(test)]
#[path = "draw_tests.rs"]
mod tests;
