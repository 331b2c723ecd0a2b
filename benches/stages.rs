//! Benchmarks the stages of a backup: bytes per second of one core, on chunks of 1.5 MiB in memory.
//!
//! * `hash/one`, `hash/two`: SHA-256 of one chunk after the other, and of two side by side.
//! * `seal`, `open`: encrypt and authenticate, authenticate and decrypt.
//! * `compress`, `expand`: zstd at the default level, on random bytes and on text.
//! * `copy`: the bandwidth of memory, as an upper bound.
//!
//! Run `cargo bench --no-default-features --bench stages`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::hint::black_box;
use vsm::crypto::Key;
use vsm::format::compression::{Compression, append_smaller, decompress};
use vsm::hash::hash_all;

#[path = "../tests/common/random.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod random;
use random::Random;

const CHUNK: usize = 3 << 19;

/// Chunks that together do not fit the second-level cache.
const CHUNKS: usize = 16;

/// Words of a small vocabulary, each followed by a random number. Compresses about 3.5:1.
fn text(count: usize) -> Vec<u8> {
    const WORDS: [&str; 8] = ["volume", "snapshot", "restore", "backup", "claim", "storage", "the", "of"];
    let mut random = Random(43);
    let mut text = Vec::with_capacity(count + 32);
    while text.len() < count {
        let number = random.next();
        text.extend_from_slice(WORDS[(number % 8) as usize].as_bytes());
        text.extend_from_slice(format!(" {} ", (number >> 8) % 5000).as_bytes());
    }
    text.truncate(count);
    text
}

fn stages(criterion: &mut Criterion) {
    let random = Random(42).bytes(CHUNK * CHUNKS);
    let text = text(CHUNK * CHUNKS);
    let chunks: Vec<&[u8]> = random.chunks(CHUNK).collect();
    let key = Key::from_bytes(&[7; 64]);
    let mut out = Vec::with_capacity(CHUNK + (1 << 20));

    let mut group = criterion.benchmark_group("stages");
    group.throughput(Throughput::Bytes((CHUNK * CHUNKS) as u64)).sample_size(20);
    group.bench_function("copy", |bencher| {
        bencher.iter(|| {
            for chunk in &chunks {
                out.clear();
                out.extend_from_slice(black_box(chunk));
            }
        });
    });
    group.bench_function("hash/one", |bencher| {
        bencher.iter(|| chunks.iter().map(|chunk| hash_all(&[black_box(chunk)], None).len()).sum::<usize>());
    });
    group.bench_function("hash/two", |bencher| {
        bencher.iter(|| chunks.chunks(2).map(|pair| hash_all(black_box(pair), None).len()).sum::<usize>());
    });
    group.bench_function("seal", |bencher| {
        bencher.iter(|| {
            for chunk in &chunks {
                out.clear();
                key.seal(&[9; 16], black_box(chunk), &mut out);
            }
        });
    });
    let sealed: Vec<Vec<u8>> = chunks
        .iter()
        .map(|chunk| {
            let mut sealed = Vec::new();
            key.seal(&[9; 16], chunk, &mut sealed);
            sealed
        })
        .collect();
    group.bench_function("open", |bencher| {
        bencher.iter(|| {
            for sealed in &sealed {
                out.clear();
                key.open(black_box(sealed), &mut out).expect("sealed above");
            }
        });
    });
    for (name, data) in [("random", &random), ("text", &text)] {
        group.bench_function(format!("compress/{name}"), |bencher| {
            bencher.iter(|| {
                for chunk in data.chunks(CHUNK) {
                    out.clear();
                    append_smaller(Compression::Auto, black_box(chunk), &mut out);
                }
            });
        });
        // Our writer stores an incompressible chunk without a frame; restic stores a frame, which
        // must be expanded.
        let frame = |chunk| {
            let mut frame = Vec::new();
            let smaller = append_smaller(Compression::Auto, chunk, &mut frame);
            if smaller { frame } else { zstd::bulk::compress(chunk, 3).expect("a frame") }
        };
        let frames: Vec<Vec<u8>> = data.chunks(CHUNK).map(frame).collect();
        group.bench_function(format!("expand/{name}"), |bencher| {
            bencher.iter(|| {
                for frame in &frames {
                    out.clear();
                    decompress(black_box(frame), Some(CHUNK as u64), 1 << 30, &mut out).expect("compressed above");
                }
            });
        });
    }
    group.finish();
}

criterion_group!(benches, stages);
criterion_main!(benches);
