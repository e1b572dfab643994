//! The program inside a sandbox: holds an instance's network namespace and address, and says whose they are.
//!
//! Whoever connects is answered with the instance's id, whatever was asked. One thread and a few kilobytes; nobody can
//! hold it up for longer than [`PATIENCE`]. Built by `control/build.rs` without any crate, statically, for an image
//! `FROM scratch`. The port is its argument, the id the variable DORMOUSE_INSTANCE.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::process::ExitCode;
use std::time::Duration;

/// How long a client may take for each piece of its request, and to take the answer.
const PATIENCE: Duration = Duration::from_millis(100);

/// How many pieces of a request are read; what is not there by then is not waited for.
const PIECES_MAX: usize = 4;

/// How long to wait when a connection cannot be accepted (out of descriptors), before trying again.
const PAUSE: Duration = Duration::from_millis(100);

fn main() -> ExitCode {
    let port = std::env::args().nth(1).and_then(|port| port.parse::<u16>().ok());
    let (Some(port), Ok(instance)) = (port, std::env::var("DORMOUSE_INSTANCE")) else {
        eprintln!("usage: DORMOUSE_INSTANCE=ID sandbox PORT");
        return ExitCode::from(64);
    };
    let listener = match TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)) {
        Ok(listener) => listener,
        Err(error) => {
            eprintln!("cannot listen on port {port}: {error}");
            return ExitCode::FAILURE;
        }
    };
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{instance}",
        instance.len()
    );
    loop {
        match listener.accept() {
            // A client that left, or is too slow, is its own loss.
            Ok((client, _)) => drop(serve(client, answer.as_bytes())),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Reads a request's head, as far as it comes, so that closing does not reset the connection under the answer.
fn serve(mut client: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    client.set_read_timeout(Some(PATIENCE))?;
    client.set_write_timeout(Some(PATIENCE))?;
    let mut piece = [0; 4096];
    for _ in 0..PIECES_MAX {
        let length = client.read(&mut piece).unwrap_or(0);
        if length == 0 || piece[..length].ends_with(b"\r\n\r\n") {
            break;
        }
    }
    client.write_all(answer)?;
    client.shutdown(Shutdown::Write)
}
