//! A site to ask, and a transport that keeps what it is given.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use exos_http::{
    Begin, Content, File, Files, HttpConnection, Lookup, Next, Response, Responses, Site, Stage, Then, Ticket,
};

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

/// Files in memory, that can make those who ask wait at any moment.
#[derive(Default)]
pub(crate) struct Memory {
    files: BTreeMap<Vec<u8>, MemoryFile>,
    directories: BTreeSet<Vec<u8>>,
    /// Paths whose directory, and files whose content, cannot be read.
    pub(crate) broken_paths: BTreeSet<Vec<u8>>,
    pub(crate) broken_contents: BTreeSet<Vec<u8>>,
    /// What the next questions are answered with: `true` says to wait. Without any, nobody has to.
    pub(crate) waits: VecDeque<bool>,
    tickets: u64,
    /// Questions about content.
    pub(crate) begun: usize,
}

/// A file of [`Memory`].
#[derive(Clone, Debug)]
pub(crate) struct MemoryFile(Rc<MemoryFileState>);

#[derive(Debug)]
struct MemoryFileState {
    number: u64,
    path: Vec<u8>,
    mtime: u64,
    content: Vec<u8>,
}

impl MemoryFile {
    pub(crate) fn content(&self) -> &[u8] {
        &self.0.content
    }
}

impl File for MemoryFile {
    fn number(&self) -> u64 {
        self.0.number
    }

    fn size_bytes(&self) -> u64 {
        self.0.content.len() as u64
    }

    fn mtime_unix_seconds(&self) -> u64 {
        self.0.mtime
    }

    fn media_type(&self) -> &[u8] {
        if self.0.path.ends_with(b".html") {
            b"text/html; charset=utf-8"
        } else {
            b"text/plain; charset=utf-8"
        }
    }
}

impl Memory {
    pub(crate) fn insert(&mut self, path: &str, mtime: u64, content: &[u8]) {
        let path = path.as_bytes().to_vec();
        for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            self.directories.insert(path[..at].to_vec());
        }
        let number = self.files.len() as u64;
        let state = MemoryFileState { number, path: path.clone(), mtime, content: content.to_vec() };
        self.files.insert(path, MemoryFile(Rc::new(state)));
    }

    fn wait(&mut self) -> Option<Ticket> {
        self.waits.pop_front().filter(|wait| *wait)?;
        self.tickets += 1;
        Some(Ticket(self.tickets))
    }
}

impl Files for Memory {
    type File = MemoryFile;

    fn lookup(&mut self, path: &[u8]) -> Lookup<MemoryFile> {
        assert!(path.starts_with(b"/") && !path.windows(2).any(|pair| pair == b"//"), "not normalised");
        if let Some(ticket) = self.wait() {
            return Lookup::Pending(ticket);
        }
        if self.broken_paths.contains(path) {
            return Lookup::Broken;
        }
        if path == b"/generated" {
            return Lookup::Generated { media_type: b"application/json", content: b"{}"[..].into() };
        }
        let relative = &path[1..];
        if let Some(file) = self.files.get(relative) {
            return Lookup::File(file.clone());
        }
        let directory = relative.strip_suffix(b"/").unwrap_or(relative);
        if !directory.is_empty() && !self.directories.contains(directory) {
            return Lookup::NotFound;
        }
        let index =
            if directory.is_empty() { b"index.html".to_vec() } else { [directory, b"/index.html"].concat() };
        Lookup::Directory { index: self.files.get(&index).cloned() }
    }

    fn begin(&mut self, file: &MemoryFile) -> Begin {
        self.begun += 1;
        if let Some(ticket) = self.wait() {
            return Begin::Pending(ticket);
        }
        if self.broken_contents.contains(&file.0.path) { Begin::Broken } else { Begin::Ready }
    }
}

/// A site with [`FILES`].
pub(crate) fn site() -> Site<Memory> {
    site_of(FILES.iter().map(|(path, content)| (*path, MODIFIED, *content)))
}

/// A site with these files: path, time and content.
pub(crate) fn site_of<'f>(files: impl IntoIterator<Item = (&'f str, u64, &'f [u8])>) -> Site<Memory> {
    let mut memory = Memory::default();
    for (path, mtime, content) in files {
        memory.insert(path, mtime, content);
    }
    Site::new(memory)
}

/// A response as it was pushed.
pub(crate) type Answer = Response<MemoryFile>;

/// The bytes of a body.
pub(crate) fn body(response: &Answer) -> &[u8] {
    match &response.body {
        Content::Piece(piece) => piece.bytes(),
        Content::File(file) => file.content(),
    }
}

/// Keeps responses, as many as it has room for.
pub(crate) struct Kept {
    pub(crate) responses: Vec<Answer>,
    pub(crate) room: usize,
}

impl Default for Kept {
    fn default() -> Kept {
        Kept { responses: Vec::new(), room: usize::MAX }
    }
}

impl Responses<Memory> for Kept {
    fn room(&self) -> usize {
        self.room - self.responses.len()
    }

    fn push(&mut self, response: Answer, _: &mut Memory) {
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
    pub(crate) connection: HttpConnection<MemoryFile>,
    pub(crate) site: &'a mut Site<Memory>,
    pub(crate) kept: Kept,
    buffer: Vec<u8>,
}

impl<'a> Client<'a> {
    pub(crate) fn new(site: &'a mut Site<Memory>) -> Client<'a> {
        Client { connection: HttpConnection::new(), site, kept: Kept::default(), buffer: Vec::new() }
    }

    /// Receives a segment, as a transport would: behind what the input before left.
    pub(crate) fn receive(&mut self, segment: &[u8]) -> Next {
        self.buffer.extend_from_slice(segment);
        let consumed = self.connection.input(&self.buffer, self.site, NOW, &mut self.kept);
        self.buffer.drain(..consumed.bytes);
        assert!(self.buffer.len() < exos_http::MAX_HEAD_BYTES || consumed.next != Next::Input);
        consumed.next
    }

    pub(crate) fn outcome(&self) -> Outcome {
        Outcome {
            sent: self
                .kept
                .responses
                .iter()
                .flat_map(|response| [response.header.bytes(), body(response)].concat())
                .collect(),
            statuses: self.kept.responses.iter().map(|response| response.status.code()).collect(),
            stage: self.connection.stage(),
        }
    }
}

/// The outcome of one segment on a new connection.
pub(crate) fn ask(site: &mut Site<Memory>, bytes: &[u8]) -> Outcome {
    let mut client = Client::new(site);
    client.receive(bytes);
    client.outcome()
}

/// The only response to a request, with its header's fields by name.
pub(crate) fn ask_one(site: &mut Site<Memory>, bytes: &[u8], now: u64) -> (Answer, BTreeMap<String, String>) {
    let mut kept = Kept::default();
    HttpConnection::new().input(bytes, site, now, &mut kept);
    assert_eq!(kept.responses.len(), 1, "{}", bytes.escape_ascii());
    let response = kept.responses.remove(0);
    let fields = fields(&response);
    (response, fields)
}

/// The fields of a header; checks its form as it goes.
pub(crate) fn fields(response: &Answer) -> BTreeMap<String, String> {
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
