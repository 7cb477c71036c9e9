//! A server that answers as it should, and in every way that it should not.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// What the server does with a request.
#[derive(Clone)]
pub(crate) enum Act {
    /// 200 with JSON.
    Json(String),
    /// These bytes, then the connection is closed.
    Raw(Vec<u8>),
    /// These bytes, and then nothing more, with the connection held open.
    Hang(Vec<u8>),
    /// A beginning, and then the same piece without an end.
    Endless(&'static str, &'static str),
    /// These bytes, and then the connection is reset.
    Reset(Vec<u8>),
    /// These in turn, one a request; then the last one.
    Turns(Vec<Act>),
    /// A beginning, and then one blank a millisecond.
    Drip(&'static str),
    /// 200 with the JSON that this makes of the question's PromQL.
    Ask(Answerer),
}

/// What answers a question.
pub(crate) type Answerer = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// The PromQL of a posted form.
fn query(request: &str) -> String {
    let body = request.split_once("\r\n\r\n").unwrap().1;
    let field = body.split('&').find_map(|field| field.strip_prefix("query=")).unwrap();
    let mut bytes = field.bytes();
    let mut out = Vec::new();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
            }
            other => other,
        });
    }
    String::from_utf8(out).unwrap()
}

/// A piece that makes [`Act::Endless`] quick.
pub(crate) const SPACES: &str = "                                                                ";

/// A server on the loopback that does the same with every request.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(crate) async fn start(act: Act) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, act.clone(), Arc::clone(&log)));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

async fn serve(mut stream: TcpStream, act: Act, log: Arc<Mutex<Vec<String>>>) {
    let mut request = Vec::new();
    let mut buffer = [0_u8; 4096];
    loop {
        let read = stream.read(&mut buffer).await.unwrap_or(0);
        if read == 0 {
            return;
        }
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).to_string();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse::<usize>().ok())
            .unwrap_or(0);
        if body.len() >= length {
            log.lock().unwrap().push(text);
            break;
        }
    }
    let turn = log.lock().unwrap().len() - 1;
    let act = match act {
        Act::Turns(acts) => acts.get(turn).or(acts.last()).unwrap().clone(),
        act => act,
    };
    let act = match act {
        Act::Ask(answer) => {
            let request = log.lock().unwrap().last().unwrap().clone();
            Act::Json(answer(&query(&request)))
        }
        act => act,
    };
    match act {
        Act::Turns(_) | Act::Ask(_) => panic!("turns within turns"),
        Act::Json(body) => {
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(head.as_bytes()).await;
            let _ = stream.write_all(body.as_bytes()).await;
        }
        Act::Raw(bytes) => {
            let _ = stream.write_all(&bytes).await;
        }
        Act::Hang(bytes) => {
            let _ = stream.write_all(&bytes).await;
            // Until the client goes away.
            let _ = stream.read(&mut buffer).await;
        }
        Act::Endless(head, piece) => {
            let _ = stream.write_all(head.as_bytes()).await;
            let pieces = piece.repeat(64);
            while stream.write_all(pieces.as_bytes()).await.is_ok() {}
        }
        Act::Reset(bytes) => {
            let _ = stream.write_all(&bytes).await;
            let _ = stream.set_zero_linger();
        }
        Act::Drip(head) => {
            let _ = stream.write_all(head.as_bytes()).await;
            let mut pace = tokio::time::interval(Duration::from_millis(1));
            while stream.write_all(b" ").await.is_ok() {
                pace.tick().await;
            }
        }
    }
}
