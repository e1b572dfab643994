//! Environments: each change is one write that also brings the cell, which edges serve by, up to date.

use std::time::Duration;

use dormouse_link::{EnvironmentId, Epoch, Generation, OrganisationId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, big, from_json, limits, millis, parse, to_json, unsigned};
use crate::model::{Asked, Environment, EnvironmentState, Millis};

const SELECT: &str = "SELECT environment.*, app.name AS app_name, app.branch AS app_branch FROM environment \
                      JOIN app ON app.id = environment.app_id ORDER BY app.name, environment.name";
const SELECT_ID: &str = "SELECT environment.*, app.name AS app_name, app.branch AS app_branch FROM environment \
                         JOIN app ON app.id = environment.app_id WHERE environment.id = $1";
const SELECT_APP: &str = "SELECT environment.*, app.name AS app_name, app.branch AS app_branch FROM environment \
                          JOIN app ON app.id = environment.app_id WHERE app.id = $1 ORDER BY environment.name";
const HOSTS: &str = "SELECT host FROM host WHERE environment_id = $1 ORDER BY certified_at, host";

impl Store {
    /// Every environment.
    pub async fn environments(&self) -> Result<Vec<Environment>, StoreError> {
        let mut connection = self.read.acquire().await?;
        let rows = sqlx::query(SELECT).fetch_all(&mut *connection).await?;
        complete(rows, &mut connection).await
    }

    /// The environments of an application.
    pub async fn environments_of(&self, app_id: &str) -> Result<Vec<Environment>, StoreError> {
        let mut connection = self.read.acquire().await?;
        let rows = sqlx::query(SELECT_APP).bind(app_id).fetch_all(&mut *connection).await?;
        complete(rows, &mut connection).await
    }

    /// One environment.
    pub async fn environment(&self, id: &EnvironmentId) -> Result<Option<Environment>, StoreError> {
        let mut connection = self.read.acquire().await?;
        let rows = sqlx::query(SELECT_ID).bind(id.as_str()).fetch_all(&mut *connection).await?;
        Ok(complete(rows, &mut connection).await?.pop())
    }

    /// Changes an environment in one write, and what edges believe of it with it. Returns it as it is then.
    pub async fn change_environment(
        &self,
        id: &EnvironmentId,
        now: Millis,
        change: impl FnOnce(&mut Environment) + Send,
    ) -> Result<Environment, StoreError> {
        let mut write = self.begin().await?;
        let mut environment = write.environment(id.as_str()).await?.ok_or(StoreError::Gone("the environment"))?;
        change(&mut environment);
        write.save(&mut environment, now).await?;
        write.commit().await?;
        Ok(environment)
    }

    /// Removes the rows of an environment that has no instances left.
    pub async fn forget_environment(&self, id: &EnvironmentId) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        for statement in [
            "DELETE FROM deployment WHERE environment_id = $1",
            "DELETE FROM host WHERE environment_id = $1",
            "DELETE FROM environment WHERE id = $1",
        ] {
            sqlx::query(statement).bind(id.as_str()).execute(&mut *write.tx).await?;
        }
        write.commit().await
    }
}

impl Write<'_> {
    pub(super) async fn environment(&mut self, id: &str) -> Result<Option<Environment>, StoreError> {
        let rows = sqlx::query(SELECT_ID).bind(id).fetch_all(&mut *self.tx).await?;
        Ok(complete(rows, &mut self.tx).await?.pop())
    }

    pub(super) async fn environments_of(&mut self, app_id: &str) -> Result<Vec<Environment>, StoreError> {
        let rows = sqlx::query(SELECT_APP).bind(app_id).fetch_all(&mut *self.tx).await?;
        complete(rows, &mut self.tx).await
    }

    /// Writes what may change of an environment, and publishes its cell where edges would see a difference.
    pub(super) async fn save(&mut self, environment: &mut Environment, now: Millis) -> Result<(), StoreError> {
        self.publish_cell(environment, now).await?;
        sqlx::query(
            "UPDATE environment SET variables = $2, sleep_after_ms = $3, ready_within_ms = $4, asked = $5, serving_id = $6, \
             state = $7, state_since = $8, epoch = $9, generation = $10, reason = $11, failures = $12, retry_at = $13, \
             last_active_at = $14, seen_commit = $15, memory_bytes = $16, cpus_milli = $17, processes = $18, policy = $19 WHERE id = $1",
        )
        .bind(environment.id.as_str())
        .bind(to_json(&environment.variables))
        .bind(environment.sleep_after.map(millis))
        .bind(millis(environment.ready_within))
        .bind(environment.asked.map(asked_text))
        .bind(&environment.serving)
        .bind(state_text(environment.state))
        .bind(environment.state_since)
        .bind(big(environment.epoch.0))
        .bind(big(environment.generation.0))
        .bind(&environment.reason)
        .bind(i64::from(environment.failures))
        .bind(environment.retry_at)
        .bind(environment.last_active_at)
        .bind(environment.seen_commit.as_ref().map(ToString::to_string))
        .bind(big(environment.limits.memory_bytes))
        .bind(big(environment.limits.cpus_milli))
        .bind(big(environment.limits.processes))
        .bind(Some(&environment.policy).filter(|policy| !policy.is_default()).map(to_json))
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

async fn complete(
    rows: Vec<SqliteRow>,
    connection: &mut sqlx::SqliteConnection,
) -> Result<Vec<Environment>, StoreError> {
    let mut environments = Vec::with_capacity(rows.len());
    for row in &rows {
        let mut environment = environment(row)?;
        for row in sqlx::query(HOSTS).bind(environment.id.as_str()).fetch_all(&mut *connection).await? {
            environment.hosts.push(parse("host.host", row.try_get("host")?)?);
        }
        environments.push(environment);
    }
    Ok(environments)
}

fn environment(row: &SqliteRow) -> Result<Environment, StoreError> {
    let duration = |ms: i64| Duration::from_millis(unsigned(ms));
    let policy = row.try_get::<Option<&str>, _>("policy")?;
    Ok(Environment {
        id: EnvironmentId::new(row.try_get::<String, _>("id")?),
        organisation: OrganisationId::new(row.try_get::<String, _>("organisation_id")?),
        app_id: row.try_get("app_id")?,
        app: parse("app.name", row.try_get("app_name")?)?,
        branch: parse("app.branch", row.try_get("app_branch")?)?,
        name: parse("environment.name", row.try_get("name")?)?,
        hosts: Vec::new(),
        secret_key: row.try_get("secret_key")?,
        variables: from_json("environment.variables", row.try_get("variables")?)?,
        limits: limits(row)?,
        policy: policy.map(|policy| from_json("environment.policy", policy)).transpose()?.unwrap_or_default(),
        sleep_after: row.try_get::<Option<i64>, _>("sleep_after_ms")?.map(duration),
        ready_within: duration(row.try_get("ready_within_ms")?),
        asked: row.try_get::<Option<&str>, _>("asked")?.map(asked).transpose()?,
        serving: row.try_get("serving_id")?,
        state: state(row.try_get("state")?)?,
        state_since: row.try_get("state_since")?,
        epoch: Epoch(unsigned(row.try_get("epoch")?)),
        generation: Generation(unsigned(row.try_get("generation")?)),
        reason: row.try_get("reason")?,
        failures: u32::try_from(row.try_get::<i64, _>("failures")?).unwrap_or(0),
        retry_at: row.try_get("retry_at")?,
        last_active_at: row.try_get("last_active_at")?,
        seen_commit: row
            .try_get::<Option<&str>, _>("seen_commit")?
            .map(|commit| parse("environment.seen_commit", commit))
            .transpose()?,
    })
}

/// How a state is called in the store and the API.
pub(crate) fn state_text(state: EnvironmentState) -> &'static str {
    match state {
        EnvironmentState::Empty => "empty",
        EnvironmentState::Ready => "ready",
        EnvironmentState::Closing => "closing",
        EnvironmentState::Asleep => "asleep",
        EnvironmentState::Waking => "waking",
        EnvironmentState::Failed => "failed",
        EnvironmentState::Deleting => "deleting",
    }
}

fn state(text: &str) -> Result<EnvironmentState, StoreError> {
    Ok(match text {
        "empty" => EnvironmentState::Empty,
        "ready" => EnvironmentState::Ready,
        "closing" => EnvironmentState::Closing,
        "asleep" => EnvironmentState::Asleep,
        "waking" => EnvironmentState::Waking,
        "failed" => EnvironmentState::Failed,
        "deleting" => EnvironmentState::Deleting,
        _ => return Err(StoreError::Corrupt { what: "environment.state", value: text.to_owned() }),
    })
}

fn asked_text(asked: Asked) -> &'static str {
    match asked {
        Asked::Sleep => "sleep",
        Asked::Wake => "wake",
    }
}

fn asked(text: &str) -> Result<Asked, StoreError> {
    match text {
        "sleep" => Ok(Asked::Sleep),
        "wake" => Ok(Asked::Wake),
        _ => Err(StoreError::Corrupt { what: "environment.asked", value: text.to_owned() }),
    }
}
