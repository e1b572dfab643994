//! What a git push meets: the same token as the API, the application's repository, and the deployment that the refs ask for.

use std::sync::Arc;

use async_trait::async_trait;
use dormouse_link::Label;
use tokio::sync::mpsc;

use super::Token;
use crate::apps;
use crate::crash::Point;
use crate::error::chain;
use crate::follow::Progress;
use crate::git::{LookupError, Pushes, RefUpdate, Repository};
use crate::model::{App, DeploymentState, EnvironmentState};
use crate::refs;
use crate::store::StoreError;
use crate::world::World;

/// Lines that wait for a push's client to take them.
const QUEUE: usize = 64;

/// What git pushes go through.
pub(crate) struct Gate {
    pub(crate) world: Arc<World>,
    pub(crate) token: Token,
}

#[async_trait]
impl Pushes for Gate {
    fn authorised(&self, token: &str) -> bool {
        self.token.matches(token)
    }

    async fn repository(&self, app: &Label) -> Result<Option<Repository>, LookupError> {
        let found = async {
            let Some(app) = self.world.store.app(app).await? else { return Ok(None) };
            let environments = self.world.store.environments_of(&app.id).await?;
            let lives = environments.iter().any(|found| found.state != EnvironmentState::Deleting);
            Ok::<_, StoreError>(lives.then(|| Repository::at(self.world.repository(&app.id))))
        };
        found.await.map_err(|error| LookupError(error.into()))
    }

    async fn pushed(&self, app: &Label, updated: Vec<RefUpdate>) -> mpsc::Receiver<String> {
        let (to, lines) = mpsc::channel(QUEUE);
        let world = self.world.clone();
        let name = app.clone();
        self.world.tasks.spawn(format!("push to {app}"), async move {
            if let Err(error) = follow(&world, &name, &updated, &to).await {
                tracing::error!(error, "a push could not be followed");
                let _gone = to.send(format!("The push is stored, but could not be followed: {error}")).await;
            }
        });
        lines
    }
}

async fn follow(
    world: &Arc<World>,
    name: &Label,
    updated: &[RefUpdate],
    to: &mpsc::Sender<String>,
) -> Result<(), String> {
    world.crash.at(Point::Pushed).await;
    let app: App = apps::find(world, name.as_str()).await.map_err(|error| error.to_string())?;
    let branch = app.branch.full();
    for update in updated.iter().filter(|update| update.name != branch) {
        let line = format!("{} is stored; only {} is deployed to Test.", update.name, app.branch);
        let _gone = to.send(line).await;
    }
    if !updated.iter().any(|update| update.name == branch) {
        return Ok(());
    }
    let deployment = refs::look(world, &app).await.map_err(|error| chain(&error))?;
    let Some(deployment) = deployment else { return Err(format!("{name} is being deleted")) };
    let _gone = to.send(String::new()).await;
    let mut progress = apps::follow_deployment(world, &deployment);
    while let Some(word) = progress.recv().await {
        let (Progress::Line(line) | Progress::Done { text: line, .. }) = word;
        let _gone = to.send(line).await;
    }
    let ended = world.store.deployment(&deployment.id).await.map_err(|error| chain(&error))?;
    if ended.is_some_and(|deployment| deployment.state == DeploymentState::Failed) {
        let advice = format!(
            "The push itself is stored. Mend it and push again, or run `dormouse deploy {name}` to try the same commit once more."
        );
        let _gone = to.send(advice).await;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing;

    #[tokio::test]
    async fn a_store_that_cannot_be_read_is_no_missing_application() {
        let (world, _data) = testing::world().await;
        let gate = Gate { world: world.clone(), token: Token::new("secret") };
        let name = "shop".parse().unwrap();
        assert_eq!(gate.repository(&name).await.unwrap(), None);
        apps::create(&world, name.clone()).await.unwrap();
        assert!(gate.repository(&name).await.unwrap().is_some());
        world.store.close().await;
        let found = gate.repository(&name).await;
        assert!(found.is_err(), "{found:?}");
    }
}
