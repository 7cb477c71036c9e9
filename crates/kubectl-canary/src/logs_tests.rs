use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use canary_api::Changes;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::*;
use crate::commands::evidence::{Found, files};
use crate::records;

const RECORD: &str = include_str!("../../canary-report/tests/records/rolled-back.yaml");
const DB: &str = "orders-5-db-s1-1-77e01";
const DB_POD: &str = "orders-5-db-s1-1-77e01-9k";

fn record() -> ReleaseRecord {
    records::parse("x", RECORD).unwrap().remove(0)
}

/// A status and a body.
type Answer = (u16, Vec<u8>);

/// An API server on this machine, of fixed answers by path; that of a log ends with its container.
#[derive(Clone, Default)]
struct Server {
    answers: Arc<Mutex<BTreeMap<String, Answer>>>,
}

impl Server {
    async fn start() -> (Self, Cluster) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let cluster = Cluster::at(&listener.local_addr().unwrap().to_string(), "shop");
        let server = Self::default();
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
                    let (status, body) = serving.answer(&String::from_utf8(head).unwrap());
                    let length = body.len();
                    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n");
                    let _ = stream.write_all(head.as_bytes()).await;
                    let _ = stream.write_all(&body).await;
                });
            }
        });
        (server, cluster)
    }

    fn answer(&self, head: &str) -> Answer {
        let asked = head.split(' ').nth(1).unwrap();
        let (path, query) = asked.split_once('?').unwrap_or((asked, ""));
        let container = query.split('&').find_map(|one| one.strip_prefix("container="));
        let key = container.map_or_else(|| path.to_owned(), |container| format!("{path}/{container}"));
        let found = self.answers.lock().unwrap().get(&key).cloned();
        found.unwrap_or_else(|| (404, failure(404, "NotFound", &format!("{path} not found"))))
    }

    fn set(&self, path: &str, status: u16, body: impl Into<Vec<u8>>) {
        self.answers.lock().unwrap().insert(path.to_owned(), (status, body.into()));
    }

    fn job(&self, name: &str, job: &Value) {
        self.set(&format!("/apis/batch/v1/namespaces/shop/jobs/{name}"), 200, job.to_string());
    }

    fn pods(&self, pods: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods});
        self.set("/api/v1/namespaces/shop/pods", 200, list.to_string());
    }

    fn log(&self, pod: &str, container: &str, log: impl Into<Vec<u8>>) {
        self.set(&format!("/api/v1/namespaces/shop/pods/{pod}/log/{container}"), 200, log);
    }
}

fn failure(code: u16, reason: &str, message: &str) -> Vec<u8> {
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code});
    status.to_string().into_bytes()
}

fn job(name: &str) -> Value {
    let status = record().status.unwrap();
    json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "creationTimestamp": "2026-11-22T09:00:01Z",
            "labels": {LABEL_OWNED_BY: status.release},
            "annotations": {ANNOTATION_UID: status.release_uid, ANNOTATION_RELEASE_ID: status.id},
        },
        "status": {"conditions": [{"type": "Complete", "status": "True"}]},
    })
}

fn pod(name: &str, job: &str, containers: &[&str]) -> Value {
    let containers: Vec<Value> = containers.iter().map(|name| json!({"name": name})).collect();
    json!({
        "metadata": {"name": name, "namespace": "shop", "creationTimestamp": "2026-11-22T09:06:04Z",
            "ownerReferences": [{"apiVersion": "batch/v1", "kind": "Job", "name": job,
                "uid": format!("uid-{job}"), "controller": true}]},
        "spec": {"containers": containers},
    })
}

/// What was read of the job `db`.
async fn read_db(cluster: &Cluster) -> Read {
    gather(&record(), Some(cluster)).await.remove(1)
}

fn only(read: Read) -> Log {
    let Read::Logs(mut logs) = read else { panic!("{read:?}") };
    assert_eq!(logs.len(), 1, "{logs:?}");
    logs.remove(0)
}

fn laid(record: &ReleaseRecord, logs: Vec<Read>) -> BTreeMap<String, String> {
    let found = Found { logs, ..Found::default() };
    files(record, &Changes::default(), &found, Timestamp::UNIX_EPOCH).unwrap().0.into_iter().collect()
}

#[tokio::test]
async fn the_whole_log_lies_beside_the_templates_file_which_names_it() {
    let (server, cluster) = Server::start().await;
    server.job(DB, &job(DB));
    // Another's pod that claims to be of the Job, and a container whose log nobody named.
    server.pods(&[pod("another", "another", &["db"]), pod(DB_POD, DB, &["proxy", "db"])]);
    let log = (0..500).map(|number| format!("line\t{number} \x1b[31mred\r\n")).collect::<String>();
    server.log(DB_POD, "db", log);
    let read = gather(&record(), Some(&cluster)).await;
    assert_eq!(read.len(), record().status.unwrap().jobs.len());
    let files = laid(&record(), read);
    let whole = &files["db_health_stage_5.log"];
    assert_eq!(whole.lines().count(), 500);
    assert!(whole.starts_with("line\t0 \u{fffd}[31mred\nline\t1 "), "{whole}");
    let beside = &files["db_health_stage_5.txt"];
    assert!(beside.contains("    replication lag 0.2s\n"), "{beside}");
    assert!(beside.contains(&format!("container db of pod {DB_POD}: db_health_stage_5.log, ")), "{beside}");
    let manifest = &files["MANIFEST.txt"];
    let row = |name: &str| manifest.lines().find(|line| line.contains(name)).unwrap();
    assert!(row("db_health_stage_5.log").contains("the whole log of job db, stage 1 at 5%"), "{manifest}");
    // Of the others the Job is gone; the record has its end.
    assert!(row("blind_spots_scan_").ends_with("; only the end of the log: the Job is gone"), "{manifest}");
    assert!(files["job_smoke_stage_5.txt"].contains("1 of 2 checks failed"));
    assert!(!files.contains_key("job_smoke_stage_5.log"));
}

#[tokio::test]
async fn the_newest_of_a_long_log_is_kept_as_whole_lines() {
    let (server, cluster) = Server::start().await;
    server.job(DB, &job(DB));
    server.pods(&[pod(DB_POD, DB, &["db"])]);
    let log = (0..400_000).map(|number| format!("line {number}\n")).collect::<String>();
    server.log(DB_POD, "db", log.clone());
    let read = only(read_db(&cluster).await);
    let text = read.text.clone().unwrap();
    assert!(read.cut && text.len() <= MOST && text.len() > MOST - 20, "{}", text.len());
    assert!(log.ends_with(&format!("\n{text}")));
    let mut all = none(&record(), "x");
    all[1] = Read::Logs(vec![read]);
    let files = laid(&record(), all);
    assert!(files["db_health_stage_5.txt"].contains("its newest part"));
    assert!(files["MANIFEST.txt"].contains("its newest part"));
    // One line that is longer than all that is kept, and marks that are longer than what they stand for.
    let (text, cut) = harmless("\u{1b}".repeat(MOST).as_bytes(), false);
    assert!(cut && text.len() <= MOST && text.starts_with('\u{fffd}'), "{}", text.len());
    assert_eq!(harmless(b"rest of a line\nwhole", true), ("whole\n".to_owned(), true));
    assert_eq!(harmless(b"only a part", true), ("only a part\n".to_owned(), true));
    assert_eq!(harmless(b"", false), (String::new(), false));
}

#[tokio::test]
async fn a_job_of_another_release_is_not_read() {
    let (server, cluster) = Server::start().await;
    server.pods(&[pod(DB_POD, DB, &["db"])]);
    server.log(DB_POD, "db", "secret\n");
    let mut others = vec![job(DB); 4];
    others[0]["metadata"]["annotations"][ANNOTATION_UID] = "another".into();
    others[1]["metadata"]["annotations"][ANNOTATION_RELEASE_ID] = "orders-4".into();
    others[2]["metadata"]["labels"] = json!({});
    others[3]["metadata"]["creationTimestamp"] = "2026-11-23T00:00:00Z".into();
    for other in others {
        server.job(DB, &other);
        let read = read_db(&cluster).await;
        assert_eq!(read, Read::Nothing("the Job is gone; another has its name".to_owned()));
    }
    server.job(DB, &job(DB));
    assert_eq!(only(read_db(&cluster).await).text.unwrap(), "secret\n");
    server.pods(&[pod(DB_POD, "another", &["db"])]);
    assert_eq!(read_db(&cluster).await, Read::Nothing("the Job's pods are gone".to_owned()));
}

#[tokio::test]
async fn what_may_not_be_read_is_named_and_fails_nothing() {
    let (server, cluster) = Server::start().await;
    let jobs = format!("/apis/batch/v1/namespaces/shop/jobs/{DB}");
    server.set(&jobs, 403, failure(403, "Forbidden", "jobs.batch is forbidden"));
    let mut read = gather(&record(), Some(&cluster)).await;
    assert_eq!(read[1], Read::Nothing(format!("you may not read Job {DB}")));
    let manifest = laid(&record(), read.clone()).remove("MANIFEST.txt").unwrap();
    assert!(manifest.contains(&format!("only the end of the log: you may not read Job {DB}")), "{manifest}");

    server.job(DB, &job(DB));
    server.set("/api/v1/namespaces/shop/pods", 403, failure(403, "Forbidden", "pods is forbidden"));
    assert!(matches!(read_db(&cluster).await, Read::Nothing(why) if why.contains("pods is forbidden")));

    server.pods(&[pod(DB_POD, DB, &["db"])]);
    let log = format!("/api/v1/namespaces/shop/pods/{DB_POD}/log/db");
    server.set(&log, 403, failure(403, "Forbidden", "pods/log is forbidden"));
    read[1] = read_db(&cluster).await;
    let files = laid(&record(), read);
    assert!(files["db_health_stage_5.txt"].contains("not here, cannot read the log of container db"));
    assert!(files["MANIFEST.txt"].contains("pods/log is forbidden"), "{}", files["MANIFEST.txt"]);
    assert!(!files.contains_key("db_health_stage_5.log"));
}

#[tokio::test]
async fn every_container_is_read_where_the_record_names_none_that_stands() {
    let (server, cluster) = Server::start().await;
    server.job(DB, &job(DB));
    server.pods(&[pod("later", DB, &["proxy", "db", "quiet"])]);
    server.log("later", "proxy", "one\n");
    server.log("later", "db", "two\n");
    server.log("later", "quiet", "");
    let mut record = record();
    let status = record.status.as_mut().unwrap();
    status.jobs[1].log = String::new();
    let files = laid(&record, gather(&record, Some(&cluster)).await);
    assert_eq!(
        (files["db_health_stage_5.log"].as_str(), files["db_health_stage_5.2.log"].as_str()),
        ("one\n", "two\n")
    );
    let beside = &files["db_health_stage_5.txt"];
    // The record has no end of it, so the template's file gets one.
    assert!(
        beside.contains("\n    two\n") && beside.contains("container quiet of pod later: it wrote nothing"),
        "{beside}"
    );
    assert!(
        !files["MANIFEST.txt"].lines().any(|line| line.contains("db_health_stage_5.txt") && line.contains("end of"))
    );
}

#[tokio::test]
async fn there_is_an_end_to_time_and_room() {
    let (server, cluster) = Server::start().await;
    server.job(DB, &job(DB));
    server.pods(&[pod(DB_POD, DB, &["db"])]);
    server.log(DB_POD, "db", "12345678\n");
    let read = within(&record(), Some(&cluster), DEADLINE, 9).await;
    assert!(matches!(&read[1], Read::Logs(_)), "{read:?}");
    assert!(matches!(&read[2], Read::Nothing(why) if why.contains("more than 9 bytes")), "{read:?}");
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let cluster = Cluster::at(&silent.local_addr().unwrap().to_string(), "shop");
    let read = within(&record(), Some(&cluster), Duration::ZERO, MOST).await;
    assert!(read.iter().all(|one| matches!(one, Read::Nothing(why) if why.contains("took more than"))), "{read:?}");
}

#[tokio::test]
async fn without_a_cluster_that_is_said() {
    let read = gather(&record(), None).await;
    let manifest = laid(&record(), read).remove("MANIFEST.txt").unwrap();
    assert!(manifest.contains("only the end of the log: it was written without a cluster"), "{manifest}");
    let record = records::parse("x", RECORD).unwrap().remove(0);
    let manifest = laid(&record, none(&record, "--no-logs was given")).remove("MANIFEST.txt").unwrap();
    assert!(manifest.contains("only the end of the log: --no-logs was given"), "{manifest}");
}
