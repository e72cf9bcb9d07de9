//! `--docroot`: the image of a directory is kept, reused as long as nothing changes, and made anew when something does.

use crate::scene;
use exovm_ci::{Client, Site};
use exovm_netns::in_namespace;
use std::fs;

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
