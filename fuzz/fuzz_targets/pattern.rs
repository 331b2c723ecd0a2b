//! Fuzzes patterns and paths: no panic, and a pattern that matches a path also matches the paths
//! below it.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::pattern::{Case, Patterns};

fuzz_target!(|input: (String, Vec<u8>)| {
    let (pattern, path) = input;
    let mut patterns = Patterns::default();
    if patterns.push(&pattern, Case::Sensitive).is_ok() && patterns.matches(&path) {
        let below = [&path[..], b"/below"].concat();
        assert!(patterns.matches(&below));
        assert!(patterns.may_match_below(&path));
    }
});
