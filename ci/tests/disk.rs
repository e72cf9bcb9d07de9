//! Cheetah and its disk: what is read is what was written, however large the disk and however little the memory; and what
//! cannot be read is said, to whoever asked for it, and harms nobody else.

use exovm::backend::disk::Access;
use exovm::machine::End;
use exovm::placement::IoMode;
use exovm_ci::http::Content;
use exovm_ci::site::{Pattern, compare};
use exovm_ci::{Client, Guest, Response, Site, make_image};
use exovm_netns::in_namespace;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const BLOCK_BYTES: usize = 4096;

/// What the guest's cache has counted so far.
fn counted(guest: &Guest, name: &str) -> u64 {
    guest.statistics().value("cache", name).expect("a statistic")
}

/// Waits until the guest has published this value of a statistic.
fn assert_counted(guest: &Guest, layer: &str, name: &str, expected: u64) {
    let start = Instant::now();
    loop {
        let value = guest.statistics().value(layer, name).expect("a statistic");
        if value == expected {
            return;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "{layer} {name}: {value}, not {expected}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A site as an image that can be damaged.
struct Image {
    _scratch: tempfile::TempDir,
    path: PathBuf,
}

impl Image {
    fn of(site: &Site) -> Image {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let path = scratch.path().join("site.img");
        make_image(site.path(), &path);
        Image { _scratch: scratch, path }
    }

    /// The block that holds `bytes`, which are there once.
    fn block_with(&self, bytes: &[u8]) -> usize {
        let image = fs::read(&self.path).unwrap();
        let found: Vec<_> =
            (0..image.len() - bytes.len()).filter(|&at| image[at..].starts_with(bytes)).collect();
        assert_eq!(found.len(), 1, "once in the image");
        found[0] / BLOCK_BYTES
    }

    fn damage(&self, block: usize) {
        let file = OpenOptions::new().read(true).write(true).open(&self.path).unwrap();
        let at = (block * BLOCK_BYTES + 2_000) as u64;
        let mut byte = [0];
        file.read_exact_at(&mut byte, at).unwrap();
        file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
    }

    fn guest(&self) -> Guest {
        Guest::image("cheetah").disk(&self.path, Access::ReadOnly).start()
    }
}

fn status(guest: &Guest, target: &str) -> u16 {
    guest.get(target).status()
}

/// What arrives of a body before the connection ends, whether in order or not.
fn as_much_as_comes(guest: &Guest, target: &str) -> (u64, Vec<u8>) {
    let mut client = guest.connect();
    client.request("GET", target, "").unwrap();
    let promised_bytes = client.response_head().unwrap().content_length().unwrap();
    let mut got = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match client.body().read(&mut buffer) {
            Ok(0) => return (promised_bytes, got),
            Ok(len) => got.extend_from_slice(&buffer[..len]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (promised_bytes, got),
            Err(error) => panic!("{error}"),
        }
    }
}

/// Lets a guest finish, and gives back the lines of its log that begin with `level`.
fn finish(guest: Guest, level: &str) -> Vec<String> {
    let (end, log) = guest.end_with_log();
    assert_eq!(end, End::PowerOff { status: 0 }, "{log:#?}");
    lines(log, level)
}

fn lines(log: Vec<String>, level: &str) -> Vec<String> {
    log.into_iter().filter(|line| line.starts_with(level)).collect()
}

#[test]
fn cold_and_warm_reads_are_the_same_and_only_the_cold_ones_touch_the_disk() {
    in_namespace!(|| {
        let sizes =
            [0, 1, 4095, 4096, 4097, 32_768, 32_769, 65_536, 300_000, 2_093_056, 2_093_057, 5_000_000];
        let mut site = Site::new();
        for size in sizes {
            site = site.pattern_file(&format!("{size}"), size, size);
        }
        for io in [IoMode::Turn, IoMode::Thread, IoMode::Auto] {
            let guest = Guest::image("cheetah").site(&site).io(io).start();
            let mut disk_reads = [0; 2];
            for reads in &mut disk_reads {
                let before = counted(&guest, "reads");
                let mut client = guest.connect();
                for size in sizes {
                    let got = client.get(&format!("/{size}")).unwrap();
                    assert_eq!((got.status(), got.body.len() as u64), (200, size));
                    assert!(got.body == Pattern::bytes(size, size as usize), "{size}");
                }
                *reads = counted(&guest, "reads") - before;
            }
            assert!(disk_reads[0] > 0 && disk_reads[1] == 0, "{io:?}: {disk_reads:?}");
            // Nobody asks for what follows in a large file before it is read.
            assert!(counted(&guest, "read_ahead") > 0);
            guest.stop();
        }
    });
}

#[test]
fn site_larger_than_the_machines_memory_is_crawled_completely() {
    const FILES: u64 = 300;
    const FILE_BYTES: u64 = 700_000;
    in_namespace!(|| {
        let mut site = Site::new();
        for number in 0..FILES {
            site = site.pattern_file(&format!("{number}"), number, FILE_BYTES);
        }
        let guest = Guest::image("cheetah").site(&site).memory_mib(64).io(IoMode::Auto).start();
        let next = AtomicUsize::new(0);
        let crawl = |server: SocketAddr| {
            let mut client = Client::connect(server).unwrap();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed) as u64;
                if number >= 2 * FILES {
                    return;
                }
                let number = number % FILES;
                client.request("GET", &format!("/{number}"), "").unwrap();
                assert_eq!(client.response_head().unwrap().content_length().unwrap(), FILE_BYTES);
                compare(client.body(), Pattern::new(number), FILE_BYTES)
                    .unwrap_or_else(|e| panic!("{number}: {e}"));
            }
        };
        std::thread::scope(|scope| {
            (0..16).for_each(|_| drop(scope.spawn(|| crawl(guest.address()))));
        });
        assert!(counted(&guest, "evictions") > 1_000);
        guest.stop();
    });
}

#[test]
fn corrupt_block_of_a_file_returns_500_for_it_and_all_others_are_served() {
    in_namespace!(|| {
        let bad = Pattern::bytes(1, 20_000);
        let site = Site::new().file("d/bad", &bad).file("d/good", "good").file("index.html", "home");
        let image = Image::of(&site);
        let block = image.block_with(&bad[8_000..8_100]);
        image.damage(block);
        let guest = image.guest();
        let mut client = guest.connect();
        let mut expect = |target: &str, expected: u16| {
            let response: Response = client.get(target).unwrap();
            assert_eq!(response.status(), expected, "{target}");
            response
        };
        for _ in 0..3 {
            // All on one connection, which stays open.
            assert!(expect("/d/bad", 500).text().contains("cannot be read"));
            assert_eq!(expect("/d/good", 200).body, b"good");
            assert_eq!(expect("/", 200).body, b"home");
        }
        // Read, found wrong and thrown out anew each time.
        assert_counted(&guest, "http", "responses_5xx", 3);
        assert_counted(&guest, "http", "files_broken", 3);
        assert_counted(&guest, "cache", "bad_blocks", 3);
        let said = finish(guest, "ERROR");
        assert_eq!(said.len(), 3, "{said:#?}");
        assert!(said[0].contains("/d/bad") && said[0].contains(&format!("block {block} ")), "{}", said[0]);
    });
}

#[test]
fn corrupt_block_far_inside_a_file_shows_as_a_short_body_and_never_as_wrong_bytes() {
    const LEN_BYTES: usize = 6 << 20;
    in_namespace!(|| {
        let bytes = Pattern::bytes(1, LEN_BYTES);
        let image = Image::of(&Site::new().file("large", &bytes).file("good", "good"));
        let at = 4 << 20;
        image.damage(image.block_with(&bytes[at + 200..at + 300]));
        let guest = image.guest();
        for _ in 0..2 {
            let (promised_bytes, got) = as_much_as_comes(&guest, "/large");
            assert_eq!(promised_bytes, LEN_BYTES as u64);
            assert!(got.len() <= at && bytes.starts_with(&got), "{} bytes came", got.len());
            assert_eq!(status(&guest, "/good"), 200);
        }
        assert!(finish(guest, "ERROR")[0].contains("/large"));
    });
}

#[test]
fn corrupt_directory_block_returns_500_for_what_is_in_it() {
    in_namespace!(|| {
        let site =
            Site::new().file("d/name-in-the-directory", "x").file("e/other", "y").file("index.html", "home");
        let image = Image::of(&site);
        image.damage(image.block_with(b"name-in-the-directory"));
        let guest = image.guest();
        for target in ["/d/name-in-the-directory", "/d/nothing", "/d/"] {
            assert_eq!(status(&guest, target), 500, "{target}");
        }
        assert_eq!((status(&guest, "/e/other"), status(&guest, "/"), status(&guest, "/d")), (200, 200, 301));
        assert!(finish(guest, "ERROR")[0].contains("directory block"));
    });
}

#[test]
fn disk_cut_off_under_a_running_server_fails_what_lies_behind_and_nothing_else() {
    const FILES: usize = 40;
    const FILE_BYTES: usize = 200_000;
    in_namespace!(|| {
        let mut site = Site::new().file("warm", "warm");
        for number in 0..FILES {
            site = site.pattern_file(&format!("{number:03}"), number as u64, FILE_BYTES as u64);
        }
        let image = Image::of(&site);
        let guest = image.guest();
        assert_eq!(status(&guest, "/warm"), 200);
        let whole = fs::read(&image.path).unwrap();
        let file = OpenOptions::new().write(true).open(&image.path).unwrap();
        file.set_len(whole.len() as u64 / 2).unwrap();
        let (mut served, mut failed) = (0, 0);
        for number in 0..FILES {
            let mut client = guest.connect();
            client.request("GET", &format!("/{number:03}"), "").unwrap();
            let head = client.response_head().unwrap();
            let mut body = vec![0; head.content_length().unwrap() as usize];
            match (head.status, client.body().read_exact(&mut body)) {
                (200, Ok(())) => {
                    assert!(body == Pattern::bytes(number as u64, FILE_BYTES));
                    served += 1;
                }
                (200 | 500, _) => failed += 1,
                (other, _) => panic!("{other}"),
            }
            assert_eq!(guest.get("/warm").body, b"warm");
        }
        assert!(served >= FILES / 3 && failed >= FILES / 3, "{served} served, {failed} failed");
        // The failures are not remembered: what comes back is served.
        file.write_all_at(&whole, 0).unwrap();
        assert!(guest.get("/039").body == Pattern::bytes(39, FILE_BYTES));
        assert!(!finish(guest, "ERROR").is_empty());
    });
}

#[test]
fn many_connections_on_a_cold_file_share_its_reads() {
    const CONNECTIONS: usize = 64;
    const LEN_BYTES: usize = 8 << 20;
    in_namespace!(|| {
        let site = Site::new().pattern_file("large", 1, LEN_BYTES as u64);
        let guest = Guest::image("cheetah").site(&site).io(IoMode::Auto).start();
        let before = counted(&guest, "read");
        let mut clients: Vec<_> = (0..CONNECTIONS).map(|_| guest.connect()).collect();
        for client in &mut clients {
            client.request("GET", "/large", "").unwrap();
        }
        std::thread::scope(|scope| {
            for mut client in clients {
                scope.spawn(move || {
                    let body = client.response(Content::Follows).unwrap().body;
                    assert!(body == Pattern::bytes(1, LEN_BYTES));
                });
            }
        });
        let read_bytes = (counted(&guest, "read") - before) as usize;
        // The file with its checksums and its directory, in whole frames.
        assert!((LEN_BYTES..LEN_BYTES + (1 << 20)).contains(&read_bytes), "{read_bytes}");
        guest.stop();
    });
}

#[test]
fn machine_without_a_disk_ends_with_a_line_that_says_what_to_do() {
    in_namespace!(|| {
        let (end, log) = Guest::image("cheetah").launch().wait();
        assert_eq!(end, End::PowerOff { status: 1 });
        assert!(lines(log, "ERROR")[0].contains("--docroot"));
    });
}

#[test]
fn disk_that_is_no_volume_ends_the_machine_with_a_line() {
    in_namespace!(|| {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("noise.img");
        fs::write(&path, Pattern::bytes(1, 1 << 20)).unwrap();
        let (end, log) = Guest::image("cheetah").disk(&path, Access::ReadOnly).launch().wait();
        assert_eq!(end, End::PowerOff { status: 1 });
        assert!(lines(log, "ERROR")[0].contains("no exos file system"));
    });
}

#[test]
fn damaged_superblock_is_made_up_for_by_its_backup_and_damage_to_both_ends_the_machine() {
    in_namespace!(|| {
        let image = Image::of(&Site::new().file("index.html", "home"));
        image.damage(0);
        let guest = image.guest();
        assert_eq!(guest.get("/").body, b"home");
        assert!(finish(guest, "WARN")[0].contains("backup"));
        let blocks = fs::metadata(&image.path).unwrap().len() as usize / BLOCK_BYTES;
        image.damage(blocks - 1);
        let (end, log) = Guest::image("cheetah").disk(&image.path, Access::ReadOnly).launch().wait();
        assert_eq!(end, End::PowerOff { status: 1 });
        assert!(lines(log, "ERROR")[0].contains("block 0 is damaged"));
    });
}

#[test]
fn counters_are_served_live() {
    in_namespace!(|| {
        let guest = Guest::serving(&Site::new().file("index.html", "home"));
        let counter = |name: &str| {
            let response = guest.get("/.exovm/counters.json");
            assert_eq!((response.status(), response.head.field("Cache-Control")), (200, Some("no-store")));
            let text = response.text();
            let (_, behind) =
                text.split_once(&format!("\"{name}\":")).unwrap_or_else(|| panic!("{name} in {text}"));
            behind[..behind.find([',', '}']).unwrap()].parse::<u64>().unwrap()
        };
        let before = counter("requests");
        (0..5).for_each(|_| assert_eq!(status(&guest, "/"), 200));
        assert_eq!(counter("requests"), before + 6);
        assert!(counter("connections") >= 1, "its own");
        assert!(counter("uptime_ms") < 60_000 && counter("body_bytes") > 20);
        assert!(counter("cache_bytes_read") > 0);
        guest.stop();
    });
}
