//! One plain HTTP GET, to see whether a component answers. Nothing more: no TLS, no redirects.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// Whether `http://ADDRESS PATH` answers 200 within two seconds.
pub(crate) fn answers_ok(address: &str, path: &str) -> bool {
    status(address, path).is_ok_and(|status| status == Some(200))
}

fn status(address: &str, path: &str) -> std::io::Result<Option<u16>> {
    let Ok(socket) = address.parse() else { return Ok(None) };
    let timeout = Duration::from_secs(2);
    let mut stream = TcpStream::connect_timeout(&socket, timeout)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut head = [0; 64];
    let mut have = 0;
    // The status line fits; what follows is of no interest.
    while let Some(rest) = head.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match stream.read(rest)? {
            0 => break,
            read => have += read,
        }
    }
    Ok(parse_status(head.get(..have).unwrap_or_default()))
}

fn parse_status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_status_line_counts() {
        assert_eq!(parse_status(b"HTTP/1.1 200 OK\r\nDate: x"), Some(200));
        assert_eq!(parse_status(b"HTTP/1.1 503\r\n"), Some(503));
        assert_eq!(parse_status(b"SSH-2.0"), None);
        assert_eq!(parse_status(b""), None);
    }
}
