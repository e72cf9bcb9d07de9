//! What the person at the terminal has chosen: which machine, which order, which rows; and what each key does.

use super::watched::{Row, Watched};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// A column of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Column {
    /// As the machine says them: threads with their buckets, then spans.
    Place,
    Name,
    Share,
    Entries,
    PerRequest,
}

impl Column {
    /// In the order in which the key goes through them.
    const ALL: [Self; 5] = [Self::Place, Self::Share, Self::Entries, Self::PerRequest, Self::Name];

    /// For the title.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Place => "place",
            Self::Name => "name",
            Self::Share => "share",
            Self::Entries => "entries",
            Self::PerRequest => "cycles/request",
        }
    }
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Draw,
    Quit,
}

/// The choices.
#[derive(Debug)]
pub(super) struct State {
    /// Place in the list of machines.
    pub(super) selected: usize,
    pub(super) sort: Column,
    pub(super) reversed: bool,
    /// Only rows whose names hold this.
    pub(super) filter: String,
    /// Keys go into the filter.
    pub(super) typing: bool,
    pub(super) help: bool,
    pub(super) paused: bool,
    /// First row that is shown.
    pub(super) scroll: usize,
}

impl Default for State {
    fn default() -> Self {
        Self {
            selected: 0,
            sort: Column::Share,
            reversed: false,
            filter: String::new(),
            typing: false,
            help: false,
            paused: false,
            scroll: 0,
        }
    }
}

impl State {
    /// A key was pressed, with so many machines in the list.
    pub(super) fn key(&mut self, key: KeyEvent, machines: usize) -> Next {
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        match key.code {
            KeyCode::Char('c') if control => return Next::Quit,
            _ if self.typing => self.type_filter(key.code),
            _ if self.help => self.help = false,
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('?' | 'h') => self.help = true,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char(' ') => self.paused = !self.paused,
            KeyCode::Char('r') => self.reversed = !self.reversed,
            KeyCode::Char('s') => {
                let place = Column::ALL.iter().position(|&column| column == self.sort).unwrap_or(0);
                self.sort = Column::ALL[(place + 1) % Column::ALL.len()];
                self.scroll = 0;
            }
            KeyCode::Up | KeyCode::Char('k') => self.select(self.selected.saturating_sub(1), machines),
            KeyCode::Down | KeyCode::Char('j') => self.select(self.selected + 1, machines),
            KeyCode::PageUp | KeyCode::Char('K') => self.scroll = self.scroll.saturating_sub(10),
            KeyCode::PageDown | KeyCode::Char('J') => self.scroll += 10,
            _ => {}
        }
        Next::Draw
    }

    fn type_filter(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.typing = false,
            KeyCode::Esc => {
                self.filter.clear();
                self.typing = false;
            }
            KeyCode::Backspace => drop(self.filter.pop()),
            KeyCode::Char(letter) if self.filter.len() < 40 => self.filter.push(letter),
            _ => {}
        }
        self.scroll = 0;
    }

    fn select(&mut self, place: usize, machines: usize) {
        let place = place.min(machines.saturating_sub(1));
        if place != self.selected {
            self.selected = place;
            self.scroll = 0;
        }
    }

    /// The machine that is looked at.
    pub(super) fn machine<'m>(&self, machines: &'m [Watched]) -> Option<&'m Watched> {
        machines.get(self.selected.min(machines.len().saturating_sub(1)))
    }

    /// The rows that are wanted, in the order that is wanted.
    pub(super) fn rows<'r>(&self, rows: &'r [Row]) -> Vec<&'r Row> {
        let filter = self.filter.to_lowercase();
        let mut rows: Vec<&Row> =
            rows.iter().filter(|row| row.name.to_lowercase().contains(&filter)).collect();
        match self.sort {
            Column::Place => {}
            Column::Name => rows.sort_by(|a, b| a.name.trim().cmp(b.name.trim())),
            Column::Share => sort_down(&mut rows, |row| row.share),
            Column::Entries => sort_down(&mut rows, |row| row.entries),
            Column::PerRequest => sort_down(&mut rows, |row| row.per_request.unwrap_or(0.0)),
        }
        if self.reversed {
            rows.reverse();
        }
        rows
    }
}

/// The greatest first; equals stay as they are.
fn sort_down(rows: &mut [&Row], number: fn(&Row) -> f64) {
    rows.sort_by(|a, b| number(b).total_cmp(&number(a)));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, share: f64, entries: f64) -> Row {
        Row { name: name.to_owned(), share, entries, per_request: None, history: Vec::new() }
    }

    fn press(state: &mut State, keys: &str) -> Next {
        let mut next = Next::Draw;
        for key in keys.chars() {
            let code = match key {
                '\n' => KeyCode::Enter,
                '\u{1b}' => KeyCode::Esc,
                letter => KeyCode::Char(letter),
            };
            next = state.key(KeyEvent::new(code, KeyModifiers::NONE), 3);
        }
        next
    }

    fn names(state: &State) -> Vec<String> {
        let rows =
            [row("vcpu: guest", 90.0, 1.0), row("  ring 3: tcp", 5.0, 700.0), row("io: wait", 99.0, 3.0)];
        state.rows(&rows).into_iter().map(|row| row.name.trim().to_owned()).collect()
    }

    #[test]
    fn rows_are_sorted_by_the_column_that_was_chosen_and_reversed() {
        let mut state = State::default();
        assert_eq!(names(&state), ["io: wait", "vcpu: guest", "ring 3: tcp"]);
        press(&mut state, "s");
        assert_eq!(names(&state), ["ring 3: tcp", "io: wait", "vcpu: guest"], "entries");
        press(&mut state, "r");
        assert_eq!(names(&state), ["vcpu: guest", "io: wait", "ring 3: tcp"]);
        press(&mut state, "rss");
        assert_eq!(names(&state), ["io: wait", "ring 3: tcp", "vcpu: guest"], "names");
        press(&mut state, "s");
        assert_eq!(names(&state), ["vcpu: guest", "ring 3: tcp", "io: wait"], "as they are");
    }

    #[test]
    fn filter_is_typed_and_may_hold_letters_that_are_keys() {
        let mut state = State::default();
        press(&mut state, "/Q");
        assert!(names(&state).is_empty() && state.typing);
        press(&mut state, "\u{1b}/vCpU\n");
        assert_eq!(names(&state), ["vcpu: guest"]);
        assert!(!state.typing);
        assert_eq!(press(&mut state, "q"), Next::Quit);
    }

    #[test]
    fn control_c_ends_it_wherever_one_is() {
        for keys in ["", "/abc", "?"] {
            let mut state = State::default();
            press(&mut state, keys);
            let control_c = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
            assert_eq!(state.key(control_c, 1), Next::Quit, "{keys}");
        }
    }

    #[test]
    fn selection_stays_among_the_machines() {
        let mut state = State::default();
        press(&mut state, "jjjjj");
        assert_eq!(state.selected, 2);
        press(&mut state, "kkkkk");
        assert_eq!(state.selected, 0);
    }
}
