//! What a load generator is sent: counted in pieces and at once, which must be the same.

use exos_load::response::MAX_HEAD_BYTES;
use exos_load::{Answer, BadResponse, ResponseCounter};

/// Counts pieces as they come off a connection: what is not taken comes again with the next.
fn count<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Answer>, Option<BadResponse>) {
    let (mut counter, mut kept, mut answers) = (ResponseCounter::default(), Vec::new(), Vec::new());
    for piece in pieces {
        kept.extend_from_slice(piece);
        while !kept.is_empty() {
            let counted = match counter.input(&kept) {
                Ok(counted) => counted,
                Err(bad) => return (answers, Some(bad)),
            };
            kept.drain(..counted.bytes);
            match counted.answer {
                Some(answer) => answers.push(answer),
                None => break,
            }
        }
        assert!(kept.len() < MAX_HEAD_BYTES, "a head that is not complete is bounded");
    }
    answers.extend(counter.end());
    (answers, None)
}

/// The first byte says how long pieces are; the rest comes from the server.
pub fn responses(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    let in_pieces = count(bytes.chunks(usize::from(size) + 1));
    let at_once = count(std::iter::once(bytes));
    assert_eq!(in_pieces, at_once);
    let received = bytes.len() as u64;
    assert!(at_once.0.iter().map(|answer| answer.body_bytes).sum::<u64>() <= received);
    assert!(at_once.0.iter().all(|answer| (100..1000).contains(&answer.status)));
}
