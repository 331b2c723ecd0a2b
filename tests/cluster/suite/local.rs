//! Runs the controller as a local process, with the rights that a test selects, behind a proxy to
//! the apiserver that counts writes, can kill the controller at any of them, and records refused
//! requests.

use crate::cluster::{Cluster, PROTECTED, RUNTIME, files, text};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::client::Body;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use tokio::net::TcpListener;

/// When the controller is killed at a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Before the apiserver receives the write.
    Before,
    /// After the apiserver has carried out the write, before the controller gets the response.
    After,
}

/// The proxy between the controller and the apiserver.
struct Proxy {
    cluster: Cluster,
    writes: AtomicU64,
    /// The number of the write, counted from 1, at which the controller is killed; 0 for never.
    at: AtomicU64,
    after: AtomicBool,
    /// The apiserver's messages for forbidden requests.
    refusals: Mutex<Vec<String>>,
    controller: Mutex<Option<Child>>,
}

impl Proxy {
    fn kill(&self) {
        if let Some(mut child) = self.controller.lock().expect("a lock").take() {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
        }
    }

    async fn pass(&self, request: http::Request<Incoming>) -> Result<http::Response<Body>, hyper::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await?.to_bytes().to_vec();
        // Writes of leader election, events and access reviews are no steps of a flow.
        let aside =
            ["/leases", "/events", "accessreviews", "rulesreviews"].iter().any(|it| head.uri.path().contains(it));
        let write = !aside && head.method != http::Method::GET;
        let number = if write { self.writes.fetch_add(1, Ordering::SeqCst) + 1 } else { 0 };
        let cut = write && number == self.at.load(Ordering::SeqCst);
        let after = self.after.load(Ordering::SeqCst);
        if cut && !after {
            self.kill();
            return Ok(broken());
        }
        let answer = self.cluster.client().send(http::Request::from_parts(head, Body::from(body))).await;
        if cut {
            self.kill();
        }
        match answer {
            Ok(answer) if answer.status() == http::StatusCode::FORBIDDEN => Ok(self.remember(answer).await),
            answer => Ok(answer.unwrap_or_else(|_| broken())),
        }
    }

    async fn remember(&self, answer: http::Response<Body>) -> http::Response<Body> {
        let (head, body) = answer.into_parts();
        let body = body.collect_bytes().await.expect("an answer");
        let status: Value = serde_json::from_slice(&body).expect("a Status");
        self.refusals.lock().expect("a lock").push(text(&status, "/message").to_owned());
        http::Response::from_parts(head, Body::from(body.to_vec()))
    }
}

fn broken() -> http::Response<Body> {
    http::Response::builder().status(502).body(Body::from(vec![])).expect("an answer")
}

/// A controller that runs outside the cluster.
pub struct Controller {
    proxy: Arc<Proxy>,
    address: SocketAddr,
    settings: PathBuf,
    environment: BTreeMap<&'static str, &'static str>,
}

/// The name of its pod.
pub const POD: &str = "beside-the-cluster";
/// The image that tests/cluster/test imports into the node.
const IMAGE: &str = "testbed.local/vsm:1";

impl Controller {
    /// Prepares a controller with the rights of `token`, without starting it.
    pub fn new(token: &str) -> Controller {
        let proxy = Arc::new(Proxy {
            cluster: Cluster::anonymous(),
            writes: AtomicU64::new(0),
            at: AtomicU64::new(0),
            after: AtomicBool::new(false),
            refusals: Mutex::default(),
            controller: Mutex::new(None),
        });
        let listener = RUNTIME.block_on(TcpListener::bind("127.0.0.1:0")).expect("a free port");
        let address = listener.local_addr().expect("a port");
        RUNTIME.spawn(serve(listener, proxy.clone()));
        let settings = files().join(format!("controller-{}.conf", address.port()));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "c", "user": {"token": token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
        });
        std::fs::write(&settings, config.to_string()).expect("its settings");
        let environment = BTreeMap::from([
            ("POD_NAMESPACE", PROTECTED),
            ("POD_NAME", POD),
            ("VSM_MOVER_IMAGE", IMAGE),
            ("VSM_MOVER_PULL_POLICY", "Never"),
            ("VSM_MOVER_SERVICE_ACCOUNT", "vsm-mover"),
        ]);
        Controller { proxy, address, settings, environment }
    }

    /// Sets a variable of its environment.
    pub fn set(&mut self, name: &'static str, value: &'static str) -> &mut Controller {
        self.environment.insert(name, value);
        self
    }

    /// Lets the controller read the movers' image from its own pod, which no node can run, instead
    /// of a variable.
    pub fn learn_image(&mut self) {
        self.environment.remove("VSM_MOVER_IMAGE");
        let container = json!({"name": "main", "image": IMAGE, "imagePullPolicy": "Never"});
        let spec = json!({"containers": [container], "nodeSelector": {"nowhere": "yes"}});
        Cluster::admin().delete("Pod", PROTECTED, POD);
        Cluster::admin().until_gone("Pod", PROTECTED, POD);
        Cluster::admin().create(
            &json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": POD, "namespace": PROTECTED}, "spec": spec}),
        );
    }

    /// The messages of all requests that the apiserver has refused.
    pub fn refusals(&self) -> Vec<String> {
        self.proxy.refusals.lock().expect("a lock").clone()
    }

    /// The log of all runs of this controller.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        files().join("logs").join(format!("controller-{}", self.address.port()))
    }

    /// Runs the controller until [`kill`](Self::kill), or until the write of that number, counted
    /// from now.
    pub fn start(&self, cut: Option<(u64, Cut)>) {
        let Proxy { writes, at, after, controller, .. } = &*self.proxy;
        writes.store(0, Ordering::SeqCst);
        at.store(cut.map_or(0, |(number, _)| number), Ordering::SeqCst);
        after.store(cut.is_some_and(|(_, cut)| cut == Cut::After), Ordering::SeqCst);
        let log = || File::options().create(true).append(true).open(self.log_file()).expect("a log");
        let mut command = Command::new(env!("CARGO_BIN_EXE_vsm-controller"));
        command.env_clear().env("KUBECONFIG", &self.settings).envs(&self.environment);
        // Other processes use the ports on the node's addresses.
        command.args(["--metrics-bind-address=0", "--health-probe-bind-address=0"]);
        command.stdin(Stdio::null()).stdout(log()).stderr(log());
        *controller.lock().expect("a lock") = Some(command.spawn().expect("the controller starts"));
    }

    /// Kills the controller with SIGKILL.
    pub fn kill(&self) {
        self.proxy.kill();
    }

    /// Whether the controller was killed or has ended.
    pub fn is_gone(&self) -> bool {
        let mut controller = self.proxy.controller.lock().expect("a lock");
        controller.as_mut().is_none_or(|child| child.try_wait().expect("a child").is_some())
    }

    /// Writes of flows since the last start.
    pub fn writes(&self) -> u64 {
        self.proxy.writes.load(Ordering::SeqCst)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        self.kill();
    }
}

async fn serve(listener: TcpListener, proxy: Arc<Proxy>) {
    loop {
        let (stream, _) = listener.accept().await.expect("a connection");
        let proxy = proxy.clone();
        tokio::spawn(async move {
            let answer = service_fn(|request| async {
                Ok::<_, Infallible>(proxy.pass(request).await.unwrap_or_else(|_| broken()))
            });
            // A killed controller leaves broken connections.
            let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// Stops the deployed controller until drop, because only one may run at a time.
pub struct Alone;

impl Alone {
    pub fn new() -> Alone {
        scale(0);
        Alone
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        scale(1);
    }
}

fn scale(replicas: u64) {
    let cluster = Cluster::admin();
    let name = "volume-snapshot-mover";
    cluster.merge("Deployment", PROTECTED, name, &json!({"spec": {"replicas": replicas}})).expect("the deployment");
    let pods = || cluster.list("Pod", PROTECTED, "component=data-mover-controller").len() as u64 == replicas;
    crate::cluster::wait_for(std::time::Duration::from_secs(120), || pods().then_some(())).expect("its pods");
}

/// The token of the shipped account.
pub fn shipped() -> String {
    Cluster::admin().token(PROTECTED, "vsm-controller")
}
