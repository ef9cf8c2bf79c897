//! What Postgres sends: frames, messages, lines of COPY. The oracles are those of the decoder's properties.

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use waldex::lsn::Lsn;
use waldex::pgoutput::envelope::Frame;

use super::{ODD_BYTES, SplitMix, fuzz};
use crate::decoder::{check_copy_line, check_frame, check_payload, message};
use crate::support::encode::encode_frame;

#[test]
fn messages() {
    fuzz("messages", &[], |random| generated_payload(random.next()), check_payload);
}

#[test]
fn frames() {
    fuzz("frames", &[], generated_frame, check_frame);
}

#[test]
fn copy_lines() {
    fuzz("copy-lines", &[], generated_line, check_copy_line);
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
