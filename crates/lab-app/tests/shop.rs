//! The demo service over loopback: its metrics' shape, its faults, its readiness, its end.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lab_app::shop::{Config, Faults, Outcome, Shop, State};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

struct Running {
    address: SocketAddr,
    state: Arc<State>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<Outcome>,
}

async fn start(config: Config) -> Running {
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let shop = Shop::bind(Config { listen, ..config }).await.unwrap();
    let (stop, stopped) = oneshot::channel();
    Running {
        address: shop.address(),
        state: shop.state(),
        stop,
        ended: tokio::spawn(shop.run(async {
            let _ = stopped.await;
        })),
    }
}

fn quick() -> Config {
    Config { drain: Duration::ZERO, ..Config::default() }
}

/// One request on a connection of its own: the head (in lower case) and the body.
async fn ask(address: SocketAddr, request: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let text = format!("{request} HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n");
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_ascii_lowercase(), body.to_owned())
}

async fn metrics(shop: &Running) -> String {
    ask(shop.address, "GET /metrics").await.1
}

#[tokio::test]
async fn every_answer_names_its_version_and_pod() {
    let shop = start(Config { version: "v7".into(), pod: "orders-\"x\"".into(), ..quick() }).await;
    let (head, body) = ask(shop.address, "GET /").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("\r\nx-version: v7"), "{head}");
    let body: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["version"], "v7");
    assert_eq!(body["pod"], "orders-\"x\"");
}

#[tokio::test]
async fn metrics_have_the_shape_of_an_ordinary_service() {
    let shop = start(quick()).await;
    let (head, before) = ask(shop.address, "GET /metrics").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert!(!before.contains("http_requests_total{"), "{before}");
    assert!(before.contains("http_request_duration_seconds_count 0\n"));

    for path in ["/healthz", "/readyz", "/metrics", "/fault"] {
        assert!(ask(shop.address, &format!("GET {path}")).await.0.contains(" 200 "));
    }
    // The process's own figures move whatever it is asked.
    let counted = |text: &str| text.lines().filter(|line| !line.starts_with("process_")).collect::<Vec<_>>().join("\n");
    let after = metrics(&shop).await;
    assert_eq!(counted(&after), counted(&before), "probes, metrics and faults are not requests");

    ask(shop.address, "GET /").await;
    ask(shop.address, "GET /orders/1").await;
    ask(shop.address, "POST /orders").await;
    ask(shop.address, "BREW /pot").await;
    let text = metrics(&shop).await;
    for line in [
        "# TYPE http_requests_total counter\n",
        "http_requests_total{code=\"200\",method=\"GET\"} 2\n",
        "http_requests_total{code=\"200\",method=\"POST\"} 1\n",
        "http_requests_total{code=\"200\",method=\"other\"} 1\n",
        "# TYPE http_request_duration_seconds histogram\n",
        "http_request_duration_seconds_bucket{le=\"+Inf\"} 4\n",
        "http_request_duration_seconds_count 4\n",
        "orders_total 4\n",
        "idempotency_conflicts_total 0\n",
        "risk_blocks_total 0\n",
        "csp_violations_total 0\n",
        "# TYPE ws_staleness_seconds gauge\n",
        "ws_staleness_seconds 1\n",
    ] {
        assert!(text.contains(line), "{line}{text}");
    }
    assert!(!text.contains("code=\"500\""), "absent until the first 500");
}

#[tokio::test]
async fn a_fault_is_switched_while_it_runs_and_taken_back() {
    let shop = start(quick()).await;
    let (head, body) =
        ask(shop.address, "POST /fault?error_rate=1&conflict_rate=1&csp_rate=1&staleness_seconds=99").await;
    assert!(head.contains(" 200 "), "{body}");
    assert!(body.contains("\"error_rate\":1.0") && body.contains("unix_ms"), "{body}");
    assert!(ask(shop.address, "GET /").await.0.starts_with("http/1.1 500"));
    let text = metrics(&shop).await;
    assert!(text.contains("http_requests_total{code=\"500\",method=\"GET\"} 1\n"), "{text}");
    assert!(text.contains("\nws_staleness_seconds 99\n"));
    assert!(text.contains("\norders_total 0\n"), "a failed request places no order");

    ask(shop.address, "GET /fault?reset&risk_rate=1").await;
    assert!(ask(shop.address, "GET /").await.0.starts_with("http/1.1 200"));
    let text = metrics(&shop).await;
    assert!(text.contains("\norders_total 1\n"), "{text}");
    assert!(text.contains("\nrisk_blocks_total 1\n"), "{text}");
    assert!(text.contains("\nidempotency_conflicts_total 0\n"), "{text}");
}

#[tokio::test]
async fn a_wrong_fault_changes_nothing() {
    let shop = start(quick()).await;
    for query in ["error_rate=1&slow_rate=2", "error_rate=1&colour=red", "error_rate"] {
        let (head, body) = ask(shop.address, &format!("GET /fault?{query}")).await;
        assert!(head.contains(" 400 "), "{head} {body}");
    }
    assert!(ask(shop.address, "DELETE /fault?error_rate=1").await.0.contains(" 405 "));
    assert_eq!(shop.state.faults(), Faults::default());
}

#[tokio::test]
async fn a_fault_for_another_pod_or_from_a_gateway_changes_nothing() {
    let shop = start(Config { pod: "mine".into(), ..quick() }).await;
    let (head, body) = ask(shop.address, "GET /fault?pod=other&error_rate=1").await;
    assert!(head.contains(" 409 ") && body.contains("this is pod mine"), "{body}");
    let (head, _) = ask(shop.address, "GET /fault?version=v9&error_rate=1").await;
    assert!(head.contains(" 409 "));
    let forwarded = |query: &str| {
        let line = format!("GET /fault?{query} HTTP/1.1\r\nx-forwarded-for: 10.244.0.9");
        // The helper adds the protocol, so it ends up as the value of a header of its own.
        line + "\r\nx-rest:"
    };
    let (head, body) = ask(shop.address, &forwarded("error_rate=1")).await;
    assert!(head.contains(" 403 ") && body.contains("pod=NAME"), "{body}");
    assert_eq!(shop.state.faults(), Faults::default());
    let (head, _) = ask(shop.address, &forwarded("error_rate=1&pod=mine")).await;
    assert!(head.contains(" 200 "));
    assert_eq!(shop.state.faults().error_rate, 1.0);
}

#[tokio::test]
async fn slow_answers_stand_beyond_the_200_ms_bucket() {
    let faults = Faults { slow_rate: 1.0, slow_ms: 210, ..Faults::default() };
    let shop = start(Config { faults, ..quick() }).await;
    ask(shop.address, "GET /").await;
    let text = metrics(&shop).await;
    assert!(text.contains("_bucket{le=\"0.2\"} 0\n"), "{text}");
    assert!(text.contains("_bucket{le=\"+Inf\"} 1\n"), "{text}");
}

#[tokio::test]
async fn the_same_seed_and_version_fail_the_same_requests() {
    let codes = async |version: &str, seed| {
        let faults = Faults { error_rate: 0.5, ..Faults::default() };
        let version = version.to_owned();
        let shop = start(Config { version, seed, faults, ..quick() }).await;
        let mut codes = Vec::new();
        for _ in 0..64 {
            codes.push(ask(shop.address, "GET /").await.0[9..12].to_owned());
        }
        codes
    };
    let first = codes("v1", 1).await;
    assert_eq!(first, codes("v1", 1).await);
    assert_ne!(first, codes("v1", 2).await);
    assert_ne!(first, codes("v2", 1).await, "versions do not fail in step");
}

#[tokio::test]
async fn not_ready_and_503_until_started() {
    let startup_delay = Duration::from_secs(3600);
    let shop = start(Config { startup_delay, ..quick() }).await;
    assert!(ask(shop.address, "GET /readyz").await.0.contains(" 503 "));
    assert!(ask(shop.address, "GET /healthz").await.0.contains(" 200 "));
    assert!(ask(shop.address, "GET /").await.0.contains(" 503 "));
    assert_eq!(shop.state.requests_with(503), 1);
}

#[tokio::test]
async fn probes_fail_as_told() {
    let shop = start(quick()).await;
    ask(shop.address, "GET /fault?ready=false&live=false").await;
    assert!(ask(shop.address, "GET /readyz").await.0.contains(" 503 "));
    assert!(ask(shop.address, "GET /healthz").await.0.contains(" 503 "));
    assert!(ask(shop.address, "GET /").await.0.contains(" 200 "));
}

#[tokio::test]
async fn while_it_drains_it_is_not_ready_but_serves_and_closes_connections() {
    let drain = Duration::from_secs(3600);
    let shop = start(Config { drain, ..quick() }).await;
    shop.stop.send(()).unwrap();
    while !ask(shop.address, "GET /readyz").await.0.contains(" 503 ") {
        tokio::task::yield_now().await;
    }
    let mut stream = TcpStream::connect(shop.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    // Ends although this client asked to keep the connection.
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    shop.ended.abort();
}

#[tokio::test]
async fn an_answer_under_way_is_finished_before_it_ends() {
    let faults = Faults { latency_ms: 300, ..Faults::default() };
    let shop = start(Config { faults, ..quick() }).await;
    let address = shop.address;
    let asked = tokio::spawn(async move { ask(address, "GET /").await });
    while shop.state.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    shop.stop.send(()).unwrap();
    assert_eq!(shop.ended.await.unwrap(), Outcome::Stopped);
    assert!(asked.await.unwrap().0.starts_with("http/1.1 200"));
    assert!(TcpStream::connect(address).await.is_err(), "no longer listens");
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let shop = start(quick()).await;
    let mut idle = TcpStream::connect(shop.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).await.unwrap();
    shop.stop.send(()).unwrap();
    assert_eq!(shop.ended.await.unwrap(), Outcome::Stopped);
}

#[tokio::test]
async fn the_grace_ends_what_does_not_end_by_itself() {
    let faults = Faults { latency_ms: 60_000, ..Faults::default() };
    let grace = Duration::from_millis(10);
    let shop = start(Config { faults, grace, ..quick() }).await;
    let address = shop.address;
    let asked = tokio::spawn(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        answer
    });
    while shop.state.in_flight() == 0 {
        tokio::task::yield_now().await;
    }
    shop.stop.send(()).unwrap();
    assert_eq!(shop.ended.await.unwrap(), Outcome::CutOff);
    assert!(asked.await.unwrap().is_empty());
}

#[tokio::test]
async fn it_crashes_on_its_time_or_when_told() {
    let crash_after = Some(Duration::ZERO);
    let shop = start(Config { crash_after, ..quick() }).await;
    assert_eq!(shop.ended.await.unwrap(), Outcome::Crashed);

    let shop = start(quick()).await;
    ask(shop.address, "GET /fault?crash=true").await;
    let mut stream = TcpStream::connect(shop.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: shop\r\n\r\n").await.unwrap();
    assert_eq!(shop.ended.await.unwrap(), Outcome::Crashed);
}
