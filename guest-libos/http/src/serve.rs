//! What a request is answered with (RFC 9110 9 and 13): method, target, file, conditions, in this order.

use crate::request::{BodyLength, Malformed, Method, Persistence, Request};
use crate::target::{self, PathError, Target};
use crate::{Begin, Content, File, Files, Lookup, Piece, Response, Site, Status, Then, Ticket, date};

/// A response, if there can be one already.
pub(crate) enum Answer<F> {
    Now(Response<F>),
    /// The files have to be fetched first.
    Pending(Ticket),
}

/// Whether the content goes out with the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// As for GET.
    HeaderAndContent,
    /// As for HEAD, whose header is that of GET (RFC 9110 9.3.2).
    Header,
}

impl From<Option<Method>> for Wanted {
    fn from(method: Option<Method>) -> Wanted {
        if method == Some(Method::Head) { Wanted::Header } else { Wanted::HeaderAndContent }
    }
}

/// The answer to a request.
#[inline]
pub(crate) fn respond<S: Files>(
    request: &Request<'_>,
    site: &mut Site<S>,
) -> Result<Answer<S::File>, Malformed> {
    let then = then(request);
    let wanted = Wanted::from(Some(request.method()));
    match request.method() {
        Method::Get | Method::Head => {}
        Method::Other => return Ok(page(Status::NotImplemented, wanted, then, site)),
        // What follows a CONNECT may be meant for someone else (RFC 9110 9.3.6).
        Method::Connect => return Ok(page(Status::MethodNotAllowed, wanted, Then::Close, site)),
        Method::Options if request.target() == b"*" => {
            return Ok(page(Status::MethodNotAllowed, wanted, then, site));
        }
        Method::Post | Method::Put | Method::Delete | Method::Options | Method::Trace | Method::Patch => {
            return match target::form(request.target()) {
                Target::Path { .. } => Ok(page(Status::MethodNotAllowed, wanted, then, site)),
                Target::Asterisk | Target::Other => Err(Malformed::Target),
            };
        }
    }
    let Target::Path { path, query } = target::form(request.target()) else { return Err(Malformed::Target) };
    // Lent out, because the path may lie in it while the site is changed.
    let mut scratch = core::mem::take(&mut site.path_scratch);
    let response = match target::normalise(path, &mut scratch) {
        Ok(path) => Ok(respond_to_path(request, path, query, wanted, then, site)),
        Err(PathError::NoSuchName) => Ok(page(Status::NotFound, wanted, then, site)),
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
fn respond_to_path<S: Files>(
    request: &Request<'_>,
    path: &[u8],
    query: Option<&[u8]>,
    wanted: Wanted,
    then: Then,
    site: &mut Site<S>,
) -> Answer<S::File> {
    match site.files_mut().lookup(path) {
        Lookup::File(file) => respond_with_file(request, file, wanted, then, site),
        Lookup::Directory { index } if path.ends_with(b"/") => match index {
            Some(file) => respond_with_file(request, file, wanted, then, site),
            None => page(Status::NotFound, wanted, then, site),
        },
        // Without the slash, what the page refers to would be looked for one directory above.
        Lookup::Directory { .. } => Answer::Now(Response {
            status: Status::MovedPermanently,
            header: site.redirection_header(path, query, then),
            body: page_content(Status::MovedPermanently, wanted),
            then,
        }),
        Lookup::Generated { media_type, content } => {
            let header = site.generated_header(media_type, content.len(), then);
            let body = match wanted {
                Wanted::HeaderAndContent => Content::Piece(Piece::Shared(content)),
                Wanted::Header => Content::EMPTY,
            };
            Answer::Now(Response { status: Status::Ok, header, body, then })
        }
        Lookup::NotFound => page(Status::NotFound, wanted, then, site),
        Lookup::Pending(ticket) => Answer::Pending(ticket),
        Lookup::Broken => page(Status::InternalServerError, wanted, then, site),
    }
}

#[inline]
fn respond_with_file<S: Files>(
    request: &Request<'_>,
    file: S::File,
    wanted: Wanted,
    then: Then,
    site: &mut Site<S>,
) -> Answer<S::File> {
    let status = if is_unmodified(request, &file, site) { Status::NotModified } else { Status::Ok };
    let sends_content = status == Status::Ok && wanted == Wanted::HeaderAndContent && file.size_bytes() > 0;
    if sends_content {
        match site.files_mut().begin(&file) {
            Begin::Ready => {}
            Begin::Pending(ticket) => return Answer::Pending(ticket),
            Begin::Broken => return page(Status::InternalServerError, wanted, then, site),
        }
    }
    let header = site.file_header(status, &file, then);
    let body = if sends_content { Content::File(file) } else { Content::EMPTY };
    Answer::Now(Response { status, header, body, then })
}

/// Whether a condition of the request makes it 304 (RFC 9110 13.2.2 steps 3 and 4).
#[inline]
fn is_unmodified<S: Files>(request: &Request<'_>, file: &S::File, site: &Site<S>) -> bool {
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
pub(crate) fn refuse<S: Files>(
    malformed: Malformed,
    method: Option<Method>,
    site: &mut Site<S>,
) -> Response<S::File> {
    page_response(malformed.status(), method.into(), Then::Close, site)
}

fn page<S: Files>(status: Status, wanted: Wanted, then: Then, site: &mut Site<S>) -> Answer<S::File> {
    Answer::Now(page_response(status, wanted, then, site))
}

fn page_response<S: Files>(
    status: Status,
    wanted: Wanted,
    then: Then,
    site: &mut Site<S>,
) -> Response<S::File> {
    Response { status, header: site.page_header(status, then), body: page_content(status, wanted), then }
}

fn page_content<F: File>(status: Status, wanted: Wanted) -> Content<F> {
    match wanted {
        Wanted::HeaderAndContent => Content::Piece(Piece::Static(status.page())),
        Wanted::Header => Content::EMPTY,
    }
}
