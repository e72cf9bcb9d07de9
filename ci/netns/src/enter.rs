//! Into a private user and network namespace. In it this process is root over its own network and over nothing else;
//! its user and group are mapped to 0, so files keep their owner. Everything between `fork` and `exec` uses only
//! system calls: no allocation, no lock (signal-safety(7)).

use crate::NetnsError;
use std::ffi::CStr;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// A step of entering, with the error number it ended in. Plain data: it is made between `fork` and `exec`.
#[derive(Debug)]
pub(crate) struct Failure {
    step: &'static str,
    source: io::Error,
}

const UNSHARE: &str = "unshare(CLONE_NEWUSER | CLONE_NEWNET)";

impl From<Failure> for NetnsError {
    fn from(failure: Failure) -> Self {
        match failure.step {
            UNSHARE => NetnsError::NamespacesForbidden(failure.source),
            step => NetnsError::SetUp { step, source: failure.source },
        }
    }
}

/// The identity maps of user_namespaces(7), written out before `fork` because formatting may allocate.
#[derive(Debug)]
struct IdentityMaps {
    uid_map: String,
    gid_map: String,
}

impl IdentityMaps {
    /// This process's effective user and group become 0 inside.
    fn of_this_process() -> Self {
        // SAFETY: both calls have no arguments, touch no memory and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        IdentityMaps { uid_map: format!("0 {uid} 1"), gid_map: format!("0 {gid} 1") }
    }
}

/// Moves this process into a new user namespace and a new network namespace, and brings `lo` up.
///
/// The process must have one thread; [`NetnsError::SeveralThreads`] otherwise. Works for root and for anybody else where
/// the host allows user namespaces. The namespaces end with their last process.
pub fn enter_private_network() -> Result<(), NetnsError> {
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|source| NetnsError::SetUp { step: "read /proc/self/task", source })?
        .count();
    if threads != 1 {
        return Err(NetnsError::SeveralThreads { threads });
    }
    Ok(enter(&IdentityMaps::of_this_process())?)
}

/// Starts `command` in a private user and network namespace with `lo` up. It is killed when the calling thread ends
/// (see [`end_with_parent`]).
pub fn spawn_in_private_network(command: &mut Command) -> Result<Child, NetnsError> {
    let maps = IdentityMaps::of_this_process();
    // SAFETY: `enter` makes only system calls on memory prepared before the fork; it neither allocates nor locks.
    unsafe { command.pre_exec(move || enter(&maps).map_err(|failure| failure.source)) };
    // After entering: a change of credentials may clear the parent-death signal (prctl(2), PR_SET_PDEATHSIG).
    end_with_parent(command);
    command.spawn().map_err(|source| match source.raw_os_error() {
        // Of all steps only unshare ends in these: no right (EPERM), limit reached (ENOSPC, EUSERS), not built in.
        Some(libc::EPERM | libc::ENOSPC | libc::EUSERS | libc::ENOSYS) => {
            NetnsError::NamespacesForbidden(source)
        }
        _ => NetnsError::Start { program: command.get_program().to_string_lossy().into_owned(), source },
    })
}

/// Lets the kernel kill `command`'s process when the thread that starts it ends, however it ends: nothing that a test
/// or benchmark starts outlives it. Start it from a thread that lives as long as the child should.
pub fn end_with_parent(command: &mut Command) -> &mut Command {
    // SAFETY: getpid cannot fail and touches no memory.
    let parent = unsafe { libc::getpid() };
    let arm = move || {
        // SAFETY: PR_SET_PDEATHSIG takes the signal by value and affects only this process.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: getppid cannot fail and touches no memory.
        if unsafe { libc::getppid() } != parent {
            // The parent ended before the signal was armed; nobody would ever kill this process.
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        }
        Ok(())
    };
    // SAFETY: the closure makes two system calls and allocates nothing (`last_os_error` keeps the number inline).
    unsafe { command.pre_exec(arm) }
}

fn enter(maps: &IdentityMaps) -> Result<(), Failure> {
    // SAFETY: unshare takes flags by value; the caller is single-threaded, so no other thread sees the change.
    check(UNSHARE, unsafe { libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNET) })?;
    // Without this an unprivileged process may not write gid_map (user_namespaces(7)).
    write_file(c"/proc/self/setgroups", "deny")?;
    write_file(c"/proc/self/uid_map", &maps.uid_map)?;
    write_file(c"/proc/self/gid_map", &maps.gid_map)?;
    bring_loopback_up()
}

fn write_file(path: &'static CStr, content: &str) -> Result<(), Failure> {
    let step = path.to_str().unwrap_or("write below /proc/self");
    // SAFETY: `path` is a NUL-terminated constant.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC) };
    check(step, fd)?;
    // SAFETY: `content` is valid for its length; `fd` was just opened and is closed once.
    let (written, error) = unsafe {
        let written = libc::write(fd, content.as_ptr().cast(), content.len());
        let error = io::Error::last_os_error();
        libc::close(fd);
        (written, error)
    };
    if written != content.len() as isize { Err(Failure { step, source: error }) } else { Ok(()) }
}

pub(crate) fn bring_loopback_up() -> Result<(), Failure> {
    let step = "bring `lo` up";
    // SAFETY: an all-zero ifreq is a valid value of that plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the arguments are constants.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    check(step, fd)?;
    // SAFETY: SIOCSIFFLAGS reads an ifreq, which `request` is; `fd` is closed once.
    let (result, error) = unsafe {
        let result = libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &request);
        let error = io::Error::last_os_error();
        libc::close(fd);
        (result, error)
    };
    if result != 0 { Err(Failure { step, source: error }) } else { Ok(()) }
}

fn check(step: &'static str, result: libc::c_int) -> Result<(), Failure> {
    if result < 0 { Err(Failure { step, source: io::Error::last_os_error() }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::process::ExitStatusExt;

    #[test]
    fn enter_private_network_with_threads_returns_several_threads() {
        // The test harness runs each test in a thread beside the main one.
        let result = std::thread::spawn(enter_private_network).join().unwrap();
        assert!(matches!(result, Err(NetnsError::SeveralThreads { threads: 2.. })), "{result:?}");
    }

    #[test]
    fn spawn_in_private_network_unknown_program_names_it() {
        let error = spawn_in_private_network(&mut Command::new("/no/such/program")).unwrap_err();
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }

    #[test]
    fn end_with_parent_kills_the_child_of_an_ended_thread() {
        let mut child =
            std::thread::spawn(|| end_with_parent(Command::new("sleep").arg("600")).spawn().unwrap())
                .join()
                .unwrap();
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
    }

    #[test]
    fn private_network_has_only_loopback_and_makes_us_root() {
        crate::in_namespace!(|| {
            let table = std::fs::read_to_string("/proc/self/net/dev").unwrap();
            let names: Vec<&str> =
                table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim())).collect();
            assert_eq!(names, ["lo"]);
            // SAFETY: geteuid cannot fail and touches no memory.
            assert_eq!(unsafe { libc::geteuid() }, 0);
            let listener = TcpListener::bind("127.0.0.1:80").unwrap();
            TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        });
    }
}
