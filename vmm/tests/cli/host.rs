//! A host that lacks something: devices that are missing, forbidden, or something else. The command runs in a mount
//! namespace of its own in which /dev looks so.

use crate::scene;
use exovm_ci::scene::finish;
use exovm_netns::in_namespace;
use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// A change of what the command sees.
pub(crate) enum Change {
    /// An empty file system at this place.
    Empty(&'static str),
    /// An empty file system of so many KiB at this place.
    Small(String, u32),
    /// This file or directory at that place.
    Replace(String, &'static str),
}

const CAP_DAC_OVERRIDE: libc::c_ulong = 1;
const CAP_DAC_READ_SEARCH: libc::c_ulong = 2;

/// Has the command see its host so. Root of the test's user namespace may mount in a mount namespace that it owns.
pub(crate) fn change(command: &mut Command, changes: Vec<Change>) {
    let text = |text: &str| CString::new(text).expect("no NUL");
    let mounts: Vec<_> = changes
        .into_iter()
        .map(|change| match change {
            Change::Empty(at) => (text("tmpfs"), text(at), Some(text("tmpfs")), 0, text("")),
            Change::Small(at, kib) => {
                (text("tmpfs"), text(&at), Some(text("tmpfs")), 0, text(&format!("size={kib}k")))
            }
            Change::Replace(with, at) => (text(&with), text(at), None, libc::MS_BIND, text("")),
        })
        .collect();
    let root = text("/");
    let enter = move || {
        let check = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
        // SAFETY: flags by value; the process has one thread after fork.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let none = std::ptr::null();
        let private = libc::MS_REC | libc::MS_PRIVATE;
        // SAFETY: the path ends with NUL; the other pointers may be null.
        check(unsafe { libc::mount(none, root.as_ptr(), none, private, none.cast()) })?;
        for (what, at, kind, flags, options) in &mounts {
            let kind = kind.as_ref().map_or(none, |kind| kind.as_ptr());
            // SAFETY: all strings end with NUL and live through the call.
            check(unsafe { libc::mount(what.as_ptr(), at.as_ptr(), kind, *flags, options.as_ptr().cast()) })?;
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls on memory prepared before the fork.
    unsafe { command.pre_exec(enter) };
}

/// Takes the command's right to pass over file permissions, which root has even in a user namespace.
pub(crate) fn respect_permissions(command: &mut Command) {
    let drop_rights = || {
        for capability in [CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH] {
            // SAFETY: PR_CAPBSET_DROP takes its argument by value.
            if unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure makes only system calls.
    unsafe { command.pre_exec(drop_rights) };
}

/// Has the command write no file beyond so many bytes, as `ulimit -f` does.
pub(crate) fn limit_file_size(command: &mut Command, bytes: u64) {
    let limit = libc::rlimit { rlim_cur: bytes, rlim_max: bytes };
    // SAFETY: the closure makes one system call, on memory that it owns.
    unsafe {
        command.pre_exec(move || match libc::setrlimit(libc::RLIMIT_FSIZE, &limit) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        })
    };
}

/// What `run hello` says on a host with these changes.
fn assert_refused_where(changes: Vec<Change>, net: &str, parts: &[&str]) {
    let scene = scene();
    let mut command = scene.command(&["run", "hello", "--net", net]);
    change(&mut command, changes);
    respect_permissions(&mut command);
    let outcome = finish(&mut command);
    outcome.assert_error(parts);
    outcome.assert_one_line();
    scene.assert_clean();
}

/// A file that nobody may open.
pub(crate) fn forbidden(dir: &Path) -> String {
    let path = dir.join("forbidden");
    std::fs::write(&path, "").unwrap();
    let nobody = std::os::unix::fs::PermissionsExt::from_mode(0o000);
    std::fs::set_permissions(&path, nobody).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn run_without_kvm_says_how_to_get_it() {
    in_namespace!(|| {
        assert_refused_where(vec![Change::Empty("/dev")], "none", &["there is no /dev/kvm", "modprobe"]);
    });
}

#[test]
fn run_without_permission_for_kvm_says_how_to_get_it() {
    in_namespace!(|| {
        let dir = tempfile::tempdir().unwrap();
        let changes = vec![Change::Replace(forbidden(dir.path()), "/dev/kvm")];
        assert_refused_where(changes, "none", &["no permission to use /dev/kvm", "kvm group"]);
    });
}

#[test]
fn run_with_another_device_as_kvm_is_refused() {
    in_namespace!(|| {
        let changes = vec![Change::Replace("/dev/null".to_owned(), "/dev/kvm")];
        assert_refused_where(changes, "none", &["KVM"]);
    });
}

#[test]
fn run_without_tun_says_how_to_get_it() {
    in_namespace!(|| {
        for net in ["tap=auto", "tap=lo"] {
            let scene = scene();
            let mut command = scene.command(&["run", "hello", "--net", net]);
            change(&mut command, vec![Change::Empty("/dev/net")]);
            let outcome = finish(&mut command);
            outcome.assert_error(&["/dev/net/tun", "modprobe tun"]);
            scene.assert_clean();
        }
    });
}

#[test]
fn run_without_permission_for_tun_says_so() {
    in_namespace!(|| {
        let dir = tempfile::tempdir().unwrap();
        let changes = vec![Change::Replace(forbidden(dir.path()), "/dev/net/tun")];
        assert_refused_where(changes, "tap=lo", &["/dev/net/tun", "ermission"]);
    });
}

#[test]
fn run_without_the_right_to_make_a_tap_says_what_to_do() {
    in_namespace!(|| {
        const CAP_NET_ADMIN: libc::c_ulong = 12;
        let scene = scene();
        let mut command = scene.command(&["run", "hello", "--net", "tap=auto"]);
        // SAFETY: the closure makes one system call, whose argument goes by value.
        unsafe {
            command.pre_exec(|| match libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            })
        };
        let outcome = finish(&mut command);
        outcome.assert_error(&["ip tuntap add dev tap0", "--net tap=tap0", "unshare -rn"]);
        scene.assert_clean();
    });
}
