//! `/livez`, `/readyz` and `/metrics`. It answers from memory and asks nobody, so that a probe
//! cannot hang on the cluster.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::health::Health;
use crate::metrics::Metrics;

/// Connections at once; more wait to be accepted.
const CONNECTIONS: usize = 32;
/// A client that sends no request for this long is cut off.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// The longest life of one connection: scrapers and probes come again.
const LONGEST_CONNECTION: Duration = Duration::from_secs(300);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The address could not be taken.
#[derive(Debug, thiserror::Error)]
#[error("cannot serve on {address}: {source}; choose another with --http-address")]
pub struct BindError {
    address: SocketAddr,
    source: std::io::Error,
}

/// Takes the address.
///
/// # Errors
/// Where it is taken already or not ours.
pub async fn bind(address: SocketAddr) -> Result<TcpListener, BindError> {
    TcpListener::bind(address).await.map_err(|source| BindError { address, source })
}

/// Serves for ever.
pub async fn serve(listener: TcpListener, health: Health, metrics: Metrics) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _peer)) => stream,
            Err(error) => {
                // Too many open files, or a client that went: the next may do.
                tracing::debug!("a connection was not accepted: {error}");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let (health, metrics) = (health.clone(), metrics.clone());
        tokio::spawn(async move {
            let _place = place;
            connection(stream, health, metrics).await;
        });
    }
}

async fn connection(stream: TcpStream, health: Health, metrics: Metrics) {
    let service = service_fn(|request: Request<hyper::body::Incoming>| {
        let response = answer(request.method(), request.uri().path(), &health, &metrics);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(READ_DEADLINE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    // A client that breaks off is its own affair.
    let _ended = tokio::time::timeout(LONGEST_CONNECTION, serving).await;
}

fn answer(method: &Method, path: &str, health: &Health, metrics: &Metrics) -> Response<Full<Bytes>> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n");
    }
    match path {
        "/livez" => match health.live() {
            Ok(()) => response(StatusCode::OK, TEXT, "ok\n"),
            Err(stuck) => {
                tracing::error!("not live: {stuck}");
                response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, stuck)
            }
        },
        "/readyz" => {
            let readiness = health.ready();
            let code = if readiness.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            response(code, JSON, serde_json::to_vec(&readiness).unwrap_or_default())
        }
        "/metrics" => match metrics.encode() {
            Ok(text) => response(StatusCode::OK, OPEN_METRICS, text),
            Err(error) => response(StatusCode::INTERNAL_SERVER_ERROR, TEXT, error.to_string()),
        },
        _ => response(StatusCode::NOT_FOUND, TEXT, "there are /livez, /readyz and /metrics\n"),
    }
}

fn response(code: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::watch;

    use super::*;
    use crate::lease::Role;

    async fn get(path: &str) -> (StatusCode, String) {
        let (_sender, role) = watch::channel(Role::Standby);
        let response = answer(&Method::GET, path, &Health::new(role), &Metrics::new());
        let code = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (code, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn each_path_answers_what_it_is_for() {
        assert_eq!(get("/livez").await, (StatusCode::OK, "ok\n".to_owned()));
        let (code, body) = get("/readyz").await;
        assert_eq!(code, StatusCode::SERVICE_UNAVAILABLE);
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["role"], "standby");
        assert_eq!(body["waitsFor"][0], "the watches are not started");
        let (code, body) = get("/metrics").await;
        assert!(code == StatusCode::OK && body.contains("canaryrelease_leader 0"));
        assert_eq!(get("/").await.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn it_answers_over_a_real_connection() {
        let listener = bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (_sender, role) = watch::channel(Role::Leader);
        let serving = tokio::spawn(serve(listener, Health::new(role), Metrics::new()));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
        serving.abort();
    }
}
