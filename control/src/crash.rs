//! Points at which a test ends the control plane abruptly: before and after each step of a plan, when an image is built but not
//! noted, when a ref has moved but has no row.
//!
//! Without the feature `crash-points` nothing can be armed and [`Crash`] does nothing. With it, `points` is the whole list: the
//! names of steps come from one table, which does not compile while a step is missing, so that a new step is covered by itself.

use crate::plan::{Move, Step};

/// A point that may be passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Point {
    /// The step of this name was not begun.
    Before(&'static str),
    /// The step of this name was done, or has failed.
    After(&'static str),
    /// An image was built; the store does not know.
    Built,
    /// A push has moved a ref; the store does not know.
    Pushed,
}

/// The table of steps: their names, and which step has which.
macro_rules! steps {
    ($($step:pat => $name:literal,)+) => {
        #[cfg(feature = "crash-points")]
        const STEPS: &[&str] = &[$($name),+];

        /// The name of a step.
        pub(crate) fn name(step: &Step) -> &'static str {
            match step {
                $($step => $name,)+
            }
        }
    };
}

steps! {
    Step::Launch(_) => "launch",
    Step::Probe(_) => "probe",
    Step::Stop(_) => "stop",
    Step::Remove(_) => "remove",
    Step::Move(Move::Close) => "close",
    Step::Move(Move::Reopen) => "reopen",
    Step::Move(Move::Sleep) => "sleep",
    Step::Move(Move::Wake) => "wake",
    Step::Move(Move::Serve) => "serve",
    Step::Move(Move::Fail(_) | Move::Lack(_)) => "fail environment",
    Step::Forgive => "forgive",
    Step::BeginBuilding(_) => "begin building",
    Step::BeginStarting(_) => "begin starting",
    Step::Swap(_) => "swap",
    Step::Fail { .. } => "fail deployment",
    Step::Supersede(_) => "supersede",
    Step::Forget => "forget",
}

#[cfg(not(feature = "crash-points"))]
pub use off::Crash;
#[cfg(feature = "crash-points")]
pub use on::{Crash, points};

#[cfg(not(feature = "crash-points"))]
mod off {
    use super::Point;

    /// No crash is planned, and none can be.
    #[derive(Clone, Debug, Default)]
    pub struct Crash(());

    impl Crash {
        pub(crate) async fn at(&self, _: Point) {}
    }
}

#[cfg(feature = "crash-points")]
mod on {
    use std::fmt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use tokio::sync::watch;

    use super::{Point, STEPS};

    impl fmt::Display for Point {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            match self {
                Self::Before(step) => write!(f, "before {step}"),
                Self::After(step) => write!(f, "after {step}"),
                Self::Built => f.write_str("image built"),
                Self::Pushed => f.write_str("ref moved"),
            }
        }
    }

    fn all() -> impl Iterator<Item = Point> {
        let steps = STEPS.iter().flat_map(|step| [Point::Before(step), Point::After(step)]);
        [Point::Pushed, Point::Built].into_iter().chain(steps)
    }

    /// The names of all points.
    pub fn points() -> Vec<String> {
        all().map(|point| point.to_string()).collect()
    }

    /// Where the control plane is to end, if anywhere. Clones are the same plan.
    #[derive(Clone, Debug, Default)]
    pub struct Crash(Option<Arc<Armed>>);

    #[derive(Debug)]
    struct Armed {
        point: Point,
        /// How many passings are left until it happens.
        left: AtomicU32,
        end: End,
        reached: watch::Sender<bool>,
    }

    /// What happens at the point.
    #[derive(Clone, Copy, Debug)]
    enum End {
        /// The process is no more.
        Process,
        /// Nothing goes on; a test ends the control plane.
        Waits,
    }

    impl Crash {
        /// The process ends at the point's first passing. `None` where no point has this name.
        pub fn process(point: &str) -> Option<Self> {
            Self::armed(point, 1, End::Process)
        }

        /// The control plane stands still at the point's passing of this number, the first being 1; then [`Crash::reached`]
        /// returns. `None` where no point has this name.
        pub fn standstill(point: &str, passing: u32) -> Option<Self> {
            Self::armed(point, passing, End::Waits)
        }

        fn armed(point: &str, passing: u32, end: End) -> Option<Self> {
            let point = all().find(|known| known.to_string() == point)?;
            let reached = watch::Sender::new(false);
            Some(Self(Some(Arc::new(Armed { point, left: AtomicU32::new(passing), end, reached }))))
        }

        /// Waits until the point is reached; for ever where none is armed.
        pub async fn reached(&self) {
            match &self.0 {
                // It cannot be closed: we hold the sender.
                Some(armed) => drop(armed.reached.subscribe().wait_for(|reached| *reached).await),
                None => std::future::pending().await,
            }
        }

        /// The control plane passes a point. Once a standstill is reached, nobody passes any.
        pub(crate) async fn at(&self, point: Point) {
            let Some(armed) = &self.0 else { return };
            if *armed.reached.borrow() {
                std::future::pending::<()>().await;
            }
            if point == armed.point && armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                match armed.end {
                    End::Process => std::process::abort(),
                    End::Waits => {
                        armed.reached.send_replace(true);
                        std::future::pending::<()>().await;
                    }
                }
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use std::time::Duration;

        use super::*;

        #[test]
        fn every_point_can_be_armed_by_its_name_and_no_other() {
            let mut names = points();
            assert!(names.iter().all(|name| Crash::standstill(name, 1).is_some()));
            assert!(Crash::process("before nothing").is_none());
            names.sort();
            names.dedup();
            assert_eq!(names.len(), points().len(), "each has a name of its own");
        }

        #[tokio::test(start_paused = true)]
        async fn a_standstill_comes_at_its_passing_and_lasts() {
            let crash = Crash::standstill("before launch", 2).expect("a point");
            let passes = async |point| tokio::time::timeout(Duration::from_secs(1), crash.at(point)).await.is_ok();
            assert!(passes(Point::Before("launch")).await);
            assert!(passes(Point::After("launch")).await);
            assert!(!passes(Point::Before("launch")).await);
            crash.reached().await;
            assert!(!passes(Point::Built).await, "nobody goes on");
        }
    }
}
