//! `exovm logs`: what is kept, what is followed, what is lost and how that is said.

use crate::machines::{Detached, PATIENCE, RawClient, wait_for};
use crate::scene;
use exovm::control::{Answer, LogRequest, Request};
use exovm::guest_log::{KEPT_BYTES, Line};
use exovm_ci::scene::Scene;
use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

/// A machine that logs a line of so many bytes every so many microseconds.
fn chatter(scene: &Scene, period_us: u32, len_bytes: u32) -> Detached {
    let (period, len) = (period_us.to_string(), len_bytes.to_string());
    Detached::start(scene, &["probe", "--net", "none", "--", "chatter", &period, &len])
}

fn stop(scene: &Scene, machine: &Detached) {
    let outcome = scene.play(&["stop", &machine.name]);
    assert!(outcome.status.success(), "{outcome:?}");
    scene.assert_clean();
}

const FOLLOW: Request = Request::Logs(LogRequest { last: None, since_utc_us: None, follow: true });
const LAST: Request = Request::Logs(LogRequest { last: Some(1), since_utc_us: None, follow: false });

/// Reads a stream to its end. Every line's number and its text are those that are due, once lost ones are counted.
/// Gives back how many came and how many were lost.
fn read_stream(client: &mut RawClient, mut each: impl FnMut(&Line)) -> (u64, u64) {
    let (mut due, mut came, mut lost) = (0, 0, 0);
    loop {
        match client.answer().expect("an end comes before the end of the connection") {
            Answer::Log(line) => {
                assert_eq!(line.seq, due, "no line is missing without a word");
                due += 1;
                came += 1;
                each(&line);
            }
            Answer::Lost { lines } => {
                assert!(lines > 0);
                due += lines;
                lost += lines;
            }
            Answer::End { .. } => return (came, lost),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn logs_are_printed_with_time_and_level() {
    let scene = scene();
    let machine = chatter(&scene, 5_000, 3);
    let lines = wait_for("five lines", || {
        let outcome = scene.play(&["logs"]);
        assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
        let lines: Vec<_> = outcome.stdout.lines().map(str::to_owned).collect();
        (lines.len() >= 5).then_some(lines)
    });
    for (number, line) in lines.iter().enumerate() {
        let (time, rest) = line.split_once(' ').unwrap();
        humantime::parse_rfc3339(time).unwrap();
        assert_eq!(rest, format!("INFO  probe: {number} xxx"));
    }
    let last = scene.play(&["logs", "probe", "-n", "2"]);
    assert_eq!(last.stdout.lines().count(), 2, "{last:?}");
    assert_eq!(scene.play(&["logs", "-n", "0"]).stdout, "");
    stop(&scene, &machine);
}

#[test]
fn logs_since_a_moment_leave_out_what_was_before() {
    let scene = scene();
    let machine = chatter(&scene, 20_000, 3);
    wait_for("lines since a moment, and more before it", || {
        let all = scene.play(&["logs"]).stdout.lines().count();
        let since = scene.play(&["logs", "--since", "500ms"]).stdout.lines().count();
        (since > 5 && since + 10 < all).then_some(())
    });
    assert_eq!(scene.play(&["logs", "--since", "2200-01-01T00:00:00Z"]).stdout, "");
    let outcome = scene.play(&["logs", "--since", "yesterday"]);
    assert_eq!(outcome.status.code(), Some(2), "{outcome:?}");
    assert!(outcome.stderr.contains("90s"), "{outcome:?}");
    stop(&scene, &machine);
}

#[test]
fn logs_as_json_are_a_line_each() {
    let scene = scene();
    let machine = chatter(&scene, 5_000, 3);
    let text = wait_for("lines", || {
        let outcome = scene.play(&["logs", "--json"]);
        (outcome.stdout.lines().count() > 3).then_some(outcome.stdout)
    });
    for (number, line) in text.lines().enumerate() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["schema"], "exovm-log/1");
        assert_eq!((&line["seq"], &line["level"]), (&number.into(), &"info".into()));
        assert_eq!(line["source"], "guest");
        assert_eq!(line["text"], format!("probe: {number} xxx"));
        humantime::parse_rfc3339(line["time"].as_str().unwrap()).unwrap();
    }
    stop(&scene, &machine);
}

#[test]
fn logs_followed_go_on_until_the_machine_has_said_its_last_words() {
    let scene = scene();
    let machine = chatter(&scene, 10_000, 3);
    let mut follower = scene.command(&["logs", "--follow", "-n", "0"]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert_eq!(lines.by_ref().take(11).count(), 11, "it goes on");
    stop(&scene, &machine);
    let last = lines.last();
    assert!(last.as_ref().is_some_and(|last| last.ends_with(" lines")), "{last:?}");
    let outcome = follower.wait_with_output().unwrap();
    assert!(outcome.status.success() && outcome.stderr.is_empty(), "{outcome:?}");
}

#[test]
fn logs_followed_end_quietly_when_their_reader_goes() {
    let scene = scene();
    let machine = chatter(&scene, 10_000, 3);
    let mut child = scene.command(&["logs", "-f"]).spawn().unwrap();
    let mut first = String::new();
    // As `exovm logs -f | head -n 1`.
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("probe: 0"), "{first}");
    let outcome = child.wait_with_output().unwrap();
    assert_eq!((outcome.status.code(), outcome.stderr.as_slice()), (Some(0), &b""[..]));
    stop(&scene, &machine);
}

#[test]
fn logs_followed_end_when_their_reader_goes_though_nothing_more_is_logged() {
    let scene = scene();
    let machine = chatter(&scene, 60_000_000, 3);
    let mut child = scene.command(&["logs", "-f"]).spawn().unwrap();
    let mut first = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert!(first.contains("probe: 0"), "{first}");
    let status = wait_for("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    stop(&scene, &machine);
}

#[test]
fn logs_of_a_killed_machine_end_with_an_error() {
    let scene = scene();
    let machine = chatter(&scene, 10_000, 3);
    let mut follower = scene.command(&["logs", "-f"]).spawn().unwrap();
    let mut lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    lines.next().expect("a line").unwrap();
    machine.signal(rustix::process::Signal::KILL);
    lines.for_each(|line| drop(line.unwrap()));
    let outcome = follower.wait_with_output().unwrap();
    assert_eq!(outcome.status.code(), Some(1), "{outcome:?}");
    let complaint = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert!(complaint.contains("machine probe ended"), "{complaint}");
}

#[test]
fn thousands_of_lines_a_second_come_all_to_who_reads_them() {
    let scene = scene();
    const LINES: u64 = 4_000;
    let machine = chatter(&scene, 500, 20);
    let mut client = RawClient::connect(&scene, "probe");
    client.send(&FOLLOW.to_line());
    let (said, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        read_stream(&mut client, |line| {
            if line.seq == LINES {
                said.send(()).unwrap();
            }
        })
    });
    heard.recv_timeout(PATIENCE).expect("thousands of lines");
    stop(&scene, &machine);
    let (came, lost) = reader.join().unwrap();
    println!("{came} lines came, {lost} were lost");
    assert!(lost == 0 && came > LINES, "{came} came, {lost} were lost");
}

#[test]
fn slow_reader_is_told_how_many_lines_it_lost_and_holds_up_nobody() {
    let scene = scene();
    let machine = chatter(&scene, 250, 200);
    let mut slow = RawClient::connect(&scene, "probe");
    slow.send(&FOLLOW.to_line());
    // What the machine keeps (256 KiB) and what the socket holds (some 200 KiB) fills up in a second or two.
    let (started, mut said) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(4) || said < 6_000 {
        assert!(started.elapsed() < PATIENCE, "{said} lines");
        // Who is held up by it gets no answer before it reads, which is later.
        assert!(matches!(RawClient::connect(&scene, "probe").ask(&Request::Info), Answer::Info(_)));
        match RawClient::connect(&scene, "probe").ask(&LAST) {
            Answer::Log(line) => said = line.seq,
            // Nothing yet.
            Answer::End { .. } => {}
            other => panic!("{other:?}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let reader = std::thread::spawn(move || read_stream(&mut slow, |_| {}));
    std::thread::sleep(Duration::from_millis(200));
    stop(&scene, &machine);
    let (came, lost) = reader.join().unwrap();
    println!("{came} lines came, {lost} were lost");
    assert!(lost > 1_000 && came > 100, "{came} came, {lost} were lost");
}

#[test]
fn logs_say_which_lines_are_not_kept_any_more() {
    let scene = scene();
    let machine = chatter(&scene, 250, 500);
    let enough = 3 * KEPT_BYTES as u64 / 500;
    let first = wait_for("more lines than are kept", || {
        let outcome = scene.play(&["logs", "-n", "1", "--json"]);
        let last: serde_json::Value = serde_json::from_str(outcome.stdout.lines().next()?).unwrap();
        (last["seq"].as_u64().unwrap() > enough).then(|| scene.play(&["logs"]))
    });
    let note = first.stdout.lines().next().unwrap();
    assert!(note.starts_with('[') && note.ends_with(" lines lost: they are not kept any more]"), "{note}");
    let kept = first.stdout.len();
    assert!((KEPT_BYTES / 2..KEPT_BYTES + 4096).contains(&kept), "{kept} bytes are kept");
    stop(&scene, &machine);
}

#[test]
fn very_long_lines_arrive_in_pieces() {
    const LEN: usize = 20_000;
    let scene = scene();
    let machine = chatter(&scene, 200_000, LEN as u32);
    let mut client = RawClient::connect(&scene, "probe");
    client.send(&FOLLOW.to_line());
    let (said, heard) = std::sync::mpsc::channel();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        read_stream(&mut client, |line| {
            text.push_str(&line.text);
            if text.matches("probe: ").count() == 4 {
                // Once is enough.
                let _ = said.send(());
            }
        });
        text
    });
    heard.recv_timeout(PATIENCE).expect("three lines, and the beginning of another");
    stop(&scene, &machine);
    let text = reader.join().unwrap();
    let lines: Vec<_> = text.split("probe: ").skip(1).collect();
    assert!(lines.len() >= 3, "{} lines", lines.len());
    for line in &lines[..lines.len() - 1] {
        assert_eq!(line.matches('x').count(), LEN, "all of a line arrives");
    }
}

#[test]
fn what_the_vmm_has_to_say_is_in_the_log_and_not_taken_for_the_guests() {
    let scene = scene();
    let mut command =
        scene.command(&["run", "-d", "-q", "probe", "--net", "none", "--", "chatter", "50000", "3"]);
    let outcome = exovm_ci::scene::finish(command.env("EXOVM_LOG", "debug"));
    assert!(outcome.status.success(), "{outcome:?}");
    // More clients than there are places: some lose theirs, which is worth a debug message.
    let silent: Vec<_> = (0..32).map(|_| RawClient::connect(&scene, "probe")).collect();
    std::thread::sleep(Duration::from_millis(1200));
    let said = "loses its place to another";
    let line = wait_for("the message", || {
        let logs = scene.play(&["logs", "--json"]).stdout;
        logs.lines().find(|line| line.contains(said)).map(str::to_owned)
    });
    let line: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!((&line["source"], &line["level"]), (&"vmm".into(), &"debug".into()));
    let text = scene.play(&["logs"]).stdout;
    assert!(text.lines().any(|line| line.contains(" DEBUG exovm: ") && line.contains(said)), "{text}");
    let count = wait_for("the message in the file", || {
        let file = std::fs::read_to_string(scene.runtime_dir().join("exovm/probe.log")).unwrap();
        let count = file.lines().filter(|line| line.contains(said)).count();
        (count > 0).then_some(count)
    });
    let kept = text.lines().filter(|line| line.contains(said)).count();
    assert!(count <= kept, "each is written once: {count} times, and {kept} kept");
    drop(silent);
    assert!(scene.play(&["stop", "--all"]).status.success());
    scene.assert_clean();
}
