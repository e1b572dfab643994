//! An engine with few addresses, so that they are used again soon. Everything else is as in the engine that it stands for.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use dormouse_control::engine::{
    Build, BuildError, Engine, EngineError, Image, Instance, Leftover, LogLine, Logs, Network, Observed, Started,
};
use dormouse_link::InstanceId;
use tokio::sync::mpsc;

/// The prefix of the subnet that is told: sixteen addresses, less the network's own, the gateway's and the broadcast.
const PREFIX: u8 = 28;

/// The addresses that instances may have.
pub(crate) const ADDRESSES: usize = 13;

pub(crate) struct Narrow(pub(crate) Arc<dyn Engine>);

#[async_trait]
impl Engine for Narrow {
    async fn prepare(&self) -> Result<Network, EngineError> {
        Ok(Network { prefix: PREFIX, ..self.0.prepare().await? })
    }

    async fn build(&self, build: Build, log: mpsc::Sender<String>) -> Result<Image, BuildError> {
        self.0.build(build, log).await
    }

    async fn image(&self, tag: &str) -> Result<Option<Image>, EngineError> {
        self.0.image(tag).await
    }

    async fn remove_image(&self, tag: &str) -> Result<(), EngineError> {
        self.0.remove_image(tag).await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, EngineError> {
        self.0.leftovers().await
    }

    async fn remove_leftover(&self, leftover: &Leftover) -> Result<(), EngineError> {
        self.0.remove_leftover(leftover).await
    }

    async fn instances(&self) -> Result<Vec<Observed>, EngineError> {
        self.0.instances().await
    }

    async fn start(&self, instance: Instance) -> Result<Started, EngineError> {
        self.0.start(instance).await
    }

    async fn stop(&self, instance: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        self.0.stop(instance, grace).await
    }

    async fn remove(&self, instance: &InstanceId) -> Result<(), EngineError> {
        self.0.remove(instance).await
    }

    async fn ran_out_of_memory(&self, instance: &InstanceId) -> Result<bool, EngineError> {
        self.0.ran_out_of_memory(instance).await
    }

    async fn logs(&self, instance: &InstanceId, lines: Logs) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        self.0.logs(instance, lines).await
    }

    fn events(&self) -> mpsc::Receiver<()> {
        self.0.events()
    }

    async fn remove_all(&self) -> Result<(), EngineError> {
        self.0.remove_all().await
    }
}
