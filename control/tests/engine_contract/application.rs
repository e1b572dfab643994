//! The application of the contract tests, as an image's only file. Arguments are instructions, carried out in order:
//! `log TEXT`, `error TEXT`, `exit CODE`, `serve BODY` (on the port of variable PORT; answers BODY and its variables).

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    while let (Some(what), Some(value)) = (arguments.next(), arguments.next()) {
        match what.as_str() {
            "log" => println!("{value}"),
            "error" => eprintln!("{value}"),
            "exit" => return ExitCode::from(value.parse::<u8>().unwrap_or(64)),
            _ => serve(&value),
        }
    }
    ExitCode::SUCCESS
}

fn serve(body: &str) {
    let port = std::env::var("PORT").ok().and_then(|port| port.parse::<u16>().ok()).expect("PORT is set");
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).expect("the port is free");
    let variables: String = std::env::vars().map(|(name, value)| format!("{name}={value}\n")).collect();
    let text = format!("{body}\n{variables}");
    for client in listener.incoming() {
        let Ok(mut client) = client else { continue };
        let _ = client.set_read_timeout(Some(Duration::from_secs(1)));
        let _ = client.read(&mut [0; 4096]);
        let length = text.len();
        let _ = write!(client, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{text}");
    }
}
