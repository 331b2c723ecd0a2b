//! Tests that our chunk boundaries equal restic's, over more than 1 GiB of data of every kind that
//! moves a boundary.

use super::same_bytes::EXACT;
use crate::common::peers::{Peer, Repo};
use crate::common::{Random, scratch};
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::Path;

const MIB: u64 = 1 << 20;

/// Writes the files and returns their total size.
fn generate(dir: &Path) -> u64 {
    let file = |name: &str, fill: &mut dyn FnMut(&mut BufWriter<File>) -> std::io::Result<()>| {
        let mut out = BufWriter::with_capacity(1 << 20, File::create(dir.join(name)).expect("a file"));
        fill(&mut out).and_then(|()| out.flush()).unwrap_or_else(|error| panic!("{name}: {error}"));
        out.get_ref().metadata().expect("its length").len()
    };
    let mut size = 0;

    size += file("random", &mut |out| {
        let mut random = Random(1001);
        for _ in 0..448 {
            out.write_all(&random.bytes(MIB as usize))?;
        }
        out.write_all(&random.bytes(12_345))
    });

    // A period below the window, one above it, one near the smallest chunk: boundaries everywhere,
    // nowhere, or rarely.
    for period in [48, 4099, 600_000] {
        let unit = Random(period as u64).bytes(period);
        size += file(&format!("period {period}"), &mut |out| {
            (0..64 * MIB / period as u64).try_for_each(|_| out.write_all(&unit))
        });
    }

    // Pieces of every kind, of every length up to 3 MiB, in random order: runs of zeros and of
    // other bytes, new random data, and earlier data at another alignment.
    size += file("mixed", &mut |out| {
        let mut random = Random(2002);
        let seen = Random(1001).bytes(4 * MIB as usize);
        let mut written = 0;
        while written < 384 * MIB {
            let len = match random.below(4) {
                0 => random.below(200) + 1,
                1 => random.below(70_000) + 1,
                _ => random.below(3 * MIB) + 1,
            } as usize;
            let piece = match random.below(5) {
                0 | 1 => random.bytes(len),
                2 => vec![0; len],
                3 => vec![random.next() as u8; len],
                _ => {
                    let from = random.below((seen.len() - len) as u64) as usize;
                    seen[from..from + len].to_vec()
                }
            };
            out.write_all(&piece)?;
            written += len as u64;
        }
        Ok(())
    });

    // Holes are zeros to every reader.
    size += file("sparse", &mut |out| {
        let mut random = Random(3003);
        out.get_mut().set_len(160 * MIB + 77)?;
        for _ in 0..12 {
            out.seek(SeekFrom::Start(random.below(159 * MIB)))?;
            let len = random.below(MIB) as usize;
            out.write_all(&random.bytes(len))?;
        }
        Ok(())
    });

    // Every length around the limits of a chunk.
    for len in (512 << 10) - 66..(512 << 10) + 2 {
        size += file(&format!("length {len}"), &mut |out| out.write_all(&Random(4004).bytes(len)));
    }
    size
}

/// The chunks, as id and length, of each file of the newest snapshot, whose root has one directory.
fn chunks(repo: &Repo) -> BTreeMap<String, Vec<(String, u64)>> {
    let mut lengths = HashMap::new();
    for index in repo.list("index") {
        let index = repo.run(Peer::Restic019, ["cat", "index", &index]).ok().json();
        for blob in
            index["packs"].as_array().expect("packs").iter().flat_map(|pack| pack["blobs"].as_array().expect("blobs"))
        {
            let length =
                blob["uncompressed_length"].as_u64().unwrap_or_else(|| blob["length"].as_u64().expect("a length") - 32);
            lengths.insert(blob["id"].as_str().expect("an id").to_owned(), length);
        }
    }
    let root = repo.tree(&repo.newest_tree());
    let files = repo.tree(root[0]["subtree"].as_str().expect("a directory"));
    let with_length = |id: &serde_json::Value| {
        let id = id.as_str().expect("an id").to_owned();
        let length = *lengths.get(&id).unwrap_or_else(|| panic!("{id} is in no index"));
        (id, length)
    };
    let content =
        |node: &serde_json::Value| node["content"].as_array().expect("content").iter().map(with_length).collect();
    files.iter().map(|node| (node["name"].as_str().expect("a name").to_owned(), content(node))).collect()
}

#[test]
fn chunk_boundaries_equal_restics_over_a_gibibyte() {
    let dir = scratch();
    let data = dir.path().join("data");
    std::fs::create_dir(&data).expect("a directory");
    let size = generate(&data);
    assert!(size >= 1 << 30, "only {size} bytes");

    let theirs = Repo::made_by(Peer::Restic019, 2);
    let made = theirs.backup(Peer::Restic019, dir.path(), "data", &["--compression", "off"]);
    assert_eq!(made["total_bytes_processed"], size);

    // In the same repository every blob exists already.
    let force = [&EXACT[..], &["--force"]].concat();
    let added = theirs.backup(Peer::Vsm, dir.path(), "data", &force);
    assert_eq!((&added["data_blobs"], &added["tree_blobs"]), (&0.into(), &0.into()), "ours after restic: {added}");
    assert_eq!(added["total_bytes_processed"], size, "all of it was read: {added}");

    // In a new repository with the same polynomial the chunks are the same, each checked by restic.
    let ours = Repo::with_cuts_of(&theirs);
    ours.backup(Peer::Vsm, dir.path(), "data", &EXACT);
    ours.check(Peer::Restic019).ok();
    let (expected, found) = (chunks(&theirs), chunks(&ours));
    assert!(expected["random"].len() > 250, "{} chunks", expected["random"].len());
    for (name, cuts) in &expected {
        assert_eq!(
            cuts.iter().map(|(_, length)| length).sum::<u64>(),
            std::fs::metadata(data.join(name)).expect("the file").len()
        );
        let Some(wrong) = (0..cuts.len().max(found[name].len())).find(|at| cuts.get(*at) != found[name].get(*at))
        else {
            continue;
        };
        let start: u64 = cuts[..wrong].iter().map(|(_, length)| length).sum();
        panic!("{name}: chunk {wrong} at {start}: restic {:?}, ours {:?}", cuts.get(wrong), found[name].get(wrong));
    }
    assert_eq!(expected.len(), found.len());
    let added = ours.backup(Peer::Restic019, dir.path(), "data", &["--force"]);
    assert_eq!((&added["data_blobs"], &added["tree_blobs"]), (&0.into(), &0.into()), "restic after ours: {added}");
}
