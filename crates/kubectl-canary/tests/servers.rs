//! `kubectl canary evidence` with real servers: a container registry and an S3-compatible store. `cargo xtask test` builds
//! them and runs this with their places in CANARYRELEASE_REGISTRY and CANARYRELEASE_S3.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod folder;

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use canary_report::evidence::sha256;
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};

use folder::Folder;

const RECORD: &str = include_str!("../../canary-report/tests/records/rolled-back.yaml");
const SPDX: &str = r#"{"spdxVersion": "SPDX-2.3", "packages": []}"#;

/// A server that ends with the test.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn program(variable: &str) -> PathBuf {
    std::env::var_os(variable).unwrap_or_else(|| panic!("{variable} names no server; cargo xtask test does")).into()
}

fn registry(arguments: &[&str]) -> Server {
    let mut child =
        Command::new(program("CANARYRELEASE_REGISTRY")).args(arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let said = lines.next().unwrap().unwrap();
    // What it says later must have a reader.
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let address = said.rsplit(' ').next().unwrap().to_owned();
    Server { child, address }
}

/// Jane's password at the registry, and the store's secret key: texts that stand nowhere else.
const PASSWORD: &str = "c4n4ry-password-of-jane";
const SECRET_KEY: &str = "c4n4ry-secret-key-of-the-store";
const KEYS: [(&str, &str); 3] =
    [("AWS_ACCESS_KEY_ID", "lab"), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY), ("AWS_REGION", "us-east-1")];

/// A store with its buckets in a folder.
fn store(folder: &Path) -> Server {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let child = Command::new(program("CANARYRELEASE_S3"))
        .args(["--access", "lab", "--secret", SECRET_KEY, "--port", &free.to_string(), "--quiet", "posix"])
        // The folder's file system may have no extended attributes.
        .args(["--sidecar", folder.join("sidecar").to_str().unwrap(), folder.join("buckets").to_str().unwrap()])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server { child, address: free.to_string() };
    let until = Instant::now() + Duration::from_secs(60);
    while std::net::TcpStream::connect(free).is_err() {
        assert!(Instant::now() < until, "the store does not answer");
        std::thread::yield_now();
    }
    server
}

fn client(endpoint: &str) -> impl object_store::ObjectStore {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = object_store::aws::AmazonS3Builder::new().with_bucket_name("evidence").with_region("us-east-1");
    let builder = builder.with_access_key_id("lab").with_secret_access_key(SECRET_KEY);
    builder.with_endpoint(endpoint).with_allow_http(true).build().unwrap()
}

/// Runs it, and looks for what it was told in confidence in all that it says.
fn canary(folder: &Folder, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_kubectl-canary"));
    let output = command.args(arguments).env("DOCKER_CONFIG", &folder.0).envs(KEYS).output().unwrap();
    keeps_secrets("what it says", &[output.stdout.as_slice(), output.stderr.as_slice()].concat());
    output
}

/// Neither the password, nor what it is sent as, nor the secret key is in it.
fn keeps_secrets(what: &str, bytes: &[u8]) {
    let sent = base64::engine::general_purpose::STANDARD.encode(format!("jane:{PASSWORD}"));
    let text = String::from_utf8_lossy(bytes);
    for secret in [PASSWORD, sent.trim_end_matches('='), SECRET_KEY] {
        assert!(!text.contains(secret), "{secret} is in {what}: {text}");
    }
}

/// So is no file of a folder.
fn all_keep_secrets(folder: &Path) {
    let files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(!files.is_empty(), "{}", folder.display());
    for file in files {
        keeps_secrets(&file.display().to_string(), &std::fs::read(&file).unwrap());
    }
}

fn good(output: &Output) -> String {
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}: {text}", output.status);
    text
}

/// Pushes to a repository, as its user where it has one.
struct Push<'a> {
    registry: &'a Server,
    login: Option<(&'a str, &'a str)>,
    client: reqwest::Client,
    runtime: tokio::runtime::Runtime,
}

impl<'a> Push<'a> {
    fn new(registry: &'a Server, login: Option<(&'a str, &'a str)>) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self { registry, login, client: reqwest::Client::builder().no_proxy().build().unwrap(), runtime }
    }

    fn send(&self, method: reqwest::Method, path: &str, kind: &str, body: String) -> reqwest::Response {
        let url = format!("http://{}{path}", self.registry.address);
        let mut request = self.client.request(method, url).header("content-type", kind).body(body);
        if let Some((user, password)) = self.login {
            request = request.basic_auth(user, Some(password));
        }
        self.runtime.block_on(async { request.send().await.unwrap().error_for_status().unwrap() })
    }

    fn blob(&self, text: &str) -> Value {
        let digest = format!("sha256:{}", sha256(text.as_bytes()));
        let path = format!("/v2/shop/web/blobs/uploads/?digest={digest}");
        self.send(reqwest::Method::POST, &path, "application/octet-stream", text.to_owned());
        json!({"digest": digest, "size": text.len(), "mediaType": "application/octet-stream"})
    }

    /// Returns its descriptor.
    fn manifest(&self, mut manifest: Value, tag: Option<&str>) -> Value {
        let kind = if manifest.get("manifests").is_some() { "index" } else { "manifest" };
        let kind = format!("application/vnd.oci.image.{kind}.v1+json");
        manifest["schemaVersion"] = 2.into();
        manifest["mediaType"] = kind.as_str().into();
        let text = manifest.to_string();
        let digest = format!("sha256:{}", sha256(text.as_bytes()));
        let path = format!("/v2/shop/web/manifests/{}", tag.unwrap_or(&digest));
        self.send(reqwest::Method::PUT, &path, &kind, text.clone());
        json!({"digest": digest, "size": text.len(), "mediaType": kind})
    }

    fn image(&self, tag: &str) -> Value {
        let config = self.blob(&json!({"architecture": "amd64", "os": "linux", "tag": tag}).to_string());
        self.manifest(json!({"config": config, "layers": []}), Some(tag))
    }

    fn artifact(&self, kind: &str, text: &str, to: &Value) -> Value {
        let mut layer = self.blob(text);
        layer["mediaType"] = kind.into();
        let config = self.blob("{}");
        self.manifest(json!({"artifactType": kind, "config": config, "layers": [layer], "subject": to}), None)
    }
}

fn provenance(of: &Value) -> String {
    let hex = of["digest"].as_str().unwrap().trim_start_matches("sha256:");
    json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"name": "web", "digest": {"sha256": hex}}], "predicate": {"buildDefinition": {}}})
    .to_string()
}

/// A record of this image, as a file.
fn record(folder: &Folder, image: &str) -> String {
    let mut record: Value = serde_norway::from_str(RECORD).unwrap();
    record["status"]["candidate"]["images"] = json!([image]);
    let file = folder.path("record.yaml");
    std::fs::write(&file, serde_norway::to_string(&record).unwrap()).unwrap();
    file
}

#[test]
#[ignore = "needs the servers that cargo xtask test builds"]
fn evidence_has_what_is_attached_in_a_registry_with_the_referrers_api() {
    let registry = registry(&["-referrers", "-user", "jane", "-password", PASSWORD]);
    let push = Push::new(&registry, Some(("jane", PASSWORD)));
    let folder = Folder::new("referrers");
    let image = push.image("v2");
    push.artifact("application/spdx+json", SPDX, &image);
    push.artifact("application/vnd.in-toto+json", &provenance(&image), &image);
    let file = record(&folder, &format!("{}/shop/web:v2", registry.address));
    let into = folder.path("evidence");
    let arguments = ["evidence", "-f", &file, "-d", &into, "--registry", &registry.address];
    let refused = canary(&folder, &arguments);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(String::from_utf8_lossy(&refused.stderr).contains("docker login"), "{refused:?}");
    assert!(!Path::new(&into).exists());

    let login = json!({"auths": {&registry.address: {"username": "jane", "password": PASSWORD}}});
    std::fs::write(folder.path("config.json"), login.to_string()).unwrap();
    good(&canary(&folder, &arguments));
    let read = |name: &str| std::fs::read_to_string(Path::new(&into).join(name)).unwrap();
    assert_eq!(read("sbom_v2.1.2.json"), SPDX);
    assert_eq!(read("build_provenance_v2.1.2.json"), provenance(&image));
    let beside = read("attached_v2.1.2.txt");
    assert!(beside.contains(image["digest"].as_str().unwrap()) && beside.contains("the referrers API"), "{beside}");
    all_keep_secrets(Path::new(&into));

    let other = json!({"auths": {&registry.address: {"username": "john", "password": PASSWORD}}});
    std::fs::write(folder.path("config.json"), other.to_string()).unwrap();
    let again = folder.path("again");
    let refused = canary(&folder, &["evidence", "-f", &file, "-d", &again, "--registry", &registry.address]);
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
}

#[test]
#[ignore = "needs the servers that cargo xtask test builds"]
fn evidence_has_what_is_attached_in_a_registry_without_that_api() {
    let registry = registry(&[]);
    let push = Push::new(&registry, None);
    let folder = Folder::new("fallback");
    let image = push.image("v2");
    let artifact = push.artifact("application/spdx+json", SPDX, &image);
    let tag = image["digest"].as_str().unwrap().replace(':', "-");
    push.manifest(json!({"manifests": [artifact]}), Some(&tag));
    let file = record(&folder, &format!("{}/shop/web@{}", registry.address, image["digest"].as_str().unwrap()));
    let into = folder.path("evidence");
    good(&canary(&folder, &["evidence", "-f", &file, "-d", &into, "--registry", &registry.address]));
    assert_eq!(std::fs::read_to_string(Path::new(&into).join("sbom_v2.1.2.json")).unwrap(), SPDX);
    let beside = std::fs::read_to_string(Path::new(&into).join("attached_v2.1.2.txt")).unwrap();
    assert!(beside.contains("the fallback tag"), "{beside}");
}

#[test]
#[ignore = "needs the servers that cargo xtask test builds"]
fn folders_are_kept_in_a_bucket_once_and_done_again_where_they_were_broken_off() {
    let folder = Folder::new("bucket");
    // In this store a folder is a bucket, an object a file.
    let bucket = folder.0.join("buckets/evidence");
    std::fs::create_dir_all(&bucket).unwrap();
    std::fs::create_dir_all(folder.0.join("sidecar")).unwrap();
    let store = store(&folder.0);
    let file = record(&folder, "registry.example.com/web:v2");
    let endpoint = format!("http://{}", store.address);
    let to = ["evidence", "-f", &file, "--all", "--to", "s3://evidence/production", "--s3-endpoint", &endpoint];
    let keep = || canary(&folder, &[to.as_slice(), &["-o", "json"]].concat());
    let kept: Value = serde_json::from_str(&good(&keep())).unwrap();
    let named = kept["collected"][0]["folder"].as_str().unwrap().to_owned();
    let place = bucket.join("production").join(&named);
    let list = std::fs::read(place.join("SHA256SUMS")).unwrap();
    assert_eq!(kept["collected"][0]["digest"], format!("sha256:{}", sha256(&list)));
    let checked = Command::new("sha256sum").args(["-c", "--quiet", "SHA256SUMS"]).current_dir(&place).status().unwrap();
    assert!(checked.success());
    all_keep_secrets(&place);

    let again: Value = serde_json::from_str(&good(&keep())).unwrap();
    assert_eq!((&again["present"], &again["collected"]), (&json!(1), &json!([])));

    // Broken off: without its list, and with a file that is not written again.
    let at = |file: &str| object_store::path::Path::from(format!("production/{named}/{file}"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let bucket = client(&endpoint);
        bucket.delete(&at("SHA256SUMS")).await.unwrap();
        bucket.put(&at("sbom_v0.json"), "{}".into()).await.unwrap();
    });
    let again: Value = serde_json::from_str(&good(&keep())).unwrap();
    assert_eq!(again["collected"][0]["folder"], named.as_str());
    assert!(!place.join("sbom_v0.json").exists());

    // Finished and other: it is left, and said.
    let mut edited: Value = serde_norway::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    edited["spec"]["summary"] = "edited".into();
    std::fs::write(&file, serde_norway::to_string(&edited).unwrap()).unwrap();
    let list = std::fs::read(place.join("SHA256SUMS")).unwrap();
    let other = keep();
    assert_eq!(other.status.code(), Some(1), "{other:?}");
    let said: Value = serde_json::from_slice(&other.stdout).unwrap();
    assert!(said["other"][0]["why"].as_str().unwrap().contains("edited"), "{said}");
    assert_eq!(std::fs::read(place.join("SHA256SUMS")).unwrap(), list);

    let refused = Command::new(env!("CARGO_BIN_EXE_kubectl-canary"))
        .args(to)
        .envs(KEYS)
        .env("AWS_SECRET_ACCESS_KEY", "wrong")
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    assert!(!String::from_utf8_lossy(&refused.stdout).contains("wrong"), "{refused:?}");
    // As somebody whom the store does not know.
    let mut john = Command::new(env!("CARGO_BIN_EXE_kubectl-canary"));
    let refused = john.args(to).envs(KEYS).env("AWS_ACCESS_KEY_ID", "john").output().unwrap();
    assert_eq!(refused.status.code(), Some(4), "{refused:?}");
    keeps_secrets("a refusal", &[refused.stdout, refused.stderr].concat());
}
