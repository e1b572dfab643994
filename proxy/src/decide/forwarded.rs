//! Who the visitor is, where proxies in front of this one are believed.
//!
//! Pure. A connection's facts come from its socket, or from its PROXY protocol header. If its client is itself a proxy that
//! the listener was told to trust, each request says more: its fields are read from the right, since everything left of what
//! a trusted proxy wrote may be made up. From anybody else nothing is believed, and the fields are dropped.

use std::net::{IpAddr, SocketAddr};

use super::headers::{Facts, Scheme};
use crate::config::Network;

/// The facts of a request, from those of its connection and its head; `trusted` is empty where its client is not.
pub(crate) fn believed(facts: Facts, trusted: &[Network], head: &[u8]) -> Facts {
    if trusted.is_empty() {
        return facts;
    }
    // The gate let it pass: lines end with CR LF, and names with their colon.
    let lines = head.split(|&byte| byte == b'\n').skip(1);
    let fields = lines.filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    });
    from_fields(facts, trusted, fields)
}

/// The same, of fields that were taken apart already.
pub(crate) fn from_fields<'a>(
    facts: Facts,
    trusted: &[Network],
    fields: impl Iterator<Item = (&'a [u8], &'a [u8])>,
) -> Facts {
    let (mut forwarded_for, mut scheme, mut port) = (Vec::new(), None, None);
    for (name, value) in fields {
        // The last value of the last field is that of the nearest proxy.
        let last = value.rsplit(|&byte| byte == b',').next().unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"x-forwarded-for") {
            forwarded_for.push(value);
        } else if name.eq_ignore_ascii_case(b"x-forwarded-proto") {
            scheme = self::scheme(last);
        } else if name.eq_ignore_ascii_case(b"x-forwarded-port") {
            port = self::port(last);
        }
    }
    Facts {
        client: client(facts.client, trusted, &forwarded_for),
        port: match scheme {
            _ if port.is_some() => port,
            // Ours is where the proxy connected to, which then is not where the visitor did.
            Some(scheme) if scheme != facts.scheme => None,
            _ => facts.port,
        },
        scheme: scheme.unwrap_or(facts.scheme),
    }
}

/// The first address from the right that is not trusted itself; before something that is no address, the last one read.
fn client(peer: Option<IpAddr>, trusted: &[Network], fields: &[&[u8]]) -> Option<IpAddr> {
    let mut nearest = peer;
    for entry in fields.iter().rev().flat_map(|value| value.rsplit(|&byte| byte == b',')) {
        let Some(address) = node(entry) else { break };
        nearest = Some(address);
        if !trusted.iter().any(|network| network.contains(nearest)) {
            break;
        }
    }
    nearest
}

/// An address as proxies write it: with brackets or without, and some add a port.
fn node(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text.parse().ok();
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    let bracketed = || Some(IpAddr::V6(text.strip_prefix('[')?.strip_suffix(']')?.parse().ok()?));
    bare.or_else(with_port).or_else(bracketed).map(|address: IpAddr| address.to_canonical())
}

fn scheme(value: &[u8]) -> Option<Scheme> {
    match value {
        _ if value.eq_ignore_ascii_case(b"https") => Some(Scheme::Https),
        _ if value.eq_ignore_ascii_case(b"http") => Some(Scheme::Http),
        _ => None,
    }
}

fn port(value: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok().filter(|port| *port != 0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PROXY: &str = "10.0.0.9";

    fn facts() -> Facts {
        Facts { client: PROXY.parse().ok(), port: Some(80), scheme: Scheme::Http }
    }

    fn trusted() -> Vec<Network> {
        ["10.0.0.0/8", "2001:db8:1::/48", "unix"].map(|text| text.parse().expect("a network")).to_vec()
    }

    fn of(fields: &str) -> Facts {
        believed(facts(), &trusted(), format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n").as_bytes())
    }

    fn client_of(values: &[&str]) -> String {
        let fields: String = values.iter().map(|value| format!("X-Forwarded-For: {value}\r\n")).collect();
        of(&fields).client.expect("an address").to_string()
    }

    #[test]
    fn p25_the_client_is_the_first_from_the_right_that_is_not_trusted() {
        assert_eq!(client_of(&["203.0.113.5"]), "203.0.113.5");
        assert_eq!(client_of(&["6.6.6.6, 203.0.113.5"]), "203.0.113.5", "what the client made up is not read");
        assert_eq!(client_of(&["6.6.6.6,203.0.113.5 , 10.1.1.1,\t10.2.2.2"]), "203.0.113.5");
        assert_eq!(client_of(&["6.6.6.6", "203.0.113.5", "10.1.1.1"]), "203.0.113.5", "several fields are one list");
        assert_eq!(client_of(&["10.1.1.1, 10.2.2.2"]), "10.1.1.1", "all trusted: the farthest");
        assert_eq!(client_of(&["2001:db8:2::1, 2001:db8:1::1"]), "2001:db8:2::1");
        assert_eq!(client_of(&[]), PROXY);
        assert_eq!(client_of(&["203.0.113.5:1234"]), "203.0.113.5");
        assert_eq!(client_of(&["[2001:db8:2::1]:1234"]), "2001:db8:2::1");
        assert_eq!(client_of(&["[2001:db8:2::1]"]), "2001:db8:2::1");
        assert_eq!(client_of(&["::ffff:203.0.113.5"]), "203.0.113.5");
    }

    #[test]
    fn p25_before_what_is_no_address_the_nearest_well_formed_one_counts() {
        for bad in
            ["unknown", "", "_hidden", "1.2.3", "1.2.3.4.5", "a.example", "1.2.3.4 5.6.7.8", "\u{1}", "[1.2.3.4]"]
        {
            assert_eq!(client_of(&[bad]), PROXY, "{bad:?}");
            assert_eq!(client_of(&[&format!("203.0.113.5, {bad}, 10.1.1.1")]), "10.1.1.1", "{bad:?}");
            assert_eq!(client_of(&[&format!("{bad}, 203.0.113.5")]), "203.0.113.5", "{bad:?}");
        }
    }

    #[test]
    fn p25_scheme_and_port_are_the_nearest_proxys() {
        let of = |fields: &str| {
            let Facts { scheme, port, .. } = of(fields);
            (scheme, port)
        };
        assert_eq!(of(""), (Scheme::Http, Some(80)));
        assert_eq!(of("X-Forwarded-Proto: https\r\n"), (Scheme::Https, None));
        assert_eq!(of("x-forwarded-proto: http, HTTPS\r\nX-Forwarded-Port: 1, 444\r\n"), (Scheme::Https, Some(444)));
        assert_eq!(of("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n"), (Scheme::Http, Some(80)));
        for bad in ["Proto: gopher", "Proto: https, ", "Proto:", "Port: 0", "Port: 65536", "Port: +1", "Port: https"] {
            assert_eq!(of(&format!("X-Forwarded-{bad}\r\n")), (Scheme::Http, Some(80)), "{bad}");
        }
        assert_eq!(of("X_Forwarded_Proto: https\r\nForwarded: proto=https\r\n"), (Scheme::Http, Some(80)));
    }

    #[test]
    fn p25_without_trust_nothing_is_believed() {
        let head = b"GET / HTTP/1.1\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n";
        assert_eq!(believed(facts(), &[], head), facts());
    }

    proptest! {
        /// Whatever a client puts in front of what the trusted proxy appended changes nothing.
        #[test]
        fn what_is_left_of_the_client_does_not_matter(junk in "[ -~]{0,40}", last in 1u8..255) {
            let address = format!("203.0.113.{last}");
            let with_junk = format!("{junk}, {address}");
            prop_assert_eq!(client_of(&[&with_junk]), address.as_str());
            prop_assert_eq!(client_of(&[&junk, &address]), address);
        }
    }
}
