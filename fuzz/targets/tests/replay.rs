//! The kept inputs, and inputs made out of them, through every target: what a fuzzer once found stays found, and a run of CI tries
//! something new of each, always the same. More with `EXOVM_FUZZ_ROUNDS`.

use exovm_fuzz_targets::TARGETS;
use std::path::PathBuf;

/// Inputs made for each target.
const ROUNDS: u64 = 400;
/// Most bytes of one.
const LEN_MAX: usize = 1024;

fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("readable").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| (path.clone(), std::fs::read(&path).expect("readable"))).collect()
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        word ^ (word >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// One of the inputs, changed here and there, with a piece of another.
    fn input(&mut self, corpus: &[(PathBuf, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = match corpus.get(self.below(corpus.len() + 1)) {
            Some((_, bytes)) => bytes.clone(),
            None => (0..self.below(LEN_MAX)).map(|_| self.next() as u8).collect(),
        };
        for _ in 0..self.below(8) {
            match self.below(4) {
                0 if !bytes.is_empty() => {
                    let at = self.below(bytes.len());
                    bytes[at] = self.next() as u8;
                }
                1 if !bytes.is_empty() => {
                    let at = self.below(bytes.len());
                    bytes[at] ^= 1 << self.below(8);
                }
                2 => bytes.truncate(self.below(bytes.len() + 1)),
                _ => {
                    let Some((_, other)) = corpus.get(self.below(corpus.len())) else { continue };
                    let from = self.below(other.len() + 1);
                    bytes.extend_from_slice(&other[from..]);
                }
            }
        }
        bytes.truncate(LEN_MAX);
        bytes
    }
}

#[test]
fn every_target_returns_from_what_is_kept_and_from_what_is_made_of_it() {
    let rounds = std::env::var("EXOVM_FUZZ_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(ROUNDS);
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name}: nothing is kept");
        let mut failed = Vec::new();
        for (path, bytes) in &corpus {
            if std::panic::catch_unwind(|| target(bytes)).is_err() {
                failed.push(format!("{}", path.display()));
            }
        }
        let mut random = Random(0);
        for round in 0..rounds {
            let bytes = random.input(&corpus);
            if std::panic::catch_unwind(|| target(&bytes)).is_err() {
                failed.push(format!("round {round}: {bytes:02x?}"));
                break;
            }
        }
        println!("{name}: {} kept, {rounds} made", corpus.len());
        assert!(failed.is_empty(), "{name}: {failed:#?}");
    }
}
