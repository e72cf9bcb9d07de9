//! What client and stack say to each other on a connection, without I/O: the client asks for bytes, sends bytes, or exchanges
//! messages; the stack's side compares what it receives and counts it. One speaks at a time.

use super::pattern::Pattern;

/// Bytes of an [`Order`].
pub(crate) const ORDER_BYTES: usize = 16;
/// Bytes of the answer to [`Order::Receive`]: how many arrived, and the first position that was wrong, or all ones.
pub(crate) const RECEIPT_BYTES: usize = 16;
/// The largest message of an exchange.
const MESSAGE_BYTES_MAX: u32 = 1 << 16;

/// What the client wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// So many bytes of the pattern.
    Send { bytes: u64 },
    /// To send so many, and to get a receipt.
    Receive { bytes: u64 },
    /// Each so many bytes of the client's come back, until it closes.
    Exchange { bytes: u32 },
}

impl Order {
    pub(crate) fn emit(self) -> [u8; ORDER_BYTES] {
        let (kind, bytes) = match self {
            Order::Send { bytes } => (1u64, bytes),
            Order::Receive { bytes } => (2, bytes),
            Order::Exchange { bytes } => (3, bytes.into()),
        };
        let mut order = [0; ORDER_BYTES];
        order[..8].copy_from_slice(&kind.to_le_bytes());
        order[8..].copy_from_slice(&bytes.to_le_bytes());
        order
    }

    fn parse(order: [u8; ORDER_BYTES]) -> Option<Self> {
        let [kind, bytes] = [0, 8].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&order[at..at + 8]);
            u64::from_le_bytes(word)
        });
        match kind {
            1 => Some(Order::Send { bytes }),
            2 => Some(Order::Receive { bytes }),
            3 if (1..=MESSAGE_BYTES_MAX.into()).contains(&bytes) => {
                Some(Order::Exchange { bytes: bytes as u32 })
            }
            _ => None,
        }
    }
}

/// The client said something that makes no sense here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfTurn;

enum State {
    /// Bytes of an order.
    Ordered {
        got: usize,
    },
    Sending {
        at: u64,
        end: u64,
    },
    Receiving {
        at: u64,
        end: u64,
        wrong: u64,
    },
    /// A receipt is on its way.
    Signing {
        at: usize,
    },
    /// Bytes of a message.
    Listening {
        got: usize,
    },
    /// The same message goes back.
    Answering {
        at: usize,
    },
}

/// A connection's state, on the stack's side. Whoever drives it writes [`Self::output`] while there is some, and else reads.
pub(crate) struct Session {
    pattern: &'static Pattern,
    state: State,
    order: [u8; ORDER_BYTES],
    receipt: [u8; RECEIPT_BYTES],
    message: Vec<u8>,
}

impl Session {
    pub(crate) fn new() -> Self {
        Session {
            pattern: Pattern::get(),
            state: State::Ordered { got: 0 },
            order: [0; ORDER_BYTES],
            receipt: [0; RECEIPT_BYTES],
            message: Vec::new(),
        }
    }

    /// What is to be written now, or some of it; empty: it is the client's turn.
    pub(crate) fn output(&self) -> &[u8] {
        match self.state {
            State::Sending { at, end } => self.pattern.piece(at, end - at),
            State::Signing { at } => &self.receipt[at..],
            State::Answering { at } => &self.message[at..],
            _ => &[],
        }
    }

    /// So many bytes of [`Self::output`] were taken.
    pub(crate) fn written(&mut self, bytes: usize) {
        match &mut self.state {
            State::Sending { at, end } => {
                *at += bytes as u64;
                if at == end {
                    self.state = State::Ordered { got: 0 };
                }
            }
            State::Signing { at } => {
                *at += bytes;
                if *at == RECEIPT_BYTES {
                    self.state = State::Ordered { got: 0 };
                }
            }
            State::Answering { at } => {
                *at += bytes;
                if *at == self.message.len() {
                    self.state = State::Listening { got: 0 };
                }
            }
            _ => debug_assert_eq!(bytes, 0, "there is no output"),
        }
    }

    /// Takes what the client sent.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Result<(), OutOfTurn> {
        while !bytes.is_empty() {
            let taken = match &mut self.state {
                State::Ordered { got } => {
                    let taken = fill(&mut self.order, got, bytes);
                    if *got == ORDER_BYTES {
                        self.begin(Order::parse(self.order).ok_or(OutOfTurn)?);
                    }
                    taken
                }
                State::Receiving { at, end, wrong } => {
                    let taken = bytes.len().min((*end - *at) as usize);
                    if let Some(difference) = self.pattern.difference(*at, &bytes[..taken]) {
                        *wrong = difference.min(*wrong);
                    }
                    *at += taken as u64;
                    if at == end {
                        self.receipt[..8].copy_from_slice(&at.to_le_bytes());
                        self.receipt[8..].copy_from_slice(&wrong.to_le_bytes());
                        self.state = State::Signing { at: 0 };
                    }
                    taken
                }
                State::Listening { got } => {
                    let taken = fill(&mut self.message, got, bytes);
                    if *got == self.message.len() {
                        self.state = State::Answering { at: 0 };
                    }
                    taken
                }
                State::Sending { .. } | State::Signing { .. } | State::Answering { .. } => {
                    return Err(OutOfTurn);
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    fn begin(&mut self, order: Order) {
        self.state = match order {
            Order::Send { bytes: 0 } => State::Ordered { got: 0 },
            Order::Send { bytes } => State::Sending { at: 0, end: bytes },
            Order::Receive { bytes: 0 } => State::Signing { at: 0 },
            Order::Receive { bytes } => State::Receiving { at: 0, end: bytes, wrong: u64::MAX },
            Order::Exchange { bytes } => {
                self.message = vec![0; bytes as usize];
                State::Listening { got: 0 }
            }
        };
    }
}

/// Moves `got` on by what is there and fits; answers how much that was.
fn fill(to: &mut [u8], got: &mut usize, bytes: &[u8]) -> usize {
    let taken = bytes.len().min(to.len() - *got);
    to[*got..*got + taken].copy_from_slice(&bytes[..taken]);
    *got += taken;
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, &'static Pattern) {
        (Session::new(), Pattern::get())
    }

    #[test]
    fn bytes_asked_for_come_in_pieces_and_then_the_next_order() {
        let (mut session, pattern) = session();
        let order = Order::Send { bytes: 200_000 }.emit();
        session.read(&order[..5]).unwrap();
        assert!(session.output().is_empty());
        session.read(&order[5..]).unwrap();
        let mut got = Vec::new();
        while !session.output().is_empty() {
            let piece = session.output();
            let len = piece.len().min(30_000);
            got.extend_from_slice(&piece[..len]);
            session.written(len);
        }
        assert_eq!((got.len(), pattern.difference(0, &got)), (200_000, None));
        session.read(&Order::Send { bytes: 1 }.emit()).unwrap();
        assert_eq!(session.output().len(), 1);
    }

    #[test]
    fn receipt_counts_and_names_the_first_wrong_byte() {
        for wrong in [u64::MAX, 70_000] {
            let (mut session, pattern) = session();
            session.read(&Order::Receive { bytes: 100_000 }.emit()).unwrap();
            let mut bytes = [pattern.piece(0, 50_000), pattern.piece(50_000, 50_000)].concat();
            if let Some(byte) = bytes.get_mut(wrong as usize) {
                *byte ^= 0x80;
            }
            bytes.chunks(1_448).for_each(|chunk| session.read(chunk).unwrap());
            assert_eq!(session.output(), [100_000u64.to_le_bytes(), wrong.to_le_bytes()].concat());
            session.written(RECEIPT_BYTES);
            assert!(session.output().is_empty());
        }
    }

    #[test]
    fn messages_come_back_one_after_the_other() {
        let (mut session, _) = session();
        session.read(&[&Order::Exchange { bytes: 3 }.emit()[..], b"ab"].concat()).unwrap();
        assert!(session.output().is_empty());
        session.read(b"c").unwrap();
        assert_eq!(session.output(), b"abc");
        session.written(1);
        assert_eq!(session.output(), b"bc");
        session.written(2);
        session.read(b"xyz").unwrap();
        assert_eq!(session.output(), b"xyz");
    }

    #[test]
    fn nonsense_and_speaking_out_of_turn_are_refused() {
        let (mut unknown, _) = session();
        assert_eq!(unknown.read(&[9; ORDER_BYTES]), Err(OutOfTurn));
        let (mut too_large, _) = session();
        assert_eq!(too_large.read(&Order::Exchange { bytes: 1 << 20 }.emit()), Err(OutOfTurn));
        let (mut early, _) = session();
        early.read(&Order::Send { bytes: 10 }.emit()).unwrap();
        assert_eq!(early.read(b"!"), Err(OutOfTurn));
    }
}
