//! The ref is the intent of a push: repositories are compared with rows, at each push, at each start, and now and then.
//!
//! A client that goes away in mid-push, or a crash between the ref and the row, changes nothing: the next look finds the same.

use std::sync::Arc;
use std::time::Duration;

use crate::error::chain;
use crate::git::{Commit, Repository, RepositoryError};
use crate::model::{App, Deployment, Environment, EnvironmentState, TEST, now};
use crate::store::StoreError;
use crate::world::World;

/// Refs are compared with rows this often, push or not.
const PERIOD: Duration = Duration::from_secs(60);

/// But soon after the start once more (a git that outlived the last process ends its push then), and after a look that failed.
const SOON: Duration = Duration::from_secs(5);

/// Why a branch was not compared.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RefsError {
    /// The store's.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The repository's.
    #[error(transparent)]
    Git(#[from] RepositoryError),
}

/// Starts the loop.
pub(crate) fn start(world: &Arc<World>) {
    let world = world.clone();
    let tasks = world.tasks.clone();
    tasks.spawn("refs", async move {
        let stop = world.tasks.token();
        let mut pause = SOON;
        loop {
            match world.store.apps().await {
                Ok(apps) => {
                    for app in apps {
                        if let Err(error) = look(&world, &app).await {
                            pause = SOON;
                            tracing::warn!(app = %app.name, error = chain(&error), "a branch could not be compared");
                        }
                    }
                }
                Err(error) => {
                    pause = SOON;
                    tracing::error!(error = chain(&error), "applications could not be read");
                }
            }
            // Cancel safe: nothing is held.
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = stop.cancelled() => return,
            }
            pause = PERIOD;
        }
    });
}

/// Compares the head of an application's branch with the newest deployment of Test, and asks for one where none was asked
/// for this head yet. Returns the newest deployment of the head.
pub(crate) async fn look(world: &World, app: &App) -> Result<Option<Deployment>, RefsError> {
    let Some(head) = head(world, app).await? else { return Ok(None) };
    let Some(test) = test_of(world, app).await? else { return Ok(None) };
    if test.state == EnvironmentState::Deleting {
        return Ok(None);
    }
    if let Some(deployment) = world.store.ask_unseen(&test.id, head.clone(), now()).await? {
        world.pokes.poke(&test.id);
        return Ok(Some(deployment));
    }
    // Somebody else saw it first: the period, or another push at the same time.
    let newest = world.store.deployments_of(&test.id).await?;
    Ok(newest.into_iter().find(|deployment| deployment.commit == head))
}

/// The head of the branch that is deployed to Test; `None` where nothing was pushed to it. That git could not be asked is
/// something else.
pub(crate) async fn head(world: &World, app: &App) -> Result<Option<Commit>, RepositoryError> {
    Repository::at(world.repository(&app.id)).head(&app.branch).await
}

async fn test_of(world: &World, app: &App) -> Result<Option<Environment>, StoreError> {
    let environments = world.store.environments_of(&app.id).await?;
    Ok(environments.into_iter().find(|environment| environment.name.as_str() == TEST))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apps::{self, AppsError};
    use crate::control::testing;

    #[tokio::test]
    async fn a_branch_that_cannot_be_read_is_not_one_without_commits() {
        let (world, _data) = testing::world().await;
        let app = apps::create(&world, "shop".parse().unwrap()).await.unwrap();
        assert!(look(&world, &app).await.unwrap().is_none(), "nothing was pushed");
        let deployed = apps::deploy(&world, "shop", TEST).await;
        assert!(matches!(deployed, Err(AppsError::NothingToDeploy(_))), "{deployed:?}");
        std::fs::remove_file(world.repository(&app.id).join("HEAD")).unwrap();
        let looked = look(&world, &app).await;
        assert!(matches!(looked, Err(RefsError::Git(_))), "{looked:?}");
        let deployed = apps::deploy(&world, "shop", TEST).await;
        assert!(matches!(deployed, Err(AppsError::Git(_))), "{deployed:?}");
    }
}
