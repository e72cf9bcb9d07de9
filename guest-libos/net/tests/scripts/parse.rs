//! The text of a script to steps. README.md beside this file describes the language; whatever it does not describe is
//! an error here.

use std::net::IpAddr;
use std::num::NonZeroU8;

use exos_net::{Coalesce, Config, Dscp, Duration, Ecn, KeepAlive};

use crate::ip::{Family, Icmp, PREFIX_LEN_V6};
use crate::ipv6;
use crate::packet::{Tcp, TcpOption, flags};
use crate::words::Words;

/// When a step happens. Nanoseconds since the script's begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// With the step before.
    Same,
    At(u64),
    After(u64),
    /// For expectations: not before the first, not after the second.
    Between(u64, u64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    /// At one address, if it is said at which.
    Listen(u16, Option<IpAddr>),
    Unlisten(u16, Option<IpAddr>),
    /// From this address and port, if they are said.
    Connect(Option<IpAddr>, Option<u16>),
    Send(u32),
    Queue(u32),
    SendUrgent(u32),
    Output(String),
    Keep,
    Take,
    Consume(u32),
    LowWater(u32),
    KeepAlive(Option<KeepAlive>),
    Coalesce(Coalesce),
    UserTimeout(Option<Duration>),
    Dscp(Dscp),
    Ttl(NonZeroU8),
    Close,
    Abort,
    /// The peer's next connection begins with this sequence number.
    Isn(u32),
    /// The next connection is to or from this port of the host.
    LocalPort(u16),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    In(Tcp),
    Icmp(Icmp),
    /// The link takes packets of so many bytes from now on.
    LinkMtu(u16),
    Out(Tcp),
    Event(String),
    Call(Call, Option<String>),
    Check(String, u64),
    /// The connection is in this state.
    State(String),
    Quiet,
}

#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) when: When,
    pub(crate) peer: usize,
    pub(crate) action: Action,
}

#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) name: String,
    pub(crate) ip: IpAddr,
    pub(crate) port: u16,
    /// The address of the host's that it talks to.
    pub(crate) host: IpAddr,
    /// It answers no question for its link address.
    pub(crate) is_silent: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Script {
    pub(crate) path: String,
    /// The requirements that it covers.
    pub(crate) covers: Vec<String>,
    pub(crate) family: Family,
    /// Why it is not run over the other one.
    pub(crate) only: Option<String>,
    pub(crate) config: Config,
    /// How late an output may be, in nanoseconds.
    pub(crate) tolerance: u64,
    pub(crate) peers: Vec<Peer>,
    pub(crate) steps: Vec<Step>,
}

/// The states of RFC 9293 3.3.2.
pub(crate) const STATES: [&str; 11] = [
    "CLOSED",
    "LISTEN",
    "SYN-SENT",
    "SYN-RECEIVED",
    "ESTABLISHED",
    "FIN-WAIT-1",
    "FIN-WAIT-2",
    "CLOSE-WAIT",
    "CLOSING",
    "LAST-ACK",
    "TIME-WAIT",
];

/// The events that scripts can expect, by their first word.
pub(crate) const EVENTS: [&str; 9] =
    ["opened", "acked", "low_water", "data", "peer_closed", "ended", "urgent", "problem", "retransmitting"];

/// Reads a whole script. The error names file, line and what was found.
pub(crate) fn parse(path: &str, text: &str, config: Config) -> Result<Script, String> {
    let mut script = Script {
        path: path.into(),
        covers: Vec::new(),
        family: Family::V4,
        only: None,
        config,
        tolerance: 2_000_000,
        peers: vec![Peer::usual(Family::V4)],
        steps: Vec::new(),
    };
    if !text.trim_start().starts_with('#') {
        return Err(format!("{path}:1: a script begins with a comment that says what it shows"));
    }
    for (index, text) in text.lines().enumerate() {
        let line = index + 1;
        let code = text.split('#').next().unwrap_or_default();
        if !code.trim().is_empty() {
            parse_line(&mut script, line, code)
                .map_err(|error| format!("{path}:{line}: {error}\n    in: {}", text.trim()))?;
        }
    }
    if !script
        .steps
        .iter()
        .any(|step| matches!(step.action, Action::Out(_) | Action::Event(_) | Action::Check(..)))
    {
        return Err(format!("{path}: the script expects nothing: it cannot fail"));
    }
    Ok(script)
}

impl Peer {
    fn usual(family: Family) -> Self {
        Self { name: String::new(), ip: family.peer(), port: 40_000, host: family.host(), is_silent: false }
    }
}

fn parse_line(script: &mut Script, line: usize, code: &str) -> Result<(), String> {
    let mut words = Words::of(code);
    match words.peek() {
        Some("covers") => {
            words.next();
            while let Some(word) = words.next() {
                script.covers.push(word.into());
            }
            return Ok(());
        }
        Some("only") => {
            words.next();
            if script.peers.len() > 1 || !script.steps.is_empty() {
                return Err("peers and what happens come after this line".into());
            }
            if words.one_of("only", &["ipv4", "ipv6"])? == "ipv6" {
                script.family = Family::V6;
                script.peers = vec![Peer::usual(Family::V6)];
                ipv6::enable(&mut script.config);
            }
            let why = words.rest();
            if why.is_empty() {
                return Err("why not over the other one? only ipv4 REASON".into());
            }
            script.only = Some(why);
            return Ok(());
        }
        Some("config") => {
            words.next();
            let name: String = words.value("config")?;
            configure(&mut script.config, &name, &mut words)?;
            return words.end();
        }
        Some("tolerance") => {
            words.next();
            script.tolerance = words.time("tolerance")?;
            return words.end();
        }
        Some("peer") => {
            words.next();
            let mut peer = Peer { name: words.value("peer")?, ..Peer::usual(script.family) };
            while let Some(word) = words.next() {
                match word {
                    "ip" => peer.ip = words.value("ip")?,
                    "port" => peer.port = words.value("port")?,
                    "host" => peer.host = words.value("host")?,
                    "silent" => peer.is_silent = true,
                    other => {
                        return Err(format!("unknown word {other:?}; a peer has ip, port, host and silent"));
                    }
                }
            }
            script.peers.push(peer);
            return Ok(());
        }
        _ => {}
    }
    let when = words.when()?;
    let peer = match words.peek().and_then(|word| word.strip_prefix('@')) {
        None => 0,
        Some(name) => {
            words.next();
            let place = script.peers.iter().position(|peer| peer.name == name);
            place.ok_or_else(|| {
                format!("no peer is called {name:?}; declare it with: peer {name} port 40001")
            })?
        }
    };
    let action = match words.next() {
        Some("<") if words.peek() == Some("icmp") => {
            words.next();
            Action::Icmp(icmp(&mut words)?)
        }
        Some("<") => Action::In(segment(&mut words, true)?),
        Some(">") => Action::Out(segment(&mut words, false)?),
        Some("=") => {
            let event = words.rest();
            let first = event.split(' ').next().unwrap_or_default();
            if !EVENTS.contains(&first) {
                return Err(format!("unknown event {first:?}; there are {}", EVENTS.join(", ")));
            }
            Action::Event(event)
        }
        Some("check") => {
            let name: String = words.value("check")?;
            Action::Check(name, words.value("check")?)
        }
        Some("state") => Action::State(words.one_of("state", &STATES)?),
        Some("quiet") => Action::Quiet,
        Some("link_mtu") => Action::LinkMtu(words.value("link_mtu")?),
        Some(word) => {
            let call = call(word, &mut words)?;
            let fails = match words.next() {
                None => None,
                Some("fails") => Some(words.value("fails")?),
                Some(other) => return Err(format!("unknown word {other:?} after a call")),
            };
            Action::Call(call, fails)
        }
        None => return Err("a time without anything that happens".into()),
    };
    words.end()?;
    if matches!(when, When::Between(..)) && !matches!(action, Action::Out(_) | Action::Event(_)) {
        return Err("a range of time is for what is expected: > and =".into());
    }
    script.steps.push(Step { line, text: code.trim().into(), when, peer, action });
    Ok(())
}

fn configure(config: &mut Config, name: &str, words: &mut Words<'_>) -> Result<(), String> {
    let mut time = || words.time(name).map(Duration::from_nanos);
    match name {
        "time_wait" => config.time_wait = time()?,
        "fin_wait_2" => config.fin_wait_2 = time()?,
        "delayed_ack" => config.delayed_ack = time()?,
        "min_rto" => config.min_rto = time()?,
        "user_timeout" => config.user_timeout = time()?,
        "idle_timeout" => config.idle_timeout = Some(time()?),
        "mtu" => config.mtu = words.value(name)?,
        "window" => config.receive_window_bytes = words.value(name)?,
        "syn_ack_retries" => config.syn_ack_retries = words.value(name)?,
        "ttl" => config.time_to_live = words.value(name)?,
        "dscp" => config.dscp = dscp(words)?,
        "syn_retries" => config.syn_retries = words.value(name)?,
        "ecn" => {
            config.ecn = match words.one_of(name, &["never", "agree", "ask"])?.as_str() {
                "never" => Ecn::Never,
                "agree" => Ecn::Agree,
                _ => Ecn::Ask,
            }
        }
        "address" => {
            let ipv6 = config.ipv6.as_mut().ok_or("further addresses are for scripts of IPv6: only ipv6")?;
            ipv6.addresses.push((words.value(name)?, PREFIX_LEN_V6));
        }
        "probes" => {
            let ipv6 =
                config.ipv6.as_mut().ok_or("addresses are probed for in scripts of IPv6: only ipv6")?;
            ipv6.probes = words.value(name)?;
        }
        "max_connections" => config.max_connections = words.value(name)?,
        _ => return Err(format!("unknown setting {name:?}; see README.md for those that there are")),
    }
    Ok(())
}

fn call(word: &str, words: &mut Words<'_>) -> Result<Call, String> {
    Ok(match word {
        "listen" => Call::Listen(words.value(word)?, words.after("at")?),
        "unlisten" => Call::Unlisten(words.value(word)?, words.after("at")?),
        "connect" => Call::Connect(words.after("from")?, words.after("port")?),
        "send" => Call::Send(words.value(word)?),
        "send_urgent" => Call::SendUrgent(words.value(word)?),
        "queue" => Call::Queue(words.value(word)?),
        "output" => Call::Output(words.one_of(word, &["merge", "if_due", "now"])?),
        "keep" => Call::Keep,
        "take" => Call::Take,
        "consume" => Call::Consume(words.value(word)?),
        "low_water" => Call::LowWater(words.value(word)?),
        "close" => Call::Close,
        "abort" => Call::Abort,
        "keep_alive" => Call::KeepAlive(keep_alive(words)?),
        "coalesce" => Call::Coalesce(match words.one_of(word, &["no_delay", "nagle", "cork"])?.as_str() {
            "nagle" => Coalesce::Nagle,
            "cork" => Coalesce::Cork,
            _ => Coalesce::NoDelay,
        }),
        "user_timeout" if words.peek() == Some("off") => {
            words.next();
            Call::UserTimeout(None)
        }
        "user_timeout" => Call::UserTimeout(Some(Duration::from_nanos(words.time(word)?))),
        "dscp" => Call::Dscp(dscp(words)?),
        "ttl" => Call::Ttl(words.value(word)?),
        "isn" => Call::Isn(words.value(word)?),
        "local_port" => Call::LocalPort(words.value(word)?),
        _ => return Err(format!("unknown word {word:?}; see README.md for those that there are")),
    })
}

/// `off`, `default`, or idle time, interval and number of probes.
fn keep_alive(words: &mut Words<'_>) -> Result<Option<KeepAlive>, String> {
    match words.peek() {
        Some("off") => {
            words.next();
            Ok(None)
        }
        Some("default") => {
            words.next();
            Ok(Some(KeepAlive::default()))
        }
        _ => Ok(Some(KeepAlive {
            idle: Duration::from_nanos(words.time("keep_alive")?),
            interval: Duration::from_nanos(words.time("keep_alive")?),
            probes: words.value("keep_alive")?,
        })),
    }
}

fn dscp(words: &mut Words<'_>) -> Result<Dscp, String> {
    Dscp::new(words.value("dscp")?).ok_or_else(|| "a codepoint is at most 63".into())
}

fn icmp(words: &mut Words<'_>) -> Result<Icmp, String> {
    let (kind, code) = (words.value("icmp type")?, words.value("icmp code")?);
    let mut icmp = Icmp { kind, code, mtu: 0, quoted: 0 };
    let mut quotes = false;
    while let Some(word) = words.next() {
        match word {
            "mtu" => icmp.mtu = words.value(word)?,
            "quote" => (icmp.quoted, quotes) = (words.value(word)?, true),
            other => return Err(format!("unknown word {other:?}; an ICMP error has mtu and quote")),
        }
    }
    if quotes { Ok(icmp) } else { Err("an ICMP error quotes a segment: quote SEQ".into()) }
}

fn segment(words: &mut Words<'_>, incoming: bool) -> Result<Tcp, String> {
    let letters = words.next().ok_or("flags are missing")?;
    let mut tcp = Tcp {
        flags: flags(letters)
            .ok_or_else(|| format!("unknown flags {letters:?}; they are of SFRPUECA, or -"))?,
        seq: words.value("the sequence number")?,
        ..Tcp::default()
    };
    while let Some(word) = words.next() {
        match (word, incoming) {
            ("len", _) => tcp.len = words.value(word)?,
            ("ack", _) => tcp.ack = Some(words.value(word)?),
            ("win", _) => tcp.window = Some(words.value(word)?),
            ("urg", _) => tcp.urgent = Some(words.value(word)?),
            ("ttl", _) => tcp.around.ttl = Some(words.value(word)?),
            ("tos", _) => tcp.around.tos = Some(words.value(word)?),
            ("mss", _) => tcp.options.push(TcpOption::Mss(words.value(word)?)),
            ("ws", _) => tcp.options.push(TcpOption::WindowScale(words.value(word)?)),
            ("sackok", _) => tcp.options.push(TcpOption::SackPermitted),
            ("ts", _) => {
                let (value, echo) =
                    (words.number_or_any(word, incoming)?, words.number_or_any(word, incoming)?);
                tcp.options.push(TcpOption::Timestamp(value, echo));
            }
            ("sack", _) => {
                let mut blocks = Vec::new();
                while let Some((start, end)) = words.peek().and_then(|word| word.split_once(':')) {
                    let number =
                        |text: &str| text.parse().map_err(|_| format!("{text:?} is no sequence number"));
                    blocks.push((number(start)?, number(end)?));
                    words.next();
                }
                tcp.options.push(TcpOption::Sack(blocks));
            }
            ("options", false) => {
                words.one_of(word, &["*"])?;
                tcp.any_options = true;
            }
            ("nop", true) => tcp.options.push(TcpOption::Nop),
            ("eol", true) => tcp.options.push(TcpOption::End),
            ("raw", _) => tcp.options.push(TcpOption::Raw(words.hex(word)?)),
            ("ip_options", true) => tcp.around.ip_options = words.hex(word)?,
            ("src", true) => tcp.around.source = Some(words.value(word)?),
            ("dst", true) => tcp.around.destination = Some(words.value(word)?),
            ("port", true) => tcp.local_port = Some(words.value(word)?),
            ("link_broadcast", true) => tcp.around.link_broadcast = true,
            ("bad_checksum", true) => tcp.around.bad_checksum = true,
            (other, _) => return Err(format!("unknown word {other:?} in a segment")),
        }
    }
    Ok(tcp)
}
