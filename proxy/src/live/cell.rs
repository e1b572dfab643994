//! An environment's cell: what requests meet now, and who is in flight.
//!
//! *Count, then look*: a request counts itself as choosing, reads the cell, counts itself in flight to its endpoint, and
//! only then stops counting as choosing. So whoever swaps the cell and then sees nobody choosing knows that each request is
//! either counted in flight by the old cell or will read the new one. There are two counts that take turns, so that under
//! constant traffic each is seen empty: new requests count on the other one.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};

use arc_swap::ArcSwap;
use dormouse_link::policy::Pause;
use dormouse_link::{Endpoint, Environment, EnvironmentId, Epoch, Generation, InstanceId, Policy, State};
use http::HeaderMap;
use tokio::sync::Notify;

use super::balance::{Ask, Plan, Wish};
use super::health::Health;
use super::lasting::Lasting;
use super::latency::Latency;
use super::retries::Budget;
use super::signals::Signals;
use super::sticky::StickyKey;
use crate::checks::Checks;
use crate::decide::compress::accepts;
use crate::decide::fields::Fields;
use crate::decide::headers::Scheme;
use crate::decide::refuse::Reason;
use crate::dice::Dice;
use crate::metrics::Place;
use crate::quiet::Quiet;

/// One version of a cell. Instances keep their counters from version to version.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The version it was made from.
    pub(crate) version: Generation,
    /// Nothing where a route names an environment the table does not have, or has no longer.
    pub(crate) environment: Option<Environment>,
    /// Beside `environment.endpoints`, in their order.
    pub(crate) instances: Vec<Arc<Instance>>,
    /// What requests have to pass; none where the policy asks for nothing.
    pub(crate) checks: Option<Arc<Checks>>,
    /// How they are chosen among.
    pub(crate) plan: Plan,
}

impl Offer {
    /// Of an environment, with the instances of its endpoints.
    pub(crate) fn new(
        version: Generation,
        environment: Environment,
        instances: Vec<Arc<Instance>>,
        key: &StickyKey,
    ) -> Self {
        let plan = Plan::new(&environment, key);
        Self { version, environment: Some(environment), instances, checks: None, plan }
    }

    /// Of nothing.
    pub(crate) fn none(version: Generation) -> Self {
        Self { version, ..Self::default() }
    }

    /// Forgets what was known of instances that were not there before: what failed was another one, or its last life.
    fn begin(&self, before: &Self) {
        let before = before.endpoints();
        for (at, (endpoint, instance)) in self.endpoints().iter().zip(&self.instances).enumerate() {
            let is_same = |other: &Endpoint| (&other.instance, other.address) == (&endpoint.instance, endpoint.address);
            // Most stand where they stood.
            if !before.get(at).is_some_and(is_same) && !before.iter().any(is_same) {
                instance.health.forget();
                instance.latency.forget();
            }
        }
    }

    /// The endpoints that requests may choose now.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        match &self.environment {
            Some(environment) if environment.state == State::Ready => &environment.endpoints,
            _ => &[],
        }
    }

    /// The epoch of its endpoints.
    pub(crate) fn epoch(&self) -> Epoch {
        self.environment.as_ref().map(|environment| environment.epoch).unwrap_or_default()
    }
}

/// A container, and how many requests run on it.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) id: InstanceId,
    pub(crate) in_flight: AtomicU32,
    /// Not offered any more: its last request tells the feed.
    pub(crate) retired: AtomicBool,
    /// Whether it is left out.
    pub(crate) health: Health,
    /// How fast it answers.
    pub(crate) latency: Latency,
}

impl Instance {
    pub(crate) fn new(id: InstanceId) -> Self {
        let (health, latency) = (Health::default(), Latency::default());
        Self { id, in_flight: AtomicU32::new(0), retired: AtomicBool::new(false), health, latency }
    }
}

/// The one place where an environment's requests meet what the control plane says of it.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) id: EnvironmentId,
    offer: ArcSwap<Offer>,
    choosing: [AtomicU32; 2],
    /// Its parity is the count that requests begin on.
    turn: AtomicU32,
    /// Fires after each swap.
    pub(crate) changed: Notify,
    /// Requests held.
    pub(crate) waiters: AtomicU32,
    /// Requests that wait for the end of a pause: nobody is wanted for them.
    pub(crate) paused: AtomicU32,
    /// Somebody wants it who does not wait, and the control plane was not told yet: a request was refused because it failed, or
    /// there was data while it is to sleep.
    pub(crate) missed: AtomicBool,
    /// In the list of those that are wanted.
    pub(crate) wanted_listed: AtomicBool,
    pub(crate) in_flight: AtomicU32,
    /// Those in flight that may last for ever, and count as activity by their data only.
    pub(crate) lasting: AtomicU32,
    /// When another one ended last, on the clock of [`Signals`], in milliseconds.
    pub(crate) last_ended: AtomicU64,
    /// When there was data of what lasts, on the same clock.
    pub(crate) last_data: AtomicU64,
    /// In the list of those that were seen.
    pub(crate) seen_listed: AtomicBool,
    /// Where its requests are counted.
    pub(crate) counted: Place,
    /// What is logged of it.
    pub(crate) quiet: Quiet,
    /// How many of its requests are tried again.
    pub(crate) retries: Budget,
}

/// One of the two counts of those who choose.
#[derive(Debug)]
pub(crate) struct Side(usize);

/// What a request was counted for; ends with its drop.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) cell: Arc<Cell>,
    pub(crate) offer: Arc<Offer>,
    pub(super) index: usize,
    pub(super) signals: Arc<Signals>,
    pub(super) activity: Activity,
}

/// What of a request in flight is activity of its environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activity {
    /// All its time.
    Running,
    /// Its data: it may last for ever.
    Data,
}

/// What a request meets.
#[derive(Debug)]
pub(crate) enum Choice {
    /// This endpoint, already counted.
    Endpoint(Flight),
    /// Nothing yet; wait for a change.
    Hold,
    /// Nothing by this version; wait for a change, whatever the state.
    Pause(Pause),
    /// Ready, but every endpoint of this version was tried and could not be connected to.
    Exhausted,
    /// Nothing, and waiting would not help.
    Refuse(Reason),
}

/// What matters of a request when it chooses: what it shows, and which endpoints of one version of a cell it could not be sent
/// to.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) wish: Wish,
    version: Generation,
    instances: Vec<InstanceId>,
    /// How many of one version are tried.
    max: usize,
}

impl Tried {
    pub(crate) fn new(max: usize) -> Self {
        Self { wish: Wish::default(), version: Generation::default(), instances: Vec::new(), max }
    }

    /// Notes a failure.
    pub(crate) fn note(&mut self, flight: &Flight) {
        if self.version != flight.offer.version {
            self.instances.clear();
            self.version = flight.offer.version;
        }
        self.instances.push(flight.endpoint().instance.clone());
    }

    /// Whether an endpoint of the version that a request flew by is left for it.
    pub(crate) fn leaves(&self, flight: &Flight) -> bool {
        let offer = &flight.offer;
        offer.endpoints().iter().any(|endpoint| !self.has(offer.version, &endpoint.instance))
    }

    fn has(&self, version: Generation, instance: &InstanceId) -> bool {
        self.version == version && (self.instances.len() >= self.max || self.instances.contains(instance))
    }
}

impl Cell {
    pub(crate) fn new(id: EnvironmentId) -> Self {
        Self {
            id,
            offer: ArcSwap::default(),
            choosing: [const { AtomicU32::new(0) }; 2],
            turn: AtomicU32::new(0),
            changed: Notify::new(),
            waiters: AtomicU32::new(0),
            paused: AtomicU32::new(0),
            missed: AtomicBool::new(false),
            wanted_listed: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            lasting: AtomicU32::new(0),
            last_ended: AtomicU64::new(0),
            last_data: AtomicU64::new(0),
            seen_listed: AtomicBool::new(false),
            counted: Place::default(),
            quiet: Quiet::default(),
            retries: Budget::default(),
        }
    }

    /// The version that is served now.
    pub(crate) fn offer(&self) -> Arc<Offer> {
        self.offer.load_full()
    }

    /// What requests have to pass, by the version that is served now.
    pub(crate) fn checks(&self) -> Option<Arc<Checks>> {
        self.offer.load().checks.clone()
    }

    /// The largest body by its policy, or `otherwise`.
    pub(crate) fn body_max(&self, otherwise: u64) -> u64 {
        self.offer.load().checks.as_ref().and_then(|checks| checks.body_bytes()).unwrap_or(otherwise)
    }

    /// What of a request matters for its endpoint, and, where answers are compressed, for its answer.
    pub(crate) fn note(&self, client: Option<IpAddr>, fields: Fields<'_>) -> (Wish, Option<Box<HeaderMap>>) {
        let offer = self.offer.load();
        let compresses = |environment: &Environment| environment.policy.compression.is_some();
        let compresses = offer.environment.as_ref().is_some_and(compresses);
        (offer.plan.wish(client, fields), compresses.then(|| Box::new(accepts(fields))))
    }

    /// Whether it is to sleep.
    pub(crate) fn is_closing(&self) -> bool {
        self.offer.load().environment.as_ref().is_some_and(|environment| environment.state == State::Closing)
    }

    /// Takes a newer version; only the feed calls it. Requests may choose by the old one until both
    /// [`Side`]s were seen quiet.
    pub(crate) fn swap(&self, offer: Offer) {
        offer.begin(&self.offer.load());
        self.offer.store(Arc::new(offer));
        fence(Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    /// Lets new requests count on the other side; returns the one that empties now.
    pub(crate) fn turn(&self) -> Side {
        Side(self.turn.fetch_add(1, Ordering::SeqCst) as usize % 2)
    }

    /// Whether no request counts on that side. Seen of both sides after a swap, none chooses by what was there before.
    pub(crate) fn is_quiet(&self, side: &Side) -> bool {
        fence(Ordering::SeqCst);
        self.choosing[side.0].load(Ordering::SeqCst) == 0
    }

    /// Chooses an endpoint by the version's plan, of those not tried yet.
    pub(crate) fn choose(self: &Arc<Self>, signals: &Arc<Signals>, dice: &Dice, tried: &Tried) -> Choice {
        self.begin().board(self, signals, dice, tried)
    }

    /// Counts a request as choosing, and only then looks.
    fn begin(&self) -> Choosing<'_> {
        let count = &self.choosing[self.turn.load(Ordering::SeqCst) as usize % 2];
        count.fetch_add(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Choosing { count, offer: self.offer.load_full() }
    }
}

/// A request that chooses by the version it saw; counted until its drop.
struct Choosing<'c> {
    count: &'c AtomicU32,
    offer: Arc<Offer>,
}

impl Choosing<'_> {
    /// Counts the request in flight to what it chooses, and ends the choosing after that.
    fn board(self, cell: &Arc<Cell>, signals: &Arc<Signals>, dice: &Dice, tried: &Tried) -> Choice {
        let offer = &self.offer;
        let Some(environment) = &offer.environment else { return Choice::Refuse(Reason::NoEndpoint) };
        if let Some(pause) = environment.policy.pause {
            return Choice::Pause(pause);
        }
        match environment.state {
            State::Ready => {}
            State::Closing | State::Asleep | State::Waking => return Choice::Hold,
            State::Failed { retry_in } => return Choice::Refuse(Reason::Failed { retry_in }),
            State::Empty => return Choice::Refuse(Reason::Empty),
        }
        let is_tried = |index: usize| tried.has(offer.version, &offer.instances[index].id);
        let (instances, wish) = (&offer.instances[..], &tried.wish);
        let ask = Ask { instances, wish, tried: &is_tried, dice, signals };
        let Some(index) = offer.plan.pick(&ask) else { return Choice::Exhausted };
        offer.instances[index].in_flight.fetch_add(1, Ordering::SeqCst);
        cell.in_flight.fetch_add(1, Ordering::SeqCst);
        cell.retries.earn();
        signals.seen(cell);
        let (cell, offer, signals) = (Arc::clone(cell), Arc::clone(offer), Arc::clone(signals));
        Choice::Endpoint(Flight { cell, offer, index, signals, activity: Activity::Running })
    }
}

impl Drop for Choosing<'_> {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Flight {
    /// How the requests of its environment are to be treated.
    pub(crate) fn policy(&self) -> Option<&Policy> {
        self.offer.environment.as_ref().map(|environment| &environment.policy)
    }

    /// How many requests run on its instance.
    pub(crate) fn in_flight(&self) -> &AtomicU32 {
        &self.offer.instances[self.index].in_flight
    }

    /// The field that brings its client back to where it goes.
    pub(crate) fn cookie(&self, wish: &Wish, scheme: Scheme) -> Option<String> {
        self.offer.plan.cookie(self.index, wish, scheme)
    }

    /// Counts from now on by its data: what has become of its request may last for ever.
    pub(crate) fn lasts(&mut self) -> Lasting {
        if self.activity == Activity::Running {
            self.activity = Activity::Data;
            self.cell.last_ended.store(self.signals.now(), Ordering::SeqCst);
            self.cell.lasting.fetch_add(1, Ordering::SeqCst);
        }
        Lasting::new(&self.cell, &self.signals)
    }

    /// Where it goes.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.offer.endpoints()[self.index]
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.activity == Activity::Running {
            self.cell.last_ended.store(self.signals.now(), Ordering::SeqCst);
        }
        self.cell.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.activity == Activity::Data {
            // After the other count: who looks in between takes a running request for one that lasts, and never the other way.
            self.cell.lasting.fetch_sub(1, Ordering::SeqCst);
        }
        let instance = &self.offer.instances[self.index];
        if instance.in_flight.fetch_sub(1, Ordering::SeqCst) == 1 && instance.retired.load(Ordering::SeqCst) {
            self.signals.poke.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
