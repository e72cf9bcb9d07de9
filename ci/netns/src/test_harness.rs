//! A `#[test]` whose body runs in a private network: the test runs its own binary again, in a new user and network
//! namespace, for just this one test. A namespace must be entered by a process with one thread, which a test never is.

use crate::spawn_in_private_network;
use std::error::Error;
use std::io::{self, BufRead, BufReader, PipeReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Set in the process that runs the body.
pub const INSIDE_VARIABLE: &str = "EXOVM_IN_NAMESPACE";
/// Seconds a body may take, for slow hosts such as an emulated one.
pub const TIMEOUT_VARIABLE: &str = "EXOVM_NAMESPACE_TIMEOUT_S";
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);
const TAIL_LINES: usize = 60;

/// Runs the body of the surrounding `#[test]` function in a private network, see [`in_namespace`](fn@crate::in_namespace).
/// The test's name is found by itself. `in_namespace!(within limit, body)` is for a body that may take longer than usual.
#[macro_export]
macro_rules! in_namespace {
    (within $limit:expr, $body:expr) => {{
        fn here() {}
        $crate::test_harness::in_namespace_within($limit, $crate::test_harness::test_name_of(&here), $body)
    }};
    ($body:expr) => {{
        fn here() {}
        $crate::in_namespace($crate::test_harness::test_name_of(&here), $body)
    }};
}

/// The name that the test harness gives to the function in which `marker` is declared: its path without the crate.
pub fn test_name_of<T>(marker: &T) -> &'static str {
    let path = std::any::type_name_of_val(marker);
    let function = path.rsplit_once("::").map_or(path, |(function, _marker)| function);
    let function = function.trim_end_matches("::{{closure}}");
    function.split_once("::").map_or(function, |(_crate, name)| name)
}

/// Runs `body` in a private user and network namespace, as root there, with `lo` up and nothing else.
///
/// Called from the `#[test]` named `test_name` (as `cargo test -- --list` prints it). Panics with the end of the output
/// if the body panics, takes longer than 120 s ([`TIMEOUT_VARIABLE`] changes that), or if namespaces are forbidden.
/// What the body starts with [`end_with_parent`](crate::end_with_parent), or leaves in its process group, is killed
/// with it. Not for `#[should_panic]` tests: the run inside would pass by panicking, and the one outside not panic.
pub fn in_namespace(test_name: &str, body: impl FnOnce()) {
    in_namespace_within(Duration::ZERO, test_name, body);
}

/// [`in_namespace`] for a body that may take `limit`, if that is longer than what others may take.
pub fn in_namespace_within(limit: Duration, test_name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE_VARIABLE).is_some() {
        return body();
    }
    let output = match this_test_again(test_name).and_then(|command| run(command, timeout().max(limit))) {
        Ok(output) => output,
        Err(error) => panic!("cannot run `{test_name}` in a namespace: {error}"),
    };
    for line in &output.lines {
        println!("{line}");
    }
    if let Err(reason) = output.verdict(test_name) {
        let tail = &output.lines[output.lines.len().saturating_sub(TAIL_LINES)..];
        panic!("{reason}; the end of its output:\n{}", tail.join("\n"));
    }
}

struct Output {
    lines: Vec<String>,
    /// `None`: it was killed after this time.
    status: Result<ExitStatus, Duration>,
}

impl Output {
    fn verdict(&self, test_name: &str) -> Result<(), String> {
        match &self.status {
            Err(limit) => Err(format!(
                "`{test_name}` did not end within {} s in its namespace and was killed",
                limit.as_secs()
            )),
            Ok(status) if !status.success() => {
                Err(format!("`{test_name}` failed in its namespace ({status})"))
            }
            // A wrong name would run no test and succeed.
            Ok(_) if !self.lines.iter().any(|line| line.contains("test result: ok. 1 passed")) => {
                Err(format!("the test harness knows no test `{test_name}`"))
            }
            Ok(_) => Ok(()),
        }
    }
}

fn timeout() -> Duration {
    let seconds = std::env::var(TIMEOUT_VARIABLE).ok().and_then(|text| text.parse().ok());
    seconds.map_or(DEFAULT_TIMEOUT, Duration::from_secs)
}

fn this_test_again(test_name: &str) -> Result<Command, Box<dyn Error>> {
    let mut command = Command::new(std::env::current_exe()?);
    command
        .args([test_name, "--exact", "--nocapture", "--include-ignored", "--test-threads=1"])
        .env(INSIDE_VARIABLE, "1");
    Ok(command)
}

fn run(mut command: Command, limit: Duration) -> Result<Output, Box<dyn Error>> {
    let (reader, writer) = io::pipe()?;
    command.stdin(Stdio::null()).stdout(writer.try_clone()?).stderr(writer);
    // A group of its own, so that what the body leaves behind can be ended with it.
    command.process_group(0);
    let mut child = spawn_in_private_network(&mut command)?;
    drop(command); // its copies of the pipe's writing end
    let lines = collect_lines(reader);
    let status = wait(&mut child, limit)?;
    Ok(Output { lines: lines.recv().unwrap_or_default(), status })
}

fn collect_lines(reader: PipeReader) -> mpsc::Receiver<Vec<String>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let lines = BufReader::new(reader).split(b'\n').map_while(Result::ok);
        let lines = lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect();
        // The receiver only goes away when the test has already failed.
        let _ = sender.send(lines);
    });
    receiver
}

/// Waits for `child`, then kills whatever is left of its process group.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Result<ExitStatus, Duration>> {
    let deadline = Instant::now() + limit;
    while !has_ended(child)? {
        if Instant::now() >= deadline {
            kill_group(child);
            child.wait()?;
            return Ok(Err(limit));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    // Before the child is reaped: until then its number, which is the group's, cannot belong to anybody else.
    kill_group(child);
    child.wait().map(Ok)
}

fn has_ended(child: &Child) -> io::Result<bool> {
    // SAFETY: an all-zero siginfo_t is a valid value of that plain C structure.
    let mut information: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `information` is valid for writing; the process is our child and not yet reaped.
    if unsafe { libc::waitid(libc::P_PID, child.id(), &mut information, options) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: waitid filled `information` (si_pid stays 0 when nothing has ended, waitid(2)).
    Ok(unsafe { information.si_pid() } != 0)
}

fn kill_group(child: &Child) {
    // SAFETY: kill takes its arguments by value; the group is the one made for this unreaped child.
    unsafe { libc::kill(-(child.id() as libc::pid_t), libc::SIGKILL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEHAVIOUR_VARIABLE: &str = "EXOVM_NETNS_BEHAVIOUR";
    const ON_DEMAND: &str = "test_harness::tests::behaves_as_told";

    /// Does nothing in a plain run; the tests below run it again and tell it how to fail.
    #[test]
    fn behaves_as_told() {
        match std::env::var(BEHAVIOUR_VARIABLE).as_deref() {
            Ok("panic") => panic!("the body's own words"),
            Ok("hang") => std::thread::sleep(Duration::from_secs(600)),
            Ok("leave a process behind") => {
                // It keeps the output open, so the harness would wait for it if it did not kill it.
                Command::new("sh").args(["-c", "sleep 600 &"]).status().unwrap();
            }
            _ => (),
        }
    }

    fn run_told(behaviour: &str, limit: Duration) -> Output {
        let mut command = this_test_again(ON_DEMAND).unwrap();
        command.env(BEHAVIOUR_VARIABLE, behaviour);
        run(command, limit).unwrap()
    }

    #[test]
    fn test_name_of_finds_the_surrounding_test() {
        fn here() {}
        assert_eq!(test_name_of(&here), "test_harness::tests::test_name_of_finds_the_surrounding_test");
    }

    #[test]
    fn in_namespace_failing_body_is_an_error_with_its_output() {
        let output = run_told("panic", Duration::from_secs(60));
        assert!(output.verdict(ON_DEMAND).unwrap_err().contains("failed in its namespace"));
        assert!(output.lines.iter().any(|line| line.contains("the body's own words")), "{:?}", output.lines);
    }

    #[test]
    fn in_namespace_hanging_body_is_killed_after_the_limit() {
        let output = run_told("hang", Duration::from_millis(300));
        assert!(output.verdict(ON_DEMAND).unwrap_err().contains("was killed"));
    }

    #[test]
    fn in_namespace_kills_what_the_body_leaves_behind() {
        let started = Instant::now();
        run_told("leave a process behind", Duration::from_secs(60)).verdict(ON_DEMAND).unwrap();
        assert!(started.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn in_namespace_unknown_test_is_an_error() {
        let command = this_test_again("no::such::test").unwrap();
        let output = run(command, Duration::from_secs(60)).unwrap();
        assert!(output.verdict("no::such::test").unwrap_err().contains("knows no test"));
    }

    #[test]
    #[should_panic(expected = "knows no test `no::such::test`")]
    fn in_namespace_panics_with_the_verdict() {
        in_namespace("no::such::test", || ());
    }
}
