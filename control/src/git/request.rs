//! What a request under `/git` asks for, read strictly: three paths per application, and everything else is nothing.

use std::fmt;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::BytesMut;
use dormouse_link::Label;
use http::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Uri};

use super::refusal::Refusal;

/// Which of git's programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    /// `git-upload-pack`: clone and fetch.
    Fetch,
    /// `git-receive-pack`: push.
    Push,
}

/// Which half of its conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// The refs, and what this side can do.
    Advertise,
    /// The rest.
    Exchange,
}

/// A request that names something we have.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) app: Label,
    pub(super) service: Service,
    pub(super) action: Action,
}

/// How a request's body is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coding {
    /// As it is.
    Identity,
    /// Compressed; clients do so with large fetches.
    Gzip,
}

/// A version of git's protocol that a client may ask for. Nothing else a client says reaches git's environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Zero,
    One,
    Two,
}

impl Asked {
    /// Reads the path as it came, without decoding: no name that we give needs an escape.
    pub(super) fn of(method: &Method, uri: &Uri) -> Result<Self, Refusal> {
        let path = uri.path().strip_prefix("/git/").ok_or(Refusal::NotFound)?;
        let (name, rest) = path.split_once('/').ok_or(Refusal::NotFound)?;
        let app = name.strip_suffix(".git").and_then(|name| name.parse().ok()).ok_or(Refusal::NotFound)?;
        let (service, action, wanted) = match rest {
            "info/refs" => (Self::service(uri.query()), Action::Advertise, Method::GET),
            "git-upload-pack" => (Ok(Service::Fetch), Action::Exchange, Method::POST),
            "git-receive-pack" => (Ok(Service::Push), Action::Exchange, Method::POST),
            _ => return Err(Refusal::NotFound),
        };
        if method != wanted {
            return Err(Refusal::Method(if wanted == Method::GET { "GET" } else { "POST" }));
        }
        Ok(Self { app, service: service?, action })
    }

    fn service(query: Option<&str>) -> Result<Service, Refusal> {
        match query {
            Some("service=git-upload-pack") => Ok(Service::Fetch),
            Some("service=git-receive-pack") => Ok(Service::Push),
            _ => Err(Refusal::Dumb),
        }
    }
}

/// The token of a request: a bearer token, or the password of any user.
pub(super) fn token(headers: &HeaderMap) -> Result<String, Refusal> {
    let header = headers.get(AUTHORIZATION).ok_or(Refusal::NoToken)?;
    let (scheme, value) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::WrongToken)?;
    let value = value.trim();
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(value.to_owned());
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(Refusal::WrongToken);
    }
    let pair = BASE64_STANDARD.decode(value).ok().and_then(|pair| String::from_utf8(pair).ok());
    let pair = pair.ok_or(Refusal::WrongToken)?;
    let (_, password) = pair.split_once(':').ok_or(Refusal::WrongToken)?;
    Ok(password.to_owned())
}

/// Refuses what is not git's: another site's form, sent by a browser that knows the password.
pub(super) fn content_type(service: Service, headers: &HeaderMap) -> Result<(), Refusal> {
    let wanted = match service {
        Service::Fetch => "application/x-git-upload-pack-request",
        Service::Push => "application/x-git-receive-pack-request",
    };
    match headers.get(CONTENT_TYPE) {
        Some(found) if found == wanted => Ok(()),
        _ => Err(Refusal::ContentType(wanted)),
    }
}

/// How the body is coded.
pub(super) fn coding(headers: &HeaderMap) -> Result<Coding, Refusal> {
    match headers.get(CONTENT_ENCODING).map(HeaderValue::as_bytes) {
        None | Some(b"identity") => Ok(Coding::Identity),
        Some(b"gzip" | b"x-gzip") => Ok(Coding::Gzip),
        Some(_) => Err(Refusal::Coding),
    }
}

impl Service {
    /// The version asked for, where this service has it. Pushes have no version 2.
    pub(super) fn protocol(self, headers: &HeaderMap) -> Version {
        match (headers.get("git-protocol").map(HeaderValue::as_bytes), self) {
            (Some(b"version=2"), Self::Fetch) => Version::Two,
            (Some(b"version=1"), _) => Version::One,
            _ => Version::Zero,
        }
    }

    /// The name of git's program.
    pub(super) fn program(self) -> &'static str {
        match self {
            Self::Fetch => "upload-pack",
            Self::Push => "receive-pack",
        }
    }

    /// What precedes an advertisement over HTTP, up to version 1.
    pub(super) fn preface(self, version: Version) -> BytesMut {
        let text: &[u8] = match (self, version) {
            (Self::Fetch, Version::Two) => b"",
            (Self::Fetch, _) => b"001e# service=git-upload-pack\n0000",
            (Self::Push, _) => b"001f# service=git-receive-pack\n0000",
        };
        let mut preface = BytesMut::with_capacity(super::PIECE_BYTES);
        preface.extend_from_slice(text);
        preface
    }

    pub(super) fn advertisement(self) -> &'static str {
        match self {
            Self::Fetch => "application/x-git-upload-pack-advertisement",
            Self::Push => "application/x-git-receive-pack-advertisement",
        }
    }

    pub(super) fn result(self) -> &'static str {
        match self {
            Self::Fetch => "application/x-git-upload-pack-result",
            Self::Push => "application/x-git-receive-pack-result",
        }
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fetch => "fetch",
            Self::Push => "push",
        })
    }
}

impl Version {
    /// The value of GIT_PROTOCOL.
    pub(super) fn variable(self) -> &'static str {
        match self {
            Self::Zero => "version=0",
            Self::One => "version=1",
            Self::Two => "version=2",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn get(path: &str) -> Result<Asked, Refusal> {
        let uri = Uri::builder().path_and_query(path).build().map_err(|_| Refusal::NotFound)?;
        Asked::of(&Method::GET, &uri)
    }

    #[test]
    fn three_paths_per_application_are_known() {
        let asked = |service, action| Ok(Asked { app: "hello".parse().expect("a label"), service, action });
        assert_eq!(get("/git/hello.git/info/refs?service=git-upload-pack"), asked(Service::Fetch, Action::Advertise));
        assert_eq!(get("/git/hello.git/info/refs?service=git-receive-pack"), asked(Service::Push, Action::Advertise));
        let post = |path: &str| Asked::of(&Method::POST, &path.parse().expect("a path"));
        assert_eq!(post("/git/hello.git/git-upload-pack"), asked(Service::Fetch, Action::Exchange));
        assert_eq!(post("/git/hello.git/git-receive-pack"), asked(Service::Push, Action::Exchange));
        assert_eq!(get("/git/hello.git/git-receive-pack"), Err(Refusal::Method("POST")));
        assert_eq!(get("/git/hello.git/info/refs"), Err(Refusal::Dumb));
        for service in ["git-upload-archive", "git-upload-pack&x=1", "", "git-upload-pack;id", "--help"] {
            assert_eq!(get(&format!("/git/hello.git/info/refs?service={service}")), Err(Refusal::Dumb), "{service}");
        }
    }

    #[test]
    fn c02_a_hostile_name_is_nothing() {
        for name in [
            "..",
            ".",
            "",
            "%2e%2e",
            "..%2f..",
            "-x",
            "--upload-pack=id",
            "Hello",
            "a_b",
            "a.b",
            "a;id",
            "a%20b",
            "$(id)",
            "ext::sh",
            "a\\b",
            "a%00",
        ] {
            for path in [format!("/git/{name}.git/info/refs"), format!("/git/{name}/info/refs")] {
                assert_eq!(get(&format!("{path}?service=git-upload-pack")), Err(Refusal::NotFound), "{path}");
            }
        }
        for rest in [
            "a/../b.git/info/refs",
            "a.git/../b.git/info/refs",
            "a.git//info/refs",
            "a.git/HEAD",
            "a.git/objects/info/packs",
        ] {
            assert_eq!(get(&format!("/git/{rest}?service=git-upload-pack")), Err(Refusal::NotFound), "{rest}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_asked_for_is_nothing_or_a_label_as_it_was_written(
            name in "[a-z0-9%./_-]{0,45}",
            rest in prop_oneof![Just("info/refs".to_owned()), Just("git-receive-pack".to_owned()), "\\PC{0,20}"],
            query in prop_oneof![Just("service=git-upload-pack".to_owned()), "\\PC{0,20}"],
        ) {
            let path = format!("/git/{name}.git/{rest}");
            for asked in [get(&format!("{path}?{query}")), get(&path)].into_iter().flatten() {
                prop_assert_eq!(asked.app.as_str(), name.as_str());
            }
        }

        #[test]
        fn whatever_is_given_as_a_token_is_read_or_refused(value in proptest::collection::vec(any::<u8>(), 0..60)) {
            let basic = [b"Basic ", BASE64_STANDARD.encode(&value).as_bytes()].concat();
            for value in [value, basic] {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                let _read = super::token(&HeaderMap::from_iter([(AUTHORIZATION, value)]));
            }
        }
    }

    #[test]
    fn a_token_is_the_password_of_any_user_or_a_bearer_token() {
        let token = |value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(AUTHORIZATION, value.parse().expect("a header"));
            super::token(&headers)
        };
        let basic = |pair: &str| token(&format!("Basic {}", BASE64_STANDARD.encode(pair)));
        assert_eq!(super::token(&HeaderMap::new()), Err(Refusal::NoToken));
        assert_eq!(basic("me:secret"), Ok("secret".into()));
        assert_eq!(basic(":se:cret"), Ok("se:cret".into()));
        assert_eq!(token("bearer secret"), Ok("secret".into()));
        for bad in ["secret", "Basic", "Basic !", "Digest secret", "Basic c2VjcmV0"] {
            assert_eq!(token(bad), Err(Refusal::WrongToken), "{bad}");
        }
    }

    #[test]
    fn only_known_versions_reach_git() {
        let version = |service: Service, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("git-protocol", value.parse().expect("a header"));
            service.protocol(&headers)
        };
        assert_eq!(version(Service::Fetch, "version=2"), Version::Two);
        assert_eq!(version(Service::Push, "version=2"), Version::Zero);
        assert_eq!(version(Service::Push, "version=1"), Version::One);
        for odd in ["version=3", "version=2:x=y", "", "version=2 ", "$(id)"] {
            assert_eq!(version(Service::Fetch, odd), Version::Zero, "{odd}");
        }
    }
}
