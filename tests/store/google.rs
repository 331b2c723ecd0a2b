//! Tests the listings and credentials of Google Cloud Storage, against fake-gcs-server.

use super::clouds::Cloud;
use super::{bytes, impatient, told};
use crate::common::google::{EMAIL, Google, KEY_ID, PROJECT, TOKEN, service_account};
use crate::common::{loops, scratch};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use std::fs;
use std::process::Command;
use vsm::id::Id;
use vsm::store::{File, FileType, Options, StoreError};

fn options(server: &Google, variables: &[(&str, &str)]) -> Options {
    let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let mut options = Options { environment, retry: impatient(), ..Options::default() };
    options.set(&format!("gs.endpoint={}", server.front.url())).expect("an endpoint");
    options
}

/// The service, as [`super::clouds`] tests it.
pub fn cloud(server: &Google) -> Cloud {
    by(options(server, &[("GOOGLE_ACCESS_TOKEN", TOKEN), ("GOOGLE_PROJECT_ID", PROJECT)]))
}

fn by(options: Options) -> Cloud {
    Cloud { scheme: "gs", options }
}

pub fn long_listings_are_whole(server: &Google) {
    let store = cloud(server).open("listed", "x");
    store.prepare().expect("a bucket");
    let mut written: Vec<Id> = (0..35).map(|seed| Id::of(&bytes(20, seed))).collect();
    for seed in 0..35 {
        let lock = bytes(20, seed);
        store.write(File::new(FileType::Lock, Id::of(&lock)), lock.into()).expect("a lock");
    }
    written.sort_unstable();
    let listed: Vec<Id> = store.list(FileType::Lock).expect("a list").into_iter().map(|(id, _)| id).collect();
    assert_eq!(listed, written);
}

pub fn refusals_name_the_cause_and_no_secret(server: &Google) {
    // A bucket cannot be created without a project.
    let poor = options(server, &[("GOOGLE_ACCESS_TOKEN", TOKEN)]);
    let store = by(poor).open("not-there", "");
    let error = store.prepare().expect_err("no project");
    assert!(told(&error).contains("GOOGLE_PROJECT_ID"), "{}", told(&error));
    server.front.refuse("expired-token");
    let wrong = options(server, &[("GOOGLE_ACCESS_TOKEN", "expired-token")]);
    let store = by(wrong).open("another", "");
    let error = store.list(FileType::Key).expect_err("a wrong token");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(!told(&error).contains("expired-token"), "{}", told(&error));
    let error = by(options(server, &[])).try_open("another", "").err().expect("no credentials");
    assert!(told(&error).contains("GOOGLE_APPLICATION_CREDENTIALS"), "{}", told(&error));
}

/// The token is one that Google can verify with the account's public key, as openssl does here, and
/// the private key is never sent.
pub fn a_service_account_signs_its_own_token(server: &Google) {
    let dir = scratch();
    let file = service_account(dir.path());
    let given = [("GOOGLE_APPLICATION_CREDENTIALS", file.to_str().expect("UTF-8"))];
    let store = by(options(server, &given)).open("another", "");
    store.list(FileType::Key).expect("a list");
    let authorization = server.front.authorization();
    let token = authorization.strip_prefix("Bearer ").expect("a bearer's token");
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let decoded = |text: &str| URL_SAFE_NO_PAD.decode(text).expect("base64");
    fs::write(dir.path().join("signed"), signed).expect("a file");
    fs::write(dir.path().join("signature"), decoded(signature)).expect("a file");
    let verify = "dgst -sha256 -verify public.pem -signature signature signed";
    loops::run(Command::new("openssl").current_dir(dir.path()).args(verify.split(' ')));
    let (head, claims) = signed.split_once('.').expect("a head");
    let part = |text: &str| serde_json::from_slice::<Value>(&decoded(text)).expect("JSON");
    assert_eq!((&part(head)["alg"], &part(head)["kid"]), (&json!("RS256"), &json!(KEY_ID)));
    assert_eq!(part(claims)["iss"], EMAIL);
    assert!(
        part(claims)["scope"]
            .as_str()
            .is_some_and(|scope| scope.contains("https://www.googleapis.com/auth/cloud-platform"))
    );
}
