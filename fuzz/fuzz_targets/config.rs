//! Fuzzes the config parser: no panic, and a parsed config survives encoding and decoding.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::format::config::Config;

fuzz_target!(|json: &[u8]| {
    if let Ok(config) = Config::decode(json) {
        assert_eq!(Config::decode(&config.encode()).expect("our own JSON"), config);
    }
});
