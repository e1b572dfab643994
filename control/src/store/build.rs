//! Builds: a commit is built once; a failed one may be built again.

use sqlx::Row;
use sqlx::sqlite::SqliteRow;

use super::{Store, StoreError, Write, from_json, parse, to_json};
use crate::engine::Image;
use crate::git::Commit;
use crate::model::{Build, BuildState, Millis, new_id};

/// The builds that somebody needs and that are not done, newest first.
const NEEDED: &str = "SELECT * FROM build WHERE state IN ('queued', 'running') AND EXISTS (SELECT 1 FROM deployment \
    JOIN environment ON environment.id = deployment.environment_id WHERE deployment.build_id = build.id \
    AND environment.state <> 'deleting' AND (environment.serving_id = deployment.id \
    OR deployment.state IN ('queued', 'building', 'starting'))) ORDER BY created_at DESC, id";

impl Store {
    /// One build.
    pub async fn build(&self, id: &str) -> Result<Option<Build>, StoreError> {
        let row = sqlx::query("SELECT * FROM build WHERE id = $1").bind(id).fetch_optional(&self.read).await?;
        row.as_ref().map(build).transpose()
    }

    /// The builds that somebody needs and that are not done, newest first: of deployments that have not ended, and of those
    /// that serve but whose image was lost.
    pub async fn needed_builds(&self) -> Result<Vec<Build>, StoreError> {
        let rows = sqlx::query(NEEDED).fetch_all(&self.read).await?;
        rows.iter().map(build).collect()
    }

    /// The ids of builds that are noted as running.
    pub async fn running_builds(&self) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT id FROM build WHERE state = 'running'").fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Builds that are noted as running, but are none of `ours`, go back into the queue: a crash left them.
    pub async fn requeue_builds(&self, ours: &[String]) -> Result<(), StoreError> {
        for id in self.running_builds().await? {
            if !ours.contains(&id) {
                self.requeue_build(&id).await?;
            }
        }
        Ok(())
    }

    /// A build that was begun goes back into the queue.
    pub async fn requeue_build(&self, id: &str) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        write.requeue_build(id).await?;
        write.commit().await
    }

    /// Whether a builder is at one of the application's builds.
    pub async fn builds_run(&self, app_id: &str) -> Result<bool, StoreError> {
        let running = sqlx::query("SELECT 1 FROM build WHERE app_id = $1 AND state = 'running' LIMIT 1");
        Ok(running.bind(app_id).fetch_optional(&self.read).await?.is_some())
    }

    /// A builder takes a build; false where it was taken before.
    pub async fn begin_build(&self, id: &str, now: Millis) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        let done =
            sqlx::query("UPDATE build SET state = 'running', started_at = $2 WHERE id = $1 AND state = 'queued'")
                .bind(id)
                .bind(now)
                .execute(&mut *write.tx)
                .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// A build was stopped because nobody needed it. If somebody came to need it until this write, it goes back into the
    /// queue; says whether that is so.
    pub async fn end_unneeded_build(&self, id: &str, reason: &str, now: Millis) -> Result<bool, StoreError> {
        let mut write = self.begin().await?;
        let needed = sqlx::query(NEEDED).fetch_all(&mut *write.tx).await?;
        for row in &needed {
            if row.try_get::<&str, _>("id")? == id {
                write.requeue_build(id).await?;
                write.commit().await?;
                return Ok(true);
            }
        }
        write.end_build(id, Err(reason), now).await?;
        write.commit().await?;
        Ok(false)
    }

    /// How a build ended: with an image, or with a reason.
    pub async fn end_build(&self, id: &str, outcome: Result<&Image, &str>, now: Millis) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        write.end_build(id, outcome, now).await?;
        write.commit().await
    }

    /// The commits of an application that were built.
    pub async fn built_commits(&self, app_id: &str) -> Result<Vec<Commit>, StoreError> {
        let rows = sqlx::query("SELECT DISTINCT commit_id FROM build WHERE app_id = $1")
            .bind(app_id)
            .fetch_all(&self.read)
            .await?;
        rows.iter().map(|row| parse("build.commit_id", row.try_get(0)?)).collect()
    }

    /// The ids of an application's builds.
    pub async fn builds_of(&self, app_id: &str) -> Result<Vec<String>, StoreError> {
        let rows = sqlx::query("SELECT id FROM build WHERE app_id = $1").bind(app_id).fetch_all(&self.read).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// The engine lost the image of a build: it is to be built again.
    pub async fn lose_build(&self, id: &str) -> Result<(), StoreError> {
        let mut write = self.begin().await?;
        sqlx::query("UPDATE build SET state = 'queued', started_at = NULL, ended_at = NULL WHERE id = $1 AND state IN ('succeeded', 'failed')")
            .bind(id)
            .execute(&mut *write.tx)
            .await?;
        write.commit().await
    }
}

impl Write<'_> {
    async fn requeue_build(&mut self, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE build SET state = 'queued', started_at = NULL WHERE id = $1 AND state = 'running'")
            .bind(id)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    async fn end_build(&mut self, id: &str, outcome: Result<&Image, &str>, now: Millis) -> Result<(), StoreError> {
        let (state, reason) = match outcome {
            Ok(_) => ("succeeded", None),
            Err(reason) => ("failed", Some(reason)),
        };
        let image = outcome.ok();
        sqlx::query(
            "UPDATE build SET state = $2, reason = $3, image_id = $4, exposed = $5, image_port = $6, ended_at = $7 WHERE id = $1",
        )
        .bind(id)
        .bind(state)
        .bind(reason)
        .bind(image.map(|image| &image.id))
        .bind(to_json(&image.map(|image| image.exposed.clone()).unwrap_or_default()))
        .bind(image.and_then(|image| image.port.clone()))
        .bind(now)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// The build of a commit: one that succeeded, waits or runs, else a new one.
    pub(super) async fn build_for(&mut self, app_id: &str, commit: &Commit, now: Millis) -> Result<String, StoreError> {
        let row = sqlx::query(
            "SELECT id FROM build WHERE app_id = $1 AND commit_id = $2 AND state <> 'failed' ORDER BY created_at DESC LIMIT 1",
        )
        .bind(app_id)
        .bind(commit.to_string())
        .fetch_optional(&mut *self.tx)
        .await?;
        if let Some(row) = row {
            return Ok(row.try_get(0)?);
        }
        let id = new_id();
        sqlx::query(
            "INSERT INTO build (id, app_id, commit_id, state, exposed, created_at) VALUES ($1, $2, $3, 'queued', '[]', $4)",
        )
        .bind(&id)
        .bind(app_id)
        .bind(commit.to_string())
        .bind(now)
        .execute(&mut *self.tx)
        .await?;
        Ok(id)
    }
}

fn build(row: &SqliteRow) -> Result<Build, StoreError> {
    Ok(Build {
        id: row.try_get("id")?,
        app_id: row.try_get("app_id")?,
        commit: parse("build.commit_id", row.try_get("commit_id")?)?,
        state: state(row.try_get("state")?)?,
        image_id: row.try_get("image_id")?,
        exposed: from_json("build.exposed", row.try_get("exposed")?)?,
        image_port: row.try_get("image_port")?,
        reason: row.try_get("reason")?,
        created_at: row.try_get("created_at")?,
    })
}

fn state(text: &str) -> Result<BuildState, StoreError> {
    Ok(match text {
        "queued" => BuildState::Queued,
        "running" => BuildState::Running,
        "succeeded" => BuildState::Succeeded,
        "failed" => BuildState::Failed,
        _ => return Err(StoreError::Corrupt { what: "build.state", value: text.to_owned() }),
    })
}
