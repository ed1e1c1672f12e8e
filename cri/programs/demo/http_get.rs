//! `http-get`: requests in a row, counted.

use std::io::{Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::args::{self, Args};
use crate::{Outcome, complain, net, sys};

static STOPPED: AtomicBool = AtomicBool::new(false);

struct Url {
    host: String,
    port: u16,
    path: String,
}

fn parse(url: &str) -> Result<Url, String> {
    let rest = url.strip_prefix("http://").ok_or_else(|| format!("{url:?} does not start with http://"))?;
    let (authority, path) = match rest.find('/') {
        Some(at) => (&rest[..at], &rest[at..]),
        None => (rest, "/"),
    };
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => {
            (host, port.parse().map_err(|_| format!("{port:?} is not a port"))?)
        }
        _ => (authority, 80),
    };
    Ok(Url { host: host.to_owned(), port, path: path.to_owned() })
}

/// The body of a successful answer; anything else is an error.
fn get(url: &Url, headers: &str, timeout: Duration) -> Result<Vec<u8>, String> {
    let mut stream = net::connect(&url.host, url.port, timeout)?;
    let request =
        format!("GET {} HTTP/1.1\r\nHost: {}:{}\r\nConnection: close\r\n{headers}\r\n", url.path, url.host, url.port);
    stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|e| e.to_string())?;
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("the answer is no HTTP")?;
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let body = answer.split_off(end + 4);
    let code = head.split_whitespace().nth(1).and_then(|c| c.parse::<u16>().ok()).ok_or("the answer is no HTTP")?;
    let length = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    if length.is_some_and(|length| length != body.len()) {
        return Err("the answer is cut short".to_owned());
    }
    if code >= 400 {
        return Err(format!("status {code}: {}", String::from_utf8_lossy(&body).trim()));
    }
    Ok(body)
}

pub fn run(mut args: Args) -> Outcome {
    let count = args.number("--count", 1)?;
    let timeout = args.option("--timeout")?.map_or(Ok(Duration::from_secs(5)), |t| args::seconds(&t))?;
    let interval = Duration::from_millis(args.number("--interval", 0)?);
    let mut headers = String::new();
    while let Some(header) = args.option("--header")? {
        headers.push_str(&header);
        headers.push_str("\r\n");
    }
    let url = parse(&args.positional("URL")?)?;
    args.done()?;
    if count == 0 {
        let signals = sys::Signals::block();
        thread::spawn(move || {
            signals.wait();
            STOPPED.store(true, Ordering::Relaxed);
        });
    }
    let (mut good, mut bad) = (0_u64, 0_u64);
    while !STOPPED.load(Ordering::Relaxed) && (count == 0 || good + bad < count) {
        if good + bad > 0 {
            thread::sleep(interval);
        }
        match get(&url, &headers, timeout) {
            Ok(body) => {
                good += 1;
                let text = String::from_utf8_lossy(&body);
                print!("{text}{}", if text.ends_with('\n') { "" } else { "\n" });
            }
            Err(error) => {
                bad += 1;
                complain(format_args!("http-get: {error}"));
            }
        }
    }
    if count != 1 {
        complain(format_args!("http-get: {good} succeeded, {bad} failed"));
    }
    Ok(u8::from(bad > 0))
}
