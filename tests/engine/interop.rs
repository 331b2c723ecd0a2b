//! Tests that each peer reads our repositories and we read theirs, in both formats, down to the
//! last nanosecond.
//!
//! [`EXCEPTIONS`] lists the limits of the peers. The tests require its rows: they fail if a
//! difference has no row, and if a row no longer occurs. `docs/reference/interop.md` has the same
//! table.

use crate::common::compare::{self, Difference, Options, What};
use crate::common::corpus::{self, Corpus};
use crate::common::loops::LoopFs;
use crate::common::peers::{Peer, Repo};
use std::path::Path;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Writes,
    Reads,
}
use Side::{Reads, Writes};

/// A part of the corpus that one side of the transfer loses.
struct Exception {
    who: &'static [Peer],
    side: Side,
    what: What,
    /// All paths in the corpus that differ: every one of them must.
    paths: &'static [&'static str],
    because: &'static str,
}

const RESTIC: &[Peer] = &[Peer::Restic014, Peer::Restic019];

const EXCEPTIONS: &[Exception] = &[
    Exception {
        who: &[Peer::Restic014, Peer::Restic019, Peer::Vsm],
        side: Writes,
        what: What::Missing,
        paths: &["special/socket"],
        because: "a socket is made by the process that listens on it: restic skips it, and so do we",
    },
    Exception {
        who: &[Peer::Restic014, Peer::Restic019, Peer::Vsm],
        side: Reads,
        what: What::Missing,
        paths: &["special/socket"],
        because: "a socket that a repository does hold (rustic stores them) is not restored",
    },
    Exception {
        who: &[Peer::Restic014],
        side: Writes,
        what: What::Target,
        paths: &["links/not utf-8"],
        because: "restic before 0.16 stores link targets as UTF-8 only (restic#3311)",
    },
    Exception {
        who: &[Peer::Restic014],
        side: Reads,
        what: What::Target,
        paths: &["links/not utf-8"],
        because: "restic before 0.16 does not know `linktarget_raw` (restic#3311)",
    },
    Exception {
        who: &[Peer::Restic014],
        side: Writes,
        what: What::Attributes,
        paths: &["xattrs/symlink"],
        because: "restic 0.14 reads no attributes of symbolic links",
    },
    Exception {
        who: &[Peer::Restic014],
        side: Reads,
        what: What::Attributes,
        paths: &["xattrs/symlink"],
        because: "restic 0.14 sets no attributes on symbolic links",
    },
    Exception {
        who: RESTIC,
        side: Reads,
        what: What::Mtime,
        paths: &["times/2262, one past", "times/2446, the last"],
        because: "restic sets times through a 64-bit count of nanoseconds, which ends in April 2262",
    },
    Exception {
        who: &[Peer::Restic014, Peer::Restic019, Peer::Rustic],
        side: Reads,
        what: What::Links,
        paths: &[
            "links/a/chardev pair",
            "links/a/fifo pair",
            "links/a/symlink pair",
            "links/b/chardev pair",
            "links/b/fifo pair",
            "links/b/symlink pair",
        ],
        because: "the peers restore only regular files as hard links; other nodes come back one by one",
    },
    Exception {
        who: &[Peer::Rustic],
        side: Reads,
        what: What::Mode,
        paths: &["modes/file 0000"],
        because: "a mode of 0 is stored by leaving it out; rustic then leaves the new file's mode as it is",
    },
    Exception {
        who: &[Peer::Rustic],
        side: Writes,
        what: What::Mode,
        paths: &["."],
        because: "rustic stores the directories of a backup's own path with mode 0755 and nothing else",
    },
    Exception { who: &[Peer::Rustic], side: Writes, what: What::Owner, paths: &["."], because: "as above: no owner" },
    Exception { who: &[Peer::Rustic], side: Writes, what: What::Mtime, paths: &["."], because: "as above: no time" },
    Exception {
        who: &[Peer::Rustic],
        side: Writes,
        what: What::Attributes,
        paths: &["."],
        because: "as above: no attributes",
    },
];

impl Exception {
    fn covers(&self, difference: &Difference) -> bool {
        self.what == difference.what && self.paths.iter().any(|path| difference.path == Path::new(path))
    }
}

/// Asserts that a restored corpus has exactly the differences that the table lists for this writer
/// and this reader.
fn demand_only_exceptions(writer: Peer, reader: Peer, found: &[Difference]) {
    let rows = || EXCEPTIONS.iter().filter(|row| row.who.contains(&if row.side == Writes { writer } else { reader }));
    let unknown: Vec<_> =
        found.iter().filter(|difference| !rows().any(|row| row.covers(difference))).cloned().collect();
    let is_found = |what: What, path: &str| found.iter().any(|one| one.what == what && one.path == Path::new(path));
    let paths = rows().flat_map(|row| row.paths.iter().map(move |path| (row.what, *path)));
    let past: Vec<_> = paths.filter(|(what, path)| !is_found(*what, path)).collect();
    assert!(
        unknown.is_empty() && past.is_empty(),
        "{reader:?} restored from {writer:?}\nin no row of the table:\n{}\nin the table, but restored whole: {past:?}",
        compare::listed(&unknown)
    );
}

/// A repository by `writer` with the corpus in it.
fn written_by(writer: Peer, format: u32, corpus: &Corpus) -> Repo {
    // rustic can work in a repository of format 1, but not create one.
    let maker = if writer == Peer::Rustic && format == 1 { Peer::Restic019 } else { writer };
    let repo = Repo::made_by(maker, format);
    repo.backup(writer, corpus.parent(), corpus::NAME, &[]);
    repo
}

/// Restores the newest snapshot with `reader` and compares it with the corpus.
pub fn demand_restored(repo: &Repo, writer: Peer, reader: Peer, corpus: &Corpus) {
    let fs = LoopFs::new(512 << 20);
    let target = fs.path().join("restored");
    repo.restore(reader, "latest", &target).ok();
    // Our restore finds holes without an option; the peers need one, and then leave other holes
    // (see `sparse_files_stay_sparse_in_restic`).
    let options = Options { root: true, holes: reader == Peer::Vsm };
    demand_only_exceptions(writer, reader, &compare::trees(&corpus.root(), &target.join(corpus::NAME), options));
}

/// Checks, lists and restores a repository of `writer` with our program; the listing equals
/// restic's.
fn we_read(writer: Peer, format: u32) {
    let corpus = Corpus::shared();
    let repo = written_by(writer, format, &corpus);
    assert_eq!(repo.run(Peer::Restic019, ["cat", "config"]).ok().json()["version"], format);
    repo.check(Peer::Vsm).ok();
    let (expected, found) = (repo.ls(Peer::Restic019, "latest"), repo.ls(Peer::Vsm, "latest"));
    assert!(expected.len() > 1000, "{} nodes", expected.len());
    for (theirs, ours) in expected.iter().zip(&found) {
        assert_eq!(theirs, ours, "ls: restic's line, then ours");
    }
    assert_eq!(expected.len(), found.len());
    demand_restored(&repo, writer, Peer::Vsm, &corpus);
}

/// Checks and restores a repository of ours with `reader`.
fn reads_ours(reader: Peer, format: u32) {
    let corpus = Corpus::shared();
    let repo = written_by(Peer::Vsm, format, &corpus);
    assert_eq!(repo.run(Peer::Restic019, ["cat", "config"]).ok().json()["version"], format);
    let checked = repo.check(reader).ok();
    assert!(!checked.errors().to_lowercase().contains("warn"), "{reader:?} warns\n{checked}");
    demand_restored(&repo, Peer::Vsm, reader, &corpus);
}

#[test]
fn we_read_restic_014_format_1() {
    we_read(Peer::Restic014, 1);
}

#[test]
fn we_read_restic_014_format_2() {
    we_read(Peer::Restic014, 2);
}

#[test]
fn we_read_restic_019_format_1() {
    we_read(Peer::Restic019, 1);
}

#[test]
fn we_read_restic_019_format_2() {
    we_read(Peer::Restic019, 2);
}

#[test]
fn we_read_rustic_format_1() {
    we_read(Peer::Rustic, 1);
}

#[test]
fn we_read_rustic_format_2() {
    we_read(Peer::Rustic, 2);
}

#[test]
fn restic_014_reads_our_format_1() {
    reads_ours(Peer::Restic014, 1);
}

#[test]
fn restic_014_reads_our_format_2() {
    reads_ours(Peer::Restic014, 2);
}

#[test]
fn restic_019_reads_our_format_1() {
    reads_ours(Peer::Restic019, 1);
}

#[test]
fn restic_019_reads_our_format_2() {
    reads_ours(Peer::Restic019, 2);
}

#[test]
fn rustic_reads_our_format_1() {
    reads_ours(Peer::Rustic, 1);
}

#[test]
fn rustic_reads_our_format_2() {
    reads_ours(Peer::Rustic, 2);
}

#[test]
fn we_read_ours() {
    reads_ours(Peer::Vsm, 1);
    reads_ours(Peer::Vsm, 2);
}

/// The exceptions are limits of the peers: they occur among the peers, without us.
#[test]
fn the_exceptions_occur_among_the_peers() {
    let corpus = Corpus::shared();
    for format in [1, 2] {
        for (writer, reader) in [
            (Peer::Restic014, Peer::Restic019),
            (Peer::Rustic, Peer::Restic019),
            (Peer::Restic019, Peer::Restic014),
            (Peer::Restic019, Peer::Rustic),
        ] {
            let repo = Repo::empty(format);
            repo.backup(writer, corpus.parent(), corpus::NAME, &[]);
            repo.check(reader).ok();
            demand_restored(&repo, writer, reader, &corpus);
        }
    }
}

/// rustic refuses to create a repository of format 1, so its tests of format 1 start from one of
/// restic's.
#[test]
fn rustic_makes_no_format_1() {
    let run = Repo::new().init(Peer::Rustic, 1);
    assert!(!run.succeeded() && run.errors().contains("Downgrading config version is unsupported"), "{run}");
}

/// Files with holes that we stored take as much space as restic's own when restic restores both
/// sparsely.
#[test]
fn sparse_files_stay_sparse_in_restic() {
    let corpus = Corpus::shared();
    let source = format!("{}/files/sparse", corpus::NAME);
    let (theirs, ours) = (Repo::empty(2), Repo::empty(2));
    let mut taken = Vec::new();
    for (repo, writer) in [(theirs, Peer::Restic019), (ours, Peer::Vsm)] {
        repo.backup(writer, corpus.parent(), &source, &[]);
        let fs = LoopFs::new(512 << 20);
        let restored = fs.path().join("restored");
        repo.restore_with(Peer::Restic019, &format!("latest:/{source}"), &restored, &["--sparse"]).ok();
        taken.push(compare::trees(&corpus.parent().join(&source), &restored, Options { root: false, holes: true }));
    }
    assert_eq!(
        compare::listed(&taken[1]),
        compare::listed(&taken[0]),
        "the holes that restic restores from our snapshot and from its own"
    );
    assert!(taken[0].iter().all(|difference| difference.what == What::Holes), "{}", compare::listed(&taken[0]));
}

/// `docs/reference/interop.md` has exactly this table under its heading. VSM_BLESS=1 rewrites it.
#[test]
fn the_interop_document_has_the_table() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference/interop.md");
    let text = std::fs::read_to_string(&path).expect("docs/reference/interop.md");
    let (before, rest) = text.split_once("<!-- exceptions -->\n").expect("the mark before the table");
    let (table, after) = rest.split_once("<!-- end of exceptions -->").expect("the mark after the table");
    let expected = table_as_markdown();
    if std::env::var_os("VSM_BLESS").is_some() {
        std::fs::write(&path, format!("{before}<!-- exceptions -->\n{expected}<!-- end of exceptions -->{after}"))
            .expect("docs");
    } else {
        assert_eq!(table, expected, "run this test once with VSM_BLESS=1");
    }
}

fn table_as_markdown() -> String {
    let mut text = String::from("| who | side | what | in the corpus | because |\n| --- | --- | --- | --- | --- |\n");
    for row in EXCEPTIONS {
        let who: Vec<_> = row.who.iter().map(|peer| peer.name()).collect();
        let paths: Vec<_> = row.paths.iter().map(|path| format!("`{path}`")).collect();
        let side = if row.side == Writes { "writes" } else { "reads" };
        let what = format!("{:?}", row.what).to_lowercase();
        text.push_str(&format!("| {} | {side} | {what} | {} | {} |\n", who.join(", "), paths.join(", "), row.because));
    }
    text
}
