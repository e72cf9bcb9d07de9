//! What a request is answered with (RFC 9110 9 and 13): method, target, file, conditions, in this order.

use exos_docroot::{FileRef, Lookup};

use crate::request::{BodyLength, Malformed, Method, Persistence, Request};
use crate::target::{self, PathError, Target};
use crate::{Piece, Response, Site, Status, Then, date};

/// Whether the content goes out with the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// As for GET.
    Sent,
    /// As for HEAD, whose header is that of GET (RFC 9110 9.3.2).
    Withheld,
}

impl From<Option<Method>> for Content {
    fn from(method: Option<Method>) -> Content {
        if method == Some(Method::Head) { Content::Withheld } else { Content::Sent }
    }
}

/// The answer to a request.
#[inline]
pub(crate) fn respond(request: &Request<'_>, site: &mut Site) -> Result<Response, Malformed> {
    let then = then(request);
    let content = Content::from(Some(request.method()));
    match request.method() {
        Method::Get | Method::Head => {}
        Method::Other => return Ok(page(Status::NotImplemented, content, then, site)),
        // What follows a CONNECT may be meant for someone else (RFC 9110 9.3.6).
        Method::Connect => return Ok(page(Status::MethodNotAllowed, content, Then::Close, site)),
        Method::Options if request.target() == b"*" => {
            return Ok(page(Status::MethodNotAllowed, content, then, site));
        }
        Method::Post | Method::Put | Method::Delete | Method::Options | Method::Trace | Method::Patch => {
            return match target::form(request.target()) {
                Target::Path { .. } => Ok(page(Status::MethodNotAllowed, content, then, site)),
                Target::Asterisk | Target::Other => Err(Malformed::Target),
            };
        }
    }
    let Target::Path { path, query } = target::form(request.target()) else { return Err(Malformed::Target) };
    // Lent out, because the path may lie in it while the site is changed.
    let mut scratch = core::mem::take(&mut site.path_scratch);
    let response = match target::normalise(path, &mut scratch) {
        Ok(path) => Ok(respond_to_path(request, path, query, content, then, site)),
        Err(PathError::NoSuchName) => Ok(page(Status::NotFound, content, then, site)),
        Err(PathError::Malformed) => Err(Malformed::Target),
    };
    site.path_scratch = scratch;
    response
}

/// A client that waits for `100 (Continue)` gets the final answer instead, and it is not certain whether its body
/// still comes: only closing is right (RFC 9110 10.1.1).
fn then(request: &Request<'_>) -> Then {
    let body_in_doubt = request.expects_continue() && request.body_length() != BodyLength::None;
    match request.persistence() {
        Persistence::KeepAlive if body_in_doubt => Then::Close,
        persistence => persistence.into(),
    }
}

#[inline]
fn respond_to_path(
    request: &Request<'_>,
    path: &[u8],
    query: Option<&[u8]>,
    content: Content,
    then: Then,
    site: &mut Site,
) -> Response {
    match site.archive().lookup(path) {
        Lookup::File(file) => respond_with_file(request, &file, content, then, site),
        Lookup::Directory(directory) if path.ends_with(b"/") => match directory.index() {
            Some(file) => respond_with_file(request, &file, content, then, site),
            None => page(Status::NotFound, content, then, site),
        },
        // Without the slash, what the page refers to would be looked for one directory above.
        Lookup::Directory(_) => Response {
            status: Status::MovedPermanently,
            header: site.redirection_header(path, query, then),
            body: page_body(Status::MovedPermanently, content),
            then,
        },
        Lookup::NotFound => page(Status::NotFound, content, then, site),
    }
}

#[inline]
fn respond_with_file(
    request: &Request<'_>,
    file: &FileRef<'static>,
    content: Content,
    then: Then,
    site: &mut Site,
) -> Response {
    let status = if is_unmodified(request, file, site) { Status::NotModified } else { Status::Ok };
    let body = match (status, content) {
        (Status::Ok, Content::Sent) => Piece::Static(file.data()),
        _ => Piece::EMPTY,
    };
    Response { status, header: site.file_header(status, file, then), body, then }
}

/// Whether a condition of the request makes it 304 (RFC 9110 13.2.2 steps 3 and 4).
#[inline]
fn is_unmodified(request: &Request<'_>, file: &FileRef<'_>, site: &Site) -> bool {
    if let Some(entity_tags) = request.if_none_match() {
        // Files have no entity tags yet, so none of a list matches; `*` matches any file (RFC 9110 13.1.2).
        return entity_tags == b"*";
    }
    request
        .if_modified_since()
        .and_then(|text| date::parse(text, site.unix_seconds()))
        .is_some_and(|since| site.last_modified_unix_seconds(file) <= since)
}

/// The answer that says what is wrong with a request, after which the connection closes.
pub(crate) fn refuse(malformed: Malformed, method: Option<Method>, site: &mut Site) -> Response {
    page(malformed.status(), method.into(), Then::Close, site)
}

fn page(status: Status, content: Content, then: Then, site: &mut Site) -> Response {
    Response { status, header: site.page_header(status, then), body: page_body(status, content), then }
}

fn page_body(status: Status, content: Content) -> Piece {
    match content {
        Content::Sent => Piece::Static(status.page()),
        Content::Withheld => Piece::EMPTY,
    }
}
