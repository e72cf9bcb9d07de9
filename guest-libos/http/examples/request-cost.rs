//! Prints what requests cost, in nanoseconds each, from received bytes to references to header and file:
//! `cargo run --release -p exos-http --example request-cost`.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use exos_http::{Begin, File, Files, HttpConnection, Lookup, Response, Responses, Site};

/// Files that are names only.
struct Names(HashMap<Vec<u8>, Name>);

#[derive(Clone, Copy)]
struct Name(u64);

impl File for Name {
    fn number(&self) -> u64 {
        self.0
    }

    fn size_bytes(&self) -> u64 {
        64
    }

    fn mtime_unix_seconds(&self) -> u64 {
        0
    }

    fn media_type(&self) -> &[u8] {
        b"text/html; charset=utf-8"
    }
}

impl Files for Names {
    type File = Name;

    fn lookup(&mut self, path: &[u8]) -> Lookup<Name> {
        self.0.get(path).map_or(Lookup::NotFound, |name| Lookup::File(*name))
    }

    fn begin(&mut self, _: &Name) -> Begin {
        Begin::Ready
    }
}

/// A transport that forgets what it is given.
struct Forget;

impl Responses<Names> for Forget {
    fn room(&self) -> usize {
        usize::MAX
    }

    fn push(&mut self, response: Response<Name>, _: &mut Names) {
        black_box(response);
    }
}

/// The best of several rounds: what disturbs a round only makes it slower.
fn best_ns_per_request(
    site: &mut Site<Names>,
    input: &[u8],
    requests_per_input: usize,
    second_every: u64,
) -> f64 {
    const ROUNDS: usize = 20;
    const INPUTS: u64 = 20_000;
    let mut connection = HttpConnection::new();
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for number in 0..INPUTS {
            let now_unix_seconds = 1_750_000_000 + number / second_every;
            let consumed = connection.input(black_box(input), site, now_unix_seconds, &mut Forget);
            assert_eq!(consumed.bytes, input.len());
        }
        best = best.min(start.elapsed().as_nanos() as f64 / (INPUTS * requests_per_input as u64) as f64);
    }
    best
}

fn main() {
    let paths =
        ["/x".into(), "/index.html".into()].into_iter().chain((0..10_000).map(|n| format!("/{n}.html")));
    let names = paths.enumerate().map(|(number, path): (_, String)| (path.into_bytes(), Name(number as u64)));
    let mut site = Site::new(Names(names.collect()));

    let wrk = b"GET /x HTTP/1.1\r\nHost: 10.0.0.2:8080\r\n\r\n";
    let browser = b"GET /index.html HTTP/1.1\r\nHost: 10.0.0.2:8080\r\n\
        User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\n\
        Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\n\
        Accept-Language: en-US,en;q=0.5\r\nAccept-Encoding: gzip, deflate\r\nConnection: keep-alive\r\n\
        Upgrade-Insecure-Requests: 1\r\nPriority: u=0, i\r\n\r\n";
    let conditional = b"GET /x HTTP/1.1\r\nHost: 10.0.0.2:8080\r\n\
        If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n";
    let crawl: Vec<u8> = (0..10_000)
        .flat_map(|number| {
            format!("GET /{}.html HTTP/1.1\r\nHost: h\r\n\r\n", number * 7919 % 10_000).into_bytes()
        })
        .collect();
    let mut print = |name, input: &[u8], requests, second_every| {
        let ns = best_ns_per_request(&mut site, input, requests, second_every);
        println!("{ns:8.1} ns  {name}");
    };
    print("wrk: GET /x with Host", wrk, 1, u64::MAX);
    print("the same, a new second for each", wrk, 1, 1);
    print("the same, 16 pipelined", &wrk.repeat(16), 16, u64::MAX);
    print("browser with 8 fields, 406 bytes", browser, 1, u64::MAX);
    print("conditional, 304", conditional, 1, u64::MAX);
    print("not found", b"GET /nothing HTTP/1.1\r\nHost: h\r\n\r\n", 1, u64::MAX);
    print("path to rewrite", b"GET /%78 HTTP/1.1\r\nHost: h\r\n\r\n", 1, u64::MAX);
    print("POST, refused", b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello", 1, u64::MAX);
    // Fewer rounds would do; the input is 350 kB long.
    let start = Instant::now();
    let rounds = 100;
    let mut connection = HttpConnection::new();
    for _ in 0..rounds {
        connection.input(black_box(&crawl), &mut site, 1_750_000_000, &mut Forget);
    }
    let ns = start.elapsed().as_nanos() as f64 / f64::from(rounds * 10_000);
    println!("{ns:8.1} ns  10,000 files in turn (more than there are prepared headers)");
}
