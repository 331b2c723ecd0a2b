//! Runs the tests of this folder on real servers, each with a server of its own.

use super::{Endpoint, azure, faults, google, s3, traffic, upstream};
use crate::common::azurite::Azurite;
use crate::common::google::Google;
use crate::common::s3::{ACCESS, BUCKET, S3, SECRET};
use crate::common::{certificates, scratch};
use std::fs;
use vsm::id::Id;
use vsm::store::FileType;

fn endpoint(server: &S3, scheme: &str) -> Endpoint {
    let url = format!("{scheme}://127.0.0.1:{}", server.port());
    Endpoint { url, bucket: BUCKET.into(), access: ACCESS.into(), secret: SECRET.into() }
}

/// Makes a test of each function for every S3 server.
macro_rules! on_each_s3_server {
    ($($module:ident :: $test:ident),*) => {
        mod on_versitygw {
            use super::*;
            $( #[test] fn $test() { $module::$test(&endpoint(&S3::new(), "http")); } )*
        }
        mod on_minio {
            use super::*;
            $( #[test] #[ignore = "the full tier: tests/full runs it"] fn $test() { $module::$test(&endpoint(&S3::minio(), "http")); } )*
        }
    };
}

on_each_s3_server! {
    s3::conforms_below_a_prefix, s3::conforms_in_the_buckets_root, s3::refused_credentials_fail_at_once,
    s3::anonymous_requests_are_unsigned, s3::a_session_token_is_sent_and_signed,
    s3::a_pack_is_one_request, s3::objects_have_the_names_of_restics_layout, s3::foreign_objects_are_not_listed, s3::long_listings_are_whole,
    s3::directories_are_listed_whole, s3::a_missing_bucket_is_named_and_made, faults::a_cut_download_is_whole, faults::a_cut_upload_is_whole,
    faults::a_create_whose_answer_was_lost_is_a_success, faults::server_errors_are_retried, faults::a_stalled_request_is_retried,
    faults::requests_wait_for_the_end_of_an_outage_up_to_a_limit, faults::creation_without_conditions, faults::a_wrong_address_fails_soon,
    faults::the_default_patience_at_a_wrong_address_is_short, faults::a_survey_ends_when_the_store_fails, traffic::the_account_equals_the_requests_that_the_server_sees,
    traffic::limits_are_kept, traffic::changed_limits_apply_to_running_transfers
}

/// MinIO does not know a storage class of that name.
#[test]
fn packs_have_the_storage_class() {
    s3::packs_have_the_storage_class(&endpoint(&S3::new(), "http"));
}

/// The server stores objects as files, which are faster to create directly.
#[test]
fn many_pages_are_listed_by_prefixes() {
    let server = S3::new();
    let data = server.root().join(BUCKET).join("many/data");
    let mut expected: Vec<(Id, u64)> = (0..11_000u32).map(|n| (Id::of(&n.to_le_bytes()), 0)).collect();
    for (id, _) in &expected {
        let name = id.to_string();
        fs::create_dir_all(data.join(&name[..2])).expect("a directory");
        fs::write(data.join(&name[..2]).join(&name), "").expect("a file");
    }
    expected.sort();
    let endpoint = endpoint(&server, "http");
    let options = endpoint.options();
    let store = endpoint.open_with("many", &options).expect("a store");
    let mut listed = store.list(FileType::Pack).expect("a list");
    listed.sort();
    assert!(listed == expected, "{} files", listed.len());
    // One page, which has all names with the first digit 0, and one page for each other digit.
    assert_eq!(options.traffic.account().lists, 16);
}

#[test]
fn the_region_is_detected() {
    let server = S3::with(&["--region", "eu-test-7"]);
    s3::the_region_is_detected(&endpoint(&server, "http"), "eu-test-7");
}

#[test]
fn a_certificate_authority_can_be_named() {
    let dir = scratch();
    certificates::make(dir.path(), "IP:127.0.0.1");
    let file = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_owned();
    let server = S3::with(&["--cert", &file("server.pem"), "--key", &file("server.key")]);
    s3::a_certificate_authority_can_be_named(&endpoint(&server, "https"), &dir.path().join("ca.pem"));
}

/// S3 makes these copies only if the client is configured for them, and our store copies nothing.
const COPIES_UNDER_A_CONDITION: [&str; 2] = ["copy_if_not_exists", "copy_rename_nonexistent_object"];

#[test]
fn upstreams_functions_hold_on_versitygw() {
    let server = S3::new();
    let server = endpoint(&server, "http");
    // versitygw compares times with those of files, by the second.
    let fails = [&["get_opts"][..], &COPIES_UNDER_A_CONDITION].concat();
    upstream::conforms(&server.location(""), &server.options(), &fails);
}

#[test]
#[ignore = "the full tier: tests/full runs it"]
fn upstreams_functions_hold_on_minio() {
    let server = S3::minio();
    let server = endpoint(&server, "http");
    upstream::conforms(&server.location(""), &server.options(), &COPIES_UNDER_A_CONDITION);
}

#[test]
fn upstreams_functions_hold_on_azure() {
    azure::cloud(&Azurite::new()).is_up_to_upstream(&[]);
}

#[test]
fn upstreams_functions_hold_on_google() {
    // The front server knows only the calls that our store makes.
    let fails = [
        "get_opts",
        "put_opts",
        "put_get_attributes",
        "stream_get",
        "rename_and_copy",
        "copy_if_not_exists",
        "copy_rename_nonexistent_object",
    ];
    google::cloud(&Google::new()).is_up_to_upstream(&fails);
}

#[test]
fn azure_conforms() {
    let server = Azurite::new();
    azure::cloud(&server).is_right();
    azure::refusals_name_the_cause_and_no_secret(&server);
}

#[test]
fn google_conforms() {
    let server = Google::new();
    google::cloud(&server).is_right();
    google::long_listings_are_whole(&server);
    google::refusals_name_the_cause_and_no_secret(&server);
    google::a_service_account_signs_its_own_token(&server);
}
