//! Pokes: a reason to look at an environment, without a word about what happened.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dormouse_link::EnvironmentId;
use tokio::sync::Notify;

/// One bell an environment. Rung while nobody listens, it is heard at the next listening.
#[derive(Debug, Default)]
pub(crate) struct Pokes(Mutex<HashMap<EnvironmentId, Arc<Notify>>>);

impl Pokes {
    fn bells(&self) -> MutexGuard<'_, HashMap<EnvironmentId, Arc<Notify>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bell of a new environment; `None` where somebody listens to it already.
    pub(crate) fn listen(&self, id: &EnvironmentId) -> Option<Arc<Notify>> {
        let mut bells = self.bells();
        if bells.contains_key(id) {
            return None;
        }
        let bell = Arc::new(Notify::new());
        bells.insert(id.clone(), bell.clone());
        Some(bell)
    }

    /// Nobody listens for this environment any more.
    pub(crate) fn leave(&self, id: &EnvironmentId) {
        self.bells().remove(id);
    }

    /// A reason to look at one environment.
    pub(crate) fn poke(&self, id: &EnvironmentId) {
        if let Some(bell) = self.bells().get(id) {
            bell.notify_one();
        }
    }

    /// A reason to look at all.
    pub(crate) fn poke_all(&self) {
        for bell in self.bells().values() {
            bell.notify_one();
        }
    }
}
