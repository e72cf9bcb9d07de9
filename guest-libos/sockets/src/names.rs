//! Names (RFC 1034, 1035): addresses asked for over UDP sockets, and over a stream where a datagram does not hold the answer.

use crate::address::parse;
use crate::datagrams::UdpPlace;
use crate::error::Error;
use crate::options::SocketOption;
use crate::state::{Sockets, State};
use crate::tcp::keep;
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::poll_fn;
use core::net::{IpAddr, SocketAddr};
use core::pin::pin;
use core::task::{Poll, Waker};
use exos_dns::{Config, Event, Failure, Family, Lookup, QueryId, Resolver, StreamAnswer, StreamQuery};
use exos_net::{Duration, Instant, Local};
use futures_util::future::{Either, join, select};

/// The longest message that the resolver takes (RFC 1035 4.2.1 has 512 bytes over UDP; who sends more is heard as well).
const MAX_MESSAGE_BYTES: usize = 4_096;
/// What is read of a stream at a time.
const PIECE_BYTES: usize = 512;

/// A name that somebody waits for.
#[derive(Debug)]
struct Asked {
    id: QueryId,
    waker: Option<Waker>,
    news: Option<News>,
}

/// What there is to say to who waits.
#[derive(Debug)]
enum News {
    Done(Result<Vec<IpAddr>, Failure>),
    /// The answer is to be had over a stream.
    Stream(Box<StreamQuery>),
    /// It is not waited for any more.
    Hangup,
}

/// The resolver, the sockets that its questions are asked from, and who waits.
#[derive(Debug)]
pub(crate) struct Names {
    resolver: Resolver,
    /// With their ports, and whom they ask.
    sockets: Vec<(u16, SocketAddr, UdpPlace)>,
    asked: Vec<Asked>,
}

impl Names {
    pub(crate) fn new() -> Self {
        let config = Config { streams: true, ..Config::new([]) };
        Self { resolver: Resolver::new(config), sockets: Vec::new(), asked: Vec::new() }
    }

    fn asked(&mut self, id: QueryId) -> Option<&mut Asked> {
        self.asked.iter_mut().find(|asked| asked.id == id)
    }

    fn tell(&mut self, id: QueryId, news: News) {
        let Some(asked) = self.asked(id) else { return };
        asked.news = Some(news);
        if let Some(waker) = asked.waker.take() {
            waker.wake();
        }
    }

    /// When there is something to ask again, or to give up.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.resolver.next_deadline()
    }
}

/// A query that is given up with its holder.
struct Query<'s> {
    sockets: &'s Sockets,
    id: QueryId,
}

impl Drop for Query<'_> {
    fn drop(&mut self) {
        let mut state = self.sockets.state();
        state.names.asked.retain(|asked| asked.id != self.id);
        state.names.resolver.cancel(self.id);
    }
}

impl Sockets {
    /// The servers that are asked for names from now on, in turn: the first [`exos_dns::MAX_SERVERS`] of these.
    pub fn set_name_servers(&self, servers: impl IntoIterator<Item = IpAddr>) {
        self.state().names.resolver.set_servers(servers);
    }

    /// The addresses of a name, or of the text if it is one: of the families that we have an address of, IPv6's first. Cancelling
    /// gives it up.
    pub async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, Error> {
        let has = |family| self.state().link.has_family(family == Family::V6);
        let one = async |family| if has(family) { self.ask(name, family).await } else { Ok(Vec::new()) };
        let (ipv6, ipv4) = join(pin!(one(Family::V6)), pin!(one(Family::V4))).await;
        let addresses = exos_dns::merge(ipv6, ipv4).map_err(Error::Name)?;
        if addresses.is_empty() { Err(Error::Unreachable) } else { Ok(addresses) }
    }

    /// The addresses of one family.
    pub async fn lookup(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, Error> {
        self.ask(name, family).await.map_err(Error::Name)
    }

    async fn ask(&self, name: &str, family: Family) -> Result<Vec<IpAddr>, Failure> {
        let id = {
            let mut state = self.state();
            let now = state.now;
            match state.names.resolver.lookup(now, name, family)? {
                Lookup::Known(addresses) => return Ok(addresses),
                Lookup::Asked(id) => id,
            }
        };
        self.state().names.asked.push(Asked { id, waker: None, news: None });
        let query = Query { sockets: self, id };
        loop {
            match query.news().await {
                News::Done(result) => return result,
                News::Stream(stream) => query.ask_over_stream(&stream).await,
                News::Hangup => {}
            }
        }
    }
}

impl Query<'_> {
    async fn news(&self) -> News {
        poll_fn(|context| {
            let mut state = self.sockets.state();
            let Some(asked) = state.names.asked(self.id) else {
                return Poll::Ready(News::Done(Err(Failure::Broken)));
            };
            if let Some(news) = asked.news.take() {
                return Poll::Ready(news);
            }
            keep(&mut asked.waker, context);
            Poll::Pending
        })
        .await
    }

    /// Asks over a stream, unless the resolver loses its patience before there is an answer.
    async fn ask_over_stream(&self, stream: &StreamQuery) {
        let answer = pin!(exchange(self.sockets, stream));
        let patience = pin!(poll_fn(|context| {
            let mut state = self.sockets.state();
            let Some(asked) = state.names.asked(self.id) else { return Poll::Ready(()) };
            if asked.news.is_some() {
                return Poll::Ready(());
            }
            keep(&mut asked.waker, context);
            Poll::Pending
        }));
        let answer = match select(answer, patience).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => return,
        };
        let mut state = self.sockets.state();
        let now = state.now;
        match answer {
            Ok(answer) => {
                state.names.resolver.receive_stream(now, self.id, answer.message().unwrap_or_default());
            }
            Err(_) => state.names.resolver.stream_failed(self.id),
        }
    }
}

/// One question and its answer.
async fn exchange(sockets: &Sockets, query: &StreamQuery) -> Result<StreamAnswer, Error> {
    let mut stream = sockets.connect(query.to).await?;
    // Who is not answered in time does not wait for the server's end.
    stream.set(SocketOption::Linger(Some(Duration::ZERO)));
    let mut rest = query.framed();
    while !rest.is_empty() {
        let len = stream.write(rest).await?;
        rest = &rest[len..];
    }
    let (mut answer, mut piece) = (StreamAnswer::default(), [0; PIECE_BYTES]);
    while answer.message().is_none() {
        match stream.read(&mut piece).await? {
            0 => return Err(Error::BrokenPipe),
            len => answer.push(&piece[..len]),
        }
    }
    stream.set(SocketOption::Linger(None));
    Ok(answer)
}

impl State {
    /// Takes answers to the resolver, and its questions to sockets.
    pub(crate) fn run_names(&mut self) {
        if self.names.asked.is_empty() && self.names.sockets.is_empty() && self.names.resolver.queries() == 0
        {
            return;
        }
        self.hear_answers();
        let now = self.now;
        loop {
            let random = self.random.next();
            match self.names.resolver.poll(now, random) {
                None => return,
                Some(Event::Send(query)) => {
                    let from = if query.to.is_ipv6() { Local::Ipv6 } else { Local::Ipv4 };
                    if self.ask(from, query.from_port, query.to, query.bytes()).is_err() {
                        self.names.resolver.unreachable(query.from_port, query.to);
                    }
                }
                Some(Event::Stream(query)) => self.names.tell(query.id, News::Stream(query)),
                Some(Event::Hangup(id)) => self.names.tell(id, News::Hangup),
                Some(Event::Unbind(port)) => {
                    let place = self.names.sockets.iter().position(|&(other, ..)| other == port);
                    if let Some(place) = place {
                        let (.., socket) = self.names.sockets.swap_remove(place);
                        self.close_udp(socket);
                    }
                }
                Some(Event::Done { id, result }) => self.names.tell(id, News::Done(result)),
            }
        }
    }

    fn ask(&mut self, from: Local, port: u16, to: SocketAddr, bytes: &[u8]) -> Result<(), Error> {
        let place = self.bind_udp(from, port)?;
        self.names.sockets.push((port, to, place));
        self.connect_udp(place, parse(to)?)?;
        self.send_udp(place, None, bytes)?;
        Ok(())
    }

    fn hear_answers(&mut self) {
        for index in 0..self.names.sockets.len() {
            let (port, to, place) = self.names.sockets[index];
            let mut message = [0; MAX_MESSAGE_BYTES];
            loop {
                match self.receive_udp(place, &mut message) {
                    Ok(Some(received)) => {
                        let (now, from) =
                            (self.now, SocketAddr::new(received.from.ip(), received.from.port()));
                        self.names.resolver.receive(now, from, port, &message[..received.len]);
                    }
                    Ok(None) => break,
                    Err(_) => {
                        self.names.resolver.unreachable(port, to);
                        break;
                    }
                }
            }
        }
    }
}
