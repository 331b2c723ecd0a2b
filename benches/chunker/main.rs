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
//! Before that, restic's own chunker cuts the same bytes in turn with each kernel. Both must find
//! the same chunks; the ratio of their speeds is printed. Needs Go, which builds `restic/main.go`.
//!
//! Run `cargo bench --no-default-features --bench chunker`.

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Instant;

use criterion::{Criterion, SamplingMode, Throughput, criterion_group};
use vsm::chunk::{Cutter, EndOfFile, MAX_SIZE, MIN_SIZE, Polynomial, Scanner, WINDOW, reference};

#[path = "../../tests/common/random.rs"]
#[allow(dead_code, reason = "tests use more of it")]
mod random;
use random::Random;

const SIZE: usize = 256 << 20;

/// Counts all candidates of `data`, so that every position is tested.
fn count_candidates(data: &[u8], find: impl Fn(&[u8], usize, usize) -> Option<usize>) -> usize {
    let mut lo = WINDOW;
    let mut count = 0;
    while let Some(hit) = find(data, lo, data.len()) {
        count += 1;
        lo = hit + 1;
    }
    count
}

fn chunk_lengths(data: &[u8], scanner: &Arc<Scanner>) -> Vec<usize> {
    let mut cutter = Cutter::new(Arc::clone(scanner));
    let mut rest = data;
    let mut lengths = Vec::new();
    while let Some(length) = cutter.next_cut(rest, EndOfFile::Reached) {
        lengths.push(length);
        rest = &rest[length..];
    }
    lengths
}

fn polynomial() -> Polynomial {
    Polynomial::new(0x3da3358b4dc173).expect("irreducible")
}

fn kernels(polynomial: Polynomial) -> Vec<(&'static str, Arc<Scanner>)> {
    let kernels = Scanner::with_each_kernel(polynomial).into_iter();
    kernels.map(|(name, scanner)| (name, Arc::new(scanner))).collect()
}

/// Compares each kernel with restic's chunker. The fastest round of each counts, which excludes
/// other load on the machine.
fn beside_restic(data: &[u8]) {
    const ROUNDS: usize = 5;
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = root.join("target/bench");
    fs::create_dir_all(&scratch).expect("a directory");
    let (program, file) = (scratch.join("restic-chunker"), scratch.join("chunker-input"));
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(root.join("benches/chunker/restic"))
        .status();
    assert!(built.expect("go is in the path").success(), "restic's chunker was not built");
    fs::write(&file, data).expect("room for the bytes");
    let polynomial = polynomial();
    for (name, scanner) in kernels(polynomial) {
        let output =
            Command::new(&program).arg(format!("{:x}", polynomial.bits())).arg(&file).arg(ROUNDS.to_string()).output();
        let output = output.expect("restic's chunker starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("numbers");
        let mut lines = text.lines();
        let theirs: f64 = lines.next().and_then(|line| line.parse().ok()).expect("seconds");
        let expected: Vec<usize> = lines.map(|line| line.parse().expect("a length")).collect();
        let mut ours = f64::MAX;
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let lengths = chunk_lengths(black_box(data), &scanner);
            ours = ours.min(start.elapsed().as_secs_f64());
            assert!(lengths == expected, "{name} cuts at other positions than restic");
        }
        let rate = |seconds: f64| data.len() as f64 / seconds / 1e9;
        println!("{name}: {:.2} GB/s, restic {:.2}: {:.1} times", rate(ours), rate(theirs), theirs / ours);
    }
    fs::remove_file(file).expect("it can be removed");
}

fn chunker(criterion: &mut Criterion) {
    let polynomial = polynomial();
    let kernels = kernels(polynomial);
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
            bencher.iter(|| chunk_lengths(black_box(&data), scanner));
        });
    }
    cut.bench_function("fastcdc", |bencher| {
        let chunks = |data| fastcdc::v2020::FastCDC::new(data, MIN_SIZE, 1 << 20, MAX_SIZE);
        bencher.iter(|| chunks(black_box(&data)).count());
    });
    cut.finish();
}

criterion_group!(benches, chunker);

fn main() {
    beside_restic(&Random(42).bytes(SIZE));
    benches();
    Criterion::default().configure_from_args().final_summary();
}
