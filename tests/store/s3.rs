//! Tests S3 against a real server: conformance, and the features of buckets, regions and
//! credentials.

use super::conformance::conforms;
use super::proxy::Proxy;
use super::{Endpoint, bytes, listen, told};
use std::path::Path;
use vsm::id::Id;
use vsm::store::{File, FileType, Place, StoreError};

pub fn conforms_below_a_prefix(endpoint: &Endpoint) {
    conforms(&*endpoint.open("deep/er/prefix with space/100%25~[x]"));
}

pub fn conforms_in_the_buckets_root(endpoint: &Endpoint) {
    conforms(&*endpoint.open(""));
}

/// Objects are where restic looks for them.
pub fn objects_have_the_names_of_restics_layout(endpoint: &Endpoint) {
    let store = endpoint.open("lay/out");
    let content = bytes(100, 1);
    let id = Id::of(&content);
    for ty in [FileType::Config, FileType::Key, FileType::Lock, FileType::Snapshot, FileType::Index, FileType::Pack] {
        let file = if ty == FileType::Config { File::CONFIG } else { File::new(ty, id) };
        store.write(file, content.clone().into()).expect("a file");
    }
    let shard = format!("data/{}/{id}", &id.to_string()[..2]);
    for name in [
        "config",
        &format!("keys/{id}"),
        &format!("locks/{id}"),
        &format!("snapshots/{id}"),
        &format!("index/{id}"),
        &shard,
    ] {
        assert_eq!(endpoint.object(&format!("lay/out/{name}")), content);
    }
}

/// Foreign objects between ours are ignored.
pub fn foreign_objects_are_not_listed(endpoint: &Endpoint) {
    let store = endpoint.open("foreign");
    let content = bytes(100, 2);
    let file = File::new(FileType::Pack, Id::of(&content));
    store.write(file, content.into()).expect("a pack");
    let shard = if file.id.to_string().starts_with("00") { "01" } else { "00" };
    let names = ["data/README", "data/00/more/x", "data/00/aa-tmp-1", &format!("data/{shard}/{}", file.id), "database"];
    endpoint.plant(names.map(|name| (format!("foreign/{name}"), b"foreign".to_vec())));
    assert_eq!(store.list(FileType::Pack).expect("a list"), [(file.id, 100)]);
}

/// A listing has several pages, and is whole even if the connection breaks between them.
pub fn long_listings_are_whole(endpoint: &Endpoint) {
    let store = endpoint.open("long");
    let mut expected: Vec<(Id, u64)> = (0..2500u32).map(|n| (Id::of(&n.to_le_bytes()), u64::from(n % 7))).collect();
    let name = |id: &Id| format!("long/data/{}/{id}", &id.to_string()[..2]);
    endpoint.plant(expected.iter().map(|(id, size)| (name(id), vec![0; *size as usize])));
    expected.sort();
    let mut listed = store.list(FileType::Pack).expect("a list");
    listed.sort();
    assert_eq!(listed, expected);

    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let mut options = endpoint.options();
    let heard = listen(&mut options);
    let store = endpoint.open_with("long", &options).expect("a store");
    proxy.inject("continuation-token", [super::proxy::Fault::CutAnswer(30_000)]);
    let mut listed = store.list(FileType::Pack).expect("a list");
    listed.sort();
    assert_eq!(listed, expected);
    assert_eq!(heard.lock().expect("no panic").len(), 1);
    let requests = proxy.requests();
    assert!(requests.len() == 4 && requests[2].contains("continuation-token="), "{requests:#?}");
}

/// A directory is listed page by page, without the entries below its directories, and is whole even
/// if the connection breaks between two pages.
pub fn directories_are_listed_whole(endpoint: &Endpoint) {
    let mut expected: Vec<String> = (0..2500).map(|n| format!("{n:04} with a space")).collect();
    let below = expected.iter().map(|name| format!("{name}/below/config"));
    let names = below.chain(["config", "configuration", "other"].map(String::from));
    endpoint.plant(names.map(|name| (format!("base/many/{name}"), b"x".to_vec())));
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let place = Place::new(&endpoint.location("base"), &endpoint.options()).expect("a place");
    proxy.inject("continuation-token", [super::proxy::Fault::CutAnswer(30_000)]);
    let mut found = place.directory("many", &["config"]).expect("a directory");
    found.directories.sort();
    expected.sort();
    assert!(found.directories == expected, "{} directories", found.directories.len());
    assert_eq!((found.files, found.passed_over), (vec!["config".to_owned()], vec![]));
    assert_eq!(proxy.requests().len(), 4, "three pages, one of them twice");

    // An entry below is reached by its path, over the same connections.
    let below = place.directory("many/0007 with a space", &["config"]).expect("a directory");
    assert_eq!((below.directories, below.files), (vec!["below".to_owned()], vec![]));
    let store = place.store("many/0007 with a space/below");
    assert_eq!(store.location(), format!("{}/many/0007 with a space/below", endpoint.location("base")));
    assert_eq!(store.size(File::CONFIG).expect("the config"), 1);
    assert_eq!(place.directory("nothing", &["config"]).expect("a prefix"), vsm::store::Directory::default());
    let nowhere = Endpoint { bucket: "not-there-yet".to_owned(), ..endpoint };
    let place = Place::new(&nowhere.location(""), &nowhere.options()).expect("a place");
    assert!(matches!(place.directory("", &[]), Err(StoreError::NoBucket { .. })));
}

/// The error of a missing bucket has the words that scripts look for, and differs from that of a
/// missing repository; `prepare` creates the bucket.
pub fn a_missing_bucket_is_named_and_made(endpoint: &Endpoint) {
    let endpoint = Endpoint { bucket: "not-there-yet".to_owned(), ..endpoint.clone() };
    let store = endpoint.open("repo");
    let errors = [
        store.read(File::CONFIG, 100).map(drop).expect_err("no bucket"),
        store.list(FileType::Key).map(drop).expect_err("no bucket"),
        store.write(File::CONFIG, vec![1].into()).expect_err("no bucket"),
    ];
    for error in errors {
        assert!(matches!(error, StoreError::NoBucket { .. }), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("Is there a repository at the following location?"), "{text}");
        assert!(text.contains("not-there-yet/repo"), "{text}");
    }
    store.prepare().expect("a bucket");
    assert!(matches!(store.size(File::CONFIG), Err(StoreError::NotFound { .. })));
    store.create(File::CONFIG, vec![1].into()).expect("a config");
}

/// Refused credentials fail at once, whatever the retry budget.
pub fn refused_credentials_fail_at_once(endpoint: &Endpoint) {
    let wrong_secret = Endpoint { secret: "wrong".to_owned(), ..endpoint.clone() };
    let wrong_key = Endpoint { access: "nobody".to_owned(), ..endpoint.clone() };
    for endpoint in [wrong_secret, wrong_key] {
        let mut options = endpoint.options();
        options.retry = Default::default();
        let heard = listen(&mut options);
        let store = endpoint.open_with("denied", &options).expect("a store");
        let pack = File::new(FileType::Pack, Id::of(b"x"));
        let errors = [
            store.read(File::CONFIG, 100).map(drop).expect_err("refused"),
            store.list(FileType::Key).map(drop).expect_err("refused"),
            store.write(pack, vec![1].into()).expect_err("refused"),
            store.create(File::CONFIG, vec![1].into()).expect_err("refused"),
            store.remove(pack).expect_err("refused"),
            store.prepare().expect_err("refused"),
        ];
        assert_eq!(*heard.lock().expect("no panic"), [] as [String; 0], "nothing is tried again");
        for error in errors {
            println!("{}", told(&error));
            assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
            assert!(error.to_string().contains("check the credentials"), "{error}");
        }
    }
    let none = vsm::store::open(&endpoint.location("x"), &Default::default()).map(drop).expect_err("no credentials");
    assert!(none.to_string().contains("AWS_ACCESS_KEY_ID"), "{none}");
}

/// A session token goes with every request, and the signature covers it.
pub fn a_session_token_is_sent_and_signed(endpoint: &Endpoint) {
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let options = endpoint.options_of(&[("AWS_REGION", "us-east-1"), ("AWS_SESSION_TOKEN", "token-of-a-session")]);
    let store = endpoint.open_with("session", &options).expect("a store");
    // The server's verdict on the token does not matter here.
    let _ = store.list(FileType::Key);
    let _ = store.write(File::CONFIG, vec![1].into());
    for head in proxy.requests() {
        assert!(head.contains("x-amz-security-token: token-of-a-session"), "{head}");
        let signed =
            head.split("SignedHeaders=").nth(1).and_then(|after| after.split(',').next()).expect("signed headers");
        assert!(signed.contains("x-amz-security-token"), "{head}");
    }
}

/// Anonymous requests have no signature, and a server that needs one refuses them.
pub fn anonymous_requests_are_unsigned(endpoint: &Endpoint) {
    let mut options = endpoint.options_of(&[]);
    options.environment = Default::default();
    options.set("s3.unsafe-anonymous-auth=true").expect("an option");
    options.set("s3.region=us-east-1").expect("an option");
    let store = endpoint.open_with("anonymous", &options).expect("a store");
    let error = store.list(FileType::Key).expect_err("refused");
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

/// If no option names the region, the store detects it. The region of `endpoint` is not the
/// default.
pub fn the_region_is_detected(endpoint: &Endpoint, region: &str) {
    let store = endpoint.open_with("region", &endpoint.options_of(&[])).expect("a store");
    store.write(File::CONFIG, vec![1].into()).expect("a config");
    let mut options = endpoint.options_of(&[("AWS_REGION", region)]);
    endpoint.open_with("region", &options).expect("a store").size(File::CONFIG).expect("the config");
    options.set("s3.region=elsewhere-1").expect("an option");
    let error =
        endpoint.open_with("region", &options).expect("a store").list(FileType::Key).expect_err("another region");
    assert!(told(&error).contains("AuthorizationHeaderMalformed"), "{}", told(&error));
}

/// A certificate of a private authority is trusted if, and only if, an option names that authority.
pub fn a_certificate_authority_can_be_named(endpoint: &Endpoint, authority: &Path) {
    let mut options = endpoint.options();
    let heard = listen(&mut options);
    let error = endpoint.open_with("tls", &options).expect("a store").list(FileType::Key).expect_err("no trust");
    assert!(told(&error).contains("UnknownIssuer") && told(&error).contains("--cacert"), "{}", told(&error));
    assert_eq!(*heard.lock().expect("no panic"), [] as [String; 0], "nothing is tried again");
    options.cacert = Some(authority.to_owned());
    conforms(&*endpoint.open_with("tls", &options).expect("a store"));
    options.cacert = Some("/nowhere/ca.pem".into());
    let error = endpoint.open_with("tls", &options).map(drop).expect_err("no such file");
    assert!(told(&error).contains("/nowhere/ca.pem"), "{}", told(&error));
}

/// Packs have the storage class, everything else has none.
pub fn packs_have_the_storage_class(endpoint: &Endpoint) {
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let endpoint = endpoint.by(proxy.url());
    let mut options = endpoint.options();
    options.set("s3.storage-class=STANDARD_IA").expect("an option");
    let store = endpoint.open_with("class", &options).expect("a store");
    let content = bytes(1000, 8);
    for ty in [FileType::Pack, FileType::Index] {
        let file = File::new(ty, Id::of(&content));
        store.write(file, content.clone().into()).expect("a file");
        assert_eq!(store.read(file, 1000).expect("the file"), content);
    }
    let heads = proxy.requests();
    assert!(heads[0].contains("/data/") && heads[0].contains("x-amz-storage-class: STANDARD_IA"), "{}", heads[0]);
    assert!(heads[2].contains("/index/") && !heads[2].contains("storage-class"), "{}", heads[2]);
    assert!(heads[0].contains("content-type: application/octet-stream"), "{}", heads[0]);
}

/// A pack is one PUT, whatever its parts.
pub fn a_pack_is_one_request(endpoint: &Endpoint) {
    let proxy = Proxy::to(endpoint.url.strip_prefix("http://").expect("a plain endpoint"));
    let store = endpoint.by(proxy.url()).open("one");
    let content = bytes(20 << 20, 3);
    let mut upload = store.upload(FileType::Pack).expect("an upload");
    for part in content.chunks(1 << 20) {
        upload.write(part).expect("a part");
    }
    assert!(proxy.requests().is_empty());
    upload.commit(Id::of(&content)).expect("a pack");
    assert_eq!(proxy.requests().len(), 1);
}
