use super::*;
use object_store::memory::InMemory;

fn files(names: &[&str]) -> Vec<(String, String)> {
    names.iter().map(|name| ((*name).to_owned(), format!("text of {name}"))).collect()
}

async fn names(store: &dyn ObjectStore) -> Vec<String> {
    let mut all: Vec<String> = store.list(None).map_ok(|one| one.location.to_string()).try_collect().await.unwrap();
    all.sort();
    all
}

#[tokio::test]
async fn what_a_broken_off_attempt_left_is_done_again() {
    let store = Arc::new(InMemory::new());
    let place = Place::of(store.clone());
    for name in ["shop/orders-1/MANIFEST.txt", "shop/orders-1/sbom_v1.json", "shop/orders-10/keep.txt"] {
        store.put(&Path::from(name), "old".into()).await.unwrap();
    }
    assert_eq!(place.state("shop/orders-1").await.unwrap(), State::Open);
    let digest = place.write("shop/orders-1", &files(&["MANIFEST.txt", "record.yaml"])).await.unwrap();
    assert_eq!(
        names(&*store).await,
        [
            "shop/orders-1/MANIFEST.txt",
            "shop/orders-1/SHA256SUMS",
            "shop/orders-1/record.yaml",
            "shop/orders-10/keep.txt"
        ]
    );
    let list = place.read("shop/orders-1", SUMS).await.unwrap().unwrap();
    assert_eq!(digest, Some(sha256(list.as_bytes())));
    let record = "text of record.yaml".to_owned();
    assert_eq!(place.state("shop/orders-1").await.unwrap(), State::Finished { record, wrong: None });
}

#[tokio::test]
async fn a_folder_of_somebody_elses_files_is_left_alone() {
    let store = Arc::new(InMemory::new());
    let place = Place::of(store.clone());
    store.put(&Path::from("shop/orders-1/holiday.jpg"), "x".into()).await.unwrap();
    let error = place.write("shop/orders-1", &files(&["MANIFEST.txt"])).await.unwrap_err().to_string();
    assert!(error.contains("holiday.jpg") && error.contains("move that away"), "{error}");
    assert_eq!(names(&*store).await, ["shop/orders-1/holiday.jpg"]);
}

#[tokio::test]
async fn who_comes_second_overwrites_no_list() {
    let store = Arc::new(InMemory::new());
    let place = Place::of(store.clone());
    let written = place.write("shop/a", &files(&["MANIFEST.txt", "record.yaml"])).await.unwrap();
    assert!(written.is_some());
    let before = place.state("shop/a").await.unwrap();
    let other = [("MANIFEST.txt".to_owned(), "other".to_owned()), ("record.yaml".to_owned(), "other".to_owned())];
    store.put(&Path::from("shop/a/SHA256SUMS.sig"), "signature".into()).await.unwrap();
    assert_eq!(place.write("shop/a", &other).await.unwrap(), None);
    assert_eq!(place.state("shop/a").await.unwrap(), before);
    assert_eq!(place.read("shop/a", "MANIFEST.txt").await.unwrap().as_deref(), Some("text of MANIFEST.txt"));
    assert_eq!(place.read("shop/a", "SHA256SUMS.sig").await.unwrap().as_deref(), Some("signature"));
}

#[tokio::test]
async fn what_another_run_writes_meanwhile_is_not_overwritten() {
    let store = Arc::new(InMemory::new());
    let place = Place::of(store.clone());
    let at = Path::from("shop/a/record.yaml");
    store.put(&at, "left".into()).await.unwrap();
    let left = store.head(&at).await.unwrap();
    // None was there when the folder was listed; another one was.
    store.put(&at, "of another run".into()).await.unwrap();
    for before in [None, Some(&left)] {
        assert!(!place.put("shop/a", "record.yaml", "ours", before).await.unwrap());
        assert_eq!(place.read("shop/a", "record.yaml").await.unwrap().as_deref(), Some("of another run"));
    }
    let now = store.head(&at).await.unwrap();
    assert!(place.put("shop/a", "record.yaml", "ours", Some(&now)).await.unwrap());
    assert_eq!(place.read("shop/a", "record.yaml").await.unwrap().as_deref(), Some("ours"));
}

#[tokio::test]
async fn every_file_of_a_finished_folder_is_compared_with_the_list() {
    let store = Arc::new(InMemory::new());
    let place = Place::of(store.clone());
    place.write("shop/a", &files(&["MANIFEST.txt", "record.yaml", "sbom.json"])).await.unwrap();
    let wrong = async || match place.state("shop/a").await.unwrap() {
        State::Finished { wrong, .. } => wrong.unwrap_or_default(),
        State::Open => panic!("it is finished"),
    };
    assert_eq!(wrong().await, "");
    for name in ["record.yaml", "sbom.json"] {
        let at = Path::from(format!("shop/a/{name}"));
        store.put(&at, "other".into()).await.unwrap();
        assert_eq!(wrong().await, format!("{name} was changed"));
        store.delete(&at).await.unwrap();
        assert_eq!(wrong().await, format!("{name} is missing"));
        store.put(&at, format!("text of {name}").into()).await.unwrap();
    }
    let list = Path::from("shop/a/SHA256SUMS");
    let sums = place.read("shop/a", SUMS).await.unwrap().unwrap();
    let without: String =
        sums.lines().filter(|row| !row.ends_with("record.yaml")).map(|row| format!("{row}\n")).collect();
    for (text, says) in [
        (without, "record.yaml is not listed"),
        ("x".to_owned(), "line 1"),
        (format!("{sums}{}  ../b/record.yaml", "0".repeat(64)), "line 4"),
        (sums.repeat(400), "more than 1000"),
    ] {
        store.put(&list, text.into()).await.unwrap();
        assert!(wrong().await.contains(says), "{says}: {}", wrong().await);
    }
}

/// A bucket that lists so many pages of one and the same key, and has no such object.
async fn paging(mut pages: usize) -> Arc<dyn ObjectStore> {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            let list = String::from_utf8_lossy(&head).contains("list-type=2");
            pages = pages.saturating_sub(1);
            let one = "<Contents><Key>shop/a/MANIFEST.txt</Key><Size>1</Size>\
                <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;x&quot;</ETag></Contents>";
            let body = format!(
                "<ListBucketResult>{}<IsTruncated>{}</IsTruncated><NextContinuationToken>x</NextContinuationToken></ListBucketResult>",
                one.repeat(100),
                pages > 0
            );
            let status = if list { "200 OK" } else { "404 Not Found" };
            let answer =
                format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let options = ClientOptions::new().with_allow_http(true).with_no_system_certificates(true);
    let _present = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let builder = AmazonS3Builder::new().with_bucket_name("b").with_region("us-east-1").with_endpoint(endpoint);
    let builder = builder.with_access_key_id("id").with_secret_access_key("key").with_client_options(options);
    Arc::new(builder.build().unwrap())
}

#[tokio::test]
async fn a_bucket_that_lists_one_file_for_ever_is_given_up() {
    let place = Place::of(paging(40).await);
    let error = place.write("shop/a", &files(&["MANIFEST.txt"])).await.unwrap_err().to_string();
    assert!(error.contains("more than 1000 files"), "{error}");
}

#[tokio::test]
async fn a_list_that_does_not_come_is_given_up() {
    let error = in_time(Duration::ZERO, std::future::pending::<Result<(), object_store::Error>>()).await.unwrap_err();
    assert!(error.contains("does not end"), "{error}");
}

#[tokio::test]
async fn a_folder_of_this_machine_is_left_with_the_files_of_the_set_alone() {
    let root = std::env::temp_dir().join(format!("kubectl-canary-place-{}", std::process::id()));
    let place = Place::open(root.to_str().unwrap(), None).unwrap();
    let folder = root.join("shop/orders-1");
    std::fs::create_dir_all(&folder).unwrap();
    for name in ["MANIFEST.txt", "sbom_v1.json", "report.html#1"] {
        std::fs::write(folder.join(name), "old").unwrap();
    }
    assert!(place.write("shop/orders-1", &files(&["MANIFEST.txt", "record.yaml"])).await.unwrap().is_some());
    let mut names: Vec<String> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["MANIFEST.txt", "SHA256SUMS", "record.yaml"]);
    std::fs::remove_dir_all(&root).unwrap();
}

#[test]
fn places_are_folders_or_buckets() {
    for (to, says) in [
        ("ftp://host/x", "neither a folder nor s3://"),
        ("s3:///x", "give a bucket"),
        ("s3://bucket/a/../b", "s3://bucket/a/../b"),
    ] {
        let error = Place::open(to, None).err().unwrap().to_string();
        assert!(error.contains(says), "{to}: {error}");
    }
}
