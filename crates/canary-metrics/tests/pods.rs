//! Pods on the loopback that answer as they should, and as they should not: what was read is
//! counted as the pod's we asked; what was not is an absence or an error, never a pass, and
//! neither panics nor waits for ever.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use canary_counters::measure::share;
use canary_counters::{Grouping, LabelNames, Measured, Meter, PodKnown, Scope, Selector, Series, Tick};
use canary_metrics::fake::pod_endpoint;
use canary_metrics::{
    EndpointError, FetchError, MetricSource, PodEndpoint, PodLimits, PodProblem, PodSamples, PodScraper, Problem,
};
use common::{Act, SPACES, Server};
use jiff::Timestamp;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// All rounds begin around this time.
const AT: i64 = 1_700_000_000;
const LOOKBACK: Duration = Duration::from_secs(60);
const GOOD: &str = "http_requests_total{code=\"200\"} 100\nhttp_requests_total{code=\"500\"} 5\n";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(AT + seconds).unwrap()
}

/// Nothing times out that answers at all.
fn patient() -> PodLimits {
    let hour = Duration::from_secs(3600);
    PodLimits { timeout: hour, round_timeout: hour, max_body_bytes: 1 << 20, ..PodLimits::default() }
}

fn scraper(limits: PodLimits) -> PodScraper {
    PodScraper::new(limits).unwrap()
}

fn pod(name: &str, server: &Server) -> PodEndpoint {
    pod_endpoint("shop", name, server.address, "/metrics").unwrap()
}

fn scope(pods: &[&str]) -> Scope {
    Scope::pods("shop", pods.iter().copied(), &LabelNames::default()).unwrap()
}

fn selector(text: &str) -> Selector {
    Selector::parse(text).unwrap()
}

async fn ask(samples: &PodSamples, text: &str, pods: &[&str]) -> Result<Vec<Series>, FetchError> {
    samples.counters(&selector(text), &scope(pods), LOOKBACK, samples.at()).await
}

fn metrics(body: &str) -> Act {
    http("200 OK", "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n", body.as_bytes())
}

fn http(status: &str, headers: &str, body: &[u8]) -> Act {
    let head = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    Act::Raw([head.as_bytes(), body].concat())
}

fn sum(series: &[Series]) -> f64 {
    series.iter().map(|one| one.samples[0].value).sum()
}

/// The tick of a round, of pods that have been there for long.
fn tick(samples: &PodSamples, pods: &[&str]) -> Tick {
    let now_ms = samples.at().as_millisecond();
    Tick {
        now_ms,
        covered_from_ms: now_ms - 60_000,
        pods: pods.iter().map(|name| PodKnown { name: (*name).to_owned(), started_at_ms: (AT - 300) * 1000 }).collect(),
        grouping: Grouping::Pod("pod".to_owned()),
    }
}

/// What an `errorRate` gate makes of a round.
async fn judged(meter: &mut Meter, samples: &PodSamples, pods: &[&str]) -> Measured {
    let tick = tick(samples, pods);
    let total = ask(samples, "http_requests_total", pods).await;
    let bad = ask(samples, r#"http_requests_total{code=~"5.."}"#, pods).await;
    let (total, bad) = match (total, bad) {
        (Ok(total), Ok(bad)) => (total, bad),
        (Err(error), _) | (_, Err(error)) => return Measured::Error(error.to_string()),
    };
    meter.witness(&total, &tick);
    meter.witness(&bad, &tick);
    match (meter.absorb("total", &total, &tick), meter.absorb("bad", &bad, &tick)) {
        (Ok(total), Ok(bad)) => share(&total, &bad),
        (Err(error), _) | (_, Err(error)) => error.into(),
    }
}

/// A meter that has looked since before the pods were created, so that it takes them whole.
fn meter() -> Meter {
    Meter::new((AT - 600) * 1000)
}

#[tokio::test]
async fn a_good_answer_is_counted_at_the_time_it_came_in() {
    let (a, b) = (Server::start(metrics(GOOD)).await, Server::start(metrics(GOOD)).await);
    let samples = scraper(patient()).scrape(vec![pod("web-a", &a), pod("web-b", &b)], at(0)).await;
    assert_eq!(samples.failures(), []);
    let series = ask(&samples, "http_requests_total", &["web-a", "web-b"]).await.unwrap();
    assert_eq!(series.len(), 4);
    assert_eq!(series[0].describe(), r#"http_requests_total{code="200",namespace="shop",pod="web-a"}"#);
    for one in &series {
        assert_eq!(one.samples.len(), 1);
        let sampled = one.samples[0].at_ms;
        assert!((AT * 1000..=samples.at().as_millisecond()).contains(&sampled), "{sampled}");
    }
    assert_eq!(series[0].samples[0].at_ms, series[1].samples[0].at_ms, "one pod, one time");
    assert_eq!(judged(&mut meter(), &samples, &["web-a", "web-b"]).await, Measured::Counted { n: 210.0, k: 10.0 });
    let only = ask(&samples, "http_requests_total", &["web-b"]).await.unwrap();
    assert!(only.len() == 2 && only.iter().all(|one| one.label("pod") == "web-b"), "as the scope has it");
}

#[tokio::test]
async fn the_question_is_one_plain_get() {
    let server = Server::start(metrics(GOOD)).await;
    scraper(patient()).scrape(vec![pod("web-a", &server), pod("web-a", &server)], at(0)).await;
    let requests = server.requests();
    assert_eq!(requests.len(), 1, "a pod is asked once, however often it is named");
    let request = requests[0].to_ascii_lowercase();
    assert!(request.starts_with("get /metrics http/1.1\r\n"), "{request}");
    assert!(request.contains("accept: text/plain;version=0.0.4,application/openmetrics-text;version=1.0.0;q=0.5"));
    assert!(request.contains("accept-encoding: identity\r\n") && !request.contains("gzip"));
    assert!(!request.contains("authorization") && !request.contains("cookie"));
}

#[tokio::test]
async fn what_exporters_really_write_is_counted() {
    let text = "text/plain; version=0.0.4";
    let table = [
        (include_str!("data/client_golang.txt"), text, "http_requests_total", r#"{code=~"5.."}"#),
        (
            include_str!("data/envoy.txt"),
            "text/plain; charset=UTF-8",
            "envoy_cluster_upstream_rq_xx",
            r#"{envoy_response_code_class="5"}"#,
        ),
        (include_str!("data/traefik.txt"), text, "traefik_service_requests_total", r#"{code="502"}"#),
        (include_str!("data/istio.txt"), text, "istio_requests_total", r#"{response_code=~"5.."}"#),
        (include_str!("data/node_exporter.txt"), text, "node_cpu_seconds_total", r#"{mode="user"}"#),
        (
            include_str!("data/openmetrics.txt"),
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "http_requests_total",
            r#"{code="500"}"#,
        ),
    ];
    for (body, content_type, metric, bad) in table {
        let server = Server::start(http("200 OK", &format!("Content-Type: {content_type}\r\n"), body.as_bytes())).await;
        let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
        assert_eq!(samples.failures(), [], "{metric}");
        assert_eq!(sum(&ask(&samples, metric, &["web-a"]).await.unwrap()), 105.0, "{metric}");
        assert_eq!(sum(&ask(&samples, &format!("{metric}{bad}"), &["web-a"]).await.unwrap()), 5.0, "{metric}");
    }
}

#[tokio::test]
async fn histograms_are_series_like_others() {
    let server = Server::start(metrics(include_str!("data/client_golang.txt"))).await;
    let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
    let histogram = selector("http_request_duration_seconds");
    let failed = selector(r#"http_requests_total{code=~"5.."}"#);
    let buckets = samples.counters(&histogram.bucket(), &scope(&["web-a"]), LOOKBACK, samples.at()).await.unwrap();
    let tick = tick(&samples, &["web-a"]);
    let reading = meter().absorb_histogram("latency", &buckets, Some(&failed), &tick).unwrap();
    let latency = canary_counters::histogram::latency(&reading, 0.2, None);
    assert_eq!(latency.breach, Measured::Counted { n: 105.0, k: 9.0 });
    assert_eq!(sum(&ask(&samples, "http_request_duration_seconds_count", &["web-a"]).await.unwrap()), 105.0);
}

#[tokio::test]
async fn a_pod_cannot_speak_for_another() {
    let lie = "http_requests_total{code=\"200\",pod=\"web-b\",namespace=\"bank\",exported_pod=\"x\"} 7\n";
    let server = Server::start(metrics(lie)).await;
    let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
    assert_eq!(ask(&samples, "http_requests_total", &["web-b"]).await.unwrap(), []);
    let series = ask(&samples, "http_requests_total", &["web-a"]).await.unwrap();
    assert_eq!(
        series[0].describe(),
        r#"http_requests_total{code="200",exported_exported_pod="web-b",exported_namespace="bank",exported_pod="x",namespace="shop",pod="web-a"}"#
    );
    let other = Scope::pods("bank", ["web-a", "web-b"], &LabelNames::default()).unwrap();
    let answer = samples.counters(&selector("http_requests_total"), &other, LOOKBACK, samples.at()).await;
    assert_eq!(answer.unwrap(), [], "of another namespace nothing was read");
}

#[tokio::test]
async fn labels_that_scrapers_use_elsewhere_keep_the_pods_own_series_apart() {
    let body = "http_requests_total{endpoint=\"/a\",job=\"x\"} 100\nhttp_requests_total{endpoint=\"/b\",job=\"x\"} 5\n";
    let server = Server::start(metrics(body)).await;
    let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
    assert_eq!(sum(&ask(&samples, r#"http_requests_total{endpoint="/b"}"#, &["web-a"]).await.unwrap()), 5.0);
    assert_eq!(judged(&mut meter(), &samples, &["web-a"]).await, Measured::Counted { n: 105.0, k: 0.0 });
}

/// Every shape that must not count, with the category of its failure; `data` where it is
/// well-formed and the meter must object, or there is nothing to judge by.
fn shapes() -> Vec<(&'static str, Act, &'static str)> {
    let typed =
        |content_type: &str, body: &str| http("200 OK", &format!("Content-Type: {content_type}\r\n"), body.as_bytes());
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let raw = |text: &str| Act::Raw(text.as_bytes().to_vec());
    let html = "<!DOCTYPE html>\n<html><body>Sign in</body></html>\n";
    vec![
        // Well-formed, and of no use.
        ("empty", metrics(""), "data"),
        ("only remarks", metrics("# HELP http_requests_total Requests.\n# TYPE http_requests_total counter\n"), "data"),
        ("other metrics", metrics("up 1\n"), "data"),
        ("NaN", metrics("http_requests_total NaN\n"), "data"),
        ("infinite", metrics("http_requests_total +Inf\n"), "data"),
        ("minus infinite", metrics("http_requests_total -Inf\n"), "data"),
        ("negative", metrics("http_requests_total -3\n"), "data"),
        ("too large to count", metrics("http_requests_total 1e300\n"), "data"),
        ("the same series twice", metrics("http_requests_total 5\nhttp_requests_total 5\n"), "data"),
        (
            "the same but for an empty label",
            metrics("http_requests_total 5\nhttp_requests_total{code=\"\"} 5\n"),
            "data",
        ),
        ("only zeros", metrics("http_requests_total 0\n"), "data"),
        // Not metrics.
        ("a page", typed("text/html; charset=utf-8", html), "content_type"),
        ("a page that says it is text", metrics(html), "malformed"),
        ("a page that says nothing", http("200 OK", "", html.as_bytes()), "malformed"),
        ("JSON", typed("application/json", "{}"), "content_type"),
        ("JSON as text", metrics("{\"http_requests_total\": 5}\n"), "malformed"),
        ("protocol buffers", typed("application/vnd.google.protobuf; encoding=delimited", "\x05"), "content_type"),
        ("bytes", typed("application/octet-stream", GOOD), "content_type"),
        ("zeros", http("200 OK", "", &[0; 100]), "malformed"),
        ("not UTF-8", http("200 OK", "", b"http_requests_total{a=\"\xff\"} 5\n"), "malformed"),
        ("one bad line", metrics(&format!("{GOOD}oops\n{GOOD}")), "malformed"),
        ("a label that never ends", metrics("http_requests_total{code=\"200} 5\n"), "malformed"),
        ("another name in the braces", metrics("http_requests_total{__name__=\"x\"} 5\n"), "malformed"),
        ("OpenMetrics without an end", typed("application/openmetrics-text", GOOD), "malformed"),
        ("an endless line", metrics(&"x".repeat(100_000)), "malformed"),
        ("more series than kept", metrics(&"http_requests_total 1\n".repeat(45_000)), "malformed"),
        // Compressed, though none was asked for.
        ("gzip", http("200 OK", "Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"), "encoded"),
        ("deflate", http("200 OK", "Content-Encoding: deflate\r\n", b"x"), "encoded"),
        ("gzip that is not named", http("200 OK", "", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"), "malformed"),
        // Other answers than 200.
        ("404", http("404 Not Found", "", b"no such page"), "status"),
        ("401", http("401 Unauthorized", "WWW-Authenticate: Basic\r\n", b""), "credentials"),
        ("403", http("403 Forbidden", "", b""), "credentials"),
        ("406", http("406 Not Acceptable", "", b""), "status"),
        ("429", http("429 Too Many Requests", "", b""), "unavailable"),
        ("500", http("500 Internal Server Error", "", GOOD.as_bytes()), "unavailable"),
        ("503", http("503 Service Unavailable", "", b""), "unavailable"),
        ("204", raw("HTTP/1.1 204 No Content\r\n\r\n"), "status"),
        ("206", http("206 Partial Content", "Content-Range: bytes 0-9/99\r\n", GOOD.as_bytes()), "status"),
        ("304", raw("HTTP/1.1 304 Not Modified\r\n\r\n"), "redirect"),
        ("an upgrade", raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), "status"),
        // Connections that fail.
        ("not HTTP", raw("SSH-2.0-OpenSSH_9.2\r\n"), "unreachable"),
        ("HTTP/0.9", raw(GOOD), "unreachable"),
        ("closed without a word", raw(""), "unreachable"),
        ("cut headers", raw("HTTP/1.1 200 OK\r\nContent-"), "unreachable"),
        ("reset without a word", Act::Reset(Vec::new()), "unreachable"),
        ("cut body", raw(&format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{GOOD}")), "broken_off"),
        ("cut chunks", raw(&format!("{chunked}20\r\nhttp_requests_total 5\n")), "broken_off"),
        ("no last chunk", raw(&format!("{chunked}16\r\nhttp_requests_total 5\n\r\n")), "broken_off"),
        ("nonsense chunks", raw(&format!("{chunked}xyz\r\n")), "broken_off"),
        (
            "a body of no stated length, cut in a number",
            raw("HTTP/1.1 200 OK\r\n\r\nhttp_requests_total 5"),
            "malformed",
        ),
        // Without an end.
        (
            "a length beyond the cap",
            Act::Hang(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n".to_vec()),
            "too_large",
        ),
        ("endless lines", Act::Endless("HTTP/1.1 200 OK\r\n\r\n", "http_requests_total 5\n"), "malformed"),
        ("endless remarks", Act::Endless("HTTP/1.1 200 OK\r\n\r\n", "# remark\n"), "too_large"),
        (
            "endless chunks",
            Act::Endless(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "27\r\n# the rest of this remark is of no use\n\r\n",
            ),
            "too_large",
        ),
        ("endless blanks", Act::Endless("HTTP/1.1 200 OK\r\n\r\n", SPACES), "malformed"),
        ("endless headers", Act::Endless("HTTP/1.1 200 OK\r\nX:", SPACES), "unreachable"),
        ("endless error page", Act::Endless("HTTP/1.1 500 Oops\r\n\r\n", SPACES), "unavailable"),
    ]
}

#[tokio::test]
async fn no_wrong_answer_counts() {
    let good = Server::start(metrics(GOOD)).await;
    let scraper = scraper(PodLimits { max_series: 40_000, ..patient() });
    for (name, act, expected) in shapes() {
        let server = Server::start(act).await;
        let samples = scraper.scrape(vec![pod("web-a", &server)], at(0)).await;
        let answer = ask(&samples, "http_requests_total", &["web-a"]).await;
        let category = answer.as_ref().map_or_else(FetchError::category, |_| "data");
        assert_eq!(category, expected, "{name}: {answer:?}");
        let measured = judged(&mut meter(), &samples, &["web-a"]).await;
        assert_eq!(measured.complete(), None, "{name}: {measured:?}");
        assert!(measured.why().is_some_and(|why| !why.is_empty()), "{name}: it is said which");
        if let Err(error) = answer {
            let message = error.to_string();
            assert!(message.starts_with("pods: web-a (http://127.0.0.1:"), "{name}: {message}");
            assert!(message.lines().count() == 1 && message.len() < 400, "{name}: {message}");
        }

        // Beside a good pod it costs its own series, and the tick can't pass.
        let samples = scraper.scrape(vec![pod("web-a", &server), pod("web-b", &good)], at(0)).await;
        let failed: Vec<&str> = samples.failures().iter().map(|failure| failure.problem.category()).collect();
        assert_eq!(failed, if expected == "data" { vec![] } else { vec![expected] }, "{name}");
        if expected != "data" {
            let series = ask(&samples, "http_requests_total", &["web-a", "web-b"]).await.unwrap();
            assert!(series.len() == 2 && series.iter().all(|one| one.label("pod") == "web-b"), "{name}");
            let measured = judged(&mut meter(), &samples, &["web-a", "web-b"]).await;
            assert_eq!(measured.complete(), None, "{name}: {measured:?}");
        }
    }
}

#[tokio::test]
async fn plain_servers_are_read_too() {
    let table = [
        ("no type", http("200 OK", "", GOOD.as_bytes())),
        ("an empty type", http("200 OK", "Content-Type: \r\n", GOOD.as_bytes())),
        ("another case", http("200 OK", "Content-Type: TEXT/Plain\r\n", GOOD.as_bytes())),
        ("identity", http("200 OK", "Content-Encoding: identity\r\n", GOOD.as_bytes())),
        ("no stated length", Act::Raw(format!("HTTP/1.1 200 OK\r\n\r\n{GOOD}").into_bytes())),
        ("HTTP/1.0", Act::Raw(format!("HTTP/1.0 200 OK\r\n\r\n{GOOD}").into_bytes())),
        ("no last line end", metrics(GOOD.trim_end())),
        ("line ends as elsewhere", metrics(&GOOD.replace('\n', "\r\n"))),
        (
            "chunks",
            Act::Raw(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                  15\r\nhttp_requests_total 1\r\n2\r\n05\r\n0\r\n\r\n"
                    .to_vec(),
            ),
        ),
    ];
    for (name, act) in table {
        let server = Server::start(act).await;
        let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
        let series =
            ask(&samples, "http_requests_total", &["web-a"]).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(sum(&series), 105.0, "{name}");
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let elsewhere = Server::start(metrics(GOOD)).await;
    for status in ["301 Moved", "302 Found", "307 Temporary", "308 Permanent"] {
        let server =
            Server::start(http(status, &format!("Location: http://{}/metrics\r\n", elsewhere.address), b"")).await;
        let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
        assert_eq!(samples.failures()[0].problem.category(), "redirect");
    }
    assert!(elsewhere.requests().is_empty());
}

#[tokio::test]
async fn no_message_quotes_an_answer() {
    let secret = "hunter2";
    let lines = [secret.to_owned(), format!("a{{{secret}"), format!("a {secret}"), format!("# TYPE a {secret}")];
    let mut acts: Vec<Act> = lines.iter().map(|line| metrics(&format!("{line}\n"))).collect();
    acts.extend(
        ["404 Oops", "500 Oops", "401 Oops", "302 Oops"]
            .map(|status| http(status, &format!("Location: http://{secret}/\r\nX: {secret}\r\n"), secret.as_bytes())),
    );
    acts.push(Act::Raw(format!("{secret}\r\n\r\n").into_bytes()));
    for act in acts {
        let server = Server::start(act).await;
        let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
        let error = ask(&samples, "a", &["web-a"]).await.unwrap_err();
        assert!(!format!("{error} {error:?} {samples:?}").contains(secret), "{error}");
    }
}

#[tokio::test]
async fn who_does_not_answer_in_time_times_out() {
    for act in [
        Act::Hang(Vec::new()),
        Act::Hang(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Act::Hang(format!("HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{GOOD}").into_bytes()),
        Act::Drip("HTTP/1.1 200 OK\r\n\r\n"),
        Act::Drip("HTTP/1.1 200 OK\r\nX: "),
    ] {
        let server = Server::start(act).await;
        let limits = PodLimits { timeout: Duration::from_millis(50), ..patient() };
        let samples = scraper(limits).scrape(vec![pod("web-a", &server)], at(0)).await;
        assert_eq!(samples.failures()[0].problem, PodProblem::Timeout(50));
        let error = ask(&samples, "http_requests_total", &["web-a"]).await.unwrap_err();
        assert!(error.category() == "timeout" && error.is_transient());
    }
}

#[tokio::test]
async fn a_round_has_an_end_however_many_pods_hang() {
    let server = Server::start(Act::Hang(Vec::new())).await;
    let limits = PodLimits { max_concurrent: 1, round_timeout: Duration::from_millis(200), ..patient() };
    let pods = ["web-a", "web-b", "web-c"].map(|name| pod(name, &server)).to_vec();
    let samples = scraper(limits).scrape(pods, at(0)).await;
    let problems: Vec<&PodProblem> = samples.failures().iter().map(|failure| &failure.problem).collect();
    assert!(matches!(problems[0], PodProblem::Timeout(_)), "{problems:?}");
    assert_eq!(problems[1..], [&PodProblem::NotAsked(200), &PodProblem::NotAsked(200)]);
    assert!(server.requests().len() < 2, "one at a time");
    let message = ask(&samples, "a", &["web-a", "web-b", "web-c"]).await.unwrap_err().to_string();
    assert!(message.ends_with("(and 2 other pods failed)"), "{message}");
}

#[tokio::test]
async fn nobody_there_is_unreachable() {
    // A port that was free a moment ago, and that nobody listens on.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let endpoint = pod_endpoint("shop", "web-a", address, "/metrics").unwrap();
    let samples = scraper(patient()).scrape(vec![endpoint], at(0)).await;
    let error = ask(&samples, "http_requests_total", &["web-a"]).await.unwrap_err();
    assert!(error.category() == "unreachable" && error.is_transient());
    assert!(error.to_string().contains("refused"), "{error}");
}

/// Answers only once `together` requests are there at the same time, and notes the most there were.
async fn gate(together: usize) -> (std::net::SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let most = Arc::new(AtomicUsize::new(0));
    let (now, noted) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&most));
    let barrier = Arc::new(tokio::sync::Barrier::new(together));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (now, most, barrier) = (Arc::clone(&now), Arc::clone(&noted), Arc::clone(&barrier));
            tokio::spawn(async move {
                let read = stream.read(&mut [0; 4096]).await.unwrap_or(0);
                assert!(read > 0);
                most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                barrier.wait().await;
                now.fetch_sub(1, Ordering::SeqCst);
                let _ =
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\na 1\n").await;
            });
        }
    });
    (address, most)
}

#[tokio::test]
async fn pods_are_asked_at_once_and_not_more_than_allowed() {
    let (address, most) = gate(4).await;
    let pods: Vec<PodEndpoint> =
        (0..20).map(|index| pod_endpoint("shop", &format!("web-{index}"), address, "/metrics").unwrap()).collect();
    let samples = scraper(PodLimits { max_concurrent: 4, ..patient() }).scrape(pods, at(0)).await;
    assert_eq!(samples.failures(), []);
    assert_eq!(most.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn more_pods_than_allowed_are_not_read_at_all() {
    let server = Server::start(metrics(GOOD)).await;
    let limits = PodLimits { max_pods: 2, ..patient() };
    let pods = |names: &[&str]| names.iter().map(|name| pod(name, &server)).collect::<Vec<_>>();
    let samples = scraper(limits.clone()).scrape(pods(&["web-a", "web-b", "web-c"]), at(0)).await;
    let error = ask(&samples, "http_requests_total", &["web-a"]).await.unwrap_err();
    assert_eq!(error.problem, Problem::TooManyPods { found: 3, max: 2 });
    assert!(error.to_string().contains("3 pods") && !error.is_transient());
    assert!(server.requests().is_empty());
    let samples = scraper(limits).scrape(pods(&["web-a", "web-b"]), at(0)).await;
    assert_eq!(judged(&mut meter(), &samples, &["web-a", "web-b"]).await, Measured::Counted { n: 210.0, k: 10.0 });
}

#[tokio::test]
async fn only_what_is_asked_for_takes_room() {
    let body = format!("{GOOD}{}", "noise{a=\"b\"} 1\n".repeat(1000));
    let server = Server::start(metrics(&body)).await;
    let limits = PodLimits { max_series: 2, max_kept_bytes: 1000, ..patient() };
    let wanted = [selector("http_requests_total"), selector(r#"http_requests_total{code="500"}"#)];
    let samples = scraper(limits.clone()).scrape_for(vec![pod("web-a", &server)], &wanted, at(0)).await;
    assert_eq!(sum(&ask(&samples, "http_requests_total", &["web-a"]).await.unwrap()), 105.0);
    let error = ask(&samples, "noise", &["web-a"]).await.unwrap_err();
    assert!(
        error.category() == "unsupported" && error.to_string().contains("noise"),
        "absence is not claimed: {error}"
    );
    let all = scraper(limits).scrape(vec![pod("web-a", &server)], at(0)).await;
    assert_eq!(all.failures()[0].problem.category(), "malformed");
    // All pods share the room.
    let limits = PodLimits { max_kept_bytes: 500, max_concurrent: 1, ..patient() };
    let pods = vec![pod("web-a", &server), pod("web-b", &server)];
    let shared = scraper(limits).scrape_for(pods, &wanted, at(0)).await;
    assert_eq!(shared.failures().len(), 1, "{:?}", shared.failures());
}

#[tokio::test]
async fn questions_that_pods_cannot_answer_are_refused() {
    let server = Server::start(metrics(GOOD)).await;
    let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
    assert_eq!((samples.name(), samples.requires_pods()), ("pods", true));
    let error = samples.value("max(x)", &scope(&["web-a"]), true, at(0)).await.unwrap_err();
    assert!(error.category() == "unsupported" && error.to_string().contains("Prometheus provider"), "{error}");
    let labels = LabelNames::default();
    for scope in [Scope::total("shop", &labels).unwrap(), Scope::service("shop", "web", &labels).unwrap()] {
        let error = samples.counters(&selector("a"), &scope, LOOKBACK, samples.at()).await.unwrap_err();
        assert_eq!(error.category(), "unsupported");
    }
    let error = ask(&samples, r#"http_requests_total{pod="web-b"}"#, &["web-a"]).await.unwrap_err();
    assert_eq!(error.category(), "query");
}

#[tokio::test]
async fn a_round_answers_for_its_own_time_only() {
    let server = Server::start(metrics(GOOD)).await;
    let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await;
    let total = selector("http_requests_total");
    let scope = scope(&["web-a"]);
    let ask = async |at| samples.counters(&total, &scope, LOOKBACK, at).await;
    assert_eq!(ask(samples.at()).await.unwrap().len(), 2);
    assert_eq!(ask(at(61) + Duration::from_secs(3600)).await.unwrap(), [], "older than the lookback");
    assert_eq!(ask(at(-1)).await.unwrap_err().category(), "wrong_time");
}

#[tokio::test]
async fn pods_without_an_endpoint_are_said() {
    let server = Server::start(metrics(GOOD)).await;
    let refused = || [("shop".to_owned(), "web-b".to_owned(), EndpointError::NoPort)];
    let samples = scraper(patient()).scrape(vec![pod("web-a", &server)], at(0)).await.with_refused(refused());
    let shown: Vec<String> = samples.failures().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["web-b: the pod declares no port; set the annotation prometheus.io/port on the pod template"]);
    assert_eq!(ask(&samples, "http_requests_total", &["web-a", "web-b"]).await.unwrap().len(), 2);
    let error = ask(&samples, "http_requests_total", &["web-b"]).await.unwrap_err();
    assert!(error.category() == "endpoint" && error.to_string().contains("prometheus.io/port"), "{error}");
    let none = scraper(patient()).scrape(Vec::new(), at(0)).await;
    assert_eq!(ask(&none, "http_requests_total", &["web-a"]).await.unwrap(), [], "nobody was asked");
}

#[tokio::test]
async fn rounds_make_differences_and_a_silent_pod_goes_stale() {
    let scraper = scraper(patient());
    let interval = Duration::from_secs(1);
    let mut meter = Meter::new((AT - 10) * 1000).with_scrape_interval(Some(1000));
    let other = Server::start(metrics("http_requests_total 1000\n")).await;
    let round = async |second: i64, act: Act| {
        let server = Server::start(act).await;
        let pods = vec![pod("web-a", &server), pod("web-b", &other)];
        scraper.scrape(pods, at(second)).await.with_interval(interval)
    };
    let mut measured = Vec::new();
    for (second, act) in [
        (0, metrics("http_requests_total{code=\"200\"} 5000\n")),
        (1, metrics("http_requests_total{code=\"200\"} 5040\n")),
        // A series that appears while we look has begun at zero.
        (2, metrics("http_requests_total{code=\"200\"} 5050\nhttp_requests_total{code=\"500\"} 10\n")),
        // The process began anew.
        (3, metrics("http_requests_total{code=\"200\"} 7\n")),
        (60, http("500 Oops", "", b"")),
    ] {
        let samples = round(second, act).await;
        assert_eq!(samples.scrape_interval(), Some(interval));
        measured.push(judged(&mut meter, &samples, &["web-a", "web-b"]).await);
    }
    assert!(matches!(measured[0], Measured::NoData(_)), "{:?}", measured[0]);
    assert_eq!(
        measured[1..4],
        [
            Measured::Counted { n: 40.0, k: 0.0 },
            Measured::Counted { n: 60.0, k: 10.0 },
            Measured::Counted { n: 67.0, k: 10.0 }
        ]
    );
    let Measured::Stale { why, n, .. } = &measured[4] else { panic!("{:?}", measured[4]) };
    assert!(why.contains("web-a") && !why.contains("web-b") && (n - 67.0).abs() < 1e-9, "{why}");
}

#[test]
fn the_admins_limits_are_read_strictly() {
    let read = |text: &str| serde_json::from_str::<PodLimits>(text);
    assert_eq!(read("{}").unwrap(), PodLimits::default());
    let limits = read(r#"{"timeout":"500ms","roundTimeout":"1s","maxPods":9}"#).unwrap();
    assert_eq!((limits.timeout, limits.max_pods), (Duration::from_millis(500), 9));
    for text in [r#"{"timeout":0.5}"#, r#"{"maxPods":-1}"#, r#"{"maxpods":1}"#] {
        assert!(read(text).is_err(), "{text}");
    }
    for text in [
        r#"{"timeout":"0s"}"#,
        r#"{"roundTimeout":"0ms"}"#,
        r#"{"maxBodyBytes":0}"#,
        r#"{"maxLineBytes":0}"#,
        r#"{"maxSeries":0}"#,
        r#"{"maxKeptBytes":0}"#,
        r#"{"maxConcurrent":0}"#,
        r#"{"maxPods":0}"#,
    ] {
        let error = PodScraper::new(read(text).unwrap()).unwrap_err();
        assert_eq!(error.category(), "zero", "{text}");
        assert!(error.to_string().starts_with("provider pods: "), "{error}");
    }
}

#[test]
fn rounds_can_be_made_on_any_thread() {
    fn sent<T: Send>(value: T) -> T {
        value
    }
    let scraper = scraper(patient());
    drop(sent(scraper.scrape(Vec::new(), at(0))));
    let wanted = [selector("a_total")];
    drop(sent(scraper.scrape_for(Vec::new(), &wanted, at(0))));
}
