//! Fuzzes the parser of times: no panic, and a parsed time is printed as the same instant.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::time::Time;

fuzz_target!(|text: &str| {
    if let Ok(time) = Time::parse(text) {
        let again = Time::parse(&time.to_string()).expect("our own");
        assert_eq!(again.instant(), time.instant());
    }
});
