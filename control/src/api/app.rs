//! Applications.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use dormouse_link::Label;
use serde::{Deserialize, Serialize};

use super::environment::EnvironmentView;
use super::error::Problem;
use super::input::{Document, Names};
use super::stream::Until;
use super::{Api, stream};
use crate::apps;
use crate::model::{App, Millis};

/// An application, as the API shows it.
#[derive(Debug, Serialize)]
pub(crate) struct AppView {
    name: Label,
    branch: String,
    git_url: String,
    created_at: Millis,
    environments: Vec<EnvironmentView>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Apps {
    apps: Vec<AppView>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Create {
    name: String,
}

pub(crate) async fn list(State(api): State<Api>) -> Result<Json<Apps>, Problem> {
    let mut views = Vec::new();
    for app in api.world.store.apps().await? {
        views.push(view(&api, app).await?);
    }
    Ok(Json(Apps { apps: views }))
}

pub(crate) async fn create(
    State(api): State<Api>,
    Document(create): Document<Create>,
) -> Result<(StatusCode, Json<AppView>), Problem> {
    let name: Label = create.name.parse().map_err(|error| {
        Problem::invalid(format!("{:?} cannot be a name: {error}", create.name)).hint("choose another name")
    })?;
    let app = apps::create(&api.world, name).await?;
    Ok((StatusCode::CREATED, Json(view(&api, app).await?)))
}

pub(crate) async fn show(State(api): State<Api>, Names(name): Names<String>) -> Result<Json<AppView>, Problem> {
    let app = apps::find(&api.world, &name).await?;
    Ok(Json(view(&api, app).await?))
}

pub(crate) async fn delete(State(api): State<Api>, Names(name): Names<String>) -> Result<Response, Problem> {
    Ok(stream::lines(apps::delete(&api.world, &name).await?, Until::LastMessage))
}

async fn view(api: &Api, app: App) -> Result<AppView, Problem> {
    let mut environments = Vec::new();
    for environment in api.world.store.environments_of(&app.id).await? {
        environments.push(EnvironmentView::of(api, &environment).await?);
    }
    Ok(AppView {
        git_url: format!("{}/git/{}.git", api.url, app.name),
        name: app.name,
        branch: app.branch.to_string(),
        created_at: app.created_at,
        environments,
    })
}
