//! Deployments: asked for, led through their states, ended; the swap is one write.

use std::collections::BTreeMap;

use dormouse_link::{EnvironmentId, InstanceId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Place, Store, StoreError, Write, big, from_json, limits, parse, to_json, unsigned};
use crate::git::Commit;
use crate::model::{Deployment, DeploymentState, EnvironmentState, Instance, Millis, new_id};

/// Deployments that are looked at of one environment: the newest ones.
const NEWEST: i64 = 50;

/// What a deployment runs.
#[derive(Clone, Debug)]
pub enum Runs {
    /// A commit, built where it is not built yet.
    Commit(Commit),
    /// The very image that another deployment runs.
    Image {
        /// The commit it was built from.
        commit: Commit,
        /// Its build.
        build_id: String,
    },
}

/// Whether a commit that was deployed before is deployed again.
#[derive(Clone, Copy)]
enum Seen {
    Again,
    Once,
}

impl Store {
    /// Asks for a deployment; returns it, queued. It is noted as the newest that the branch's head was seen for.
    pub async fn ask_deployment(&self, id: &EnvironmentId, runs: Runs, now: Millis) -> Result<Deployment, StoreError> {
        self.ask(id, runs, Seen::Again, now).await?.ok_or(StoreError::Gone("the environment"))
    }

    /// Asks for a deployment of a branch's head, unless one was asked for it before.
    pub async fn ask_unseen(
        &self,
        id: &EnvironmentId,
        head: Commit,
        now: Millis,
    ) -> Result<Option<Deployment>, StoreError> {
        self.ask(id, Runs::Commit(head), Seen::Once, now).await
    }

    async fn ask(
        &self,
        id: &EnvironmentId,
        runs: Runs,
        seen: Seen,
        now: Millis,
    ) -> Result<Option<Deployment>, StoreError> {
        let mut write = self.begin().await?;
        let mut environment = write.environment(id.as_str()).await?.ok_or(StoreError::Gone("the environment"))?;
        if environment.state == EnvironmentState::Deleting {
            return Err(StoreError::Gone("the environment"));
        }
        if let (Seen::Once, Runs::Commit(head)) = (seen, &runs)
            && environment.seen_commit.as_ref() == Some(head)
        {
            return Ok(None);
        }
        let (commit, build_id) = match runs {
            Runs::Commit(commit) => (commit, None),
            Runs::Image { commit, build_id } => (commit, Some(build_id)),
        };
        let row = sqlx::query("SELECT COALESCE(MAX(number), 0) + 1 FROM deployment WHERE environment_id = $1")
            .bind(id.as_str())
            .fetch_one(&mut *write.tx)
            .await?;
        let deployment = new_id();
        sqlx::query(
            "INSERT INTO deployment (id, environment_id, number, commit_id, build_id, state, last_lines, variables, created_at) \
             VALUES ($1, $2, $3, $4, $5, 'queued', '[]', '{}', $6)",
        )
        .bind(&deployment)
        .bind(id.as_str())
        .bind(row.try_get::<i64, _>(0)?)
        .bind(commit.to_string())
        .bind(build_id)
        .bind(now)
        .execute(&mut *write.tx)
        .await?;
        environment.seen_commit = Some(commit);
        write.save(&mut environment, now).await?;
        write.commit().await?;
        self.deployment(&deployment).await
    }

    /// One deployment.
    pub async fn deployment(&self, id: &str) -> Result<Option<Deployment>, StoreError> {
        let row = sqlx::query("SELECT * FROM deployment WHERE id = $1").bind(id).fetch_optional(&self.read).await?;
        row.as_ref().map(deployment).transpose()
    }

    /// The newest deployments of an environment, newest first.
    pub async fn deployments_of(&self, id: &EnvironmentId) -> Result<Vec<Deployment>, StoreError> {
        let rows = sqlx::query("SELECT * FROM deployment WHERE environment_id = $1 ORDER BY number DESC LIMIT $2")
            .bind(id.as_str())
            .bind(NEWEST)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(deployment).collect()
    }

    /// The ids of all deployments of an environment.
    pub async fn deployment_ids(&self, id: &EnvironmentId) -> Result<Vec<String>, StoreError> {
        let ids = sqlx::query("SELECT id FROM deployment WHERE environment_id = $1");
        let rows = ids.bind(id.as_str()).fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The deployments of an environment that have not ended, newest first.
    pub async fn unended_deployments(&self, id: &EnvironmentId) -> Result<Vec<Deployment>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM deployment WHERE environment_id = $1 AND state IN ('queued', 'building', 'starting') ORDER BY number DESC",
        )
        .bind(id.as_str())
        .fetch_all(&self.read)
        .await?;
        rows.iter().map(deployment).collect()
    }

    /// A queued deployment gets its build: the one it came with, else that of its commit.
    pub async fn begin_building(&self, target: &Deployment, app_id: &str, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let build = match &target.build_id {
            Some(build) => {
                // The image was lost, and could not be built again then.
                sqlx::query("UPDATE build SET state = 'queued', ended_at = NULL WHERE id = $1 AND state = 'failed'")
                    .bind(build)
                    .execute(&mut *write.tx)
                    .await?;
                build.clone()
            }
            None => write.build_for(app_id, &target.commit, now).await?,
        };
        sqlx::query("UPDATE deployment SET state = 'building', build_id = $2 WHERE id = $1 AND state = 'queued'")
            .bind(&target.id)
            .bind(build)
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// A built deployment gets its variables, its environment's limits, and its instance, at an address that no edge knows for somebody else.
    pub async fn begin_starting(
        &self,
        target: &Deployment,
        port: u16,
        variables: &BTreeMap<String, String>,
        place: Place<'_>,
        now: Millis,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let address = write.free_address(&target.environment, place).await?;
        let begun = sqlx::query(
            "UPDATE deployment SET state = 'starting', variables = $2, \
             memory_bytes = (SELECT memory_bytes FROM environment WHERE environment.id = deployment.environment_id), \
             cpus_milli = (SELECT cpus_milli FROM environment WHERE environment.id = deployment.environment_id), \
             processes = (SELECT processes FROM environment WHERE environment.id = deployment.environment_id) \
             WHERE id = $1 AND state = 'building'",
        )
        .bind(&target.id)
        .bind(to_json(variables))
        .execute(&mut *write.tx)
        .await?;
        if begun.rows_affected() == 1 {
            let instance = Instance {
                id: InstanceId::new(new_id()),
                environment: target.environment.clone(),
                deployment_id: target.id.clone(),
                address,
                port,
                retired: None,
            };
            write.insert_instance(&instance, now).await?;
        }
        write.commit().await
    }

    /// Requests go to this deployment from now on: its instance is offered and those of older ones are retired, in one write.
    pub async fn swap(&self, target: &Deployment, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        let id = &target.environment;
        let mut environment = write.environment(id.as_str()).await?.ok_or(StoreError::Gone("the environment"))?;
        if environment.state == EnvironmentState::Deleting {
            return Err(StoreError::Gone("the environment"));
        }
        let old = environment.serving.replace(target.id.clone());
        environment.state = EnvironmentState::Ready;
        environment.state_since = now;
        environment.epoch.0 += 1;
        environment.reason = None;
        environment.failures = 0;
        environment.asked = None;
        environment.last_active_at = Some(now);
        write.save(&mut environment, now).await?;
        if let Some(old) = old.filter(|old| *old != target.id) {
            sqlx::query(
                "UPDATE instance SET retired_generation = $2, retired_at = $3 WHERE deployment_id = $1 AND retired_at IS NULL",
            )
            .bind(old)
            .bind(big(environment.generation.0))
            .bind(now)
            .execute(&mut *write.tx)
            .await?;
        }
        write.end_deployment(&target.id, DeploymentState::Succeeded, None, &[], now).await?;
        write.commit().await
    }

    /// What the container of a deployment that served wrote last, when it failed.
    pub async fn keep_last_lines(&self, id: &str, last_lines: &[String]) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query("UPDATE deployment SET last_lines = $2 WHERE id = $1")
            .bind(id)
            .bind(to_json(&last_lines))
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }

    /// A deployment ends without having changed anything for visitors.
    pub async fn end_deployment(
        &self,
        id: &str,
        state: DeploymentState,
        reason: &str,
        last_lines: &[String],
        now: Millis,
    ) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        write.end_deployment(id, state, Some(reason), last_lines, now).await?;
        write.commit().await
    }
}

impl Write<'_> {
    async fn end_deployment(
        &mut self,
        id: &str,
        state: DeploymentState,
        reason: Option<&str>,
        last_lines: &[String],
        now: Millis,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE deployment SET state = $2, reason = $3, last_lines = $4, ended_at = $5 WHERE id = $1 AND ended_at IS NULL")
            .bind(id)
            .bind(state_text(state))
            .bind(reason)
            .bind(to_json(&last_lines))
            .bind(now)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }
}

fn deployment(row: &SqliteRow) -> Result<Deployment, StoreError> {
    Ok(Deployment {
        id: row.try_get("id")?,
        environment: EnvironmentId::new(row.try_get::<String, _>("environment_id")?),
        number: unsigned(row.try_get("number")?),
        commit: parse("deployment.commit_id", row.try_get("commit_id")?)?,
        build_id: row.try_get("build_id")?,
        state: state(row.try_get("state")?)?,
        reason: row.try_get("reason")?,
        last_lines: from_json("deployment.last_lines", row.try_get("last_lines")?)?,
        variables: from_json("deployment.variables", row.try_get("variables")?)?,
        limits: limits(row)?,
        created_at: row.try_get("created_at")?,
        ended_at: row.try_get("ended_at")?,
    })
}

/// How a state is called in the store and the API.
pub(crate) fn state_text(state: DeploymentState) -> &'static str {
    match state {
        DeploymentState::Queued => "queued",
        DeploymentState::Building => "building",
        DeploymentState::Starting => "starting",
        DeploymentState::Succeeded => "succeeded",
        DeploymentState::Failed => "failed",
        DeploymentState::Superseded => "superseded",
    }
}

fn state(text: &str) -> Result<DeploymentState, StoreError> {
    Ok(match text {
        "queued" => DeploymentState::Queued,
        "building" => DeploymentState::Building,
        "starting" => DeploymentState::Starting,
        "succeeded" => DeploymentState::Succeeded,
        "failed" => DeploymentState::Failed,
        "superseded" => DeploymentState::Superseded,
        _ => return Err(StoreError::Corrupt { what: "deployment.state", value: text.to_owned() }),
    })
}
