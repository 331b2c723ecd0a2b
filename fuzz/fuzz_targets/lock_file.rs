//! Fuzzes the lock parser: no panic, and the kind of a parsed lock survives encoding and decoding.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::lock_file::LockFile;

fuzz_target!(|json: &[u8]| {
    if let Ok(lock) = LockFile::decode(json) {
        assert_eq!(LockFile::decode(&lock.encode()).expect("our own JSON").exclusive, lock.exclusive);
    }
});
