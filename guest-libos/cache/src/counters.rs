//! What the cache has done, as plain numbers that only grow.

/// Numbers for statistics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Uses of a frame's data beyond the one for which it was read.
    pub hits: u64,
    /// Frames that were asked for and had to be read.
    pub misses: u64,
    /// Questions that joined a read on its way.
    pub joined: u64,
    /// Frames that were read before anybody asked for them.
    pub read_ahead: u64,
    /// Frames that were thrown out for others.
    pub evictions: u64,
    /// Frames that were thrown out because their memory was asked back.
    pub given_back: u64,
    /// Reads handed out.
    pub reads: u64,
    /// Bytes that came from the disk.
    pub bytes_read: u64,
    /// Reads that failed.
    pub read_errors: u64,
    /// Blocks that were read and are not what was written.
    pub bad_blocks: u64,
    /// Times that somebody had to wait because every frame was in use.
    pub room_waits: u64,
    /// Paths that were found among the names.
    pub name_hits: u64,
    /// Paths that had to be looked up in directories.
    pub name_misses: u64,
}

impl Counters {
    /// Every counter with its name, in declaration order.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("hits", self.hits),
            ("misses", self.misses),
            ("joined", self.joined),
            ("read_ahead", self.read_ahead),
            ("evictions", self.evictions),
            ("given_back", self.given_back),
            ("reads", self.reads),
            ("bytes_read", self.bytes_read),
            ("read_errors", self.read_errors),
            ("bad_blocks", self.bad_blocks),
            ("room_waits", self.room_waits),
            ("name_hits", self.name_hits),
            ("name_misses", self.name_misses),
        ]
        .into_iter()
    }
}
