//! `exovm top`: the accounts of running machines, live in a terminal.
//!
//! A thread asks the machines once a tick and this one draws and reads keys, so a machine that does not answer holds up nothing. The
//! connections stay open, and with them the guests' accounts go: they stop when this ends, however it ends.
//!
//! | module | what |
//! | --- | --- |
//! | [`watched`] | what is known of each machine |
//! | [`state`] | what the person has chosen |
//! | [`draw`] | the frame |
//! | [`screen`] | the terminal: taken, and given back in any case |

mod draw;
mod screen;
mod state;
mod watched;

use super::Failure;
use super::style::print;
use crate::control::{ControlError, checked_name, directory, resolve};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use screen::{Input, Screen};
use state::{Next, State};
use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use watched::{Health, Watched};

/// How long keys are waited for before it is looked whether a tick is over.
const LOOK: Duration = Duration::from_millis(100);
/// Columns of a frame that is text.
const TEXT_COLUMNS: u16 = 100;

/// Arguments of `top`.
#[derive(clap::Args, Debug)]
#[command(after_long_help = "Examples:
  exovm top                            all machines, until q
  exovm top cheetah                    one of them
  exovm top --interval 200ms           five times a second
  exovm top --once                     one frame, as text
  exovm account --json                 the same numbers for scripts")]
pub(super) struct TopArguments {
    /// Names of machines; all that run, and those to come, if none is given.
    machines: Vec<String>,
    /// Print one frame as text and end.
    #[arg(long)]
    once: bool,
    /// How often to look: 1s, 200ms; a number alone is seconds.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = super::duration::parse)]
    interval: Duration,
}

pub(super) fn top(arguments: &TopArguments) -> Result<ExitCode, Failure> {
    let interval = arguments.interval.max(LOOK);
    let every = humantime::format_duration(interval).to_string();
    for name in &arguments.machines {
        checked_name(name)?;
        resolve(Some(name))?;
    }
    if arguments.once {
        return once(&arguments.machines, interval, &every);
    }
    if !std::io::stdout().is_terminal() {
        return Err(
            "exovm top draws on a terminal, and standard output is none; --once prints one frame as text"
                .into(),
        );
    }
    let machines = Mutex::new(Vec::new());
    look(&machines, &arguments.machines);
    if let (false, Some(ended)) = (arguments.machines.is_empty(), first_ended(&machines)) {
        return Err(Box::new(ended));
    }
    let over = AtomicBool::new(false);
    let paused = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut next = Instant::now() + interval;
            while !over.load(Ordering::Relaxed) {
                std::thread::sleep(LOOK.min(next.saturating_duration_since(Instant::now())));
                if Instant::now() >= next {
                    next = Instant::now() + interval;
                    if !paused.load(Ordering::Relaxed) {
                        look(&machines, &arguments.machines);
                    }
                }
            }
        });
        let result = live(&machines, &every, interval, &paused);
        over.store(true, Ordering::Relaxed);
        result
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Draws and reads keys until the end.
fn live(
    machines: &Mutex<Vec<Watched>>,
    every: &str,
    interval: Duration,
    paused: &AtomicBool,
) -> Result<(), Failure> {
    let mut screen = Screen::take()?;
    let mut state = State::default();
    let mut drawn = Instant::now();
    screen.draw(|frame| draw::frame(frame, &lock(machines), &state, every))?;
    loop {
        match screen.input(LOOK)? {
            Input::Key(key) => {
                if state.key(key, lock(machines).len()) == Next::Quit {
                    return Ok(());
                }
                paused.store(state.paused, Ordering::Relaxed);
            }
            Input::End => return Ok(()),
            Input::Resized => {}
            Input::Nothing if drawn.elapsed() < interval => continue,
            Input::Nothing => {}
        }
        drawn = Instant::now();
        screen.draw(|frame| draw::frame(frame, &lock(machines), &state, every))?;
    }
}

/// One frame as text.
fn once(names: &[String], interval: Duration, every: &str) -> Result<ExitCode, Failure> {
    let machines = Mutex::new(Vec::new());
    look(&machines, names);
    if lock(&machines).is_empty() {
        return Err(Box::new(ControlError::NoneRuns));
    }
    if let (false, Some(ended)) = (names.is_empty(), first_ended(&machines)) {
        return Err(Box::new(ended));
    }
    std::thread::sleep(interval);
    look(&machines, names);
    let machines = lock(&machines);
    let rows = machines.iter().map(|machine| machine.tick.as_ref().map_or(0, |tick| tick.rows.len())).max();
    let height = (machines.len() + rows.unwrap_or(0) + 8).min(1000) as u16;
    for selected in 0..machines.len() {
        let state = State { selected, ..State::default() };
        let mut terminal = Terminal::new(TestBackend::new(TEXT_COLUMNS, height))?;
        terminal.draw(|frame| draw::frame(frame, &machines, &state, every))?;
        let buffer = terminal.backend().buffer();
        let line =
            |y| (0..TEXT_COLUMNS).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
        // The list once; the keys never.
        let first = if selected == 0 { 0 } else { 2 + machines.len().min(6) as u16 };
        let mut lines: Vec<String> = (first..height - 1).map(line).collect();
        while lines.last().is_some_and(String::is_empty) {
            lines.pop();
        }
        print(&format!("{}\n", lines.join("\n")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A named machine that is not there.
fn first_ended(machines: &Mutex<Vec<Watched>>) -> Option<ControlError> {
    let machines = lock(machines);
    let ended = machines.iter().find(|machine| machine.health == Health::Ended)?;
    Some(ControlError::NotRunning { name: ended.name.clone(), others: String::new() })
}

/// Asks all machines, also those that have come since.
fn look(machines: &Mutex<Vec<Watched>>, names: &[String]) {
    let running = if names.is_empty() { directory::names().unwrap_or_default() } else { names.to_vec() };
    // Asked without the lock, so that keys are answered meanwhile.
    let mut asked = {
        let mut machines = lock(machines);
        for name in &running {
            if !machines.iter().any(|machine| machine.name == *name) {
                machines.push(Watched::new(name));
            }
        }
        let shown = machines.iter().map(Watched::shown).collect();
        std::mem::replace(&mut *machines, shown)
    };
    for machine in &mut asked {
        if machine.health != Health::Ended || running.contains(&machine.name) {
            machine.ask();
        }
    }
    *lock(machines) = asked;
}

fn lock(machines: &Mutex<Vec<Watched>>) -> MutexGuard<'_, Vec<Watched>> {
    machines.lock().unwrap_or_else(PoisonError::into_inner)
}
