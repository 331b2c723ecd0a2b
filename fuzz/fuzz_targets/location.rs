//! Any text as the location of a repository: no panic, and what is understood is printed so that it is understood again.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::store::Location;

fuzz_target!(|text: &str| {
    if let Ok(location) = text.parse::<Location>() {
        let again: Location = location.to_string().parse().expect("our own");
        assert_eq!(again, location);
    }
});
