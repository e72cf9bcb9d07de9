//! Machines without a network for tests of the tools: detached ones that are killed if a test forgets them, and raw
//! conversations with their control sockets.

use exovm::control::{Answer, Request};
use exovm_ci::scene::{Running, Scene};
use exovm_ci::{Client, Site};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// What a test waits for at most.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A detached machine; killed at the end of the test if it still runs.
pub(crate) struct Detached {
    pub(crate) name: String,
    pub(crate) pid: u32,
    process: OwnedFd,
}

impl Detached {
    /// `exovm run --detach` with these arguments.
    pub(crate) fn start(scene: &Scene, arguments: &[&str]) -> Self {
        let outcome = scene.play(&[&["run", "--detach", "--quiet"], arguments].concat());
        assert!(outcome.status.success(), "{outcome:?}");
        let name = outcome.stdout.trim_end().to_owned();
        let report = ps(scene);
        let machines = report["machines"].as_array().expect("a list");
        let info = machines.iter().find(|info| info["name"] == name.as_str()).expect("it runs");
        let pid = info["pid"].as_u64().expect("a number") as u32;
        let process = pidfd_open(Pid::from_raw(pid as i32).expect("not 0"), PidfdFlags::empty());
        Self { name, pid, process: process.expect("it runs") }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        pidfd_send_signal(&self.process, signal).expect("it runs");
    }

    /// Waits until its process has gone.
    pub(crate) fn assert_ends(&self) {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let limit = Timespec { tv_sec: PATIENCE.as_secs() as i64, tv_nsec: 0 };
        let ready = poll(&mut [PollFd::new(&self.process, PollFlags::IN)], Some(&limit)).expect("poll");
        assert_eq!(ready, 1, "{} has not ended", self.name);
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = pidfd_send_signal(&self.process, Signal::KILL);
    }
}

/// What `exovm ps --json` prints.
pub(crate) fn ps(scene: &Scene) -> serde_json::Value {
    let outcome = scene.play(&["ps", "--json"]);
    assert!(outcome.status.success(), "{outcome:?}");
    let report: serde_json::Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    assert_eq!(report["schema"], "exovm-ps/1");
    report
}

/// Repeats until it gives something.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A client that says exactly what the test wants it to say.
pub(crate) struct RawClient(pub(crate) BufReader<UnixStream>);

impl RawClient {
    /// To the machine of this name.
    pub(crate) fn connect(scene: &Scene, name: &str) -> Self {
        let path = scene.runtime_dir().join(format!("exovm/{name}.sock"));
        let stream = UnixStream::connect(path).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self(BufReader::new(stream))
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).expect("it listens");
    }

    pub(crate) fn ask(&mut self, request: &Request) -> Answer {
        self.send(&request.to_line());
        self.answer().expect("an answer")
    }

    /// The next answer; `None` at the end of the connection.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let mut line = Vec::new();
        match self.0.read_until(b'\n', &mut line) {
            Ok(0) => None,
            Ok(_) => Some(Answer::parse(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))),
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A Cheetah that has answered so many requests on one connection, which is still there.
pub(crate) fn cheetah_that_served(scene: &Scene, requests: u64) -> (Running, Client) {
    let site = Site::new().file("index.html", "home");
    let docroot = site.path().to_str().expect("plain");
    let running = scene.start(&["run", "cheetah", "--docroot", docroot, "--net", "tap=auto"]);
    let mut client = Client::connect(running.address()).expect("it serves");
    (0..requests).for_each(|_| assert_eq!(client.get("/").expect("an answer").status(), 200));
    (running, client)
}
