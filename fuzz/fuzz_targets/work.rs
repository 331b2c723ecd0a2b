//! Fuzzes the two documents between controller and mover: no panic, and a written document parses
//! again.
#![no_main]
use libfuzzer_sys::fuzz_target;
use vsm::work::{Report, Work};

fuzz_target!(|json: &[u8]| {
    if let Ok(work) = Work::parse(json) {
        let written = serde_json::to_vec(&work).expect("plain data");
        assert_eq!(Work::parse(&written).expect("our own"), work);
    }
    if let Ok(report) = Report::parse(json) {
        let _ = Report::parse(&report.encode()).expect("our own");
    }
});
