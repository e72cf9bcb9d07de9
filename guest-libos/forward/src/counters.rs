//! What a forwarder counts.

/// Why a frame went nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Reason {
    /// Cut short, lengths that do not add up, or flags that no TCP sends.
    Malformed,
    /// The IP header's checksum, or that of an ICMP message, is wrong.
    BadChecksum,
    /// Its source cannot be a client's address or port, or no station's.
    BadSource,
    /// For another Ethernet or IP address.
    NotForUs,
    /// A fragment: a part of a segment cannot be told whose it is.
    Fragment,
    /// The IP header has options (RFC 7126: source routes lead around whom a packet should pass), or extensions.
    IpOptions,
    /// Neither TCP nor ICMP over a version of IP that the forwarder has an address of, nor ARP.
    Unsupported,
    /// For a port that nobody listens on.
    NotListened,
    /// A segment of a connection that is not known, and that does not begin one.
    NoFlow,
    /// Its time to live is over.
    TimeToLive,
    /// Where the server is on the link is not known yet.
    Unresolved,
    /// All places are taken by established connections.
    TableFull,
    /// Of what the device says of its checksum and segments, nothing can be made that a device could send.
    Offload,
    /// An ICMP message that quotes no packet of a connection.
    Icmp,
    /// For the port that is listened on, by a version of IP that no server has.
    NoServer,
}

impl Reason {
    /// Number of reasons.
    pub const COUNT: usize = 15;

    /// All of them and what they are called where they are counted.
    pub const ALL: [(Self, &'static str); Self::COUNT] = [
        (Self::Malformed, "malformed"),
        (Self::BadChecksum, "bad_checksum"),
        (Self::BadSource, "bad_source"),
        (Self::NotForUs, "not_for_us"),
        (Self::Fragment, "fragment"),
        (Self::IpOptions, "ip_options"),
        (Self::Unsupported, "unsupported"),
        (Self::NotListened, "not_listened"),
        (Self::NoFlow, "no_flow"),
        (Self::TimeToLive, "time_to_live"),
        (Self::Unresolved, "unresolved"),
        (Self::TableFull, "table_full"),
        (Self::Offload, "offload"),
        (Self::Icmp, "icmp"),
        (Self::NoServer, "no_server"),
    ];
}

/// One way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// Frames of TCP forwarded; one that stands for several segments is one.
    pub frames: u64,
    /// Their bytes of data.
    pub data_bytes: u64,
    /// ICMP messages translated.
    pub icmp: u64,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Frames looked at.
    pub frames_in: u64,
    /// Connections that a SYN began.
    pub opened: u64,
    /// Of them, those whose handshake was seen to its end.
    pub established: u64,
    /// Half-open ones that gave their place to another.
    pub evicted_half_open: u64,
    /// Ended ones that gave their place to another before their time.
    pub evicted_closing: u64,
    /// Connections forgotten after their time.
    pub expired: u64,
    /// From clients to the server.
    pub to_server: Way,
    /// From the server to clients.
    pub to_client: Way,
    /// ARP requests sent.
    pub arp_requests: u64,
    /// Neighbor solicitations sent (RFC 4861).
    pub neighbour_solicitations: u64,
    /// Echo requests answered.
    pub echo_replies: u64,
    /// ICMP errors of its own: time exceeded, host and port unreachable.
    pub errors_sent: u64,
    /// Frames that went nowhere, by [`Reason`].
    pub drops: [u64; Reason::COUNT],
}

impl Counters {
    /// Frames that went nowhere for a reason.
    pub fn dropped(&self, reason: Reason) -> u64 {
        self.drops[reason as usize]
    }

    /// Each counter but the drops, and what it is called.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("frames_in", self.frames_in),
            ("opened", self.opened),
            ("established", self.established),
            ("evicted_half_open", self.evicted_half_open),
            ("evicted_closing", self.evicted_closing),
            ("expired", self.expired),
            ("to_server_frames", self.to_server.frames),
            ("to_server_bytes", self.to_server.data_bytes),
            ("to_server_icmp", self.to_server.icmp),
            ("to_client_frames", self.to_client.frames),
            ("to_client_bytes", self.to_client.data_bytes),
            ("to_client_icmp", self.to_client.icmp),
            ("arp_requests", self.arp_requests),
            ("neighbour_solicitations", self.neighbour_solicitations),
            ("echo_replies", self.echo_replies),
            ("errors_sent", self.errors_sent),
        ]
        .into_iter()
    }
}
