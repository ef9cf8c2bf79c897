//! Mutational fuzzing of everything that reads bytes from Postgres, on the stable toolchain, for a bounded
//! time. The oracles are those of the decoder's properties.
//!
//! `FUZZ_SECONDS` is the time for each target (3 by default). Every input comes from one number; a failure
//! prints it, and `SEED=<number>` makes it the first input of the next run. Longer runs with coverage:
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo decode`.
#![allow(clippy::unwrap_used, reason = "a fuzz target is a test, and so is what it calls")]

use std::time::{Duration, Instant, SystemTime};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use waldex::lsn::Lsn;
use waldex::pgoutput::envelope::Frame;

use crate::decoder::{check_copy_line, check_frame, check_payload, message};
use crate::support::encode::encode_frame;

/// Mutations of one generated input; generating costs more than mutating.
const MUTANTS: usize = 64;
/// Lengths and counts at which bounds checks go wrong, and the tags and marks of the formats.
const ODD_INTEGERS: [i32; 12] =
    [0, 1, -1, 4, 1664, 1665, 0x7FFF, 0x8000, 0xFFFF, i32::MAX, i32::MIN, i32::MAX - 3];
const ODD_BYTES: &[u8] =
    b"\0\x01\x7f\x80\xffBCORYIUDTMKNOdnfiutbwkSEcAPrp\\\t\n\r\x08\x0b\x0cx0789";

#[test]
fn messages() {
    fuzz("messages", |random| generated_payload(random.next()), check_payload);
}

#[test]
fn frames() {
    fuzz("frames", generated_frame, check_frame);
}

#[test]
fn copy_lines() {
    fuzz("copy lines", generated_line, check_copy_line);
}

fn fuzz(target: &str, generate: impl Fn(&mut SplitMix) -> Vec<u8>, check: impl Fn(&[u8])) {
    let duration = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(3));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let first = number("SEED").unwrap_or_else(|| u64::try_from(now).unwrap());
    println!("fuzzing {target} for {duration:?} from SEED={first}");
    let start = Instant::now();
    let mut inputs = 0_u64;
    let mut seed = first;
    while inputs == 0 || start.elapsed() < duration {
        let _replay = Replay { target, seed };
        let mut random = SplitMix(seed);
        let input = generate(&mut random);
        check(&input);
        for _ in 0..MUTANTS {
            check(&mutated(&input, &mut random));
        }
        inputs += 1;
        seed = seed.wrapping_add(1);
    }
    println!("fuzzed {target}: {inputs} inputs with {MUTANTS} mutants each, none failed");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: '{text}' is not a number")))
}

/// Says, while a panic passes, how to see it again.
struct Replay<'a> {
    target: &'a str,
    seed: u64,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fuzzing {} failed; to replay it: SEED={}", self.target, self.seed);
        }
    }
}

/// SplitMix64: small, and the same on every machine and with every version of every crate.
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 if there is none.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

fn generated_payload(seed: u64) -> Vec<u8> {
    let mut long_seed = [0; 32];
    long_seed[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &long_seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    message().new_tree(&mut runner).unwrap().current().encode()
}

fn generated_frame(random: &mut SplitMix) -> Vec<u8> {
    let wal_end = Lsn::new(random.next());
    let send_time_micros = random.next().cast_signed();
    let payload: Vec<u8> = (0..random.below(40)).map(|_| random.of(ODD_BYTES)).collect();
    encode_frame(&match random.below(2) {
        0 => Frame::Keepalive { wal_end, send_time_micros, reply_requested: random.below(2) == 1 },
        _ => Frame::XLogData { wal_start: wal_end, wal_end, send_time_micros, payload: &payload },
    })
}

fn generated_line(random: &mut SplitMix) -> Vec<u8> {
    let pieces: [&[u8]; 10] =
        [b"\\N", b"\t", b"\t\t", b"\\\\", b"\\t", b"\\101", b"\\x4", b"plain", b"\xC3\xA9", b"\\"];
    (0..random.below(12)).flat_map(|_| random.of(&pieces).to_vec()).collect()
}

fn mutated(input: &[u8], random: &mut SplitMix) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = at + random.below(bytes.len() - at + 1).min(24);
        match random.below(8) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let copy = bytes[at..end].to_vec();
                let to = random.below(bytes.len() + 1);
                bytes.splice(to..to, copy);
            }
            3 => bytes.insert(at, random.of(ODD_BYTES)),
            4 => overwrite(&mut bytes, at, &random.of(&ODD_INTEGERS).to_be_bytes()),
            5 => overwrite(&mut bytes, at, &random.of(&ODD_INTEGERS).to_be_bytes()[2..]),
            6 => overwrite(&mut bytes, at, &[random.of(ODD_BYTES)]),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << random.below(8);
                }
            }
        }
    }
    bytes
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    for (byte, new) in bytes[at..].iter_mut().zip(with) {
        *byte = *new;
    }
}
