//! The policy of an environment: shown as JSON, said anew by a file, or removed.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use reqwest::Method;
use serde_json::Value;

use super::Format;
use super::api::Api;
use crate::cli::PolicyArgs;
use crate::failure::{Exit, Failure};
use crate::plain;

/// The largest file that is read, in bytes; the control plane takes less.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Changes the policy if that was asked for, and shows what it is then.
pub(super) async fn run(args: &PolicyArgs) -> Result<(), Failure> {
    let api = Api::new(&args.target.api)?;
    let path = format!("/apps/{}/environments/{}/policy", args.target.name, args.target.environment);
    let said = args.file.as_deref().map(read).transpose()?;
    let (text, policy): (_, Value) = match said {
        Some(said) => api.change(Method::PUT, &path, Some(&said)).await?,
        None if args.clear => api.change(Method::DELETE, &path, None).await?,
        None => api.document(Method::GET, &path, None).await?,
    };
    match api.format {
        Format::Json => Failure::print(&format!("{text}\n")),
        // What is shown can be edited and said again.
        Format::Text => Failure::print(&format!("{}\n", plain::json(&format!("{policy:#}")))),
    }
}

fn read(file: &Path) -> Result<Value, Failure> {
    let name = if file == Path::new("-") { "stdin".to_owned() } else { plain::value(&file.to_string_lossy()) };
    let cannot = |error: &io::Error| Failure::new(Exit::Data, format!("cannot read {name}")).because(error);
    let hint = "give a policy as JSON, as docs/policy.md has it; nothing was changed";
    let mut text = String::new();
    let read = match file {
        file if file == Path::new("-") => io::stdin().lock().take(FILE_MAX_BYTES + 1).read_to_string(&mut text),
        file => File::open(file).and_then(|file| file.take(FILE_MAX_BYTES + 1).read_to_string(&mut text)),
    };
    read.map_err(|error| cannot(&error).hint(hint))?;
    if text.len() as u64 > FILE_MAX_BYTES {
        return Err(Failure::new(Exit::Data, format!("{name} has more than {FILE_MAX_BYTES} bytes")).hint(hint));
    }
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(Exit::Data, format!("{name} is no JSON")).because(&error).hint(hint))
}
