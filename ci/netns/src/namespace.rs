//! Network namespaces beside the one this process is in, held by a file descriptor: made, worked in, and given to
//! processes. For whoever needs two ends of a wire. Asks for the rights that
//! [`enter_private_network`](crate::enter_private_network) gives.

use crate::NetnsError;
use crate::enter::bring_loopback_up;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// A network namespace. It lives as long as this value, a process or an interface's far end in it.
#[derive(Debug)]
pub struct Namespace {
    file: File,
}

impl Namespace {
    /// Makes a namespace with nothing but `lo`, up.
    pub fn create() -> Result<Self, NetnsError> {
        // A thread of its own, which takes its way back with it when it ends.
        in_thread(|| {
            // SAFETY: unshare takes flags by value and, with CLONE_NEWNET alone, moves only this thread.
            if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
                return Err(NetnsError::NamespacesForbidden(io::Error::last_os_error()));
            }
            bring_loopback_up()?;
            Self::open("/proc/thread-self/ns/net")
        })
    }

    /// The namespace of the calling thread.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open("/proc/thread-self/ns/net")
    }

    /// The namespace of process `pid`.
    pub fn of_process(pid: u32) -> Result<Self, NetnsError> {
        Self::open(&format!("/proc/{pid}/ns/net"))
    }

    /// Runs `work` in a thread that is in this namespace, and gives back what it returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T, NetnsError> {
        in_thread(|| {
            self.enter_thread()
                .map_err(|source| NetnsError::SetUp { step: "enter a network namespace", source })?;
            Ok(work())
        })
    }

    /// Lets `command` start in this namespace. The command must be started before this value is dropped.
    pub fn start_here<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let fd = self.file.as_raw_fd();
        // SAFETY: the closure makes one system call and allocates nothing. A descriptor that is closed by then, or that
        // is none of a namespace, is an error of setns.
        unsafe {
            command.pre_exec(move || match libc::setns(fd, libc::CLONE_NEWNET) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        }
    }

    pub(crate) fn raw_fd(&self) -> i32 {
        self.file.as_raw_fd()
    }

    fn open(path: &str) -> Result<Self, NetnsError> {
        File::open(path)
            .map(|file| Namespace { file })
            .map_err(|source| NetnsError::SetUp { step: "open a network namespace below /proc", source })
    }

    fn enter_thread(&self) -> io::Result<()> {
        // SAFETY: setns takes its arguments by value and, with CLONE_NEWNET, moves only this thread.
        match unsafe { libc::setns(self.file.as_raw_fd(), libc::CLONE_NEWNET) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }
}

fn in_thread<T: Send>(work: impl FnOnce() -> Result<T, NetnsError> + Send) -> Result<T, NetnsError> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Interface, in_namespace};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::process::Stdio;

    #[test]
    fn namespaces_on_a_veth_pair_talk() {
        in_namespace!(|| {
            let (near, far) = (Interface::named("near").unwrap(), Interface::named("far").unwrap());
            let other = Namespace::create().unwrap();
            Interface::create_veth_pair(&near, &far).unwrap();
            near.add_address("10.9.0.1".parse().unwrap(), 24).unwrap();
            near.up().unwrap();
            far.move_to(&other).unwrap();
            assert!(near.exists() && !far.exists());
            let listener = other
                .run(|| {
                    far.add_address("10.9.0.2".parse().unwrap(), 24).unwrap();
                    far.up().unwrap();
                    assert!(far.exists() && !near.exists());
                    TcpListener::bind("10.9.0.2:80").unwrap()
                })
                .unwrap();
            let mut client = TcpStream::connect("10.9.0.2:80").unwrap();
            listener.accept().unwrap().0.write_all(b"across").unwrap();
            let mut text = String::new();
            client.read_to_string(&mut text).unwrap();
            assert_eq!(text, "across");

            near.delete().unwrap();
            assert!(!near.exists());
        });
    }

    #[test]
    fn start_here_puts_the_process_into_the_namespace() {
        in_namespace!(|| {
            let other = Namespace::create().unwrap();
            let mut command = Command::new("cat");
            command.stdin(Stdio::piped()).stdout(Stdio::null());
            let mut child = crate::end_with_parent(other.start_here(&mut command)).spawn().unwrap();
            let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
            assert_ne!(link("self"), link(&child.id().to_string()));
            let of_child = Namespace::of_process(child.id()).unwrap();
            let here = of_child.run(|| link("thread-self")).unwrap();
            assert_eq!(here, link(&child.id().to_string()));
            drop(child.stdin.take());
            assert!(child.wait().unwrap().success());
        });
    }
}
