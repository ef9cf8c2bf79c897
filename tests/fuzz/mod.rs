//! Mutational fuzzing of everything that is read from outside, on the stable toolchain, for a bounded time.
//!
//! `FUZZ_SECONDS` is the time for each target (3 by default). Inputs that were worth keeping, in
//! `corpus/<target>`, always run first. Every other input comes from one number; a failure prints it, and
//! `SEED=<number>` makes it the first input of the next run. Longer runs with coverage:
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz/cargo decode`.
#![allow(clippy::unwrap_used, reason = "a fuzz target is a test, and so is what it calls")]

mod answers;
mod configuration;
mod received;
mod state;
mod values;

use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// Mutations of one generated input; generating costs more than mutating.
const MUTANTS: usize = 64;
/// Lengths and counts at which bounds checks go wrong, and the tags and marks of the formats.
const ODD_INTEGERS: [i32; 12] =
    [0, 1, -1, 4, 1664, 1665, 0x7FFF, 0x8000, 0xFFFF, i32::MAX, i32::MIN, i32::MAX - 3];
const ODD_BYTES: &[u8] =
    b"\0\x01\x7f\x80\xffBCORYIUDTMKNOdnfiutbwkSEcAPrp\\\t\n\r\x08\x0b\x0cx0789";

/// Checks the corpus of `target`, then what `generate` makes and mutations of that, `tokens` among them.
fn fuzz(
    target: &str,
    tokens: &[&str],
    generate: impl Fn(&mut SplitMix) -> Vec<u8>,
    check: impl Fn(&[u8]),
) {
    let kept = corpus(target);
    for (name, input) in &kept {
        let _replay = Replay { target, input: name.clone() };
        check(input);
    }
    let duration = Duration::from_secs(number("FUZZ_SECONDS").unwrap_or(3));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos();
    let first = number("SEED").unwrap_or_else(|| u64::try_from(now).unwrap());
    println!("fuzzing {target} for {duration:?} from SEED={first}");
    let start = Instant::now();
    let mut inputs = 0_u64;
    let mut seed = first;
    while inputs == 0 || start.elapsed() < duration {
        let _replay = Replay { target, input: format!("SEED={seed}") };
        let mut random = SplitMix(seed);
        let input = generate(&mut random);
        check(&input);
        for _ in 0..MUTANTS {
            check(&mutated(&input, tokens, &mut random));
        }
        inputs += 1;
        seed = seed.wrapping_add(1);
    }
    let kept = kept.len();
    println!(
        "fuzzed {target}: {kept} kept, {inputs} new inputs with {MUTANTS} mutants each, none failed"
    );
}

/// The inputs that are kept of a target, by name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let read = |path: &Path| (path.display().to_string(), std::fs::read(path).unwrap());
    let mut inputs: Vec<_> = entries.map(|entry| read(&entry.unwrap().path())).collect();
    inputs.sort();
    inputs
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}: '{text}' is not a number")))
}

/// Says, while a panic passes, how to see it again.
struct Replay<'a> {
    target: &'a str,
    input: String,
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("fuzzing {} failed; to replay it: {}", self.target, self.input);
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

fn mutated(input: &[u8], tokens: &[&str], random: &mut SplitMix) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        let end = at + random.below(bytes.len() - at + 1).min(24);
        match random.below(9) {
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
            7 if !tokens.is_empty() => {
                bytes.splice(at..end.min(at + random.below(2)), random.of(tokens).bytes());
            }
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
