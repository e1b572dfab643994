//! The policy of an environment, as a table file has it. Only here are hashes of passwords shown.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use dormouse_link::Policy;

use super::Api;
use super::error::Problem;
use super::input::{Document, Names};
use crate::apps::{self, Taken};

/// What becomes of a change: 200 where every edge serves by it, 202 where one has yet to take it.
pub(super) fn status(taken: Taken) -> StatusCode {
    match taken {
        Taken::Applied => StatusCode::OK,
        Taken::Kept => StatusCode::ACCEPTED,
    }
}

pub(crate) async fn show(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
) -> Result<Json<Policy>, Problem> {
    let (_, environment) = apps::find_environment(&api.world, &app, &environment).await?;
    Ok(Json(environment.policy))
}

pub(crate) async fn set(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
    Document(policy): Document<Policy>,
) -> Result<(StatusCode, Json<Policy>), Problem> {
    let (environment, taken) = apps::set_policy(&api.world, &app, &environment, policy).await?;
    Ok((status(taken), Json(environment.policy)))
}

pub(crate) async fn clear(
    State(api): State<Api>,
    Names((app, environment)): Names<(String, String)>,
) -> Result<(StatusCode, Json<Policy>), Problem> {
    let (environment, taken) = apps::set_policy(&api.world, &app, &environment, Policy::default()).await?;
    Ok((status(taken), Json(environment.policy)))
}
