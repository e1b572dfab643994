//! `up --demo`: makes the application `hello` and pushes it, by the same ways that everybody takes: the API, and `git push`.
//!
//! Its source lies in the data folder, ready to be changed and pushed again. What is there already is left as it is, so
//! that a second start carries on.

use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use reqwest::Method;
use serde_json::json;
use tokio::process::Command;

use super::answer::App;
use super::api::Api;
use super::{operation, show};
use crate::boilerplate;
use crate::cli::ApiArgs;
use crate::failure::{Exit, Failure};
use crate::folder::{TOKEN_FILE, replace};

const NAME: &str = "hello";
const BRANCH: &str = "develop";

/// Makes what is missing of the demo application, and tells what to try.
pub(crate) async fn hello(data: &Path) -> Result<(), Failure> {
    let args = ApiArgs { api: None, token: None, data: Some(data.to_owned()), json: false };
    let api = Api::new(&args)?;
    let mut app = find_or_create(&api).await?;
    let source = data.join("demo").join(NAME);
    write_credentials(data, &app.git_url)?;
    if source.join(".git").exists() {
        git(&source, &["config", "remote.dormouse.url", &app.git_url], "point the demo to this API").await?;
    }
    if state(&app, "test") == Some("empty") {
        write_source(&source, data, &app.git_url).await?;
        show::note("demo: pushing the application hello with git");
        git(&source, &["push", "--quiet", "dormouse", BRANCH], "push the demo").await?;
        app = find_or_create(&api).await?;
        if state(&app, "test") == Some("empty") {
            // It was pushed by an earlier start that was ended in the middle, or failed.
            deploy(&api, "test").await?;
        }
    }
    if state(&app, "live") == Some("empty") {
        show::note("demo: promoting the very same image to Live");
        deploy(&api, "live").await?;
    }
    let (_, app): (_, App) = api.document(Method::GET, &format!("/apps/{NAME}"), None).await?;
    tell(&app, &source, data);
    Ok(())
}

async fn deploy(api: &Api, environment: &str) -> Result<(), Failure> {
    let path = format!("/apps/{NAME}/environments/{environment}/deploy");
    let done = operation::to_its_end(api, Method::POST, &path, "deploying the demo").await?;
    show::note(&done.text);
    if done.ok {
        return Ok(());
    }
    let failure = Failure::new(Exit::Failed, format!("the demo was not deployed to {environment}"));
    Err(failure.hint(format!("mend it, then: dormouse deploy {NAME} -e {environment}")))
}

async fn find_or_create(api: &Api) -> Result<App, Failure> {
    let (_, all): (_, super::answer::Apps) = api.document(Method::GET, "/apps", None).await?;
    if let Some(app) = all.apps.into_iter().find(|app| app.name == NAME) {
        return Ok(app);
    }
    show::note("demo: creating the application hello");
    let (_, app) = api.document(Method::POST, "/apps", Some(&json!({ "name": NAME }))).await?;
    Ok(app)
}

fn state<'a>(app: &'a App, environment: &str) -> Option<&'a str> {
    app.environments.iter().find(|found| found.name == environment).map(|found| found.state.as_str())
}

/// A repository with the application in it, that can push to us without being asked for the token.
async fn write_source(source: &Path, data: &Path, git_url: &str) -> Result<(), Failure> {
    let doing = "write the demo";
    if !source.join(".git").exists() {
        boilerplate::write(source, boilerplate::MESSAGE).map_err(|error| {
            Failure::new(Exit::CannotCreate, format!("cannot write {}", source.display())).because(&error)
        })?;
        git(source, &["init", "--quiet", "--initial-branch", BRANCH], doing).await?;
        git(source, &["remote", "add", "dormouse", git_url], doing).await?;
    }
    // Git's own store, with a copy of the token for this user only, so that nobody is asked for it.
    let store = data.join("demo").join("credentials");
    let helper = format!("store --file={}", quoted(&store));
    git(source, &["config", "credential.helper", &helper], doing).await?;
    git(source, &["config", "push.default", "current"], doing).await?;
    // So that a change can be committed on a machine where git was never told a name.
    git(source, &["config", "user.name", "Dormouse demo"], doing).await?;
    git(source, &["config", "user.email", "demo@localhost"], doing).await?;
    git(source, &["config", "remote.pushDefault", "dormouse"], doing).await?;
    git(source, &["add", "--all"], doing).await?;
    if git(source, &["diff", "--cached", "--quiet", "HEAD"], doing).await.is_err() {
        git(source, &["commit", "--quiet", "--message", "Say hello"], doing).await?;
    }
    Ok(())
}

/// The token as git's own credential store has it; written at each start, because the API's port may have changed.
fn write_credentials(data: &Path, git_url: &str) -> Result<(), Failure> {
    let file = data.join("demo").join("credentials");
    let cannot =
        |error: &io::Error| Failure::new(Exit::CannotCreate, format!("cannot write {}", file.display())).because(error);
    let token = std::fs::read_to_string(data.join(TOKEN_FILE)).map_err(|error| cannot(&error))?;
    let host = git_url.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap_or_default();
    std::fs::create_dir_all(data.join("demo")).map_err(|error| cannot(&error))?;
    replace(&file, &format!("http://dormouse:{}@{host}\n", token.trim())).map_err(|error| cannot(&error))
}

/// A path as one word of what git takes for the name of a helper and its arguments.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Runs git as a new user has it: without settings of this machine, and without proxies.
async fn git(folder: &Path, args: &[&str], doing: &str) -> Result<(), Failure> {
    let mut command = Command::new("git");
    command.current_dir(folder).args(args).stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    // Started from a git hook, say, these would name another repository.
    for variable in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
        command.env_remove(variable);
    }
    for proxy in ["http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"] {
        command.env_remove(proxy);
    }
    if args.first() == Some(&"diff") {
        command.stderr(Stdio::null());
    }
    let failed = |what: String| Failure::new(Exit::Failed, format!("cannot {doing}: {what}"));
    let status = command.status().await.map_err(|error| {
        failed("git could not be run".to_owned()).because(&error).hint("install git: sudo apt-get install git")
    })?;
    if status.success() { Ok(()) } else { Err(failed(format!("git {} failed", args[0]))) }
}

fn tell(app: &App, source: &Path, data: &Path) {
    show::note("");
    for environment in &app.environments {
        show::note(&format!("  {:5} {}", environment.name, environment.urls.join("  ")));
    }
    let test = app.environments.iter().find(|found| found.name == "test").and_then(|found| found.urls.first());
    let test = test.map_or("", String::as_str);
    let program = program();
    let data = if crate::config::data_folder(None).is_ok_and(|default| default == data) {
        String::new()
    } else {
        format!(" --data {}", data.display())
    };
    show::note("");
    show::note("Worth trying, in another terminal:");
    show::note(&format!("  {program} sleep {NAME}{data} && curl -i {test}"));
    show::note("      stop Test's container; the request wakes it");
    show::note(&format!(
        "  cd {} && echo 'Good morning' > message.txt && git commit -qam morning && git push",
        source.display()
    ));
    show::note("      build and deploy a change to Test; this terminal sees each step");
    show::note(&format!("  {program} deploy {NAME} -e live{data}"));
    show::note("      promote the very image that Test runs to Live");
    show::note("");
    show::note("Ctrl-C stops Dormouse; the containers run on, and the next start carries on with them.");
}

/// How this program is called from elsewhere.
fn program() -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("dormouse"));
    program.display().to_string()
}
