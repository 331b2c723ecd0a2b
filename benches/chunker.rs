//! Throughput of cut-point search on 256 MiB of random bytes in memory, in bytes of file per
//! second.
//!
//! * `scan`: every position is tested. The reference form is one lane, bound by the latency of its
//!   look-ups.
//! * `cut`: chunks as in a backup, where the minimum size skips a third of the positions.
//! * `reference` is the plain form, the others are the kernels this processor can run.
//! * `cut/fastcdc`: another algorithm with other cuts, at the same sizes, as a yardstick. No
//!   repository could use it.
//!
//! Run `cargo bench --no-default-features --bench chunker`.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use vsm::chunk::{Cutter, MAX_SIZE, MIN_SIZE, Polynomial, Scanner, WINDOW, reference};

#[path = "../tests/common/random.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod random;
use random::Random;

const SIZE: usize = 256 << 20;

/// Asks for all candidates of `data`, so that every position is looked at.
fn count_candidates(data: &[u8], find: impl Fn(&[u8], usize, usize) -> Option<usize>) -> usize {
    let mut lo = WINDOW;
    let mut count = 0;
    while let Some(hit) = find(data, lo, data.len()) {
        count += 1;
        lo = hit + 1;
    }
    count
}

fn count_chunks(data: &[u8], scanner: &Arc<Scanner>) -> usize {
    let mut cutter = Cutter::new(Arc::clone(scanner));
    let mut rest = data;
    let mut count = 0;
    while let Some(length) = cutter.next_cut(rest, true) {
        count += 1;
        rest = &rest[length..];
    }
    count
}

fn chunker(criterion: &mut Criterion) {
    let polynomial = Polynomial::new(0x3da3358b4dc173).expect("irreducible");
    let kernels = Scanner::with_each_kernel(polynomial).into_iter();
    let kernels: Vec<_> = kernels.map(|(name, scanner)| (name, Arc::new(scanner))).collect();
    let data = Random(42).bytes(SIZE);

    let mut scan = criterion.benchmark_group("scan");
    scan.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    scan.bench_function("reference", |bencher| {
        let find = |data: &[u8], lo, hi| reference::find_first(polynomial, data, lo, hi);
        bencher.iter(|| count_candidates(black_box(&data), find));
    });
    for (name, scanner) in &kernels {
        scan.bench_function(*name, |bencher| {
            let find = |data: &[u8], lo, hi| scanner.find_first(data, lo, hi);
            bencher.iter(|| count_candidates(black_box(&data), find));
        });
    }
    scan.finish();

    let mut cut = criterion.benchmark_group("cut");
    cut.throughput(Throughput::Bytes(SIZE as u64)).sample_size(10).sampling_mode(SamplingMode::Flat);
    cut.bench_function("reference", |bencher| {
        bencher.iter(|| reference::chunk_lengths(polynomial, black_box(&data)).len());
    });
    for (name, scanner) in &kernels {
        cut.bench_function(*name, |bencher| {
            bencher.iter(|| count_chunks(black_box(&data), scanner));
        });
    }
    cut.bench_function("fastcdc", |bencher| {
        let chunks = |data| fastcdc::v2020::FastCDC::new(data, MIN_SIZE, 1 << 20, MAX_SIZE);
        bencher.iter(|| chunks(black_box(&data)).count());
    });
    cut.finish();
}

criterion_group!(benches, chunker);
criterion_main!(benches);
