use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use canary_report::evidence;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::credentials::Login;
use super::reference::Digest;
use super::*;

const RECORD: &str = include_str!("../../canary-report/tests/records/rolled-back.yaml");

/// What is said to a request.
#[derive(Clone)]
struct Say {
    status: u16,
    headers: String,
    body: Vec<u8>,
}

fn say(body: impl Into<Vec<u8>>) -> Say {
    Say { status: 200, headers: String::new(), body: body.into() }
}

fn refuse(status: u16, headers: &str) -> Say {
    Say { status, headers: format!("{headers}\r\n"), body: Vec::new() }
}

/// A request: what was asked for, and the password that came with it.
type Asked = (String, Option<String>);

/// A registry on this machine, of fixed answers.
#[derive(Clone, Default)]
struct Server {
    host: String,
    answers: Arc<Mutex<BTreeMap<String, Say>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// What must come with a request, else it is refused with this challenge.
    locked: Option<(String, String)>,
}

impl Server {
    async fn start(locked: Option<(&str, &str)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let locked = locked.map(|(wanted, challenge)| (wanted.to_owned(), challenge.to_owned()));
        let server = Self { host, locked, ..Self::default() };
        let serving = server.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let serving = serving.clone();
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        let Ok(byte) = stream.read_u8().await else { return };
                        head.push(byte);
                    }
                    let say = serving.answer(&String::from_utf8(head).unwrap());
                    let length = if say.headers.to_lowercase().contains("content-length") {
                        String::new()
                    } else {
                        format!("content-length: {}\r\n", say.body.len())
                    };
                    let head = format!("HTTP/1.1 {} X\r\n{}{length}connection: close\r\n\r\n", say.status, say.headers);
                    // A client that has heard enough hangs up.
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(&say.body).await;
                });
            }
        });
        server
    }

    fn answer(&self, head: &str) -> Say {
        let path = head.split(' ').nth(1).unwrap().to_owned();
        let password = head.lines().find_map(|line| {
            line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("authorization")).map(|(_, value)| value)
        });
        self.asked.lock().unwrap().push((path.clone(), password.map(str::to_owned)));
        match &self.locked {
            Some((wanted, challenge)) if password != Some(wanted) => {
                refuse(401, &format!("www-authenticate: {challenge}"))
            }
            _ => self.answers.lock().unwrap().get(&path).cloned().unwrap_or_else(|| refuse(404, "x-none: 1")),
        }
    }

    fn set(&self, path: &str, say: Say) {
        self.answers.lock().unwrap().insert(path.to_owned(), say);
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    fn image(&self) -> String {
        format!("{}/shop/web:v2", self.host)
    }

    /// Puts a blob there.
    fn blob(&self, content: &[u8]) -> Digest {
        let digest = Digest::of(content);
        self.set(&format!("/v2/shop/web/blobs/{digest}"), say(content));
        digest
    }

    /// Puts a manifest there.
    fn manifest(&self, content: &serde_json::Value) -> Digest {
        let digest = Digest::of(content.to_string().as_bytes());
        self.set(&format!("/v2/shop/web/manifests/{digest}"), say(content.to_string()));
        digest
    }

    /// An image with tag `v2`.
    fn push(&self) -> Digest {
        let manifest = json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": []});
        self.set("/v2/shop/web/manifests/v2", say(manifest.to_string()));
        self.manifest(&manifest)
    }

    /// Attaches files of these types, and lists them by the referrers API.
    fn attach(&self, to: &Digest, files: &[(&str, Digest)]) {
        let listed: Vec<serde_json::Value> = files
            .iter()
            .map(|(kind, digest)| {
                let artifact = json!({"artifactType": kind, "subject": {"digest": to.as_str()},
                    "layers": [{"mediaType": kind, "digest": digest.as_str()}]});
                json!({"digest": self.manifest(&artifact).as_str(), "artifactType": kind})
            })
            .collect();
        self.refer(to, &listed);
    }

    fn refer(&self, to: &Digest, listed: &[serde_json::Value]) {
        self.set(&format!("/v2/shop/web/referrers/{to}"), say(json!({"manifests": listed}).to_string()));
    }

    fn allowed(&self) -> Allowed {
        Allowed::new(std::slice::from_ref(&self.host), &[]).unwrap().with_logins(BTreeMap::new())
    }

    fn allowed_as(&self, user: &str, password: &str) -> Allowed {
        let login = Login { user: user.to_owned(), password: password.to_owned() };
        self.allowed().with_logins(BTreeMap::from([(self.host.clone(), login)]))
    }
}

const SPDX: &[u8] = br#"{"spdxVersion": "SPDX-2.3", "packages": []}"#;
const SPDX_TYPE: &str = "application/spdx+json";
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";

fn provenance(of: &Digest) -> Vec<u8> {
    json!({"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://slsa.dev/provenance/v1",
        "subject": [{"digest": {"sha256": of.hex()}}], "predicate": {}})
    .to_string()
    .into_bytes()
}

fn record(images: &[String]) -> ReleaseRecord {
    let mut record = crate::records::parse("x", RECORD).unwrap().remove(0);
    let status = record.status.as_mut().unwrap();
    status.candidate.images = images.to_vec();
    status.stable.images = Vec::new();
    record
}

/// Names, and texts or why there are none.
type Laid = Vec<(String, Result<String, String>)>;

/// The names and texts of what a release's images add to the folder; and the text beside them.
fn laid(record: &ReleaseRecord, images: &[Image]) -> (Laid, String) {
    let mut files = evidence::files(record);
    lay(record, images, Timestamp::UNIX_EPOCH, &mut files);
    let mine = |name: &str| ["sbom", "build_provenance"].iter().any(|start| name.starts_with(start));
    let beside = files.iter().find(|file| file.name.starts_with("attached_")).map(|file| file.text.clone().unwrap());
    let found = files.into_iter().filter(|file| mine(&file.name)).map(|file| (file.name, file.text)).collect();
    (found, beside.unwrap_or_default())
}

#[tokio::test]
async fn attached_files_are_written_byte_for_byte_under_the_names_of_the_template() {
    let server = Server::start(None).await;
    let image = server.push();
    let made = provenance(&image);
    server.attach(&image, &[(SPDX_TYPE, server.blob(SPDX)), (STATEMENT_TYPE, server.blob(&made))]);
    let record = record(&[server.image()]);
    let images = gather(&record, &server.allowed()).await.unwrap();
    let (files, beside) = laid(&record, &images);
    assert_eq!(
        files,
        [
            ("sbom_v2.1.2.json".to_owned(), Ok(String::from_utf8(SPDX.to_vec()).unwrap())),
            ("build_provenance_v2.1.2.json".to_owned(), Ok(String::from_utf8(made).unwrap())),
        ]
    );
    for says in [image.as_str(), "what tag v2 meant when it was asked", "the referrers API", "signatures were not"] {
        assert!(beside.contains(says), "{says}: {beside}");
    }
}

#[tokio::test]
async fn by_digest_and_by_the_fallback_tag_nothing_is_said_of_a_tag() {
    let server = Server::start(None).await;
    let image = server.push();
    let artifact = json!({"artifactType": SPDX_TYPE, "subject": {"digest": image.as_str()},
        "layers": [{"mediaType": "application/octet-stream", "digest": server.blob(SPDX).as_str()}]});
    let listed = json!({"manifests": [{"digest": server.manifest(&artifact).as_str()}]});
    server.set(&format!("/v2/shop/web/manifests/sha256-{}", image.hex()), say(listed.to_string()));
    let record = record(&[format!("{}/shop/web@{image}", server.host)]);
    let (files, beside) = laid(&record, &gather(&record, &server.allowed()).await.unwrap());
    assert!(files[0].1.is_ok(), "{files:?}");
    assert!(beside.contains("the fallback tag") && !beside.contains("meant when"), "{beside}");
    let said = files[1].1.clone().unwrap_err();
    assert!(said.contains("none is attached to") && said.contains("spec.links"), "{said}");
}

#[tokio::test]
async fn the_index_of_buildkit_and_the_tags_of_cosign_are_looked_at() {
    let server = Server::start(None).await;
    let platform = server.manifest(&json!({"layers": []}));
    let made = provenance(&platform);
    let built_in = server.manifest(&json!({"layers": [
        {"mediaType": STATEMENT_TYPE, "digest": server.blob(&made).as_str()}]}));
    let index = json!({"manifests": [{"digest": platform.as_str()}, {"digest": built_in.as_str(), "annotations": {
        "vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": platform.as_str()}}]});
    server.set("/v2/shop/web/manifests/v2", say(index.to_string()));
    let digest = Digest::of(index.to_string().as_bytes());
    let sbom = json!({"layers": [{"mediaType": "text/spdx+json", "digest": server.blob(SPDX).as_str()}]});
    server.set(&format!("/v2/shop/web/manifests/sha256-{}.sbom", digest.hex()), say(sbom.to_string()));
    let record = record(&[server.image()]);
    let (files, beside) = laid(&record, &gather(&record, &server.allowed()).await.unwrap());
    assert!(files.iter().all(|(_, text)| text.is_ok()) && files.len() == 2, "{files:?}");
    assert!(beside.contains("the image's own index") && beside.contains("cosign's tag of SBOMs"), "{beside}");
}

#[tokio::test]
async fn a_registry_that_is_not_allowed_is_asked_nothing() {
    let server = Server::start(None).await;
    let image = server.push();
    server.attach(&image, &[(SPDX_TYPE, server.blob(SPDX))]);
    let record = record(&[server.image()]);
    let other = Allowed::new(&["other.example.com".to_owned()], &[]).unwrap();
    let (files, beside) = laid(&record, &gather(&record, &other).await.unwrap());
    let said = files[0].1.clone().unwrap_err();
    assert!(said.contains(&format!("--registry {} allows it", server.host)), "{said}");
    assert!(beside.contains("not looked at"), "{beside}");
    assert!(gather(&record, &Allowed::default()).await.unwrap().is_empty());
    assert_eq!(server.asked(), []);
}

#[tokio::test]
async fn hostile_answers_harm_nothing_and_the_sound_file_beside_them_is_taken() {
    let server = Server::start(None).await;
    let image = server.push();
    let good = server.blob(SPDX);
    let lying = server.blob(b"lying");
    server.set(&format!("/v2/shop/web/blobs/{lying}"), say(SPDX));
    let endless = Digest::of(b"endless");
    let mut chunks = format!("{:x}\r\n", registry::FILE + 1).into_bytes();
    chunks.resize(chunks.len() + registry::FILE + 1, b' ');
    let headers = "transfer-encoding: chunked\r\nx: content-length\r\n".to_owned();
    server.set(&format!("/v2/shop/web/blobs/{endless}"), Say { status: 200, headers, body: chunks });
    let huge = Digest::of(b"huge");
    let headers = "content-length: 99999999999\r\n".to_owned();
    server.set(&format!("/v2/shop/web/blobs/{huge}"), Say { status: 200, headers, body: Vec::new() });
    let odd = server.blob(b"[[[[");
    let ansi = server.blob(b"{\"bomFormat\": \"\x1b[31m\"}");
    server.attach(&image, &[lying, endless, huge, odd, ansi, good].map(|digest| (SPDX_TYPE, digest)));
    let listing = server.answers.lock().unwrap()[&format!("/v2/shop/web/referrers/{image}")].clone();
    let mut listed: serde_json::Value = serde_json::from_slice(&listing.body).unwrap();
    let others = json!({"subject": {"digest": Digest::of(b"y").as_str()}, "layers": []});
    let others = server.manifest(&others);
    for digest in ["sha256:../../../etc/passwd", "", Digest::of(b"nowhere").as_str(), others.as_str()] {
        listed["manifests"].as_array_mut().unwrap().insert(0, json!({"digest": digest, "artifactType": "\u{1b}[2J"}));
    }
    server.refer(&image, listed["manifests"].as_array().unwrap());
    let record = record(&[server.image()]);
    let (files, beside) = laid(&record, &gather(&record, &server.allowed()).await.unwrap());
    let sound: Vec<&str> = files.iter().filter(|(_, text)| text.is_ok()).map(|(name, _)| name.as_str()).collect();
    assert_eq!(sound, ["sbom_v2.1.2.json"], "{files:?}");
    for says in [
        "has the digest",
        "larger than",
        "is no JSON",
        "digest is no sha256",
        "listed, and not there",
        "attached to something else",
    ] {
        assert!(beside.contains(says), "{says}: {beside}");
    }
    assert!(!beside.contains('\u{1b}'), "{beside:?}");
    assert!(server.asked().iter().all(|(path, _)| path.starts_with("/v2/shop/web/")), "{:?}", server.asked());
}

#[tokio::test]
async fn lists_that_lead_elsewhere_or_are_none_are_not_followed() {
    let server = Server::start(None).await;
    let image = server.push();
    for (answer, says) in [
        (
            Say { headers: "link: <http://127.0.0.1:1/v2/x>; rel=\"next\"\r\n".to_owned(), ..say("{}") },
            "not of this repository",
        ),
        (Say { headers: "link: </v2/other/referrers/x>; rel=\"next\"\r\n".to_owned(), ..say("{}") }, "not of this"),
        (say("[]]"), "no JSON of an index"),
        (say(r#"{"manifests": 5}"#), "no JSON of an index"),
    ] {
        server.set(&format!("/v2/shop/web/referrers/{image}"), answer);
        let images = gather(&record(&[server.image()]), &server.allowed()).await.unwrap();
        assert!(images[0].passed_over.iter().any(|why| why.contains(says)), "{says}: {:?}", images[0].passed_over);
    }
    // A list that never ends is read for some pages only.
    let again = format!("link: </v2/shop/web/referrers/{image}>; rel=\"next\"\r\n");
    server.set(&format!("/v2/shop/web/referrers/{image}"), Say { headers: again, ..say("{}") });
    let before = server.asked().len();
    gather(&record(&[server.image()]), &server.allowed()).await.unwrap();
    assert!(server.asked().len() - before < 20);
}

#[tokio::test]
async fn a_registry_that_does_not_answer_makes_it_fail() {
    let server = Server::start(None).await;
    let image = server.push();
    for status in [403, 429, 500, 503] {
        server.set(&format!("/v2/shop/web/referrers/{image}"), refuse(status, "x: y"));
        let error = gather(&record(&[server.image()]), &server.allowed()).await.unwrap_err();
        assert!(error.to_string().contains(&status.to_string()), "{error}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let allowed = Allowed::new(std::slice::from_ref(&gone), &[]).unwrap();
    let error = gather(&record(&[format!("{gone}/a:1")]), &allowed).await.unwrap_err();
    assert!(error.to_string().contains("does not answer"), "{error}");
}

#[tokio::test]
async fn a_password_goes_to_its_registry_and_never_along_with_a_redirect() {
    // jane:secret
    let server = Server::start(Some(("Basic amFuZTpzZWNyZXQ=", "Basic realm=\"x\""))).await;
    let store = Server::start(None).await;
    let image = server.push();
    let digest = server.blob(SPDX);
    server.attach(&image, &[(SPDX_TYPE, digest.clone())]);
    let blob = format!("/v2/shop/web/blobs/{digest}");
    store.set("/signed?key=1", say(SPDX));
    server.set(&blob, refuse(307, &format!("location: http://{}/signed?key=1", store.host)));
    let record = record(&[server.image()]);

    let error = gather(&record, &server.allowed()).await.unwrap_err();
    assert!(error.to_string().contains("docker login"), "{error}");
    // Without TLS it goes only where that was said.
    let images = gather(&record, &server.allowed_as("jane", "secret")).await.unwrap();
    assert!(images[0].passed_over.iter().any(|why| why.contains("without TLS")), "{:?}", images[0].passed_over);
    assert_eq!(store.asked(), []);

    let both = Allowed::new(&[server.host.clone(), store.host.clone()], &[]).unwrap();
    let login = Login { user: "jane".to_owned(), password: "secret".to_owned() };
    let both = both.with_logins(BTreeMap::from([(server.host.clone(), login)]));
    let images = gather(&record, &both).await.unwrap();
    assert_eq!(images[0].found.len(), 1, "{:?}", images[0].passed_over);
    assert_eq!(store.asked(), [("/signed?key=1".to_owned(), None)]);

    server.set(&blob, refuse(302, &format!("location: {blob}")));
    let images = gather(&record, &both).await.unwrap();
    assert!(images[0].passed_over.iter().any(|why| why.contains("redirects more than")), "{images:?}");
}

#[tokio::test]
async fn a_token_is_asked_for_with_the_password_only_at_the_registrys_own_host() {
    let elsewhere = Server::start(None).await;
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\",scope=\"everything\"", elsewhere.host);
    let server = Server::start(Some(("Bearer good", &challenge))).await;
    let image = server.push();
    server.attach(&image, &[(SPDX_TYPE, server.blob(SPDX))]);
    let record = record(&[server.image()]);
    let path = "/token?scope=repository%3Ashop%2Fweb%3Apull&service=s";
    elsewhere.set(path, say(r#"{"token": "good"}"#));

    // Without TLS at a host of which that was not said: nothing is asked there.
    let images = gather(&record, &server.allowed_as("jane", "secret")).await.unwrap();
    assert!(images[0].not_read.as_deref().is_some_and(|why| why.contains("without TLS")), "{images:?}");
    assert_eq!(elsewhere.asked(), []);

    // A host that may be asked gets it.
    let login = Login { user: "jane".to_owned(), password: "secret".to_owned() };
    let both = Allowed::new(&[server.host.clone(), elsewhere.host.clone()], &[]).unwrap();
    let both = both.with_logins(BTreeMap::from([(server.host.clone(), login)]));
    let images = gather(&record, &both).await.unwrap();
    assert_eq!(images[0].found.len(), 1, "{images:?}");
    assert_eq!(elsewhere.asked(), [(path.to_owned(), Some("Basic amFuZTpzZWNyZXQ=".to_owned()))]);
    assert!(server.asked().iter().all(|(_, password)| password.as_deref().is_none_or(|word| word == "Bearer good")));

    for odd in ["{}", "[]", r#"{"token": "a\nb"}"#] {
        elsewhere.set(path, say(odd));
        let images = gather(&record, &both).await.unwrap();
        assert!(images[0].not_read.as_deref().is_some_and(|why| why.contains("is none")), "{odd}: {images:?}");
    }
}

#[tokio::test]
async fn a_release_takes_so_many_bytes_and_no_more() {
    let server = Server::start(None).await;
    let image = server.push();
    let several: Vec<(&str, Digest)> = (0..6)
        .map(|number| (SPDX_TYPE, server.blob(format!("{{\"spdxVersion\": \"{number:980}\"}}").as_bytes())))
        .collect();
    server.attach(&image, &several);
    let record = record(&[server.image(), format!("{}/shop/web@{image}", server.host)]);
    let images = within(&record, &server.allowed(), 3500).await.unwrap();
    let taken: Vec<usize> = images.iter().map(|image| image.found.len()).collect();
    assert_eq!(taken, [4, 0]);
    assert!(images[1].passed_over.iter().all(|why| why.contains("more than")), "{:?}", images[1].passed_over);
}

#[tokio::test]
async fn images_beyond_the_first_are_named_in_their_files() {
    let server = Server::start(None).await;
    let image = server.push();
    let bom = br#"{"bomFormat": "CycloneDX"}"#;
    server.attach(&image, &[("application/vnd.cyclonedx+json", server.blob(bom)), (SPDX_TYPE, server.blob(SPDX))]);
    let mut record = record(&["odd image".to_owned(), format!("{}/shop/web@{image}", server.host), server.image()]);
    // The one that did not change comes last.
    record.status.as_mut().unwrap().stable.images = vec!["odd image".to_owned()];
    let images = gather(&record, &server.allowed()).await.unwrap();
    let (files, beside) = laid(&record, &images);
    let names: Vec<&str> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(
        names,
        [
            "sbom_v2.1.2.json",
            "sbom_v2.1.2.2.json",
            "sbom_v2.1.2_web.json",
            "sbom_v2.1.2_web.2.json",
            "build_provenance_v2.1.2.json"
        ]
    );
    assert!(files[0].1.as_ref().unwrap().contains("spdx"), "SPDX comes first");
    assert!(beside.contains("its name is not whole"), "{beside}");
    let (all, _) =
        crate::commands::evidence::files(&record, &canary_api::Changes::default(), &images, Timestamp::UNIX_EPOCH)
            .unwrap();
    let notes = all.iter().find(|(name, _)| name.starts_with("release_notes")).unwrap();
    assert!(notes.1.lines().any(|line| line.contains("sbom_v2.1.2.json") && !line.contains("not collected")));
    let list = evidence::sums(all.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
    let same = evidence::differences(&list, all.iter().map(|(name, text)| (name.as_str(), text.as_bytes())));
    assert_eq!(same, Ok(Vec::new()));
}
