//! Fuzzes the parser of locations: no panic, and a printed location parses to the same location.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::store::Location;

fuzz_target!(|text: &str| {
    if let Ok(location) = text.parse::<Location>() {
        let again: Location = location.to_string().parse().expect("our own");
        assert_eq!(again, location);
    }
});
