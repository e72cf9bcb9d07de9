//! Commands on a terminal: keys pressed on one side, what is shown on the other.

use exovm_ci::scene::Scene;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(20);

/// A number of rows or columns.
fn cells(number: u16) -> std::num::NonZero<u16> {
    number.try_into().expect("a terminal has some")
}

/// A command on a terminal of the test's own.
pub(crate) struct Terminal {
    pub(crate) child: Child,
    /// The person's side.
    pub(crate) master: File,
    /// The command's side, kept open to look at its modes.
    pub(crate) slave: File,
    pub(crate) seen: String,
    /// What a person would see now.
    screen: vt100::Parser,
}

impl Terminal {
    /// Starts it, and how the terminal was before.
    pub(crate) fn open(scene: &Scene, arguments: &[&str]) -> (Self, Termios) {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudo-terminal");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("ours");
        let name = ptsname(&master, Vec::new()).expect("it has a name");
        let path = name.to_str().expect("a path");
        let slave = File::options().read(true).write(true).open(path).expect("the other side");
        let size = Winsize { ws_col: 100, ws_row: 30, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).expect("a terminal");
        let before = tcgetattr(&slave).expect("a terminal");
        let side = || Stdio::from(OwnedFd::from(slave.try_clone().expect("a descriptor")));
        let child = scene
            .command(arguments)
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .expect("the command starts");
        let flags = rustix::fs::OFlags::NONBLOCK;
        rustix::fs::fcntl_setfl(&master, flags).expect("a descriptor");
        (
            Self {
                child,
                master: master.into(),
                slave,
                seen: String::new(),
                screen: vt100::Parser::new(cells(30), cells(100), 0),
            },
            before,
        )
    }

    /// Waits until it shows `part`, behind what was waited for before.
    pub(crate) fn expect(&mut self, part: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(part) {
                self.seen.drain(..at + part.len());
                return;
            }
            self.take(Duration::from_millis(5));
            assert!(Instant::now() < deadline, "{part:?} is not shown: {:?}", self.seen);
        }
    }

    /// Gives it another size.
    pub(crate) fn resize(&mut self, rows: u16, columns: u16) {
        let size = Winsize { ws_col: columns, ws_row: rows, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&self.master, size).expect("a terminal");
        self.screen.screen_mut().set_size(cells(rows), cells(columns));
    }

    /// Waits until the screen, as a terminal draws it, is as wanted.
    pub(crate) fn expect_screen(&mut self, what: &str, is: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let contents = self.screen.screen().contents();
            if is(&contents) {
                return;
            }
            assert!(Instant::now() < deadline, "{what}: the screen shows\n{contents}");
            self.take(Duration::from_millis(5));
        }
    }

    /// Whether the other screen is shown, the one that leaves what was there before alone.
    pub(crate) fn is_alternate(&mut self) -> bool {
        self.take(Duration::ZERO);
        self.screen.screen().alternate_screen()
    }

    /// Takes what has been written, or waits.
    fn take(&mut self, wait: Duration) {
        let mut bytes = [0; 4096];
        match self.master.read(&mut bytes) {
            Ok(count) => {
                self.screen.process(&bytes[..count]);
                self.seen.push_str(&String::from_utf8_lossy(&bytes[..count]));
            }
            Err(_) => std::thread::sleep(wait),
        }
    }

    /// Presses keys.
    pub(crate) fn press(&mut self, keys: &[u8]) {
        self.master.write_all(keys).expect("a terminal takes keys");
    }

    /// Its status once it has ended.
    pub(crate) fn status(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our own child") {
                return status.code();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end; it shows {:?}", self.seen);
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
