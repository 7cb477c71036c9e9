//! The client over loopback: it counts exactly, tells failures apart, repeats nothing.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use lab_app::load::{Config, End, ErrorKind, LoadError, LoadHandle, NO_VERSION, Status, Summary};
use lab_app::shop::{self, Faults, Shop, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const LONG: Duration = Duration::from_secs(60);

async fn start_shop(config: shop::Config) -> (SocketAddr, Arc<State>) {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let shop = Shop::bind(shop::Config { listen, ..config }).await.unwrap();
    let (address, state) = (shop.address(), shop.state());
    tokio::spawn(shop.run(std::future::pending()));
    (address, state)
}

/// A server that does `each` with every connection; counts connections.
async fn start_server<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, Arc<AtomicU64>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let count = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(each(stream));
        }
    });
    (address, count)
}

async fn read_request(stream: &mut TcpStream) {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(stream.read_u8().await.unwrap());
    }
}

/// Few requests, quickly, with time to spare for a busy machine.
fn config(address: SocketAddr, requests: u64) -> Config {
    let mut config = Config::new(format!("http://{address}/"));
    config.rate = 500.0;
    config.requests = Some(requests);
    config.timeout = LONG;
    config
}

async fn run(config: Config) -> Summary {
    let summary = LoadHandle::start(config).unwrap().finished().await.unwrap();
    assert_eq!(summary.sent, summary.answers.total(), "every request ends once");
    assert_eq!(summary.bad, summary.bad_answers.len() as u64);
    summary
}

#[tokio::test]
async fn the_client_and_the_service_count_the_same() {
    let faults = Faults { error_rate: 0.2, ..Faults::default() };
    let (address, state) = start_shop(shop::Config { faults, ..Default::default() }).await;
    let summary = run(config(address, 200)).await;
    assert_eq!(summary.end, End::Requests);
    assert_eq!(summary.sent, 200);
    let failed = summary.answers.of("v1", Status::Code(500));
    assert!(failed > 0);
    assert_eq!(failed, state.requests_with(500));
    assert_eq!(summary.answers.of("v1", Status::Code(200)), state.requests_with(200));
    assert_eq!(summary.bad, failed);
    assert_eq!(summary.versions["v1"].seen.count, 200);
    assert_eq!(summary.versions["v1"].bad, failed);
    assert!(summary.bad_answers.iter().all(|bad| bad.status == Status::Code(500)));
    assert!(summary.bad_answers.is_sorted_by_key(|bad| bad.at));
}

#[tokio::test]
async fn connections_are_kept_and_bounded() {
    let requests = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&requests);
    let server = start_server(move |mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            loop {
                read_request(&mut stream).await;
                counted.fetch_add(1, Ordering::SeqCst);
                let answer = b"HTTP/1.1 200 OK\r\nx-version: a\r\ncontent-length: 2\r\n\r\nok";
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    let (address, connections) = server.await;
    let mut load = config(address, 100);
    load.connections = 3;
    load.in_flight = 3;
    let summary = run(load).await;
    assert_eq!(summary.answers.of("a", Status::Code(200)), 100);
    assert_eq!(requests.load(Ordering::SeqCst), 100, "nothing is sent twice");
    assert_eq!(connections.load(Ordering::SeqCst), 3);

    let mut load = config(address, 30);
    load.requests_per_connection = Some(1);
    run(load).await;
    assert_eq!(connections.load(Ordering::SeqCst), 33);
}

#[tokio::test]
async fn a_refused_connection_is_counted_as_connect() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let summary = run(config(address, 5)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Error(ErrorKind::Connect)), 5);
    assert_eq!(summary.bad, 5);
}

#[tokio::test]
async fn silence_is_counted_as_timeout() {
    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut load = config(address, 5);
    load.timeout = Duration::from_millis(50);
    let summary = run(load).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Error(ErrorKind::Timeout)), 5);
}

#[tokio::test]
async fn a_late_body_is_a_timeout_of_the_version_that_began_it() {
    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        let half = b"HTTP/1.1 200 OK\r\nx-version: v2\r\ncontent-length: 100\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let mut load = config(address, 1);
    // Long enough that the head arrives on a busy machine, short enough to wait for.
    load.timeout = Duration::from_secs(1);
    let summary = run(load).await;
    assert_eq!(summary.answers.of("v2", Status::Error(ErrorKind::Timeout)), 1);
}

#[tokio::test]
async fn a_connection_closed_before_the_answer_is_closed() {
    let (address, connections) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
    })
    .await;
    let summary = run(config(address, 5)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Error(ErrorKind::Closed)), 5);
    assert_eq!(connections.load(Ordering::SeqCst), 5, "no request is repeated");
}

#[tokio::test]
async fn a_cut_body_is_closed_and_keeps_its_version() {
    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        let half = b"HTTP/1.1 200 OK\r\nx-version: v2\r\ncontent-length: 100\r\n\r\nhalf";
        stream.write_all(half).await.unwrap();
    })
    .await;
    let summary = run(config(address, 5)).await;
    assert_eq!(summary.answers.of("v2", Status::Error(ErrorKind::Closed)), 5);
}

#[tokio::test]
async fn a_reset_connection_is_reset() {
    let (address, _) = start_server(|stream| async move {
        // Closing with the request unread makes the kernel send a reset.
        stream.peek(&mut [0]).await.unwrap();
    })
    .await;
    let summary = run(config(address, 5)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Error(ErrorKind::Reset)), 5);
}

#[tokio::test]
async fn what_is_not_http_is_protocol() {
    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        stream.write_all(b"220 mail ready\r\n\r\n").await.unwrap();
    })
    .await;
    let summary = run(config(address, 5)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Error(ErrorKind::Protocol)), 5);
}

#[tokio::test]
async fn a_body_without_end_is_not_read_without_end() {
    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n";
        stream.write_all(head).await.unwrap();
        while stream.write_all(&[b'x'; 65_536]).await.is_ok() {}
    })
    .await;
    let summary = run(config(address, 1)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Error(ErrorKind::TooLarge)), 1);
}

#[tokio::test]
async fn a_gateways_own_503_has_no_version_and_a_redirect_is_not_followed() {
    let (address, connections) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        let answer = b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let summary = run(config(address, 4)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Code(503)), 4);
    assert_eq!(summary.answers.share("v1"), None);
    assert_eq!(connections.load(Ordering::SeqCst), 4);

    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        let answer =
            b"HTTP/1.1 302 Found\r\nlocation: http://8.8.8.8/\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let summary = run(config(address, 1)).await;
    assert_eq!(summary.answers.of(NO_VERSION, Status::Code(302)), 1);
    assert_eq!(summary.bad, 1);
}

#[tokio::test]
async fn a_kept_connection_closed_while_idle_costs_no_request() {
    // Answers once, promises to keep the connection, and closes it.
    let (address, connections) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        let answer = b"HTTP/1.1 200 OK\r\nx-version: a\r\ncontent-length: 0\r\n\r\n";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let mut load = config(address, 3);
    load.connections = 1;
    load.in_flight = 1;
    load.rate = 4.0;
    let summary = run(load).await;
    assert_eq!(summary.answers.of("a", Status::Code(200)), 3);
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn what_cannot_be_sent_in_time_is_skipped_and_counted() {
    let (address, _) = start_server(|mut stream| async move {
        read_request(&mut stream).await;
        std::future::pending::<()>().await;
    })
    .await;
    let mut load = config(address, 10);
    load.connections = 1;
    load.in_flight = 2;
    load.timeout = Duration::from_millis(500);
    let load = LoadHandle::start(load).unwrap();
    let full = load.wait_for(LONG, |now| now.skipped > 0 && now.answers.total() > 0).await.unwrap();
    assert!(full.in_flight <= 2);
    let summary = load.stop().await.unwrap();
    assert_eq!(summary.sent, summary.answers.total());
}

#[tokio::test]
async fn windows_share_and_versions_are_seen_while_it_runs() {
    let (address, state) = start_shop(shop::Config::default()).await;
    let mut load = config(address, 1_000_000);
    load.requests = None;
    let load = LoadHandle::start(load).unwrap();
    let before = load.wait_for(LONG, |now| now.answers.of("v1", Status::Code(200)) >= 10).await.unwrap();
    assert_eq!(before.answers.bad(), 0);
    state.set_faults(Faults { error_rate: 1.0, ..Faults::default() });
    let after = load.wait_for(LONG, |now| now.answers.bad() >= 10).await.unwrap();
    let window = after.since(&before);
    assert_eq!(window.answers.total(), after.answers.total() - before.answers.total());
    assert_eq!(window.answers.bad(), after.answers.bad());
    assert_eq!(window.answers.share("v1"), Some(1.0));
    assert!(after.last_answer("v1") >= before.last_answer("v1"));
    assert_eq!(after.first_answer("v1"), before.first_answer("v1"));
    assert!(load.window(&after).from >= after.at);
    let first_bad = load.bad_answers()[0].at;
    assert!(first_bad >= before.last_answer("v1").unwrap());
    let summary = load.stop().await.unwrap();
    assert_eq!(summary.end, End::Stopped);
    assert_eq!(summary.bad, state.requests_with(500));
}

#[tokio::test]
async fn what_never_happens_is_said_with_the_figures() {
    let (address, _) = start_shop(shop::Config::default()).await;
    let load = LoadHandle::start(config(address, 3)).unwrap();
    let error = load.wait_for(LONG, |now| now.answers.version("v2") > 0).await.unwrap_err();
    assert!(matches!(error, LoadError::Ended(_)), "{error}");
    let mut endless = config(address, 1);
    endless.requests = None;
    let load = LoadHandle::start(endless).unwrap();
    let error = load.wait_for(Duration::from_millis(20), |_| false).await.unwrap_err();
    assert!(matches!(error, LoadError::NotSeen { .. }), "{error}");
}

#[tokio::test]
async fn the_rate_can_change_and_stays_bounded() {
    let (address, _) = start_shop(shop::Config::default()).await;
    let mut slow = config(address, 20);
    slow.rate = 0.1;
    let load = LoadHandle::start(slow).unwrap();
    load.wait_for(LONG, |now| now.answers.total() == 1).await.unwrap();
    assert!(load.set_rate(2_001.0).is_err());
    load.set_rate(1_000.0).unwrap();
    // At the old rate the rest would take three minutes.
    load.wait_for(LONG, |now| now.answers.total() == 20).await.unwrap();
}

#[tokio::test]
async fn the_file_holds_every_answer_and_the_summary_last() {
    let (address, _) = start_shop(shop::Config::default()).await;
    let folder = std::env::temp_dir().join(format!("lab-app-load-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (out, stats) = (folder.join("out.jsonl"), folder.join("stats.json"));
    let mut load = config(address, 50);
    load.rate = 100.0;
    load.out = Some(out.clone());
    load.stats_file = Some(stats.clone());
    let summary = run(load).await;

    let text = std::fs::read_to_string(&out).unwrap();
    let mut lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let last = lines.pop().unwrap();
    assert_eq!(last["summary"]["sent"], 50);
    let read: Summary = serde_json::from_value(last["summary"].clone()).unwrap();
    assert_eq!(read, summary);
    let seconds: Vec<lab_app::load::Second> =
        lines.into_iter().map(|line| serde_json::from_value(line).unwrap()).collect();
    assert_eq!(seconds.iter().map(|second| second.sent).sum::<u64>(), 50);
    assert_eq!(seconds.iter().map(|second| second.answers.total()).sum::<u64>(), 50);
    let snapshot: lab_app::load::Snapshot = serde_json::from_slice(&std::fs::read(&stats).unwrap()).unwrap();
    assert_eq!(snapshot.answers, summary.answers);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn nothing_is_sent_outside_the_lab() {
    for url in ["http://192.0.2.1/", "http://example.org/", "http://10.95.0.1/"] {
        let error = LoadHandle::start(Config::new(url)).unwrap_err();
        assert_eq!(error.category(), "destination", "{error}");
    }
    let mut elsewhere = Config::new("http://127.0.0.1:1/");
    elsewhere.network_namespace = Some("/nonexistent/net".into());
    assert_eq!(LoadHandle::start(elsewhere).unwrap_err().category(), "namespace");
}
