//! Request targets: what a client may try to leave the document root, and names that are merely unusual.

use exovm_ci::http::{Content, request};
use exovm_ci::{Guest, Site, corpus};
use exovm_netns::in_namespace;
use std::path::Path;

const SECRET: &str = "nobody may read this";

fn site() -> Site {
    Site::new()
        .file("index.html", "home")
        .file("dir/file.txt", "inside")
        .file("dir/secret.txt", "another file of that name")
        .file_outside("secret.txt", SECRET)
        .file_outside("site2/index.html", SECRET)
}

#[test]
fn target_that_leads_out_of_the_docroot_finds_nothing() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        for target in [
            "/../secret.txt",
            "/../../../../../../../../etc/passwd",
            "/dir/../../secret.txt",
            "/./../secret.txt",
            "//../secret.txt",
            "/dir//..//../secret.txt",
            "/%2e%2e/secret.txt",
            "/%2E%2E/secret.txt",
            "/.%2e/secret.txt",
            "/dir/%2e%2e/%2e%2e/secret.txt",
            "/..%2fsecret.txt",
            "/%2e%2e%2fsecret.txt",
            "/..%5csecret.txt",
            "/%252e%252e/secret.txt",
            "/%252e%252e%252fsecret.txt",
            "/..;/secret.txt",
            "/.../secret.txt",
            "/../site2/",
            "/../site2/index.html",
            "/%c0%ae%c0%ae/secret.txt",
            "/%00",
            "/index.html%00",
            "/index.html%00.txt",
            "/dir%00/../../secret.txt",
            "/%2e%2e%00/secret.txt",
            "http://guest/../secret.txt",
            "http://guest/%2e%2e/secret.txt",
            "http://guest/dir/../../secret.txt",
            "http://guest/%00",
            "file:///etc/passwd",
            "file:///../secret.txt",
            "../secret.txt",
            "secret.txt",
            "..",
            "\\..\\secret.txt",
            "/\\../secret.txt",
            "*",
            "/%",
            "/%2",
            "/%zz",
        ] {
            for method in ["GET", "HEAD"] {
                let mut client = guest.connect();
                client.request(method, target, "").unwrap();
                let content = if method == "HEAD" { Content::Withheld } else { Content::Follows };
                let response = client.response(content);
                let response = response.unwrap_or_else(|error| panic!("{method} {target}: {error}"));
                let status = response.status();
                assert!(matches!(status, 400 | 404), "{method} {target} is answered with {status}");
                assert!(!response.text().contains(SECRET), "{target}");
            }
        }
        guest.stop();
    });
}

#[test]
fn absolute_uri_names_the_same_files_as_its_path() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        for (target, body) in [
            ("http://guest/", "home"),
            ("http://guest", "home"),
            ("http://elsewhere.example:8080/dir/file.txt", "inside"),
            ("HTTP://guest/dir/file.txt?query", "inside"),
        ] {
            let response = client.get(target).unwrap();
            assert_eq!((response.status(), response.text().as_str()), (200, body), "{target}");
        }
        guest.stop();
    });
}

#[test]
fn dots_that_stay_inside_are_resolved() {
    in_namespace!(|| {
        let guest = Guest::serving(&site());
        let mut client = guest.connect();
        for (target, body) in [
            ("/dir/../index.html", "home"),
            ("/dir/../dir/./file.txt", "inside"),
            ("/dir/%2e%2e/dir/file.txt", "inside"),
            ("/%64ir/fil%65.txt", "inside"),
            ("//dir//file.txt", "inside"),
            ("/nowhere/../dir/file.txt", "inside"),
            ("/dir/..", "home"),
            ("/.", "home"),
        ] {
            let response = client.get(target).unwrap();
            assert_eq!((response.status(), response.text().as_str()), (200, body), "{target}");
        }
        guest.stop();
    });
}

#[test]
fn unusual_names_are_served() {
    in_namespace!(|| {
        let names = [
            "with space.txt",
            "ünïcödé/größe.txt",
            "日本語/ファイル.html",
            "emoji ☃ 🦀.txt",
            "percent%20literally.txt",
            "question?mark.txt",
            "hash#sign.txt",
            "plus+and&and=.txt",
            "quote'\"double.txt",
            "semi;colon,comma.txt",
            "back\\slash.txt",
            "new\nline.txt",
            "...",
            "..almost",
            ".hidden",
            "dir with space/..dots../file",
            "no extension",
            "UPPER.HTML",
        ];
        let mut site = Site::new();
        for name in names {
            site = site.file(name, name);
        }
        let latin1 = std::os::unix::ffi::OsStrExt::from_bytes(b"latin1-\xE4\xFF.txt");
        let latin1: &std::ffi::OsStr = latin1;
        std::fs::write(site.path().join(latin1), "latin1").unwrap();

        let guest = Guest::serving(&site);
        let mut client = guest.connect();
        for name in names {
            let target = corpus::target_of(Path::new(name));
            let response = client.get(&target).unwrap();
            assert_eq!((response.status(), response.text().as_str()), (200, name), "{target}");
        }
        assert_eq!(client.get(&corpus::target_of(Path::new(latin1))).unwrap().text(), "latin1");
        assert_eq!(client.get("/no+extension").unwrap().status(), 404, "a plus is no space in a path");
        assert_eq!(client.get("/upper.html").unwrap().status(), 404, "names know case");
        guest.stop();
    });
}

#[test]
fn bytes_that_must_be_encoded_are_refused_raw() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().file("ü b.txt", "x"));
        for target in ["/ü b.txt", "/%C3%BC b.txt", "/a\u{1}b", "/a\tb", "/a\u{7F}b", "/a\"b", "/a<b>"] {
            let mut client = guest.connect();
            client.send(request("GET", target, "").as_bytes()).unwrap();
            let status = client.response(Content::Follows).unwrap().status();
            assert!(matches!(status, 400 | 404), "{target:?} is answered with {status}");
        }
        // Bytes beyond ASCII are no part of a URI either, but they are what many clients send, and they are unambiguous.
        for target in ["/%C3%BC%20b.txt", "/ü%20b.txt"] {
            assert_eq!(guest.get(target).text(), "x", "{target}");
        }
        guest.stop();
    });
}

#[test]
fn deep_and_long_paths_are_served() {
    in_namespace!(|| {
        // As deep as one can go with names of one letter, and names as long as the file system takes.
        let deep = format!("{}file.txt", "d/".repeat(500));
        let long_name = "n".repeat(250);
        let long = format!("{long_name}/{long_name}/{long_name}/{long_name}.txt");
        let site = Site::new().file(&deep, "deep").file(&long, "long");
        let guest = Guest::serving(&site);
        let mut client = guest.connect();
        assert_eq!(client.get(&format!("/{deep}")).unwrap().text(), "deep");
        assert_eq!(client.get(&format!("/{long}")).unwrap().text(), "long");
        assert_eq!(client.get(&format!("/{}", "d/".repeat(501))).unwrap().status(), 404);
        // Up again, step by step, and one step too far.
        let up = format!("/{}{}", "d/".repeat(500), "../".repeat(500));
        assert_eq!(client.get(&format!("{up}{deep}")).unwrap().text(), "deep");
        assert_eq!(guest.get(&format!("{up}../{deep}")).status(), 400);
        guest.stop();
    });
}

#[test]
fn symbolic_links_are_followed_and_loops_left_out() {
    in_namespace!(|| {
        let site = Site::new()
            .file("real/file.txt", "real")
            .link("link.txt", "real/file.txt")
            .link("linked", "real")
            .link("chain", "linked")
            .link("self", "self")
            .link("a", "b")
            .link("b", "a")
            .link("real/up", "..")
            .link("real/here", ".")
            .link("dangling", "nowhere");
        let guest = Guest::serving(&site);
        let mut client = guest.connect();
        for target in ["/real/file.txt", "/link.txt", "/linked/file.txt", "/chain/file.txt"] {
            let response = client.get(target).unwrap();
            assert_eq!((response.status(), response.text().as_str()), (200, "real"), "{target}");
        }
        for target in ["/self", "/a", "/b", "/dangling", "/real/up/real/file.txt", "/real/here/file.txt"] {
            assert_eq!(client.get(target).unwrap().status(), 404, "{target}");
        }
        guest.stop();
    });
}
