//! Sockets that the service manager bound and passed at the start (sd_listen_fds(3)): which listener each one is of.
//!
//! What it says of them is not believed: a descriptor that is no listening socket, or that no listener is for, ends the start. They
//! are used as they are, one or many: no other is bound beside them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

use dormouse_proxy::{Address, Keeper, Listening, gather};
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

use crate::failure::{Exit, Failure};
use crate::plain;

/// For which process, how many, and what each is called.
pub(crate) const VARIABLES: [&str; 3] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"];

/// The first one.
const FIRST: RawFd = 3;

/// Sockets that are taken.
const PASSED_MAX: usize = 1024;

/// What one is called that has no name.
const NAMELESS: &str = "unknown";

fn wrong(what: impl Into<String>) -> Failure {
    Failure::new(Exit::Configuration, what)
}

/// Takes what was passed to this process, by the names that the service manager has for it.
pub(crate) fn sockets([process, count, names]: [Option<OsString>; 3]) -> Result<Vec<Listening>, Failure> {
    let Some(names) = names_of([process, count, names], std::process::id())? else { return Ok(Vec::new()) };
    let not_taken = |number: RawFd, name: &str, error: &io::Error| {
        let shown = plain::value(name);
        wrong(format!("cannot take descriptor {number} ({shown}), which LISTEN_FDS says was passed"))
            .because(error)
            .hint("it must be open; a filter of system calls must allow pidfd_open and pidfd_getfd")
    };
    // Before anything is opened here, which takes a number that is free.
    for (number, name) in (FIRST..).zip(&names) {
        fs::symlink_metadata(format!("/proc/self/fd/{number}")).map_err(|error| not_taken(number, name, &error))?;
    }
    let mut sockets = Vec::new();
    for (number, name) in (FIRST..).zip(&names) {
        let socket = descriptor(number).map_err(|error| not_taken(number, name, &error))?;
        gather(&mut sockets, name, Keeper::Manager, socket).map_err(|error| {
            let shown = plain::value(name);
            wrong(format!("cannot serve on descriptor {number} ({shown}), which LISTEN_FDS says was passed"))
                .because(&error)
                .hint("in the .socket unit: ListenStream=, and Accept=no")
        })?;
    }
    Ok(sockets)
}

/// The name of each that was passed to the process `own`; nothing where all is another process's.
fn names_of([process, count, names]: [Option<OsString>; 3], own: u32) -> Result<Option<Vec<String>>, Failure> {
    let text = |value: Option<OsString>| value.map(|value| value.to_string_lossy().into_owned());
    let Some(process) = text(process).filter(|process| !process.is_empty()) else { return Ok(None) };
    let no_number =
        |name: &str, value: &str| wrong(format!("{name} is no number of its kind: \"{}\"", plain::value(value)));
    match process.parse::<u32>() {
        Ok(process) if process == own => {}
        // Inherited from whom it was for.
        Ok(_) => return Ok(None),
        Err(_) => return Err(no_number("LISTEN_PID", &process)),
    }
    let Some(count) = text(count) else { return Ok(None) };
    let Ok(count @ 1..=PASSED_MAX) = count.parse::<usize>() else {
        return Err(no_number("LISTEN_FDS", &count).hint(format!("it is from 1 to {PASSED_MAX}")));
    };
    let names: Vec<_> = match text(names) {
        Some(names) => names.split(':').map(str::to_owned).collect(),
        None => vec![NAMELESS.to_owned(); count],
    };
    if names.len() != count {
        return Err(wrong(format!("LISTEN_FDNAMES has {} names for {count} sockets (LISTEN_FDS)", names.len())));
    }
    Ok(Some(names))
}

/// A descriptor that this process was started with, as one that is owned. The first one stays open until the process ends, as the
/// service manager's own does.
fn descriptor(number: RawFd) -> io::Result<OwnedFd> {
    let this = pidfd_open(getpid(), PidfdFlags::empty())?;
    Ok(pidfd_getfd(&this, number, PidfdGetfdFlags::empty())?)
}

/// Calls each by its listener, and says where those listeners are that nothing was said of: a listener's own name decides, else the
/// address.
pub(crate) fn assign(
    sockets: Vec<Listening>,
    said: &[(String, Option<Address>)],
) -> Result<(Vec<Listening>, BTreeMap<String, Address>), Failure> {
    let (mut assigned, mut added) = (Vec::<Listening>::new(), BTreeMap::new());
    for listening in sockets {
        let Listening { name, address, sockets, keeper } = listening;
        let shown = plain::value(&name);
        let met = |asked: &Option<Address>| asked.as_ref().is_some_and(|asked| asked.is_met_by(&address));
        let by_name = said.iter().find(|(listener, _)| *listener == name);
        let Some((listener, asked)) = by_name.or_else(|| said.iter().find(|(_, asked)| met(asked))) else {
            return Err(wrong(format!("no listener is for the socket at {address} ({shown}) that was passed")).hint(
                "name it http, https or admin (FileDescriptorName= in the .socket unit), or add the flag with its address",
            ));
        };
        match asked {
            Some(said) if !met(asked) => {
                return Err(wrong(format!(
                    "the socket that was passed for {listener} is at {address}, and {listener} is to be at {said}"
                ))
                .hint(format!("give {listener} that address, or (by flags) none")));
            }
            Some(_) => {}
            None => drop(added.insert(listener.clone(), address.clone())),
        }
        if listener == "admin" && (address.ip().is_none() || sockets.len() > 1) {
            return Err(wrong("the admin listener takes one TCP socket, and another was passed"));
        }
        match assigned.iter_mut().find(|other| other.name == *listener) {
            Some(other) if other.address != address => {
                let what =
                    format!("{listener} is in one place, and sockets at {} and {address} were passed", other.address);
                return Err(wrong(what).hint("one address for each FileDescriptorName="));
            }
            Some(other) => other.sockets.extend(sockets),
            None => assigned.push(Listening { name: listener.clone(), address, sockets, keeper }),
        }
    }
    Ok((assigned, added))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(process: &str, count: &str, names: Option<&str>) -> Result<Option<Vec<String>>, Exit> {
        let values = [Some(process), Some(count), names].map(|value| value.map(OsString::from));
        names_of(values, 77).map_err(|failure| failure.exit())
    }

    fn socket(name: &str, at: &str) -> Listening {
        let address = at.parse().expect("an address");
        Listening { name: name.to_owned(), address, sockets: Vec::new(), keeper: Keeper::Manager }
    }

    #[test]
    fn what_was_passed_to_another_process_is_not_ours_and_what_makes_no_sense_is_told() {
        let two = || Some(vec!["http".to_owned(), "https".to_owned()]);
        assert_eq!(names("77", "2", Some("http:https")), Ok(two()));
        assert_eq!(names("77", "2", None), Ok(Some(vec![NAMELESS.to_owned(); 2])));
        assert_eq!(names("78", "2", Some("http:https")), Ok(None));
        assert_eq!(names("", "2", None), Ok(None));
        assert_eq!(names_of([Some("77".into()), None, None], 77).ok(), Some(None));
        for (process, count, some) in [
            ("x", "1", None),
            ("-1", "1", None),
            ("77", "0", None),
            ("77", "-1", None),
            ("77", "1025", None),
            ("77", "", None),
            ("77", "2", Some("http")),
            ("77", "1", Some("http:https")),
        ] {
            assert_eq!(names(process, count, some), Err(Exit::Configuration), "{process} {count} {some:?}");
        }
    }

    #[test]
    fn a_socket_is_its_names_listeners_or_else_that_of_its_address() {
        let at = |text: &str| Some(text.parse::<Address>().expect("an address"));
        let said = |each: [Option<Address>; 3]| {
            ["http", "https", "admin"].map(str::to_owned).into_iter().zip(each).collect::<Vec<_>>()
        };
        let nothing = said([None, None, None]);
        let (assigned, added) =
            assign(vec![socket("https", "[::]:443"), socket("http", "unix:/s")], &nothing).expect("assigned");
        assert_eq!(assigned.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["https", "http"]);
        assert_eq!((added.get("http").cloned(), added.get("https").cloned()), (at("unix:/s"), at("[::]:443")));
        let said = said([at("127.0.0.1:80"), at("127.0.0.1:443"), None]);
        let (assigned, added) =
            assign(vec![socket("edge.socket", "127.0.0.1:443"), socket(NAMELESS, "127.0.0.1:80")], &said)
                .expect("assigned");
        assert_eq!(assigned.iter().map(|one| one.name.as_str()).collect::<Vec<_>>(), ["https", "http"]);
        assert!(added.is_empty(), "nothing that was not said");
        for (what, sockets) in [
            ("no listener", vec![socket("edge.socket", "127.0.0.1:81")]),
            ("another address than was said", vec![socket("http", "127.0.0.1:81")]),
            ("two places", vec![socket("admin", "127.0.0.1:1"), socket("admin", "127.0.0.1:2")]),
            ("no TCP", vec![socket("admin", "unix:/s")]),
        ] {
            assert_eq!(
                assign(sockets, &said).map_err(|failure| failure.exit()).err(),
                Some(Exit::Configuration),
                "{what}"
            );
        }
    }
}
