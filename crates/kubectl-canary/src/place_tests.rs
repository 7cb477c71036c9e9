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
    assert_eq!(place.state("shop/orders-1").await.unwrap(), State::Finished { record, sound: true });
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
    assert_eq!(place.write("shop/a", &files(&["MANIFEST.txt", "record.yaml"])).await.unwrap(), None);
    store.put(&Path::from("shop/a/record.yaml"), "other".into()).await.unwrap();
    let state = place.state("shop/a").await.unwrap();
    assert_eq!(state, State::Finished { record: "other".to_owned(), sound: false });
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
