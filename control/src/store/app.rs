//! Applications: made with their environments, hosts and cells in one write; deleted when their last environment is gone.

use std::time::Duration;

use dormouse_link::{Certificate, Host, Label, OrganisationId};
use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::object::host_of;
use super::{FIRST_ORGANISATION, Store, StoreError, Write, millis, parse};
use crate::git::Branch;
use crate::model::{App, EnvironmentState, Millis, new_id, random_hex};

const COLUMNS: &str = "SELECT id, organisation_id, name, branch, created_at FROM app ORDER BY name";
const BY_NAME: &str = "SELECT id, organisation_id, name, branch, created_at FROM app WHERE name = $1";

/// An application to be made.
#[derive(Clone, Debug)]
pub struct NewApp {
    /// Its id; its repository exists already.
    pub id: String,
    /// Its name.
    pub name: Label,
    /// The branch that is deployed to Test.
    pub branch: Branch,
    /// Its environments.
    pub environments: Vec<NewEnvironment>,
}

/// An environment to be made.
#[derive(Clone, Debug)]
pub struct NewEnvironment {
    /// Its name.
    pub name: Label,
    /// Its platform host, with what the host proves itself with.
    pub certificate: Certificate,
    /// Sleeps after so long without a request.
    pub sleep_after: Option<Duration>,
    /// How long a new instance may take to answer.
    pub ready_within: Duration,
}

impl Store {
    /// Makes an application with its environments, or nothing.
    pub async fn create_app(&self, new: &NewApp, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        if sqlx::query(BY_NAME).bind(new.name.as_str()).fetch_optional(&mut *write.tx).await?.is_some() {
            return Err(StoreError::AppTaken(new.name.clone()));
        }
        check_quota(&mut write).await?;
        sqlx::query("INSERT INTO app (id, organisation_id, name, branch, created_at) VALUES ($1, $2, $3, $4, $5)")
            .bind(&new.id)
            .bind(FIRST_ORGANISATION)
            .bind(new.name.as_str())
            .bind(new.branch.as_str())
            .bind(now)
            .execute(&mut *write.tx)
            .await?;
        for environment in &new.environments {
            write.insert_environment(&new.id, environment, now).await?;
        }
        write.commit().await
    }

    /// Every application, by name.
    pub async fn apps(&self) -> Result<Vec<App>, StoreError> {
        sqlx::query(COLUMNS).fetch_all(&self.read).await?.iter().map(app).collect()
    }

    /// The application of a name.
    pub async fn app(&self, name: &Label) -> Result<Option<App>, StoreError> {
        sqlx::query(BY_NAME).bind(name.as_str()).fetch_optional(&self.read).await?.as_ref().map(app).transpose()
    }

    /// Marks every environment of the application as to be taken down; from here on edges know none of its hosts.
    pub async fn delete_app(&self, app_id: &str, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        for mut environment in write.environments_of(app_id).await? {
            if environment.state != EnvironmentState::Deleting {
                environment.state = EnvironmentState::Deleting;
                environment.state_since = now;
                write.save(&mut environment, now).await?;
            }
        }
        write.commit().await
    }

    /// Removes the rows of an application that has no environments left.
    pub async fn forget_app(&self, app_id: &str) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        if write.environments_of(app_id).await?.is_empty() {
            sqlx::query("DELETE FROM build WHERE app_id = $1").bind(app_id).execute(&mut *write.tx).await?;
            sqlx::query("DELETE FROM app WHERE id = $1").bind(app_id).execute(&mut *write.tx).await?;
        }
        write.commit().await
    }
}

async fn check_quota(write: &mut Write<'_>) -> Result<(), StoreError> {
    let row = sqlx::query(
        "SELECT max_apps, (SELECT COUNT(*) FROM app WHERE organisation_id = $1) FROM organisation WHERE id = $1",
    )
    .bind(FIRST_ORGANISATION)
    .fetch_one(&mut *write.tx)
    .await?;
    let (quota, used) = (row.try_get::<i64, _>(0)?, row.try_get::<i64, _>(1)?);
    if used >= quota { Err(StoreError::Quota(quota)) } else { Ok(()) }
}

impl Write<'_> {
    async fn insert_environment(&mut self, app_id: &str, new: &NewEnvironment, now: Millis) -> Result<(), StoreError> {
        let host = &host_of(&new.certificate)?;
        if let Some(holder) = self.holder(host).await? {
            return Err(StoreError::HostTaken { host: host.clone(), holder });
        }
        let id = new_id();
        sqlx::query(
            "INSERT INTO environment (id, organisation_id, app_id, name, secret_key, variables, sleep_after_ms, ready_within_ms, \
             state, state_since, epoch, generation, failures, retry_at) VALUES ($1, $2, $3, $4, $5, '{}', $6, $7, 'empty', $8, 0, 0, 0, 0)",
        )
        .bind(&id)
        .bind(FIRST_ORGANISATION)
        .bind(app_id)
        .bind(new.name.as_str())
        .bind(random_hex::<32>())
        .bind(new.sleep_after.map(millis))
        .bind(millis(new.ready_within))
        .bind(now)
        .execute(&mut *self.tx)
        .await?;
        sqlx::query("INSERT INTO host (host, environment_id, certified_at) VALUES ($1, $2, $3)")
            .bind(host.as_str())
            .bind(&id)
            .bind(now)
            .execute(&mut *self.tx)
            .await?;
        let mut environment = self.environment(&id).await?.ok_or(StoreError::Gone("the environment"))?;
        self.publish_host(&environment, new.certificate.clone()).await?;
        self.save(&mut environment, now).await
    }

    /// `APP ENVIRONMENT` of whoever holds the host.
    async fn holder(&mut self, host: &Host) -> Result<Option<String>, StoreError> {
        let row = sqlx::query(
            "SELECT app.name, environment.name FROM host JOIN environment ON environment.id = host.environment_id \
             JOIN app ON app.id = environment.app_id WHERE host.host = $1",
        )
        .bind(host.as_str())
        .fetch_optional(&mut *self.tx)
        .await?;
        row.map(|row| Ok(format!("{} {}", row.try_get::<String, _>(0)?, row.try_get::<String, _>(1)?))).transpose()
    }
}

fn app(row: &SqliteRow) -> Result<App, StoreError> {
    Ok(App {
        id: row.try_get("id")?,
        organisation: OrganisationId::new(row.try_get::<String, _>("organisation_id")?),
        name: parse("app.name", row.try_get("name")?)?,
        branch: parse("app.branch", row.try_get("branch")?)?,
        created_at: row.try_get("created_at")?,
    })
}
