//! Frames as they are drawn, in a terminal that is a buffer.

use super::super::watched::Tick;
use super::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;

fn machine(name: &str, health: Health) -> Watched {
    let mut machine = Watched::new(name);
    machine.image = "cheetah".to_owned();
    machine.health = health;
    let row = |name: &str, share: f64, history: &[u64]| Row {
        name: name.to_owned(),
        share,
        entries: 123_456.0,
        per_request: Some(share * 100.0),
        history: history.to_vec(),
    };
    machine.requests = [5, 50, 500].into();
    machine.tick = Some(Tick {
        requests: 12_345.0,
        cpu: 87.25,
        received_bytes: 1_500_000.0,
        sent_bytes: 2e9,
        rows: vec![
            row("vcpu: guest", 61.5, &[0, 100, 615]),
            row("vcpu: wait", 30.25, &[302]),
            row("  ring 3: tcp input", 20.125, &[]),
        ],
    });
    machine
}

fn lines(width: u16, height: u16, machines: &[Watched], state: &State) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("a buffer");
    terminal.draw(|drawn| frame(drawn, machines, state, "1s")).expect("a buffer");
    let buffer = terminal.backend().buffer().clone();
    let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>().trim_end().to_owned();
    (0..height).map(line).collect()
}

#[test]
fn frame_fits_into_80_by_24() {
    let machines = [machine("first", Health::Alive("ready".into())), machine("second", Health::Ended)];
    let lines = lines(80, 24, &machines, &State::default());
    let expected = [
        "exovm top: 2 machines, every 1s",
        "MACHINE        IMAGE      STATE        REQ/S       CPU      IN/S     OUT/S",
        "first          cheetah    ready        12.3k     87.2%     1500kB   2000MB",
        "second         cheetah    ended        12.3k     87.2%     1500kB   2000MB",
        "first: cycles by share",
    ];
    for (line, expected) in lines.iter().zip(expected) {
        let (have, want): (Vec<_>, Vec<_>) =
            (line.split_whitespace().collect(), expected.split_whitespace().collect());
        assert!(have.starts_with(&want), "{line:?} {expected:?}");
    }
    assert!(lines[4].ends_with("requests a second"), "{}", lines[4]);
    assert_eq!(
        lines[6].split_whitespace().collect::<Vec<_>>()[3..],
        ["SHARE*", "ENTRIES/S", "CYCLES/REQ", "HISTORY"]
    );
    let guest: Vec<_> = lines[7].split_whitespace().collect();
    assert_eq!(guest, ["vcpu:", "guest", "61.50%", "123k", "6150", "▂█"], "{}", lines[7]);
    assert!(lines[8].starts_with("vcpu: wait") && lines[9].starts_with("  ring 3: tcp input"), "{lines:#?}");
    assert!(lines[23].contains(" q  quit") && lines[23].contains(" ?  help"), "{}", lines[23]);
}

#[test]
fn machine_that_ended_says_so_and_stays() {
    let mut ended = machine("second", Health::Ended);
    ended.tick = None;
    let machines = [machine("first", Health::Alive("ready".into())), ended];
    let state = State { selected: 1, ..State::default() };
    let lines = lines(80, 24, &machines, &state);
    assert!(lines[3].starts_with("second") && lines[3].contains("ended"), "{}", lines[3]);
    assert!(lines[4].starts_with("machine second ended"), "{}", lines[4]);
}

#[test]
fn no_machine_says_how_to_start_one() {
    let lines = lines(80, 24, &[], &State::default());
    assert!(lines.iter().any(|line| line.contains("start one with `exovm run`")), "{lines:#?}");
}

#[test]
fn help_lies_over_the_frame_and_filter_is_shown() {
    let machines = [machine("first", Health::Alive("ready".into()))];
    let help = State { help: true, ..State::default() };
    let text = lines(80, 24, &machines, &help).join("\n");
    assert!(
        text.contains("only names that hold what is typed") && text.contains("close this help"),
        "{text}"
    );
    let filtered = State { filter: "tcp".into(), typing: true, ..State::default() };
    let text = lines(80, 24, &machines, &filtered).join("\n");
    assert!(text.contains("only names with: tcp_") && !text.contains("vcpu: guest"), "{text}");
}

#[test]
fn any_size_of_terminal_is_drawn() {
    let machines: Vec<_> =
        (0..9).map(|number| machine(&format!("m{number}"), Health::Alive("ready".into()))).collect();
    for (width, height) in [(1, 1), (10, 3), (79, 5), (200, 80), (40, 24)] {
        for help in [false, true] {
            let state = State { help, selected: 8, scroll: 1000, ..State::default() };
            lines(width, height, &machines, &state);
        }
    }
    let state = State { selected: 8, ..State::default() };
    let lines = lines(80, 24, &machines, &state);
    assert!(lines.iter().any(|line| line.starts_with("m8")), "the selected one is seen: {lines:#?}");
}

#[test]
fn numbers_are_short() {
    for (number, text) in
        [(0.0, "0"), (0.25, "0.2"), (99.5, "99.5"), (9_999.0, "9999"), (10_500.0, "10.5k"), (2e9, "2000M")]
    {
        assert_eq!(short(number), text);
    }
}
