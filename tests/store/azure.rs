//! Tests the credentials of Azure Blob Storage, against Azurite.

use super::clouds::Cloud;
use super::{impatient, told};
use crate::common::azurite::{ACCOUNT, Azurite, CONTAINER, KEY};
use vsm::store::{FileType, Options, StoreError};

fn options(server: &Azurite, key: &str) -> Options {
    let pairs = [("AZURE_ACCOUNT_NAME", ACCOUNT), ("AZURE_ACCOUNT_KEY", key)];
    let environment = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).into_iter().collect();
    let mut options = Options { environment, retry: impatient(), ..Options::default() };
    options.set(&format!("azure.endpoint={}", server.endpoint())).expect("an endpoint");
    options
}

/// The service, as [`super::clouds`] tests it.
pub fn cloud(server: &Azurite) -> Cloud {
    by(options(server, KEY))
}

fn by(options: Options) -> Cloud {
    Cloud { scheme: "azure", options }
}

pub fn refusals_name_the_cause_and_no_secret(server: &Azurite) {
    let wrong = options(server, "d3Jvbmcga2V5");
    let store = by(wrong.clone()).open(CONTAINER, "");
    let error = store.list(FileType::Key).expect_err("a wrong key");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    assert!(!told(&error).contains("d3Jvbmcga2V5"), "{}", told(&error));
    let nobody = Options { environment: Default::default(), ..wrong };
    let error = by(nobody).try_open(CONTAINER, "").err().expect("no account");
    assert!(told(&error).contains("AZURE_ACCOUNT_NAME"), "{}", told(&error));
}
