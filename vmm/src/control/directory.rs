//! The runtime directory: one socket a machine, called `NAME.sock`, and for a detached one its log file `NAME.log`.
//!
//! Whoever makes or removes a socket holds the directory's lock, so that a socket which refuses connections is known to
//! be the leftover of a VMM that was killed, and not one that is about to listen.

use super::ControlError;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Where machines that run as services (`exovm@NAME.service`) have their runtime directories: `/run/exovm/NAME`.
const SERVICES: &str = "/run/exovm";
/// Longest name of a machine: socket paths are short.
const NAME_BYTES_MAX: usize = 48;

/// A machine's name, if it can have it: it becomes a file name.
pub fn checked_name(name: &str) -> Result<&str, ControlError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let good = (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(plain);
    if good { Ok(name) } else { Err(ControlError::BadName { name: name.to_owned() }) }
}

/// The directory of this user's control sockets; made if missing, refused if somebody else could write to it.
pub fn runtime_dir() -> Result<PathBuf, ControlError> {
    let uid = rustix::process::getuid().as_raw();
    // A relative path in the environment is to be ignored (XDG Base Directory Specification).
    let named = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute());
    let dir = match named {
        Some(dir) => dir.join("exovm"),
        None => std::env::temp_dir().join(format!("exovm-{uid}")),
    };
    let fail = |error| ControlError::RuntimeDir { dir: dir.clone(), error };
    match std::fs::DirBuilder::new().mode(0o700).create(&dir) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(fail(error)),
        _ => {}
    }
    if is_of_user_alone(&dir, uid).map_err(fail)? {
        Ok(dir)
    } else {
        Err(ControlError::UnsafeRuntimeDir { dir })
    }
}

/// Whether it is a directory of this user's, not a link to one, that nobody else can write to.
fn is_of_user_alone(dir: &Path, uid: u32) -> std::io::Result<bool> {
    let metadata = std::fs::symlink_metadata(dir)?;
    Ok(metadata.is_dir() && metadata.uid() == uid && metadata.mode() & 0o022 == 0)
}

/// The directories with sockets of services. Each belongs to a user of its own; only root may look into them.
fn service_dirs(services: &Path) -> Vec<PathBuf> {
    if !rustix::process::getuid().is_root() {
        return Vec::new();
    }
    let entries = std::fs::read_dir(services).into_iter().flatten();
    let dirs = entries.filter_map(|entry| Some(entry.ok()?.path().join("exovm")));
    // Not where a service's user has made a link to.
    let is_dir = |dir: &PathBuf| std::fs::symlink_metadata(dir).is_ok_and(|metadata| metadata.is_dir());
    let mut dirs: Vec<_> = dirs.filter(is_dir).collect();
    dirs.sort();
    dirs
}

/// Where the socket of a machine lies: this user's, or else, for root, a service's.
pub fn socket_path(name: &str) -> Result<PathBuf, ControlError> {
    let file = format!("{}.sock", checked_name(name)?);
    let own = runtime_dir()?.join(&file);
    if is_socket(&own) {
        return Ok(own);
    }
    let of_services = service_dirs(Path::new(SERVICES)).into_iter().map(|dir| dir.join(&file));
    Ok(of_services.into_iter().find(|path| is_socket(path)).unwrap_or(own))
}

/// Where the log file of a detached machine lies.
pub fn log_path(name: &str) -> Result<PathBuf, ControlError> {
    Ok(runtime_dir()?.join(format!("{}.log", checked_name(name)?)))
}

/// Held by who makes or removes sockets; given back when dropped.
pub(super) struct DirectoryLock(OwnedFd);

impl DirectoryLock {
    /// The directory that is locked, also if another one has its name by now.
    fn path(&self) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}", self.0.as_raw_fd()))
    }
}

/// Waits for the lock of a directory. It is needed for milliseconds: whoever has it for as long as `patience` hangs.
pub(super) fn lock(dir: &Path, patience: Duration) -> Result<DirectoryLock, ControlError> {
    use rustix::io::Errno;
    let fail = |error: Errno| ControlError::RuntimeDir { dir: dir.to_owned(), error: error.into() };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::open(dir, flags, Mode::empty()).map_err(fail)?;
    let deadline = Instant::now() + patience;
    loop {
        match rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(DirectoryLock(fd)),
            Err(Errno::INTR) => {}
            Err(Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(2));
            }
            Err(Errno::WOULDBLOCK) => return Err(ControlError::Locked { dir: dir.to_owned() }),
            Err(error) => return Err(fail(error)),
        }
    }
}

/// Listens on a socket of this user's alone.
pub(super) fn listen(path: &Path) -> Result<UnixListener, ControlError> {
    use rustix::io::Errno;
    /// Clients that may wait to be accepted.
    const BACKLOG: i32 = 128;
    let listen = || {
        let address = SocketAddrUnix::new(path)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        // The file gets the mode of the socket, less the umask (unix(7)): nobody else ever finds an open one.
        rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
        rustix::net::bind(&socket, &address)?;
        rustix::net::listen(&socket, BACKLOG)?;
        Ok(UnixListener::from(socket))
    };
    listen().map_err(|error: Errno| ControlError::Socket { path: path.to_owned(), error: error.into() })
}

/// What a socket file turned out to be.
#[derive(Debug)]
pub(super) enum Knock {
    /// Somebody listens; `None` if so many wait already that there is no room for one more.
    Alive(Option<UnixStream>),
    /// Nobody listens, and as long as the directory is locked nobody will.
    Dead,
    /// There is none.
    Missing,
    /// Something that is no socket, and not ours.
    Foreign,
}

/// Connects to a socket without waiting.
pub(super) fn knock(path: &Path) -> Result<Knock, ControlError> {
    use rustix::io::Errno;
    let fail = |error: Errno| ControlError::Socket { path: path.to_owned(), error: error.into() };
    let address = SocketAddrUnix::new(path).map_err(|error| match error {
        Errno::NAMETOOLONG => ControlError::LongPath { path: path.to_owned() },
        error => fail(error),
    })?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(fail)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) => Ok(Knock::Alive(Some(UnixStream::from(socket)))),
        Err(Errno::AGAIN) => Ok(Knock::Alive(None)),
        // A file that is no socket refuses as well.
        Err(Errno::CONNREFUSED) if is_socket(path) => Ok(Knock::Dead),
        Err(Errno::CONNREFUSED) => Ok(Knock::Foreign),
        Err(Errno::NOENT) => Ok(Knock::Missing),
        Err(error) => Err(fail(error)),
    }
}

fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
}

/// The machines of this user, by name: alive, and those whose VMM was killed.
#[derive(Debug, Default)]
pub struct Machines {
    /// They listen.
    pub alive: Vec<String>,
    /// They do not; their sockets are removed.
    pub removed: Vec<String>,
}

/// Looks at every socket of the runtime directory, and for root at those of services. Those that nobody listens to are
/// removed.
pub fn machines() -> Result<Machines, ControlError> {
    look(Leftovers::Remove)
}

/// Names of the machines that listen. Nothing is removed: whoever asks may have no way to say so.
pub fn names() -> Result<Vec<String>, ControlError> {
    Ok(look(Leftovers::Keep)?.alive)
}

/// What is done about sockets that nobody listens to.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leftovers {
    Remove,
    Keep,
}

fn look(leftovers: Leftovers) -> Result<Machines, ControlError> {
    let mut machines = Machines::default();
    look_into(&runtime_dir()?, leftovers, &mut machines)?;
    for dir in service_dirs(Path::new(SERVICES)) {
        // A directory that cannot be read goes with a service that has just ended.
        let _ = look_into(&dir, leftovers, &mut machines);
    }
    machines.alive.sort();
    machines.alive.dedup();
    machines.removed.sort();
    Ok(machines)
}

fn look_into(dir: &Path, leftovers: Leftovers, machines: &mut Machines) -> Result<(), ControlError> {
    /// `ps` is to show machines soon.
    const PATIENCE: Duration = Duration::from_secs(1);
    let lock = lock(dir, PATIENCE)?;
    let entries = std::fs::read_dir(lock.path())
        .map_err(|error| ControlError::RuntimeDir { dir: dir.to_owned(), error })?;
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        let name = path.file_stem().and_then(|stem| checked_name(stem.to_str()?).ok());
        let (Some(name), Some("sock")) = (name, path.extension().and_then(|extension| extension.to_str()))
        else {
            continue;
        };
        match knock(&path) {
            Ok(Knock::Alive(_)) => machines.alive.push(name.to_owned()),
            Ok(Knock::Dead) if leftovers == Leftovers::Keep => {}
            Ok(Knock::Dead) if std::fs::remove_file(&path).is_ok() => machines.removed.push(name.to_owned()),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn look_into_counts_those_that_listen_and_removes_those_that_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let socket = |name: &str| std::os::unix::net::UnixListener::bind(dir.path().join(name)).unwrap();
        let _alive = socket("alive.sock");
        drop(socket("dead.sock"));
        std::fs::write(dir.path().join("file.sock"), "").unwrap();
        let mut machines = Machines::default();
        look_into(dir.path(), Leftovers::Keep, &mut machines).unwrap();
        assert_eq!((machines.alive, machines.removed), (vec!["alive".to_owned()], Vec::new()));
        assert!(dir.path().join("dead.sock").exists());
        let mut machines = Machines::default();
        look_into(dir.path(), Leftovers::Remove, &mut machines).unwrap();
        assert_eq!((machines.alive, machines.removed), (vec!["alive".to_owned()], vec!["dead".to_owned()]));
        assert!(dir.path().join("file.sock").exists() && !dir.path().join("dead.sock").exists());
    }

    #[test]
    fn directory_of_somebody_else_open_to_others_or_behind_a_link_is_not_of_the_user_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let own = dir.path().join("own");
        std::fs::create_dir(&own).unwrap();
        let mode = |mode| std::fs::set_permissions(&own, std::fs::Permissions::from_mode(mode)).unwrap();
        for (bits, good) in [(0o700, true), (0o755, true), (0o770, false), (0o702, false)] {
            mode(bits);
            assert_eq!(is_of_user_alone(&own, uid).unwrap(), good, "{bits:o}");
        }
        mode(0o700);
        assert!(!is_of_user_alone(&own, uid + 1).unwrap());
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&own, &link).unwrap();
        assert!(!is_of_user_alone(&link, uid).unwrap());
        assert!(is_of_user_alone(&dir.path().join("none"), uid).is_err());
    }

    #[test]
    fn service_dirs_are_those_that_a_service_has_made() {
        let services = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(services.path().join("web/exovm")).unwrap();
        std::fs::create_dir(services.path().join("starting")).unwrap();
        // A service's user may do anything in its directory.
        std::fs::create_dir(services.path().join("hostile")).unwrap();
        std::os::unix::fs::symlink("/tmp", services.path().join("hostile/exovm")).unwrap();
        let expected = match rustix::process::getuid().is_root() {
            true => vec![services.path().join("web/exovm")],
            false => Vec::new(),
        };
        assert_eq!(service_dirs(services.path()), expected);
        let link = services.path().join("hostile/exovm");
        assert!(
            look_into(&link, Leftovers::Remove, &mut Machines::default()).is_err(),
            "also if it became one just now"
        );
        assert_eq!(service_dirs(Path::new("/nonexistent")), [""; 0].map(PathBuf::from));
    }
}
