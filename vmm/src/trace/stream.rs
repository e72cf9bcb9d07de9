//! How records travel from a machine to a tool: a header, which is JSON and part of the answer to the request, and then
//! pieces, each with 16 bytes in front. Numbers are little endian.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | kind: 1 records, 2 names, 3 end |
//! | 2 | source, a number of [`Header::sources`] |
//! | 4 | bytes that follow |
//! | 8 | records of this source that were lost before these |
//!
//! Records follow as they are in memory ([`Record`]); names (of sites from [`super::record::FIRST_NAME`] on, more of them
//! as they turn up) as JSON; the end with its reason ([`End`]). Records of a source come in the order in which they were written,
//! those of different sources do not.

use super::record::Record;
use serde::{Deserialize, Serialize};
use std::io::{ErrorKind, Read};
use zerocopy::{FromBytes, IntoBytes};

/// [`Header::schema`].
pub const SCHEMA: &str = "exovm-trace/1";

const RECORDS: u16 = 1;
const NAMES: u16 = 2;
const END: u16 = 3;
const HEAD_BYTES: usize = 16;
/// No piece is longer.
const PIECE_BYTES_MAX: usize = 64 << 20;

/// What the records are of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// [`SCHEMA`].
    pub schema: String,
    /// The machine.
    pub machine: String,
    /// Its image.
    pub image: String,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// When the recording began, on the TSC, and
    pub tsc: u64,
    /// at the same moment in microseconds since the epoch.
    pub utc_us: u64,
    /// 1: everything is recorded; more: one received frame in that many, with what follows from it.
    pub one_in: u32,
    /// Where records come from.
    pub sources: Vec<Source>,
    /// Sites of the guest: the first has number 1. 0 is what no span covers.
    pub sites: Vec<Site>,
    /// Buckets of the VMM's ledgers, by number.
    pub buckets: Vec<String>,
    /// What happens to frames and requests, with its number.
    pub happenings: Vec<(u32, String)>,
    /// KVM's tracepoints.
    #[serde(default)]
    pub kvm: KvmHeader,
}

/// What is known of KVM's tracepoints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KvmHeader {
    /// What KVM's records are called, by number; none: there will be no records.
    pub names: Vec<String>,
    /// They were wanted, and this is why there are none.
    pub missing: Option<Missing>,
}

/// Something that the host does not offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missing {
    /// Why, in a line.
    pub why: String,
    /// What to do about it; empty: nothing.
    pub todo: String,
}

/// Who writes records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// A thread of the VMM.
    Thread {
        /// "vcpu", "vcpu1", "io", "disk 1.0".
        name: String,
    },
    /// An environment of the guest. What it writes is untrusted.
    Environment {
        /// Its number.
        number: u32,
    },
    /// KVM's tracepoints of a thread.
    Kvm {
        /// The thread's name.
        thread: String,
    },
}

impl Missing {
    /// All of it, in a line.
    pub fn line(&self) -> String {
        let Self { why, todo } = self;
        if todo.is_empty() { why.clone() } else { format!("{why}; to do: {todo}") }
    }
}

/// A place in the guest's code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// Name.
    pub name: String,
    /// "span", "event" or "counter".
    pub kind: String,
}

/// A piece of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Of one source.
    Records {
        /// Which.
        source: u16,
        /// How many are missing before these.
        lost: u64,
        /// In the order of writing.
        records: Vec<Record>,
    },
    /// Further names, the first has number `FIRST_NAME` and however many came before.
    Names(Vec<String>),
    /// Why there is no more.
    End(End),
}

/// Why a stream ends. All that was recorded until then has been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client wanted no more.
    Asked,
    /// The machine ended.
    MachineEnded,
}

impl End {
    const ALL: [Self; 2] = [Self::Asked, Self::MachineEnded];

    fn name(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::MachineEnded => "machine-ended",
        }
    }
}

impl Piece {
    /// As it is sent.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut piece = |kind: u16, source: u16, lost: u64, body: &[u8]| {
            out.extend(kind.to_le_bytes());
            out.extend(source.to_le_bytes());
            out.extend((body.len() as u32).to_le_bytes());
            out.extend(lost.to_le_bytes());
            out.extend(body);
        };
        match self {
            Self::Records { source, lost, records } => piece(RECORDS, *source, *lost, records.as_bytes()),
            // A list of strings has nothing that JSON could not say.
            Self::Names(names) => piece(NAMES, 0, 0, &serde_json::to_vec(names).unwrap_or_default()),
            Self::End(why) => piece(END, 0, 0, why.name().as_bytes()),
        }
    }

    /// How much of somebody's memory it takes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Records { records, .. } => HEAD_BYTES + size_of_val(records.as_slice()),
            Self::Names(names) => names.iter().map(String::len).sum(),
            Self::End(why) => why.name().len(),
        }
    }

    /// The next piece; `None`: the stream ended between two, without an end of its own.
    pub fn read(stream: &mut impl Read) -> Result<Option<Self>, StreamError> {
        let mut head = [0u8; HEAD_BYTES];
        match stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(None),
            Err(error) => return Err(error.into()),
        }
        let [k0, k1, s0, s1, l0, l1, l2, l3, lost @ ..] = head;
        let (kind, source) = (u16::from_le_bytes([k0, k1]), u16::from_le_bytes([s0, s1]));
        let len_bytes = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
        if len_bytes > PIECE_BYTES_MAX {
            return Err(StreamError::Garbled);
        }
        let mut body = vec![0; len_bytes];
        stream.read_exact(&mut body)?;
        match kind {
            RECORDS if len_bytes.is_multiple_of(size_of::<Record>()) => {
                let records = body.chunks_exact(size_of::<Record>());
                let records = records.filter_map(|bytes| Record::read_from_bytes(bytes).ok()).collect();
                Ok(Some(Self::Records { source, lost: u64::from_le_bytes(lost), records }))
            }
            NAMES => serde_json::from_slice(&body)
                .map(|names| Some(Self::Names(names)))
                .or(Err(StreamError::Garbled)),
            END => {
                let end = End::ALL.into_iter().find(|end| end.name().as_bytes() == body);
                end.map(|end| Some(Self::End(end))).ok_or(StreamError::Garbled)
            }
            _ => Err(StreamError::Garbled),
        }
    }
}

/// Why a stream cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    /// The socket.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// Not what a machine of this version sends.
    #[error("what the machine sends is not understood; are it and this exovm of the same version?")]
    Garbled,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_read_as_they_are_written() {
        let records = vec![Record { tsc: 1, what: 2, subject: 3, argument: u64::MAX }; 3];
        let pieces = [
            Piece::Records { source: 2, lost: 1 << 40, records },
            Piece::Names(vec!["\"a\"".to_owned()]),
            Piece::End(End::Asked),
            Piece::End(End::MachineEnded),
        ];
        let mut bytes = Vec::new();
        pieces.iter().for_each(|piece| piece.write(&mut bytes));
        let mut stream = bytes.as_slice();
        for piece in pieces {
            assert_eq!(Piece::read(&mut stream).expect("whole"), Some(piece));
        }
        assert_eq!(Piece::read(&mut stream).expect("an end"), None);
    }

    #[test]
    fn cut_or_garbled_stream_is_an_error() {
        let mut bytes = Vec::new();
        Piece::End(End::Asked).write(&mut bytes);
        assert!(matches!(Piece::read(&mut &bytes[..bytes.len() - 1]), Err(StreamError::Io(_))));
        assert!(matches!(Piece::read(&mut &[0xFF; 64][..]), Err(StreamError::Garbled)));
        let mut other = bytes.clone();
        *other.last_mut().expect("a reason") = b'?';
        assert!(matches!(Piece::read(&mut other.as_slice()), Err(StreamError::Garbled)));
        bytes[0] = 9;
        assert!(matches!(Piece::read(&mut bytes.as_slice()), Err(StreamError::Garbled)));
    }

    proptest::proptest! {
        #[test]
        fn read_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Piece::read(&mut bytes.as_slice());
        }
    }
}
