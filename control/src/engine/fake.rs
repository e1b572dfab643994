//! An engine without containers, for tests: scripted by what stands in a Dockerfile, and with faults on demand.
//!
//! Its instances are small HTTP servers on addresses of 127.0.0.0/8, so the real edge and the real prober talk to them.
//! They live on a thread of their own, as containers live outside the program: whoever holds the [`Fake`] can drop the
//! control plane and build another one, and finds them as they were. It never listens on an address that others reach.

mod calls;
mod process;
mod script;
mod state;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use dormouse_link::InstanceId;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use self::state::State;
use super::{
    Build, BuildError, Engine, EngineError, Image, Instance, Leftover, LogLine, Logs, NO_DOCKERFILE, Network, Observed,
    SANDBOX_PORT, Started,
};

/// What a [`Fake`] can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they are named as the functions of `Engine`")]
pub enum Operation {
    Prepare,
    Build,
    Image,
    RemoveImage,
    Instances,
    Start,
    Stop,
    Remove,
    RanOutOfMemory,
    Logs,
    RemoveAll,
}

/// How a call fails.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing is done; the engine cannot be reached.
    Unavailable,
    /// It is done, but the caller hears that the engine cannot be reached.
    AnswerLost,
    /// Nothing is done; the engine refuses in these words.
    Refused(String),
    /// Nothing is done; the container cannot be started, in these words.
    Start(String),
    /// Nothing is done; the image is not there.
    NoImage(String),
}

/// Whether the engine can be reached. Instances serve either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "they say it")]
pub enum Availability {
    Up,
    Down,
}

/// The engine; clones are the same one.
#[derive(Clone)]
pub struct Fake(Arc<Inner>);

struct Inner {
    /// The network, and those it had before; each with what holds its subnet against other tests on this machine.
    networks: Mutex<Vec<(Network, TcpListener)>>,
    /// Where instances run.
    thread: Handle,
    state: Mutex<State>,
    /// Starts and removals, one at a time.
    changing: tokio::sync::Mutex<()>,
    /// Rises with everything that happens.
    happened: watch::Sender<u64>,
    /// Rises with what the engine reports.
    reported: watch::Sender<u64>,
    posts: Arc<AtomicU64>,
    _end: DropGuard,
}

impl Default for Fake {
    fn default() -> Self {
        Self::new()
    }
}

impl Fake {
    /// An engine with nothing in it.
    ///
    /// # Panics
    /// When this machine has no thread or no loopback address for it.
    pub fn new() -> Self {
        let network = subnets().find_map(claimed).expect("one of so many subnets is free");
        let end = CancellationToken::new();
        Self(Arc::new(Inner {
            networks: Mutex::new(vec![network]),
            thread: thread(end.clone()),
            state: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            happened: watch::Sender::new(0),
            reported: watch::Sender::new(0),
            posts: Arc::default(),
            _end: end.drop_guard(),
        }))
    }

    /// Makes the next call of `operation` fail. Said several times, the next several calls.
    pub fn fail_next(&self, operation: Operation, fault: Fault) {
        self.0.state().faults.push((operation, fault));
    }

    /// Lets the engine go, or come back.
    pub fn set_available(&self, availability: Availability) {
        self.0.state().down = availability == Availability::Down;
        self.0.report();
    }

    /// The instance's application dies by itself.
    pub fn kill(&self, instance: &InstanceId) {
        self.0.state().kill(instance);
        self.0.report();
    }

    /// The instance's application writes a line.
    pub fn write(&self, instance: &InstanceId, text: &str) {
        if let Some(held) = self.0.state().instances.get_mut(instance) {
            held.write(LogLine { stderr: false, text: text.to_owned() });
        }
        self.0.report();
    }

    /// The instance's application goes beyond its memory, and dies of it.
    pub fn run_out_of_memory(&self, instance: &InstanceId) {
        self.0.state().run_out_of_memory(instance);
        self.0.report();
    }

    /// The instance as it was started.
    pub fn instance(&self, instance: &InstanceId) -> Option<Instance> {
        self.0.state().instances.get(instance).map(|held| held.instance.clone())
    }

    /// Somebody pauses the instance's application.
    pub fn pause(&self, instance: &InstanceId) {
        self.0.state().pause(instance);
        self.0.report();
    }

    /// The instance's containers are removed behind our back.
    pub fn lose(&self, instance: &InstanceId) {
        self.0.state().instances.remove(instance);
        self.0.report();
    }

    /// The instance's sandbox is removed behind our back.
    pub fn lose_sandbox(&self, instance: &InstanceId) {
        self.0.state().lose_sandbox(instance);
        self.0.report();
    }

    /// The engine stops and starts: all containers are dead.
    pub fn restart(&self) {
        self.0.state().restart();
        self.0.report();
    }

    /// Somebody removes our network with all containers on it, and makes one of its own in its place: our next one is another.
    ///
    /// # Panics
    /// When this machine has no loopback address for it.
    pub fn renumber(&self) {
        let network = subnets().find_map(claimed).expect("one of so many subnets is free");
        self.0.networks().push(network);
        self.restart();
    }

    /// How many applications were started since the beginning.
    pub fn starts(&self) -> u64 {
        self.0.state().starts.values().sum()
    }

    /// How often the instance's application was started.
    pub fn starts_of(&self, instance: &InstanceId) -> u64 {
        self.0.state().starts.get(instance).copied().unwrap_or(0)
    }

    /// How many POST requests came to applications since the beginning.
    pub fn posts(&self) -> u64 {
        self.0.posts.load(Ordering::Relaxed)
    }

    /// How often an operation was asked for since the beginning.
    pub fn calls(&self, operation: Operation) -> usize {
        self.0.state().calls.iter().filter(|called| **called == operation).count()
    }

    /// The tags of its images.
    pub fn images(&self) -> Vec<String> {
        self.0.state().images.keys().cloned().collect()
    }

    /// How many images were built since the beginning.
    pub fn builds(&self) -> u64 {
        self.0.state().builds
    }

    /// Does `work` unless the engine is away or a fault stands against it.
    async fn call<T>(
        &self,
        operation: Operation,
        work: impl Future<Output = Result<T, EngineError>> + Send,
    ) -> Result<T, EngineError> {
        self.0.state().calls.push(operation);
        let fault = self.0.state().fault(operation);
        match fault {
            None => work.await,
            Some(Fault::Unavailable) => Err(unavailable()),
            Some(Fault::AnswerLost) => work.await.and_then(|_| Err(unavailable())),
            Some(Fault::Refused(says)) => Err(EngineError::Refused { doing: format!("{operation:?}"), says }),
            Some(Fault::Start(says)) => Err(EngineError::Start(says)),
            Some(Fault::NoImage(tag)) => Err(EngineError::NoImage(tag)),
        }
    }
}

impl Inner {
    fn networks(&self) -> MutexGuard<'_, Vec<(Network, TcpListener)>> {
        self.networks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn network(&self) -> Network {
        self.networks().last().expect("it begins with one, and only adds").0.clone()
    }

    /// Whether the address is of a network that it has no more.
    fn is_of_old(&self, address: IpAddr) -> bool {
        let networks = self.networks();
        let old = &networks[..networks.len() - 1];
        old.iter().any(|(network, _)| crate::store::Addresses::of(network).contains(address))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something happened that the engine tells of, if it is there.
    fn report(&self) {
        self.happened.send_modify(|count| *count += 1);
        if !self.state().down {
            self.reported.send_modify(|count| *count += 1);
        }
    }
}

fn unavailable() -> EngineError {
    EngineError::Unavailable { address: "fake".to_owned(), source: "it was told to be away".into() }
}

/// The thread on which instances run, until `end`.
fn thread(end: CancellationToken) -> Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    let handle = runtime.handle().clone();
    let run = move || runtime.block_on(end.cancelled());
    std::thread::Builder::new().name("fake-engine".to_owned()).spawn(run).expect("a thread can be made");
    handle
}

/// Subnets of 127.0.0.0/8, beginning elsewhere in each process and for each engine in it.
fn subnets() -> impl Iterator<Item = Network> {
    static MADE: AtomicU32 = AtomicU32::new(0);
    /// The subnets from 127.1.0.0/24 to 127.254.255.0/24.
    const COUNT: u32 = 254 * 256;
    let first = std::process::id().wrapping_mul(61).wrapping_add(MADE.fetch_add(1, Ordering::Relaxed));
    (0..COUNT).map(move |step| {
        let number = first.wrapping_add(step) % COUNT + 256;
        let subnet = Ipv4Addr::from_bits(Ipv4Addr::new(127, 0, 0, 0).to_bits() + (number << 8));
        let gateway = Ipv4Addr::from_bits(subnet.to_bits() + 1);
        Network { name: format!("fake-{number}"), subnet, prefix: 24, gateway }
    })
}

fn claimed(network: Network) -> Option<(Network, TcpListener)> {
    let claim = TcpListener::bind((network.gateway, SANDBOX_PORT)).ok()?;
    Some((network, claim))
}

#[async_trait]
impl Engine for Fake {
    async fn prepare(&self) -> Result<Network, EngineError> {
        self.call(Operation::Prepare, async { Ok(self.0.network()) }).await
    }

    async fn build(&self, build: Build, log: mpsc::Sender<String>) -> Result<Image, BuildError> {
        let Some(dockerfile) = crate::context::dockerfile(&build.context) else {
            return Err(BuildError::Failed(NO_DOCKERFILE.to_owned()));
        };
        let deadline = build.deadline;
        // The build's own failure passes through as a value: faults are the engine's.
        let work = async { Ok(tokio::time::timeout(deadline, self.0.build(&build.tag, &dockerfile, log)).await) };
        self.call(Operation::Build, work).await?.unwrap_or(Err(BuildError::Deadline(deadline)))
    }

    async fn image(&self, tag: &str) -> Result<Option<Image>, EngineError> {
        let found = async { Ok(self.0.state().images.get(tag).map(|baked| baked.image.clone())) };
        self.call(Operation::Image, found).await
    }

    async fn leftovers(&self) -> Result<Vec<Leftover>, EngineError> {
        // Its builds leave none.
        Ok(Vec::new())
    }

    async fn remove_leftover(&self, _leftover: &Leftover) -> Result<(), EngineError> {
        Ok(())
    }

    async fn remove_image(&self, tag: &str) -> Result<(), EngineError> {
        let removed = async {
            self.0.state().images.remove(tag);
            Ok(())
        };
        self.call(Operation::RemoveImage, removed).await
    }

    async fn instances(&self) -> Result<Vec<Observed>, EngineError> {
        self.call(Operation::Instances, async { Ok(self.0.state().observed()) }).await
    }

    async fn start(&self, instance: Instance) -> Result<Started, EngineError> {
        self.call(Operation::Start, self.0.start(instance)).await
    }

    async fn stop(&self, instance: &InstanceId, grace: Duration) -> Result<(), EngineError> {
        self.call(Operation::Stop, async {
            self.0.stop(instance, grace).await;
            Ok(())
        })
        .await
    }

    async fn remove(&self, instance: &InstanceId) -> Result<(), EngineError> {
        self.call(Operation::Remove, async {
            self.0.remove(instance).await;
            Ok(())
        })
        .await
    }

    async fn ran_out_of_memory(&self, instance: &InstanceId) -> Result<bool, EngineError> {
        self.call(Operation::RanOutOfMemory, async { Ok(self.0.state().ran_out_of_memory(instance)) }).await
    }

    async fn logs(&self, instance: &InstanceId, lines: Logs) -> Result<mpsc::Receiver<LogLine>, EngineError> {
        self.call(Operation::Logs, async { self.0.logs(instance, lines) }).await
    }

    fn events(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel(1);
        let mut reported = self.0.reported.subscribe();
        self.0.thread.spawn(async move {
            while reported.changed().await.is_ok() && !sender.is_closed() {
                sender.try_send(()).unwrap_or(());
            }
        });
        receiver
    }

    async fn remove_all(&self) -> Result<(), EngineError> {
        self.call(Operation::RemoveAll, async {
            let all: Vec<InstanceId> = self.0.state().instances.keys().cloned().collect();
            for instance in all {
                self.0.remove(&instance).await;
            }
            self.0.state().images = BTreeMap::new();
            Ok(())
        })
        .await
    }
}

#[cfg(test)]
mod tests;
