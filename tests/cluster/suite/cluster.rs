//! A Kubernetes client for tests that sends and returns plain JSON, without the controller's types.

use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::Status;
use kube::{Client, Config};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;

/// The namespace of Velero and of the controller.
pub const PROTECTED: &str = "velero";

pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

/// A setting that the cluster's scripts export.
pub fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: these tests are run by tests/cluster/test"))
}

/// The folder with the cluster's files.
pub fn files() -> PathBuf {
    PathBuf::from(setting("TESTBED_DIR")).join("run")
}

/// A connection to the cluster with the identity of one user.
#[derive(Clone)]
pub struct Cluster(Client);

/// The API and the plural of a kind, and whether its objects are in namespaces.
fn resource(kind: &str) -> (&'static str, &'static str, bool) {
    match kind {
        "Namespace" => ("api/v1", "namespaces", false),
        "Node" => ("api/v1", "nodes", false),
        "PersistentVolume" => ("api/v1", "persistentvolumes", false),
        "PersistentVolumeClaim" => ("api/v1", "persistentvolumeclaims", true),
        "Pod" => ("api/v1", "pods", true),
        "Secret" => ("api/v1", "secrets", true),
        "ConfigMap" => ("api/v1", "configmaps", true),
        "ServiceAccount" => ("api/v1", "serviceaccounts", true),
        "Job" => ("apis/batch/v1", "jobs", true),
        "CronJob" => ("apis/batch/v1", "cronjobs", true),
        "Deployment" => ("apis/apps/v1", "deployments", true),
        "StorageClass" => ("apis/storage.k8s.io/v1", "storageclasses", false),
        "Lease" => ("apis/coordination.k8s.io/v1", "leases", true),
        "Event" => ("apis/events.k8s.io/v1", "events", true),
        "Role" => ("apis/rbac.authorization.k8s.io/v1", "roles", true),
        "RoleBinding" => ("apis/rbac.authorization.k8s.io/v1", "rolebindings", true),
        "ClusterRole" => ("apis/rbac.authorization.k8s.io/v1", "clusterroles", false),
        "ClusterRoleBinding" => ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings", false),
        "VolumeSnapshot" => ("apis/snapshot.storage.k8s.io/v1", "volumesnapshots", true),
        "VolumeSnapshotContent" => ("apis/snapshot.storage.k8s.io/v1", "volumesnapshotcontents", false),
        "VolumeSnapshotClass" => ("apis/snapshot.storage.k8s.io/v1", "volumesnapshotclasses", false),
        "VolumeSnapshotBackup" => ("apis/datamover.oadp.openshift.io/v1alpha1", "volumesnapshotbackups", true),
        "VolumeSnapshotRestore" => ("apis/datamover.oadp.openshift.io/v1alpha1", "volumesnapshotrestores", true),
        "BackupStorageLocation" => ("apis/velero.io/v1", "backupstoragelocations", true),
        "Backup" => ("apis/velero.io/v1", "backups", true),
        "Restore" => ("apis/velero.io/v1", "restores", true),
        other => panic!("the tests do not know the kind {other}"),
    }
}

fn path(kind: &str, namespace: &str, name: &str) -> String {
    let (api, plural, namespaced) = resource(kind);
    let within = if namespaced && !namespace.is_empty() { format!("namespaces/{namespace}/") } else { String::new() };
    let name = if name.is_empty() { String::new() } else { format!("/{name}") };
    format!("/{api}/{within}{plural}{name}")
}

/// A text in an object, or an empty text.
pub fn text<'v>(object: &'v Value, pointer: &str) -> &'v str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

impl Cluster {
    /// Connects as the administrator.
    pub fn admin() -> Cluster {
        static ADMIN: LazyLock<Cluster> = LazyLock::new(|| Cluster::of(|_| {}));
        ADMIN.clone()
    }

    /// Connects without credentials: each request carries its own.
    pub fn anonymous() -> Cluster {
        Cluster::of(|auth| *auth = AuthInfo::default())
    }

    /// Connects with a token.
    pub fn with_token(token: &str) -> Cluster {
        Cluster::of(|auth| *auth = AuthInfo { token: Some(token.to_owned().into()), ..AuthInfo::default() })
    }

    pub fn client(&self) -> &Client {
        &self.0
    }

    fn of(change: impl FnOnce(&mut AuthInfo)) -> Cluster {
        RUNTIME.block_on(async {
            let _ = rustls::crypto::ring::default_provider().install_default();
            let file = Kubeconfig::read_from(setting("KUBECONFIG")).expect("a kubeconfig");
            let mut config =
                Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.expect("settings");
            change(&mut config.auth_info);
            Cluster(Client::try_from(config).expect("a client"))
        })
    }

    /// Sends one request; an error of the apiserver is a result, too.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>, kind: &str) -> Result<Value, Box<Status>> {
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = http::Request::builder().method(method).uri(path).header("content-type", kind);
        let request = request.body(body.into_bytes()).expect("a request");
        match RUNTIME.block_on(self.0.request::<Value>(request)) {
            Ok(value) => Ok(value),
            Err(kube::Error::Api(status)) => Err(status),
            Err(error) => panic!("{method} {path}: {error}"),
        }
    }

    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        match self.request("GET", &path(kind, namespace, name), None, "application/json") {
            Ok(value) => Some(value),
            Err(status) if status.code == 404 => None,
            Err(status) => panic!("{kind} {namespace}/{name}: {status:?}"),
        }
    }

    /// Lists the objects of a namespace, or of all namespaces if it is empty, by an optional label
    /// selector.
    pub fn list(&self, kind: &str, namespace: &str, selector: &str) -> Vec<Value> {
        let query = if selector.is_empty() { String::new() } else { format!("?labelSelector={}", encoded(selector)) };
        let list = self.request("GET", &format!("{}{query}", path(kind, namespace, "")), None, "application/json");
        let list = list.unwrap_or_else(|status| panic!("{kind} in {namespace}: {status:?}"));
        list["items"].as_array().cloned().unwrap_or_default()
    }

    pub fn try_create(&self, object: &Value) -> Result<Value, Box<Status>> {
        let path = path(text(object, "/kind"), text(object, "/metadata/namespace"), "");
        self.request("POST", &path, Some(object), "application/json")
    }

    pub fn create(&self, object: &Value) -> Value {
        self.try_create(object).unwrap_or_else(|status| panic!("{object}: {status:?}"))
    }

    /// Creates or changes, as `kubectl apply --server-side` does.
    pub fn apply(&self, object: &Value) -> Value {
        let path = path(text(object, "/kind"), text(object, "/metadata/namespace"), name(object));
        let path = format!("{path}?fieldManager=tests&force=true");
        let answer = self.request("PATCH", &path, Some(object), "application/apply-patch+yaml");
        answer.unwrap_or_else(|status| panic!("{object}: {status:?}"))
    }

    pub fn merge(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value, Box<Status>> {
        self.request("PATCH", &path(kind, namespace, name), Some(patch), "application/merge-patch+json")
    }

    pub fn merge_status(&self, kind: &str, namespace: &str, name: &str, patch: &Value) -> Result<Value, Box<Status>> {
        let path = format!("{}/status", path(kind, namespace, name));
        self.request("PATCH", &path, Some(patch), "application/merge-patch+json")
    }

    /// Deletes an object. A missing object is no error.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) {
        let options = json!({"propagationPolicy": "Background"});
        match self.request("DELETE", &path(kind, namespace, name), Some(&options), "application/json") {
            Err(status) if status.code != 404 => panic!("{kind} {namespace}/{name}: {status:?}"),
            _ => {}
        }
    }

    /// Waits until an object is `ready` and returns it. The deadline only turns a hang into a
    /// failure.
    pub fn until(&self, kind: &str, namespace: &str, name: &str, ready: impl Fn(&Value) -> bool) -> Value {
        let mut last = None;
        let found = wait_for(Duration::from_secs(180), || {
            last = self.get(kind, namespace, name);
            last.clone().filter(&ready)
        });
        found.unwrap_or_else(|| {
            panic!(
                "timeout waiting for {kind} {namespace}/{name}; its last state: {}",
                last.map_or("deleted".into(), |it| format!("{it:#}"))
            )
        })
    }

    pub fn until_gone(&self, kind: &str, namespace: &str, name: &str) {
        let gone = wait_for(Duration::from_secs(180), || self.get(kind, namespace, name).is_none().then_some(()));
        assert!(gone.is_some(), "{kind} {namespace}/{name} was not deleted: {:?}", self.get(kind, namespace, name));
    }

    /// The log of a pod's container.
    pub fn log(&self, namespace: &str, pod: &str) -> String {
        self.text(&format!("/api/v1/namespaces/{namespace}/pods/{pod}/log"))
    }

    /// A response that is not one JSON object.
    pub fn text(&self, path: &str) -> String {
        let request = http::Request::get(path).body(vec![]).expect("a request");
        RUNTIME.block_on(self.0.request_text(request)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// The table that `kubectl get` prints for objects.
    pub fn table(&self, path: &str) -> Value {
        let request = http::Request::get(path).header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io");
        let request = request.body(vec![]).expect("a request");
        RUNTIME.block_on(self.0.request(request)).unwrap_or_else(|error| panic!("{path}: {error}"))
    }

    /// Requests a token of a service account.
    pub fn token(&self, namespace: &str, account: &str) -> String {
        let path = format!("{}/token", path("ServiceAccount", namespace, account));
        let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 7200}});
        let answer = self.request("POST", &path, Some(&request), "application/json").expect("a token");
        text(&answer, "/status/token").to_owned()
    }
}

/// Calls `ask` five times a second until it returns a value or the limit has passed.
pub fn wait_for<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let start = Instant::now();
    loop {
        match ask() {
            None if start.elapsed() < limit => std::thread::sleep(Duration::from_millis(200)),
            answer => return answer,
        }
    }
}

/// Percent-encodes a text for a query.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}
