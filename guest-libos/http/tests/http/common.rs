//! A site to ask, and a transport that keeps what it is given.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use exos_docroot::Archive;
use exos_docroot::pack::Plan;
use exos_http::{HttpConnection, Next, Response, Responses, Site, Stage, Then};

/// Sun, 06 Nov 1994 08:49:37 GMT: when all files of the site were modified.
pub(crate) const MODIFIED: u64 = 784_111_777;
/// Sun, 15 Jun 2025 15:06:40 GMT
pub(crate) const NOW: u64 = 1_750_000_000;

/// The files of the site, with their content.
pub(crate) const FILES: &[(&str, &[u8])] = &[
    ("index.html", b"<p>root</p>"),
    ("hello.txt", b"hello\n"),
    ("empty.css", b""),
    ("a b.txt", b"space"),
    ("\u{fc}.txt", b"umlaut"),
    ("back\\slash", b"backslash"),
    (".hidden", b"hidden"),
    ("docs/index.html", b"<p>docs</p>"),
    ("docs/deep/page.html", b"<p>deep</p>"),
    ("d \u{e4}/index.html", b"encoded"),
    ("bare/file", b"x"),
];

/// A site with [`FILES`].
pub(crate) fn site() -> Site {
    let directory = tempfile::tempdir().unwrap();
    for (name, content) in FILES {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, content).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_secs(MODIFIED)).unwrap();
    }
    site_of(directory.path())
}

/// A site with the files below a directory.
pub(crate) fn site_of(directory: &std::path::Path) -> Site {
    let mut memory = Vec::new();
    Plan::scan(directory).unwrap().write_to(&mut memory).unwrap();
    Site::new(Archive::parse(memory.leak()).unwrap())
}

/// Keeps responses, as many as it has room for.
pub(crate) struct Kept {
    pub(crate) responses: Vec<Response>,
    pub(crate) room: usize,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept { responses: Vec::new(), room: usize::MAX }
    }
}

impl Responses for Kept {
    fn room(&self) -> usize {
        self.room - self.responses.len()
    }

    fn push(&mut self, response: Response) {
        assert!(self.room() > 0, "pushed without room");
        assert!(
            self.responses.last().is_none_or(|last| last.then == Then::KeepAlive),
            "pushed behind the last"
        );
        self.responses.push(response);
    }
}

/// What came of a stretch of input: all bytes that would be sent, and where the connection is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) sent: Vec<u8>,
    pub(crate) statuses: Vec<u16>,
    pub(crate) stage: Stage,
}

/// A connection with its receive buffer.
pub(crate) struct Client<'a> {
    pub(crate) connection: HttpConnection,
    pub(crate) site: &'a mut Site,
    pub(crate) kept: Kept,
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(site: &'a mut Site) -> Client<'a> {
        Client { connection: HttpConnection::new(), site, kept: Kept::default(), buffer: Vec::new() }
    }

    /// Receives a segment, as a transport would: behind what the input before left.
    pub(crate) fn receive(&mut self, segment: &[u8]) -> Next {
        self.buffer.extend_from_slice(segment);
        let consumed = self.connection.input(&self.buffer, self.site, NOW, &mut self.kept);
        self.buffer.drain(..consumed.bytes);
        assert!(self.buffer.len() < exos_http::MAX_HEAD_BYTES || consumed.next == Next::Room);
        consumed.next
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            sent: self
                .kept
                .responses
                .iter()
                .flat_map(|response| [response.header.bytes(), response.body.bytes()].concat())
                .collect(),
            statuses: self.kept.responses.iter().map(|response| response.status.code()).collect(),
            stage: self.connection.stage(),
        }
    }
}

/// The outcome of one segment on a new connection.
pub(crate) fn ask(site: &mut Site, bytes: &[u8]) -> Outcome {
    let mut client = Client::new(site);
    client.receive(bytes);
    client.outcome()
}

/// The only response to a request, with its header's fields by name.
pub(crate) fn ask_one(site: &mut Site, bytes: &[u8], now: u64) -> (Response, BTreeMap<String, String>) {
    let mut kept = Kept::default();
    HttpConnection::new().input(bytes, site, now, &mut kept);
    assert_eq!(kept.responses.len(), 1, "{}", bytes.escape_ascii());
    let response = kept.responses.remove(0);
    let fields = fields(&response);
    (response, fields)
}

/// The fields of a header; checks its form as it goes.
pub(crate) fn fields(response: &Response) -> BTreeMap<String, String> {
    let header = std::str::from_utf8(response.header.bytes()).unwrap();
    let (line, fields) = header.strip_suffix("\r\n\r\n").unwrap().split_once("\r\n").unwrap();
    assert!(line.starts_with(&format!("HTTP/1.1 {} ", response.status.code())), "{line}");
    let mut map = BTreeMap::new();
    for field in fields.split("\r\n") {
        let (name, value) = field.split_once(": ").unwrap();
        assert!(map.insert(name.to_string(), value.to_string()).is_none(), "{name} twice");
    }
    map
}

/// Each request on a connection of its own, the statuses that it gets, and where the connection is after it.
pub(crate) fn assert_table(cases: &[(&[u8], &[u16], Stage)]) {
    let mut site = site();
    for (request, statuses, stage) in cases {
        let outcome = ask(&mut site, request);
        let shown = request[..request.len().min(300)].escape_ascii();
        assert_eq!((&outcome.statuses[..], outcome.stage), (*statuses, *stage), "{shown}");
    }
}

/// Each of the requests gets this status and the connection stays open.
pub(crate) fn assert_open(status: u16, requests: &[&str]) {
    for request in requests {
        assert_table(&[(request.as_bytes(), &[status], Stage::Idle)]);
    }
}

/// Each of the requests gets this status, once, and the connection closes, whatever follows.
pub(crate) fn assert_closed<R: AsRef<[u8]>>(status: u16, requests: &[R]) {
    for request in requests {
        let with_another = [request.as_ref(), b"GET /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        assert_table(&[
            (request.as_ref(), &[status], Stage::Closing),
            (&with_another, &[status], Stage::Closing),
        ]);
    }
}
