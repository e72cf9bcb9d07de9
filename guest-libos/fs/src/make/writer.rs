//! Writes an image from front to back in large pieces. Small things (buckets that can be written only when the files
//! behind them have been read) go to their place a little later, most of them before the piece has been written.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::vec::Vec;

use crate::format::{BLOCK_BYTES, Block, STRIPE_BLOCKS};

/// A piece is written when it has grown to this.
const PIECE_BLOCKS: usize = 1024;
/// Zeros are left out in units of this, so that holes of the source become holes of the image.
const HOLE_BYTES: usize = 16 << 10;

pub(super) struct Writer<'a> {
    file: &'a File,
    /// Where the piece in memory begins.
    first_block: u64,
    piece: Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Writes from `first_block` on. The file must have nothing but zeros.
    pub(super) fn new(file: &'a File, first_block: u64) -> Writer<'a> {
        let bytes = (PIECE_BLOCKS + STRIPE_BLOCKS as usize) * BLOCK_BYTES;
        Writer { file, first_block, piece: Vec::with_capacity(bytes) }
    }

    /// The next `blocks` blocks, zero, to be filled in. At most a stripe.
    pub(super) fn next(&mut self, blocks: usize) -> io::Result<&mut [u8]> {
        if self.piece.len() >= PIECE_BLOCKS * BLOCK_BYTES {
            self.flush()?;
        }
        let from = self.piece.len();
        self.piece.resize(from + blocks * BLOCK_BYTES, 0);
        Ok(&mut self.piece[from..])
    }

    /// Passes over so many blocks, which stay zero.
    pub(super) fn skip(&mut self, blocks: u64) -> io::Result<()> {
        self.flush()?;
        self.first_block += blocks;
        Ok(())
    }

    /// Leaves room for so many blocks, which [`put`](Writer::put) fills.
    pub(super) fn leave(&mut self, blocks: u32) -> io::Result<()> {
        for _ in 0..blocks {
            self.next(1)?;
        }
        Ok(())
    }

    /// Writes a block to a place that was left for it.
    pub(super) fn put(&mut self, number: u64, block: &Block) -> io::Result<()> {
        let in_piece = number.checked_sub(self.first_block).map(|blocks| blocks as usize * BLOCK_BYTES);
        match in_piece.and_then(|from| self.piece.get_mut(from..from + BLOCK_BYTES)) {
            Some(place) => {
                place.copy_from_slice(block);
                Ok(())
            }
            None => self.file.write_all_at(block, number * BLOCK_BYTES as u64),
        }
    }

    /// Writes what is in memory.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        let offset = self.first_block * BLOCK_BYTES as u64;
        // Whole blocks, so nothing is left behind the words.
        let is_hole = |chunk: &[u8]| chunk.as_chunks().0.iter().all(|&word| u128::from_ne_bytes(word) == 0);
        let mut from = 0;
        while from < self.piece.len() {
            let chunk = |at: usize| &self.piece[at..(at + HOLE_BYTES).min(self.piece.len())];
            let hole = is_hole(chunk(from));
            let mut to = from;
            while to < self.piece.len() && is_hole(chunk(to)) == hole {
                to = (to + HOLE_BYTES).min(self.piece.len());
            }
            if !hole {
                self.file.write_all_at(&self.piece[from..to], offset + from as u64)?;
            }
            from = to;
        }
        self.first_block += (self.piece.len() / BLOCK_BYTES) as u64;
        self.piece.clear();
        Ok(())
    }
}
