//! The one writer of the live table: takes updates, swaps, and says so.
//!
//! An update is acknowledged only when no request can still choose by an older cell. What is level-triggered (wanted, seen,
//! drained) is offered each period and dropped when the control plane does not listen; an acknowledgement and a lost place
//! are kept until they were taken. The loop never waits for the control plane while it has updates to take, so the two
//! cannot wait for each other.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use dormouse_link::{Base, Body, EnvironmentId, Generation, Object, ObjectId, Rejected, Report, Table, Update};
use tokio::sync::{mpsc, watch};
use tokio::time::{MissedTickBehavior, interval};
use tracing::{debug, info, warn};

use super::Live;
use super::cell::{Cell, Instance, Offer};
use super::drain::Drains;
use super::signals::{Heard, Signals};
use super::sites::Site;
use crate::activity::Activity;
use crate::checks::{Checks, forward_auth};
use crate::config::Limits;
use crate::front::tls::certificates;
use crate::metrics::Metrics;
use crate::overload::{self, Lookout};
use crate::wake::Wants;

/// New certificates, and authorities' of policies, of one update that are parsed before they are taken, at some 0.1 ms each. The rest of
/// a large one is parsed when it is first needed, as its control plane has checked it.
const CERTIFICATES_CHECKED: usize = 1000;

/// What the feed knows beyond the live table; the admin listener reads the table, on the same thread.
pub(crate) struct Feed {
    live: Arc<Live>,
    signals: Arc<Signals>,
    metrics: Arc<Metrics>,
    table: Rc<RefCell<Table>>,
    cells: HashMap<EnvironmentId, Arc<Cell>>,
    drains: Drains,
    /// Environments whose cell may be needed no more.
    orphans: Vec<EnvironmentId>,
    wants: Wants,
    activity: Activity,
    /// Here, because it looks at those that were seen.
    lookout: Lookout,
    /// The rejections are of every update since the last one that was taken.
    acked: Option<(Generation, Vec<Rejected>)>,
    lost: bool,
    ready: watch::Sender<bool>,
}

impl Feed {
    pub(crate) fn new(
        live: Arc<Live>,
        signals: Arc<Signals>,
        metrics: Arc<Metrics>,
        table: Rc<RefCell<Table>>,
        ready: watch::Sender<bool>,
        lookout: Lookout,
    ) -> Self {
        Self {
            live,
            signals,
            metrics,
            table,
            cells: HashMap::new(),
            drains: Drains::default(),
            orphans: Vec::new(),
            wants: Wants::default(),
            activity: Activity::default(),
            lookout,
            acked: None,
            lost: false,
            ready,
        }
    }

    /// Runs until the thread ends. Without a control plane it goes on saying nothing, and the table goes on being served.
    pub(crate) async fn run(
        mut self,
        limits: &Limits,
        mut updates: mpsc::Receiver<Update>,
        reports: mpsc::Sender<Report>,
        mut heard: Heard,
    ) {
        let mut period = interval(limits.report_period);
        period.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looks = interval(overload::LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut fed = true;
        loop {
            // Each arm is cancel-safe: a channel's recv and reserve, an interval's tick and a notification lose nothing.
            tokio::select! {
                update = updates.recv(), if fed => match update {
                    Some(update) => self.take(update).await,
                    None => fed = false,
                },
                permit = reports.reserve(), if self.owes() => match permit {
                    Ok(permit) => self.pay(permit),
                    Err(_) => (self.acked, self.lost) = (None, false),
                },
                _ = period.tick() => {
                    self.wants.hear(&mut heard.wanted);
                    self.activity.hear(&mut heard.seen);
                    offer(&reports, self.wants.report());
                    offer(&reports, self.activity.report(&self.signals));
                    self.drains.period();
                    self.forget();
                    self.say_drained(&reports);
                }
                _ = looks.tick() => {
                    self.activity.hear(&mut heard.seen);
                    self.lookout.look(self.activity.cells());
                }
                () = self.signals.poke.notified() => {
                    while let Ok(report) = heard.unreachable.try_recv() {
                        offer(&reports, Some(report));
                    }
                    if self.signals.first_waiter.swap(false, Ordering::SeqCst) {
                        self.wants.hear(&mut heard.wanted);
                        offer(&reports, self.wants.report());
                    }
                    self.say_drained(&reports);
                }
            }
        }
    }

    fn owes(&self) -> bool {
        self.lost || self.acked.is_some()
    }

    fn pay(&mut self, permit: mpsc::Permit<'_, Report>) {
        if let Some((generation, rejected)) = self.acked.take() {
            permit.send(Report::Acked { generation, rejected });
            // Drained is judged by the version that was just acked, and must not be overtaken by a whole period.
            self.signals.poke.notify_one();
        } else if std::mem::take(&mut self.lost) {
            permit.send(Report::Lost { have: self.table.borrow().generation });
        }
    }

    fn say_drained(&mut self, reports: &mpsc::Sender<Report>) {
        if self.acked.is_none() {
            self.drains.say(|report| reports.try_send(report).is_ok());
        }
    }

    pub(crate) async fn take(&mut self, update: Update) {
        let (generation, put) = (update.generation, update.put.len());
        let touched = self.touched(&update);
        let (now, mut checked) = (SystemTime::now(), 0);
        let applied =
            self.table.borrow_mut().apply_if(update, |new, old| match (&new.body, old.map(|old| &old.body)) {
                (Body::Certificate(new), old) => {
                    let old = if let Some(Body::Certificate(old)) = old { Some(old) } else { None };
                    checked += usize::from(old != Some(new));
                    if checked > CERTIFICATES_CHECKED { Ok(()) } else { certificates::fits(new, old, now) }
                }
                (Body::Environment(new), old) => {
                    let old = if let Some(Body::Environment(old)) = old { Some(&old.policy) } else { None };
                    let Some(ca) = forward_auth::new_ca(&new.policy, old) else { return Ok(()) };
                    checked += 1;
                    if checked > CERTIFICATES_CHECKED { Ok(()) } else { forward_auth::fits(ca) }
                }
                (Body::Route(_), _) => Ok(()),
            });
        let rejected = match applied {
            Ok(rejected) => rejected,
            Err(gap) => {
                warn!(generation = generation.0, error = %gap, "an update does not follow; asking for a snapshot");
                self.metrics.gaps.fetch_add(1, Ordering::Relaxed);
                self.lost = true;
                return;
            }
        };
        for refused in &rejected {
            warn!(object = ?refused.id, reason = refused.reason, "an object was refused; its previous version stays");
        }
        self.serve_routes(&touched);
        let mut changed = Vec::new();
        for id in touched {
            changed.extend(self.serve(id, generation));
        }
        for cell in &changed {
            self.until_quiet(cell).await;
        }
        self.metrics.updated.store(self.signals.now(), Ordering::Relaxed);
        self.metrics.updates.fetch_add(1, Ordering::Relaxed);
        self.metrics.rejected.fetch_add(rejected.len() as u64, Ordering::Relaxed);
        debug!(generation = generation.0, objects = put, "update applied");
        let earlier = self.acked.take().map(|(_, rejected)| rejected).unwrap_or_default();
        self.acked = Some((generation, earlier.into_iter().chain(rejected).collect()));
        if !self.ready.send_replace(true) {
            info!(generation = generation.0, "first table applied; serving");
        }
    }

    /// Every object that the update may change: of a snapshot also those that are not in it.
    fn touched(&self, update: &Update) -> Vec<ObjectId> {
        let mut touched: Vec<_> = update.put.iter().map(Object::id).chain(update.remove.iter().cloned()).collect();
        if update.base == Base::Snapshot {
            touched.extend(self.table.borrow().objects.keys().cloned());
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Brings the live table to what the table says of one object; returns the cell that was swapped for it.
    fn serve(&mut self, id: ObjectId, generation: Generation) -> Option<Arc<Cell>> {
        let object = self.table.borrow().objects.get(&id).cloned();
        match (id, object.map(|object| (object.version, object.body))) {
            // All of an update's were set before.
            (ObjectId::Route(_), _) => {}
            (ObjectId::Certificate(host), Some((_, Body::Certificate(certificate)))) => {
                self.live.certificates.set(&host, Some(certificate));
            }
            (ObjectId::Certificate(host), _) => self.live.certificates.set(&host, None),
            (ObjectId::Environment(id), Some((version, Body::Environment(environment)))) => {
                let cell = Arc::clone(self.cell(&id));
                let old = cell.offer();
                if old.version == version && old.environment.as_ref() == Some(&*environment) {
                    return None;
                }
                self.metrics.enter(&cell.counted, environment.app.as_str(), environment.name.as_str());
                let instance = |endpoint: &dormouse_link::Endpoint| self.drains.instance(&cell, &endpoint.instance);
                let instances: Vec<Arc<Instance>> = environment.endpoints.iter().map(instance).collect();
                let checks = Checks::next(&environment.policy, old.checks.as_ref());
                let offer = Offer::new(version, *environment, instances, &self.live.sticky);
                cell.swap(Offer { checks, ..offer });
                self.drains.changed(&cell, &old);
                return Some(cell);
            }
            (ObjectId::Environment(id), _) => {
                let cell = self.cells.get(&id).map(Arc::clone)?;
                let old = cell.offer();
                cell.swap(Offer::none(generation));
                self.drains.changed(&cell, &old);
                self.orphans.push(id);
                return Some(cell);
            }
        }
        None
    }

    /// Brings the sites to what the table says of these routes: together, for a shard of a large table is copied once then.
    fn serve_routes(&mut self, touched: &[ObjectId]) {
        let mut sites = HashMap::new();
        for id in touched {
            let ObjectId::Route(pattern) = id else { continue };
            let before = self.live.sites.get(pattern);
            if let Some(site) = &before {
                self.orphans.extend(site.cells().into_iter().map(|cell| cell.id.clone()));
            }
            let object = self.table.borrow().objects.get(id).cloned();
            let site = match object.map(|object| object.body) {
                Some(Body::Route(route)) => Some(Site::next(&route, before.as_ref(), |id| Arc::clone(self.cell(id)))),
                _ => None,
            };
            sites.insert(pattern.clone(), site);
        }
        self.live.sites.set_all(&sites);
    }

    /// Lets go of cells that the table does not have, and that neither a route nor a request nor a list holds.
    fn forget(&mut self) {
        let (cells, metrics) = (&mut self.cells, &self.metrics);
        self.orphans.retain(|id| match cells.get(id) {
            Some(cell) if cell.offer().environment.is_none() => {
                let held = Arc::strong_count(cell) > 1;
                if !held {
                    metrics.leave(&cell.counted);
                    cells.remove(id);
                }
                held
            }
            _ => false,
        });
    }

    fn cell(&mut self, id: &EnvironmentId) -> &Arc<Cell> {
        self.cells.entry(id.clone()).or_insert_with(|| Arc::new(Cell::new(id.clone())))
    }

    /// Choosing is a few hundred nanoseconds without a wait in it: this ends at once, but for a worker that is not run.
    async fn until_quiet(&self, cell: &Cell) {
        for _ in 0..2 {
            let side = cell.turn();
            while !cell.is_quiet(&side) {
                tokio::task::yield_now().await;
            }
        }
    }
}

fn offer(reports: &mpsc::Sender<Report>, report: Option<Report>) {
    if let Some(report) = report {
        // Full or closed: the next period says it again.
        let _ = reports.try_send(report);
    }
}
