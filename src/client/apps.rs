//! Applications: create, list, delete.

use dormouse_link::Label;
use reqwest::Method;
use serde_json::json;

use super::answer::{App, Apps};
use super::api::Api;
use super::{Format, operation, show};
use crate::failure::Failure;

/// Creates an application, and says how to push to it.
pub(super) async fn create(api: &Api, name: &Label) -> Result<(), Failure> {
    let (text, app): (_, App) = api.document(Method::POST, "/apps", Some(&json!({ "name": name }))).await?;
    if api.format == Format::Json {
        return Failure::print(&format!("{text}\n"));
    }
    let addresses = app.environments.iter().map(|environment| [environment.name.clone(), environment.urls.join("  ")]);
    let rows = std::iter::once(["git".to_owned(), app.git_url.clone()]).chain(addresses);
    Failure::print(&show::pairs(rows))?;
    show::note(&format!("created {}; in the folder of its code:", app.name));
    show::note(&format!("  git remote add dormouse {}", app.git_url));
    show::note(&format!("  git push dormouse HEAD:{}", app.branch));
    show::note("(user: any; password: the token in DIR/admin.token)");
    Ok(())
}

/// Lists all applications.
pub(super) async fn list(api: &Api) -> Result<(), Failure> {
    let (text, Apps { apps }) = api.document(Method::GET, "/apps", None).await?;
    if api.format == Format::Json {
        return Failure::print(&format!("{text}\n"));
    }
    if apps.is_empty() {
        show::note("no application yet; make one with: dormouse app create NAME");
        return Ok(());
    }
    let now = show::now();
    let rows = apps.iter().map(|app| {
        let environments =
            app.environments.iter().map(|environment| format!("{} {}", environment.name, environment.state));
        [
            app.name.clone(),
            environments.collect::<Vec<_>>().join(", "),
            app.branch.clone(),
            show::ago(app.created_at, now),
            app.git_url.clone(),
        ]
    });
    Failure::print(&show::table(["APP", "ENVIRONMENTS", "BRANCH", "CREATED", "GIT"], rows))
}

/// Deletes an application and all that belongs to it.
pub(super) async fn delete(api: &Api, name: &Label) -> Result<(), Failure> {
    operation::follow(api, Method::DELETE, &format!("/apps/{name}"), &format!("deleting {name}")).await
}
