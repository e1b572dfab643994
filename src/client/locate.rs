//! Where the control plane is, and the token for it: from flags and variables, or from the data folder of one that runs
//! on this machine.

use std::io;
use std::path::Path;

use reqwest::Url;

use crate::cli::ApiArgs;
use crate::config;
use crate::failure::{Exit, Failure};
use crate::folder::{self, ADDRESS_FILE, TOKEN_FILE};
use crate::plain;

/// Where `dormouse up` listens unless it is told otherwise.
const DEFAULT_API: &str = "http://127.0.0.1:9000";

/// Whom to ask, and as whom.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The address, without a slash at its end.
    pub(super) base: String,
    /// The token, if one was given or found.
    pub(super) token: Option<String>,
}

/// Finds the control plane.
pub(super) fn locate(args: &ApiArgs) -> Result<Place, Failure> {
    // Without a data folder, flags and variables may still say all that is needed.
    let folder = config::data_folder(args.data.clone());
    let read = |name| folder.as_ref().map_or(Ok(None), |folder| read(&folder.join(name)));
    let here = match read(ADDRESS_FILE)? {
        Some(address) => Some(base(&address).map_err(|_| {
            Failure::new(Exit::Configuration, format!("{ADDRESS_FILE} in the data folder holds no address"))
                .hint("start `dormouse up` again, which writes it; or give --api and --token")
        })?),
        None => None,
    };
    let named = args.api.as_deref().map(base).transpose()?;
    let elsewhere = named.is_some() && named != here && args.data.is_none();
    let token = match &args.token {
        Some(token) => Some(token.clone()),
        // The key of this house is not shown at other doors.
        None if elsewhere => None,
        None => read(TOKEN_FILE)?,
    };
    if token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
        return Err(Failure::new(Exit::Usage, "the token has characters that no token has").hint("copy it again"));
    }
    Ok(Place { base: named.or(here).unwrap_or_else(|| DEFAULT_API.to_owned()), token })
}

/// The one spelling of an API's address.
fn base(text: &str) -> Result<String, Failure> {
    let text = text.trim();
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let wrong =
        |what: String| Failure::new(Exit::Usage, what).hint("give it as http://HOST:PORT (--api, DORMOUSE_API)");
    let shown = plain::value(text);
    let url = Url::parse(&full).map_err(|error| wrong(format!("\"{shown}\" is no address")).because(&error))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(Failure::new(Exit::Usage, "the address of the API holds a user or a password")
            .hint("give it as http://HOST:PORT, and the token by --token or DORMOUSE_TOKEN"));
    }
    if url.scheme() != "http" || !url.has_host() || url.query().is_some() || url.fragment().is_some() {
        return Err(wrong(format!("\"{shown}\" is no address of an API: it is plain HTTP, on a host")));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

/// A small file's text; `None` if there is no such file.
fn read(path: &Path) -> Result<Option<String>, Failure> {
    match folder::small(path) {
        Ok(text) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let failure = Failure::new(Exit::Configuration, format!("cannot read {}", path.display())).because(&error);
            Err(failure.hint("start `dormouse up` again, which says what to do; or give --api and --token"))
        }
        Err(error) => {
            let failure = Failure::new(Exit::NoPermission, format!("cannot read {}", path.display())).because(&error);
            Err(failure.hint("run this as the user who runs `dormouse up`, or give --api and --token"))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn args(folder: &Path, api: Option<&str>) -> ApiArgs {
        ApiArgs { api: api.map(str::to_owned), token: None, data: Some(folder.to_owned()), json: false }
    }

    #[test]
    fn address_and_token_come_from_the_data_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(locate(&args(folder.path(), None)).unwrap(), Place { base: DEFAULT_API.to_owned(), token: None });
        fs::write(folder.path().join(ADDRESS_FILE), "127.0.0.1:4711\n").unwrap();
        fs::write(folder.path().join(TOKEN_FILE), "secret\n").unwrap();
        let place = locate(&args(folder.path(), None)).unwrap();
        assert_eq!(place, Place { base: "http://127.0.0.1:4711".to_owned(), token: Some("secret".to_owned()) });
        fs::write(folder.path().join(ADDRESS_FILE), "http://127.0.0.1:4711").unwrap();
        assert_eq!(locate(&args(folder.path(), None)).unwrap(), place);
    }

    #[test]
    fn a_damaged_file_is_told_and_not_believed() {
        for name in [ADDRESS_FILE, TOKEN_FILE] {
            for bad in [&b"\xff\xfe"[..], &[b'x'; 5000]] {
                let folder = tempfile::tempdir().unwrap();
                fs::write(folder.path().join(name), bad).unwrap();
                assert_eq!(locate(&args(folder.path(), None)).unwrap_err().exit(), Exit::Configuration, "{name}");
            }
        }
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(ADDRESS_FILE), "http://a b\u{1b}").unwrap();
        assert_eq!(locate(&args(folder.path(), None)).unwrap_err().exit(), Exit::Configuration);
    }

    #[test]
    fn what_is_said_wins_over_what_lies_there() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(ADDRESS_FILE), "127.0.0.1:4711\n").unwrap();
        let named = ApiArgs { token: Some("mine".to_owned()), ..args(folder.path(), Some("http://h:1/")) };
        assert_eq!(locate(&named).unwrap(), Place { base: "http://h:1".to_owned(), token: Some("mine".to_owned()) });
    }

    #[test]
    fn an_address_is_plain_http_on_a_host() {
        for (text, expected) in [("h:1", "http://h:1"), ("http://h:1/", "http://h:1"), ("http://h/d/", "http://h/d")] {
            assert_eq!(base(text).unwrap(), expected);
        }
        for bad in ["", "https://h", "http://", "ftp://h", "http://h?x", "http://h:99999", "a b", "http://u:p@h"] {
            assert_eq!(base(bad).unwrap_err().exit(), Exit::Usage, "{bad:?}");
        }
    }
}
