//! `--docroot`: the image of a directory is kept, reused as long as nothing changes, and made anew when something does.

use crate::scene;
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;

#[test]
fn image_is_kept_and_made_anew_when_a_file_changes() {
    in_namespace!(|| {
        let (scene, site) = (scene(), Site::new().file("index.html", "first"));
        let page_and_origin = |origin: &str| {
            let docroot = site.path().to_str().unwrap();
            let running = scene.start(&["run", "cheetah", "--net", "tap=auto", "--docroot", docroot]);
            assert!(running.said.contains(origin), "{origin}: {}", running.said);
            let page = Client::connect(running.address()).unwrap().get("/").unwrap().text();
            running.stop();
            page
        };
        assert_eq!(page_and_origin("made in"), "first");
        assert_eq!(page_and_origin("kept from an earlier run"), "first");
        fs::write(site.path().join("index.html"), "second, and longer").unwrap();
        assert_eq!(page_and_origin("made anew"), "second, and longer");
        assert_eq!(page_and_origin("kept from an earlier run"), "second, and longer");
        fs::remove_file(site.path().join("index.html")).unwrap();
        fs::write(site.path().join("other.html"), "x").unwrap();
        assert!(page_and_origin("made anew").contains("404"));
        scene.assert_clean();
    });
}

#[test]
fn signal_ends_a_run_that_waits_for_the_image() {
    let (scene, site) = (scene(), Site::new().file("index.html", "first"));
    let arguments = ["run", "cheetah", "--net", "none", "--docroot", site.path().to_str().unwrap()];
    // It ends because it has no network; the image is there.
    assert_eq!(scene.play(&arguments).status.code(), Some(1));
    let images = scene.cache_dir().join("exovm/images");
    let mut locks = fs::read_dir(images).unwrap().map(|entry| entry.unwrap().path());
    let lock = locks.find(|path| path.extension().is_some_and(|extension| extension == "lock")).unwrap();
    let other_run = fs::File::options().write(true).open(lock).unwrap();
    other_run.lock().unwrap();
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
        let mut child = scene.command(&arguments).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
        assert!(line.contains("waiting for another run"), "{line}");
        // SAFETY: the process is this test's child and has not been waited for.
        assert_eq!(unsafe { libc::kill(child.id() as i32, signal) }, 0);
        let status = crate::machines::wait_for("the end", || child.try_wait().unwrap());
        assert_eq!(status.signal(), Some(signal));
        scene.assert_clean();
    }
}
