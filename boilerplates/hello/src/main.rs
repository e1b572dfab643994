//! A small web application: one HTTP/1.1 server, a thread for each connection, nothing but the standard library.
//!
//! It shows what it was told by its surroundings, and serves what a test of those surroundings needs. SIGTERM ends it
//! well (no new connection, running requests finish, exit code 0), unless a setting says otherwise.

mod http;
mod page;
mod routes;
mod settings;
mod socket;
mod trials;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use settings::Settings;

/// Connections served at a time; the next one is closed at once.
const CONNECTIONS_MAX: usize = 1024;
/// Connections that the kernel keeps until they are accepted.
const QUEUE_MAX: usize = 128;
/// How long running requests may take to finish after SIGTERM. Docker kills after 10 s.
const STOP_MAX: Duration = Duration::from_secs(9);
/// Connections need little: no recursion, buffers on the heap.
const STACK_BYTES: usize = 128 * 1024;

/// What all connections share.
pub struct App {
    settings: Settings,
    /// The status of `/` and `/health`.
    health: AtomicU16,
    stopping: AtomicBool,
    connections: AtomicUsize,
    /// Requests that were begun and are not answered yet.
    running: AtomicUsize,
}

static WAKE_MAIN: OnceLock<UnixStream> = OnceLock::new();

extern "C" fn on_signal(_: i32) {
    if let Some(mut pipe) = WAKE_MAIN.get() {
        let _ = pipe.write(&[0]);
    }
}

unsafe extern "C" {
    fn signal(number: i32, handler: usize) -> usize;
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [trials::REST] => {
            trials::rest();
            return ExitCode::SUCCESS;
        }
        [trials::CHATTER, mb] => {
            trials::chatter(mb.parse().unwrap_or(1));
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let settings = Settings::read();
    let health = settings.number("HEALTH_STATUS").unwrap_or(200);
    let app: &'static App = Box::leak(Box::new(App {
        settings,
        health: AtomicU16::new(u16::try_from(health).ok().filter(|status| (200..600).contains(status)).unwrap_or(200)),
        stopping: AtomicBool::new(false),
        connections: AtomicUsize::new(0),
        running: AtomicUsize::new(0),
    }));
    match run(app) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("hello: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(app: &'static App) -> std::io::Result<ExitCode> {
    let (mut stop, pipe) = UnixStream::pair()?;
    let _ = WAKE_MAIN.set(pipe);
    /// SIG_IGN, in place of a handler.
    const IGNORE: usize = 1;
    const SIGINT: i32 = 2;
    const SIGTERM: i32 = 15;
    let stubborn = app.settings.get("IGNORE_SIGTERM").is_some();
    for number in [SIGINT, SIGTERM] {
        let handler = if stubborn && number == SIGTERM { IGNORE } else { on_signal as extern "C" fn(i32) as usize };
        // SAFETY: `signal(2)` of the C library. The handler only reads an atomic and calls `write(2)`, both of which a
        // signal handler may do.
        unsafe { signal(number, handler) };
    }

    if let Some(mb) = app.settings.number("CHATTER_AT_START_MB") {
        trials::chatter(mb);
    }
    if let Some(code) = app.settings.number("EXIT_AT_START") {
        eprintln!("hello: reading the settings\nhello: EXIT_AT_START is set\nhello: giving up with code {code}");
        return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
    }
    if app.settings.get("NEVER_LISTEN").is_some() {
        log("never listening, as the setting NEVER_LISTEN says");
        let _ = stop.read_exact(&mut [0]);
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(mb) = app.settings.number("ALLOCATE_AT_START_MB") {
        log(&format!("taking {mb} MiB of memory"));
        trials::allocate(mb);
    }
    if let Some(count) = app.settings.number("FORK_AT_START") {
        let (children, error) = trials::start(count);
        let why = error.map_or_else(|| "as asked".to_owned(), |error| error.to_string());
        log(&format!("{} processes beside this one: {why}", children.len()));
        std::mem::forget(children);
    }
    if let Some(delay) = app.settings.number("START_DELAY_MS").filter(|&delay| delay > 0) {
        log(&format!("starting slowly: {delay} ms"));
        stop.set_read_timeout(Some(Duration::from_millis(delay)))?;
        if stop.read(&mut [0]).is_ok() {
            return Ok(ExitCode::SUCCESS);
        }
        stop.set_read_timeout(None)?;
    }

    let port = app.settings.number("PORT").and_then(|port| u16::try_from(port).ok()).unwrap_or(80);
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let port = listener.local_addr()?.port();
    let acceptor = thread::spawn(move || accept(app, &listener));
    log(&format!("listening on port {port}: {}", app.settings.summary()));

    let _ = stop.read_exact(&mut [0]);
    if app.settings.get("DROP_AT_SIGTERM").is_some() {
        log(&format!("stopping at once, {} requests dropped", app.running.load(SeqCst)));
        return Ok(ExitCode::SUCCESS);
    }
    log("stopping");
    app.stopping.store(true, SeqCst);
    let last = TcpStream::connect(("127.0.0.1", port)); // so that `accept` returns
    let _ = acceptor.join();
    drop(last);
    let deadline = Instant::now() + STOP_MAX;
    while app.running.load(SeqCst) > 0 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(5));
    }
    log(&format!("stopped, {} requests unfinished", app.running.load(SeqCst)));
    Ok(ExitCode::SUCCESS)
}

/// Serves who comes, until the program stops; then those who were in the queue by then.
fn accept(app: &'static App, listener: &TcpListener) {
    let mut left = QUEUE_MAX;
    while left > 0 {
        let last_round = left < QUEUE_MAX;
        match listener.accept() {
            Ok((stream, _)) => serve(app, stream),
            Err(_) if last_round => return,
            // Out of descriptors, most likely: some connection has to end first.
            Err(_) => thread::sleep(Duration::from_millis(10)),
        }
        if app.stopping.load(SeqCst) {
            let _ = listener.set_nonblocking(true);
            left -= 1;
        }
    }
}

fn serve(app: &'static App, stream: TcpStream) {
    if app.connections.load(SeqCst) >= CONNECTIONS_MAX {
        return;
    }
    app.connections.fetch_add(1, SeqCst);
    app.running.fetch_add(1, SeqCst);
    let connection = move || {
        let _ = stream.set_nonblocking(false);
        routes::connection(app, &stream);
        app.connections.fetch_sub(1, SeqCst);
    };
    if thread::Builder::new().stack_size(STACK_BYTES).spawn(connection).is_err() {
        app.running.fetch_sub(1, SeqCst);
        app.connections.fetch_sub(1, SeqCst);
    }
}

/// A line for `dormouse logs`. A reader who went away is no reason to stop.
fn log(line: &str) {
    let _ = writeln!(std::io::stdout(), "hello: {line}");
}
