//! The application of the contract tests, as an image's only file. Arguments are instructions, carried out in order:
//! `log TEXT`, `error TEXT`, `exit CODE`, `serve BODY` (on the port of variable PORT; answers BODY and its variables),
//! `serve-once BODY`; and to try how far it gets: `address _` (writes its own), `connect ADDRESS:PORT` (writes whether it is
//! open), `allocate MB`, `child-allocates MB`, `flood MB` (of log).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    while let (Some(what), Some(value)) = (arguments.next(), arguments.next()) {
        match what.as_str() {
            "log" => println!("{value}"),
            "error" => eprintln!("{value}"),
            "exit" => return ExitCode::from(value.parse::<u8>().unwrap_or(64)),
            "address" => println!("address {}", address().expect("there is a way to the outside")),
            "connect" => println!("{value} {}", connect(value.parse().expect("an address and a port"))),
            "allocate" => std::mem::forget(std::hint::black_box(vec![1_u8; number(&value) << 20])),
            "child-allocates" => child(&["allocate", &value]),
            "flood" => flood(number(&value)),
            "serve-once" => serve(&value, 1),
            _ => serve(&value, usize::MAX),
        }
    }
    ExitCode::SUCCESS
}

fn number(text: &str) -> usize {
    text.parse().expect("a number")
}

/// The address from which it would speak to the outside. Nothing is sent.
fn address() -> std::io::Result<std::net::IpAddr> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((Ipv4Addr::new(192, 0, 2, 1), 9))?;
    Ok(socket.local_addr()?.ip())
}

fn connect(address: SocketAddr) -> &'static str {
    match TcpStream::connect_timeout(&address, Duration::from_secs(2)) {
        Ok(_) => "open",
        Err(_) => "closed",
    }
}

/// Another process does this, to its end.
fn child(instructions: &[&str]) {
    let program = std::env::current_exe().expect("the program is there");
    let _ = std::process::Command::new(program).args(instructions).status().expect("a process can be started");
}

fn flood(mb: usize) {
    let line = [[b'x'; 1023].as_slice(), b"\n"].concat();
    let mut out = std::io::stdout().lock();
    for _ in 0..mb * 1024 {
        out.write_all(&line).expect("the engine reads");
    }
}

fn serve(body: &str, requests: usize) {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()).expect("PORT is set");
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
    let variables: String = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    let text = format!("{body}\n{variables}");
    for client in listener.incoming().take(requests) {
        let Ok(mut client) = client else { continue };
        let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = client.read(&mut [0; 4096]);
        let length = text.len();
        let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
    }
}
