//! A small HTTP/1.1 client over `std::net::TcpStream`: enough to say what a server did, strict in what it accepts.

use std::io::{self, BufRead, BufReader, Error, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long a client waits for anything, unless told otherwise. Long, for hosts that are emulated.
const PATIENCE: Duration = Duration::from_secs(20);
/// A header is never longer.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Status line and fields of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Names, as they came, and values.
    pub fields: Vec<(String, String)>,
}

impl Head {
    /// The value of the one field with this name, in any case.
    ///
    /// # Panics
    /// If there are several.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut found = self.fields.iter().filter(|(have, _)| have.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "the field {name} is there more than once: {self:?}");
        value
    }

    /// Content-Length, which every response of ours has.
    pub fn content_length(&self) -> io::Result<u64> {
        let value = self.field("content-length");
        value
            .and_then(|value| value.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("no usable Content-Length: {self:?}")))
    }

    /// Whether the server will close the connection.
    pub fn closes(&self) -> bool {
        self.field("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

/// A whole response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status line and fields.
    pub head: Head,
    /// The content.
    pub body: Vec<u8>,
}

impl Response {
    /// The status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// The content as text, for messages and comparisons.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// It has this status.
    pub fn assert_status(&self, status: u16) -> &Self {
        assert_eq!(self.status(), status, "{:?} {}", self.head, self.text());
        self
    }

    /// It has this field once, with this value.
    pub fn assert_field(&self, name: &str, value: &str) -> &Self {
        assert_eq!(self.head.field(name), Some(value), "the field {name}: {:?}", self.head);
        self
    }

    /// Its content is this text.
    pub fn assert_text(&self, text: &str) -> &Self {
        assert_eq!(self.text(), text, "{:?}", self.head);
        self
    }
}

/// Whether a response has content: one to HEAD has none, whatever its length says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content {
    /// As after GET.
    Follows,
    /// As after HEAD.
    Withheld,
}

/// One connection.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<TcpStream>,
}

impl Client {
    /// Connects.
    pub fn connect(server: impl Into<SocketAddr>) -> io::Result<Self> {
        Self::connect_within(server, PATIENCE)
    }

    /// Connects; no step, now or later, may take longer than `patience`.
    pub fn connect_within(server: impl Into<SocketAddr>, patience: Duration) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&server.into(), patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream: BufReader::with_capacity(64 << 10, stream) })
    }

    /// The socket.
    pub fn socket(&self) -> &TcpStream {
        self.stream.get_ref()
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.get_mut().write_all(bytes)
    }

    /// Sends a request without content. `fields` are whole lines, each with its CRLF.
    pub fn request(&mut self, method: &str, target: &str, fields: &str) -> io::Result<()> {
        self.send(request(method, target, fields).as_bytes())
    }

    /// GET, with keep-alive.
    pub fn get(&mut self, target: &str) -> io::Result<Response> {
        self.get_with(target, "")
    }

    /// GET with further fields.
    pub fn get_with(&mut self, target: &str, fields: &str) -> io::Result<Response> {
        self.request("GET", target, fields)?;
        self.response(Content::Follows)
    }

    /// HEAD.
    pub fn head(&mut self, target: &str) -> io::Result<Response> {
        self.request("HEAD", target, "")?;
        self.response(Content::Withheld)
    }

    /// Reads a whole response.
    pub fn response(&mut self, content: Content) -> io::Result<Response> {
        let head = self.response_head()?;
        let has_body = content == Content::Follows && head.status != 304;
        let len = if has_body { head.content_length()? } else { 0 };
        let mut body = vec![0; usize::try_from(len).map_err(Error::other)?];
        self.stream.read_exact(&mut body)?;
        Ok(Response { head, body })
    }

    /// Reads status line and fields; the content can then be read from [`Self::body`].
    pub fn response_head(&mut self) -> io::Result<Head> {
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok())
            .ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("not a status line: {line:?}")))?;
        let mut head = Head { status, fields: Vec::new() };
        let mut bytes = line.len();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(head);
            }
            bytes += line.len();
            let (name, value) = line
                .split_once(": ")
                .filter(|_| bytes < HEAD_BYTES_MAX)
                .ok_or_else(|| Error::new(ErrorKind::InvalidData, format!("not a field: {line:?}")))?;
            head.fields.push((name.to_owned(), value.to_owned()));
        }
    }

    /// What comes next on the connection, as bytes.
    pub fn body(&mut self) -> &mut impl Read {
        &mut self.stream
    }

    /// Whether the server has closed in order, with nothing more to read.
    pub fn is_at_end(&mut self) -> io::Result<bool> {
        Ok(self.stream.fill_buf()?.is_empty())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut bytes = Vec::new();
        (&mut self.stream).take(HEAD_BYTES_MAX as u64).read_until(b'\n', &mut bytes)?;
        match bytes.strip_suffix(b"\r\n") {
            Some(line) => String::from_utf8(line.to_vec()).map_err(Error::other),
            None if bytes.is_empty() => {
                Err(Error::new(ErrorKind::UnexpectedEof, "the server closed instead of answering"))
            }
            None => Err(Error::new(
                ErrorKind::InvalidData,
                format!("a line without CRLF: {:?}", bytes.escape_ascii().to_string()),
            )),
        }
    }
}

/// A request without content, as bytes.
pub fn request(method: &str, target: &str, fields: &str) -> String {
    format!("{method} {target} HTTP/1.1\r\nHost: guest\r\n{fields}\r\n")
}

/// Sends `bytes` on a connection of its own and reads until the server closes or `patience` passes without anything.
pub fn exchange(server: impl Into<SocketAddr>, bytes: &[u8], patience: Duration) -> io::Result<Vec<u8>> {
    let mut client = Client::connect_within(server, patience)?;
    client.send(bytes)?;
    let mut answer = Vec::new();
    match client.stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(answer),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// Answers one connection with `answer` and closes.
    fn server(answer: &'static [u8]) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer).unwrap();
        });
        address
    }

    #[test]
    fn get_reads_status_fields_and_body() {
        let mut client =
            Client::connect(server(b"HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\nConnection: close\r\n\r\nabc"))
                .unwrap();
        let response = client.get("/").unwrap();
        assert_eq!((response.status(), response.text().as_str()), (200, "abc"));
        assert!(response.head.closes());
        assert!(client.is_at_end().unwrap());
    }

    #[test]
    fn get_cut_short_body_returns_unexpected_eof() {
        let mut client = Client::connect(server(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc")).unwrap();
        assert_eq!(client.get("/").unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }

    #[test]
    fn get_broken_header_returns_invalid_data() {
        for answer in [
            &b"HTTP/1.1 OK\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nContent-Length 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nServer: x\r\n\r\n",
        ] {
            let mut client = Client::connect(server(answer)).unwrap();
            assert_eq!(client.get("/").unwrap_err().kind(), ErrorKind::InvalidData, "{answer:?}");
        }
    }
}
